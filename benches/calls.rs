//! What a call that policy allows costs end to end, and what a held call weighs.
//!
//! `cargo bench --bench calls`. Interleaved in one run, each part a process of its own: the upstream alone (`direct`), a
//! bare HTTP proxy that only buffers and scans the JSON (`bare`), and Countersign with judging and the audit record on;
//! the same over stdio. Then a thousand calls are held at once, and the gateway's memory is read.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a program of its own that measures"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 15;
const CALLS: usize = 300;
const HELD: usize = 1000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => upstream().await,
        Some("bare") => bare(&arguments[2]).await,
        Some("stdio-upstream") => stdio_upstream(),
        _ => measure().await,
    }
}

/// The answer of the server under all of this: one tool that looks, one that changes.
fn answer(message: &Value) -> Option<Value> {
    let result = match message["method"].as_str()? {
        "initialize" => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}})
        }
        "tools/list" => json!({"tools": [
            {"name": "get_thing", "inputSchema": {"type": "object", "properties": {"id": {"type": "string"}, "note": {"type": "string"}}}},
            {"name": "delete_thing", "inputSchema": {"type": "object", "properties": {"id": {"type": "string"}}}},
        ]}),
        "tools/call" => json!({"content": [{"type": "text", "text": message["params"]["arguments"]["id"]}]}),
        _ => return None,
    };
    Some(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

async fn serve(router: axum::Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn upstream() {
    let handler = |body: Bytes| async move {
        let message: Value = serde_json::from_slice(&body).unwrap();
        match answer(&message) {
            Some(answer) => ([("content-type", "application/json")], answer.to_string()).into_response(),
            None => axum::http::StatusCode::ACCEPTED.into_response(),
        }
    };
    serve(axum::Router::new().route("/mcp", axum::routing::post(handler))).await;
}

fn stdio_upstream() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(answer) = answer(&message) {
            writeln!(out, "{answer}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// What any proxy has to do at least: read the body, scan its JSON once, send it on, and hand the answer back.
async fn bare(to: &str) {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read to be scanned")]
    struct Scanned<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        method: Option<String>,
        params: Option<IgnoredAny>,
    }
    type Client = hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;
    async fn pass(State((client, url)): State<(Client, String)>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let _: Scanned<'_> = serde_json::from_slice(&body).unwrap();
        let mut forwarded = hyper::Request::post(url);
        for name in ["content-type", "accept"] {
            if let Some(value) = head.headers.get(name) {
                forwarded = forwarded.header(name, value);
            }
        }
        let response = client.request(forwarded.body(Full::new(body)).unwrap()).await.unwrap();
        response.map(Body::new)
    }
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(connector);
    serve(axum::Router::new().route("/mcp", axum::routing::post(pass)).with_state((client, to.to_owned()))).await;
}

/// A process that is gone after the measurement.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Part {
    /// Starts this program in another role; answers where it listens.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap()).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line.trim().to_owned())
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn countersign() -> &'static str {
    env!("CARGO_BIN_EXE_countersign")
}

/// A configuration with a policy that lets `get_thing` through and asks for everything else.
fn configuration(directory: &std::path::Path, upstream: &str) -> PathBuf {
    let policies = directory.join("tool-policies/bench");
    std::fs::create_dir_all(&policies).unwrap();
    let policy = "server = \"bench\"\ntool = \"get_thing\"\neffect = \"read\"\n[arguments]\n\"/note\" = { role = \"text\" }\n[approval]\ntwo-from = \"never\"\n";
    std::fs::write(policies.join("get_thing.toml"), policy).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\n[hold]\nbudget = \"10m\"\n[approver.anna]\n[caller.local]\n[upstream.bench]\nurl = \"{upstream}\"\n"
    );
    let file = directory.join("countersign.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn gateway(config: &PathBuf) -> (Part, String) {
    let mut child = Command::new(countersign()).args(["serve", "--config"]).arg(config).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("listening mcp ").map(str::to_owned)).unwrap();
    lines.find(|line| line.as_ref().unwrap().starts_with("listening inbox")).unwrap().unwrap();
    (Part(child), url)
}

/// One connection that sends one call after the other.
struct Load(hyper::client::conn::http1::SendRequest<Full<Bytes>>, String);

impl Load {
    async fn open(url: &str) -> Self {
        let authority = url.split('/').nth(2).unwrap();
        let stream = TcpStream::connect(authority).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(sender, authority.to_owned())
    }

    fn request(&self, path: &str, tool: &str, number: usize) -> hyper::Request<Full<Bytes>> {
        let arguments = json!({"id": format!("thing-{number}"), "note": "an ordinary sentence of the kind that agents write"});
        let body = json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        let body = Full::new(Bytes::from(body.to_string()));
        let request = hyper::Request::post(path).header("host", &self.1).header("content-type", "application/json");
        request.header("accept", "application/json, text/event-stream").body(body).unwrap()
    }

    /// The times of `CALLS` calls in microseconds.
    async fn times(&mut self, path: &str) -> Vec<f64> {
        let mut times = Vec::with_capacity(CALLS);
        for number in 0..CALLS {
            let request = self.request(path, "get_thing", number);
            self.0.ready().await.unwrap();
            let start = Instant::now();
            let response = self.0.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            times.push(start.elapsed().as_secs_f64() * 1e6);
            assert!(body.windows(6).any(|w| w == b"thing-") && !body.windows(7).any(|w| w == b"isError"));
        }
        times
    }
}

fn percentile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * part) as usize]
}

