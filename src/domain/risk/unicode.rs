//! Characters that a reader does not see, and letters that imitate others, in any string.

use unicode_security::confusable_detection::skeleton;

use super::{Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

/// Looks at one string.
pub(super) fn look(pointer: &Pointer, text: &str, seen: &mut Sight<'_>) {
    if text.is_ascii() {
        return;
    }
    let value = || Value::from(text.chars().take(120).collect::<String>().as_str());
    let (mut turns, mut hides) = (false, false);
    for c in text.chars() {
        match u32::from(c) {
            // Direction overrides and isolates; tag characters; variation selectors beyond those of emoji.
            0x202a..=0x202e | 0x2066..=0x2069 | 0xe0000..=0xe0fff => turns = true,
            0x200b | 0x2060..=0x2064 | 0xfeff | 0xad | 0x180e | 0x115f | 0x1160 | 0x3164 | 0xffa0 => hides = true,
            _ => {}
        }
    }
    if turns {
        seen.fact("unicode", "hidden", Value::Bool(true));
        seen.find(Finding::new("unicode", Group::Integrity, 620, "the text has characters that turn or hide what is shown").at(pointer, &value()));
    } else if hides {
        seen.fact("unicode", "hidden", Value::Bool(true));
        seen.find(Finding::new("unicode", Group::Integrity, 350, "the text has characters that nobody sees").at(pointer, &value()));
    }
    // Words with Latin letters and their doubles from other alphabets; and addresses that only look Latin. Prose is not
    // looked at word by word for long.
    let words = text.split(|c: char| c.is_whitespace() || "/,;()\"'".contains(c)).filter(|word| !word.is_ascii() && word.chars().count() < 80);
    let mixed = words.take(500).any(|word| {
        let latin = word.chars().any(|c| c.is_ascii_alphabetic());
        let address = word.contains('@') || word.trim_matches('.').contains('.');
        (latin && word.chars().any(doubles)) || (address && !latin && skeleton(word).all(|c| c.is_ascii()))
    });
    if mixed {
        seen.fact("unicode", "mixed", Value::Bool(true));
        seen.find(
            Finding::new("unicode", Group::Integrity, 450, "a word mixes letters of several scripts, which may imitate another")
                .at(pointer, &value()),
        );
    }
}

/// Letters of alphabets that have doubles of Latin ones: Greek, Cyrillic, Armenian, Cherokee, mathematical and full-width.
fn doubles(c: char) -> bool {
    matches!(u32::from(c), 0x370..=0x3ff | 0x400..=0x52f | 0x530..=0x58f | 0x13a0..=0x13ff | 0xab70..=0xabbf | 0x1d400..=0x1d7ff | 0xff21..=0xff5a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::risk::{History, role::empty_facts};

    fn found(text: &str) -> usize {
        let history = History::default();
        let mut seen = Sight { findings: vec![], facts: empty_facts(), history: &history };
        look(&Pointer::root(), text, &mut seen);
        seen.findings.len()
    }

    #[test]
    fn imitations_are_seen_and_languages_are_not() {
        for text in ["p\u{430}ypal.com", "invoice\u{202e}fdp.exe", "pass\u{200b}word", "ok\u{e0041}", "\u{441}\u{43e}\u{440}\u{435}.\u{441}\u{43e}"] {
            assert_eq!(found(text), 1, "{text}");
        }
        for text in ["Grüße aus Köln", "日本語のテキスト", "Adobe软件", "plain", "😀 fine", "Ελληνικά"] {
            assert_eq!(found(text), 0, "{text}");
        }
    }
}
