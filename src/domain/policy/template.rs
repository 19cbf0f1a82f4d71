//! Texts with arguments filled in: `refund:{/payment_id}`.
//!
//! Titles take any value, made visible. Scopes take only what cannot widen them: one plain word per placeholder, or
//! what the policy lists.

use std::collections::BTreeMap;

use regex::Regex;

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
    /// The argument's value is not one that the policy permits.
    #[error("the argument `{0}` cannot be part of a scope: it is not one of the values that `[credential.where]` permits")]
    NotPermitted(String),
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

    /// The text for a credential's scope.
    ///
    /// # Errors
    /// Where an argument is missing or could widen the scope. There is no default and no coercion.
    pub(super) fn scope(&self, arguments: &Value, permitted: &Permitted) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Argument(pointer) => {
                    let value = pointer.resolve(arguments).ok_or_else(|| TemplateError::Missing(pointer.to_string()))?;
                    out.push_str(&permitted.word(pointer, value)?);
                }
            }
        }
        Ok(out)
    }

    /// The one argument that this text is, where it is nothing else.
    pub(super) fn only(&self) -> Option<&Pointer> {
        let mut some = self.0.iter().filter(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        match (some.next(), some.next()) {
            (Some(Part::Argument(pointer)), None) => Some(pointer),
            _ => None,
        }
    }

    /// The arguments that it names.
    pub(super) fn places(&self) -> impl Iterator<Item = &Pointer> {
        self.0.iter().filter_map(|part| match part {
            Part::Argument(pointer) => Some(pointer),
            Part::Text(_) => None,
        })
    }

    /// The text as it was written.
    pub(super) fn written(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Argument(pointer) => format!("{{{pointer}}}"),
        };
        self.0.iter().map(part).collect()
    }
}

/// `[credential.where]`: which values arguments may have that become part of a scope. An argument that is not there may
/// have any plain word.
#[derive(Clone, Debug, Default)]
pub(super) struct Permitted(BTreeMap<String, Values>);

/// The values that one argument may have.
#[derive(Clone, Debug)]
pub(super) enum Values {
    /// Plain words that match as a whole.
    Matching(Regex),
    /// Exactly these, whatever they are made of.
    Listed(Vec<String>),
    /// Whole numbers within these bounds.
    Between(i64, i64),
}

impl Permitted {
    pub(super) fn new(values: BTreeMap<String, Values>) -> Self {
        Self(values)
    }

    pub(super) fn names(&self, pointer: &Pointer) -> bool {
        self.0.contains_key(&pointer.to_string())
    }

    /// The pointer, where its argument is a whole number within bounds: it stays one.
    pub(super) fn number<'p>(&self, pointer: &'p Pointer) -> Option<&'p Pointer> {
        matches!(self.0.get(&pointer.to_string()), Some(Values::Between(..))).then_some(pointer)
    }

    pub(super) fn word(&self, pointer: &Pointer, value: &Value) -> Result<String, TemplateError> {
        let place = pointer.to_string();
        let unfit = || TemplateError::Unfit(place.clone());
        let fits = match self.0.get(&place) {
            None => return word(value).ok_or_else(unfit),
            Some(Values::Listed(listed)) => value.as_str().filter(|text| listed.iter().any(|one| one == text)).map(str::to_owned),
            Some(Values::Matching(pattern)) => {
                let word = value.as_str().and(word(value)).ok_or_else(unfit)?;
                pattern.is_match(&word).then_some(word)
            }
            Some(Values::Between(least, most)) => match value {
                Value::Number(Number::Int(n)) => (*least..=*most).contains(n).then(|| n.to_string()),
                Value::Number(Number::Uint(n)) => i64::try_from(*n).ok().filter(|n| (*least..=*most).contains(n)).map(|n| n.to_string()),
                _ => None,
            },
        };
        fits.ok_or(TemplateError::NotPermitted(place))
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
        template.scope(&read(arguments.as_bytes(), Limits::default()).unwrap(), &Permitted::default())
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
