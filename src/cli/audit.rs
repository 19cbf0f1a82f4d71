//! `countersign audit`: check the chain, read the story of one call.

use serde_json::Value;

use super::{Code, Failure, print};
use crate::app::config::Config;
use crate::app::{App, AppError};
use crate::domain::audit::{Record, Verifier};
use crate::domain::text::visible;

/// Check and read the record
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Tell the story of one call
    #[command(after_help = "Example: countersign audit show 3f9c2a…")]
    Show {
        /// The approval's or attempt's id, or the beginning of it
        id: String,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Check that no record was changed, dropped or moved
    #[command(after_help = "Example: countersign audit verify")]
    Verify,
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let app = App::build(config, String::new()).await?;
    let done = match arguments.verb {
        Verb::Verify => verify(&app).await,
        Verb::Show { id, json } => show(&app, &id, json).await,
    };
    app.end().await;
    done
}

/// Follows the whole chain.
pub(super) async fn verify(app: &App) -> Result<(), Failure> {
    let mut verifier = Verifier::default();
    loop {
        let (last, _) = verifier.head();
        let records = app.gateway.store.records(last, 1000).await.map_err(AppError::from)?;
        if records.is_empty() {
            break;
        }
        for record in &records {
            verifier.next(record).map_err(|error| {
                Failure::said(error.to_string())
                    .code(Code::Broken)
                    .hint("compare with a copy of the store: everything before that record still holds")
            })?;
        }
    }
    let (count, head) = verifier.head();
    print(&format!("{count} records, unbroken; the last is {head}"));
    Ok(())
}

async fn show(app: &App, id: &str, json: bool) -> Result<(), Failure> {
    let mut records = app.gateway.store.records_of(id).await.map_err(AppError::from)?;
    if records.is_empty() && id.len() >= 4 {
        // The beginning of an id is enough where it is the only one.
        let (open, settled) =
            crate::adapters::channel::ReviewDesk::approvals(app.gateway.as_ref()).await.map_err(|e| Failure::said(e.to_string()))?;
        let ids: Vec<String> = open.iter().chain(&settled).map(|a| a.request().id.clone()).filter(|full| full.starts_with(id)).collect();
        if let [full] = ids.as_slice() {
            records = app.gateway.store.records_of(full).await.map_err(AppError::from)?;
        }
    }
    if records.is_empty() {
        return Err(Failure::said(format!("nothing is recorded about `{id}`")).hint("countersign approvals list --all shows ids"));
    }
    for record in &records {
        print(&if json { line(record) } else { told(record) });
    }
    Ok(())
}

fn line(record: &Record) -> String {
    let data: Value = serde_json::from_str(&record.entry.data).unwrap_or_default();
    serde_json::json!({
        "seq": record.seq, "at": record.entry.at.to_string(), "kind": record.entry.kind, "call": record.entry.call,
        "subject": record.entry.subject, "data": data, "hash": record.hash,
    })
    .to_string()
}

