use countersign::domain::call::ToolCall;
use countersign::domain::json::{Limits, Object, Value};
use countersign::domain::risk::{self, Effect, History, Profile, Role, score};
use countersign::domain::tool::Known;

/// Judges one argument of one role twice, and compares.
pub fn same_twice(role: Role, value: &Value) {
    let mut call = ToolCall::parse(br#"{"name":"t","arguments":{}}"#, Limits::default()).unwrap();
    let mut arguments = Object::default();
    arguments.insert("x", value.clone());
    call.arguments = Value::Object(arguments);
    let profile = Profile { effect: Some(Effect::Execute), reversible: None, roles: vec![("/x".parse().unwrap(), role)] };
    let judge = || {
        let seen = risk::observe(&call, &profile, &Known::NotAsked, &History::default());
        score::assess(seen.findings, &score::Bands::default(), None)
    };
    let once = judge();
    assert!(once.score <= 100);
    assert_eq!(once, judge());
}
