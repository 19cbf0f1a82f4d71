//! What the ledger demands before a dangerous tool: a token that is for exactly this action, not used before and not
//! revoked. Written as any server of one's own would: with the gateway's public keys and its introspection page.

use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::domain::digest::Digest;

/// Whose credentials are believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The gateway's address: the `iss` claim, and where `/.well-known/jwks.json` and `/introspect` are.
    pub issuer: String,
    /// The `aud` claim: this server.
    pub audience: String,
    /// The secret with which this server may ask whether a token still counts.
    pub introspection: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub jti: String,
    scope: String,
    tctx: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    tool: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Active {
    active: bool,
}

impl Trust {
    /// Checks a token for `tool` with `arguments` and `scope`; answers its id.
    pub(super) async fn check(&self, token: &str, tool: &str, arguments: &Value, scope: &str) -> Result<String, String> {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|e| e.to_string())?;
        let keys: JwkSet = client
            .get(format!("{}/.well-known/jwks.json", self.issuer))
            .send()
            .await
            .map_err(|e| format!("the issuer's keys cannot be had: {e}"))?
            .json()
            .await
            .map_err(|e| e.to_string())?;
        let kid = jsonwebtoken::decode_header(token).ok().and_then(|h| h.kid).ok_or("the credential is no token with a key id")?;
        let key = keys.find(&kid).ok_or("the credential's key is not the issuer's")?;
        let key = DecodingKey::from_jwk(key).map_err(|e| e.to_string())?;
        let mut checks = Validation::new(Algorithm::EdDSA);
        checks.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        checks.set_audience(&[&self.audience]);
        checks.set_issuer(&[&self.issuer]);
        checks.validate_nbf = true;
        checks.leeway = 2;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &checks).map_err(|e| format!("the credential is not valid: {e}"))?.claims;
        if claims.scope != scope {
            return Err(format!("the credential is for `{}`, this needs `{scope}`", claims.scope));
        }
        let canonical = serde_json_canonicalizer::to_string(arguments).map_err(|e| e.to_string())?;
        if claims.tctx.tool != tool || claims.tctx.arguments != Digest::of(canonical.as_bytes()).to_string() {
            return Err("the credential is for another action".into());
        }
        let asked = client.post(format!("{}/introspect", self.issuer)).bearer_auth(&self.introspection).form(&[("token", token)]).send().await;
        let active: Active = asked.map_err(|e| format!("the issuer cannot be asked: {e}"))?.json().await.map_err(|e| e.to_string())?;
        if !active.active {
            return Err("the credential is revoked".into());
        }
        Ok(claims.jti)
    }
}
