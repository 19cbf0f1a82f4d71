//! Credentials: minted after an approval was used up, for one call, then gone.
//!
//! The port is [`Issuer`]; [`ISSUERS`] lists the kinds. An issuer mints only against a [`Permit`] and keeps no secret.
//! The gateway journals a lease before it asks for one, and ends it afterwards. Each issuer says how its credentials end:
//! what cannot be revoked is never called revoked.

mod aws_sts;
mod exec;
mod gcp;
mod github_app;
mod kubernetes;
mod oauth;
mod postgres;
mod seal;
mod signed_jwt;
mod signer;
mod sigv4;
mod stored;
mod vault;
mod web;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

pub use aws_sts::{AwsIdentity, AwsSts};
pub use exec::Exec;
pub use gcp::Gcp;
pub use github_app::GithubApp;
pub use kubernetes::Kubernetes;
pub use oauth::{ClientProof, Grant, OAuth, Party};
pub use postgres::Postgres;
pub use seal::Seal;
pub use signed_jwt::{KeyRing, SignedJwt};
pub use signer::Signer;
pub use stored::Stored;
pub use vault::{Login, Vault};
pub use web::Web;

use crate::domain::call::Caller;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::permit::Permit;
use crate::domain::policy::Scope;

/// The kinds of issuer, by the name that `kind` has in `[credential.<name>]`.
pub const ISSUERS: &[&str] = &["aws-sts", "exec", "gcp", "github-app", "kubernetes", "oauth", "postgres", "signed-jwt", "static", "vault"];

/// Mints and revokes credentials.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// How its credentials end.
    fn nature(&self) -> Nature;

    /// The longest that a credential can live, whatever happens to the gateway, where the policy says `ttl`.
    fn longest(&self, ttl: Duration) -> Duration {
        ttl
    }

    /// What would be asked, without asking it. Pure.
    ///
    /// # Errors
    /// [`IssueError::Parameters`] if this issuer cannot be asked for that.
    fn plan(&self, order: &Order) -> Result<Plan, IssueError>;

    /// Mints the credential that `order` describes for the call that `permit` is for.
    ///
    /// # Errors
    /// [`IssueError`] says whether something may exist at the issuer.
    async fn issue(&self, permit: &Permit, order: &Order, journal: &dyn Journal) -> Result<Credential, IssueError>;

    /// Makes a credential unusable. Revoking twice is fine.
    ///
    /// # Errors
    /// If the issuer did not confirm it; then it is tried again.
    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError>;

    /// Whether parameters with placeholders in them could be what this issuer takes.
    ///
    /// # Errors
    /// What they lack, or have too much.
    fn takes(&self, parameters: &str) -> Result<(), IssueError>;
}

/// Keeps what an issuer needs to end a credential that is still in the making.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes the handle down before the issuer is asked for more.
    ///
    /// # Errors
    /// If it could not be written; then nothing more may be asked.
    async fn handle(&self, handle: &str) -> Result<(), IssueError>;
}

/// How the credentials of an issuer end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// The kind, one of [`ISSUERS`].
    pub kind: &'static str,
    /// How they end.
    pub ending: Ending,
    /// Whether the lease alone names them at the issuer, even if nobody heard the issuer's answer.
    pub named: bool,
    /// Whether they are dead by their time if nobody revokes them.
    pub lapses: bool,
}

/// How a credential ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is revoked when the call is over.
    Revoked,
    /// Nobody can revoke it: it is dead by its time.
    ByTime,
    /// It does not end: a stored secret is handed on.
    Stays,
}

/// What became of a credential that was to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The issuer confirmed it.
    Revoked,
    /// It cannot be revoked: it is dead by its time.
    ByTime,
    /// It was a stored secret, which stays as it is.
    Stays,
}

/// What is to be minted. Everything in it comes from the approved call.
#[derive(Clone, Debug)]
pub struct Order {
    /// The lease, which becomes the credential's own id or name where the issuer lets it.
    pub lease: String,
    /// Whom it is for: the upstream.
    pub audience: String,
    /// Who asked for the call.
    pub caller: Caller,
    /// What exactly is asked for.
    pub scope: Scope,
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

impl Order {
    /// When the credential is to be dead.
    pub fn dead_by(&self) -> Timestamp {
        self.now.plus(self.ttl)
    }

    fn parameters<T: DeserializeOwned>(&self) -> Result<T, IssueError> {
        parameters(&self.scope.parameters)
    }
}

/// The parameters of a policy as an issuer understands them.
fn parameters<T: DeserializeOwned>(text: &str) -> Result<T, IssueError> {
    serde_json::from_str(text).map_err(|error| {
        let error = error.to_string();
        IssueError::Parameters(error.split(" at line ").next().unwrap_or_default().to_owned())
    })
}

/// What would be asked of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The request, to be read by people. No secret.
    pub request: String,
    /// What names the credential at the issuer, where that is known before.
    pub handle: Option<String>,
}

