//! Sessions with public servers, direct and through the gateway: what comes back is compared as bytes, what goes to the
//! server as values.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::modern_node;
use crate::support::{Scratch, Settings, World, countersign, ledger_server};

fn server(name: &str) -> Option<Vec<String>> {
    let (node, script) = modern_node(&format!("node_modules/@modelcontextprotocol/server-{name}/dist/index.js"))?;
    Some(vec![node, script])
}

/// Plays a session: every request is answered before the next is sent, and what the server asks is answered. Gives every
/// line that came back.
fn play(mut command: Command, requests: &[Value]) -> Vec<String> {
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
    let mut lines = Vec::new();
    let mut send = |message: &Value| writeln!(stdin, "{message}").and_then(|()| stdin.flush()).unwrap();
    let mut take = |until: Option<&Value>, patience: Duration, send: &mut dyn FnMut(&Value)| loop {
        let Ok(line) = hear.recv_timeout(patience) else {
            assert!(until.is_none(), "no answer to {until:?} after {} lines", lines.len());
            return;
        };
        let message: Value = serde_json::from_str(&line).unwrap();
        lines.push(line);
        let result = match message["method"].as_str() {
            Some("roots/list") => json!({"roots": [{"uri": "file:///somewhere", "name": "somewhere"}]}),
            Some("sampling/createMessage") => json!({"role": "assistant", "content": {"type": "text", "text": "sampled"}, "model": "none"}),
            Some("elicitation/create") => json!({"action": "decline"}),
            _ => {
                if until.is_some_and(|id| message["id"] == *id && message.get("method").is_none()) {
                    return;
                }
                continue;
            }
        };
        send(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
    };
    for (number, request) in requests.iter().enumerate() {
        let mut message = json!({"jsonrpc": "2.0"});
        message.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        if request["method"].as_str().unwrap().starts_with("notifications/") {
            send(&message);
            // A server that asks back after it was greeted does so now.
            take(None, Duration::from_millis(700), &mut send);
            continue;
        }
        // Both kinds of ids, and the one that is often taken for nothing.
        message["id"] = if number % 2 == 0 { json!(number) } else { json!(format!("id \"{number}\"")) };
        send(&message);
        take(Some(&message["id"]), Duration::from_secs(20), &mut send);
    }
    drop(stdin);
    drop(process.kill());
    drop(process.wait());
    lines.sort();
    lines
}

fn tool(name: &str, arguments: Value) -> Value {
    json!({"method": "tools/call", "params": {"name": name, "arguments": arguments}})
}

fn greeting() -> [Value; 2] {
    let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {"listChanged": true}});
    let info = json!({"name": "fidelity", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info});
    [json!({"method": "initialize", "params": params}), json!({"method": "notifications/initialized"})]
}

fn everything() -> Vec<Value> {
    let mut all = greeting().to_vec();
    all.extend([
        json!({"method": "ping"}),
        json!({"method": "tools/list"}),
        json!({"method": "prompts/list", "params": {}}),
        json!({"method": "resources/list"}),
        json!({"method": "resources/templates/list"}),
        json!({"method": "logging/setLevel", "params": {"level": "debug"}}),
        tool("echo", json!({"message": "Grüße \u{1f980} \u{2028} \"quoted\" \\ and\nbroken"})),
        tool("get-sum", json!({"a": 1.5, "b": -0.25})),
        tool("get-sum", json!({"a": "no number", "b": 2})),
        tool("get-structured-content", json!({"location": "New York"})),
        tool("get-annotated-message", json!({"messageType": "error", "includeImage": true})),
        tool("get-tiny-image", json!({})),
        tool("get-resource-links", json!({"count": 3})),
        tool("get-roots-list", json!({})),
        tool("trigger-sampling-request", json!({"prompt": "a prompt", "maxTokens": 10})),
        tool("trigger-elicitation-request", json!({})),
        json!({"method": "tools/call", "params": {"name": "trigger-long-running-operation", "arguments": {"duration": 0.4, "steps": 4}, "_meta": {"progressToken": "a token"}}}),
        json!({"method": "prompts/get", "params": {"name": "args-prompt", "arguments": {"city": "Berlin"}}}),
        json!({"method": "prompts/get", "params": {"name": "no such prompt"}}),
        json!({"method": "completion/complete", "params": {"ref": {"type": "ref/prompt", "name": "completable-prompt"}, "argument": {"name": "department", "value": "E"}}}),
        json!({"method": "resources/read", "params": {"uri": "demo://resource/static/document/architecture.md"}}),
        json!({"method": "resources/read", "params": {"uri": "demo://no/such/resource"}}),
        json!({"method": "resources/subscribe", "params": {"uri": "demo://resource/static/document/architecture.md"}}),
        json!({"method": "resources/unsubscribe", "params": {"uri": "demo://resource/static/document/architecture.md"}}),
        json!({"method": "next/year", "params": {"of": [1, {"deep": null}]}}),
    ]);
    all
}

