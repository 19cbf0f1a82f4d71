//! The server that the official conformance suite asks for (`@modelcontextprotocol/conformance`, server mode): its tools,
//! prompts and resources, on rmcp. Stdio by default, Streamable HTTP at `/mcp` with `--http ADDRESS`.
//!
//! It is there to be put behind the gateway: whatever the suite says of it must be the same through Countersign.

#![expect(deprecated, reason = "the suite still asks for logging, which MCP 2026-07-28 deprecates")]
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a fixture of its own: a wrong fixture is to fail loudly")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::ServiceExt;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ClientResult, CompleteRequestParams, CompleteResult, CreateTaskResult,
    ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation, InputRequest, InputRequiredResult,
    InputResponses, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, RequestStateCodec, ServerCapabilities, ServerConfig, ServerNotification, ServerRequest,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Task, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::task_manager::{TaskExit, TaskManager, TaskOptions};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// A red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A header of silence.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";
const PAUSE: Duration = Duration::from_millis(50);

type Context = RequestContext<RoleServer>;

#[derive(Clone)]
struct Fixture {
    tasks: TaskManager,
    states: Arc<RequestStateCodec>,
    /// Tells listeners that the tools, or the prompts, changed.
    changed: broadcast::Sender<&'static str>,
    /// What listeners hear from, taken before they are told that they are subscribed: what changes then is not missed.
    hears: Arc<Mutex<VecDeque<broadcast::Receiver<&'static str>>>>,
}

fn as_type<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the fixture's own JSON has the type it is for")
}

/// A result of this kind, which is complete.
fn result<T: DeserializeOwned>(mut value: Value) -> T {
    value["resultType"] = "complete".into();
    as_type(value)
}

fn text(text: impl Into<String>) -> CallToolResponse {
    content(json!([{"type": "text", "text": text.into()}]))
}

fn content(blocks: Value) -> CallToolResponse {
    result::<CallToolResult>(json!({"content": blocks, "isError": false})).into()
}

fn failed(text: &str) -> CallToolResult {
    result(json!({"content": [{"type": "text", "text": text}], "isError": true}))
}

fn refused(why: &str) -> ErrorData {
    ErrorData::invalid_params(why.to_owned(), None)
}

fn elicit(message: &str, property: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {property: {"type": kind}}, "required": [property]});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}})
}

fn sample(prompt: &str, most: u32) -> Value {
    json!({"method": "sampling/createMessage", "params": {"messages": [{"role": "user", "content": {"type": "text", "text": prompt}}], "maxTokens": most}})
}

fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

fn ask(requests: Value, state: Option<String>) -> InputRequiredResult {
    let mut asked = json!({"resultType": "input_required", "inputRequests": requests});
    if let Some(state) = state {
        asked["requestState"] = state.into();
    }
    as_type(asked)
}

/// What the client answered to `key`, where it has the shape that was asked for.
fn given<'a>(responses: Option<&'a InputResponses>, key: &str, member: &str) -> Option<&'a Value> {
    let answer = responses?.get(key)?;
    answer.get("content").and_then(|content| content.get(member)).or_else(|| answer.get(member))
}

