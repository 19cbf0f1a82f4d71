//! What a request over HTTP says in headers as well as in its body (MCP 2026-07-28, Streamable HTTP).

use axum::http::HeaderMap;
use serde::Deserialize;

use super::front::{VERSION, stateless};
use crate::adapters::upstream::{Envelope, mirrored_text};

/// Whether the headers that mirror the body say what it says (MCP 2026-07-28, Streamable HTTP).
pub(super) fn headers_agree(headers: &HeaderMap, envelope: &Envelope<'_>) -> Result<(), String> {
    let Some(method) = envelope.method.as_deref() else { return Ok(()) };
    let required = stateless(headers) && envelope.id().is_some();
    mirrors(headers, "mcp-method", method, required)?;
    let named = match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    };
    if !required && (named.is_none() || !headers.contains_key("mcp-name")) {
        return Ok(());
    }
    let Some(said) = Mirrored::read(envelope) else { return Ok(()) };
    if let (true, Some(version)) = (required, said.meta.as_ref().and_then(|meta| meta.version.as_ref())) {
        mirrors(headers, VERSION.as_str(), version.as_str().unwrap_or_default(), true)?;
    }
    let name = match named {
        Some("name") => said.name,
        Some("uri") => said.uri,
        Some(_) => said.task_id,
        None => None,
    };
    match name.as_ref().and_then(serde_json::Value::as_str) {
        Some(name) => mirrors(headers, "mcp-name", name, required),
        None => Ok(()),
    }
}

/// What a request over HTTP says in headers as well. Read loosely, only to compare: the strict reader decides later, and
/// refuses what could be read in two ways.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mirrored {
    name: Option<serde_json::Value>,
    uri: Option<serde_json::Value>,
    task_id: Option<serde_json::Value>,
    #[serde(rename = "_meta")]
    meta: Option<MirroredMeta>,
}

#[derive(Deserialize)]
struct MirroredMeta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<serde_json::Value>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<serde::de::IgnoredAny>,
}

impl Mirrored {
    fn read(envelope: &Envelope<'_>) -> Option<Self> {
        serde_json::from_str(envelope.params?.get()).ok()
    }
}

/// What every request of the stateless era says of itself; a server without HTTP cannot answer with the status for it.
pub(super) fn lacks_meta(envelope: &Envelope<'_>) -> Option<&'static str> {
    let meta = Mirrored::read(envelope).and_then(|said| said.meta);
    let has = |there: fn(&MirroredMeta) -> bool| meta.as_ref().is_some_and(there);
    if !has(|meta| meta.version.is_some()) {
        return Some("io.modelcontextprotocol/protocolVersion");
    }
    (!has(|meta| meta.capabilities.is_some())).then_some("io.modelcontextprotocol/clientCapabilities")
}

fn mirrors(headers: &HeaderMap, name: &str, body: &str, required: bool) -> Result<(), String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) if required => Err(format!("the header `{name}` is missing")),
        (None, _) => Ok(()),
        (Some(value), None) if value.to_str().is_ok_and(|v| mirrored_text(v).as_deref() == Some(body)) => Ok(()),
        _ => Err(format!("the header `{name}` does not say what the body says")),
    }
}
