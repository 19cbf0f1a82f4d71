//! What a call that policy allows costs end to end, and what a held call weighs.
//!
//! `cargo bench --bench calls`. Interleaved in one run, each part a process of its own: the upstream alone (`direct`), a
//! bare HTTP proxy that only buffers and scans the JSON (`bare`), and Countersign with judging and the audit record on, in
//! front of a server over HTTP and of a child; the same over stdio. One call at a time, many in flight with the processor time of
//! the proxy, and arguments of 1 MB. Then 10,000 sessions idle, 10,000 calls are held at once, over HTTP and on a pipe, and the
//! gateway's memory is read.
//!
//! On a machine whose cores fall asleep between two calls, half of what is measured is their waking up: `--awake` keeps each core
//! awake with a process of the lowest priority.

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
/// Sessions that idle, and calls that are held.
const MANY: usize = 10_000;
/// Calls in flight where the processor's time is counted, and where calls a second are.
const FLIGHTS: [usize; 2] = [32, 64];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => upstream().await,
        Some("bare") => bare(&arguments[2]).await,
        Some("stdio-upstream") => stdio_upstream(),
        Some("awake") => loop {
            std::hint::spin_loop();
        },
        _ => measure(arguments.iter().any(|argument| argument == "--awake")).await,
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
            Some(answer) if message["method"] == "initialize" => {
                static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
                let session = format!("{:032x}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                ([("content-type", "application/json"), ("mcp-session-id", &session)], answer.to_string()).into_response()
            }
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

    /// Time of the processor that it took so far, in microseconds.
    fn busy(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let of = |path: PathBuf| -> f64 {
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
        };
        threads.flatten().map(|thread| of(thread.path())).sum()
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
    std::fs::write(policies.join("child.toml"), policy.replace("\"bench\"", "\"child\"")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\ncalls-per-caller = 20000\nsessions = 20000\nsessions-per-caller = 20000\n[hold]\nbudget = \"30m\"\npending-per-caller = 20000\n\
         [approver.anna]\n[caller.local]\n[upstream.bench]\nurl = \"{upstream}\"\n[upstream.child]\ncommand = [\"{}\", \"stdio-upstream\"]\n",
        std::env::current_exe().unwrap().display()
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
struct Load(hyper::client::conn::http1::SendRequest<Full<Bytes>>, String, Option<String>);

impl Load {
    async fn open(url: &str) -> Self {
        let authority = url.split('/').nth(2).unwrap();
        let stream = TcpStream::connect(authority).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(sender, authority.to_owned(), None)
    }

    /// Opens a session where the server has them.
    async fn greet(&mut self, path: &str) {
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).to_string();
        let request = hyper::Request::post(path).header("host", &self.1).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream").body(Full::new(Bytes::from(body))).unwrap();
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        self.2 = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        response.into_body().collect().await.unwrap();
    }

    async fn send(&mut self, request: hyper::Request<Full<Bytes>>) -> Bytes {
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap().to_bytes()
    }

    fn request(&self, path: &str, tool: &str, number: usize) -> hyper::Request<Full<Bytes>> {
        self.noted(path, tool, number, "an ordinary sentence of the kind that agents write")
    }

    fn noted(&self, path: &str, tool: &str, number: usize, note: &str) -> hyper::Request<Full<Bytes>> {
        let arguments = json!({"id": format!("thing-{number}"), "note": note});
        let body = json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        let body = Full::new(Bytes::from(body.to_string()));
        let mut request = hyper::Request::post(path).header("host", &self.1).header("content-type", "application/json");
        if let Some(session) = &self.2 {
            request = request.header("mcp-session-id", session);
        }
        request.header("accept", "application/json, text/event-stream").body(body).unwrap()
    }

    /// The times of `CALLS` calls in microseconds.
    async fn times(&mut self, path: &str) -> Vec<f64> {
        let mut times = Vec::with_capacity(CALLS);
        for number in 0..CALLS {
            // The id 0 is that of the greeting.
            let request = self.request(path, "get_thing", number + 1);
            let start = Instant::now();
            let body = self.send(request).await;
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

/// Something that takes calls over HTTP.
struct Target {
    name: &'static str,
    url: String,
    path: &'static str,
    process: Option<u32>,
}

async fn measure(awake: bool) {
    let directory = std::env::temp_dir().join(format!("countersign-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let spinning = if awake { std::thread::available_parallelism().unwrap().get() } else { 0 };
    let _awake: Vec<Part> = (0..spinning).map(|core| Part(keep_awake(core))).collect();
    let (upstream, address) = Part::start(&["upstream"]);
    let direct = format!("http://{address}/mcp");
    let (bare, bare_at) = Part::start(&["bare", &direct]);
    let (gateway, url) = gateway(&configuration(&directory, &direct));
    let target = |name, url: &str, path, part: Option<&Part>| Target { name, url: url.to_owned(), path, process: part.map(|part| part.0.id()) };
    let targets = [
        target("direct", &direct, "/mcp", None),
        target("bare", &format!("http://{bare_at}/mcp"), "/mcp", Some(&bare)),
        target("countersign", &url, "/mcp/bench", Some(&gateway)),
        target("to a child", &url, "/mcp/child", Some(&gateway)),
    ];
    let mut loads = Vec::new();
    for target in &targets {
        let mut load = Load::open(&target.url).await;
        if target.path.ends_with("child") {
            load.greet(target.path).await;
        }
        loads.push(load);
    }
    let mut results = vec![Vec::new(); targets.len()];
    for round in 0..=ROUNDS {
        for turn in 0..targets.len() {
            let n = (turn + round) % targets.len();
            let times = loads[n].times(targets[n].path).await;
            // The first round warms up.
            if round > 0 {
                results[n].push(times);
            }
        }
    }
    println!("one call at a time over http, {ROUNDS} rounds of {CALLS}, interleaved; microseconds{}", if awake { "; cores kept awake" } else { "" });
    println!("{:<14} {:>8} {:>8} {:>12} {:>12}", "target", "p50", "p99", "added p50", "added p99");
    let base = summary(&results[0]);
    let mut added = Vec::new();
    for (target, rounds) in targets.iter().zip(&results) {
        let (p50, p99) = summary(rounds);
        added.push(p50 - base.0);
        println!("{:<14} {p50:>8.0} {p99:>8.0} {:>12.0} {:>12.0}", target.name, p50 - base.0, p99 - base.1);
    }
    println!("countersign adds {:.2} times what the bare proxy adds at p50", added[2] / added[1]);
    for flight in FLIGHTS {
        println!("\n{flight} in flight; calls a second, and microseconds of the proxy's processor time a call");
        for target in &targets {
            let part = [&bare, &gateway].into_iter().find(|part| Some(part.0.id()) == target.process);
            let mut runs: Vec<(f64, f64)> = Vec::new();
            for _ in 0..5 {
                runs.push(crowd(target, flight, part).await);
            }
            let median = |of: fn(&(f64, f64)) -> f64| percentile(&mut runs.iter().map(of).collect::<Vec<_>>(), 0.5);
            println!("{:<14} {:>8.0} {:>8.0}", target.name, median(|run| run.0), median(|run| run.1));
        }
    }
    long(&targets[..3]).await;
    stdio(&directory);
    drop((loads, gateway, bare));
    // Each with a gateway that has done nothing before: what an earlier part of this needed would hide what this one needs.
    let (idle, url) = self::gateway(&configuration(&directory, &direct));
    sessions(&idle, &url).await;
    drop(idle);
    let (full, url) = self::gateway(&configuration(&directory, &direct));
    held(&full, &url).await;
    drop(full);
    held_on_a_pipe(&directory);
    drop(upstream);
    std::fs::remove_dir_all(directory).unwrap();
}

/// A process that runs whenever nothing else does on that core.
fn keep_awake(core: usize) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), "chrt", "-i", "0"]).arg(this).arg("awake");
    command.spawn().unwrap()
}

/// Many calls in flight, each on a connection of its own: calls a second, and the processor time that `part` took for each.
async fn crowd(target: &Target, flight: usize, part: Option<&Part>) -> (f64, f64) {
    const EACH: usize = 100;
    let mut loads = Vec::new();
    let session = match target.path.ends_with("child") {
        true => {
            let mut load = Load::open(&target.url).await;
            load.greet(target.path).await;
            load.2
        }
        false => None,
    };
    for _ in 0..flight {
        let mut load = Load::open(&target.url).await;
        load.2.clone_from(&session);
        loads.push(load);
    }
    let busy = part.map_or(0.0, Part::busy);
    let start = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for (lane, mut load) in loads.into_iter().enumerate() {
        let path = target.path;
        all.spawn(async move {
            for number in 0..EACH {
                let request = load.request(path, "get_thing", 1 + lane * EACH + number);
                let body = load.send(request).await;
                assert!(!body.windows(7).any(|w| w == b"isError"), "{}", String::from_utf8_lossy(&body));
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    let calls = (flight * EACH) as f64;
    (calls / start.elapsed().as_secs_f64(), part.map_or(0.0, |part| part.busy() - busy) / calls)
}

/// Arguments of 1 MB.
async fn long(targets: &[Target]) {
    let note = "an ordinary sentence of the kind that agents write. ".repeat(20_000);
    let mut results = vec![Vec::new(); targets.len()];
    let mut loads = Vec::new();
    for target in targets {
        loads.push(Load::open(&target.url).await);
    }
    for round in 0..12 {
        for (n, target) in targets.iter().enumerate() {
            let request = loads[n].noted(target.path, "get_thing", round, &note);
            let start = Instant::now();
            loads[n].send(request).await;
            if round > 1 {
                results[n].push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let medians: Vec<f64> = results.iter_mut().map(|times| percentile(times, 0.5)).collect();
    println!("\narguments of 1 MB, one call at a time; microseconds");
    for (target, median) in targets.iter().zip(&medians) {
        println!("{:<14} {median:>8.0} {:>12.0}", target.name, median - medians[0]);
    }
    println!("countersign adds {:.2} times what the bare proxy adds", (medians[2] - medians[0]) / (medians[1] - medians[0]));
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
    let busy = pipes[1].0.busy();
    let (_, stdin, stdout) = &mut pipes[1];
    for number in 0..3200 {
        let params = json!({"name": "get_thing", "arguments": {"id": format!("thing-{number}"), "note": "an ordinary sentence"}});
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": number + 1, "method": "tools/call", "params": params})).unwrap();
        // 32 in flight.
        if number >= 32 {
            stdout.read_line(&mut String::new()).unwrap();
        }
    }
    for _ in 0..32 {
        stdout.read_line(&mut String::new()).unwrap();
    }
    let busy = (pipes[1].0.busy() - busy) / 3200.0;
    println!("\nthe same over stdio; with 32 in flight {busy:.0} microseconds of the proxy's processor time a call");
    let base = summary(&results[0]);
    for (name, rounds) in ["direct", "countersign"].iter().zip(&results) {
        let (p50, p99) = summary(rounds);
        println!("{name:<14} {p50:>8.0} {p99:>8.0} {:>12.0} {:>12.0}", p50 - base.0, p99 - base.1);
    }
}

/// Waits until the memory stands still.
async fn settled(gateway: &Part) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let before = gateway.memory();
        tokio::time::sleep(Duration::from_millis(2000)).await;
        let after = gateway.memory();
        if after.abs_diff(before) < 128 || Instant::now() > deadline {
            return after;
        }
    }
}

fn told(what: &str, before: u64, after: u64) {
    println!("\n{MANY} {what}: {before} KiB before, {after} KiB after, {:.1} KiB each", after.saturating_sub(before) as f64 / MANY as f64);
}

/// Memory of sessions that idle.
async fn sessions(gateway: &Part, url: &str) {
    let mut load = Load::open(url).await;
    let before = gateway.memory();
    let mut opened = 0;
    for _ in 0..MANY {
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).to_string();
        let request = hyper::Request::post("/mcp/bench").header("host", &load.1).header("content-type", "application/json");
        let request = request.header("accept", "application/json").body(Full::new(Bytes::from(body))).unwrap();
        load.0.ready().await.unwrap();
        let response = load.0.send_request(request).await.unwrap();
        opened += usize::from(response.status() == 200);
        response.into_body().collect().await.unwrap();
    }
    let after = settled(gateway).await;
    println!("\n{opened} idle sessions: {before} KiB before, {after} KiB after, {:.2} KiB each", after.saturating_sub(before) as f64 / opened as f64);
}

/// Memory of calls that wait for a person.
async fn held(gateway: &Part, url: &str) {
    let before = settled(gateway).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..MANY {
        let mut load = Load::open(url).await;
        let request = load.request("/mcp/bench", "delete_thing", number);
        waiting.spawn(async move {
            load.0.ready().await.unwrap();
            let response = load.0.send_request(request).await.unwrap();
            drop(response.into_body().collect().await);
        });
    }
    let after = settled(gateway).await;
    assert_eq!(waiting.len(), MANY);
    told("calls held at once over http", before, after);
    waiting.abort_all();
}

/// The same on a pipe.
fn held_on_a_pipe(directory: &std::path::Path) {
    let this = std::env::current_exe().unwrap();
    let mut wrapped = Command::new(countersign());
    wrapped.arg("--config").arg(directory.join("countersign.toml")).args(["wrap", "--server", "pipe", "--"]).arg(&this).arg("stdio-upstream");
    let mut part = Part(wrapped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut stdin = part.0.stdin.take().unwrap();
    let mut stdout = BufReader::new(part.0.stdout.take().unwrap());
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})).unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    let still = |part: &Part| loop {
        let before = part.memory();
        std::thread::sleep(Duration::from_secs(2));
        if part.memory().abs_diff(before) < 128 {
            return part.memory();
        }
    };
    let before = still(&part);
    for number in 1..=MANY {
        let params = json!({"name": "delete_thing", "arguments": {"id": format!("thing-{number}")}});
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})).unwrap();
    }
    told("calls held at once on a pipe", before, still(&part));
}
