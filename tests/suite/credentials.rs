//! Credentials of real issuers: nothing exists before approval, exactly the approved during the call, nothing after it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection;

use crate::clients::modern_node;
use crate::support::mcp::{Client, Reply};
use crate::support::postgres::Server;
use crate::support::{Settings, World};

/// The policy of a tool that always asks, with this `[credential]`.
fn asks(server: &str, tool: &str, credential: &str) -> String {
    format!("server = \"{server}\"\ntool = \"{tool}\"\ndefault = \"approve\"\neffect = \"update\"\n[approval]\ntwo-from = \"never\"\n{credential}")
}

/// Calls, approves, and gives the answer.
async fn approved(world: &World, server: &str, tool: &str, arguments: Value) -> Reply {
    let client = Client::new(&format!("{}/mcp/{server}", world.address));
    let params = json!({"name": tool, "arguments": arguments});
    let call = tokio::spawn(async move { client.request(json!(7), "tools/call", params).await.unwrap() });
    let waiting = world.one_waiting().await;
    world.approve(&waiting);
    call.await.unwrap()
}

fn leases(world: &World) -> Vec<Value> {
    let (code, text) = world.run(&["credentials", "list", "--all", "--json"]);
    assert_eq!(code, 0, "{text}");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until the newest lease is in this state.
async fn lease_is(world: &World, state: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let leases = leases(world);
        if leases.first().is_some_and(|lease| lease["state"] == state) {
            return leases[0].clone();
        }
        assert!(Instant::now() < until, "not {state}: {leases:?}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const TABLES: &str = "[credential]\nissuer = \"pg\"\nttl = \"30s\"\nenv = { DSN = \"{url}?sslmode=disable\" }\n\
     [credential.parameters]\ngrants = [{ table = \"public.customers\", privileges = [\"select\", \"delete\"] }]\n";

async fn with_dbhub(server: &Server) -> Option<World> {
    let dbhub = modern_node("node_modules/@bytebase/dbhub/dist/index.js")?;
    let command = serde_json::to_string(&[dbhub.0, dbhub.1, "--transport".into(), "stdio".into()]).unwrap();
    let more = format!(
        "{}[upstream.dbhub]\ncommand = {command}\nenv = {{ DSN = \"postgres://lister:of-the-lister@127.0.0.1:{}/app?sslmode=disable\" }}\n",
        server.issuer(),
        server.port
    );
    let policies = vec![("dbhub.toml", asks("dbhub", "execute_sql", TABLES))];
    Some(World::with(Settings { more, policies, ..Settings::default() }).await)
}

/// Postgres and a public MCP server as a child of the gateway.
#[tokio::test]
async fn a_role_for_one_call_of_dbhub() {
    let Some(server) = Server::start().await else { return };
    let Some(world) = with_dbhub(&server).await else { return };
    let client = Client::new(&format!("{}/mcp/dbhub", world.address));
    let sql = "DELETE FROM customers WHERE id = 2 RETURNING current_user";
    let params = json!({"name": "execute_sql", "arguments": {"sql": sql}});
    let call = tokio::spawn(async move { client.request(json!(7), "tools/call", params).await.unwrap() });
    let waiting = world.one_waiting().await;
    assert_eq!(server.roles().await, 0, "nothing exists while people think");
    assert!(leases(&world).is_empty());
    let id = waiting["id"].as_str().unwrap();
    let (_, shown) = world.run(&["approvals", "show", id]);
    assert!(shown.contains("public.customers") && shown.contains("30 s at most, then revoked"), "{shown}");
    world.approve(&waiting);
    let reply = call.await.unwrap();
    assert!(!reply.is_error() && reply.text.contains("countersign_"), "{}", reply.text);
    let lease = lease_is(&world, "revoked").await;
    assert_eq!(server.roles().await, 0, "nothing exists after it");
    // Its neighbour is refused by Postgres itself.
    let reply = approved(&world, "dbhub", "execute_sql", json!({"sql": "DELETE FROM invoices"})).await;
    assert!(reply.text.contains("permission denied for table invoices"), "{}", reply.text);
    lease_is(&world, "revoked").await;
    let mut app = server.connect("app").await;
    let (customers, invoices): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM invoices)").fetch_one(&mut app).await.unwrap();
    assert_eq!((customers, invoices), (1, 1));
    // The name is known; it opens nothing any more.
    let name = lease["handle"].as_str().unwrap();
    let login = sqlx::PgConnection::connect(&format!("postgres://{name}:guess@127.0.0.1:{}/app", server.port)).await;
    assert!(login.unwrap_err().to_string().contains("password authentication failed"));
    let log = server.log();
    assert!(log.contains("SCRAM-SHA-256$4096:"), "the verifier is what the server was told");
    let (_, story) = world.run(&["audit", "show", id]);
    assert!(story.contains("was revoked, and pg said so"), "{story}");
    world.check().await;
}

/// A policy cannot ask for more than the operator's configuration permits, and what cannot be minted asks nobody.
#[tokio::test]
async fn what_an_issuer_cannot_be_asked_for_asks_nobody() {
    let Some(server) = Server::start().await else { return };
    let terms = TABLES.replace("public.customers", "public.{/table}") + "[credential.where]\n\"/table\" = { pattern = \"[a-z_]+\" }\n";
    let policies = vec![("wide.toml", asks("ledger", "wide", &terms))];
    let world = World::with(Settings { more: server.issuer(), policies, ..Settings::default() }).await;
    let client = Client::new(&world.mcp());
    for table in ["invoices", "customers\"; DROP TABLE customers; --", "*", "custom\u{435}rs", "customers\n", "..", "", "Customers", "pg_authid"] {
        let reply = client.request(json!(1), "tools/call", json!({"name": "wide", "arguments": {"table": table}})).await.unwrap();
        assert!(reply.is_error() && reply.text.contains("NOT executed"), "{table}: {}", reply.text);
    }
    assert!(world.waiting().is_empty() && leases(&world).is_empty());
    assert_eq!(server.roles().await, 0);
    let (code, text) = world.run(&["policy", "explain", "ledger/wide", "--arguments", "{\"table\":\"customers\"}"]);
    assert!(code == 5 && text.contains("GRANT select, delete ON TABLE \"public\".\"customers\"") && text.contains("<SCRAM verifier>"), "{text}");
}

/// An issuer that is down: nothing runs, and the approval is as good as before. One that comes back ends what was left.
#[tokio::test]
async fn an_issuer_that_is_down_runs_nothing() {
    let port = crate::support::free_port();
    let more =
        "[credential.pg]\nkind = \"postgres\"\naddress = { env = \"PG\" }\ntables = [\"public.customers\"]\nprivileges = [\"select\", \"delete\"]\n"
            .to_owned();
    let terms = TABLES.replace("env = { DSN = \"{url}?sslmode=disable\" }\n", "");
    let policies = vec![("refund_payment.toml", asks("ledger", "refund_payment", &terms))];
    let env = vec![("PG", format!("postgres://minter:secret-of-the-minter@127.0.0.1:{port}/app"))];
    let world = World::with(Settings { more, policies, env, ..Settings::default() }).await;
    let reply = approved(&world, "ledger", "refund_payment", crate::support::refund(8000)).await;
    assert!(reply.is_error() && reply.text.contains("could not be minted") && reply.text.contains("issuer `pg`"), "{}", reply.text);
    assert_eq!(world.received_of("refund_payment").await, 0);
    assert_eq!(leases(&world)[0]["state"], "void");
    assert!(world.kinds().await.iter().any(|kind| kind == "put-back"));
    assert!(!world.log().contains("secret-of-the-minter"));
}

/// `kill -9` between any two steps leaves no role behind.
#[tokio::test]
async fn killed_at_any_step_no_role_is_left() {
    let Some(server) = Server::start().await else { return };
    for step in ["mint-intended", "minted", "dispatched", "completed"] {
        let Some(mut world) = with_dbhub(&server).await else { return };
        let client = Client::new(&format!("{}/mcp/dbhub", world.address));
        let params = json!({"name": "execute_sql", "arguments": {"sql": "SELECT pg_sleep(0.3), current_user"}});
        let call = tokio::spawn(async move { drop(client.request(json!(7), "tools/call", params).await) });
        let waiting = world.one_waiting().await;
        world.approve(&waiting);
        let until = Instant::now() + Duration::from_secs(20);
        while !world.kinds().await.iter().any(|kind| kind == step) {
            assert!(Instant::now() < until, "{step} was not reached:\n{}", world.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.kill();
        call.await.unwrap();
        world.start();
        let lease = lease_is(&world, "revoked").await;
        assert_eq!(server.roles().await, 0, "{step}: {lease}");
        world.check().await;
    }
}

/// A process that is ended with the test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a script of `tests/clients` that prints its address when it is ready.
pub fn start(script_name: &str, environment: &[(&str, &str)]) -> Option<(Running, Value)> {
    use std::io::BufRead;
    let (node, copy) = modern_node(script_name)?;
    let mut process = Command::new(node)
        .arg(copy)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| serde_json::from_str::<Value>(&line.ok()?).ok());
    let Some(ready) = ready else { panic!("{script_name} did not start") };
    Some((Running(process), ready))
}

/// An upstream that does over HTTP what it is told, with the credential that it finds in its environment.
fn prober(more: &str) -> Option<String> {
    let (node, copy) = modern_node("prober.mjs")?;
    let command = serde_json::to_string(&[node, copy]).unwrap();
    Some(format!("[upstream.prober]\ncommand = {command}\n{more}"))
}

fn said(reply: &Reply) -> Value {
    serde_json::from_str(&reply.said()).unwrap_or_else(|_| panic!("{}", reply.text))
}

/// A key as GitHub gives them: RSA in PKCS #1.
fn rsa_key(scratch: &crate::support::Scratch) -> String {
    let key = scratch.0.join("app.pem");
    let made = Command::new("openssl").args(["genrsa", "-traditional", "-out"]).arg(&key).arg("2048").stderr(Stdio::null()).status();
    assert!(made.unwrap().success());
    key.display().to_string()
}

/// GitHub Apps, against `emulate`: the token is for one repository and one permission. Its deletion answers 404, so that
/// nothing is ever called revoked.
#[tokio::test]
async fn an_installation_token_for_one_repository() {
    let scratch = crate::support::Scratch::new();
    let key = rsa_key(&scratch);
    let seed = scratch.write(
        "seed.json",
        &json!({
            "github": {
                "users": [{"login": "octo"}], "orgs": [{"login": "acme"}],
                "repos": [{"owner": "acme", "name": "api"}, {"owner": "acme", "name": "web"}],
                "apps": [{"app_id": 12345, "slug": "gate", "name": "Gate", "private_key": std::fs::read_to_string(&key).unwrap(),
                    "permissions": {"issues": "write", "contents": "write", "metadata": "read"}, "events": [],
                    "installations": [{"installation_id": 100, "account": "acme", "repository_selection": "all",
                        "permissions": {"issues": "write", "contents": "write", "metadata": "read"}}]}],
            }
        })
        .to_string(),
    );
    let port = crate::support::free_port();
    let Some((node, emulate)) = modern_node("node_modules/emulate/dist/index.js") else { return };
    let github = Command::new(node)
        .args([&emulate, "start", "--service", "github", "--port", &port.to_string(), "--seed"])
        .arg(&seed)
        .current_dir(&scratch.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _github = Running(github);
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "emulate did not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let api = format!("http://localhost:{port}");
    let issuer = format!(
        "[credential.github]\nkind = \"github-app\"\napp = \"12345\"\ninstallation = 100\naccount = \"acme\"\nkey = {{ file = \"{key}\" }}\napi = \"{api}\"\n"
    );
    let Some(more) = prober(&issuer) else { return };
    let terms = "[credential]\nissuer = \"github\"\nenv = { TOKEN = \"{secret}\" }\n[credential.parameters]\nowner = \"{/owner}\"\n\
         repositories = [\"{/repo}\"]\npermissions = { issues = \"write\" }\n[credential.where]\n\"/owner\" = { pattern = \"[A-Za-z0-9-]+\" }\n\
         \"/repo\" = { pattern = \"[A-Za-z0-9._-]+\" }\n";
    let policies = vec![("prober.toml", asks("prober", "probe", terms))];
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let issue = |repo: &str| json!({"method": "POST", "url": format!("{api}/repos/acme/{repo}/issues"), "body": {"title": "by an agent"}});
    let file = json!({"method": "PUT", "url": format!("{api}/repos/acme/api/contents/x.txt"), "body": {"message": "m", "content": "eA=="}});
    let requests = json!([issue("api"), issue("web"), file]);
    let reply = approved(&world, "prober", "probe", json!({"owner": "acme", "repo": "api", "requests": requests})).await;
    let statuses = said(&reply);
    assert_eq!(statuses[0]["status"], 201, "{statuses}");
    assert!(statuses[1]["status"].as_u64() >= Some(400), "the neighbouring repository: {statuses}");
    assert!(statuses[2]["status"].as_u64() >= Some(400), "another permission: {statuses}");
    let lease = lease_is(&world, "revoking").await;
    assert!(lease["problem"].as_str().unwrap().contains("404"), "{lease}");
    let (_, listed) = world.run(&["credentials", "list"]);
    assert!(listed.contains("NOT REVOKED after"), "{listed}");
    let kinds = world.kinds().await;
    assert!(kinds.iter().any(|kind| kind == "revoke-failed") && !kinds.iter().any(|kind| kind == "credential-revoked"));
    // Another owner, and names that are more than one.
    let client = Client::new(&format!("{}/mcp/prober", world.address));
    for (owner, repo) in [("evil", "api"), ("acme", "../api"), ("acme", "api,web"), ("acme", "a*"), ("acme", "\u{430}pi"), ("acme\n", "api")] {
        let reply = client.request(json!(1), "tools/call", json!({"name": "probe", "arguments": {"owner": owner, "repo": repo}})).await.unwrap();
        assert!(reply.is_error() && reply.text.contains("NOT executed"), "{owner}/{repo}: {}", reply.text);
    }
    assert!(world.waiting().is_empty());
    // The token is sealed in the journal, and in no other form anywhere.
    let store = std::fs::read(world.store()).unwrap();
    let wal = std::fs::read(world.scratch.0.join("countersign.db-wal")).unwrap_or_default();
    assert!(![store, wal].iter().any(|bytes| bytes.windows(4).any(|part| part == b"ghs_")));
    world.check().await;
}

/// OAuth against `oidc-provider`, and an MCP server of the TypeScript SDK that introspects at it.
#[tokio::test]
async fn a_token_for_one_resource_that_the_server_introspects() {
    let port = crate::support::free_port();
    let jwks = format!("http://127.0.0.1:{port}/.well-known/jwks.json");
    let Some((_provider, ready)) = start("oauth.mjs", &[("JWKS", &jwks)]) else { return };
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let issuer = format!(
        "[credential.as]\nkind = \"oauth\"\nissuer = \"{0}\"\ntoken = \"{0}/token\"\nrevocation = \"{0}/token/revocation\"\n\
         introspection = \"{0}/token/introspection\"\nclient = \"gateway\"\nsecret = {{ env = \"CLIENT_SECRET\" }}\ndetails = \"mcp_tool_call\"\n\
         [credential.exchange]\nkind = \"oauth\"\nissuer = \"{0}\"\ntoken = \"{0}/token\"\nrevocation = \"{0}/token/revocation\"\n\
         introspection = \"{0}/token/introspection\"\nclient = \"exchanger\"\nkey = \"own\"\nexchange = {{ subject = \"caller\" }}\ndetails = \"mcp_tool_call\"\n\
         [upstream.notes]\nurl = \"{1}\"\n",
        text("issuer"),
        text("mcp")
    );
    let terms = format!("[credential]\nissuer = \"as\"\nscope = \"notes:delete\"\n[credential.parameters]\nresource = \"{}\"\n", text("mcp"));
    let policies = vec![
        ("notes.toml", asks("notes", "delete_note", &terms)),
        ("exchange.toml", asks("notes", "exchange", &terms.replace("issuer = \"as\"", "issuer = \"exchange\""))),
        ("wide.toml", asks("notes", "wide", &terms.replace("notes:delete", "notes:everything"))),
    ];
    let env = vec![("CLIENT_SECRET", "secret-of-the-gateway".to_owned())];
    let world = World::with(Settings { more: issuer, policies, env, ..Settings::default() }).await;
    let http = reqwest::Client::new();
    let seen = || async { http.get(text("seen")).send().await.unwrap().json::<Value>().await.unwrap() };
    assert_eq!(seen().await["minted"], 0);
    let call = tokio::spawn(legacy(&world, "delete_note", "n1"));
    let waiting = world.one_waiting().await;
    assert_eq!(seen().await["minted"], 0, "nothing exists while people think");
    world.approve(&waiting);
    let reply = call.await.unwrap();
    assert!(!reply.is_error() && reply.said().contains("deleted n1"), "{}\n{}", reply.text, world.log());
    let told = said_of(&reply);
    assert_eq!(told["scope"], "notes:delete");
    assert_eq!(told["authorization_details"][0]["approval"], waiting["id"]);
    lease_is(&world, "revoked").await;
    // The thief of the token finds it dead: the provider itself says so.
    let after = seen().await;
    assert_eq!((&after["minted"], &after["active"]), (&json!(1), &json!(0)), "{after}");
    // This provider answers an unknown scope with a token that has none.
    let call = tokio::spawn(legacy(&world, "wide", "n2"));
    world.approve(&world.one_waiting().await);
    let reply = call.await.unwrap();
    assert!(reply.is_error() && reply.text.contains("could not be minted"), "{}", reply.text);
    let after = seen().await;
    assert_eq!(after["active"], 0, "{after}");
    assert_eq!(after["deleted"], json!(["n1"]));
    // For the caller, with the gateway as the actor, which proves itself with its own key.
    let _forward = forward(port, &world.address).await;
    let call = tokio::spawn(legacy(&world, "exchange", "n3"));
    world.approve(&world.one_waiting().await);
    let reply = call.await.unwrap();
    assert!(!reply.is_error() && reply.said().contains("deleted n3"), "{}\n{}", reply.text, world.log());
    let told = said_of(&reply);
    assert_eq!((&told["for"], &told["act"]["sub"]), (&json!("local"), &json!("exchanger")), "{told}");
    lease_is(&world, "revoked").await;
    let after = seen().await;
    assert_eq!((&after["active"], &after["deleted"]), (&json!(0), &json!(["n1", "n3"])), "{after}");
    let log = world.log();
    assert!(!log.contains("secret-of-the-gateway"));
    for token in after["tokens"].as_array().unwrap() {
        let token = token.as_str().unwrap();
        let store = std::fs::read(world.store()).unwrap();
        assert!(!log.contains(token) && !String::from_utf8_lossy(&store).contains(token));
    }
    world.check().await;
}

/// A call as a client of the era with sessions makes it, which this SDK's server wants.
fn legacy(world: &World, tool: &str, id: &str) -> impl Future<Output = Reply> + use<> {
    let client = Client::new(&format!("{}/mcp/notes", world.address));
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {"id": id}}}).to_string();
    async move { client.send(body, &[]).await.unwrap() }
}

/// What the notes server says of the token that it got.
fn said_of(reply: &Reply) -> Value {
    let text = reply.said();
    serde_json::from_str(text.split_once(" with ").unwrap().1).unwrap()
}

/// Vault and Kubernetes, after recorded exchanges: logins, accessors, leases; Secrets and tokens bound to them.
#[tokio::test]
async fn vault_and_kubernetes_by_their_recorded_exchanges() {
    let port = crate::support::free_port();
    let jwks = format!("http://127.0.0.1:{port}/.well-known/jwks.json");
    let Some((_fakes, ready)) = start("issuers.mjs", &[("JWKS", &jwks)]) else { return };
    let address = ready["address"].as_str().unwrap();
    let issuers = format!(
        "[credential.vault]\nkind = \"vault\"\naddress = \"{address}/vault\"\npaths = [\"database/creds/*\"]\nwrap = \"20s\"\nlogin = {{ jwt = {{ role = \"approved-call\" }} }}\n\
         [credential.cluster]\nkind = \"kubernetes\"\naddress = \"{address}/kubernetes\"\ntoken = {{ env = \"CLUSTER\" }}\nservice-accounts = [\"shop/deployer\"]\n"
    );
    let Some(more) = prober(&issuers) else { return };
    let vault = "[credential]\nissuer = \"vault\"\nttl = \"30s\"\nenv = { TOKEN = \"{password}\" }\n[credential.parameters]\npath = \"database/creds/{/env}-deleter\"\n\
         [credential.where]\n\"/env\" = { enum = [\"staging\", \"production\"] }\n";
    let cluster = "[credential]\nissuer = \"cluster\"\nttl = \"30s\"\nenv = { TOKEN = \"{secret}\" }\n[credential.parameters]\nnamespace = \"{/namespace}\"\n\
         service-account = \"deployer\"\n[credential.where]\n\"/namespace\" = { pattern = \"[a-z]+\" }\n";
    let policies = vec![("probe.toml", asks("prober", "probe", vault)), ("probe_cluster.toml", asks("prober", "probe_cluster", cluster))];
    let env = vec![("CLUSTER", "token-of-the-gateway".to_owned())];
    let mut world = World::with(Settings { more, policies, env, ..Settings::default() }).await;
    // The keys that Vault knows are this gateway's.
    let _forward = forward(port, &world.address).await;
    let requests = json!([{"method": "GET", "url": format!("{address}/vault/use/production")}, {"method": "GET", "url": format!("{address}/vault/use/staging")}]);
    let reply = approved(&world, "prober", "probe", json!({"env": "production", "requests": requests})).await;
    let statuses = said(&reply);
    assert_eq!((&statuses[0]["status"], &statuses[1]["status"]), (&json!(200), &json!(403)), "{statuses}\n{}", world.log());
    let lease = lease_is(&world, "revoked").await;
    assert!(lease["handle"].as_str().unwrap().starts_with("accessor-"), "{lease}");
    let http = reqwest::Client::new();
    let seen: Value = http.get(format!("{address}/seen")).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["vault"]["live"], json!([]), "{seen}");
    assert_eq!(seen["vault"]["logins"][0]["tool"], "probe", "the login carries the call: {seen}");
    assert_eq!(seen["vault"]["logins"][0]["approvers"], "anna");
    let requests = json!([{"method": "GET", "url": format!("{address}/kubernetes/use")}]);
    let reply = approved(&world, "prober", "probe_cluster", json!({"namespace": "shop", "requests": requests})).await;
    assert_eq!(said(&reply)[0]["status"], 200, "{}", reply.text);
    lease_is(&world, "revoked").await;
    let seen: Value = http.get(format!("{address}/seen")).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["kubernetes"]["secrets"], json!([]), "{seen}");
    for tried in seen["secrets"].as_array().unwrap() {
        let again =
            http.get(format!("{address}/{}", tried["place"].as_str().unwrap())).bearer_auth(tried["secret"].as_str().unwrap()).send().await.unwrap();
        assert!(again.status().is_client_error(), "{tried}");
        assert!(!world.log().contains(tried["secret"].as_str().unwrap()));
    }
    // A namespace that the operator did not list.
    let client = Client::new(&format!("{}/mcp/prober", world.address));
    let reply = client.request(json!(1), "tools/call", json!({"name": "probe_cluster", "arguments": {"namespace": "payments"}})).await.unwrap();
    assert!(reply.is_error() && reply.text.contains("NOT executed"), "{}", reply.text);
    // The issuer is away when it should revoke, and comes back: then it is revoked.
    drop(http.post(format!("{address}/down?for=3000")).send().await.unwrap());
    let (_, text) = world.run(&["credentials", "list"]);
    assert!(text.contains("no credential is open"), "{text}");
    let reply = approved(
        &world,
        "prober",
        "probe_cluster",
        json!({"namespace": "shop", "requests": [{"method": "POST", "url": format!("{address}/down?for=2500")}]}),
    )
    .await;
    assert!(reply.is_error() || reply.said().contains("200"), "{}", reply.text);
    assert!(world.kinds().await.iter().any(|kind| kind == "revoke-failed"));
    lease_is(&world, "revoked").await;
    world.check().await;
    world.kill();
}

