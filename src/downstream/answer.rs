//! Every word that an agent is told: whether the call ran, what to do, and no internals of any policy.
//!
//! A call that did not run is a tool result with `isError: true`, because clients show that to the model and would
//! throw on a JSON-RPC error or on a result without the tool's structured content. `_meta` carries the state for
//! machines under `dev.countersign/call`.

use serde_json::{Value, json};

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
    let (status, message) = match &view.now {
        TaskNow::Waiting(waiting) => ("working", Some(asked(waiting))),
        TaskNow::Running => ("working", Some("Approved; the call runs".into())),
        TaskNow::Cancelled => ("cancelled", Some("Taken back; the call was NOT executed".into())),
        TaskNow::Answered(_) => ("completed", None),
        TaskNow::Refused(refusal) => ("completed", Some(words(refusal).0)),
    };
    let mut task = json!({
        "resultType": if created { "task" } else { "complete" }, "taskId": view.id, "status": status, "createdAt": view.created.to_string(),
        "lastUpdatedAt": view.updated.to_string(), "ttlMs": view.ttl_ms, "pollIntervalMs": POLL_MS,
    });
    let mut put = |name: &str, value: Value| {
        if let Some(task) = task.as_object_mut() {
            task.insert(name.into(), value);
        }
    };
    if let Some(message) = message {
        put("statusMessage", message.into());
    }
    match &view.now {
        TaskNow::Refused(refusal) => put("result", tool_result(refusal, true)),
        TaskNow::Answered(kept) => {
            let whole: Value = serde_json::from_slice(kept).unwrap_or_default();
            match (whole.get("result"), whole.get("error")) {
                // What a server asks in the middle of a call nobody can answer for a task.
                (Some(result), _) if result.get("resultType").is_some_and(|kind| kind != "complete") => {
                    put("status", "failed".into());
                    put(
                        "error",
                        json!({"code": -31007, "message": "the server did not end the call, and asks for what a task cannot give: call again without tasks"}),
                    );
                }
                (Some(result), _) => put("result", result.clone()),
                (None, error) => {
                    put("status", "failed".into());
                    put("error", error.cloned().unwrap_or_else(|| json!({"code": -32603, "message": "the server's answer cannot be read"})));
                }
            }
        }
        _ => {}
    }
    json!({"jsonrpc": "2.0", "id": id, "result": task}).to_string()
}

/// How often the state of a task is worth asking for, in milliseconds.
const POLL_MS: u64 = 2000;
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
