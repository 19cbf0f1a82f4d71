//! The life of a credential: planned before anybody is asked, minted once the call may run, handed to that call, ended
//! after it. The journal is written before each step, so that whatever a crash leaves is found and ended.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Attempt, Case, Gateway, RouteError};
use crate::adapters::credential::{Credential, Ended, Held, IssueError, Issuer, Journal, Order};
use crate::adapters::store::{Change, Effect, Lease, LeaseState, MintedLease, StoreError};
use crate::adapters::upstream::Secrets;
use crate::domain::approval::CredentialShown;
use crate::domain::audit::EventKind;
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;
use crate::domain::json::{Limits, canonical, read};
use crate::domain::permit::Permit;
use crate::domain::policy::credential::put_argument;
use crate::domain::policy::{Delivery, Policy, Scope};
use crate::domain::scrub::Scrubber;
use crate::system::random_hex;

/// A credential is taken for dead so long before it is, so that no call outlives it.
const BEFORE_DEATH: Duration = Duration::from_secs(2);
/// How long an issuer may take to mint, or to revoke, with everything that belongs to it.
const PATIENCE: Duration = Duration::from_secs(45);
/// Longest pause between two tries to revoke.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest that a policy lets a call run with a credential; whatever is older has no call any more.
const LONGEST_CALL: Duration = Duration::from_secs(600);

/// A minted credential with its lease.
pub(super) struct Minted {
    pub(super) lease: LeaseName,
    /// The credential as the upstream takes it.
    pub(super) secrets: Secrets,
    /// The call's parameters with the credential in them, where it goes there.
    pub(super) params: Option<Zeroizing<String>>,
    /// Until when a call may run with it.
    pub(super) good_until: Timestamp,
    handle: Option<String>,
    needed: Option<Zeroizing<String>>,
    expires_at: Timestamp,
}

/// Which lease, of whom, for what.
#[derive(Clone, Debug)]
pub(super) struct LeaseName {
    pub(super) id: String,
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) call: CallDigest,
}

impl From<&Lease> for LeaseName {
    fn from(lease: &Lease) -> Self {
        Self { id: lease.id.clone(), issuer: lease.issuer.clone(), subject: lease.subject.clone(), call: lease.call }
    }
}

/// What is needed to revoke.
struct Known<'k> {
    handle: Option<&'k str>,
    secret: Option<&'k str>,
    expires_at: Timestamp,
    tries: u32,
}

/// The journal of one lease.
struct LeaseJournal<'g> {
    gateway: &'g Gateway,
    lease: &'g LeaseName,
}

#[async_trait]
impl Journal for LeaseJournal<'_> {
    async fn handle(&self, handle: &str) -> Result<(), IssueError> {
        let data = json!({"lease": self.lease.id, "issuer": self.lease.issuer, "handle": handle}).to_string();
        let entry = self.gateway.entry(EventKind::MintIntended, Some(self.lease.call), Some(self.lease.subject.clone()), data);
        let effect = Effect::Handle(self.lease.id.clone(), handle.to_owned());
        self.gateway.store.commit(Change::synced(entry, vec![effect])).await.map(drop).map_err(|error| {
            tracing::error!(%error, lease = self.lease.id, "what names a credential could not be journalled");
            IssueError::Journal
        })
    }
}

impl Gateway {
    /// What the issuer would be asked for, to see before anybody is asked whether it can be.
    pub(super) fn plan(&self, policy: &Policy, scope: &Scope, attempt: &Attempt) -> Result<(), RouteError> {
        let Some(terms) = &policy.credential else { return Ok(()) };
        let order = self.order(policy, scope, attempt, "0".repeat(32), "", &[]);
        let issuer = self.issuers.get(&terms.issuer);
        let issuer = issuer.ok_or_else(|| RouteError::Credential(format!("there is no issuer `{}`", terms.issuer)))?;
        if let Delivery::Places(places) = &terms.deliver {
            let fits = if attempt.server.is_child { places.headers.is_empty() } else { places.env.is_empty() && places.files.is_empty() };
            if !fits {
                return Err(RouteError::Credential("the policy hands it over in a way that this server does not take".into()));
            }
        }
        issuer.plan(&order).map(drop).map_err(|error| RouteError::Credential(error.to_string()))
    }

