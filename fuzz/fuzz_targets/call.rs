//! The strict reader never panics, and what it takes means one thing: its canonical form reads back to itself.
#![no_main]

use countersign::domain::call::ToolCall;
use countersign::domain::json::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = ToolCall::parse(bytes, Limits::default()) {
        let sent = call.forwarded();
        let again = ToolCall::parse(sent.as_bytes(), Limits::default()).unwrap();
        assert_eq!(again.forwarded(), sent);
        assert_eq!(again.arguments_digest(), call.arguments_digest());
    }
});
