//! OAuth 2.0 authorization servers: client credentials (RFC 6749 §4.4) or token exchange (RFC 8693), for a resource
//! (RFC 8707), with the call in `authorization_details` (RFC 9396), revoked by RFC 7009 and checked by RFC 7662.
//!
//! An access token that is a JWT cannot be revoked at most servers: then it is dead by its time, and the record says so.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, Signer, Web, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;
use crate::domain::text::percent;
use crate::system::random_hex;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An authorization server.
#[derive(Debug)]
pub struct OAuth {
    /// The token endpoint.
    pub token: Web,
    /// The revocation endpoint (RFC 7009).
    pub revocation: Option<Web>,
    /// The introspection endpoint (RFC 7662).
    pub introspection: Option<Web>,
    /// The client's id.
    pub client: String,
    /// How the client proves who it is.
    pub proof: ClientProof,
    /// Whom an assertion is for: the server's `issuer`.
    pub issuer: String,
    /// What is asked for.
    pub grant: Grant,
    /// The type under which the call is put into `authorization_details`; it is not if there is none.
    pub details: Option<String>,
}

/// How the client proves who it is.
#[derive(Debug)]
pub enum ClientProof {
    /// A secret in the `Authorization` header (`client_secret_basic`).
    Secret(OwnSecret),
    /// A token that it signs (`private_key_jwt`, RFC 7523).
    Assertion(Signer),
}

/// What is asked for.
#[derive(Debug)]
pub enum Grant {
    /// A token for the gateway itself.
    ClientCredentials,
    /// A token for another in exchange for theirs.
    Exchange {
        /// For whom.
        subject: Party,
        /// Who acts for them.
        actor: Option<Party>,
    },
}

