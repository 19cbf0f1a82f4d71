//! What the gateway says of a call, as messages in the client's own terms.

use bytes::Bytes;

use super::answer;
use crate::adapters::upstream::{Envelope, Id, event};
use crate::domain::call::{Method, ToolCall};
use crate::domain::json::{Value, canonical};
use crate::gateway::{Refusal, Said};

/// Turns what is said of one call into messages for its client.
pub(super) struct Speaker {
    /// The id that the client knows, where the server knows another.
    client_id: Option<Id>,
    id: Id,
    stateless: bool,
    /// Whether it calls a tool: what did not run is said in a result then, else in an error.
    is_tool: bool,
    /// The client's progress token, and the server's where it is another.
    token: Option<String>,
    server_token: Option<String>,
    said: u64,
}

/// One message for the client.
#[derive(Debug)]
pub(super) struct Message {
    /// The JSON-RPC message.
    pub body: Bytes,
    /// The event that carried it, to be passed on as it came.
    pub event: Option<Bytes>,
    /// The HTTP status that came with it.
    pub status: Option<u16>,
    /// Whether it is the answer.
    pub last: bool,
}

impl Message {
    fn ours(body: String, last: bool) -> Self {
        Self { body: body.into(), event: None, status: None, last }
    }

    /// The message as a server-sent event.
    pub(super) fn as_event(&self) -> Bytes {
        self.event.clone().unwrap_or_else(|| event(&self.body))
    }
}

impl Speaker {
    /// For a call whose id the server knows as the client does.
    pub(super) fn new(id: Id, call: &ToolCall) -> Self {
        let meta = &call.protocol_meta;
        let token = meta.get("progressToken").filter(|t| matches!(t, Value::String(_) | Value::Number(_))).map(canonical);
        let stateless = meta.get("io.modelcontextprotocol/protocolVersion").is_some();
        let is_tool = call.method == Method::CallTool;
        Self { client_id: None, id, stateless, is_tool, token, server_token: None, said: 0 }
    }

    /// For a call that the server knows by another id, and another token.
    pub(super) fn remapped(mut self, client_id: Id, server_token: Option<String>) -> Self {
        self.client_id = Some(client_id);
        self.server_token = server_token;
        self
    }

    /// The message for the client; nothing where it can take none.
    pub(super) fn message(&mut self, said: Said) -> Option<Message> {
        let own = self.client_id.as_ref().unwrap_or(&self.id);
        match said {
            Said::Answer(answer) => Some(Message { body: self.back(answer.body), event: None, status: answer.status, last: true }),
            Said::Incoming(incoming) => {
                let event = incoming.event.filter(|_| self.client_id.is_none());
                Some(Message { body: self.back(incoming.message), event, status: None, last: incoming.last })
            }
            Said::Final(said, taken) => {
                let message = self.message(*said);
                // Nobody waits for it if the gateway ends just now.
                let _ = taken.send(());
                message
            }
            Said::Refused(refusal) => {
                let status = matches!(refusal, Refusal::Header { .. } | Refusal::State { .. }).then_some(400);
                Some(Message { status, ..Message::ours(answer::refused(own, &refusal, self.stateless, self.is_tool), true) })
            }
            Said::Task(view) => Some(Message::ours(answer::task(own, &view, true), true)),
            Said::Waiting(waiting) => {
                self.said += 1;
                let token = self.token.as_ref()?;
                Some(Message::ours(answer::progress(token, self.said, &waiting), false))
            }
        }
    }

    /// A message of the server with the client's id and token in place of the server's.
    fn back(&self, body: Bytes) -> Bytes {
        let Some(client_id) = &self.client_id else { return body };
        let Ok(envelope) = Envelope::read(&body) else { return body };
        if envelope.method.is_none() {
            return envelope.rebuilt(Some(client_id)).into();
        }
        match (&self.server_token, &self.token) {
            (Some(theirs), Some(ours)) if envelope.is("notifications/progress") => {
                retokened(&envelope, theirs, ours).map_or(body.clone(), Bytes::from)
            }
            _ => body,
        }
    }
}

/// A progress message with another token in place of its own.
pub(super) fn retokened(envelope: &Envelope<'_>, from: &str, to: &str) -> Option<String> {
    let from: serde_json::Value = serde_json::from_str(from).ok()?;
    let mut params: serde_json::Map<String, serde_json::Value> = serde_json::from_str(envelope.params?.get()).ok()?;
    let token = params.get_mut("progressToken").filter(|token| **token == from)?;
    *token = serde_json::from_str(to).ok()?;
    Some(serde_json::json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string())
}
