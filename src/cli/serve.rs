//! `countersign serve`: the HTTP gateway.

use std::path::PathBuf;

use tokio::net::TcpListener;

use super::{Failure, asked_to_end, print};
use crate::app::config::Config;
use crate::app::{App, AppError};

/// Serve configured upstreams over HTTP
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign serve --config countersign.toml")]
pub(super) struct Arguments {}

pub(super) async fn run(config: Option<PathBuf>, _: Arguments) -> Result<(), Failure> {
    let Some(config) = Config::find(config.as_deref())? else {
        return Err(Failure::said("there is no countersign.toml here").hint("name one with --config, or try: countersign demo"));
    };
    if config.upstreams.is_empty() {
        return Err(Failure::said("there is no upstream to serve").hint("add an `[upstream.NAME]` with `command` or `url`"));
    }
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| AppError::Listen { address: address.to_string(), source })?;
    let bound = listener.local_addr()?;
    let public = config.public.clone().unwrap_or_else(|| format!("http://{bound}"));
    let names: Vec<String> = config.upstreams.keys().cloned().collect();
    if config.defaults.mode == crate::domain::policy::DefaultMode::Allow {
        tracing::warn!("`[policy] default = \"allow\"`: TOOLS WITHOUT A POLICY RUN WITHOUT ANYBODY BEING ASKED");
    }
    if config.enforcement == crate::domain::decision::Enforcement::Shadow {
        tracing::warn!("`[policy] mode = \"shadow\"`: NOTHING IS HELD BACK, decisions are only recorded");
    }
    let mut app = App::build(config, public.clone()).await?;
    app.join().await?;
    app.until(asked_to_end());
    for name in names {
        print(&format!("listening mcp {public}/mcp/{name}"));
    }
    print(&format!("listening inbox {public}/inbox"));
    let end = app.door(listener)?.await;
    app.end().await;
    Ok(end?)
}
