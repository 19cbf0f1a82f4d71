//! Google Cloud: a short-lived access token of a service account (`generateAccessToken`). Nobody can revoke it; it is
//! asked to live no longer than the policy says. What it may do is what IAM gives the service account, within `scopes`.
//! Source: IAM Service Account Credentials API.

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, Web, listed, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// Google Cloud.
#[derive(Debug)]
pub struct Gcp {
    /// The API: `https://iamcredentials.googleapis.com`.
    pub web: Web,
    /// The gateway's own access token.
    pub token: OwnSecret,
    /// Service accounts that policies may name, by their addresses.
    pub service_accounts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Parameters {
    service_account: String,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    access_token: String,
    expire_time: jiff::Timestamp,
}

impl Gcp {
    fn asked(&self, order: &Order) -> Result<(String, serde_json::Value), IssueError> {
        let asked: Parameters = order.parameters()?;
        listed("service-accounts", &asked.service_account, &self.service_accounts)?;
        if !asked.service_account.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b)) {
            return Err(IssueError::parameters("a service account is the address of one"));
        }
        let whole = |scope: &&String| scope.ends_with("/auth/cloud-platform");
        if asked.scopes.is_empty() || asked.scopes.iter().any(|scope| !scope.starts_with("https://www.googleapis.com/auth/") || whole(&scope)) {
            return Err(IssueError::parameters(
                "it needs `scopes` below `https://www.googleapis.com/auth/`, and not `cloud-platform`, which is everything",
            ));
        }
        let path = format!("/v1/projects/-/serviceAccounts/{}:generateAccessToken", asked.service_account);
        Ok((path, json!({"scope": asked.scopes, "lifetime": format!("{}s", order.ttl.as_secs())})))
    }
}

#[async_trait]
impl Issuer for Gcp {
    fn nature(&self) -> Nature {
        Nature { kind: "gcp", ending: Ending::ByTime, named: false, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let (path, body) = self.asked(order)?;
        Ok(Plan { request: format!("POST {}\n{body:#}", self.web.shown(&path)), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let (path, body) = self.asked(order)?;
        let token = self.token.reveal().await?;
        let request = self.web.request(Method::POST, &path).header("authorization", format!("Bearer {}", token.as_str())).json(&body);
        let granted: Granted = self.web.send(request, order.now).await?.json()?;
        let until = Timestamp(granted.expire_time.as_millisecond());
        let made = Credential::new(granted.access_token, until);
        if until > order.dead_by().plus(std::time::Duration::from_secs(5)) {
            return Err(IssueError::Wider { why: format!("it lives until {until}"), made: Box::new(made) });
        }
        Ok(made)
    }

    async fn revoke(&self, _held: &Held<'_>) -> Result<Ended, IssueError> {
        Ok(Ended::ByTime)
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
