//! The program as its users meet it.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::mcp::Client;
use crate::support::{Scratch, Settings, World, countersign, refund};

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let scratch = Scratch::new();
    let output = Command::new(countersign())
        .args(arguments)
        .current_dir(&scratch.0)
        .env("XDG_STATE_HOME", &scratch.0)
        .env("USER", "olga")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_demo_comes_out_as_told() {
    let (code, text) = run(&["demo", "--auto", "approve"]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["the refund ran", "introspection says inactive", "a thief", "unbroken", "credential-revoked", "delivered"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = run(&["demo", "--auto", "deny"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("no credential was minted") && text.contains("it never received the refund"));
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in [
        "demo",
        "wrap",
        "serve",
        "policy check",
        "policy test",
        "policy explain",
        "policy pin",
        "approvals list",
        "approvals show",
        "approvals approve",
        "approvals deny",
        "approvals watch",
        "approvals withdraw",
        "approvals login",
        "audit verify",
        "audit show",
    ] {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let (code, text) = run(&words);
        assert!(code == Some(0) && text.contains("Example"), "{verb}: {text}");
    }
}

#[test]
fn wrong_words_and_missing_files_are_told_apart_by_exit_code() {
    assert_eq!(run(&["frobnicate"]).0, Some(2));
    let (code, text) = run(&["serve", "--config", "nowhere.toml"]);
    assert!(code == Some(3) && text.contains("nowhere.toml"), "{text}");
    let (code, text) = run(&["serve"]);
    assert!(code == Some(1) && text.contains("hint: "), "{text}");
    let (code, text) = run(&["audit", "show", "nothing"]);
    assert!(code == Some(1) && text.contains("nothing is recorded"), "{text}");
}

#[tokio::test]
async fn the_story_of_a_call_can_be_read_and_a_changed_record_is_found() {
    let world = World::with(Settings { hold: "budget = \"1s\"\n".into(), ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    let waiting = world.one_waiting().await;
    let id = waiting["id"].as_str().unwrap();
    let (_, shown) = world.run(&["approvals", "show", &id[..8]]);
    for part in ["Refund 80 EUR for pay-1", "refund:pay-1", "first seen", "answered for by olga", waiting["digest"].as_str().unwrap()] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (code, text) = world.run(&["approvals", "approve", id, "--as", "anna"]);
    assert!(code == 1 && text.contains("nobody is there to be asked"), "{text}");
    world.approve(&waiting);
    assert!(client.call("refund_payment", refund(8000)).await.said().contains("80.00"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (code, story) = world.run(&["audit", "show", id]);
    assert_eq!(code, 0);
    for part in ["asked anna, bert", "anna said approve: a test (terminal", "was minted", "it ran", "was revoked", "reached the caller"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    let (code, text) = world.run(&["audit", "verify"]);
    assert!(code == 0 && text.contains("unbroken"), "{text}");
    world.query::<(i64,)>(&world.store(), "UPDATE audit SET data = replace(data, 'anna', 'bert') WHERE kind = 'reviewed'").await;
    let (code, text) = world.run(&["audit", "verify"]);
    assert!(code == 4 && text.contains("was changed"), "{text}");
}

#[tokio::test]
async fn secrets_in_arguments_are_neither_in_the_record_nor_in_the_log() {
    let world = World::with(Settings { hold: "budget = \"1s\"\n".into(), ..Settings::default() }).await;
    let secret = format!("AKIA{}", "QRSTUVWXYZ234567");
    let reply = Client::new(&world.mcp()).call("get_account", json!({"account": secret})).await;
    assert_eq!(reply.state(), "pending");
    // Nor by way of a title that shows the argument.
    let reply = Client::new(&world.mcp()).call("run_sql", json!({"query": format!("SELECT '{secret}'")})).await;
    assert_eq!(reply.state(), "pending");
    let rows: Vec<(String,)> = world.query(&world.store(), "SELECT data FROM audit").await;
    assert!(rows.iter().all(|(data,)| !data.contains(&secret)));
    assert!(!world.log().contains(&secret));
}

#[test]
fn policies_are_checked_tested_and_explained() {
    let root = env!("CARGO_MANIFEST_DIR");
    let config = format!("{root}/examples/countersign.toml");
    let (code, text) = run(&["--config", &config, "policy", "test"]);
    assert!(code == Some(0) && text.contains(" 0 do not"), "{text}");
    let (code, text) = run(&["--config", &config, "policy", "check"]);
    assert!(code == Some(0) && text.contains("ledger/refund_payment"), "{text}");
    let explain = [
        "--config",
        &config,
        "policy",
        "explain",
        "ledger/refund_payment",
        "--arguments",
        "{\"payment_id\":\"pay-1\",\"amount\":250,\"currency\":\"EUR\",\"iban\":\"DE1\"}",
    ];
    let (code, text) = run(&explain);
    assert!(code == Some(5) && text.contains("amount over limit") && text.contains("`refund:pay-1`"), "{text}");
}
