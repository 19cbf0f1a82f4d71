//! What becomes of one HTTP request of a recognised caller.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::header::{ACCEPT, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::mirrored::{headers_agree, lacks_meta};
use super::reply::{CallStream, Closing, Detaching, Over, json, messages, replayed, status_of};
use super::through::{list_through, pass, unreachable_upstream};
use super::{HttpFront, Most, Reach, Wrapped, plain};
use crate::adapters::upstream::{Envelope, HttpUpstream, Id, STATELESS, Upstream, event};
use crate::domain::call::{Caller, ToolCall};
use crate::domain::clock::Timestamp;
use crate::domain::json::Value;
use crate::downstream::answer;
use crate::downstream::children::{Hub, Opened};
use crate::downstream::judged::{Request, imitates};
use crate::downstream::speak::Speaker;
use crate::downstream::stdio::{cancelled_id, client_name, from_start};
use crate::downstream::tasks::{self, Asking, Question};
use crate::gateway::Attempt;
use crate::system::random_hex;

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The first revision whose clients take events without a message, from which they resume a stream.
const RESUMING: &str = "2025-11-25";
/// Most sessions that have a child process of their own.
const MOST_CHILDREN: usize = 256;
/// How long a session lives that nobody uses.
const IDLE: Duration = Duration::from_secs(3600);

/// Sessions by id. A session of another caller or another upstream answers like one that is not known.
#[derive(Default)]
pub(in super::super) struct Sessions(HashMap<String, Session>);

struct Session {
    caller: Caller,
    upstream: String,
    hub: Option<Arc<Hub>>,
    /// What the client calls itself.
    client: Option<String>,
    used: Timestamp,
}

/// Tool calls under way, by where they came from and the client's id, to be cancelled.
pub(in super::super) type Running = HashMap<(String, Id), CancellationToken>;

impl HttpFront {
    pub(super) fn session(&self, id: &str, upstream: &str, caller: &Caller) -> Option<Option<Arc<Hub>>> {
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.0.get_mut(id).filter(|s| s.caller == *caller && s.upstream == upstream)?;
        session.used = self.gateway.clock.now();
        Some(session.hub.clone())
    }

    /// Remembers a session; answers whether there was room for it.
    pub(super) fn remember(&self, id: &str, upstream: &str, caller: &Caller, hub: Option<Arc<Hub>>, client: Option<String>) -> bool {
        let used = self.gateway.clock.now();
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Most { sessions: most, per_caller } = self.most;
        if hub.is_some() || sessions.0.len() >= per_caller.min(most) {
            sessions.0.retain(|_, s| used.since(s.used) < IDLE && s.hub.as_ref().is_none_or(|hub| !hub.ended()));
        }
        let children = || sessions.0.values().filter(|s| s.hub.is_some()).count();
        let own = || sessions.0.values().filter(|s| s.caller == *caller).count();
        if sessions.0.len() >= most || (sessions.0.len() >= per_caller && own() >= per_caller) || (hub.is_some() && children() >= MOST_CHILDREN) {
            return false;
        }
        sessions.0.insert(id.to_owned(), Session { caller: caller.clone(), upstream: upstream.to_owned(), hub, client, used });
        true
    }

    /// What the client of a session calls itself.
    fn client(&self, headers: &HeaderMap) -> Option<String> {
        let sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.0.get(session_id(headers)?)?.client.clone()
    }

    fn forget(&self, id: &str) {
        self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner).0.remove(id);
    }

    /// The child that serves a caller of the stateless era.
    fn child_of(self: &Arc<Self>, upstream: &str, wrapped: &Wrapped, caller: &Caller) -> std::io::Result<Arc<Hub>> {
        let Reach::Child(settings) = &wrapped.reach else { return Err(std::io::Error::other("not a child")) };
        let mut children = self.state.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.name.clone(), upstream.to_owned());
        if let Some(hub) = children.get(&key).filter(|hub| !hub.ended()) {
            return Ok(hub.clone());
        }
        let hub = Hub::start(settings.clone(), true, &self.tasks)?;
        children.insert(key, hub.clone());
        Ok(hub)
    }
}

pub(super) fn stateless(headers: &HeaderMap) -> bool {
    headers.get(&VERSION).and_then(|v| v.to_str().ok()).is_some_and(|version| version >= STATELESS)
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(&SESSION).and_then(|v| v.to_str().ok())
}

pub(super) fn fail(status: StatusCode, id: Option<&Id>, code: i32, message: &str) -> Response {
    json(status, answer::error(id, code, message))
}

