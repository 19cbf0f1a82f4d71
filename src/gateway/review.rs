//! People's verdicts: judged here, whatever channel they came by.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::broadcast;

use super::{Gateway, TURNS};
use crate::adapters::channel::people::StandingError;
use crate::adapters::channel::{DeskError, Person, ReviewDesk, SignedIn, Verdict};
use crate::adapters::store::{Change, Effect, NewSession, StoreError, Versioned, Which};
use crate::domain::approval::{Allowance, Approval, Capacity, Request, Review, ReviewError};
use crate::domain::audit::EventKind;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::policy::Assurance;
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
            let (kind, next) = match found.approval.clone() {
                Approval::Pending(stage) => (EventKind::Cancelled, stage.cancel(why, self.now())),
                Approval::Approved(stage) => (EventKind::ApprovalRevoked, stage.revoke(why, self.now())),
                other => return Err(ReviewError::NotPending(other.state()).into()),
            };
            match self.advance(&found, next.clone(), kind, json!({"why": why}), vec![]).await {
                Ok(()) => return Ok(next),
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
        if !self.people.is_person(approver) {
            return Err(ReviewError::NotNamed(approver.to_owned()).into());
        }
        let login = random_hex::<32>()?;
        self.store.add_login(Digest::of(login.as_bytes()), approver, self.now().plus(LOGIN)).await?;
        Ok(login)
    }
}

impl Gateway {
    /// What a verdict makes of an approval: who gave it, by what right, and how they proved it is looked at first. `level`
    /// keeps what a one-time code proved, for it is used up by looking.
    async fn reviewed(
        &self,
        found: &Versioned,
        verdict: &Verdict,
        review: &mut Review,
        level: &mut Option<Assurance>,
    ) -> Result<Approval, DeskError> {
        let request = found.approval.request();
        let Approval::Pending(stage) = found.approval.clone() else { return Err(ReviewError::NotPending(found.approval.state()).into()) };
        // In the order of the domain's own checks, which come last and are what counts.
        match self.capacity(request, &review.approver, &review.channel).await {
            Ok(capacity) => review.capacity = capacity,
            Err(StandingError::NotNamed(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let (None, Some(code), Assurance::Totp) = (&level, &verdict.code, request.terms.assurance) {
            let step = self.people.code_step(&review.approver, code, self.now()).ok_or(DeskError::Code)?;
            if !self.store.use_code(&review.approver, step).await? {
                return Err(DeskError::Code);
            }
            *level = Some(Assurance::Totp);
        }
        review.level = level.unwrap_or_default();
        if review.level == Assurance::Totp {
            review.assurance.push_str(", one-time code");
        }
        Ok(stage.review(review.clone(), self.now())?)
    }

    /// By what right somebody decides now, and whether their account is good where they decide by it.
    pub(super) async fn capacity(&self, request: &Request, approver: &str, channel: &str) -> Result<Capacity, StandingError> {
        let owner = request.caller.owner.as_deref().filter(|_| !request.terms.owner_may_approve);
        let now = self.clock.now();
        let capacity = self.people.capacity(approver, &request.terms.seats(now), owner, now).await?;
        // Who allowed something in advance must still be there when it is used.
        if channel == "slack" || (channel == Allowance::CHANNEL && self.people.has_account(approver)) {
            self.people.check_account(approver).await?;
        }
        Ok(capacity)
    }
}

#[async_trait]
impl ReviewDesk for Gateway {
    async fn review(&self, verdict: Verdict) -> Result<Approval, DeskError> {
        let mut level = None;
        // Each turn wins, fails for good, or lost a race that somebody else won.
        for _ in 0..TURNS {
            let found = self.store.approval(&verdict.approval).await?.ok_or(DeskError::Unknown)?;
            let found = self.expired(found).await?;
            let request = found.approval.request().clone();
            let mut review = Review {
                approver: verdict.approver.clone(),
                verdict: verdict.verdict,
                reason: verdict.reason.clone().map(|r| r.chars().take(2000).collect::<String>()).filter(|r| !r.trim().is_empty()),
                shown: verdict.shown,
                channel: verdict.channel.into(),
                assurance: verdict.assurance.clone(),
                level: Assurance::Session,
                capacity: Capacity::Named,
                again: verdict.again,
                at: self.now(),
            };
            let next = match self.reviewed(&found, &verdict, &mut review, &mut level).await {
                Ok(next) => next,
                Err(error @ DeskError::Store(_)) => return Err(error),
                Err(error) => {
                    let data = json!({"review": review, "refused": error.to_string()}).to_string();
                    self.record(EventKind::ReviewRefused, Some(request.key), Some(request.id.clone()), data).await?;
                    return Err(error);
                }
            };
            let by_owner = request.caller.owner.as_ref() == Some(&review.approver);
            let allowance = match &next {
                Approval::Approved(stage) => Allowance::given(stage, random_hex::<16>()?),
                _ => None,
            };
            let data = json!({"review": review, "state": next.state(), "by_owner": by_owner, "allowance": allowance});
            let more = allowance.into_iter().map(Effect::Allow).collect();
            match self.advance(&found, next.clone(), EventKind::Reviewed, data, more).await {
                Ok(()) => {
                    self.metrics.reviewed(&review, review.at.since(request.asked_at));
                    return Ok(next);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn before(&self, approval: &Approval) -> Result<Option<Approval>, DeskError> {
        let request = approval.request();
        Ok(self.store.last_completed(&request.binding.server, &request.tool, &request.caller.name, &request.id).await?)
    }

    async fn allowances(&self) -> Result<Vec<Allowance>, DeskError> {
        Ok(self.store.allowances(self.clock.now()).await?)
    }

    async fn end_allowance(&self, id: &str, approver: &str, assurance: &str) -> Result<Allowance, DeskError> {
        let allowance = self.allowances().await?.into_iter().find(|allowance| allowance.id == id).ok_or(DeskError::Unknown)?;
        let given = self.store.approval(&allowance.approval).await?.ok_or(DeskError::Unknown)?;
        let seats = given.approval.request().terms.all_seats();
        let may = allowance.approver == approver || self.people.capacity(approver, &seats, None, self.clock.now()).await.is_ok();
        if !may {
            return Err(ReviewError::NotNamed(approver.to_owned()).into());
        }
        let data = json!({"allowance": id, "by": approver, "assurance": assurance, "left": allowance.left}).to_string();
        let entry = self.entry(EventKind::AllowanceRevoked, None, Some(allowance.approval.clone()), data);
        match self.store.commit(Change::synced(entry, vec![Effect::EndAllowance(id.to_owned())])).await {
            Ok(_) => Ok(allowance),
            Err(StoreError::Conflict) => Err(DeskError::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    async fn standing(&self, approval: &Approval, approver: &str) -> Result<(), StandingError> {
        self.capacity(approval.request(), approver, "").await.map(drop)
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
        let session = session.filter(|session| self.people.is_person(&session.approver));
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
