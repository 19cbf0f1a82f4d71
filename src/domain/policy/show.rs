//! What approvers are shown of a call, and what nobody is.

use super::Template;
use crate::domain::json::{Pattern, Value};

/// What approvers are shown.
#[derive(Clone, Debug, Default)]
pub struct Show {
    /// One line about the call.
    pub title: Option<Template>,
    /// Arguments that nobody is shown and no log holds.
    pub mask: Vec<Pattern>,
    /// How sensitive the target is, in the operator's words.
    pub sensitivity: Option<String>,
    /// Which environment, in the operator's words.
    pub environment: Option<String>,
    /// Whether the model is asked why it calls.
    pub ask_reason: bool,
}

/// The argument in which a model says why, where it is asked.
pub const REASON: &str = "countersign_reason";

impl Show {
    /// Whether the argument at `pointer`, or one that holds it, is masked.
    pub fn is_masked(&self, pointer: &str) -> bool {
        let steps: Vec<&str> = pointer.split('/').collect();
        self.mask.iter().any(|pattern| {
            let pattern = pattern.to_string();
            let masked: Vec<&str> = pattern.split('/').collect();
            masked.len() <= steps.len() && masked.iter().zip(&steps).all(|(m, s)| *m == "*" || m == s)
        })
    }

    /// `arguments` with every masked value replaced by its digest, so that a change still shows.
    pub fn masked(&self, arguments: &Value) -> Value {
        if self.mask.is_empty() { arguments.clone() } else { self.mask_at("", arguments) }
    }

    /// The texts and numbers that are masked in `arguments`, those that are long enough to be told from other text.
    pub fn hidden(&self, arguments: &Value) -> Vec<String> {
        let mut hidden = Vec::new();
        if !self.mask.is_empty() {
            self.hidden_at("", arguments, false, &mut hidden);
        }
        hidden.retain(|text| text.chars().count() >= 4);
        hidden
    }

    fn hidden_at(&self, pointer: &str, value: &Value, within: bool, hidden: &mut Vec<String>) {
        let masked = within || (!pointer.is_empty() && self.is_masked(pointer));
        match value {
            Value::Object(object) => object.iter().for_each(|(name, member)| {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                self.hidden_at(&format!("{pointer}/{escaped}"), member, masked, hidden);
            }),
            Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| self.hidden_at(&format!("{pointer}/{n}"), item, masked, hidden)),
            Value::String(_) | Value::Number(_) if masked => hidden.push(value.plain()),
            _ => {}
        }
    }

    fn mask_at(&self, pointer: &str, value: &Value) -> Value {
        if !pointer.is_empty() && self.is_masked(pointer) {
            let digest = crate::domain::digest::Digest::of(crate::domain::json::canonical(value).as_bytes());
            return Value::String(format!("(masked, {})", digest.short()));
        }
        match value {
            Value::Object(object) => {
                let mut out = crate::domain::json::Object::default();
                for (name, member) in object.iter() {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    out.insert(name, self.mask_at(&format!("{pointer}/{escaped}"), member));
                }
                Value::Object(out)
            }
            Value::Array(items) => Value::Array(items.iter().enumerate().map(|(n, v)| self.mask_at(&format!("{pointer}/{n}"), v)).collect()),
            other => other.clone(),
        }
    }
}