/// Somebody in a token exchange.
#[derive(Debug)]
pub enum Party {
    /// An access token that the operator stored.
    Token(OwnSecret),
    /// The caller, in a token that the gateway signs as this issuer.
    Caller {
        /// The `iss` claim.
        issuer: String,
        /// The key.
        signer: Signer,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    resource: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    authorization_details: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<i64>,
    scope: Option<String>,
    authorization_details: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Introspected {
    active: bool,
    scope: Option<String>,
    exp: Option<i64>,
}

impl OAuth {
    /// What is asked, but for the client's proof and others' tokens.
    fn form(&self, order: &Order) -> Result<Vec<(&'static str, String)>, IssueError> {
        let asked: Parameters = order.parameters()?;
        let mut form = vec![(
            "grant_type",
            match self.grant {
                Grant::ClientCredentials => "client_credentials".to_owned(),
                Grant::Exchange { .. } => EXCHANGE.to_owned(),
            },
        )];
        if !order.scope.text.is_empty() {
            form.push(("scope", order.scope.text.clone()));
        }
        form.extend(asked.resource.clone().map(|resource| ("resource", resource)));
        form.extend(asked.audience.clone().map(|audience| ("audience", audience)));
        let details = self.details_of(&asked, order);
        if !details.is_empty() {
            form.push(("authorization_details", Value::from(details).to_string()));
        }
        if order.scope.text.is_empty() && asked.authorization_details.is_empty() {
            return Err(IssueError::parameters("it needs a `scope`, or `authorization_details`: without either a server may grant everything"));
        }
        Ok(form)
    }

    fn details_of(&self, asked: &Parameters, order: &Order) -> Vec<Value> {
        let mut details: Vec<Value> = asked.authorization_details.iter().cloned().map(Value::from).collect();
        details.extend(self.details.as_ref().map(|kind| {
            json!({
                "type": kind, "server": order.server, "tool": order.tool, "arguments": order.arguments, "approval": order.subject,
                "caller": order.caller.name,
            })
        }));
        details
    }

    async fn proven(&self, web: &Web, mut form: Vec<(&'static str, String)>, now: Timestamp) -> Result<RequestBuilder, IssueError> {
        match &self.proof {
            ClientProof::Secret(secret) => {
                // RFC 6749 §2.3.1: both are form-encoded first.
                let pair = format!("{}:{}", percent(&self.client), percent(secret.reveal().await?.as_str()));
                let request = web.request(Method::POST, "").form(&form);
                Ok(request.header("authorization", format!("Basic {}", STANDARD.encode(pair))))
            }
            ClientProof::Assertion(signer) => {
                let jti = random_hex::<16>().map_err(|e| IssueError::Signing(e.to_string()))?;
                let claims = json!({
                    "iss": self.client, "sub": self.client, "aud": self.issuer, "jti": jti, "iat": now.seconds(), "exp": now.seconds() + 30,
                });
                let assertion = signer.sign(&claims).await?;
                form.extend([("client_id", self.client.clone()), ("client_assertion_type", ASSERTION.to_owned()), ("client_assertion", assertion)]);
                Ok(web.request(Method::POST, "").form(&form))
            }
        }
    }

    async fn party(&self, party: &Party, order: &Order) -> Result<(String, &'static str), IssueError> {
        match party {
            Party::Token(token) => Ok((token.reveal().await?.to_string(), ACCESS_TOKEN)),
            Party::Caller { issuer, signer } => {
                let jti = random_hex::<16>().map_err(|e| IssueError::Signing(e.to_string()))?;
                let claims = json!({
                    "iss": issuer, "sub": order.caller.name, "aud": self.issuer, "jti": jti, "iat": order.now.seconds(), "exp": order.now.seconds() + 30,
                    "tctx": {"server": order.server, "tool": order.tool, "arguments": order.arguments, "approval": order.subject},
                });
                Ok((signer.sign(&claims).await?, JWT))
            }
        }
    }

    async fn introspect(&self, token: &str, now: Timestamp) -> Result<Option<Introspected>, IssueError> {
        let Some(web) = &self.introspection else { return Ok(None) };
        let form = vec![("token", token.to_owned()), ("token_type_hint", "access_token".to_owned())];
        let request = self.proven(web, form, now).await?;
        web.send(request, now).await?.json().map(Some)
    }

    /// Whether what was granted is what was asked, and nothing more.
    async fn compare(&self, order: &Order, granted: &Granted) -> Result<(), String> {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        let asked = words(&order.scope.text);
        let longest = i64::try_from(order.ttl.as_secs()).unwrap_or(i64::MAX);
        let mut scope = granted.scope.clone();
        let mut life = granted.expires_in;
        let seen = self.introspect(&granted.access_token, order.now).await.map_err(|e| format!("it could not be introspected: {e}"))?;
        if let Some(seen) = seen {
            if !seen.active {
                return Err("introspection says that it is not active".into());
            }
            scope = seen.scope.or(scope);
            life = life.or(seen.exp.map(|exp| exp.saturating_sub(order.now.seconds())));
        }
        if !granted.token_type.eq_ignore_ascii_case("bearer") {
            return Err(format!("it is a token of type `{}`, and a bearer token was asked", granted.token_type));
        }
        match life {
            None => return Err("nobody says how long it lives".into()),
            Some(life) if life > longest => return Err(format!("it lives {life} s, and the policy says {longest} s")),
            Some(life) if life <= 0 => return Err("it is dead already".into()),
            Some(_) => {}
        }
        match scope {
            Some(scope) if !words(&scope).is_subset(&asked) => return Err(format!("its scope is `{scope}`, and `{}` was asked", order.scope.text)),
            Some(scope) if words(&scope).is_empty() && !asked.is_empty() => return Err("it has no scope".into()),
            // RFC 6749 §5.1 lets a server leave it out where it is as asked; some do so where they granted none at all.
            None if !asked.is_empty() && self.introspection.is_some() => return Err("it has no scope".into()),
            None if !asked.is_empty() => return Err("nobody says which scope it has: set `introspection`".into()),
            _ => {}
        }
        let details = self.details_of(&order.parameters().map_err(|e| e.to_string())?, order);
        match &granted.authorization_details {
            None if details.is_empty() => {}
            None => return Err("it does not say which authorization details it has".into()),
            Some(theirs) => {
                let known = |one: &Value| details.iter().any(|own| covers(own, one));
                if !theirs.iter().all(known) || (theirs.is_empty() && !details.is_empty()) {
                    return Err("its authorization details are not those that were asked".into());
                }
            }
        }
        Ok(())
    }
}

/// Whether everything that was asked in `own` is in `theirs` unchanged; a server may add what it knows besides.
fn covers(own: &Value, theirs: &Value) -> bool {
    let (Some(own), Some(theirs)) = (own.as_object(), theirs.as_object()) else { return false };
    own.iter().all(|(name, value)| theirs.get(name) == Some(value))
}

/// Whether a token is a signed JWT.
fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3 && jsonwebtoken::decode_header(token).is_ok()
}

#[async_trait]
impl Issuer for OAuth {
    fn nature(&self) -> Nature {
        let ending = if self.revocation.is_some() { Ending::Revoked } else { Ending::ByTime };
        Nature { kind: "oauth", ending, named: false, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let form = self.form(order)?;
        let lines: Vec<String> = form.iter().map(|(name, value)| format!("  {name} = {value}")).collect();
        Ok(Plan { request: format!("POST {} as client {}\n{}", self.token.shown(""), self.client, lines.join("\n")), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let mut form = self.form(order)?;
        if let Grant::Exchange { subject, actor } = &self.grant {
            let (token, kind) = self.party(subject, order).await?;
            form.extend([("subject_token", token), ("subject_token_type", kind.to_owned()), ("requested_token_type", ACCESS_TOKEN.to_owned())]);
            if let Some(actor) = actor {
                let (token, kind) = self.party(actor, order).await?;
                form.extend([("actor_token", token), ("actor_token_type", kind.to_owned())]);
            }
        }
        let request = self.proven(&self.token, form, order.now).await?;
        let granted: Granted = self.token.send(request, order.now).await?.json()?;
        let compared = self.compare(order, &granted).await;
        let life = u64::try_from(granted.expires_in.unwrap_or(0)).unwrap_or(0);
        let scope = granted.scope.clone();
        let credential = Credential::new(granted.access_token, order.now.plus(Duration::from_secs(life)));
        let made = Credential { revoked_by_itself: self.revocation.is_some(), granted: scope, ..credential };
        match compared {
            Ok(()) => Ok(made),
            Err(why) => Err(IssueError::Wider { why, made: Box::new(made) }),
        }
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        let Some(web) = &self.revocation else { return Ok(Ended::ByTime) };
        let Some(token) = held.secret else {
            return Err(IssueError::Unclear("the journal has no token to revoke: what was minted is dead by its time".into()));
        };
        let form = vec![("token", token.to_owned()), ("token_type_hint", "access_token".to_owned())];
        let request = self.proven(web, form, held.now).await?;
        let reply = web.send(request, held.now).await?;
        if reply.status == StatusCode::BAD_REQUEST && reply.reason().is_some_and(|r| r.contains("unsupported_token_type")) {
            return Ok(Ended::ByTime);
        }
        if !reply.status.is_success() {
            return Err(reply.refusal());
        }
        // A server that answers 200 to everything has not revoked a JWT which others check by its signature alone.
        match self.introspect(token, held.now).await? {
            Some(seen) if seen.active => Err(IssueError::Unclear("it is still active after it was revoked".into())),
            Some(_) => Ok(Ended::Revoked),
            None if is_jwt(token) => Ok(Ended::ByTime),
            None => Ok(Ended::Revoked),
        }
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
