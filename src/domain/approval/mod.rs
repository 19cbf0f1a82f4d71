//! The approval of one exact call: a state machine of one struct per state, whose transitions consume it.
//!
//! ```text
//! Pending -> Approved -> Redeemed -> Dispatched -> Settled (completed, failed, outcome unknown)
//! Pending -> Settled (denied, expired, cancelled)     Approved -> Settled (expired, revoked)
//! Redeemed -> Approved (nothing was dispatched)
//! ```
//! Two clocks: *decide-by* is how long approvers have, *execute-by* how long the approval stays usable. Pure: the time
//! is handed in, and whoever calls stores what comes out.

mod allowance;
mod posted;
mod request;
mod review;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use allowance::Allowance;
pub use posted::{Due, Posted};
pub use request::{AgainTerms, CredentialEnding, CredentialShown, Escalation, Request, Terms};
pub use review::{Again, Capacity, Review, ReviewError, ReviewVerdict};

use super::call::CallDigest;
use super::clock::Timestamp;
use super::digest::Digest;

/// How long an answer is kept for its caller after its call could run at the latest.
const KEPT: Duration = Duration::from_secs(600);

/// Proof that an approval was used up for a call. Only [`Stage::redeem`] makes one.
#[derive(Debug)]
pub struct Redeemed(CallDigest);

impl Redeemed {
    /// The key of the call (without the approval's nonce) that may run now.
    pub fn call(&self) -> CallDigest {
        self.0
    }
}

/// An approval in one of its states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Approval {
    /// Enough people approved; the caller may use it until execute-by.
    Approved(Stage<IsApproved>),
    /// The call went upstream; the answer is awaited.
    Dispatched(Stage<IsDispatched>),
    /// People are asked.
    Pending(Stage<IsPending>),
    /// Used up; nothing went upstream yet.
    Redeemed(Stage<IsRedeemed>),
    /// Over.
    Settled(Stage<IsSettled>),
}

/// An approval in the state `S`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage<S> {
    /// What was asked; never changes.
    pub request: Arc<Request>,
    /// Who said what so far.
    pub reviews: Vec<Review>,
    /// What this state adds.
    #[serde(flatten)]
    pub is: S,
}

/// People are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsPending {}

/// Enough people approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsApproved {
    /// When the last needed approval came.
    pub approved_at: Timestamp,
    /// Until when it is usable.
    pub execute_by: Timestamp,
}

/// Used up; nothing went upstream yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsRedeemed {
    /// As it was when approved, to go back to.
    pub approved: IsApproved,
    /// When it was redeemed.
    pub redeemed_at: Timestamp,
    /// The gateway that redeemed it.
    pub instance: String,
}

/// The call went upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsDispatched {
    /// Until when a repeated call finds this one.
    pub execute_by: Timestamp,
    /// When it was dispatched.
    pub dispatched_at: Timestamp,
    /// The gateway that dispatched it.
    pub instance: String,
}

/// Over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsSettled {
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub settled_at: Timestamp,
    /// Until when a repeated call is told of this outcome instead of asking anew.
    pub remembered_until: Timestamp,
}

/// How an approval ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The caller or the operator took it back before anybody decided.
    Cancelled {
        /// Why.
        why: String,
    },
    /// The call ran and answered.
    Completed {
        /// Digest of the answer's bytes.
        result: Digest,
        /// Whether the tool itself reported an error.
        is_error: bool,
        /// Whether the answer reached the caller; if not it is kept for the repeated call.
        delivered: bool,
    },
    /// A person said no.
    Denied {
        /// Who.
        by: String,
        /// What they said.
        reason: Option<String>,
    },
    /// One of the two clocks ran out.
    Expired {
        /// `decide-by` or `execute-by`.
        clock: String,
    },
    /// The upstream refused the call or could not be reached: it did not run.
    Failed {
        /// Why.
        why: String,
    },
    /// The call went upstream and no answer came back: it may have run. It is never run again.
    OutcomeUnknown {
        /// Why.
        why: String,
    },
    /// It was approved and then became void before it was used.
    Revoked {
        /// Why.
        why: String,
    },
}

