//! Figures for whoever watches the gateway, in the OpenMetrics text format, on `/metrics`. No argument, secret or
//! approval id is ever a label.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::approval::{Review, ReviewVerdict};

/// Seconds that a person needed: from a glance to a working day.
fn seconds() -> Histogram {
    Histogram::new([2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0, 3600.0, 28_800.0])
}

type Labels<const N: usize> = [(&'static str, String); N];

/// Every figure.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reviews: Family<Labels<3>, Counter>,
    decided: Family<Labels<1>, Histogram>,
    /// What a channel with a service behind it is like.
    pub slack: SlackMetrics,
}

/// Figures about Slack.
#[derive(Clone, Default)]
pub struct SlackMetrics {
    /// Sockets that Slack greeted and that are alive.
    pub sockets: Gauge,
    /// Sockets of our app that are not ours: whoever has them takes our clicks.
    pub foreign: Gauge,
    /// When Slack last greeted a socket, in seconds since 1970.
    pub last_hello: Gauge<f64, AtomicU64>,
    /// Clicks and submissions that came.
    pub clicks: Counter,
    /// Calls of the Web API by method and outcome.
    pub calls: Family<Labels<2>, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let reviews = Family::default();
        let decided: Family<Labels<1>, Histogram> = Family::new_with_constructor(seconds);
        let slack = SlackMetrics::default();
        let mut registry = Registry::with_prefix("countersign");
        registry.register("reviews", "Verdicts that counted, by approver, verdict and channel", Family::clone(&reviews));
        registry.register("decision_seconds", "Time from the question to an approver's verdict", Family::clone(&decided));
        registry.register("slack_sockets", "Live Socket Mode connections", slack.sockets.clone());
        registry.register("slack_foreign_sockets", "Connections of this app that are not ours: an alarm", slack.foreign.clone());
        registry.register("slack_last_hello_seconds", "When Slack last greeted a connection", slack.last_hello.clone());
        registry.register("slack_clicks", "Clicks and submissions that came from Slack", slack.clicks.clone());
        registry.register("slack_calls", "Calls of the Web API, by method and outcome", slack.calls.clone());
        Self { registry: Arc::new(registry), reviews, decided, slack }
    }
}

impl Metrics {
    /// Counts a verdict that counted, and how long it took.
    pub fn reviewed(&self, review: &Review, took: Duration) {
        let verdict = if review.verdict == ReviewVerdict::Approve { "approve" } else { "deny" };
        let labels = [("approver", review.approver.clone()), ("verdict", verdict.to_owned()), ("channel", review.channel.clone())];
        self.reviews.get_or_create(&labels).inc();
        self.decided.get_or_create(&[("approver", review.approver.clone())]).observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string cannot fail.
            Err(_) => String::new(),
        }
    }
}

impl SlackMetrics {
    /// Counts a call of the Web API.
    pub fn called(&self, method: &str, outcome: &str) {
        self.calls.get_or_create(&[("method", method.to_owned()), ("outcome", outcome.to_owned())]).inc();
    }
}