/// Hands connections at `port` on to the gateway.
async fn forward(port: u16, address: &str) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let to = address.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let Ok(mut gateway) = tokio::net::TcpStream::connect(to).await else { return };
                drop(tokio::io::copy_bidirectional(&mut from, &mut gateway).await);
            });
        }
    })
}

const CANARY: &str = "canary-9f3a/7c+\"e1\\b~secret=of.one-call";

/// A program as issuer, and a server that says its credential in every form, in pieces, on every way out.
#[tokio::test]
async fn a_credential_is_nowhere() {
    let scratch = crate::support::Scratch::new();
    let quoted = serde_json::to_string(CANARY).unwrap();
    let program = scratch.write(
        "program.py",
        &format!("import json, sys, datetime\nasked = json.load(sys.stdin)\nopen('{0}/' + asked['verb'], 'a').write(asked['lease'] + '\\n')\nif asked['verb'] == 'mint':\n    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20)\n    print(json.dumps({{'fields': {{'secret': {quoted}}}, 'expires_at': until.isoformat(), 'handle': 'h-' + asked['lease']}}))\n", scratch.0.display()),
    );
    let issuer = format!("[credential.own]\nkind = \"exec\"\ncommand = [\"python3\", \"{}\"]\n", program.display());
    let Some(more) = prober(&issuer) else { return };
    let terms = "[credential]\nissuer = \"own\"\nscope = \"x\"\nttl = \"30s\"\nenv = \"TOKEN\"\nfile = { TOKEN_FILE = \"[default]\\ntoken = {secret}\\n\" }\n";
    let policies = vec![("prober.toml", asks("prober", "echo", terms))];
    // The gateway says everything that it can say.
    let mut world = World::with(Settings { more, policies, ..Settings::default() }).await;
    world.kill();
    world.verbose = true;
    world.start();
    let reply = approved(&world, "prober", "echo", json!({})).await;
    assert!(!reply.is_error() && reply.text.contains("[credential]"), "{}\n{}", reply.text, world.log());
    let echoed = said(&reply);
    assert_eq!(echoed["file_mode"], "600", "{echoed}");
    assert_eq!(echoed["argv_has_it"], false, "{echoed}");
    assert_eq!(echoed["parent_environment_has_it"], false, "{echoed}");
    assert_eq!(echoed["core_limit"], "0", "{echoed}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.gateway.as_ref().unwrap().id())).unwrap_or_default();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0")), "{limits}");
    lease_is(&world, "revoked").await;
    assert!(!std::path::Path::new(echoed["file"].as_str().unwrap()).exists(), "the file is gone with the call");
    let forms = forms(CANARY);
    let clean = |what: &str, text: &str| {
        for (name, form) in &forms {
            assert!(!text.to_lowercase().contains(&form.to_lowercase()), "{what} has the credential as {name}: {form}");
        }
    };
    clean("the answer", &reply.text);
    clean("the log", &world.log());
    assert!(world.log().contains("stderr of the prober"), "its standard error is handed on:\n{}", world.log());
    let http = reqwest::Client::new();
    clean("the figures", &http.get(format!("{}/metrics", world.address)).send().await.unwrap().text().await.unwrap());
    for name in ["countersign.db", "countersign.db-wal"] {
        clean(name, &String::from_utf8_lossy(&std::fs::read(world.scratch.0.join(name)).unwrap_or_default()));
    }
    let leases = leases(&world);
    clean("the list", &format!("{leases:?}"));
    assert_eq!(leases[0]["handle"], format!("h-{}", leases[0]["lease"].as_str().unwrap()));
    let revoked = std::fs::read_to_string(scratch.0.join("revoke")).unwrap();
    assert_eq!(revoked.trim(), leases[0]["lease"].as_str().unwrap());
    world.check().await;
}

