//! Recipients: new ones are riskier than those that were approved before. Learned only from approved calls.

use super::{Finding, Group, RecipientRole, Sight, Target};
use crate::domain::json::{Pointer, Value};
use crate::domain::text::is_hidden;

pub(super) fn observe(role: &RecipientRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let targets = targets(value);
    if targets.is_empty() {
        seen.find(Finding::uninspectable("recipient", Group::Target, "the recipient cannot be read").at(pointer, value));
        return;
    }
    let known: Vec<String> = role.known.iter().map(|name| plain(name)).collect();
    let new = |target: &&Target| !known.contains(&target.value) && !seen.history.seen.contains(*target);
    if let Some(first) = targets.iter().find(new) {
        let reason = "first seen: nothing was sent to this recipient before";
        let finding = Finding::new("recipient", Group::Target, 450, reason).at(pointer, &Value::String(first.value.clone()));
        seen.fact("recipient", "first_seen", Value::Bool(true));
        seen.find(finding);
    }
    let odd = |c: char| is_hidden(c) || !c.is_ascii();
    if targets.iter().any(|target| target.value.chars().any(odd)) {
        let reason = "the recipient has letters that may imitate others";
        seen.find(Finding::new("recipient", Group::Integrity, 400, reason).at(pointer, value));
    }
}

/// The recipients that an argument names: itself, or each element of a list.
pub(super) fn targets(value: &Value) -> Vec<Target> {
    let one = |text: &str| Target { kind: "recipient".into(), value: plain(text) };
    match value {
        Value::String(text) if !text.trim().is_empty() => vec![one(text)],
        Value::Number(_) => vec![one(&value.plain())],
        Value::Array(items) => items.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

/// One spelling of a recipient: without blanks, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}
