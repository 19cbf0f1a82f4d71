//! Channels: how approvers are asked and told. The port is [`Channel`].
//!
//! A channel only carries questions and news. Who decided what is for the gateway to judge, from an authenticated
//! person, whatever the channel says.

mod inbox;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use inbox::{Inbox, pages};

use crate::domain::approval::{Approval, ReviewError, ReviewVerdict};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;

/// How approvers are asked.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name in the record.
    fn name(&self) -> &'static str;

    /// Where an approver answers, for the agent to tell its person.
    fn place(&self, approval: &Approval) -> String;

    /// Asks. Called again after a restart: asking twice must be harmless.
    async fn ask(&self, approval: &Approval);

    /// Tells what became of it.
    async fn tell(&self, approval: &Approval);
}

/// Where a channel hands in what people said, and reads what they may see. The gateway is one.
#[async_trait]
pub trait ReviewDesk: Send + Sync {
    /// Counts a verdict. Every one is recorded, those that do not count as well.
    ///
    /// # Errors
    /// See [`DeskError`].
    async fn review(&self, verdict: Verdict) -> Result<Approval, DeskError>;

    /// An approval by its id.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn approval(&self, id: &str) -> Result<Option<Approval>, DeskError>;

    /// Open approvals, oldest first, and the last settled ones, newest first.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn approvals(&self) -> Result<(Vec<Approval>, Vec<Approval>), DeskError>;

    /// Uses a one-time login up; nothing if it is not good.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn sign_in(&self, login: &str) -> Result<Option<SignedIn>, DeskError>;

    /// The person of a session cookie.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn person(&self, cookie: &str) -> Result<Option<Person>, DeskError>;

    /// Ends a session.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn sign_out(&self, cookie: &str) -> Result<(), DeskError>;

    /// Tells the id of each approval that changed.
    fn changes(&self) -> broadcast::Receiver<Arc<str>>;

    /// The present.
    fn now(&self) -> Timestamp;
}

/// A fresh session.
#[derive(Debug)]
pub struct SignedIn {
    /// Whose.
    pub approver: String,
    /// The secret that the browser keeps.
    pub cookie: String,
}

/// A signed-in approver.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub approver: String,
    /// The token that their forms must carry.
    pub csrf: String,
}

/// A verdict as a channel hands it in. The approver is authenticated; nothing else is.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The approval's id.
    pub approval: String,
    /// Who, from a session.
    pub approver: String,
    /// What they said.
    pub verdict: ReviewVerdict,
    /// Why.
    pub reason: Option<String>,
    /// The digest that they were shown.
    pub shown: CallDigest,
    /// `inbox` or `terminal`.
    pub channel: &'static str,
    /// How they proved who they are.
    pub assurance: String,
}

/// Why a verdict does not count.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It does not pass the checks.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// The store did not take it: nothing is decided.
    #[error("nothing was decided: {0}")]
    Store(String),
    /// There is no such approval.
    #[error("there is no such call")]
    Unknown,
}
