//! Who has an account in Slack, and who is in a user group: looked up anew after a minute at most, and nobody is
//! taken for good where Slack does not say so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;

use super::web::{Web, WebError};
use crate::adapters::channel::people::{Directory, FRESH, SlackId, StandingError};
use crate::domain::clock::{Clock, Timestamp};

/// Accounts and user groups of a workspace.
pub(super) struct Accounts {
    pub(super) web: Arc<Web>,
    pub(super) clock: Arc<dyn Clock>,
    seen: Mutex<HashMap<SlackId, Seen>>,
}

/// When somebody was looked up, and what is the matter with their account, if anything is.
type Seen = (Timestamp, Result<(), String>);

#[derive(Deserialize)]
struct Found {
    user: User,
}

/// What `users.info` says, as far as it matters. What is missing counts against them.
#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    team_id: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    is_bot: bool,
    #[serde(default)]
    is_restricted: bool,
    #[serde(default)]
    is_ultra_restricted: bool,
    #[serde(default)]
    is_stranger: bool,
    #[serde(default)]
    is_workflow_bot: bool,
    #[serde(default)]
    enterprise_user: Option<EnterpriseUser>,
}

#[derive(Deserialize)]
struct EnterpriseUser {
    #[serde(default)]
    teams: Vec<String>,
}

#[derive(Deserialize)]
struct Members {
    users: Vec<String>,
}

impl Accounts {
    pub(super) fn new(web: Arc<Web>, clock: Arc<dyn Clock>) -> Self {
        Self { web, clock, seen: Mutex::default() }
    }

    async fn look(&self, account: &SlackId) -> Result<Result<(), String>, WebError> {
        let found: Found = match self.web.get("users.info", &[("user", &account.id)]).await {
            Ok(found) => found,
            Err(error) if error.is(&["user_not_found", "user_not_visible"]) => return Ok(Err("Slack does not know their account".into())),
            Err(error) => return Err(error),
        };
        Ok(full_member(account, &found.user).map_err(str::to_owned))
    }
}

fn full_member(account: &SlackId, user: &User) -> Result<(), &'static str> {
    let teams = user.enterprise_user.as_ref().map(|e| e.teams.as_slice()).unwrap_or_default();
    if user.id != account.id || (user.team_id.as_ref() != Some(&account.team) && !teams.contains(&account.team)) {
        return Err("their account belongs to another workspace");
    }
    if user.deleted {
        return Err("their account is deactivated");
    }
    if user.is_bot || user.is_workflow_bot {
        return Err("their account is a bot's");
    }
    if user.is_restricted || user.is_ultra_restricted {
        return Err("their account is a guest's");
    }
    if user.is_stranger {
        return Err("their account belongs to another organisation");
    }
    Ok(())
}

#[async_trait]
impl Directory for Accounts {
    async fn members(&self, group: &SlackId) -> Result<Vec<SlackId>, String> {
        let found: Members = self.web.get("usergroups.users.list", &[("usergroup", &group.id)]).await.map_err(|e| e.to_string())?;
        Ok(found.users.into_iter().map(|id| SlackId { enterprise: group.enterprise.clone(), team: group.team.clone(), id }).collect())
    }

    async fn check(&self, account: &SlackId) -> Result<(), StandingError> {
        let now = self.clock.now();
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(account).filter(|(at, _)| now.since(*at) < FRESH).cloned();
        let standing = match known {
            Some((_, standing)) => standing,
            None => {
                let unknown = |error: WebError| StandingError::Unknown { name: account.to_string(), why: error.to_string() };
                let standing = self.look(account).await.map_err(unknown)?;
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(account.clone(), (now, standing.clone()));
                standing
            }
        };
        standing.map_err(|why| StandingError::Account { name: account.to_string(), why })
    }
}
