//! Credentials: minted after an approval was used up, for one call, then revoked.
//!
//! The port is [`Issuer`]; [`ISSUERS`] lists the kinds. An issuer mints only against a [`Permit`] and never keeps a
//! secret. The gateway journals a lease before it asks for one, and ends it afterwards.

mod signed_jwt;

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

pub use signed_jwt::{KeyRing, SignedJwt};

use crate::domain::call::{CallDigest, Caller};
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::permit::Permit;

/// The kinds of issuer, by the name that `kind` has in `[credential.<name>]`.
pub const ISSUERS: &[&str] = &["signed-jwt"];

/// Mints and revokes credentials.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Mints the credential that `order` describes for the call that `permit` is for.
    ///
    /// # Errors
    /// If none could be minted; then nothing exists at the issuer either.
    async fn issue(&self, permit: &Permit, order: &Order) -> Result<Credential, IssueError>;

    /// Makes the credential of `lease` unusable. Revoking twice is fine.
    ///
    /// # Errors
    /// If the issuer did not confirm it; then it is tried again until the lease has expired.
    async fn revoke(&self, lease: &str) -> Result<(), IssueError>;
}

/// What is to be minted. Everything in it comes from the approved call.
#[derive(Clone, Debug)]
pub struct Order {
    /// The lease, which becomes the credential's own id.
    pub lease: String,
    /// Whom it is for: the upstream.
    pub audience: String,
    /// Who asked for the call.
    pub caller: Caller,
    /// The exact scope.
    pub scope: String,
    /// The longest life.
    pub ttl: Duration,
    /// The attempt or approval.
    pub subject: String,
    /// The server's name.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// Digest of the canonical arguments.
    pub arguments: Digest,
    /// The approvers, where people approved it.
    pub approvers: Vec<String>,
    /// The present.
    pub now: Timestamp,
}

/// A minted credential. Not `Clone`, prints nothing, and is given to one call.
pub struct Credential {
    secret: String,
    /// When it is dead.
    pub expires_at: Timestamp,
}

impl Credential {
    /// Wraps a secret.
    pub fn new(secret: String, expires_at: Timestamp) -> Self {
        Self { secret, expires_at }
    }

    /// The secret, for the one place that hands it to the upstream.
    pub fn reveal(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential(expires {})", self.expires_at)
    }
}

/// Why a credential could not be minted or revoked.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The permit is for another call than the order.
    #[error("the permit is for another call: {0}")]
    OtherCall(CallDigest),
    /// The issuer cannot sign: it has no key, or the key is broken.
    #[error("the issuer cannot sign: {0}")]
    Signing(String),
}

/// `[credential.<name>]` for the built-in issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignedJwtSettings {
    /// The `iss` claim; the gateway's public address if none is given.
    pub issuer: Option<String>,
    /// Days after which a new signing key is made; 30 by default.
    pub rotate_days: Option<u16>,
}
