//! Texts with arguments filled in: `refund:{/payment_id}`.
//!
//! Titles take any value, made visible. Scopes take only what cannot widen them: one plain word per placeholder.

use crate::domain::json::{Number, Pointer, PointerError, Value};
use crate::domain::text::{shortened, visible};

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Argument(Pointer),
    Text(String),
}

/// Why a template was refused, or could not be filled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("`{0}` has a brace without its partner")]
    Brace(String),
    /// The argument is not there.
    #[error("the scope needs the argument `{0}`, which the call does not have")]
    Missing(String),
    /// Not a JSON pointer between the braces.
    #[error(transparent)]
    Pointer(#[from] PointerError),
    /// The argument's value could widen a scope.
    #[error("the argument `{0}` cannot be part of a scope: it must be 1 to 128 letters, digits or any of `-_.@:/`, without `..` or `//`")]
    Unfit(String),
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (pointer, after) = after.split_once('}').ok_or_else(|| TemplateError::Brace(text.to_owned()))?;
            if before.contains('}') || pointer.contains('{') {
                return Err(TemplateError::Brace(text.to_owned()));
            }
            parts.extend([Part::Text(before.to_owned()), Part::Argument(pointer.parse()?)]);
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Brace(text.to_owned()));
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl Template {
    /// The text for a person, every value made visible and cut to 60 characters.
    pub fn title(&self, arguments: &Value, masked: impl Fn(&str) -> bool) -> String {
        let fill = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Argument(pointer) if masked(&pointer.to_string()) => "(masked)".to_owned(),
            Part::Argument(pointer) => match pointer.resolve(arguments) {
                Some(value) => shortened(&visible(&value.plain()), 60),
                None => "(none)".to_owned(),
            },
        };
        self.0.iter().map(fill).collect()
    }

    /// The scope for a credential.
    ///
    /// # Errors
    /// Where an argument is missing or could widen the scope. There is no default and no coercion.
    pub fn scope(&self, arguments: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Argument(pointer) => {
                    let value = pointer.resolve(arguments).ok_or_else(|| TemplateError::Missing(pointer.to_string()))?;
                    let word = word(value).ok_or_else(|| TemplateError::Unfit(pointer.to_string()))?;
                    out.push_str(&word);
                }
            }
        }
        Ok(out)
    }
}

fn word(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(Number::Int(_) | Number::Uint(_)) => value.plain(),
        _ => return None,
    };
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:/".contains(&b));
    (plain && (1..=128).contains(&text.len()) && !text.contains("..") && !text.contains("//")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::{Limits, read};

    fn scope(arguments: &str) -> Result<String, TemplateError> {
        let template: Template = "refund:{/id}".parse().unwrap();
        template.scope(&read(arguments.as_bytes(), Limits::default()).unwrap())
    }

    #[test]
    fn scopes_take_plain_words_only() {
        assert_eq!(scope(r#"{"id":"p-1"}"#).unwrap(), "refund:p-1");
        assert_eq!(scope(r#"{"id":17}"#).unwrap(), "refund:17");
        assert_eq!(scope("{}"), Err(TemplateError::Missing("/id".into())));
        for id in [
            "\"\"",
            "\"*\"",
            "\"a b\"",
            "\"a\\nb\"",
            "\"../x\"",
            "\"a//b\"",
            "\"${x}\"",
            "\"a,b\"",
            "\"p\u{e9}\"",
            "\"p?\"",
            "\"'\"",
            "null",
            "1.5",
            "[\"a\"]",
            "{\"a\":1}",
            "true",
        ] {
            assert_eq!(scope(&format!("{{\"id\":{id}}}")), Err(TemplateError::Unfit("/id".into())), "{id}");
        }
    }

    #[test]
    fn titles_show_what_is_there() {
        let title: Template = "Pay {/to} {/n}".parse().unwrap();
        let arguments = read(r#"{"to":"a\u202eb"}"#.as_bytes(), Limits::default()).unwrap();
        assert_eq!(title.title(&arguments, |_| false), "Pay a\\u{202E}b (none)");
        assert!("a{/b".parse::<Template>().is_err());
        assert!("a}b".parse::<Template>().is_err());
        assert!("{b}".parse::<Template>().is_err());
    }
}
