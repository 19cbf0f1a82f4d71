//! The one task that writes. It takes whatever waits, writes it in one transaction and answers everybody, so that a
//! burst of calls costs one sync.
//!
//! Before anything else it moves the spool, so that records keep their order. Two connections: one that syncs at every
//! commit, and one for the spool alone that only writes to the file and is synced about once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};
use sqlx::{Connection, Executor, QueryBuilder, Row};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use super::spool::{Line, Spool};
use super::sqlite::unavailable;
use super::{Change, Effect, LeaseState, StoreError};
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, Receipt, hash};
use crate::domain::digest::Digest;

/// What the writer is asked to do.
pub(super) enum Job {
    Adopt(String, Vec<Line>, oneshot::Sender<Result<(), StoreError>>),
    Commit(Box<Change>, oneshot::Sender<Result<Receipt, StoreError>>),
    Flush(oneshot::Sender<()>),
}

/// Most changes in one transaction.
const BATCH: usize = 256;
/// Most records in one statement.
const AT_ONCE: usize = 64;
/// How long a record lies in the spool at most, while the store works.
const SPOOL_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    pub(super) quick: SqliteConnection,
    pub(super) synced: SqliteConnection,
    pub(super) instance: String,
    /// Channels that must look at every approval that changes.
    pub(super) outbox: Vec<&'static str>,
    /// Hears which approvals were changed.
    pub(super) changed: broadcast::Sender<Arc<str>>,
    pub(super) spool: Arc<Spool>,
    /// The spool has many lines.
    pub(super) full: Arc<Notify>,
    /// Whether something was written that is not synced yet; whoever syncs resets it.
    pub(super) unsynced: Arc<AtomicBool>,
}

impl Writer {
    /// Writes until nobody can ask any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        let full = self.full.clone();
        let mut spooled = tokio::time::interval(SPOOL_EVERY);
        spooled.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                count = jobs.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.write(std::mem::take(&mut batch)).await;
                }
                _ = spooled.tick() => self.move_spool().await,
                () = full.notified() => self.move_spool().await,
            }
        }
        self.move_spool().await;
        let Self { quick, synced, .. } = self;
        for connection in [quick, synced] {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "the store was not closed cleanly");
            }
        }
    }

    /// Moves the spool by itself.
    async fn move_spool(&mut self) {
        let lines = self.spool.take();
        if lines.is_empty() && !self.spool.is_refusing() {
            return;
        }
        match transact(&mut self.quick, &self.instance, &self.outbox, &lines, &[]).await {
            Ok(_) => {
                self.spool.moved();
                self.unsynced.store(true, Ordering::Relaxed);
            }
            Err(error) => self.refused(lines, &error),
        }
    }

    fn refused(&self, lines: Vec<Line>, error: &StoreError) {
        // Once: it is tried again ten times a second.
        if !self.spool.is_refusing() {
            tracing::error!(%error, "records of calls could not be written; no call runs until they are");
        }
        self.spool.put_back(lines);
    }

    async fn write(&mut self, batch: Vec<Job>) {
        let (mut changes, mut answers, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Adopt(instance, lines, answer) => {
                    let adopted = transact(&mut self.synced, &instance, &[], &lines, &[]).await;
                    // Whoever asked has gone with its gateway.
                    let _ = answer.send(adopted.map(drop));
                }
                Job::Commit(change, answer) => {
                    changes.push(*change);
                    answers.push(answer);
                }
                Job::Flush(done) => flushes.push(done),
            }
        }
        if changes.is_empty() {
            self.move_spool().await;
        } else {
            let lines = self.spool.take();
            let results = match transact(&mut self.synced, &self.instance, &self.outbox, &lines, &changes).await {
                Ok(results) => {
                    self.spool.moved();
                    results
                }
                Err(error) => {
                    if !lines.is_empty() {
                        self.refused(lines, &error);
                    }
                    changes.iter().map(|_| Err(error.clone())).collect()
                }
            };
            for ((answer, result), change) in answers.into_iter().zip(results).zip(&changes) {
                if result.is_ok() {
                    // Nobody may be waiting for any.
                    change.effects.iter().filter_map(touched).for_each(|id| drop(self.changed.send(id.into())));
                }
                // A caller that has gone has no use for its receipt.
                drop(answer.send(result));
            }
        }
        for done in flushes {
            let _ = done.send(());
        }
    }
}

