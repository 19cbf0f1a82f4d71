//! All integration tests, in one program so that there is one link. `support` has the real parts that they run on.

mod architecture;
mod callers;
mod clients;
mod command_line;
mod concurrency;
mod crash;
mod fail_closed;
mod gate;
mod holding;
mod inbox;
mod policies;
mod support;
mod transports;
