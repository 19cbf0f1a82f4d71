//! The gateway's own sign-in at a server that takes nobody without one: `oidc-provider` and the TypeScript SDK.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::credentials::start;
use crate::support::mcp::{Client, Reply};
use crate::support::{Settings, World, countersign};

/// Signs in as a person with a browser does; answers what the terminal said.
async fn sign_in(world: &World, arguments: &[&str]) -> String {
    let mut login = Command::new(countersign());
    login.arg("--config").arg(&world.config).args(["upstream", "login"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut login = login.spawn().unwrap();
    let mut said = BufReader::new(login.stdout.take().unwrap());
    let mut text = String::new();
    let address = loop {
        let before = text.len();
        assert!(said.read_line(&mut text).unwrap() > 0, "{text}");
        if let Some(address) = text[before..].trim().strip_prefix("http") {
            break format!("http{address}");
        }
    };
    let browser = reqwest::Client::builder().cookie_store(true).build().unwrap();
    // A stranger's link to the same port does not end it.
    let port = url::Url::parse(&address).unwrap().query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    browser.get(format!("{port}?code=x&state=y")).send().await.unwrap();
    let page = browser.get(address).send().await.unwrap();
    assert!(page.url().as_str().starts_with("http://127.0.0.1:") && page.url().path() == "/callback", "{}", page.url());
    assert!(page.text().await.unwrap().contains("You can close this window"));
    let ended = tokio::task::spawn_blocking(move || {
        drop(std::io::Read::read_to_string(&mut said, &mut text));
        assert!(login.wait().unwrap().success(), "{text}");
        text
    });
    ended.await.unwrap()
}

async fn call(world: &World) -> Reply {
    let client = Client { bearer: Some("the-clients-own".into()), ..Client::new(&format!("{}/mcp/notes", world.address)) };
    static NEXT: AtomicU32 = AtomicU32::new(10);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "read_note", "arguments": {"id": "n1"}}});
    client.send(body.to_string(), &[("mcp-protocol-version", "2025-11-25")]).await.unwrap()
}

async fn list(world: &World) -> Reply {
    let client = Client { bearer: Some("the-clients-own".into()), ..Client::new(&format!("{}/mcp/notes", world.address)) };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    client.send(body.to_string(), &[("mcp-protocol-version", "2025-11-25")]).await.unwrap()
}

#[tokio::test]
async fn what_passes_through_goes_with_the_gateways_own_sign_in() {
    let Some((_server, ready)) = start("signin.mjs", &[]) else { return };
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let policies = vec![("notes.toml", "server = \"notes\"\ntool = \"read_note\"\neffect = \"read\"\ndefault = \"allow\"\n".to_owned())];
    let more = format!("[upstream.notes]\nurl = \"{}\"\n", text("mcp"));
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let http = reqwest::Client::new();
    let seen = || async { http.get(text("seen")).send().await.unwrap().json::<Value>().await.unwrap() };

    // Nobody signed in: the client is told, not asked to sign in itself, and the operator is told how.
    let refused = list(&world).await;
    assert_eq!((refused.status, refused.code()), (502, -31007), "{}", refused.text);
    let refused = call(&world).await;
    assert!(refused.is_error() && refused.said().contains("NOT executed") && refused.said().contains("sign"), "{}", refused.text);
    assert!(world.log().contains("countersign upstream login notes"), "{}", world.log());
    let (_, shown) = world.run(&["upstream", "list"]);
    assert!(shown.contains("notes") && shown.contains("not signed in"), "{shown}");

    let document: Value = http.get(format!("{}/.well-known/oauth-client", world.address)).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["client_id"], format!("{}/.well-known/oauth-client", world.address));

    let said = sign_in(&world, &["notes"]).await;
    assert!(said.contains("signed in at notes") && said.contains("not signed in: "), "{said}");
    let (_, shown) = world.run(&["upstream", "list"]);
    assert!(shown.contains(&text("issuer")) && shown.contains("notes:read") && shown.contains("renewed by itself"), "{shown}");

    // The gateway that runs takes it up by itself.
    assert!(list(&world).await.text.contains("read_note"));
    assert!(call(&world).await.said().contains("note n1 for anna"));
    // The token's life is over: renewed, also by several at once and by the next gateway, with refresh tokens that are good once.
    let mut world = world;
    for restart in [false, true] {
        tokio::time::sleep(Duration::from_millis(4500)).await;
        if restart {
            world.terminate();
            world.start();
        }
        let (one, two, three) = tokio::join!(call(&world), list(&world), call(&world));
        assert!(one.said().contains("for anna") && two.text.contains("read_note") && three.said().contains("for anna"), "{} {}", one.text, two.text);
    }
    let after = seen().await;
    assert!(after["tokens"].as_array().unwrap().len() >= 3, "{after}");
    assert_eq!((&after["strange"], &after["registered"]), (&json!(0), &json!(["Countersign"])), "the client's own token went nowhere");

    // No token stands in the clear, in the store or in the log.
    let mut kept = std::fs::read(world.store()).unwrap();
    kept.extend(std::fs::read(world.scratch.0.join("countersign.db-wal")).unwrap_or_default());
    kept.extend(world.log().into_bytes());
    for token in after["tokens"].as_array().unwrap() {
        let token = token.as_str().unwrap().as_bytes();
        assert!(!kept.windows(token.len()).any(|part| part == token));
    }
    assert!(world.kinds().await.iter().filter(|kind| *kind == "upstream-sign-in").count() >= 3);

    // The person takes it back: nothing hangs, and the operator is told.
    http.get(text("forget")).send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let refused = list(&world).await;
    assert_eq!((refused.status, refused.code()), (502, -31007), "{}", refused.text);
    let said = sign_in(&world, &["notes"]).await;
    assert!(said.contains("signed in at notes"), "{said}");
    assert!(call(&world).await.said().contains("for anna"), "{}", world.log());
    assert!(seen().await["alive"].as_i64().unwrap() >= 1);
    let (code, said) = world.run(&["upstream", "logout", "notes"]);
    assert!(code == 0 && said.contains("signed out of notes: its tokens are revoked there"), "{said}");
    assert_eq!(seen().await["alive"], 0);
    let (_, shown) = world.run(&["upstream", "list"]);
    assert!(shown.contains("not signed in"), "{shown}");
}
