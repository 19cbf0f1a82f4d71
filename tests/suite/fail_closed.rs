//! A test for every line of what fails closed, each with the ledger's own record as witness that nothing ran.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::mcp::Client;
use crate::support::{Scratch, Settings, World, countersign, refund};

async fn nothing_ran(world: &World, tool: &str) {
    assert_eq!(world.received_of(tool).await, 0, "{tool} ran");
}

fn short() -> Settings {
    Settings { hold: "budget = \"1s\"\nbudget-with-progress = \"1s\"\n".into(), ..Settings::default() }
}

/// Breaks the store under a running gateway.
async fn sabotage(world: &World, statement: &'static str) {
    world.query::<(i64,)>(&world.store(), statement).await;
}

#[tokio::test]
async fn no_policy_file_asks_a_person() {
    let world = World::with(short()).await;
    std::fs::remove_dir_all(world.scratch.0.join("tool-policies/ledger")).unwrap();
    world.recorded("policy-loaded").await;
    let reply = Client::new(&world.mcp()).call("list_accounts", json!({})).await;
    assert_eq!(reply.state(), "pending", "{}", reply.text);
    nothing_ran(&world, "list_accounts").await;
    world.check().await;
}

#[tokio::test]
async fn an_argument_that_its_parser_cannot_read_is_held() {
    let world = World::with(short()).await;
    for amount in [json!("a lot"), json!([80]), json!({"value": 80}), json!(null), json!("8e1 EUR")] {
        let reply = Client::new(&world.mcp())
            .call("refund_payment", json!({"payment_id": "pay-1", "amount": amount, "currency": "EUR", "iban": "DE1"}))
            .await;
        assert_eq!(reply.state(), "pending", "{amount}: {}", reply.text);
    }
    nothing_ran(&world, "refund_payment").await;
    world.check().await;
}

