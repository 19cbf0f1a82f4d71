//! What users asked their agents for, as a hook of their client tells: it ties a client's session, its prompt, and the
//! call that the client is about to make. Nobody has verified any of it, and nothing is decided by it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Gateway;
use crate::domain::call::ToolCall;
use crate::domain::digest::Digest;
use crate::domain::json::{Limits, Value};
use crate::domain::policy::{REASON, Show};

/// Most sessions and calls that are remembered.
const MOST: usize = 256;
/// Most characters of a prompt that are kept.
const LONGEST: usize = 4000;

/// What becomes of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompts {
    /// Approvers see them, and the record has them.
    #[default]
    Keep,
    /// The record has their digests.
    Digest,
    /// They are not taken.
    Off,
}

/// What a client's hook tells.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "told", rename_all = "lowercase")]
pub enum Told {
    /// A user asked something.
    Prompt {
        /// The client's session.
        session: String,
        /// What was asked.
        prompt: String,
    },
    /// The client is about to call a tool.
    Call {
        /// The client's session.
        session: String,
        /// The tool's name; that of its server, as the client knows it, may be before it.
        tool: String,
        /// Its arguments.
        arguments: serde_json::Value,
    },
}

/// A prompt and the session it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) session: String,
    pub(super) prompt: String,
}

/// What was told lately.
#[derive(Default)]
pub(super) struct Heard(Mutex<Lately>);

#[derive(Default)]
struct Lately {
    prompts: VecDeque<Stated>,
    calls: VecDeque<(String, Digest, String)>,
}

impl Heard {
    fn hear(&self, told: Told) {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::Prompt { session, prompt } => {
                lately.prompts.retain(|stated| stated.session != session);
                lately.prompts.push_front(Stated { session, prompt: prompt.chars().take(LONGEST).collect() });
                lately.prompts.truncate(MOST);
            }
            Told::Call { session, tool, arguments } => {
                let Some(digest) = digest_of(&arguments) else { return };
                lately.calls.push_front((tool, digest, session));
                lately.calls.truncate(MOST);
            }
        }
    }

    /// The prompt of the session that is about to make this call: the same tool with the same arguments.
    fn of(&self, tool: &str, arguments: impl FnOnce() -> Digest) -> Option<Stated> {
        let lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.calls.is_empty() {
            return None;
        }
        let digest = arguments();
        let named = |told: &str| told.strip_suffix(tool).is_some_and(|before| before.is_empty() || before.ends_with("__"));
        let (.., session) = lately.calls.iter().find(|(told, arguments, _)| named(told) && *arguments == digest)?;
        lately.prompts.iter().find(|stated| stated.session == *session).cloned()
    }
}

/// The digest that a call with these arguments has, whether the model is asked for its reason or not.
fn digest_of(arguments: &serde_json::Value) -> Option<Digest> {
    let params = serde_json::json!({"name": "told", "arguments": arguments}).to_string();
    let mut call = ToolCall::parse(params.as_bytes(), Limits::default()).ok()?;
    call.take_reason(REASON);
    Some(call.arguments_digest())
}

impl Gateway {
    /// Takes what a client's hook tells.
    pub fn hear(&self, told: Told) {
        if self.settings.prompts != Prompts::Off {
            self.heard.hear(told);
        }
    }

    /// What `call` was asked for, where its client's hook told; answers the client's session.
    pub(super) fn recall(&self, call: &mut ToolCall) -> Option<String> {
        let stated = self.heard.of(&call.tool, || call.arguments_digest())?;
        call.stated_prompt.get_or_insert(stated.prompt);
        Some(stated.session)
    }

    /// The prompt as it may be kept: not where it carries a secret, and without what the policy masks; and its digest.
    pub(super) fn stated_prompt(&self, call: &ToolCall, show: &Show) -> (Option<String>, Option<Digest>) {
        let Some(prompt) = call.stated_prompt.as_deref() else { return (None, None) };
        match self.settings.prompts {
            Prompts::Off => (None, None),
            Prompts::Digest => (None, Some(Digest::of(prompt.as_bytes()))),
            Prompts::Keep => (super::stated(Some(&without_masked(prompt, show, &call.arguments))), None),
        }
    }
}

/// A text without the values of masked arguments.
fn without_masked(text: &str, show: &Show, arguments: &Value) -> String {
    show.hidden(arguments).into_iter().fold(text.to_owned(), |text, value| text.replace(&value, "(masked)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_tied_to_its_sessions_latest_prompt() {
        let heard = Heard::default();
        let of = |tool: &str, arguments: serde_json::Value| heard.of(tool, || digest_of(&arguments).unwrap()).map(|stated| stated.prompt);
        let prompt = |session: &str, prompt: &str| heard.hear(Told::Prompt { session: session.into(), prompt: prompt.into() });
        let call = |session: &str, tool: &str, arguments: serde_json::Value| {
            heard.hear(Told::Call { session: session.into(), tool: tool.into(), arguments });
        };
        prompt("a", "tidy up");
        prompt("a", "tidy up, please");
        prompt("b", "look around");
        assert_eq!(of("delete", json!({"path": "x"})), None);
        call("a", "mcp__files__delete", json!({"path": "x", REASON: "because"}));
        call("b", "mcp__files__read", json!({"path": "x"}));
        assert_eq!(of("delete", json!({"path": "x"})).as_deref(), Some("tidy up, please"));
        assert_eq!(of("read", json!({"path": "x"})).as_deref(), Some("look around"));
        assert_eq!(of("delete", json!({"path": "y"})), None, "other arguments");
        assert_eq!(of("lete", json!({"path": "x"})), None, "another tool");
        (0..MOST).for_each(|n| prompt(&n.to_string(), "other"));
        assert_eq!(of("delete", json!({"path": "x"})), None, "forgotten");
    }
}
