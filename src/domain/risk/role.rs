//! Argument roles: what an argument is. A role names the parser that looks at it.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer};

use super::sql::{self, Dialect};
use super::{Sight, amount, code, count, environment, flag, path, recipient, selector, shell, url};
use crate::domain::call::ToolCall;
use crate::domain::json::{Object, Pointer, Value};

/// What an argument is, with what the policy says about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Money.
    Amount(AmountRole),
    /// Program text of a language.
    Code,
    /// How many things are touched.
    Count(CountRole),
    /// Which of several environments.
    Environment(EnvironmentRole),
    /// A switch that makes the call more dangerous.
    Flag(FlagRole),
    /// A host name or address by itself.
    Host(UrlRole),
    /// A file or directory.
    Path(PathRole),
    /// Whoever receives something.
    Recipient(RecipientRole),
    /// Which things are meant: a filter, a pattern, a name that may be a wildcard.
    Selector,
    /// A script or command line.
    Shell,
    /// SQL, of this dialect.
    Sql(Dialect),
    /// Prose: nothing to look for but secrets.
    Text,
    /// An address on a network.
    Url(UrlRole),
}

/// The names of the roles, as policies write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// See [`Role::Amount`].
    Amount,
    /// See [`Role::Code`].
    Code,
    /// See [`Role::Count`].
    Count,
    /// See [`Role::Environment`].
    Environment,
    /// See [`Role::Flag`].
    Flag,
    /// See [`Role::Host`].
    Host,
    /// See [`Role::Path`].
    Path,
    /// See [`Role::Recipient`].
    Recipient,
    /// See [`Role::Selector`].
    Selector,
    /// See [`Role::Shell`].
    Shell,
    /// See [`Role::Sql`].
    Sql,
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
    /// Over which time the limit holds for all calls of one caller together; for each call if none.
    pub window: Option<std::time::Duration>,
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

/// An environment: dangerous where it is one that matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvironmentRole {
    /// Values that are dangerous; those with the usual names of production if none is named.
    pub dangerous: Vec<String>,
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
    /// Domains of our own, with their subdomains: who has an address elsewhere is outside. Nobody is if none is named.
    pub internal: Vec<String>,
}

/// A URL: dangerous where it points inside, or to a host that is not ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UrlRole {
    /// Hosts, and their subdomains, that are ordinary; any public host if none is named.
    pub hosts: Vec<String>,
    /// Whether a host is dangerous the first time: learned from approved calls.
    pub learned: bool,
}

impl Role {
    /// The role that an argument's name and value suggest, for tools nobody wrote a policy for.
    pub fn guess(tool: &str, name: &str, value: &Value) -> Option<Self> {
        let name = super::effect::words(name).join("_");
        let last = name.rsplit('_').next().unwrap_or(&name);
        let first = name.split('_').next().unwrap_or(&name);
        let text = value.as_str().unwrap_or_default();
        Some(match last {
            // `{"command": "create"}` of an editor is a choice, not a command line.
            "command" | "cmd" | "commands" if plain_word(text) && !super::effect::may_execute(tool) && !text.is_empty() => return None,
            "command" | "cmd" | "commands" | "shell" | "bash" | "cmdline" | "argv" => Self::Shell,
            "sql" => Self::Sql(Dialect::Unknown),
            "query" | "statement" | "queries" | "statements" if sql::looks_like(text) => Self::Sql(Dialect::Unknown),
            "code" | "script" | "javascript" | "python" | "expression" | "function" | "program" | "source_code"
                if !text.is_empty() && !plain_word(text) =>
            {
                Self::Code
            }
            "path" | "file" | "filename" | "filepath" | "directory" | "dir" | "folder" | "destination" | "paths" | "files" | "source" => {
                Self::Path(PathRole::default())
            }
            "url" | "uri" | "href" | "link" | "endpoint" | "webhook" | "urls" => Self::Url(UrlRole::default()),
            "host" | "hostname" => Self::Host(UrlRole::default()),
            "amount" | "price" | "total" => Self::Amount(AmountRole::default()),
            "to" | "recipient" | "recipients" | "email" | "emails" | "iban" | "cc" | "bcc" | "participants" | "attendees" | "invitees" | "payee"
            | "beneficiary" => Self::Recipient(RecipientRole::default()),
            _ if first == "to" && matches!(last, "address" | "account" | "number" | "user") => Self::Recipient(RecipientRole::default()),
            "force" | "recursive" | "permanent" | "permanently" | "public" | "all" | "cascade" | "overwrite" | "hard" => {
                Self::Flag(FlagRole::default())
            }
            "environment" | "env" | "stage" if !text.is_empty() => Self::Environment(EnvironmentRole::default()),
            _ => return None,
        })
    }

    /// Its name, as policies write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Amount(_) => "amount",
            Self::Code => "code",
            Self::Count(_) => "count",
            Self::Environment(_) => "environment",
            Self::Flag(_) => "flag",
            Self::Host(_) => "host",
            Self::Path(_) => "path",
            Self::Recipient(_) => "recipient",
            Self::Selector => "selector",
            Self::Shell => "shell",
            Self::Sql(_) => "sql",
            Self::Text => "text",
            Self::Url(_) => "url",
        }
    }

    /// Whether the argument holds something that is run, so that what it says counts instead of that it is run.
    pub fn interprets(&self) -> bool {
        matches!(self, Self::Shell | Self::Sql(_) | Self::Code)
    }

    pub(super) fn observe(&self, pointer: &Pointer, value: &Value, call: &ToolCall, seen: &mut Sight<'_>) {
        match self {
            Self::Amount(role) => amount::observe(role, pointer, value, call, seen),
            Self::Code => code::observe(pointer, value, seen),
            Self::Count(role) => count::observe(role, pointer, value, seen),
            Self::Environment(role) => environment::observe(role, pointer, value, seen),
            Self::Flag(role) => flag::observe(role, pointer, value, seen),
            Self::Host(role) => url::host(role, pointer, value, seen),
            Self::Path(role) => path::observe(role, pointer, value, seen),
            Self::Recipient(role) => recipient::observe(role, pointer, value, seen),
            Self::Selector => selector::observe(pointer, value, seen),
            Self::Shell => shell::observe(pointer, value, seen),
            Self::Sql(dialect) => sql::observe(*dialect, pointer, value, seen),
            Self::Text => {}
            Self::Url(role) => url::observe(role, pointer, value, seen),
        }
    }
}

/// All facts as they are before anything was seen, so that a condition never fails on a missing one.
pub(super) fn empty_facts() -> Object {
    let mut facts = Object::default();
    let roles: [(&str, &[&str]); 17] = [
        ("amount", &["over_limit", "over_window", "readable"]),
        ("behaviour", &["fast", "retry_after_denial"]),
        ("code", &["present", "destroys"]),
        ("count", &["over_limit"]),
        ("environment", &["dangerous"]),
        ("flag", &["raised"]),
        ("path", &["sensitive", "traversal", "outside"]),
        ("personal", &["found"]),
        ("provenance", &["copied", "instructed", "trifecta"]),
        ("recipient", &["first_seen", "external"]),
        ("schema", &["surprise", "drift"]),
        ("secret", &["found"]),
        ("selector", &["unbounded"]),
        ("shell", &["changes", "destroys", "opaque"]),
        ("sql", &["writes", "destroys", "unreadable"]),
        ("unicode", &["hidden", "mixed"]),
        ("url", &["private", "foreign", "carries", "first_seen"]),
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

fn plain_word(text: &str) -> bool {
    text.len() < 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
