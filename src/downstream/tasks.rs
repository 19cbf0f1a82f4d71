//! Questions about tasks of the gateway's own: held calls that their clients follow (MCP extension
//! `io.modelcontextprotocol/tasks`). Tasks of the server's pass.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer;
use super::listening::{Listening, Wanted};
use crate::adapters::store::StoreError;
use crate::adapters::upstream::{Envelope, Id, Upstream};
use crate::domain::call::{Caller, ToolCall};
use crate::domain::json::{Limits, Object, Value, read};
use crate::gateway::{Attempt, Gateway, GoesOn, Refusal, Replied, Server, TASK_PREFIX, TaskNow};
use crate::system::random_hex;

/// A question about a task of ours.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    /// The task's id.
    task_id: String,
    /// What its client answers to its server.
    input_responses: Option<Box<RawValue>>,
}

/// The question about a task of ours that a message is.
pub(super) fn ours(envelope: &Envelope<'_>) -> Option<Question> {
    if !["tasks/get", "tasks/cancel", "tasks/update"].iter().any(|method| envelope.is(method)) {
        return None;
    }
    let question: Question = serde_json::from_str(envelope.params?.get()).ok()?;
    question.task_id.starts_with(TASK_PREFIX).then_some(question)
}

/// Who asks about a task, and where it would go on.
pub(super) struct Asking<'a> {
    pub gateway: &'a Arc<Gateway>,
    pub server: &'a Arc<Server>,
    pub upstream: Arc<dyn Upstream>,
    pub caller: Caller,
    pub tasks: &'a TaskTracker,
    /// Gives a resumed task up.
    pub gone: CancellationToken,
}

impl Asking<'_> {
    /// The answer to `tasks/get`, `tasks/cancel` or `tasks/update` of a task of ours.
    pub(super) async fn answer(self, id: &Id, method: &str, question: &Question) -> String {
        let (name, task) = (&self.server.name, question.task_id.as_str());
        let unknown = || answer::error(Some(id), -32602, "there is no such task");
        let view = match method {
            "tasks/cancel" => match self.gateway.cancel_task(task, &self.caller, name).await {
                Ok(true) => return answer::acknowledged(id),
                Ok(false) => return unknown(),
                Err(error) => Err(error),
            },
            "tasks/update" => {
                // Read as strictly as a call, for it becomes a part of one.
                let given = question.input_responses.as_ref().map(|raw| read(raw.get().as_bytes(), Limits::default()));
                let responses = match given {
                    None => Object::default(),
                    Some(Ok(Value::Object(responses))) => responses,
                    Some(Ok(other)) => return answer::error(Some(id), -32602, &format!("`inputResponses` must be an object, not {}", other.kind())),
                    Some(Err(error)) => return answer::error(Some(id), -32602, &format!("`inputResponses` was refused: {error}")),
                };
                match self.gateway.told(task, &self.caller, name, &responses).await {
                    Ok(Replied::Unknown) => return unknown(),
                    Ok(Replied::Nothing) => return answer::acknowledged(id),
                    Ok(Replied::Wrong(why)) => return answer::error(Some(id), -32602, &why),
                    Ok(Replied::GoesOn(on)) => {
                        self.go_on(*on);
                        return answer::acknowledged(id);
                    }
                    Err(error) => Err(error),
                }
            }
            _ => self.gateway.task(task, &self.caller, name).await,
        };
        match view {
            Ok(None) => unknown(),
            Ok(Some(view)) => {
                if matches!(view.now, TaskNow::Waiting(_) | TaskNow::Running) {
                    self.resume(task).await;
                }
                answer::task(id, &view, false)
            }
            Err(error) => {
                tracing::error!(%error, "a task could not be looked up");
                answer::error(Some(id), -32603, "the gateway cannot look up the task now: ask again")
            }
        }
    }

    /// What a client hears from now on of those tasks that are its own; others are like those that are not there.
    pub(super) async fn listening(&self, id: &Id, wanted: &Wanted) -> Result<Listening, StoreError> {
        let (gateway, server, caller) = (self.gateway.clone(), self.server.name.clone(), self.caller.clone());
        // Before the tasks are looked up, so that no change after that is missed.
        let changes = gateway.store.changes();
        let mut own = Vec::new();
        for task in &wanted.tasks {
            let Some(goes_on) = gateway.task_goes_on(task, &caller, &server).await? else { continue };
            own.push(task.clone());
            if goes_on {
                self.resume(task).await;
            }
        }
        Ok(Listening::new(gateway, server, caller, id.clone(), &own, changes))
    }

    /// Somebody must wait for the task; after a restart nobody does.
    async fn resume(&self, task: &str) {
        let (approval, call) = match self.gateway.forsaken(task).await {
            Ok(Some(forsaken)) => forsaken,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "a task could not be resumed"),
        };
        let Some(attempt) = self.attempt(call) else { return };
        let gateway = self.gateway.clone();
        self.tasks.spawn(async move { gateway.resume(&approval, attempt).await });
    }

    /// A task goes on with another call.
    fn go_on(&self, on: GoesOn) {
        let Some(attempt) = self.attempt(on.call.clone()) else { return };
        let gateway = self.gateway.clone();
        self.tasks.spawn(async move {
            // Whether it is good for another try stands in the words; whatever did not run is told by the next question.
            if let Some(refusal) = gateway.go_on(&on, attempt).await.filter(|refusal| !matches!(refusal, Refusal::Failed { .. })) {
                let answer = answer::refused(&Id::Number(0), &refusal, true, true);
                if let Err(error) = gateway.ended_with(&on.approval, answer.into_bytes()).await {
                    tracing::error!(%error, "the end of a task could not be recorded; its client is asked again");
                }
            }
        });
    }

    /// An attempt that nobody listens to: the task's answer is kept.
    fn attempt(&self, call: ToolCall) -> Option<Attempt> {
        let id = match random_hex::<8>() {
            Ok(id) => Id::Text(format!("countersign-task-{id}")),
            Err(error) => {
                tracing::error!(%error, "a task could not go on");
                return None;
            }
        };
        let (say, _) = tokio::sync::mpsc::channel(1);
        let (upstream, caller, server) = (self.upstream.clone(), self.caller.clone(), self.server.clone());
        Some(Attempt {
            server,
            upstream,
            caller,
            call,
            id,
            headers: None,
            client: None,
            round: 0,
            session: None,
            away: Arc::default(),
            gone: self.gone.clone(),
            say,
        })
    }
}
