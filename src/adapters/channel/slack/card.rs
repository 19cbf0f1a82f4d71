//! The card: what an approver reads on a phone, made from the stored call alone.
//!
//! Everything that runs is on it, or it has no Approve button. A decided card has no buttons at all.

use serde_json::{Value, json};

use super::kit::{MESSAGE, actions, bold, button, context, cut, frame, header, lines, list, quote, rich, section, text, time, user};
use crate::adapters::channel::people::People;
use crate::adapters::channel::shown::{differences, outcome, whole};
use crate::domain::approval::{Allowance, Approval, Capacity, Outcome, Request, Review, ReviewVerdict};
use crate::domain::clock::{Timestamp, spoken};
use crate::domain::policy::Assurance;
use crate::domain::risk::Band;
use crate::domain::text::visible;

/// From this score on the decision is made in the modal, with the target typed.
pub(super) const TYPED_FROM: u8 = 85;
/// Findings on a card; all are in the modal.
const FINDINGS: usize = 5;
/// Differences on a card; all are in the modal, as the arguments themselves.
const DIFFERENCES: usize = 6;

/// A message as `chat.postMessage` and `chat.update` take it, without where it goes.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// What a notification says: the gateway's words alone.
    pub(super) text: String,
    /// The blocks.
    pub(super) blocks: Vec<Value>,
}

/// What a card is drawn from, beside the approval.
pub(super) struct Drawn<'a> {
    pub(super) approval: &'a Approval,
    /// The last call of the same tool by the same caller that was approved and ran.
    pub(super) before: Option<&'a Approval>,
    pub(super) people: &'a People,
    pub(super) now: Timestamp,
}

/// Whether the policy and the score let an approver approve on the card itself.
fn on_card(request: &Request) -> bool {
    request.assessment.score < TYPED_FROM && request.terms.assurance == Assurance::Session
}

