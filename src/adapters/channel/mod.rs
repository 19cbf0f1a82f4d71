//! Channels: how approvers are asked and told. The port is [`Channel`].
//!
//! A channel only carries questions and news. Who decided what is for the gateway to judge, from an authenticated
//! person, whatever the channel says.

mod inbox;

use async_trait::async_trait;

pub use inbox::Inbox;

use crate::domain::approval::Approval;

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