fn memory() -> Vec<Value> {
    let mut all = greeting().to_vec();
    let entity = json!({"name": "Ada", "entityType": "person", "observations": ["wrote notes"]});
    all.extend([
        json!({"method": "tools/list"}),
        tool("create_entities", json!({"entities": [entity]})),
        tool("add_observations", json!({"observations": [{"entityName": "Ada", "contents": ["counted"]}]})),
        tool("create_relations", json!({"relations": [{"from": "Ada", "to": "Ada", "relationType": "knows"}]})),
        tool("read_graph", json!({})),
        tool("search_nodes", json!({"query": "ada"})),
        tool("open_nodes", json!({"names": ["Ada", "nobody"]})),
        tool("delete_entities", json!({"entityNames": ["Ada"]})),
        tool("read_graph", json!({})),
    ]);
    all
}

fn thinking() -> Vec<Value> {
    let mut all = greeting().to_vec();
    all.push(json!({"method": "tools/list"}));
    all.extend((1..=3).map(|n| {
        tool("sequentialthinking", json!({"thought": format!("step {n}"), "nextThoughtNeeded": n < 3, "thoughtNumber": n, "totalThoughts": 3}))
    }));
    all
}

fn filesystem(root: &Path) -> Vec<Value> {
    let mut all = greeting().to_vec();
    let file = root.join("a file.txt");
    all.extend([
        json!({"method": "tools/list"}),
        tool("write_file", json!({"path": file, "content": "line one\nline two ü\n"})),
        tool("read_text_file", json!({"path": file})),
        tool("edit_file", json!({"path": file, "edits": [{"oldText": "two", "newText": "three"}], "dryRun": true})),
        tool("list_directory", json!({"path": root})),
        tool("read_text_file", json!({"path": "/etc/shadow"})),
        tool("list_allowed_directories", json!({})),
    ]);
    all
}

/// A shell that writes down what goes to the server.
pub fn tapped(command: &[String], into: &Path) -> Vec<String> {
    let quoted: Vec<String> = command.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    vec!["sh".into(), "-c".into(), format!("tee '{}' | {}", into.display(), quoted.join(" "))]
}

fn plain(command: &[String], env: &[(&str, PathBuf)]) -> Command {
    let mut plain = Command::new(&command[0]);
    plain.args(&command[1..]).envs(env.iter().map(|(name, value)| (name, value)));
    plain
}

fn wrapped(scratch: &Scratch, arguments: &[&str], command: &[String]) -> Command {
    let port = crate::support::free_port();
    let text = format!("[listen]\naddress = \"127.0.0.1:{port}\"\n[policy]\ndefault = \"allow\"\n[approver.anna]\n[caller.local]\n");
    let mut wrap = Command::new(countersign());
    wrap.arg("--config").arg(scratch.write("countersign.toml", &text)).arg("wrap").args(arguments);
    if !command.is_empty() {
        wrap.arg("--").args(command);
    }
    wrap
}

/// What went to the server, without what the gateway asks for itself.
fn sent(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|message| !message["id"].as_str().is_some_and(|id| id.starts_with("countersign-"))).collect()
}

