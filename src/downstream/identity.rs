//! Who asks, over HTTP: a bearer token of a known issuer, mapped to a caller in the configuration.
//!
//! Identity comes from the verified token and from nowhere else: no header, no body, no `clientInfo`. What is not
//! mapped is refused.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::domain::call::{Caller, Identity};
use crate::domain::clock::{Clock, Timestamp};

/// Longest life of a caller's token.
const LONGEST: i64 = 3600;
/// How often keys are read anew when a token names one that is not known.
const REFRESH: Duration = Duration::from_secs(60);
/// Allowed difference of clocks, in seconds.
const LEEWAY: u64 = 5;

/// How callers are recognised.
pub enum Callers {
    /// Everybody who reaches the port is this caller: for loopback, on a machine of one's own.
    Fixed(Caller),
    /// By tokens, or by certificates of clients.
    Tokens(Box<Tokens>),
    /// By the token that a workload's platform keeps in a file, read anew each time it is used.
    File(PathBuf, Box<Tokens>),
}

/// The certificate with which a client connected, verified against the authorities of `[listen] tls`.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// Its only URI name, as an X.509-SVID has one (SPIFFE, X509-SVID §2); nothing if it has none, or several.
    pub uri: Option<String>,
    /// SHA-256 of the certificate, base64url (RFC 8705 §3.1).
    pub thumbprint: String,
}

/// The issuer that callers have who are recognised by a certificate: `issuer = "mtls"`.
pub const BY_CERTIFICATE: &str = "mtls";

/// The issuers that are believed, and the callers that their subjects are.
pub struct Tokens {
    /// The issuers.
    pub issuers: Vec<TokenIssuer>,
    /// The callers by subject.
    pub callers: Vec<Subject>,
}

/// A caller and the subject that it has in tokens.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The caller's name.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The `sub` claim, exactly.
    pub subject: String,
    /// The `iss` claim, where one subject may come from several.
    pub issuer: Option<String>,
}

/// An issuer that is believed.
pub struct TokenIssuer {
    /// The `iss` claim, exactly.
    pub issuer: String,
    /// The `aud` claim, exactly: this gateway.
    pub audience: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The keys as last read.
    pub cache: Mutex<Option<(Timestamp, JwkSet)>>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(String),
}

/// Why a caller was not recognised.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no bearer token.
    #[error("a bearer token is needed")]
    Missing,
    /// The token is not good. The client is not told more than this.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The token is good, and its subject is nobody here.
    #[error("the token's subject is not a caller of this gateway")]
    Unmapped,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: i64,
    iat: i64,
    cnf: Option<Confirmation>,
}

/// RFC 7800: what the token is bound to.
#[derive(Debug, Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

impl Callers {
    /// The caller that an `Authorization` header names.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn recognise(
        &self,
        authorization: Option<&str>,
        certificate: Option<&PeerCertificate>,
        clock: &dyn Clock,
    ) -> Result<Caller, IdentityError> {
        match self {
            Self::Fixed(caller) => Ok(caller.clone()),
            Self::Tokens(tokens) => match (authorization, certificate) {
                (None, Some(certificate)) => tokens.by_certificate(certificate),
                _ => tokens.recognise(authorization, certificate, clock).await,
            },
            Self::File(path, tokens) => {
                let token = std::fs::read_to_string(path).map_err(|error| {
                    tracing::error!(%error, "the identity token cannot be read: {}", path.display());
                    IdentityError::Missing
                })?;
                tokens.recognise(Some(&format!("Bearer {}", token.trim())), None, clock).await
            }
        }
    }
}

impl Tokens {
    fn by_certificate(&self, certificate: &PeerCertificate) -> Result<Caller, IdentityError> {
        let uri = certificate.uri.as_ref().ok_or(IdentityError::Invalid("the certificate has not exactly one URI name"))?;
        // A subject that belongs to an issuer of tokens is not believed from a certificate.
        let same = |caller: &&Subject| caller.subject == *uri && caller.issuer.as_ref().is_none_or(|issuer| issuer == BY_CERTIFICATE);
        let caller = self.callers.iter().find(same).ok_or(IdentityError::Unmapped)?;
        let identity = Identity::Verified { issuer: BY_CERTIFICATE.to_owned(), subject: uri.clone() };
        Ok(Caller { name: caller.name.clone(), owner: caller.owner.clone(), identity })
    }

