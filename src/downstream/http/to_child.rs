//! Requests for a server that is a child process: one child per session, or one per caller where there are none.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::front::{SESSION, Work, about_task, fail, full, give_up, no_session, place, resumes, session_id, stateless, takes_streams};
use super::listener::Listener;
use super::mirrored::lacks_meta;
use super::reply::{Closing, json, messages, status_of};
use super::{HttpFront, Reach, Wrapped};
use crate::adapters::upstream::{Envelope, HttpUpstream, Id, Upstream, event};
use crate::domain::call::{Caller, ToolCall};
use crate::domain::json::Value;
use crate::downstream::children::{Hub, Opened};
use crate::downstream::speak::Speaker;
use crate::downstream::stdio::{client_name, from_start};
use crate::downstream::tasks;
use crate::system::random_hex;

/// A message for a server that is a child process.
pub(super) async fn to_child(
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

/// How the stream of a client begins: in the last revision with sessions, so that it can be resumed.
fn priming(hub: &Hub, headers: &HeaderMap) -> Bytes {
    if resumes(headers) { hub.priming() } else { Bytes::new() }
}
