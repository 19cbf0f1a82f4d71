//! The gateway's own sign-in at servers that ask for one (MCP authorization): what passes through goes with its token.
//!
//! Discovery, registration, PKCE and renewal are rmcp's. Tokens are in the store, sealed for their upstream and its
//! address; gateways that share a store share them, and only one of them renews at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::header::HeaderValue;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, AuthorizationRequest, AuthorizationSession, CredentialRefreshGuard, CredentialStore,
    OAuthClientConfig, StoredCredentials,
};
use serde_json::json;

use super::config::SignInFile;
use super::named_by;
use crate::adapters::credential::{Issuers, Web};
use crate::adapters::store::{Change, Effect, Store, StoreError};
use crate::adapters::upstream::SignIn;
use crate::domain::audit::{Entry, EventKind};
use crate::domain::clock::{Clock, Timestamp};

/// How long a token is believed without a look at the store: shorter than what it is good for when it is taken from there.
const BELIEVED: Duration = Duration::from_secs(10);
/// How often the operator is told that somebody must sign in.
const AGAIN: Duration = Duration::from_secs(60);
/// Where the browser comes back to; the port may be any (RFC 8252 §7.3).
const CALLBACK: &str = "/callback";

/// Why there is no sign-in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The server, or its authorization server, does not play along.
    #[error("the sign-in failed")]
    Refused(#[from] AuthError),
    /// The client's secret cannot be had.
    #[error("its client secret cannot be had")]
    Secret(#[from] super::config::SecretError),
    /// The store cannot be used.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The server publishes nothing about where to sign in.
    #[error("the server does not say where to sign in (RFC 9728)")]
    Undiscovered,
}

/// One upstream's sign-in.
pub struct Account {
    kept: Kept,
    client: SignInFile,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    manager: Option<AuthorizationManager>,
    token: Option<HeaderValue>,
    looked: Option<Timestamp>,
    renewed: Option<Timestamp>,
    told: Option<Timestamp>,
}

/// Where the tokens are.
#[derive(Clone)]
struct Kept {
    upstream: String,
    url: String,
    store: Arc<dyn Store>,
    issuers: Arc<Issuers>,
    clock: Arc<dyn Clock>,
    lock: PathBuf,
}

/// What is known of a sign-in, without its secrets.
#[derive(Debug)]
pub struct Standing {
    /// Who gave the tokens.
    pub issuer: Option<String>,
    /// What they are good for.
    pub scopes: Vec<String>,
    /// Whether they can be renewed without a person.
    pub renews: bool,
}

/// What became of tokens that were given up.
#[derive(Debug)]
pub enum Ended {
    /// They are dead.
    Revoked,
    /// The server takes no revocations: they are dead by their time.
    ByTime,
    /// Whether they are dead is not known, for this reason.
    Unclear(String),
}

/// A sign-in that waits for a person with a browser.
pub struct Begun(AuthorizationSession);

impl Begun {
    /// The address that the browser must visit.
    pub fn address(&self) -> &str {
        self.0.get_authorization_url()
    }

    /// Takes the address that the browser was sent back to. The tokens are kept then.
    ///
    /// # Errors
    /// If the server refused, or the address is not of this sign-in.
    pub async fn finish(&self, returned: &str) -> Result<(), SignInError> {
        self.0.handle_callback_url(returned).await?;
        Ok(())
    }
}

impl Account {
    /// The sign-in of `upstream` at `url`; `store_path` is where the store is.
    pub(super) fn new(upstream: &str, url: &str, client: SignInFile, gateway: &crate::gateway::Gateway, store_path: &std::path::Path) -> Self {
        let mut lock = store_path.as_os_str().to_owned();
        lock.push(".sign-in");
        let kept = Kept {
            upstream: upstream.to_owned(),
            url: url.to_owned(),
            store: gateway.store.clone(),
            issuers: gateway.issuers.clone(),
            clock: gateway.clock.clone(),
            lock: lock.into(),
        };
        Self { kept, client, state: tokio::sync::Mutex::default() }
    }

    /// A manager that knows the authorization server.
    async fn discovered(&self) -> Result<(AuthorizationManager, AuthorizationMetadata), SignInError> {
        let url = self.kept.url.as_str();
        let mut manager = match self.client.private_addresses {
            true => AuthorizationManager::new_allowing_private_addresses(url).await?,
            false => AuthorizationManager::new(url).await?,
        };
        manager.set_credential_store(self.kept.clone());
        let found = manager.resolve_metadata().await?;
        if !found.source.is_discovered() {
            return Err(SignInError::Undiscovered);
        }
        manager.set_metadata(found.metadata.clone());
        Ok((manager, found.metadata))
    }

    /// Begins a sign-in whose browser comes back to this port of this machine.
    ///
    /// # Errors
    /// If the server does not say where to sign in, or the gateway cannot be a client there.
    pub async fn begin(&self, port: u16) -> Result<Begun, SignInError> {
        let SignInFile { client_id, client_secret, client_metadata, scopes, .. } = &self.client;
        let mut request = AuthorizationRequest::new(callback(port)).with_client_name("Countersign").with_initial_scope_selection();
        if !scopes.is_empty() {
            request = request.with_scopes(scopes.iter().cloned());
        }
        if let Some(id) = client_id {
            request = request.with_preregistered_client(id);
        }
        if let Some(secret) = client_secret {
            request = request.with_client_secret(secret.reveal()?);
        }
        if let Some(document) = client_metadata {
            request = request.with_client_metadata_url(document);
        }
        let session = AuthorizationSession::new(self.discovered().await?.0, request).await.map_err(|(_, error)| error)?;
        // A person opens it: an address that a browser would take for anything else than a page is none.
        let page = url::Url::parse(session.get_authorization_url()).is_ok_and(|address| matches!(address.scheme(), "http" | "https"));
        if page { Ok(Begun(session)) } else { Err(SignInError::Undiscovered) }
    }

    /// Has the tokens revoked where that is possible, and forgets them in any case; nothing if there were none.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn sign_out(&self) -> Result<Option<Ended>, SignInError> {
        if self.kept.store.sign_in(&self.kept.upstream).await?.is_none() {
            return Ok(None);
        }
        let ended = match self.revoke().await {
            Ok(true) => Ended::Revoked,
            Ok(false) => Ended::ByTime,
            Err(why) => Ended::Unclear(why),
        };
        self.kept.keep(None, json!({ "how": "signed out", "revoked": matches!(ended, Ended::Revoked) })).await?;
        Ok(Some(ended))
    }

    /// Has the tokens revoked (RFC 7009). Answers whether the server does that at all.
    async fn revoke(&self) -> Result<bool, String> {
        let said = |error: SignInError| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let Some(kept) = self.kept.load().await.map_err(|error| error.to_string())? else { return Ok(false) };
        let (_, metadata) = self.discovered().await.map_err(said)?;
        // The tokens are of one authorization server, and no other is to see them.
        if kept.issuer.is_some() && kept.issuer != metadata.issuer {
            return Err("the server names another authorization server now".to_owned());
        }
        let Some(endpoint) = metadata.additional_fields.get("revocation_endpoint").and_then(serde_json::Value::as_str) else { return Ok(false) };
        // Only where the tokens came from: no server has this machine send a form to any other.
        let origin = |address: &str| url::Url::parse(address).map(|address| address.origin()).ok().filter(url::Origin::is_tuple);
        if origin(endpoint).is_none() || origin(endpoint) != origin(&metadata.token_endpoint) {
            return Err("it is revoked at another host than tokens are given at".to_owned());
        }
        let web = Web::new(endpoint, None)?;
        let secret = self.client.client_secret.as_ref().map(|secret| secret.reveal()).transpose().map_err(|error| error.to_string())?;
        let tokens = serde_json::to_value(&kept.token_response).unwrap_or_default();
        for hint in ["refresh_token", "access_token"] {
            if let Some(token) = tokens.get(hint).and_then(serde_json::Value::as_str) {
                let done = web.revoke(&kept.client_id, secret.as_deref(), token, hint, self.kept.clock.now()).await;
                done.map_err(|error| error.to_string())?;
            }
        }
        Ok(true)
    }

    /// Where it stands; nothing where nobody signed in.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn standing(&self) -> Result<Option<Standing>, SignInError> {
        let Some(kept) = self.kept.load().await? else { return Ok(None) };
        let tokens = serde_json::to_value(&kept.token_response).unwrap_or_default();
        Ok(Some(Standing {
            issuer: kept.issuer,
            scopes: kept.granted_scopes,
            renews: tokens.get("refresh_token").is_some_and(serde_json::Value::is_string),
        }))
    }

    /// The token of the store, renewed if it is about to end; `refused`: renewed in any case.
    async fn fetch(&self, state: &mut State, refused: bool) -> Result<Option<HeaderValue>, SignInError> {
        if self.kept.store.sign_in(&self.kept.upstream).await?.is_none() {
            state.manager = None;
            return Ok(None);
        }
        let mut manager = match state.manager.take() {
            Some(manager) => manager,
            None => self.discovered().await?.0,
        };
        if !manager.initialize_from_store().await? {
            return Ok(None);
        }
        if let (Some(id), Some(secret)) = (&self.client.client_id, &self.client.client_secret) {
            manager.configure_client(OAuthClientConfig::new(id, callback(0)).with_client_secret(secret.reveal()?))?;
        }
        if refused {
            manager.refresh_token().await?;
        }
        let token = manager.get_access_token().await?;
        state.manager = Some(manager);
        let header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| AuthError::InvalidTokenType("no header takes it".into()))?;
        Ok(Some(sensitive(header)))
    }

    fn complain(&self, error: &SignInError) {
        let upstream = self.kept.upstream.as_str();
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::warn!(upstream, "{error}{cause}; to sign in again: countersign upstream login {upstream}");
    }
}

