//! MCP over this process's own standard input and output, around one child process or in front of a server over HTTP.
//!
//! Nothing but MCP is written to standard output. When the client closes standard input, whatever waits is given up
//! and the server ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer;
use super::http::Reach;
use super::identity::Callers;
use super::judged::{Request, imitates};
use super::listening::{Listeners, Wanted};
use super::speak::Speaker;
use super::tasks::{self, Asking, Question};
use crate::adapters::upstream::{Bridge, Child, Envelope, Id, Lines, LinesError, Upstream};
use crate::domain::call::ToolCall;
use crate::domain::json::Limits;
use crate::gateway::{Attempt, Gateway, Server};

/// How long calls that run are waited for once the client has gone.
const LAST_CALLS: Duration = Duration::from_secs(12);

/// One client on a pipe, and the server it talks to.
pub struct StdioFront {
    /// The route of its calls.
    pub gateway: Arc<Gateway>,
    /// The server.
    pub server: Arc<Server>,
    /// How the server is reached.
    pub reach: Reach,
    /// How it is known who the client is.
    pub callers: Callers,
    /// How much one message may hold.
    pub limits: Limits,
}

/// Why it ended otherwise than by the client's will.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The server ended first.
    #[error("the server ended")]
    ServerEnded,
    /// The server could not be started.
    #[error("the server `{command}` could not be started")]
    Start {
        /// Its command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A pipe to the client broke.
    #[error("the pipe to the client broke")]
    Client(#[source] std::io::Error),
}

impl StdioFront {
    /// Serves the client until it closes its end, the server ends, or `stop`.
    ///
    /// # Errors
    /// See [`StdioError`].
    pub async fn run(
        self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin + Send + 'static,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<(), StdioError> {
        let (events, mut said) = mpsc::channel(256);
        let wire = match &self.reach {
            Reach::Child(settings) => Wire::Child(
                Child::start(settings.clone(), events, tasks).map_err(|source| StdioError::Start { command: settings.command.join(" "), source })?,
            ),
            Reach::Http(http) => Wire::Http(Bridge::new(http.as_ref().clone(), events, tasks)),
        };
        let (out, lines) = mpsc::channel(256);
        // Beside the loop below: a server that waits for us to read must not keep us from writing to it.
        let (to_client, ended) = (out.clone(), CancellationToken::new());
        let end_seen = ended.clone();
        let lists = Arc::<Mutex<HashMap<Id, bool>>>::default();
        let listeners = Arc::<Listeners>::default();
        let (gateway, server, asked, listeners_seen) = (self.gateway.clone(), self.server.clone(), lists.clone(), listeners.clone());
        tasks.spawn(async move {
            while let Some(message) = said.recv().await {
                let message = match list_asked(&message, &asked) {
                    Some(from_start) => gateway.offered(&server.name, &message, from_start).await.map_or(message, Bytes::from),
                    None => message,
                };
                let Some(message) = listeners_seen.hand(message).await else { continue };
                if to_client.send(message).await.is_err() {
                    break;
                }
            }
            end_seen.cancel();
        });
        let written = tasks.spawn(write(lines, output));
        let mut input = Lines::new(input, self.limits.bytes);
        let calls = TaskTracker::new();
        let front = Front {
            shared: Arc::new(self),
            wire: wire.clone(),
            out: out.clone(),
            running: Arc::default(),
            calls: calls.clone(),
            client: Mutex::default(),
            lists,
            listeners,
            gone: CancellationToken::new(),
        };
        let end = loop {
            tokio::select! {
                line = input.next() => match line {
                    Ok(Some(line)) => front.take(line).await,
                    Ok(None) => break Ok(()),
                    Err(LinesError::TooLong(most)) => {
                        let text = answer::error(None, -32600, &format!("a message is longer than {most} bytes"));
                        drop(out.send(text.into()).await);
                    }
                    Err(LinesError::Io(error)) => break Err(StdioError::Client(error)),
                },
                () = ended.cancelled() => break Err(StdioError::ServerEnded),
                () = stop.cancelled() => break Ok(()),
            }
        };
        front.give_up_all();
        calls.close();
        if tokio::time::timeout(LAST_CALLS, calls.wait()).await.is_err() {
            tracing::warn!("calls were still running when the client had gone; their outcome is recorded as unknown");
        }
        wire.end().await;
        drop((front, out, wire));
        drop(tokio::time::timeout(Duration::from_secs(2), written).await);
        end
    }
}

async fn write(mut lines: mpsc::Receiver<Bytes>, mut output: impl AsyncWrite + Unpin) {
    while let Some(line) = lines.recv().await {
        // Events without a message say nothing here.
        if line.is_empty() {
            continue;
        }
        // Line breaks are legal between JSON tokens, occur nowhere else, and end a message on a pipe.
        let broken = line.iter().any(|b| matches!(b, b'\n' | b'\r'));
        let line = if broken { line.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect() } else { line };
        let done = async {
            output.write_all(&line).await?;
            output.write_all(b"\n").await?;
            output.flush().await
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "the client does not read any more");
            return;
        }
    }
}

