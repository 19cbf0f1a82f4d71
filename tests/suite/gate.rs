//! What is refused at the door: bad input gets the right error, and nothing goes upstream.

use serde_json::json;

use crate::support::World;
use crate::support::mcp::Client;

fn call_with(arguments: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"list_accounts\",\"arguments\":{arguments}}}}}")
}

#[tokio::test]
async fn malformed_messages_get_the_right_error_and_nothing_goes_upstream() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    let very_deep = "[".repeat(10_000);
    let keys: String = (0..250_000).map(|n| format!("\"k{n}\":0,")).collect();
    let cases: Vec<(&str, String, u16, i64)> = vec![
        // B1: not one JSON-RPC message.
        ("nothing", String::new(), 400, -32700),
        ("half", "{\"jsonrpc\":".into(), 400, -32700),
        ("batch", format!("[{}]", call_with("{}")), 400, -32600),
        ("two documents", format!("{0}{0}", call_with("{}")), 400, -32700),
        ("byte order mark", format!("\u{feff}{}", call_with("{}")), 400, -32700),
        ("null id", call_with("{}").replace("\"id\":1", "\"id\":null"), 400, -32600),
        ("float id", call_with("{}").replace("\"id\":1", "\"id\":1.5"), 400, -32700),
        ("huge id", call_with("{}").replace("\"id\":1", "\"id\":99999999999999999999"), 400, -32700),
        ("no id", call_with("{}").replace("\"id\":1,", ""), 400, -32600),
        ("version", call_with("{}").replace("\"2.0\"", "\"1.0\""), 400, -32600),
        ("no method", "{\"jsonrpc\":\"2.0\",\"id\":1}".into(), 400, -32600),
        ("method twice", call_with("{}").replace("\"id\":1", "\"id\":1,\"method\":\"ping\""), 400, -32700),
        ("method twice, escaped", call_with("{}").replace("\"id\":1", "\"id\":1,\"m\\u0065thod\":\"ping\""), 400, -32700),
        ("capital method", call_with("{}").replace("tools/call", "Tools/Call"), 404, -32601),
        ("method with a blank", call_with("{}").replace("tools/call", "tools/call "), 404, -32601),
        ("no params", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}".into(), 200, -32602),
        ("array arguments", call_with("[]"), 200, -32602),
        ("null arguments", call_with("null"), 200, -32602),
        ("number for a name", call_with("{}").replace("\"list_accounts\"", "7"), 200, -32602),
        ("long name", call_with("{}").replace("list_accounts", &"n".repeat(10_240)), 200, -32602),
        // B2: duplicate keys at any depth, in any spelling.
        ("duplicate", call_with("{\"a\":1,\"a\":2}"), 200, -32602),
        ("duplicate, escaped", call_with("{\"a\":1,\"\\u0061\":2}"), 200, -32602),
        ("duplicate, deep", call_with("{\"x\":[{\"y\":{\"b\":1,\"b\":1}}]}"), 200, -32602),
        ("name twice", call_with("{}").replace("\"name\":", "\"name\":\"run_sql\",\"name\":"), 200, -32602),
        ("name twice, escaped", call_with("{}").replace("\"name\":", "\"n\\u0061me\":\"run_sql\",\"name\":"), 200, -32602),
        // B3: case and folding.
        ("capital name", call_with("{}").replace("\"name\":", "\"Name\":\"run_sql\",\"name\":"), 200, -32602),
        ("folded arguments", call_with("{}").replace("\"name\":", "\"argument\u{17f}\":{},\"name\":"), 200, -32602),
        // B4: numbers.
        ("infinite", call_with("{\"n\":1e400}"), 200, -32602),
        ("too wide", call_with("{\"n\":18446744073709551617}"), 200, -32602),
        ("leading zero", call_with("{\"n\":007}"), 400, -32700),
        ("not a number", call_with("{\"n\":NaN}"), 400, -32700),
        // B5: strings.
        ("lone surrogate", call_with("{\"s\":\"\\ud800\"}"), 200, -32602),
        ("raw control", call_with("{\"s\":\"a\u{1}b\"}"), 400, -32700),
        // B6: size.
        ("deep", call_with(&deep), 200, -32602),
        ("very deep", call_with(&very_deep), 400, -32700),
        ("many keys", call_with(&format!("{{{}\"z\":0}}", keys)), 200, -32602),
        ("many values", call_with(&format!("{{\"z\":[{}0]}}", "0,".repeat(300_000))), 200, -32602),
    ];
    for (what, body, status, code) in cases {
        let reply = client.send(body, &[]).await.unwrap();
        assert_eq!((reply.status, reply.code()), (status, code), "{what}: {}", reply.text);
    }
    let invalid_utf8 = call_with("{\"s\":\"XX\"}").into_bytes().into_iter().map(|b| if b == b'X' { 0xff } else { b }).collect::<Vec<u8>>();
    assert_eq!(client.send(invalid_utf8, &[]).await.unwrap().code(), -32700);
    let big = vec![b' '; 5 << 20];
    let refused = client.send(big, &[]).await;
    assert!(refused.is_err() || refused.unwrap().status == 413);
    assert!(world.received().await.is_empty());
    // The door still opens.
    assert!(!client.call("list_accounts", json!({})).await.is_error());
    world.check().await;
}

