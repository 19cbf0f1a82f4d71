//! What the inbox draws. Text of the agent is escaped by the template and made visible before; nothing of it is a link,
//! a tag or a style.

use maud::{DOCTYPE, Markup, html};

use crate::adapters::channel::Person;
use crate::domain::approval::{Approval, Outcome, Request, Review, ReviewVerdict};
use crate::domain::clock::{Timestamp, spoken};
use crate::domain::json::{Limits, Value, canonical, read};
use crate::domain::risk::{Band, Finding};
use crate::domain::text::visible;

fn frame(title: &str, person: Option<&Person>, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Countersign" }
                link rel="stylesheet" href="/inbox/style.css";
                @if person.is_some() { script src="/inbox/inbox.js" defer {} }
            }
            body {
                header {
                    a.brand href="/inbox" { "Countersign" }
                    @if let Some(person) = person {
                        form method="post" action="/inbox/logout" {
                            input type="hidden" name="csrf" value=(person.csrf);
                            span { "Signed in as " b { (person.approver) } }
                            button.quiet { "Sign out" }
                        }
                    }
                }
                main { (main) }
            }
        }
    }
}

/// A page with one message.
pub(super) fn message(title: &str, text: &str) -> Markup {
    frame(title, None, html! { h1 { (title) } p { (text) } p { a href="/inbox" { "Back to the inbox" } } })
}

/// The page for whoever is not signed in.
pub(super) fn sign_in(token: Option<&str>) -> Markup {
    frame(
        "Sign in",
        None,
        html! {
            h1 { "Sign in" }
            @match token {
                Some(token) => {
                    p { "This link signs you in as the approver it was made for. It works once." }
                    form method="post" action="/inbox/login" {
                        input type="hidden" name="token" value=(token);
                        button.approve { "Sign in" }
                    }
                }
                None => {
                    p { "You need a personal link. On the machine where Countersign runs:" }
                    pre { "countersign approvals login YOUR-NAME" }
                    p { "The link works once and for 15 minutes." }
                }
            }
        },
    )
}

/// Everything that waits, and what was decided lately.
pub(super) fn list(person: &Person, open: &[Approval], settled: &[Approval], now: Timestamp) -> Markup {
    let mine = |a: &&Approval| matches!(a, Approval::Pending(_)) && may_decide(person, a.request(), a.reviews()).is_ok();
    let (mine, others): (Vec<&Approval>, Vec<&Approval>) = open.iter().partition(mine);
    let title = if mine.is_empty() { "Inbox".to_owned() } else { format!("({}) Inbox", mine.len()) };
    frame(
        &title,
        Some(person),
        html! {
            h1 { "Waiting for you" }
            @if mine.is_empty() { p.empty { "Nothing. Calls appear here by themselves." } }
            @for approval in &mine { (row(approval, now)) }
            @if !others.is_empty() {
                h2 { "Under way" }
                @for approval in &others { (row(approval, now)) }
            }
            @if !settled.is_empty() {
                h2 { "Lately" }
                @for approval in settled.iter().take(20) { (row(approval, now)) }
            }
        },
    )
}

fn row(approval: &Approval, now: Timestamp) -> Markup {
    let request = approval.request();
    html! {
        a.row href=(format!("/inbox/{}", request.id)) {
            (score(request))
            span.what {
                b { (visible(&request.title)) }
                small { (visible(&request.tool)) " on " (request.binding.server) " · asked by " (request.caller.name) }
            }
            span.when {
                @match approval.runs_out() {
                    Some(end) => (ticking(end, now)),
                    None => span.state { (approval.state()) },
                }
            }
        }
    }
}

fn score(request: &Request) -> Markup {
    let band = match request.assessment.band {
        Band::Low => "low",
        Band::Notable => "notable",
        Band::High => "high",
        Band::Critical => "critical",
    };
    html! { span class=(format!("score {band}")) title="risk score, 0 to 100" { (request.assessment.score) small { (band) } } }
}

/// A clock that the page's script counts down.
fn ticking(end: Timestamp, now: Timestamp) -> Markup {
    html! { time data-left=(end.since(now).as_millis()) title=(end) { (spoken(end.since(now))) } }
}

fn may_decide(person: &Person, request: &Request, reviews: &[Review]) -> Result<(), String> {
    let name = &person.approver;
    if request.caller.owner.as_ref() == Some(name) && !request.terms.owner_may_approve {
        return Err("You answer for this caller, so you may not approve its calls.".into());
    }
    if !request.terms.approvers.contains(name) {
        return Err(format!("This call is for {} to decide.", request.terms.approvers.join(" or ")));
    }
    if reviews.iter().any(|review| review.approver == *name) {
        return Err("You have decided.".into());
    }
    Ok(())
}

