//! Who asks, over HTTP: tokens of known issuers for known subjects, and nothing else.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::listening::{Stream, meta};
use crate::support::mcp::Client;
use crate::support::{Scratch, Settings, World, refund};

struct Idp {
    key: EncodingKey,
    jwks: Value,
}

fn idp() -> Idp {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "k1", "x": x}]});
    Idp { key: EncodingKey::from_ed_der(pkcs8.as_ref()), jwks }
}

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://idp.example", "sub": "spiffe://example.org/agent/ci-bot", "aud": "https://gateway.example/mcp/ledger", "iat": now(), "exp": now() + 300})
}

impl Idp {
    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

async fn world(jwks: &str) -> World {
    let more = format!(
        "[[listen.token]]\nissuer = \"https://idp.example\"\naudience = \"https://gateway.example/mcp/ledger\"\njwks = {jwks}\nalgorithms = [\"EdDSA\"]\n\
         [caller.ci-bot]\nowner = \"olga\"\nsubject = \"spiffe://example.org/agent/ci-bot\"\n\
         [caller.other]\nowner = \"olga\"\nsubject = \"spiffe://example.org/agent/other\"\n"
    );
    let hold = "budget = \"1s\"\n".to_owned();
    World::with(Settings { more, hold, ..Settings::default() }).await
}

fn client(world: &World, token: impl Into<String>) -> Client {
    Client { bearer: Some(token.into()), ..Client::new(&world.mcp()) }
}

#[tokio::test]
async fn only_good_tokens_of_known_subjects_get_in() {
    let (idp, stranger) = (idp(), idp());
    let scratch = Scratch::new();
    let file = scratch.write("jwks.json", &idp.jwks.to_string());
    let world = world(&format!("{{ file = \"{}\" }}", file.display())).await;
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name)
        } else {
            claims.as_object_mut().unwrap().insert(name.into(), value)
        };
        idp.sign(&claims)
    };
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"k1"}"#), URL_SAFE_NO_PAD.encode(claims().to_string()));
    let hmac_key = EncodingKey::from_secret(idp.jwks["keys"][0]["x"].as_str().unwrap().as_bytes());
    let hmac = jsonwebtoken::encode(&Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) }, &claims(), &hmac_key).unwrap();
    let path = jsonwebtoken::encode(&Header { kid: Some("../../jwks".into()), ..Header::new(Algorithm::EdDSA) }, &claims(), &idp.key).unwrap();
    let mut crit_header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k1","crit":["x"],"x":1}"#);
    crit_header.push('.');
    let crit = format!("{crit_header}{}", idp.sign(&claims()).split_once('.').unwrap().1);
    let bad = [
        ("no token", String::new(), 401),
        ("garbage", "abc".into(), 401),
        ("alg none", none, 401),
        ("hmac with the public key", hmac, 401),
        ("another key", stranger.sign(&claims()), 401),
        ("kid with a path", path, 401),
        ("crit", crit, 401),
        ("wrong audience", changed("aud", json!("https://other.example")), 401),
        ("no audience", changed("aud", Value::Null), 401),
        ("audience with a slash", changed("aud", json!("https://gateway.example/mcp/ledger/")), 401),
        ("wrong issuer", changed("iss", json!("https://evil.example")), 401),
        ("no issuer", changed("iss", Value::Null), 401),
        ("no subject", changed("sub", Value::Null), 401),
        ("expired", changed("exp", json!(now() - 60)), 401),
        ("no expiry", changed("exp", Value::Null), 401),
        ("not yet", changed("nbf", json!(now() + 600)), 401),
        ("lives a day", changed("exp", json!(now() + 86_400)), 401),
        (
            "from the future",
            {
                let mut claims = claims();
                claims["iat"] = json!(now() + 900_000);
                claims["exp"] = json!(now() + 900_300);
                idp.sign(&claims)
            },
            401,
        ),
        ("unmapped subject", changed("sub", json!("spiffe://example.org/agent/unknown")), 403),
    ];
    for (what, token, status) in bad {
        let reply = client(&world, token).call("list_accounts", json!({})).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
    }
    assert!(world.received().await.is_empty());
    let reply = client(&world, idp.sign(&claims())).call("list_accounts", json!({})).await;
    assert!(reply.said().contains("acc-1"), "{}", reply.text);
    // What the body says of itself changes nothing.
    let pending = client(&world, idp.sign(&claims())).call("refund_payment", refund(8000)).await;
    assert_eq!(pending.state(), "pending");
    assert_eq!(world.one_waiting().await["caller"], "ci-bot");
    world.check().await;
}

#[tokio::test]
async fn a_refusal_says_where_to_get_a_token() {
    let idp = idp();
    let scratch = Scratch::new();
    let file = scratch.write("jwks.json", &idp.jwks.to_string());
    let world = world(&format!("{{ file = \"{}\" }}", file.display())).await;
    let http = reqwest::Client::new();
    let response = http.post(world.mcp()).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 401);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let url = challenge.split('"').nth(1).unwrap();
    let metadata: Value = http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["resource"], world.mcp());
    assert_eq!(metadata["authorization_servers"], json!(["https://idp.example"]));
}

