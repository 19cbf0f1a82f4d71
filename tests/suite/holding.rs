//! Held calls: asked once, run once, never for nobody.

use std::time::Duration;

use serde_json::json;

use crate::support::mcp::Client;
use crate::support::{Settings, World, refund};

fn short() -> Settings {
    Settings { hold: "budget = \"1s\"\nbudget-with-progress = \"3s\"\nprogress-every = \"1s\"\n".into(), ..Settings::default() }
}

#[tokio::test]
async fn a_held_call_runs_after_approval_with_a_credential_that_then_dies() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let approve = async { world.approve(&world.one_waiting().await) };
    let (reply, ()) = tokio::join!(client.call("refund_payment", refund(8000)), approve);
    assert!(reply.said().contains("80.00 EUR"), "{}", reply.text);
    assert_eq!(world.received_of("refund_payment").await, 1);
    let token = world.leak.lock().unwrap().clone().unwrap();
    let asked = client.http.post(format!("{}/introspect", world.address)).form(&[("token", &token)]);
    assert_eq!(asked.try_clone().unwrap().send().await.unwrap().status(), 401);
    assert_eq!(asked.try_clone().unwrap().bearer_auth("guess").send().await.unwrap().status(), 401);
    let active: serde_json::Value = asked.bearer_auth("a secret for introspection").send().await.unwrap().json().await.unwrap();
    assert_eq!(active, json!({"active": false}));
    // Straight to the ledger with it: refused.
    let thief = Client { bearer: Some(token), ..Client::new(&world.ledger_url) };
    assert!(thief.call("refund_payment", refund(8000)).await.is_error());
    let kinds = world.kinds().await;
    let of_call: Vec<&str> = kinds.iter().map(String::as_str).filter(|k| !["started", "pinned", "policy-loaded"].contains(k)).collect();
    assert_eq!(of_call, ["asked", "reviewed", "redeemed", "mint-intended", "minted", "dispatched", "completed", "credential-revoked", "delivered"]);
}

#[tokio::test]
async fn a_denied_call_never_runs_and_is_not_asked_again_at_once() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let deny = async { world.deny(&world.one_waiting().await) };
    let (reply, ()) = tokio::join!(client.call("refund_payment", refund(8000)), deny);
    assert!(reply.is_error() && reply.said().contains("NOT executed: anna denied it"), "{}", reply.text);
    assert_eq!(reply.state(), "denied");
    let again = client.call("refund_payment", refund(8000)).await;
    assert_eq!(again.state(), "denied");
    assert!(world.waiting().is_empty());
    assert_eq!(world.received_of("refund_payment").await, 0);
    assert!(!world.kinds().await.iter().any(|kind| kind.starts_with("mint")));
    world.check().await;
}

#[tokio::test]
async fn budget_over_says_pending_and_the_repeated_call_collects_once() {
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    let reply = client.call("refund_payment", refund(8000)).await;
    assert!(reply.is_error() && reply.said().contains("NOT executed yet") && reply.said().contains("anna"), "{}", reply.text);
    assert_eq!(reply.state(), "pending");
    let waiting = world.one_waiting().await;
    assert!(reply.said().contains(waiting["id"].as_str().unwrap()));
    // Nobody is there: an approval alone runs nothing.
    world.approve(&waiting);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.received_of("refund_payment").await, 0);
    let collected = client.call("refund_payment", refund(8000)).await;
    assert!(collected.said().contains("80.00"), "{}", collected.text);
    assert_eq!(world.received_of("refund_payment").await, 1);
    // The IBAN is known now; a call of the same kind over the limit asks anew and with another id.
    let next = client.call("transfer", json!({"account": "acc-1", "to": "acme-ltd", "amount": 5, "currency": "EUR"})).await;
    assert_eq!(next.state(), "pending");
    world.check().await;
}

