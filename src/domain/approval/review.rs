//! One person's verdict, and the ordered checks that it must pass.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;

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
    /// When.
    pub at: Timestamp,
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
    if request.caller.owner.as_ref() == Some(name) && !terms.owner_may_approve {
        return Err(ReviewError::Owner(name.clone()));
    }
    if !terms.approvers.contains(name) {
        return Err(ReviewError::NotNamed(name.clone()));
    }
    if reviews.iter().any(|earlier| earlier.approver == *name) {
        return Err(ReviewError::Again(name.clone()));
    }
    if review.shown != request.digest {
        return Err(ReviewError::Differs);
    }
    Ok(())
}