/// What a card lets its recipient do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buttons<'a> {
    /// Decide; with this nonce.
    Decide(&'a str),
    /// Look, for they have decided; with this nonce.
    Look(&'a str),
    /// Nothing: they are only told.
    Nothing,
}

impl Message {
    /// Whether it has the button that approves.
    pub(super) fn approves(&self) -> bool {
        let buttons = self.blocks.iter().filter(|b| b["type"] == "actions").filter_map(|b| b["elements"].as_array()).flatten();
        buttons.into_iter().any(|button| button["action_id"] == "approve")
    }
}

impl Drawn<'_> {
    /// The card that asks, or tells of the question.
    pub(super) fn asking(&self, allowed: Buttons<'_>, mentioned: &[String]) -> Message {
        let request = self.approval.request();
        let head = |fits: bool| {
            let mut blocks = vec![header(&format!("Approval needed: {}", name(request)))];
            if !mentioned.is_empty() {
                let people = mentioned.iter().flat_map(|id| [user(id), text(" ")]);
                blocks.push(rich(vec![section(people.collect())]));
            }
            blocks.extend(self.body(true, fits));
            match allowed {
                Buttons::Decide(nonce) => blocks.push(buttons(request, nonce, fits && on_card(request))),
                Buttons::Look(nonce) => blocks.push(actions(vec![button("Review", "review", nonce)])),
                Buttons::Nothing => {}
            }
            blocks
        };
        let blocks = fitting(request, head);
        let assessment = &request.assessment;
        let text = match allowed {
            Buttons::Decide(_) => format!("A call waits for your approval: risk {} of 100, {}", assessment.score, band(assessment.band)),
            _ => format!("A call waits for approval: risk {} of 100, {}", assessment.score, band(assessment.band)),
        };
        Message { text, blocks }
    }

    /// The card once people decided, or nobody did: no buttons.
    pub(super) fn decided(&self, credential: Option<&str>) -> Message {
        let request = self.approval.request();
        let word = match self.approval {
            Approval::Pending(_) => "Waiting",
            Approval::Approved(_) => "Approved",
            Approval::Redeemed(_) | Approval::Dispatched(_) => "Running",
            Approval::Settled(stage) => ended(&stage.is.outcome),
        };
        let mut outcome_lines = Vec::new();
        match self.approval {
            Approval::Approved(stage) => {
                outcome_lines.push(vec![text("It runs once, when the caller collects it, until "), time(stage.is.execute_by), text(".")]);
            }
            Approval::Settled(stage) => {
                outcome_lines.push(vec![bold("Outcome: "), text(&outcome(&stage.is.outcome)), text(" · "), time(stage.is.settled_at)]);
            }
            _ => {}
        }
        if let Some(credential) = credential.filter(|c| !c.is_empty()) {
            outcome_lines.push(vec![text(credential)]);
        }
        let draw = |fits: bool| {
            let mut blocks = vec![header(&format!("{word}: {}", name(request)))];
            if !outcome_lines.is_empty() {
                blocks.push(rich(vec![lines(outcome_lines.clone())]));
            }
            blocks.extend(self.body(false, fits));
            blocks
        };
        let blocks = fitting(request, draw);
        Message { text: format!("{word}. Nothing to decide here any more."), blocks }
    }

    /// What an asking and a decided card have in common.
    fn body(&self, asking: bool, fits: bool) -> Vec<Value> {
        let request = self.approval.request();
        let mut blocks = vec![rich(vec![section(vec![bold(&cut(&visible(&request.title), 600))])]), rich(vec![self.facts(asking)])];
        let text_of_all = whole(request);
        let length = text_of_all.chars().count();
        blocks.push(match fits {
            true => rich(vec![frame(&format!("{} on {}\n{text_of_all}", visible(&request.tool), request.binding.server))]),
            false if carries_secret(request) => rich(vec![section(vec![
                bold("An argument carries what looks like a secret. "),
                text("None of them is posted, for messages are kept. Review shows all of them."),
            ])]),
            false => rich(vec![section(vec![
                bold(&format!("The arguments do not fit here: {length} characters. ")),
                text("Nothing of them is shown, so that nothing is shown in part. Review shows all of them."),
            ])]),
        });
        if asking {
            blocks.push(rich(vec![section(vec![bold("Why it is risky")]), list(findings(request, FINDINGS, !carries_secret(request)))]));
            blocks.extend(self.changed());
            if let Some(reason) = &request.stated_reason {
                let said = section(vec![bold("What the agent says, unverified")]);
                blocks.push(rich(vec![said, quote(&cut(&visible(reason), 300))]));
            }
        }
        blocks.push(context(&format!(
            "Approval {} · call {} · policy {} {}",
            request.id,
            request.digest.digest().short(),
            policy_file(request),
            request.binding.policy.short()
        )));
        blocks
    }

    /// Who, where, with what, for how long; and who decided.
    pub(super) fn facts(&self, asking: bool) -> Value {
        let request = self.approval.request();
        let terms = &request.terms;
        let mut all = Vec::new();
        let mut line = |label: &str, runs: Vec<Value>| {
            let mut line = vec![bold(&format!("{label}: "))];
            line.extend(runs);
            all.push(line);
        };
        let assessment = &request.assessment;
        line("Risk", vec![text(&format!("{} of 100, {}", assessment.score, band(assessment.band)))]);
        let caller = &request.caller;
        let owner = caller.owner.as_ref().map(|owner| format!(", answered for by {owner}")).unwrap_or_default();
        line("Asked by", vec![text(&format!("{}{owner}", caller.name)), text(" · "), time(request.asked_at)]);
        let upstream = cut(&visible(&request.binding.upstream), 200);
        line("Target", vec![text(&format!("{} ({upstream}), {}", request.binding.server, request.effect.name()))]);
        for (label, value) in [("Sensitivity", &request.sensitivity), ("Environment", &request.environment)] {
            if let Some(value) = value {
                line(label, vec![text(&cut(&visible(value), 200))]);
            }
        }
        let credential = match &request.credential {
            Some(c) => format!("{} {}. From {}", cut(&visible(&c.scope), 300), c.life(), c.issuer),
            None => "none: the server uses its own".to_owned(),
        };
        line("Credential", vec![text(&credential)]);
        if asking {
            let given = self.approval.reviews().len();
            let names = terms.seats(self.now).into_iter().collect::<Vec<_>>().join(", ");
            let owner = if terms.owner_may_approve { ", the caller's owner included" } else { "" };
            line("Approvers", vec![text(&format!("{given} of {} have approved; asked: {}{owner}", terms.quorum, cut(&names, 300)))]);
            line(
                "Decide by",
                vec![time(terms.decide_by), text(&format!(", then usable for {}", spoken(std::time::Duration::from_millis(terms.execute_for_ms))))],
            );
        }
        for review in self.approval.reviews() {
            all.push(self.verdict(review));
        }
        lines(all)
    }

    fn verdict(&self, review: &Review) -> Vec<Value> {
        let request = self.approval.request();
        let mut runs = Vec::new();
        // A mention, so that everybody sees whose account it was; the name is the configuration's.
        if let Some(id) = self.people.person(&review.approver).and_then(|p| p.slack.as_ref()).filter(|_| review.channel == "slack") {
            runs.extend([user(&id.id), text(" ")]);
        }
        let word = if review.verdict == ReviewVerdict::Approve { "approved" } else { "denied" };
        let right = match &review.capacity {
            Capacity::Named => String::new(),
            Capacity::Member(group) => format!(" as one of {group}"),
            Capacity::Delegate(of) => format!(" for {of}"),
        };
        let owner = if request.caller.owner.as_ref() == Some(&review.approver) { " (the caller's owner)" } else { "" };
        runs.extend([bold(&format!("{} {word}", review.approver)), text(&format!("{right}{owner} · ")), time(review.at)]);
        runs.push(text(&format!(" · {}", cut(&review.assurance, 200))));
        if let Some(reason) = &review.reason {
            runs.push(text(&format!(" · {}", cut(&visible(reason), 300))));
        }
        runs
    }

    /// The difference to the last call that was approved.
    fn changed(&self) -> Option<Value> {
        let request = self.approval.request();
        let before = self.before.filter(|before| !carries_secret(request) && !carries_secret(before.request()))?;
        let lines = differences(before.request(), request);
        let title = vec![bold("Since the last approved call of this tool by this caller, "), time(before.request().asked_at)];
        let mut items: Vec<Value> = lines.iter().take(DIFFERENCES).map(|line| section(vec![text(&cut(line, 240))])).collect();
        if lines.len() > DIFFERENCES {
            items.push(section(vec![text(&format!("and {} more differences", lines.len() - DIFFERENCES))]));
        }
        if items.is_empty() {
            items.push(section(vec![text("no argument differs")]));
        }
        Some(rich(vec![section(title), list(items)]))
    }
}

