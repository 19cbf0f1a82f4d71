//! A wrapped server that speaks on pipes: whose message is whose.
//!
//! The long-lived child serves everything but calls that need a credential in the environment: each of those gets a
//! child of its own, started with the credential for exactly that call and ended after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::process::{ChildSettings, Output, Process};
use super::{Answer, Envelope, Exchange, Id, Incoming, InvokeError, Lines, MAX_MESSAGE, Outgoing, Secrets, Unanswered, Upstream};
use crate::domain::json::{Limits, Value, read};
use crate::domain::permit::Permit;
use crate::system::random_hex;

/// How long a child has to answer what the gateway itself asks it.
const OWN_QUESTION: Duration = Duration::from_secs(30);

/// A long-lived child, serving one client.
pub struct Child {
    settings: Arc<ChildSettings>,
    process: Process,
    shared: Arc<Mutex<Shared>>,
    tasks: TaskTracker,
    own_ids: AtomicU64,
    /// Before the number in ids of our own, so that no client can guess one and get our answers, or we its.
    nonce: String,
}

/// What reader tasks and callers share.
#[derive(Default)]
struct Shared {
    /// Calls whose answer is awaited.
    calls: HashMap<Id, Waiting>,
    /// The gateway's own questions.
    own: HashMap<Id, oneshot::Sender<Bytes>>,
    /// Requests of children that serve one call: the id the client knows, to the child and the id it knows.
    redirects: HashMap<Id, (Arc<Process>, Id)>,
    /// The client's `initialize` parameters, for children that serve one call.
    initialize: Option<String>,
    /// The child has ended.
    ended: bool,
}

struct Waiting {
    say: mpsc::Sender<Result<Incoming, InvokeError>>,
    token: Option<String>,
    private: Option<Arc<Process>>,
}

