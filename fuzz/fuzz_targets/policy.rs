//! Compiling a policy never panics and always ends, and a set that compiles judges.
#![no_main]

use countersign::domain::call::{Caller, Identity, ToolCall};
use countersign::domain::json::Limits;
use countersign::domain::policy::{DefaultMode, Defaults, PolicySet, PolicySource};
use countersign::domain::risk::History;
use countersign::domain::tool::Known;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let defaults = Defaults {
        mode: DefaultMode::Score,
        approvers: vec!["anna".into()],
        owner_may_approve: false,
        known_approvers: vec!["anna".into()],
        groups: vec![],
        known_issuers: vec![],
        judged_only: true,
    };
    let sources = [PolicySource { path: "f.toml".into(), text: text.to_owned() }];
    if let Ok(set) = PolicySet::compile(&sources, &defaults) {
        let call = ToolCall::parse(br#"{"name":"t","arguments":{"a":1,"b":["x"],"c":{"d":null}}}"#, Limits::default()).unwrap();
        let caller = Caller { name: "c".into(), owner: None, identity: Identity::Configured };
        for policy in set.all() {
            let judged = policy.judge(&call, &caller, &Known::NotAsked, &History::default());
            assert!(judged.assessment.score <= 100);
        }
    }
});
