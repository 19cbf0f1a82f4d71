//! What was asked: the tool, its arguments, and who asks. Judged, shown, hashed and sent from this one value.

use std::ops::Deref;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Fields};
use super::json::{JsonError, Limits, Object, Value, canonical, canonical_with, read};

/// The workload that asks. Never taken from the body of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// Its name in the configuration.
    pub name: String,
    /// The approver who answers for it, and so may not approve for it.
    pub owner: Option<String>,
    /// How it was recognised.
    pub identity: Identity,
}

/// How a caller was recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// By its place: a name from the configuration for whoever speaks on this pipe or loopback address.
    Configured,
    /// By a token whose signature, audience and life were checked.
    Verified {
        /// The `iss` claim.
        issuer: String,
        /// The `sub` claim.
        subject: String,
    },
}

/// The requests that are judged: every tool call, and what a policy names of the other two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `tools/call`.
    CallTool,
    /// `resources/read`, where a policy is for `resource:<glob>`.
    ReadResource,
    /// `prompts/get`, where a policy is for `prompt:<glob>`.
    GetPrompt,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CallTool, Self::ReadResource, Self::GetPrompt];

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallTool => "tools/call",
            Self::ReadResource => "resources/read",
            Self::GetPrompt => "prompts/get",
        }
    }

    /// The method of that name, byte by byte.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// What `tool` of a policy file is about, and the rest of it.
    pub fn of_policy(tool: &str) -> (Self, &str) {
        let gate = |method: Self, prefix: &str| tool.strip_prefix(prefix).map(|rest| (method, rest));
        gate(Self::ReadResource, "resource:").or_else(|| gate(Self::GetPrompt, "prompt:")).unwrap_or((Self::CallTool, tool))
    }

    /// Keeps digests of different methods apart.
    fn tag(self) -> &'static str {
        match self {
            Self::CallTool => "countersign call v2",
            Self::ReadResource => "countersign resource v2",
            Self::GetPrompt => "countersign prompt v2",
        }
    }
}

/// Arguments, with their canonical text and its digest, which are made once: they may be long.
#[derive(Clone, Debug)]
pub struct Arguments {
    value: Value,
    written: OnceLock<Box<(String, Digest)>>,
}

impl Arguments {
    fn written(&self) -> &(String, Digest) {
        self.written.get_or_init(|| {
            let text = canonical(&self.value);
            let digest = Digest::of(text.as_bytes());
            Box::new((text, digest))
        })
    }

    /// The canonical text.
    pub fn text(&self) -> &str {
        &self.written().0
    }

    /// The digest of the canonical text.
    pub fn digest(&self) -> Digest {
        self.written().1
    }

    fn remove(&mut self, name: &str) -> Option<Value> {
        let Value::Object(arguments) = &mut self.value else { return None };
        let removed = arguments.remove(name)?;
        self.written = OnceLock::new();
        Some(removed)
    }
}

impl From<Value> for Arguments {
    fn from(value: Value) -> Self {
        Self { value, written: OnceLock::new() }
    }
}

impl Deref for Arguments {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The parameters of one `tools/call`, read strictly; or of a `resources/read` or `prompts/get` that is judged like one.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Which request it is.
    pub method: Method,
    /// `name` of a tool call; of another request its method.
    pub tool: String,
    /// `arguments`; an empty object where the client sent none. Of another request what it is about: `uri`, or `name` and
    /// `arguments`.
    pub arguments: Arguments,
    /// Whether the client sent `arguments` at all: what goes upstream has them only then.
    pub has_arguments: bool,
    /// Everything else that the upstream will see and that is part of the action: `task`, `inputResponses`,
    /// `requestState`, unknown members, unknown `_meta` keys under `_meta`.
    pub extras: Object,
    /// `_meta` keys that the protocol itself defines per message (progress token, trace, versions): they are
    /// forwarded, differ with every attempt, and so are no part of the digest.
    pub protocol_meta: Object,
    /// `_meta` `dev.countersign/reason`: what the agent says of itself. Unverified; never forwarded.
    pub stated_reason: Option<String>,
    /// `_meta` `dev.countersign/prompt`: what the client says the person asked for. Unverified; never forwarded.
    pub stated_prompt: Option<String>,
}

