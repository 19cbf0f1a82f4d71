//! What the inbox draws. Text of the agent is escaped by the template and made visible before; nothing of it is a link,
//! a tag or a style.

use maud::{DOCTYPE, Markup, html};

use crate::adapters::channel::Person;
use crate::adapters::channel::shown::{differences, object, outcome, pretty, pretty_text};
use crate::domain::approval::{AgainTerms, Allowance, Approval, Capacity, Request, ReviewVerdict};
use crate::domain::clock::{Timestamp, spoken};
use crate::domain::policy::Assurance;
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
pub(super) fn list(person: &Person, mine: &[Approval], others: &[Approval], settled: &[Approval], allowed: &[Allowance], now: Timestamp) -> Markup {
    let title = if mine.is_empty() { "Inbox".to_owned() } else { format!("({}) Inbox", mine.len()) };
    frame(
        &title,
        Some(person),
        html! {
            h1 { "Waiting for you" }
            @if mine.is_empty() { p.empty { "Nothing. Calls appear here by themselves." } }
            @for approval in mine { (row(approval, now)) }
            @if !others.is_empty() {
                h2 { "Under way" }
                @for approval in others { (row(approval, now)) }
            }
            @if !allowed.is_empty() {
                h2 { "Allowed again" }
                @for allowance in allowed {
                    form.allowed method="post" action=(format!("/inbox/allowances/{}", allowance.id)) {
                        input type="hidden" name="csrf" value=(person.csrf);
                        span.what {
                            b { (visible(&allowance.tool)) " on " (allowance.server) }
                            small { "by " (allowance.caller) ", " (allowance.left) " more times, up to score " (allowance.max_score) " · " a href=(format!("/inbox/{}", allowance.approval)) { "allowed by " (allowance.approver) } }
                        }
                        span.when { (ticking(allowance.expires_at, now)) }
                        button.quiet { "Stop" }
                    }
                }
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

/// One call, whole.
pub(super) fn one(
    person: &Person,
    approval: &Approval,
    before: Option<&Approval>,
    settled: &[Approval],
    refusal: Option<&str>,
    now: Timestamp,
) -> Markup {
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
        @if let Some(before) = before {
            h3 { "Since the last approved call of this tool by this caller" }
            ul.findings {
                @let lines = differences(before.request(), request);
                @if lines.is_empty() { li { "no argument differs" } }
                @for line in lines { li { (line) } }
            }
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
        @if let Approval::Pending(_) = approval { (decide(person, request, refusal)) }
        p.digest { "Call digest " code { (request.digest) } br; "Approval " code { (request.id) } }
        },
    )
}

fn again_hint(again: &AgainTerms) -> String {
    let vary = if again.vary.is_empty() { "only with the same arguments".to_owned() } else { format!("only {} may differ", again.vary.join(", ")) };
    format!("{vary}, up to score {}; you can stop it in the inbox", again.max_score)
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
                    Some(c) => { code { (visible(&c.scope)) } br; small { "from " (c.issuer) ", " (c.life()) } }
                    None => { "none: the server uses its own" }
                }
            }
            dt { "Approvers" } dd {
                (terms.quorum) " of " (terms.seats(now).into_iter().collect::<Vec<_>>().join(", "))
                @for later in terms.escalation.iter().filter(|e| e.from > now) { br; small { "and " (later.approvers.join(", ")) " in " (ticking(later.from, now)) } }
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

fn arguments(request: &Request) -> Markup {
    let Some(arguments) = object(&request.arguments) else {
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
                        @match &review.capacity {
                            Capacity::Named => {}
                            Capacity::Member(group) => { " as one of " (group) }
                            Capacity::Delegate(of) => { " for " (of) }
                        }
                        @if request.caller.owner.as_ref() == Some(&review.approver) { " (the caller's owner)" }
                        @if let Some(reason) = &review.reason { ": " (visible(reason)) }
                        small { (review.at) " · " (review.channel) " · " (review.assurance) }
                    }
                }
            }
        }
    }
}

fn decide(person: &Person, request: &Request, refusal: Option<&str>) -> Markup {
    html! {
        @match refusal {
            Some(why) => p.empty { (why) },
            None => form.decide method="post" action=(format!("/inbox/{}", request.id)) {
                input type="hidden" name="csrf" value=(person.csrf);
                input type="hidden" name="digest" value=(request.digest);
                label for="reason" { "Reason" small { "kept in the record; a denial's reason goes to the agent" } }
                textarea id="reason" name="reason" rows="2" maxlength="2000" {}
                @if request.terms.assurance == Assurance::Totp {
                    label for="code" { "One-time code" small { "six digits, to approve" } }
                    input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" maxlength="10";
                }
                @if let Some(again) = &request.terms.again {
                    label for="again" { "Allow the same call again?" small { (again_hint(again)) } }
                    select id="again" name="again" {
                        option value="0" { "No: ask each time" }
                        option value=(again.times) { "Up to " (again.times) " times within " (spoken(std::time::Duration::from_millis(again.for_ms))) }
                    }
                }
                div.buttons {
                    button.deny name="verdict" value="deny" { "Deny" }
                    button.approve name="verdict" value="approve" { "Approve this call" }
                }
            },
        }
    }
}