/// Calls until one is refused: a record of one that policy allows is in the spool before it goes out, and the store is
/// found broken when the spool is moved.
async fn refused_at_last(client: &Client) {
    for _ in 0..200 {
        let reply = client.call("list_accounts", json!({})).await;
        if reply.is_error() {
            assert!(reply.said().contains("NOT executed"), "{}", reply.text);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("calls still run without a store");
}

#[tokio::test]
async fn without_a_store_nothing_runs() {
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    assert!(!client.call("list_accounts", json!({})).await.is_error());
    sabotage(&world, "ALTER TABLE audit RENAME TO gone").await;
    refused_at_last(&client).await;
    let before = world.received().await.len();
    for (tool, arguments) in [("list_accounts", json!({})), ("refund_payment", refund(8000)), ("run_sql", json!({"query": "DROP TABLE x"}))] {
        let reply = client.call(tool, arguments).await;
        assert!(reply.is_error() && reply.said().contains("NOT executed"), "{tool}: {}", reply.text);
    }
    assert_eq!(world.received().await.len(), before);
    let ready = client.http.get(format!("{}/readyz", world.address)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    // When the store is back, calls run again, and every one that ran is in the record.
    sabotage(&world, "ALTER TABLE gone RENAME TO audit").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let reply = client.call("list_accounts", json!({})).await;
    assert!(!reply.is_error(), "{}\n{}", reply.text, world.log());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let allowed = world.kinds().await.iter().filter(|kind| *kind == "allowed").count();
    assert_eq!(allowed, world.received().await.len());
    world.check().await;
}

#[tokio::test]
async fn a_locked_store_runs_nothing_and_hangs_nothing() {
    use sqlx::{ConnectOptions, Executor};
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.store());
    let mut locker = options.connect().await.unwrap();
    locker.execute("BEGIN IMMEDIATE").await.unwrap();
    let reply = client.call("refund_payment", refund(8000)).await;
    assert!(reply.is_error() && reply.said().contains("NOT executed"), "{}", reply.text);
    nothing_ran(&world, "refund_payment").await;
    refused_at_last(&client).await;
    locker.execute("ROLLBACK").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!client.call("list_accounts", json!({})).await.is_error());
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.check().await;
}

#[tokio::test]
async fn nobody_decides_and_it_expires() {
    let policy =
        "server = \"ledger\"\ntool = \"refund_payment\"\neffect = \"pay\"\ndefault = \"approve\"\n[approval]\ndecide-by = \"2s\"\n".to_owned();
    let world = World::with(Settings { policies: vec![("refund_payment.toml", policy)], ..Settings::default() }).await;
    let reply = Client::new(&world.mcp()).call("refund_payment", refund(8000)).await;
    assert!(reply.is_error() && reply.said().contains("nobody decided in time"), "{}", reply.text);
    assert!(world.kinds().await.contains(&"expired".to_owned()));
    nothing_ran(&world, "refund_payment").await;
    world.check().await;
}

#[tokio::test]
async fn an_approval_that_is_not_used_in_time_expires() {
    let policy =
        "server = \"ledger\"\ntool = \"refund_payment\"\neffect = \"pay\"\ndefault = \"approve\"\n[approval]\nexecute-by = \"1s\"\n".to_owned();
    let world = World::with(Settings { policies: vec![("refund_payment.toml", policy)], ..short() }).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    let waiting = world.one_waiting().await;
    world.approve(&waiting);
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let reply = client.call("refund_payment", refund(8000)).await;
    assert_eq!(reply.state(), "pending", "it is asked anew: {}", reply.text);
    assert_ne!(world.one_waiting().await["id"], waiting["id"]);
    nothing_ran(&world, "refund_payment").await;
    world.check().await;
}

#[tokio::test]
async fn a_verdict_after_the_time_does_not_count() {
    let policy =
        "server = \"ledger\"\ntool = \"refund_payment\"\neffect = \"pay\"\ndefault = \"approve\"\n[approval]\ndecide-by = \"1s\"\n".to_owned();
    let world = World::with(Settings { policies: vec![("refund_payment.toml", policy)], ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    let late = async {
        let waiting = world.one_waiting().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (code, text) = world.decide("approve", waiting["id"].as_str().unwrap(), "anna");
        assert!(code != 0 && text.contains("expired"), "{text}");
    };
    let (reply, ()) = tokio::join!(client.call("refund_payment", refund(8000)), late);
    assert_eq!(reply.state(), "expired");
    assert!(world.kinds().await.contains(&"review-refused".to_owned()));
    nothing_ran(&world, "refund_payment").await;
    world.check().await;
}

#[tokio::test]
async fn an_issuer_that_fails_runs_nothing_and_keeps_the_approval() {
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    world.approve(&world.one_waiting().await);
    sabotage(&world, "ALTER TABLE leases RENAME TO hidden").await;
    let reply = client.call("refund_payment", refund(8000)).await;
    assert!(reply.is_error() && reply.said().contains("could not be minted") && reply.said().contains("still good"), "{}", reply.text);
    nothing_ran(&world, "refund_payment").await;
    assert!(world.kinds().await.contains(&"put-back".to_owned()));
    sabotage(&world, "ALTER TABLE hidden RENAME TO leases").await;
    assert!(client.call("refund_payment", refund(8000)).await.said().contains("80.00"), "the approval was still good");
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_scope_that_an_argument_could_widen_mints_nothing() {
    let world = World::with(short()).await;
    for id in ["pay-1 refund:*", "*", "../pay-2", "pay-1\nadmin", ""] {
        let reply = Client::new(&world.mcp()).call("refund_payment", json!({"payment_id": id, "amount": 5, "currency": "EUR", "iban": "DE1"})).await;
        assert!(reply.is_error() && reply.said().contains("cannot be part of a scope"), "{id}: {}", reply.text);
    }
    assert!(world.waiting().is_empty());
    nothing_ran(&world, "refund_payment").await;
}

#[tokio::test]
async fn a_bad_policy_on_reload_leaves_the_old_set_in_force() {
    let world = World::with(short()).await;
    world.scratch.write("tool-policies/ledger/run_sql.toml", "server = \"ledger\"\ntool = \"run_sql\"\ndefault = \"alow\"\n");
    world.recorded("policy-refused").await;
    assert!(world.log().contains("THE OLD SET STAYS IN FORCE"), "{}", world.log());
    let reply = Client::new(&world.mcp()).call("run_sql", json!({"query": "DROP TABLE payments"})).await;
    assert_eq!(reply.state(), "denied");
    nothing_ran(&world, "run_sql").await;
    world.check().await;
}

#[test]
fn a_bad_policy_or_an_empty_list_of_approvers_does_not_start() {
    let scratch = Scratch::new();
    let config = "[listen]\naddress = \"127.0.0.1:0\"\n[approver.anna]\n[upstream.x]\ncommand = [\"cat\"]\n";
    let file = scratch.write("countersign.toml", config);
    let start = || {
        let output = Command::new(countersign()).args(["serve", "--config"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    scratch.write("tool-policies/x/t.toml", "server = \"x\"\ntool = \"t\"\n[approval]\napprovers = []\n");
    let (code, text) = start();
    assert!(code == Some(3) && text.contains("nobody may approve"), "{code:?} {text}");
    scratch.write("tool-policies/x/t.toml", "server = \"x\"\ntool = \"t\"\nefect = \"pay\"\n");
    let (code, text) = start();
    assert!(code == Some(3) && text.contains("was `effect` meant?"), "{code:?} {text}");
    scratch.write("countersign.toml", "[upstream.x]\ncommand = [\"cat\"]\n");
    let (code, text) = start();
    assert!(code == Some(3) && text.contains("[approver.NAME]"), "{code:?} {text}");
}

#[tokio::test]
async fn callers_that_could_not_be_told_apart_do_not_start() {
    let scratch = Scratch::new();
    let file = scratch.write("countersign.toml", "[listen]\naddress = \"0.0.0.0:0\"\n[approver.anna]\n[upstream.x]\ncommand = [\"cat\"]\n");
    let output = Command::new(countersign()).args(["serve", "--config"]).arg(&file).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("[[listen.token]]"));
}
