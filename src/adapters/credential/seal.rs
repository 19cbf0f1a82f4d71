//! Seals secrets that the journal must keep because revoking a credential takes the credential itself: AES-256-GCM
//! (NIST SP 800-38D) under a key that is not in the store, bound to the lease.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::domain::digest::Digest;

/// The key.
pub struct Seal(Option<RandomizedNonceKey>);

impl Seal {
    /// A key from a secret text of any length that nobody could guess.
    ///
    /// # Errors
    /// If the text is shorter than 32 characters.
    pub fn new(secret: &str) -> Result<Self, String> {
        if secret.trim().len() < 32 {
            return Err("the key that seals the journal needs at least 32 characters that nobody can guess".into());
        }
        let key = Digest::of(format!("countersign journal v1\n{}", secret.trim()).as_bytes());
        RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).map(|key| Self(Some(key))).map_err(|e| e.to_string())
    }

    /// Seals nothing and opens nothing: for gateways without issuers that need it.
    pub fn none() -> Self {
        Self(None)
    }

    /// The secret, sealed; nothing if there is no key.
    pub fn seal(&self, lease: &str, secret: &str) -> Option<Vec<u8>> {
        let mut text = secret.as_bytes().to_vec();
        let nonce = self.0.as_ref()?.seal_in_place_append_tag(Aad::from(lease.as_bytes()), &mut text).ok()?;
        Some([nonce.as_ref().as_slice(), text.as_slice()].concat())
    }

    /// The secret; nothing if it was sealed under another key or for another lease.
    pub fn open(&self, lease: &str, sealed: &[u8]) -> Option<Zeroizing<String>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let open = self.0.as_ref()?.open_in_place(nonce, Aad::from(lease.as_bytes()), &mut text).ok()?;
        std::str::from_utf8(open).ok().map(|text| Zeroizing::new(text.to_owned()))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens_for_the_same_lease() {
        let (one, other) = (Seal::new(&"k".repeat(32)).unwrap(), Seal::new(&"l".repeat(32)).unwrap());
        let sealed = one.seal("lease", "a secret").unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"a secret"));
        assert_eq!(one.open("lease", &sealed).unwrap().as_str(), "a secret");
        assert!(one.open("another", &sealed).is_none() && other.open("lease", &sealed).is_none() && one.open("lease", b"short").is_none());
        let mut touched = sealed.clone();
        touched[14] ^= 1;
        assert!(one.open("lease", &touched).is_none());
        assert!(Seal::new("short").is_err() && Seal::none().seal("lease", "x").is_none());
    }
}
