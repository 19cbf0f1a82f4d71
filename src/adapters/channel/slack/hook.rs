//! Clicks over signed HTTP: `/slack/interactions`. Nothing is read of a request before its size is known to be small,
//! and nothing of it counts before its signature does.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use slack_morphism::signature_verifier::SlackEventSignatureVerifier;

use super::clicks::{Clicks, Work};
use crate::domain::digest::Digest;

/// Most bytes of a request: a modal of 250 KB, escaped.
const MOST: usize = 1 << 20;

#[derive(Clone)]
struct Hook {
    verifier: SlackEventSignatureVerifier,
    clicks: Clicks,
}

pub(super) fn routes(secret: &str, clicks: Clicks) -> Router {
    let verifier = SlackEventSignatureVerifier::new(&secret.to_owned().into());
    Router::new().route("/slack/interactions", post(interaction)).layer(DefaultBodyLimit::max(MOST)).with_state(Hook { verifier, clicks })
}

async fn interaction(State(hook): State<Hook>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| {
        let mut all = headers.get_all(name).iter();
        all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let signature = header(SlackEventSignatureVerifier::SLACK_SIGNED_HASH_HEADER);
    let stamp = header(SlackEventSignatureVerifier::SLACK_SIGNED_TIMESTAMP);
    let refuse = |why: &'static str| {
        tracing::warn!("a request to /slack/interactions was refused: {why}");
        (StatusCode::UNAUTHORIZED, why).into_response()
    };
    let (Some(signature), Some(stamp), Ok(text)) = (signature, stamp, std::str::from_utf8(&body)) else { return refuse("it is not signed\n") };
    if hook.verifier.verify(signature, text, stamp).is_err() {
        return refuse("its signature or time is not right\n");
    }
    let Some(payload) = url::form_urlencoded::parse(&body).find(|(name, _)| name == "payload").map(|(_, value)| value) else {
        return (StatusCode::BAD_REQUEST, "there is no payload\n").into_response();
    };
    // The same request again is a replay, also after a restart: Slack signs each anew.
    let id = format!("signed {}", Digest::of(signature.as_bytes()));
    let taken = match hook.clicks.take(&id, &payload).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(%error, "a click could not be kept, and so does not count");
            return (StatusCode::SERVICE_UNAVAILABLE, "it could not be kept\n").into_response();
        }
    };
    if let Some(work) = taken.work {
        work_on(&hook.clicks, work);
    }
    match taken.answer {
        Some(answer) => ([(axum::http::header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response(),
        None => StatusCode::OK.into_response(),
    }
}

fn work_on(clicks: &Clicks, work: Work) {
    let own = clicks.clone();
    clicks.tasks().spawn(async move { own.work(work).await });
}
