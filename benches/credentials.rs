//! What a credential costs: from the permit to a credential in hand, with the journal on disk, and from the end of the call
//! to its end; and what scrubbing answers costs.
//!
//! `cargo bench --bench credentials`. Issuers of other services are measured where the variable `COUNTERSIGN_BENCH_CONFIG` names a
//! configuration with them, and `COUNTERSIGN_BENCH_ASKS` what to ask, as `{"NAME": {…parameters…}}`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and stops where it cannot run"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use countersign::app::App;
use countersign::app::config::Config;
use countersign::domain::policy::Scope;
use countersign::domain::scrub::Scrubber;

const RUNS: usize = 100;

fn main() {
    let scratch = std::env::temp_dir().join(format!("countersign-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let program = scratch.join("mint.sh");
    let script = "#!/bin/sh\ncat >/dev/null\necho '{\"fields\":{\"secret\":\"abcdefghijkl\"},\"expires_at\":\"'$(date -u -d '+20 seconds' +%Y-%m-%dT%H:%M:%SZ)'\"}'\n";
    std::fs::write(&program, script).unwrap();
    let mut text = format!(
        "[approver.anna]\n[store]\npath = \"{}/countersign.db\"\n[credential.built-in]\nkind = \"signed-jwt\"\n[credential.program]\nkind = \"exec\"\ncommand = [\"sh\", \"{}\"]\n",
        scratch.display(),
        program.display()
    );
    let mut asks = BTreeMap::from([("built-in".to_owned(), "{}".to_owned()), ("program".to_owned(), "{}".to_owned())]);
    if let Ok(more) = std::env::var("COUNTERSIGN_BENCH_CONFIG") {
        text.push_str(&std::fs::read_to_string(more).unwrap());
        let further: BTreeMap<String, serde_json::Value> = serde_json::from_str(&std::env::var("COUNTERSIGN_BENCH_ASKS").unwrap()).unwrap();
        asks.extend(further.into_iter().map(|(name, parameters)| (name, parameters.to_string())));
    }
    let file = scratch.join("countersign.toml");
    std::fs::write(&file, text).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("| issuer | minted, p50 | p95 | ended, p50 | p95 |\n| --- | --- | --- | --- | --- |");
    runtime.block_on(async {
        let app = App::build(Config::read(&file).unwrap(), "http://127.0.0.1".into()).await.unwrap();
        for (name, parameters) in &asks {
            let (mut minted, mut ended) = (Vec::new(), Vec::new());
            for _ in 0..RUNS {
                let scope = Scope { text: if parameters == "{}" { "x:1".into() } else { String::new() }, parameters: parameters.clone() };
                let trial = app.gateway.try_issuer(name, scope, Duration::from_secs(30)).await.unwrap();
                minted.push(trial.minted_in);
                ended.push(trial.ended_in);
            }
            println!("| {name} | {} | {} | {} | {} |", at(&mut minted, 50), at(&mut minted, 95), at(&mut ended, 50), at(&mut ended, 95));
        }
        app.end().await;
    });
    scrubbing();
    drop(std::fs::remove_dir_all(scratch));
}

fn at(all: &mut [Duration], percent: usize) -> String {
    all.sort_unstable();
    format!("{} ms", all.get(all.len() * percent / 100).map_or(0, Duration::as_millis))
}

fn scrubbing() {
    let secret = "eyJhbGciOiJFZERTQSJ9.".to_owned() + &"c2VjcmV0LW9mLW9uZS1jYWxs".repeat(28);
    let started = Instant::now();
    for _ in 0..RUNS {
        Scrubber::new([secret.as_str()], []).unwrap();
    }
    println!("\nmaking a scrubber for a token of {} characters: {} µs", secret.len(), started.elapsed().as_micros() / RUNS as u128);
    let scrubber = Scrubber::new([secret.as_str()], []).unwrap();
    let answer = "an answer of a tool, as they are: words, numbers 12345 and so on. ".repeat(16_000).into_bytes();
    let started = Instant::now();
    for _ in 0..10 {
        assert!(scrubber.scrub(&answer).is_none());
    }
    println!("searching an answer of 1 MB: {} µs", started.elapsed().as_micros() / 10);
}