    /// The credential as approvers are shown it.
    pub(super) fn credential_shown(&self, case: &Case) -> Option<CredentialShown> {
        let (terms, scope) = case.policy.credential.as_ref().zip(case.binding.scope.clone())?;
        let issuer = self.issuers.get(&terms.issuer)?;
        let nature = issuer.nature();
        Some(CredentialShown {
            issuer: terms.issuer.clone(),
            scope,
            ttl_seconds: terms.ttl.as_secs(),
            ending: Some(match nature.ending {
                crate::adapters::credential::Ending::Revoked => crate::domain::approval::CredentialEnding::Revoked,
                crate::adapters::credential::Ending::ByTime => crate::domain::approval::CredentialEnding::ByTime,
                crate::adapters::credential::Ending::Stays => crate::domain::approval::CredentialEnding::Stays,
            }),
            longest_seconds: Some(issuer.longest(terms.ttl).as_secs()),
        })
    }

    fn order(&self, policy: &Policy, scope: &Scope, attempt: &Attempt, lease: String, subject: &str, approvers: &[String]) -> Order {
        Order {
            lease,
            audience: attempt.server.audience.clone(),
            caller: attempt.caller.clone(),
            scope: scope.clone(),
            ttl: policy.credential.as_ref().map_or(Duration::ZERO, |terms| terms.ttl),
            subject: subject.to_owned(),
            server: attempt.server.name.clone(),
            tool: attempt.call.tool.clone(),
            arguments: attempt.call.arguments_digest(),
            approvers: approvers.to_vec(),
            now: self.clock.now(),
        }
    }