/// The server as this client sees it.
#[derive(Clone)]
enum Wire {
    Child(Arc<Child>),
    Http(Arc<Bridge>),
}

impl Wire {
    async fn send(&self, envelope: &Envelope<'_>) -> std::io::Result<()> {
        match self {
            Self::Child(child) => child.send(envelope).await,
            Self::Http(bridge) => {
                bridge.send(envelope).await;
                Ok(())
            }
        }
    }

    async fn end(&self) {
        match self {
            Self::Child(child) => child.end().await,
            Self::Http(bridge) => bridge.end().await,
        }
    }

    fn upstream(&self) -> Arc<dyn Upstream> {
        match self {
            Self::Child(child) => child.clone(),
            Self::Http(bridge) => bridge.clone(),
        }
    }
}

struct Front {
    shared: Arc<StdioFront>,
    wire: Wire,
    out: mpsc::Sender<Bytes>,
    running: Arc<Mutex<HashMap<Id, CancellationToken>>>,
    calls: TaskTracker,
    /// What the client calls itself.
    client: Mutex<Option<String>>,
    /// Requests for lists of tools whose answers have not come, and whether they asked for the first page.
    lists: Arc<Mutex<HashMap<Id, bool>>>,
    /// Requests that listen for tasks of ours.
    listeners: Arc<Listeners>,
    /// The client has gone.
    gone: CancellationToken,
}

