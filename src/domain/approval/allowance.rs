//! An allowance: an approver's leave for the same call again, so often and so long, where the policy permits it.
//!
//! It is bound to the caller, the tool, its definition and policy, the credential's scope and every argument that the
//! policy does not let vary. Each use is an approval of its own in the record. Never without an end, never by default.

use serde::{Deserialize, Serialize};

use super::{IsApproved, Review, Stage};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;

/// An approver's leave for the same call again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Its id: random, 128 bits.
    pub id: String,
    /// The approval in which it was given.
    pub approval: String,
    /// Who gave it.
    pub approver: String,
    /// The seat in the policy under which they did.
    pub seat: String,
    /// What calls that it covers have in common.
    pub key: CallDigest,
    /// The caller that it is for.
    pub caller: String,
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// The highest score that it covers.
    pub max_score: u8,
    /// How many uses are left.
    pub left: u32,
    /// When it was given.
    pub given_at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
}

impl Allowance {
    /// The channel of reviews that are made by using one.
    pub const CHANNEL: &str = "allowance";

    /// The allowance that was given with an approval, if one was.
    pub fn given(stage: &Stage<IsApproved>, id: String) -> Option<Self> {
        let request = &stage.request;
        let terms = request.terms.again.as_ref()?;
        let review = stage.reviews.last()?;
        let again = review.again?;
        Some(Self {
            id,
            approval: request.id.clone(),
            approver: review.approver.clone(),
            seat: review.capacity.seat(&review.approver).to_owned(),
            key: terms.key,
            caller: request.caller.name.clone(),
            server: request.binding.server.clone(),
            tool: request.tool.clone(),
            max_score: terms.max_score,
            left: again.times,
            given_at: stage.is.approved_at,
            expires_at: stage.is.approved_at.plus(std::time::Duration::from_millis(again.for_ms)),
        })
    }

    /// Whether it covers a call of this score now. Its key was compared before.
    pub fn covers(&self, score: u8, now: Timestamp) -> bool {
        self.left > 0 && now < self.expires_at && score <= self.max_score
    }

    /// How a review made by using it says so.
    pub fn assurance(&self) -> String {
        format!("{BY}{} given in approval {}", self.id, self.approval)
    }

    /// The approval in which the allowance was given that a review was made by, if it was.
    pub fn source(review: &Review) -> Option<&str> {
        let by = review.assurance.strip_prefix(BY).filter(|_| review.channel == Self::CHANNEL)?;
        by.split_once(" given in approval ").map(|(_, approval)| approval)
    }
}

const BY: &str = "allowance ";
