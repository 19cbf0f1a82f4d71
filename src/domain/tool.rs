//! What a server says a tool is: one entry of its `tools/list`, as read by the gateway itself.
//!
//! Nothing here is trusted: annotations and schemas come from the server and may only raise a score.

use super::digest::Digest;
use super::json::{Object, Value, canonical};

/// One tool of one server, as the server describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    /// The name it is called by.
    pub name: String,
    /// Over the canonical text of the whole entry: name, description, schemas, annotations, everything.
    pub digest: Digest,
    /// `inputSchema`, an object or empty.
    pub input: Object,
    /// What `annotations.readOnlyHint` says, if it says anything.
    pub read_only: Option<bool>,
    /// What `annotations.destructiveHint` says, if it says anything.
    pub destructive: Option<bool>,
}

impl ToolDefinition {
    /// Reads one entry of a `tools/list` result; nothing if it has no name.
    pub fn read(entry: &Value) -> Option<Self> {
        let object = entry.as_object()?;
        let hint = |name: &str| match object.get("annotations")?.as_object()?.get(name)? {
            Value::Bool(hint) => Some(*hint),
            _ => None,
        };
        Some(Self {
            name: object.get("name")?.as_str()?.to_owned(),
            digest: Digest::of(canonical(entry).as_bytes()),
            input: object.get("inputSchema").and_then(Value::as_object).cloned().unwrap_or_default(),
            read_only: hint("readOnlyHint"),
            destructive: hint("destructiveHint"),
        })
    }

    /// A tool of which only the name and the annotations are known.
    pub fn annotated(name: &str, annotations: &Value) -> Self {
        let hint = |name: &str| match annotations.as_object()?.get(name)? {
            Value::Bool(hint) => Some(*hint),
            _ => None,
        };
        Self {
            name: name.into(),
            digest: Digest::ZERO,
            input: Object::default(),
            read_only: hint("readOnlyHint"),
            destructive: hint("destructiveHint"),
        }
    }

    /// The declared properties of its arguments.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.input.get("properties").and_then(Value::as_object).into_iter().flat_map(Object::iter)
    }
}

/// What the gateway knows about the tool that a call names.
#[derive(Clone, Debug)]
pub enum Known<'a> {
    /// The server's list was read and has the tool; the second is the digest recorded on first sight.
    Offered(&'a ToolDefinition, Digest),
    /// No server was asked: a case of a policy, or an explanation.
    NotAsked,
    /// No server was asked; only its annotations are known.
    Annotated(&'a ToolDefinition),
    /// The server's list was read and does not have the tool.
    NotOffered,
    /// The server's list could not be read.
    Unread,
}

impl Known<'_> {
    /// The digest of the definition in force, where there is one.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Offered(definition, _) => Some(definition.digest),
            _ => None,
        }
    }
}
