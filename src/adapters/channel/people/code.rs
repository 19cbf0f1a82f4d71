//! One-time codes by time (RFC 6238): six digits, 30 s each, as every authenticator app makes them.

use std::fmt;

use totp_rs::{Builder, Secret, Totp};

use crate::domain::clock::Timestamp;

/// The secret of one person's codes.
#[derive(Clone)]
pub struct Code(Totp);

/// Not a secret for codes. Never says what was there.
#[derive(Debug, thiserror::Error)]
#[error("the secret of one-time codes must be at least 16 bytes, written in base 32 as authenticator apps take it")]
pub struct CodeError;

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

impl Code {
    /// From base 32.
    ///
    /// # Errors
    /// If it is none, or too short.
    pub fn new(base32: &str) -> Result<Self, CodeError> {
        let plain: String = base32.chars().filter(|c| !c.is_whitespace() && *c != '=').collect::<String>().to_uppercase();
        let secret = Secret::try_from_base32(&plain).map_err(|_| CodeError)?;
        Builder::new().with_secret(secret).build().map(Self).map_err(|_| CodeError)
    }

    /// The time step whose code this is: the present one, or one before or after it.
    pub fn step(&self, code: &str, now: Timestamp) -> Option<i64> {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let step = self.0.check(&code, u64::try_from(now.seconds()).ok()?)?;
        i64::try_from(step).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1: at 59 s the code ends in 287082.
        let code = Code::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        assert_eq!(code.step("287 082", Timestamp(59_000)), Some(1));
        assert_eq!(code.step("287082", Timestamp(89_000)), Some(1));
        assert_eq!(code.step("287082", Timestamp(120_000)), None);
        assert_eq!(code.step("287083", Timestamp(59_000)), None);
        assert_eq!(code.step("", Timestamp(59_000)), None);
        assert!(Code::new("GEZDGNBV").is_err());
        assert!(Code::new("not base 32 !").is_err());
    }
}
