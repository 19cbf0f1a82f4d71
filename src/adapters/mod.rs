//! Do, never decide: the store, the upstreams, the issuers of credentials and the channels to approvers.
//!
//! Each folder is a port and its adapters; the folders never name each other.

pub mod channel;
pub mod credential;
pub mod store;
pub mod upstream;
