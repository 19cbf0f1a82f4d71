//! The one task that writes. It takes whatever waits, writes it in one transaction and answers everybody, so that a
//! burst of calls costs one sync.
//!
//! Two connections: one that syncs at every commit, one that only writes to the file. Records of calls that policy
//! allows go through the second, one statement each when they come alone; they survive the death of this process, and
//! are synced about once a second. Everything else goes through the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};
use tokio::sync::{mpsc, oneshot, watch};

use super::sqlite::unavailable;
use super::{Change, Effect, LeaseState, StoreError};
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, Receipt, hash};
use crate::domain::digest::Digest;

/// What the writer is asked to do.
pub(super) enum Job {
    Commit(Change, Option<oneshot::Sender<Result<Receipt, StoreError>>>),
    Flush(oneshot::Sender<()>),
}

/// Most changes in one transaction.
const BATCH: usize = 256;

pub(super) struct Writer {
    pub quick: SqliteConnection,
    pub synced: SqliteConnection,
    pub instance: String,
    pub changed: watch::Sender<u64>,
    /// Whether something was written that is not synced yet; whoever syncs resets it.
    pub unsynced: Arc<AtomicBool>,
    /// The last record, where it is known; other processes may write too, so it is only a guess until written.
    pub head: Option<(i64, Digest)>,
}

impl Writer {
    /// Writes until nobody can ask any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            self.write(std::mem::take(&mut batch)).await;
        }
        let Self { quick, synced, .. } = self;
        for connection in [quick, synced] {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "the store was not closed cleanly");
            }
        }
    }

    async fn write(&mut self, batch: Vec<Job>) {
        let mut changes = Vec::new();
        let mut flushes = Vec::new();
        for job in batch {
            match job {
                Job::Commit(change, answer) => changes.push((change, answer)),
                Job::Flush(done) => flushes.push(done),
            }
        }
        let plain = changes.iter().all(|(change, _)| change.effects.is_empty() && !change.synced);
        let touched = changes.iter().any(|(change, _)| !change.effects.is_empty());
        let (changes, answers): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let results = match (plain, changes.as_slice()) {
            (_, []) => Vec::new(),
            (true, [one]) => vec![self.append_alone(&one.entry).await],
            _ => self.transact(changes, plain).await,
        };
        for (answer, result) in answers.into_iter().zip(results) {
            match (answer, result) {
                // A caller that has gone has no use for its receipt.
                (Some(answer), result) => drop(answer.send(result)),
                (None, Err(error)) => tracing::error!(%error, "a record could not be written"),
                (None, Ok(_)) => {}
            }
        }
        for done in flushes {
            let _ = done.send(());
        }
        if touched {
            self.changed.send_modify(|n| *n += 1);
        }
        self.unsynced.fetch_or(plain, Ordering::Relaxed);
    }

    /// One record in one statement: no transaction to open, and a lost race for its number is simply run again.
    async fn append_alone(&mut self, entry: &Entry) -> Result<Receipt, StoreError> {
        for _ in 0..100 {
            let (seq, previous) = match self.head {
                Some(head) => head,
                None => head(&mut self.quick).await?,
            };
            match append(&mut self.quick, &self.instance, entry, seq + 1, previous).await {
                Ok(hash) => {
                    self.head = Some((seq + 1, hash));
                    return Ok(Receipt::assertion(seq + 1, entry.kind, entry.call));
                }
                Err(error) => {
                    self.head = None;
                    let taken = matches!(&error, sqlx::Error::Database(e) if e.is_unique_violation());
                    if !taken {
                        return Err(unavailable(error));
                    }
                }
            }
        }
        Err(StoreError::Unavailable("other gateways write too fast".into()))
    }

    /// Many changes in one transaction; one that conflicts is left out alone.
    async fn transact(&mut self, changes: Vec<Change>, plain: bool) -> Vec<Result<Receipt, StoreError>> {
        let count = changes.len();
        let connection = if plain { &mut self.quick } else { &mut self.synced };
        self.head = None;
        match transact(connection, &self.instance, changes).await {
            Ok((results, head)) => {
                self.head = Some(head);
                results
            }
            Err(error) => {
                // Whether the transaction was open or not, none may be after this.
                drop(connection.execute("ROLLBACK").await);
                let text = error.to_string();
                (0..count).map(|_| Err(StoreError::Unavailable(text.clone()))).collect()
            }
        }
    }
}

type Written = (Vec<Result<Receipt, StoreError>>, (i64, Digest));

async fn transact(connection: &mut SqliteConnection, instance: &str, changes: Vec<Change>) -> Result<Written, StoreError> {
    connection.execute("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    let (mut seq, mut previous) = head(connection).await?;
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        connection.execute("SAVEPOINT change").await.map_err(unavailable)?;
        let mut applied = Ok(());
        for effect in &change.effects {
            applied = apply(connection, effect, instance, change.entry.at.0).await;
            if applied.is_err() {
                break;
            }
        }
        match applied {
            Ok(()) => {
                previous = append(connection, instance, &change.entry, seq + 1, previous).await.map_err(unavailable)?;
                seq += 1;
                results.push(Ok(Receipt::assertion(seq, change.entry.kind, change.entry.call)));
            }
            Err(StoreError::Conflict) => {
                connection.execute("ROLLBACK TO change").await.map_err(unavailable)?;
                results.push(Err(StoreError::Conflict));
            }
            Err(other) => return Err(other),
        }
        connection.execute("RELEASE change").await.map_err(unavailable)?;
    }
    connection.execute("COMMIT").await.map_err(unavailable)?;
    Ok((results, (seq, previous)))
}

