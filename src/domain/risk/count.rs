//! How many things a call touches: a number, or the length of a list.

use super::{CountRole, Finding, Group, Sight};
use crate::domain::json::{Number, Pointer, Value};

pub(super) fn observe(role: &CountRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let count = match value {
        Value::Number(Number::Int(n)) => Some(n.unsigned_abs()),
        Value::Number(Number::Uint(n)) => Some(*n),
        Value::Array(items) => Some(items.len() as u64),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match (count, role.limit) {
        (None, _) => {
            seen.find(Finding::uninspectable("count", Group::Magnitude, "the count is not a number or a list").at(pointer, value));
        }
        (Some(count), Some(limit)) if count > limit => {
            seen.fact("count", "over_limit", Value::Bool(true));
            let reason = format!("{count} at once, where {limit} is ordinary");
            seen.find(Finding::new("count", Group::Magnitude, 600, reason).at(pointer, value));
        }
        _ => {}
    }
}
