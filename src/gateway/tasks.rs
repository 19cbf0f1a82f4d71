//! Held calls that their clients follow as tasks (MCP extension `io.modelcontextprotocol/tasks`): they outlive requests,
//! connections and this process.
//!
//! A task is an approval, named by its id and bound to its caller. While it waits, somebody waits for it in the gateway
//! that made it, or in the one that was asked for it last; after a restart the first question brings it back to life.
//!
//! A server may ask back in the middle of a call. Then the task waits for its client, and what the client answers makes
//! another call, judged and approved like any: the task goes on as that one.

mod asked_back;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{broadcast, mpsc};

use super::{Attempt, Gateway, Refusal, RouteError, Said, Waiting};
use crate::adapters::channel::DeskError;
use crate::adapters::store::{Change, Effect, StoreError, Versioned};
use crate::domain::approval::{Approval, Outcome};
use crate::domain::audit::EventKind;
use crate::domain::call::{Caller, Method, ToolCall};
use crate::domain::clock::Timestamp;
use crate::domain::json::{Limits, Value};

use asked_back::{Asked, going_on};
pub use asked_back::{GoesOn, Replied};

/// How ids of tasks of ours begin; others are the server's.
pub const TASK_PREFIX: &str = "countersign-";
/// The extension's name.
const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// A task as its client sees it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// The approval that it stands at: its first call's, or that of the call that it goes on as.
    pub approval: String,
    /// When the call was asked for.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
    /// How long it is remembered after it was created, in milliseconds.
    pub ttl_ms: u64,
    /// Where it stands.
    pub now: TaskNow,
}

/// Where a task stands.
#[derive(Clone, Debug)]
pub enum TaskNow {
    /// It waits for people.
    Waiting(Waiting),
    /// It is approved, and runs.
    Running,
    /// It was taken back before it ran.
    Cancelled,
    /// The server's answer, a JSON-RPC response, in which it asks its client for something.
    Asking(Vec<u8>),
    /// The server's answer, a JSON-RPC response.
    Answered(Vec<u8>),
    /// It did not run, or nobody knows, or its answer is not kept.
    Refused(Refusal),
}

impl Attempt {
    /// Whether the client follows calls as tasks.
    pub(super) fn takes_tasks(&self) -> bool {
        let meta = &self.call.protocol_meta;
        let extensions = || meta.get(CAPABILITIES)?.as_object()?.get("extensions")?.as_object()?.get(EXTENSION);
        self.call.method == Method::CallTool && self.is_stateless() && extensions().is_some()
    }

    /// The same call for the task itself: nobody hears what is said of it, and the server is not told that the client could
    /// follow a task of the server's, for it follows ours.
    fn for_task(&self) -> (Self, mpsc::Receiver<Box<Said>>) {
        let (say, hear) = mpsc::channel(16);
        let mut call = self.call.clone();
        call.protocol_meta.remove("progressToken");
        if let Some(Value::Object(told)) = call.protocol_meta.get_mut(CAPABILITIES)
            && let Some(Value::Object(extensions)) = told.get_mut("extensions")
        {
            extensions.remove(EXTENSION);
        }
        let attempt = Self {
            server: self.server.clone(),
            upstream: self.upstream.clone(),
            caller: self.caller.clone(),
            call,
            id: self.id.clone(),
            headers: self.headers.clone(),
            client: self.client.clone(),
            round: 0,
            session: self.session.clone(),
            away: self.away.clone(),
            gone: self.gone.clone(),
            say,
        };
        (attempt, hear)
    }
}

/// What is kept of a task beside its approval.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The parameters of its call.
    call: String,
    /// The approval of the call that it went on as, after its client answered the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// Its client took it back while the server waited for an answer.
    #[serde(default)]
    over: bool,
}

/// Which tasks somebody waits for in this process.
pub(super) type Followed = std::sync::Mutex<HashSet<String>>;

struct Following(Arc<Followed>, String);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Gateway {
    fn follow(&self, id: &str) -> Option<Following> {
        let new = self.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        new.then(|| Following(self.followed.clone(), id.to_owned()))
    }