async fn head(connection: &mut SqliteConnection) -> Result<(i64, Digest), StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(connection).await.map_err(unavailable)?;
    match row {
        Some(row) => Ok((row.get(0), super::sqlite::digest(row.get(1))?)),
        None => Ok((0, Digest::ZERO)),
    }
}

async fn append(connection: &mut SqliteConnection, instance: &str, entry: &Entry, seq: i64, previous: Digest) -> Result<Digest, sqlx::Error> {
    let own = hash(seq, instance, entry, &previous);
    sqlx::query("INSERT INTO audit (seq, instance, kind, at, call, subject, data, previous, hash) VALUES (?,?,?,?,?,?,?,?,?)")
        .bind(seq)
        .bind(instance)
        .bind(entry.kind.name())
        .bind(entry.at.0)
        .bind(entry.call.map(|c| c.digest().bytes().to_vec()))
        .bind(entry.subject.as_deref())
        .bind(entry.data.as_str())
        .bind(previous.bytes().as_slice())
        .bind(own.bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(own)
}

async fn apply(connection: &mut SqliteConnection, effect: &Effect, instance: &str, at: i64) -> Result<(), StoreError> {
    let done = match effect {
        Effect::Open(approval) => {
            let request = approval.request();
            let result = sqlx::query(
                "INSERT INTO approvals (id, version, key, state, instance, runs_out, findable_until, asked_at, body) VALUES (?,1,?,?,NULL,?,?,?,?)",
            )
            .bind(request.id.as_str())
            .bind(request.key.digest().bytes().to_vec())
            .bind(approval.state())
            .bind(approval.runs_out().map(|t| t.0))
            .bind(approval.findable_until().0)
            .bind(request.asked_at.0)
            .bind(body(approval)?)
            .execute(connection)
            .await;
            match result {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(StoreError::Conflict),
                other => other,
            }
        }
        Effect::Advance(next) => {
            let holder = match &next.approval {
                Approval::Redeemed(s) => Some(s.is.instance.as_str()),
                Approval::Dispatched(s) => Some(s.is.instance.as_str()),
                _ => None,
            };
            let done = sqlx::query("UPDATE approvals SET version = version + 1, state = ?, instance = ?, runs_out = ?, findable_until = ?, body = ? WHERE id = ? AND version = ?")
                .bind(next.approval.state()).bind(holder).bind(next.approval.runs_out().map(|t| t.0))
                .bind(next.approval.findable_until().0).bind(body(&next.approval)?)
                .bind(next.approval.request().id.as_str()).bind(next.version).execute(connection).await;
            if done.as_ref().is_ok_and(|d| d.rows_affected() == 0) {
                return Err(StoreError::Conflict);
            }
            done
        }
        Effect::KeepAnswer(id, bytes) => {
            sqlx::query("UPDATE approvals SET answer = ? WHERE id = ?").bind(bytes.as_slice()).bind(id.as_str()).execute(connection).await
        }
        Effect::DropAnswer(id) => sqlx::query("UPDATE approvals SET answer = NULL WHERE id = ?").bind(id.as_str()).execute(connection).await,
        Effect::Learn(server, caller, targets) => {
            for target in targets {
                sqlx::query("INSERT OR IGNORE INTO targets (server, caller, kind, value, first_seen) VALUES (?,?,?,?,?)")
                    .bind(server.as_str())
                    .bind(caller.as_str())
                    .bind(target.kind.as_str())
                    .bind(target.value.as_str())
                    .bind(at)
                    .execute(&mut *connection)
                    .await
                    .map_err(unavailable)?;
            }
            return Ok(());
        }
        Effect::Pin(server, tool, digest) => {
            sqlx::query("INSERT OR IGNORE INTO pins (server, tool, digest, pinned_at) VALUES (?,?,?,?)")
                .bind(server.as_str())
                .bind(tool.as_str())
                .bind(digest.bytes().as_slice())
                .bind(at)
                .execute(connection)
                .await
        }
        Effect::Unpin(server) => sqlx::query("DELETE FROM pins WHERE server = ?").bind(server.as_str()).execute(connection).await,
        Effect::Intend(lease) => sqlx::query(
            "INSERT INTO leases (id, issuer, subject, call, instance, audience, scope, state, created_at, expires_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
        )
        .bind(lease.id.as_str())
        .bind(lease.issuer.as_str())
        .bind(lease.subject.as_str())
        .bind(lease.call.digest().bytes().to_vec())
        .bind(instance)
        .bind(lease.audience.as_str())
        .bind(lease.scope.as_str())
        .bind(lease_state(LeaseState::Intended))
        .bind(lease.created_at.0)
        .bind(lease.expires_at.0)
        .execute(connection)
        .await,
        Effect::Lease(id, state) => {
            // A lease that ended stays ended.
            let done = sqlx::query("UPDATE leases SET state = ? WHERE id = ? AND state IN ('intended', 'minted')")
                .bind(lease_state(*state))
                .bind(id.as_str())
                .execute(connection)
                .await;
            if done.as_ref().is_ok_and(|d| d.rows_affected() == 0) {
                return Err(StoreError::Conflict);
            }
            done
        }
    };
    done.map(drop).map_err(unavailable)
}

fn body(approval: &Approval) -> Result<String, StoreError> {
    serde_json::to_string(approval).map_err(|e| StoreError::Corrupt(e.to_string()))
}

pub(super) fn lease_state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Intended => "intended",
        LeaseState::Minted => "minted",
        LeaseState::Revoked => "revoked",
        LeaseState::Expired => "expired",
    }
}