fn same(direct: &[String], through: &[String]) {
    let other: Vec<_> = direct.iter().filter(|line| !through.contains(line)).collect();
    let more: Vec<_> = through.iter().filter(|line| !direct.contains(line)).collect();
    assert!(other.is_empty() && more.is_empty() && direct.len() == through.len(), "only direct: {other:#?}\nonly through the gateway: {more:#?}");
}

fn compare(name: &str, more: &[&str], requests: &[Value], file: Option<&str>) {
    let Some(mut command) = server(name) else { return };
    command.extend(more.iter().map(|word| (*word).to_owned()));
    let scratch = Scratch::new();
    let env = |kind: &str| file.map(|variable| (variable, scratch.0.join(format!("{kind}.json")))).into_iter().collect::<Vec<_>>();
    let (tap, tap_through) = (scratch.0.join("direct.log"), scratch.0.join("through.log"));
    let direct = play(plain(&tapped(&command, &tap), &env("direct")), requests);
    let given: Vec<String> = env("through").iter().map(|(name, value)| format!("--env={name}={}", value.display())).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let through = play(wrapped(&scratch, &given, &tapped(&command, &tap_through)), requests);
    same(&direct, &through);
    assert!(direct.len() >= requests.len() - 1);
    let (direct, through) = (sent(&tap), sent(&tap_through));
    for message in &direct {
        assert!(through.contains(message), "did not go to the server: {message}\n{through:#?}");
    }
    assert_eq!(direct.len(), through.len());
}

#[test]
fn a_session_with_everything_is_the_same_bytes() {
    compare("everything", &["stdio"], &everything(), None);
}

#[test]
fn a_session_with_memory_is_the_same_bytes() {
    compare("memory", &[], &memory(), Some("MEMORY_FILE_PATH"));
}

#[test]
fn a_session_with_sequential_thinking_is_the_same_bytes() {
    compare("sequential-thinking", &[], &thinking(), None);
}

#[test]
fn a_session_with_files_is_the_same_bytes() {
    let root = Scratch::new();
    let path = root.0.canonicalize().unwrap();
    compare("filesystem", &[path.to_str().unwrap()], &filesystem(&path), None);
}

/// The server *everything* over HTTP, in one of its two ways.
struct Everything(std::process::Child, u16);

