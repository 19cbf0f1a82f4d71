//! What a channel that posts messages keeps of them: which message asks whom about which approval, and what it shows.

use crate::domain::clock::Timestamp;

/// One message about one approval, to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// What its buttons carry: random, 128 bits, good for nothing else.
    pub nonce: String,
    /// The approval.
    pub approval: String,
    /// Whom it was posted for: an approver's name, or the channel's own word for a room.
    pub recipient: String,
    /// Where it stands, in the channel's own words.
    pub place: String,
    /// The message there; nothing until the channel said which.
    pub message: Option<String>,
    /// The approval's version that it shows.
    pub version: i64,
    /// How far it is.
    pub step: u8,
}

impl Posted {
    /// It asks.
    pub const ASKS: u8 = 0;
    /// It asks, and its recipient was reminded.
    pub const REMINDED: u8 = 1;
    /// It shows that people decided; the outcome is not told yet.
    pub const DECIDED: u8 = 2;
    /// It shows the outcome, and nothing more will change.
    pub const OVER: u8 = 3;
}

/// An approval that a channel must look at: written with each of its changes, so that none is forgotten in a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The approval.
    pub approval: String,
    /// Changes with every change of the approval: what was looked at is done only if it is still the same.
    pub mark: i64,
    /// How often looking at it failed.
    pub failures: u32,
    /// When it is to be looked at.
    pub at: Timestamp,
}
