//! The inbox's routes: sign in with a one-time link, look, decide, sign out.
//!
//! A session is a cookie that only this origin's requests carry; every form carries the session's token as well, and
//! the digest of what it showed. Whatever is not right is refused with a page that says what to do.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Form, Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use maud::Markup;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::view;
use crate::adapters::channel::people::StandingError;
use crate::adapters::channel::{DeskError, Person, ReviewDesk, Verdict};
use crate::domain::approval::{Again, Approval, ReviewVerdict};
use crate::domain::digest::Digest;

/// How somebody signed in here proved who they are.
const SESSION: &str = "inbox session by one-time link";
const COOKIE_NAME: &str = "countersign_session";

#[derive(Clone)]
struct Pages {
    desk: Arc<dyn ReviewDesk>,
    /// Whether the browser reaches it by TLS: then the cookie never goes another way.
    secure: bool,
}

/// The inbox's routes.
pub fn routes(desk: Arc<dyn ReviewDesk>, secure: bool) -> Router {
    Router::new()
        .route("/inbox", get(list))
        .route("/inbox/login", get(login_page).post(login))
        .route("/inbox/logout", post(logout))
        .route("/inbox/events", get(events))
        .route("/inbox/style.css", get(|| async { asset("text/css", include_str!("style.css")) }))
        .route("/inbox/inbox.js", get(|| async { asset("text/javascript", include_str!("inbox.js")) }))
        .route("/inbox/{id}", get(one).post(decide))
        .route("/inbox/allowances/{id}", post(stop))
        .with_state(Pages { desk, secure })
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

fn page(status: StatusCode, markup: Markup) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                          frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        // Not `no-referrer`: browsers then send forms with the origin `null`, which is not ours.
        (axum::http::header::REFERRER_POLICY, "same-origin"),
        (axum::http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (axum::http::header::X_FRAME_OPTIONS, "DENY"),
    ];
    (status, headers, markup.into_string()).into_response()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    all.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// What stops a page from being shown.
enum Stop {
    SignIn,
    Desk(DeskError),
}

impl From<DeskError> for Stop {
    fn from(error: DeskError) -> Self {
        Self::Desk(error)
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn => page(StatusCode::UNAUTHORIZED, view::sign_in(None)),
            Self::Desk(error) => {
                let status = match &error {
                    DeskError::Review(_) | DeskError::Standing(_) | DeskError::Code => StatusCode::CONFLICT,
                    DeskError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
                    DeskError::Unknown => StatusCode::NOT_FOUND,
                };
                page(status, view::message("Not counted", &error.to_string()))
            }
        }
    }
}

impl Pages {
    async fn person(&self, headers: &HeaderMap) -> Result<Person, Stop> {
        let cookie = cookie(headers).ok_or(Stop::SignIn)?;
        self.desk.person(cookie).await?.ok_or(Stop::SignIn)
    }