#[tokio::test]
async fn keys_come_from_an_address_too_and_one_callers_approval_is_not_anothers() {
    let idp = idp();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let jwks = idp.jwks.to_string();
    let router = axum::Router::new().route("/jwks", axum::routing::get(move || async move { jwks }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let world = world(&format!("{{ url = \"{url}\" }}")).await;
    let mut other = claims();
    other["sub"] = json!("spiffe://example.org/agent/other");
    let (one, two) = (client(&world, idp.sign(&claims())), client(&world, idp.sign(&other)));
    assert_eq!(one.call("refund_payment", refund(8000)).await.state(), "pending");
    world.approve(&world.one_waiting().await);
    // The same bytes from another caller are another call.
    assert_eq!(two.call("refund_payment", refund(8000)).await.state(), "pending");
    assert_eq!(world.received_of("refund_payment").await, 0);
    assert!(one.call("refund_payment", refund(8000)).await.said().contains("80.00"));
    assert_eq!(world.received_of("refund_payment").await, 1);
    world.check().await;
}

/// A task answers to its caller, and to another as one that is not there: asked for, taken back, and listened for.
#[tokio::test]
async fn one_callers_task_is_not_anothers() {
    let idp = idp();
    let scratch = Scratch::new();
    let file = scratch.write("jwks.json", &idp.jwks.to_string());
    let world = world(&format!("{{ file = \"{}\" }}", file.display())).await;
    let mut other = claims();
    other["sub"] = json!("spiffe://example.org/agent/other");
    let (one, two) = (client(&world, idp.sign(&claims())), client(&world, idp.sign(&other)));
    let call = json!({"name": "refund_payment", "arguments": refund(8000), "_meta": meta()});
    let task = one.request(json!(1), "tools/call", call).await.unwrap().answer()["result"]["taskId"].clone();
    for (client, tasks) in [(&one, json!([task])), (&two, json!([]))] {
        let mut stream = Stream::open(client, &json!(2), &json!({"taskIds": [task]})).await;
        assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], tasks);
        let known = tasks != json!([]);
        for method in ["tasks/get", "tasks/update", "tasks/cancel"].into_iter().take(if known { 2 } else { 3 }) {
            let answer = client.request(json!(3), method, json!({"taskId": task, "inputResponses": {}, "_meta": meta()})).await.unwrap();
            assert_eq!(answer.code() == -32602, !known, "{method}: {}", answer.text);
        }
        if !known {
            world.deny(&world.one_waiting().await);
            assert!(tokio::time::timeout(Duration::from_secs(1), stream.next()).await.is_err());
        }
    }
    world.check().await;
}

