//! Signs tokens with which the gateway says who it is: with its own key, or with one that the operator stored.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::json;

use super::{IssueError, KeyRing, OwnSecret};

/// A key that signs tokens (RFC 7515).
#[derive(Clone, Debug)]
pub enum Signer {
    /// The gateway's own, whose public half is at `/.well-known/jwks.json`.
    Own(KeyRing),
    /// A private key in PEM: RSA (`RS256`), P-256 (`ES256`) or Ed25519 (`EdDSA`).
    Stored {
        /// The PEM text.
        key: OwnSecret,
        /// The key's name, where the other side knows it by one.
        kid: Option<String>,
    },
}

impl Signer {
    pub(super) async fn sign(&self, claims: &impl Serialize) -> Result<String, IssueError> {
        let (key, kid) = match self {
            Self::Own(ring) => return ring.sign(claims),
            Self::Stored { key, kid } => (key.reveal().await?, kid),
        };
        let own = |why: &str| IssueError::Own(why.to_owned());
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| own("the key is not a private key in PEM"))?;
        let key = Key::read(&der).ok_or_else(|| own("the key is neither RSA nor P-256 nor Ed25519"))?;
        let mut header = json!({"alg": key.algorithm(), "typ": "JWT"});
        if let (Some(kid), Some(header)) = (kid, header.as_object_mut()) {
            header.insert("kid".into(), kid.as_str().into());
        }
        let claims = serde_json::to_vec(claims).map_err(|e| IssueError::Signing(e.to_string()))?;
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = key.sign(text.as_bytes()).ok_or_else(|| IssueError::Signing("the key does not sign".into()))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn read(der: &PrivateKeyDer<'_>) -> Option<Self> {
        match der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(Self::Rsa),
            PrivateKeyDer::Sec1(key) => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_sec1_der()).ok().map(Self::P256)
            }
            PrivateKeyDer::Pkcs8(key) => {
                let key = key.secret_pkcs8_der();
                let rsa = || RsaKeyPair::from_pkcs8(key).ok().map(Self::Rsa);
                let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).ok().map(Self::P256);
                rsa().or_else(p256).or_else(|| Ed25519KeyPair::from_pkcs8(key).ok().map(Self::Ed25519))
            }
            _ => None,
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).ok()?;
                Some(signature)
            }
            Self::P256(key) => key.sign(&random, text).ok().map(|s| s.as_ref().to_vec()),
            Self::Ed25519(key) => Some(key.sign(text).as_ref().to_vec()),
        }
    }
}
