//! A server to try Countersign with: a ledger of accounts and payments, as MCP server over stdio and HTTP.
//!
//! `countersign demo` starts it, `examples/ledger_server.rs` is it, and the tests ask its own record what really
//! happened.

mod credential;
pub mod ledger;
mod mcp;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use credential::Trust;
use ledger::{Ledger, LedgerError};

/// How the server is started.
#[derive(Clone, Debug, Default)]
pub struct LedgerOptions {
    /// Where accounts, payments and the record of what was received are.
    pub database: PathBuf,
    /// Whose credentials its dangerous tools take; none are refused only where this is missing on purpose.
    pub trust: Option<Trust>,
    /// The credential that a child was started with for one call.
    pub credential: Option<String>,
    /// Where the last credential that a call carried is left: for the demo and the tests, to try it again as a thief
    /// would.
    pub leak: Option<Arc<std::sync::Mutex<Option<String>>>>,
}

/// Serves on standard input and output until they close.
///
/// # Errors
/// If the database cannot be used or the pipe breaks.
pub async fn serve_stdio(options: LedgerOptions) -> Result<(), LedgerError> {
    let ledger = Arc::new(Ledger::open(options).await?);
    mcp::stdio(ledger).await
}

/// Serves HTTP at `/mcp` on `listener` until `stop`.
///
/// # Errors
/// If the database cannot be used or the listener breaks.
pub async fn serve_http(options: LedgerOptions, listener: TcpListener, stop: CancellationToken) -> Result<(), LedgerError> {
    let ledger = Arc::new(Ledger::open(options).await?);
    mcp::http(ledger, listener, stop).await
}