/// Whether an argument carries what looks like a secret: then none is posted, for Slack keeps messages, and finds them.
fn carries_secret(request: &Request) -> bool {
    request.assessment.findings.iter().any(|finding| finding.signal == "secret")
}

/// The card with the arguments where they may be posted and fit, else without.
fn fitting(request: &Request, draw: impl Fn(bool) -> Vec<Value>) -> Vec<Value> {
    let whole = if carries_secret(request) { None } else { Some(draw(true)) };
    whole.filter(|blocks| size(blocks) <= MESSAGE).unwrap_or_else(|| draw(false))
}

/// The reasons for the score, the weightiest first; with what was seen, or without.
pub(super) fn findings(request: &Request, most: usize, evidence: bool) -> Vec<Value> {
    let mut items: Vec<Value> = request.demands.iter().map(|demand| section(vec![bold("rule "), text(&cut(&visible(demand), 240))])).collect();
    let mut findings: Vec<_> = request.assessment.findings.iter().collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.floor.as_ref().map_or(i64::from(f.points), |floor| 1000 + i64::from(floor.score))));
    for finding in findings {
        let points = match &finding.floor {
            Some(floor) => format!("at least {} ", floor.score),
            None if finding.points == 0 => "beside that, ".to_owned(),
            None => format!("+{} ", finding.points),
        };
        let mut runs = vec![bold(&points), text(&cut(&visible(&finding.reason), 240))];
        if let Some(pointer) = &finding.pointer {
            let evidence = finding.evidence.as_ref().filter(|_| evidence).map(|e| format!(" = {}", visible(e))).unwrap_or_default();
            runs.push(text(&cut(&format!(" — {}{evidence}", visible(pointer)), 240)));
        }
        items.push(section(runs));
    }
    let rest = items.len().saturating_sub(most);
    items.truncate(most);
    if rest > 0 {
        items.push(section(vec![text(&format!("and {rest} more in Review"))]));
    }
    if items.is_empty() {
        items.push(section(vec![text("the policy asks for every call of this tool")]));
    }
    items
}

