//! What a server over HTTP says, on its way to a client over HTTP.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::HttpFront;
use super::front::{SESSION, VERSION, fail, full};
use crate::adapters::upstream::{Envelope, Events, Id, InvokeError, MAX_MESSAGE, RawResponse, collect, data, is_stream, passes_for_an_answer};
use crate::domain::call::Caller;
use crate::downstream::stdio::{client_name, from_start};

/// A list of tools on its way through, without those that agents are not to see. It goes on as it came where all are.
pub(super) async fn list_through(front: &HttpFront, name: &str, caller: &Caller, response: RawResponse, asked: &Envelope<'_>) -> Response {
    let (id, from_start) = (asked.id(), from_start(asked));
    let (head, mut body) = response.into_parts();
    let is_stream = is_stream(&head.headers);
    let mut whole = Vec::new();
    let mut events = Events::default();
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return unreachable_upstream(id, &InvokeError::Lost("the list broke off".into())) };
        let chunk = frame.into_data().unwrap_or_default();
        whole.extend_from_slice(&chunk);
        if whole.len() > MAX_MESSAGE {
            return unreachable_upstream(id, &InvokeError::Lost("the list is too long".into()));
        }
        if !is_stream {
            continue;
        }
        events.push(&chunk);
        let mut answered = false;
        while let Some(event) = events.next_event() {
            let message = data(&event).unwrap_or_default();
            let (is_response, is_answer) = match Envelope::read(&message) {
                Ok(said) => (said.method.is_none(), said.method.is_none() && said.id() == id),
                // Pings and beginnings of streams hold nothing; what else cannot be read could be read by a client.
                Err(_) if !event.contains(&b'{') => (false, false),
                Err(error) => {
                    tracing::warn!(%error, "the server sent an event that is no json-rpc message; it was dropped");
                    continue;
                }
            };
            // Any response: some clients take one for theirs whose id is of another type.
            let offered = if is_response { front.gateway.offered(name, &message, from_start && is_answer).await } else { None };
            match offered {
                Some(offered) => out.extend_from_slice(&crate::adapters::upstream::event(offered.as_bytes())),
                None => out.extend_from_slice(&event),
            }
            answered |= is_answer;
        }
        if answered {
            break;
        }
    }
    if !is_stream && Envelope::read(&whole).is_err() {
        return unreachable_upstream(id, &InvokeError::Lost("what it answered is no json-rpc message".into()));
    }
    let text = if is_stream { out } else { front.gateway.offered(name, &whole, from_start).await.map_or(whole, String::into_bytes) };
    let text = http_body_util::Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    hand_on(front, name, caller, RawResponse::from_parts(head, text), None)
}

pub(super) fn unreachable_upstream(id: Option<&Id>, error: &InvokeError) -> Response {
    tracing::warn!(%error, "the server could not be reached");
    fail(StatusCode::BAD_GATEWAY, id, -31005, "the server behind this gateway could not be reached")
}

/// The server's challenge is for us: a client must not be sent to the server's own authorization server.
pub(super) fn not_signed_in(id: Option<&Id>) -> Response {
    let text = "the server behind this gateway takes nobody without a sign-in: its operator must sign the gateway in";
    fail(StatusCode::BAD_GATEWAY, id, -31007, text)
}

/// A server's response to the request `asked`, or to none, on its way to the client: as it comes, but for answers that belong
/// to other requests. Clients take those for theirs wherever they come, so that a list of tools among them is looked at.
pub(super) async fn pass(front: &Arc<HttpFront>, name: &str, caller: &Caller, response: RawResponse, asked: Option<&Envelope<'_>>) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        return not_signed_in(asked.and_then(Envelope::id));
    }
    let client = asked.filter(|asked| asked.is("initialize")).and_then(client_name);
    let id = asked.filter(|asked| asked.method.is_some()).and_then(Envelope::id);
    let (head, body) = response.into_parts();
    let body = if is_stream(&head.headers) {
        Body::from_stream(looked_at(front.clone(), name.to_owned(), body, id.cloned()))
    } else {
        match collect(body).await {
            Ok(whole) => match Envelope::read(&whole) {
                Ok(said) if said.method.is_none() && !id.is_some_and(|id| said.answers(id)) => {
                    return unreachable_upstream(id, &InvokeError::Lost("it answered another request".into()));
                }
                Err(_) if (id.is_some() && head.status.is_success()) || passes_for_an_answer(&whole) => {
                    return unreachable_upstream(id, &InvokeError::Lost("what it answered is no json-rpc message".into()));
                }
                _ => Body::from(whole),
            },
            Err(error) => return unreachable_upstream(id, &error),
        }
    };
    hand_on(front, name, caller, Response::from_parts(head, body), client)
}

/// A stream of events as it comes, without lists of tools that answer another request and that agents are not to see.
pub(super) fn looked_at(
    front: Arc<HttpFront>,
    name: String,
    body: UnsyncBoxBody<Bytes, hyper::Error>,
    asked: Option<Id>,
) -> impl Stream<Item = Result<Bytes, hyper::Error>> {
    stream::unfold((body, Events::default()), move |(mut body, mut events)| {
        let (front, name, asked) = (front.clone(), name.clone(), asked.clone());
        async move {
            loop {
                while let Some(event) = events.next_event() {
                    let Some(message) = data(&event) else { return Some((Ok(event), (body, events))) };
                    match Envelope::read(&message) {
                        Ok(said) if said.method.is_some() || asked.as_ref().is_some_and(|id| said.answers(id)) => {
                            return Some((Ok(event), (body, events)));
                        }
                        Ok(_) => {
                            let offered = front.gateway.offered(&name, &message, false).await;
                            return Some((Ok(offered.map_or(event, |offered| crate::adapters::upstream::event(offered.as_bytes()))), (body, events)));
                        }
                        // No message for anybody.
                        Err(_) if !message.contains(&b'{') => return Some((Ok(event), (body, events))),
                        // What cannot be read here could be read by a client.
                        Err(error) => tracing::warn!(%error, "the server sent an event that is no json-rpc message; it was dropped"),
                    }
                }
                match body.frame().await {
                    Some(Ok(frame)) => events.push(&frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Some((Err(error), (body, events))),
                    None => return None,
                }
                if events.waiting() > MAX_MESSAGE {
                    tracing::error!("an event of the server's is longer than {MAX_MESSAGE} bytes; the stream was ended");
                    return None;
                }
            }
        }
    })
}

/// The headers that are the protocol's, and the session that they may open.
fn hand_on<B>(front: &HttpFront, name: &str, caller: &Caller, response: axum::http::Response<B>, client: Option<String>) -> Response
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (head, body) = response.into_parts();
    if let Some(id) = head.headers.get(&SESSION).and_then(|v| v.to_str().ok())
        && front.session(id, name, caller).is_none()
        && !front.remember(id, name, caller, None, client)
    {
        return full();
    }
    let mut out = Response::new(Body::new(body));
    *out.status_mut() = head.status;
    for name in [CONTENT_TYPE, CACHE_CONTROL, SESSION, VERSION, RETRY_AFTER, HeaderName::from_static("x-accel-buffering")] {
        if let Some(value) = head.headers.get(&name) {
            out.headers_mut().insert(name, value.clone());
        }
    }
    out
}
