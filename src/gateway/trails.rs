//! The trails of callers: what each has seen and been denied, in memory, for as many callers as there is room.
//!
//! Lost with a restart, which only raises less. Nothing here is on disk, and no text is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::clock::Timestamp;
use crate::domain::json::Value;
use crate::domain::risk::{Signs, Trail, Trust};

/// How many callers have a trail; the one that was silent longest gives way.
const CALLERS: usize = 256;

#[derive(Default)]
pub(super) struct Trails(Mutex<HashMap<String, (Timestamp, Trail)>>);

impl Trails {
    /// What the caller's trail says about a call.
    pub(super) fn signs(&self, caller: &str, arguments: &Value, key: &[u8]) -> Signs {
        let trails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trails.get(caller).map(|(_, trail)| trail.signs(arguments, key)).unwrap_or_default()
    }

    /// A call was made.
    pub(super) fn called(&self, caller: &str, now: Timestamp) {
        self.with(caller, now, |trail| trail.called(u64::try_from(now.0).unwrap_or(0)));
    }

    /// A call was denied by a person or by a rule.
    pub(super) fn denied(&self, caller: &str, now: Timestamp, key: &[u8]) {
        self.with(caller, now, |trail| trail.denied(key));
    }

    /// A call was answered with this response.
    pub(super) fn answered(&self, caller: &str, now: Timestamp, response: &[u8], trust: Trust) {
        if trust == Trust::Trusted {
            return;
        }
        let mut text = String::new();
        match serde_json::from_slice::<serde_json::Value>(response) {
            Ok(value) => collect(&value, &mut text),
            // What cannot be read as JSON is looked at as it stands.
            Err(_) => text = String::from_utf8_lossy(response).into_owned(),
        }
        self.with(caller, now, |trail| trail.answered(&text, trust));
    }

    fn with(&self, caller: &str, now: Timestamp, change: impl FnOnce(&mut Trail)) {
        let mut trails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !trails.contains_key(caller)
            && trails.len() >= CALLERS
            && let Some(oldest) = trails.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone())
        {
            trails.remove(&oldest);
        }
        let (at, trail) = trails.entry(caller.to_owned()).or_insert_with(|| (now, Trail::default()));
        *at = now;
        change(trail);
    }
}

/// Every string of a response, with blanks between them.
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
