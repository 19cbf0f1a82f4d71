//! `countersign approvals`: the queue, from a terminal.
//!
//! Whoever can write the store's file can decide here: the record says `terminal` and which user of the system it was.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::json;

use super::{Code, Failure, print, watch};
use crate::adapters::channel::{DeskError, ReviewDesk, Verdict};
use crate::app::config::Config;
use crate::app::{App, AppError};
use crate::domain::approval::{Again, Approval, ReviewVerdict};
use crate::domain::clock::spoken;
use crate::domain::text::visible;

/// See and decide what waits
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what approvers allowed again, or stop it
    #[command(after_help = "Example: countersign approvals allowances --stop 3f9c2a --as anna")]
    Allowances {
        /// The id of one to stop, or the beginning of it
        #[arg(long, value_name = "ID")]
        stop: Option<String>,
        /// Who stops it [default: the only approver there is]
        #[arg(long = "as", value_name = "NAME")]
        approver: Option<String>,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Approve one call
    #[command(after_help = "Example: countersign approvals approve 3f9c2a --as anna")]
    Approve(Decision),
    /// Deny one call
    #[command(after_help = "Example: countersign approvals deny 3f9c2a --as anna --reason 'wrong account'")]
    Deny(Decision),
    /// List what waits
    #[command(after_help = "Example: countersign approvals list --json")]
    List {
        /// Settled ones as well
        #[arg(long)]
        all: bool,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Print a personal one-time link to the inbox
    #[command(after_help = "Example: countersign approvals login anna")]
    Login {
        /// The approver
        name: String,
    },
    /// Show one call whole
    #[command(after_help = "Example: countersign approvals show 3f9c2a")]
    Show {
        /// The approval's id, or the beginning of it
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a question back, or make an approval void before it is used
    #[command(after_help = "Example: countersign approvals withdraw 3f9c2a --reason 'wrong branch'")]
    Withdraw {
        /// The approval's id, or the beginning of it
        id: String,
        /// Why
        #[arg(long, default_value = "withdrawn from the terminal")]
        reason: String,
    },
    /// Watch and decide, live
    #[command(after_help = "Example: countersign approvals watch --as anna")]
    Watch {
        /// Who decides [default: the only approver there is]
        #[arg(long = "as", value_name = "NAME")]
        approver: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Decision {
    /// The approval's id, or the beginning of it
    id: String,
    /// Who decides [default: the only approver there is]
    #[arg(long = "as", value_name = "NAME")]
    approver: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask again
    #[arg(long)]
    yes: bool,
    /// The one-time code, where the policy asks for one
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Allow the same call so many times more, where the policy permits it
    #[arg(long, value_name = "TIMES")]
    again: Option<u32>,
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let address = config.address();
    let approvers = config.approvers.clone();
    let app = App::build(config, address.clone()).await?;
    let done = match arguments.verb {
        Verb::Allowances { stop, approver, json } => match stop {
            Some(id) => stop_allowance(&app, &id, acting(&approvers, approver)).await,
            None => allowances(&app, json).await,
        },
        Verb::List { all, json } => list(&app, all, json).await,
        Verb::Show { id, json } => show(&app, &id, json).await,
        Verb::Approve(decision) => decide(&app, &approvers, decision, ReviewVerdict::Approve).await,
        Verb::Deny(decision) => decide(&app, &approvers, decision, ReviewVerdict::Deny).await,
        Verb::Withdraw { id, reason } => withdraw(&app, &id, &reason).await,
        Verb::Login { name } => login(&app, &address, &name).await,
        Verb::Watch { approver } => match acting(&approvers, approver) {
            Ok(approver) => watch::run(&app, &approver).await,
            Err(failure) => Err(failure),
        },
    };
    app.end().await;
    done
}

impl From<DeskError> for Failure {
    fn from(error: DeskError) -> Self {
        Self::said(error.to_string())
    }
}

fn acting(approvers: &[String], named: Option<String>) -> Result<String, Failure> {
    match (named, approvers) {
        (Some(name), _) if approvers.contains(&name) => Ok(name),
        (Some(name), _) => Err(Failure::said(format!("`{name}` is not an approver")).hint(format!("approvers: {}", approvers.join(", ")))),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Failure::said("say who decides").hint(format!("--as NAME, one of: {}", approvers.join(", ")))),
    }
}

/// How a decision from here is attributed.
pub(super) fn assurance() -> String {
    format!("terminal, operating-system user {}", rustix::process::getuid().as_raw())
}

async fn list(app: &App, all: bool, json: bool) -> Result<(), Failure> {
    let (open, settled) = app.gateway.approvals().await?;
    let now = app.gateway.clock.now();
    let shown: Vec<&Approval> = if all { open.iter().chain(&settled).collect() } else { open.iter().collect() };
    if shown.is_empty() && !json {
        print("nothing waits");
    }
    for approval in shown {
        let request = approval.request();
        if json {
            print(&as_json(approval).to_string());
            continue;
        }
        let left = approval.runs_out().map(|end| format!("{} left", spoken(end.since(now)))).unwrap_or_default();
        print(&format!(
            "{}  {:>3}  {:<10} {:<16} {}  ({}; {})",
            request.id.get(..12).unwrap_or(&request.id),
            request.assessment.score,
            approval.state(),
            left,
            visible(&request.title),
            request.caller.name,
            request.terms.approvers.join(" or ")
        ));
    }
    Ok(())
}

fn as_json(approval: &Approval) -> serde_json::Value {
    let request = approval.request();
    json!({
        "id": request.id, "state": approval.state(), "score": request.assessment.score, "title": request.title, "server": request.binding.server,
        "tool": request.tool, "caller": request.caller.name, "approvers": request.terms.approvers, "quorum": request.terms.quorum,
        "digest": request.digest, "decide_by": request.terms.decide_by.to_string(), "approval": approval,
    })
}

/// The approval whose id begins so.
async fn find(app: &App, id: &str) -> Result<Approval, Failure> {
    if let Some(found) = app.gateway.approval(id).await? {
        return Ok(found);
    }
    let (open, settled) = app.gateway.approvals().await?;
    let mut found: Vec<Approval> = open.into_iter().chain(settled).filter(|a| !id.is_empty() && a.request().id.starts_with(id)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(approval), true) => Ok(approval),
        (Some(_), false) => Err(Failure::said(format!("several ids begin with `{id}`")).hint("give more of it")),
        (None, _) => Err(Failure::said(format!("there is no call `{id}`")).hint("countersign approvals list")),
    }
}

async fn show(app: &App, id: &str, json: bool) -> Result<(), Failure> {
    let approval = find(app, id).await?;
    if json {
        print(&as_json(&approval).to_string());
    } else {
        for line in whole(&approval, app.gateway.clock.now()) {
            print(&line);
        }
    }
    Ok(())
}

/// One call, whole, as lines.
pub(super) fn whole(approval: &Approval, now: crate::domain::clock::Timestamp) -> Vec<String> {
    let request = approval.request();
    let mut lines = vec![
        visible(&request.title),
        format!("  state        {}", approval.state()),
        format!("  score        {} ({:?})", request.assessment.score, request.assessment.band),
        format!("  tool         {} on {} ({})", visible(&request.tool), request.binding.server, visible(&request.binding.upstream)),
        format!("  effect       {}", request.effect.name()),
        format!(
            "  asked by     {}{}",
            request.caller.name,
            request.caller.owner.as_ref().map(|o| format!(", answered for by {o}")).unwrap_or_default()
        ),
        format!("  approvers    {} of {}", request.terms.quorum, request.terms.approvers.join(", ")),
    ];
    if let Some(end) = approval.runs_out() {
        lines.push(format!("  time left    {}", spoken(end.since(now))));
    }
    lines.push(match &request.credential {
        Some(c) => format!("  credential   `{}` from {}, {}", visible(&c.scope), c.issuer, c.life()),
        None => "  credential   none: the server uses its own".into(),
    });
    for (what, text) in [("sensitivity", &request.sensitivity), ("environment", &request.environment)] {
        if let Some(text) = text {
            lines.push(format!("  {what:<12} {}", visible(text)));
        }
    }
    lines.push(format!("  arguments    {}", visible(&request.arguments)));
    if request.extras != "{}" {
        lines.push(format!("  and          {}", visible(&request.extras)));
    }
    for finding in &request.assessment.findings {
        let place = finding.pointer.as_deref().map(|p| format!(" at {}", visible(p))).unwrap_or_default();
        lines.push(format!("  +{:<3}         {}{place}", finding.points, visible(&finding.reason)));
    }
    for (what, text) in [("the agent says (unverified)", &request.stated_reason), ("the client says (unverified)", &request.stated_prompt)] {
        if let Some(text) = text {
            lines.push(format!("  {what}: {}", visible(text)));
        }
    }
    for review in approval.reviews() {
        let reason = review.reason.as_deref().map(|r| format!(": {}", visible(r))).unwrap_or_default();
        lines.push(format!("  {:?} by {} at {}{reason}", review.verdict, review.approver, review.at));
    }
    lines.push(format!("  digest       {}", request.digest));
    lines.push(format!("  id           {}", request.id));
    lines
}

async fn decide(app: &App, approvers: &[String], decision: Decision, verdict: ReviewVerdict) -> Result<(), Failure> {
    let approver = acting(approvers, decision.approver)?;
    let approval = find(app, &decision.id).await?;
    for line in whole(&approval, app.gateway.clock.now()) {
        print(&line);
    }
    let word = if verdict == ReviewVerdict::Approve { "approve" } else { "deny" };
    if !decision.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::said("nobody is there to be asked").hint("--yes decides without asking again"));
        }
        drop(write!(std::io::stderr(), "{word} this call as {approver}? Type {word}: "));
        let mut typed = String::new();
        std::io::stdin().lock().read_line(&mut typed)?;
        if typed.trim() != word {
            return Err(Failure::said("nothing was decided"));
        }
    }
    let request = approval.request();
    let again = match (decision.again, &request.terms.again) {
        (None, _) => None,
        (Some(times), Some(terms)) => Some(Again { times, for_ms: terms.for_ms }),
        (Some(_), None) => return Err(Failure::said("the policy does not let this call be allowed again").hint("see `again` under `[approval]`")),
    };
    let verdict = Verdict {
        approval: request.id.clone(),
        approver,
        verdict,
        reason: decision.reason,
        shown: request.digest,
        channel: "terminal",
        assurance: assurance(),
        code: decision.code,
        again,
    };
    let next = app.gateway.review(verdict).await.map_err(|error| Failure::from(error).code(Code::Failed))?;
    print(&format!("it is now {}", next.state()));
    Ok(())
}