    async fn recognise(
        &self,
        authorization: Option<&str>,
        certificate: Option<&PeerCertificate>,
        clock: &dyn Clock,
    ) -> Result<Caller, IdentityError> {
        let header = authorization.ok_or(IdentityError::Missing)?;
        let (scheme, token) = header.split_once(' ').ok_or(IdentityError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(IdentityError::Missing);
        }
        let token = token.trim();
        if token.len() > 16 << 10 {
            return Err(IdentityError::Invalid("it is too long"));
        }
        let claimed = claimed_issuer(token).ok_or(IdentityError::Invalid("it does not parse"))?;
        let issuer = self.issuers.iter().find(|i| i.issuer == claimed).ok_or(IdentityError::Invalid("its issuer is not known"))?;
        let claims = issuer.verify(token, clock).await?;
        if let Some(bound) = claims.cnf.as_ref().and_then(|cnf| cnf.certificate.as_ref())
            && certificate.is_none_or(|certificate| certificate.thumbprint != *bound)
        {
            return Err(IdentityError::Invalid("it is bound to a certificate that the client did not show"));
        }
        let caller = self.callers.iter().find(|c| c.subject == claims.sub && c.issuer.as_ref().is_none_or(|i| *i == claims.iss));
        let caller = caller.ok_or(IdentityError::Unmapped)?;
        Ok(Caller {
            name: caller.name.clone(),
            owner: caller.owner.clone(),
            identity: Identity::Verified { issuer: claims.iss, subject: claims.sub },
        })
    }
}

impl TokenIssuer {
    async fn verify(&self, token: &str, clock: &dyn Clock) -> Result<Claims, IdentityError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| IdentityError::Invalid("it does not parse"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(IdentityError::Invalid("its algorithm is not one that its issuer uses"));
        }
        if has_crit(token) {
            return Err(IdentityError::Invalid("it demands an extension that is not known"));
        }
        let key = self.key(header.kid.as_deref(), clock).await?;
        let mut checks = Validation::new(header.alg);
        checks.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        checks.set_issuer(&[&self.issuer]);
        checks.set_audience(&[&self.audience]);
        checks.validate_nbf = true;
        checks.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &checks)
            .map_err(|_| IdentityError::Invalid("its signature, audience, issuer or time is wrong, or a claim is missing"))?
            .claims;
        // From now as well: a token that says it is from the future must not live on until then.
        if claims.exp.saturating_sub(claims.iat) > LONGEST || claims.exp.saturating_sub(clock.now().seconds()) > LONGEST {
            return Err(IdentityError::Invalid("it lives longer than an hour"));
        }
        Ok(claims)
    }

    async fn key(&self, kid: Option<&str>, clock: &dyn Clock) -> Result<DecodingKey, IdentityError> {
        let now = clock.now();
        let cached = |fresh_enough: &dyn Fn(Timestamp) -> bool| {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.as_ref().map(|(at, set)| (find(set, kid), fresh_enough(*at)))
        };
        match cached(&|at| now.since(at) < REFRESH) {
            Some((Some(key), _)) => return Ok(key),
            // An unknown key is looked for once a minute, so that nobody makes us ask the issuer at will.
            Some((None, true)) => return Err(IdentityError::Invalid("its key is not known")),
            _ => {}
        }
        match self.keys.read().await {
            Ok(set) => *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, set)),
            Err(why) => {
                tracing::error!(issuer = %self.issuer, why, "the issuer's keys could not be read");
                return Err(IdentityError::Invalid("its issuer's keys cannot be read now"));
            }
        }
        match cached(&|_| true) {
            Some((Some(key), _)) => Ok(key),
            _ => Err(IdentityError::Invalid("its key is not known")),
        }
    }
}

impl KeySource {
    async fn read(&self) -> Result<JwkSet, String> {
        const MOST: usize = 1 << 20;
        let text = match self {
            Self::File(path) => std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
            Self::Url(url) => {
                let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(10)).build();
                let response = client.map_err(|e| e.to_string())?.get(url).send().await.map_err(|e| e.to_string())?;
                let mut response = response.error_for_status().map_err(|e| e.to_string())?;
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(|e| e.to_string())? {
                    text.extend_from_slice(&chunk);
                    if text.len() > MOST {
                        return Err(format!("longer than {MOST} bytes"));
                    }
                }
                text
            }
        };
        serde_json::from_slice(&text).map_err(|e| format!("not a key set: {e}"))
    }
}

fn find(set: &JwkSet, kid: Option<&str>) -> Option<DecodingKey> {
    let jwk = match kid {
        Some(kid) => set.find(kid),
        // Without a name only an only key can be meant.
        None if set.keys.len() == 1 => set.keys.first(),
        None => None,
    };
    jwk.and_then(|jwk| DecodingKey::from_jwk(jwk).ok())
}

/// Whether the header has `crit` (RFC 7515 §4.1.11): whoever does not know what it names must refuse the token.
fn has_crit(token: &str) -> bool {
    part(token, 0).is_none_or(|header| header.get("crit").is_some())
}

fn part(token: &str, number: usize) -> Option<serde_json::Value> {
    use base64::Engine;
    let text = token.split('.').nth(number)?;
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// The issuer that a token claims, to know whose keys to check it with; believed only once they did.
fn claimed_issuer(token: &str) -> Option<String> {
    part(token, 1)?.get("iss")?.as_str().map(str::to_owned)
}
