//! `countersign install` and `uninstall`: put MCP clients' servers behind the gateway, and take them out again.
//!
//! Only what must change in a client's file does: comments, order and everything else stay. The file as it was is kept
//! beside it, and nothing is written before the changes were shown.

use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::{Map, Value, json};

use super::{Code, Failure, print};
use crate::app::config::Config;
use crate::app::named_by;

/// Put the servers of MCP clients on this machine behind the gateway
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign install --client claude-code\n  countersign uninstall --client claude-code")]
pub(super) struct Arguments {
    /// Only this client [default: every one whose configuration is found]
    #[arg(long, value_enum)]
    client: Option<Client>,
    /// Only this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// This file instead of the client's usual ones; needs --client
    #[arg(long, value_name = "FILE", requires = "client")]
    file: Option<PathBuf>,
    /// Write without asking
    #[arg(long)]
    yes: bool,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Codex,
    Cursor,
    #[value(name = "vscode")]
    VsCode,
    Windsurf,
}

const ALL: [Client; 6] = [Client::ClaudeCode, Client::ClaudeDesktop, Client::Codex, Client::Cursor, Client::VsCode, Client::Windsurf];

impl Client {
    /// Where its servers stand: its own files, and those of the project in this directory.
    fn files(self) -> Vec<PathBuf> {
        let home = PathBuf::from(Config::variable("HOME").unwrap_or_default());
        let settings = if cfg!(target_os = "macos") { home.join("Library/Application Support") } else { home.join(".config") };
        match self {
            Self::ClaudeCode => vec![home.join(".claude.json"), PathBuf::from(".mcp.json")],
            Self::ClaudeDesktop => vec![settings.join("Claude/claude_desktop_config.json")],
            Self::Codex => vec![Config::variable("CODEX_HOME").map_or_else(|| home.join(".codex"), PathBuf::from).join("config.toml")],
            Self::Cursor => vec![home.join(".cursor/mcp.json"), PathBuf::from(".cursor/mcp.json")],
            Self::VsCode => vec![settings.join("Code/User/mcp.json"), PathBuf::from(".vscode/mcp.json")],
            Self::Windsurf => vec![home.join(".codeium/windsurf/mcp_config.json")],
        }
    }

    fn servers_key(self) -> &'static str {
        match self {
            Self::Codex => "mcp_servers",
            Self::VsCode => "servers",
            _ => "mcpServers",
        }
    }

    fn url_key(self) -> &'static str {
        if self == Self::Windsurf { "serverUrl" } else { "url" }
    }

    /// Whether its entries say how they are reached.
    fn has_type(self) -> bool {
        matches!(self, Self::ClaudeCode | Self::VsCode)
    }
}

/// What is done to an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// What becomes of one entry.
enum Turned {
    Changed(Map<String, Value>),
    Same(String),
}

pub(super) fn install(arguments: &Arguments) -> Result<(), Failure> {
    run(arguments, Way::In)
}

pub(super) fn uninstall(arguments: &Arguments) -> Result<(), Failure> {
    run(arguments, Way::Out)
}

fn run(arguments: &Arguments, way: Way) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::said(format!("this program's own path cannot be told: {error}")))?;
    let program = program.display().to_string();
    let mut found = Vec::new();
    for client in ALL.into_iter().filter(|client| arguments.client.is_none_or(|only| only == *client)) {
        let files = arguments.file.clone().map_or_else(|| client.files(), |file| vec![file]);
        for file in files.into_iter().filter(|file| arguments.file.is_some() || file.exists()) {
            // What a project shares is the same on every machine.
            let program = if file.is_relative() && arguments.file.is_none() { "countersign" } else { program.as_str() };
            // A file that is a link is written where it points to.
            let file = file.canonicalize().map_err(|error| Failure::said(format!("{}: {error}", file.display())))?;
            if !found.contains(&file) {
                one(arguments, client, &file, way, program)?;
                found.push(file);
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::said("no client's configuration was found").hint("name it: countersign install --client cursor --file PATH"));
    }
    Ok(())
}

fn one(arguments: &Arguments, client: Client, file: &Path, way: Way, program: &str) -> Result<(), Failure> {
    let shown = file.display();
    let before = std::fs::read_to_string(file).map_err(|error| Failure::said(format!("{shown}: {error}")))?;
    let wrong = |why: String| Failure::said(format!("{shown}: {why}")).hint("nothing was written").code(Code::Invalid);
    let mut said = Vec::new();
    let turn = |name: &str, entry: &Map<String, Value>| match way {
        _ if arguments.server.as_deref().is_some_and(|only| only != name) => Turned::Same("left as it is".into()),
        Way::In => put_in(client, name, entry, program),
        Way::Out => take_out(client, entry),
    };
    let after = if client == Client::Codex { in_toml(&before, turn, &mut said) } else { in_json(client, &before, turn, &mut said) }.map_err(wrong)?;
    print(&format!("{shown}"));
    said.iter().for_each(|line| print(&format!("  {line}")));
    if said.is_empty() {
        print("  no servers");
    }
    if after == before || arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes && !agreed()? {
        print("  not written");
        return Ok(());
    }
    write(file, &before, &after).map_err(|error| Failure::said(format!("{shown}: {error}")))?;
    print(&format!("  written; as it was: {}", backup(file).display()));
    Ok(())
}

