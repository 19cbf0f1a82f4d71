//! The store: approvals, leases, pins, people's sessions, and the record of everything.
//!
//! The port is [`Store`]. The rule that every adapter keeps: a change of state and its audit record are one commit;
//! there is no way to write one alone. Approvals carry a version, and every transition is a compare-and-swap.

mod instance;
mod outbox;
mod spool;
mod sqlite;
mod writer;

use rust_decimal::Decimal;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use instance::{Instances, Lead, PROMPTS, gateways_beside, private_files};
pub use sqlite::Sqlite;

use crate::domain::approval::{Allowance, Approval, Due, Posted};
use crate::domain::audit::{Entry, Receipt, Record};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::risk::Target;

/// Where everything is kept. Speaks in domain types.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes the record and everything it tells of in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a compare-and-swap lost; then nothing was written.
    async fn commit(&self, change: Change) -> Result<Receipt, StoreError>;

    /// Queues a record that nobody waits for: the end of a call that policy allowed. If it is lost in a crash, the next
    /// start records the call's outcome as unknown.
    fn commit_later(&self, entry: Entry);

    /// An approval by its id.
    async fn approval(&self, id: &str) -> Result<Option<Versioned>, StoreError>;

    /// The approval that a repeated call finds: an open one, or a settled one that is still remembered.
    async fn find(&self, key: CallDigest, now: Timestamp) -> Result<Option<Versioned>, StoreError>;

    /// Approvals that are open, oldest first, or settled ones, newest first.
    async fn approvals(&self, which: Which, most: u32) -> Result<Vec<Versioned>, StoreError>;

    /// Open approvals with a clock that has run out.
    async fn due(&self, now: Timestamp, most: u32) -> Result<Vec<Versioned>, StoreError>;

    /// Drops answers, and calls of tasks, that are kept for nobody any more; answers of how many approvals.
    async fn forget(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Approvals that `instance` redeemed or dispatched and did not settle.
    async fn held_by(&self, instance: &str) -> Result<Vec<Versioned>, StoreError>;

    /// The kept answer of a call whose caller was gone when it came.
    async fn answer(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The sealed call of an approval that its client follows as a task.
    async fn task(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The gateway's own sign-in at an upstream, sealed.
    async fn sign_in(&self, upstream: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Those of `targets` that this caller reached before on this server.
    async fn seen(&self, server: &str, caller: &str, targets: &[Target]) -> Result<BTreeSet<Target>, StoreError>;

    /// The definition digests recorded for the tools of a server.
    async fn pins(&self, server: &str) -> Result<HashMap<String, Digest>, StoreError>;

    /// A lease by its id.
    async fn lease(&self, id: &str) -> Result<Option<Lease>, StoreError>;

    /// Every lease for one approval or attempt, oldest first.
    async fn leases_of(&self, subject: &str) -> Result<Vec<Lease>, StoreError>;

    /// Leases that have not ended; of one gateway, or of all.
    async fn open_leases(&self, instance: Option<&str>) -> Result<Vec<Lease>, StoreError>;

    /// The newest leases, ended or not.
    async fn leases(&self, most: u32) -> Result<Vec<Lease>, StoreError>;

    /// Calls that `instance` let through by policy and whose end it did not record.
    async fn unfinished(&self, instance: &str) -> Result<Vec<Record>, StoreError>;

    /// Moves what a dead gateway left in its spool into the store.
    async fn adopt(&self, instance: &str) -> Result<(), StoreError>;

    /// What was spent since then in the argument at `place`.
    async fn spent(&self, by: &Spender<'_>, place: &str, since: Timestamp) -> Result<Decimal, StoreError>;

    /// Records after number `after`, at most `most`.
    async fn records(&self, after: i64, most: u32) -> Result<Vec<Record>, StoreError>;

    /// All records about one approval or attempt.
    async fn records_of(&self, subject: &str) -> Result<Vec<Record>, StoreError>;

    /// The signing keys, newest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError>;

    /// Keeps a new signing key.
    async fn add_signing_key(&self, key: &SigningKey) -> Result<(), StoreError>;

    /// Removes a signing key.
    async fn drop_signing_key(&self, kid: &str) -> Result<(), StoreError>;

    /// Keeps a one-time login; only its hash is stored.
    async fn add_login(&self, token: Digest, approver: &str, expires_at: Timestamp) -> Result<(), StoreError>;

    /// Uses a login up, if it is there and in time, and opens `session` for its approver; answers the approver.
    async fn use_login(&self, token: Digest, session: &NewSession, now: Timestamp) -> Result<Option<String>, StoreError>;

    /// The session of a cookie.
    async fn session(&self, token: Digest, now: Timestamp) -> Result<Option<Session>, StoreError>;

    /// Ends a session.
    async fn end_session(&self, token: Digest) -> Result<(), StoreError>;

    /// Approvals that `channel` must look at by now, soonest first.
    async fn due_in(&self, channel: &str, now: Timestamp, most: u32) -> Result<Vec<Due>, StoreError>;

    /// `channel` looked: at `next` again, or not until it changes. Nothing if it changed meanwhile.
    async fn looked_at(&self, channel: &str, due: &Due, next: Option<Timestamp>, failed: bool) -> Result<(), StoreError>;

    /// Every message about an approval.
    async fn posted(&self, approval: &str) -> Result<Vec<Posted>, StoreError>;

    /// The message whose buttons carry `nonce`.
    async fn posted_with(&self, nonce: &str) -> Result<Option<Posted>, StoreError>;

    /// How many messages ask `recipient` right now.
    async fn asking(&self, recipient: &str) -> Result<u32, StoreError>;

    /// Keeps a message, or what became of it.
    async fn keep_posted(&self, posted: &Posted) -> Result<(), StoreError>;

    /// Keeps what a person did before it is confirmed to have come; answers false if it is known already.
    async fn keep_click(&self, id: &str, body: &[u8], at: Timestamp) -> Result<bool, StoreError>;

    /// What people did and nobody looked at yet, oldest first.
    async fn clicks(&self) -> Result<Vec<(String, Vec<u8>, Timestamp)>, StoreError>;

    /// Somebody looked at it: only its id is kept, for a while, so that it is known if it comes again.
    async fn click_done(&self, id: &str, now: Timestamp) -> Result<(), StoreError>;

    /// The last approval of a completed call of this tool by this caller, other than `not`.
    async fn last_completed(&self, server: &str, tool: &str, caller: &str, not: &str) -> Result<Option<Approval>, StoreError>;

    /// How many calls of `caller` wait for people.
    async fn pending_of(&self, caller: &str) -> Result<u32, StoreError>;

    /// An allowance with uses left for calls with this key.
    async fn allowance(&self, key: CallDigest, now: Timestamp) -> Result<Option<Allowance>, StoreError>;

    /// Every allowance with uses left.
    async fn allowances(&self, now: Timestamp) -> Result<Vec<Allowance>, StoreError>;

    /// Uses up the one-time code of this time step; answers false if it, or a later one, was used before.
    async fn use_code(&self, approver: &str, step: i64) -> Result<bool, StoreError>;

    /// Tells the id of each approval that changed, in this process or another that shares the store; the same change
    /// perhaps twice. Whoever falls behind must look at everything it waits for.
    fn changes(&self) -> broadcast::Receiver<Arc<str>>;

    /// Waits until everything queued is written.
    async fn flush(&self);
}

/// Whose spending.
#[derive(Clone, Copy, Debug)]
pub struct Spender<'a> {
    /// The server.
    pub server: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The caller.
    pub caller: &'a str,
}

/// A record, and the changes it tells of.
#[derive(Debug)]
pub struct Change {
    /// The record.
    pub entry: Entry,
    /// The changes, in order.
    pub effects: Vec<Effect>,
    /// Whether the commit is on disk, not only in a file, before it counts. Everything about approvals and credentials
    /// is; records of calls that policy allows are where `[store] durability = "always"`, and else go through the spool.
    pub synced: bool,
}

/// One change of state.
#[derive(Debug)]
pub enum Effect {
    /// A new approval. Conflicts if one is open for the same call.
    Open(Approval),
    /// An approval in its next state. Conflicts unless the stored version is the one given.
    Advance(Versioned),
    /// The approval's answer, kept for a caller that was gone.
    KeepAnswer(String, Vec<u8>),
    /// The approval's call, sealed, whose client follows it as a task.
    KeepTask(String, Vec<u8>),
    /// What is kept of the approval is kept at least until then.
    KeepUntil(String, Timestamp),
    /// The gateway's own sign-in at an upstream, sealed; nothing where it is signed out.
    SignIn(String, Option<Vec<u8>>),
    /// The kept answer is handed out.
    DropAnswer(String),
    /// Targets that this caller reached on this server.
    Learn(String, String, Vec<Target>),
    /// Amounts that a call may now move: server, tool, caller, and each with the place of its argument.
    Spend(String, String, String, Vec<(String, Decimal)>),
    /// A tool's definition as first seen.
    Pin(String, String, Digest),
    /// The operator accepts whatever definitions the server offers next.
    Unpin(String),
    /// A credential is about to be minted.
    Intend(Lease),
    /// What names a credential that is in the making. Conflicts if its lease ended.
    Handle(String, String),
    /// The credential is minted. Conflicts if its lease ended.
    Minted(MintedLease),
    /// The lease is now in this state. Conflicts if it ended before.
    Lease(String, LeaseState),
    /// The issuer did not confirm that a credential is revoked: why not, and when it is tried again.
    RevokeAgain(String, String, Timestamp),
    /// An approver allows the same call again.
    Allow(Allowance),
    /// One use of an allowance. Conflicts if none is left, or its time is over.
    UseAllowance(String),
    /// The allowance ends now. Conflicts if it has ended.
    EndAllowance(String),
}

impl Change {
    /// A record about approvals, credentials, or the gateway itself: synced.
    pub fn synced(entry: Entry, effects: Vec<Effect>) -> Self {
        Self { entry, effects, synced: true }
    }
}

/// An approval with the version that its next state must name.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// The approval.
    pub approval: Approval,
    /// Its version.
    pub version: i64,
}

impl Versioned {
    /// The next state of the same approval.
    pub fn next(&self, approval: Approval) -> Self {
        Self { approval, version: self.version }
    }
}

/// Which approvals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Pending, approved, redeemed or dispatched.
    Open,
    /// Settled.
    Settled,
}

/// A credential's life in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its id, which is the credential's own where the issuer lets it.
    pub id: String,
    /// The issuer's name.
    pub issuer: String,
    /// The attempt or approval it is for.
    pub subject: String,
    /// The call it is for.
    pub call: CallDigest,
    /// The gateway that minted it.
    pub instance: String,
    /// Whom it is for.
    pub audience: String,
    /// Its scope.
    pub scope: String,
    /// Where it stands.
    pub state: LeaseState,
    /// When it was intended.
    pub created_at: Timestamp,
    /// When it is dead whatever else happens, if it dies by its time at all.
    pub expires_at: Timestamp,
    /// Whether it is dead by its time if nobody revokes it.
    pub lapses: bool,
    /// What names it at the issuer; no secret.
    pub handle: Option<String>,
    /// The secret that its revocation needs, sealed.
    pub sealed: Option<Vec<u8>>,
    /// How often its revocation was tried in vain.
    pub tries: u32,
    /// When it is tried again.
    pub next_try: Timestamp,
    /// Why it was in vain.
    pub problem: Option<String>,
}

