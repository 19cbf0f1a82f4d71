//! MCP over Streamable HTTP: `POST`, `GET` and `DELETE` on `/mcp/<upstream>`.
//!
//! In order: is the host ours (DNS rebinding), who asks, is it one message, do its headers say what its body says, is
//! the session this caller's. Then tool calls go to the gateway, and everything else goes on as it came.

mod front;
mod listener;
mod mirrored;
mod reply;
mod sessions;
mod through;
mod to_child;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::answer;
use super::children::Hub;
use super::identity::{Callers, IdentityError};
use crate::adapters::credential::KeyRing;
use crate::adapters::store::LeaseState;
use crate::adapters::upstream::{ChildSettings, HttpUpstream};
use crate::domain::digest::Digest;
use crate::domain::json::Limits;
use crate::gateway::{Gateway, Server};
use front::Running;
use sessions::Sessions;

/// How long a client may take to send one message.
const SLOWEST: Duration = Duration::from_secs(30);

/// What is known of a connection over TLS.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The certificate that the client showed, if it did.
    pub certificate: Option<super::identity::PeerCertificate>,
}

/// Everything the front door needs.
pub struct HttpFront {
    /// The route of tool calls.
    pub gateway: Arc<Gateway>,
    /// The wrapped servers by name.
    pub upstreams: HashMap<String, Wrapped>,
    /// How callers are recognised.
    pub callers: Callers,
    /// The gateway's public address, such as `https://gateway.example.com`.
    pub address: String,
    /// Hosts that requests may name, beside loopback ones where the address is one.
    pub hosts: Vec<String>,
    /// The built-in issuer's keys.
    pub keys: KeyRing,
    /// How much one message may hold.
    pub limits: Limits,
    /// How many sessions it keeps.
    pub most: Most,
    /// Where work that outlives a request runs.
    pub tasks: TaskTracker,
    /// The sessions and their callers.
    pub state: FrontState,
}

/// How many sessions there are at most; a new one beyond that is refused.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Of all callers.
    pub sessions: usize,
    /// Of one caller.
    pub per_caller: usize,
}

/// What the front door remembers; lost at a restart, after which clients open new sessions.
#[derive(Default)]
pub struct FrontState {
    sessions: Mutex<Sessions>,
    running: Mutex<Running>,
    by_caller: Mutex<HashMap<(String, String), Arc<Hub>>>,
    listening: listener::Count,
}

/// A wrapped server.
pub struct Wrapped {
    /// Its name and identity.
    pub server: Arc<Server>,
    /// How it is reached.
    pub reach: Reach,
    /// Hash of the secret with which it may ask about credentials.
    pub introspection: Option<Digest>,
}

/// How a wrapped server is reached.
pub enum Reach {
    /// Over HTTP.
    Http(Box<HttpUpstream>),
    /// As a child process.
    Child(Arc<ChildSettings>),
}

/// Where the gateway describes itself as a client.
const CLIENT_DOCUMENT: &str = "/.well-known/oauth-client";

/// The routes of the front door.
pub fn routes(front: Arc<HttpFront>) -> Router {
    Router::new()
        .route("/mcp/{upstream}", any(mcp))
        .route("/.well-known/oauth-protected-resource/mcp/{upstream}", get(resource_metadata))
        .route("/.well-known/jwks.json", get(jwks))
        .route(CLIENT_DOCUMENT, get(client_document))
        .route("/introspect", post(introspect))
        .with_state(front)
}

/// Refuses requests whose host or origin is not ours: a page that a browser was lured to must not reach this port.
pub async fn only_our_hosts(State(front): State<Arc<HttpFront>>, request: Request, next: Next) -> Response {
    let name = |value: &HeaderValue| value.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => name(host),
        _ => return refuse_host(),
    };
    let origin = request.headers().get(ORIGIN).map(name);
    let origin_host = origin.as_deref().map(|o| o.split_once("://").map_or("", |(_, host)| host).to_owned());
    if !front.is_ours(&host) || origin_host.is_some_and(|host| !front.is_ours(&host)) {
        return refuse_host();
    }
    next.run(request).await
}

fn refuse_host() -> Response {
    let text = "403: this host or origin is not one of this gateway's; add it to `hosts` under `[listen]` if it should be\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

impl HttpFront {
    fn is_ours(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => host,
        };
        let loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&bare);
        loopback || self.hosts.iter().any(|ours| ours == host || ours == bare)
    }
}

