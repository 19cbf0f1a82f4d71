//! A finding: one fact that raises the risk, with its weight and its reason in words.

use serde::{Deserialize, Serialize};

use crate::domain::json::{Pointer, Value};
use crate::domain::text::{shortened, visible};

/// Findings of one group describe the same danger: only the heaviest of a group counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// How the caller behaves: rate, repetition.
    Behaviour,
    /// What is inside the arguments: secrets, code, statements.
    Content,
    /// What the tool does.
    Effect,
    /// Whether the call is what it seems: schema, pins, hidden characters.
    Integrity,
    /// How much: amounts, counts, flags.
    Magnitude,
    /// Where the arguments come from: earlier results.
    Provenance,
    /// The operator's own rule of that number; rules add up.
    Rule(u16),
    /// Whom or what it reaches.
    Target,
}

/// One fact that raises the risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The signal that saw it, such as `amount`.
    pub signal: String,
    /// The group it counts in.
    pub group: Group,
    /// The argument it is about, if one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pointer: Option<String>,
    /// Why it raises the risk, for people.
    pub reason: String,
    /// What was seen, visible and short.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<String>,
    /// Weight in per mille.
    pub weight: u16,
    /// The score cannot be below this while the finding stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<Floor>,
    /// How much lower the score would be without it; filled in by the sum.
    #[serde(default)]
    pub points: u8,
}

/// A score that nothing but the operator's naming of this floor undercuts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The name that a policy uses in `over-floors`.
    pub name: String,
    /// The lowest score.
    pub score: u8,
}

/// What was seen, as text for people.
pub struct Evidence;

impl Evidence {
    /// A value, made visible and cut to 80 characters.
    pub fn of(value: &Value) -> String {
        shortened(&visible(&value.plain()), 80)
    }
}

impl Finding {
    /// A finding without argument, evidence or floor.
    pub fn new(signal: &str, group: Group, weight: u16, reason: impl Into<String>) -> Self {
        Self { signal: signal.into(), group, pointer: None, reason: reason.into(), evidence: None, weight, floor: None, points: 0 }
    }

    /// About this argument, with the value seen there.
    #[must_use]
    pub fn at(mut self, pointer: &Pointer, value: &Value) -> Self {
        self.pointer = Some(pointer.to_string());
        self.evidence = Some(Evidence::of(value));
        self
    }

    /// With a floor.
    #[must_use]
    pub fn floor(mut self, name: &str, score: u8) -> Self {
        self.floor = Some(Floor { name: name.into(), score });
        self
    }

    /// A value that its parser could not read: as dangerous as anything it might hide.
    pub fn uninspectable(signal: &str, group: Group, reason: impl Into<String>) -> Self {
        Self::new(signal, group, 600, reason).floor("uninspectable", 70)
    }
}
