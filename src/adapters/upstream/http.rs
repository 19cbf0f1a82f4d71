//! A wrapped server over Streamable HTTP: each message is a POST of its own, answered by JSON or by a stream of events.
//!
//! Only headers that the protocol defines go upstream. The client's `Authorization` never does; a credential goes on
//! exactly the request that it was minted for. Redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming as Body;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::child::{list_request, page};
use super::envelope::passes_for_an_answer;
use super::sse::{Events, data};
use super::{Answer, Envelope, Exchange, Id, Incoming, InvokeError, MAX_MESSAGE, Outgoing, Secrets, Unanswered, Upstream};
use crate::domain::json::Value;
use crate::domain::permit::Permit;
use crate::system::{served_by, threads};

/// Headers of a client's request that go upstream, beside `mcp-*`.
const FORWARDED: [&str; 6] = ["accept", "content-type", "last-event-id", "traceparent", "tracestate", "baggage"];

/// A response on its way through: its head, and its body as it comes.
pub type RawResponse = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// A wrapped server over HTTP.
#[derive(Clone)]
pub struct HttpUpstream {
    /// One for each thread that serves connections: what one keeps open must not wake another.
    clients: Arc<[Wire]>,
    url: Uri,
    standing: Standing,
    tasks: TaskTracker,
}

type Wire = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How the gateway itself stands with a server, for what passes through.
#[derive(Clone)]
pub enum Standing {
    /// With this header on every request.
    Bearer(HeaderValue),
    /// With a token of a person's sign-in, where the server asks for one.
    SignIn(Arc<dyn SignIn>),
}

impl Standing {
    /// A fixed token.
    ///
    /// # Errors
    /// If no header takes it.
    pub fn bearer(token: &str) -> Result<Self, UrlError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| UrlError::Token)?;
        value.set_sensitive(true);
        Ok(Self::Bearer(value))
    }
}

/// Keeps the token of a sign-in at one server (MCP authorization).
#[async_trait]
pub trait SignIn: Send + Sync {
    /// What to send now; nothing where nobody signed in, or nobody had to.
    async fn token(&self) -> Option<HeaderValue>;

    /// The server refused a request with `used`, and said `challenge`: what to try once more, nothing if there is nothing else.
    async fn refused(&self, used: Option<&HeaderValue>, challenge: &str) -> Option<HeaderValue>;
}

/// The upstream's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute http or https URL.
    #[error("`{0}` is not an absolute http or https URL")]
    Address(String),
    /// TLS could not be set up.
    #[error("tls could not be set up: {0}")]
    Tls(String),
    /// The static token has bytes that no header takes.
    #[error("the token for this upstream has characters that no header takes")]
    Token,
}

impl HttpUpstream {
    /// A server at `url`.
    ///
    /// # Errors
    /// If the URL cannot be used.
    pub fn new(url: &str, standing: Standing, tasks: &TaskTracker) -> Result<Self, UrlError> {
        let address = || UrlError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| address())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(address());
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_platform_verifier(rustls_provider())
            .map_err(|e| UrlError::Tls(e.to_string()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = || {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(30))
                // A request that may have been processed is never sent twice by the client itself.
                .retry_canceled_requests(false)
                .build(https.clone())
        };
        let clients = (0..threads()).map(|_| client()).collect();
        Ok(Self { clients, url: uri, standing, tasks: tasks.clone() })
    }