fn forms(secret: &str) -> Vec<(&'static str, String)> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let json = serde_json::to_string(secret).unwrap();
    vec![
        ("itself", secret.to_owned()),
        ("json", json[1..json.len() - 1].to_owned()),
        ("base64", STANDARD.encode(secret).trim_end_matches('=').to_owned()),
        ("base64url", URL_SAFE_NO_PAD.encode(secret)),
        ("hex", secret.bytes().map(|b| format!("{b:02x}")).collect()),
        ("percent", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()),
        ("a long part", secret[10..].to_owned()),
    ]
}

/// Last resort: in an argument, which the long-lived child never sees, and which comes back scrubbed.
#[tokio::test]
async fn a_credential_in_an_argument() {
    let Some(more) = prober("") else { return };
    let terms = "[credential]\nissuer = \"built-in\"\nscope = \"x\"\nargument = \"/auth/token\"\n";
    let policies = vec![("prober.toml", asks("prober", "show", terms))];
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let reply = approved(&world, "prober", "show", json!({"a": 1})).await;
    assert_eq!(said(&reply)["arguments"], json!({"a": 1, "auth": {"token": "[credential]"}}), "{}", reply.text);
    assert_eq!(said(&reply)["calls"], 1);
    let reply = approved(&world, "prober", "show", json!({"auth": {"token": "of the agent"}})).await;
    assert!(reply.is_error() && reply.text.contains("could not be minted"), "{}", reply.text);
    lease_is(&world, "revoked").await;
    world.check().await;
}

