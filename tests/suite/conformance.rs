//! The official conformance suite against a server that passes it, and against the same server behind the gateway: what
//! the suite finds must be the same, check by check.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::clients::modern_node;
use crate::support::{Settings, World, ledger_server};

const SUITE: &str = "node_modules/@modelcontextprotocol/conformance/dist/index.js";

/// The fixture server, over HTTP.
pub struct Server {
    process: Child,
    pub url: String,
}

/// The fixture server's program.
pub fn fixture() -> PathBuf {
    ledger_server().with_file_name("conformance_server")
}

impl Server {
    pub fn start() -> Self {
        let mut process = Command::new(fixture()).args(["--http", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening mcp ").unwrap().to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Every check of the suite against `url`, with what came of it.
fn found(url: &str, set: &str, into: &Path) -> BTreeMap<(String, String), Vec<String>> {
    let (node, suite) = modern_node(SUITE).unwrap();
    let output = Command::new(node).arg(suite).args(["server", "--url", url, "--requirements", set, "-o"]).arg(into).output().unwrap();
    let mut all: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for scenario in std::fs::read_dir(into).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))).flatten() {
        let name = scenario.file_name().to_string_lossy().into_owned();
        // Behind the name comes when it ran.
        let name = name.rsplit_once("T").and_then(|(name, _)| name.get(..name.len() - 11)).unwrap().to_owned();
        let Ok(text) = std::fs::read_to_string(scenario.path().join("checks.json")) else { continue };
        for check in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            if check["status"] != "INFO" {
                let came = format!("{} {}", check["status"].as_str().unwrap(), check["errorMessage"].as_str().unwrap_or_default());
                all.entry((name.clone(), check["id"].as_str().unwrap().to_owned())).or_default().push(came);
            }
        }
    }
    all
}

/// The suite on the server itself passes as a whole, and gives the same through the gateway.
async fn same(set: &'static str, least: usize) {
    if modern_node(SUITE).is_none() {
        return;
    }
    let server = Server::start();
    let (program, direct) = (fixture(), server.url.clone());
    let more =
        format!("[policy]\ndefault = \"allow\"\n[upstream.over-http]\nurl = \"{direct}\"\n[upstream.child]\ncommand = [\"{}\"]\n", program.display());
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let runs = [("direct", direct), ("http", format!("{}/mcp/over-http", world.address)), ("child", format!("{}/mcp/child", world.address))];
    let runs = runs.map(|(name, url)| {
        let into = world.scratch.0.join(name);
        tokio::task::spawn_blocking(move || found(&url, set, &into))
    });
    let [direct, http, child] = runs;
    let direct = direct.await.unwrap();
    let passed = direct.values().flatten().filter(|came| came.starts_with("SUCCESS")).count();
    let failed: Vec<_> = direct.iter().filter(|(_, came)| came.iter().any(|came| came.starts_with("FAILURE"))).collect();
    assert!(failed.is_empty() && passed >= least, "{passed} passed; {failed:#?}");
    for (name, run) in [("http", http), ("child", child)] {
        let differs = |run: &BTreeMap<(String, String), Vec<String>>| {
            let other =
                direct.iter().filter(|(check, came)| run.get(*check) != Some(came)).map(|(check, _)| format!("{check:?}: {:?}", run.get(check)));
            other.chain(run.keys().filter(|check| !direct.contains_key(*check)).map(|check| format!("{check:?} is new"))).collect::<Vec<_>>()
        };
        let first = differs(&run.await.unwrap());
        if first.is_empty() {
            continue;
        }
        // The suite waits for some messages for a second and a half, which is short beside all the other tests.
        eprintln!("{name}, run again for: {first:#?}");
        let (url, into) = (format!("{}/mcp/{}", world.address, if name == "http" { "over-http" } else { name }), world.scratch.0.join("again"));
        let again = differs(&tokio::task::spawn_blocking(move || found(&url, set, &into)).await.unwrap());
        assert!(again.is_empty(), "{name}: {again:#?}");
    }
}

#[tokio::test]
async fn the_suite_for_2025_11_25_finds_the_same_through_the_gateway() {
    same("2025-11-25", 83).await;
}

#[tokio::test]
async fn the_suite_for_2026_07_28_finds_the_same_through_the_gateway() {
    same("2026-07-28", 197).await;
}
