//! Whether a call is what it seems: does it fit the tool's schema, and is the tool still the one first seen.

use super::{Finding, Group, Sight};
use crate::domain::call::{ToolCall, folded};
use crate::domain::json::{Object, Pointer, Value};
use crate::domain::tool::{Known, ToolDefinition};

pub(super) fn observe(call: &ToolCall, known: &Known<'_>, seen: &mut Sight<'_>) {
    twins(call, seen);
    let plain = |weight, reason: &str| Finding::new("definition", Group::Integrity, weight, reason);
    match known {
        Known::Offered(definition, pinned) => {
            if definition.digest != *pinned {
                seen.fact("schema", "drift", Value::Bool(true));
                seen.find(plain(700, "the tool's definition has changed since it was first seen").floor("definition-drift", 80));
            }
            if let Some(strange) = definition.strange {
                seen.find(plain(450, strange));
            }
            schema(call, definition, seen);
        }
        Known::NotAsked | Known::Annotated(_) => {}
        Known::NotOffered => seen.find(plain(500, "the server does not offer a tool of this name")),
        Known::Unread => seen.find(plain(150, "the server's list of tools could not be read")),
    }
}

/// Top-level arguments whose names differ only in case: some servers take the one for the other.
fn twins(call: &ToolCall, seen: &mut Sight<'_>) {
    let mut names = std::collections::HashSet::new();
    for (name, value) in call.arguments.as_object().into_iter().flat_map(Object::iter) {
        if !names.insert(folded(name)) {
            let reason = "another argument has the same name in other case";
            seen.find(Finding::new("schema", Group::Integrity, 650, reason).at(&Pointer::root().join(name), value));
        }
    }
}

/// Top-level surprises: unknown arguments, missing ones, and values of another type than declared.
fn schema(call: &ToolCall, definition: &ToolDefinition, seen: &mut Sight<'_>) {
    let Some(arguments) = call.arguments.as_object() else { return };
    let found = |weight, reason: String| Finding::new("schema", Group::Integrity, weight, reason);
    let root = Pointer::root();
    let mut surprise = false;
    for (name, value) in arguments.iter() {
        match definition.properties().find(|(known, _)| *known == name) {
            Some((_, property)) if !fits(value, property) => {
                surprise = true;
                seen.find(found(300, "not of the type that the tool declares".into()).at(&root.join(name), value));
            }
            None if definition.input.get("properties").is_some() => {
                surprise = true;
                seen.find(found(300, "the tool declares no such argument".into()).at(&root.join(name), value));
            }
            _ => {}
        }
    }
    let required = definition.input.get("required").and_then(Value::as_array).unwrap_or_default();
    for name in required.iter().filter_map(Value::as_str).filter(|name| arguments.get(name).is_none()) {
        surprise = true;
        seen.find(found(150, format!("the required argument `{name}` is missing")));
    }
    seen.fact("schema", "surprise", Value::Bool(surprise));
}

/// Whether `value` is of a type that a property's `type` names; anything fits where it names none.
fn fits(value: &Value, property: &Value) -> bool {
    let kind = value.kind();
    let named = |name: &str| name == kind || (name == "number" && kind == "integer");
    match property.as_object().and_then(|o| o.get("type")) {
        Some(Value::String(name)) => named(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(named),
        _ => true,
    }
}
