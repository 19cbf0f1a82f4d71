//! Recipients: new ones are riskier than those that were approved before. Learned only from approved calls.

use super::{Finding, Group, RecipientRole, Sight, Target};
use crate::domain::json::{Pointer, Value};
use crate::domain::text::is_hidden;

pub(super) fn observe(role: &RecipientRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let targets = targets(value);
    if targets.is_empty() {
        seen.find(Finding::uninspectable("recipient", Group::Target, "the recipient cannot be read").at(pointer, value));
        return;
    }
    let known: Vec<String> = role.known.iter().map(|name| plain(name)).collect();
    let new = |target: &&Target| !known.contains(&target.value) && !seen.history.seen.contains(*target);
    if let Some(first) = targets.iter().find(new) {
        let reason = "first seen: nothing was sent to this recipient before";
        let finding = Finding::new("recipient", Group::Target, 450, reason).at(pointer, &Value::String(first.value.clone()));
        seen.fact("recipient", "first_seen", Value::Bool(true));
        seen.find(finding);
    }
    let outside = |target: &&Target| target.value.rsplit_once('@').is_some_and(|(_, domain)| !role.internal.iter().any(|ours| within(domain, ours)));
    if !role.internal.is_empty()
        && let Some(stranger) = targets.iter().find(outside)
    {
        seen.fact("recipient", "external", Value::Bool(true));
        let finding = Finding::new("recipient", Group::Target, 500, "the recipient is outside the organisation");
        seen.find(finding.at(pointer, &Value::String(stranger.value.clone())));
    }
    if targets.iter().any(|target| is_iban(&target.value) == Some(false)) {
        seen.find(Finding::new("recipient", Group::Integrity, 300, "the check digits of the IBAN are wrong").at(pointer, value));
    }
    let odd = |c: char| is_hidden(c) || !c.is_ascii();
    if targets.iter().any(|target| target.value.chars().any(odd)) {
        let reason = "the recipient has letters that may imitate others";
        seen.find(Finding::new("recipient", Group::Integrity, 400, reason).at(pointer, value));
    }
}

/// Whether a domain is one of ours or below it.
fn within(domain: &str, ours: &str) -> bool {
    let ours = ours.to_lowercase();
    domain == ours || domain.strip_suffix(ours.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether what looks like an IBAN is one, by its check digits (ISO 13616); nothing for what does not look like one.
fn is_iban(text: &str) -> Option<bool> {
    let shape = text.len() >= 15
        && text.len() <= 34
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
        && text.bytes().take(2).all(|b| b.is_ascii_alphabetic())
        && text.bytes().skip(2).take(2).all(|b| b.is_ascii_digit());
    let (head, tail) = text.split_at_checked(4).filter(|_| shape)?;
    let digits = tail.chars().chain(head.chars()).filter_map(|c| c.to_digit(36));
    let rest = digits.fold(0u32, |rest, digit| if digit < 10 { (rest * 10 + digit) % 97 } else { (rest * 100 + digit) % 97 });
    Some(rest == 1)
}

/// The recipients that an argument names: itself, or each element of a list.
pub(super) fn targets(value: &Value) -> Vec<Target> {
    let one = |text: &str| Target { kind: "recipient".into(), value: plain(text) };
    match value {
        Value::String(text) if !text.trim().is_empty() => vec![one(text)],
        Value::Number(_) => vec![one(&value.plain())],
        Value::Array(items) => items.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

/// One spelling of a recipient: without blanks, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ibans_are_told_by_their_check_digits() {
        assert_eq!(is_iban("de02120300000000202051"), Some(true));
        assert_eq!(is_iban("de03120300000000202051"), Some(false));
        assert_eq!((is_iban("mia@example.com"), is_iban("de1")), (None, None));
        assert!(within("mail.example.com", "Example.com") && !within("notexample.com", "example.com"));
    }
}
