//! Modals: the whole call on as many pages as it needs, and the decision on the last.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::card::{Drawn, TYPED_FROM, findings};
use super::kit::{actions, bold, button, context, frame, input, list, parts, plain, rich, section, text, units, writing};
use crate::adapters::channel::shown::{folded, whole, written};
use crate::domain::approval::{Again, Request};
use crate::domain::clock::spoken;
use crate::domain::policy::Assurance;
use crate::domain::text::{is_hidden, visible};

/// UTF-16 units in one frame.
const FRAME: usize = 2_800;
/// Frames on one page.
const FRAMES: usize = 3;
/// Most pages that anybody reads on a phone; longer calls are decided in the inbox.
const PAGES: usize = 20;

/// What a modal carries: which card it belongs to, and which page it shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Private {
    pub(super) nonce: String,
    #[serde(default)]
    pub(super) page: usize,
}

/// How many pages a call has; nothing if it is too long for Slack.
pub(super) fn pages(request: &Request) -> Option<usize> {
    let count = parts(&whole(request), FRAME).len().div_ceil(FRAMES);
    (count <= PAGES).then_some(count)
}

/// Why somebody cannot decide, or why what they decided did not count.
#[derive(Clone, Copy, Default)]
pub(super) struct Notice<'a> {
    pub(super) refused: Option<&'a str>,
    pub(super) failed: Option<&'a str>,
}

/// One page of the review. The last has the decision, unless the person cannot decide.
pub(super) fn review(drawn: &Drawn<'_>, private: &Private, inbox: &str, notice: Notice<'_>) -> Value {
    let request = drawn.approval.request();
    let everything = whole(request);
    let frames = parts(&everything, FRAME);
    let count = frames.len().div_ceil(FRAMES);
    let page = private.page.min(count.saturating_sub(1));
    let fits = count <= PAGES;
    let mut blocks = Vec::new();
    if page == 0 {
        blocks.push(rich(vec![section(vec![bold(&super::kit::cut(&visible(&request.title), 600))])]));
        blocks.push(rich(vec![drawn.facts(true)]));
        blocks.push(rich(vec![section(vec![bold("Why it is risky")]), list(findings(request, 40, true))]));
    }
    if fits {
        let label = match count {
            1 => "What will run".to_owned(),
            _ => format!("What will run, page {} of {count}, {} characters in all", page + 1, everything.chars().count()),
        };
        blocks.push(rich(vec![section(vec![bold(&label), text(&format!(": {} on {}", visible(&request.tool), request.binding.server))])]));
        blocks.extend(frames.iter().skip(page * FRAMES).take(FRAMES).map(|part| rich(vec![frame(part)])));
    } else {
        let long =
            format!("This call is too long for Slack: {} characters. Decide in the inbox, where all of it is shown.", everything.chars().count());
        blocks.push(rich(vec![section(vec![bold(&long)])]));
        blocks.push(actions(vec![link("Open the inbox", inbox)]));
    }
    let mut turn = Vec::new();
    if fits && page > 0 {
        turn.push(button("Back", &format!("page-{}", page - 1), "-"));
    }
    if fits && page + 1 < count {
        turn.push(button(&format!("Next: page {} of {count}", page + 2), &format!("page-{}", page + 1), "-"));
    }
    if !turn.is_empty() {
        blocks.push(actions(turn));
    }
    let last = fits && page + 1 == count;
    let decide = last && notice.refused.is_none();
    if let Some(why) = notice.refused.or(notice.failed) {
        blocks.push(rich(vec![section(vec![bold(&visible(why))])]));
    }
    if decide {
        blocks.extend(decision(request));
    }
    blocks.push(context(&format!("Approval {} · call {}", request.id, request.digest.digest().short())));
    let mut view = modal("review", "Review this call", private, blocks);
    if let (true, Some(view)) = (decide, view.as_object_mut()) {
        view.insert("submit".into(), plain("Approve"));
    }
    view
}