fn no_session(id: Option<&Id>) -> Response {
    fail(StatusCode::NOT_FOUND, id, -31004, "this session is not known: open a new one")
}

/// One message of a client.
pub(super) async fn post(front: &Arc<HttpFront>, name: &str, wrapped: &Wrapped, caller: Caller, headers: &HeaderMap, body: Bytes) -> Response {
    let envelope = match Envelope::read(&body) {
        Ok(envelope) => envelope,
        Err(error) => return fail(StatusCode::BAD_REQUEST, None, error.code(), &error.to_string()),
    };
    if let Some(method) = envelope.method.as_deref().filter(|m| imitates(m)) {
        let text = format!("method `{}` is not known", crate::domain::text::visible(method));
        return fail(StatusCode::NOT_FOUND, envelope.id(), -32601, &text);
    }
    if let Err(why) = headers_agree(headers, &envelope) {
        return fail(StatusCode::BAD_REQUEST, envelope.id(), -32020, &why);
    }
    let call = match Request::read(&front.gateway, name, &envelope, front.limits) {
        Request::Judged(id, call) => Some((id, call)),
        Request::Refused(None, why) => return fail(StatusCode::BAD_REQUEST, None, -32600, &why),
        Request::Refused(Some(id), why) => return fail(StatusCode::OK, Some(&id), -32602, &why),
        Request::Through => None,
    };
    match &wrapped.reach {
        Reach::Http(upstream) => through(front, name, wrapped, caller, headers, &envelope, call, upstream).await,
        Reach::Child(_) => to_child(front, name, wrapped, caller, headers, &envelope, call).await,
    }
}

/// A message for a server over HTTP.
#[expect(clippy::too_many_arguments, reason = "everything about one request, gathered in one place")]
async fn through(
    front: &Arc<HttpFront>,
    name: &str,
    wrapped: &Wrapped,
    caller: Caller,
    headers: &HeaderMap,
    envelope: &Envelope<'_>,
    call: Option<(Id, ToolCall)>,
    upstream: &HttpUpstream,
) -> Response {
    if let Some(id) = session_id(headers)
        && front.session(id, name, &caller).is_none()
    {
        return no_session(envelope.id());
    }
    let place = place(headers, &caller, name);
    let forwarded = HttpUpstream::forwarded(headers.iter());
    if let Some((id, call)) = call {
        let speaker = Speaker::new(id.clone(), &call);
        let upstream: Arc<dyn Upstream> = Arc::new(upstream.clone());
        let work = Work { front, wrapped, caller, place, headers, client_id: id.clone(), id, call, upstream, speaker, aside: None, hub: None };
        return work.start(forwarded).await;
    }
    if envelope.is("notifications/cancelled") && give_up(front, &place, envelope) {
        return StatusCode::ACCEPTED.into_response();
    }
    if let Some(task) = tasks::ours(envelope) {
        return about_task(front, wrapped, caller, envelope, &task, Arc::new(upstream.clone())).await;
    }
    match Listener::of(front, wrapped, &caller, envelope, || Arc::new(upstream.clone())).await {
        Ok(None) => {}
        Ok(Some(listener)) => return listener.with_http(front, name, &caller, upstream, &forwarded).await,
        Err(refused) => return refused,
    }
    let body = envelope.rebuilt(envelope.id());
    match upstream.forward(Method::POST, &forwarded, body.into()).await {
        Ok(response) if envelope.is("tools/list") && response.status().is_success() => list_through(front, name, &caller, response, envelope).await,
        Ok(response) => pass(front, name, &caller, response, Some(envelope)).await,
        Err(error) => unreachable_upstream(envelope.id(), &error),
    }
}

pub(super) fn full() -> Response {
    fail(StatusCode::SERVICE_UNAVAILABLE, None, -31006, "this gateway has as many sessions as it takes: try again later")
}

/// Where requests of one client come from: ids are unique there, or the second is refused.
fn place(headers: &HeaderMap, caller: &Caller, upstream: &str) -> String {
    match session_id(headers) {
        Some(id) => format!("session {id}"),
        None => format!("caller {} {upstream}", caller.name),
    }
}

fn give_up(front: &HttpFront, place: &str, envelope: &Envelope<'_>) -> bool {
    let Some(id) = cancelled_id(envelope) else { return false };
    let running = front.state.running.lock().unwrap_or_else(PoisonError::into_inner);
    running.get(&(place.to_owned(), id)).map(CancellationToken::cancel).is_some()
}