#[async_trait]
impl SignIn for Account {
    async fn token(&self) -> Option<HeaderValue> {
        let mut state = self.state.lock().await;
        let now = self.kept.clock.now();
        if state.looked.is_some_and(|looked| now.since(looked) < BELIEVED) {
            return state.token.clone();
        }
        state.looked = Some(now);
        state.token = match self.fetch(&mut state, false).await {
            Ok(token) => token,
            Err(error) => {
                self.complain(&error);
                None
            }
        };
        state.token.clone()
    }

    async fn refused(&self, used: Option<&HeaderValue>, challenge: &str) -> Option<HeaderValue> {
        let upstream = self.kept.upstream.as_str();
        if challenge.contains("insufficient_scope") {
            let challenge = crate::domain::text::shortened(challenge, 300);
            tracing::warn!(upstream, challenge, "the server asks for more than the gateway was given: countersign upstream login {upstream}");
            return None;
        }
        let mut state = self.state.lock().await;
        if state.token.as_ref() != used {
            // Somebody else renewed it meanwhile.
            return state.token.clone();
        }
        let now = self.kept.clock.now();
        if used.is_some() {
            // A new token that is refused as well is not renewed over and over.
            if state.renewed.is_some_and(|renewed| now.since(renewed) < BELIEVED) {
                return None;
            }
            state.renewed = Some(now);
        }
        state.looked = Some(now);
        state.token = match self.fetch(&mut state, used.is_some()).await {
            Ok(None) => {
                let told = state.told.replace(now);
                if told.is_none_or(|told| now.since(told) >= AGAIN) {
                    tracing::warn!(upstream, "the server asks the gateway to sign in: countersign upstream login {upstream}");
                }
                None
            }
            Ok(token) => token,
            Err(error) => {
                self.complain(&error);
                None
            }
        };
        state.token.clone().filter(|token| Some(token) != used)
    }
}

