//! `countersign policy`: check the files, run their cases, explain a decision, accept changed tools.

mod explain;
mod init;
mod matrix;
mod replay;
mod tools;

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Failure, print};
use crate::adapters::store::{Change, Effect};
use crate::app::config::Config;
use crate::app::planners;
use crate::app::policies::Source;
use crate::app::{App, AppError};
use crate::domain::audit::{Entry, EventKind};
use crate::domain::clock::spoken;
use crate::domain::decision::verdict;
use crate::domain::policy::{Policy, PolicySet, by_server};
use crate::domain::text::visible;

/// Check, try and explain policies
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Compile all files, and say what they are
    #[command(after_help = "Examples:
  countersign policy check --policies tool-policies
  countersign policy check --against tools.json --server github   is every tool of that list covered?")]
    Check {
        #[command(flatten)]
        place: Where,
        /// A file with a server's answer to `tools/list`: every tool in it must be covered
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// The server that the file is from [default: the file's name]
        #[arg(long, requires = "against")]
        server: Option<String>,
    },
    /// Show how one call is judged, finding by finding
    #[command(after_help = "Example: countersign policy explain ledger/refund_payment --arguments '{\"amount\": 250}'")]
    Explain {
        /// SERVER/TOOL, SERVER/resource:URI or SERVER/prompt:NAME
        tool: String,
        /// The arguments, as JSON
        #[arg(long, default_value = "{}")]
        arguments: String,
        #[command(flatten)]
        place: Where,
    },
    Init(init::Arguments),
    /// Write down who approves what, when and under which criteria
    #[command(after_help = "Example: countersign policy matrix --format html > matrix.html")]
    Matrix {
        /// How it is written
        #[arg(long, value_enum, default_value_t = matrix::Format::Markdown)]
        format: matrix::Format,
        #[command(flatten)]
        place: Where,
    },
    /// Accept the tools that a server offers next as the ones to compare with
    #[command(after_help = "Example: countersign policy pin github")]
    Pin {
        /// The server's name
        server: String,
    },
    Replay(replay::Arguments),
    /// Run the cases in all files
    #[command(after_help = "Example: countersign policy test")]
    Test(Where),
}

#[derive(Debug, clap::Args)]
struct Where {
    /// The directory [default: that of the configuration]
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Check { place, against, server } => {
            let set = load(&config, place, config.path.is_none())?;
            match against {
                Some(file) => covers(&set, &file, server),
                None => check(&set),
            }
        }
        Verb::Init(arguments) => init::run(&config, arguments).await,
        Verb::Matrix { format, place } => matrix::run(&load(&config, place, true)?, format),
        Verb::Replay(arguments) => replay::run(config, arguments).await,
        Verb::Test(place) => test(&load(&config, place, true)?),
        Verb::Explain { tool, arguments, place } => {
            let set = load(&config, place, true)?;
            let address = config.address();
            explain::run(&set, &planners(&config, &address)?, &tool, &arguments)
        }
        Verb::Pin { server } => pin(config, server).await,
    }
}

/// The policies of a directory. Where nobody is asked, the people and issuers that they name need not exist.
fn load(config: &Config, place: Where, only_to_judge: bool) -> Result<PolicySet, Failure> {
    let defaults = if only_to_judge { config.defaults.clone().only_to_judge() } else { config.defaults.clone() };
    let address = config.address();
    let issuers = std::sync::Arc::new(planners(config, &address)?);
    let source = Source::new(place.policies.or(config.policies.clone()), defaults).with(issuers);
    Ok(source.load().map_err(AppError::from)?)
}

fn check(set: &PolicySet) -> Result<(), Failure> {
    for (server, count) in by_server(set) {
        print(&format!("{server}: {count} files"));
    }
    for policy in set.all() {
        let cases = if policy.tool != "*" && policy.cases.is_empty() { "  no [[case]] yet" } else { "" };
        print(&format!("  {}/{}  {}{cases}", policy.server, policy.tool, asks(&policy)));
    }
    print(&format!("everything else: {}", asks(set.fallback())));
    print(&format!("set {}", set.digest));
    Ok(())
}

fn asks(policy: &Policy) -> String {
    let ask = &policy.ask;
    let two = if ask.bands.two_from > 100 { String::new() } else { format!(", two from {}", ask.bands.two_from) };
    let when = match policy.mode {
        crate::domain::policy::Mode::Score => format!("asks from score {}{two}", ask.bands.from),
        mode => format!("always: {mode}{two}"),
    };
    format!("{when}: {} within {}", ask.approvers.join(" or "), spoken(ask.decide_by))
}

fn test(set: &PolicySet) -> Result<(), Failure> {
    let (mut held, mut failed) = (0, 0);
    for policy in set.all() {
        for case in &policy.cases {
            let outcome = case.run(&policy, verdict);
            if outcome.faults.is_empty() {
                held += 1;
                continue;
            }
            failed += 1;
            print(&format!("FAILED {}/{} `{}` ({})", policy.server, policy.tool, case.name, policy.source));
            for fault in outcome.faults {
                print(&format!("  {fault}"));
            }
        }
    }
    print(&format!("{held} cases hold, {failed} do not"));
    if failed > 0 { Err(Failure::said("some cases do not hold")) } else { Ok(()) }
}

/// Whether every tool of a list is covered by a policy, and every argument that policies name is declared.
fn covers(set: &PolicySet, file: &Path, server: Option<String>) -> Result<(), Failure> {
    let server = server.or_else(|| Some(file.file_stem()?.to_string_lossy().into_owned())).unwrap_or_default();
    let tools = tools::in_file(file)?;
    let (mut missing, mut strange) = (0, 0);
    for (tool, _) in &tools {
        let policy = set.for_tool(&server, &tool.name);
        let how = match (policy.tool == tool.name, policy.effect_of(&tool.name)) {
            (true, Some(effect)) => format!("{:<8} by {}", effect.name(), policy.source),
            (false, Some(effect)) => format!("{:<8} by {} (all tools of the server)", effect.name(), policy.source),
            (true, None) => format!("guessed  by {}", policy.source),
            (false, None) => {
                missing += 1;
                "NOT COVERED: its effect would be guessed".to_owned()
            }
        };
        print(&format!("  {:<40} {how}", visible(&tool.name)));
        for name in policy.undeclared(tool) {
            strange += 1;
            print(&format!("  {:<40} the policy looks at `/{name}`, which the tool does not declare", ""));
        }
    }
    print(&format!("{server}: {} tools, {missing} not covered, {strange} arguments not declared", tools.len()));
    if missing + strange > 0 { Err(Failure::said("the policies do not fit the list of tools")) } else { Ok(()) }
}

async fn pin(config: Config, server: String) -> Result<(), Failure> {
    let app = App::build(config, String::new()).await?;
    let data = json!({"server": server, "forgotten": "by the operator"}).to_string();
    let entry = Entry { kind: EventKind::Pinned, at: app.gateway.clock.now(), call: None, subject: None, data };
    app.gateway.store.commit(Change::synced(entry, vec![Effect::Unpin(server.clone())])).await.map_err(AppError::from)?;
    app.end().await;
    print(&format!("the definitions that `{server}` offers next are the ones to compare with"));
    Ok(())
}