/// One tool call on its way to the gateway.
struct Work<'f> {
    front: &'f Arc<HttpFront>,
    wrapped: &'f Wrapped,
    caller: Caller,
    place: String,
    headers: &'f HeaderMap,
    client_id: Id,
    id: Id,
    call: ToolCall,
    upstream: Arc<dyn Upstream>,
    speaker: Speaker,
    aside: Option<mpsc::Receiver<Bytes>>,
    hub: Option<Arc<Hub>>,
}

impl Work<'_> {
    async fn start(self, headers: Vec<(String, String)>) -> Response {
        let front = self.front;
        let gone = CancellationToken::new();
        // In the stateless era two requests of one caller may carry one id: they are told apart by their streams.
        let sessions = !stateless(self.headers);
        let key = (self.place, self.client_id.clone());
        if sessions {
            let mut running = front.state.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.contains_key(&key) {
                return fail(StatusCode::OK, Some(&self.client_id), -32600, "a request with the same id is still running");
            }
            running.insert(key.clone(), gone.clone());
        }
        let replay = self.hub.as_ref().filter(|_| takes_streams(self.headers) && resumes(self.headers)).map(|hub| hub.replay());
        let as_stream = self.hub.is_some() && takes_streams(self.headers);
        let maps_status = self.hub.is_some() && !sessions;
        let (say, hear) = mpsc::channel(16);
        let attempt = Box::new(Attempt {
            server: self.wrapped.server.clone(),
            upstream: self.upstream,
            caller: self.caller,
            call: self.call,
            id: self.id.clone(),
            headers: Some(headers),
            client: front.client(self.headers),
            round: 0,
            session: None,
            away: replay.as_ref().map(|replay| replay.away()).unwrap_or_default(),
            gone: gone.clone(),
            say,
        });
        let (route, hub, id) = (front.clone(), self.hub, self.id);
        let over = Over::new(move || {
            if sessions {
                route.state.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            if let Some(hub) = hub {
                hub.close(&id);
            }
        });
        let (route, ended) = (front.clone(), over.clone());
        let work = async move {
            route.gateway.call(attempt).await;
            ended.run();
        };
        let work = Some(Detaching::new(work, &front.tasks));
        let guard = (!sessions).then(|| gone.drop_guard());
        let replay = replay.map(|replay| (replay, front.tasks.clone()));
        CallStream { work, hear, aside: self.aside, speaker: self.speaker, as_stream, replay, maps_status, over, guard }.respond().await
    }
}

/// A message for a server that is a child process.
async fn to_child(
    front: &Arc<HttpFront>,
    name: &str,
    wrapped: &Wrapped,
    caller: Caller,
    headers: &HeaderMap,
    envelope: &Envelope<'_>,
    call: Option<(Id, ToolCall)>,
) -> Response {
    let Reach::Child(settings) = &wrapped.reach else { return no_session(None) };
    let start_failed = |error: std::io::Error| {
        tracing::error!(%error, upstream = name, "the server could not be started");
        fail(StatusCode::BAD_GATEWAY, envelope.id(), -31005, "the server behind this gateway could not be started")
    };
    let mut opened_session = None;
    if let (true, Some(id), Some(missing)) = (stateless(headers), envelope.id(), lacks_meta(envelope)) {
        return fail(StatusCode::BAD_REQUEST, Some(id), -32602, &format!("`_meta` of the request needs `{missing}`"));
    }
    let hub = if stateless(headers) {
        match front.child_of(name, wrapped, &caller) {
            Ok(hub) => hub,
            Err(error) => return start_failed(error),
        }
    } else if envelope.is("initialize") {
        let (hub, id) = match (Hub::start(settings.clone(), false, &front.tasks), random_hex::<16>()) {
            (Ok(hub), Ok(id)) => (hub, id),
            (Err(error), _) => return start_failed(error),
            (_, Err(error)) => return start_failed(std::io::Error::other(error)),
        };
        if !front.remember(&id, name, &caller, Some(hub.clone()), client_name(envelope)) {
            return full();
        }
        opened_session = Some(id);
        hub
    } else {
        let Some(id) = session_id(headers) else {
            return fail(StatusCode::BAD_REQUEST, envelope.id(), -31004, "the header `mcp-session-id` is missing: initialize first");
        };
        match front.session(id, name, &caller) {
            Some(Some(hub)) if !hub.ended() => hub,
            // Its own, and over. A foreign one is not touched: nobody ends another's session by naming it.
            Some(_) => {
                front.forget(id);
                return no_session(envelope.id());
            }
            None => return no_session(envelope.id()),
        }
    };
    if let Some(task) = tasks::ours(envelope) {
        return about_task(front, wrapped, caller, envelope, &task, hub.child.clone()).await;
    }
    match Listener::of(front, wrapped, &caller, envelope, || hub.child.clone()).await {
        Ok(None) => {}
        Ok(Some(listener)) => return listener.with_child(front, &hub, headers).await,
        Err(refused) => return refused,
    }
    let place = opened_session.as_ref().map_or_else(|| place(headers, &caller, name), |id| format!("session {id}"));
    if let Some((id, call)) = call {
        return tool_call(front, wrapped, caller, headers, place, id, call, hub).await;
    }
    let mut response = match (&envelope.method, envelope.id()) {
        (Some(_), Some(id)) => ask_child(front, name, &hub, id, envelope, headers).await,
        _ => {
            // Without sessions closing a stream cancels; an id here could be that of another client's request.
            if envelope.is("notifications/cancelled") && (stateless(headers) || give_up(front, &place, envelope)) {
                return StatusCode::ACCEPTED.into_response();
            }
            match hub.child.send(envelope).await {
                Ok(()) => StatusCode::ACCEPTED.into_response(),
                Err(error) => start_failed(error),
            }
        }
    };
    if let Some(id) = opened_session.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(SESSION, id);
    }
    response
}

