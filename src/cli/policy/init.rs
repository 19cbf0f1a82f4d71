//! `countersign policy init`: a first policy for every tool of a server, with what was guessed marked for review.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Failure, print};
use super::tools;
use crate::app::config::Config;
use crate::domain::json::Value;
use crate::domain::risk::{Effect, Role, guess_effect};
use crate::domain::tool::ToolDefinition;

/// Write a first policy for every tool of a server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign policy init github                      an upstream of the configuration
  countersign policy init files -- npx -y @modelcontextprotocol/server-filesystem /srv
  countersign policy init files --tools tools.json    what it answered to tools/list")]
pub(super) struct Arguments {
    /// The server's name in the configuration
    server: String,
    /// A file with the server's answer to `tools/list`, instead of asking it
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    tools: Option<PathBuf>,
    /// The directory to write to; one for the server is made in it [default: that of the configuration, or ./tool-policies]
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// The server's command, instead of the configured one
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(config: &Config, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, tools: file, into, command } = arguments;
    if server.contains(['/', '\\']) || server.starts_with('.') || server.is_empty() {
        return Err(Failure::said(format!("`{server}` cannot be the name of a directory")));
    }
    let listed = match (file, command.as_slice()) {
        (Some(path), _) => tools::in_file(&path)?,
        (None, []) => tools::of_upstream(config, &server).await?,
        (None, command) => tools::of_command(command, BTreeMap::new()).await?,
    };
    if listed.is_empty() {
        return Err(Failure::said("the server offers no tools"));
    }
    let directory = into.or_else(|| config.policies.clone()).unwrap_or_else(|| PathBuf::from("tool-policies")).join(&server);
    let mut files = vec![("server.toml".to_owned(), shared(&server, &listed))];
    for (tool, entry) in &listed {
        let effect = guess_effect(tool);
        if effect != Effect::Read || !roles(tool).is_empty() {
            files.push((format!("{}.toml", file_name(&tool.name)), own(&server, tool, entry, effect)));
        }
    }
    // All or nothing: what somebody wrote is never written over.
    if let Some((name, _)) = files.iter().find(|(name, _)| directory.join(name).exists()) {
        return Err(
            Failure::said(format!("{} is there already", directory.join(name).display())).hint("write to another place with --into, and compare")
        );
    }
    std::fs::create_dir_all(&directory)?;
    for (name, text) in &files {
        write(&directory.join(name), text)?;
    }
    print(&format!("{} tools, {} files in {}", listed.len(), files.len(), directory.display()));
    print("Effects and roles are guesses: go through every line marked `review`, add cases, then run:");
    print(&format!("  countersign policy check --policies {}", directory.display()));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A file's name for a tool whose name may hold anything.
fn file_name(tool: &str) -> String {
    let plain: String = tool.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).take(80).collect();
    if plain == tool {
        plain
    } else {
        format!("{plain}-{}", crate::domain::digest::Digest::of(tool.as_bytes()).to_string().chars().take(8).collect::<String>())
    }
}

fn shared(server: &str, tools: &[(ToolDefinition, Value)]) -> String {
    let mut out = format!("server = {}\n\n[effects]   # review: guessed from names, schemas and annotations\n", quoted(server));
    for (tool, _) in tools {
        out.push_str(&format!("{} = {}\n", quoted(&escaped(&tool.name)), quoted(guess_effect(tool).name())));
    }
    out.push_str("\n[approval]\nfrom = 20   # whatever changes something is asked about; raise it as trust grows\n");
    out
}

fn own(server: &str, tool: &ToolDefinition, entry: &Value, effect: Effect) -> String {
    let mut out = format!("server = {}\ntool   = {}\neffect = {}   # review\n", quoted(server), quoted(&tool.name), quoted(effect.name()));
    if let Some(about) = entry.as_object().and_then(|o| o.get("description")).and_then(Value::as_str) {
        let line: String = crate::domain::text::visible(about.lines().next().unwrap_or_default()).chars().take(140).collect();
        out = format!("# The server says: {line}\n{out}");
    }
    let roles = roles(tool);
    if !roles.is_empty() {
        out.push_str("\n[arguments]   # review\n");
        for (name, role) in roles {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            out.push_str(&format!("{} = {{ role = {} }}\n", quoted(&pointer), quoted(role)));
        }
    }
    if effect == Effect::Read {
        out.push_str("\n[approval]\nfrom = 60\n");
    }
    out
}

/// The roles that the names of a tool's declared arguments suggest.
fn roles(tool: &ToolDefinition) -> Vec<(String, &'static str)> {
    let sample = |property: &Value| match property.as_object().and_then(|o| o.get("type")).and_then(Value::as_str) {
        // Long enough not to be taken for a choice.
        Some("string") | None => Value::from("select … from an example"),
        _ => Value::Null,
    };
    let role = |(name, property): (&str, &Value)| Some((name.to_owned(), Role::guess(&tool.name, name, &sample(property))?.name()));
    tool.properties().filter_map(role).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A name as a glob that fits it alone.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if "*?[]{}!\\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
