//! Responses: one message as JSON, or many as server-sent events.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use super::Frames;
use crate::adapters::upstream::{Envelope, event};
use crate::downstream::replay::{GRACE, Replay};
use crate::downstream::speak::{Message, Speaker};
use crate::gateway::Said;

/// Bytes must flow: proxies and clients cut streams that are silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the first message is waited for before the response becomes a stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// One JSON document.
pub(super) fn json(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text.into()).into_response()
}

fn event_stream(body: Body) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache, no-transform"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (StatusCode::OK, headers, body).into_response()
}

/// What belongs to one tool call: what the gateway says of it, and what else the server says meanwhile.
pub(super) struct CallStream {
    /// The route of the call, as far as it still goes.
    pub(super) work: Option<Detaching>,
    pub hear: mpsc::Receiver<Box<Said>>,
    pub aside: Option<mpsc::Receiver<Bytes>>,
    pub speaker: Speaker,
    /// Whether even an answer at once comes as a stream.
    pub as_stream: bool,
    /// Where its events are kept, where the client can resume it.
    pub replay: Option<(Arc<Replay>, TaskTracker)>,
    /// Whether the status is told from the answer, because the server knows none.
    pub maps_status: bool,
    /// Makes the call's id free again, once its answer goes out.
    pub over: Over,
    /// In the stateless era closing the stream cancels the call: dropping this does.
    pub guard: Option<DropGuard>,
}

/// What is done once, by whoever comes to it first: the answer on its way, or the end of the work behind it.
#[derive(Clone)]
pub(super) struct Over(Arc<Mutex<Closing>>);

impl Over {
    pub(super) fn new(end: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Closing(Some(Box::new(end))))))
    }

    pub(super) fn run(&self) {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.take();
        drop(Closing(end));
    }
}

/// Work that a request does itself, with no other task to wake, and that goes on by itself when the request is over or
/// its client is lost: what was begun is recorded to its end.
pub(super) struct Detaching {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    tasks: TaskTracker,
}

impl Detaching {
    pub(super) fn new(work: impl Future<Output = ()> + Send + 'static, tasks: &TaskTracker) -> Self {
        Self { work: Some(Box::pin(work)), tasks: tasks.clone() }
    }
}

impl Future for Detaching {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl Drop for Detaching {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.tasks.spawn(work);
        }
    }
}

/// Runs a closure when dropped.
pub(super) struct Closing(pub Option<Box<dyn FnOnce() + Send>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(close) = self.0.take() {
            close();
        }
    }
}

impl CallStream {
    async fn next(&mut self) -> Option<Message> {
        loop {
            let aside = async {
                match &mut self.aside {
                    Some(aside) => aside.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = aside => match message {
                    Some(body) => return Some(Message { body, event: None, status: None, last: false }),
                    None => self.aside = None,
                },
                said = self.hear.recv() => match said {
                    Some(said) => {
                        if let Some(message) = self.speaker.message(*said) {
                            return Some(message);
                        }
                    }
                    None => return None,
                },
                () = async {
                    match &mut self.work {
                        Some(work) => work.await,
                        None => std::future::pending().await,
                    }
                } => self.work = None,
            }
        }
    }

    /// The response: JSON where the answer is the first thing said, else a stream.
    pub(super) async fn respond(mut self) -> Response {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok(Some(message)) if message.last && message.event.is_none() => {
                let mapped = || if self.maps_status { status_of(&message.body) } else { StatusCode::OK };
                let status = message.status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or_else(mapped);
                if status == StatusCode::OK && self.as_stream {
                    return self.stream(message.as_event(), true);
                }
                self.finish();
                if let Some((replay, _)) = &self.replay {
                    replay.end();
                }
                json(status, message.body)
            }
            Ok(Some(message)) => {
                let last = message.last;
                self.stream(message.as_event(), last)
            }
            Ok(None) => (StatusCode::INTERNAL_SERVER_ERROR, "the call ended without an answer\n").into_response(),
            Err(_) => self.stream(Bytes::from_static(b":\n\n"), false),
        }
    }

