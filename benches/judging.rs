//! What judging costs: strict parse, canonical form and digest; and an assessment with a thousand policies loaded.
//!
//! `cargo bench --bench judging`

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use countersign::domain::call::{Binding, CallDigest, Caller, Identity, ToolCall};
use countersign::domain::digest::Digest;
use countersign::domain::json::{Limits, Object, Value};
use countersign::domain::policy::{DefaultMode, Defaults, PolicySet, PolicySource};
use countersign::domain::risk::{self, Dialect, Effect, History, Profile, Role, Trail, Trust, UrlRole};
use countersign::domain::tool::Known;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

fn params(comment: usize) -> Vec<u8> {
    let text = "damaged on delivery ".repeat(comment / 20);
    format!(
        "{{\"name\":\"refund_payment\",\"arguments\":{{\"payment_id\":\"pay-1\",\"amount\":80.25,\"currency\":\"EUR\",\
         \"iban\":\"DE02120300000000202051\",\"comment\":\"{text}\",\"items\":[{{\"sku\":\"a-1\",\"n\":2}},{{\"sku\":\"b-2\",\"n\":1}}]}}}}"
    )
    .into_bytes()
}

fn caller() -> Caller {
    Caller { name: "ci-bot".into(), owner: Some("anna".into()), identity: Identity::Configured }
}

/// Strict parse, canonical arguments and call digest, by bytes of comment.
#[divan::bench(args = [0, 4096, 65_536])]
fn parse_canonical_digest(bencher: Bencher<'_, '_>, comment: usize) {
    let (bytes, caller, zero) = (params(comment), caller(), Digest::of(b""));
    let binding = Binding { server: "ledger".into(), upstream: "http://x/mcp".into(), definition: None, policy: zero, approvers: zero, scope: None };
    bencher.bench(|| {
        let call = ToolCall::parse(black_box(&bytes), Limits::default()).unwrap();
        CallDigest::of(&call, &caller, &binding, None)
    });
}

/// Looking for secrets in 1 MB: prose, prose with letters outside ASCII, runs of base64, and texts made to keep forms busy.
#[divan::bench(args = ["prose", "umlauts", "base64", "curl", "headers", "mixed"])]
fn secrets_in_a_megabyte(bencher: Bencher<'_, '_>, kind: &str) {
    let unit: String = match kind {
        "prose" => "an ordinary sentence of the kind that agents write. ".into(),
        "umlauts" => "größere Sätze mit Umlauten, wie Menschen sie schreiben. ".into(),
        "base64" => "dGhpcyBpcyBzb21lIHRleHQgaW4gYmFzZTY0IA+/".into(),
        "curl" => "curl ".into(),
        "headers" => "authorization:x-a-token ".into(),
        _ => "meraki snyk token pass secret_ eyJ AKIA xoxb-1 -u a:bc :// key= sk_live_ 1234567 curl ".into(),
    };
    let text = unit.repeat(1_000_000 / unit.len());
    bencher.bench(|| risk::carries_secret(black_box(&text)));
}

fn thousand() -> PolicySet {
    let policy = include_str!("../tool-policies/ledger/refund_payment.toml");
    let source = |n: usize| PolicySource {
        path: format!("{n}.toml"),
        text: policy
            .replace("\"refund_payment\"", &if n == 0 { "\"refund_payment\"".to_owned() } else { format!("\"tool_{n}\"") })
            .replace("scope =", "issuer = \"built-in\"\nscope ="),
    };
    let people = vec!["anna".to_owned(), "bert".to_owned()];
    let defaults = Defaults {
        mode: DefaultMode::Approve,
        approvers: people.clone(),
        owner_may_approve: false,
        known_approvers: people,
        groups: vec![],
        known_issuers: vec!["built-in".into()],
        judged_only: false,
    };
    PolicySet::compile(&(0..1000).map(source).collect::<Vec<_>>(), &defaults).unwrap()
}

/// Look the policy up, observe, evaluate its two CEL rules, and sum, with a thousand policies loaded.
#[divan::bench(args = [0, 4096])]
fn assess_with_a_thousand_policies(bencher: Bencher<'_, '_>, comment: usize) {
    let (set, call, caller) = (thousand(), ToolCall::parse(&params(comment), Limits::default()).unwrap(), caller());
    let history = History::default();
    bencher.bench(|| black_box(&set).for_tool("ledger", &call.tool).judge(&call, &caller, &Known::NotAsked, &history));
}

