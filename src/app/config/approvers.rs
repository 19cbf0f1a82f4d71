//! `[approver]` and `[channel]`: who the people are, checked against each other.

use std::collections::BTreeMap;

use super::file::{ApproverFile, ChannelKind, DelegateFile, OnCallFile};
use crate::adapters::channel::people::{Approver, Delegation, Group, Person, SlackId};
use crate::domain::clock::Timestamp;
use crate::domain::text::nearest;

/// The approvers as they are meant.
pub(super) fn read(files: &BTreeMap<String, ApproverFile>) -> Result<BTreeMap<String, Approver>, String> {
    let mut approvers = BTreeMap::new();
    for (name, file) in files {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c)) {
            return Err(format!("`[approver.{name}]`: a name is letters, digits, `-`, `_`, `.` and `@`"));
        }
        let approver = approver(file, files).map_err(|reason| format!("`[approver.{name}]`: {reason}"))?;
        approvers.insert(name.clone(), approver);
    }
    let mut accounts: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, approver) in &approvers {
        let Approver::Person(Person { slack: Some(id), .. }) = approver else { continue };
        if let Some(other) = accounts.insert((&id.team, &id.id), name) {
            return Err(format!("`[approver.{other}]` and `[approver.{name}]` have the same Slack id: one person would count as two"));
        }
    }
    Ok(approvers)
}

fn approver(file: &ApproverFile, all: &BTreeMap<String, ApproverFile>) -> Result<Approver, String> {
    let id = |text: &String, letters: &[char], what: &str| {
        let id = text.parse::<SlackId>().map_err(|e| e.to_string())?;
        if id.id.starts_with(letters) { Ok(id) } else { Err(format!("`{text}` is not the id of {what}")) }
    };
    let group = match (&file.slack_group, &file.on_call) {
        (Some(_), Some(_)) => return Err("has both `slack-group` and `on-call`: keep one".into()),
        (Some(text), None) => Some(Group::Slack(id(text, &['S'], "a user group, which begins with S")?)),
        (None, Some(OnCallFile::Command(command))) if command.is_empty() => return Err("`on-call.command` is empty".into()),
        (None, Some(OnCallFile::Command(command))) => Some(Group::Command(command.clone())),
        (None, Some(OnCallFile::Url(url))) => Some(Group::Url(safe(url).map_err(|reason| format!("`on-call.url`: {reason}"))?)),
        (None, None) => None,
    };
    if let Some(group) = group {
        if file.slack.is_some() || file.totp.is_some() || file.hours.is_some() || !file.delegates.is_empty() {
            return Err("stands for several people: `slack`, `totp`, `hours` and `delegates` belong to a person".into());
        }
        return Ok(Approver::Group(group));
    }
    let slack = file.slack.as_ref().map(|text| id(text, &['U', 'W'], "a user, which begins with U or W")).transpose()?;
    let hours = file.hours.as_ref().map(|text| text.parse().map_err(|e| format!("`hours`: {e}"))).transpose()?;
    let delegates = file.delegates.iter().map(|d| delegation(d, all)).collect::<Result<_, _>>()?;
    Ok(Approver::Person(Person { slack, delegates, hours }))
}

fn delegation(file: &DelegateFile, all: &BTreeMap<String, ApproverFile>) -> Result<Delegation, String> {
    match all.get(&file.to) {
        Some(to) if to.slack_group.is_none() && to.on_call.is_none() => {}
        Some(_) => return Err(format!("`delegates` names `{}`, which stands for several people", file.to)),
        None => {
            let hint = nearest(&file.to, all.keys().map(String::as_str)).map(|m| format!("; was `{m}` meant?")).unwrap_or_default();
            return Err(format!("`delegates` names `{}`, which is not an `[approver.…]`{hint}", file.to));
        }
    }
    let (from, until) = (instant(&file.from, false)?, instant(&file.until, true)?);
    if from >= until {
        return Err(format!("`delegates`: {} is not before {}", file.from, file.until));
    }
    Ok(Delegation { to: file.to.clone(), from, until })
}

/// The beginning of a day, or its end; an instant as it is.
fn instant(at: &toml::value::Datetime, end: bool) -> Result<Timestamp, String> {
    let wrong = |_| format!("`{at}` is not a date as in 2026-12-24, or a time as in 2026-12-24T17:00:00Z");
    let text = match (at.time, at.offset) {
        (None, _) => format!("{at}T00:00:00Z"),
        (Some(_), None) => format!("{at}Z"),
        (Some(_), Some(_)) => at.to_string(),
    };
    let start = text.parse::<jiff::Timestamp>().map_err(wrong)?.as_millisecond();
    Ok(Timestamp(if end && at.time.is_none() { start + 86_400_000 } else { start }))
}

/// An address that nobody on the way can read or change.
fn safe(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    let loopback = url.host_str().is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host));
    match url.scheme() {
        "https" => Ok(text.trim_end_matches('/').to_owned()),
        "http" if loopback => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write an https address: only loopback may go without TLS".into()),
    }
}

/// Checks the channels against the approvers.
pub(super) fn channels(files: &BTreeMap<String, ChannelKind>, people: &BTreeMap<String, Approver>) -> Result<(), String> {
    if files.len() > 1 {
        return Err("there is more than one `[channel.…]`: the inbox is always there, and one more can be".into());
    }
    for (name, ChannelKind::Slack(file)) in files {
        let fail = |reason: String| Err(format!("`[channel.{name}]`: {reason}"));
        if !file.app_id.starts_with('A') || !file.app_id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
            return fail(format!("`app-id` is `{}`, and an app's id is as in `A0123ABCD`", file.app_id));
        }
        match (&file.app_token, &file.signing_secret) {
            (None, None) => return fail("give `app-token` (Socket Mode) or `signing-secret` (clicks come to /slack/interactions)".into()),
            (Some(_), Some(_)) => return fail("has both `app-token` and `signing-secret`: keep the one for how clicks come".into()),
            _ => {}
        }
        if let Some(api) = &file.api
            && let Err(reason) = safe(api)
        {
            return fail(format!("`api`: {reason}"));
        }
        if file.sockets.is_some_and(|n| !(1..=10).contains(&n)) {
            return fail("`sockets` is a number from 1 to 10".into());
        }
        if file.refresh.is_some_and(|l| l.0 < std::time::Duration::from_secs(10)) {
            return fail("`refresh` is at least 10 s".into());
        }
        if !people.values().any(|p| matches!(p, Approver::Person(Person { slack: Some(_), .. }))) {
            return fail("no `[approver.…]` has a `slack` id: nobody could be asked".into());
        }
    }
    if files.is_empty() && people.values().any(|p| matches!(p, Approver::Group(Group::Slack(_)))) {
        return Err("there is a `slack-group` and no `[channel.…]` with `kind = \"slack\"` to look its members up".into());
    }
    Ok(())
}