/// One call, whole.
pub(super) fn one(person: &Person, approval: &Approval, settled: &[Approval], now: Timestamp) -> Markup {
    let request = approval.request();
    let earlier: Vec<&Approval> = settled
        .iter()
        .filter(|a| a.request().id != request.id && a.request().caller.name == request.caller.name)
        .filter(|a| a.request().tool == request.tool && a.request().binding.server == request.binding.server)
        .take(5)
        .collect();
    frame(
        &visible(&request.title),
        Some(person),
        html! {
            p.crumb {
            a href="/inbox" { "← Inbox" } " · " span.state { (approval.state()) }
            @if let Some(end) = approval.runs_out() { " · " (ticking(end, now)) " left" }
        }
        div.title { (score(request)) h1 { (visible(&request.title)) } }
        h2 { "What will run" }
        p.tool { code { (visible(&request.tool)) } " on " code { (request.binding.server) } }
        (arguments(request))
        @if request.extras != "{}" {
            h3 { "Beside its arguments, the call carries" }
            pre.value { (pretty_text(&request.extras)) }
        }
        h2 { "Why it is risky" }
        (findings(request))
        h2 { "Who, where, for how long" }
        (facts(request, approval, now))
        @if let Some(reason) = &request.stated_reason {
            h2 { "What the agent says" }
            p.unverified { b { "Unverified. " } (visible(reason)) }
        }
        @if let Some(prompt) = &request.stated_prompt {
            h2 { "What the client says it was asked" }
            p.unverified { b { "Unverified. " } (visible(prompt)) }
        }
        h2 { "Before this" }
        @if earlier.is_empty() { p.empty { "This caller has not asked for this tool lately." } }
        @for before in &earlier { (row(before, now)) }
        (verdicts(request, approval))
        // Last, so that whoever decides has passed everything above.
        @if let Approval::Pending(stage) = approval { (decide(person, request, &stage.reviews)) }
        p.digest { "Call digest " code { (request.digest) } br; "Approval " code { (request.id) } }
        },
    )
}

fn facts(request: &Request, approval: &Approval, now: Timestamp) -> Markup {
    let caller = &request.caller;
    let identity = match &caller.identity {
        crate::domain::call::Identity::Configured => "by configuration".to_owned(),
        crate::domain::call::Identity::Verified { issuer, subject } => format!("token of {issuer} for {subject}"),
    };
    let terms = &request.terms;
    html! {
        dl.facts {
            dt { "Asked by" } dd { b { (caller.name) } @if let Some(owner) = &caller.owner { ", answered for by " b { (owner) } } br; small { (visible(&identity)) } }
            dt { "Effect" } dd { (request.effect.name()) }
            dt { "Target" } dd { (request.binding.server) br; small { (visible(&request.binding.upstream)) } }
            @if let Some(sensitivity) = &request.sensitivity { dt { "Sensitivity" } dd { (visible(sensitivity)) } }
            @if let Some(environment) = &request.environment { dt { "Environment" } dd { (visible(environment)) } }
            dt { "Credential" } dd {
                @match &request.credential {
                    Some(c) => { code { (visible(&c.scope)) } br; small { "minted by " (c.issuer) " after approval, for this call only, for at most " (c.ttl_seconds) " s, then revoked" } }
                    None => { "none: the server uses its own" }
                }
            }
            dt { "Approvers" } dd {
                (terms.quorum) " of " (terms.approvers.join(", "))
                @if terms.owner_may_approve { br; small { "the caller's owner may approve" } }
            }
            @match approval {
                Approval::Pending(_) => {
                    dt { "Decide within" } dd { (ticking(terms.decide_by, now)) }
                    dt { "Usable after" } dd { (spoken(std::time::Duration::from_millis(terms.execute_for_ms))) " from approval" }
                }
                Approval::Approved(s) => { dt { "Usable for" } dd { (ticking(s.is.execute_by, now)) " more: it runs when the caller asks again" } }
                Approval::Settled(s) => { dt { "Outcome" } dd { (outcome(&s.is.outcome)) br; small { (s.is.settled_at) } } }
                _ => {}
            }
            dt { "Policy" } dd { (visible(&request.policy_source)) br; small { code { (request.binding.policy.short()) } } }
        }
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Cancelled { why } => format!("taken back: {}", visible(why)),
        Outcome::Completed { is_error: false, .. } => "it ran".into(),
        Outcome::Completed { is_error: true, .. } => "it ran, and the tool reported an error".into(),
        Outcome::Denied { by, .. } => format!("denied by {by}; it did not run"),
        Outcome::Expired { .. } => "time ran out; it did not run".into(),
        Outcome::Failed { why } => format!("it did not run: {}", visible(why)),
        Outcome::OutcomeUnknown { why } => format!("UNKNOWN whether it ran: {}. It is not run again.", visible(why)),
        Outcome::Revoked { why } => format!("void before use: {}", visible(why)),
    }
}