#[tokio::test]
async fn the_same_call_twice_at_once_is_asked_once_and_runs_once() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let approve = async {
        let waiting = world.one_waiting().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.waiting().len(), 1);
        world.approve(&waiting);
    };
    let (one, two, ()) = tokio::join!(client.call("refund_payment", refund(8000)), client.call("refund_payment", refund(8000)), approve);
    let ran = [&one, &two].iter().filter(|reply| reply.said().contains("80.00 EUR from")).count();
    assert!(ran >= 1, "{} {}", one.text, two.text);
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn one_caller_has_only_so_many_calls_under_way() {
    let world = World::with(Settings { listen: "calls-per-caller = 2\n".into(), ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    let held = [8000, 8100].map(|cents| {
        let client = client.clone();
        tokio::spawn(async move { client.call("refund_payment", refund(cents)).await })
    });
    let waiting = world.some_waiting(2).await;
    let third = client.call("list_accounts", json!({})).await;
    assert!(third.is_error() && third.said().contains("NOT executed: 2 calls of this caller are under way"), "{}", third.text);
    waiting.iter().for_each(|waiting| world.approve(waiting));
    for call in held {
        assert!(!call.await.unwrap().is_error());
    }
    assert!(!client.call("list_accounts", json!({})).await.is_error());
    world.check().await;
}

#[tokio::test]
async fn a_client_that_has_gone_gets_nothing_run() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let impatient = Client { http: reqwest::Client::builder().timeout(Duration::from_millis(800)).build().unwrap(), ..client.clone() };
    assert!(impatient.try_call("refund_payment", refund(8000)).await.is_err());
    world.approve(&world.one_waiting().await);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(world.received_of("refund_payment").await, 0);
    // It comes back and gets its result, once.
    assert!(client.call("refund_payment", refund(8000)).await.said().contains("80.00"));
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn progress_flows_where_the_client_gave_a_token() {
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    let params = json!({"name": "refund_payment", "arguments": refund(8000), "_meta": {"progressToken": "tok"}});
    let reply = client.request(json!("an id"), "tools/call", params).await.unwrap();
    let progress: Vec<_> = reply.messages.iter().filter(|m| m["method"] == "notifications/progress").collect();
    assert!(progress.len() >= 2, "{}", reply.text);
    let mut last = -1.0;
    for message in progress {
        assert_eq!(message["params"]["progressToken"], "tok");
        assert!(message["params"]["message"].as_str().unwrap().contains("anna"));
        let now = message["params"]["progress"].as_f64().unwrap();
        assert!(now > last);
        last = now;
    }
    assert_eq!(reply.answer()["id"], "an id");
    assert_eq!(reply.state(), "pending");
}

#[tokio::test]
async fn what_is_withdrawn_does_not_run() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let withdraw = async {
        let waiting = world.one_waiting().await;
        let (code, text) = world.run(&["approvals", "withdraw", waiting["id"].as_str().unwrap(), "--reason", "changed our mind"]);
        assert!(code == 0 && text.contains("cancelled"), "{text}");
        let (code, text) = world.decide("approve", waiting["id"].as_str().unwrap(), "anna");
        assert!(code != 0 && text.contains("no longer waiting"), "{text}");
    };
    let (reply, ()) = tokio::join!(client.call("refund_payment", refund(8000)), withdraw);
    assert_eq!(reply.state(), "cancelled", "{}", reply.text);
    assert_eq!(world.received_of("refund_payment").await, 0);
    world.check().await;
}

#[tokio::test]
async fn two_must_approve_what_is_critical_and_the_owner_is_none_of_them() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let decide = async {
        let waiting = world.one_waiting().await;
        let id = waiting["id"].as_str().unwrap();
        assert_eq!(waiting["quorum"], 2);
        assert_ne!(world.decide("approve", id, "olga").0, 0, "the owner may not");
        assert_eq!(world.decide("approve", id, "anna").0, 0);
        let again = world.decide("approve", id, "anna");
        assert!(again.0 != 0 && again.1.contains("already decided"), "{}", again.1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.received_of("refund_payment").await, 0, "one is not enough");
        assert_eq!(world.decide("approve", id, "bert").0, 0);
    };
    let (reply, ()) =
        tokio::join!(client.call("refund_payment", json!({"payment_id": "pay-2", "amount": 250, "currency": "EUR", "iban": "DE1"})), decide);
    assert!(reply.said().contains("250.00"), "{}", reply.text);
    world.check().await;
}

#[tokio::test]
async fn an_owner_among_too_few_approvers_means_that_nobody_can_approve() {
    // bert answers for the caller, and both anna and bert would be needed.
    let world = World::with(Settings { owner: "bert", ..Settings::default() }).await;
    let reply =
        Client::new(&world.mcp()).call("refund_payment", json!({"payment_id": "pay-2", "amount": 250, "currency": "EUR", "iban": "DE1"})).await;
    assert!(reply.is_error() && reply.said().contains("2 must approve"), "{}", reply.text);
    assert!(world.waiting().is_empty());
    world.check().await;
}