    /// Why somebody cannot decide a call, if they cannot.
    async fn refusal(&self, person: &Person, approval: &Approval) -> Option<String> {
        let Approval::Pending(stage) = approval else { return Some(format!("It is {}.", approval.state())) };
        let request = &stage.request;
        if request.caller.owner.as_ref() == Some(&person.approver) && !request.terms.owner_may_approve {
            return Some("You answer for this caller, so you may not approve its calls.".into());
        }
        if stage.reviews.iter().any(|review| review.approver == person.approver) {
            return Some("You have decided.".into());
        }
        match self.desk.standing(approval, &person.approver).await {
            Ok(()) => None,
            Err(StandingError::NotNamed(_)) => {
                let seats: Vec<&str> = request.terms.seats(self.desk.now()).into_iter().collect();
                Some(format!("This call is for {} to decide.", seats.join(" or ")))
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

async fn list(State(pages): State<Pages>, headers: HeaderMap) -> Result<Response, Stop> {
    let person = pages.person(&headers).await?;
    let (open, settled) = pages.desk.approvals().await?;
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for approval in open {
        if pages.refusal(&person, &approval).await.is_none() { mine.push(approval) } else { others.push(approval) }
    }
    Ok(page(StatusCode::OK, view::list(&person, &mine, &others, &settled, &pages.desk.allowances().await?, pages.desk.now())))
}

async fn one(State(pages): State<Pages>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Stop> {
    let person = pages.person(&headers).await?;
    let approval = pages.desk.approval(&id).await?.ok_or(DeskError::Unknown)?;
    let (_, settled) = pages.desk.approvals().await?;
    let refusal = pages.refusal(&person, &approval).await;
    let before = pages.desk.before(&approval).await?;
    Ok(page(StatusCode::OK, view::one(&person, &approval, before.as_ref(), &settled, refusal.as_deref(), pages.desk.now())))
}

#[derive(Deserialize)]
struct Decision {
    csrf: String,
    digest: String,
    verdict: ReviewVerdict,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    again: Option<u32>,
}

async fn decide(State(pages): State<Pages>, Path(id): Path<String>, headers: HeaderMap, Form(form): Form<Decision>) -> Result<Response, Stop> {
    let person = pages.person(&headers).await?;
    check_token(&person, &form.csrf)?;
    let shown = serde_json::from_value(serde_json::Value::String(form.digest)).map_err(|_| DeskError::Unknown)?;
    let times = form.again.filter(|times| *times > 0 && form.verdict == ReviewVerdict::Approve);
    let again = match times {
        Some(times) => {
            let approval = pages.desk.approval(&id).await?.ok_or(DeskError::Unknown)?;
            approval.request().terms.again.as_ref().map(|terms| Again { times, for_ms: terms.for_ms })
        }
        None => None,
    };
    let verdict = Verdict {
        approval: id.clone(),
        approver: person.approver,
        verdict: form.verdict,
        reason: Some(form.reason),
        shown,
        channel: "inbox",
        assurance: SESSION.into(),
        code: Some(form.code).filter(|code| !code.trim().is_empty()),
        again,
    };
    pages.desk.review(verdict).await?;
    Ok(see(&format!("/inbox/{id}")))
}

#[derive(Deserialize)]
struct Stopping {
    csrf: String,
}

/// Ends what somebody allowed again.
async fn stop(State(pages): State<Pages>, Path(id): Path<String>, headers: HeaderMap, Form(form): Form<Stopping>) -> Result<Response, Stop> {
    let person = pages.person(&headers).await?;
    check_token(&person, &form.csrf)?;
    pages.desk.end_allowance(&id, &person.approver, SESSION).await?;
    Ok(see("/inbox"))
}

/// A form that does not come from our own page is not the person's doing.
fn check_token(person: &Person, token: &str) -> Result<(), Stop> {
    // Digests are compared, so that how long it takes says nothing about the token.
    if Digest::of(person.csrf.as_bytes()) == Digest::of(token.as_bytes()) { Ok(()) } else { Err(Stop::SignIn) }
}

fn see(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(value) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    token: String,
}

/// Only shows a button: whatever previews links must not use the login up.
async fn login_page(Query(login): Query<Login>) -> Response {
    page(StatusCode::OK, view::sign_in(Some(&login.token).filter(|t| !t.is_empty()).map(String::as_str)))
}

async fn login(State(pages): State<Pages>, Form(login): Form<Login>) -> Result<Response, Stop> {
    let Some(signed_in) = pages.desk.sign_in(&login.token).await? else {
        let text = "This link was used before, or is older than 15 minutes. Ask for a new one: countersign approvals login YOUR-NAME";
        return Ok(page(StatusCode::FORBIDDEN, view::message("This link is not good any more", text)));
    };
    let secure = if pages.secure { "; Secure" } else { "" };
    let value = format!("{COOKIE_NAME}={}; Path=/inbox; HttpOnly; SameSite=Strict; Max-Age=43200{secure}", signed_in.cookie);
    let mut response = see("/inbox");
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    Ok(response)
}

#[derive(Deserialize)]
struct Logout {
    csrf: String,
}

async fn logout(State(pages): State<Pages>, headers: HeaderMap, Form(form): Form<Logout>) -> Result<Response, Stop> {
    let person = pages.person(&headers).await?;
    check_token(&person, &form.csrf)?;
    if let Some(cookie) = cookie(&headers) {
        pages.desk.sign_out(cookie).await?;
    }
    let mut response = see("/inbox");
    let gone = HeaderValue::from_static("countersign_session=; Path=/inbox; HttpOnly; SameSite=Strict; Max-Age=0");
    response.headers_mut().insert(SET_COOKIE, gone);
    Ok(response)
}

/// A line whenever something may have changed, and a comment every 15 s.
async fn events(State(pages): State<Pages>, headers: HeaderMap) -> Result<Response, Stop> {
    pages.person(&headers).await?;
    let changes = pages.desk.changes();
    let stream = futures_util::stream::unfold(changes, |mut changes| async move {
        let line = match tokio::time::timeout(Duration::from_secs(15), changes.recv()).await {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => Bytes::from_static(b"data: changed\n\n"),
            Ok(Err(RecvError::Closed)) => return None,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok::<_, Infallible>(line), changes))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}
