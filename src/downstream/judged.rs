//! Which requests are judged: every `tools/call`, and those for resources and prompts that a policy names.

use crate::adapters::upstream::{Envelope, Id};
use crate::domain::call::{CallError, Method, ToolCall};
use crate::domain::json::Limits;
use crate::gateway::Gateway;

/// A request as the gateway sees it.
pub(super) enum Request {
    /// It is judged.
    Judged(Id, ToolCall),
    /// It would be judged, and cannot be.
    Refused(Option<Id>, String),
    /// It goes through as it came.
    Through,
}

impl Request {
    /// Reads a client's message to `server`.
    pub(super) fn read(gateway: &Gateway, server: &str, envelope: &Envelope<'_>, limits: Limits) -> Self {
        let Some(method) = envelope.method.as_deref().and_then(Method::named) else { return Self::Through };
        let policies = gateway.policies();
        if method != Method::CallTool && !policies.has_gates(server, method) {
            return Self::Through;
        }
        let read = || -> Result<Option<ToolCall>, CallError> {
            let call = ToolCall::of_request(method, envelope.params.map_or("null", |p| p.get()).as_bytes(), limits)?;
            let judged = method == Method::CallTool || policies.gate(server, &call)?.is_some();
            Ok(judged.then_some(call))
        };
        match (read(), envelope.id()) {
            (Ok(None), _) => Self::Through,
            (Ok(Some(call)), Some(id)) => Self::Judged(id.clone(), call),
            (Ok(Some(_)), None) => Self::Refused(None, format!("`{}` needs an id: nobody could be told of its end", method.name())),
            (Err(error), id) => Self::Refused(id.cloned(), error.to_string()),
        }
    }
}

/// Whether a method is none that is judged, and yet a careless server could take it for one.
pub(super) fn imitates(method: &str) -> bool {
    let plain = crate::domain::call::folded(method.trim_matches(|c: char| !c.is_alphanumeric()));
    Method::named(method).is_none() && Method::named(&plain).is_some()
}
