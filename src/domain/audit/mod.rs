//! The record: one event after another, each bound to the one before by its hash.
//!
//! Pure: what a record says and how it is hashed. The store writes it, in the same transaction as the change it tells
//! of; [`Verifier`] finds edits, gaps and reordering.

use serde::{Deserialize, Serialize};

use super::call::CallDigest;
use super::clock::Timestamp;
use super::digest::{Digest, Fields};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Something about a channel is not as it should be, or is so again.
    Alarm,
    /// An approver's leave for the same call again was ended before its time.
    AllowanceRevoked,
    /// People are not asked: an approver allowed this call before.
    AllowanceUsed,
    /// Policy alone lets a call through; it is about to go upstream.
    Allowed,
    /// An approval was made void before it was used.
    ApprovalRevoked,
    /// People are asked.
    Asked,
    /// A repeated call attached to an open approval.
    Attached,
    /// A question was taken back.
    Cancelled,
    /// A call ran and answered.
    Completed,
    /// A credential is dead by its time.
    CredentialExpired,
    /// A stored secret was handed to a call, and stays as it is.
    CredentialKept,
    /// A call is over, and its credential, which nobody can revoke, is dead at the time that this says.
    CredentialLapses,
    /// An issuer granted something else than was asked; the call does not run.
    CredentialRefused,
    /// A credential was revoked, and its issuer said so.
    CredentialRevoked,
    /// A call was refused by policy.
    Denied,
    /// The answer of a held call reached its caller.
    Delivered,
    /// A held call goes upstream now.
    Dispatched,
    /// One of an approval's clocks ran out.
    Expired,
    /// A call did not run.
    Failed,
    /// A credential was minted.
    Minted,
    /// No credential was minted, or nobody knows whether one was.
    MintFailed,
    /// A credential is about to be minted.
    MintIntended,
    /// A call went upstream and no answer came back.
    OutcomeUnknown,
    /// A channel posted a message that asks somebody.
    Posted,
    /// A tool's definition was recorded on first sight, or forgotten by the operator.
    Pinned,
    /// Tools that changed since they were first seen are kept from agents.
    Withheld,
    /// A policy set came into force.
    PolicyLoaded,
    /// A changed policy set was refused; the old one stays.
    PolicyRefused,
    /// A redeemed approval went back to approved, because nothing was dispatched.
    PutBack,
    /// An approval was used up.
    Redeemed,
    /// A person gave a verdict.
    Reviewed,
    /// A verdict did not count.
    ReviewRefused,
    /// An issuer did not confirm that a credential is revoked; it is tried again.
    RevokeFailed,
    /// An approver signed in to the inbox.
    SignedIn,
    /// A gateway started.
    Started,
    /// A gateway stopped.
    Stopped,
    /// The gateway was signed in at a server that asks for it, its token was renewed, or it was signed out.
    UpstreamSignIn,
}

impl EventKind {
    /// The kind's name, as stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::AllowanceRevoked => "allowance-revoked",
            Self::AllowanceUsed => "allowance-used",
            Self::Allowed => "allowed",
            Self::ApprovalRevoked => "approval-revoked",
            Self::Asked => "asked",
            Self::Attached => "attached",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::CredentialExpired => "credential-expired",
            Self::CredentialKept => "credential-kept",
            Self::CredentialLapses => "credential-lapses",
            Self::CredentialRefused => "credential-refused",
            Self::CredentialRevoked => "credential-revoked",
            Self::Delivered => "delivered",
            Self::Denied => "denied",
            Self::Dispatched => "dispatched",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Minted => "minted",
            Self::MintFailed => "mint-failed",
            Self::MintIntended => "mint-intended",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Pinned => "pinned",
            Self::Withheld => "withheld",
            Self::PolicyLoaded => "policy-loaded",
            Self::PolicyRefused => "policy-refused",
            Self::Posted => "posted",
            Self::PutBack => "put-back",
            Self::Redeemed => "redeemed",
            Self::Reviewed => "reviewed",
            Self::ReviewRefused => "review-refused",
            Self::RevokeFailed => "revoke-failed",
            Self::SignedIn => "signed-in",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::UpstreamSignIn => "upstream-sign-in",
        }
    }
}

/// What is to be recorded; the store adds number, time, chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// The call it is about.
    pub call: Option<CallDigest>,
    /// The attempt or approval it is about: ties the records of one call together.
    pub subject: Option<String>,
    /// Everything else, as JSON text; never a secret, never a masked argument.
    pub data: String,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub seq: i64,
    /// The gateway that wrote it.
    pub instance: String,
    /// What it says.
    pub entry: Entry,
    /// The hash of the record before it; zero for the first.
    pub previous: Digest,
    /// Its own hash.
    pub hash: Digest,
}