type Results = Vec<Result<Receipt, StoreError>>;

/// The lines of a spool and then many changes, in one transaction; a change that conflicts is left out alone.
async fn transact(
    connection: &mut SqliteConnection,
    instance: &str,
    outbox: &[&str],
    lines: &[Line],
    changes: &[Change],
) -> Result<Results, StoreError> {
    let done = attempt(connection, instance, outbox, lines, changes).await;
    if done.is_err() {
        // Whether the transaction was open or not, none may be after this.
        drop(connection.execute("ROLLBACK").await);
    }
    done
}

async fn attempt(
    connection: &mut SqliteConnection,
    instance: &str,
    outbox: &[&str],
    lines: &[Line],
    changes: &[Change],
) -> Result<Results, StoreError> {
    connection.execute("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    let (mut seq, mut previous) = head(connection).await?;
    if let Some(last) = lines.last() {
        let moved: Option<i64> = sqlx::query_scalar("SELECT moved FROM spools WHERE instance = ?")
            .bind(instance)
            .fetch_optional(&mut *connection)
            .await
            .map_err(unavailable)?;
        let new: Vec<&Entry> = lines.iter().filter(|line| line.number > moved.unwrap_or(0)).map(|line| &line.entry).collect();
        for some in new.chunks(AT_ONCE) {
            (seq, previous) = append(connection, instance, some, seq, previous).await.map_err(unavailable)?;
        }
        sqlx::query("INSERT INTO spools (instance, moved) VALUES (?, ?) ON CONFLICT DO UPDATE SET moved = max(moved, excluded.moved)")
            .bind(instance)
            .bind(last.number)
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
    }
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        connection.execute("SAVEPOINT change").await.map_err(unavailable)?;
        let mut applied = Ok(());
        for effect in &change.effects {
            applied = apply(connection, effect, instance, change.entry.at.0, seq + 1).await;
            if applied.is_err() {
                break;
            }
            if let Some(id) = touched(effect) {
                remember(connection, outbox, id, change.entry.at.0, seq + 1).await.map_err(unavailable)?;
            }
        }
        match applied {
            Ok(()) => {
                (seq, previous) = append(connection, instance, &[&change.entry], seq, previous).await.map_err(unavailable)?;
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
    Ok(results)
}

async fn head(connection: &mut SqliteConnection) -> Result<(i64, Digest), StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(connection).await.map_err(unavailable)?;
    match row {
        Some(row) => Ok((row.get(0), super::sqlite::digest(row.get(1))?)),
        None => Ok((0, Digest::ZERO)),
    }
}

/// Appends records behind number `seq`, in one statement: each costs a turn of the connection's thread, however many
/// rows it has. Answers the new head.
async fn append(
    connection: &mut SqliteConnection,
    instance: &str,
    entries: &[&Entry],
    mut seq: i64,
    mut previous: Digest,
) -> Result<(i64, Digest), sqlx::Error> {
    let mut insert = QueryBuilder::new("INSERT INTO audit (seq, instance, kind, at, call, subject, data, previous, hash) ");
    insert.push_values(entries, |mut row, entry| {
        seq += 1;
        let own = hash(seq, instance, entry, &previous);
        row.push_bind(seq).push_bind(instance).push_bind(entry.kind.name()).push_bind(entry.at.0);
        row.push_bind(entry.call.map(|c| c.digest().bytes().to_vec())).push_bind(entry.subject.as_deref());
        row.push_bind(entry.data.as_str()).push_bind(previous.bytes().to_vec()).push_bind(own.bytes().to_vec());
        previous = own;
    });
    insert.build().execute(connection).await?;
    Ok((seq, previous))
}

async fn apply(connection: &mut SqliteConnection, effect: &Effect, instance: &str, at: i64, seq: i64) -> Result<(), StoreError> {
    let done = match effect {
        Effect::Open(approval) => {
            let request = approval.request();
            let result = sqlx::query(
                "INSERT INTO approvals (id, version, key, state, instance, runs_out, findable_until, kept_until, asked_at, touched, body) VALUES (?,1,?,?,NULL,?,?,?,?,?,?)",
            )
            .bind(request.id.as_str())
            .bind(request.key.digest().bytes().to_vec())
            .bind(approval.state())
            .bind(approval.runs_out().map(|t| t.0))
            .bind(approval.findable_until().0)
            .bind(approval.kept_until().0)
            .bind(request.asked_at.0)
            .bind(seq)
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
            let done = sqlx::query(
                "UPDATE approvals SET version = version + 1, state = ?, instance = ?, runs_out = ?, findable_until = ?, kept_until = MAX(kept_until, ?), touched = ?, body = ?
                 WHERE id = ? AND version = ?",
            )
            .bind(next.approval.state())
            .bind(holder)
            .bind(next.approval.runs_out().map(|t| t.0))
            .bind(next.approval.findable_until().0)
            .bind(next.approval.kept_until().0)
            .bind(seq)
            .bind(body(&next.approval)?)
            .bind(next.approval.request().id.as_str())
            .bind(next.version)
            .execute(connection)
            .await;
            return changed_one(done);
        }
        Effect::KeepAnswer(id, bytes) => {
            sqlx::query("UPDATE approvals SET answer = ? WHERE id = ?").bind(bytes.as_slice()).bind(id.as_str()).execute(connection).await
        }
        Effect::KeepTask(id, bytes) => {
            sqlx::query("UPDATE approvals SET task = ? WHERE id = ?").bind(bytes.as_slice()).bind(id.as_str()).execute(connection).await
        }
        Effect::KeepUntil(id, until) => {
            sqlx::query("UPDATE approvals SET kept_until = MAX(kept_until, ?) WHERE id = ?").bind(until.0).bind(id.as_str()).execute(connection).await
        }
        Effect::SignIn(upstream, Some(sealed)) => {
            sqlx::query("INSERT OR REPLACE INTO sign_ins (upstream, sealed) VALUES (?, ?)")
                .bind(upstream.as_str())
                .bind(sealed.as_slice())
                .execute(connection)
                .await
        }
        Effect::SignIn(upstream, None) => sqlx::query("DELETE FROM sign_ins WHERE upstream = ?").bind(upstream.as_str()).execute(connection).await,
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
        Effect::Spend(server, tool, caller, amounts) => {
            // No limit is for longer than a week.
            let old = at - 8 * 86_400_000;
            sqlx::query("DELETE FROM spent WHERE at < ?").bind(old).execute(&mut *connection).await.map_err(unavailable)?;
            for (place, amount) in amounts {
                sqlx::query("INSERT INTO spent (server, tool, caller, place, at, amount) VALUES (?,?,?,?,?,?)")
                    .bind(server.as_str())
                    .bind(tool.as_str())
                    .bind(caller.as_str())
                    .bind(place.as_str())
                    .bind(at)
                    .bind(amount.to_string())
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
            "INSERT INTO leases (id, issuer, subject, call, instance, audience, scope, state, created_at, expires_at, lapses, handle) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        )
        .bind(lease.id.as_str())
        .bind(lease.issuer.as_str())
        .bind(lease.subject.as_str())
        .bind(lease.call.digest().bytes().to_vec())
        .bind(instance)
        .bind(lease.audience.as_str())
        .bind(lease.scope.as_str())
        .bind(LeaseState::Intended.name())
        .bind(lease.created_at.0)
        .bind(lease.expires_at.0)
        .bind(lease.lapses)
        .bind(lease.handle.as_deref())
        .execute(connection)
        .await,
        Effect::Handle(id, handle) => {
            let done = sqlx::query("UPDATE leases SET handle = ? WHERE id = ? AND state = 'intended'");
            return changed_one(done.bind(handle.as_str()).bind(id.as_str()).execute(connection).await);
        }
        Effect::Minted(minted) => {
            let done = sqlx::query(
                "UPDATE leases SET state = 'minted', handle = coalesce(?, handle), sealed = ?, expires_at = ? WHERE id = ? AND state = 'intended'",
            );
            let done = done.bind(minted.handle.as_deref()).bind(minted.sealed.as_deref()).bind(minted.expires_at.0).bind(minted.id.as_str());
            return changed_one(done.execute(connection).await);
        }
        Effect::Lease(id, state) => {
            // A lease that ended stays ended. What was sealed to revoke it is not needed any more.
            let done = sqlx::query(
                "UPDATE leases SET state = ?, sealed = NULL WHERE id = ? AND state IN ('intended', 'minted', 'revoking', 'lapsing')",
            );
            return changed_one(done.bind(state.name()).bind(id.as_str()).execute(connection).await);
        }
        Effect::RevokeAgain(id, problem, at) => {
            let done = sqlx::query(
                "UPDATE leases SET state = 'revoking', tries = tries + 1, problem = ?, next_try = ? WHERE id = ? AND state IN ('intended', 'minted', 'revoking')",
            );
            return changed_one(done.bind(problem.as_str()).bind(at.0).bind(id.as_str()).execute(connection).await);
        }
        Effect::Allow(allowance) => {
            sqlx::query("INSERT INTO allowances (id, key, uses, expires_at, body) VALUES (?,?,?,?,?)")
                .bind(allowance.id.as_str())
                .bind(allowance.key.digest().bytes().to_vec())
                .bind(allowance.left)
                .bind(allowance.expires_at.0)
                .bind(serde_json::to_string(allowance).map_err(|e| StoreError::Corrupt(e.to_string()))?)
                .execute(connection)
                .await
        }
        Effect::UseAllowance(id) => {
            let done = sqlx::query("UPDATE allowances SET uses = uses - 1 WHERE id = ? AND uses > 0 AND expires_at > ?")
                .bind(id.as_str())
                .bind(at)
                .execute(connection)
                .await;
            return changed_one(done);
        }
        Effect::EndAllowance(id) => {
            let done = sqlx::query("UPDATE allowances SET uses = 0 WHERE id = ? AND uses > 0").bind(id.as_str()).execute(connection).await;
            return changed_one(done);
        }
    };
    done.map(drop).map_err(unavailable)
}

/// A compare-and-swap that found nothing lost against somebody else.
fn changed_one(done: Result<SqliteQueryResult, sqlx::Error>) -> Result<(), StoreError> {
    if done.map_err(unavailable)?.rows_affected() == 0 { Err(StoreError::Conflict) } else { Ok(()) }
}

/// Has every channel that posts messages look at the approval, in the same transaction as its change.
async fn remember(connection: &mut SqliteConnection, outbox: &[&str], id: &str, at: i64, mark: i64) -> Result<(), sqlx::Error> {
    for channel in outbox {
        sqlx::query(
            "INSERT INTO outbox (channel, approval, mark, failures, at) VALUES (?,?,?,0,?)
             ON CONFLICT DO UPDATE SET mark = excluded.mark, failures = 0, at = excluded.at",
        )
        .bind(*channel)
        .bind(id)
        .bind(mark)
        .bind(at)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The approval that an effect changes, if one.
fn touched(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Open(approval) => Some(&approval.request().id),
        Effect::Advance(next) => Some(&next.approval.request().id),
        _ => None,
    }
}

fn body(approval: &Approval) -> Result<String, StoreError> {
    serde_json::to_string(approval).map_err(|e| StoreError::Corrupt(e.to_string()))
}
