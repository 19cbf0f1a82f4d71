//! What channels that post messages keep in the store, and ask of it.

use async_trait::async_trait;
use serde_json::Value;

use super::Gateway;
use crate::adapters::channel::{DeskError, PostDesk, ReviewDesk};
use crate::adapters::store::LeaseState;
use crate::domain::approval::{Allowance, Approval, Due, Posted};
use crate::domain::audit::EventKind;
use crate::domain::clock::Timestamp;

#[async_trait]
impl PostDesk for Gateway {
    async fn due(&self, channel: &str, most: u32) -> Result<Vec<Due>, DeskError> {
        Ok(self.store.due_in(channel, self.clock.now(), most).await?)
    }

    async fn looked_at(&self, channel: &str, due: &Due, next: Option<Timestamp>, failed: bool) -> Result<(), DeskError> {
        Ok(self.store.looked_at(channel, due, next, failed).await?)
    }

    async fn versioned(&self, id: &str) -> Result<Option<(Approval, i64)>, DeskError> {
        match self.store.approval(id).await? {
            Some(found) => Ok(Some(self.expired(found).await?).map(|found| (found.approval, found.version))),
            None => Ok(None),
        }
    }

    async fn posted(&self, approval: &str) -> Result<Vec<Posted>, DeskError> {
        Ok(self.store.posted(approval).await?)
    }

    async fn posted_with(&self, nonce: &str) -> Result<Option<Posted>, DeskError> {
        Ok(self.store.posted_with(nonce).await?)
    }

    async fn asking(&self, recipient: &str) -> Result<u32, DeskError> {
        Ok(self.store.asking(recipient).await?)
    }

    async fn keep_posted(&self, posted: &Posted) -> Result<(), DeskError> {
        Ok(self.store.keep_posted(posted).await?)
    }

    async fn keep_click(&self, id: &str, body: &[u8]) -> Result<bool, DeskError> {
        Ok(self.store.keep_click(id, body, self.clock.now()).await?)
    }

    async fn clicks(&self) -> Result<Vec<(String, Vec<u8>, Timestamp)>, DeskError> {
        Ok(self.store.clicks().await?)
    }

    async fn click_done(&self, id: &str) -> Result<(), DeskError> {
        Ok(self.store.click_done(id, self.clock.now()).await?)
    }

    async fn credential_end(&self, approval: &Approval) -> Result<Option<String>, DeskError> {
        let leases = self.store.leases_of(&approval.request().id).await?;
        if leases.iter().any(|lease| matches!(lease.state, LeaseState::Intended | LeaseState::Minted | LeaseState::Revoking)) {
            return Ok(None);
        }
        let minted = leases.iter().rev().find(|lease| lease.state != LeaseState::Void);
        Ok(Some(match minted.map(|lease| (lease.state, lease.expires_at)) {
            None => String::new(),
            Some((LeaseState::Revoked, _)) => "The credential is revoked.".into(),
            Some((LeaseState::Kept, _)) => "The credential was a stored secret, which stays valid.".into(),
            Some((LeaseState::Lapsing, at)) => format!("The credential cannot be revoked, and is dead at {at}."),
            Some((_, at)) => format!("The credential is dead since {at}."),
        }))
    }

    async fn allowance_of(&self, approval: &str) -> Result<Option<Allowance>, DeskError> {
        Ok(self.allowances().await?.into_iter().find(|allowance| allowance.approval == approval))
    }

    async fn note(&self, kind: EventKind, subject: Option<String>, data: Value) -> Result<(), DeskError> {
        Ok(self.record(kind, None, subject, data.to_string()).await.map(drop)?)
    }
}