    /// Sends a request through and gives its response as it comes.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn forward(&self, method: Method, headers: &[(String, String)], body: Bytes) -> Result<RawResponse, InvokeError> {
        let response = self.request(method, headers, None, body).await?;
        Ok(response.map(BodyExt::boxed_unsync))
    }

    /// The headers of `all` that go upstream.
    pub fn forwarded<'h>(all: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> Vec<(String, String)> {
        all.filter(|(name, _)| name.as_str().starts_with("mcp-") || FORWARDED.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect()
    }

    /// Sends a call, which then may have run unless this says otherwise.
    async fn post_call(&self, secrets: Option<&Secrets>, call: &Outgoing) -> Result<Exchange, InvokeError> {
        let response = self.request(Method::POST, &call.headers, secrets, call.message().into()).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) || status.is_redirection() {
            let hint = if status == StatusCode::UNAUTHORIZED {
                ": the gateway, or the call's credential, has no standing there; its operator must sign it in"
            } else {
                ""
            };
            return Err(InvokeError::NotSent(format!("the server answered {status}{hint}")));
        }
        if is_stream(response.headers()) {
            let (say, hear) = mpsc::channel(64);
            self.tasks.spawn(relay(response.into_body(), call.id.clone(), say));
            return Ok(Exchange::Stream(hear));
        }
        let body = collect(response.into_body()).await?;
        match Envelope::read(&body) {
            Ok(said) if !said.answers(&call.id) => return Err(InvokeError::Lost("what the server answered is no answer to this call".into())),
            Err(error) if status.is_success() || passes_for_an_answer(&body) => {
                return Err(InvokeError::Lost(format!("what the server answered is {error}")));
            }
            // Whatever stands between may refuse in words of its own.
            _ => {}
        }
        Ok(Exchange::Answer(Answer { status: Some(status.as_u16()), body }))
    }

    /// The same server at another of its addresses; nothing where that is of another origin.
    pub(super) fn at(&self, address: &str) -> Option<Self> {
        let here = url::Url::parse(&self.url.to_string()).ok()?;
        let there = here.join(address).ok().filter(|there| there.origin() == here.origin())?;
        Some(Self { url: there.as_str().parse().ok()?, ..self.clone() })
    }

    pub(super) async fn request(
        &self,
        method: Method,
        headers: &[(String, String)],
        secrets: Option<&Secrets>,
        body: Bytes,
    ) -> Result<Response<Body>, InvokeError> {
        let sign_in = match &self.standing {
            Standing::Bearer(own) => return self.send(method, headers, secrets, Some(own), body).await,
            Standing::SignIn(sign_in) => sign_in,
        };
        // A credential of the call's own is not exchanged for another here.
        let has_own = secrets.is_some_and(|secrets| secrets.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION.as_str())));
        let token = if has_own { None } else { sign_in.token().await };
        let response = self.send(method.clone(), headers, secrets, token.as_ref(), body.clone()).await?;
        if has_own || !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(response);
        }
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if response.status() == StatusCode::FORBIDDEN && challenge.is_empty() {
            return Ok(response);
        }
        match sign_in.refused(token.as_ref(), challenge).await {
            // Refused means not run: it is sent once more.
            Some(other) => self.send(method, headers, secrets, Some(&other), body).await,
            None => Ok(response),
        }
    }

    async fn send(
        &self,
        method: Method,
        headers: &[(String, String)],
        secrets: Option<&Secrets>,
        own: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Body>, InvokeError> {
        let not_sent = |why: &dyn std::fmt::Display| InvokeError::NotSent(why.to_string());
        let mut request = Request::builder().method(method).uri(self.url.clone());
        for (name, value) in headers {
            request = request.header(name.as_str(), value.as_str());
        }
        let mut request = request.body(Full::new(body)).map_err(|e| not_sent(&e))?;
        if let Some(own) = own {
            request.headers_mut().insert(AUTHORIZATION, own.clone());
        }
        for (name, value) in secrets.iter().flat_map(|secrets| &secrets.headers) {
            let name: HeaderName = name.parse().map_err(|e| not_sent(&e))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| not_sent(&"the credential does not fit a header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let Some(client) = self.clients.get(served_by()).or(self.clients.first()) else { return Err(not_sent(&"there is no client")) };
        client.request(request).await.map_err(|error| {
            // Only where no connection was made is it certain that nothing ran.
            let why = reason(&error);
            if error.is_connect() { InvokeError::NotSent(why) } else { InvokeError::Lost(why) }
        })
    }
}

fn rustls_provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// An error with its causes.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[async_trait]
impl Upstream for HttpUpstream {
    async fn invoke(&self, permit: Permit, secrets: Option<&Secrets>, call: &Outgoing) -> Result<Exchange, Unanswered> {
        if secrets.is_some_and(|secrets| !secrets.env.is_empty() || !secrets.files.is_empty()) {
            return Err(Unanswered::not_sent(permit, "a server over http takes neither variables nor files"));
        }
        match self.post_call(secrets, call).await {
            Ok(exchange) => {
                permit.use_up();
                Ok(exchange)
            }
            Err(error) => Err(Unanswered::of(permit, error)),
        }
    }

    async fn list_tools(&self, like: &Outgoing) -> Result<Vec<Value>, InvokeError> {
        let mut headers: Vec<(String, String)> = like
            .headers
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "mcp-name" | "mcp-method" | "last-event-id") && !name.starts_with("mcp-param-"))
            .cloned()
            .collect();
        if like.stateless_meta.is_some() {
            headers.push(("mcp-method".into(), "tools/list".into()));
        }
        let mut tools = Vec::new();
        let mut cursor = None;
        for number in 0..100 {
            let id = Id::Text(format!("countersign-{number}"));
            let body = list_request(&id, like, cursor.as_deref());
            let asked = async {
                let response = self.request(Method::POST, &headers, None, body.into()).await?;
                if !is_stream(response.headers()) {
                    return collect(response.into_body()).await;
                }
                let (say, mut hear) = mpsc::channel(16);
                self.tasks.spawn(relay(response.into_body(), id, say));
                while let Some(incoming) = hear.recv().await {
                    let incoming = incoming?;
                    if incoming.last {
                        return Ok(incoming.message);
                    }
                }
                Err(InvokeError::Lost("the stream ended without an answer".into()))
            };
            let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
            let answer = answer.map_err(|_| InvokeError::Lost("the server did not list its tools in time".into()))??;
            cursor = page(&answer, &mut tools)?;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err(InvokeError::Lost("the server's list of tools does not end".into()))
    }

    async fn cancel(&self, call: &Outgoing, reason: Option<&str>) {
        // In the stateless era closing the stream is the cancellation, and the relay closes when nobody hears it.
        if call.stateless_meta.is_some() {
            return;
        }
        let reason = serde_json::Value::from(reason.unwrap_or("cancelled by the client"));
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":{reason}}}}}",
            call.id.json()
        );
        drop(tokio::time::timeout(Duration::from_secs(5), self.request(Method::POST, &call.headers, None, body.into())).await);
    }
}