/// One record as a sentence.
pub(super) fn told(record: &Record) -> String {
    let data: Value = serde_json::from_str(&record.entry.data).unwrap_or_default();
    let text = |pointer: &str| match data.pointer(pointer) {
        Some(Value::String(text)) => visible(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => visible(&other.to_string()),
    };
    let list = |pointer: &str| {
        let items = data.pointer(pointer).and_then(Value::as_array);
        items.map(|items| items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")).unwrap_or_default()
    };
    let said = match record.entry.kind.name() {
        "allowed" => format!(
            "{} called {}/{} {}: score {}, allowed by policy",
            text("/caller/name"),
            text("/server"),
            text("/tool"),
            text("/arguments"),
            text("/score")
        ),
        "asked" => format!(
            "{} called {}/{} {}: score {}, asked {} (until {})",
            text("/caller/name"),
            text("/server"),
            text("/tool"),
            text("/arguments"),
            text("/score"),
            list("/approvers"),
            text("/decide_by")
        ),
        "denied" => format!("{} called {}/{}: refused, {}", text("/caller/name"), text("/server"), text("/tool"), text("/because")),
        "attached" if data.get("task").is_some() => match (text("/goes_on_as"), data.get("answered"), data.get("cancelled")) {
            (on, ..) if !on.is_empty() => format!("its server asked back, its client answered: the task goes on as {on}"),
            (_, Some(_), _) => "its server asked back, its client answered: the task ended without another approval".into(),
            (.., Some(_)) => "its client took the task back".into(),
            _ => "its client follows it as a task".into(),
        },
        "attached" => format!("the same call came again while it was {}", text("/state")),
        "reviewed" => {
            let reason = if text("/review/reason").is_empty() { String::new() } else { format!(": {}", text("/review/reason")) };
            let owner = if data.get("by_owner") == Some(&Value::Bool(true)) { ", the caller's owner," } else { "" };
            let right = match (text("/review/capacity/member"), text("/review/capacity/delegate")) {
                (group, _) if !group.is_empty() => format!(", as one of {group},"),
                (_, seat) if !seat.is_empty() => format!(", for {seat},"),
                _ => String::new(),
            };
            let again = match (text("/allowance/id"), text("/allowance/left"), text("/allowance/expires_at")) {
                (id, _, _) if id.is_empty() => String::new(),
                (id, times, _) => format!("; the same call may run {times} more times (allowance {id})"),
            };
            format!(
                "{}{owner}{right} said {}{reason} ({}, {}); it is now {}{again}",
                text("/review/approver"),
                text("/review/verdict"),
                text("/review/channel"),
                text("/review/assurance"),
                text("/state")
            )
        }
        "review-refused" if data.get("review").is_none() => {
            let account = if text("/account").is_empty() { "somebody".to_owned() } else { text("/account") };
            format!("{account} clicked in {}, which did not count: {}", text("/channel"), text("/refused"))
        }
        "review-refused" => format!("{} said {}, which did not count: {}", text("/review/approver"), text("/review/verdict"), text("/refused")),
        "redeemed" => format!("the approval was used up by {}", text("/by")),
        "mint-intended" if data.get("scope").is_none() => format!("at {} it is named {}", text("/issuer"), text("/handle")),
        "mint-failed" if text("/may_exist") == "true" => {
            format!("credential {}: {} did not say whether it minted: {}", text("/lease"), text("/issuer"), text("/why"))
        }
        "mint-failed" => format!("no credential was minted by {}: {}", text("/issuer"), text("/why")),
        "mint-intended" => format!("a credential for `{}` is asked of {} for at most {} s", text("/scope"), text("/issuer"), text("/ttl_seconds")),
        "minted" => {
            let granted = if text("/granted").is_empty() { String::new() } else { format!(" (granted: {})", text("/granted")) };
            format!("credential {} for `{}` was minted{granted}", text("/lease"), text("/scope"))
        }
        "dispatched" => "the call went to the server".into(),
        "completed" => {
            let failed = data.pointer("/outcome/is_error").or_else(|| data.get("is_error")) == Some(&Value::Bool(true));
            let how = if failed { "the tool reported an error" } else { "it ran" };
            let digest = if text("/outcome/result").is_empty() { text("/result") } else { text("/outcome/result") };
            format!("the server answered: {how} (result {digest})")
        }
        "posted" => format!("{} was asked in {} (message {} in {})", text("/recipient"), text("/channel"), text("/message"), text("/place")),
        "alarm" => format!("ALARM in {}: {}", text("/channel"), text("/what")),
        "allowance-used" => format!(
            "{} called {}/{} {}: score {}, not asked, for {} allowed it (allowance {})",
            text("/caller/name"),
            text("/server"),
            text("/tool"),
            text("/arguments"),
            text("/score"),
            text("/approver"),
            text("/allowance")
        ),
        "allowance-revoked" => {
            format!("{} ended allowance {} with {} uses left ({})", text("/by"), text("/allowance"), text("/left"), text("/assurance"))
        }
        "delivered" => "the answer reached the caller".into(),
        "credential-revoked" => format!("credential {} was revoked, and {} said so", text("/lease"), text("/issuer")),
        "credential-lapses" => format!("credential {} is dead at {}: {}", text("/lease"), text("/expires_at"), text("/why")),
        "credential-expired" => format!("credential {} is dead by its time", text("/lease")),
        "credential-kept" => format!("the stored secret of {} stays valid", text("/issuer")),
        "credential-refused" => format!("ALARM: {} granted something else than was asked: {}; the call does not run", text("/issuer"), text("/why")),
        "revoke-failed" => format!("credential {} is NOT revoked: {}; again at {}", text("/lease"), text("/why"), text("/again_at")),
        "expired" => format!("time ran out while it was {}", text("/was")),
        "failed" | "outcome-unknown" => {
            let why = if text("/why").is_empty() { text("/outcome/why") } else { text("/why") };
            let what = if record.entry.kind.name() == "failed" { "it did not run" } else { "UNKNOWN whether it ran" };
            format!("{what}: {why}")
        }
        other => format!("{other}: {}", visible(&record.entry.data)),
    };
    format!("{:>6}  {}  {:<18}  {said}", record.seq, record.entry.at, record.entry.kind.name())
}
