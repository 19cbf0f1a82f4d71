//! Texts with fields of a credential filled in, as a header, a variable or a file of a server takes them.

use crate::domain::text::percent;

/// A text with fields of a credential: `postgres://{username|url}:{password|url}@db/app`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String, Written),
}

/// How a field is written into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Plain,
    Url,
    Json,
}

impl Slot {
    /// The text with the fields that `fields` has.
    ///
    /// # Errors
    /// The name of a field that the credential does not have.
    pub fn fill<'f>(&'f self, fields: impl Fn(&str) -> Option<&'f str>) -> Result<String, &'f str> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(name, written) => {
                    let value = fields(name).ok_or(name.as_str())?;
                    match written {
                        Written::Plain => out.push_str(value),
                        Written::Url => out.push_str(&percent(value)),
                        // Inside the quotes that the policy has around it.
                        Written::Json => {
                            let quoted = serde_json::Value::from(value).to_string();
                            out.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

impl std::str::FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        // `{{` and `}}` stand for braces, so that a file may be JSON.
        let mut plain = String::new();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
                continue;
            }
            if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
                continue;
            }
            let wrong = || format!("`{text}` has a brace without its partner; `{{{{` and `}}}}` stand for braces");
            let (inside, after) = from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or_else(wrong)?;
            let (name, written) = match inside.split_once('|') {
                None => (inside, Written::Plain),
                Some((name, "url")) => (name, Written::Url),
                Some((name, "json")) => (name, Written::Json),
                Some((_, other)) => return Err(format!("`{{{inside}}}`: `{other}` is not a way to write a field: `url` or `json`")),
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(format!("`{{{inside}}}` is not a field of a credential: lower-case letters, digits and `_`"));
            }
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Field(name.to_owned(), written));
            rest = after;
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn slots_write_fields_as_their_place_needs_them() {
        let fields = BTreeMap::from([("user", "u/1"), ("password", "p\"@ß")]);
        let fill = |text: &str| text.parse::<Slot>().unwrap().fill(|name| fields.get(name).copied()).map_err(str::to_owned);
        assert_eq!(fill("postgres://{user|url}:{password|url}@db").unwrap(), "postgres://u%2F1:p%22%40%C3%9F@db");
        assert_eq!(fill("{{\"token\":\"{password|json}\"}}").unwrap(), "{\"token\":\"p\\\"@ß\"}");
        assert_eq!(fill("{token}").unwrap_err(), "token");
    }
}
