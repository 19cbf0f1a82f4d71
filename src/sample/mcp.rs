//! The ledger as an MCP server, on rmcp.

use std::sync::Arc;

use axum::http::request::Parts;
use rmcp::ServiceExt;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, LedgerError, TOOLS};

#[derive(Clone)]
struct Front(Arc<Ledger>);

pub(super) async fn stdio(ledger: Arc<Ledger>) -> Result<(), LedgerError> {
    let serving = Front(ledger).serve(rmcp::transport::stdio()).await.map_err(|e| LedgerError::Serve(e.to_string()))?;
    serving.waiting().await.map(drop).map_err(|e| LedgerError::Serve(e.to_string()))
}

pub(super) async fn http(ledger: Arc<Ledger>, listener: TcpListener, stop: CancellationToken) -> Result<(), LedgerError> {
    let config = StreamableHttpServerConfig::default().with_cancellation_token(stop.child_token());
    let service: StreamableHttpService<Front, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(Front(ledger.clone())), Arc::new(LocalSessionManager::default()), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    served.await.map_err(|e| LedgerError::Serve(e.to_string()))
}

impl ServerHandler for Front {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("countersign-sample-ledger", env!("CARGO_PKG_VERSION")))
            .with_instructions("A ledger to try an approval gateway with: accounts, payments, and tools that are dangerous.")
    }

    async fn list_tools(&self, _page: Option<PaginatedRequestParams>, _context: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(
            TOOLS.iter().map(|(name, description, dangerous, arguments)| tool(name, description, *dangerous, arguments)).collect(),
        ))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let header = context.extensions.get::<Parts>().and_then(|parts| parts.headers.get("authorization"));
        let token = header.and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let arguments = request.arguments.unwrap_or_default();
        let (text, failed) = match self.0.call(&request.name, &arguments, token).await {
            Ok(text) => (text, false),
            Err(text) => (text, true),
        };
        let content = vec![ContentBlock::text(text)];
        let result = if failed { CallToolResult::error(content) } else { CallToolResult::success(content) };
        Ok(CallToolResponse::Complete(result))
    }
}

fn tool(name: &'static str, description: &'static str, dangerous: bool, arguments: &[(&str, &str, &str)]) -> Tool {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (argument, kind, what) in arguments {
        let plain = argument.trim_end_matches('?');
        properties.insert(plain.to_owned(), json!({"type": kind, "description": what}));
        if plain == *argument {
            required.push(Value::from(plain));
        }
    }
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
    Tool::new(name, description, schema).with_annotations(ToolAnnotations::new().read_only(!dangerous).destructive(dangerous))
}
