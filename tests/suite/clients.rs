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

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn python(script_name: &str) -> Option<Command> {
    let mut command = Command::new(installed("python", "venv/bin/python")?);
    command.arg(script(script_name));
    Some(command)
}

fn node(script_name: &str) -> Option<Command> {
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

/// Runs the story of `client.py` and `client.mjs`: each step is checked there, by the client itself.
async fn story(command: Option<Command>, transport: &str) {
    let Some(mut command) = command else { return };
    let settings = Settings { hold: "budget = \"20s\"\nbudget-with-progress = \"20s\"\nprogress-every = \"1s\"\n".into(), child: transport == "stdio", ..Settings::default() };
    let world = World::with(settings).await;
    // The client wraps the same server itself; it and the terminal share the store.
    let environment = [
        ("COUNTERSIGN", countersign().to_owned()), ("CONFIG", world.config.display().to_string()), ("URL", world.mcp()),
        ("LEDGER", ledger_server().display().to_string()), ("LEDGER_DB", world.scratch.0.join("ledger.db").display().to_string()),
        ("ISSUER", world.address.clone()),
    ];
    let output = tokio::task::spawn_blocking(move || command.arg(if transport_is_stdio(&environment) { "stdio" } else { "http" }).envs(environment).stdin(Stdio::null()).output());
    let output = output.await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("all steps came out as told"), "{text}\n{}", world.log());
    assert_eq!(world.received_of("refund_payment").await, 2, "approved once, and collected once after a timeout");
    assert_eq!(world.received_of("close_account").await, 0, "denied");
    world.check().await;
}

fn transport_is_stdio(_: &[(&str, String)]) -> bool {
    false
}

#[tokio::test]
async fn the_python_client_over_stdio() {
    story(python("client.py"), "stdio").await;
}
