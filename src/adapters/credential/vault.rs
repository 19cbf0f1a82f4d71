//! HashiCorp Vault and OpenBao. One login for each approved call; its token's accessor, which is no secret, is in the
//! journal before anything is asked with the token. Revoking the accessor ends the token and every lease it made.
//!
//! With the JWT login the gateway signs who asked for what, so that Vault's own role and policies can check it, and its
//! audit log shows it. API: `auth/<mount>/login`, `<path>`, `sys/wrapping/unwrap`, `auth/token/revoke-accessor`.

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::web::Reply;
use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, KeyRing, Nature, Order, OwnSecret, Plan, Web, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// How long the token with which the gateway logs in is good, in seconds: Vault does not stop a second use of it.
const LOGIN_LIFE: i64 = 20;

/// A Vault.
#[derive(Debug)]
pub struct Vault {
    /// How it is reached.
    pub web: Web,
    /// Its namespace, where it has them.
    pub namespace: Option<String>,
    /// How the gateway logs in.
    pub login: Login,
    /// Paths that policies may name, each as it is or with `*` at its end.
    pub paths: Vec<String>,
    /// Seconds for which answers are wrapped, so that somebody who reads one in between is noticed.
    pub wrap_seconds: Option<u64>,
}

/// How the gateway logs in.
#[derive(Debug)]
pub enum Login {
    /// With a token that the gateway signs, whose claims carry the call.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The `iss` claim.
        issuer: String,
        /// The `aud` claim.
        audience: String,
        /// The keys.
        keys: KeyRing,
    },
    /// With a role's id and secret.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's id.
        role_id: OwnSecret,
        /// The secret's id.
        secret_id: OwnSecret,
    },
    /// With the token of the service account that the gateway runs as.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The token.
        token: OwnSecret,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    path: String,
    /// What is written there; it is read where there is none.
    write: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    accessor: String,
    lease_duration: i64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: i64,
    #[serde(default)]
    data: Option<serde_json::Map<String, Value>>,
    wrap_info: Option<Wrapped>,
}

#[derive(Deserialize)]
struct Wrapped {
    token: String,
}

impl Vault {
    fn asked(&self, order: &Order) -> Result<Parameters, IssueError> {
        let asked: Parameters = order.parameters()?;
        let plain = asked.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./@".contains(&b));
        if !plain || asked.path.split('/').any(|step| matches!(step, "" | "." | "..")) {
            return Err(IssueError::Parameters(format!("`{}` is not a path of letters, digits and `-_.@/`", asked.path)));
        }
        let fits = |allowed: &String| match allowed.strip_suffix('*') {
            Some(start) => asked.path.starts_with(start),
            None => asked.path == *allowed,
        };
        if !self.paths.iter().any(fits) {
            return Err(IssueError::Parameters(format!("`{}` is not below `paths` of the issuer's configuration", asked.path)));
        }
        Ok(asked)
    }

    async fn log_in(&self, order: Option<&Order>, now: Timestamp) -> Result<Auth, IssueError> {
        let (mount, body) = match &self.login {
            Login::Jwt { mount, role, issuer, audience, keys } => {
                let mut claims = json!({
                    "iss": issuer, "aud": audience, "sub": "countersign", "iat": now.seconds(), "nbf": now.seconds(), "exp": now.seconds() + LOGIN_LIFE,
                    "purpose": if order.is_some() { "mint" } else { "revoke" },
                });
                if let Some((order, claims)) = order.zip(claims.as_object_mut()) {
                    let call = [
                        ("jti", order.lease.clone()),
                        ("server", order.server.clone()),
                        ("tool", order.tool.clone()),
                        ("caller", order.caller.name.clone()),
                        ("approval", order.subject.clone()),
                        ("approvers", order.approvers.join(",")),
                        ("arguments", order.arguments.to_string()),
                    ];
                    claims.extend(call.map(|(name, value)| (name.to_owned(), Value::from(value))));
                }
                (mount, json!({"role": role, "jwt": keys.sign(&claims)?}))
            }
            Login::AppRole { mount, role_id, secret_id } => {
                (mount, json!({"role_id": role_id.reveal().await?.as_str(), "secret_id": secret_id.reveal().await?.as_str()}))
            }
            Login::Kubernetes { mount, role, token } => (mount, json!({"role": role, "jwt": token.reveal().await?.as_str()})),
        };
        let request = self.request(Method::POST, &format!("/v1/auth/{mount}/login")).json(&body);
        Ok(self.web.send(request, now).await?.json::<LoggedIn>()?.auth)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.web.request(method, path).header("x-vault-request", "true");
        match &self.namespace {
            Some(namespace) => request.header("x-vault-namespace", namespace),
            None => request,
        }
    }