/// A stored secret is handed on, and everybody is told that it is one.
#[tokio::test]
async fn a_stored_secret_is_called_one() {
    let Some(more) = prober("[credential.slack]\nkind = \"static\"\nsecret = { env = \"STORED\" }\n") else { return };
    let terms = "[credential]\nissuer = \"slack\"\nscope = \"chat:write\"\nenv = \"TOKEN\"\n";
    let policies = vec![("prober.toml", asks("prober", "echo", terms))];
    let world = World::with(Settings { more, policies, env: vec![("STORED", CANARY.into())], ..Settings::default() }).await;
    let client = Client::new(&format!("{}/mcp/prober", world.address));
    let call = tokio::spawn(async move { client.request(json!(7), "tools/call", json!({"name": "echo", "arguments": {}})).await.unwrap() });
    let waiting = world.one_waiting().await;
    let (_, shown) = world.run(&["approvals", "show", waiting["id"].as_str().unwrap()]);
    assert!(shown.contains("NOT minted for this call: a stored secret"), "{shown}");
    world.approve(&waiting);
    assert!(call.await.unwrap().text.contains("[credential]"));
    lease_is(&world, "kept").await;
    let (_, story) = world.run(&["audit", "show", waiting["id"].as_str().unwrap()]);
    assert!(story.contains("the stored secret of slack stays valid") && !story.contains("was revoked"), "{story}");
}