    fn follows(&self, id: &str) -> bool {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Answers a held call with a task, durable before the client hears of it, and goes on with it.
    pub(super) async fn as_task(&self, attempt: &Attempt, held: Versioned, changes: broadcast::Receiver<Arc<str>>) -> Result<(), RouteError> {
        let id = held.approval.request().id.clone();
        if self.store.task(&id).await?.is_none() {
            let sealed = self.sealed(&id, &Kept { call: attempt.call.forwarded(), on: None, over: false })?;
            let entry = self.entry(EventKind::Attached, Some(held.approval.request().key), Some(id.clone()), json!({"task": true}).to_string());
            self.store.commit(Change::synced(entry, vec![Effect::KeepTask(id.clone(), sealed)])).await?;
        }
        let view = self.view(&held.approval).await?;
        self.say(attempt, Said::Task(Box::new(view))).await;
        self.see_through(attempt, held, changes).await
    }

    /// Waits for a task's end and runs it when it is approved, unless somebody here does so already.
    async fn see_through(&self, attempt: &Attempt, held: Versioned, mut changes: broadcast::Receiver<Arc<str>>) -> Result<(), RouteError> {
        let Some(_following) = self.follow(&held.approval.request().id) else { return Ok(()) };
        let (own, mut hear) = attempt.for_task();
        // Nobody takes the last word, so that the answer is kept for whoever asks for the task.
        let unheard = async {
            while hear.recv().await.is_some() {}
            std::future::pending().await
        };
        tokio::select! {
            done = self.wait(&own, held, &mut changes, None) => done,
            () = unheard => Ok(()),
        }
    }

    /// Where the task of that id stands, for `caller` of `server`. One of somebody else answers like one that is not there.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn task(&self, id: &str, caller: &Caller, server: &str) -> Result<Option<TaskView>, StoreError> {
        let Some(held) = self.own_task(id, caller, server).await? else { return Ok(None) };
        let mut view = self.view(&held.approval).await?;
        if view.id != id {
            // It went on as another call: it is the same task all the same.
            let first = self.store.approval(id.strip_prefix(TASK_PREFIX).unwrap_or(id)).await?;
            let created = first.map_or(view.created, |first| first.approval.request().asked_at);
            view.ttl_ms = view.ttl_ms.saturating_add(u64::try_from(view.created.since(created).as_millis()).unwrap_or(u64::MAX));
            (view.id, view.created) = (id.to_owned(), created);
        }
        if let (TaskNow::Answered(_) | TaskNow::Asking(_), Approval::Settled(stage)) = (&view.now, &held.approval) {
            // From now on the same call is a new one; the answer stays, for a task can be asked for again.
            self.collected(&held, &stage.is.outcome).await?;
        }
        Ok(Some(view))
    }

