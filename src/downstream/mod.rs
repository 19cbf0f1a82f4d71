//! The front door: an MCP endpoint to agents, over stdio and HTTP. Who asks, what is refused at the door, and every word
//! that an agent is told.
//!
//! `tools/call` goes to the gateway; everything else goes on as it came.

mod answer;
mod children;
pub mod hook;
pub mod http;
pub mod identity;
mod judged;
mod listening;
pub mod pipes;
mod replay;
mod speak;
pub mod stdio;
mod tasks;
