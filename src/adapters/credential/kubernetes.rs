//! Kubernetes: a token of a service account (TokenRequest), bound to a Secret that is made for this call. Deleting the
//! Secret makes the API server refuse the token. Its name is the lease, so that a crash leaves nothing that cannot be
//! found. What the token may do is what RBAC gives the service account.
//!
//! The API server gives tokens no less than ten minutes. Source: `token-request-v1`, KEP-1205.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, Web, listed, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// The least life that the API server gives.
const LEAST: Duration = Duration::from_secs(600);

/// A cluster.
#[derive(Debug)]
pub struct Kubernetes {
    /// The API server.
    pub web: Web,
    /// The gateway's own token.
    pub token: OwnSecret,
    /// Service accounts that policies may name, as `namespace/name`.
    pub service_accounts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Parameters {
    namespace: String,
    service_account: String,
    #[serde(default)]
    audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Made {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

#[derive(Deserialize)]
struct Token {
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: String,
    expiration_timestamp: jiff::Timestamp,
}

fn secret_name(lease: &str) -> String {
    format!("countersign-{lease}")
}

impl Kubernetes {
    fn asked(&self, order: &Order) -> Result<Parameters, IssueError> {
        let asked: Parameters = order.parameters()?;
        for name in [&asked.namespace, &asked.service_account] {
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
            if !plain || !(1..=253).contains(&name.len()) || name.contains("..") || name.starts_with('.') {
                return Err(IssueError::Parameters(format!("`{name}` is not a name in Kubernetes")));
            }
        }
        listed("service-accounts", &format!("{}/{}", asked.namespace, asked.service_account), &self.service_accounts)?;
        Ok(asked)
    }

    fn body(asked: &Parameters, order: &Order, uid: &str) -> serde_json::Value {
        let mut spec = json!({
            "expirationSeconds": order.ttl.max(LEAST).as_secs(),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret_name(&order.lease), "uid": uid},
        });
        if !asked.audiences.is_empty() {
            spec.as_object_mut().map(|spec| spec.insert("audiences".into(), json!(asked.audiences)));
        }
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    }

    async fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, IssueError> {
        let token = self.token.reveal().await?;
        Ok(self.web.request(method, path).header("authorization", format!("Bearer {}", token.as_str())))
    }
}

#[async_trait]
impl Issuer for Kubernetes {
    fn nature(&self) -> Nature {
        Nature { kind: "kubernetes", ending: Ending::Revoked, named: true, lapses: true }
    }

    fn longest(&self, ttl: Duration) -> Duration {
        ttl.max(LEAST)
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let asked = self.asked(order)?;
        let secrets = self.web.shown(&format!("/api/v1/namespaces/{}/secrets", asked.namespace));
        let tokens = self.web.shown(&format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", asked.namespace, asked.service_account));
        let body = Self::body(&asked, order, "<of the secret>");
        let request = format!("POST {secrets} (the empty Secret {})\nPOST {tokens}\n{body:#}", secret_name(&order.lease));
        Ok(Plan { request, handle: Some(format!("{}/{}", asked.namespace, secret_name(&order.lease))) })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let asked = self.asked(order)?;
        let handle = self.plan(order)?.handle;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": {
                "name": secret_name(&order.lease),
                "labels": {"app.kubernetes.io/managed-by": "countersign"},
                "annotations": {"countersign/approval": order.subject, "countersign/tool": format!("{}/{}", order.server, order.tool)},
            },
        });
        let path = format!("/api/v1/namespaces/{}/secrets", asked.namespace);
        let made: Made = self.web.send(self.request(Method::POST, &path).await?.json(&secret), order.now).await?.json()?;
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", asked.namespace, asked.service_account);
        let request = self.request(Method::POST, &path).await?.json(&Self::body(&asked, order, &made.metadata.uid));
        // The Secret is there by now, whatever this answers.
        let token: Token = match self.web.send(request, order.now).await.and_then(|reply| reply.json()) {
            Ok(token) => token,
            Err(error) => return Err(IssueError::Unclear(error.to_string())),
        };
        let until = Timestamp(token.status.expiration_timestamp.as_millisecond());
        let longest = order.now.plus(self.longest(order.ttl) + Duration::from_secs(10));
        let credential = Credential { handle, ..Credential::new(token.status.token, until) };
        if until > longest {
            return Err(IssueError::Wider { why: format!("it lives until {until}"), made: Box::new(credential) });
        }
        Ok(credential)
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        let Some((namespace, name)) = held.handle.and_then(|handle| handle.split_once('/')) else {
            return Err(IssueError::Unclear("the journal does not name the Secret".into()));
        };
        let request = self.request(Method::DELETE, &format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await?;
        let reply = self.web.send(request, held.now).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(Ended::Revoked),
            status if status.is_success() => Ok(Ended::Revoked),
            _ => Err(reply.refusal()),
        }
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
