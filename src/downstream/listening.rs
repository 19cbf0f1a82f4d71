//! Clients that listen for what becomes of tasks of ours (`subscriptions/listen` with `taskIds`, MCP 2026-07-28 and the
//! extension `io.modelcontextprotocol/tasks`). What else such a request asks for is the server's to tell.

use std::collections::{HashMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer;
use super::children::subscription;
use crate::adapters::upstream::{Envelope, Id};
use crate::domain::call::Caller;
use crate::domain::clock::Timestamp;
use crate::gateway::{Gateway, TASK_PREFIX, TaskNow};

/// Most tasks of ours that one request listens for.
const MOST_TASKS: usize = 256;
/// How often tasks are looked at although nothing changed here: another gateway may have changed them.
const LOOK: Duration = Duration::from_secs(15);

/// A request to hear of tasks of ours.
pub(super) struct Wanted {
    /// Their ids, which may be anybody's.
    pub tasks: Vec<String>,
    /// The parameters of the same request for the server; nothing where it asks for nothing else.
    pub rest: Option<Value>,
}

impl Wanted {
    /// Reads a message; nothing if it names no task of ours.
    ///
    /// # Errors
    /// What is wrong with it, for its client.
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Option<Self>, String> {
        if !envelope.is("subscriptions/listen") || envelope.id().is_none() {
            return Ok(None);
        }
        let Some(mut params) = envelope.params.and_then(|params| serde_json::from_str::<Value>(params.get()).ok()) else { return Ok(None) };
        let Some(asked) = params.get_mut("notifications").and_then(Value::as_object_mut) else { return Ok(None) };
        let Some(all) = asked.get_mut("taskIds").and_then(Value::as_array_mut) else { return Ok(None) };
        let is_ours = |id: &Value| id.as_str().is_some_and(|id| id.starts_with(TASK_PREFIX));
        let mut tasks: Vec<String> = all.iter().filter(|id| is_ours(id)).filter_map(|id| id.as_str().map(str::to_owned)).collect();
        all.retain(|id| !is_ours(id));
        if all.is_empty() {
            asked.remove("taskIds");
        }
        let more =
            asked.values().any(|value| !matches!(value, Value::Null | Value::Bool(false)) && value.as_array().is_none_or(|list| !list.is_empty()));
        tasks.sort_unstable();
        tasks.dedup();
        match tasks.len() {
            0 => Ok(None),
            1..=MOST_TASKS => Ok(Some(Self { tasks, rest: more.then_some(params) })),
            many => Err(format!("one request listens for at most {MOST_TASKS} tasks, and this one names {many}")),
        }
    }

    /// The message for the server, where there is one.
    pub(super) fn message(&self, id: &Id) -> Option<String> {
        let params = self.rest.as_ref()?;
        Some(json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params}).to_string())
    }
}

/// How a task stood: another is worth telling.
type Stand = (Discriminant<TaskNow>, Timestamp);

/// What a client that listens is told of tasks of ours.
pub(super) struct Listening {
    gateway: Arc<Gateway>,
    server: String,
    caller: Caller,
    /// Its request: every message carries it.
    id: Id,
    /// Its tasks, and how they stood when it was told last.
    tasks: HashMap<String, Option<Stand>>,
    /// The tasks by the approvals that they stand at now, where those are not their first.
    later: HashMap<String, String>,
    /// Tasks that may have changed.
    due: VecDeque<String>,
    changes: broadcast::Receiver<Arc<str>>,
    look: tokio::time::Interval,
    acknowledged: bool,
}

impl Listening {
    /// Listens for `tasks`, which are the caller's.
    pub(super) fn new(
        gateway: Arc<Gateway>,
        server: String,
        caller: Caller,
        id: Id,
        tasks: &[String],
        changes: broadcast::Receiver<Arc<str>>,
    ) -> Self {
        // Where they stand now comes first: a task may have changed since its client heard of it.
        let (due, tasks) = (tasks.iter().cloned().collect(), tasks.iter().map(|task| (task.clone(), None)).collect());
        Self { gateway, server, caller, id, tasks, later: HashMap::new(), due, changes, look: tokio::time::interval(LOOK), acknowledged: false }
    }

    /// The first message, where no server is asked for anything. Nothing is told before.
    pub(super) fn acknowledgement(&mut self) -> Bytes {
        self.acknowledged = true;
        answer::listens(&self.id, &self.sorted()).into()
    }

    fn sorted(&self) -> Vec<&String> {
        let mut tasks: Vec<_> = self.tasks.keys().collect();
        tasks.sort_unstable();
        tasks
    }

