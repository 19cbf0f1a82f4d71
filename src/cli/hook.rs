//! `countersign hook`: run by a client's own hooks, hands the user's prompt to the gateways of this machine.
//!
//! Says nothing on standard output, which clients give to the model, and never ends with the code that blocks a prompt.

use std::io::Read;

use serde::Deserialize;

use super::Failure;
use crate::adapters::store::gateways_beside;
use crate::app::config::Config;
use crate::downstream::hook::tell;
use crate::gateway::Told;

/// Most bytes of a hook's input.
const MOST: u64 = 1 << 20;

/// Tell the gateway what the user asked for; run by a client's hooks
#[derive(Debug, clap::Args)]
#[command(after_help = "In Claude Code's settings.json:
  \"hooks\": {
    \"UserPromptSubmit\": [{ \"hooks\": [{ \"type\": \"command\", \"command\": \"countersign hook claude-code\" }] }],
    \"PreToolUse\": [{ \"matcher\": \"mcp__.*\", \"hooks\": [{ \"type\": \"command\", \"command\": \"countersign hook claude-code\" }] }]
  }")]
pub(super) struct Arguments {
    /// Whose hook it is
    client: Client,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Client {
    ClaudeCode,
}

/// What Claude Code gives its hooks on standard input, as far as it matters here.
#[derive(Deserialize)]
#[serde(tag = "hook_event_name")]
enum Event {
    UserPromptSubmit {
        session_id: String,
        prompt: String,
    },
    PreToolUse {
        session_id: String,
        tool_name: String,
        tool_input: serde_json::Value,
    },
    #[serde(other)]
    Other,
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let Client::ClaudeCode = arguments.client;
    let mut text = String::new();
    std::io::stdin().lock().take(MOST).read_to_string(&mut text)?;
    let event: Event = serde_json::from_str(&text).map_err(|error| {
        Failure::said(format!("standard input is not what Claude Code gives its hooks: {error}")).hint("run it as a hook: countersign hook --help")
    })?;
    let told = match event {
        Event::UserPromptSubmit { session_id, prompt } => Told::Prompt { session: session_id, prompt },
        // Other tools are none that a gateway is in front of.
        Event::PreToolUse { session_id, tool_name, tool_input } if tool_name.starts_with("mcp__") => {
            Told::Call { session: session_id, tool: tool_name, arguments: tool_input }
        }
        Event::PreToolUse { .. } | Event::Other => return Ok(()),
    };
    let heard = tell(&gateways_beside(&config.store), &told).await?;
    tracing::debug!(heard, "gateways on this machine were told");
    Ok(())
}
