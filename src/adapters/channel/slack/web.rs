//! The Web API, over slack-morphism: every call has a time limit, and its errors are told apart by what to do about them.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use slack_morphism::errors::SlackClientError;
use slack_morphism::hyper_tokio::SlackClientHyperConnector;
use slack_morphism::{SlackApiToken, SlackClient};

use crate::domain::text::shortened;
use crate::metrics::SlackMetrics;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(10);

type Https = hyper_rustls::HttpsConnector<HttpConnector>;

/// Calls with one token.
pub(super) struct Web {
    client: SlackClient<SlackClientHyperConnector<Https>>,
    token: SlackApiToken,
    metrics: SlackMetrics,
}

/// Why a call did not come back with what was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum WebError {
    /// Too many calls: try again after this.
    #[error("Slack asks to wait {} s", .0.as_secs())]
    Slower(Duration),
    /// Slack says no, and why, in its own word.
    #[error("Slack answers `{0}`")]
    Refused(String),
    /// No answer, or none that can be read.
    #[error("Slack cannot be reached: {0}")]
    Unreachable(String),
}

impl WebError {
    /// Whether Slack gave this word.
    pub(super) fn is(&self, words: &[&str]) -> bool {
        matches!(self, Self::Refused(word) if words.contains(&word.as_str()))
    }

    /// Whether Slack will not do just this, however often it is asked, and may do other things.
    pub(super) fn is_final(&self) -> bool {
        let passing = self.is(&["accesslimited", "fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org"]);
        matches!(self, Self::Refused(_)) && !passing && !self.is_fatal()
    }

    /// Whether it will be the same however often it is tried: the token is of no use.
    pub(super) fn is_fatal(&self) -> bool {
        self.is(&[
            "account_inactive",
            "app_uninstalled",
            "invalid_auth",
            "missing_scope",
            "no_permission",
            "not_allowed_token_type",
            "not_authed",
            "org_login_required",
            "team_access_not_granted",
            "token_expired",
            "token_revoked",
            "user_removed_from_team",
        ])
    }
}

impl Web {
    /// Calls at `api` with `token`.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(super) fn new(api: &str, token: &str, metrics: SlackMetrics) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(LIMIT));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider).map_err(|e| e.to_string())?;
        // The configuration allows plain HTTP for loopback addresses alone.
        let connector = SlackClientHyperConnector::with_connector(https.https_or_http().enable_http1().wrap_connector(connector));
        Ok(Self { client: SlackClient::new(connector.with_slack_api_url(api)), token: SlackApiToken::new(token.to_owned().into()), metrics })
    }

    /// A call with a body.
    pub(super) async fn post<T: DeserializeOwned + Send>(&self, method: &str, body: &(impl Serialize + Send + Sync)) -> Result<T, WebError> {
        let session = self.client.open_session(&self.token);
        let call = tokio::time::timeout(LIMIT, session.http_session_api.http_post(method, body, None)).await;
        self.counted(method, call)
    }

    /// The direct conversation with a user.
    pub(super) async fn conversation_with(&self, user: &str) -> Result<String, WebError> {
        #[derive(Deserialize)]
        struct Opened {
            channel: Id,
        }
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let opened: Opened = self.post("conversations.open", &json!({"users": user})).await?;
        Ok(opened.channel.id)
    }

    /// A call with parameters.
    pub(super) async fn get<T: DeserializeOwned + Send>(&self, method: &str, parameters: &[(&str, &str)]) -> Result<T, WebError> {
        let session = self.client.open_session(&self.token);
        let parameters: Vec<(&str, Option<&str>)> = parameters.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let call = tokio::time::timeout(LIMIT, session.http_session_api.http_get(method, &parameters, None)).await;
        self.counted(method, call)
    }

    fn counted<T>(&self, method: &str, call: Result<Result<T, SlackClientError>, tokio::time::error::Elapsed>) -> Result<T, WebError> {
        let result = match call {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(plain(&error)),
            Err(_) => Err(WebError::Unreachable(format!("no answer within {} s", LIMIT.as_secs()))),
        };
        self.metrics.called(
            method,
            match &result {
                Ok(_) => "ok",
                Err(WebError::Slower(_)) => "rate-limited",
                Err(WebError::Refused(_)) => "refused",
                Err(WebError::Unreachable(_)) => "unreachable",
            },
        );
        result
    }
}

/// The crate's errors carry whole bodies, with tickets and arguments in them: only what they mean goes on.
fn plain(error: &SlackClientError) -> WebError {
    match error {
        SlackClientError::ApiError(error) if error.code == "ratelimited" => WebError::Slower(Duration::from_secs(1)),
        SlackClientError::ApiError(error) => WebError::Refused(error.code.chars().filter(|c| c.is_ascii_graphic()).take(60).collect()),
        SlackClientError::RateLimitError(error) => {
            WebError::Slower(error.retry_after.unwrap_or(Duration::from_secs(1)).clamp(Duration::from_secs(1), Duration::from_secs(600)))
        }
        SlackClientError::HttpError(error) => WebError::Unreachable(format!("status {}", error.status_code.as_u16())),
        SlackClientError::ProtocolError(_) => WebError::Unreachable("it did not answer as Slack does".into()),
        SlackClientError::HttpProtocolError(error) => WebError::Unreachable(innermost(error.cause.as_deref())),
        SlackClientError::SystemError(error) => WebError::Unreachable(innermost(error.cause.as_deref())),
        _ => WebError::Unreachable(innermost(None)),
    }
}

/// The cause at the end: what the system or TLS said, without addresses or bodies.
fn innermost(error: Option<&(dyn std::error::Error + Send + Sync + 'static)>) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.map(|error| error as _);
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    cause.map_or_else(|| "no connection".to_owned(), |cause| shortened(&cause.to_string(), 200))
}
