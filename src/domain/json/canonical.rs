//! The canonical text of a value: RFC 8785 (JCS), with one extension: integers within 64 bits are written exactly
//! where JCS would round them to a double.

use super::{Number, Object, Value};

/// The one text of `value`. Reading it back gives `value` again.
pub fn canonical(value: &Value) -> String {
    let mut out = String::with_capacity(128);
    write(value, &mut out);
    out
}

/// The text of `object` with one more member, whose canonical text is at hand, in its place among the others.
pub fn canonical_with(mut object: Object, name: &str, text: &str) -> String {
    object.insert(name, Value::Null);
    let mut out = String::with_capacity(text.len() + 256);
    write_members(&object, &mut out, &|key, member, out| if key == name { out.push_str(text) } else { write(member, out) });
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number_text(*number)),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            write_members(object, out, &|_, member, out| write(member, out));
        }
    }
}

fn write_members(object: &Object, out: &mut String, one: &impl Fn(&str, &Value, &mut String)) {
    out.push('{');
    for (n, (key, member)) in object.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        one(key, member, out);
    }
    out.push('}');
}

/// A number as ECMAScript writes it (RFC 8785 §3.2.2.3), integers exactly.
pub(super) fn number_text(number: Number) -> String {
    match number {
        Number::Int(n) => n.to_string(),
        Number::Uint(n) => n.to_string(),
        Number::Float(x) => ryu_js::Buffer::new().format_finite(x).to_owned(),
    }
}

/// Where the first byte is that must be escaped.
fn first_escape(bytes: &[u8]) -> Option<usize> {
    let escaped = |b: &u8| *b < b' ' || *b == b'"' || *b == b'\\';
    // Without an early end within a block: so the compiler looks at many bytes at once.
    let block = bytes.chunks(64).position(|block| block.iter().fold(false, |any, b| any | escaped(b)))?;
    let start = block * 64;
    bytes.iter().skip(start).position(escaped).map(|at| start + at)
}

/// A string with only the escapes that RFC 8785 §3.2.2.2 demands.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    // What needs no escape goes over in one piece: long texts are copied, not looked at letter by letter.
    let mut rest = text;
    while let Some(at) = first_escape(rest.as_bytes()) {
        let (plain, escaped) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = escaped.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\t') => out.push_str("\\t"),
            Some('\n') => out.push_str("\\n"),
            Some('\u{c}') => out.push_str("\\f"),
            Some('\r') => out.push_str("\\r"),
            Some(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_escaped_wherever_it_is_needed() {
        for at in 0..200 {
            for needs in ['"', '\\', '\n', '\u{1}'] {
                let mut text: Vec<char> = "ü".repeat(7).chars().chain(std::iter::repeat_n('x', 200)).collect();
                text[at] = needs;
                text[199] = '\t';
                let text: String = text.into_iter().collect();
                let written = canonical(&Value::from(text.as_str()));
                assert_eq!(written, serde_json_canonicalizer::to_string(&text).unwrap());
            }
        }
    }
}