fn callback(port: u16) -> String {
    format!("http://127.0.0.1:{port}{CALLBACK}")
}

fn sensitive(mut header: HeaderValue) -> HeaderValue {
    header.set_sensitive(true);
    header
}

impl Kept {
    fn place(&self) -> String {
        format!("sign-in\n{}\n{}", self.upstream, self.url)
    }

    async fn keep(&self, sealed: Option<Vec<u8>>, how: serde_json::Value) -> Result<(), StoreError> {
        let data = json!({"upstream": self.upstream, "server": named_by(&self.url), "sign_in": how});
        let entry = Entry { kind: EventKind::UpstreamSignIn, at: self.clock.now(), call: None, subject: None, data: data.to_string() };
        self.store.commit(Change::synced(entry, vec![Effect::SignIn(self.upstream.clone(), sealed)])).await.map(drop)
    }
}

fn store_failed(error: impl std::fmt::Display) -> AuthError {
    AuthError::CredentialStoreError(error.to_string())
}

#[async_trait]
impl CredentialStore for Kept {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        let Some(sealed) = self.store.sign_in(&self.upstream).await.map_err(store_failed)? else { return Ok(None) };
        // Sealed under another key, or for another address: as if nobody had signed in.
        let Some(open) = self.issuers.seal.open(&self.place(), &sealed) else { return Ok(None) };
        serde_json::from_str(&open).map(Some).map_err(store_failed)
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        let text = zeroize::Zeroizing::new(serde_json::to_string(&credentials).map_err(store_failed)?);
        let sealed = self.issuers.seal.seal(&self.place(), &text).ok_or_else(|| store_failed("there is no key that seals it"))?;
        let how = if credentials.token_response.is_some() { "signed in, or renewed" } else { "signed out" };
        let data = json!({"how": how, "issuer": credentials.issuer, "client": credentials.client_id, "scopes": credentials.granted_scopes});
        self.keep(Some(sealed), data).await.map_err(store_failed)
    }

    async fn clear(&self) -> Result<(), AuthError> {
        self.keep(None, json!({ "how": "signed out" })).await.map_err(store_failed)
    }

    async fn acquire_refresh_guard(&self) -> Result<Option<CredentialRefreshGuard>, AuthError> {
        // A refresh token is good once: two gateways that renew at the same time would lose the sign-in.
        let path = self.lock.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let file = std::fs::OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        let file = locked.await.map_err(store_failed)?.map_err(store_failed)?;
        Ok(Some(CredentialRefreshGuard::new(file)))
    }
}