/// AWS STS against `fakecloud`, which checks signatures and enforces session policies and `DateLessThan`. Its program is
/// named by `COUNTERSIGN_TEST_FAKECLOUD`, and needs the AWS command line.
#[tokio::test]
async fn a_session_for_one_object_that_is_dead_by_its_time() {
    let Some(program) = std::env::var_os("COUNTERSIGN_TEST_FAKECLOUD") else {
        eprintln!("skipped: COUNTERSIGN_TEST_FAKECLOUD does not name the program");
        return;
    };
    let port = crate::support::free_port();
    let cloud = Command::new(program)
        .args(["--addr", &format!("127.0.0.1:{port}"), "--verify-sigv4", "--iam", "strict"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _cloud = Running(cloud);
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "fakecloud did not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let endpoint = format!("http://127.0.0.1:{port}");
    let aws = |arguments: &[&str]| {
        let output = Command::new("aws")
            .args(["--endpoint-url", &endpoint, "--output", "json"])
            .args(arguments)
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "eu-central-1")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let trust =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}).to_string();
    let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}).to_string();
    let assume = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*"}]}).to_string();
    aws(&["s3api", "create-bucket", "--bucket", "reports", "--create-bucket-configuration", "LocationConstraint=eu-central-1"]);
    let body = std::env::temp_dir().join(format!("countersign-object-{port}"));
    std::fs::write(&body, "x").unwrap();
    for key in ["ada.txt", "bob.txt"] {
        aws(&["s3api", "put-object", "--bucket", "reports", "--key", key, "--body", body.to_str().unwrap()]);
    }
    let role =
        aws(&["iam", "create-role", "--role-name", "reader", "--assume-role-policy-document", &trust])["Role"]["Arn"].as_str().unwrap().to_owned();
    aws(&["iam", "put-role-policy", "--role-name", "reader", "--policy-name", "all", "--policy-document", &all]);
    aws(&["iam", "create-user", "--user-name", "gateway"]);
    aws(&["iam", "put-user-policy", "--user-name", "gateway", "--policy-name", "assume", "--policy-document", &assume]);
    let key = aws(&["iam", "create-access-key", "--user-name", "gateway"])["AccessKey"].clone();
    let issuer = format!(
        "[credential.aws]\nkind = \"aws-sts\"\nrole = \"{role}\"\nregion = \"eu-central-1\"\nendpoint = \"{endpoint}\"\n\
         access-key-id = {{ env = \"KEY_ID\" }}\nsecret-access-key = {{ env = \"KEY\" }}\n"
    );
    let Some(more) = prober(&format!("pass-env = [\"PATH\", \"HOME\"]\n{issuer}")) else { return };
    let terms = "[credential]\nissuer = \"aws\"\nttl = \"12s\"\n[[credential.parameters.statements]]\nactions = [\"s3:GetObject\"]\n\
         resources = [\"arn:aws:s3:::reports/{/key}\"]\n[credential.where]\n\"/key\" = { pattern = \"[a-z]+[.]txt\" }\n";
    let policies = vec![("prober.toml", asks("prober", "probe", terms))];
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let env = vec![("KEY_ID", text("AccessKeyId")), ("KEY", text("SecretAccessKey"))];
    let world = World::with(Settings { more, policies, env, ..Settings::default() }).await;
    let get = |key: &str| json!(["aws", "--endpoint-url", endpoint, "s3api", "get-object", "--bucket", "reports", "--key", key, "/dev/null"]);
    let keep = world.scratch.0.join("keys");
    let arguments = json!({"key": "ada.txt", "run": [get("ada.txt"), get("bob.txt")], "keep": keep});
    let reply = approved(&world, "prober", "probe", arguments).await;
    let seen = said(&reply);
    assert_eq!(seen[0]["code"], 0, "{seen}\n{}", world.log());
    assert!(seen[1]["code"] != 0 && seen[1]["said"].as_str().unwrap().contains("AccessDenied"), "{seen}");
    let lease = lease_is(&world, "lapsing").await;
    assert!(!world.kinds().await.iter().any(|kind| kind == "credential-revoked"), "nobody can revoke it, and nobody says so");
    // The thief has the keys until the second that the record says.
    let kept: Value = serde_json::from_slice(&std::fs::read(&keep).unwrap()).unwrap();
    let steal = || {
        let mut command = Command::new("aws");
        command.args(["--endpoint-url", &endpoint, "s3api", "get-object", "--bucket", "reports", "--key", "ada.txt", "/dev/null"]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"] {
            command.env(name, kept[name].as_str().unwrap());
        }
        command.output().unwrap()
    };
    assert!(steal().status.success());
    tokio::time::sleep(Duration::from_secs(13)).await;
    let late = steal();
    assert!(!late.status.success() && String::from_utf8_lossy(&late.stderr).contains("AccessDenied"), "{late:?} after {lease}");
    lease_is(&world, "expired").await;
    let client = Client::new(&format!("{}/mcp/prober", world.address));
    for key in ["*", "a*.txt", "${aws:username}.txt", "a.txt/../b.txt", "?.txt", "ada.txt\"],\"Resource\":[\"*"] {
        let reply = client.request(json!(1), "tools/call", json!({"name": "probe", "arguments": {"key": key}})).await.unwrap();
        assert!(reply.is_error() && reply.text.contains("NOT executed"), "{key}: {}", reply.text);
    }
    drop(std::fs::remove_file(body));
    world.check().await;
}

