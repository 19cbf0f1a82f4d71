//! What each server says its tools are, and what it said when they were first seen.
//!
//! The gateway reads the list itself, never the copy that passes by to a client. It is read again after a minute, and
//! always before an approval is redeemed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::{Attempt, Gateway, RouteError};
use crate::adapters::store::{Change, Effect};
use crate::adapters::upstream::{header_text, mirrored_text};
use crate::domain::audit::EventKind;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::json::Value;
use crate::domain::tool::{Known, ToolDefinition};

/// The first revision whose clients repeat arguments in headers.
const STATELESS: &str = "2026-07-28";
/// How long a list is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long a server that did not list its tools is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// The lists, by server.
#[derive(Default)]
pub(super) struct Definitions {
    lists: Mutex<HashMap<String, Arc<Listed>>>,
    /// One list is read at a time: a burst of calls asks a server once.
    reading: tokio::sync::Mutex<()>,
}

struct Listed {
    at: Timestamp,
    /// Nothing if the server did not list its tools.
    tools: Option<HashMap<String, (Arc<ToolDefinition>, Digest)>>,
}

/// One tool, as known.
pub(super) enum KnownTool {
    Offered(Arc<ToolDefinition>, Digest),
    NotOffered,
    Unread,
}

impl KnownTool {
    pub(super) fn known(&self) -> Known<'_> {
        match self {
            Self::Offered(definition, pinned) => Known::Offered(definition, *pinned),
            Self::NotOffered => Known::NotOffered,
            Self::Unread => Known::Unread,
        }
    }

    /// The headers in which a client over HTTP repeats arguments, where the tool's schema asks for it.
    pub(super) fn mirrors(&self, arguments: &Value) -> Vec<(String, String)> {
        let Self::Offered(definition, _) = self else { return Vec::new() };
        let header = |(name, property): (&str, &Value)| {
            let short = property.as_object()?.get("x-mcp-header")?.as_str()?;
            let argument = arguments.as_object()?.get(name).filter(|value| !matches!(value, Value::Null))?;
            Some((format!("mcp-param-{}", short.to_lowercase()), header_text(&argument.plain())))
        };
        definition.properties().filter_map(header).collect()
    }

    /// The first `mcp-param-*` header that does not say what its argument says, or is missing (MCP 2026-07-28, Streamable HTTP). One
    /// that the tool's schema does not name mirrors nothing.
    pub(super) fn disagreeing(&self, headers: &[(String, String)], arguments: &Value) -> Option<String> {
        let Self::Offered(definition, _) = self else { return None };
        let given = |short: &str| headers.iter().find(|(name, _)| name.strip_prefix("mcp-param-") == Some(short));
        let version = headers.iter().find(|(name, _)| name == "mcp-protocol-version").map(|(_, version)| version.as_str());
        definition.properties().find_map(|(name, property)| {
            let short = property.as_object()?.get("x-mcp-header")?.as_str()?.to_lowercase();
            let argument = arguments.as_object().and_then(|all| all.get(name)).filter(|value| !matches!(value, Value::Null)).map(Value::plain);
            let agrees = match given(&short) {
                Some((_, value)) => argument == mirrored_text(value),
                // Required since the revision that has them; over stdio there are no headers.
                None => argument.is_none() || version.is_none_or(|version| version < STATELESS),
            };
            (!agrees).then(|| format!("mcp-param-{short}"))
        })
    }
}

impl Gateway {
    pub(super) async fn known_tool(&self, attempt: &Attempt, fresh: bool) -> Result<KnownTool, RouteError> {
        let server = &attempt.server.name;
        let current = |since: Option<Timestamp>| {
            let lists = self.definitions.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists
                .get(server)
                .filter(|listed| match since {
                    Some(since) => listed.at >= since,
                    None => self.clock.now().since(listed.at) < if listed.tools.is_some() { BELIEVED } else { LEFT_ALONE },
                })
                .cloned()
        };
        if !fresh && let Some(listed) = current(None) {
            return Ok(listed.tool(&attempt.call.tool));
        }
        let asked = self.clock.now();
        let _one = self.definitions.reading.lock().await;
        // Somebody else may have read it while this waited; a fresh one must be from after it was asked for.
        let listed = match current(fresh.then_some(asked)) {
            Some(listed) => listed,
            None => self.read_tools(attempt).await?,
        };
        Ok(listed.tool(&attempt.call.tool))
    }

    async fn read_tools(&self, attempt: &Attempt) -> Result<Arc<Listed>, RouteError> {
        let server = &attempt.server.name;
        let tools = match attempt.upstream.list_tools(&attempt.outgoing()).await {
            Ok(entries) => {
                let tools: Vec<ToolDefinition> = entries.iter().filter_map(ToolDefinition::read).collect();
                let mut pins = self.store.pins(server).await?;
                let new: Vec<_> = tools.iter().filter(|tool| !pins.contains_key(&tool.name)).collect();
                if !new.is_empty() {
                    let names: Vec<_> = new.iter().map(|tool| json!({"tool": tool.name, "digest": tool.digest})).collect();
                    let effects = new.iter().map(|tool| Effect::Pin(server.clone(), tool.name.clone(), tool.digest)).collect();
                    let entry = self.entry(EventKind::Pinned, None, None, json!({"server": server, "tools": names}).to_string());
                    self.store.commit(Change::synced(entry, effects)).await?;
                    pins = self.store.pins(server).await?;
                }
                let pinned = |tool: ToolDefinition| {
                    let pin = pins.get(&tool.name).copied().unwrap_or(Digest::ZERO);
                    (tool.name.clone(), (Arc::new(tool), pin))
                };
                Some(tools.into_iter().map(pinned).collect())
            }
            Err(error) => {
                tracing::warn!(%error, server, "the server's list of tools could not be read");
                None
            }
        };
        let listed = Arc::new(Listed { at: self.clock.now(), tools });
        self.definitions.lists.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone(), listed.clone());
        Ok(listed)
    }
}

impl Listed {
    fn tool(&self, name: &str) -> KnownTool {
        match &self.tools {
            None => KnownTool::Unread,
            Some(tools) => match tools.get(name) {
                Some((definition, pin)) => KnownTool::Offered(definition.clone(), *pin),
                None => KnownTool::NotOffered,
            },
        }
    }
}