#[tokio::test]
async fn an_error_says_what_and_where() {
    let world = World::new().await;
    let reply = Client::new(&world.mcp()).send(call_with("{\"x\":[{\"b\":1,\"b\":1}]}"), &[]).await.unwrap();
    let message = reply.answer()["error"]["message"].as_str().unwrap();
    assert!(message.contains("duplicate key `b`") && message.contains("/arguments/x/0"), "{message}");
}

#[tokio::test]
async fn headers_must_say_what_the_body_says() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let good = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "list_accounts")];
    for (n, wrong) in [(1, "tools/list"), (2, "run_sql"), (2, "=?base64?cnVuX3NxbA==?=")] {
        let mut headers = good;
        headers[n].1 = wrong;
        let reply = client.send(call_with("{}"), &headers).await.unwrap();
        assert_eq!((reply.status, reply.code()), (400, -32020), "{wrong}");
    }
    assert_eq!(client.send(call_with("{}"), &good[..2]).await.unwrap().code(), -32020);
    // What stands beside the name does not keep it from being compared.
    let beside = call_with("{}").replacen("\"params\":{", "\"params\":{\"uri\":5,\"taskId\":[],", 1);
    assert!(beside.contains("taskId"));
    let wrong = [good[0], good[1], ("mcp-name", "run_sql")];
    assert_eq!(client.send(beside, &wrong).await.unwrap().code(), -32020);
    assert!(world.received().await.is_empty());
}

#[tokio::test]
async fn a_header_that_mirrors_an_argument_must_say_what_it_says() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let answer = |body: String| async move {
        let message: serde_json::Value = serde_json::from_str(&body).unwrap();
        let region = json!({"type": "string", "x-mcp-header": "Region"});
        let result = match message["method"].as_str() {
            Some("tools/list") => json!({"tools": [{"name": "get_region", "inputSchema": {"type": "object", "properties": {"region": region}}}]}),
            _ => {
                CALLS.fetch_add(1, Ordering::SeqCst);
                json!({"content": []})
            }
        };
        ([("content-type", "application/json")], json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = format!("[upstream.regions]\nurl = \"http://{}/\"\n", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", axum::routing::post(answer))).await.unwrap() });
    let policy = "server = \"regions\"\ntool = \"get_region\"\neffect = \"read\"\n[approval]\ntwo-from = \"never\"\n".to_owned();
    let settings = crate::support::Settings { more, policies: vec![("../regions/get_region.toml", policy)], ..Default::default() };
    let world = World::with(settings).await;
    let client = Client::new(&format!("{}/mcp/regions", world.address));
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"get_region\",\"arguments\":{\"region\":\"eu\"}}}";
    for (header, status, code) in [("us", 400, -32020), ("=?base64?dXM=?=", 400, -32020), ("eu", 200, 0), ("=?base64?ZXU=?=", 200, 0)] {
        let headers =
            [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "get_region"), ("mcp-param-region", header)];
        let reply = client.send(body, &headers).await.unwrap();
        assert_eq!((reply.status, reply.code()), (status, code), "{header}: {}", reply.text);
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    world.check().await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    for headers in [[("host", "evil.example")], [("origin", "http://evil.example")], [("origin", "null")]] {
        let reply = client.send(call_with("{}"), &headers).await.unwrap();
        assert_eq!(reply.status, 403, "{headers:?}");
    }
    let inbox = client.http.get(format!("{}/inbox", world.address)).header("host", "evil.example").send().await.unwrap();
    assert_eq!(inbox.status(), 403);
    assert!(world.received().await.is_empty());
}

#[tokio::test]
async fn what_is_sent_is_the_canonical_form_of_what_was_judged() {
    let world = World::new().await;
    let client = Client::new(&world.mcp());
    let call = world_call(
        &client,
        &world,
        "{ \"currency\":\"EUR\", \"amount\": 8.0e1, \"payment_id\":\"pay\\u002d1\", \"iban\":\"DE02120300000000202051\" }",
    )
    .await;
    assert!(!call.0, "{}", call.1);
    let (_, arguments, _) = world.received().await.remove(0);
    assert_eq!(arguments, json!({"amount": 80, "currency": "EUR", "iban": "DE02120300000000202051", "payment_id": "pay-1"}));
    world.check().await;
}

/// A refund with these arguments as they stand, approved.
async fn world_call(client: &Client, world: &World, arguments: &str) -> (bool, String) {
    let meta = "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}";
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{{meta},\"name\":\"refund_payment\",\"arguments\":{arguments}}}}}"
    );
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "refund_payment")];
    let approve = async { world.approve(&world.one_waiting().await) };
    let (reply, ()) = tokio::join!(client.send(body, &headers), approve);
    let reply = reply.unwrap();
    (reply.is_error(), reply.text)
}