    /// Whether the task of that id, which is of `caller` of `server`, has not ended yet; nothing if there is none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn task_goes_on(&self, id: &str, caller: &Caller, server: &str) -> Result<Option<bool>, StoreError> {
        Ok(self.own_task(id, caller, server).await?.map(|held| !matches!(held.approval, Approval::Settled(_))))
    }

    async fn own_task(&self, id: &str, caller: &Caller, server: &str) -> Result<Option<Versioned>, StoreError> {
        let Some(id) = id.strip_prefix(TASK_PREFIX) else { return Ok(None) };
        let Some(held) = self.store.approval(id).await? else { return Ok(None) };
        let request = held.approval.request();
        if request.caller != *caller || request.binding.server != server || self.store.task(id).await?.is_none() {
            return Ok(None);
        }
        let mut held = self.expired(held).await?;
        while let Some(on) = self.kept(&held.approval.request().id).await?.and_then(|kept| kept.on) {
            let next = self.store.approval(&on).await?.ok_or_else(|| StoreError::Corrupt(format!("approval {on} is gone")))?;
            held = self.expired(next).await?;
        }
        Ok(Some(held))
    }

    fn sealed(&self, id: &str, kept: &Kept) -> Result<Vec<u8>, StoreError> {
        let text = serde_json::to_string(kept).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        self.issuers.seal.seal(&place(id), &text).ok_or_else(|| StoreError::Unavailable("nothing seals tasks".into()))
    }

    async fn kept(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        let Some(sealed) = self.store.task(id).await? else { return Ok(None) };
        let open =
            self.issuers.seal.open(&place(id), &sealed).ok_or_else(|| StoreError::Corrupt(format!("the call of task {id} cannot be unsealed")))?;
        serde_json::from_str(&open).map(Some).map_err(|error| StoreError::Corrupt(format!("task {id}: {error}")))
    }

    /// Changes what is kept of a task.
    async fn keep(&self, approval: &Approval, kept: &Kept, more: Vec<Effect>, data: serde_json::Value) -> Result<(), StoreError> {
        let request = approval.request();
        let mut effects = vec![Effect::KeepTask(request.id.clone(), self.sealed(&request.id, kept)?)];
        effects.extend(more);
        let entry = self.entry(EventKind::Attached, Some(request.key), Some(request.id.clone()), data.to_string());
        self.store.commit(Change::synced(entry, effects)).await?;
        Ok(())
    }

    /// The approval and the call of a task that nobody here waits for, so that it can be resumed.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn forsaken(&self, id: &str) -> Result<Option<(String, ToolCall)>, StoreError> {
        let mut id = id.strip_prefix(TASK_PREFIX).unwrap_or(id).to_owned();
        while let Some(kept) = self.kept(&id).await? {
            match kept.on {
                Some(on) => id = on,
                None if self.follows(&id) => return Ok(None),
                None => return Ok(ToolCall::parse(kept.call.as_bytes(), Limits::default()).ok().map(|call| (id, call))),
            }
        }
        Ok(None)
    }

    /// Goes on with the call of the approval `id`, which was forsaken.
    pub async fn resume(&self, id: &str, attempt: Attempt) {
        let changes = self.store.changes();
        let done = match self.store.approval(id).await {
            Ok(Some(held)) => self.see_through(&attempt, held, changes).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::error!(%error, task = id, "a task could not be resumed; it is tried again when it is asked for");
        }
    }

    /// Takes a task back, unless it runs already. Answers whether there is such a task.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn cancel_task(&self, id: &str, caller: &Caller, server: &str) -> Result<bool, StoreError> {
        let Some(held) = self.own_task(id, caller, server).await? else { return Ok(false) };
        let latest = &held.approval.request().id;
        // While it is being answered it runs, and what is kept of it is not ours to write.
        if let Some(_following) = self.follow(&going_on(latest))
            && let (Some(kept), Some(answer)) = (self.kept(latest).await?, self.store.answer(latest).await?)
            && kept.on.is_none()
            && Asked::read(&answer).is_some()
        {
            self.keep(&held.approval, &Kept { over: true, ..kept }, vec![], json!({"task": true, "cancelled": true})).await?;
            return Ok(true);
        }
        match self.withdraw(&held.approval.request().id, "its caller cancelled the task").await {
            // Over, or running: cancelling is a wish.
            Ok(_) | Err(DeskError::Review(_) | DeskError::Unknown) => Ok(true),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    async fn view(&self, approval: &Approval) -> Result<TaskView, StoreError> {
        let request = approval.request();
        let id = request.id.clone();
        let changed = approval.reviews().last().map_or(request.asked_at, |review| review.at);
        let (now, updated) = match approval {
            Approval::Pending(_) => (TaskNow::Waiting(self.waiting(approval)), changed),
            Approval::Approved(_) | Approval::Redeemed(_) | Approval::Dispatched(_) => (TaskNow::Running, changed),
            Approval::Settled(stage) => {
                let now = match &stage.is.outcome {
                    Outcome::Cancelled { .. } => TaskNow::Cancelled,
                    Outcome::Completed { .. } => match self.store.answer(&id).await? {
                        Some(_) if self.follows(&going_on(&id)) => TaskNow::Running,
                        Some(kept) if Asked::read(&kept).is_some() => match self.kept(&id).await? {
                            Some(task) if task.over => TaskNow::Cancelled,
                            _ => TaskNow::Asking(kept),
                        },
                        Some(kept) => TaskNow::Answered(kept),
                        None => TaskNow::Refused(Refusal::Answered { approval: id.clone() }),
                    },
                    Outcome::OutcomeUnknown { .. } => TaskNow::Refused(Refusal::Unknown { subject: id.clone() }),
                    outcome => TaskNow::Refused(Refusal::Ended { approval: id.clone(), outcome: outcome.clone() }),
                };
                (now, stage.is.settled_at)
            }
        };
        let ttl_ms = u64::try_from(approval.kept_until().since(request.asked_at).as_millis()).unwrap_or(u64::MAX);
        Ok(TaskView { id: format!("{TASK_PREFIX}{id}"), approval: id, created: request.asked_at, updated, ttl_ms, now })
    }
}

fn place(id: &str) -> String {
    format!("task\n{id}")
}