/// A server that refuses the first credential gets a second, and never a third.
#[tokio::test]
async fn a_call_that_did_not_go_out_is_tried_once_more() {
    use axum::http::{HeaderMap, StatusCode};
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let (listener, kept) = (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), seen.clone());
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let answer = move |headers: HeaderMap, body: String| {
        let kept = kept.clone();
        async move {
            let message: Value = serde_json::from_str(&body).unwrap();
            let (id, tool) = (message["id"].clone(), message["params"]["name"].as_str().unwrap_or_default().to_owned());
            if message["method"] != "tools/call" {
                let tools = ["once", "never"].map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
                return (
                    StatusCode::OK,
                    [("content-type", "application/json")],
                    json!({"jsonrpc": "2.0", "id": id, "result": {"tools": tools, "resultType": "complete"}}).to_string(),
                );
            }
            let mut kept = kept.lock().unwrap();
            kept.push(headers["authorization"].to_str().unwrap().to_owned());
            let good = tool == "once" && kept.len() == 2;
            let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            // What it heard, in the answer: as it is, and as a header of basic authentication.
            let heard = kept.last().cloned().unwrap_or_default();
            let echo = json!({"heard": heard, "basic": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("x:{heard}"))});
            (
                status,
                [("content-type", "application/json")],
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": [], "resultType": "complete", "_meta": echo}}).to_string(),
            )
        }
    };
    let server = axum::Router::new().route("/mcp", axum::routing::post(answer));
    let _server = tokio::spawn(async move { axum::serve(listener, server).await });
    let terms = "[credential]\nissuer = \"built-in\"\nscope = \"x\"\n";
    let policies = vec![("once.toml", asks("picky", "once", terms)), ("never.toml", asks("picky", "never", terms))];
    let world = World::with(Settings { more: format!("[upstream.picky]\nurl = \"{url}\"\n"), policies, ..Settings::default() }).await;
    let reply = approved(&world, "picky", "once", json!({})).await;
    assert!(!reply.is_error() && reply.status == 200, "{}\n{}", reply.text, world.log());
    let tokens = std::mem::take(&mut *seen.lock().unwrap());
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{tokens:?}");
    let secret = tokens[1].trim_start_matches("Bearer ");
    assert_eq!(reply.text.matches("[credential]").count(), 2, "{}", reply.text);
    for (form, text) in forms(secret) {
        assert!(!reply.text.contains(&text), "{form}");
    }
    let reply = approved(&world, "picky", "never", json!({})).await;
    assert!(reply.is_error() && reply.text.contains("401"), "{}", reply.text);
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert!(leases(&world).len() == 4 && leases(&world).iter().all(|lease| lease["state"] == "revoked"));
    world.check().await;
}