/// What is known of a credential once it is minted.
#[derive(Clone, Debug)]
pub struct MintedLease {
    /// Its lease.
    pub id: String,
    /// What names it at the issuer.
    pub handle: Option<String>,
    /// The secret that its revocation needs, sealed.
    pub sealed: Option<Vec<u8>>,
    /// When it is dead.
    pub expires_at: Timestamp,
}

/// Where a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// About to be minted.
    Intended,
    /// Minted and usable.
    Minted,
    /// Its call is over, and its issuer did not confirm yet that it is revoked.
    Revoking,
    /// Its call is over, nobody can revoke it, and it is dead by its time.
    Lapsing,
    /// Revoked, and its issuer said so.
    Revoked,
    /// Dead by its time.
    Expired,
    /// It was never minted.
    Void,
    /// A stored secret that stays as it is.
    Kept,
}

impl LeaseState {
    /// Its name in the store and in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Minted => "minted",
            Self::Revoking => "revoking",
            Self::Lapsing => "lapsing",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Void => "void",
            Self::Kept => "kept",
        }
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        let all = [Self::Intended, Self::Minted, Self::Revoking, Self::Lapsing, Self::Revoked, Self::Expired, Self::Void, Self::Kept];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// A key that tokens are signed with.
#[derive(Clone)]
pub struct SigningKey {
    /// Its id in the key set.
    pub kid: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The private key, PKCS #8 (RFC 8410).
    pub pkcs8: Vec<u8>,
}

/// A session to be opened.
#[derive(Debug)]
pub struct NewSession {
    /// Hash of the cookie.
    pub token: Digest,
    /// The token that forms must carry.
    pub csrf: String,
    /// Until when it lasts.
    pub expires_at: Timestamp,
}

/// A signed-in approver.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who.
    pub approver: String,
    /// The token that forms must carry.
    pub csrf: String,
}

/// Why the store could not do it. Whatever the reason, no call runs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer was first; read again and decide again.
    #[error("somebody else changed it first")]
    Conflict,
    /// What is stored cannot be read back.
    #[error("what is stored cannot be read: {0}")]
    Corrupt(String),
    /// The store is full, locked, read-only or gone.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}