/// Why the parameters of a `tools/call` were refused.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// `arguments` is there and not an object.
    #[error("`arguments` of `tools/call` must be an object, not {0}")]
    Arguments(&'static str),
    /// A member that differs from a known one only in case: some servers would take it for that one.
    #[error("`{0}` in the parameters of `tools/call` differs from a known member only in case")]
    Imitation(String),
    /// Not strictly one JSON value.
    #[error("the parameters of `tools/call` were refused: {0}")]
    Json(#[from] JsonError),
    /// `_meta` is there and not an object.
    #[error("`_meta` of `tools/call` must be an object, not {0}")]
    Meta(&'static str),
    /// `name` is missing or not a string, or longer than [`MAX_TOOL_NAME`].
    #[error("`name` of `tools/call` must be a string of 1 to {MAX_TOOL_NAME} bytes")]
    Name,
    /// `uri` of a `resources/read`, or `name` of a `prompts/get`, is missing or not a string.
    #[error("`{0}` must be a string of at least one byte")]
    Subject(&'static str),
    /// A policy is for this resource or prompt, or not, depending on how its name is read.
    #[error("`{0}` can be read as more than one resource, and policies differ for them: write it plainly, without `..`, `%` or `?`")]
    Ambiguous(String),
    /// There are no parameters, or they are not an object.
    #[error("the parameters of `tools/call` must be an object")]
    Params,
}

/// Longest tool name taken, in bytes.
pub const MAX_TOOL_NAME: usize = 256;

/// Most characters that are kept of what an agent says of itself.
const MOST_STATED: usize = 4000;

/// Per-message `_meta` keys of MCP 2025-06-18 to 2026-07-28 and of W3C trace context (SEP-414).
const PROTOCOL_META: [&str; 9] = [
    "baggage",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/subscriptionId",
    "progressToken",
    "traceparent",
    "tracestate",
];

/// `_meta` keys of clients that name one message among others: the same call made again has another. Only a plain id is
/// taken for that; anything else is a part of the call.
const CLIENT_META: [&str; 1] = ["claudecode/toolUseId"];

fn is_plain_id(value: &Value) -> bool {
    let plain = |text: &str| (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    value.as_str().is_some_and(plain)
}

/// A name without its case, by Unicode's simple rules (`ſ` is `s`, the Kelvin sign is `k`).
pub fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

impl ToolCall {
    /// Reads `params` of a `tools/call`.
    ///
    /// # Errors
    /// Everything that two readers could understand differently; see [`CallError`].
    pub fn parse(params: &[u8], limits: Limits) -> Result<Self, CallError> {
        let Value::Object(mut rest) = read(params, limits)? else { return Err(CallError::Params) };
        let tool = match rest.remove("name") {
            Some(Value::String(name)) if (1..=MAX_TOOL_NAME).contains(&name.len()) => name,
            _ => return Err(CallError::Name),
        };
        let sent = rest.remove("arguments");
        let has_arguments = sent.is_some();
        let arguments = match sent {
            Some(object @ Value::Object(_)) => object,
            Some(other) => return Err(CallError::Arguments(other.kind())),
            None => Value::Object(Object::default()),
        };
        Self::with_rest(Method::CallTool, tool, arguments, has_arguments, rest)
    }

    /// Reads `params` of the request `method`.
    ///
    /// # Errors
    /// As [`ToolCall::parse`].
    pub fn of_request(method: Method, params: &[u8], limits: Limits) -> Result<Self, CallError> {
        let parts: &[&'static str] = match method {
            Method::CallTool => return Self::parse(params, limits),
            Method::ReadResource => &["uri"],
            Method::GetPrompt => &["name", "arguments"],
        };
        let Value::Object(mut rest) = read(params, limits)? else { return Err(CallError::Params) };
        let mut about = Object::default();
        for part in parts {
            if let Some(value) = rest.remove(part) {
                about.insert(part, value);
            }
        }
        let subject = parts.first().copied().unwrap_or_default();
        if about.get(subject).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(CallError::Subject(subject));
        }
        Self::with_rest(method, method.name().to_owned(), Value::Object(about), true, rest)
    }

    /// The call that `tool` and `arguments` describe: a tool by its name, or `resource:<uri>`, or `prompt:<name>`.
    ///
    /// # Errors
    /// As [`ToolCall::parse`].
    pub fn described(tool: &str, arguments: &str, limits: Limits) -> Result<Self, CallError> {
        let (method, subject) = Method::of_policy(tool);
        let subject = serde_json::Value::from(subject);
        let params = match method {
            Method::ReadResource => format!("{{\"uri\":{subject}}}"),
            Method::CallTool | Method::GetPrompt => format!("{{\"name\":{subject},\"arguments\":{arguments}}}"),
        };
        Self::of_request(method, params.as_bytes(), limits)
    }

    /// The resource's URI or the prompt's name; nothing for a tool.
    pub fn subject(&self) -> Option<&str> {
        let name = match self.method {
            Method::CallTool => return None,
            Method::ReadResource => "uri",
            Method::GetPrompt => "name",
        };
        self.arguments.as_object()?.get(name)?.as_str()
    }

    /// What the header `mcp-name` repeats.
    pub fn name(&self) -> &str {
        self.subject().unwrap_or(&self.tool)
    }

    fn with_rest(method: Method, tool: String, arguments: Value, has_arguments: bool, mut rest: Object) -> Result<Self, CallError> {
        let members: &[&str] = if method == Method::ReadResource { &["uri"] } else { &["name", "arguments"] };
        if let Some((name, _)) = rest.iter().find(|(name, _)| members.contains(&folded(name).as_str())) {
            return Err(CallError::Imitation(name.to_owned()));
        }
        let mut meta = match rest.remove("_meta") {
            Some(Value::Object(meta)) => meta,
            Some(other) => return Err(CallError::Meta(other.kind())),
            None => Object::default(),
        };
        let mut stated = |key: &str| meta.remove(key).map(|v| v.plain().chars().take(MOST_STATED).collect::<String>());
        let (stated_reason, stated_prompt) = (stated("dev.countersign/reason"), stated("dev.countersign/prompt"));
        let mut protocol_meta = Object::default();
        for key in PROTOCOL_META {
            if let Some(value) = meta.remove(key) {
                protocol_meta.insert(key, value);
            }
        }
        for key in CLIENT_META {
            if meta.get(key).is_some_and(is_plain_id)
                && let Some(value) = meta.remove(key)
            {
                protocol_meta.insert(key, value);
            }
        }
        if !meta.is_empty() {
            rest.insert("_meta", Value::Object(meta));
        }
        Ok(Self { method, tool, arguments: arguments.into(), has_arguments, extras: rest, protocol_meta, stated_reason, stated_prompt })
    }

    /// The parameters that go upstream: what was judged, in canonical text, with `protocol_meta`.
    pub fn forwarded(&self) -> String {
        let mut params = self.extras.clone();
        let mut meta = match params.remove("_meta") {
            Some(Value::Object(meta)) => meta,
            _ => Object::default(),
        };
        for (key, value) in self.protocol_meta.iter() {
            meta.insert(key, value.clone());
        }
        if !meta.is_empty() {
            params.insert("_meta", Value::Object(meta));
        }
        if self.method != Method::CallTool {
            for (name, value) in self.arguments.as_object().into_iter().flat_map(Object::iter) {
                params.insert(name, value.clone());
            }
            return canonical(&Value::Object(params));
        }
        params.insert("name", Value::from(self.tool.as_str()));
        if self.has_arguments { canonical_with(params, "arguments", self.arguments.text()) } else { canonical(&Value::Object(params)) }
    }

    /// Takes the argument `name` out of the call as what the agent says of itself.
    pub fn take_reason(&mut self, name: &str) {
        if let Some(reason) = self.arguments.remove(name) {
            self.stated_reason.get_or_insert_with(|| reason.plain().chars().take(MOST_STATED).collect());
        }
    }

    /// The digest of the canonical arguments alone: what an upstream can compute from what it receives.
    pub fn arguments_digest(&self) -> Digest {
        self.arguments.digest()
    }
}

/// All that an approval is bound to beside the call itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The server's name in the configuration.
    pub server: String,
    /// What stands behind that name: the URL, or the command line.
    pub upstream: String,
    /// Digest of the tool's definition, where the server offers the tool.
    pub definition: Option<Digest>,
    /// Digest of the tool's policy.
    pub policy: Digest,
    /// Digest of who may approve, and how many must.
    pub approvers: Digest,
    /// The scope that a credential for this call will have.
    pub scope: Option<String>,
}

/// Says that two calls are the same call: same caller, same server, same bytes, under the same policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallDigest(Digest);

impl CallDigest {
    /// The digest of `call` by `caller` under `binding`. With `nonce` it names one approval; without, it is the key by
    /// which a repeated call finds its approval.
    pub fn of(call: &ToolCall, caller: &Caller, binding: &Binding, nonce: Option<&str>) -> Self {
        let (issuer, subject) = match &caller.identity {
            Identity::Configured => (None, None),
            Identity::Verified { issuer, subject } => (Some(issuer.as_bytes()), Some(subject.as_bytes())),
        };
        let fields = Fields::new(call.method.tag())
            .field(caller.name.as_bytes())
            .optional(caller.owner.as_deref().map(str::as_bytes))
            .optional(issuer)
            .optional(subject)
            .field(binding.server.as_bytes())
            .field(binding.upstream.as_bytes())
            .field(call.tool.as_bytes())
            .optional(binding.definition.as_ref().map(|d| d.bytes().as_slice()))
            .optional(call.has_arguments.then(|| call.arguments.digest()).as_ref().map(|digest| digest.bytes().as_slice()))
            .field(canonical(&Value::Object(call.extras.clone())).as_bytes())
            .field(binding.policy.bytes())
            .field(binding.approvers.bytes())
            .optional(binding.scope.as_deref().map(str::as_bytes))
            .optional(nonce.map(str::as_bytes));
        Self(fields.digest())
    }

    /// The digest itself.
    pub fn digest(self) -> Digest {
        self.0
    }
}

impl std::fmt::Display for CallDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(params: &str) -> Result<ToolCall, CallError> {
        ToolCall::parse(params.as_bytes(), Limits::default())
    }

    fn caller(name: &str) -> Caller {
        Caller { name: name.into(), owner: None, identity: Identity::Configured }
    }

    fn binding() -> Binding {
        let (policy, approvers) = (Digest::of(b"p"), Digest::of(b"a"));
        Binding { server: "s".into(), upstream: "u".into(), definition: None, policy, approvers, scope: None }
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for params in [
            "[]",
            "null",
            "{}",
            r#"{"name":1}"#,
            r#"{"name":""}"#,
            r#"{"name":"t","arguments":[]}"#,
            r#"{"name":"t","arguments":null}"#,
            r#"{"name":"t","_meta":1}"#,
            r#"{"name":"t","name":"u"}"#,
            r#"{"name":"t","arguments":{"a":{"b":1,"b":2}}}"#,
            r#"{"name":"t","n\u0061me":"u"}"#,
            r#"{"name":"t","Name":"u"}"#,
            "{\"name\":\"t\",\"argument\u{17f}\":{}}",
        ] {
            assert!(parse(params).is_err(), "{params}");
        }
        assert!(parse(&format!(r#"{{"name":"{}"}}"#, "n".repeat(257))).is_err());
    }

    #[test]
    fn what_is_forwarded_is_what_was_judged() {
        let call = parse(
            r#"{ "name":"t", "arguments":{"b":1.0,"a":"\u0041"}, "task":{"ttl":1},
                 "_meta":{"progressToken":7,"dev.countersign/reason":"because","x.y/z":1} }"#,
        )
        .unwrap();
        assert_eq!(call.forwarded(), r#"{"_meta":{"progressToken":7,"x.y/z":1},"arguments":{"a":"A","b":1},"name":"t","task":{"ttl":1}}"#);
        assert_eq!(call.stated_reason.as_deref(), Some("because"));
        assert_eq!(parse(r#"{"name":"t"}"#).unwrap().forwarded(), r#"{"name":"t"}"#);
    }

    #[test]
    fn the_digest_covers_every_field_and_no_attempt() {
        let base = parse(r#"{"name":"t","arguments":{"a":1}}"#).unwrap();
        let of = |call: &ToolCall| CallDigest::of(call, &caller("c"), &binding(), None);
        let made = |id: &str| parse(&format!(r#"{{"name":"t","_meta":{{"claudecode/toolUseId":{id}}}}}"#)).unwrap();
        assert_eq!(made(r#""toolu_01""#).extras, made(r#""toolu_02""#).extras, "the same call made again");
        assert_eq!(made(r#""toolu_01""#).forwarded(), r#"{"_meta":{"claudecode/toolUseId":"toolu_01"},"name":"t"}"#);
        assert_ne!(made(r#""delete it""#).extras, made(r#""toolu_01""#).extras);
        let again = parse(r#"{"arguments":{"a":1e0},"name":"t","_meta":{"progressToken":3}}"#).unwrap();
        assert_eq!(of(&base), of(&again));
        for other in [
            r#"{"name":"t","arguments":{"a":2}}"#,
            r#"{"name":"u","arguments":{"a":1}}"#,
            r#"{"name":"t"}"#,
            r#"{"name":"t","arguments":{"a":1},"inputResponses":{}}"#,
            r#"{"name":"t","arguments":{"a":1},"_meta":{"x.y/z":1}}"#,
            r#"{"name":"t","arguments":{"a":"1"}}"#,
        ] {
            assert_ne!(of(&base), of(&parse(other).unwrap()), "{other}");
        }
        let with = |c: &Caller, b: &Binding| CallDigest::of(&base, c, b, None);
        let mut digests = vec![of(&base), with(&caller("d"), &binding())];
        let owned = Caller { owner: Some("anna".into()), ..caller("c") };
        let verified = Identity::Verified { issuer: "i".into(), subject: "s".into() };
        digests.push(with(&owned, &binding()));
        digests.push(with(&Caller { identity: verified, ..caller("c") }, &binding()));
        for changed in [
            Binding { server: "x".into(), ..binding() },
            Binding { upstream: "x".into(), ..binding() },
            Binding { definition: Some(Digest::of(b"d")), ..binding() },
            Binding { policy: Digest::of(b"x"), ..binding() },
            Binding { approvers: Digest::of(b"x"), ..binding() },
            Binding { scope: Some("s".into()), ..binding() },
        ] {
            digests.push(with(&caller("c"), &changed));
        }
        digests.push(CallDigest::of(&base, &caller("c"), &binding(), Some("n")));
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}