    /// A message of the server's for this request, as the client gets it: the acknowledgement with our tasks in it. Nothing
    /// where the server knows no subscriptions, which does not keep the client from hearing of ours.
    pub(super) fn heard(&mut self, message: Bytes) -> Option<Bytes> {
        let with_ours = |envelope: &Envelope<'_>| {
            let mut params: Value = serde_json::from_str(envelope.params?.get()).ok()?;
            let all = params.get_mut("notifications")?.as_object_mut()?.entry("taskIds").or_insert_with(|| json!([]));
            all.as_array_mut()?.extend(self.sorted().into_iter().map(|task| json!(task)));
            Some(json!({"jsonrpc": "2.0", "method": answer::LISTENS, "params": params}).to_string().into())
        };
        let envelope = match Envelope::read(&message) {
            Ok(envelope) if !self.acknowledged => envelope,
            _ => return Some(message),
        };
        let code = || serde_json::from_str::<Value>(envelope.error?.get()).ok()?.get("code")?.as_i64();
        if envelope.answers(&self.id) && code() == Some(-32601) {
            return None;
        }
        let Some(acknowledged) = Some(&envelope).filter(|e| e.is(answer::LISTENS)).and_then(with_ours) else { return Some(message) };
        self.acknowledged = true;
        Some(acknowledged)
    }

    /// The next that is to be told. Nothing is lost if it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Bytes {
        loop {
            while let Some(task) = self.due.front() {
                match self.gateway.task(task, &self.caller, &self.server).await {
                    Ok(Some(view)) => {
                        let now = (discriminant(&view.now), view.updated);
                        if view.id.strip_prefix(TASK_PREFIX) != Some(&view.approval) {
                            self.later.insert(view.approval.clone(), view.id.clone());
                        }
                        let news = self.tasks.insert(view.id.clone(), Some(now)) != Some(Some(now));
                        self.due.pop_front();
                        if news {
                            return answer::task_news(&self.id, &view).into();
                        }
                    }
                    Ok(None) => drop(self.due.pop_front()),
                    // It is looked at again a little later.
                    Err(error) => {
                        tracing::warn!(%error, "a task could not be looked up for a client that listens");
                        self.due.clear();
                    }
                }
            }
            tokio::select! {
                changed = self.changes.recv() => match changed {
                    Ok(approval) => {
                        let task = self.later.get(&*approval).cloned().unwrap_or_else(|| format!("{TASK_PREFIX}{approval}"));
                        if self.tasks.contains_key(&task) {
                            self.due.push_back(task);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_all(),
                    // The store is closed: the program ends.
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                },
                _ = self.look.tick() => self.look_at_all(),
            }
        }
    }

    fn look_at_all(&mut self) {
        self.due = self.tasks.keys().cloned().collect();
    }

    /// Tells `to` what the server says and what becomes of our tasks, until the server's part or the client is gone.
    pub(super) async fn tell(mut self, server: Option<impl Stream<Item = Bytes> + Unpin>, to: mpsc::Sender<Bytes>) {
        let (mut server, closing) = (server, self.gateway.closing.clone());
        if server.is_none() && to.send(self.acknowledgement()).await.is_err() {
            return;
        }
        loop {
            let said = async {
                match &mut server {
                    Some(server) => server.next().await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                () = to.closed() => return,
                () = closing.cancelled() => {
                    drop(to.send(answer::listened(&self.id).into()).await);
                    return;
                }
                said = said => match said {
                    Some(message) => match self.heard(message) {
                        Some(message) => message,
                        None => {
                            server = None;
                            self.acknowledgement()
                        }
                    },
                    None => return,
                },
                news = self.next(), if self.acknowledged => news,
            };
            if to.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Requests of one pipe's client that listen for tasks of ours.
#[derive(Default)]
pub(super) struct Listeners(Mutex<HashMap<Id, Listener>>);

struct Listener {
    /// Where what the server says for it goes, where the server was asked too.
    to: Option<mpsc::Sender<Bytes>>,
    ended: CancellationToken,
}

/// Most requests of one client that listen.
const MOST_LISTENERS: usize = 64;

impl Listeners {
    fn all(&self) -> MutexGuard<'_, HashMap<Id, Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request: what the server says for it, if it is asked, and what ends it. Nothing if there are too many, or
    /// one has that id.
    pub(super) fn begin(&self, id: &Id, with_server: bool) -> Option<(Option<mpsc::Receiver<Bytes>>, CancellationToken)> {
        let mut all = self.all();
        if all.len() >= MOST_LISTENERS || all.contains_key(id) {
            return None;
        }
        let (to, said) = mpsc::channel(MOST_TASKS);
        let ended = CancellationToken::new();
        all.insert(id.clone(), Listener { to: with_server.then_some(to), ended: ended.clone() });
        Some((with_server.then_some(said), ended))
    }

    /// Ends a request. Answers whether the server has not heard of it.
    pub(super) fn end(&self, id: &Id) -> bool {
        self.all().remove(id).is_some_and(|listener| {
            listener.ended.cancel();
            listener.to.is_none()
        })
    }

    /// Gives a message of the server's to the request that it is for, or back.
    pub(super) async fn hand(&self, message: Bytes) -> Option<Bytes> {
        let to = {
            let mut all = self.all();
            if all.is_empty() {
                return Some(message);
            }
            let Ok(envelope) = Envelope::read(&message) else { return Some(message) };
            match &envelope.method {
                Some(_) => subscription(&envelope).and_then(|id| all.get(&id)?.to.clone()),
                // The answer is the last.
                None => envelope.id().and_then(|id| all.get_mut(id)?.to.take()),
            }
        };
        match to {
            Some(to) => to.send(message).await.err().map(|lost| lost.0),
            None => Some(message),
        }
    }
}
