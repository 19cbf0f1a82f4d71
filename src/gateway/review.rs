//! People's verdicts: judged here, whatever channel they came by.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::broadcast;

use super::{Gateway, TURNS};
use crate::adapters::channel::{DeskError, Person, ReviewDesk, SignedIn, Verdict};
use crate::adapters::store::{Change, Effect, NewSession, StoreError, Versioned, Which};
use crate::domain::approval::{Approval, Review, ReviewError};
use crate::domain::audit::EventKind;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::system::{RandomError, random_hex};

/// How long a sign-in lasts: a working day.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// How long a one-time login may lie unused.
pub const LOGIN: Duration = Duration::from_secs(15 * 60);

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<RandomError> for DeskError {
    fn from(error: RandomError) -> Self {
        Self::Store(error.to_string())
    }
}

impl Gateway {
    /// Takes a question back, or makes an approval void before it is used.
    ///
    /// # Errors
    /// If it is neither pending nor approved.
    pub async fn withdraw(&self, id: &str, why: &str) -> Result<Approval, DeskError> {
        for _ in 0..TURNS {
            let found = self.store.approval(id).await?.ok_or(DeskError::Unknown)?;
            let found = self.expired(found).await?;
            let request = found.approval.request().clone();
            let (kind, next) = match found.approval.clone() {
                Approval::Pending(stage) => (EventKind::Cancelled, stage.cancel(why, self.now())),
                Approval::Approved(stage) => (EventKind::ApprovalRevoked, stage.revoke(why, self.now())),
                other => return Err(ReviewError::NotPending(other.state()).into()),
            };
            let entry = self.entry(kind, Some(request.key), Some(request.id.clone()), json!({"why": why}).to_string());
            match self.store.commit(Change::synced(entry, vec![Effect::Advance(found.next(next.clone()))])).await {
                Ok(_) => {
                    self.channel.tell(&next).await;
                    return Ok(next);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// A one-time login for an approver, to be put in a link.
    ///
    /// # Errors
    /// If there is no such approver, or the store does not take it.
    pub async fn new_login(&self, approver: &str) -> Result<String, DeskError> {
        if !self.approvers.iter().any(|known| known == approver) {
            return Err(ReviewError::NotNamed(approver.to_owned()).into());
        }
        let login = random_hex::<32>()?;
        self.store.add_login(Digest::of(login.as_bytes()), approver, self.now().plus(LOGIN)).await?;
        Ok(login)
    }
}

#[async_trait]
impl ReviewDesk for Gateway {
    async fn review(&self, verdict: Verdict) -> Result<Approval, DeskError> {
        // Each turn wins, fails for good, or lost a race that somebody else won.
        for _ in 0..TURNS {
            let found = self.store.approval(&verdict.approval).await?.ok_or(DeskError::Unknown)?;
            let found = self.expired(found).await?;
            let request = found.approval.request().clone();
            let review = Review {
                approver: verdict.approver.clone(),
                verdict: verdict.verdict,
                reason: verdict.reason.clone().map(|r| r.chars().take(2000).collect::<String>()).filter(|r| !r.trim().is_empty()),
                shown: verdict.shown,
                channel: verdict.channel.into(),
                assurance: verdict.assurance.clone(),
                at: self.now(),
            };
            let known = self.approvers.contains(&verdict.approver);
            let reviewed = match found.approval.clone() {
                _ if !known => Err(ReviewError::NotNamed(verdict.approver.clone())),
                Approval::Pending(stage) => stage.review(review.clone(), self.now()),
                other => Err(ReviewError::NotPending(other.state())),
            };
            let (call, id) = (Some(request.key), Some(request.id.clone()));
            let next = match reviewed {
                Ok(next) => next,
                Err(error) => {
                    let data = json!({"review": review, "refused": error.to_string()}).to_string();
                    self.record(EventKind::ReviewRefused, call, id, data).await?;
                    return Err(error.into());
                }
            };
            let by_owner = request.caller.owner.as_ref() == Some(&review.approver);
            let data = json!({"review": review, "state": next.state(), "by_owner": by_owner}).to_string();
            let entry = self.entry(EventKind::Reviewed, call, id, data);
            match self.store.commit(Change::synced(entry, vec![Effect::Advance(found.next(next.clone()))])).await {
                Ok(_) => {
                    self.channel.tell(&next).await;
                    return Ok(next);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn approval(&self, id: &str) -> Result<Option<Approval>, DeskError> {
        match self.store.approval(id).await? {
            Some(found) => Ok(Some(self.expired(found).await?.approval)),
            None => Ok(None),
        }
    }

    async fn approvals(&self) -> Result<(Vec<Approval>, Vec<Approval>), DeskError> {
        let open = self.store.approvals(Which::Open, 500).await?;
        let settled = self.store.approvals(Which::Settled, 50).await?;
        let plain = |found: Vec<Versioned>| found.into_iter().map(|v| v.approval).collect();
        Ok((plain(open), plain(settled)))
    }

    async fn sign_in(&self, login: &str) -> Result<Option<SignedIn>, DeskError> {
        let (cookie, csrf) = (random_hex::<32>()?, random_hex::<32>()?);
        let session = NewSession { token: Digest::of(cookie.as_bytes()), csrf, expires_at: self.now().plus(SESSION) };
        let approver = self.store.use_login(Digest::of(login.as_bytes()), &session, self.now()).await?;
        let Some(approver) = approver else { return Ok(None) };
        self.record(EventKind::SignedIn, None, None, json!({"approver": approver}).to_string()).await?;
        Ok(Some(SignedIn { approver, cookie }))
    }

    async fn person(&self, cookie: &str) -> Result<Option<Person>, DeskError> {
        let session = self.store.session(Digest::of(cookie.as_bytes()), self.now()).await?;
        // Whoever is an approver no more is signed in no more.
        let session = session.filter(|session| self.approvers.contains(&session.approver));
        Ok(session.map(|session| Person { approver: session.approver, csrf: session.csrf }))
    }

    async fn sign_out(&self, cookie: &str) -> Result<(), DeskError> {
        Ok(self.store.end_session(Digest::of(cookie.as_bytes())).await?)
    }

    fn changes(&self) -> broadcast::Receiver<Arc<str>> {
        self.store.changes()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