impl Drop for Everything {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Everything {
    fn start(way: &str) -> Option<Self> {
        let command = server("everything")?;
        let port = crate::support::free_port();
        let mut http = Command::new(&command[0]);
        http.args([&command[1], way]).env("PORT", port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let http = Self(http.spawn().unwrap(), port);
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(http)
    }
}

/// A client on a pipe in front of a server over HTTP hears what it would hear of the same server on a pipe.
fn over_http(way: &str, more: &[&str]) {
    let Some(command) = server("everything") else { return };
    let http = Everything::start(if way == "sse" { "sse" } else { "streamableHttp" }).unwrap();
    let mut over_pipe = command.clone();
    over_pipe.push("stdio".into());
    let direct = play(plain(&over_pipe, &[]), &everything());
    let scratch = Scratch::new();
    let url = format!("http://127.0.0.1:{}/{way}", http.1);
    let through = play(wrapped(&scratch, &[&["--url", &url], more].concat(), &[]), &everything());
    // What the server says before any client can have opened its stream is lost over HTTP, and it names its sessions.
    let common = |lines: Vec<String>| -> Vec<String> {
        let lines = lines.into_iter().filter(|line| !line.contains("notifications/tools/list_changed"));
        lines.map(|line| regex::Regex::new("from session [0-9a-f-]{36}").unwrap().replace(&line, "").into_owned()).collect()
    };
    same(&common(direct), &common(through));
}

#[test]
fn a_session_over_http_is_the_same_bytes_on_a_pipe() {
    over_http("mcp", &[]);
}

#[test]
fn a_session_over_the_transport_of_2024_11_05_is_the_same_bytes_on_a_pipe() {
    over_http("sse", &["--transport", "sse"]);
}

/// The same server for clients over today's transport: a session each, which ends with the connection behind it.
#[tokio::test]
async fn the_transport_of_2024_11_05_behind_http() {
    let Some(http) = Everything::start("sse") else { return };
    let more = format!(
        "[policy]\ndefault = \"allow\"\n[upstream.old]\nurl = \"http://127.0.0.1:{}/sse\"\ntransport = \"sse\"\n[upstream.gone]\n\
         url = \"http://127.0.0.1:9/sse\"\ntransport = \"sse\"\n",
        http.1
    );
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let client = reqwest::Client::new();
    let post = async |upstream: &str, session: Option<&str>, message: Value| {
        let mut request = client.post(format!("{}/mcp/{upstream}", world.address)).header("accept", "application/json, text/event-stream");
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        let response = request.header("content-type", "application/json").body(message.to_string()).send().await.unwrap();
        let session = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        (response.status().as_u16(), session, response.text().await.unwrap())
    };
    let hello = |id: u8| json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": greeting()[0]["params"]});
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let (status, session, text) = post("old", None, hello(0)).await;
        assert!(status == 200 && text.contains("mcp-servers/everything"), "{status} {text}");
        let session = session.unwrap();
        let (status, _, text) = post("old", Some(&session), json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert_eq!(status, 202, "{text}");
        sessions.push(session);
    }
    let echo = |word: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": word}}});
    let (one, two) = tokio::join!(post("old", Some(&sessions[0]), echo("one")), post("old", Some(&sessions[1]), echo("two")));
    assert!(one.2.contains("Echo: one") && two.2.contains("Echo: two"), "{} {}", one.2, two.2);
    drop(http);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let ended = loop {
        let ended = post("old", Some(&sessions[0]), echo("three")).await;
        if ended.0 != 200 || std::time::Instant::now() > until {
            break ended;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(ended.0 == 404 && !ended.2.contains("Echo"), "{ended:?}");
    let (status, _, text) = post("gone", None, hello(2)).await;
    assert!(status >= 500 || text.contains("error"), "{status} {text}");
}

/// The revision without sessions: what each request says of itself, which over HTTP is said in headers as well.
fn stateless() -> Vec<Value> {
    let request = |method: &str, params: Value| {
        let capabilities = json!({"elicitation": {}, "sampling": {}});
        let mut meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": capabilities});
        let mut params = params;
        if let Some(own) = params.get("_meta").and_then(Value::as_object) {
            meta.as_object_mut().unwrap().extend(own.clone());
        }
        params["_meta"] = meta;
        json!({"method": method, "params": params})
    };
    let call = |name: &str, arguments: Value| request("tools/call", json!({"name": name, "arguments": arguments}));
    vec![
        request("server/discover", json!({})),
        request("tools/list", json!({})),
        call("test_simple_text", json!({})),
        call("test_custom_header", json!({"region": "eu-west 1"})),
        call("test_custom_header", json!({"region": " Gr\u{fc}\u{df}e\n"})),
        call("test_error_handling", json!({})),
        call("no_such_tool", json!({})),
        call("test_input_required_result_elicitation", json!({})),
        request("tools/call", json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": 7}})),
        request("prompts/list", json!({})),
        request("prompts/get", json!({"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}})),
        request("resources/read", json!({"uri": "test://template/\u{fc}/data"})),
        request("resources/read", json!({"uri": "test://nothing"})),
        request("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": "p"}})),
        request("no/such/method", json!({})),
    ]
}

/// The same without sessions: on a pipe, through a pipe, and through a pipe to HTTP, for which the gateway makes the headers.
#[test]
fn requests_without_sessions_are_the_same_on_a_pipe_and_over_http() {
    let program = ledger_server().with_file_name("conformance_server");
    let command = vec![program.display().to_string()];
    let direct = play(plain(&command, &[]), &stateless());
    assert_eq!(direct.len(), stateless().len() + 3);
    let scratch = Scratch::new();
    same(&direct, &play(wrapped(&scratch, &[], &command), &stateless()));
    let mut http = Command::new(&program).args(["--http", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(http.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening mcp ").unwrap().to_owned();
    let scratch = Scratch::new();
    let through = play(wrapped(&scratch, &["--url", &url], &[]), &stateless());
    drop(http.kill());
    drop(http.wait());
    same(&direct, &through);
}
