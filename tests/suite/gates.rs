//! Resources and prompts that a policy names are judged like tool calls; all others pass.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::conformance::{Server, fixture};
use crate::support::mcp::Client;
use crate::support::{Settings, World, countersign};

const READS: &str = "server = \"fixture\"\ntool = \"resource:test://static-*\"\ndefault = \"approve\"\n[approval]\napprovers = [\"anna\"]\ntwo-from = \"never\"\n\
                     [show]\ntitle = \"Read {/uri}\"\n[[case]]\narguments = { uri = \"test://static-text\" }\nexpect = \"require-approval\"\n";
const PROMPTS: &str = "server = \"fixture\"\ntool = \"prompt:*image*\"\ndefault = \"deny\"\n";

async fn world(upstream: &str) -> World {
    let hold = "budget = \"2s\"\nbudget-with-progress = \"2s\"\nprogress-every = \"1s\"\n".into();
    let policies = vec![("reads.toml", READS.to_owned()), ("prompts.toml", PROMPTS.to_owned())];
    World::with(Settings { more: format!("[upstream.fixture]\n{upstream}\n"), hold, policies, ..Settings::default() }).await
}

async fn gated(upstream: &str) {
    let world = world(upstream).await;
    let client = Client::new(&format!("{}/mcp/fixture", world.address));
    let get = async |method: &str, params: Value| client.request(json!(7), method, params).await.unwrap();
    let text = |reply: &crate::support::mcp::Reply| reply.answer()["result"]["contents"][0]["text"].as_str().unwrap_or_default().to_owned();

    assert_eq!(text(&get("resources/read", json!({"uri": "test://watched-resource"})).await), "Watched");
    assert!(get("prompts/get", json!({"name": "test_simple_prompt"})).await.text.contains("This is a simple prompt"));

    let read = get("resources/read", json!({"uri": "test://static-text"}));
    let approve = async {
        let waiting = world.one_waiting().await;
        let (_, shown) = world.run(&["approvals", "show", waiting["id"].as_str().unwrap()]);
        assert!(shown.contains("Read test://static-text") && shown.contains("resources/read"), "{shown}");
        world.approve(&waiting);
    };
    let (reply, ()) = tokio::join!(read, approve);
    assert_eq!(text(&reply), "This is the content of the static text resource.", "{}", reply.text);

    // However it is written; and nobody decides.
    let reply = get("resources/read", json!({"uri": "TEST://static-%74ext"})).await;
    assert_eq!((reply.code(), &reply.answer()["error"]["data"]["dev.countersign/call"]["state"]), (-31002, &json!("pending")), "{}", reply.text);
    assert!(reply.text.contains("NOT executed") && !reply.text.contains("This is the content"), "{}", reply.text);
    world.deny(&world.one_waiting().await);

    let reply = get("prompts/get", json!({"name": "test_prompt_with_image"})).await;
    assert_eq!((reply.code(), &reply.answer()["error"]["data"]["dev.countersign/call"]["state"]), (-31002, &json!("denied")), "{}", reply.text);
    for twice in
        [r#"{"uri":"test://watched-resource","uri":"test://static-text"}"#, r#"{"uri":"test://watched-resource","URI":"test://static-text"}"#]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{twice}}}"#);
        let reply = client.send(body, &[("mcp-protocol-version", "2025-11-25")]).await.unwrap();
        assert_eq!(reply.code(), -32602, "{}", reply.text);
    }
    let record: Vec<(String,)> = world.query(&world.store(), "SELECT data FROM audit WHERE kind IN ('asked', 'denied')").await;
    let of = |method: &str| record.iter().filter(|(data,)| data.contains(&format!(r#""method":"{method}""#))).count();
    assert_eq!((of("resources/read"), of("prompts/get")), (2, 1), "{record:?}");
    let (code, said) = world.run(&["policy", "test"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = world.run(&["policy", "explain", "fixture/resource:test://static-text"]);
    assert!(code != 0 && said.contains("It waits for one person: anna"), "{said}");
    let (code, said) = world.run(&["policy", "explain", "fixture/resource:test://else"]);
    assert!(code == 0 && said.contains("goes through"), "{said}");
}

#[tokio::test]
async fn of_a_child() {
    gated(&format!("command = [\"{}\"]", fixture().display())).await;
}

#[tokio::test]
async fn of_a_server_over_http() {
    let server = Server::start();
    gated(&format!("url = \"{}\"", server.url)).await;
}

#[tokio::test]
async fn on_a_pipe() {
    let world = world(&format!("command = [\"{}\"]", fixture().display())).await;
    let mut wrap = Command::new(countersign());
    wrap.arg("--config").arg(&world.config).args(["wrap", "--upstream", "fixture"]);
    let mut wrap = wrap.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = wrap.stdin.take().unwrap();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let mut send = |id: u8, method: &str, name: &str, value: &str| {
        let params = json!({name: value, "_meta": meta});
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).unwrap();
    };
    send(1, "prompts/get", "name", "test_prompt_with_image");
    send(2, "prompts/get", "name", "test_simple_prompt");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(wrap.stdout.take().unwrap()));
    let mut answers: Vec<Value> = (0..2).map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()).collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["error"]["code"], -31002, "{answers:?}");
    assert!(answers[1]["result"]["messages"].is_array(), "{answers:?}");
    drop(stdin);
    assert!(wrap.wait().unwrap().success());
}
