//! `kill -9` at every step of the route, then start again: what waited still waits, what went out is never run again,
//! and no credential is left.
//!
//! The kill is aimed at the moment when a step's record appears; it lands there or a little later, differently each
//! time. `COUNTERSIGN_TEST_RUNS` says how often each step is tried.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::support::mcp::Client;
use crate::support::{Settings, World, refund, runs};

/// Kills the gateway as soon as a record of `kind` is in the store.
async fn kill_at(world: &mut World, kind: &'static str) {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.store()).read_only(true).busy_timeout(Duration::from_secs(5));
    let mut connection = options.connect().await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM audit WHERE kind = ? LIMIT 1").bind(kind).fetch_optional(&mut connection).await.unwrap();
        if found.is_some() {
            break;
        }
    }
    world.kill();
}

async fn killed_at(kind: &'static str) {
    let settings = Settings { hold: "budget = \"5s\"\nbudget-with-progress = \"5s\"\n".into(), ..Settings::default() };
    let mut world = World::with(settings).await;
    let client = Client::new(&world.mcp());
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.try_call("refund_payment", refund(8000)).await }
    });
    if kind == "asked" {
        kill_at(&mut world, kind).await;
    } else {
        let waiting = world.one_waiting().await;
        // The verdict comes from another process, so that the gateway can be killed on its first reaction.
        world.approve(&waiting);
        kill_at(&mut world, kind).await;
    }
    let first = calling.await.unwrap();
    let ran_before = world.done_of("refund_payment").await;
    world.start();
    // Repeats until it is told how it ended, approving if it is asked: as an agent and a person would.
    let mut last = Value::Null;
    for _ in 0..5 {
        let again = client.try_call("refund_payment", refund(8000));
        let approve = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for waiting in world.waiting() {
                world.approve(&waiting);
            }
        };
        let (reply, ()) = tokio::join!(again, approve);
        last = reply.unwrap().answer().clone();
        if last["result"]["_meta"]["dev.countersign/call"]["state"] != "pending" {
            break;
        }
    }
    let text = last["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    let received = world.done_of("refund_payment").await;
    let told_first = first.is_ok_and(|reply| reply.said().contains("80.00"));
    // The first answer may have arrived: then the repeated call is another refund, to a known IBAN, that policy allows.
    let most = if told_first { 2 } else { 1 + usize::from(ran_before == 1 && text.contains("80.00") && !text.contains("UNKNOWN")) };
    assert!(received <= most, "{kind}: ran {received} times; the last answer: {text}");
    if text.contains("UNKNOWN") {
        assert!(received <= 1);
    } else {
        assert!(text.contains("80.00"), "{kind}: {text}\n{}", world.log());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (code, text) = world.run(&["audit", "verify"]);
    assert_eq!(code, 0, "{kind}: {text}");
    world.check().await;
}

macro_rules! steps {
    ($($name:ident $kind:literal),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for _ in 0..runs() {
                killed_at($kind).await;
            }
        })*
    };
}

steps! {
    killed_when_asked "asked",
    killed_when_reviewed "reviewed",
    killed_when_redeemed "redeemed",
    killed_when_a_credential_is_intended "mint-intended",
    killed_when_minted "minted",
    killed_when_dispatched "dispatched",
    killed_when_completed "completed",
    killed_when_revoked "credential-revoked",
    killed_when_delivered "delivered",
}

/// A server that lists one tool and never answers a call; it counts the calls.
async fn silent() -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    async fn answer(State(calls): State<std::sync::Arc<AtomicUsize>>, body: String) -> axum::response::Response {
        let message: Value = serde_json::from_str(&body).unwrap();
        if message["method"] == "tools/call" {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        let tools = json!([{"name": "wait", "inputSchema": {"type": "object"}}]);
        ([("content-type", "application/json")], json!({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools}}).to_string())
            .into_response()
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", axum::routing::post(answer)).with_state(calls.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn a_call_that_was_out_when_the_gateway_died_is_unknown_and_never_run_again() {
    use std::sync::atomic::Ordering;
    let (url, calls) = silent().await;
    let mut world = World::with(Settings { more: format!("[upstream.silent]\nurl = \"{url}\"\n"), ..Settings::default() }).await;
    let client = Client::new(&format!("{}/mcp/silent", world.address));
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.try_call("wait", json!({"n": 1})).await }
    });
    world.approve(&world.one_waiting().await);
    let until = Instant::now() + Duration::from_secs(10);
    while calls.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.kill();
    assert!(calling.await.unwrap().is_err());
    world.start();
    let reply = client.call("wait", json!({"n": 1})).await;
    assert_eq!(reply.state(), "outcome-unknown", "{}", reply.text);
    assert!(reply.said().contains("UNKNOWN") && reply.said().contains("not repeated"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    world.check().await;
}

#[tokio::test]
async fn an_allowed_call_that_was_out_when_the_gateway_died_is_recorded_as_unknown() {
    let (url, calls) = silent().await;
    let policy = "server = \"silent\"\ntool = \"wait\"\neffect = \"read\"\n".to_owned();
    let settings = Settings {
        more: format!("[upstream.silent]\nurl = \"{url}\"\n"),
        policies: vec![("../silent/wait.toml", policy + "[approval]\ntwo-from = \"never\"\n")],
        ..Settings::default()
    };
    let mut world = World::with(settings).await;
    let client = Client::new(&format!("{}/mcp/silent", world.address));
    let calling = tokio::spawn(async move { client.try_call("wait", json!({})).await });
    let until = Instant::now() + Duration::from_secs(10);
    while calls.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Most likely still in the spool: the next gateway adopts it.
    world.kill();
    assert!(calling.await.unwrap().is_err());
    world.start();
    assert_eq!(world.kinds().await.iter().filter(|kind| *kind == "outcome-unknown").count(), 1);
    world.check().await;
}
