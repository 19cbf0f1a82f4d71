//! What becomes of one HTTP request of a recognised caller.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use axum::http::header::{ACCEPT, HeaderName};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::mirrored::headers_agree;
use super::reply::{CallStream, Closing, Detaching, Over, json, messages, replayed};
use super::through::{list_through, pass, unreachable_upstream};
use super::to_child::to_child;
use super::{HttpFront, Reach, Wrapped, plain};
use crate::adapters::upstream::{Envelope, HttpUpstream, Id, STATELESS, Upstream};
use crate::domain::call::{Caller, ToolCall};
use crate::downstream::answer;
use crate::downstream::children::Hub;
use crate::downstream::judged::{Request, imitates};
use crate::downstream::speak::Speaker;
use crate::downstream::stdio::cancelled_id;
use crate::downstream::tasks::{self, Asking, Question};
use crate::gateway::Attempt;

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The first revision whose clients take events without a message, from which they resume a stream.
const RESUMING: &str = "2025-11-25";
/// Tool calls under way, by where they came from and the client's id, to be cancelled.
pub(in super::super) type Running = HashMap<(String, Id), CancellationToken>;

pub(super) fn stateless(headers: &HeaderMap) -> bool {
    headers.get(&VERSION).and_then(|v| v.to_str().ok()).is_some_and(|version| version >= STATELESS)
}

pub(super) fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(&SESSION).and_then(|v| v.to_str().ok())
}

pub(super) fn fail(status: StatusCode, id: Option<&Id>, code: i32, message: &str) -> Response {
    json(status, answer::error(id, code, message))
}

pub(super) fn no_session(id: Option<&Id>) -> Response {
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
pub(super) fn place(headers: &HeaderMap, caller: &Caller, upstream: &str) -> String {
    match session_id(headers) {
        Some(id) => format!("session {id}"),
        None => format!("caller {} {upstream}", caller.name),
    }
}

pub(super) fn give_up(front: &HttpFront, place: &str, envelope: &Envelope<'_>) -> bool {
    let Some(id) = cancelled_id(envelope) else { return false };
    let running = front.state.running.lock().unwrap_or_else(PoisonError::into_inner);
    running.get(&(place.to_owned(), id)).map(CancellationToken::cancel).is_some()
}

/// One tool call on its way to the gateway.
pub(super) struct Work<'f> {
    pub front: &'f Arc<HttpFront>,
    pub wrapped: &'f Wrapped,
    pub caller: Caller,
    pub place: String,
    pub headers: &'f HeaderMap,
    pub client_id: Id,
    pub id: Id,
    pub call: ToolCall,
    pub upstream: Arc<dyn Upstream>,
    pub speaker: Speaker,
    pub aside: Option<mpsc::Receiver<Bytes>>,
    pub hub: Option<Arc<Hub>>,
}

impl Work<'_> {
    pub(super) async fn start(self, headers: Vec<(String, String)>) -> Response {
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

/// A question about a task of ours.
pub(super) async fn about_task(
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

pub(super) fn takes_streams(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/event-stream")))
}

pub(super) fn resumes(headers: &HeaderMap) -> bool {
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