fn link(label: &str, url: &str) -> Value {
    json!({"type": "button", "text": plain(label), "action_id": "open", "url": url})
}

/// The fields of the decision.
fn decision(request: &Request) -> Vec<Value> {
    let mut blocks = Vec::new();
    if request.assessment.score >= TYPED_FROM {
        let word = typed(request);
        let hint = "This call is critical. Typing the target makes sure that it is the one you mean.";
        blocks.push(input("target", &format!("Type this to approve: {word}"), Some(hint), false, writing("target", false, 200)));
    }
    if request.terms.assurance == Assurance::Totp {
        blocks.push(input("code", "One-time code", Some("Six digits, from your authenticator app"), false, writing("code", false, 10)));
    }
    if let Some(again) = &request.terms.again {
        let length = std::time::Duration::from_millis(again.for_ms);
        let option = |text: &str, value: &str| json!({"text": plain(text), "value": value});
        let once = option("No: ask each time", "no");
        let yes = format!("Up to {} times within {}", again.times, spoken(length));
        let element = json!({"type": "static_select", "action_id": "again", "initial_option": once, "options": [once, option(&yes, "yes")]});
        let hint = match again.vary.as_slice() {
            [] => format!("Only with the same arguments, up to score {}. You can stop it at any time.", again.max_score),
            vary => format!("Only {} may differ, up to score {}. You can stop it at any time.", vary.join(", "), again.max_score),
        };
        blocks.push(input("again", "Allow the same call again?", Some(&hint), true, element));
    }
    blocks.push(input("reason", "Reason", Some("Kept in the record"), true, writing("reason", true, 1000)));
    blocks
}

/// What must be typed to approve a critical call: its target where that can be typed, else the tool.
pub(super) fn typed(request: &Request) -> String {
    let easy = |text: &str| !text.trim().is_empty() && units(text) <= 60 && text.is_ascii() && !text.chars().any(is_hidden);
    // Only what is shown anyway: a masked argument must not be given away here.
    let target = request.targets.first().and_then(|target| written(request, &target.value)).filter(|text| easy(text));
    target.unwrap_or_else(|| visible(&request.tool))
}

/// Whether what was typed is what had to be: case and blanks do not matter.
pub(super) fn is_typed(request: &Request, answer: &str) -> bool {
    folded(answer) == folded(&typed(request))
}

/// How far the same call is allowed again where the approver says so.
pub(super) fn again(request: &Request) -> Option<Again> {
    request.terms.again.as_ref().map(|terms| Again { times: terms.times, for_ms: terms.for_ms })
}

/// Why not: the one field of a denial.
pub(super) fn deny(drawn: &Drawn<'_>, private: &Private) -> Value {
    let request = drawn.approval.request();
    let blocks = vec![
        rich(vec![section(vec![bold(&super::kit::cut(&visible(&request.title), 600))])]),
        input("reason", "Why not?", Some("The agent is told, and it is kept in the record"), false, writing("reason", true, 1000)),
        context(&format!("Approval {} · call {}", request.id, request.digest.digest().short())),
    ];
    let mut view = modal("deny", "Deny this call", private, blocks);
    if let Some(view) = view.as_object_mut() {
        view.insert("submit".into(), plain("Deny"));
    }
    view
}

/// A modal with one message.
pub(super) fn said(title: &str, words: &str) -> Value {
    let private = Private { nonce: String::new(), page: 0 };
    modal("said", title, &private, vec![rich(vec![section(vec![text(&super::kit::cut(words, 2000))])])])
}

fn modal(callback: &str, title: &str, private: &Private, blocks: Vec<Value>) -> Value {
    // Written from a struct of a string and a number: it cannot fail.
    let private = serde_json::to_string(private).unwrap_or_default();
    json!({"type": "modal", "callback_id": callback, "private_metadata": private, "title": plain(title), "close": plain("Close"), "blocks": blocks})
}
