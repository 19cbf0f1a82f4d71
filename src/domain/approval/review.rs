//! One person's verdict, and the ordered checks that it must pass.

use serde::{Deserialize, Serialize};

use super::{AgainTerms, Request};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;
use crate::domain::policy::Assurance;

/// One person's verdict on one exact call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The approver's name in the configuration, from an authenticated session, never from the message.
    pub approver: String,
    /// What they said.
    pub verdict: ReviewVerdict,
    /// Why, where they said why.
    pub reason: Option<String>,
    /// The digest that they were shown.
    pub shown: CallDigest,
    /// Where they said it: `inbox`, `terminal`.
    pub channel: String,
    /// How they proved who they are, such as `inbox session` or `operating-system user anna`.
    pub assurance: String,
    /// The least that `assurance` amounts to.
    #[serde(default)]
    pub level: Assurance,
    /// By what right, as checked just before.
    #[serde(default)]
    pub capacity: Capacity,
    /// How far they allow the same call again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// When.
    pub at: Timestamp,
}

/// By what right a person decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// The policy names them.
    #[default]
    Named,
    /// The policy names a group, or whoever is on call, and they are it.
    Member(String),
    /// Somebody whom the policy names has them decide in their place.
    Delegate(String),
}

/// How far an approver allows the same call again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// How often.
    pub times: u32,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

impl Capacity {
    /// The name in the policy that `approver` decides under.
    pub fn seat<'a>(&'a self, approver: &'a str) -> &'a str {
        match self {
            Self::Named => approver,
            Self::Delegate(seat) | Self::Member(seat) => seat,
        }
    }
}

/// What a person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewVerdict {
    /// Let it run.
    Approve,
    /// Do not.
    Deny,
}

/// Why a verdict does not count. The variants are in the order in which they are checked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReviewError {
    /// Somebody or something settled it before.
    #[error("this call is no longer waiting: it is {0}")]
    NotPending(&'static str),
    /// Decide-by has passed.
    #[error("the time to decide was over at {0}")]
    Late(Timestamp),
    /// The caller itself.
    #[error("a caller cannot approve its own call")]
    Requester,
    /// The person who answers for the caller.
    #[error("`{0}` answers for this caller and may not approve its calls")]
    Owner(String),
    /// Not one of those who were asked.
    #[error("`{0}` is not an approver of this call")]
    NotNamed(String),
    /// Their second verdict.
    #[error("`{0}` has already decided")]
    Again(String),
    /// They were shown another call.
    #[error("what was shown is not what waits: look at it again")]
    Differs,
    /// They must prove better who they are.
    #[error("this call takes a one-time code as well")]
    Assurance,
    /// They allow more than the policy permits.
    #[error("this call may not be allowed again, or not so often or so long")]
    TooMuch,
}

pub(super) fn check(request: &Request, reviews: &[Review], review: &Review, now: Timestamp) -> Result<(), ReviewError> {
    let name = &review.approver;
    let terms = &request.terms;
    if now >= terms.decide_by {
        return Err(ReviewError::Late(terms.decide_by));
    }
    if *name == request.caller.name {
        return Err(ReviewError::Requester);
    }
    let owner = |name: &str| request.caller.owner.as_deref() == Some(name) && !terms.owner_may_approve;
    let seat = review.capacity.seat(name);
    if owner(name) || owner(seat) {
        return Err(ReviewError::Owner(name.clone()));
    }
    if !terms.seats(now).contains(seat) {
        return Err(ReviewError::NotNamed(name.clone()));
    }
    if reviews.iter().any(|earlier| earlier.approver == *name || taken(earlier, review)) {
        return Err(ReviewError::Again(name.clone()));
    }
    if review.shown != request.digest {
        return Err(ReviewError::Differs);
    }
    // A denial needs no proof: saying no must never be hard.
    if review.verdict == ReviewVerdict::Approve && review.level < terms.assurance {
        return Err(ReviewError::Assurance);
    }
    if let Some(again) = review.again {
        let fits = |most: &AgainTerms| again.times <= most.times && again.for_ms <= most.for_ms && again.times > 0;
        let alone = terms.quorum == 1 && review.verdict == ReviewVerdict::Approve;
        if !alone || !terms.again.as_ref().is_some_and(fits) {
            return Err(ReviewError::TooMuch);
        }
    }
    Ok(())
}

/// Whether a seat that one person holds was taken before: who is named and who stands in for them count once together.
fn taken(earlier: &Review, review: &Review) -> bool {
    let group = |capacity: &Capacity| matches!(capacity, Capacity::Member(_));
    !group(&earlier.capacity) && !group(&review.capacity) && earlier.capacity.seat(&earlier.approver) == review.capacity.seat(&review.approver)
}
