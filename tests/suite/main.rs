//! All integration tests, in one program so that there is one link. `support` has the real parts that they run on.

#![expect(unreachable_pub, reason = "a test program has no outside")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that fails should stop where it fails; tests set up their own processes, tasks and times"
)]

mod architecture;
mod callers;
mod clients;
mod command_line;
mod concurrency;
mod conformance;
mod crash;
mod credentials;
mod fail_closed;
mod fidelity;
mod gate;
mod gates;
mod holding;
mod hooks;
mod hostile;
mod inbox;
mod judging;
mod listening;
mod policies;
mod rmcp_client;
mod sign_in;
mod slack;
mod slack_clients;
mod support;
mod transports;
