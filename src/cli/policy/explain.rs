//! `countersign policy explain`: one call, judged out loud: each finding, and the sum that they make.

use std::collections::BTreeMap;

use super::super::{Code, Failure, print};
use crate::adapters::credential::{Ending, Issuers, Order};
use crate::domain::call::{CallError, Caller, Identity, Method, ToolCall};
use crate::domain::clock::{Clock, Timestamp, spoken};
use crate::domain::decision::verdict;
use crate::domain::json::{Limits, read};
use crate::domain::policy::{CredentialTerms, Policy, PolicySet, Verdict};
use crate::domain::risk::{Assessment, Finding, Group, History};
use crate::domain::text::visible;
use crate::domain::tool::Known;
use crate::system::SystemClock;

pub(super) fn run(set: &PolicySet, issuers: &Issuers, name: &str, arguments: &str) -> Result<(), Failure> {
    let (server, tool) = name.split_once('/').ok_or_else(|| Failure::said("name the tool as SERVER/TOOL"))?;
    if let Err(error) = read(arguments.as_bytes(), Limits::default()) {
        let shown = pointed(arguments, error.place.offset);
        return Err(Failure::said(format!("the arguments are not JSON: {error}\n{shown}")).code(Code::Invalid));
    }
    let refused = |error: CallError| Failure::said(error.to_string()).code(Code::Invalid);
    let call = ToolCall::described(tool, arguments, Limits::default()).map_err(refused)?;
    let gate = set.gate(server, &call).map_err(refused)?;
    if call.method != Method::CallTool && gate.is_none() {
        print(&format!("{name}: no policy is for it, so it goes through to the server"));
        return Ok(());
    }
    let policy = gate.unwrap_or_else(|| set.for_tool(server, tool));
    let caller = Caller { name: "explain".into(), owner: None, identity: Identity::Configured };
    let judged = policy.judge(&call, &caller, &Known::NotAsked, &History::default());
    print(&format!("{server}/{tool}, judged by {}\n", policy.source));
    findings(&judged.assessment);
    print(&format!("\n  {}", sum(&judged.assessment)));
    for (decision, because) in &judged.demands {
        print(&format!("  a rule demands {}: {because}", format!("{decision:?}").to_lowercase()));
    }
    if let Some(terms) = &policy.credential {
        print(&credential(terms, issuers, server, &call, caller));
    }
    let decision = verdict(&policy, &judged);
    print(&format!("\n{}", outcome(&policy, decision)));
    if decision == Verdict::Allow { Ok(()) } else { Err(Failure::said(format!("the decision is {decision:?}")).code(Code::Withheld)) }
}

/// The credential that the call would get, and what its issuer would be asked, which it is not.
fn credential(terms: &CredentialTerms, issuers: &Issuers, server: &str, call: &ToolCall, caller: Caller) -> String {
    let scope = match terms.scope(&call.arguments) {
        Ok(scope) => scope,
        Err(error) => return format!("  credential: none can be minted, so it does not run: {error}"),
    };
    let head = format!("  credential: `{}` from {} for {}", scope.shown(), terms.issuer, spoken(terms.ttl));
    let Some(issuer) = issuers.get(&terms.issuer) else { return head };
    let order = Order {
        lease: "0".repeat(32),
        audience: server.to_owned(),
        caller,
        scope,
        ttl: terms.ttl,
        subject: "0".repeat(32),
        server: server.to_owned(),
        tool: call.tool.clone(),
        arguments: call.arguments_digest(),
        approvers: vec![],
        now: SystemClock::starting_at(Timestamp(0)).now(),
    };
    let ending = match issuer.nature().ending {
        Ending::Revoked => "revoked after the call".to_owned(),
        Ending::ByTime => format!("cannot be revoked, dead after {}", spoken(issuer.longest(terms.ttl))),
        Ending::Stays => "a stored secret, which stays valid".to_owned(),
    };
    match issuer.plan(&order) {
        Ok(plan) => {
            let request: String = plan.request.lines().map(|line| format!("\n    {line}")).collect();
            format!("{head}, {ending}\n  asked of {} ({}), which is not asked now:{request}", terms.issuer, issuer.nature().kind)
        }
        Err(error) => format!("{head}: none can be minted, so it does not run: {error}"),
    }
}

fn findings(assessment: &Assessment) {
    let place = |finding: &Finding| finding.pointer.clone().unwrap_or_else(|| "the call".into());
    let wide = assessment.findings.iter().map(|f| place(f).chars().count()).max().unwrap_or(0).min(32);
    print(&format!("  points  weight  {:<wide$}  why", "where"));
    for finding in &assessment.findings {
        let floor = finding.floor.as_ref().map(|f| format!(" (not below {}: {})", f.score, f.name)).unwrap_or_default();
        let weight = f64::from(finding.weight) / 1000.0;
        print(&format!("  {:>+6}  {weight:>6.3}  {:<wide$}  {}{floor}", finding.points, visible(&place(finding)), finding.reason));
        if let Some(evidence) = finding.evidence.as_ref().filter(|text| !text.is_empty()) {
            print(&format!("  {:>16}{:<wide$}  ↳ {evidence}", "", ""));
        }
    }
    if assessment.findings.iter().any(|f| f.points == 0) {
        print("  (+0: the score would be the same without it)");
    }
}

/// The sum, as it is worked out: the heaviest of each group, combined as independent reasons, then the floors.
fn sum(assessment: &Assessment) -> String {
    let mut heaviest: BTreeMap<Group, u16> = BTreeMap::new();
    for finding in &assessment.findings {
        let weight = heaviest.entry(finding.group).or_default();
        *weight = (*weight).max(finding.weight.min(1000));
    }
    let factors: Vec<String> = heaviest.values().filter(|w| **w > 0).map(|w| format!("{:.3}", f64::from(1000 - *w) / 1000.0)).collect();
    let left: f64 = heaviest.values().map(|w| f64::from(1000 - *w) / 1000.0).product();
    let plain = ((1.0 - left) * 100.0 + 1e-9).floor();
    let floor = assessment.findings.iter().filter_map(|f| f.floor.as_ref()).map(|f| f.score).max();
    let sum = format!("sum: 100 · (1 − {}) = {plain:.0}", if factors.is_empty() { "1".into() } else { factors.join(" · ") });
    let lifted = floor.filter(|floor| f64::from(*floor) > plain).map(|floor| format!(", lifted by a floor to {floor}")).unwrap_or_default();
    let capped = if f64::from(assessment.score) < plain { ", lowered by the policy's ceiling" } else { "" };
    format!("{sum}{lifted}{capped}; score {}", assessment.score)
}

fn outcome(policy: &Policy, decision: Verdict) -> String {
    let ask = &policy.ask;
    let two = if ask.bands.two_from > 100 { String::new() } else { format!(", two from {}", ask.bands.two_from) };
    let bands = format!("one is asked from {}{two}", ask.bands.from);
    let who = ask.approvers.join(" or ");
    match decision {
        Verdict::Allow => format!("It runs without asking anybody ({bands})."),
        Verdict::RequireApproval => format!("It waits for one person: {who} ({bands})."),
        Verdict::RequireTwoApprovals => format!("It waits for two people: {who} ({bands})."),
        Verdict::Deny => "It is refused by a rule.".to_owned(),
    }
}

/// The line of a text with a mark below one byte.
pub(super) fn pointed(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    let column = before.get(start..).unwrap_or_default().chars().count();
    format!("  | {line}\n  | {}^", " ".repeat(column))
}
