//! The one value that lets a call through. Without a grant *and* a record of it in the store there is none.

use super::approval::Redeemed;
use super::audit::{EventKind, Receipt};
use super::call::CallDigest;
use super::decision::Allowed;

/// Why a call may run.
#[derive(Debug)]
pub enum Grant {
    /// Policy alone allows it.
    Allowed(Allowed),
    /// People approved it, and the approval is used up.
    Redeemed(Redeemed),
}

/// Leave to run one call, once. Not `Clone`; consumed by the upstream's `invoke`.
#[derive(Debug)]
pub struct Permit {
    grant: Grant,
    receipt: Receipt,
}

/// The receipt is not for this grant.
#[derive(Debug, thiserror::Error)]
#[error("the record is of another call or another event than the grant")]
pub struct PermitError;

impl Permit {
    /// Joins a grant with the receipt of its record.
    ///
    /// # Errors
    /// If the record is about another call, or records another event than this grant.
    pub fn new(grant: Grant, receipt: Receipt) -> Result<Self, PermitError> {
        let (call, kind) = match &grant {
            Grant::Allowed(allowed) => (allowed.call(), EventKind::Allowed),
            Grant::Redeemed(redeemed) => (redeemed.call(), EventKind::Redeemed),
        };
        if receipt.call() != Some(call) || receipt.kind() != kind {
            return Err(PermitError);
        }
        Ok(Self { grant, receipt })
    }

    /// The call that may run.
    pub fn call(&self) -> CallDigest {
        match &self.grant {
            Grant::Allowed(allowed) => allowed.call(),
            Grant::Redeemed(redeemed) => redeemed.call(),
        }
    }

    /// Uses it up: whoever sends the call has it no more.
    pub fn use_up(self) {}

    /// The number of the record that stands behind it.
    pub fn record(&self) -> i64 {
        self.receipt.seq()
    }
}
