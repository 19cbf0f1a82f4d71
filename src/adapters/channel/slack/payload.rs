//! What Slack says that somebody did. Only what is needed is read, and everything may be missing: what is not there
//! counts against whoever clicked.

use serde::Deserialize;
use serde_json::Value;

use crate::adapters::channel::people::SlackId;

/// A click or a submission.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Payload {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) api_app_id: Option<String>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    team: Option<Team>,
    #[serde(default)]
    enterprise: Option<Enterprise>,
    #[serde(default)]
    pub(super) trigger_id: Option<String>,
    #[serde(default)]
    pub(super) actions: Vec<Action>,
    #[serde(default)]
    pub(super) view: Option<View>,
    #[serde(default)]
    container: Option<Container>,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    team_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Team {
    #[serde(default)]
    id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Enterprise {
    #[serde(default)]
    id: Option<String>,
}

/// A button that was pressed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Action {
    #[serde(default)]
    pub(super) action_id: String,
    #[serde(default)]
    pub(super) value: Option<String>,
}

/// A modal.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct View {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) callback_id: String,
    #[serde(default)]
    pub(super) private_metadata: String,
    #[serde(default)]
    state: Value,
}

/// Where a button was pressed.
#[derive(Clone, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    channel_id: Option<String>,
    #[serde(default)]
    message_ts: Option<String>,
}

impl Payload {
    /// Who it was: the person's own workspace, where it says so, else the one it happened in.
    pub(super) fn person(&self) -> Option<SlackId> {
        let user = self.user.as_ref()?;
        let team = user.team_id.clone().or_else(|| self.team.as_ref()?.id.clone())?;
        let enterprise = self.enterprise.as_ref().and_then(|e| e.id.clone());
        Some(SlackId { enterprise, team, id: user.id.clone()? })
    }

    /// The message that was clicked: its channel, and itself.
    pub(super) fn message(&self) -> Option<(&str, &str)> {
        let container = self.container.as_ref()?;
        container.channel_id.as_deref().zip(container.message_ts.as_deref())
    }
}

impl View {
    /// What was written or chosen in the field `name`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let answer = self.state.get("values")?.get(name)?.get(name)?;
        answer.get("value").and_then(Value::as_str).or_else(|| answer.get("selected_option")?.get("value")?.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_be_told_apart_is_nobody() {
        let person = |text: &str| serde_json::from_str::<Payload>(text).ok().and_then(|p| p.person()).map(|id| id.to_string());
        assert_eq!(person(r#"{"user":{"id":"U1","team_id":"T1"},"team":null}"#).as_deref(), Some("T1/U1"));
        assert_eq!(person(r#"{"user":{"id":"U1","team_id":"T2"},"team":{"id":"T1"}}"#).as_deref(), Some("T2/U1"));
        assert_eq!(person(r#"{"user":{"id":"U1"},"team":{"id":"T1"},"enterprise":{"id":"E1"}}"#).as_deref(), Some("E1/T1/U1"));
        for nobody in ["{}", r#"{"user":null,"team":null}"#, r#"{"user":{"id":"U1"},"team":null}"#, r#"{"user":{"team_id":"T1"}}"#, "[]", "1"] {
            assert_eq!(person(nobody), None, "{nobody}");
        }
    }
}