/// The hash of a record.
pub fn hash(seq: i64, instance: &str, entry: &Entry, previous: &Digest) -> Digest {
    Fields::new("countersign audit v1")
        .field(&seq.to_be_bytes())
        .field(instance.as_bytes())
        .field(entry.kind.name().as_bytes())
        .field(&entry.at.0.to_be_bytes())
        .optional(entry.call.map(|c| *c.digest().bytes()).as_ref().map(<[u8; 32]>::as_slice))
        .optional(entry.subject.as_deref().map(str::as_bytes))
        .field(entry.data.as_bytes())
        .field(previous.bytes())
        .digest()
}

/// Proof that a record is in the store. Stores alone call [`Receipt::assertion`].
#[derive(Debug)]
pub struct Receipt {
    seq: i64,
    kind: EventKind,
    call: Option<CallDigest>,
}

impl Receipt {
    /// Asserts that record `seq` of this kind, about this call, is in the store; 0 where it is in the store's spool and
    /// gets its number a moment later.
    pub fn assertion(seq: i64, kind: EventKind, call: Option<CallDigest>) -> Self {
        Self { seq, kind, call }
    }

    /// The record's number.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// What it records.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The call it is about.
    pub fn call(&self) -> Option<CallDigest> {
        self.call
    }
}

/// What is wrong with a log.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    /// The record is not what was hashed.
    #[error("record {0} was changed: its hash is not that of its content")]
    Changed(i64),
    /// A number is missing or out of order.
    #[error("record {expected} is missing: after it comes {got}")]
    Gap {
        /// The number that should come.
        expected: i64,
        /// The number that came.
        got: i64,
    },
    /// The record does not follow the one before it.
    #[error("record {0} does not follow the one before it: the chain is broken or was forked there")]
    Unlinked(i64),
}

/// Follows a chain record by record.
#[derive(Debug, Default)]
pub struct Verifier {
    last: Option<(i64, Digest)>,
}

impl Verifier {
    /// Checks the next record.
    ///
    /// # Errors
    /// The first thing wrong, by the record's number.
    pub fn next(&mut self, record: &Record) -> Result<(), ChainError> {
        let (seq, previous) = self.last.unwrap_or((0, Digest::ZERO));
        if record.seq != seq + 1 {
            return Err(ChainError::Gap { expected: seq + 1, got: record.seq });
        }
        if record.previous != previous {
            return Err(ChainError::Unlinked(record.seq));
        }
        if hash(record.seq, &record.instance, &record.entry, &previous) != record.hash {
            return Err(ChainError::Changed(record.seq));
        }
        self.last = Some((record.seq, record.hash));
        Ok(())
    }

    /// How many records were followed, and the hash of the last.
    pub fn head(&self) -> (i64, Digest) {
        self.last.unwrap_or((0, Digest::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Record> {
        let mut previous = Digest::ZERO;
        (1..=5)
            .map(|seq| {
                let entry = Entry { kind: EventKind::Asked, at: Timestamp(seq), call: None, subject: None, data: format!("{{\"n\":{seq}}}") };
                let hash = hash(seq, "i", &entry, &previous);
                let record = Record { seq, instance: "i".into(), entry, previous, hash };
                previous = hash;
                record
            })
            .collect()
    }

    fn verify(records: &[Record]) -> Result<(), ChainError> {
        let mut verifier = Verifier::default();
        records.iter().try_for_each(|record| verifier.next(record))
    }

    #[test]
    fn edits_gaps_and_reordering_are_found() {
        assert_eq!(verify(&chain()), Ok(()));
        let mut edited = chain();
        edited[2].entry.data = "{}".into();
        assert_eq!(verify(&edited), Err(ChainError::Changed(3)));
        let mut rehashed = edited.clone();
        rehashed[2].hash = hash(3, "i", &rehashed[2].entry, &rehashed[2].previous);
        assert_eq!(verify(&rehashed), Err(ChainError::Unlinked(4)));
        let mut dropped = chain();
        dropped.remove(1);
        assert_eq!(verify(&dropped), Err(ChainError::Gap { expected: 2, got: 3 }));
        let mut swapped = chain();
        swapped.swap(1, 2);
        assert!(verify(&swapped).is_err());
    }
}
