//! The strict reader of calls, resources and prompts never panics, and what it takes means one thing: its canonical form reads back to itself.
#![no_main]

use countersign::domain::call::{Method, ToolCall};
use countersign::domain::json::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for method in Method::ALL {
        let Ok(call) = ToolCall::of_request(method, bytes, Limits::default()) else { continue };
        let sent = call.forwarded();
        let again = ToolCall::of_request(method, sent.as_bytes(), Limits::default()).unwrap();
        assert_eq!(again.forwarded(), sent);
        assert_eq!(again.arguments_digest(), call.arguments_digest());
        assert_eq!((again.name(), &again.arguments), (call.name(), &call.arguments));
    }
});
