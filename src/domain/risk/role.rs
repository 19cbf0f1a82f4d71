//! Argument roles: what an argument is. A role names the parser that looks at it.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer};

use super::{Sight, amount, count, flag, path, recipient, url};
use crate::domain::call::ToolCall;
use crate::domain::json::{Object, Pointer, Value};

/// What an argument is, with what the policy says about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Money.
    Amount(AmountRole),
    /// How many things are touched.
    Count(CountRole),
    /// A switch that makes the call more dangerous.
    Flag(FlagRole),
    /// A file or directory.
    Path(PathRole),
    /// Whoever receives something.
    Recipient(RecipientRole),
    /// Prose: nothing to look for but secrets.
    Text,
    /// An address on a network.
    Url(UrlRole),
}

/// The names of the roles, as policies write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// See [`Role::Amount`].
    Amount,
    /// See [`Role::Count`].
    Count,
    /// See [`Role::Flag`].
    Flag,
    /// See [`Role::Path`].
    Path,
    /// See [`Role::Recipient`].
    Recipient,
    /// See [`Role::Text`].
    Text,
    /// See [`Role::Url`].
    Url,
}

/// Money: above the limit is a pay limit exceeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AmountRole {
    /// The most that one call may move without being over the limit.
    pub limit: Option<Decimal>,
    /// Where the currency stands, for the reason's text.
    pub currency: Option<Pointer>,
}

/// How many: above the limit, or without one, is unbounded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountRole {
    /// The most that is ordinary.
    pub limit: Option<u64>,
}

/// A switch: dangerous unless its value is one of those that are safe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlagRole {
    /// Values that do not raise the score; `false`, `null`, `0`, `""` and `"false"` if the policy names none.
    pub safe: Vec<Value>,
}

/// A path: dangerous where it is sensitive or leaves the directories it should stay in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathRole {
    /// Directories that it should stay in; anywhere if none is named.
    pub within: Vec<String>,
}

/// A recipient: dangerous the first time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecipientRole {
    /// Recipients that are always known, in any spelling of case and blanks.
    pub known: Vec<String>,
}

/// A URL: dangerous where it points inside, or to a host that is not ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UrlRole {
    /// Hosts, and their subdomains, that are ordinary; any public host if none is named.
    pub hosts: Vec<String>,
}

impl Role {
    /// The role that an argument's name suggests, for tools nobody wrote a policy for.
    pub fn guess(name: &str) -> Option<Self> {
        let name = name.to_lowercase().replace('-', "_");
        let last = name.rsplit('_').next().unwrap_or(&name);
        Some(match last {
            "path" | "file" | "filename" | "directory" | "dir" | "source" | "destination" | "paths" => Self::Path(PathRole::default()),
            "url" | "uri" | "href" | "link" | "endpoint" | "webhook" => Self::Url(UrlRole::default()),
            "amount" | "price" | "total" => Self::Amount(AmountRole::default()),
            "to" | "recipient" | "recipients" | "email" | "iban" | "cc" | "bcc" => Self::Recipient(RecipientRole::default()),
            "force" | "recursive" | "permanent" | "public" | "all" | "cascade" => Self::Flag(FlagRole::default()),
            _ => return None,
        })
    }

    pub(super) fn observe(&self, pointer: &Pointer, value: &Value, call: &ToolCall, seen: &mut Sight<'_>) {
        match self {
            Self::Amount(role) => amount::observe(role, pointer, value, call, seen),
            Self::Count(role) => count::observe(role, pointer, value, seen),
            Self::Flag(role) => flag::observe(role, pointer, value, seen),
            Self::Path(role) => path::observe(role, pointer, value, seen),
            Self::Recipient(role) => recipient::observe(role, pointer, value, seen),
            Self::Text => {}
            Self::Url(role) => url::observe(role, pointer, value, seen),
        }
    }
}

/// All facts as they are before anything was seen, so that a condition never fails on a missing one.
pub(super) fn empty_facts() -> Object {
    let mut facts = Object::default();
    let roles: [(&str, &[&str]); 8] = [
        ("amount", &["over_limit", "readable"]),
        ("count", &["over_limit"]),
        ("flag", &["raised"]),
        ("path", &["sensitive", "traversal", "outside"]),
        ("recipient", &["first_seen"]),
        ("schema", &["surprise", "drift"]),
        ("secret", &["found"]),
        ("url", &["private", "foreign"]),
    ];
    for (role, names) in roles {
        let mut object = Object::default();
        for name in names {
            object.insert(name, Value::Bool(false));
        }
        facts.insert(role, Value::Object(object));
    }
    facts
}

/// A decimal written in TOML as `100`, `100.00` or `"100.00"`; the text form is exact.
pub(crate) fn decimal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Decimal>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Float(f64),
        Int(i64),
        Text(String),
    }
    let text = match Written::deserialize(from)? {
        Written::Float(x) => x.to_string(),
        Written::Int(n) => n.to_string(),
        Written::Text(text) => text,
    };
    amount::exact(&text).map(Some).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a decimal number")))
}
