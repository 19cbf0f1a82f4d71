//! The built-in issuer's keys: made at first start, rotated, and kept until no token that they signed can live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::AppError;
use super::config::CredentialKind;
use crate::adapters::credential::KeyRing;
use crate::adapters::store::{SigningKey, Store};
use crate::domain::clock::Clock;
use crate::gateway::Gateway;
use crate::system::random_hex;

/// How long a key that signs no more still verifies: far longer than any token lives.
const KEPT: Duration = Duration::from_secs(86_400);
/// How often it is looked whether a new key is due, and whether another gateway made one.
const EVERY: Duration = Duration::from_secs(60);

/// Loads the keys, makes a new one if the newest is too old, and drops those that are not needed any more.
async fn rotate(store: &dyn Store, clock: &dyn Clock, ring: &KeyRing, days: Option<u16>) -> Result<(), AppError> {
    let life = Duration::from_secs(86_400 * u64::from(days.unwrap_or(30).max(1)));
    let now = clock.now();
    let mut keys = store.signing_keys().await?;
    if keys.first().is_none_or(|newest| now.since(newest.created_at) >= life) {
        let key = SigningKey { kid: random_hex::<8>()?, created_at: now, pkcs8: KeyRing::generate()? };
        store.add_signing_key(&key).await?;
        keys.insert(0, key);
    }
    // A key retires when the one after it was made.
    let mut retired_at = None;
    let mut kept = Vec::new();
    for key in keys {
        if retired_at.is_some_and(|at| now.since(at) > KEPT) {
            store.drop_signing_key(&key.kid).await?;
        } else {
            kept.push((key.kid.clone(), key.pkcs8));
        }
        retired_at = Some(key.created_at);
    }
    Ok(ring.set(&kept)?)
}

/// Looks after the keys where any issuer may sign with them.
pub(super) async fn rotate_where_needed(
    store: &dyn Store,
    clock: &dyn Clock,
    ring: &KeyRing,
    credentials: &BTreeMap<String, CredentialKind>,
) -> Result<(), AppError> {
    let signs = |kind: &&CredentialKind| matches!(kind, CredentialKind::SignedJwt(_) | CredentialKind::OAuth(_) | CredentialKind::Vault(_));
    if !credentials.values().any(|kind| signs(&kind)) {
        return Ok(());
    }
    let days = credentials.values().find_map(|kind| match kind {
        CredentialKind::SignedJwt(file) => file.rotate_days,
        _ => None,
    });
    rotate(store, clock, ring, days).await
}

/// Rotates until stopped.
pub(super) async fn keep(gateway: Arc<Gateway>, ring: KeyRing, credentials: BTreeMap<String, CredentialKind>, stop: CancellationToken) {
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        if let Err(error) = rotate_where_needed(gateway.store.as_ref(), gateway.clock.as_ref(), &ring, &credentials).await {
            tracing::error!(%error, "the signing keys could not be looked after");
        }
    }
}