/// What is known of a credential that is to be revoked.
#[derive(Clone, Copy)]
pub struct Held<'h> {
    /// The lease.
    pub lease: &'h str,
    /// What names it at the issuer; no secret.
    pub handle: Option<&'h str>,
    /// The secret that its revocation needs.
    pub secret: Option<&'h str>,
    /// The present.
    pub now: Timestamp,
}

/// A minted credential. Not `Clone`, prints nothing, is wiped from memory, and is given to one call.
pub struct Credential {
    fields: Vec<(String, Zeroizing<String>)>,
    /// When it is dead, or is taken for dead.
    pub expires_at: Timestamp,
    /// What names it at the issuer; no secret.
    pub handle: Option<String>,
    /// Whether revoking it needs the field `secret`.
    pub revoked_by_itself: bool,
    /// What the issuer says that it granted, for the record. No secret.
    pub granted: Option<String>,
}

impl Credential {
    /// Wraps a secret.
    pub fn new(secret: String, expires_at: Timestamp) -> Self {
        Self::of([("secret", secret)], expires_at)
    }

    /// Wraps several fields. One called `secret` goes where a policy names none.
    pub fn of<N: Into<String>>(fields: impl IntoIterator<Item = (N, String)>, expires_at: Timestamp) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), Zeroizing::new(value))).collect();
        Self { fields, expires_at, handle: None, revoked_by_itself: false, granted: None }
    }

    /// A field, for the one place that hands it to the upstream.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The names of its fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// Everything in it that nobody else may see. Names of users, hosts and the like are not.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        const OPEN: [&str; 7] = ["username", "host", "port", "database", "access_key_id", "region", "expires_at"];
        self.fields.iter().filter(|(name, _)| !OPEN.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential(expires {})", self.expires_at)
    }
}

/// Why a credential could not be minted or revoked. None of them says what a secret was.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The journal did not take the handle.
    #[error("the journal could not be written")]
    Journal,
    /// A key or secret of the gateway's own cannot be had.
    #[error("the gateway's own secret for this issuer cannot be had: {0}")]
    Own(String),
    /// This issuer cannot be asked for that.
    #[error("the issuer cannot be asked for that: {0}")]
    Parameters(String),
    /// It was refused: nothing exists at the issuer.
    #[error("the issuer refused: {0}")]
    Refused(String),
    /// The issuer cannot sign: it has no key, or the key is broken.
    #[error("the issuer cannot sign: {0}")]
    Signing(String),
    /// The answer was lost, or makes no sense: something may exist at the issuer.
    #[error("the issuer did not say clearly what it did: {0}")]
    Unclear(String),
    /// It granted something else than was asked: more, for longer, or to others.
    #[error("the issuer granted something else than was asked: {why}")]
    Wider {
        /// What is wrong with it.
        why: String,
        /// What it granted, to be revoked.
        made: Box<Credential>,
    },
}

impl IssueError {
    fn parameters(why: impl Into<String>) -> Self {
        Self::Parameters(why.into())
    }

    /// Whether something may exist at the issuer.
    pub fn leaves_something(&self) -> bool {
        matches!(self, Self::Unclear(_) | Self::Wider { .. } | Self::Journal)
    }
}

/// A secret of the gateway's own, read anew each time it is used, so that it can be replaced while the gateway runs.
#[derive(Clone)]
pub struct OwnSecret(Arc<Reveal>);

type Reveal = dyn Fn() -> Result<String, String> + Send + Sync;

impl OwnSecret {
    /// What `reveal` gives, each time.
    pub fn new(reveal: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reveal))
    }

    async fn reveal(&self) -> Result<Zeroizing<String>, IssueError> {
        let reveal = self.0.clone();
        let had = tokio::task::spawn_blocking(move || reveal()).await;
        had.map_err(|e| IssueError::Own(e.to_string()))?.map(Zeroizing::new).map_err(IssueError::Own)
    }
}

impl std::fmt::Debug for OwnSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnSecret")
    }
}

/// The issuers by name, and what seals secrets that are needed to revoke.
pub struct Issuers {
    by_name: HashMap<String, Arc<dyn Issuer>>,
    /// Seals what the journal must keep.
    pub seal: Seal,
}

impl Issuers {
    /// These issuers.
    pub fn new(by_name: HashMap<String, Arc<dyn Issuer>>, seal: Seal) -> Self {
        Self { by_name, seal }
    }

    /// None at all.
    pub fn none() -> Self {
        Self::new(HashMap::new(), Seal::none())
    }

    /// The issuer of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Issuer>> {
        self.by_name.get(name)
    }
}

/// One of a list that the operator wrote down; anything where there is no list.
fn listed(what: &str, value: &str, list: &[String]) -> Result<(), IssueError> {
    if list.iter().any(|one| one == value) {
        return Ok(());
    }
    Err(IssueError::Parameters(format!("`{value}` is not in `{what}` of the issuer's configuration")))
}
