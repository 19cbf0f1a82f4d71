//! What judging costs: strict parse, canonical form and digest; and an assessment with a thousand policies loaded.
//!
//! `cargo bench --bench judging`

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use countersign::domain::call::{Binding, CallDigest, Caller, Identity, ToolCall};
use countersign::domain::digest::Digest;
use countersign::domain::json::Limits;
use countersign::domain::policy::{DefaultMode, Defaults, PolicySet, PolicySource};
use countersign::domain::risk::History;
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
