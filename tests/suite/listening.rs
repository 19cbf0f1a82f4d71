//! Clients that listen for what becomes of their tasks, alone or together with what the server has to tell.

use std::path::Path;
use std::time::Duration;

use rmcp::model::TaskStatusNotificationParams;
use serde_json::{Value, json};

use crate::conformance::{Server, fixture};
use crate::fidelity::tapped;
use crate::support::mcp::Client;
use crate::support::{Scratch, Settings, World, free_port, refund};
use crate::transports::Wrapped;

pub const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "listener", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    })
}

/// A stream of events that stays open.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    pub async fn open(client: &Client, id: &Value, filter: &Value) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": {"notifications": filter, "_meta": meta()}});
        let request =
            client.http.post(&client.url).header("content-type", "application/json").header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
        let request = client.bearer.iter().fold(request, |request, bearer| request.bearer_auth(bearer));
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    pub async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let message = event.lines().find_map(|line| line.strip_prefix("data:")).map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                if let Some(message) = message {
                    return message;
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await.unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }
}

/// The task in a notification that it checks: it says whose it is, and the official types read it.
fn task(message: &Value, subscription: &Value) -> Value {
    assert_eq!((&message["method"], &message["params"]["_meta"][SUBSCRIPTION]), (&json!("notifications/tasks"), subscription), "{message}");
    serde_json::from_value::<TaskStatusNotificationParams>(message["params"].clone()).unwrap();
    message["params"].clone()
}

async fn world(upstream: &str) -> World {
    let policy =
        "server = \"fixture\"\ntool = \"test_simple_text\"\ndefault = \"approve\"\n[approval]\napprovers = [\"anna\"]\ntwo-from = \"never\"\n";
    let settings = Settings {
        more: format!("[policy]\ndefault = \"allow\"\n[upstream.fixture]\n{upstream}\n"),
        policies: vec![("fixture.toml", policy.to_owned())],
        ..Settings::default()
    };
    World::with(settings).await
}

