//! The strict reader. One pass, no recursion deeper than the limit, no work before the size is known.
//!
//! Refused: duplicate member names at any depth (escaped or not), lone surrogates, numbers that do not fit 64-bit
//! integers or finite doubles, nesting and node counts over the limits, anything after the value. Everything refused
//! is refused because two readers are known to disagree on it (RFC 8259 §4, §6, §8.2).

use std::collections::HashSet;
use std::fmt;

use super::canonical::number_text;
use super::{Number, Object, Value};

/// How much the reader takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of text. Default 4 MiB.
    pub bytes: usize,
    /// Arrays and objects inside each other. Default 64.
    pub depth: usize,
    /// Values and member names in all. Default 200,000.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 20, depth: 64, nodes: 200_000 }
    }
}

/// Why a text was refused, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} at {place}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where: a byte offset and the JSON Pointer of the value that holds it.
    pub place: Place,
}

/// A byte offset and the JSON Pointer of the value being read there.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the text.
    pub offset: usize,
    /// RFC 6901 pointer of the enclosing value.
    pub pointer: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} in `{}`", self.offset, if self.pointer.is_empty() { "/" } else { &self.pointer })
    }
}

/// What the strict reader refuses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// Nested deeper than the limit.
    #[error("nesting deeper than {0} levels")]
    Depth(usize),
    /// The same member name twice in one object.
    #[error("duplicate key `{0}`")]
    DuplicateKey(String),
    /// A `\u` escape that is half of a surrogate pair.
    #[error("lone surrogate in a string")]
    LoneSurrogate,
    /// More values than the limit.
    #[error("more than {0} values")]
    Nodes(usize),
    /// Bytes that are not UTF-8.
    #[error("invalid utf-8")]
    NotUtf8,
    /// A number that neither a 64-bit integer nor a finite double holds.
    #[error("number `{0}` does not fit 64-bit integers or finite doubles")]
    Number(String),
    /// More bytes than the limit.
    #[error("longer than {0} bytes")]
    Size(usize),
    /// Not JSON.
    #[error("expected {0}")]
    Syntax(&'static str),
}

/// Reads one value that fills all of `text`.
///
/// # Errors
/// The first thing refused, with its place; see [`JsonErrorKind`].
pub fn read(text: &[u8], limits: Limits) -> Result<Value, JsonError> {
    let fail = |kind, offset| Err(JsonError { kind, place: Place { offset, pointer: String::new() } });
    if text.len() > limits.bytes {
        return fail(JsonErrorKind::Size(limits.bytes), limits.bytes);
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return fail(JsonErrorKind::NotUtf8, error.valid_up_to()),
    };
    let mut reader = Reader { text, at: 0, limits, depth: 0, nodes: 0, path: Vec::new() };
    reader.blank();
    let value = reader.value()?;
    reader.blank();
    if reader.peek().is_some() {
        return Err(reader.error(JsonErrorKind::Syntax("the end of the text")));
    }
    Ok(value)
}

