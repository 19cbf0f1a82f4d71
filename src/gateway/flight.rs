//! How many calls of one caller are under way at once: one that sends without end must not take what others need.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Calls under way, by caller.
#[derive(Default)]
pub(super) struct Flight(Mutex<HashMap<String, u32>>);

/// One call under way; dropped when it is over.
pub(super) struct Aboard<'f>(&'f Flight, String);

impl Flight {
    /// Takes a call of `caller` in, unless `most` of theirs are under way.
    pub(super) fn board(&self, caller: &str, most: u32) -> Option<Aboard<'_>> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut calls = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(calls.remove(&self.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_share() {
        let flight = Flight::default();
        let (one, two) = (flight.board("a", 2), flight.board("a", 2));
        assert!(one.is_some() && two.is_some() && flight.board("a", 2).is_none());
        assert!(flight.board("b", 2).is_some());
        drop(one);
        assert!(flight.board("a", 2).is_some());
        drop(two);
        assert!(flight.0.lock().unwrap().is_empty());
    }
}
