//! Channels: how approvers are asked and told. The port is [`Channel`].
//!
//! A channel only carries questions and news. Who decided what is for the gateway to judge, from an authenticated
//! person, whatever the channel says.

mod inbox;
pub mod people;
mod shown;
pub mod slack;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub use inbox::{Inbox, pages};

use people::StandingError;

use crate::domain::approval::{Again, Allowance, Approval, Due, Posted, ReviewError, ReviewVerdict};
use crate::domain::audit::EventKind;
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;

/// The kinds of `[channel.NAME]` that there are; the inbox needs none.
pub const CHANNELS: &[&str] = &[slack::KIND];

/// How approvers are asked.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name in the record.
    fn name(&self) -> &'static str;

    /// Where an approver answers, for the agent to tell its person; nothing where it cannot ask now.
    fn place(&self, approval: &Approval) -> Option<String>;

    /// Asks. Called again after a restart: asking twice must be harmless.
    async fn ask(&self, approval: &Approval);

    /// Tells what became of it.
    async fn tell(&self, approval: &Approval);

    /// What it takes over HTTP, if anything.
    fn routes(&self, _desk: Arc<dyn PostDesk>) -> Option<axum::Router> {
        None
    }

    /// Speaks with its service until stopped, if it has one. Only one of the gateways that share a store does.
    async fn listen(&self, _desk: Arc<dyn PostDesk>, _stop: CancellationToken) {}

    /// What is wrong with it, or nothing; for health checks.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Every channel at once.
#[derive(Clone)]
pub struct Channels(Vec<Arc<dyn Channel>>);

impl Channels {
    /// These channels. The first that can ask is named first.
    pub fn new(channels: Vec<Arc<dyn Channel>>) -> Self {
        Self(channels)
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        self.0.iter()
    }

    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|channel| channel.name()).collect()
    }

    /// Where an approver answers.
    pub fn place(&self, approval: &Approval) -> String {
        self.0.iter().filter_map(|channel| channel.place(approval)).collect::<Vec<_>>().join(" or ")
    }

    /// Asks everywhere.
    pub async fn ask(&self, approval: &Approval) {
        for channel in &self.0 {
            channel.ask(approval).await;
        }
    }

    /// Tells everywhere.
    pub async fn tell(&self, approval: &Approval) {
        for channel in &self.0 {
            channel.tell(approval).await;
        }
    }
}

/// Where a channel hands in what people said, and reads what they may see. The gateway is one.
#[async_trait]
pub trait ReviewDesk: Send + Sync {
    /// Counts a verdict. Every one is recorded, those that do not count as well.
    ///
    /// # Errors
    /// See [`DeskError`].
    async fn review(&self, verdict: Verdict) -> Result<Approval, DeskError>;

    /// Whether `approver` may decide this call now, by name, group or delegation.
    ///
    /// # Errors
    /// Why not.
    async fn standing(&self, approval: &Approval, approver: &str) -> Result<(), StandingError>;

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

    /// The last call of the same tool by the same caller that was approved and ran.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn before(&self, approval: &Approval) -> Result<Option<Approval>, DeskError>;

    /// What approvers allowed again, with uses left.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn allowances(&self) -> Result<Vec<Allowance>, DeskError>;

    /// Ends an allowance before its time. Whoever may decide such calls may, and whoever gave it.
    ///
    /// # Errors
    /// If it has ended, if `approver` may not, or the store does not answer.
    async fn end_allowance(&self, id: &str, approver: &str, assurance: &str) -> Result<Allowance, DeskError>;

    /// Tells the id of each approval that changed.
    fn changes(&self) -> broadcast::Receiver<Arc<str>>;

    /// The present.
    fn now(&self) -> Timestamp;
}

/// What a channel that posts messages keeps, and needs to know beside the approvals themselves. The gateway is one.
#[async_trait]
pub trait PostDesk: ReviewDesk {
    /// Approvals that `channel` must look at by now, soonest first.
    ///
    /// # Errors
    /// As everything here: if the store does not answer.
    async fn due(&self, channel: &str, most: u32) -> Result<Vec<Due>, DeskError>;

    /// `channel` looked: at `next` again, or not until it changes.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn looked_at(&self, channel: &str, due: &Due, next: Option<Timestamp>, failed: bool) -> Result<(), DeskError>;

    /// An approval with its version.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn versioned(&self, id: &str) -> Result<Option<(Approval, i64)>, DeskError>;

    /// Every message about an approval.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn posted(&self, approval: &str) -> Result<Vec<Posted>, DeskError>;

    /// The message whose buttons carry `nonce`.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn posted_with(&self, nonce: &str) -> Result<Option<Posted>, DeskError>;

    /// How many messages ask `recipient` right now.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn asking(&self, recipient: &str) -> Result<u32, DeskError>;

    /// Keeps a message, or what became of it.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn keep_posted(&self, posted: &Posted) -> Result<(), DeskError>;

    /// Keeps what a person did before it is confirmed to have come; answers false if it is known already.
    ///
    /// # Errors
    /// If the store does not answer: then it must not be confirmed.
    async fn keep_click(&self, id: &str, body: &[u8]) -> Result<bool, DeskError>;

    /// What people did and nobody looked at yet, with when it came, oldest first.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn clicks(&self) -> Result<Vec<(String, Vec<u8>, Timestamp)>, DeskError>;

    /// Somebody looked at it.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn click_done(&self, id: &str) -> Result<(), DeskError>;

    /// What became of the credential that an approval's call got, in words; nothing if it got none, and `None` while
    /// it lives.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn credential_end(&self, approval: &Approval) -> Result<Option<String>, DeskError>;

    /// The allowance that was given in an approval, if it has uses left.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn allowance_of(&self, approval: &str) -> Result<Option<Allowance>, DeskError>;

    /// Records something about the channel itself.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn note(&self, kind: EventKind, subject: Option<String>, data: serde_json::Value) -> Result<(), DeskError>;
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
    /// `inbox`, `slack` or `terminal`.
    pub channel: &'static str,
    /// How they proved who they are.
    pub assurance: String,
    /// Their one-time code, where they gave one.
    pub code: Option<String>,
    /// How far they allow the same call again.
    pub again: Option<Again>,
}

/// Why a verdict does not count.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It does not pass the checks.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// They may not decide, or nobody can say whether they may.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// The one-time code is wrong or was used.
    #[error("the one-time code is wrong or was used before: wait for the next one, and after five wrong ones for five minutes")]
    Code,
    /// The store did not take it: nothing is decided.
    #[error("nothing was decided: {0}")]
    Store(String),
    /// There is no such approval.
    #[error("there is no such call")]
    Unknown,
}
