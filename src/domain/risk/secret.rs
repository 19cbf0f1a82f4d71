//! Secrets in any string: a small set of rules for credentials that have a form of their own.

use std::sync::LazyLock;

use regex::RegexSet;

use super::{Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

const RULES: [(&str, &str); 10] = [
    ("an AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9._]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]+"),
    ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("a Stripe live key", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a model provider's key", r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
    ("a password in a URL", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,80}:[^\s/@]{3,120}@"),
];

// A rule that does not compile would be a bug; then every string counts as unreadable, and the test below fails.
static SET: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(RULES.map(|(_, rule)| rule)).ok());

pub(super) fn observe(pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    match value {
        Value::String(text) => look(pointer, text, seen),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                observe(&pointer.join(&n.to_string()), item, seen);
            }
        }
        Value::Object(object) => {
            for (name, member) in object.iter() {
                observe(&pointer.join(name), member, seen);
            }
        }
        _ => {}
    }
}

fn look(pointer: &Pointer, text: &str, seen: &mut Sight<'_>) {
    // The shortest secret above has more than twelve characters.
    if text.len() < 12 {
        return;
    }
    let Some(set) = SET.as_ref() else {
        seen.find(Finding::uninspectable("secret", Group::Content, "no rules to look for secrets with"));
        return;
    };
    for rule in set.matches(text).iter() {
        let name = RULES.get(rule).map_or("a secret", |(name, _)| name);
        seen.fact("secret", "found", Value::Bool(true));
        // The evidence is the kind of secret, never the text.
        let mut finding = Finding::new("secret", Group::Content, 700, format!("the argument carries {name}"));
        finding.pointer = Some(pointer.to_string());
        seen.find(finding);
    }
}

/// Whether a text carries a secret that the rules know; where there are no rules, every text might.
pub fn carries_secret(text: &str) -> bool {
    SET.as_ref().is_none_or(|set| set.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_compile_and_tell_secrets_from_prose() {
        assert!(SET.is_some());
        let pem = ["-----BEGIN RSA ", "PRIVATE KEY-----"].concat();
        let url = ["postgres://app:", "hunter22@db/x"].concat();
        for text in [pem.as_str(), url.as_str(), &format!("key AKIA{}", "ABCDEFGHIJKLMNOP"), &format!("ghp_{}", "a".repeat(36))] {
            assert!(carries_secret(text), "{text}");
        }
        for text in ["an ordinary sentence about keys", "https://example.com/a:b@c", "skeleton-of-an-argument", "AKIAlowercase"] {
            assert!(!carries_secret(text), "{text}");
        }
    }
}
