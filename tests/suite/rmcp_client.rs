//! rmcp as client, over both transports and in both eras, in front of the fixture server: everything that a client uses
//! of a server, and a call that is held.

#![expect(deprecated, reason = "sampling and logging are, and still must pass")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult,
    ErrorData, LoggingMessageNotificationParam, ProgressNotificationParam,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RoleClient, RunningService};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};

use crate::conformance::{Server, fixture};
use crate::support::{Settings, World, countersign};

/// What a user of the client sees.
#[derive(Clone, Default)]
struct User {
    progress: Arc<AtomicUsize>,
    logged: Arc<AtomicUsize>,
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let info = json!({"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}, "elicitation": {"form": {}}}, "clientInfo": {"name": "rmcp", "version": "1"}});
        serde_json::from_value(info).unwrap()
    }

    async fn create_message(&self, _: CreateMessageRequestParams, _: RequestContext<RoleClient>) -> Result<CreateMessageResult, ErrorData> {
        Ok(serde_json::from_value(json!({"model": "none", "role": "assistant", "content": {"type": "text", "text": "sampled"}})).unwrap())
    }

    async fn create_elicitation(&self, _: ElicitRequestParams, _: RequestContext<RoleClient>) -> Result<ElicitResult, ErrorData> {
        let content = json!({"response": "elicited", "name": "Ada", "username": "ada", "email": "ada@example.com"});
        Ok(serde_json::from_value(json!({"action": "accept", "content": content})).unwrap())
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    async fn on_logging_message(&self, _: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        self.logged.fetch_add(1, Ordering::Relaxed);
    }
}

type Client = RunningService<RoleClient, User>;

async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let arguments = arguments.as_object().cloned().unwrap();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap_or_else(|error| panic!("{tool}: {error}"))
}

fn text(result: &CallToolResult) -> String {
    serde_json::to_string(result).unwrap()
}

async fn story(client: Client, user: &User, world: &World, modern: bool) {
    assert!(client.list_all_tools().await.unwrap().len() > 25);
    assert!(!client.list_all_prompts().await.unwrap().is_empty() && !client.list_all_resources().await.unwrap().is_empty());
    assert!(text(&call(&client, "test_image_content", json!({})).await).contains("image/png"));
    assert!(text(&call(&client, "test_error_handling", json!({})).await).contains("\"isError\":true"));
    call(&client, "test_tool_with_progress", json!({})).await;
    assert!(user.progress.load(Ordering::Relaxed) >= 3, "progress");
    if modern {
        // In rounds: the server asks back in its answer, and the client sends the call again.
        let answered = text(&call(&client, "test_input_required_result_elicitation", json!({})).await);
        assert!(!answered.contains("\"isError\":true"), "{answered}");
    } else {
        assert!(text(&call(&client, "test_sampling", json!({"prompt": "p"})).await).contains("sampled"));
        assert!(!text(&call(&client, "test_elicitation", json!({"message": "m"})).await).contains("\"isError\":true"));
        call(&client, "test_tool_with_logging", json!({})).await;
        assert!(user.logged.load(Ordering::Relaxed) >= 1, "logging");
    }
    let held = call(&client, "test_simple_text", json!({}));
    let approve = async {
        let waiting = world.one_waiting().await;
        // Longer than a request of the stateless era is held.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        world.approve(&waiting);
    };
    let (held, ()) = tokio::join!(held, approve);
    assert!(text(&held).contains("simple text response") && !text(&held).contains("\"isError\":true"), "{}", text(&held));
    client.cancel().await.unwrap();
}

async fn with(modern: bool, http: bool) {
    let policy =
        "server = \"fixture\"\ntool = \"test_simple_text\"\ndefault = \"approve\"\n[approval]\napprovers = [\"anna\"]\ntwo-from = \"never\"\n";
    let server = http.then(Server::start);
    let upstream = match &server {
        Some(server) => format!("url = \"{}\"", server.url),
        None => format!("command = [\"{}\"]", fixture().display()),
    };
    let settings = Settings {
        more: format!("[policy]\ndefault = \"allow\"\n[upstream.fixture]\n{upstream}\n"),
        hold: "budget = \"1s\"\nbudget-with-progress = \"20s\"\nprogress-every = \"1s\"\nrounds = 9\n".into(),
        policies: vec![("fixture.toml", policy.to_owned())],
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let lifecycle = || match modern {
        true => ClientLifecycleMode::Discover {
            preferred_versions: vec!["2026-07-28".to_owned()].into_iter().map(|v| serde_json::from_value(v.into()).unwrap()).collect(),
        },
        false => ClientLifecycleMode::Initialize,
    };
    let user = User::default();
    let over_http = StreamableHttpClientTransport::from_uri(format!("{}/mcp/fixture", world.address));
    story(user.clone().serve_with_lifecycle(over_http, lifecycle()).await.unwrap(), &user, &world, modern).await;
    let user = User::default();
    let mut wrap = tokio::process::Command::new(countersign());
    wrap.arg("--config").arg(&world.config).args(["wrap", "--upstream", "fixture"]);
    let on_a_pipe = TokioChildProcess::new(wrap).unwrap();
    story(user.clone().serve_with_lifecycle(on_a_pipe, lifecycle()).await.unwrap(), &user, &world, modern).await;
}

#[tokio::test]
async fn with_sessions_in_front_of_a_child() {
    with(false, false).await;
}

#[tokio::test]
async fn with_sessions_in_front_of_http() {
    with(false, true).await;
}

#[tokio::test]
async fn without_sessions_in_front_of_a_child() {
    with(true, false).await;
}

#[tokio::test]
async fn without_sessions_in_front_of_http() {
    with(true, true).await;
}
