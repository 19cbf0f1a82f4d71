//! The sum: `clamp(max(floors, 100 · (1 − Π over groups (1 − max weight))), ceiling)`, in integers.
//!
//! Only the heaviest finding of a group counts, groups combine as independent reasons, and every step is monotone:
//! another finding never lowers the score, and the order of findings does not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Finding, Group};

/// How the score is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Band {
    /// Below 40: allow.
    Low,
    /// 40 to 59: allow, and say so loudly.
    Notable,
    /// 60 to 84: one approver.
    High,
    /// 85 and above: two approvers.
    Critical,
}

/// Where the bands begin; a policy moves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    /// The score from which one person is asked; 60 by default.
    pub from: u8,
    /// The score from which two are asked; above 100 means never.
    pub two_from: u8,
}

impl Default for Bands {
    fn default() -> Self {
        Self { from: 60, two_from: 85 }
    }
}

impl Bands {
    /// The band of a score.
    pub fn band(&self, score: u8) -> Band {
        match score {
            s if s >= self.from && s >= self.two_from => Band::Critical,
            s if s >= self.from => Band::High,
            s if s >= 40 => Band::Notable,
            _ => Band::Low,
        }
    }
}

/// A ceiling that the policy puts on a score, and the floors that it names to go below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The highest score.
    pub score: u8,
    /// Floors that give way to it; all others stand.
    pub over_floors: Vec<String>,
}

/// How dangerous, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// 0 to 100.
    pub score: u8,
    /// The band that the policy puts the score in.
    pub band: Band,
    /// What made it, heaviest first.
    pub findings: Vec<Finding>,
}

/// The assessment that `findings` make.
pub fn assess(mut findings: Vec<Finding>, bands: &Bands, ceiling: Option<&Ceiling>) -> Assessment {
    let score = total(findings.iter(), ceiling);
    let without: Vec<u8> =
        (0..findings.len()).map(|n| total(findings.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, f)| f), ceiling)).collect();
    for (finding, rest) in findings.iter_mut().zip(without) {
        finding.points = score.saturating_sub(rest);
    }
    let rank = |f: &Finding| (std::cmp::Reverse((f.floor.as_ref().map_or(0, |x| x.score), f.points, f.weight)), f.pointer.clone(), f.reason.clone());
    findings.sort_by_key(rank);
    Assessment { score, band: bands.band(score), findings }
}

fn total<'f>(findings: impl Iterator<Item = &'f Finding>, ceiling: Option<&Ceiling>) -> u8 {
    let mut heaviest: BTreeMap<Group, u64> = BTreeMap::new();
    let mut floor = 0;
    let mut firm = 0;
    for finding in findings {
        let weight = heaviest.entry(finding.group).or_default();
        *weight = (*weight).max(u64::from(finding.weight.min(1000)));
        if let Some(found) = &finding.floor {
            floor = floor.max(found.score);
            if !ceiling.is_some_and(|c| c.over_floors.contains(&found.name)) {
                firm = firm.max(found.score);
            }
        }
    }
    // Sorted, so that truncation does not depend on the order in which findings came.
    let mut weights: Vec<u64> = heaviest.into_values().collect();
    weights.sort_unstable();
    let left = weights.iter().fold(1_000_000_000u64, |left, weight| left * (1000 - weight) / 1000);
    let sum = u8::try_from((1_000_000_000 - left) / 10_000_000).unwrap_or(100);
    let score = sum.max(floor).min(100);
    ceiling.map_or(score, |c| score.min(c.score).max(firm.min(100)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finding(group: u16, weight: u16, floor: Option<u8>) -> Finding {
        let f = Finding::new("t", Group::Rule(group), weight, format!("{group}/{weight}"));
        floor.map_or(f.clone(), |score| f.floor("x", score))
    }

    #[test]
    fn the_sum_adds_up() {
        let score = |f: &[Finding]| assess(f.to_vec(), &Bands::default(), None).score;
        assert_eq!(score(&[]), 0);
        assert_eq!(score(&[finding(0, 500, None), finding(1, 500, None)]), 75);
        assert_eq!(score(&[finding(0, 500, None), finding(0, 400, None)]), 50);
        assert_eq!(score(&[finding(0, 10, Some(85))]), 85);
        assert_eq!(score(&[finding(0, 1000, None)]), 100);
        let ceiling = |over: &[&str]| Ceiling { score: 30, over_floors: over.iter().map(|s| (*s).into()).collect() };
        let capped = |c: &Ceiling| assess(vec![finding(0, 900, Some(85))], &Bands::default(), Some(c)).score;
        assert_eq!(capped(&ceiling(&[])), 85);
        assert_eq!(capped(&ceiling(&["x"])), 30);
    }

    proptest! {
        #[test]
        fn another_finding_never_lowers_and_order_never_matters(
            raw in prop::collection::vec((0u16..5, 0u16..1100, prop::option::of(0u8..101)), 1..9), turn in 0usize..9,
        ) {
            let mut all: Vec<Finding> = raw.iter().map(|(g, w, f)| finding(*g, *w, *f)).collect();
            let bands = Bands::default();
            let whole = assess(all.clone(), &bands, None);
            let fewer = assess(all[1..].to_vec(), &bands, None);
            prop_assert!(whole.score >= fewer.score);
            let len = all.len();
            all.rotate_left(turn % len);
            prop_assert_eq!(assess(all, &bands, None), whole);
        }
    }
}
