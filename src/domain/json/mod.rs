//! JSON that means one thing: a strict reader, a canonical writer, and pointers into values.
//!
//! For: everything that is judged, shown, hashed and sent. A value read here has exactly one canonical text
//! ([RFC 8785](https://www.rfc-editor.org/rfc/rfc8785)), and that text is what goes upstream. It must never accept a
//! text that two readers could understand differently.

mod canonical;
mod pointer;
mod reader;

pub use canonical::{canonical, canonical_with};
pub use pointer::{Pattern, Pointer, PointerError};
pub use reader::{JsonError, JsonErrorKind, Limits, read};

/// A JSON value with one meaning. Object members are unique and sorted as RFC 8785 sorts them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A list.
    Array(Vec<Value>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A number.
    Number(Number),
    /// Members by name.
    Object(Object),
    /// A string of Unicode scalar values.
    String(String),
}

/// A number, in the one form its canonical text reads back to: integers within 64 bits exactly, all else as a finite
/// double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A finite double that is no integer within 64 bits.
    Float(f64),
    /// An integer from -2^63 to 2^63-1.
    Int(i64),
    /// An integer from 2^63 to 2^64-1.
    Uint(u64),
}

/// The members of an object: unique names, sorted by UTF-16 code units (RFC 8785 §3.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// The member called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The member called `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Takes the member called `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// Puts `value` in as `name`, over what was there.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.remove(name);
        let at = self.0.partition_point(|(key, _)| key.encode_utf16().lt(name.encode_utf16()));
        self.0.insert(at, (name.to_owned(), value));
    }

    /// All members in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value {
    /// Whether its texts alone are longer than `most` bytes: then so is any way of writing it.
    pub fn is_longer_than(&self, most: usize) -> bool {
        fn left(value: &Value, most: usize) -> Option<usize> {
            match value {
                Value::String(text) => most.checked_sub(text.len()),
                Value::Array(items) => items.iter().try_fold(most, |most, item| left(item, most)),
                Value::Object(object) => object.iter().try_fold(most, |most, (name, member)| left(member, most.checked_sub(name.len())?)),
                _ => Some(most),
            }
        }
        left(self, most).is_none()
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object value.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements of an array value.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A string as it is, anything else as its canonical text: what a person would type.
    pub fn plain(&self) -> String {
        match self {
            Self::String(text) => text.clone(),
            other => canonical(other),
        }
    }

    /// What JSON Schema calls this kind of value; integers answer `integer`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "array",
            Self::Bool(_) => "boolean",
            Self::Null => "null",
            Self::Number(Number::Float(_)) => "number",
            Self::Number(_) => "integer",
            Self::Object(_) => "object",
            Self::String(_) => "string",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