async fn together(upstream: &str, tap: Option<&Path>) {
    let world = world(upstream).await;
    let client = Client::new(&format!("{}/mcp/fixture", world.address));
    let call = async |tool: &str| client.request(json!(1), "tools/call", json!({"name": tool, "arguments": {}, "_meta": meta()})).await.unwrap();
    let held = call("test_simple_text").await.answer()["result"]["taskId"].as_str().unwrap().to_owned();
    let waiting = world.one_waiting().await;
    let guessed = "countersign-00000000000000000000000000000000";
    let (id, filter) = (json!("one"), json!({"toolsListChanged": true, "taskIds": [held, guessed]}));
    let mut stream = Stream::open(&client, &id, &filter).await;
    let first = stream.next().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(first["params"]["_meta"][SUBSCRIPTION], id);
    assert_eq!(first["params"]["notifications"], json!({"toolsListChanged": true, "taskIds": [held]}));
    let stands = task(&stream.next().await, &id);
    assert_eq!((&stands["taskId"], &stands["status"]), (&json!(held), &json!("working")));
    assert!(stands["statusMessage"].as_str().unwrap().contains("anna"));
    call("test_trigger_tool_change").await;
    let changed = stream.next().await;
    assert_eq!((&changed["method"], &changed["params"]["_meta"][SUBSCRIPTION]), (&json!("notifications/tools/list_changed"), &id), "{changed}");
    // Another client of the same caller, with the same id, hears of tasks alone.
    let mut other = Stream::open(&client, &id, &json!({"taskIds": [held]})).await;
    assert_eq!(other.next().await["params"]["notifications"], json!({"taskIds": [held]}));
    assert_eq!(task(&other.next().await, &id)["status"], "working");
    call("test_trigger_tool_change").await;
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    world.approve(&waiting);
    for stream in [&mut stream, &mut other] {
        let end = loop {
            let now = task(&stream.next().await, &id);
            if now["status"] != "working" {
                break now;
            }
        };
        assert_eq!(end["status"], "completed", "{end}");
        assert!(end["result"].to_string().contains("simple text response"), "{end}");
    }
    drop((stream, other));
    if let Some(tap) = tap {
        // A child cannot see that a stream was closed: it is told, in its own words, and only of what it was asked.
        for _ in 0..100 {
            if std::fs::read_to_string(tap).unwrap().contains("notifications/cancelled") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let sent: Vec<Value> = std::fs::read_to_string(tap).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let listens: Vec<_> = sent.iter().filter(|message| message["method"] == "subscriptions/listen").collect();
        let cancels: Vec<_> = sent.iter().filter(|message| message["method"] == "notifications/cancelled").collect();
        assert_eq!((listens.len(), cancels.len()), (1, 1), "{sent:#?}");
        assert_eq!(
            (&listens[0]["params"]["notifications"], &listens[0]["id"]),
            (&json!({"toolsListChanged": true}), &cancels[0]["params"]["requestId"])
        );
    }
    world.check().await;
}

#[tokio::test]
async fn for_tasks_and_a_server_over_http_at_once() {
    let server = Server::start();
    together(&format!("url = \"{}\"", server.url), None).await;
}

#[tokio::test]
async fn for_tasks_and_a_child_at_once() {
    let scratch = Scratch::new();
    let tap = scratch.0.join("sent.log");
    let command = tapped(&[fixture().to_str().unwrap().to_owned()], &tap);
    together(&format!("command = {}", json!(command)), Some(&tap)).await;
}

/// The ledger knows no subscriptions: its callers hear of their tasks all the same, after a restart too, and of nobody else's.
#[tokio::test]
async fn where_the_server_knows_no_subscriptions() {
    let mut world = World::new().await;
    let client = Client::new(&world.mcp());
    let arguments = json!({"name": "refund_payment", "arguments": refund(8000), "_meta": meta()});
    let held = client.request(json!(1), "tools/call", arguments).await.unwrap().answer()["result"]["taskId"].as_str().unwrap().to_owned();
    let waiting = world.one_waiting().await;
    let id = json!(7);
    for filter in [json!({"taskIds": [held]}), json!({"promptsListChanged": true, "taskIds": [held, held]})] {
        let mut stream = Stream::open(&client, &id, &filter).await;
        assert_eq!(stream.next().await["params"], json!({"notifications": {"taskIds": [held]}, "_meta": {SUBSCRIPTION: id}}));
        assert_eq!(task(&stream.next().await, &id)["status"], "working");
    }
    // Told when the gateway ends, and resumed by whoever listens after that.
    let mut stream = Stream::open(&client, &id, &json!({"taskIds": [held]})).await;
    assert_eq!(stream.next().await["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(task(&stream.next().await, &id)["status"], "working");
    assert!(world.terminate().success());
    let last = stream.next().await;
    assert_eq!((&last["id"], &last["result"]["_meta"][SUBSCRIPTION]), (&id, &id), "{last}");
    world.start();
    let client = Client::new(&world.mcp());
    let mut stream = Stream::open(&client, &id, &json!({"taskIds": [held]})).await;
    assert_eq!(stream.next().await["method"], "notifications/subscriptions/acknowledged");
    world.deny(&waiting);
    let end = loop {
        let now = task(&stream.next().await, &id);
        if now["status"] != "working" {
            break now;
        }
    };
    assert_eq!((&end["status"], &end["result"]["isError"]), (&json!("completed"), &json!(true)), "{end}");
    let many: Vec<String> = (0..257).map(|n| format!("countersign-{n:032x}")).collect();
    let refused = client.request(json!(2), "subscriptions/listen", json!({"notifications": {"taskIds": many}})).await.unwrap();
    assert_eq!(refused.code(), -32602, "{}", refused.text);
    assert_eq!(world.received_of("refund_payment").await, 0);
    world.check().await;
}

/// A client that does not read what a child says to it keeps no other client of the same child waiting for long.
#[tokio::test]
async fn who_does_not_read_holds_nobody_up() {
    let scratch = Scratch::new();
    let script = r#"
import json, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "subscriptions/listen":
        meta = {"io.modelcontextprotocol/subscriptionId": asked["id"]}
        say({"method": "notifications/subscriptions/acknowledged", "params": {"notifications": {"toolsListChanged": True}, "_meta": meta}})
        for n in range(40000):
            say({"method": "notifications/tools/list_changed", "params": {"_meta": meta, "more": "x" * 1000}})
    elif "id" in asked:
        say({"id": asked["id"], "result": {"resultType": "complete", "tools": []}})
"#;
    let script = scratch.write("flood.py", script);
    let world = world(&format!("command = [\"python3\", \"{}\"]", script.display())).await;
    let client = Client::new(&format!("{}/mcp/fixture", world.address));
    let unread = Stream::open(&client, &json!(1), &json!({"toolsListChanged": true})).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tools = client.request(json!(2), "tools/list", json!({"_meta": meta()})).await.unwrap();
    assert_eq!(tools.answer()["result"]["tools"], json!([]), "{}", tools.text);
    assert!(world.log().contains("did not read"), "{}", world.log());
    drop(unread);
}

#[tokio::test]
async fn one_caller_listens_only_so_often() {
    let world = World::with(Settings { listen: "sessions-per-caller = 2\n".into(), ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    let filter = json!({"taskIds": ["countersign-00000000000000000000000000000000"]});
    let mut open = vec![Stream::open(&client, &json!(1), &filter).await, Stream::open(&client, &json!(1), &filter).await];
    for stream in &mut open {
        assert_eq!(stream.next().await["params"]["notifications"], json!({"taskIds": []}));
    }
    let refused = client.request(json!(2), "subscriptions/listen", json!({"notifications": filter, "_meta": meta()})).await.unwrap();
    assert_eq!((refused.status, refused.code()), (503, -31006), "{}", refused.text);
    drop(open.pop());
    for _ in 0..100 {
        match tokio::time::timeout(Duration::from_millis(200), client.request(json!(2), "subscriptions/listen", json!({"notifications": filter})))
            .await
        {
            // A stream, which does not end.
            Err(_) => return world.check().await,
            Ok(refused) => assert_eq!(refused.unwrap().status, 503),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there is no room again");
}

fn on_a_pipe(upstream: &[&str]) {
    let scratch = Scratch::new();
    let policy =
        "server = \"fixture\"\ntool = \"test_simple_text\"\ndefault = \"approve\"\n[approval]\napprovers = [\"anna\"]\ntwo-from = \"never\"\n";
    scratch.write("tool-policies/fixture.toml", policy);
    let config = format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\n[policy]\ndefault = \"allow\"\n[approver.anna]\n[approver.olga]\n[caller.local]\nowner = \"olga\"\n",
        free_port()
    );
    let mut wrapped = Wrapped::start(scratch, Some(&config), &[&["--server", "fixture"], upstream].concat(), &[]);
    let call =
        |id: i64, tool: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}, "_meta": meta()}});
    wrapped.send(&call(1, "test_simple_text"));
    let held = wrapped.answer(&json!(1))["result"]["taskId"].as_str().unwrap().to_owned();
    let waiting = wrapped.waiting()["id"].as_str().unwrap().to_owned();
    let listen = |id: &str, filter: Value| json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": {"notifications": filter, "_meta": meta()}});
    wrapped.send(&listen("all", json!({"toolsListChanged": true, "taskIds": [held]})));
    let first = wrapped.read();
    assert_eq!(first["params"]["notifications"], json!({"toolsListChanged": true, "taskIds": [held]}), "{first}");
    assert_eq!(task(&wrapped.read(), &json!("all"))["status"], "working");
    wrapped.send(&listen("tasks", json!({"taskIds": [held]})));
    assert_eq!(wrapped.read()["params"]["notifications"], json!({"taskIds": [held]}));
    assert_eq!(task(&wrapped.read(), &json!("tasks"))["status"], "working");
    wrapped.send(&listen("tasks", json!({"taskIds": [held]})));
    assert_eq!(wrapped.answer(&json!("tasks"))["error"]["code"], -32600);
    // Taken back: nothing more is said of it.
    wrapped.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "tasks"}}));
    wrapped.send(&call(2, "test_trigger_tool_change"));
    let (mut changed, mut answered) = (false, false);
    while !(changed && answered) {
        let message = wrapped.read();
        answered |= message["id"] == 2;
        changed |= message["method"] == "notifications/tools/list_changed" && message["params"]["_meta"][SUBSCRIPTION] == "all";
    }
    assert_eq!(wrapped.run(&["approvals", "approve", &waiting, "--as", "anna", "--yes"]).0, 0);
    loop {
        let now = task(&wrapped.read(), &json!("all"));
        if now["status"] == "completed" {
            assert!(now["result"].to_string().contains("simple text response"), "{now}");
            break;
        }
        assert_eq!(now["status"], "working");
    }
}

