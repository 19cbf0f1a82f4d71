//! HTTP clients in front of child processes: who gets which message.
//!
//! In the eras with sessions each session has a child of its own, and messages go as they came. In the stateless era
//! each caller has one, and ids and progress tokens are put in place of the clients', so that two clients of one caller
//! cannot be mixed up.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::answer::SUBSCRIPTION;
use super::replay::{Replay, Replays};
use super::speak::retokened;
use crate::adapters::upstream::{Child, ChildSettings, Envelope, Id};

/// Most messages kept for a client that listens to no stream.
const MOST_KEPT: usize = 256;

/// How long a message of a child's waits for a client that does not read its stream. Then that stream is closed: others have
/// the same child.
const SLOW: Duration = Duration::from_secs(5);

/// One child and the clients' streams in front of it.
pub(super) struct Hub {
    /// The child.
    pub child: Arc<Child>,
    /// Whether ids and tokens are put in place of the clients'.
    remaps: bool,
    next: AtomicI64,
    streams: Mutex<Streams>,
    replays: Replays,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Streams {
    posts: HashMap<Id, Post>,
    /// The stream that a client opened with GET.
    listening: Option<mpsc::Sender<Bytes>>,
    kept: VecDeque<Bytes>,
    ended: bool,
}

impl Streams {
    fn keep(&mut self, message: Bytes) {
        if self.kept.len() >= MOST_KEPT {
            self.kept.pop_front();
            tracing::warn!("a client listens to no stream; the oldest message kept for it was dropped");
        }
        self.kept.push_back(message);
    }
}

struct Post {
    to: mpsc::Sender<Bytes>,
    client_id: Id,
    /// The server's token and the client's.
    tokens: Option<(String, String)>,
    /// Tool calls get their answer from the gateway, not from here.
    only_hears: bool,
}

/// What a request is called on the server's side.
pub(super) struct Opened {
    /// Its id there.
    pub id: Id,
    /// Its progress token there.
    pub token: Option<String>,
    /// What the server says that goes to this request's stream.
    pub hear: mpsc::Receiver<Bytes>,
}

impl Hub {
    /// Starts a child.
    pub(super) fn start(settings: Arc<ChildSettings>, remaps: bool, tasks: &TaskTracker) -> std::io::Result<Arc<Self>> {
        let (events, mut said) = mpsc::channel(256);
        let child = Child::start(settings, events, tasks)?;
        let hub =
            Arc::new(Self { child, remaps, next: AtomicI64::new(1), streams: Mutex::default(), replays: Replays::default(), tasks: tasks.clone() });
        let weak = Arc::downgrade(&hub);
        tasks.spawn(async move {
            while let Some(message) = said.recv().await {
                let Some(hub) = weak.upgrade() else { return };
                let Some((to, message)) = hub.route(message) else { continue };
                match tokio::time::timeout(SLOW, to.send(message.clone())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => hub.keep(message),
                    Err(_) => {
                        tracing::warn!("a client did not read what a child said to it for {} s; its stream was closed", SLOW.as_secs());
                        hub.cut(&to);
                        hub.keep(message);
                    }
                }
            }
            if let Some(hub) = weak.upgrade() {
                let mut streams = hub.streams();
                streams.ended = true;
                streams.posts.clear();
                streams.listening = None;
            }
        });
        Ok(hub)
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the child has ended.
    pub(super) fn ended(&self) -> bool {
        self.streams().ended
    }

    /// Opens a request's stream; nothing if one with the same id is open.
    pub(super) fn open(&self, client_id: &Id, client_token: Option<String>, only_hears: bool) -> Option<Opened> {
        let (to, hear) = mpsc::channel(64);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = if self.remaps { Id::Number(number) } else { client_id.clone() };
        let token = if self.remaps { client_token.as_ref().map(|_| number.to_string()) } else { client_token.clone() };
        let tokens = token.clone().zip(client_token).filter(|_| self.remaps);
        let mut streams = self.streams();
        if streams.posts.contains_key(&id) {
            return None;
        }
        streams.posts.insert(id.clone(), Post { to, client_id: client_id.clone(), tokens, only_hears });
        Some(Opened { id, token, hear })
    }

    /// Closes the stream of a client that does not read it.
    fn cut(self: &Arc<Self>, to: &mpsc::Sender<Bytes>) {
        let mut asked = Vec::new();
        let mut streams = self.streams();
        streams.posts.retain(|id, post| {
            let stays = !post.to.same_channel(to);
            if !stays && !post.only_hears {
                asked.push(id.clone());
            }
            stays
        });
        streams.listening.take_if(|listening| listening.same_channel(to));
        drop(streams);
        // With sessions a lost stream is no cancellation.
        asked.into_iter().filter(|_| self.remaps).for_each(|id| self.cancel(id));
    }

    /// Closes a request's stream.
    pub(super) fn close(&self, id: &Id) {
        self.streams().posts.remove(id);
    }

    /// Closes the stream of a request whose client reads no more of it. In the stateless era that cancels what is not answered
    /// yet, and the child must hear of it.
    pub(super) fn hang_up(self: &Arc<Self>, id: &Id, cancels: bool) {
        if self.streams().posts.remove(id).is_some() && cancels {
            self.cancel(id.clone());
        }
    }

    /// Tells the child that nobody waits for a request any more.
    fn cancel(self: &Arc<Self>, id: Id) {
        let (hub, params) = (self.clone(), serde_json::json!({"requestId": id, "reason": "the client closed the stream"}));
        self.tasks.spawn(async move {
            let message = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string();
            if let Ok(envelope) = Envelope::read(message.as_bytes()) {
                // A child that has ended has nothing to give up.
                drop(hub.child.send(&envelope).await);
            }
        });
    }

    /// Listens to what belongs to no request; what was kept comes first. Whoever listened before is cut off.
    pub(super) fn listen(&self) -> mpsc::Receiver<Bytes> {
        let (to, hear) = mpsc::channel(MOST_KEPT + 64);
        let mut streams = self.streams();
        for message in streams.kept.drain(..) {
            // The channel has room for all that is kept.
            drop(to.try_send(message));
        }
        streams.listening = Some(to);
        hear
    }

    /// Keeps what a client lost with its connection for the next stream that it opens.
    fn keep(&self, message: Bytes) {
        if !self.remaps {
            self.streams().keep(message);
        }
    }

    /// The beginning of a legacy stream: an event with an id, from which a client that lost it resumes (MCP 2025-11-25).
    pub(super) fn priming(&self) -> Bytes {
        format!("id: {}\nretry: 1000\ndata: \n\n", self.next.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// The stream of a call, which its client can resume.
    pub(super) fn replay(&self) -> Arc<Replay> {
        self.replays.open(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The stream that the event `last` is of, and how many of its events were seen.
    pub(super) fn resumed(&self, last: &str) -> Option<(Arc<Replay>, u64)> {
        self.replays.find(last)
    }

    /// Where a message of the server goes, in that client's terms.
    fn route(&self, message: Bytes) -> Option<(mpsc::Sender<Bytes>, Bytes)> {
        let envelope = Envelope::read(&message).ok()?;
        let mut streams = self.streams();
        if envelope.method.is_none() {
            let id = envelope.id()?;
            // The answer is the last of a request: taking its stream out ends it.
            streams.posts.get(id).filter(|post| !post.only_hears)?;
            let post = streams.posts.remove(id)?;
            let body = if self.remaps { envelope.rebuilt(Some(&post.client_id)).into() } else { message.clone() };
            return Some((post.to, body));
        }
        if self.remaps
            && let Some(subscription) = subscription(&envelope)
        {
            // One that is over is nobody else's.
            return subscribed(&envelope, &subscription, &streams);
        }
        if envelope.is("notifications/progress") {
            for post in streams.posts.values() {
                if let Some((theirs, ours)) = &post.tokens
                    && let Some(body) = retokened(&envelope, theirs, ours)
                {
                    return Some((post.to.clone(), body.into()));
                }
            }
        }
        if let Some(to) = streams.listening.clone().filter(|to| !to.is_closed()) {
            return Some((to, message));
        }
        if let Some(post) = streams.posts.values().find(|post| !post.to.is_closed()) {
            return Some((post.to.clone(), message));
        }
        streams.keep(message);
        None
    }
}

/// The request that subscribed to a notification.
pub(super) fn subscription(envelope: &Envelope<'_>) -> Option<Id> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(rename = "_meta")]
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "io.modelcontextprotocol/subscriptionId")]
        subscription: Id,
    }
    serde_json::from_str::<Told>(envelope.params?.get()).ok().map(|told| told.meta.subscription)
}

/// A notification for a request that subscribed: to its stream, with the client's id in place of ours.
fn subscribed(envelope: &Envelope<'_>, id: &Id, streams: &Streams) -> Option<(mpsc::Sender<Bytes>, Bytes)> {
    let post = streams.posts.get(id)?;
    let mut params: serde_json::Value = serde_json::from_str(envelope.params?.get()).ok()?;
    *params.get_mut("_meta")?.get_mut(SUBSCRIPTION)? = serde_json::to_value(&post.client_id).ok()?;
    let message = serde_json::json!({"jsonrpc": "2.0", "method": envelope.method.as_deref()?, "params": params});
    Some((post.to.clone(), message.to_string().into()))
}
