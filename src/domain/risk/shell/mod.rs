//! Scripts and command lines, read as a shell reads them.
//!
//! For: arguments with the role `shell`. Every simple command is found ([`parse`]), looked up in a table of programs
//! ([`table`], `programs.txt`), and followed into what it runs itself: `sudo`, `xargs`, `find -exec`, `sh -c`, `ssh`.
//! What is not in the table, and what cannot be read, is held: an allow-list, not a deny-list.

mod judge;
mod parse;
mod second;
mod table;

use super::danger::Danger;
use super::{Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

use judge::Judge;
use second::Opinion;

/// Looks at an argument that holds a script, a command line, or a list of words.
pub(super) fn observe(pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let text = match value {
        Value::String(text) => text.clone(),
        // A list of words is a command whose words nobody splits any more.
        Value::Array(items) if items.iter().all(|item| matches!(item, Value::String(_))) => {
            items.iter().filter_map(Value::as_str).map(quoted).collect::<Vec<_>>().join(" ")
        }
        _ => {
            seen.find(Finding::uninspectable("shell", Group::Content, "the command is neither text nor a list of words").at(pointer, value));
            return;
        }
    };
    for danger in dangers(&text) {
        if danger.opaque {
            seen.fact("shell", "opaque", Value::Bool(true));
        }
        if danger.destroys {
            seen.fact("shell", "destroys", Value::Bool(true));
        }
        if danger.weight >= 600 {
            seen.fact("shell", "changes", Value::Bool(true));
        }
        seen.find(danger.finding("shell", pointer));
    }
}

/// What is dangerous in a script; nothing if it only looks.
pub(super) fn dangers(text: &str) -> Vec<Danger> {
    let text = text.trim_end_matches([' ', '\t', '\n', '\r']);
    let script = match parse::parse(text) {
        Ok(script) => script,
        Err(why) => return vec![Danger::unread(format!("the script cannot be read: {why}"), text)],
    };
    let mut judge = Judge::default();
    judge.script(&script, 0);
    match second::opinion(text, &script) {
        Opinion::Same => {}
        Opinion::Unread => judge.dangers.push(Danger::new(250, "a second parser cannot read the script", text).aside(Group::Integrity)),
        Opinion::Other => judge.dangers.push(Danger::unread("two parsers see different commands in the script".into(), text)),
    }
    judge.dangers
}

/// A word in quotes, so that the parser takes it for one word.
fn quoted(word: &str) -> String {
    match !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-+=:@,%".contains(&b)) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
