//! The two things that only the system gives: the time, and chance.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::domain::clock::{Clock, Timestamp};
use crate::domain::digest::hex;

/// The system's clock, made safe to count lives with: it never goes backwards, and it never runs slower than time
/// really passes, so that an approval cannot live longer than its time however the wall clock is set.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    started_at: i64,
    latest: AtomicI64,
}

impl SystemClock {
    /// A clock that starts no earlier than `floor`: the last time the store knows of.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clocks")]
    pub fn starting_at(floor: Timestamp) -> Self {
        let started_at = wall().max(floor.0);
        Self { started: Instant::now(), started_at, latest: AtomicI64::new(started_at) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = wall().max(self.started_at.saturating_add(passed));
        Timestamp(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clocks")]
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The system's source of chance failed; nothing that needs a secret can go on.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct RandomError;

/// `N` random bytes as lower-case hex: ids (16) and secrets (32).
///
/// # Errors
/// If the system has none to give.
pub fn random_hex<const N: usize>() -> Result<String, RandomError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(hex(&bytes))
}

thread_local! {
    static NUMBER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many threads serve connections: as many as there are cores for this process.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Says which of them this thread is.
pub fn serve_as(number: usize) {
    NUMBER.set(number);
}

/// Which of the threads that serve connections this is; 0 for all others.
pub fn served_by() -> usize {
    NUMBER.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_behind_what_the_store_has_seen() {
        let future = Timestamp(wall() + 3_600_000);
        let clock = SystemClock::starting_at(future);
        let first = clock.now();
        assert!(first >= future);
        assert!(clock.now() >= first);
    }
}
