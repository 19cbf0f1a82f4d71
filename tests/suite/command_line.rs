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
        "policy init",
        "policy matrix",
        "policy replay",
        "score",
        "install",
        "uninstall",
        "schema",
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

/// A store of the version before, with a question in it, is brought to the new tables and goes on.
#[tokio::test]
async fn a_store_of_the_version_before_is_taken_over() {
    use sqlx::{ConnectOptions, Executor};
    let scratch = crate::support::Scratch::new();
    let config = scratch.write("countersign.toml", "[approver.anna]\n[approver.bert]\n[caller.local]\n");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scratch.0.join("countersign.db")).create_if_missing(true);
    let mut store = options.connect().await.unwrap();
    sqlx::raw_sql(include_str!("../../src/adapters/store/schema.sql")).execute(&mut store).await.unwrap();
    store.execute("PRAGMA user_version = 1").await.unwrap();
    let mut body: serde_json::Value = serde_json::from_str(include_str!("../../fuzz/fuzz_targets/approval.json")).unwrap();
    for new in ["escalation", "notify", "remind_at", "assurance", "cool_down_ms", "again"] {
        body["request"]["terms"].as_object_mut().unwrap().remove(new).unwrap();
    }
    body["request"]["terms"]["decide_by"] = serde_json::json!(4_000_000_000_000i64);
    sqlx::query("INSERT INTO approvals (id, version, key, state, runs_out, findable_until, asked_at, touched, body) VALUES ('id', 1, x'00', 'pending', 4000000000000, 4000000000000, 0, 0, ?)")
        .bind(body.to_string())
        .execute(&mut store)
        .await
        .unwrap();
    sqlx::Connection::close(store).await.unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(crate::support::countersign()).arg("--config").arg(&config).args(arguments).output().unwrap();
        (output.status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let (code, text) = run(&["approvals", "list"]);
    assert!(code == 0 && text.contains("anna or bert"), "{text}");
    let (code, text) = run(&["approvals", "approve", "id", "--as", "anna", "--yes"]);
    assert!(code == 0 && text.contains("approved"), "{text}");
    assert_eq!(run(&["approvals", "allowances"]).0, 0);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scratch.0.join("countersign.db"));
    let mut store = options.connect().await.unwrap();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut store).await.unwrap();
    assert_eq!(version, 7);
}

/// Mistakes about people and channels are named.
#[test]
fn mistakes_about_people_and_channels_are_named() {
    let scratch = crate::support::Scratch::new();
    let slack = "[channel.slack]\nkind = \"slack\"\napp-id = \"A0123\"\nbot-token = { env = \"X\" }\napp-token = { env = \"X\" }\n";
    let anna = "[approver.anna]\nslack = \"T01/U01\"\n";
    for (text, part) in [
        ("[approver.anna]\nslack = \"anna\"\n".to_owned(), "ids, not names"),
        ("[approver.anna]\nslack = \"T01/S01\"\n".to_owned(), "not the id of a user"),
        (format!("{anna}[approver.bert]\nslack = \"T01/U01\"\n"), "one person would count as two"),
        ("[approver.anna]\nhours = \"9 to 5\"\n".to_owned(), "Mon-Fri 09:00-17:30"),
        ("[approver.anna]\ndelegates = [{ to = \"brt\", from = 2026-01-01, until = 2026-02-01 }]\n[approver.bert]\n".to_owned(), "was `bert` meant?"),
        ("[approver.anna]\ndelegates = [{ to = \"bert\", from = 2026-02-01, until = 2026-01-01 }]\n[approver.bert]\n".to_owned(), "is not before"),
        ("[approver.team]\nslack-group = \"T01/S01\"\n[approver.anna]\n".to_owned(), "to look its members up"),
        (format!("{anna}[approver.team]\nslack-group = \"T01/S01\"\ntotp = {{ env = \"X\" }}\n{slack}"), "belong to a person"),
        ("[approver.team]\non-call = { url = \"http://example.com/\" }\n[approver.anna]\n".to_owned(), "https"),
        (format!("[approver.anna]\n{slack}"), "nobody could be asked"),
        (format!("{anna}{}", slack.replace("A0123", "my-app")), "an app's id is as in"),
        (format!("{anna}{}", slack.replace("app-token = { env = \"X\" }\n", "")), "give `app-token`"),
        (format!("{anna}{slack}signing-secret = {{ env = \"X\" }}\n"), "keep the one for how clicks come"),
        (format!("{anna}{slack}api = \"http://example.com/api\"\n"), "https"),
        (format!("{anna}{slack}sockets = 11\n"), "from 1 to 10"),
        (format!("{anna}{slack}bot-tokn = 1\n"), "bot-token"),
        (format!("{anna}{}", slack.replace("\"slack\"\napp", "\"slak\"\napp")), "was `slack` meant?"),
        (format!("{anna}{}", slack.replace("{ env = \"X\" }", "\"xoxb-literal\"")), "never a literal"),
        (format!("{anna}{slack}"), "environment variable `X` is not set"),
        ("[approver.\"a b\"]\n".to_owned(), "a name is letters"),
    ] {
        let config = scratch.write("countersign.toml", &text);
        let output =
            std::process::Command::new(crate::support::countersign()).arg("--config").arg(config).arg("doctor").env_remove("X").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "`{part}` in {said}\nfor {text}");
        if part.contains("is not set") {
            // Who looks at the queue needs none of the gateway's secrets.
            let config = scratch.0.join("countersign.toml");
            let output = std::process::Command::new(crate::support::countersign()).arg("--config").arg(config).args(["approvals", "list"]).output();
            assert!(output.unwrap().status.success());
        }
        assert!(!said.contains("xoxb-literal") || part == "never a literal", "{said}");
    }
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