impl Child {
    /// Starts the server. Everything it says that belongs to no call goes to `events`, which closes when it ends.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(settings: Arc<ChildSettings>, events: mpsc::Sender<Bytes>, tasks: &TaskTracker) -> std::io::Result<Arc<Self>> {
        let nonce = random_hex::<8>().map_err(std::io::Error::other)?;
        let (process, lines) = Process::start(&settings, None, tasks)?;
        let shared = Arc::<Mutex<Shared>>::default();
        tasks.spawn(listen(lines, shared.clone(), events));
        Ok(Arc::new(Self { settings, process, shared, tasks: tasks.clone(), own_ids: AtomicU64::new(1), nonce }))
    }

    /// Sends a message of the client's that is no tool call.
    ///
    /// # Errors
    /// If the server does not take it.
    pub async fn send(&self, envelope: &Envelope<'_>) -> std::io::Result<()> {
        if envelope.method.is_none()
            && let Some(id) = envelope.id()
        {
            let redirect = self.shared().redirects.remove(id);
            if let Some((process, original)) = redirect {
                return process.write(&envelope.rebuilt(Some(&original))).await;
            }
        }
        if envelope.is("initialize") {
            self.shared().initialize = envelope.params.map(|p| p.get().to_owned());
        }
        self.process.write(&envelope.rebuilt(envelope.id())).await
    }

    /// Ends the server and everything it started.
    pub async fn end(&self) {
        self.process.end().await;
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_id(&self) -> Id {
        Id::Text(format!("countersign-{}-{}", self.nonce, self.own_ids.fetch_add(1, Ordering::Relaxed)))
    }

    /// Registers a call, so that its answer is told from everything else.
    fn await_answer(&self, call: &Outgoing, private: Option<Arc<Process>>) -> Result<mpsc::Receiver<Result<Incoming, InvokeError>>, InvokeError> {
        let (say, hear) = mpsc::channel(64);
        let mut shared = self.shared();
        if shared.ended && private.is_none() {
            return Err(InvokeError::NotSent("the server has ended".into()));
        }
        if shared.calls.contains_key(&call.id) {
            return Err(InvokeError::NotSent("a request with the same id is still running".into()));
        }
        shared.calls.insert(call.id.clone(), Waiting { say, token: call.progress_token.clone(), private });
        Ok(hear)
    }

    async fn invoke_shared(&self, call: &Outgoing) -> Result<Exchange, InvokeError> {
        let hear = self.await_answer(call, None)?;
        if let Err(error) = self.process.write(&call.message()).await {
            self.shared().calls.remove(&call.id);
            return Err(InvokeError::Lost(error.to_string()));
        }
        Ok(Exchange::Stream(hear))
    }

    /// A child for one call, with its credential.
    async fn invoke_alone(&self, secrets: &Secrets, call: &Outgoing) -> Result<Exchange, InvokeError> {
        let not_sent = |e: std::io::Error| InvokeError::NotSent(e.to_string());
        let (process, mut lines) = Process::start(&self.settings, Some(secrets), &self.tasks).map_err(not_sent)?;
        let process = Arc::new(process);
        if call.stateless_meta.is_none() {
            let initialize = self.shared().initialize.clone();
            let ready = tokio::time::timeout(OWN_QUESTION, handshake(&process, &mut lines, initialize)).await;
            ready.map_err(|_| InvokeError::NotSent("the server did not start in time".into()))??;
        }
        let hear = self.await_answer(call, Some(process.clone()))?;
        let Some(say) = self.shared().calls.get(&call.id).map(|waiting| waiting.say.clone()) else {
            return Err(InvokeError::NotSent("the call was given up".into()));
        };
        if let Err(error) = process.write(&call.message()).await {
            self.shared().calls.remove(&call.id);
            return Err(InvokeError::Lost(error.to_string()));
        }
        let (shared, id) = (self.shared.clone(), call.id.clone());
        let own_ids = self.own_ids.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            let lost = loop {
                let line = tokio::select! {
                    line = lines.next() => line,
                    // Nobody waits for it any more: it and its credential must not outlive the call.
                    () = say.closed() => break None,
                };
                match line {
                    Ok(Some(line)) => {
                        if relay_alone(line, &shared, &id, &process, own_ids).await {
                            break None;
                        }
                    }
                    Ok(None) => break Some("the server ended before it answered".to_owned()),
                    Err(error) => break Some(error.to_string()),
                }
            };
            let waiting = lock(&shared).calls.remove(&id);
            if let (Some(why), Some(waiting)) = (lost, waiting) {
                drop(waiting.say.send(Err(InvokeError::Lost(why))).await);
            }
            lock(&shared).redirects.retain(|_, (other, _)| !Arc::ptr_eq(other, &process));
            process.end().await;
        });
        Ok(Exchange::Stream(hear))
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the protocol with a child that serves one call, as the client opened it with the long-lived one.
async fn handshake(process: &Process, lines: &mut Lines<Output>, initialize: Option<String>) -> Result<(), InvokeError> {
    let not_sent = |why: String| InvokeError::NotSent(why);
    let params = initialize.ok_or_else(|| not_sent("the client did not initialize".into()))?;
    let hello = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"countersign-initialize\",\"method\":\"initialize\",\"params\":{params}}}");
    process.write(&hello.replace(['\n', '\r'], " ")).await.map_err(|e| not_sent(e.to_string()))?;
    loop {
        let line = lines.next().await.map_err(|e| not_sent(e.to_string()))?;
        let line = line.ok_or_else(|| not_sent("the server ended before it was ready".into()))?;
        let Ok(envelope) = Envelope::read(&line) else { continue };
        if envelope.method.is_none() && envelope.id() == Some(&Id::Text("countersign-initialize".into())) {
            if envelope.error.is_some() {
                return Err(not_sent("the server refused to initialize".into()));
            }
            break;
        }
    }
    let ready = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";
    process.write(ready).await.map_err(|e| not_sent(e.to_string()))
}

