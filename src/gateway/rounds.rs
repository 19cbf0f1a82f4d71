//! Held calls of clients of the stateless era that know no tasks: after a while such a client is told to send the same
//! request again with a sealed state (MCP 2026-07-28, multi round-trip requests), which it does by itself.
//!
//! The state gives no authority: it counts the rounds, and keeps the server's own state and what answered it, for which
//! there is no second field. It is sealed for its caller, server, tool and arguments.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Attempt, Gateway};
use crate::domain::clock::Timestamp;
use crate::domain::json::{Limits, Object, Value, canonical, read};

/// How states of ours begin.
const PREFIX: &str = "countersign-1.";
/// The members of a request that belong to a state.
const PARTS: [&str; 2] = ["inputResponses", "requestState"];

#[derive(Serialize, Deserialize)]
struct State {
    round: u8,
    until: Timestamp,
    /// The server's own state and what answered it, as JSON.
    inner: String,
}

/// A state that begins as ours do, and is not, or is of another request, or too old.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("`requestState` is not of this request, or too old: send the request again without it")]
pub(super) struct StateError;

impl Gateway {
    fn place_of(attempt: &Attempt) -> String {
        let caller = serde_json::to_string(&attempt.caller).unwrap_or_default();
        format!("request state\n{caller}\n{}", attempt.repeated())
    }

    /// The state with which a client repeats its request until `until`; nothing where the gateway has no key for it.
    pub(super) fn state_of(&self, attempt: &Attempt, until: Timestamp) -> Option<String> {
        let mut inner = Object::default();
        for part in PARTS {
            if let Some(value) = attempt.call.extras.get(part) {
                inner.insert(part, value.clone());
            }
        }
        let state = State { round: attempt.round + 1, until, inner: canonical(&Value::Object(inner)) };
        let sealed = self.issuers.seal.seal(&Self::place_of(attempt), &serde_json::to_string(&state).ok()?)?;
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Puts the server's own state back in place of ours. A request without a state of ours stays as it is.
    pub(super) fn unsealed(&self, attempt: &mut Attempt) -> Result<(), StateError> {
        let Some(text) = attempt.call.extras.get("requestState").and_then(Value::as_str).and_then(|text| text.strip_prefix(PREFIX)) else {
            return Ok(());
        };
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| StateError)?;
        let open = self.issuers.seal.open(&Self::place_of(attempt), &sealed).ok_or(StateError)?;
        let state: State = serde_json::from_str(&open).map_err(|_| StateError)?;
        if self.clock.now() >= state.until {
            return Err(StateError);
        }
        attempt.call.extras.remove("requestState");
        let inner = read(state.inner.as_bytes(), Limits::default()).map_err(|_| StateError)?;
        for (name, value) in inner.as_object().into_iter().flat_map(Object::iter) {
            // What the client answers anew is new input, and is judged as that.
            if attempt.call.extras.get(name).is_none() {
                attempt.call.extras.insert(name, value.clone());
            }
        }
        attempt.round = state.round;
        Ok(())
    }
}
