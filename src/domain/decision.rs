//! Allow, ask a person, or deny: the one place where that is decided.

use super::call::CallDigest;
use super::policy::{Judged, Mode, Policy, RuleDecision, Verdict};
use super::risk::Band;

/// Proof that policy alone allows a call. Only [`decide`] makes one.
#[derive(Debug)]
pub struct Allowed(CallDigest);

impl Allowed {
    /// The call that is allowed.
    pub fn call(&self) -> CallDigest {
        self.0
    }
}

/// What is to become of a call.
#[derive(Debug)]
pub enum Decision {
    /// It may run.
    Allow(Allowed),
    /// So many people must approve it.
    Approve {
        /// How many.
        quorum: u8,
    },
    /// It does not run.
    Deny {
        /// Why, in the policy's words.
        because: String,
    },
}

/// Whether decisions hold calls back, or are only recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Calls are held and refused.
    Enforce,
    /// Every call runs; what would have become of it is in the record.
    Shadow,
}

/// Decides. Unknown and erring things were turned into findings before; there is no way to allow by accident.
pub fn decide(policy: &Policy, judged: &Judged, call: CallDigest, enforcement: Enforcement) -> Decision {
    match verdict(policy, judged) {
        _ if enforcement == Enforcement::Shadow => Decision::Allow(Allowed(call)),
        Verdict::Allow => Decision::Allow(Allowed(call)),
        Verdict::RequireApproval => Decision::Approve { quorum: 1 },
        Verdict::RequireTwoApprovals => Decision::Approve { quorum: 2 },
        Verdict::Deny => {
            let rule = judged.demands.iter().find(|(decision, _)| *decision == RuleDecision::Deny);
            let because = rule.map_or_else(|| "the policy denies this tool".to_owned(), |(_, because)| because.clone());
            Decision::Deny { because }
        }
    }
}

/// The decision in the words of policy cases.
pub fn verdict(policy: &Policy, judged: &Judged) -> Verdict {
    let strictest = judged.demands.iter().map(|(decision, _)| *decision).max();
    let by_score = match judged.assessment.band {
        Band::Low | Band::Notable => Verdict::Allow,
        Band::High => Verdict::RequireApproval,
        Band::Critical => Verdict::RequireTwoApprovals,
    };
    let two = judged.assessment.score >= policy.ask.bands.two_from;
    let asked = if two { Verdict::RequireTwoApprovals } else { Verdict::RequireApproval };
    match (strictest, policy.mode) {
        (Some(RuleDecision::Deny), _) | (_, Mode::Deny) => Verdict::Deny,
        (Some(RuleDecision::Approve), _) | (_, Mode::Ask) => asked,
        (None, Mode::Allow) => Verdict::Allow,
        (None, Mode::Score) => by_score,
    }
}
