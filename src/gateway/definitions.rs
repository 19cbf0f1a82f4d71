//! What each server says its tools are, and what it said when they were first seen.
//!
//! The gateway reads the list itself, never the copy that passes by to a client. It is read again after a minute, and
//! always before an approval is redeemed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Attempt, Gateway, RouteError};
use crate::adapters::store::{Change, Effect, StoreError};
use crate::adapters::upstream::{Envelope, Id, MAX_MESSAGE, STATELESS, header_text, mirrored_text};
use crate::domain::audit::EventKind;
use crate::domain::call::Method;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::json::{Limits, Value, read};
use crate::domain::policy::REASON;
use crate::domain::text::shortened;
use crate::domain::tool::{Known, ToolDefinition};

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
    /// The definitions that the operator was told of.
    told: Mutex<HashSet<Digest>>,
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
    /// No tool is called.
    NoTool,
}

impl KnownTool {
    pub(super) fn known(&self) -> Known<'_> {
        match self {
            Self::Offered(definition, pinned) => Known::Offered(definition, *pinned),
            Self::NotOffered => Known::NotOffered,
            Self::Unread => Known::Unread,
            Self::NoTool => Known::NotAsked,
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
        if attempt.call.method != Method::CallTool {
            return Ok(KnownTool::NoTool);
        }
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

    /// The pins of a server. What is seen of it for the first time is pinned; later only the operator says what is right.
    async fn pinned(&self, server: &str, tools: impl Iterator<Item = &ToolDefinition>) -> Result<HashMap<String, Digest>, StoreError> {
        let pins = self.store.pins(server).await?;
        if !pins.is_empty() {
            return Ok(pins);
        }
        let tools: Vec<&ToolDefinition> = tools.collect();
        if tools.is_empty() {
            return Ok(pins);
        }
        for tool in tools.iter().filter(|tool| tool.strange.is_some()) {
            let name = shortened(&tool.name, 80);
            tracing::warn!(server, tool = name, "{}: look at it before agents use it", tool.strange.unwrap_or_default());
        }
        let names: Vec<_> = tools.iter().map(|tool| json!({"tool": tool.name, "digest": tool.digest, "strange": tool.strange})).collect();
        let effects = tools.iter().map(|tool| Effect::Pin(server.to_owned(), tool.name.clone(), tool.digest)).collect();
        let entry = self.entry(EventKind::Pinned, None, None, json!({"server": server, "tools": names}).to_string());
        self.store.commit(Change::synced(entry, effects)).await?;
        self.store.pins(server).await
    }

    /// An answer to `tools/list` as agents may see it: without tools that changed, or came, since the server was first
    /// seen. Nothing where it may go on as it came, and where it is no list. `from_start`: whether it answers a request for
    /// the first page.
    pub async fn offered(&self, server: &str, answer: &[u8], from_start: bool) -> Option<String> {
        match self.withheld(server, answer, from_start).await {
            Ok(offered) => offered,
            Err(error) => {
                tracing::error!(%error, server, "a list of tools could not be compared with what was first seen; none is shown");
                let envelope = Envelope::read(answer).ok()?;
                let error = json!({"code": -31003, "message": "the gateway cannot compare the tools with those first seen: ask again"}).to_string();
                Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{error}}}", envelope.id()?.json()))
            }
        }
    }

    async fn withheld(&self, server: &str, answer: &[u8], from_start: bool) -> Result<Option<String>, StoreError> {
        #[derive(Deserialize)]
        struct Page<'p> {
            #[serde(borrow)]
            tools: Option<Vec<&'p RawValue>>,
            #[serde(default, rename = "nextCursor")]
            next: Option<serde::de::IgnoredAny>,
        }
        let Ok(envelope) = Envelope::read(answer) else { return Ok(None) };
        let Some(result) = envelope.result else { return Ok(None) };
        let page = match serde_json::from_str::<Page<'_>>(result.get()) {
            Ok(page) => page,
            // Two lists in one answer, say: which of them a client would take is not known.
            Err(_) if self.settings.withholds && result.get().trim_start().starts_with('{') => {
                return Err(StoreError::Corrupt("the server's list of tools is not one list".into()));
            }
            Err(_) => return Ok(None),
        };
        let Some(tools) = page.tools else { return Ok(None) };
        // What cannot be read strictly has no definition that could be compared, and is none of those first seen.
        let limits = Limits { bytes: MAX_MESSAGE, depth: 128, nodes: 2_000_000 };
        let read_one = |raw: &&RawValue| read(raw.get().as_bytes(), limits).ok().and_then(|entry| ToolDefinition::read(&entry));
        let read: Vec<(&RawValue, Option<ToolDefinition>)> = tools.iter().map(|raw| (*raw, read_one(raw))).collect();
        // One page is not the whole: the gateway reads the rest itself before it takes anything for first seen.
        let whole = from_start && page.next.is_none();
        let pins =
            if whole { self.pinned(server, read.iter().filter_map(|(_, tool)| tool.as_ref())).await? } else { self.store.pins(server).await? };
        let policies = self.policies();
        let asks = |tool: &Option<ToolDefinition>| {
            let properties = |tool: &ToolDefinition| tool.properties().all(|(name, _)| name != REASON);
            tool.as_ref().is_some_and(|tool| policies.for_tool(server, &tool.name).show.ask_reason && properties(tool))
        };
        let all = pins.is_empty() || !self.settings.withholds;
        let as_pinned = |tool: &Option<ToolDefinition>| all || tool.as_ref().is_some_and(|tool| pins.get(&tool.name) == Some(&tool.digest));
        let (kept, withheld): (Vec<_>, Vec<_>) = read.iter().partition(|(_, tool)| as_pinned(tool));
        if withheld.is_empty() && !kept.iter().any(|(_, tool)| asks(tool)) {
            return Ok(None);
        }
        self.tell_withheld(server, &withheld.iter().filter_map(|(_, tool)| tool.clone()).collect::<Vec<_>>()).await?;
        let asking = |raw: &RawValue| with_reason(raw.get()).unwrap_or_else(|| raw.get().to_owned());
        let kept: Vec<String> = kept.iter().map(|(raw, tool)| if asks(tool) { asking(raw) } else { raw.get().to_owned() }).collect();
        let Ok(mut members) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(result.get()) else { return Ok(None) };
        members.remove("tools");
        let rest = serde_json::Value::Object(members).to_string();
        let rest = rest.strip_prefix('{').unwrap_or_default();
        let comma = if rest.len() > 1 { "," } else { "" };
        let id = envelope.id().map(Id::json).unwrap_or_default();
        Ok(Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"tools\":[{}]{comma}{rest}}}", kept.join(","))))
    }

    /// Tells the operator once of each definition that is withheld.
    async fn tell_withheld(&self, server: &str, tools: &[ToolDefinition]) -> Result<(), StoreError> {
        let new: Vec<&ToolDefinition> = {
            let mut told = self.definitions.told.lock().unwrap_or_else(PoisonError::into_inner);
            tools.iter().filter(|tool| told.insert(tool.digest)).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = new.iter().map(|tool| json!({"tool": tool.name, "digest": tool.digest, "strange": tool.strange})).collect();
        let shown: Vec<String> = new.iter().map(|tool| shortened(&tool.name, 80)).collect();
        tracing::warn!(
            server,
            "tools changed since they were first seen, and agents do not see them: {}; look at them, then: countersign policy pin {server}",
            shown.join(", ")
        );
        let entry = self.entry(EventKind::Withheld, None, None, json!({"server": server, "tools": names}).to_string());
        self.store.commit(Change::synced(entry, vec![])).await.map(drop)
    }

    async fn read_tools(&self, attempt: &Attempt) -> Result<Arc<Listed>, RouteError> {
        let server = &attempt.server.name;
        let tools = match attempt.upstream.list_tools(&attempt.outgoing()).await {
            Ok(entries) => {
                let tools: Vec<ToolDefinition> = entries.iter().filter_map(ToolDefinition::read).collect();
                let pins = self.pinned(server, tools.iter()).await?;
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

/// A tool that asks the model why. What it says is taken out of the call again, so that the server need not know it.
fn with_reason(entry: &str) -> Option<String> {
    let mut entry: serde_json::Value = serde_json::from_str(entry).ok()?;
    let schema = entry.as_object_mut()?.entry("inputSchema").or_insert_with(|| json!({"type": "object"})).as_object_mut()?;
    let properties = schema.entry("properties").or_insert_with(|| json!({})).as_object_mut()?;
    let why = "Why this call is needed, in a sentence, for the person who may have to approve it.";
    properties.insert(REASON.into(), json!({"type": "string", "description": why}));
    Some(entry.to_string())
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