enum Step {
    Index(usize),
    Member(String),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    limits: Limits,
    depth: usize,
    nodes: usize,
    path: Vec<Step>,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, JsonError> {
        self.count()?;
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.error(JsonErrorKind::Syntax("a value"))),
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        self.enter()?;
        let mut members: Vec<(String, Value)> = Vec::new();
        // Few members are compared one by one; many through a set, so that a million keys stay linear.
        let mut seen: Option<HashSet<String>> = None;
        self.blank();
        if self.take(b'}') {
            self.depth -= 1;
            return Ok(Value::Object(Object::default()));
        }
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(self.error(JsonErrorKind::Syntax("a member name in quotes")));
            }
            let start = self.at;
            self.count()?;
            let name = self.string()?;
            let duplicate = match &mut seen {
                Some(set) => !set.insert(name.clone()),
                None => members.iter().any(|(key, _)| *key == name),
            };
            if duplicate {
                self.at = start;
                return Err(self.error(JsonErrorKind::DuplicateKey(name)));
            }
            if seen.is_none() && members.len() >= 16 {
                seen = Some(members.iter().map(|(key, _)| key.clone()).chain([name.clone()]).collect());
            }
            self.blank();
            if !self.take(b':') {
                return Err(self.error(JsonErrorKind::Syntax("`:`")));
            }
            self.blank();
            self.path.push(Step::Member(name.clone()));
            let value = self.value()?;
            self.path.pop();
            members.push((name, value));
            self.blank();
            if self.take(b',') {
                continue;
            }
            if self.take(b'}') {
                break;
            }
            return Err(self.error(JsonErrorKind::Syntax("`,` or `}`")));
        }
        self.depth -= 1;
        members.sort_by(|(a, _), (b, _)| if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) });
        Ok(Value::Object(Object(members)))
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        self.enter()?;
        let mut items = Vec::new();
        self.blank();
        if self.take(b']') {
            self.depth -= 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.blank();
            self.path.push(Step::Index(items.len()));
            items.push(self.value()?);
            self.path.pop();
            self.blank();
            if self.take(b',') {
                continue;
            }
            if self.take(b']') {
                break;
            }
            return Err(self.error(JsonErrorKind::Syntax("`,` or `]`")));
        }
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ').unwrap_or(rest.len());
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error(JsonErrorKind::Syntax("no control character in a string"))),
                None => return Err(self.error(JsonErrorKind::Syntax("a closing quote"))),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error(JsonErrorKind::Syntax("a known escape"))),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..0xdc00 => {
                if self.peek() != Some(b'\\') {
                    return Err(self.error(JsonErrorKind::LoneSurrogate));
                }
                self.at += 1;
                if self.peek() != Some(b'u') {
                    return Err(self.error(JsonErrorKind::LoneSurrogate));
                }
                let second = self.hex4()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(self.error(JsonErrorKind::LoneSurrogate));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.error(JsonErrorKind::LoneSurrogate))
    }

    /// Four hex digits after a `u`.
    fn hex4(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|d| u32::from_str_radix(d, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => Err(self.error(JsonErrorKind::Syntax("four hex digits"))),
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.take(b'-');
        if self.take(b'0') {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error(JsonErrorKind::Syntax("no leading zero")));
            }
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        match number_value(text, integer) {
            Some(number) => Ok(Value::Number(number)),
            None => {
                let shown: String = text.chars().take(40).collect();
                self.at = start;
                Err(self.error(JsonErrorKind::Number(shown)))
            }
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error(JsonErrorKind::Syntax("a digit"))) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, JsonError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.error(JsonErrorKind::Syntax("a value")))
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        if self.depth >= self.limits.depth {
            return Err(self.error(JsonErrorKind::Depth(self.limits.depth)));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn count(&mut self) -> Result<(), JsonError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(self.error(JsonErrorKind::Nodes(self.limits.nodes)));
        }
        Ok(())
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, kind: JsonErrorKind) -> JsonError {
        let pointer = self.path.iter().map(|step| match step {
            Step::Index(n) => format!("/{n}"),
            Step::Member(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        });
        JsonError { kind, place: Place { offset: self.at, pointer: pointer.collect() } }
    }
}