#[tokio::test]
async fn what_waits_survives_a_restart_and_is_still_redeemed() {
    let mut world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    assert!(world.terminate().success());
    world.approve(&world.one_waiting().await);
    world.start();
    assert!(client.call("refund_payment", refund(8000)).await.said().contains("80.00"));
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_policy_that_changes_after_approval_makes_it_void() {
    let world = World::with(short()).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    let waiting = world.one_waiting().await;
    world.approve(&waiting);
    let file = world.scratch.0.join("tool-policies/ledger/refund_payment.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("limit = 100.00", "limit = 90.00")).unwrap();
    world.recorded("policy-loaded").await;
    // Another policy is another call: it is asked anew, and the old approval is of no use.
    let reply = client.call("refund_payment", refund(8000)).await;
    assert_eq!(reply.state(), "pending");
    assert_ne!(world.one_waiting().await["id"], waiting["id"]);
    assert_eq!(world.received_of("refund_payment").await, 0);
    world.check().await;
}

/// What the SDKs of the stateless era do by themselves: the same request again with the state, under another id.
async fn round(client: &Client, id: i64, state: Option<&str>) -> crate::support::mcp::Reply {
    let mut params = json!({"name": "refund_payment", "arguments": refund(8000)});
    if let Some(state) = state {
        params["requestState"] = json!(state);
    }
    client.request(json!(id), "tools/call", params).await.unwrap()
}

#[tokio::test]
async fn clients_of_the_stateless_era_are_told_to_ask_again_and_their_model_hears_of_it_last() {
    let world = World::with(Settings { hold: "budget = \"1s\"\nrounds = 2\n".into(), ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    let state = |reply: &crate::support::mcp::Reply| {
        assert_eq!(reply.answer()["result"]["resultType"], "input_required", "{}", reply.text);
        assert!(reply.answer()["result"].get("inputRequests").is_none());
        reply.answer()["result"]["requestState"].as_str().unwrap().to_owned()
    };
    let first = state(&round(&client, 1, None).await);
    let second = state(&round(&client, 2, Some(&first)).await);
    assert_ne!(first, second);
    let last = round(&client, 3, Some(&second)).await;
    assert_eq!(last.state(), "pending", "{}", last.text);
    assert!(last.is_error());
    // One question for all of it, and a state that was tampered with, or belongs to other arguments, is refused.
    let waiting = world.one_waiting().await;
    let mut tampered = first.clone();
    let end = if tampered.ends_with('A') { "B" } else { "A" };
    tampered.replace_range(tampered.len() - 1.., end);
    for (arguments, state) in
        [(refund(8000), tampered.as_str()), (refund(8001), first.as_str()), (refund(8000), "countersign-1."), (refund(8000), "countersign-1.AAAA")]
    {
        let params = json!({"name": "refund_payment", "arguments": arguments, "requestState": state});
        let reply = client.request(json!(9), "tools/call", params).await.unwrap();
        assert_eq!((reply.status, reply.code()), (400, -32602), "{}", reply.text);
    }
    world.approve(&waiting);
    let done = round(&client, 4, Some(&first)).await;
    assert!(done.said().contains("80.00"), "{}", done.text);
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

fn with_tasks() -> serde_json::Value {
    json!({"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}})
}

async fn about(client: &Client, method: &str, task: &str) -> serde_json::Value {
    let params = json!({"taskId": task, "_meta": with_tasks()});
    client.request(json!(7), method, params).await.unwrap().answer().clone()
}

async fn settled(client: &Client, task: &str) -> serde_json::Value {
    for _ in 0..200 {
        let answer = about(client, "tasks/get", task).await;
        if answer["result"]["status"] != "working" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the task does not end");
}

/// A client that follows tasks gets one at once; it outlives the gateway, belongs to its caller, and runs once.
#[tokio::test]
async fn a_task_waits_through_a_restart_and_runs_once() {
    let mut world = World::new().await;
    let client = Client::new(&world.mcp());
    let call = |amount: u32| json!({"name": "refund_payment", "arguments": refund(amount), "_meta": with_tasks()});
    let reply = client.request(json!(1), "tools/call", call(8000)).await.unwrap();
    let result = &reply.answer()["result"];
    assert_eq!((&result["resultType"], &result["status"]), (&json!("task"), &json!("working")), "{}", reply.text);
    assert!(result["statusMessage"].as_str().unwrap().contains("anna") && result["ttlMs"].is_u64() && result["createdAt"].is_string());
    let task = result["taskId"].as_str().unwrap().to_owned();
    assert_eq!(about(&client, "tasks/get", &task).await["result"]["status"], "working");
    assert_eq!(about(&client, "tasks/update", &task).await["result"]["resultType"], "complete");
    // Asked once however often it is called; another's, or a guessed one, is not known.
    let again = client.request(json!(2), "tools/call", call(8000)).await.unwrap();
    assert_eq!(again.answer()["result"]["taskId"], task);
    assert_eq!(about(&client, "tasks/get", "countersign-00000000000000000000000000000000").await["error"]["code"], -32602);
    let waiting = world.one_waiting().await;
    world.kill();
    world.start();
    let client = Client::new(&world.mcp());
    assert_eq!(about(&client, "tasks/get", &task).await["result"]["status"], "working");
    world.approve(&waiting);
    let done = settled(&client, &task).await;
    assert_eq!(done["result"]["status"], "completed", "{done}");
    assert!(done["result"]["result"]["content"][0]["text"].as_str().unwrap().contains("80.00"), "{done}");
    assert_eq!(settled(&client, &task).await["result"]["result"], done["result"]["result"]);
    assert_eq!(world.received_of("refund_payment").await, 1);
    // Denied: the model reads that it did not run. Taken back: cancelled, and nobody can approve it any more.
    let call = |amount: u32| {
        let arguments = json!({"account": "acc-1", "to": "acme-ltd", "amount": amount, "currency": "EUR"});
        json!({"name": "transfer", "arguments": arguments, "_meta": with_tasks()})
    };
    let denied = client.request(json!(3), "tools/call", call(8100)).await.unwrap().answer()["result"]["taskId"].as_str().unwrap().to_owned();
    world.deny(&world.one_waiting().await);
    let end = settled(&client, &denied).await;
    assert_eq!((&end["result"]["status"], &end["result"]["result"]["isError"]), (&json!("completed"), &json!(true)), "{end}");
    let cancelled = client.request(json!(4), "tools/call", call(8200)).await.unwrap().answer()["result"]["taskId"].as_str().unwrap().to_owned();
    assert_eq!(about(&client, "tasks/cancel", &cancelled).await["result"]["resultType"], "complete");
    assert_eq!(settled(&client, &cancelled).await["result"]["status"], "cancelled");
    assert!(world.waiting().is_empty());
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_model_is_asked_why_and_its_words_go_to_approvers_and_not_to_the_server() {
    let policy = "server = \"ledger\"\ntool = \"refund_payment\"\neffect = \"pay\"\n[approval]\nfrom = 0\n[show]\nask-reason = true\n[credential]\nscope = \"refund:{/payment_id}\"\n";
    let hold = "budget = \"1s\"\nrounds = 1\n".to_owned();
    let world = World::with(Settings { policies: vec![("refund_payment.toml", policy.to_owned())], hold, ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    let list = client.request(json!(1), "tools/list", json!({})).await.unwrap();
    let tools = list.answer()["result"]["tools"].as_array().unwrap().clone();
    let asks = |name: &str| tools.iter().find(|tool| tool["name"] == name).unwrap()["inputSchema"]["properties"].get("countersign_reason").is_some();
    assert!(asks("refund_payment") && !asks("transfer"));
    let with_reason = |reason: &str| {
        let mut arguments = refund(8000);
        arguments["countersign_reason"] = json!(reason);
        arguments
    };
    // The client sends its reason again with each round.
    let mut params = json!({"name": "refund_payment", "arguments": with_reason("The customer sent it back")});
    let first = client.request(json!(2), "tools/call", params.clone()).await.unwrap();
    params["requestState"] = first.answer()["result"]["requestState"].clone();
    assert!(params["requestState"].is_string(), "{}", first.text);
    assert_eq!(client.request(json!(3), "tools/call", params).await.unwrap().state(), "pending");
    let waiting = world.one_waiting().await;
    let (_, shown) = world.run(&["approvals", "show", waiting["id"].as_str().unwrap()]);
    assert!(shown.contains("The customer sent it back"), "{shown}");
    assert!(!waiting["arguments"].to_string().contains("countersign_reason"));
    world.approve(&waiting);
    // Other words make no other call.
    let done = client.call("refund_payment", with_reason("As I said")).await;
    assert!(done.said().contains("80.00"), "{}", done.text);
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}