    async fn ask(&self, asked: &Parameters, token: &str, now: Timestamp) -> Result<Answer, IssueError> {
        let path = format!("/v1/{}", asked.path);
        let mut request = match &asked.write {
            Some(body) => self.request(Method::POST, &path).json(body),
            None => self.request(Method::GET, &path),
        };
        request = request.header("x-vault-token", token);
        if let Some(seconds) = self.wrap_seconds {
            request = request.header("x-vault-wrap-ttl", format!("{seconds}s"));
        }
        let mut answer: Answer = self.web.send(request, now).await?.json()?;
        match (answer.wrap_info.take(), self.wrap_seconds) {
            (Some(wrapped), _) => {
                let unwrap = self.request(Method::POST, "/v1/sys/wrapping/unwrap").header("x-vault-token", wrapped.token);
                self.web.send(unwrap, now).await?.json()
            }
            (None, Some(_)) => Err(IssueError::Unclear("its answer is not wrapped, although that was asked".into())),
            (None, None) => Ok(answer),
        }
    }
}

#[async_trait]
impl Issuer for Vault {
    fn nature(&self) -> Nature {
        Nature { kind: "vault", ending: Ending::Revoked, named: false, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let asked = self.asked(order)?;
        let how = match &self.login {
            Login::Jwt { mount, role, .. } => format!("log in at auth/{mount} as role {role}, with a token that carries this call"),
            Login::AppRole { mount, .. } => format!("log in at auth/{mount} with the role's id and secret"),
            Login::Kubernetes { mount, role, .. } => format!("log in at auth/{mount} as role {role}"),
        };
        let then = match &asked.write {
            Some(body) => format!("POST {}\n{:#}", self.web.shown(&format!("/v1/{}", asked.path)), Value::from(body.clone())),
            None => format!("GET {}", self.web.shown(&format!("/v1/{}", asked.path))),
        };
        Ok(Plan { request: format!("{how}\n{then}"), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, journal: &dyn Journal) -> Result<Credential, IssueError> {
        let asked = self.asked(order)?;
        let auth = self.log_in(Some(order), order.now).await?;
        journal.handle(&auth.accessor).await?;
        let longest = i64::try_from(order.ttl.as_secs()).unwrap_or(i64::MAX);
        let made = |fields: Vec<(String, String)>, life: i64| {
            let expires_at = order.now.plus(std::time::Duration::from_secs(u64::try_from(life).unwrap_or(0)));
            Credential { handle: Some(auth.accessor.clone()), ..Credential::of(fields, expires_at) }
        };
        if auth.lease_duration <= 0 || auth.lease_duration > longest {
            let life = if auth.lease_duration <= 0 { "for ever".to_owned() } else { format!("{} s", auth.lease_duration) };
            let why = format!("its token lives {life}, and the policy says {longest} s: set `token_explicit_max_ttl` of the role");
            return Err(IssueError::Wider { why, made: Box::new(made(vec![], auth.lease_duration.max(0))) });
        }
        let answer = match self.ask(&asked, &auth.client_token, order.now).await {
            Ok(answer) => answer,
            // The token exists, whatever became of the request.
            Err(error) => {
                return Err(IssueError::Wider {
                    why: format!("it gave a token, and then: {error}"),
                    made: Box::new(made(vec![], auth.lease_duration)),
                });
            }
        };
        let mut fields = Vec::new();
        for (name, value) in answer.data.unwrap_or_default() {
            let name: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            match value {
                Value::String(text) => fields.push((name, text)),
                Value::Number(number) => fields.push((name, number.to_string())),
                _ => {}
            }
        }
        let main = ["password", "token", "access_token", "signed_key", "secret_key", "private_key"];
        let secret = main.iter().find_map(|name| fields.iter().find(|(field, _)| field == name)).map(|(_, value)| value.clone());
        fields.extend(secret.map(|value| ("secret".to_owned(), value)));
        if fields.is_empty() {
            return Err(IssueError::Wider { why: "it answered no data".into(), made: Box::new(made(vec![], auth.lease_duration)) });
        }
        // Leases die with the token that made them.
        let life = if answer.lease_duration > 0 { auth.lease_duration.min(answer.lease_duration) } else { auth.lease_duration };
        let granted = (!answer.lease_id.is_empty()).then_some(answer.lease_id);
        Ok(Credential { granted, ..made(fields, life) })
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        let Some(accessor) = held.handle else {
            return Err(IssueError::Unclear("the journal has no accessor: what the login made is dead by its time".into()));
        };
        let auth = self.log_in(None, held.now).await?;
        let request = self.request(Method::POST, "/v1/auth/token/revoke-accessor").header("x-vault-token", &auth.client_token);
        let reply = self.web.send(request.json(&json!({"accessor": accessor})), held.now).await;
        // The token that revokes has done its work; should this fail, it is dead in seconds.
        let own = self.request(Method::POST, "/v1/auth/token/revoke-self").header("x-vault-token", &auth.client_token);
        drop(self.web.send(own, held.now).await);
        let reply: Reply = reply?;
        match reply.status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(Ended::Revoked),
            // Vault's words for an accessor whose token is gone.
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN
                if reply.reason().is_some_and(|r| r.contains("invalid accessor")) =>
            {
                Ok(Ended::Revoked)
            }
            _ => Err(reply.refusal()),
        }
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
