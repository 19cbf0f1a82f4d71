//! What a server says its tools are: read from a file, or asked of the server itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rmcp::ServiceExt;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};

use super::super::{Code, Failure};
use crate::app::config::{Config, EnvFile};
use crate::domain::json::{Limits, Value, read};
use crate::domain::text::nearest;
use crate::domain::tool::ToolDefinition;

/// How long a server has to start and to list its tools.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tools in a file: a `tools/list` answer, its result, or the list itself.
pub(super) fn in_file(path: &Path) -> Result<Vec<(ToolDefinition, Value)>, Failure> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| Failure::said(format!("{shown}: {error}")))?;
    let limits = Limits { bytes: 64 << 20, ..Limits::default() };
    let value = read(&text, limits).map_err(|error| Failure::said(format!("{shown}: {error}")).code(Code::Invalid))?;
    listed(&value).ok_or_else(|| {
        Failure::said(format!("{shown}: no list of tools in it"))
            .hint("a file that holds what the server answers to `tools/list`")
            .code(Code::Invalid)
    })
}

fn listed(value: &Value) -> Option<Vec<(ToolDefinition, Value)>> {
    let inner = |name: &str| value.as_object().and_then(|o| o.get(name));
    if let Some(inner) = inner("result").or_else(|| inner("tools")) {
        return listed(inner);
    }
    Some(value.as_array()?.iter().filter_map(|entry| Some((ToolDefinition::read(entry)?, entry.clone()))).collect())
}

/// Tools that a configured upstream offers.
pub(super) async fn of_upstream(config: &Config, name: &str) -> Result<Vec<(ToolDefinition, Value)>, Failure> {
    let Some(file) = config.upstreams.get(name) else {
        let hint = nearest(name, config.upstreams.keys().map(String::as_str)).map(|m| format!("; was `{m}` meant?")).unwrap_or_default();
        return Err(Failure::said(format!("`{name}` is not an `[upstream.…]` of the configuration{hint}"))
            .hint("name one, or give its command: countersign policy init NAME -- COMMAND…")
            .code(Code::Invalid));
    };
    if let Some(url) = &file.url {
        let bearer = file.bearer.as_ref().map(|secret| secret.reveal()).transpose().map_err(|e| Failure::said(e.to_string()))?;
        return over_http(url, bearer).await;
    }
    let mut env = BTreeMap::new();
    for (key, value) in &file.env {
        let value = match value {
            EnvFile::Plain(text) => text.clone(),
            EnvFile::Secret(secret) => secret.reveal().map_err(|e| Failure::said(e.to_string()))?,
        };
        env.insert(key.clone(), value);
    }
    of_command(file.command.as_deref().unwrap_or_default(), env).await
}

/// Tools that a program offers over its standard input and output.
pub(super) async fn of_command(command: &[String], env: BTreeMap<String, String>) -> Result<Vec<(ToolDefinition, Value)>, Failure> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::said("the command is empty"))?;
    let mut child = tokio::process::Command::new(program);
    child.args(arguments).envs(env);
    let transport = TokioChildProcess::new(child).map_err(|error| Failure::said(format!("`{program}` does not start: {error}")))?;
    let asked = async {
        let client = ().serve(transport).await.map_err(|error| error.to_string())?;
        let tools = client.list_all_tools().await.map_err(|error| error.to_string());
        drop(client.cancel().await);
        tools
    };
    read_all(tokio::time::timeout(PATIENCE, asked).await)
}

async fn over_http(url: &str, bearer: Option<String>) -> Result<Vec<(ToolDefinition, Value)>, Failure> {
    let mut settings = StreamableHttpClientTransportConfig::with_uri(url);
    if let Some(bearer) = bearer {
        settings = settings.auth_header(bearer);
    }
    let asked = async {
        let client = ().serve(StreamableHttpClientTransport::from_config(settings)).await.map_err(|error| error.to_string())?;
        let tools = client.list_all_tools().await.map_err(|error| error.to_string());
        drop(client.cancel().await);
        tools
    };
    read_all(tokio::time::timeout(PATIENCE, asked).await)
}

fn read_all(asked: Result<Result<Vec<rmcp::model::Tool>, String>, tokio::time::error::Elapsed>) -> Result<Vec<(ToolDefinition, Value)>, Failure> {
    let tools = asked.map_err(|_| Failure::said("the server did not list its tools within a minute"))?;
    let tools = tools.map_err(|error| Failure::said(format!("the server did not list its tools: {error}")))?;
    let text = serde_json::to_vec(&tools).map_err(|error| Failure::said(error.to_string()))?;
    let value = read(&text, Limits { bytes: 64 << 20, ..Limits::default() }).map_err(|error| Failure::said(error.to_string()))?;
    Ok(listed(&value).unwrap_or_default())
}
