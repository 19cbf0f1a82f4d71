//! The sweep: what ran out expires, what a dead gateway left open is settled, and no credential outlives its call.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Gateway};
use crate::adapters::store::{Instances, LeaseState, StoreError, Versioned};
use crate::domain::approval::{Approval, Outcome};
use crate::domain::audit::EventKind;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// How long after redemption a call that was not sent counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Why a sweep did not finish; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The other gateways' locks could not be read.
    #[error("the other gateways' locks could not be read: {0}")]
    Instances(#[from] std::io::Error),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Gateway {
    /// Sweeps until `stop`.
    pub async fn sweep(&self, instances: &Instances, stop: CancellationToken) {
        // Two loops: an issuer that does not answer must not keep approvals from running out.
        let leases = async {
            while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
                if let Err(error) = self.sweep_leases().await {
                    tracing::error!(%error, "credentials that were left over could not be ended");
                }
            }
        };
        tokio::join!(leases, self.sweep_calls(instances, &stop));
    }

    async fn sweep_calls(&self, instances: &Instances, stop: &CancellationToken) {
        let mut turn = 0u32;
        while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
            turn = turn.wrapping_add(1);
            if let Err(error) = self.expire_all().await {
                tracing::error!(%error, "what ran out could not be expired");
            }
            // Looking at locks touches the disk: every fifth second is soon enough for the dead.
            if turn.is_multiple_of(10) {
                if let Err(error) = self.bury(instances).await {
                    tracing::error!(%error, "what a dead gateway left open could not be settled");
                }
                if let Err(error) = self.store.forget(self.clock.now()).await {
                    tracing::error!(%error, "answers that are kept for nobody any more could not be dropped");
                }
                if let Err(error) = self.put_back_stuck().await {
                    tracing::error!(%error, "approvals that got stuck could not be put back");
                }
            }
        }
    }

    /// Expires approvals whose time is over.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn expire_all(&self) -> Result<(), StoreError> {
        for held in self.store.due(self.clock.now(), 100).await? {
            self.expired(held).await?;
        }
        Ok(())
    }

    /// Puts back what this gateway redeemed and then could not record anything more about. Should it be about to be sent
    /// after all, recording that loses the race, and it is not sent.
    async fn put_back_stuck(&self) -> Result<(), StoreError> {
        for held in self.store.held_by(&self.settings.instance).await? {
            if matches!(&held.approval, Approval::Redeemed(stage) if self.clock.now().since(stage.is.redeemed_at) > STUCK) {
                self.settle_abandoned(held, "nothing was sent after it was redeemed").await?;
            }
        }
        Ok(())
    }

    /// Settles everything that gateways left open which ended without saying so.
    ///
    /// # Errors
    /// See [`SweepError`].
    pub async fn bury(&self, instances: &Instances) -> Result<(), SweepError> {
        for dead in instances.dead()? {
            self.store.adopt(&dead.id).await?;
            self.settle_left_by(&dead.id, "the gateway ended while the call ran").await?;
            dead.buried();
        }
        Ok(())
    }

    /// Settles what this gateway itself left open of a call that ended in a panic.
    pub(super) async fn settle_own(&self, attempt: &Attempt) {
        let held = match self.store.held_by(&self.settings.instance).await {
            Ok(held) => held,
            Err(error) => return tracing::error!(%error, "an abandoned call could not be read"),
        };
        for held in held {
            let request = held.approval.request();
            let same = request.caller == attempt.caller
                && request.tool == attempt.call.tool
                && request.binding.server == attempt.server.name
                && request.arguments_digest == attempt.call.arguments_digest();
            if same && let Err(error) = self.settle_abandoned(held, "the gateway failed while the call ran").await {
                tracing::error!(%error, "an abandoned call could not be settled");
            }
        }
    }

    async fn settle_left_by(&self, instance: &str, why: &str) -> Result<(), StoreError> {
        for held in self.store.held_by(instance).await? {
            self.settle_abandoned(held, why).await?;
        }
        for record in self.store.unfinished(instance).await? {
            let data = json!({"why": why}).to_string();
            self.record(EventKind::OutcomeUnknown, record.entry.call, record.entry.subject, data).await?;
        }
        for lease in self.store.open_leases(Some(instance)).await? {
            self.end_lease(&lease).await;
        }
        Ok(())
    }

    /// Redeemed goes back to approved, for nothing was dispatched; dispatched may have run, and is never run again.
    async fn settle_abandoned(&self, held: Versioned, why: &str) -> Result<(), StoreError> {
        let (kind, next) = match held.approval.clone() {
            Approval::Redeemed(stage) => (EventKind::PutBack, stage.put_back()),
            Approval::Dispatched(stage) => (EventKind::OutcomeUnknown, stage.finish(Outcome::OutcomeUnknown { why: why.into() }, self.clock.now())),
            _ => return Ok(()),
        };
        match self.advance(&held, next, kind, json!({"why": why}), vec![]).await {
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
        for lease in self.store.leases_of(&held.approval.request().id).await? {
            if matches!(lease.state, LeaseState::Intended | LeaseState::Minted) {
                self.end_lease(&lease).await;
            }
        }
        Ok(())
    }
}
