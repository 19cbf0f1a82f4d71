//! A client on a pipe in front of a server over HTTP: makes the headers that the pipe has not, keeps the session, and
//! hears what the server says of itself (MCP 2025-03-26 to 2026-07-28, Streamable HTTP).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::{collect, is_stream};
use super::sse::{Events, data, last_id};
use super::{
    Envelope, Exchange, HttpUpstream, Id, InvokeError, MAX_MESSAGE, Outgoing, RawResponse, Secrets, Unanswered, Upstream, client_headers, header_text,
};
use crate::domain::json::Value;
use crate::domain::permit::Permit;

/// How long the server may take for what is no request.
const NOTED: Duration = Duration::from_secs(30);
/// How long a stream that broke is left alone before it is resumed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often in a row a request's broken stream is resumed.
const RESUMED: usize = 5;

/// A server over HTTP, as the client on the pipe sees it.
pub struct Bridge {
    http: HttpUpstream,
    say: mpsc::Sender<Bytes>,
    tasks: TaskTracker,
    session: Mutex<Session>,
    over: CancellationToken,
}

#[derive(Clone, Debug, Default)]
struct Session {
    id: Option<String>,
    version: Option<String>,
    /// Whether the stream for what belongs to no request is open.
    listens: bool,
}

impl Bridge {
    /// A client's way to `http`; what the server says is said to `say`.
    pub fn new(http: HttpUpstream, say: mpsc::Sender<Bytes>, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(Self { http, say, tasks: tasks.clone(), session: Mutex::default(), over: CancellationToken::new() })
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers of the session, where there is one.
    fn of_session(&self) -> Vec<(String, String)> {
        let session = self.session();
        let mut headers = Vec::new();
        headers.extend(session.id.clone().map(|id| ("mcp-session-id".to_owned(), id)));
        headers.extend(session.version.clone().map(|version| ("mcp-protocol-version".to_owned(), version)));
        headers
    }

    /// Sends a message of the client's that is no tool call. Requests are answered when their answer comes.
    pub async fn send(self: &Arc<Self>, envelope: &Envelope<'_>) {
        let mut headers = client_headers();
        headers.extend(mirrored(envelope).unwrap_or_else(|| self.of_session()));
        let body = Bytes::from(envelope.rebuilt(envelope.id()));
        let (bridge, opens) = (self.clone(), envelope.is("initialize"));
        let request = envelope.method.is_some().then(|| envelope.id().cloned()).flatten();
        let Some(id) = request else {
            // In order: what a client notes comes before what it asks next.
            match tokio::time::timeout(NOTED, self.http.forward(Method::POST, &headers, body)).await {
                Ok(Ok(response)) if response.status().is_success() => {}
                Ok(Ok(response)) => tracing::warn!(status = %response.status(), "the server did not take a notification or response"),
                Ok(Err(error)) => tracing::warn!(%error, "the server did not take a notification or response"),
                Err(_) => tracing::warn!("the server did not take a notification or response in time"),
            }
            if envelope.is("notifications/initialized") {
                self.listen();
            }
            return;
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = bridge.request(&id, &headers, body, opens) => {}
                () = bridge.over.cancelled() => {}
            }
        });
    }

    /// A request and its answer.
    async fn request(&self, id: &Id, headers: &[(String, String)], body: Bytes, opens: bool) {
        let refuse = |why: String| super::envelope::failure(id, -31005, &why);
        let response = match self.http.forward(Method::POST, headers, body).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "the server could not be reached");
                return self.hand(refuse("the server behind this gateway could not be reached".into())).await;
            }
        };
        if opens {
            let session = response.headers().get("mcp-session-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
            *self.session() = Session { id: session, ..Session::default() };
        }
        let status = response.status();
        if !is_stream(response.headers()) {
            match collect(response.into_body()).await {
                Ok(message) if Envelope::read(&message).is_ok_and(|e| e.method.is_none() && e.id() == Some(id)) => {
                    if opens {
                        self.opened(&message);
                    }
                    self.hand(message).await;
                }
                Ok(message) => match Envelope::read(&message).ok().filter(|e| e.error.is_some()) {
                    // An error that the server could tie to no request: to this one.
                    Some(envelope) => self.hand(envelope.rebuilt(Some(id)).into()).await,
                    None => self.hand(refuse(told(status))).await,
                },
                Err(error) => self.hand(refuse(error.to_string())).await,
            }
            return;
        }
        let mut response = response;
        let mut resumed = None;
        for _ in 0..=RESUMED {
            match self.pump(response, Some(id), &mut resumed, opens).await {
                Pumped::Answered => return,
                Pumped::Broke => {}
            }
            // Only a stream whose events have ids can be resumed (MCP 2025-03-26).
            let Some(last) = resumed.clone() else { break };
            tokio::time::sleep(AGAIN).await;
            let mut headers = client_headers();
            headers.extend(self.of_session());
            headers.push(("last-event-id".into(), last));
            match self.http.forward(Method::GET, &headers, Bytes::new()).await {
                Ok(again) if again.status().is_success() && is_stream(again.headers()) => response = again,
                _ => break,
            }
        }
        self.hand(refuse("the server's stream ended without an answer".into())).await;
    }

    /// Hands on a stream until it ends, or the answer to `until` came.
    async fn pump(&self, response: RawResponse, until: Option<&Id>, last: &mut Option<String>, opens: bool) -> Pumped {
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Some(Ok(frame)) = body.frame().await {
            events.push(&frame.into_data().unwrap_or_default());
            if events.waiting() > MAX_MESSAGE {
                tracing::error!("an event of the server's is longer than {MAX_MESSAGE} bytes");
                break;
            }
            while let Some(event) = events.next_event() {
                *last = last_id(&event).or(last.take());
                let Some(message) = data(&event) else { continue };
                let answers = match Envelope::read(&message) {
                    Ok(envelope) => until.is_some_and(|id| envelope.method.is_none() && envelope.id() == Some(id)),
                    Err(error) => {
                        tracing::warn!(%error, "the server sent an event that is no json-rpc message; it was dropped");
                        continue;
                    }
                };
                if answers && opens {
                    self.opened(&message);
                }
                self.hand(message.into()).await;
                if answers {
                    return Pumped::Answered;
                }
            }
        }
        Pumped::Broke
    }

    /// Remembers what was agreed on when the session opened.
    fn opened(&self, answer: &[u8]) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Agreed {
            protocol_version: String,
        }
        let agreed = Envelope::read(answer).ok().and_then(|e| serde_json::from_str::<Agreed>(e.result?.get()).ok());
        self.session().version = agreed.map(|agreed| agreed.protocol_version);
    }

    /// Opens the stream for what belongs to no request, once, and again whenever it breaks.
    fn listen(self: &Arc<Self>) {
        if std::mem::replace(&mut self.session().listens, true) {
            return;
        }
        let bridge = self.clone();
        self.tasks.spawn(async move {
            let mut last = None;
            let listening = async {
                loop {
                    let mut headers = client_headers();
                    headers.extend(bridge.of_session());
                    headers.extend(last.clone().map(|last| ("last-event-id".to_owned(), last)));
                    match bridge.http.forward(Method::GET, &headers, Bytes::new()).await {
                        Ok(response) if response.status().is_success() && is_stream(response.headers()) => {
                            bridge.pump(response, None, &mut last, false).await;
                        }
                        // It has no such stream, or the session is over.
                        Ok(_) => return,
                        Err(error) => tracing::debug!(%error, "the server's own stream could not be opened; it is tried again"),
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                () = listening => {}
                () = bridge.over.cancelled() => {}
            }
        });
    }

    async fn hand(&self, message: Bytes) {
        drop(self.say.send(message).await);
    }

    /// Ends the session.
    pub async fn end(&self) {
        self.over.cancel();
        if self.session().id.is_some() {
            let headers = self.of_session();
            drop(tokio::time::timeout(Duration::from_secs(2), self.http.forward(Method::DELETE, &headers, Bytes::new())).await);
        }
    }
}

enum Pumped {
    Answered,
    Broke,
}

/// The headers of a request of the stateless era; nothing for other messages.
fn mirrored(envelope: &Envelope<'_>) -> Option<Vec<(String, String)>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        #[serde(rename = "_meta")]
        meta: Meta,
        name: Option<serde_json::Value>,
        uri: Option<serde_json::Value>,
        task_id: Option<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
        version: String,
    }
    let params: Params = serde_json::from_str(envelope.params?.get()).ok()?;
    let method = envelope.method.as_deref()?;
    let mut headers = vec![("mcp-protocol-version".to_owned(), header_text(&params.meta.version)), ("mcp-method".to_owned(), header_text(method))];
    let name = match method {
        "prompts/get" => params.name,
        "resources/read" => params.uri,
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id,
        _ => None,
    };
    headers.extend(name.as_ref().and_then(|name| name.as_str()).map(|name| ("mcp-name".to_owned(), header_text(name))));
    Some(headers)
}

fn told(status: StatusCode) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("the server behind this gateway answered {status}: its operator must sign the gateway in there (countersign upstream login)")
        }
        StatusCode::NOT_FOUND => "the server behind this gateway does not know the session, or the address".into(),
        status => format!("the server behind this gateway answered {status} without a message"),
    }
}

#[async_trait]
impl Upstream for Bridge {
    async fn invoke(&self, permit: Permit, secrets: Option<&Secrets>, call: &Outgoing) -> Result<Exchange, Unanswered> {
        self.http.invoke(permit, secrets, &self.with_session(call)).await
    }

    async fn list_tools(&self, like: &Outgoing) -> Result<Vec<Value>, InvokeError> {
        self.http.list_tools(&self.with_session(like)).await
    }

    async fn cancel(&self, call: &Outgoing, reason: Option<&str>) {
        self.http.cancel(&self.with_session(call), reason).await;
    }
}

impl Bridge {
    fn with_session(&self, call: &Outgoing) -> Outgoing {
        let mut call = call.clone();
        if call.stateless_meta.is_none() {
            call.headers.extend(self.of_session());
        }
        call
    }
}
