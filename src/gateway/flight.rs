//! How many calls of one caller are under way at once: one that sends without end must not take what others need.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How long a call waits for another to end where no more are taken: a client that has its answer may call again before the
/// record of that is written.
const MOMENT: Duration = Duration::from_millis(250);

/// Calls under way, by caller.
#[derive(Default)]
pub(super) struct Flight {
    calls: Mutex<HashMap<String, u32>>,
    ended: Notify,
}

/// One call under way; dropped when it is over.
pub(super) struct Aboard<'f>(&'f Flight, String);

impl Flight {
    /// Takes a call of `caller` in, unless `most` of theirs are under way and none ends in a moment.
    pub(super) async fn board(&self, caller: &str, most: u32) -> Option<Aboard<'_>> {
        if let Some(aboard) = self.try_board(caller, most) {
            return Some(aboard);
        }
        let wait = async {
            loop {
                let ended = self.ended.notified();
                if let Some(aboard) = self.try_board(caller, most) {
                    return aboard;
                }
                ended.await;
            }
        };
        tokio::time::timeout(MOMENT, wait).await.ok()
    }

    fn try_board(&self, caller: &str, most: u32) -> Option<Aboard<'_>> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(caller) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None if most == 0 => return None,
            None => drop(calls.insert(caller.to_owned(), 1)),
        }
        Some(Aboard(self, caller.to_owned()))
    }
}

impl Drop for Aboard<'_> {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(calls.remove(&self.1)),
        }
        drop(calls);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_caller_has_its_own_share() {
        let flight = Flight::default();
        let (one, two) = (flight.board("a", 2).await, flight.board("a", 2).await);
        assert!(one.is_some() && two.is_some() && flight.board("a", 2).await.is_none());
        assert!(flight.board("b", 2).await.is_some());
        // One that ends makes room for one that waits.
        let ends = async {
            tokio::time::sleep(MOMENT / 2).await;
            drop(one);
        };
        let (third, ()) = tokio::join!(flight.board("a", 2), ends);
        assert!(third.is_some() && flight.board("a", 2).await.is_none());
        drop((two, third));
        assert!(flight.calls.lock().unwrap().is_empty());
    }
}
