//! Tries an issuer as an operator asks for it: mints a credential and revokes it, in the record like any other.

use std::time::Duration;

use serde_json::json;

use super::Gateway;
use super::credentials::LeaseName;
use crate::adapters::credential::{Credential, IssueError, Order, Plan};
use crate::adapters::store::{Change, LeaseState};
use crate::domain::audit::EventKind;
use crate::domain::call::{Binding, CallDigest, Caller, Identity, ToolCall};
use crate::domain::decision::{Decision, Enforcement, decide};
use crate::domain::json::Limits;
use crate::domain::permit::{Grant, Permit};
use crate::domain::policy::{DefaultMode, Defaults, PolicySet, Scope};
use crate::domain::risk::History;
use crate::domain::tool::Known;
use crate::system::random_hex;

/// The server and tool that such a call is recorded as.
const SERVER: &str = "countersign";
const TOOL: &str = "issuer-test";

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// What was asked.
    pub plan: Plan,
    /// The credential, which is dead by now, or dead soon.
    pub credential: Credential,
    /// How long minting took.
    pub minted_in: Duration,
    /// Its lease.
    pub lease: String,
    /// What became of it.
    pub ended: LeaseState,
    /// How long revoking took.
    pub ended_in: Duration,
}

/// Why it could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// There is no such issuer.
    #[error("there is no `[credential.{0}]`")]
    Unknown(String),
    /// The issuer did not mint.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It could not be recorded, so that nothing was minted.
    #[error("nothing was minted: {0}")]
    Record(String),
}

impl Gateway {
    /// Mints and revokes. The operator who runs this is the one who allows it.
    ///
    /// # Errors
    /// See [`TrialError`].
    pub async fn try_issuer(&self, name: &str, scope: Scope, ttl: Duration) -> Result<Trial, TrialError> {
        let record = |error: &dyn std::fmt::Display| TrialError::Record(error.to_string());
        let issuer = self.issuers.get(name).ok_or_else(|| TrialError::Unknown(name.to_owned()))?.clone();
        let call = ToolCall::parse(json!({"name": TOOL}).to_string().as_bytes(), Limits::default()).map_err(|e| record(&e))?;
        let caller = Caller { name: "operator".into(), owner: None, identity: Identity::Configured };
        let subject = random_hex::<16>().map_err(|e| record(&e))?;
        let order = Order {
            lease: random_hex::<16>().map_err(|e| record(&e))?,
            audience: SERVER.into(),
            caller: caller.clone(),
            scope,
            ttl,
            subject: subject.clone(),
            server: SERVER.into(),
            tool: TOOL.into(),
            arguments: call.arguments_digest(),
            approvers: vec![],
            now: self.clock.now(),
        };
        let plan = issuer.plan(&order)?;
        let defaults = Defaults {
            mode: DefaultMode::Allow,
            approvers: vec![],
            owner_may_approve: false,
            known_approvers: vec![],
            groups: vec![],
            known_issuers: vec![],
            judged_only: true,
        };
        let set = PolicySet::compile(&[], &defaults).map_err(|e| record(&e))?;
        let policy = set.for_tool(SERVER, TOOL);
        let judged = policy.judge(&call, &caller, &Known::NotAsked, &History::default());
        let binding = Binding {
            server: SERVER.into(),
            upstream: SERVER.into(),
            definition: None,
            policy: policy.digest,
            approvers: policy.approvers_digest(),
            scope: Some(order.scope.shown()),
        };
        let key = CallDigest::of(&call, &caller, &binding, None);
        let Decision::Allow(allowed) = decide(&policy, &judged, key, Enforcement::Enforce) else {
            return Err(TrialError::Record("it is not allowed".into()));
        };
        let data = json!({"server": SERVER, "tool": TOOL, "caller": caller, "issuer": name, "scope": order.scope.shown()}).to_string();
        let entry = self.entry(EventKind::Allowed, Some(key), Some(subject.clone()), data);
        let receipt = self.store.commit(Change::synced(entry, vec![])).await.map_err(|e| record(&e))?;
        let permit = Permit::new(Grant::Allowed(allowed), receipt).map_err(|e| record(&e))?;
        let lease_name = LeaseName { id: order.lease.clone(), issuer: name.to_owned(), subject: subject.clone(), call: key };
        let before = self.clock.now();
        let credential = self.lend(issuer.as_ref(), &permit, &order, &lease_name).await?;
        let minted_in = self.clock.now().since(before);
        permit.use_up();
        let before = self.clock.now();
        let lease = self.store.lease(&order.lease).await.map_err(|e| record(&e))?;
        let ended = match &lease {
            Some(lease) => self.end_lease(lease).await,
            None => LeaseState::Lapsing,
        };
        let ended_in = self.clock.now().since(before);
        // Nothing ran: the record of this attempt is whole.
        let entry = self.entry(EventKind::Completed, Some(key), Some(subject), json!({"trial": true, "credential": ended.name()}).to_string());
        self.store.commit(Change::synced(entry, vec![])).await.map_err(|e| record(&e))?;
        Ok(Trial { plan, credential, minted_in, lease: order.lease, ended, ended_in })
    }
}