/// Revoking such a token takes the token: after `kill -9` the next gateway has it from the sealed journal.
#[tokio::test]
async fn killed_with_a_token_that_only_it_can_revoke() {
    let Some((_provider, ready)) = start("oauth.mjs", &[]) else { return };
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let more = format!(
        "[credential.as]\nkind = \"oauth\"\nissuer = \"{0}\"\ntoken = \"{0}/token\"\nrevocation = \"{0}/token/revocation\"\n\
         introspection = \"{0}/token/introspection\"\nclient = \"gateway\"\nsecret = {{ env = \"CLIENT_SECRET\" }}\n[upstream.notes]\nurl = \"{1}\"\n",
        text("issuer"),
        text("mcp")
    );
    let terms = format!("[credential]\nissuer = \"as\"\nscope = \"notes:delete\"\n[credential.parameters]\nresource = \"{}\"\n", text("mcp"));
    let policies = vec![("notes.toml", asks("notes", "slow", &terms))];
    let env = vec![("CLIENT_SECRET", "secret-of-the-gateway".to_owned())];
    let mut world = World::with(Settings { more, policies, env, ..Settings::default() }).await;
    let call = tokio::spawn({
        let (client, body) = (
            Client::new(&format!("{}/mcp/notes", world.address)),
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "slow", "arguments": {"id": "n1"}}}),
        );
        async move { drop(client.send(body.to_string(), &[]).await) }
    });
    world.approve(&world.one_waiting().await);
    world.recorded("dispatched").await;
    world.kill();
    call.await.unwrap();
    let seen = || async { reqwest::get(text("seen")).await.unwrap().json::<Value>().await.unwrap() };
    assert_eq!(seen().await["active"], 1, "the gateway is dead, and the token is not");
    let key = std::fs::metadata(world.scratch.0.join("countersign.db.seal")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    world.start();
    lease_is(&world, "revoked").await;
    assert_eq!(seen().await["active"], 0);
    world.check().await;
}