/// Medians over rounds of p50 and p99, in microseconds.
fn summary(rounds: &[Vec<f64>]) -> (f64, f64) {
    let of = |part| percentile(&mut rounds.iter().map(|times| percentile(&mut times.clone(), part)).collect::<Vec<_>>(), 0.5);
    (of(0.5), of(0.99))
}

async fn measure() {
    let directory = std::env::temp_dir().join(format!("countersign-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (_upstream, address) = Part::start(&["upstream"]);
    let direct = format!("http://{address}/mcp");
    let (_bare, bare) = Part::start(&["bare", &direct]);
    let (gateway, url) = gateway(&configuration(&directory, &direct));
    let targets = [("direct", direct.clone()), ("bare", format!("http://{bare}/mcp")), ("countersign", url.clone())];
    let mut loads = Vec::new();
    for (_, url) in &targets {
        loads.push(Load::open(url).await);
    }
    let mut results = vec![Vec::new(); targets.len()];
    for round in 0..=ROUNDS {
        for turn in 0..targets.len() {
            let n = (turn + round) % targets.len();
            let path = if n == 2 { "/mcp/bench" } else { "/mcp" };
            let times = loads[n].times(path).await;
            // The first round warms up.
            if round > 0 {
                results[n].push(times);
            }
        }
    }
    println!("one call at a time over http, {ROUNDS} rounds of {CALLS}, interleaved; microseconds");
    println!("{:<14} {:>8} {:>8} {:>12} {:>12}", "target", "p50", "p99", "added p50", "added p99");
    let base = summary(&results[0]);
    let mut added = Vec::new();
    for ((name, _), rounds) in targets.iter().zip(&results) {
        let (p50, p99) = summary(rounds);
        added.push(p50 - base.0);
        println!("{name:<14} {p50:>8.0} {p99:>8.0} {:>12.0} {:>12.0}", p50 - base.0, p99 - base.1);
    }
    println!("countersign adds {:.2} times what the bare proxy adds at p50", added[2] / added[1]);
    stdio(&directory);
    held(&gateway, &url).await;
    drop(gateway);
    std::fs::remove_dir_all(directory).unwrap();
}

/// The same over pipes.
fn stdio(directory: &std::path::Path) {
    let this = std::env::current_exe().unwrap();
    let config = directory.join("countersign.toml");
    let mut direct = Command::new(&this);
    direct.arg("stdio-upstream");
    let mut wrapped = Command::new(countersign());
    wrapped.arg("--config").arg(config).args(["wrap", "--server", "bench", "--"]).arg(&this).arg("stdio-upstream");
    let mut pipes = Vec::new();
    for command in [&mut direct, &mut wrapped] {
        let mut part = Part(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut stdin = part.0.stdin.take().unwrap();
        let mut stdout = BufReader::new(part.0.stdout.take().unwrap());
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})).unwrap();
        stdout.read_line(&mut String::new()).unwrap();
        pipes.push((part, stdin, stdout));
    }
    let mut results = vec![Vec::new(); 2];
    for round in 0..=ROUNDS {
        for turn in 0..2 {
            let n = (turn + round) % 2;
            let (_, stdin, stdout) = &mut pipes[n];
            let mut times = Vec::with_capacity(CALLS);
            for number in 0..CALLS {
                let params = json!({"name": "get_thing", "arguments": {"id": format!("thing-{number}"), "note": "an ordinary sentence"}});
                let line = json!({"jsonrpc": "2.0", "id": number + 1, "method": "tools/call", "params": params}).to_string();
                let mut answer = String::new();
                let start = Instant::now();
                writeln!(stdin, "{line}").unwrap();
                stdout.read_line(&mut answer).unwrap();
                times.push(start.elapsed().as_secs_f64() * 1e6);
                assert!(answer.contains("thing-") && !answer.contains("isError"), "{answer}");
            }
            if round > 0 {
                results[n].push(times);
            }
        }
    }
    println!("\nthe same over stdio");
    let base = summary(&results[0]);
    for (name, rounds) in ["direct", "countersign"].iter().zip(&results) {
        let (p50, p99) = summary(rounds);
        println!("{name:<14} {p50:>8.0} {p99:>8.0} {:>12.0} {:>12.0}", p50 - base.0, p99 - base.1);
    }
}

/// Memory of calls that wait for a person.
async fn held(gateway: &Part, url: &str) {
    let before = gateway.memory();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..HELD {
        let mut load = Load::open(url).await;
        let request = load.request("/mcp/bench", "delete_thing", number);
        waiting.spawn(async move {
            load.0.ready().await.unwrap();
            let response = load.0.send_request(request).await.unwrap();
            drop(response.into_body().collect().await);
        });
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = gateway.memory();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // All wait once the memory stands still.
        if gateway.memory().abs_diff(now) < 64 || Instant::now() > deadline {
            break;
        }
    }
    let after = gateway.memory();
    println!("\n{HELD} calls held at once: {} KiB before, {} KiB after, {:.1} KiB each", before, after, (after - before) as f64 / HELD as f64);
    waiting.abort_all();
}
