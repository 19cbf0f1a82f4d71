//! Builds the channels to approvers from the configuration, and has them listen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::AppError;
use super::config::{ChannelKind, Config, Secret};
use crate::adapters::channel::people::{Code, People};
use crate::adapters::channel::slack::{self, Delivery, Slack, SlackSettings};
use crate::adapters::channel::{Channel, PostDesk};
use crate::adapters::store::Instances;
use crate::domain::clock::Clock;
use crate::metrics::Metrics;

/// Has one of the gateways that share the store speak for a channel; another takes over after it.
pub(super) async fn listen(channel: Arc<dyn Channel>, desk: Arc<dyn PostDesk>, instances: &Instances, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match instances.lead(channel.name()) {
            Ok(Some(_lead)) => return channel.listen(desk, stop).await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, channel = channel.name(), "the lead could not be taken"),
        }
        drop(tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await);
    }
}

/// The secrets of one-time codes.
pub(super) fn codes(config: &Config) -> Result<BTreeMap<String, Code>, AppError> {
    let code = |(name, secret): (&String, &Secret)| {
        let text = secret.reveal().map_err(|source| AppError::ChannelSecret { place: format!("[approver.{name}] totp"), source })?;
        Ok((name.clone(), Code::new(&text).map_err(|source| AppError::Code { name: name.clone(), source })?))
    };
    config.codes.iter().map(code).collect()
}

/// Slack, where it is configured.
pub(super) fn slack(
    config: &Config,
    address: &str,
    people: &Arc<People>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    tasks: &TaskTracker,
) -> Result<Option<Slack>, AppError> {
    let Some((name, ChannelKind::Slack(file))) = config.channels.iter().next() else { return Ok(None) };
    let reveal =
        |key: &str, secret: &Secret| secret.reveal().map_err(|source| AppError::ChannelSecret { place: format!("[channel.{name}] {key}"), source });
    let clicks = match (&file.app_token, &file.signing_secret) {
        (Some(token), _) => Delivery::Sockets {
            token: reveal("app-token", token)?,
            count: file.sockets.unwrap_or(2),
            refresh: file.refresh.map_or(Duration::from_secs(600), |l| l.0),
        },
        (None, Some(secret)) => Delivery::Signed { secret: reveal("signing-secret", secret)? },
        (None, None) => return Ok(None),
    };
    let settings = SlackSettings {
        app_id: file.app_id.clone(),
        bot_token: reveal("bot-token", &file.bot_token)?,
        clicks,
        api: file.api.as_deref().unwrap_or(slack::API).trim_end_matches('/').to_owned(),
        room: file.room.clone(),
        cards_per_person: file.cards_per_person.unwrap_or(10),
        inbox: address.to_owned(),
    };
    let slack = Slack::new(settings, people.clone(), clock.clone(), metrics.slack.clone(), tasks.clone());
    slack.map(Some).map_err(|source| AppError::Slack { name: name.clone(), source })
}
