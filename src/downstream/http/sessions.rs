//! The sessions of clients over HTTP, and the children that serve callers who have none.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;

use super::front::session_id;
use super::{HttpFront, Most, Reach, Wrapped};
use crate::domain::call::Caller;
use crate::domain::clock::Timestamp;
use crate::downstream::children::Hub;

/// Most sessions that have a child process of their own.
const MOST_CHILDREN: usize = 256;
/// How long a session lives that nobody uses.
const IDLE: Duration = Duration::from_secs(3600);

/// Sessions by id. A session of another caller or another upstream answers like one that is not known.
#[derive(Default)]
pub(in super::super) struct Sessions(HashMap<String, Session>);

struct Session {
    caller: Caller,
    upstream: String,
    hub: Option<Arc<Hub>>,
    /// What the client calls itself.
    client: Option<String>,
    used: Timestamp,
}

impl HttpFront {
    pub(super) fn session(&self, id: &str, upstream: &str, caller: &Caller) -> Option<Option<Arc<Hub>>> {
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.0.get_mut(id).filter(|s| s.caller == *caller && s.upstream == upstream)?;
        session.used = self.gateway.clock.now();
        Some(session.hub.clone())
    }

    /// Remembers a session; answers whether there was room for it.
    pub(super) fn remember(&self, id: &str, upstream: &str, caller: &Caller, hub: Option<Arc<Hub>>, client: Option<String>) -> bool {
        let used = self.gateway.clock.now();
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Most { sessions: most, per_caller } = self.most;
        if hub.is_some() || sessions.0.len() >= per_caller.min(most) {
            sessions.0.retain(|_, s| used.since(s.used) < IDLE && s.hub.as_ref().is_none_or(|hub| !hub.ended()));
        }
        let children = || sessions.0.values().filter(|s| s.hub.is_some()).count();
        let own = || sessions.0.values().filter(|s| s.caller == *caller).count();
        if sessions.0.len() >= most || (sessions.0.len() >= per_caller && own() >= per_caller) || (hub.is_some() && children() >= MOST_CHILDREN) {
            return false;
        }
        sessions.0.insert(id.to_owned(), Session { caller: caller.clone(), upstream: upstream.to_owned(), hub, client, used });
        true
    }

    /// What the client of a session calls itself.
    pub(super) fn client(&self, headers: &HeaderMap) -> Option<String> {
        let sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.0.get(session_id(headers)?)?.client.clone()
    }

    pub(super) fn forget(&self, id: &str) {
        self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner).0.remove(id);
    }

    /// The child that serves a caller of the stateless era.
    pub(super) fn child_of(self: &Arc<Self>, upstream: &str, wrapped: &Wrapped, caller: &Caller) -> std::io::Result<Arc<Hub>> {
        let Reach::Child(settings) = &wrapped.reach else { return Err(std::io::Error::other("not a child")) };
        let mut children = self.state.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.name.clone(), upstream.to_owned());
        if let Some(hub) = children.get(&key).filter(|hub| !hub.ended()) {
            return Ok(hub.clone());
        }
        let hub = Hub::start(settings.clone(), true, &self.tasks)?;
        children.insert(key, hub.clone());
        Ok(hub)
    }
}