impl Front {
    async fn take(&self, line: Bytes) {
        let envelope = match Envelope::read(&line) {
            Ok(envelope) => envelope,
            Err(error) => return self.error(None, error.code(), &error.to_string()).await,
        };
        match Request::read(&self.shared.gateway, &self.shared.server.name, &envelope, self.shared.limits) {
            Request::Judged(id, call) => return self.call(id, call).await,
            Request::Refused(Some(id), why) => return self.error(Some(&id), -32602, &why).await,
            Request::Refused(None, why) => {
                tracing::warn!("a request was dropped: {why}");
                return;
            }
            Request::Through => {}
        }
        if let (Some(task), Some(id)) = (tasks::ours(&envelope), envelope.id()) {
            return self.task(id.clone(), envelope.method.as_deref().unwrap_or_default(), task).await;
        }
        match (envelope.id(), Wanted::read(&envelope)) {
            (Some(id), Ok(Some(wanted))) => return self.listen(id, &wanted).await,
            (id, Err(why)) => return self.error(id, -32602, &why).await,
            _ => {}
        }
        if let (true, Some(id)) = (envelope.is("tools/list"), envelope.id()) {
            self.lists.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), from_start(&envelope));
        }
        if envelope.is("initialize") {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client_name(&envelope);
        }
        if envelope.is("notifications/cancelled") && (self.give_up(&envelope) || cancelled_id(&envelope).is_some_and(|id| self.listeners.end(&id))) {
            return;
        }
        if let Some(method) = envelope.method.as_deref().filter(|m| imitates(m)) {
            return self.error(envelope.id(), -32601, &format!("method `{}` is not known", crate::domain::text::visible(method))).await;
        }
        if let Err(error) = self.wire.send(&envelope).await {
            self.error(envelope.id(), -32603, &format!("the server does not take messages: {error}")).await;
        }
    }

    async fn call(&self, id: Id, call: ToolCall) {
        let gone = CancellationToken::new();
        let twice = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.entry(id.clone()) {
                std::collections::hash_map::Entry::Occupied(_) => true,
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(gone.clone());
                    false
                }
            }
        };
        if twice {
            return self.error(Some(&id), -32600, "a request with the same id is still running").await;
        }
        let (say, mut hear) = mpsc::channel(16);
        let mut speaker = Speaker::new(id.clone(), &call);
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (shared, out, running, upstream) = (self.shared.clone(), self.out.clone(), self.running.clone(), self.wire.upstream());
        self.calls.spawn(async move {
            let caller = match shared.callers.recognise(None, None, shared.gateway.clock.as_ref()).await {
                Ok(caller) => caller,
                Err(error) => {
                    tracing::warn!(%error, "the client was not recognised");
                    running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    drop(out.send(answer::error(Some(&id), -31001, &format!("the call did not run: {error}")).into()).await);
                    return;
                }
            };
            let attempt = Box::new(Attempt {
                server: shared.server.clone(),
                upstream,
                caller,
                call,
                id: id.clone(),
                headers: None,
                client,
                round: 0,
                session: None,
                away: Arc::default(),
                gone,
                say,
            });
            let free = || running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            let told = async {
                let mut answered = false;
                while let Some(said) = hear.recv().await {
                    if let Some(message) = speaker.message(*said) {
                        // Whoever reads the answer may use its id again at once.
                        if message.last && !std::mem::replace(&mut answered, true) {
                            free();
                        }
                        drop(out.send(message.body).await);
                    }
                }
                if !answered {
                    free();
                }
            };
            tokio::join!(shared.gateway.call(attempt), told);
        });
    }

    /// A question about a task of ours.
    async fn task(&self, id: Id, method: &str, question: Question) {
        let shared = self.shared.clone();
        let text = match shared.callers.recognise(None, None, shared.gateway.clock.as_ref()).await {
            Ok(caller) => {
                let (gateway, server, upstream) = (&shared.gateway, &shared.server, self.wire.upstream());
                let asking = Asking { gateway, server, upstream, caller, tasks: &self.calls, gone: self.gone.child_token() };
                asking.answer(&id, method, &question).await
            }
            Err(error) => answer::error(Some(&id), -31001, &error.to_string()),
        };
        drop(self.out.send(text.into()).await);
    }

    /// A request to hear of tasks of ours.
    async fn listen(&self, id: &Id, wanted: &Wanted) {
        let shared = self.shared.clone();
        let caller = match shared.callers.recognise(None, None, shared.gateway.clock.as_ref()).await {
            Ok(caller) => caller,
            Err(error) => return self.error(Some(id), -31001, &error.to_string()).await,
        };
        let (gateway, server, upstream) = (&shared.gateway, &shared.server, self.wire.upstream());
        let asking = Asking { gateway, server, upstream, caller, tasks: &self.calls, gone: self.gone.child_token() };
        let listening = match asking.listening(id, wanted).await {
            Ok(listening) => listening,
            Err(error) => {
                tracing::error!(%error, "a client could not be told of its tasks");
                return self.error(Some(id), -32603, "the gateway cannot look up the tasks now: ask again").await;
            }
        };
        let rest = wanted.message(id);
        let Some((said, ended)) = self.listeners.begin(id, rest.is_some()) else {
            return self.error(Some(id), -32600, "too many requests listen already, or one with this id does").await;
        };
        let said = said.map(|mut said| stream::poll_fn(move |context| said.poll_recv(context)));
        let (out, gone, listeners, own) = (self.out.clone(), self.gone.clone(), self.listeners.clone(), id.clone());
        self.calls.spawn(async move {
            tokio::select! {
                () = listening.tell(said, out) => {}
                () = ended.cancelled() => return,
                () = gone.cancelled() => {}
            }
            listeners.end(&own);
        });
        if let Some(Ok(envelope)) = rest.as_ref().map(|rest| Envelope::read(rest.as_bytes()))
            && let Err(error) = self.wire.send(&envelope).await
        {
            self.listeners.end(id);
            self.error(Some(id), -32603, &format!("the server does not take messages: {error}")).await;
        }
    }

    /// Cancels a call of ours; answers whether it was one.
    fn give_up(&self, envelope: &Envelope<'_>) -> bool {
        let Some(id) = cancelled_id(envelope) else { return false };
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&id).map(CancellationToken::cancel).is_some()
    }

    fn give_up_all(&self) {
        self.gone.cancel();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(CancellationToken::cancel);
    }

    async fn error(&self, id: Option<&Id>, code: i32, message: &str) {
        drop(self.out.send(answer::error(id, code, message).into()).await);
    }
}

/// Whether a message may hold a list of tools that was asked for, and whether that is the first page. While one is
/// outstanding every answer may: some clients take an answer for theirs whose id is of another type.
fn list_asked(message: &[u8], asked: &Mutex<HashMap<Id, bool>>) -> Option<bool> {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    if asked.is_empty() {
        return None;
    }
    let envelope = Envelope::read(message).ok().filter(|envelope| envelope.method.is_none())?;
    Some(envelope.id().and_then(|id| asked.remove(id)).unwrap_or(false))
}

/// Whether a request for a list asks for its first page.
pub(super) fn from_start(envelope: &Envelope<'_>) -> bool {
    #[derive(Deserialize)]
    struct Paged {
        cursor: Option<serde::de::IgnoredAny>,
    }
    envelope.params.is_none_or(|params| serde_json::from_str::<Paged>(params.get()).is_ok_and(|paged| paged.cursor.is_none()))
}

/// What a client calls itself when it opens a session.
pub(super) fn client_name(envelope: &Envelope<'_>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Opening {
        client_info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        name: String,
    }
    serde_json::from_str::<Opening>(envelope.params?.get()).ok().map(|opening| opening.client_info.name.chars().take(100).collect())
}

/// The request that a `notifications/cancelled` is about.
pub(super) fn cancelled_id(envelope: &Envelope<'_>) -> Option<Id> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled {
        request_id: Id,
    }
    serde_json::from_str::<Cancelled>(envelope.params?.get()).ok().map(|c| c.request_id)
}