/// Compile a thousand policy files.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn compile_a_thousand_policies() -> PolicySet {
    thousand()
}

/// One argument, read by the parser of its role: 4 KiB of an ordinary kind.
#[divan::bench(args = ["sql", "shell", "code", "url", "text"])]
fn read_four_kilobytes(bencher: Bencher<'_, '_>, role: &str) {
    let value = match role {
        "sql" => format!("SELECT {} FROM orders WHERE day > '2026-01-01'", (0..340).map(|n| format!("column_{n}")).collect::<Vec<_>>().join(", ")),
        "shell" => (0..100).map(|n| format!("grep -c total report-{n}.csv | sort -n | head")).collect::<Vec<_>>().join("\n"),
        "code" => "total = sum(line.amount for line in lines)\n".repeat(95),
        "url" => format!("https://example.com/{}", "a/".repeat(2000)),
        _ => "damaged on delivery, says the customer ".repeat(105),
    };
    judge_argument(bencher, role, value);
}

/// What is made to keep a parser busy: each must end soon, and as uninspectable.
#[divan::bench(args = [
    "sql brackets", "sql deep", "sql not", "sql sum", "sql case", "sql with", "shell brackets", "shell substitutions", "shell arithmetic",
    "shell groups", "shell pipes", "shell bangs", "shell ifs", "shell defaults", "shell quotes", "shell ands",
], sample_count = 5)]
fn end_a_bomb(bencher: Bencher<'_, '_>, bomb: &str) {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let text = match bomb {
        "sql deep" => format!("SELECT {}", deep("(", ")", 39).replace("()", "(1)")),
        "sql not" => format!("SELECT {}1", "NOT ".repeat(20_000)),
        "sql sum" => format!("SELECT {}1", "1 + ".repeat(20_000)),
        "sql case" => format!("SELECT CASE {}", "WHEN 1 THEN CASE ".repeat(5_000)),
        "sql with" => format!("WITH {} SELECT 1", (0..5_000).map(|n| format!("c{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")),
        "shell substitutions" => deep("$(", ")", 23),
        "shell arithmetic" => deep("((", "))", 11),
        "shell groups" => deep("{ ", "; }", 23),
        "shell pipes" => "a|".repeat(32_000),
        "shell bangs" => "! ".repeat(30_000),
        "shell ifs" => deep("if ", " then x; fi; ", 20),
        "shell defaults" => format!("x{}", "${a:-".repeat(5_000)),
        "shell quotes" => format!("echo {}", "\"`".repeat(9_000)),
        "shell ands" => format!("a{}", "&&".repeat(30_000)),
        _ => "(".repeat(50_000),
    };
    judge_argument(bencher, bomb.split(' ').next().unwrap(), text);
}

fn judge_argument(bencher: Bencher<'_, '_>, role: &str, text: String) {
    bencher.bench(|| judge(role, black_box(&text)));
}

fn judge(role: &str, text: &str) -> u8 {
    let role = match role {
        "sql" => Role::Sql(Dialect::Unknown),
        "shell" => Role::Shell,
        "code" => Role::Code,
        "url" => Role::Url(UrlRole::default()),
        _ => Role::Text,
    };
    let mut call = ToolCall::parse(br#"{"name":"t","arguments":{}}"#, Limits::default()).unwrap();
    let mut arguments = Object::default();
    arguments.insert("x", Value::from(text));
    call.arguments = Value::Object(arguments).into();
    let profile = Profile { effect: Some(Effect::Execute), reversible: None, roles: vec![("/x".parse().unwrap(), role)] };
    let seen = risk::observe(&call, &profile, &Known::NotAsked, &History::default());
    risk::score::assess(seen.findings, &risk::Bands::default(), None).score
}

/// What remembering an answer costs, by its bytes; and looking a call up in what is remembered.
#[divan::bench(args = [1024, 4096, 65_536])]
fn remember_an_answer(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = "On 3 May mia@example.com asked for order 4711 to be sent to 12 High Street. ".repeat(bytes / 76 + 1);
    let mut trail = Trail::default();
    bencher.bench_local(|| trail.answered(black_box(&text), Trust::Mixed));
}