/// Hands on what a child that serves one call says; answers whether that was the answer.
async fn relay_alone(line: Bytes, shared: &Mutex<Shared>, call: &Id, process: &Arc<Process>, number: u64) -> bool {
    let Ok(envelope) = Envelope::read(&line) else { return false };
    let last = envelope.method.is_none() && envelope.id() == Some(call);
    if envelope.method.is_none() && !last {
        return false;
    }
    let message = match (&envelope.method, envelope.id()) {
        (Some(_), Some(id)) => {
            // Its ids may be those of the long-lived child: the client is given another, which leads back here.
            let outer = Id::Text(format!("countersign-{number}-{}", id.json().trim_matches('"')));
            lock(shared).redirects.insert(outer.clone(), (process.clone(), id.clone()));
            Bytes::from(envelope.rebuilt(Some(&outer)))
        }
        _ => line.clone(),
    };
    let say = lock(shared).calls.get(call).map(|waiting| waiting.say.clone());
    if let Some(say) = say {
        drop(say.send(Ok(Incoming { message, event: None, last })).await);
    }
    last
}

/// Reads what the long-lived child says and hands each message to whom it belongs.
async fn listen(mut lines: Lines<Output>, shared: Arc<Mutex<Shared>>, events: mpsc::Sender<Bytes>) {
    let why = loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break "the server ended".to_owned(),
            // One message that is too long loses its own call, not the others'.
            Err(super::LinesError::TooLong(most)) => {
                tracing::error!(most, "a message of the server was too long and was dropped");
                continue;
            }
            Err(error) => break error.to_string(),
        };
        match owner(&line, &shared) {
            Owner::Call(say, incoming) => drop(say.send(Ok(incoming)).await),
            Owner::Gateway(answer) => drop(answer.send(line)),
            Owner::Client => {
                if events.send(line).await.is_err() {
                    break "the client has gone".to_owned();
                }
            }
            Owner::Nobody => tracing::warn!("the server wrote a line that is no json-rpc message; it was dropped"),
        }
    };
    let calls: Vec<Waiting> = {
        let mut shared = lock(&shared);
        shared.ended = true;
        shared.own.clear();
        shared.calls.extract_if(|_, waiting| waiting.private.is_none()).map(|(_, waiting)| waiting).collect()
    };
    for waiting in calls {
        drop(waiting.say.send(Err(InvokeError::Lost(why.clone()))).await);
    }
}

enum Owner {
    Call(mpsc::Sender<Result<Incoming, InvokeError>>, Incoming),
    Client,
    Gateway(oneshot::Sender<Bytes>),
    Nobody,
}

fn owner(line: &Bytes, shared: &Mutex<Shared>) -> Owner {
    let Ok(envelope) = Envelope::read(line) else { return Owner::Nobody };
    let mut shared = lock(shared);
    match (&envelope.method, envelope.id()) {
        (None, Some(id)) => {
            if let Some(own) = shared.own.remove(id) {
                return Owner::Gateway(own);
            }
            match shared.calls.remove(id) {
                Some(waiting) => Owner::Call(waiting.say, Incoming { message: line.clone(), event: None, last: true }),
                None => Owner::Client,
            }
        }
        (Some(method), None) if method == "notifications/progress" && !shared.calls.is_empty() => {
            let token = envelope.params.and_then(|p| progress_token(p.get()));
            let waiting = shared.calls.values().find(|w| w.token.is_some() && w.token == token);
            match waiting {
                Some(waiting) => Owner::Call(waiting.say.clone(), Incoming { message: line.clone(), event: None, last: false }),
                None => Owner::Client,
            }
        }
        _ => Owner::Client,
    }
}

/// The canonical text of the token that a progress message is for.
fn progress_token(params: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Progress {
        progress_token: Id,
    }
    serde_json::from_str::<Progress>(params).ok().map(|p| p.progress_token.json())
}