async fn mcp(State(front): State<Arc<HttpFront>>, Path(name): Path<String>, request: Request) -> Response {
    let Some(wrapped) = front.upstreams.get(&name) else {
        return plain(StatusCode::NOT_FOUND, "no such upstream\n");
    };
    let (head, body) = request.into_parts();
    let authorization = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or(""));
    let certificate = head.extensions.get::<axum::extract::ConnectInfo<Connection>>().and_then(|info| info.0.certificate.as_ref());
    let caller = match front.callers.recognise(authorization, certificate, front.gateway.clock.as_ref()).await {
        Ok(caller) => caller,
        Err(error) => return front.unrecognised(&name, &error),
    };
    match head.method {
        Method::POST => {
            let body = match read_body(body, front.limits.bytes).await {
                Ok(body) => body,
                Err(refusal) => return refusal,
            };
            front::post(&front, &name, wrapped, caller, &head.headers, body).await
        }
        Method::GET => front::get(&front, &name, wrapped, &caller, &head.headers).await,
        Method::DELETE => front::delete(&front, &name, wrapped, &caller, &head.headers).await,
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "use POST, GET or DELETE\n"),
    }
}

async fn read_body(body: Body, most: usize) -> Result<Bytes, Response> {
    match tokio::time::timeout(SLOWEST, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let text = answer::error(None, -32600, &format!("a message is longer than {most} bytes"));
            Err(reply::json(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Ok(Err(_)) => Err(plain(StatusCode::BAD_REQUEST, "the message broke off\n")),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "the message took too long\n")),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

impl HttpFront {
    /// 401 with where to get a token (RFC 9728 §5.1), or 403 where a token is good and its subject nobody.
    fn unrecognised(&self, upstream: &str, error: &IdentityError) -> Response {
        tracing::warn!(upstream, %error, "a caller was not recognised");
        let (status, kind) = match error {
            IdentityError::Missing => (StatusCode::UNAUTHORIZED, ""),
            IdentityError::Invalid(_) => (StatusCode::UNAUTHORIZED, ", error=\"invalid_token\""),
            IdentityError::Unmapped => (StatusCode::FORBIDDEN, ", error=\"insufficient_scope\""),
        };
        let metadata = format!("{}/.well-known/oauth-protected-resource/mcp/{upstream}", self.address);
        let challenge = format!("Bearer resource_metadata=\"{metadata}\"{kind}");
        let mut response = reply::json(status, answer::error(None, -31001, &error.to_string()));
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// RFC 9728: which tokens this resource takes.
async fn resource_metadata(State(front): State<Arc<HttpFront>>, Path(name): Path<String>) -> Response {
    let Callers::Tokens(tokens) = &front.callers else { return plain(StatusCode::NOT_FOUND, "this gateway takes no tokens\n") };
    if !front.upstreams.contains_key(&name) {
        return plain(StatusCode::NOT_FOUND, "no such upstream\n");
    }
    let servers: Vec<&str> = tokens.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    let metadata = json!({
        "resource": format!("{}/mcp/{name}", front.address), "authorization_servers": servers,
        "bearer_methods_supported": ["header"], "resource_name": name,
    });
    reply::json(StatusCode::OK, metadata.to_string())
}

/// The gateway as a client of authorization servers (OAuth Client ID Metadata Document), for `client-metadata`.
async fn client_document(State(front): State<Arc<HttpFront>>) -> Response {
    let document = json!({
        "client_id": format!("{}{CLIENT_DOCUMENT}", front.address), "client_name": "Countersign", "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback"], "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    reply::json(StatusCode::OK, document.to_string())
}

async fn jwks(State(front): State<Arc<HttpFront>>) -> Response {
    reply::json(StatusCode::OK, front.keys.jwks().to_string())
}

#[derive(Deserialize)]
struct Question {
    token: String,
}

/// RFC 7662: whether a credential of the built-in issuer still counts. Only for upstreams, and each only about its own.
async fn introspect(
    State(front): State<Arc<HttpFront>>,
    headers: HeaderMap,
    axum::extract::Form(question): axum::extract::Form<Question>,
) -> Response {
    let secret = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    let digest = Digest::of(secret.as_bytes());
    let asker = front.upstreams.values().find(|w| w.introspection.is_some_and(|d| d == digest));
    let Some(asker) = asker.filter(|_| !secret.is_empty()) else {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "an upstream's introspection secret is needed\n").into_response();
    };
    let inactive = || reply::json(StatusCode::OK, json!({"active": false}).to_string());
    let Some(claims) = front.keys.verify(&question.token).filter(|claims| claims.aud == asker.server.audience) else { return inactive() };
    match front.gateway.store.lease(&claims.jti).await {
        Ok(Some(lease)) if lease.state == LeaseState::Minted && front.gateway.clock.now() < lease.expires_at => {
            let active = json!({
                "active": true, "scope": claims.scope, "sub": claims.sub, "aud": claims.aud, "exp": claims.exp, "jti": claims.jti,
                "token_type": "Bearer",
            });
            reply::json(StatusCode::OK, active.to_string())
        }
        Ok(_) => inactive(),
        // Not known is not active; but the asker is told that it is our fault.
        Err(error) => {
            tracing::error!(%error, "introspection could not read the journal");
            plain(StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be read now\n")
        }
    }
}

/// A body of messages as server-sent events.
type Frames = Result<Bytes, Infallible>;
