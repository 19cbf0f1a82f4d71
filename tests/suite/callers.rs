//! Who asks, over HTTP: tokens of known issuers for known subjects, and nothing else.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

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