/// The number that `text` means, or nothing if no 64-bit integer or finite double is it.
///
/// INVARIANT: the canonical text of what is returned reads back to the same number, so an integer wider than 64 bits
/// is taken only where it already is its double's canonical text.
fn number_value(text: &str, integer: bool) -> Option<Number> {
    if integer {
        if text == "-0" {
            return Some(Number::Int(0));
        }
        if let Ok(n) = text.parse() {
            return Some(Number::Int(n));
        }
        if let Ok(n) = text.parse() {
            return Some(Number::Uint(n));
        }
    }
    let x: f64 = text.parse().ok().filter(|x: &f64| x.is_finite())?;
    let written = number_text(Number::Float(x));
    if integer {
        return (written == text).then_some(Number::Float(x));
    }
    match (written.parse(), written.parse()) {
        (Ok(n), _) => Some(Number::Int(n)),
        (_, Ok(n)) => Some(Number::Uint(n)),
        _ => Some(Number::Float(x)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::canonical;
    use super::*;
    use proptest::prelude::*;

    fn kind(text: &str) -> JsonErrorKind {
        read(text.as_bytes(), Limits::default()).expect_err(text).kind
    }

    fn round(text: &str) -> String {
        canonical(&read(text.as_bytes(), Limits::default()).unwrap())
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"x":{"b":[],"b":[]}}]"#] {
            assert!(matches!(kind(text), JsonErrorKind::DuplicateKey(_)), "{text}");
        }
        let many: String = (0..40).map(|n| format!("\"k{n}\":0,")).collect();
        assert!(matches!(kind(&format!("{{{many}\"k3\":1}}")), JsonErrorKind::DuplicateKey(k) if k == "k3"));
    }

    #[test]
    fn a_refusal_names_the_place() {
        let error = read(br#"{"arguments":{"to":["x",{"a":1,"a":2}]}}"#, Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "duplicate key `a` at byte 31 in `/arguments/to/1`");
    }

    #[test]
    fn numbers_that_cannot_be_kept_exactly_are_refused() {
        for text in ["1e400", "-1e999", "18446744073709551617", "123456789012345678901234567890"] {
            assert!(matches!(kind(text), JsonErrorKind::Number(_)), "{text}");
        }
        for text in ["01", "+1", ".5", "1.", "1e", "NaN", "Infinity", "0x10", "--1"] {
            assert!(matches!(kind(text), JsonErrorKind::Syntax(_)), "{text}");
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for (text, form) in [
            ("1.0", "1"),
            ("1e2", "100"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.10", "0.1"),
            ("1E-7", "1e-7"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
            ("1e20", "100000000000000000000"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e21", "1e+21"),
        ] {
            assert_eq!(round(text), form);
            assert_eq!(round(form), form);
        }
    }

    #[test]
    fn strings_must_be_unicode() {
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\u0041""#] {
            assert_eq!(kind(text), JsonErrorKind::LoneSurrogate, "{text}");
        }
        assert_eq!(read(b"\"\xff\"", Limits::default()).unwrap_err().kind, JsonErrorKind::NotUtf8);
        assert!(matches!(kind("\"a\nb\""), JsonErrorKind::Syntax(_)));
        assert_eq!(round(r#""\ud83d\ude00\u0000""#), "\"😀\\u0000\"");
    }

    #[test]
    fn depth_size_and_count_are_bounded() {
        assert_eq!(kind(&("[".repeat(10_000))), JsonErrorKind::Depth(64));
        assert!(read(("[".repeat(64) + &"]".repeat(64)).as_bytes(), Limits::default()).is_ok());
        assert_eq!(kind(&format!("[{}0]", "0,".repeat(300_000))), JsonErrorKind::Nodes(200_000));
        let small = Limits { bytes: 4, ..Limits::default() };
        assert_eq!(read(b"[1,2]", small).unwrap_err().kind, JsonErrorKind::Size(4));
    }

    #[test]
    fn nothing_follows_the_value() {
        for text in ["{} {}", "1 2", "null,", "[1,]", "{\"a\":1,}", "", " ", "\u{feff}{}"] {
            assert!(matches!(kind(text), JsonErrorKind::Syntax(_)), "{text}");
        }
    }

    #[test]
    fn members_sort_by_utf_16_units() {
        // U+10000 is D800 DC00 in UTF-16 and so comes before U+E000 (RFC 8785 §3.2.3).
        assert_eq!(round("{\"\u{e000}\":1,\"\u{10000}\":2,\"a\":3}"), "{\"a\":3,\"\u{10000}\":2,\"\u{e000}\":1}");
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-(1i64 << 53)..(1i64 << 53)).prop_map(Into::into),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_to_itself_and_agrees_with_another_writer(value in json()) {
            let text = serde_json::to_string(&value).unwrap();
            let ours = round(&text);
            prop_assert_eq!(&round(&ours), &ours);
            prop_assert_eq!(ours, serde_json_canonicalizer::to_string(&value).unwrap());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, Limits::default());
        }
    }
}