/// An issuer that takes too long may have minted all the same: nothing runs, and what it may have made is revoked.
#[tokio::test]
async fn an_issuer_that_takes_too_long_runs_nothing_and_is_told_to_revoke() {
    let scratch = crate::support::Scratch::new();
    let program = scratch.write(
        "program.py",
        &format!(
            "import json, sys, time\nasked = json.load(sys.stdin)\nopen('{}/' + asked['verb'], 'a').write(asked['lease'] + '\\n')\nif asked['verb'] == 'mint':\n    time.sleep(5)\n",
            scratch.0.display()
        ),
    );
    let more = format!("[credential.own]\nkind = \"exec\"\ncommand = [\"python3\", \"{}\"]\ntimeout = \"1s\"\n", program.display());
    let terms = "[credential]\nissuer = \"own\"\nscope = \"x\"\n";
    let policies = vec![("refund_payment.toml", asks("ledger", "refund_payment", terms))];
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let reply = approved(&world, "ledger", "refund_payment", crate::support::refund(8000)).await;
    assert!(reply.is_error() && reply.text.contains("could not be minted"), "{}", reply.text);
    assert_eq!(world.received_of("refund_payment").await, 0);
    let lease = lease_is(&world, "revoked").await;
    let (asked, revoked) = (std::fs::read_to_string(scratch.0.join("mint")).unwrap(), std::fs::read_to_string(scratch.0.join("revoke")).unwrap());
    assert_eq!((asked.trim(), revoked.trim()), (lease["lease"].as_str().unwrap(), lease["lease"].as_str().unwrap()));
    let kinds = world.kinds().await;
    assert!(kinds.iter().any(|kind| kind == "mint-failed") && !kinds.iter().any(|kind| kind == "minted"), "{kinds:?}");
    world.check().await;
}

/// An issuer that takes its time to revoke does not keep the answer from its caller.
#[tokio::test]
async fn an_issuer_that_revokes_slowly_keeps_no_answer_back() {
    let scratch = crate::support::Scratch::new();
    let program = scratch.write(
        "program.py",
        "import json, sys, time, datetime\nasked = json.load(sys.stdin)\nif asked['verb'] == 'mint':\n    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20)\n    print(json.dumps({'fields': {'secret': 'of one call'}, 'expires_at': until.isoformat()}))\nelse:\n    time.sleep(6)\n",
    );
    let issuer = format!("[credential.own]\nkind = \"exec\"\ncommand = [\"python3\", \"{}\"]\n", program.display());
    let Some(more) = prober(&issuer) else { return };
    let policies = vec![("prober.toml", asks("prober", "show", "[credential]\nissuer = \"own\"\nscope = \"x\"\nttl = \"30s\"\n"))];
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let reply = approved(&world, "prober", "show", json!({"a": 1})).await;
    assert_eq!(said(&reply)["arguments"]["a"], 1, "{}", reply.text);
    assert_eq!(leases(&world)[0]["state"], "minted", "the answer did not wait");
    lease_is(&world, "revoked").await;
    world.check().await;
}

/// A server that never answers does not keep its credential, its file or its process: they end with the call.
#[tokio::test]
async fn a_child_that_never_answers_ends_with_its_credential() {
    let Some(more) = prober("") else { return };
    let terms = "[credential]\nissuer = \"built-in\"\nscope = \"x\"\nttl = \"5s\"\nfile = { TOKEN_FILE = \"{secret}\" }\n";
    let policies = vec![("prober.toml", asks("prober", "hang", terms))];
    let world = World::with(Settings { more, policies, ..Settings::default() }).await;
    let into = world.scratch.0.join("pid");
    let reply = approved(&world, "prober", "hang", json!({"into": into})).await;
    assert!(reply.is_error() && reply.state() == "outcome-unknown", "{}", reply.text);
    let pid = std::fs::read_to_string(&into).unwrap();
    lease_is(&world, "revoked").await;
    let until = Instant::now() + Duration::from_secs(10);
    let process = std::path::PathBuf::from(format!("/proc/{pid}/environ"));
    let files = || std::fs::read_dir(world.scratch.0.join("countersign.db.instances")).unwrap().flatten().filter(|e| e.path().is_dir());
    let left = || files().flat_map(|directory| std::fs::read_dir(directory.path()).unwrap()).count();
    // A process that was waited for is gone; one that was not has no environment any more.
    while std::fs::read(&process).is_ok_and(|environment| !environment.is_empty()) || left() > 0 {
        assert!(Instant::now() < until, "{pid} lives, and {} directories with files are left", left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.check().await;
}
