//! What a parser holds against a text: the common currency of `shell`, `sql` and `code`, which run one another.

use super::{Finding, Group};
use crate::domain::json::Pointer;
use crate::domain::text::{shortened, visible};

/// One thing that is dangerous in a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Danger {
    /// In per mille.
    pub weight: u16,
    /// Where it counts; content unless it is about something else.
    pub group: Group,
    /// Why, for people.
    pub reason: String,
    /// What was seen.
    pub evidence: String,
    /// Whether it removes or overwrites something.
    pub destroys: bool,
    /// Whether what runs cannot be seen.
    pub opaque: bool,
    floor: Option<(&'static str, u8)>,
}

impl Danger {
    pub(super) fn new(weight: u16, reason: impl Into<String>, evidence: &str) -> Self {
        let evidence = evidence.chars().take(200).collect();
        Self { weight, group: Group::Content, reason: reason.into(), evidence, destroys: false, opaque: false, floor: None }
    }

    /// Something that the parser cannot read.
    pub(super) fn unread(reason: String, evidence: &str) -> Self {
        Self { floor: Some(("uninspectable", 70)), opaque: true, ..Self::new(600, reason, evidence) }
    }

    /// More than a parser reads: it may hide the worst there is, and must not score less than that.
    pub(super) fn excess(reason: String, evidence: &str) -> Self {
        Self { floor: Some(("uninspectable", 85)), opaque: true, ..Self::new(800, reason, evidence) }
    }

    /// Code that nobody sees before it runs.
    pub(super) fn opaque(reason: impl Into<String>, evidence: &str) -> Self {
        Self::new(650, reason, evidence).opaque_code()
    }

    #[must_use]
    pub(super) fn opaque_code(self) -> Self {
        Self { floor: Some(("opaque-code", 75)), opaque: true, ..self }
    }

    #[must_use]
    pub(super) fn destroying(self) -> Self {
        Self { destroys: true, ..self }
    }

    /// It destroys more than anybody could list.
    #[must_use]
    pub(super) fn unbounded(self) -> Self {
        Self { floor: Some(("unbounded", 85)), ..self }
    }

    #[must_use]
    pub(super) fn granting(self) -> Self {
        Self { floor: Some(("grant-admin", 85)), ..self }
    }

    /// It counts in another group than content.
    #[must_use]
    pub(super) fn aside(self, group: Group) -> Self {
        Self { group, ..self }
    }

    pub(super) fn finding(self, signal: &str, pointer: &Pointer) -> Finding {
        let mut finding = Finding::new(signal, self.group, self.weight, self.reason);
        finding.pointer = Some(pointer.to_string());
        finding.evidence = (!self.evidence.is_empty()).then(|| shortened(&visible(&self.evidence), 80));
        match self.floor {
            Some((name, score)) => finding.floor(name, score),
            None => finding,
        }
    }
}