/// A question about a task of ours.
async fn about_task(
    front: &Arc<HttpFront>,
    wrapped: &Wrapped,
    caller: Caller,
    envelope: &Envelope<'_>,
    question: &Question,
    upstream: Arc<dyn Upstream>,
) -> Response {
    let Some(id) = envelope.id() else { return StatusCode::ACCEPTED.into_response() };
    let (gateway, server) = (&front.gateway, &wrapped.server);
    let asking = Asking { gateway, server, upstream, caller, tasks: &front.tasks, gone: CancellationToken::new() };
    json(StatusCode::OK, asking.answer(id, envelope.method.as_deref().unwrap_or_default(), question).await)
}

#[expect(clippy::too_many_arguments, reason = "everything that a call needs, gathered in one place")]
async fn tool_call(
    front: &Arc<HttpFront>,
    wrapped: &Wrapped,
    caller: Caller,
    headers: &HeaderMap,
    place: String,
    client_id: Id,
    mut call: ToolCall,
    hub: Arc<Hub>,
) -> Response {
    let token = call.protocol_meta.get("progressToken").map(crate::domain::json::canonical);
    let Some(Opened { id, token: server_token, hear }) = hub.open(&client_id, token, true) else {
        return fail(StatusCode::OK, Some(&client_id), -32600, "a request with the same id is still running");
    };
    let mut speaker = Speaker::new(id.clone(), &call);
    if id != client_id {
        speaker = speaker.remapped(client_id.clone(), server_token.clone());
        if let Some(token) = server_token.and_then(|t| t.parse().ok()) {
            call.protocol_meta.insert("progressToken", Value::Number(crate::domain::json::Number::Int(token)));
        }
    }
    let upstream: Arc<dyn Upstream> = hub.child.clone();
    let work = Work { front, wrapped, caller, place, headers, client_id, id, call, upstream, speaker, aside: Some(hear), hub: Some(hub) };
    let mirrors = HttpUpstream::forwarded(headers.iter());
    work.start(mirrors).await
}

/// A request that is no tool call, on its way to the child: what is said for it, and what ends it.
pub(super) async fn sent_to_child(
    hub: &Arc<Hub>,
    client_id: &Id,
    envelope: &Envelope<'_>,
    headers: &HeaderMap,
) -> Result<(mpsc::Receiver<Bytes>, Closing), Response> {
    let mut params: Option<serde_json::Value> = envelope.params.and_then(|p| serde_json::from_str(p.get()).ok());
    let token = params.as_ref().and_then(|p| p.get("_meta")?.get("progressToken")).map(ToString::to_string);
    let Some(Opened { id, token: server_token, hear }) = hub.open(client_id, token, false) else {
        return Err(fail(StatusCode::OK, Some(client_id), -32600, "a request with the same id is still running"));
    };
    let closing = {
        let (hub, id, cancels) = (hub.clone(), id.clone(), stateless(headers));
        Closing(Some(Box::new(move || hub.hang_up(&id, cancels))))
    };
    let sent = if id == *client_id {
        hub.child.send(envelope).await
    } else {
        if let (Some(token), Some(own)) = (server_token, params.as_mut().and_then(|p| p.get_mut("_meta")?.get_mut("progressToken"))) {
            *own = serde_json::from_str(&token).unwrap_or_default();
        }
        let method = envelope.method.as_deref().unwrap_or_default();
        let message = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        match Envelope::read(message.as_bytes()) {
            Ok(envelope) => hub.child.send(&envelope).await,
            Err(error) => Err(std::io::Error::other(error)),
        }
    };
    if sent.is_err() {
        return Err(child_ended(client_id));
    }
    Ok((hear, closing))
}