    /// The call is over: its end is no cancellation.
    fn finish(&mut self) {
        self.over.run();
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    fn stream(mut self, first: Bytes, over: bool) -> Response {
        if let Some((replay, tasks)) = self.replay.take() {
            return self.kept(replay, &tasks, &first, over);
        }
        let state = (self, Some(first), over);
        let body = stream::unfold(state, |(mut call, first, over)| async move {
            if let Some(first) = first {
                if over {
                    call.finish();
                }
                return Some((Frames::Ok(first), (call, None, over)));
            }
            if over {
                return None;
            }
            match tokio::time::timeout(KEEP_ALIVE, call.next()).await {
                Ok(Some(message)) => {
                    if message.last {
                        call.finish();
                    }
                    let bytes = message.as_event();
                    Some((Ok(bytes), (call, None, message.last)))
                }
                Ok(None) => None,
                Err(_) => Some((Ok(Bytes::from_static(b":\n\n")), (call, None, false))),
            }
        });
        event_stream(Body::from_stream(body))
    }
}

impl CallStream {
    /// A stream whose events are kept for a client that loses it: it goes on by itself.
    fn kept(mut self, replay: Arc<Replay>, tasks: &TaskTracker, first: &[u8], over: bool) -> Response {
        if !first.starts_with(b":") {
            replay.push(first);
        }
        let response = replayed(replay.clone(), 0);
        if over {
            self.finish();
            replay.end();
        } else {
            tasks.spawn(self.pump(replay));
        }
        response
    }

    /// Keeps what is said until the call is over, or its client has been away for too long.
    async fn pump(mut self, replay: Arc<Replay>) {
        let away = replay.away();
        loop {
            if away.load(Ordering::Acquire) {
                // The work goes on; what it has to say last waits for somebody to hear it, or is kept as for one that has gone.
                let deadline = tokio::time::sleep(GRACE);
                let work = async {
                    if let Some(work) = &mut self.work {
                        work.await;
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = work => {}
                    () = replay.until(false) => {}
                    () = deadline => break,
                }
                continue;
            }
            tokio::select! {
                message = self.next() => match message {
                    Some(message) => {
                        let last = message.last;
                        if last {
                            self.finish();
                        }
                        replay.push(&message.as_event());
                        if last {
                            break;
                        }
                    }
                    None => break,
                },
                () = replay.until(true) => {}
            }
        }
        replay.end();
    }
}

/// The events of a call behind the first `seen`.
pub(super) fn replayed(replay: Arc<Replay>, seen: u64) -> Response {
    event_stream(Body::from_stream(replay.read(seen, KEEP_ALIVE).map(Frames::Ok)))
}

/// The status of an answer of a server without any (MCP 2026-07-28, Streamable HTTP).
pub(super) fn status_of(answer: &[u8]) -> StatusCode {
    #[derive(Deserialize)]
    struct Failed {
        code: i64,
    }
    let code = Envelope::read(answer).ok().and_then(|envelope| serde_json::from_str::<Failed>(envelope.error?.get()).ok());
    match code.map(|failed| failed.code) {
        Some(-32601) => StatusCode::NOT_FOUND,
        Some(-32700 | -32600 | -32022..=-32020) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// A stream of messages until their channel closes; `first` is an event.
pub(super) fn messages(hear: mpsc::Receiver<Bytes>, first: Option<Bytes>, closing: Closing) -> Response {
    let body = stream::unfold((hear, first, closing), |(mut hear, first, closing)| async move {
        if let Some(first) = first {
            return Some((Frames::Ok(first), (hear, None, closing)));
        }
        match tokio::time::timeout(KEEP_ALIVE, hear.recv()).await {
            Ok(Some(message)) => Some((Ok(event(&message)), (hear, None, closing))),
            Ok(None) => None,
            Err(_) => Some((Ok(Bytes::from_static(b":\n\n")), (hear, None, closing))),
        }
    });
    event_stream(Body::from_stream(body))
}
