//! Making untrusted text visible: what an approver reads must be what is there.

/// `text` with every invisible, control or direction-changing character written out as `\u{202E}`, and runs of more
/// than three blanks counted, so that nothing hides and nothing is pushed out of sight.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blanks = 0usize;
    for c in text.chars() {
        if c == ' ' {
            blanks += 1;
            continue;
        }
        flush(&mut out, &mut blanks);
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_hidden(c) => out.push_str(&format!("\\u{{{:04X}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    flush(&mut out, &mut blanks);
    out
}

fn flush(out: &mut String, blanks: &mut usize) {
    match *blanks {
        0..4 => out.push_str(&" ".repeat(*blanks)),
        n => out.push_str(&format!(" [{n} blanks] ")),
    }
    *blanks = 0;
}

/// Whether a reader would not see `c`, or would see others moved by it: controls, format characters (Unicode Cf),
/// separators other than the blank, variation selectors, fillers, tags, private use.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xa0 | 0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x115f | 0x1160 | 0x1680 | 0x17b4 | 0x17b5
            | 0x180b..=0x180f | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x2800 | 0x3000 | 0x3164
            | 0xe000..=0xf8ff | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x110bd | 0x110cd
            | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff | 0xf0000..)
}

/// Everything but unreserved characters as `%XX` (RFC 3986 §2.3).
pub fn percent(text: &str) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
                out.extend(['%', digit(other >> 4), digit(other & 15)]);
            }
        }
    }
    out
}

/// The first `most` characters, with a note of how many more there are.
pub fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() {
        n if n <= most => text.to_owned(),
        n => format!("{}… ({} more characters)", text.chars().take(most).collect::<String>(), n - most),
    }
}

/// The known word nearest to `typed`, where one is near enough to be meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|word| (strsim::damerau_levenshtein(typed, word), word));
    scored.min().filter(|(distance, word)| *distance <= 1 + word.chars().count() / 3).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_invisible_survives() {
        assert_eq!(visible("pay\u{202e}lap \u{200b}x\u{e0041}"), "pay\\u{202E}lap \\u{200B}x\\u{E0041}");
        assert_eq!(visible("a\nb\tc\u{7}"), "a\\nb\\tc\\u{0007}");
        assert_eq!(visible(&format!("a{}b", " ".repeat(500))), "a [500 blanks] b");
        assert_eq!(visible("é 日本 😀"), "é 日本 😀");
    }

    #[test]
    fn near_misses_are_named() {
        assert_eq!(nearest("efect", ["effect", "server"]), Some("effect"));
        assert_eq!(nearest("zzzzzz", ["effect", "server"]), None);
    }
}