fn agreed() -> Result<bool, Failure> {
    let mut out = std::io::stderr();
    drop(write!(out, "  Write it? [y/N] ").and_then(|()| out.flush()));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::said(format!("no answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn backup(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".before-countersign");
    name.into()
}

/// Writes the file as a whole, with the permissions that it had. The first version is kept, not the last.
fn write(file: &Path, before: &str, after: &str) -> std::io::Result<()> {
    let mode = std::fs::metadata(file)?.permissions();
    let kept = backup(file);
    let save = |path: &Path, text: &str| {
        let mut making = path.as_os_str().to_owned();
        making.push(".writing");
        // Tokens may stand in it: nobody else reads it while it is written.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(mode.clone())?;
        file.sync_all()?;
        std::fs::rename(&making, path)
    };
    if !kept.exists() {
        save(&kept, before)?;
    }
    save(file, after)
}

fn words(entry: &Map<String, Value>) -> Vec<String> {
    entry.get("args").and_then(Value::as_array).into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Whether an entry is one of ours already.
fn is_ours(entry: &Map<String, Value>) -> bool {
    let command = entry.get("command").and_then(Value::as_str).unwrap_or_default();
    Path::new(command).file_stem().is_some_and(|name| name == "countersign") && words(entry).first().is_some_and(|word| word == "wrap")
}

/// What `wrap` is told of a server that speaks the transport of 2024-11-05.
const SSE: &str = "--transport=sse";

fn put_in(client: Client, name: &str, entry: &Map<String, Value>, program: &str) -> Turned {
    if is_ours(entry) {
        return Turned::Same("is behind the gateway already".into());
    }
    let mut new = entry.clone();
    let mut args = vec!["wrap".to_owned(), format!("--server={}", name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-"))];
    let url = entry.get("url").or_else(|| entry.get("serverUrl")).and_then(Value::as_str);
    match (entry.get("command").and_then(Value::as_str), url) {
        (Some(command), _) => {
            // The client goes on to hold what the server needs; the gateway hands on these and nothing else.
            let env = entry.get("env").and_then(Value::as_object);
            args.extend(env.into_iter().flat_map(Map::keys).map(|name| format!("--env={name}")));
            args.extend(["--".to_owned(), command.to_owned()]);
            args.extend(words(entry));
        }
        (None, Some(_)) if ["headers", "http_headers", "env_http_headers", "bearer_token_env_var"].iter().any(|key| entry.contains_key(*key)) => {
            return Turned::Same("left: it has headers, which an `[upstream.…]` with `bearer` should hold".into());
        }
        // Arguments of a program are seen by others on the machine.
        (None, Some(url)) if named_by(url) != url => {
            return Turned::Same("left: its address may carry a secret; give it to an `[upstream.…]`, and write `wrap --upstream`".into());
        }
        (None, Some(url)) => {
            args.push(format!("--url={url}"));
            if new.remove("type").is_some_and(|kind| kind == "sse") {
                args.push(SSE.into());
            }
            new.remove("url");
            new.remove("serverUrl");
            if client.has_type() {
                new.insert("type".into(), "stdio".into());
            }
        }
        (None, None) => return Turned::Same("left: it has neither a command nor an address".into()),
    }
    new.insert("command".into(), program.into());
    new.insert("args".into(), json!(args));
    Turned::Changed(new)
}

fn take_out(client: Client, entry: &Map<String, Value>) -> Turned {
    if !is_ours(entry) {
        return Turned::Same("is not behind the gateway".into());
    }
    let args = words(entry);
    let mut new = entry.clone();
    if let Some(at) = args.iter().position(|word| word == "--") {
        let Some((command, rest)) = args.get(at + 1..).and_then(<[String]>::split_first) else {
            return Turned::Same("left: it names no command".into());
        };
        new.insert("command".into(), command.as_str().into());
        match rest {
            [] => new.remove("args"),
            rest => new.insert("args".into(), json!(rest)),
        };
        return Turned::Changed(new);
    }
    let Some(url) = args.iter().find_map(|word| word.strip_prefix("--url=")) else {
        return Turned::Same("left: it stands for an upstream of a configuration".into());
    };
    new.remove("command");
    new.remove("args");
    new.insert(client.url_key().into(), url.into());
    match args.iter().any(|word| word == SSE) {
        true => drop(new.insert("type".into(), "sse".into())),
        false if client.has_type() => drop(new.insert("type".into(), "http".into())),
        false => {}
    }
    Turned::Changed(new)
}

/// What one line says of a change.
fn told(name: &str, turned: &Turned) -> String {
    let plain = |word: &Value| word.as_str().map_or_else(|| word.to_string(), str::to_owned);
    match turned {
        Turned::Same(why) => format!("{name}: {why}"),
        Turned::Changed(new) => {
            let address = new.get("url").or_else(|| new.get("serverUrl")).map(plain);
            let command = new.get("command").map(plain).into_iter().chain(words(new));
            format!("{name} -> {}", address.unwrap_or_else(|| command.collect::<Vec<_>>().join(" ")))
        }
    }
}

/// The members of an entry that may change.
const TOUCHED: [&str; 5] = ["type", "command", "args", "url", "serverUrl"];

fn in_json(client: Client, text: &str, turn: impl Fn(&str, &Map<String, Value>) -> Turned, said: &mut Vec<String>) -> Result<String, String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| error.to_string())?;
    let Some(top) = root.object_value() else { return Err("it holds no object".into()) };
    let mut places: Vec<CstObject> = top.object_value(client.servers_key()).into_iter().collect();
    // Claude Code keeps servers of one project under the project's path.
    let projects = top.object_value("projects").filter(|_| client == Client::ClaudeCode);
    places.extend(
        projects.into_iter().flat_map(|projects| projects.properties()).filter_map(|project| project.object_value()?.object_value("mcpServers")),
    );
    for server in places.iter().flat_map(CstObject::properties) {
        let (Some(name), Some(entry)) = (server.name().and_then(|name| name.decoded_value().ok()), server.object_value()) else { continue };
        let Some(Value::Object(now)) = entry.to_serde_value() else { continue };
        let turned = turn(&name, &now);
        said.push(told(&name, &turned));
        let Turned::Changed(new) = turned else { continue };
        for key in TOUCHED.iter().filter(|key| now.get(**key) != new.get(**key)) {
            match (entry.get(key), new.get(*key)) {
                (Some(member), Some(value)) => member.set_value(input(value)),
                (None, Some(value)) => drop(entry.append(key, input(value))),
                (Some(member), None) => member.remove(),
                (None, None) => {}
            }
        }
    }
    Ok(root.to_string())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::Null => CstInputValue::Null,
        Value::Object(members) => CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect()),
    }
}

fn in_toml(text: &str, turn: impl Fn(&str, &Map<String, Value>) -> Turned, said: &mut Vec<String>) -> Result<String, String> {
    let mut document: toml_edit::DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let all: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let Some(servers) = all.get("mcp_servers").and_then(toml::Value::as_table) else { return Ok(text.to_owned()) };
    for (name, entry) in servers {
        let Ok(Value::Object(now)) = serde_json::to_value(entry) else { continue };
        let turned = turn(name, &now);
        said.push(told(name, &turned));
        let Turned::Changed(new) = turned else { continue };
        let entry = document.get_mut("mcp_servers").and_then(|servers| servers.get_mut(name)).and_then(toml_edit::Item::as_table_like_mut);
        let Some(entry) = entry else { continue };
        for key in TOUCHED.iter().filter(|key| now.get(**key) != new.get(**key)) {
            match new.get(*key) {
                Some(Value::Array(items)) => {
                    let items: toml_edit::Array = items.iter().filter_map(Value::as_str).collect();
                    entry.insert(key, toml_edit::value(items));
                }
                Some(value) => drop(entry.insert(key, toml_edit::value(value.as_str().unwrap_or_default()))),
                None => drop(entry.remove(key)),
            }
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/usr/bin/countersign";

    fn both(client: Client, before: &str) -> (String, String) {
        let turned = |text: &str, way: Way| {
            let turn =
                |name: &str, entry: &Map<String, Value>| if way == Way::In { put_in(client, name, entry, PROGRAM) } else { take_out(client, entry) };
            let mut said = Vec::new();
            let after = if client == Client::Codex { in_toml(text, turn, &mut said) } else { in_json(client, text, turn, &mut said) };
            after.unwrap()
        };
        let within = turned(before, Way::In);
        assert_eq!(turned(&within, Way::In), within, "not idempotent");
        let out = turned(&within, Way::Out);
        assert_eq!(turned(&out, Way::Out), out, "not idempotent");
        (within, out)
    }

    #[test]
    fn comments_and_everything_else_stay_and_it_can_be_undone() {
        let before = "{\n  // my servers\n  \"other\": [1, 2],\n  \"mcpServers\": {\n    \"files\": {\n      \"command\": \"npx\", // the usual\n      \"args\": [\"-y\", \"@modelcontextprotocol/server-filesystem\", \"/data\"],\n      \"env\": { \"TOKEN\": \"${TOKEN}\" }\n    },\n  }\n}\n";
        let (within, out) = both(Client::Cursor, before);
        for kept in ["// my servers", "\"other\": [1, 2]", "// the usual", "\"env\": { \"TOKEN\": \"${TOKEN}\" }"] {
            assert!(within.contains(kept) && out.contains(kept), "{kept}\n{within}\n{out}");
        }
        let read = |text: &str| CstRootNode::parse(text, &ParseOptions::default()).unwrap().to_serde_value().unwrap();
        assert_eq!(read(&out), read(before));
        let entry = &read(&within)["mcpServers"]["files"];
        assert_eq!(entry["command"], PROGRAM);
        assert_eq!(
            entry["args"],
            json!(["wrap", "--server=files", "--env=TOKEN", "--", "npx", "-y", "@modelcontextprotocol/server-filesystem", "/data"])
        );
    }

    #[test]
    fn addresses_projects_and_each_clients_own_words_are_known() {
        let read = |text: &str| CstRootNode::parse(text, &ParseOptions::default()).unwrap().to_serde_value().unwrap();
        let code = r#"{"mcpServers": {"docs": {"type": "http", "url": "https://x.example/mcp"}}, "projects": {"/p": {"mcpServers": {"a b": {"type": "stdio", "command": "srv", "args": []}}}}}"#;
        let (within, out) = both(Client::ClaudeCode, code);
        let entries = read(&within);
        assert_eq!(
            entries["mcpServers"]["docs"],
            json!({"type": "stdio", "command": PROGRAM, "args": ["wrap", "--server=docs", "--url=https://x.example/mcp"]})
        );
        assert_eq!(entries["projects"]["/p"]["mcpServers"]["a b"]["args"], json!(["wrap", "--server=a-b", "--", "srv"]));
        assert_eq!(read(&out)["mcpServers"], read(code)["mcpServers"]);
        let (within, out) = both(
            Client::Windsurf,
            r#"{"mcpServers": {"w": {"serverUrl": "https://x.example/mcp"}, "h": {"serverUrl": "https://y", "headers": {"A": "b"}}}}"#,
        );
        assert!(within.contains("--url=https://x.example/mcp") && within.contains(r#""serverUrl": "https://y""#));
        assert!(out.contains(r#""serverUrl": "https://x.example/mcp""#), "{out}");
        for client in [Client::ClaudeCode, Client::Cursor] {
            let old = r#"{"mcpServers": {"old": {"type": "sse", "url": "https://x.example/sse"}}}"#;
            let (within, out) = both(client, old);
            assert!(within.contains("--url=https://x.example/sse") && within.contains(SSE) && !within.contains(r#""sse""#), "{within}");
            assert_eq!(read(&out)["mcpServers"], read(old)["mcpServers"], "{within}");
        }
        let (within, _) = both(Client::VsCode, r#"{"servers": {"v": {"type": "stdio", "command": "srv"}}, "inputs": [{"id": "t"}]}"#);
        assert_eq!(read(&within)["inputs"], json!([{"id": "t"}]));
        assert_eq!(read(&within)["servers"]["v"]["command"], PROGRAM);
    }

    #[test]
    fn an_address_that_may_carry_a_secret_is_left() {
        for url in ["https://z.example/mcp?key=s", "https://u:p@z.example/mcp"] {
            let entry = json!({"url": url}).as_object().cloned().unwrap();
            assert!(matches!(put_in(Client::Cursor, "z", &entry, PROGRAM), Turned::Same(_)), "{url}");
        }
    }

    #[test]
    fn codex_keeps_its_comments() {
        let before = "model = \"x\" # mine\n\n[mcp_servers.files] # the files\ncommand = \"npx\"\nargs = [\"-y\", \"srv\"]\n\n[mcp_servers.files.env]\nTOKEN = \"t\"\n";
        let (within, out) = both(Client::Codex, before);
        assert!(
            within.contains("# mine") && within.contains("# the files") && within.contains("\"--env=TOKEN\", \"--\", \"npx\", \"-y\", \"srv\""),
            "{within}"
        );
        assert_eq!(out, before);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let turn = |_: &str, _: &Map<String, Value>| Turned::Same(String::new());
        for text in ["", "[]", "{\"mcpServers\": "] {
            assert!(in_json(Client::Cursor, text, turn, &mut Vec::new()).is_err(), "{text}");
        }
        assert!(in_toml("x = ", turn, &mut Vec::new()).is_err());
    }
}