#[async_trait]
impl Upstream for Child {
    async fn invoke(&self, permit: Permit, secrets: Option<&Secrets>, call: &Outgoing) -> Result<Exchange, Unanswered> {
        let done = match secrets {
            Some(secrets) if !secrets.headers.is_empty() && !self.settings.takes_headers() => {
                return Err(Unanswered::not_sent(permit, "a child process takes no header"));
            }
            // Also where the credential is in the arguments: the long-lived child never sees one.
            Some(secrets) => self.invoke_alone(secrets, call).await,
            None => self.invoke_shared(call).await,
        };
        match done {
            Ok(exchange) => {
                permit.use_up();
                Ok(exchange)
            }
            Err(error) => Err(Unanswered::of(permit, error)),
        }
    }

    async fn list_tools(&self, like: &Outgoing) -> Result<Vec<Value>, InvokeError> {
        let mut tools = Vec::new();
        let mut cursor = None;
        // A server that never ends its pages must not keep a call waiting for ever.
        for _ in 0..100 {
            let id = self.own_id();
            let (own, answer) = oneshot::channel();
            {
                let mut shared = self.shared();
                if shared.ended {
                    return Err(InvokeError::NotSent("the server has ended".into()));
                }
                shared.own.insert(id.clone(), own);
            }
            let question = list_request(&id, like, cursor.as_deref());
            let asked = async {
                self.process.write(&question).await.map_err(|e| InvokeError::NotSent(e.to_string()))?;
                answer.await.map_err(|_| InvokeError::Lost("the server ended".into()))
            };
            let line = tokio::time::timeout(OWN_QUESTION, asked).await;
            let line = line.map_err(|_| InvokeError::Lost("the server did not list its tools in time".into()))??;
            cursor = page(&line, &mut tools)?;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err(InvokeError::Lost("the server's list of tools does not end".into()))
    }

    async fn cancel(&self, call: &Outgoing, reason: Option<&str>) {
        let private = self.shared().calls.get(&call.id).and_then(|waiting| waiting.private.clone());
        let reason = serde_json::Value::from(reason.unwrap_or("cancelled by the client"));
        let message = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":{reason}}}}}",
            call.id.json()
        );
        let sent = match private {
            Some(process) => process.write(&message).await,
            None => self.process.write(&message).await,
        };
        drop(sent);
    }
}

/// The gateway's own `tools/list`.
pub(super) fn list_request(id: &Id, like: &Outgoing, cursor: Option<&str>) -> String {
    let mut params = Vec::new();
    if let Some(meta) = &like.stateless_meta {
        params.push(format!("\"_meta\":{meta}"));
    }
    if let Some(cursor) = cursor {
        params.push(format!("\"cursor\":{}", serde_json::Value::from(cursor)));
    }
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"tools/list\",\"params\":{{{}}}}}", id.json(), params.join(","))
}

/// Adds one page of tools; answers the cursor of the next.
pub(super) fn page(response: &[u8], tools: &mut Vec<Value>) -> Result<Option<String>, InvokeError> {
    let lost = |why: &str| InvokeError::Lost(why.to_owned());
    let envelope = Envelope::read(response).map_err(|e| InvokeError::Lost(e.to_string()))?;
    let result = envelope.result.ok_or_else(|| lost("the server refused to list its tools"))?;
    let limits = Limits { bytes: MAX_MESSAGE, depth: 128, nodes: 2_000_000 };
    let Ok(Value::Object(mut result)) = read(result.get().as_bytes(), limits) else {
        return Err(lost("the server's list of tools could not be read strictly"));
    };
    match result.remove("tools") {
        Some(Value::Array(page)) => tools.extend(page),
        _ => return Err(lost("the server's answer has no list of tools")),
    }
    Ok(match result.remove("nextCursor") {
        Some(Value::String(cursor)) => Some(cursor),
        _ => None,
    })
}

/// The answer in a message, for callers that want no stream.
impl From<Incoming> for Answer {
    fn from(incoming: Incoming) -> Self {
        Self { status: None, body: incoming.message }
    }
}