async fn allowances(app: &App, json: bool) -> Result<(), Failure> {
    let all = app.gateway.allowances().await?;
    if all.is_empty() && !json {
        print("nothing is allowed again");
    }
    for allowance in all {
        print(&match json {
            true => serde_json::json!(allowance).to_string(),
            false => format!(
                "{}  {} on {} by {}: {} more times until {}, up to score {}, allowed by {} in approval {}",
                short(&allowance.id),
                visible(&allowance.tool),
                allowance.server,
                allowance.caller,
                allowance.left,
                allowance.expires_at,
                allowance.max_score,
                allowance.approver,
                short(&allowance.approval)
            ),
        });
    }
    Ok(())
}

async fn stop_allowance(app: &App, id: &str, approver: Result<String, Failure>) -> Result<(), Failure> {
    let approver = approver?;
    let all = app.gateway.allowances().await?;
    let found: Vec<_> = all.iter().filter(|allowance| allowance.id.starts_with(id)).collect();
    let [allowance] = found.as_slice() else {
        return Err(Failure::said(format!("{} allowances begin with `{id}`", found.len())).hint("countersign approvals allowances lists them"));
    };
    app.gateway.end_allowance(&allowance.id, &approver, &assurance()).await?;
    print("stopped: such calls are asked for again");
    Ok(())
}

/// Enough of an id to name it.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

async fn withdraw(app: &App, id: &str, reason: &str) -> Result<(), Failure> {
    let id = find(app, id).await?.request().id.clone();
    let next = app.gateway.withdraw(&id, &format!("{reason} ({})", assurance())).await?;
    print(&format!("it is now {}", next.state()));
    Ok(())
}

async fn login(app: &App, address: &str, name: &str) -> Result<(), Failure> {
    let token = app.gateway.new_login(name).await.map_err(|error| match error {
        DeskError::Review(_) => Failure::said(format!("`{name}` is not an approver")).hint("add `[approver.NAME]` to countersign.toml"),
        other => Failure::from(other),
    })?;
    print(&format!("{address}/inbox/login?token={token}"));
    drop(writeln!(std::io::stderr(), "for {name} alone; it works once, for {}", spoken(crate::gateway::LOGIN)));
    Ok(())
}

impl From<AppError> for DeskError {
    fn from(error: AppError) -> Self {
        Self::Store(error.to_string())
    }
}
