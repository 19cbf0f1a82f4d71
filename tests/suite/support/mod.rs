//! Real parts: a gateway process, the sample ledger with its own record, an HTTP client that speaks MCP, and the
//! invariant that must hold after every call.

pub mod fake_slack;
pub mod invariant;
pub mod mcp;
pub mod postgres;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign::sample::{LedgerOptions, Trust, serve_http};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The program under test.
pub fn countersign() -> &'static str {
    env!("CARGO_BIN_EXE_countersign")
}

/// The sample ledger as a program of its own; cargo builds examples with the tests.
pub fn ledger_server() -> PathBuf {
    let path = Path::new(countersign()).parent().unwrap().join("examples/ledger_server");
    assert!(path.exists(), "{} is missing: cargo test builds it", path.display());
    path
}

/// How often a test with chance in it runs: `COUNTERSIGN_TEST_RUNS`, or a few times.
pub fn runs() -> usize {
    std::env::var("COUNTERSIGN_TEST_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Whether the tests that want `what` must run: then its absence is a failure.
pub fn required(what: &str) -> bool {
    std::env::var("COUNTERSIGN_TEST_REQUIRE").unwrap_or_default().split(',').any(|name| name.trim() == what)
}

/// A port that nothing has, and that is free again after a gateway was killed: below those that a system gives to connections
/// that go out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = (0..10_000).map(|_| {
        let next = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(10_000 + next % 20_000).unwrap()
    });
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A directory that is gone after the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("countersign-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a world is made of.
pub struct Settings {
    /// More lines for `countersign.toml`.
    pub more: String,
    /// More lines for `[listen]`.
    pub listen: String,
    /// `[hold]`.
    pub hold: String,
    /// Policy files beside the shipped ones, `name -> text`; a shipped one of that name gives way.
    pub policies: Vec<(&'static str, String)>,
    /// Whether the ledger is a child of the gateway; else it is HTTP.
    pub child: bool,
    /// Whether callers are `[caller.local]` with this owner.
    pub owner: &'static str,
    /// `[approver.…]`.
    pub approvers: String,
    /// Variables of the gateway.
    pub env: Vec<(&'static str, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        let hold = "budget = \"20s\"\nbudget-with-progress = \"20s\"\nprogress-every = \"1s\"\nrounds = 0\n".to_owned();
        let approvers = "[approver.anna]\n[approver.bert]\n[approver.olga]\n".to_owned();
        Self { more: String::new(), listen: String::new(), hold, policies: Vec::new(), child: false, owner: "olga", approvers, env: Vec::new() }
    }
}

/// A ledger, a gateway in front of it, and where their records are.
pub struct World {
    pub scratch: Scratch,
    pub address: String,
    pub ledger_url: String,
    pub config: PathBuf,
    pub gateway: Option<Child>,
    pub leak: Arc<Mutex<Option<String>>>,
    pub stderr: PathBuf,
    pub env: Vec<(&'static str, String)>,
    /// Whether the gateway says all that it can.
    pub verbose: bool,
    stop: CancellationToken,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let scratch = Scratch::new();
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tool-policies/ledger");
        for entry in std::fs::read_dir(policies).unwrap() {
            let entry = entry.unwrap();
            let name = format!("tool-policies/ledger/{}", entry.file_name().to_string_lossy());
            scratch.write(&name, &std::fs::read_to_string(entry.path()).unwrap());
        }
        for (name, text) in &settings.policies {
            scratch.write(&format!("tool-policies/ledger/{name}"), text);
        }
        // The gateway must come back to the same port after it was killed.
        let port = free_port();
        let address = format!("http://127.0.0.1:{port}");
        scratch.write("introspection.secret", "a secret for introspection\n");
        let database = scratch.0.join("ledger.db");
        let leak = Arc::new(Mutex::new(None));
        let stop = CancellationToken::new();
        let (upstream, ledger_url) = if settings.child {
            let text = format!(
                "command = [\"{}\"]\naudience = \"ledger\"\nenv = {{ LEDGER_DB = \"{}\", LEDGER_ISSUER = \"{address}\", LEDGER_AUDIENCE = \"ledger\", \
                 LEDGER_INTROSPECTION = {{ file = \"{}\" }} }}\n",
                ledger_server().display(),
                database.display(),
                scratch.0.join("introspection.secret").display()
            );
            (text, String::new())
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/mcp", listener.local_addr().unwrap());
            let trust = Trust { issuer: address.clone(), audience: url.clone(), introspection: "a secret for introspection".into() };
            let options = LedgerOptions { database, trust: Some(trust), credential: None, leak: Some(leak.clone()) };
            tokio::spawn(serve_http(options, listener, stop.clone()));
            (format!("url = \"{url}\"\n"), url)
        };
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n{}[hold]\n{}\n{}[caller.local]\nowner = \"{}\"\n\
             [credential.built-in]\nkind = \"signed-jwt\"\n[upstream.ledger]\n{upstream}introspection = {{ file = \"{}\" }}\n{}\n",
            settings.listen,
            if settings.hold.contains("rounds") { settings.hold } else { settings.hold + "\nrounds = 0\n" },
            settings.approvers,
            settings.owner,
            scratch.0.join("introspection.secret").display(),
            settings.more
        );
        let config = scratch.write("countersign.toml", &text);
        let stderr = scratch.0.join("stderr");
        let mut world = Self { scratch, address, ledger_url, config, gateway: None, leak, stderr, env: settings.env, verbose: false, stop };
        world.start();
        world
    }

    /// Starts the gateway and waits until it says that it is ready.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.stderr).unwrap();
        let mut child = Command::new(countersign())
            .args(if self.verbose { &["--verbose", "serve", "--config"][..] } else { &["serve", "--config"] })
            .arg(&self.config)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().any(|line| line.is_ok_and(|line| line.starts_with("listening inbox")));
        assert!(ready, "the gateway did not start:\n{}", self.log());
        self.gateway = Some(child);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            drop(gateway.kill());
            drop(gateway.wait());
        }
    }

    /// Ends the gateway as an operator does.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut gateway = self.gateway.take().unwrap();
        let pid = rustix::process::Pid::from_child(&gateway);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        gateway.wait().unwrap()
    }

    pub fn mcp(&self) -> String {
        format!("{}/mcp/ledger", self.address)
    }

    /// Runs the program with this world's configuration.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(countersign())
            .args(["--config"])
            .arg(&self.config)
            .args(arguments)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    /// What waits, from the terminal's list.
    pub fn waiting(&self) -> Vec<Value> {
        let (code, text) = self.run(&["approvals", "list", "--json"]);
        assert_eq!(code, 0, "{text}");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|value| value["state"] == "pending").collect()
    }

    /// The one call that waits; waits for it.
    pub async fn one_waiting(&self) -> Value {
        self.some_waiting(1).await.remove(0)
    }

    pub async fn some_waiting(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let waiting = self.waiting();
            if waiting.len() >= count {
                return waiting;
            }
            assert!(Instant::now() < until, "{} of {count} calls wait:\n{}", waiting.len(), self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Decides from the terminal.
    pub fn decide(&self, verdict: &str, id: &str, approver: &str) -> (i32, String) {
        self.run(&["approvals", verdict, id, "--as", approver, "--yes", "--reason", "a test"])
    }

    pub fn approve(&self, waiting: &Value) {
        let (code, text) = self.decide("approve", waiting["id"].as_str().unwrap(), "anna");
        assert_eq!(code, 0, "{text}");
    }

    pub fn deny(&self, waiting: &Value) {
        let (code, text) = self.decide("deny", waiting["id"].as_str().unwrap(), "anna");
        assert_eq!(code, 0, "{text}");
    }

    /// Everything the ledger received: tool, arguments, outcome.
    pub async fn received(&self) -> Vec<(String, Value, String)> {
        let rows: Vec<(String, String, String)> =
            self.query(&self.scratch.0.join("ledger.db"), "SELECT tool, arguments, outcome FROM received ORDER BY id").await;
        rows.into_iter().map(|(tool, arguments, outcome)| (tool, serde_json::from_str(&arguments).unwrap(), outcome)).collect()
    }

    /// How often the ledger received `tool`.
    pub async fn received_of(&self, tool: &str) -> usize {
        self.received().await.iter().filter(|(name, ..)| name == tool).count()
    }

    /// How often the ledger did what `tool` does, not only received it.
    pub async fn done_of(&self, tool: &str) -> usize {
        self.received().await.iter().filter(|(name, _, outcome)| name == tool && outcome == "done").count()
    }

    /// Waits until something of `kind` is recorded.
    pub async fn recorded(&self, kind: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.kinds().await.iter().any(|recorded| recorded == kind) {
            assert!(Instant::now() < until, "nothing of kind {kind} was recorded:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The kinds of all records, in order.
    pub async fn kinds(&self) -> Vec<String> {
        let rows: Vec<(String,)> = self.query(&self.store(), "SELECT kind FROM audit ORDER BY seq").await;
        rows.into_iter().map(|(kind,)| kind).collect()
    }

    pub fn store(&self) -> PathBuf {
        self.scratch.0.join("countersign.db")
    }

    pub async fn query<T>(&self, file: &Path, query: &'static str) -> Vec<T>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin,
    {
        query_file(file, query).await
    }

    /// The invariant holds. What lies in the spool is moved first.
    pub async fn check(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        invariant::check(&self.store(), &self.scratch.0.join("ledger.db")).await;
    }
}

pub async fn query_file<T>(file: &Path, query: &'static str) -> Vec<T>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin,
{
    use sqlx::ConnectOptions;
    if !file.exists() {
        return Vec::new();
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
    let mut connection = options.connect().await.unwrap();
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name IN ('received', 'audit')").fetch_one(&mut connection).await.unwrap();
    if tables == 0 && query.starts_with("SELECT") {
        // Just being made: nothing is in it.
        return Vec::new();
    }
    let rows = sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    rows
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill();
    }
}

pub const IBAN: &str = "DE02120300000000202051";

/// A refund that one person must approve.
pub fn refund(cents: u32) -> Value {
    let amount = f64::from(cents) / 100.0;
    serde_json::json!({"payment_id": "pay-1", "amount": amount, "currency": "EUR", "iban": IBAN})
}
