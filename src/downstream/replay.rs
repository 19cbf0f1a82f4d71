//! Streams of calls that a client in front of a child can lose and resume: each event has an id, and a client that comes
//! back with the last one it saw hears the rest (MCP 2025-11-25, Streamable HTTP, resumability).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::Notify;

/// How long a lost client may take to come back; then its call counts as given up by it.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// Most bytes of events that one stream keeps, the newest; of a stream that was heard to its end nothing is kept beyond.
const MOST_BYTES: usize = 128 << 10;
/// Most streams that one session can resume, the newest.
const MOST_STREAMS: usize = 16;

/// The streams of one session.
#[derive(Default)]
pub(super) struct Replays(Mutex<VecDeque<Arc<Replay>>>);

impl Replays {
    /// A new stream with that number.
    pub(super) fn open(&self, number: i64) -> Arc<Replay> {
        let replay = Arc::new(Replay { number, state: Mutex::default(), changed: Notify::new(), away: Arc::default() });
        replay.push(b"retry: 1000\ndata: \n\n");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_STREAMS {
            // One that nobody can hear of any more, else the oldest.
            let over = all.iter().position(|replay| replay.state().ended).unwrap_or(0);
            all.remove(over);
        }
        all.push_back(replay.clone());
        replay
    }

    /// The stream that the event `last` is of, and how many of its events were seen.
    pub(super) fn find(&self, last: &str) -> Option<(Arc<Replay>, u64)> {
        let (number, seen) = last.rsplit_once('-')?;
        let (number, seen): (i64, u64) = (number.parse().ok()?, seen.parse().ok()?);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some((all.iter().find(|replay| replay.number == number)?.clone(), seen.checked_add(1)?))
    }
}

/// One stream.
pub(super) struct Replay {
    number: i64,
    state: Mutex<State>,
    changed: Notify,
    /// Whether nobody hears it.
    away: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// How many events came before the first that is kept.
    dropped: u64,
    /// Who hears it: the last who came.
    reader: u64,
    ended: bool,
}

impl Replay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, with its id.
    pub(super) fn push(&self, event: &[u8]) {
        let mut state = self.state();
        let mut text = format!("id: {}-{}\n", self.number, state.dropped + state.events.len() as u64).into_bytes();
        text.extend_from_slice(event);
        state.bytes += text.len();
        state.events.push_back(text.into());
        while state.bytes > MOST_BYTES && state.events.len() > 1 {
            let oldest = state.events.pop_front().map_or(0, |event| event.len());
            state.bytes -= oldest;
            state.dropped += 1;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_waiters();
    }

    /// Set while nobody hears it.
    pub(super) fn away(&self) -> Arc<AtomicBool> {
        self.away.clone()
    }

    /// Resolves when somebody hears it, or nobody does.
    pub(super) async fn until(&self, away: bool) {
        loop {
            let changed = self.changed.notified();
            if self.away.load(Ordering::Acquire) == away {
                return;
            }
            changed.await;
        }
    }

    /// The events behind the first `seen`, and those that come. Whoever heard it before hears no more.
    pub(super) fn read(self: Arc<Self>, seen: u64, alive: Duration) -> impl Stream<Item = Bytes> + Send + 'static {
        let reader = {
            let mut state = self.state();
            state.reader += 1;
            state.reader
        };
        self.away.store(false, Ordering::Release);
        self.changed.notify_waiters();
        let reading = Reading { replay: self, reader };
        stream::unfold((reading, seen), move |(reading, seen)| async move {
            let heard = reading.next(seen, alive).await;
            heard.map(|(event, seen)| (event, (reading, seen)))
        })
    }
}

/// Somebody who hears a stream; dropped with their connection.
struct Reading {
    replay: Arc<Replay>,
    reader: u64,
}

impl Reading {
    /// The next event, and how many were seen with it.
    async fn next(&self, seen: u64, alive: Duration) -> Option<(Bytes, u64)> {
        loop {
            let changed = self.replay.changed.notified();
            {
                let mut state = self.replay.state();
                if state.reader != self.reader {
                    return None;
                }
                // What was dropped cannot be said: the client hears what is left.
                let at = seen.saturating_sub(state.dropped);
                if let Some(event) = usize::try_from(at).ok().and_then(|at| state.events.get(at)) {
                    return Some((event.clone(), seen.max(state.dropped) + 1));
                }
                if state.ended {
                    if state.bytes > MOST_BYTES {
                        state.dropped += state.events.len() as u64;
                        state.bytes = 0;
                        state.events.clear();
                    }
                    return None;
                }
            }
            if tokio::time::timeout(alive, changed).await.is_err() {
                return Some((Bytes::from_static(b":\n\n"), seen));
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let last = self.replay.state().reader == self.reader;
        if last {
            self.replay.away.store(true, Ordering::Release);
            self.replay.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn texts(stream: impl Stream<Item = Bytes>) -> Vec<String> {
        stream.map(|event| String::from_utf8(event.to_vec()).unwrap()).collect().await
    }

    #[tokio::test]
    async fn whoever_comes_back_hears_the_rest_once() {
        let replays = Replays::default();
        let replay = replays.open(7);
        replay.push(b"data: 1\n\n");
        let mut first = Box::pin(replay.clone().read(0, GRACE));
        assert_eq!(first.next().await.unwrap(), "id: 7-0\nretry: 1000\ndata: \n\n");
        assert_eq!(first.next().await.unwrap(), "id: 7-1\ndata: 1\n\n");
        assert!(!replay.away().load(Ordering::Acquire));
        drop(first);
        assert!(replay.away().load(Ordering::Acquire));
        replay.push(b"data: 2\n\n");
        let (again, seen) = replays.find("7-1").unwrap();
        let second = again.clone().read(seen, GRACE);
        let third = again.read(seen, GRACE);
        replay.end();
        assert_eq!(texts(second).await, Vec::<String>::new(), "another hears it now");
        assert_eq!(texts(third).await, ["id: 7-2\ndata: 2\n\n"]);
        assert!(["", "7", "8-1", "7-x", "-", "7-18446744073709551615"].iter().all(|id| replays.find(id).is_none()));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let replays = Replays::default();
        let replay = replays.open(1);
        (0..40).for_each(|_| replay.push(&vec![b'x'; MOST_BYTES / 16]));
        assert!(replay.state().bytes <= MOST_BYTES);
        replay.end();
        assert!(texts(replay.clone().read(0, GRACE)).await.len() < 17);
        let large = replays.open(2);
        large.push(&vec![b'x'; 2 * MOST_BYTES]);
        large.end();
        assert!(texts(large.clone().read(0, GRACE)).await.concat().len() > 2 * MOST_BYTES, "an answer is said whole");
        assert_eq!(large.state().bytes, 0);
        (3..200).for_each(|number| drop(replays.open(number)));
        assert_eq!(replays.0.lock().unwrap().len(), MOST_STREAMS);
    }
}
