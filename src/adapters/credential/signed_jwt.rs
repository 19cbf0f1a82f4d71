//! The built-in issuer: a JWT signed by the gateway's own Ed25519 key (RFC 7519, RFC 8037), for upstreams that check
//! it against `/.well-known/jwks.json` and ask `/introspect` (RFC 7662) whether it still counts.
//!
//! Claims: `iss`, `aud` (the upstream), `sub` (the caller), `act` (this gateway, RFC 8693 §4.1), `scope`, `jti` (the
//! lease), `iat`, `nbf`, `exp`, and `tctx` with server, tool, digest of the arguments, digest of the call, the approval
//! and its approvers.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, Plan, parameters};
use crate::domain::permit::Permit;

/// The keys that sign and verify, shared by the issuer, the key set page and introspection.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<RwLock<Vec<Key>>>);

struct Key {
    kid: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// The public key's coordinate, base64url.
    x: String,
}

/// The claims that this gateway checks of its own tokens.
#[derive(Debug, Deserialize)]
pub struct OwnClaims {
    /// The lease.
    pub jti: String,
    /// Whom it is for.
    pub aud: String,
    /// Who asked.
    pub sub: String,
    /// Its scope.
    pub scope: String,
    /// When it is dead, seconds since the epoch.
    pub exp: i64,
}

impl KeyRing {
    /// Replaces the keys: `(kid, PKCS #8)`, the first signs.
    ///
    /// # Errors
    /// If a key cannot be read; then the keys stay as they were.
    pub fn set(&self, keys: &[(String, Vec<u8>)]) -> Result<(), IssueError> {
        let mut loaded = Vec::with_capacity(keys.len());
        for (kid, pkcs8) in keys {
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| IssueError::Signing(e.to_string()))?;
            let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
            let verifying = DecodingKey::from_ed_components(&x).map_err(|e| IssueError::Signing(e.to_string()))?;
            loaded.push(Key { kid: kid.clone(), signing: EncodingKey::from_ed_der(pkcs8), verifying, x });
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// A new private key, PKCS #8.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Vec<u8>, IssueError> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).map_err(|e| IssueError::Signing(e.to_string()))?;
        Ok(key.as_ref().to_vec())
    }

    /// The public keys as a JWK set (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let jwk = |key: &Key| json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.x});
        json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()})
    }

    /// The claims of a token that this gateway signed; nothing for any other text. Whether it still counts is for the
    /// journal to say.
    pub fn verify(&self, token: &str) -> Option<OwnClaims> {
        if token.len() > 16 << 10 {
            return None;
        }
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.kid == kid)?;
        let mut checks = Validation::new(Algorithm::EdDSA);
        // Time and audience are the journal's: it knows the lease, whatever the wall clock says.
        checks.validate_exp = false;
        checks.validate_aud = false;
        checks.required_spec_claims.clear();
        jsonwebtoken::decode::<OwnClaims>(token, &key.verifying, &checks).ok().map(|data| data.claims)
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, IssueError> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.first().ok_or_else(|| IssueError::Signing("it has no key".into()))?;
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &key.signing).map_err(|e| IssueError::Signing(e.to_string()))
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}

/// The built-in issuer.
#[derive(Debug)]
pub struct SignedJwt {
    /// The `iss` claim.
    pub issuer: String,
    /// The keys.
    pub keys: KeyRing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl SignedJwt {
    fn claims(&self, order: &Order) -> serde_json::Value {
        json!({
            "iss": self.issuer,
            "aud": order.audience,
            "sub": order.caller.name,
            "act": {"sub": "countersign", "iss": self.issuer},
            "owner": order.caller.owner,
            "scope": order.scope.text,
            "jti": order.lease,
            "iat": order.now.seconds(),
            "nbf": order.now.seconds(),
            "exp": order.dead_by().seconds(),
        })
    }
}

#[async_trait]
impl Issuer for SignedJwt {
    fn nature(&self) -> Nature {
        Nature { kind: "signed-jwt", ending: Ending::Revoked, named: true, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        order.parameters::<Nothing>()?;
        if order.ttl.as_secs() > 60 {
            return Err(IssueError::parameters("its tokens live 60 s at most: lower `ttl`"));
        }
        Ok(Plan { request: format!("a token is signed with these claims\n{:#}", self.claims(order)), handle: Some(order.lease.clone()) })
    }

    async fn issue(&self, permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let plan = self.plan(order)?;
        let mut claims = self.claims(order);
        let context = json!({
            "server": order.server, "tool": order.tool, "arguments": order.arguments, "call": permit.call(),
            "approval": order.subject, "approvers": order.approvers, "record": permit.record(),
        });
        claims.as_object_mut().map(|claims| claims.insert("tctx".into(), context));
        let credential = Credential::new(self.keys.sign(&claims)?, order.dead_by());
        Ok(Credential { handle: plan.handle, ..credential })
    }

    /// The journal is what introspection answers from, so ending the lease there is the revocation.
    async fn revoke(&self, _held: &Held<'_>) -> Result<Ended, IssueError> {
        Ok(Ended::Revoked)
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Nothing>(text).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_this_ring_verify() {
        let (ring, other) = (KeyRing::default(), KeyRing::default());
        ring.set(&[("a".into(), KeyRing::generate().unwrap())]).unwrap();
        other.set(&[("a".into(), KeyRing::generate().unwrap())]).unwrap();
        let claims = json!({"jti": "j", "aud": "u", "sub": "s", "scope": "x", "exp": 1});
        let token = ring.sign(&claims).unwrap();
        assert_eq!(ring.verify(&token).unwrap().jti, "j");
        assert!(other.verify(&token).is_none());
        assert!(ring.verify(&token.replace('.', "")).is_none());
        assert!(ring.verify("eyJhbGciOiJub25lIn0.eyJqdGkiOiJqIn0.").is_none());
    }
}
