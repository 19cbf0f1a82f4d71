//! Every word that an agent is told: whether the call ran, what to do, and no internals of any policy.
//!
//! A call that did not run is a tool result with `isError: true`, because clients show that to the model and would
//! throw on a JSON-RPC error or on a result without the tool's structured content. `_meta` carries the state for
//! machines under `dev.countersign/call`.

use serde_json::{Map, Value, json};

use crate::adapters::upstream::Id;
use crate::domain::approval::Outcome;
use crate::domain::clock::spoken;
use crate::domain::text::visible;
use crate::gateway::{Refusal, TaskNow, TaskView, Waiting};

/// The answer to a call that the gateway answers itself.
pub(super) fn refused(id: &Id, refusal: &Refusal, stateless: bool, is_tool: bool) -> String {
    if let Refusal::Header { name } = refusal {
        return error(Some(id), -32020, &format!("the header `{name}` does not say what the body says"));
    }
    if let Refusal::State { why } = refusal {
        return error(Some(id), -32602, why);
    }
    if let Refusal::Again { state, waiting } = refusal {
        let result = json!({"resultType": "input_required", "requestState": state, "_meta": {CALL: {"state": "pending", "approval": waiting.approval, "executed": false}}});
        return json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    }
    if !is_tool {
        let (text, state, approval) = words(refusal);
        let data = json!({CALL: {"state": state, "approval": approval, "executed": executed(refusal)}});
        return json!({"jsonrpc": "2.0", "id": id, "error": {"code": -31002, "message": text, "data": data}}).to_string();
    }
    json!({"jsonrpc": "2.0", "id": id, "result": tool_result(refusal, stateless)}).to_string()
}

/// The result of a tool that did not run.
fn tool_result(refusal: &Refusal, stateless: bool) -> Value {
    let (text, state, approval) = words(refusal);
    let mut result = json!({
        "content": [{"type": "text", "text": text}],
        "isError": true,
        "_meta": {CALL: {"state": state, "approval": approval, "executed": executed(refusal)}},
    });
    if let (true, Some(result)) = (stateless, result.as_object_mut()) {
        result.insert("resultType".into(), "complete".into());
    }
    result
}

/// A held call that goes on as a task, or the task when its client asks for it (MCP extension
/// `io.modelcontextprotocol/tasks`).
pub(super) fn task(id: &Id, view: &TaskView, created: bool) -> String {
    let mut result = task_state(view);
    result.insert("resultType".into(), if created { "task" } else { "complete" }.into());
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

/// What a client is told that listens for a task with the request `subscription`.
pub(super) fn task_news(subscription: &Id, view: &TaskView) -> String {
    let mut params = task_state(view);
    params.insert("_meta".into(), json!({SUBSCRIPTION: subscription}));
    json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": params}).to_string()
}

/// The first message to a client that listens for tasks of ours alone.
pub(super) fn listens(subscription: &Id, tasks: &[&String]) -> String {
    let params = json!({"notifications": {"taskIds": tasks}, "_meta": {SUBSCRIPTION: subscription}});
    json!({"jsonrpc": "2.0", "method": LISTENS, "params": params}).to_string()
}

/// The last message to a client that listens: the gateway ends.
pub(super) fn listened(subscription: &Id) -> String {
    json!({"jsonrpc": "2.0", "id": subscription, "result": {"resultType": "complete", "_meta": {SUBSCRIPTION: subscription}}}).to_string()
}

/// Where a task stands.
fn task_state(view: &TaskView) -> Map<String, Value> {
    // A call that did not run is a result for the model to read; only what no tool said is a failure.
    let (status, message, end) = match &view.now {
        TaskNow::Waiting(waiting) => ("working", Some(asked(waiting)), None),
        TaskNow::Running => ("working", Some("Approved; the call runs".into()), None),
        TaskNow::Cancelled => ("cancelled", Some("Taken back; the call was NOT executed".into()), None),
        TaskNow::Refused(refusal) => ("completed", Some(words(refusal).0), Some(("result", tool_result(refusal, true)))),
        TaskNow::Asking(kept) => {
            let mut whole: Value = serde_json::from_slice(kept).unwrap_or_default();
            let asked = whole.pointer_mut("/result/inputRequests").map(Value::take).unwrap_or_else(|| json!({}));
            ("input_required", Some("The server asks for more before the call can end".into()), Some(("inputRequests", asked)))
        }
        TaskNow::Answered(kept) => {
            let mut whole: Map<String, Value> = serde_json::from_slice(kept).unwrap_or_default();
            let (result, error) = (whole.remove("result").unwrap_or_default(), whole.remove("error").unwrap_or_default());
            if result.get("resultType").is_some_and(|kind| kind != "complete") {
                // A task of the server's own, which it was not told that anybody could follow.
                let why = "the server did not end the call, and answered in a way that a task cannot: call again without tasks";
                ("failed", None, Some(("error", json!({"code": -31007, "message": why}))))
            } else if !result.is_null() {
                ("completed", None, Some(("result", result)))
            } else if !error.is_null() {
                ("failed", None, Some(("error", error)))
            } else {
                ("failed", None, Some(("error", json!({"code": -32603, "message": "the server's answer cannot be read"}))))
            }
        }
    };
    let mut task = Map::new();
    task.insert("taskId".into(), view.id.as_str().into());
    task.insert("status".into(), status.into());
    task.insert("createdAt".into(), view.created.to_string().into());
    task.insert("lastUpdatedAt".into(), view.updated.to_string().into());
    task.insert("ttlMs".into(), view.ttl_ms.into());
    task.insert("pollIntervalMs".into(), POLL_MS.into());
    task.extend(message.map(|message| ("statusMessage".into(), message.into())));
    task.extend(end.map(|(name, end)| (name.into(), end)));
    task
}

/// How often the state of a task is worth asking for, in milliseconds.
const POLL_MS: u64 = 2000;
/// The first notification to a client that listens (MCP 2026-07-28).
pub(super) const LISTENS: &str = "notifications/subscriptions/acknowledged";
/// The `_meta` key that ties a notification to the request that subscribed to it.
pub(super) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// Where the state of a call stands for machines.
const CALL: &str = "dev.countersign/call";

/// What `tasks/update` and `tasks/cancel` are answered.
pub(super) fn acknowledged(id: &Id) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete"}}).to_string()
}

