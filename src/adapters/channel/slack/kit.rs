//! The few parts of Block Kit that messages and modals are made of.
//!
//! Text from outside goes into `plain_text` and `rich_text` alone, where it is data: there is no function here that
//! makes mrkdwn. Hidden characters are written out before.

use serde_json::{Value, json};

use crate::domain::clock::Timestamp;

/// Most bytes of all blocks of a message: Slack fails a little above 13,000 and does not say where.
pub(super) const MESSAGE: usize = 12_000;

/// Text as it is: no formatting, no mentions, no emoji.
pub(super) fn plain(text: &str) -> Value {
    json!({"type": "plain_text", "text": text, "emoji": false})
}

/// A heading; at most 150 characters, and what is longer says so.
pub(super) fn header(text: &str) -> Value {
    json!({"type": "header", "text": plain(&cut(text, 150))})
}

/// Small print.
pub(super) fn context(text: &str) -> Value {
    json!({"type": "context", "elements": [plain(&cut(text, 2000))]})
}

/// A run of text.
pub(super) fn text(text: &str) -> Value {
    // Empty runs are refused.
    json!({"type": "text", "text": if text.is_empty() { " " } else { text }})
}

/// A run of bold text.
pub(super) fn bold(text: &str) -> Value {
    json!({"type": "text", "text": if text.is_empty() { " " } else { text }, "style": {"bold": true}})
}

/// A mention.
pub(super) fn user(id: &str) -> Value {
    json!({"type": "user", "user_id": id})
}

/// A time, in the reader's own zone.
pub(super) fn time(at: Timestamp) -> Value {
    json!({"type": "date", "timestamp": at.seconds(), "format": "{date_short_pretty} at {time}", "fallback": at.to_string()})
}

/// A line or paragraph.
pub(super) fn section(runs: Vec<Value>) -> Value {
    json!({"type": "rich_text_section", "elements": runs})
}

/// Lines below each other. In one section: sections that follow each other are not below each other everywhere.
pub(super) fn lines(lines: Vec<Vec<Value>>) -> Value {
    section(lines.join(&text("\n")))
}

/// Text in a frame, line for line.
pub(super) fn frame(content: &str) -> Value {
    json!({"type": "rich_text_preformatted", "elements": [text(content)]})
}

/// Text that somebody else said.
pub(super) fn quote(content: &str) -> Value {
    json!({"type": "rich_text_quote", "elements": [text(content)]})
}

/// A list.
pub(super) fn list(items: Vec<Value>) -> Value {
    json!({"type": "rich_text_list", "style": "bullet", "elements": items})
}

/// A block of lines, lists and frames.
pub(super) fn rich(parts: Vec<Value>) -> Value {
    json!({"type": "rich_text", "elements": parts})
}

/// A button. `value` is a nonce or nothing, never text from outside.
pub(super) fn button(label: &str, action: &str, value: &str) -> Value {
    json!({"type": "button", "text": plain(label), "action_id": action, "value": value})
}

/// Buttons in a row.
pub(super) fn actions(buttons: Vec<Value>) -> Value {
    json!({"type": "actions", "elements": buttons})
}

/// A field of a modal. Its answer is found under `name` and `name`.
pub(super) fn input(name: &str, label: &str, hint: Option<&str>, optional: bool, element: Value) -> Value {
    let mut block = json!({"type": "input", "block_id": name, "label": plain(&cut(label, 2000)), "optional": optional, "element": element});
    if let (Some(hint), Some(block)) = (hint, block.as_object_mut()) {
        block.insert("hint".into(), plain(&cut(hint, 2000)));
    }
    block
}

/// A field for text.
pub(super) fn writing(name: &str, lines: bool, most: u32) -> Value {
    json!({"type": "plain_text_input", "action_id": name, "multiline": lines, "max_length": most})
}

/// At most `most` UTF-16 units, which is how Slack counts at worst; what is longer says how much is missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    if units(text) <= most {
        return text.to_owned();
    }
    let total = text.chars().count();
    let room = most.saturating_sub(32);
    let (mut used, mut kept) = (0, String::new());
    for c in text.chars() {
        used += c.len_utf16();
        if used > room {
            break;
        }
        kept.push(c);
    }
    let missing = total - kept.chars().count();
    format!("{kept}… ({missing} more characters)")
}

/// UTF-16 units.
pub(super) fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// `text` in parts of at most `most` UTF-16 units, broken at line ends where there are some. Joined they are `text`.
pub(super) fn parts(text: &str, most: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for line in text.split_inclusive('\n') {
        let length = units(line);
        if used + length > most && used > 0 {
            parts.push(String::new());
            used = 0;
        }
        for c in line.chars() {
            if used + c.len_utf16() > most {
                parts.push(String::new());
                used = 0;
            }
            used += c.len_utf16();
            if let Some(last) = parts.last_mut() {
                last.push(c);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_lose_nothing(text in "[a-z\n😀]{0,400}", most in 4usize..80) {
            let parts = parts(&text, most);
            prop_assert_eq!(parts.concat(), text);
            prop_assert!(parts.iter().all(|part| units(part) <= most));
        }

        #[test]
        fn what_is_cut_says_so(text in ".{0,400}", most in 40usize..200) {
            let short = cut(&text, most);
            prop_assert!(units(&short) <= most);
            prop_assert!(short == text || short.contains("more characters"));
        }
    }
}
