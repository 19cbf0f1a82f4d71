//! Slack: approvers are asked on cards and decide with buttons.
//!
//! `poster` brings what is posted in line with the approvals, from an outbox that is written with each of their
//! changes; `socket` and `hook` take what people do, `clicks` judges it. Slack is never believed: a click is a
//! wish of whoever has that account, and the gateway decides whether it counts.

mod card;
mod clicks;
mod directory;
mod examine;
mod hook;
mod kit;
mod modal;
mod payload;
mod poster;
mod socket;
mod web;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::people::{Directory, People};
use super::{Channel, PostDesk};
use crate::domain::approval::Approval;
use crate::domain::audit::EventKind;
use crate::domain::clock::{Clock, Timestamp};
use crate::metrics::SlackMetrics;
use clicks::Clicks;
use directory::Accounts;
pub use examine::Checked;
use web::Web;

/// `kind` in the configuration, and the name in the outbox and the record.
pub const KIND: &str = "slack";
/// The Web API's address.
pub const API: &str = "https://slack.com/api";

/// What the operator says of Slack, its secrets had.
pub struct SlackSettings {
    /// The app's id.
    pub app_id: String,
    /// The bot's token.
    pub bot_token: String,
    /// How clicks come.
    pub clicks: Delivery,
    /// The Web API's address, without a slash at the end.
    pub api: String,
    /// The id of a channel to ask in, instead of direct messages.
    pub room: Option<String>,
    /// How many cards ask one person at once.
    pub cards_per_person: u32,
    /// Where approvers reach the inbox.
    pub inbox: String,
}

/// How clicks come.
pub enum Delivery {
    /// Over sockets that we open.
    Sockets {
        /// The app's token.
        token: String,
        /// How many.
        count: u8,
        /// After how long each is replaced.
        refresh: Duration,
    },
    /// In signed requests to `/slack/interactions`.
    Signed {
        /// The signing secret.
        secret: String,
    },
}

/// Why Slack cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("tls could not be set up: {0}")]
pub struct SlackError(String);

/// The channel.
pub struct Slack {
    shared: Arc<Shared>,
}

/// What the parts share.
struct Shared {
    settings: SlackSettings,
    web: Arc<Web>,
    people: Arc<People>,
    clock: Arc<dyn Clock>,
    metrics: SlackMetrics,
    tasks: TaskTracker,
    /// Something changed: the outbox is looked at.
    wake: Notify,
    health: Health,
}

/// How the link to Slack is.
#[derive(Default)]
struct Health {
    /// Sockets that Slack greeted.
    live: AtomicUsize,
    /// Sockets on their way, greeted or being closed: Slack may count each of them.
    ours: AtomicUsize,
    /// Somebody else has connections of our app.
    foreign: AtomicBool,
    /// Whether this process speaks with Slack; another that shares the store may.
    leads: AtomicBool,
    /// What is wrong for good.
    fatal: Mutex<Option<String>>,
    /// What keeps cards from being posted.
    posting: Mutex<Option<String>>,
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slack")
    }
}

impl Slack {
    /// Slack with these settings. `people` look accounts and user groups up there from now on.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(
        settings: SlackSettings,
        people: Arc<People>,
        clock: Arc<dyn Clock>,
        metrics: SlackMetrics,
        tasks: TaskTracker,
    ) -> Result<Self, SlackError> {
        let web = Arc::new(Web::new(&settings.api, &settings.bot_token, metrics.clone()).map_err(SlackError)?);
        let accounts: Arc<dyn Directory> = Arc::new(Accounts::new(web.clone(), clock.clone()));
        people.look_up_in(accounts);
        let shared = Shared { settings, web, people, clock, metrics, tasks, wake: Notify::new(), health: Health::default() };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// The card that asks about an approval, as it would be posted; for looking at it without Slack.
pub fn preview(approval: &Approval, people: &People, now: Timestamp) -> serde_json::Value {
    let drawn = card::Drawn { approval, before: None, people, now };
    let card = drawn.asking(card::Buttons::Decide("0123456789abcdef0123456789abcdef"), &[]);
    json!({"text": card.text, "blocks": card.blocks})
}

impl Shared {
    /// Whether a click on a card posted now would come to us.
    fn hears(&self) -> bool {
        let fatal = self.health.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let sockets = matches!(self.settings.clicks, Delivery::Signed { .. }) || self.health.live.load(Ordering::SeqCst) > 0;
        !fatal && sockets && !self.health.foreign.load(Ordering::SeqCst)
    }

    /// Slack will not do this however often it is tried.
    fn give_up(&self, why: String) {
        tracing::error!("Slack is of no use until this is put right and countersign started again: {why}");
        *self.health.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// What is wrong, if anything.
    fn trouble(&self) -> Option<String> {
        if let Some(why) = self.health.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Some(why);
        }
        if self.health.foreign.load(Ordering::SeqCst) {
            return Some("SOMEBODY ELSE has connections of this app and takes clicks: revoke the app token".into());
        }
        if self.health.leads.load(Ordering::SeqCst) && !self.hears() {
            return Some("no socket is connected".into());
        }
        self.health.posting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps why the last card could not be posted, or that it could.
    fn posting(&self, why: Option<String>) {
        *self.health.posting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Sets the alarm about connections that are not ours, or ends it.
    async fn alarm(&self, desk: &dyn PostDesk, foreign: bool) {
        if self.health.foreign.swap(foreign, Ordering::SeqCst) == foreign {
            return;
        }
        match foreign {
            true => tracing::error!(
                "ALARM: somebody else has Socket Mode connections of this app and takes clicks. No cards are posted. \
                 Revoke the app token in Slack's app settings and give countersign a new one"
            ),
            false => tracing::warn!("all connections of this app are ours again"),
        }
        let what = if foreign { "foreign connections" } else { "no foreign connections any more" };
        if let Err(error) = desk.note(EventKind::Alarm, None, json!({"channel": KIND, "what": what})).await {
            tracing::error!(%error, "the alarm could not be recorded");
        }
    }
}

#[async_trait]
impl Channel for Slack {
    fn name(&self) -> &'static str {
        KIND
    }

    fn place(&self, _approval: &Approval) -> Option<String> {
        // A process that does not lead cannot know: the one that does posts.
        let other = !self.shared.health.leads.load(Ordering::SeqCst);
        (other || self.shared.hears()).then(|| "Slack".to_owned())
    }

    async fn ask(&self, _approval: &Approval) {
        self.shared.wake.notify_one();
    }

    async fn tell(&self, _approval: &Approval) {
        self.shared.wake.notify_one();
    }

    fn routes(&self, desk: Arc<dyn PostDesk>) -> Option<axum::Router> {
        match &self.shared.settings.clicks {
            Delivery::Signed { secret } => Some(hook::routes(secret, Clicks::new(self.shared.clone(), desk))),
            Delivery::Sockets { .. } => None,
        }
    }

    async fn listen(&self, desk: Arc<dyn PostDesk>, stop: CancellationToken) {
        let shared = self.shared.clone();
        shared.health.leads.store(true, Ordering::SeqCst);
        let clicks = Clicks::new(shared.clone(), desk.clone());
        let sockets = async {
            if let Delivery::Sockets { token, count, refresh } = &shared.settings.clicks {
                socket::run(&shared, token, usize::from(*count), *refresh, &clicks, &desk, &stop).await;
            }
        };
        // What people did and nobody looked at, beside what they do now.
        tokio::join!(clicks.catch_up(&stop), sockets, poster::run(&shared, desk.as_ref(), &stop));
        shared.health.leads.store(false, Ordering::SeqCst);
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }
}
