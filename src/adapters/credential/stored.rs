//! `static`: a secret that the operator stored, handed on to calls that were approved. Nothing is minted and nothing is
//! revoked, and everybody who sees the call is told so.

use async_trait::async_trait;
use serde::Deserialize;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, parameters};
use crate::domain::permit::Permit;

/// A stored secret.
#[derive(Debug)]
pub struct Stored {
    /// The secret.
    pub secret: OwnSecret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[async_trait]
impl Issuer for Stored {
    fn nature(&self) -> Nature {
        Nature { kind: "static", ending: Ending::Stays, named: false, lapses: false }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        order.parameters::<Nothing>()?;
        Ok(Plan { request: "nothing is minted: the stored secret is handed to this call, and stays valid after it".into(), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        self.plan(order)?;
        Ok(Credential::new(self.secret.reveal().await?.to_string(), order.dead_by()))
    }

    async fn revoke(&self, _held: &Held<'_>) -> Result<Ended, IssueError> {
        Ok(Ended::Stays)
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Nothing>(text).map(drop)
    }
}
