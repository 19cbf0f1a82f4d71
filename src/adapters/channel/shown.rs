//! How calls are written out for people, the same in every channel: nothing hidden, nothing cut.

use std::collections::BTreeMap;

use crate::domain::approval::{Outcome, Request};
use crate::domain::json::{Limits, Pointer, Value, canonical, read};
use crate::domain::text::visible;

/// Limits for what the gateway itself stored.
fn generous() -> Limits {
    Limits { bytes: 64 << 20, depth: 128, nodes: 4_000_000 }
}

/// JSON as stored, if it is an object.
pub(super) fn object(text: &str) -> Option<crate::domain::json::Object> {
    match read(text.as_bytes(), generous()) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// JSON text on as many lines as it needs.
pub(super) fn pretty_text(text: &str) -> String {
    read(text.as_bytes(), generous()).map_or_else(|_| visible(text), |value| pretty(&value, 0))
}

/// A value on as many lines as it needs, every string made visible and none cut.
pub(super) fn pretty(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        Value::String(text) => format!("\"{}\"", visible(text).replace("\\n", "\\n\n").trim_end_matches('\n')),
        Value::Array(items) if !items.is_empty() => {
            let lines: Vec<String> = items.iter().map(|item| format!("{pad}{}", pretty(item, depth + 1))).collect();
            format!("[\n{}\n{end}]", lines.join(",\n"))
        }
        Value::Object(object) if !object.is_empty() => {
            let lines: Vec<String> =
                object.iter().map(|(name, member)| format!("{pad}\"{}\": {}", visible(name), pretty(member, depth + 1))).collect();
            format!("{{\n{}\n{end}}}", lines.join(",\n"))
        }
        other => canonical(other),
    }
}

/// Everything that will run, beside the tool: the arguments, and what the call carries beside them.
pub(super) fn whole(request: &Request) -> String {
    let mut text = pretty_text(&request.arguments);
    if request.extras != "{}" {
        text.push_str(&format!("\n\nBeside its arguments, the call carries\n{}", pretty_text(&request.extras)));
    }
    text
}

/// How a call ended, in words.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Cancelled { why } => format!("taken back: {}", visible(why)),
        Outcome::Completed { is_error: false, .. } => "it ran".into(),
        Outcome::Completed { is_error: true, .. } => "it ran, and the tool reported an error".into(),
        Outcome::Denied { by, .. } => format!("denied by {by}; it did not run"),
        Outcome::Expired { .. } => "time ran out; it did not run".into(),
        Outcome::Failed { why } => format!("it did not run: {}", visible(why)),
        Outcome::OutcomeUnknown { why } => format!("UNKNOWN whether it ran: {}. It is not run again.", visible(why)),
        Outcome::Revoked { why } => format!("void before use: {}", visible(why)),
    }
}

/// How the arguments of `now` differ from those of `before`, one line each.
pub(super) fn differences(before: &Request, now: &Request) -> Vec<String> {
    let (old, new) = (leaves(&before.arguments), leaves(&now.arguments));
    let mut lines = Vec::new();
    for (place, value) in &new {
        match old.get(place) {
            None => lines.push(format!("{place} is new: {value}")),
            Some(was) if was != value => lines.push(format!("{place}: {was} → {value}")),
            Some(_) => {}
        }
    }
    lines.extend(old.iter().filter(|(place, _)| !new.contains_key(*place)).map(|(place, was)| format!("{place} is gone: {was}")));
    lines
}

/// The argument of `request` that stands for `target`, as it is written there: targets are kept in one form, arguments in
/// many. Nothing if no argument that people are shown does.
pub(super) fn written(request: &Request, target: &str) -> Option<String> {
    fn find(value: &Value, target: &str) -> Option<String> {
        match value {
            Value::String(text) => (folded(text) == target).then(|| text.clone()),
            Value::Array(items) => items.iter().find_map(|item| find(item, target)),
            Value::Object(object) => object.iter().find_map(|(_, member)| find(member, target)),
            _ => None,
        }
    }
    find(&Value::Object(object(&request.arguments)?), &folded(target))
}

/// Without case and blanks: what is typed need not be typed alike.
pub(super) fn folded(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Every value that holds no others, by its place.
fn leaves(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(value) = read(text.as_bytes(), generous()) {
        collect(&Pointer::root(), &value, &mut found);
    }
    found
}

fn collect(at: &Pointer, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) if !object.is_empty() => object.iter().for_each(|(name, member)| collect(&at.join(name), member, found)),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(n, item)| collect(&at.join(&n.to_string()), item, found));
        }
        Value::String(text) => drop(found.insert(visible(&at.to_string()), format!("\"{}\"", visible(text)))),
        other => drop(found.insert(visible(&at.to_string()), canonical(other))),
    }
}
