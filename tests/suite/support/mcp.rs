//! An MCP client of our own over HTTP, raw enough to send what no library would.

use std::time::Duration;

use serde_json::{Value, json};

/// A client of the stateless era; clone it for as many as are needed.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub bearer: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The messages, the last of which is the answer.
    pub messages: Vec<Value>,
    pub text: String,
}

impl Reply {
    pub fn answer(&self) -> &Value {
        self.messages.last().unwrap_or(&Value::Null)
    }

    /// The text of a tool's result.
    pub fn said(&self) -> String {
        self.answer()["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_error(&self) -> bool {
        self.answer()["result"]["isError"] == true
    }

    pub fn state(&self) -> &Value {
        &self.answer()["result"]["_meta"]["dev.countersign/call"]["state"]
    }

    pub fn code(&self) -> i64 {
        self.answer()["error"]["code"].as_i64().unwrap_or(0)
    }
}

impl Client {
    pub fn new(url: &str) -> Self {
        Self {
            http: reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(60)).build().unwrap(),
            url: url.to_owned(),
            bearer: None,
        }
    }

    /// Sends bytes as they are.
    pub async fn send(&self, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> Result<Reply, reqwest::Error> {
        let mut request =
            self.http.post(&self.url).header("content-type", "application/json").header("accept", "application/json, text/event-stream").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let stream = response.headers().get("content-type").is_some_and(|kind| kind.to_str().unwrap().starts_with("text/event-stream"));
        let text = response.text().await?;
        let messages = if stream {
            text.lines().filter_map(|line| line.strip_prefix("data:")).filter_map(|data| serde_json::from_str(data.trim()).ok()).collect()
        } else {
            serde_json::from_str(&text).into_iter().collect()
        };
        Ok(Reply { status, messages, text })
    }

    pub async fn request(&self, id: Value, method: &str, params: Value) -> Result<Reply, reqwest::Error> {
        let name = ["name", "uri", "taskId"].iter().find_map(|name| params[name].as_str()).map(str::to_owned);
        let mut params = params;
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let given = params["_meta"].as_object().cloned().unwrap_or_default();
        params["_meta"] = meta;
        params["_meta"].as_object_mut().unwrap().extend(given);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        if let Some(name) = &name {
            headers.push(("mcp-name", name));
        }
        self.send(body, &headers).await
    }

    pub async fn try_call(&self, tool: &str, arguments: Value) -> Result<Reply, reqwest::Error> {
        self.request(json!(1), "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.try_call(tool, arguments).await.unwrap()
    }
}
