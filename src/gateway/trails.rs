//! The trails of callers: what each has seen and been denied, in memory, for as many callers as there is room.
//!
//! Lost with a restart, which only raises less. Nothing here is on disk, and no text is kept longer than it takes to
//! read it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::domain::clock::Timestamp;
use crate::domain::json::Value;
use crate::domain::risk::{Signs, Trail, Trust};

/// How many callers have a trail; the one that was silent longest gives way.
const CALLERS: usize = 256;

#[derive(Default)]
pub(super) struct Trails(Mutex<HashMap<String, Seen>>);

/// When a caller was last heard of, and what is known of it.
type Seen = (Timestamp, Arc<Mutex<Followed>>);

#[derive(Default)]
struct Followed {
    trail: Trail,
    /// Answers that were heard and are not read yet.
    heard: Vec<(Bytes, Trust)>,
}

impl Trails {
    /// What the caller's trail says about a call, now that it is made.
    pub(super) fn signs(&self, caller: &str, now: Timestamp, arguments: &Value, key: &[u8]) -> Signs {
        self.with(caller, now, |followed| {
            followed.read();
            let signs = followed.trail.signs(arguments, key);
            followed.trail.called(u64::try_from(now.0).unwrap_or(0));
            signs
        })
    }

    /// A call was denied by a person or by a rule.
    pub(super) fn denied(&self, caller: &str, now: Timestamp, key: &[u8]) {
        self.with(caller, now, |followed| followed.trail.denied(key));
    }

    /// A call was answered with this response. It is read by whoever comes first: [`Trails::read`], which keeps nobody
    /// waiting, or the caller's next call.
    pub(super) fn heard(&self, caller: &str, now: Timestamp, response: &Bytes, trust: Trust) {
        if trust != Trust::Trusted {
            self.with(caller, now, |followed| followed.heard.push((response.clone(), trust)));
        }
    }

    /// Reads what was heard.
    pub(super) fn read(&self, caller: &str, now: Timestamp) {
        self.with(caller, now, Followed::read);
    }

    fn with<T>(&self, caller: &str, now: Timestamp, change: impl FnOnce(&mut Followed) -> T) -> T {
        let followed = {
            let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !callers.contains_key(caller)
                && callers.len() >= CALLERS
                && let Some(oldest) = callers.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone())
            {
                callers.remove(&oldest);
            }
            let (at, followed) = callers.entry(caller.to_owned()).or_insert_with(|| (now, Arc::default()));
            *at = now;
            followed.clone()
        };
        change(&mut followed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Followed {
    fn read(&mut self) {
        for (response, trust) in std::mem::take(&mut self.heard) {
            let mut text = String::new();
            match serde_json::from_slice::<serde_json::Value>(&response) {
                Ok(value) => collect(&value, &mut text),
                // What cannot be read as JSON is looked at as it stands.
                Err(_) => text = String::from_utf8_lossy(&response).into_owned(),
            }
            self.trail.answered(&text, trust);
        }
    }
}

/// Every string and number of a response, each on a line.
fn collect(value: &serde_json::Value, text: &mut String) {
    match value {
        serde_json::Value::String(part) => {
            text.push_str(part);
            text.push('\n');
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, text)),
        serde_json::Value::Object(members) => members.values().for_each(|member| collect(member, text)),
        serde_json::Value::Number(number) => {
            text.push_str(&number.to_string());
            text.push('\n');
        }
        _ => {}
    }
}
