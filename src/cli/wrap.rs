//! `countersign wrap`: one MCP server over stdio, be it a command or a server over HTTP. Nothing but MCP is written to standard output.

use std::path::{Path, PathBuf};

use super::{Failure, asked_to_end, config_or_default};
use crate::adapters::upstream::ChildSettings;
use crate::app::config::{Config, Secret, Transport, UpstreamFile};
use crate::app::{App, Behind, Client, named_by};

/// Serve one MCP server over stdio, with approvals
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example, in an MCP client's configuration:\n  \"command\": \"countersign\",\n  \"args\": [\"wrap\", \"--\", \"npx\", \"-y\", \"@modelcontextprotocol/server-filesystem\", \"/data\"]"
)]
pub(super) struct Arguments {
    /// Who the client is: a `[caller.NAME]` of the configuration
    #[arg(long = "as", value_name = "NAME", default_value = "local")]
    caller: String,
    /// A file with a token that says who the client is, read anew for each call, instead of --as
    #[arg(long, value_name = "FILE")]
    identity_token_file: Option<PathBuf>,
    /// The server's name in policies [default: told from the command]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Give the server a variable of this process, or NAME=VALUE; may be repeated
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A server over HTTP, instead of a command
    #[arg(long, value_name = "URL", conflicts_with_all = ["env", "upstream"])]
    url: Option<String>,
    /// How the server speaks at --url
    #[arg(long, value_enum, requires = "url")]
    transport: Option<Transport>,
    /// The variable of this process that holds the gateway's token for --url
    #[arg(long, value_name = "VARIABLE", requires = "url")]
    bearer_env: Option<String>,
    /// An `[upstream.NAME]` of the configuration, instead of a command
    #[arg(long, value_name = "NAME", conflicts_with_all = ["env", "server"])]
    upstream: Option<String>,
    /// The server's command
    #[arg(last = true, required_unless_present_any = ["url", "upstream"], conflicts_with_all = ["url", "upstream"], value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(config: Option<PathBuf>, arguments: Arguments) -> Result<(), Failure> {
    let mut config = config_or_default(config)?;
    if config.path.is_none() && !config.callers.contains_key(&arguments.caller) {
        // Without a configuration the name is only a name: whoever owns this machine answers for it.
        let owner = config.callers.get("local").cloned().unwrap_or_default();
        config.callers.insert(arguments.caller.clone(), owner);
    }
    let name = match (&arguments.upstream, &arguments.server, &arguments.url) {
        (Some(name), ..) | (None, Some(name), _) => name.clone(),
        (None, None, Some(url)) => told_from_url(url),
        (None, None, None) => told_from(&arguments.command),
    };
    let shown = arguments
        .url
        .as_deref()
        .map(named_by)
        .unwrap_or_else(|| if arguments.command.is_empty() { name.clone() } else { arguments.command.join(" ") });
    let address = config.address();
    let approvers = config.approvers.join(", ");
    let mut app = App::build(config, address.clone()).await?;
    let behind = behind(&app, &arguments)?;
    app.join().await?;
    app.host_inbox();
    tracing::info!("wrapping {shown} as `{name}`; {approvers} may approve at {address}/inbox (sign in: countersign approvals login NAME)");
    app.until(asked_to_end());
    let client = arguments.identity_token_file.as_deref().map_or(Client::Named(&arguments.caller), Client::TokenFile);
    let end = app.wrap(&name, client, behind).await;
    app.end().await;
    Ok(end?)
}

fn behind(app: &App, arguments: &Arguments) -> Result<Behind, Failure> {
    if let Some(name) = &arguments.upstream {
        return Ok(Behind::Upstream(Box::new(app.upstream(name)?)));
    }
    if let Some(url) = &arguments.url {
        let bearer = arguments.bearer_env.clone().map(Secret::Env);
        return Ok(Behind::Upstream(Box::new(UpstreamFile {
            url: Some(url.clone()),
            transport: arguments.transport,
            bearer,
            ..UpstreamFile::default()
        })));
    }
    let mut env = Config::basic_environment();
    for given in &arguments.env {
        let (name, value) = match given.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (given.as_str(), Config::variable(given)),
        };
        let value = value.ok_or_else(|| Failure::said(format!("the environment variable `{name}` is not set")))?;
        env.insert(name.to_owned(), value);
    }
    let command = arguments.command.clone();
    Ok(Behind::Child(ChildSettings { command, env, directory: None, launch: app.launch(), private: app.private_files() }))
}

/// A server's name from its address: `https://mcp.example.com/mcp` is `mcp.example.com`.
fn told_from_url(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "wrapped".into())
}

/// A server's name from its command: `npx -y @modelcontextprotocol/server-filesystem /data` is `filesystem`.
fn told_from(command: &[String]) -> String {
    let base = |text: &str| Path::new(text).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let likely = |text: &&String| !text.starts_with('-') && (text.contains("mcp") || text.contains("server"));
    let word = command.iter().find(likely).or(command.first()).map(|text| base(text)).unwrap_or_default();
    let word = word.split(['@', '=']).next().unwrap_or_default();
    let short = word.trim_start_matches("mcp-").trim_start_matches("server-").trim_end_matches("-mcp").trim_end_matches("-server");
    let clean: String = short.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if clean.is_empty() { "wrapped".into() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_commands() {
        for (command, name) in [
            ("npx -y @modelcontextprotocol/server-filesystem /data", "filesystem"),
            ("uvx mcp-server-git", "git"),
            ("npx -y @modelcontextprotocol/server-memory@1.2.3", "memory"),
            ("/usr/bin/python3 -m x", "python3"),
            ("./ledger_server", "ledger_server"),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(told_from(&words), name, "{command}");
        }
    }
}