fn buttons(request: &Request, nonce: &str, approve: bool) -> Value {
    let mut all = vec![button("Review", "review", nonce)];
    if approve {
        let mut yes = button("Approve", "approve", nonce);
        if let Some(yes) = yes.as_object_mut() {
            yes.insert("style".into(), "primary".into());
            let title = cut(&visible(&request.title), 200);
            yes.insert(
                "confirm".into(),
                json!({
                    "title": super::kit::plain("Approve this exact call?"), "text": super::kit::plain(&format!("It runs once: {title}")),
                    "confirm": super::kit::plain("Approve"), "deny": super::kit::plain("Back"),
                }),
            );
        }
        all.push(yes);
    }
    let mut no = button("Deny", "deny", nonce);
    if let Some(no) = no.as_object_mut() {
        no.insert("style".into(), "danger".into());
    }
    all.push(no);
    actions(all)
}

/// The policy's file and its directory: where on the gateway's disk that is says nothing to approvers.
fn policy_file(request: &Request) -> String {
    let parts: Vec<&str> = request.policy_source.rsplit('/').take(2).collect();
    visible(&parts.into_iter().rev().collect::<Vec<_>>().join("/"))
}

/// What came of it, for the thread below a card. `nonce` has a button that ends the allowance.
pub(super) fn told(approval: &Approval, credential: &str, allowance: Option<(&Allowance, &str)>) -> Message {
    let Approval::Settled(stage) = approval else { return Message { text: "Decided.".into(), blocks: vec![] } };
    let mut runs = vec![bold(&format!("{}: ", ended(&stage.is.outcome))), text(&outcome(&stage.is.outcome))];
    if !credential.is_empty() {
        runs.push(text(&format!(" {credential}")));
    }
    let mut blocks = vec![rich(vec![section(runs)])];
    if let Some((allowance, nonce)) = allowance {
        let line = format!("{} allowed the same call again: {} times until ", allowance.approver, allowance.left);
        blocks.push(rich(vec![section(vec![text(&line), time(allowance.expires_at), text(&format!(", up to score {}.", allowance.max_score))])]));
        blocks.push(actions(vec![button("Stop allowing it", "end-allowance", nonce)]));
    }
    Message { text: format!("{}.", ended(&stage.is.outcome)), blocks }
}

/// A short line in a thread or beside a card.
pub(super) fn line(words: &str) -> Message {
    Message { text: "Countersign".into(), blocks: vec![rich(vec![section(vec![text(&cut(words, 2000))])])] }
}

fn ended(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Cancelled { .. } => "Taken back",
        Outcome::Completed { is_error: false, .. } => "Completed",
        Outcome::Completed { is_error: true, .. } => "Completed with an error",
        Outcome::Denied { .. } => "Denied",
        Outcome::Expired { .. } => "Expired",
        Outcome::Failed { .. } => "Failed",
        Outcome::OutcomeUnknown { .. } => "Outcome unknown",
        Outcome::Revoked { .. } => "Void",
    }
}

/// The server and tool, visible.
pub(super) fn name(request: &Request) -> String {
    format!("{}/{}", request.binding.server, visible(&request.tool))
}

fn band(band: Band) -> &'static str {
    match band {
        Band::Low => "low",
        Band::Notable => "notable",
        Band::High => "high",
        Band::Critical => "critical",
    }
}