/// A progress message for a call that waits. Ours count in millionths, so that the server's own progress, which starts
/// over after the approval, still rises.
pub(super) fn progress(token: &str, count: u64, waiting: &Waiting) -> String {
    let token: Value = serde_json::from_str(token).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a count of messages is far below 2^52")]
    let progress = count as f64 / 1_000_000.0;
    let params = json!({"progressToken": token, "progress": progress, "message": asked(waiting)});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string()
}

/// A JSON-RPC error.
pub(super) fn error(id: Option<&Id>, code: i32, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

fn asked(waiting: &Waiting) -> String {
    let (quorum, given) = waiting.quorum;
    let who = waiting.approvers.join(" or ");
    let many = if quorum > 1 { format!(" ({given} of {quorum} have approved)") } else { String::new() };
    format!("Waiting for {who} to approve{many}: {} ({} left)", waiting.place, spoken(waiting.left))
}

fn executed(refusal: &Refusal) -> Value {
    match refusal {
        Refusal::Unknown { .. } | Refusal::Running { .. } => "unknown".into(),
        Refusal::Answered { .. } => true.into(),
        _ => false.into(),
    }
}

fn words(refusal: &Refusal) -> (String, &'static str, Option<&str>) {
    match refusal {
        Refusal::Denied { because } => (format!("This call was NOT executed. It is not allowed here: {}", visible(because)), "denied", None),
        Refusal::Pending(waiting) => {
            let text = format!(
                "This call was NOT executed yet. {}. Its approval is {}. Repeat exactly the same call to collect the result; \
                 it is not asked twice and runs at most once.",
                asked(waiting),
                waiting.approval
            );
            (text, "pending", Some(&waiting.approval))
        }
        Refusal::Ended { approval, outcome } => {
            let how = match outcome {
                // What a person wrote goes to a model: in quotes, on one line, and cut short.
                Outcome::Denied { by, reason: Some(reason) } => {
                    let reason: String = visible(reason).chars().take(300).collect();
                    format!("{by} denied it. They wrote: \"{reason}\"")
                }
                Outcome::Denied { by, reason: None } => format!("{by} denied it"),
                Outcome::Expired { clock } if clock == "decide-by" => "nobody decided in time. Repeating the call asks again".into(),
                Outcome::Expired { .. } => "it was approved, but not used in time. Repeating the call asks again".into(),
                Outcome::Cancelled { .. } => "the question was taken back".into(),
                Outcome::Revoked { .. } => {
                    "it was approved, but the tool, its policy or its approvers changed before it ran. Repeating the call asks again".into()
                }
                Outcome::Failed { .. } => "the server could not be reached".into(),
                Outcome::Completed { .. } | Outcome::OutcomeUnknown { .. } => "it is over".into(),
            };
            (format!("This call was NOT executed: {how}. (approval {approval})"), outcome.name(), Some(approval))
        }
        Refusal::Again { waiting, .. } => (asked(waiting), "pending", Some(&waiting.approval)),
        Refusal::State { why } => (format!("This call was NOT executed: {why}."), "failed", None),
        Refusal::Header { name } => (format!("This call was NOT executed: the header `{name}` does not say what the body says."), "failed", None),
        Refusal::Failed { why, approval } => {
            let next = match approval {
                Some(id) => format!(" Its approval {id} is still good: repeat exactly the same call."),
                None => String::new(),
            };
            (format!("This call was NOT executed: {}.{next}", visible(why)), "failed", approval.as_deref())
        }
        Refusal::Answered { approval } => (
            format!("This call was executed once, and its result went to another request of yours (approval {approval}). Nothing was executed now."),
            "answered",
            Some(approval),
        ),
        Refusal::Running { approval } => (
            format!(
                "This call is being executed right now, for another request of yours (approval {approval}). Repeat exactly the same call to \
                 collect its result; it is not executed again."
            ),
            "running",
            Some(approval),
        ),
        Refusal::Unknown { subject } => (
            format!(
                "It is UNKNOWN whether this call was executed: it was sent and no answer came back ({subject}). It is not repeated. Look at the target before you try again."
            ),
            "outcome-unknown",
            Some(subject),
        ),
    }
}