/// Why an approval could not be redeemed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RedeemError {
    /// Somebody who approved may not any more.
    #[error("`{0}` approved and is no longer an approver")]
    ApproverGone(String),
    /// The call is not the one that was approved.
    #[error("the call is not the one that was approved: its arguments, the tool, its policy or its definition changed")]
    Differs,
    /// What is asked for now is more than was given.
    #[error("the call needs {0} approvals now, or is denied")]
    Stricter(u8),
    /// Execute-by has passed.
    #[error("the approval was usable until {0}")]
    Late(Timestamp),
}

impl Approval {
    /// A new approval, pending.
    pub fn open(request: Request) -> Self {
        Self::Pending(Stage { request: Arc::new(request), reviews: Vec::new(), is: IsPending {} })
    }

    /// What was asked.
    pub fn request(&self) -> &Arc<Request> {
        match self {
            Self::Approved(s) => &s.request,
            Self::Dispatched(s) => &s.request,
            Self::Pending(s) => &s.request,
            Self::Redeemed(s) => &s.request,
            Self::Settled(s) => &s.request,
        }
    }

    /// Who said what so far.
    pub fn reviews(&self) -> &[Review] {
        match self {
            Self::Approved(s) => &s.reviews,
            Self::Dispatched(s) => &s.reviews,
            Self::Pending(s) => &s.reviews,
            Self::Redeemed(s) => &s.reviews,
            Self::Settled(s) => &s.reviews,
        }
    }

    /// The state's name, as stored and shown.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Approved(_) => "approved",
            Self::Dispatched(_) => "dispatched",
            Self::Pending(_) => "pending",
            Self::Redeemed(_) => "redeemed",
            Self::Settled(s) => s.is.outcome.name(),
        }
    }

    /// When a clock of this state runs out, where one runs.
    pub fn runs_out(&self) -> Option<Timestamp> {
        match self {
            Self::Pending(s) => Some(s.request.terms.decide_by),
            Self::Approved(s) => Some(s.is.execute_by),
            _ => None,
        }
    }

    /// The approval after a look at the clock: expired if its time is over, else as it was.
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Pending(s) if now >= s.request.terms.decide_by => s.settle(Outcome::Expired { clock: "decide-by".into() }, now),
            Self::Approved(s) if now >= s.is.execute_by => s.settle(Outcome::Expired { clock: "execute-by".into() }, now),
            other => other,
        }
    }

    /// Until when a repeated call finds this approval instead of asking anew.
    pub fn findable_until(&self) -> Timestamp {
        match self {
            Self::Pending(s) => s.request.terms.decide_by,
            Self::Approved(s) => s.is.execute_by,
            Self::Redeemed(s) => s.is.approved.execute_by,
            // However late the answer comes, the repeated call must find this one and not run again.
            Self::Dispatched(_) => Timestamp(i64::MAX),
            Self::Settled(s) => s.is.remembered_until,
        }
    }

    /// Until when its answer is kept for its caller, and its call where that is followed as a task: a while after it could
    /// run at the latest, and as long as a repeated call finds it.
    pub fn kept_until(&self) -> Timestamp {
        let terms = &self.request().terms;
        let last = terms.decide_by.plus(Duration::from_millis(terms.execute_for_ms)).plus(KEPT);
        match self {
            Self::Settled(s) => last.max(s.is.remembered_until),
            _ => last,
        }
    }
}

impl Outcome {
    /// The outcome's name, as stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cancelled { .. } => "cancelled",
            Self::Completed { .. } => "completed",
            Self::Denied { .. } => "denied",
            Self::Expired { .. } => "expired",
            Self::Failed { .. } => "failed",
            Self::OutcomeUnknown { .. } => "outcome-unknown",
            Self::Revoked { .. } => "revoked",
        }
    }
}

impl<S> Stage<S> {
    /// Ends the approval.
    fn settle(self, outcome: Outcome, now: Timestamp) -> Approval {
        let remembered_until = match outcome {
            Outcome::Denied { .. } => now.plus(Duration::from_millis(self.request.terms.cool_down_ms)),
            _ => now,
        };
        self.settle_until(outcome, now, remembered_until)
    }