fn tools() -> Vec<Tool> {
    let empty = || json!({"type": "object", "properties": {}});
    let plain = |name: &str| (name.to_owned(), empty());
    let mut all: Vec<(String, Value)> = [
        "test_simple_text",
        "test_image_content",
        "test_audio_content",
        "test_embedded_resource",
        "test_multiple_content_types",
        "test_tool_with_logging",
        "test_error_handling",
        "test_tool_with_progress",
        "test_elicitation_sep1034_defaults",
        "test_elicitation_sep1330_enums",
        "test_reconnection",
        "test_input_required_result_elicitation",
        "test_input_required_result_sampling",
        "test_input_required_result_list_roots",
        "test_input_required_result_request_state",
        "test_input_required_result_multiple_inputs",
        "test_input_required_result_multi_round",
        "test_input_required_result_tampered_state",
        "test_input_required_result_capabilities",
        "test_missing_capability",
        "test_streaming_elicitation",
        "test_logging_tool",
        "test_trigger_tool_change",
        "test_trigger_prompt_change",
        "test_tool_with_task",
        "failing_job",
        "protocol_error_job",
        "multi_input",
    ]
    .into_iter()
    .map(plain)
    .collect();
    let one = |name: &str, argument: &str| {
        (name.to_owned(), json!({"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}))
    };
    all.extend([one("test_sampling", "prompt"), one("test_elicitation", "message"), one("greet", "name"), one("confirm_delete", "filename")]);
    all.push(("slow_compute".into(), json!({"type": "object", "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}}})));
    let region = json!({"type": "string", "description": "Where", "x-mcp-header": "Region"});
    all.push(("test_custom_header".into(), json!({"type": "object", "properties": {"region": region}, "required": ["region"]})));
    all.push(("json_schema_2020_12_tool".into(), json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
        "properties": {
            "name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}, "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"}, "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": false,
    })));
    let tool =
        |(name, schema): (String, Value)| as_type(json!({"name": name, "description": format!("The suite's `{name}`"), "inputSchema": schema}));
    all.into_iter().map(tool).collect()
}

impl Fixture {
    fn new() -> Self {
        Self {
            tasks: TaskManager::new(),
            states: Arc::new(RequestStateCodec::try_new(*b"a key of a fixture, 32 bytes long").expect("the key is long enough")),
            changed: broadcast::channel(16).0,
            hears: Arc::default(),
        }
    }

    /// Asks the client of a legacy session.
    async fn request(&self, context: &Context, request: Value) -> Result<Value, ErrorData> {
        let answer: ClientResult =
            context.peer.send_request(as_type::<ServerRequest>(request)).await.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(serde_json::to_value(answer).unwrap_or_default())
    }

    async fn notify(&self, context: &Context, method: &str, params: Value) {
        drop(context.peer.send_notification(as_type::<ServerNotification>(json!({"method": method, "params": params}))).await);
    }

    async fn log(&self, context: &Context, message: &str) {
        self.notify(context, "notifications/message", json!({"level": "info", "logger": "fixture", "data": message})).await;
    }

    async fn elicited(&self, context: &Context, message: &str, schema: Value) -> Result<CallToolResponse, ErrorData> {
        let answer = self
            .request(context, json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}))
            .await?;
        Ok(text(format!("Elicitation completed: action={}, content={}", answer["action"].as_str().unwrap_or("?"), answer["content"])))
    }

    /// The sum of the rounds that a state tells of; an error if it is not ours.
    fn opened(&self, state: Option<&String>) -> Result<Option<String>, ErrorData> {
        let open = |sealed: &String| self.states.open(sealed).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        state.map(open).transpose().map_err(|_| refused("requestState failed its integrity check"))
    }

    fn task<F, W>(&self, work: F) -> CallToolResponse
    where
        F: FnOnce(rmcp::task_manager::TaskContext) -> W,
        W: Future<Output = Result<CallToolResult, TaskExit>> + Send + 'static,
    {
        let task: Task = self.tasks.spawn(TaskOptions::new().with_poll_interval_ms(100), |context| Box::pin(work(context)));
        CallToolResponse::Task(CreateTaskResult::new(task))
    }
}

fn complete(response: CallToolResponse) -> CallToolResult {
    match response {
        CallToolResponse::Complete(result) => result,
        _ => failed("not complete"),
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("countersign-conformance-fixture", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(&self, _page: Option<PaginatedRequestParams>, _context: Context) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let argument = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        let responses = request.input_responses.as_ref();
        let follows = context.client_capabilities().is_some_and(|told| told.supports_tasks());
        Ok(match request.name.as_ref() {
            "test_simple_text" => text("This is a simple text response for testing."),
            "test_image_content" => content(json!([{"type": "image", "data": PNG, "mimeType": "image/png"}])),
            "test_audio_content" => content(json!([{"type": "audio", "data": WAV, "mimeType": "audio/wav"}])),
            "test_embedded_resource" => content(json!([{"type": "resource", "resource": {
                "uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content.",
            }}])),
            "test_multiple_content_types" => content(json!([
                {"type": "text", "text": "Multiple content types test:"},
                {"type": "image", "data": PNG, "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": "{\"test\":\"data\",\"value\":123}"}},
            ])),
            "test_tool_with_logging" => {
                self.log(&context, "Tool execution started").await;
                tokio::time::sleep(PAUSE).await;
                self.log(&context, "Tool processing data").await;
                tokio::time::sleep(PAUSE).await;
                self.log(&context, "Tool execution completed").await;
                text("Tool with logging executed")
            }
            "test_logging_tool" => {
                if context.meta.get("io.modelcontextprotocol/logLevel").is_some() {
                    self.log(&context, "asked for").await;
                }
                text("Logged where that was asked for")
            }
            "test_error_handling" => failed("This tool intentionally returns an error for testing").into(),
            "test_tool_with_progress" => {
                let token = context.meta.get_progress_token();
                for progress in [0, 50, 100] {
                    if let Some(token) = &token {
                        self.notify(&context, "notifications/progress", json!({"progressToken": token, "progress": progress, "total": 100})).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                text("Tool with progress executed")
            }
            "test_reconnection" => {
                self.log(&context, "the stream may break now").await;
                tokio::time::sleep(PAUSE).await;
                text("Reconnected, or never broken off")
            }
            "test_sampling" => {
                let answer = self.request(&context, sample(&argument("prompt"), 100)).await?;
                let said = answer["content"]["text"].as_str().or_else(|| answer["content"][0]["text"].as_str()).unwrap_or("nothing");
                text(format!("LLM response: {said}"))
            }
            "test_elicitation" => {
                let schema = json!({"type": "object", "properties": {
                    "username": {"type": "string", "description": "User's response"},
                    "email": {"type": "string", "description": "User's email address"},
                }, "required": ["username", "email"]});
                let params = json!({"mode": "form", "message": argument("message"), "requestedSchema": schema});
                let answer = self.request(&context, json!({"method": "elicitation/create", "params": params})).await?;
                text(format!("User response: action: {}, content: {}", answer["action"].as_str().unwrap_or("?"), answer["content"]))
            }
            "test_elicitation_sep1034_defaults" => {
                let properties = json!({
                    "name": {"type": "string", "description": "User name", "default": "John Doe"},
                    "age": {"type": "integer", "description": "User age", "default": 30},
                    "score": {"type": "number", "description": "User score", "default": 95.5},
                    "status": {"type": "string", "description": "User status", "enum": ["active", "inactive", "pending"], "default": "active"},
                    "verified": {"type": "boolean", "description": "Verification status", "default": true},
                });
                self.elicited(&context, "Please review and update the defaults", json!({"type": "object", "properties": properties, "required": []}))
                    .await?
            }
            "test_elicitation_sep1330_enums" => {
                let titled = |first: &str, second: &str, third: &str| {
                    json!([
                        {"const": "value1", "title": first}, {"const": "value2", "title": second}, {"const": "value3", "title": third},
                    ])
                };
                let properties = json!({
                    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
                    "titledSingle": {"type": "string", "oneOf": titled("First Option", "Second Option", "Third Option")},
                    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
                    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
                    "titledMulti": {"type": "array", "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")}},
                });
                self.elicited(&context, "Please choose", json!({"type": "object", "properties": properties, "required": []})).await?
            }
            "test_input_required_result_elicitation" => match given(responses, "user_name", "name").and_then(Value::as_str) {
                Some(name) => text(format!("Hello, {name}!")),
                None => ask(json!({"user_name": elicit("What is your name?", "name", "string")}), None).into(),
            },
            "test_input_required_result_sampling" => {
                match given(responses, "capital_question", "text").or_else(|| responses?.get("capital_question")) {
                    Some(answer) => text(format!("The model said: {answer}")),
                    None => ask(json!({"capital_question": sample("What is the capital of France?", 100)}), None).into(),
                }
            }
            "test_input_required_result_list_roots" => match given(responses, "client_roots", "roots") {
                Some(roots) => text(format!("Roots: {roots}")),
                None => ask(json!({"client_roots": roots()}), None).into(),
            },
            "test_input_required_result_request_state" => match (self.opened(request.request_state.as_ref())?, given(responses, "confirm", "ok")) {
                (Some(_), Some(_)) => text("state-ok"),
                _ => ask(json!({"confirm": elicit("Please confirm", "ok", "boolean")}), Some(self.states.seal(b"round-1"))).into(),
            },
            "test_input_required_result_tampered_state" => match self.opened(request.request_state.as_ref())? {
                Some(_) => text("state-ok"),
                None => ask(json!({"confirm": elicit("Please confirm", "ok", "boolean")}), Some(self.states.seal(b"sealed"))).into(),
            },
            "test_input_required_result_multiple_inputs" => {
                let all = ["user_name", "greeting", "client_roots"].iter().all(|key| responses.is_some_and(|given| given.contains_key(*key)));
                match (self.opened(request.request_state.as_ref())?, all) {
                    (Some(_), true) => text("All inputs received"),
                    _ => {
                        let requests = json!({
                            "user_name": elicit("What is your name?", "name", "string"), "greeting": sample("Generate a greeting", 50), "client_roots": roots(),
                        });
                        ask(requests, Some(self.states.seal(b"multiple"))).into()
                    }
                }
            }
            "test_input_required_result_multi_round" => match self.opened(request.request_state.as_ref())?.as_deref() {
                Some("round-2") if given(responses, "step2", "color").is_some() => text("Both steps are done"),
                Some("round-1") if given(responses, "step1", "name").is_some() => {
                    ask(json!({"step2": elicit("Step 2: What is your favorite color?", "color", "string")}), Some(self.states.seal(b"round-2")))
                        .into()
                }
                _ => ask(json!({"step1": elicit("Step 1: What is your name?", "name", "string")}), Some(self.states.seal(b"round-1"))).into(),
            },
            "test_input_required_result_capabilities" | "test_streaming_elicitation" => {
                let told = context.client_capabilities();
                let mut requests = json!({});
                if told.as_ref().is_some_and(|told| told.sampling.is_some()) {
                    requests["sampled"] = sample("Say something", 50);
                }
                if told.as_ref().is_some_and(|told| told.elicitation.is_some()) {
                    requests["asked"] = elicit("What is your name?", "name", "string");
                }
                match responses {
                    Some(_) => text("Answered"),
                    None if requests == json!({}) => text("The client can do nothing"),
                    None => ask(requests, None).into(),
                }
            }
            "test_missing_capability" => {
                if context.client_capabilities().is_none_or(|told| told.sampling.is_none()) {
                    return Err(ErrorData::missing_required_client_capability(as_type(json!({"sampling": {}}))));
                }
                text("The client can sample")
            }
            "test_trigger_tool_change" | "test_trigger_prompt_change" => {
                let what = if request.name.contains("tool_change") { "tools" } else { "prompts" };
                drop(self.changed.send(what));
                text("Changed")
            }
            "test_custom_header" => text(format!("Region {}", argument("region"))),
            "json_schema_2020_12_tool" => text("Taken"),
            "greet" => text(format!("Hello, {}!", argument("name"))),
            "slow_compute" => {
                let (seconds, label) = (arguments["seconds"].as_f64().unwrap_or(0.0), argument("label"));
                let done = text(format!("Computed {label} for {seconds} s"));
                if !follows {
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    return Ok(done);
                }
                self.task(move |task| async move {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => Ok(complete(done)),
                        () = task.cancelled() => Err(TaskExit::Cancelled),
                    }
                })
            }
            "failing_job" if follows => self.task(|_| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(failed("The job failed"))
            }),
            "protocol_error_job" if follows => {
                self.task(|_| async { Err(TaskExit::Error(ErrorData::internal_error("The job broke the protocol", None))) })
            }
            "confirm_delete" if follows => {
                let file = argument("filename");
                self.task(move |task| async move {
                    let request: InputRequest = as_type(elicit(&format!("Delete {file}?"), "confirm", "boolean"));
                    let answer = task.request_input("confirm", request).await?;
                    Ok(complete(text(format!("Deletion of {file}: {answer}"))))
                })
            }
            "multi_input" if follows => self.task(|task| async move {
                let first = task.request_input("first", as_type::<InputRequest>(elicit("First?", "value", "string")));
                let second = task.request_input("second", as_type::<InputRequest>(elicit("Second?", "value", "string")));
                let (first, second) = tokio::join!(first, second);
                Ok(complete(text(format!("{} and {}", first?, second?))))
            }),
            "test_tool_with_task" if follows => match given(responses, "user_name", "name").and_then(Value::as_str) {
                None => ask(json!({"user_name": elicit("What is your name?", "name", "string")}), None).into(),
                Some(name) => {
                    let name = name.to_owned();
                    self.task(move |_| async move {
                        tokio::time::sleep(PAUSE).await;
                        Ok(complete(text(format!("Hello, {name}!"))))
                    })
                }
            },
            "failing_job" | "protocol_error_job" | "confirm_delete" | "multi_input" | "test_tool_with_task" => {
                return Err(ErrorData::missing_required_client_capability(as_type(json!({"extensions": {"io.modelcontextprotocol/tasks": {}}}))));
            }
            name => return Err(refused(&format!("unknown tool `{name}`"))),
        })
    }

    async fn list_prompts(&self, _page: Option<PaginatedRequestParams>, _context: Context) -> Result<ListPromptsResult, ErrorData> {
        let required = |name: &str| json!({"name": name, "description": format!("The {name}"), "required": true});
        Ok(result(json!({"prompts": [
            {"name": "test_simple_prompt", "description": "A simple prompt"},
            {"name": "test_prompt_with_arguments", "description": "With arguments", "arguments": [required("arg1"), required("arg2")]},
            {"name": "test_prompt_with_embedded_resource", "description": "With a resource", "arguments": [required("resourceUri")]},
            {"name": "test_prompt_with_image", "description": "With an image"},
            {"name": "test_input_required_result_prompt", "description": "That asks back"},
        ]})))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, _context: Context) -> Result<GetPromptResponse, ErrorData> {
        let arguments = serde_json::to_value(&request.arguments).unwrap_or_default();
        let said = |text: String| json!({"role": "user", "content": {"type": "text", "text": text}});
        let messages = match request.name.as_ref() {
            "test_simple_prompt" => json!([said("This is a simple prompt for testing.".into())]),
            "test_prompt_with_arguments" => {
                let given = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
                json!([said(format!("Prompt with arguments: arg1='{}', arg2='{}'", given("arg1"), given("arg2")))])
            }
            "test_prompt_with_embedded_resource" => {
                let resource = json!({"uri": arguments["resourceUri"], "mimeType": "text/plain", "text": "Embedded resource content for testing."});
                json!([{"role": "user", "content": {"type": "resource", "resource": resource}}, said("Please process the embedded resource above.".into())])
            }
            "test_prompt_with_image" => {
                json!([{"role": "user", "content": {"type": "image", "data": PNG, "mimeType": "image/png"}}, said("Please analyze the image above.".into())])
            }
            "test_input_required_result_prompt" => match given(request.input_responses.as_ref(), "user_context", "context") {
                Some(context) => json!([said(format!("In the context of {context}"))]),
                None => return Ok(ask(json!({"user_context": elicit("What context should the prompt use?", "context", "string")}), None).into()),
            },
            name => return Err(refused(&format!("unknown prompt `{name}`"))),
        };
        Ok(GetPromptResponse::Complete(result(json!({"messages": messages}))))
    }

    async fn list_resources(&self, _page: Option<PaginatedRequestParams>, _context: Context) -> Result<ListResourcesResult, ErrorData> {
        let resource =
            |name: &str, kind: &str| json!({"uri": format!("test://{name}"), "name": name, "description": format!("The {name}"), "mimeType": kind});
        Ok(result(json!({"resources": [
            resource("static-text", "text/plain"), resource("static-binary", "image/png"), resource("watched-resource", "text/plain"),
        ]})))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template =
            json!({"uriTemplate": "test://template/{id}/data", "name": "template", "description": "Data by id", "mimeType": "application/json"});
        Ok(result(json!({"resourceTemplates": [template]})))
    }

    async fn read_resource(&self, request: ReadResourceRequestParams, _context: Context) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let content = match uri {
            "test://static-text" => json!({"uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource."}),
            "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
            "test://watched-resource" => json!({"uri": uri, "mimeType": "text/plain", "text": "Watched"}),
            _ => match uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data")) {
                Some(id) => {
                    let data = format!("{{\"id\":\"{id}\",\"templateTest\":true,\"data\":\"Data for ID: {id}\"}}");
                    json!({"uri": uri, "mimeType": "application/json", "text": data})
                }
                None => return Err(ErrorData::invalid_params("Resource not found", Some(json!({"uri": uri})))),
            },
        };
        Ok(ReadResourceResponse::Complete(result(json!({"contents": [content]}))))
    }

    async fn complete(&self, _request: CompleteRequestParams, _context: Context) -> Result<CompleteResult, ErrorData> {
        Ok(result(json!({"completion": {"values": ["paris", "park", "party"], "total": 150, "hasMore": false}})))
    }

    async fn set_level(&self, _request: SetLevelRequestParams, _context: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _request: SubscribeRequestParams, _context: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _request: UnsubscribeRequestParams, _context: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.changed.subscribe());
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let subscribed = self.hears.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut changes = subscribed.unwrap_or_else(|| self.changed.subscribe());
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => match change {
                    Ok("tools") => drop(context.sink().notify_tool_list_changed().await),
                    Ok(_) => drop(context.sink().notify_prompt_list_changed().await),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    async fn get_task(&self, request: GetTaskParams, _context: Context) -> Result<GetTaskResult, ErrorData> {
        self.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, request: UpdateTaskParams, _context: Context) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _context: Context) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let fixture = Fixture::new();
    let served: Result<(), String> = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => match fixture.serve(rmcp::transport::stdio()).await {
            Ok(serving) => serving.waiting().await.map(drop).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        },
        ["--http", address] => match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                eprintln!("listening mcp http://{}/mcp", listener.local_addr().map_or_else(|_| (*address).to_owned(), |a| a.to_string()));
                let service: StreamableHttpService<Fixture, LocalSessionManager> = StreamableHttpService::new(
                    move || Ok(fixture.clone()),
                    Arc::new(LocalSessionManager::default()),
                    StreamableHttpServerConfig::default(),
                );
                let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
                axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(format!("cannot listen on {address}: {error}")),
        },
        _ => Err("usage: conformance_server [--http ADDRESS]".into()),
    };
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
