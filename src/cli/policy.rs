//! `countersign policy`: check the files, run their cases, explain a decision, accept changed tools.

use std::path::PathBuf;

use serde_json::json;

use super::{Code, Failure, print};
use crate::adapters::store::{Change, Effect};
use crate::app::config::Config;
use crate::app::policies::Source;
use crate::app::{App, AppError};
use crate::domain::audit::{Entry, EventKind};
use crate::domain::call::{Caller, Identity, ToolCall};
use crate::domain::clock::spoken;
use crate::domain::decision::verdict;
use crate::domain::json::Limits;
use crate::domain::policy::{Policy, PolicySet, Verdict, by_server};
use crate::domain::risk::History;
use crate::domain::tool::Known;

/// Check, try and explain policies
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Compile all files, and say what they are
    #[command(after_help = "Example: countersign policy check --policies tool-policies")]
    Check(Where),
    /// Show how one call is judged, finding by finding
    #[command(after_help = "Example: countersign policy explain ledger/refund_payment --arguments '{\"amount\": 250}'")]
    Explain {
        /// SERVER/TOOL
        tool: String,
        /// The arguments, as JSON
        #[arg(long, default_value = "{}")]
        arguments: String,
        #[command(flatten)]
        place: Where,
    },
    /// Accept the tools that a server offers next as the ones to compare with
    #[command(after_help = "Example: countersign policy pin github")]
    Pin {
        /// The server's name
        server: String,
    },
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
        Verb::Check(place) => check(&load(&config, place, config.path.is_none())?),
        Verb::Test(place) => test(&load(&config, place, true)?),
        Verb::Explain { tool, arguments, place } => explain(&load(&config, place, true)?, &tool, &arguments),
        Verb::Pin { server } => pin(config, server).await,
    }
}

/// The policies of a directory. Where nobody is asked, the people and issuers that they name need not exist.
fn load(config: &Config, place: Where, only_to_judge: bool) -> Result<PolicySet, Failure> {
    let defaults = if only_to_judge { config.defaults.clone().only_to_judge() } else { config.defaults.clone() };
    let source = Source::new(place.policies.or(config.policies.clone()), defaults);
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

fn explain(set: &PolicySet, tool: &str, arguments: &str) -> Result<(), Failure> {
    let (server, tool) = tool.split_once('/').ok_or_else(|| Failure::said("name the tool as SERVER/TOOL"))?;
    let name = serde_json::Value::from(tool);
    let params = format!("{{\"name\":{name},\"arguments\":{arguments}}}");
    let call = ToolCall::parse(params.as_bytes(), Limits::default()).map_err(|e| Failure::said(e.to_string()).code(Code::Invalid))?;
    let policy = set.for_tool(server, tool);
    let caller = Caller { name: "explain".into(), owner: None, identity: Identity::Configured };
    let judged = policy.judge(&call, &caller, &Known::NotAsked, &History::default());
    let assessment = &judged.assessment;
    print(&format!("{server}/{tool} by {}", policy.source));
    print(&format!("score {} ({:?})", assessment.score, assessment.band));
    for finding in &assessment.findings {
        let floor = finding.floor.as_ref().map(|f| format!(", not below {}", f.score)).unwrap_or_default();
        let place = finding.pointer.as_deref().map(|p| format!(" at {p}")).unwrap_or_default();
        print(&format!("  +{:<3} {}{place} [{} per mille{floor}]", finding.points, finding.reason, finding.weight));
    }
    for (decision, because) in &judged.demands {
        print(&format!("  rule: {decision:?}: {because}"));
    }
    if let Some(credential) = &policy.credential {
        match credential.scope.scope(&call.arguments) {
            Ok(scope) => print(&format!("credential: `{scope}` from {} for {}", credential.issuer, spoken(credential.ttl))),
            Err(error) => print(&format!("credential: none can be minted, so it does not run: {error}")),
        }
    }
    let decision = verdict(&policy, &judged);
    print(&format!("decision: {decision:?}"));
    if decision == Verdict::Allow { Ok(()) } else { Err(Failure::said(format!("the decision is {decision:?}")).code(Code::Withheld)) }
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