/// Bytes of all blocks as they are sent.
pub(super) fn size(blocks: &[Value]) -> usize {
    blocks.iter().map(|block| block.to_string().len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::channel::slack::modal::{Notice, Private, pages, review};
    use crate::domain::approval::sample;
    use crate::domain::text::is_hidden;
    use proptest::prelude::*;

    /// Everything in `value` that a reader sees, and nothing in it that Slack would read as more than text.
    fn inspect(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let kind = map.get("type").and_then(Value::as_str);
                assert!(!["mrkdwn", "link", "emoji", "broadcast", "usergroup", "channel", "image", "markdown"].map(Some).contains(&kind), "{value}");
                assert!(map.get("emoji").is_none_or(|emoji| emoji == &Value::Bool(false)), "{value}");
                for (key, member) in map {
                    match member {
                        Value::String(text) if key == "text" => texts.push(text.clone()),
                        Value::String(text) if ["value", "action_id", "url", "user_id", "block_id"].contains(&key.as_str()) => {
                            assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "-_/:.".contains(c)), "{value}");
                        }
                        _ => inspect(member, texts),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| inspect(item, texts)),
            _ => {}
        }
    }

    fn framed(blocks: &[Value]) -> String {
        let parts = blocks.iter().filter_map(|b| b["elements"].as_array()).flatten().filter(|part| part["type"] == "rich_text_preformatted");
        parts.filter_map(|part| part["elements"][0]["text"].as_str()).collect()
    }

    /// What an agent may write: prose, Slack's own marks, hidden characters.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("<!channel>".to_owned()),
            Just("<@U0ANNA>".to_owned()),
            Just("<https://evil.example|docs>".to_owned()),
            Just(":tada:".to_owned()),
            Just("*b* _i_ ~s~ `c`".to_owned()),
            Just("\u{202e}\u{200b}\u{e0041}".to_owned()),
            Just(" ".repeat(80)),
            Just("\n\n\n".to_owned()),
            "[a-z ]{0,40}",
            "\\PC{0,40}",
            ".{0,20}",
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_an_agent_writes_stays_text(
            tool in text(), title in text(), reason in text(), evidence in text(), key in text(), value in text(), many in 0usize..60, score in 0u8..=100,
        ) {
            let arguments = crate::domain::json::canonical(&{
                let mut object = crate::domain::json::Object::default();
                object.insert(&key, crate::domain::json::Value::String(value.repeat(many)));
                crate::domain::json::Value::Object(object)
            });
            let approval = sample(&tool, &title, &reason, &evidence, arguments, score);
            let people = People::default();
            let drawn = Drawn { approval: &approval, before: Some(&approval), people: &people, now: Timestamp(5) };
            let card = drawn.asking(Buttons::Decide("0123456789abcdef"), &[]);
            let mut texts = Vec::new();
            card.blocks.iter().for_each(|block| inspect(block, &mut texts));
            prop_assert!(size(&card.blocks) <= MESSAGE);
            for text in &texts {
                prop_assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{text:?}");
            }
            prop_assert!(card.text.chars().all(|c| c.is_ascii_alphanumeric() || " :,".contains(c)), "{}", card.text);
            // All of it is there, or nothing of it, and then it cannot be approved here.
            let shown = framed(&card.blocks);
            let approve = card.approves();
            let all = shown.ends_with(&whole(approval.request()));
            prop_assert!(all || shown.is_empty());
            prop_assert!(!approve || (all && score < TYPED_FROM));
            // The pages of the review have every character.
            if let Some(count) = pages(approval.request()) {
                let mut together = String::new();
                for page in 0..count {
                    let private = Private { nonce: "n".into(), page };
                    let view = review(&drawn, &private, "https://example.com", Notice::default());
                    let mut texts = Vec::new();
                    inspect(&view["blocks"], &mut texts);
                    prop_assert!(!texts.iter().any(|text| text.chars().any(|c| is_hidden(c) && c != '\n')));
                    prop_assert_eq!(view.get("submit").is_some(), page + 1 == count);
                    together.push_str(&framed(view["blocks"].as_array().unwrap()));
                }
                prop_assert_eq!(together, whole(approval.request()));
            }
            let mut texts = Vec::new();
            drawn.decided(None).blocks.iter().for_each(|block| inspect(block, &mut texts));
        }
    }
}
