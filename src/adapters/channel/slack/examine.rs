//! Tries the link to Slack: tokens, scopes, accounts, user groups, the socket, and a message where one is wanted.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::card::line;
use super::clicks::Clicks;
use super::web::WebError;
use super::{Delivery, Slack, socket};
use crate::adapters::channel::PostDesk;
use crate::adapters::channel::people::{Approver, Group};

/// One thing that was tried, and what came of it.
#[derive(Debug)]
pub struct Checked {
    /// What.
    pub what: String,
    /// What was seen, or what is wrong and what to do.
    pub came: Result<String, String>,
}

#[derive(Deserialize)]
struct Me {
    #[serde(default)]
    team: String,
    #[serde(default)]
    team_id: String,
    #[serde(default)]
    bot_id: Option<String>,
    #[serde(default)]
    is_enterprise_install: bool,
}

impl Slack {
    /// Tries everything that approving in Slack needs. Posts to `post_to` only where one is named.
    pub async fn examine(&self, desk: Arc<dyn PostDesk>, post_to: Option<&str>) -> Vec<Checked> {
        let shared = &self.shared;
        let mut all = Vec::new();
        let mut note = |what: &str, came: Result<String, String>| all.push(Checked { what: what.to_owned(), came });
        let me = shared.web.post::<Me>("auth.test", &json!({})).await;
        let reached = me.is_ok();
        let hint = |error: WebError| match error {
            WebError::Refused(_) => format!("{error}: is it the xoxb- token of this app, and is the app installed?"),
            other => format!("{other}: is the network open to {}?", shared.settings.api),
        };
        note(
            "bot token",
            me.map_err(hint).and_then(|me| match me.bot_id {
                Some(bot) => Ok(format!(
                    "good for {} ({}), bot {bot}{}",
                    me.team,
                    me.team_id,
                    if me.is_enterprise_install { ", installed for the whole organisation" } else { "" }
                )),
                None => Err("this is not a bot's token: use the one that begins with xoxb-".into()),
            }),
        );
        if !reached {
            return all;
        }
        match &shared.settings.clicks {
            Delivery::Sockets { .. } => {
                let clicks = Clicks::new(shared.clone(), desk.clone());
                let came = socket::try_once(shared, &clicks, &desk).await;
                note("Socket Mode", came.map(|n| format!("connected; the app has {n} connections with this one")));
            }
            Delivery::Signed { .. } => note(
                "signed requests",
                Ok(format!("Slack must be told this address under Interactivity: {}/slack/interactions", shared.settings.inbox)),
            ),
        }
        for (name, approver) in shared.people.all() {
            match approver {
                Approver::Person(person) if person.slack.is_some() => {
                    note(
                        &format!("approver {name}"),
                        shared.people.check_account(name).await.map(|()| "a full member".into()).map_err(|e| e.to_string()),
                    );
                }
                Approver::Person(_) => note(&format!("approver {name}"), Ok("has no `slack` id: decides in the inbox or terminal".into())),
                Approver::Group(source) => {
                    let came = shared.people.holders(name, shared.clock.now()).await;
                    let hint = if matches!(source, Group::Slack(_)) { ": has the app the scope usergroups:read?" } else { "" };
                    note(
                        &format!("group {name}"),
                        match came {
                            Ok(members) if members.is_empty() => Err("none of its members is an `[approver.…]` with that `slack` id".into()),
                            Ok(members) => Ok(members.join(", ")),
                            Err(why) => Err(format!("{why}{hint}")),
                        },
                    );
                }
            }
        }
        if let Some(name) = post_to {
            note(&format!("a message to {name}"), self.greet(name).await);
        }
        all
    }

    async fn greet(&self, name: &str) -> Result<String, String> {
        let shared = &self.shared;
        let account = shared.people.person(name).and_then(|p| p.slack.as_ref()).ok_or_else(|| format!("`{name}` has no `slack` id"))?;
        let hint = |what: &str, scope: &str, error: &dyn std::fmt::Display| format!("{what}: {error}. Has the app the scope {scope}?");
        let place = shared.web.conversation_with(&account.id).await.map_err(|e| hint("no conversation", "im:write", &e))?;
        let message = line("Countersign can reach you here. There is nothing to decide.");
        let body =
            json!({"channel": place, "text": "Countersign can reach you", "blocks": message.blocks, "unfurl_links": false, "unfurl_media": false});
        let sent = shared.web.post::<Value>("chat.postMessage", &body).await.map_err(|e| hint("not posted", "chat:write", &e))?;
        drop(sent);
        Ok("posted: look for it in Slack".into())
    }
}