#[test]
fn on_a_pipe_in_front_of_a_child() {
    on_a_pipe(&["--", fixture().to_str().unwrap()]);
}

#[test]
fn on_a_pipe_in_front_of_http() {
    let server = Server::start();
    on_a_pipe(&["--url", &server.url]);
}

/// A server that asks back in the middle of a call that is followed as a task: its client answers, the answer makes another
/// call that is approved anew, and the task goes on, through a restart too.
#[tokio::test]
async fn a_task_whose_server_asks_back_goes_on() {
    let policy = "server = \"fixture\"\ntool = \"test_input_required_result_elicitation\"\ndefault = \"approve\"\n[approval]\napprovers = [\"anna\"]\ntwo-from = \"never\"\n";
    let settings = Settings {
        more: format!("[policy]\ndefault = \"allow\"\n[upstream.fixture]\ncommand = [\"{}\"]\n", fixture().display()),
        policies: vec![("fixture.toml", policy.to_owned())],
        ..Settings::default()
    };
    let mut world = World::with(settings).await;
    let client = Client::new(&format!("{}/mcp/fixture", world.address));
    let mut can = meta();
    can["io.modelcontextprotocol/clientCapabilities"]["elicitation"] = json!({"form": {}});
    let about = async |client: &Client, method: &str, mut params: Value| {
        params["_meta"] = can.clone();
        client.request(json!(3), method, params).await.unwrap().answer().clone()
    };
    let settled = async |client: &Client, task: &Value| {
        for _ in 0..200 {
            let now = about(client, "tasks/get", json!({"taskId": task})).await["result"].clone();
            if now["status"] != "working" {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the task does not end");
    };
    let begin = async |client: &Client, world: &World| {
        let call = about(client, "tools/call", json!({"name": "test_input_required_result_elicitation", "arguments": {}})).await;
        assert_eq!(call["result"]["status"], "working", "{call}");
        let waiting = world.one_waiting().await;
        world.approve(&waiting);
        call["result"].clone()
    };
    let begun = begin(&client, &world).await;
    let task = begun["taskId"].clone();
    let asked = settled(&client, &task).await;
    assert_eq!((&asked["status"], &asked["taskId"]), (&json!("input_required"), &task), "{asked}");
    let (name, _) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(asked["inputRequests"][name]["method"], "elicitation/create", "{asked}");
    // What is no answer changes nothing.
    for (responses, code) in [(json!({}), 0), (json!({"other": {}}), -32602), (json!([]), -32602)] {
        let answer = about(&client, "tasks/update", json!({"taskId": task, "inputResponses": responses})).await;
        assert_eq!(answer["error"]["code"].as_i64().unwrap_or(0), code, "{answer}");
    }
    let mut stream = Stream::open(&client, &json!(9), &json!({"taskIds": [task]})).await;
    assert_eq!(stream.next().await["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(self::task(&stream.next().await, &json!(9))["status"], "input_required");
    let answers = json!({(name.clone()): {"action": "accept", "content": {"name": "Ada"}}});
    for _ in 0..2 {
        let answer = about(&client, "tasks/update", json!({"taskId": task, "inputResponses": answers})).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    }
    let waiting = world.one_waiting().await;
    assert_eq!(about(&client, "tasks/get", json!({"taskId": task})).await["result"]["status"], "working");
    world.kill();
    world.start();
    let client = Client::new(&format!("{}/mcp/fixture", world.address));
    let mut stream = Stream::open(&client, &json!(9), &json!({"taskIds": [task]})).await;
    assert_eq!(stream.next().await["method"], "notifications/subscriptions/acknowledged");
    world.approve(&waiting);
    let end = loop {
        let now = self::task(&stream.next().await, &json!(9));
        if now["status"] != "working" {
            break now;
        }
    };
    assert_eq!((&end["status"], &end["taskId"], &end["createdAt"]), (&json!("completed"), &task, &begun["createdAt"]), "{end}");
    assert!(end["result"].to_string().contains("Ada"), "{end}");
    assert_eq!(settled(&client, &task).await["result"], end["result"]);
    let (_, story) = world.run(&["audit", "show", task.as_str().unwrap().trim_start_matches("countersign-")]);
    assert!(story.contains("its client follows it as a task") && story.contains("the task goes on as"), "{story}");
    assert!(world.waiting().is_empty());
    // Taken back while the server waits for an answer.
    let task = begin(&client, &world).await["taskId"].clone();
    assert_eq!(settled(&client, &task).await["status"], "input_required");
    assert_eq!(about(&client, "tasks/cancel", json!({"taskId": task})).await["result"]["resultType"], "complete");
    assert_eq!(settled(&client, &task).await["status"], "cancelled");
    let late = about(&client, "tasks/update", json!({"taskId": task, "inputResponses": answers})).await;
    assert_eq!(late["result"]["resultType"], "complete", "{late}");
    assert!(world.waiting().is_empty());
    // The policy that holds when the client answers decides: nobody is asked, or it does not run.
    for (default, is_error) in [("allow", json!(false)), ("deny", json!(true))] {
        let task = begin(&client, &world).await["taskId"].clone();
        assert_eq!(settled(&client, &task).await["status"], "input_required");
        let before = world.kinds().await.iter().filter(|kind| *kind == "policy-loaded").count();
        world.scratch.write("tool-policies/ledger/fixture.toml", &policy.replace("default = \"approve\"", &format!("default = \"{default}\"")));
        while world.kinds().await.iter().filter(|kind| *kind == "policy-loaded").count() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let answer = about(&client, "tasks/update", json!({"taskId": task, "inputResponses": answers})).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        let end = settled(&client, &task).await;
        assert_eq!((&end["status"], &end["result"]["isError"]), (&json!("completed"), &is_error), "{end}\n{}", world.log());
        assert_eq!(settled(&client, &task).await["result"], end["result"]);
        world.scratch.write("tool-policies/ledger/fixture.toml", policy);
        while world.kinds().await.iter().filter(|kind| *kind == "policy-loaded").count() == before + 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // What is kept of a task is dropped when its time is over.
    let kept: Vec<(String,)> = world.query(&world.store(), "UPDATE approvals SET kept_until = 1 WHERE answer IS NOT NULL RETURNING id").await;
    assert!(kept.len() >= 4);
    let left = async || world.query::<(String,)>(&world.store(), "SELECT id FROM approvals WHERE answer IS NOT NULL").await.len();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while left().await > 0 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(about(&client, "tasks/get", json!({"taskId": task})).await["error"]["code"], -32602);
    world.check().await;
}