    /// Mints the credential that the policy promises, if it promises one. The lease is in the journal before the issuer
    /// hears of it.
    pub(super) async fn mint(
        &self,
        attempt: &Attempt,
        case: &Case,
        permit: &Permit,
        subject: &str,
        reviewers: &[String],
    ) -> Result<Option<Minted>, String> {
        let (Some(terms), Some(scope)) = (&case.policy.credential, &case.scope) else { return Ok(None) };
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, issuer = %terms.issuer, "a credential could not be minted; the call does not run");
            format!("the credential for this call could not be minted (issuer `{}`)", terms.issuer)
        };
        let issuer = self.issuers.get(&terms.issuer).ok_or_else(|| failed(&"no such issuer"))?;
        let lease = LeaseName {
            id: random_hex::<16>().map_err(|e| failed(&e))?,
            issuer: terms.issuer.clone(),
            subject: subject.to_owned(),
            call: permit.call(),
        };
        let order = self.order(&case.policy, scope, attempt, lease.id.clone(), subject, reviewers);
        let credential = self.lend(issuer.as_ref(), permit, &order, &lease).await.map_err(|error| failed(&error))?;
        let (handle, expires_at) = (credential.handle.clone(), credential.expires_at);
        let needed = credential.field("secret").filter(|_| credential.revoked_by_itself).map(|secret| Zeroizing::new(secret.to_owned()));
        // The call ends before the credential does, and before the policy's time for it is over.
        let good_until = Timestamp(expires_at.0.min(order.dead_by().0) - i64::try_from(BEFORE_DEATH.as_millis()).unwrap_or(0));
        let mut minted = Minted { lease, secrets: Secrets::default(), params: None, good_until, handle, needed, expires_at };
        let handed = match good_until > self.clock.now() {
            true => hand(&credential, &terms.deliver, issuer.nature().kind, attempt, &mut minted),
            false => Err("it would be dead before the call could end".to_owned()),
        };
        match handed {
            Ok(()) => Ok(Some(minted)),
            Err(why) => {
                self.revoke_minted(Some(&minted)).await;
                Err(failed(&why))
            }
        }
    }

    /// Has a credential minted and journals every step; after an error nothing is left that this gateway does not end.
    pub(super) async fn lend(&self, issuer: &dyn Issuer, permit: &Permit, order: &Order, lease: &LeaseName) -> Result<Credential, IssueError> {
        let plan = issuer.plan(order)?;
        let nature = issuer.nature();
        let latest = order.now.plus(issuer.longest(order.ttl));
        let journal = Lease {
            id: lease.id.clone(),
            issuer: lease.issuer.clone(),
            subject: lease.subject.clone(),
            call: lease.call,
            instance: self.settings.instance.clone(),
            audience: order.audience.clone(),
            scope: order.scope.shown(),
            state: LeaseState::Intended,
            created_at: order.now,
            expires_at: latest,
            lapses: nature.lapses,
            handle: plan.handle.clone(),
            sealed: None,
            tries: 0,
            next_try: order.now,
            problem: None,
        };
        let data = json!({
            "lease": lease.id, "issuer": lease.issuer, "kind": nature.kind, "scope": order.scope.shown(), "ttl_seconds": order.ttl.as_secs(),
            "handle": plan.handle,
        });
        self.journal(EventKind::MintIntended, lease, data, Effect::Intend(journal))
            .await
            .map_err(|_| IssueError::Refused("the journal could not be written".into()))?;
        let asked = tokio::time::timeout(PATIENCE, issuer.issue(permit, order, &LeaseJournal { gateway: self, lease })).await;
        let (credential, wrong) = match asked.unwrap_or_else(|_| Err(IssueError::Unclear("it took too long".into()))) {
            Ok(credential) => (credential, None),
            Err(IssueError::Wider { why, made }) => (*made, Some(why)),
            Err(error) => {
                self.not_minted(lease, nature.named, &error, latest).await;
                return Err(error);
            }
        };
        let secret = credential.field("secret").filter(|_| credential.revoked_by_itself);
        let sealed = secret.and_then(|secret| self.issuers.seal.seal(&lease.id, secret));
        let minted = MintedLease { id: lease.id.clone(), handle: credential.handle.clone(), sealed, expires_at: credential.expires_at };
        let kind = if wrong.is_some() { EventKind::CredentialRefused } else { EventKind::Minted };
        let data = json!({
            "lease": lease.id, "issuer": lease.issuer, "scope": order.scope.shown(), "granted": credential.granted, "handle": credential.handle,
            "expires_at": credential.expires_at.to_string(), "why": wrong,
        });
        let written = self.journal(kind, lease, data, Effect::Minted(minted)).await;
        if wrong.is_none() && written.is_ok() {
            return Ok(credential);
        }
        let known = Known { handle: credential.handle.as_deref(), secret, expires_at: credential.expires_at, tries: 0 };
        self.end(lease, known).await;
        Err(match wrong {
            Some(why) => {
                tracing::error!(
                    issuer = lease.issuer,
                    lease = lease.id,
                    why,
                    "ALARM: an issuer granted something else than was asked; it is revoked and the call does not run"
                );
                IssueError::Wider { why, made: Box::new(credential) }
            }
            None => IssueError::Refused("the journal could not be written".into()),
        })
    }

    async fn not_minted(&self, lease: &LeaseName, named: bool, error: &IssueError, latest: Timestamp) {
        let data = json!({"lease": lease.id, "issuer": lease.issuer, "why": error.to_string(), "may_exist": error.leaves_something()});
        if !error.leaves_something() {
            drop(self.journal(EventKind::MintFailed, lease, data, Effect::Lease(lease.id.clone(), LeaseState::Void)).await);
            return;
        }
        let handle = self.store.lease(&lease.id).await.ok().flatten().and_then(|lease| lease.handle);
        let entry = self.entry(EventKind::MintFailed, Some(lease.call), Some(lease.subject.clone()), data.to_string());
        if let Err(error) = self.store.commit(Change::synced(entry, vec![])).await {
            tracing::error!(%error, lease = lease.id, "it could not be recorded that a credential was perhaps not minted");
        }
        if named || handle.is_some() {
            self.end(lease, Known { handle: handle.as_deref(), secret: None, expires_at: latest, tries: 0 }).await;
        } else {
            self.lapse(lease, latest, "nobody knows whether it was minted, and nothing names it").await;
        }
    }

    /// Ends the credential of a call that is over.
    pub(super) async fn revoke_minted(&self, minted: Option<&Minted>) {
        let Some(minted) = minted else { return };
        let secret = minted.needed.as_ref().map(|secret| secret.as_str());
        self.end(&minted.lease, Known { handle: minted.handle.as_deref(), secret, expires_at: minted.expires_at, tries: 0 }).await;
    }

    /// Ends the credential of a lease as the journal has it; answers what became of it.
    pub async fn end_lease(&self, lease: &Lease) -> LeaseState {
        let name = LeaseName::from(lease);
        let nature = self.issuers.get(&lease.issuer).map(|issuer| issuer.nature());
        if let Some(nature) = nature
            && lease.state == LeaseState::Intended
            && !nature.named
            && lease.handle.is_none()
        {
            self.lapse(&name, lease.expires_at, "nobody knows whether it was minted, and nothing names it").await;
            return LeaseState::Lapsing;
        }
        let secret = lease.sealed.as_ref().and_then(|sealed| self.issuers.seal.open(&lease.id, sealed));
        if lease.sealed.is_some() && secret.is_none() {
            tracing::error!(lease = lease.id, "the journal was sealed under another key: see `[store] seal`");
        }
        let known =
            Known { handle: lease.handle.as_deref(), secret: secret.as_ref().map(|s| s.as_str()), expires_at: lease.expires_at, tries: lease.tries };
        self.end(&name, known).await
    }

    async fn end(&self, lease: &LeaseName, known: Known<'_>) -> LeaseState {
        let now = self.clock.now();
        let asked = match self.issuers.get(&lease.issuer) {
            Some(issuer) => {
                let held = Held { lease: &lease.id, handle: known.handle, secret: known.secret, now };
                let asked = tokio::time::timeout(PATIENCE, issuer.revoke(&held)).await;
                asked.unwrap_or_else(|_| Err(IssueError::Unclear("it took too long".into()))).map_err(|error| error.to_string())
            }
            None => Err(format!("`[credential.{}]` is not configured any more", lease.issuer)),
        };
        let data = json!({"lease": lease.id, "issuer": lease.issuer});
        let ended = |kind, state| async move {
            match self.journal(kind, lease, data, Effect::Lease(lease.id.clone(), state)).await {
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => tracing::error!(%error, lease = lease.id, "the end of a credential could not be recorded; it is ended again later"),
            }
            state
        };
        match asked {
            Ok(Ended::Revoked) => ended(EventKind::CredentialRevoked, LeaseState::Revoked).await,
            Ok(Ended::Stays) => ended(EventKind::CredentialKept, LeaseState::Kept).await,
            Ok(Ended::ByTime) => {
                self.lapse(lease, known.expires_at, "its issuer cannot revoke it").await;
                LeaseState::Lapsing
            }
            Err(why) => {
                let pause = Duration::from_secs(1 << known.tries.min(6)).min(LONGEST_PAUSE);
                let next = now.plus(pause);
                tracing::error!(why, issuer = lease.issuer, lease = lease.id, "a credential could not be revoked; it is tried again");
                let data = json!({"lease": lease.id, "issuer": lease.issuer, "why": why, "again_at": next.to_string(), "expires_at": known.expires_at.to_string()});
                match self.journal(EventKind::RevokeFailed, lease, data, Effect::RevokeAgain(lease.id.clone(), why, next)).await {
                    Ok(()) | Err(StoreError::Conflict) => {}
                    Err(error) => tracing::error!(%error, lease = lease.id, "it could not be recorded that a credential is to be revoked"),
                }
                LeaseState::Revoking
            }
        }
    }

    async fn lapse(&self, lease: &LeaseName, expires_at: Timestamp, why: &str) {
        let data = json!({"lease": lease.id, "issuer": lease.issuer, "expires_at": expires_at.to_string(), "why": why});
        match self.journal(EventKind::CredentialLapses, lease, data, Effect::Lease(lease.id.clone(), LeaseState::Lapsing)).await {
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => tracing::error!(%error, lease = lease.id, "it could not be recorded when a credential is dead"),
        }
    }

    async fn journal(&self, kind: EventKind, lease: &LeaseName, data: serde_json::Value, effect: Effect) -> Result<(), StoreError> {
        let entry = self.entry(kind, Some(lease.call), Some(lease.subject.clone()), data.to_string());
        let done = self.store.commit(Change::synced(entry, vec![effect])).await;
        if let Err(error) = &done
            && !matches!(error, StoreError::Conflict)
        {
            tracing::error!(%error, lease = lease.id, "the journal of credentials could not be written");
        }
        done.map(drop)
    }

    /// Ends what is left over: what was to be revoked and was not, what has no call any more, what is dead by its time.
    pub(super) async fn sweep_leases(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut due = Vec::new();
        for lease in self.store.open_leases(None).await? {
            // A little later than its own time, so that whoever runs the call ends it first and says so.
            if lease.lapses && now.since(lease.expires_at) > Duration::from_secs(5) {
                let data = json!({"lease": lease.id, "issuer": lease.issuer});
                let effect = Effect::Lease(lease.id.clone(), LeaseState::Expired);
                match self.journal(EventKind::CredentialExpired, &LeaseName::from(&lease), data, effect).await {
                    Ok(()) | Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            let own = lease.instance == self.settings.instance;
            let abandoned = own && now.since(lease.created_at) > LONGEST_CALL + 2 * PATIENCE;
            let again = lease.state == LeaseState::Revoking && lease.next_try <= now;
            // Another gateway that shares the store may know the issuer.
            let known = own || self.issuers.get(&lease.issuer).is_some();
            if (again && known) || (abandoned && matches!(lease.state, LeaseState::Intended | LeaseState::Minted)) {
                due.push(lease);
            }
        }
        // An issuer that does not answer must not hold up the others.
        futures_util::future::join_all(due.iter().take(64).map(|lease| self.end_lease(lease))).await;
        Ok(())
    }
}

/// Writes a credential as the upstream of this call takes it.
fn hand(credential: &Credential, deliver: &Delivery, kind: &str, attempt: &Attempt, minted: &mut Minted) -> Result<(), String> {
    let field = |name: &str| credential.field(name);
    let lacks = |name: &str| {
        let has = credential.names().collect::<Vec<_>>().join(", ");
        format!("the credential has no field `{name}`; it has: {has}")
    };
    let mut written: Vec<Zeroizing<String>> = Vec::new();
    match deliver {
        Delivery::Fitting => {
            let places: &[(&str, &str)] = match (attempt.server.is_child, kind) {
                (false, _) => &[("authorization", "secret")],
                (true, "aws-sts") => &[
                    ("AWS_ACCESS_KEY_ID", "access_key_id"),
                    ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
                    ("AWS_SESSION_TOKEN", "session_token"),
                    ("AWS_REGION", "region"),
                    // What older programs of AWS look for.
                    ("AWS_DEFAULT_REGION", "region"),
                ],
                (true, "github-app") => &[("GITHUB_PERSONAL_ACCESS_TOKEN", "secret")],
                (true, _) => &[("COUNTERSIGN_CREDENTIAL", "secret")],
            };
            for (place, name) in places {
                let value = field(name).ok_or_else(|| lacks(name))?;
                let (into, text) = match attempt.server.is_child {
                    true => (&mut minted.secrets.env, value.to_owned()),
                    false => (&mut minted.secrets.headers, format!("Bearer {value}")),
                };
                into.push(((*place).to_owned(), Zeroizing::new(text)));
            }
        }
        Delivery::Places(places) => {
            let all =
                [(&places.headers, &mut minted.secrets.headers), (&places.env, &mut minted.secrets.env), (&places.files, &mut minted.secrets.files)];
            for (slots, into) in all {
                for (place, slot) in slots {
                    let text = Zeroizing::new(slot.fill(field).map_err(lacks)?);
                    written.push(text.clone());
                    into.push((place.clone(), text));
                }
            }
            if let Some(place) = &places.argument {
                let value = field("secret").ok_or_else(|| lacks("secret"))?;
                let mut params = read(attempt.outgoing().params.as_bytes(), Limits::default()).map_err(|e| e.to_string())?;
                put_argument(&mut params, place, value)?;
                minted.params = Some(Zeroizing::new(canonical(&params)));
            }
        }
    }
    // What was put together from secrets is one: an address with a password in it.
    minted.secrets.scrubber = Scrubber::new(credential.secrets(), written.iter().map(|text| text.as_str()));
    Ok(())
}
