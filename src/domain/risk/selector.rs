//! Which things are meant: a filter or pattern that leaves nothing out reaches everything.

use super::{Finding, Group, Sight};
use crate::domain::json::{Object, Pointer, Value};

pub(super) fn observe(pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let everything = match value {
        Value::Null => true,
        Value::String(text) => {
            matches!(text.trim(), "" | "*" | "**" | "**/*" | "*.*" | "%" | ".*" | "^.*$" | "all" | "ALL" | "--all" | "/" | "." | "/*")
        }
        Value::Object(object) => object.iter().next().is_none() || always(object),
        Value::Array(items) => items.is_empty() || items.iter().any(|item| matches!(item.as_str(), Some("*" | "all"))),
        _ => false,
    };
    let broad = value.as_str().is_some_and(|text| text.contains('*'));
    if everything {
        seen.fact("selector", "unbounded", Value::Bool(true));
        seen.find(Finding::new("selector", Group::Magnitude, 600, "the filter leaves nothing out").at(pointer, value));
    } else if broad {
        seen.find(Finding::new("selector", Group::Magnitude, 300, "the name is a pattern, which may mean many").at(pointer, value));
    }
}

/// A filter in an object whose conditions are all empty: `{"_id": {"$exists": true}}`, `{"$or": [{}]}`.
fn always(object: &Object) -> bool {
    object.iter().all(|(name, value)| match value {
        Value::Object(inner) if inner.iter().next().is_none() => true,
        Value::Object(inner) => inner.iter().all(|(op, operand)| match op {
            "$exists" => matches!(operand, Value::Bool(true)),
            "$ne" | "$nin" | "$not" => matches!(operand, Value::Null) || operand.as_array().is_some_and(<[Value]>::is_empty),
            "$regex" => matches!(operand.as_str(), Some("" | ".*")),
            _ => false,
        }),
        Value::Array(items) if matches!(name, "$or" | "$and") => items.iter().any(|item| item.as_object().is_some_and(|o| o.iter().next().is_none())),
        _ => false,
    })
}