fn arguments(request: &Request) -> Markup {
    let Ok(Value::Object(arguments)) = read(request.arguments.as_bytes(), generous()) else {
        return html! { pre.value { (visible(&request.arguments)) } };
    };
    html! {
        @if arguments.is_empty() { p.empty { "No arguments." } }
        dl.arguments {
            @for (name, value) in arguments.iter() {
                dt { (visible(name)) @for finding in about(request, name) { span.mark title=(visible(&finding.reason)) { "!" } } }
                dd { pre.value { (pretty(value, 0)) } }
            }
        }
    }
}

/// The findings about the argument `name` or what it holds.
fn about<'r>(request: &'r Request, name: &str) -> Vec<&'r Finding> {
    let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    let holds = |p: &str| p == pointer || p.strip_prefix(&pointer).is_some_and(|rest| rest.starts_with('/'));
    request.assessment.findings.iter().filter(|f| f.pointer.as_deref().is_some_and(holds)).collect()
}

fn generous() -> Limits {
    Limits { bytes: 64 << 20, depth: 128, nodes: 4_000_000 }
}

fn pretty_text(text: &str) -> String {
    read(text.as_bytes(), generous()).map_or_else(|_| visible(text), |value| pretty(&value, 0))
}

/// A value on as many lines as it needs, every string made visible and none cut.
fn pretty(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        Value::String(text) => format!("\"{}\"", visible(text).replace("\\n", "\\n\n").trim_end_matches('\n')),
        Value::Array(items) if !items.is_empty() => {
            let lines: Vec<String> = items.iter().map(|item| format!("{pad}{}", pretty(item, depth + 1))).collect();
            format!("[\n{}\n{end}]", lines.join(",\n"))
        }
        Value::Object(object) if !object.is_empty() => {
            let lines: Vec<String> =
                object.iter().map(|(name, member)| format!("{pad}\"{}\": {}", visible(name), pretty(member, depth + 1))).collect();
            format!("{{\n{}\n{end}}}", lines.join(",\n"))
        }
        other => canonical(other),
    }
}

fn findings(request: &Request) -> Markup {
    html! {
        ul.findings {
            @for demand in &request.demands { li { span.points { "rule" } (visible(demand)) } }
            @for finding in &request.assessment.findings {
                li {
                    span.points title="how much lower the score would be without it" {
                        @match &finding.floor { Some(floor) => { "≥ " (floor.score) } None => { "+" (finding.points) } }
                    }
                    span {
                        (visible(&finding.reason))
                        @if let Some(pointer) = &finding.pointer {
                            small { code { (visible(pointer)) } @if let Some(evidence) = &finding.evidence { " = " code { (visible(evidence)) } } }
                        }
                    }
                }
            }
        }
    }
}

fn verdicts(request: &Request, approval: &Approval) -> Markup {
    html! {
        @if !approval.reviews().is_empty() {
            h2 { "Decided so far" }
            ul.verdicts {
                @for review in approval.reviews() {
                    li {
                        b { (review.approver) } @if review.verdict == ReviewVerdict::Approve { " approved" } @else { " denied" }
                        @if request.caller.owner.as_ref() == Some(&review.approver) { " (the caller's owner)" }
                        @if let Some(reason) = &review.reason { ": " (visible(reason)) }
                        small { (review.at) " · " (review.channel) " · " (review.assurance) }
                    }
                }
            }
        }
    }
}

fn decide(person: &Person, request: &Request, reviews: &[Review]) -> Markup {
    html! {
        @match may_decide(person, request, reviews) {
            Err(why) => p.empty { (why) },
            Ok(()) => form.decide method="post" action=(format!("/inbox/{}", request.id)) {
                input type="hidden" name="csrf" value=(person.csrf);
                input type="hidden" name="digest" value=(request.digest);
                label for="reason" { "Reason" small { "kept in the record; a denial's reason goes to the agent" } }
                textarea id="reason" name="reason" rows="2" maxlength="2000" {}
                div.buttons {
                    button.deny name="verdict" value="deny" { "Deny" }
                    button.approve name="verdict" value="approve" { "Approve this call" }
                }
            },
        }
    }
}
