//! The sample ledger as a program of its own: stdio by default, Streamable HTTP at `/mcp` with `--http ADDRESS`.
//!
//! Its settings are environment variables: `LEDGER_DB` (the database, `ledger.db` by default), `LEDGER_ISSUER`,
//! `LEDGER_AUDIENCE` and `LEDGER_INTROSPECTION` (whose credentials its dangerous tools take; without them it takes any
//! call), and `COUNTERSIGN_CREDENTIAL` (the credential that it was started with for one call).

#![expect(clippy::disallowed_methods, reason = "a program of its own, with its own environment")]

use countersign::sample::{LedgerOptions, Trust, serve_http, serve_stdio};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let trust = match (variable("LEDGER_ISSUER"), variable("LEDGER_AUDIENCE"), variable("LEDGER_INTROSPECTION")) {
        (Some(issuer), Some(audience), Some(introspection)) => Some(Trust { issuer, audience, introspection }),
        _ => None,
    };
    let options = LedgerOptions {
        database: variable("LEDGER_DB").unwrap_or_else(|| "ledger.db".into()).into(),
        trust,
        credential: variable("COUNTERSIGN_CREDENTIAL"),
        leak: None,
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let served = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve_stdio(options).await.map_err(|e| e.to_string()),
        ["--http", address] => match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                eprintln!("listening mcp http://{}/mcp", listener.local_addr().map_or_else(|_| (*address).to_owned(), |a| a.to_string()));
                serve_http(options, listener, CancellationToken::new()).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(format!("cannot listen on {address}: {error}")),
        },
        _ => Err("usage: ledger_server [--http ADDRESS]".into()),
    };
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
