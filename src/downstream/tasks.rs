//! Questions about tasks of the gateway's own: held calls that their clients follow (MCP extension
//! `io.modelcontextprotocol/tasks`). Tasks of the server's pass.

use std::sync::Arc;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer;
use super::listening::{Listening, Wanted};
use crate::adapters::store::StoreError;
use crate::adapters::upstream::{Envelope, Id, Upstream};
use crate::domain::call::Caller;
use crate::gateway::{Attempt, Gateway, Server, TASK_PREFIX, TaskNow};
use crate::system::random_hex;

/// The id of a task of ours that a message is about.
pub(super) fn ours(envelope: &Envelope<'_>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct About {
        task_id: String,
    }
    if !["tasks/get", "tasks/cancel", "tasks/update"].iter().any(|method| envelope.is(method)) {
        return None;
    }
    let about: About = serde_json::from_str(envelope.params?.get()).ok()?;
    about.task_id.starts_with(TASK_PREFIX).then_some(about.task_id)
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
    pub(super) async fn answer(self, id: &Id, method: &str, task: &str) -> String {
        let name = &self.server.name;
        let unknown = || answer::error(Some(id), -32602, "there is no such task");
        let view = match method {
            "tasks/cancel" => match self.gateway.cancel_task(task, &self.caller, name).await {
                Ok(true) => return answer::acknowledged(id),
                Ok(false) => return unknown(),
                Err(error) => Err(error),
            },
            _ => self.gateway.task(task, &self.caller, name).await,
        };
        match view {
            Ok(None) => unknown(),
            // Nothing was asked for that an update could answer.
            Ok(Some(_)) if method == "tasks/update" => answer::acknowledged(id),
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
        let (call, id) = match (self.gateway.forsaken(task).await, random_hex::<8>()) {
            (Ok(Some(call)), Ok(id)) => (call, Id::Text(format!("countersign-task-{id}"))),
            (Ok(None), _) => return,
            (Err(error), _) => return tracing::error!(%error, "a task could not be resumed"),
            (_, Err(error)) => return tracing::error!(%error, "a task could not be resumed"),
        };
        // What is said goes nowhere; the task's answer is kept.
        let (say, _) = tokio::sync::mpsc::channel(1);
        let (upstream, caller, server) = (self.upstream.clone(), self.caller.clone(), self.server.clone());
        let attempt = Attempt {
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
        };
        let (gateway, task) = (self.gateway.clone(), task.to_owned());
        self.tasks.spawn(async move { gateway.resume(&task, attempt).await });
    }
}
