//! JSON Pointers (RFC 6901), and patterns of them in which `*` stands for any one step.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::Value;

/// A place in a JSON value: `/iban`, `/items/0/price`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer(Vec<String>);

/// A pointer that does not start with `/`, or that has a bad `~` escape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a JSON pointer: it starts with `/`, and writes `~` as `~0` and `/` as `~1`")]
pub struct PointerError(String);

impl std::str::FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let rest = text.strip_prefix('/').ok_or_else(|| PointerError(text.to_owned()))?;
        let bare = rest.replace("~0", "").replace("~1", "");
        if bare.contains('~') {
            return Err(PointerError(text.to_owned()));
        }
        Ok(Self(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
    }
}

impl Pointer {
    /// The value at this place, if there is one.
    pub fn resolve<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |here, step| child(here, step))
    }

    /// The first step: the name of a top-level member.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A pointer whose steps may be `*`, as in `/recipients/*/email`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Pointer);

impl std::str::FromStr for Pattern {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        text.parse().map(Self)
    }
}

impl Pattern {
    /// Every place in `value` that matches, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<(Pointer, &'v Value)> {
        let mut found = vec![(Pointer(Vec::new()), value)];
        for step in &self.0.0 {
            found = found.into_iter().flat_map(|(at, here)| next(at, here, step)).collect();
        }
        found
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Pointer::deserialize(from).map(Self)
    }
}

fn next<'v>(at: Pointer, here: &'v Value, step: &str) -> Vec<(Pointer, &'v Value)> {
    if step != "*" {
        return child(here, step).map(|value| (at.join(step), value)).into_iter().collect();
    }
    match here {
        Value::Array(items) => items.iter().enumerate().map(|(n, item)| (at.join(&n.to_string()), item)).collect(),
        Value::Object(object) => object.iter().map(|(key, member)| (at.join(key), member)).collect(),
        _ => Vec::new(),
    }
}

fn child<'v>(here: &'v Value, step: &str) -> Option<&'v Value> {
    match here {
        Value::Object(object) => object.get(step),
        Value::Array(items) if step == "0" || !step.starts_with('0') => items.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

impl Pointer {
    /// The place of the whole value.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// The place one `step` below this one.
    pub fn join(&self, step: &str) -> Self {
        Self(self.0.iter().cloned().chain([step.to_owned()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, read};
    use super::*;

    #[test]
    fn pointers_and_patterns_find_their_places() {
        let value = read(br#"{"a":[{"b":1},{"b":2}],"x/y":{"~":3}}"#, Limits::default()).unwrap();
        let at = |p: &str| p.parse::<Pointer>().unwrap().resolve(&value).map(Value::plain);
        assert_eq!(at("/a/1/b").as_deref(), Some("2"));
        assert_eq!(at("/x~1y/~0").as_deref(), Some("3"));
        assert_eq!(at("/a/01/b"), None);
        let found: Vec<String> = "/a/*/b".parse::<Pattern>().unwrap().find(&value).iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(found, ["/a/0/b", "/a/1/b"]);
        assert!("a/b".parse::<Pointer>().is_err());
        assert!("/a~2".parse::<Pointer>().is_err());
    }
}