fn child_ended(id: &Id) -> Response {
    fail(StatusCode::BAD_GATEWAY, Some(id), -31005, "the server behind this gateway has ended")
}

/// A request that is no tool call: sent to the child, and answered by what comes back for it.
async fn ask_child(front: &HttpFront, server: &str, hub: &Arc<Hub>, client_id: &Id, envelope: &Envelope<'_>, headers: &HeaderMap) -> Response {
    let (mut hear, closing) = match sent_to_child(hub, client_id, envelope, headers).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let ended = || child_ended(client_id);
    let Some(first) = hear.recv().await else { return ended() };
    let mut first = first;
    if envelope.is("tools/list") {
        // Nothing but its answer is waited for: a server says nothing else about a list.
        while Envelope::read(&first).is_ok_and(|e| e.method.is_some()) {
            let Some(next) = hear.recv().await else { return ended() };
            first = next;
        }
        if let Some(offered) = front.gateway.offered(server, &first, from_start(envelope)).await {
            first = offered.into();
        }
    }
    let status = if stateless(headers) { status_of(&first) } else { StatusCode::OK };
    if status != StatusCode::OK || !takes_streams(headers) {
        return json(status, first);
    }
    let mut beginning = priming(hub, headers).to_vec();
    beginning.extend_from_slice(&event(&first));
    messages(hear, Some(beginning.into()), closing)
}

fn takes_streams(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/event-stream")))
}

/// How the stream of a client begins: in the last revision with sessions, so that it can be resumed.
fn priming(hub: &Hub, headers: &HeaderMap) -> Bytes {
    if resumes(headers) { hub.priming() } else { Bytes::new() }
}

fn resumes(headers: &HeaderMap) -> bool {
    headers.get(&VERSION).and_then(|v| v.to_str().ok()).is_some_and(|version| (RESUMING..STATELESS).contains(&version))
}

/// A stream of what belongs to no request.
pub(super) async fn get(front: &Arc<HttpFront>, name: &str, wrapped: &Wrapped, caller: &Caller, headers: &HeaderMap) -> Response {
    let session = session_id(headers).map(|id| front.session(id, name, caller));
    match (&wrapped.reach, session) {
        (_, Some(None)) => no_session(None),
        (Reach::Http(upstream), _) => match upstream.forward(Method::GET, &HttpUpstream::forwarded(headers.iter()), Bytes::new()).await {
            Ok(response) => pass(front, name, caller, response, None).await,
            Err(error) => unreachable_upstream(None, &error),
        },
        (Reach::Child(_), Some(Some(Some(hub)))) => {
            let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
            match last.and_then(|last| hub.resumed(last)) {
                Some((replay, seen)) => replayed(replay, seen),
                None => messages(hub.listen(), None, Closing(None)),
            }
        }
        (Reach::Child(_), _) => plain(StatusCode::METHOD_NOT_ALLOWED, "there is no stream without a session\n"),
    }
}

/// The client ends its session.
pub(super) async fn delete(front: &Arc<HttpFront>, name: &str, wrapped: &Wrapped, caller: &Caller, headers: &HeaderMap) -> Response {
    let Some(id) = session_id(headers) else { return plain(StatusCode::METHOD_NOT_ALLOWED, "there is no session to end\n") };
    let Some(hub) = front.session(id, name, caller) else { return no_session(None) };
    front.forget(id);
    match (&wrapped.reach, hub) {
        (Reach::Http(upstream), _) => match upstream.forward(Method::DELETE, &HttpUpstream::forwarded(headers.iter()), Bytes::new()).await {
            Ok(response) => pass(front, name, caller, response, None).await,
            Err(error) => unreachable_upstream(None, &error),
        },
        (Reach::Child(_), Some(hub)) => {
            hub.child.end().await;
            StatusCode::NO_CONTENT.into_response()
        }
        (Reach::Child(_), None) => StatusCode::NO_CONTENT.into_response(),
    }
}