/// Whether a response is a stream of events, by its headers.
pub fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

/// The headers that a client of this transport sends.
pub fn client_headers() -> Vec<(String, String)> {
    vec![(ACCEPT.as_str().into(), "application/json, text/event-stream".into()), (CONTENT_TYPE.as_str().into(), "application/json".into())]
}

/// A whole body, of at most [`MAX_MESSAGE`] bytes.
///
/// # Errors
/// If it breaks off or is longer.
pub async fn collect<B>(body: B) -> Result<Bytes, InvokeError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, MAX_MESSAGE).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(InvokeError::Lost(error.to_string())),
    }
}

/// Hands on a stream of events until the answer came, it ended, or nobody hears it any more.
async fn relay(mut body: Body, call: Id, say: mpsc::Sender<Result<Incoming, InvokeError>>) {
    let mut events = Events::default();
    let mut answered = false;
    let lost = loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = say.closed() => return,
        };
        let chunk = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => break error.to_string(),
            None => break "the stream ended without an answer".to_owned(),
        };
        events.push(&chunk);
        if events.waiting() > MAX_MESSAGE {
            break format!("an event is longer than {MAX_MESSAGE} bytes");
        }
        while let Some(event) = events.next_event() {
            let message = data(&event).unwrap_or_default();
            let last = match Envelope::read(&message) {
                Ok(said) if said.method.is_some() => false,
                Ok(said) if said.answers(&call) => true,
                Err(_) if !message.contains(&b'{') => false,
                // A client would take an answer to another request for that, and may read what cannot be read here.
                _ => {
                    tracing::warn!("the server sent what is no message of this call on its stream; it was dropped");
                    continue;
                }
            };
            answered |= last;
            if say.send(Ok(Incoming { message: message.into(), event: Some(event), last })).await.is_err() {
                return;
            }
        }
    };
    if !answered {
        drop(say.send(Err(InvokeError::Lost(lost))).await);
    }
}