/// An authority with a certificate for this machine, and one for each URI name.
struct Authority {
    own: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self { own, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key, in PEM.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => rcgen::SanType::IpAddress(address),
                Err(_) => rcgen::SanType::URI((*name).try_into().unwrap()),
            });
        }
        params.distinguished_name.push(rcgen::DnType::CommonName, "spiffe://example.org/agent/ci-bot");
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Workloads that show certificates of their platform (SPIFFE X.509-SVIDs), and tokens that are bound to them.
#[tokio::test]
async fn certificates_say_who_a_caller_is() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let scratch = Scratch::new();
    let (certificate, key) = ours.issue(&["127.0.0.1"]);
    let place = |name: &str, text: &str| scratch.write(name, text).display().to_string();
    let (certificate, key, ca) = (place("server.pem", &certificate), place("server.key", &key), place("ca.pem", &ours.own.pem()));
    let idp = idp();
    let jwks = place("jwks.json", &idp.jwks.to_string());
    let listen = format!(
        "public = \"https://gateway.example\"\nhosts = [\"127.0.0.1\"]\ntls = {{ certificate = \"{certificate}\", key = \"{key}\", client-ca = \"{ca}\" }}\n"
    );
    let more = format!(
        "[[listen.token]]\nissuer = \"https://idp.example\"\naudience = \"https://gateway.example/mcp/ledger\"\njwks = {{ file = \"{jwks}\" }}\nalgorithms = [\"EdDSA\"]\n\
         [caller.ci-bot]\nowner = \"olga\"\nsubject = \"spiffe://example.org/agent/ci-bot\"\n\
         [caller.tokens-only]\nowner = \"olga\"\nsubject = \"spiffe://example.org/agent/tokens-only\"\nissuer = \"https://idp.example\"\n"
    );
    let world = World::with(Settings { more, listen, ..Settings::default() }).await;
    let url = world.mcp().replace("http://", "https://");
    let with = |identity: Option<(String, String)>, bearer: Option<String>| {
        let builder = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(ours.own.pem().as_bytes()).unwrap()]);
        let builder = match identity {
            Some((certificate, key)) => builder.identity(reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap()),
            None => builder,
        };
        Client { http: builder.build().unwrap(), bearer, ..Client::new(&url) }
    };
    let call = || json!({"name": "get_account", "arguments": {"account": "acc-1"}});
    let bot = ["spiffe://example.org/agent/ci-bot"];
    let reply = with(Some(ours.issue(&bot)), None).request(json!(1), "tools/call", call()).await.unwrap();
    assert!(reply.status == 200 && reply.said().contains("acc-1"), "{}", reply.text);
    let recorded: Vec<(String,)> = world.query(&world.store(), "SELECT data FROM audit WHERE kind = 'allowed'").await;
    // Moved from the spool a moment later.
    let recorded = if recorded.is_empty() {
        world.recorded("allowed").await;
        world.query(&world.store(), "SELECT data FROM audit WHERE kind = 'allowed'").await
    } else {
        recorded
    };
    assert!(recorded[0].0.contains("\"issuer\":\"mtls\"") && recorded[0].0.contains("ci-bot"), "{}", recorded[0].0);
    for (identity, status) in [
        (None, 401),
        (Some(ours.issue(&["spiffe://example.org/agent/nobody"])), 403),
        (Some(ours.issue(&["spiffe://example.org/agent/tokens-only"])), 403),
        (Some(ours.issue(&["spiffe://example.org/agent/ci-bot", "spiffe://example.org/agent/other"])), 401),
        // A name in the subject is nobody's name.
        (Some(ours.issue(&[])), 401),
    ] {
        let reply = with(identity, None).request(json!(1), "tools/call", call()).await.unwrap();
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    assert!(
        with(Some(strangers.issue(&bot)), None).request(json!(1), "tools/call", call()).await.is_err(),
        "a stranger's certificate ends the connection"
    );
    // A token that is bound to a certificate is good with that one alone (RFC 8705).
    let identity = ours.issue(&bot);
    let der = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(identity.0.as_bytes()).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(countersign::domain::digest::Digest::of(&der).bytes());
    let mut bound = claims();
    bound["cnf"] = json!({"x5t#S256": thumbprint});
    let token = idp.sign(&bound);
    for (identity, status) in [(Some(identity), 200), (Some(ours.issue(&bot)), 401), (None, 401)] {
        let reply = with(identity, Some(token.clone())).request(json!(1), "tools/call", call()).await.unwrap();
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    // Who says nothing holds nobody up.
    let _silent: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(world.address.trim_start_matches("http://")).unwrap()).collect();
    let reply = with(Some(ours.issue(&bot)), None).request(json!(1), "tools/call", call()).await.unwrap();
    assert_eq!(reply.status, 200);
}

/// Over stdio a workload shows the token that its platform keeps in a file, and the file is read anew each time.
#[tokio::test]
async fn a_token_file_says_who_is_on_the_pipe() {
    use std::io::{BufRead, BufReader, Write};
    let idp = idp();
    let scratch = Scratch::new();
    let jwks = scratch.write("jwks.json", &idp.jwks.to_string());
    let port = crate::support::free_port();
    let config = scratch.write(
        "countersign.toml",
        &format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n[policy]\ndefault = \"allow\"\n[[listen.token]]\nissuer = \"https://idp.example\"\n\
             audience = \"https://gateway.example/mcp/ledger\"\njwks = {{ file = \"{}\" }}\nalgorithms = [\"EdDSA\"]\n[approver.olga]\n[caller.ci-bot]\nowner = \"olga\"\n\
             subject = \"spiffe://example.org/agent/ci-bot\"\n",
            jwks.display()
        ),
    );
    let token = scratch.write("token", &idp.sign(&claims()));
    let mut process = std::process::Command::new(crate::support::countersign())
        .args(["--config"])
        .arg(&config)
        .args(["wrap", "--server", "ledger", "--identity-token-file"])
        .arg(&token)
        .args(["--env"])
        .arg(format!("LEDGER_DB={}", scratch.0.join("ledger.db").display()))
        .arg("--")
        .arg(crate::support::ledger_server())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut stdin, mut lines) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()).lines());
    let mut ask = |id: u32, method: &str, params: Value| {
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).unwrap();
        lines.by_ref().map_while(Result::ok).filter_map(|line| serde_json::from_str::<Value>(&line).ok()).find(|m| m["id"] == id).unwrap()
    };
    ask(0, "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}));
    let call = || json!({"name": "get_account", "arguments": {"account": "acc-1"}});
    assert!(ask(1, "tools/call", call())["result"]["content"][0]["text"].as_str().unwrap().contains("acc-1"));
    let mut expired = claims();
    expired["exp"] = json!(now() - 60);
    scratch.write("token", &idp.sign(&expired));
    let answer = ask(2, "tools/call", call());
    assert!(answer["error"]["message"].as_str().unwrap().contains("the call did not run"), "{answer}");
    scratch.write("token", &idp.sign(&claims()));
    assert!(ask(3, "tools/call", call())["result"].is_object());
    drop(process.kill());
    drop(process.wait());
}
