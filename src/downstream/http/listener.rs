//! A client over HTTP that listens for tasks of ours, and perhaps for what the server has to tell as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::front::fail;
use super::reply::{Closing, messages};
use super::through::{looked_at, pass, unreachable_upstream};
use super::to_child::sent_to_child;
use super::{HttpFront, Wrapped};
use crate::adapters::upstream::{Envelope, HttpUpstream, Id, Upstream, collect, data, is_stream};
use crate::domain::call::Caller;
use crate::downstream::children::Hub;
use crate::downstream::listening::{Listening, Wanted};
use crate::downstream::tasks::Asking;

/// Messages that a client may be behind before what tells them waits for it.
const BEHIND: usize = 64;

/// How many such requests of each caller are open.
pub(in super::super) type Count = Arc<Mutex<HashMap<String, usize>>>;

/// One that is open; dropped when it is not any more.
struct Open(Count, String);

impl Open {
    /// Counts another one of `caller`, unless that would be more than `most`.
    fn another(count: &Count, caller: &str, most: usize) -> Option<Self> {
        let mut all = count.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(caller).copied().unwrap_or(0);
        if own >= most {
            return None;
        }
        all.insert(caller.to_owned(), own + 1);
        Some(Self(count.clone(), caller.to_owned()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.1) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(all.remove(&self.1)),
        }
    }
}

/// One such request.
pub(super) struct Listener {
    open: Open,
    id: Id,
    wanted: Wanted,
    listening: Listening,
}

impl Listener {
    /// Reads a message; nothing if it is no such request.
    ///
    /// # Errors
    /// Its answer, where it can be listened to nothing.
    pub(super) async fn of(
        front: &Arc<HttpFront>,
        wrapped: &Wrapped,
        caller: &Caller,
        envelope: &Envelope<'_>,
        upstream: impl FnOnce() -> Arc<dyn Upstream>,
    ) -> Result<Option<Self>, Response> {
        let (id, wanted) = match (envelope.id(), Wanted::read(envelope)) {
            (Some(id), Ok(Some(wanted))) => (id.clone(), wanted),
            (id, Err(why)) => return Err(fail(StatusCode::OK, id, -32602, &why)),
            _ => return Ok(None),
        };
        let Some(open) = Open::another(&front.state.listening, &caller.name, front.most.per_caller) else {
            let why = "as many requests of this caller listen as are taken: end one first";
            return Err(fail(StatusCode::SERVICE_UNAVAILABLE, Some(&id), -31006, why));
        };
        let (gateway, server) = (&front.gateway, &wrapped.server);
        let asking = Asking { gateway, server, upstream: upstream(), caller: caller.clone(), tasks: &front.tasks, gone: CancellationToken::new() };
        match asking.listening(&id, &wanted).await {
            Ok(listening) => Ok(Some(Self { open, id, wanted, listening })),
            Err(error) => {
                tracing::error!(%error, "a client could not be told of its tasks");
                Err(fail(StatusCode::OK, Some(&id), -32603, "the gateway cannot look up the tasks now: ask again"))
            }
        }
    }

    /// The response, where the server is reached over HTTP.
    pub(super) async fn with_http(
        self,
        front: &Arc<HttpFront>,
        name: &str,
        caller: &Caller,
        upstream: &HttpUpstream,
        forwarded: &[(String, String)],
    ) -> Response {
        let Some(rest) = self.wanted.message(&self.id) else { return self.alone(front) };
        let response = match upstream.forward(Method::POST, forwarded, rest.clone().into()).await {
            Ok(response) => response,
            Err(error) => return unreachable_upstream(Some(&self.id), &error),
        };
        let (head, body) = response.into_parts();
        if head.status.is_success() && is_stream(&head.headers) {
            let events = looked_at(front.clone(), name.to_owned(), body, Some(self.id.clone()));
            let said = events.filter_map(async |event| data(&event.ok()?).map(Bytes::from));
            return told(front, self.open, self.listening, Some(Box::pin(said)), None);
        }
        let whole = match collect(body).await {
            Ok(whole) => whole,
            Err(error) => return unreachable_upstream(Some(&self.id), &error),
        };
        let mut listening = self.listening;
        if listening.heard(whole.clone()).is_none() {
            return told(front, self.open, listening, None::<stream::Empty<Bytes>>, None);
        }
        let body = Full::new(whole).map_err(|never| match never {}).boxed_unsync();
        let asked = Envelope::read(rest.as_bytes()).ok();
        pass(front, name, caller, Response::from_parts(head, body), asked.as_ref()).await
    }

    /// The response, where the server is a child process.
    pub(super) async fn with_child(self, front: &Arc<HttpFront>, hub: &Arc<Hub>, headers: &HeaderMap) -> Response {
        let Some(rest) = self.wanted.message(&self.id) else { return self.alone(front) };
        let Ok(envelope) = Envelope::read(rest.as_bytes()) else { return self.alone(front) };
        match sent_to_child(hub, &self.id, &envelope, headers).await {
            Ok((mut hear, closing)) => {
                told(front, self.open, self.listening, Some(stream::poll_fn(move |context| hear.poll_recv(context))), Some(closing))
            }
            Err(refused) => refused,
        }
    }

    fn alone(self, front: &HttpFront) -> Response {
        told(front, self.open, self.listening, None::<stream::Empty<Bytes>>, None)
    }
}

/// Tells the client until it goes away, what it hears of included.
fn told(
    front: &HttpFront,
    open: Open,
    listening: Listening,
    said: Option<impl Stream<Item = Bytes> + Unpin + Send + 'static>,
    closing: Option<Closing>,
) -> Response {
    let (to, hear) = mpsc::channel(BEHIND);
    front.tasks.spawn(async move {
        listening.tell(said, to).await;
        drop(open);
    });
    messages(hear, None, closing.unwrap_or(Closing(None)))
}
