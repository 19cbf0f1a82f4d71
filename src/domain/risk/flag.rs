//! Switches that make a call more dangerous: `force`, `recursive`, `public`.

use super::{Finding, FlagRole, Group, Sight};
use crate::domain::json::{Number, Pointer, Value};

pub(super) fn observe(role: &FlagRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let safe = if role.safe.is_empty() {
        matches!(value, Value::Bool(false) | Value::Null | Value::Number(Number::Int(0))) || matches!(value.as_str(), Some("" | "false"))
    } else {
        role.safe.contains(value)
    };
    if !safe {
        seen.fact("flag", "raised", Value::Bool(true));
        let name = pointer.to_string();
        seen.find(Finding::new("flag", Group::Magnitude, 400, format!("`{}` is set", name.trim_start_matches('/'))).at(pointer, value));
    }
}
