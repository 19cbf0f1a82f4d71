//! Tasks whose server asks back in the middle of the call (MCP 2026-07-28, multi round-trip requests): the task waits for its
//! client, and goes on with another call that carries the answers.

use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Following, TASK_PREFIX};
use crate::adapters::store::{Effect, StoreError};
use crate::adapters::upstream::Envelope;
use crate::domain::approval::Approval;
use crate::domain::call::{Caller, ToolCall};
use crate::domain::json::{Limits, Object, Value};
use crate::domain::text::shortened;
use crate::gateway::run::MOST_KEPT;
use crate::gateway::{Attempt, Gateway, Refusal, Said};

/// What a server asks in the middle of a call (MCP 2026-07-28, multi round-trip requests).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    result_type: String,
    #[serde(default)]
    input_requests: serde_json::Map<String, serde_json::Value>,
    request_state: Option<String>,
}

impl Asked {
    /// Reads an answer; nothing if it ends the call.
    pub(super) fn read(answer: &[u8]) -> Option<Self> {
        let asked: Self = serde_json::from_str(Envelope::read(answer).ok()?.result?.get()).ok()?;
        (asked.result_type == "input_required").then_some(asked)
    }
}

/// What becomes of what a client says to a task.
pub enum Replied {
    /// There is no such task.
    Unknown,
    /// Nothing was asked.
    Nothing,
    /// It is no answer, for this reason.
    Wrong(String),
    /// The task goes on.
    GoesOn(Box<GoesOn>),
}

/// A task that goes on with another call. While this lives the task counts as running.
pub struct GoesOn {
    /// The task, by the approval of its first call.
    task: String,
    /// The approval of its call before.
    pub approval: String,
    /// The call.
    pub call: ToolCall,
    _following: Following,
}

impl Gateway {
    /// What a client answers to what the server of a task asked. All of it at once: `responses` by the names of the requests.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn told(&self, id: &str, caller: &Caller, server: &str, responses: &Object) -> Result<Replied, StoreError> {
        let Some(held) = self.own_task(id, caller, server).await? else { return Ok(Replied::Unknown) };
        let task = id.strip_prefix(TASK_PREFIX).unwrap_or(id).to_owned();
        let id = held.approval.request().id.clone();
        // From here on it counts as running, and only now is it read what was asked: a second answer makes no second call.
        let Some(following) = self.follow(&going_on(&id)) else { return Ok(Replied::Nothing) };
        let (Some(kept), Some(answer)) = (self.kept(&id).await?, self.store.answer(&id).await?) else { return Ok(Replied::Nothing) };
        let (false, Some(asked)) = (kept.over || kept.on.is_some(), Asked::read(&answer)) else { return Ok(Replied::Nothing) };
        // A server may ask for nothing but another try, with its state.
        if responses.is_empty() && !asked.input_requests.is_empty() {
            return Ok(Replied::Nothing);
        }
        let mut given = Object::default();
        for name in asked.input_requests.keys() {
            match responses.get(name) {
                Some(response) => given.insert(name, response.clone()),
                None => return Ok(Replied::Wrong(format!("the server asks for `{}` as well: answer all of it at once", shortened(name, 80)))),
            }
        }
        let mut call = match ToolCall::parse(kept.call.as_bytes(), Limits::default()) {
            Ok(call) => call,
            Err(error) => return Err(StoreError::Corrupt(format!("task {id}: {error}"))),
        };
        call.extras.insert("inputResponses", Value::Object(given));
        call.extras.remove("requestState");
        if let Some(state) = asked.request_state {
            call.extras.insert("requestState", Value::from(state.as_str()));
        }
        if let Approval::Settled(stage) = &held.approval {
            // Whoever answers has read it: the same call is a new one from now on.
            self.collected(&held, &stage.is.outcome).await?;
        }
        Ok(Replied::GoesOn(Box::new(GoesOn { task, approval: id, call, _following: following })))
    }

    /// Goes on with a task. Answers why it ended, if it did without an answer of the server's.
    pub async fn go_on(&self, on: &GoesOn, mut attempt: Attempt) -> Option<Refusal> {
        let id = on.approval.as_str();
        let (say, mut hear) = mpsc::channel(16);
        attempt.say = say;
        let heard = async {
            while let Some(said) = hear.recv().await {
                let done = match *said {
                    Said::Task(view) => self.linked(on, &view.approval).await,
                    Said::Final(said, taken) => {
                        let kept = match *said {
                            Said::Answer(answer) => self.ended_with(id, answer.body.to_vec()).await,
                            Said::Incoming(incoming) => self.ended_with(id, incoming.message.to_vec()).await,
                            _ => Ok(()),
                        };
                        if kept.is_ok() {
                            let _ = taken.send(());
                        }
                        kept
                    }
                    Said::Answer(answer) => self.ended_with(id, answer.body.to_vec()).await,
                    Said::Incoming(incoming) if incoming.last => self.ended_with(id, incoming.message.to_vec()).await,
                    Said::Refused(refusal) => return Some(refusal),
                    Said::Incoming(_) | Said::Waiting(_) => Ok(()),
                };
                if let Err(error) = done {
                    tracing::error!(%error, task = id, "what became of a task could not be recorded; its client is asked again");
                }
            }
            None
        };
        tokio::join!(self.call(Box::new(attempt)), heard).1
    }

    /// The call of a task went on as another one, which has an approval of its own.
    async fn linked(&self, from: &GoesOn, on: &str) -> Result<(), StoreError> {
        let id = from.approval.as_str();
        let (Some(held), Some(mut kept), Some(next)) = (self.store.approval(id).await?, self.kept(id).await?, self.store.approval(on).await?) else {
            return Ok(());
        };
        if on == id {
            return Ok(());
        }
        // All that leads there is kept as long as the last.
        let (until, mut at, mut longer) = (next.approval.kept_until(), from.task.clone(), Vec::new());
        loop {
            longer.push(Effect::KeepUntil(at.clone(), until));
            match self.kept(&at).await?.and_then(|kept| kept.on) {
                Some(next) if at != id => at = next,
                _ => break,
            }
        }
        kept.on = Some(on.to_owned());
        self.keep(&held.approval, &kept, longer, json!({"task": true, "goes_on_as": on})).await
    }

    /// The answer that ends a task, a JSON-RPC response, where no approval of its own keeps it.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn ended_with(&self, id: &str, answer: Vec<u8>) -> Result<(), StoreError> {
        let (Some(held), Some(kept)) = (self.store.approval(id).await?, self.kept(id).await?) else { return Ok(()) };
        // One that is too long to be kept is not told at all, like any other.
        let effect = if answer.len() <= MOST_KEPT { Effect::KeepAnswer(id.to_owned(), answer) } else { Effect::DropAnswer(id.to_owned()) };
        self.keep(&held.approval, &kept, vec![effect], json!({"task": true, "answered": true})).await
    }
}

/// Under this name a task is followed whose client answered its server, until it is known what it goes on as.
pub(super) fn going_on(id: &str) -> String {
    format!("{id} goes on")
}
