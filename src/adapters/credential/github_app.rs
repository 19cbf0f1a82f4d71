//! GitHub Apps: an installation token for named repositories and permissions, deleted after the call.
//!
//! GitHub's tokens live an hour whatever is asked; the gateway deletes them, and asks again with the deleted token to see
//! that it is refused. Repositories are named inside the installation's account, so an owner in the arguments must be
//! that account. Source: REST API, "Create an installation access token for an app" and "Revoke an installation token".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, Plan, Signer, Web, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// How long installation tokens live.
const LIFE: Duration = Duration::from_secs(3600);
/// Most repositories that one token may name.
const MOST: usize = 500;

/// A GitHub App in one installation.
#[derive(Debug)]
pub struct GithubApp {
    /// The API: `https://api.github.com`.
    pub web: Web,
    /// The app's id or client id.
    pub app: String,
    /// The installation's id.
    pub installation: u64,
    /// The account that it is installed for.
    pub account: String,
    /// The app's private key.
    pub signer: Signer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The owner that the call names, or the account's name where the tool has no such argument.
    owner: String,
    repositories: Vec<String>,
    permissions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: jiff::Timestamp,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repositories: Vec<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    name: String,
    full_name: Option<String>,
}

/// How much a permission is.
fn level(text: &str) -> u8 {
    match text {
        "read" => 1,
        "write" => 2,
        _ => 3,
    }
}

impl GithubApp {
    fn asked(&self, order: &Order) -> Result<Parameters, IssueError> {
        let asked: Parameters = order.parameters()?;
        if !asked.owner.eq_ignore_ascii_case(&self.account) {
            return Err(IssueError::Parameters(format!("the owner is `{}`, and the installation is that of `{}`", asked.owner, self.account)));
        }
        if asked.repositories.is_empty() || asked.repositories.len() > MOST || asked.permissions.is_empty() {
            return Err(IssueError::Parameters(format!(
                "it needs `permissions`, and 1 to {MOST} `repositories`: without them a token is for everything"
            )));
        }
        let plain = |name: &str| {
            (1..=100).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if let Some(odd) = asked.repositories.iter().find(|name| !plain(name)) {
            return Err(IssueError::Parameters(format!("`{odd}` is not the name of a repository (without its owner)")));
        }
        if let Some((name, odd)) = asked.permissions.iter().find(|(_, level)| !matches!(level.as_str(), "read" | "write" | "admin")) {
            return Err(IssueError::Parameters(format!("the permission `{name}` is `{odd}`: `read`, `write` or `admin`")));
        }
        Ok(asked)
    }

    async fn own_token(&self, now: Timestamp) -> Result<String, IssueError> {
        // A little in the past, for clocks; ten minutes is the longest.
        self.signer.sign(&json!({"iss": self.app, "iat": now.seconds() - 30, "exp": now.seconds() + 120})).await
    }

    fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.web.request(method, path).header("accept", "application/vnd.github+json").header("user-agent", "countersign");
        request.header("x-github-api-version", "2022-11-28").header("authorization", format!("Bearer {token}"))
    }

    fn compare(&self, asked: &Parameters, granted: &Granted, now: Timestamp) -> Result<(), String> {
        let token = &granted.token;
        let known =
            token.strip_prefix("ghs_").is_some_and(|rest| rest.len() >= 16 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
        if !known {
            return Err("its token does not look like one of an installation".into());
        }
        for (name, theirs) in &granted.permissions {
            // Every token may read the metadata of what it sees.
            let own = asked.permissions.get(name).map_or(u8::from(name == "metadata"), |own| level(own));
            if level(theirs) > own {
                return Err(format!("its permission `{name}` is `{theirs}`"));
            }
        }
        if let Some(missing) = asked.permissions.keys().find(|name| !granted.permissions.contains_key(*name)) {
            return Err(format!("it has not the permission `{missing}`"));
        }
        let lower = |name: &String| name.to_ascii_lowercase();
        let own: BTreeSet<String> = asked.repositories.iter().map(lower).collect();
        let theirs: BTreeSet<String> = granted.repositories.iter().map(|repository| lower(&repository.name)).collect();
        if own != theirs {
            return Err("its repositories are not those that were asked".into());
        }
        for full in granted.repositories.iter().filter_map(|repository| repository.full_name.as_ref()) {
            if !full.split('/').next().is_some_and(|owner| owner.eq_ignore_ascii_case(&self.account)) {
                return Err(format!("`{full}` is not in the account `{}`", self.account));
            }
        }
        if granted.expires_at.as_second() - now.seconds() > i64::try_from(LIFE.as_secs()).unwrap_or(0) + 60 {
            return Err("it lives longer than an hour".into());
        }
        Ok(())
    }
}

#[async_trait]
impl Issuer for GithubApp {
    fn nature(&self) -> Nature {
        Nature { kind: "github-app", ending: Ending::Revoked, named: false, lapses: true }
    }

    fn longest(&self, _ttl: Duration) -> Duration {
        LIFE + Duration::from_secs(60)
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let asked = self.asked(order)?;
        let body = json!({"repositories": asked.repositories, "permissions": asked.permissions});
        let place = self.web.shown(&format!("/app/installations/{}/access_tokens", self.installation));
        Ok(Plan { request: format!("POST {place} as app {}\n{body:#}", self.app), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let asked = self.asked(order)?;
        let own = self.own_token(order.now).await?;
        let path = format!("/app/installations/{}/access_tokens", self.installation);
        let body = json!({"repositories": asked.repositories, "permissions": asked.permissions});
        let reply = self.web.send(self.request(Method::POST, &path, &own).json(&body), order.now).await?;
        let granted: Granted = reply.json()?;
        let compared = self.compare(&asked, &granted, order.now);
        let permissions: Vec<String> = granted.permissions.iter().map(|(name, level)| format!("{name}={level}")).collect();
        let credential = Credential::new(granted.token, Timestamp(granted.expires_at.as_millisecond()));
        let made = Credential { revoked_by_itself: true, granted: Some(permissions.join(" ")), ..credential };
        match compared {
            Ok(()) => Ok(made),
            Err(why) => Err(IssueError::Wider { why, made: Box::new(made) }),
        }
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        let Some(token) = held.secret else {
            return Err(IssueError::Unclear("the journal has no token to delete: what was minted is dead within the hour".into()));
        };
        let reply = self.web.send(self.request(Method::DELETE, "/installation/token", token), held.now).await?;
        match reply.status {
            StatusCode::NO_CONTENT => {}
            StatusCode::UNAUTHORIZED => return Ok(Ended::Revoked),
            _ => return Err(reply.refusal()),
        }
        let again = self.web.send(self.request(Method::GET, "/installation/repositories?per_page=1", token), held.now).await?;
        match again.status {
            StatusCode::UNAUTHORIZED => Ok(Ended::Revoked),
            status => Err(IssueError::Unclear(format!("the token was deleted and still works: {status}"))),
        }
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