    fn settle_until(self, outcome: Outcome, now: Timestamp, remembered_until: Timestamp) -> Approval {
        let is = IsSettled { outcome, settled_at: now, remembered_until };
        Approval::Settled(Stage { request: self.request, reviews: self.reviews, is })
    }
}

impl Stage<IsPending> {
    /// Counts one person's verdict. The first denial settles; approval settles at quorum.
    ///
    /// # Errors
    /// The first check that fails, in the order of [`ReviewError`]'s documentation.
    pub fn review(mut self, review: Review, now: Timestamp) -> Result<Approval, ReviewError> {
        review::check(&self.request, &self.reviews, &review, now)?;
        let (by, reason) = (review.approver.clone(), review.reason.clone());
        let verdict = review.verdict;
        self.reviews.push(review);
        if verdict == ReviewVerdict::Deny {
            return Ok(self.settle(Outcome::Denied { by, reason }, now));
        }
        if self.reviews.len() < usize::from(self.request.terms.quorum) {
            return Ok(Approval::Pending(self));
        }
        let execute_by = now.plus(Duration::from_millis(self.request.terms.execute_for_ms));
        let is = IsApproved { approved_at: now, execute_by };
        Ok(Approval::Approved(Stage { request: self.request, reviews: self.reviews, is }))
    }

    /// Takes the question back.
    pub fn cancel(self, why: &str, now: Timestamp) -> Approval {
        self.settle(Outcome::Cancelled { why: why.into() }, now)
    }
}

impl Stage<IsApproved> {
    /// Uses the approval up for the call that `key` names, if everything still holds.
    ///
    /// # Errors
    /// See [`RedeemError`]; the approval is then void and the caller must store it as revoked.
    pub fn redeem(
        self,
        key: CallDigest,
        eligible: impl Fn(&Review) -> bool,
        instance: &str,
        now: Timestamp,
    ) -> Result<(Approval, Redeemed), RedeemError> {
        if now >= self.is.execute_by {
            return Err(RedeemError::Late(self.is.execute_by));
        }
        if key != self.request.key {
            return Err(RedeemError::Differs);
        }
        if let Some(gone) = self.reviews.iter().find(|review| !eligible(review)) {
            return Err(RedeemError::ApproverGone(gone.approver.clone()));
        }
        let is = IsRedeemed { approved: self.is, redeemed_at: now, instance: instance.into() };
        let next = Approval::Redeemed(Stage { request: self.request, reviews: self.reviews, is });
        Ok((next, Redeemed(key)))
    }

    /// Makes the approval void before it was used.
    pub fn revoke(self, why: &str, now: Timestamp) -> Approval {
        self.settle(Outcome::Revoked { why: why.into() }, now)
    }
}

impl Stage<IsRedeemed> {
    /// Back to approved, because nothing was dispatched.
    pub fn put_back(self) -> Approval {
        Approval::Approved(Stage { request: self.request, reviews: self.reviews, is: self.is.approved })
    }

    /// The call goes upstream now.
    pub fn dispatch(self, now: Timestamp) -> Approval {
        let is = IsDispatched { execute_by: self.is.approved.execute_by, dispatched_at: now, instance: self.is.instance };
        Approval::Dispatched(Stage { request: self.request, reviews: self.reviews, is })
    }
}

impl Stage<IsDispatched> {
    /// The answer came, or it is certain that none will. An answer that did not reach the caller, and an unknown
    /// outcome, are remembered so that the repeated call is told of them.
    pub fn finish(self, outcome: Outcome, now: Timestamp) -> Approval {
        let until = match outcome {
            Outcome::Completed { delivered: false, .. } | Outcome::OutcomeUnknown { .. } => {
                self.is.execute_by.max(now.plus(Duration::from_secs(600)))
            }
            _ => now,
        };
        self.settle_until(outcome, now, until)
    }
}

#[cfg(test)]
pub(crate) use tests::sample;

#[cfg(test)]
mod tests;
