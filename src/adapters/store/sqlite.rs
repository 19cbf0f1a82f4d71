//! The store in one SQLite file (WAL): the default, and the meeting point of all gateways on one machine.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::spool::{self, Spool};
use super::writer::{Job, Writer};
use super::{Change, Lease, LeaseState, NewSession, Session, SigningKey, Spender, Store, StoreError, Versioned, Which, outbox};
use crate::domain::approval::{Allowance, Approval, Due, Posted};
use crate::domain::audit::{Entry, EventKind, Receipt, Record};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::risk::Target;

/// The version of the tables that this program reads and writes (`PRAGMA user_version`).
const SCHEMA_VERSION: i64 = 7;

/// How often other processes' changes are looked for while somebody waits for one.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The store in one SQLite file.
pub struct Sqlite {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    spool: Arc<Spool>,
    spool_full: Arc<Notify>,
    pool: SqlitePool,
    changed: broadcast::Sender<Arc<str>>,
}

impl Sqlite {
    /// Opens the file, making it (readable by its owner alone) and its tables if need be. The channels in `outbox` are
    /// made to look at every approval that changes.
    ///
    /// # Errors
    /// If the file cannot be opened, or was made by a newer program.
    pub async fn open(path: &Path, instance: &str, outbox: Vec<&'static str>, tasks: &TaskTracker) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        private(path).map_err(io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5))
            // Checkpoints are made beside the calls, once a second, never inside one.
            .pragma("wal_autocheckpoint", "0")
            .disable_statement_logging();
        let synced = first(&options.clone().synchronous(SqliteSynchronous::Full), path).await?;
        let quick = options.clone().synchronous(SqliteSynchronous::Normal).connect().await.map_err(unavailable)?;
        let reading = options.synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new().max_connections(4).min_connections(1).connect_with(reading).await.map_err(unavailable)?;
        let (changed, _) = broadcast::channel(1024);
        let (jobs, queue) = mpsc::channel(4096);
        let unsynced = Arc::new(AtomicBool::new(false));
        let (spool, spool_full) = (Arc::new(Spool::new(path, instance)), Arc::new(Notify::new()));
        let writer = Writer {
            quick,
            synced,
            instance: instance.to_owned(),
            outbox,
            changed: changed.clone(),
            spool: spool.clone(),
            full: spool_full.clone(),
            unsynced: unsynced.clone(),
        };
        tasks.spawn(writer.run(queue));
        tasks.spawn(look_out(pool.clone(), changed.clone(), unsynced, jobs.downgrade()));
        Ok(Self { path: path.to_path_buf(), jobs, spool, spool_full, pool, changed })
    }

    fn waiting(&self, lines: usize) {
        if lines >= 256 {
            self.spool_full.notify_one();
        }
    }

    /// The time of the last record, which the clock must not go behind.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn last_time(&self) -> Result<Timestamp, StoreError> {
        let row = sqlx::query("SELECT at FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(&self.pool).await.map_err(unavailable)?;
        Ok(Timestamp(row.map_or(0, |row| row.get(0))))
    }
}

/// Makes the file for its owner alone; SQLite gives its companions the same mode.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// The first connection, with the tables made. After a gateway was killed the file is repaired by whoever opens it
/// first, and SQLite does not let others wait for that: they try again.
async fn first(options: &SqliteConnectOptions, path: &Path) -> Result<sqlx::SqliteConnection, StoreError> {
    let mut tries = 0;
    loop {
        let opened = async {
            let mut connection = options.connect().await.map_err(unavailable)?;
            prepare(&mut connection, path).await?;
            Ok(connection)
        };
        match opened.await {
            Err(StoreError::Unavailable(why)) if why.contains("locked") && tries < 50 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

async fn prepare(connection: &mut sqlx::SqliteConnection, path: &Path) -> Result<(), StoreError> {
    // IMMEDIATE: two processes that start at once must not both make the tables.
    connection.execute("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(unavailable)?;
    match version {
        0..SCHEMA_VERSION => {
            if version == 0 {
                sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            if version < 2 {
                sqlx::raw_sql(include_str!("schema_2.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            if version < 3 {
                sqlx::raw_sql(include_str!("schema_3.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            if version < 4 {
                sqlx::raw_sql(include_str!("schema_4.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            if version < 5 {
                sqlx::raw_sql(include_str!("schema_5.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            if version < 6 {
                sqlx::raw_sql(include_str!("schema_6.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            }
            sqlx::raw_sql(include_str!("schema_7.sql")).execute(&mut *connection).await.map_err(unavailable)?;
            connection.execute("PRAGMA user_version = 7").await.map_err(unavailable)?;
        }
        SCHEMA_VERSION => {}
        newer => {
            return Err(StoreError::Corrupt(format!(
                "{} has tables of version {newer}, and this program knows {SCHEMA_VERSION}: use a newer countersign",
                path.display()
            )));
        }
    }
    connection.execute("COMMIT").await.map_err(unavailable)?;
    Ok(())
}

/// Looks for commits of other processes while somebody waits for changes, and once a second moves what was written to
/// the file onto the disk.
async fn look_out(pool: SqlitePool, changed: broadcast::Sender<Arc<str>>, unsynced: Arc<AtomicBool>, alive: mpsc::WeakSender<Job>) {
    let Ok(mut connection) = pool.acquire().await.map(sqlx::pool::PoolConnection::detach) else { return };
    let mut last = 0i64;
    let mut looks = 0u64;
    let mut seen = sqlx::query_scalar("SELECT coalesce(max(touched), 0) FROM approvals").fetch_one(&mut connection).await.unwrap_or(0i64);
    while alive.upgrade().is_some() {
        tokio::time::sleep(LOOK_EVERY).await;
        looks += 1;
        if looks.is_multiple_of(10)
            && unsynced.swap(false, Ordering::Relaxed)
            && let Err(error) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").await
        {
            tracing::error!(%error, "the store could not be synced");
        }
        if changed.receiver_count() == 0 {
            continue;
        }
        match sqlx::query_scalar::<_, i64>("PRAGMA data_version").fetch_one(&mut connection).await {
            Ok(version) if version != last => {
                last = version;
                match touched_after(&mut connection, seen).await {
                    Ok(rows) => {
                        for (id, touched) in rows {
                            seen = seen.max(touched);
                            // Nobody may be waiting for any.
                            drop(changed.send(id.into()));
                        }
                    }
                    Err(error) => tracing::warn!(%error, "could not look for changes"),
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "could not look for changes"),
        }
    }
    drop(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").await);
    drop(connection.close().await);
}

async fn touched_after(connection: &mut sqlx::SqliteConnection, seen: i64) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT id, touched FROM approvals WHERE touched > ? ORDER BY touched").bind(seen).fetch_all(connection).await
}

pub(super) fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<Digest, StoreError> {
    let text = format!("sha256:{}", crate::domain::digest::hex(&bytes));
    Digest::from_str(&text).map_err(|e| StoreError::Corrupt(e.to_string()))
}

fn call_digest(bytes: Vec<u8>) -> Result<CallDigest, StoreError> {
    let value = serde_json::Value::String(digest(bytes)?.to_string());
    serde_json::from_value(value).map_err(|e| StoreError::Corrupt(e.to_string()))
}

fn versioned(row: &SqliteRow) -> Result<Versioned, StoreError> {
    let body: String = row.get("body");
    let approval = serde_json::from_str(&body).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    Ok(Versioned { approval, version: row.get("version") })
}

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let kind: String = row.get("kind");
    let kind: EventKind = serde_json::from_value(kind.clone().into()).map_err(|_| StoreError::Corrupt(format!("unknown event `{kind}`")))?;
    let call: Option<Vec<u8>> = row.get("call");
    let entry =
        Entry { kind, at: Timestamp(row.get("at")), call: call.map(call_digest).transpose()?, subject: row.get("subject"), data: row.get("data") };
    let (previous, hash) = (digest(row.get("previous"))?, digest(row.get("hash"))?);
    Ok(Record { seq: row.get("seq"), instance: row.get("instance"), entry, previous, hash })
}

fn lease(row: &SqliteRow) -> Result<Lease, StoreError> {
    let state: String = row.get("state");
    let state = LeaseState::read(&state).ok_or_else(|| StoreError::Corrupt(format!("unknown lease state `{state}`")))?;
    Ok(Lease {
        id: row.get("id"),
        issuer: row.get("issuer"),
        subject: row.get("subject"),
        call: call_digest(row.get("call"))?,
        instance: row.get("instance"),
        audience: row.get("audience"),
        scope: row.get("scope"),
        state,
        lapses: row.get("lapses"),
        handle: row.get("handle"),
        sealed: row.get("sealed"),
        tries: row.get("tries"),
        next_try: Timestamp(row.get("next_try")),
        problem: row.get("problem"),
        created_at: Timestamp(row.get("created_at")),
        expires_at: Timestamp(row.get("expires_at")),
    })
}

#[async_trait]
impl Store for Sqlite {
    async fn commit(&self, change: Change) -> Result<Receipt, StoreError> {
        if change.effects.is_empty() && !change.synced {
            let (kind, call) = (change.entry.kind, change.entry.call);
            self.waiting(self.spool.append(change.entry)?);
            return Ok(Receipt::assertion(0, kind, call));
        }
        let (answer, receipt) = oneshot::channel();
        let gone = || StoreError::Unavailable("it is closed".into());
        self.jobs.send(Job::Commit(Box::new(change), answer)).await.map_err(|_| gone())?;
        receipt.await.map_err(|_| gone())?
    }

    fn commit_later(&self, entry: Entry) {
        self.waiting(self.spool.push(entry));
    }

    async fn adopt(&self, instance: &str) -> Result<(), StoreError> {
        let path = spool::path(&self.path, instance);
        let lines = spool::read(&path)?;
        if !lines.is_empty() {
            let (answer, adopted) = oneshot::channel();
            let gone = || StoreError::Unavailable("it is closed".into());
            self.jobs.send(Job::Adopt(instance.to_owned(), lines, answer)).await.map_err(|_| gone())?;
            adopted.await.map_err(|_| gone())??;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Unavailable(format!("{}: {error}", path.display()))),
            _ => Ok(()),
        }
    }

    async fn approval(&self, id: &str) -> Result<Option<Versioned>, StoreError> {
        let row = sqlx::query("SELECT body, version FROM approvals WHERE id = ?").bind(id).fetch_optional(&self.pool).await.map_err(unavailable)?;
        row.as_ref().map(versioned).transpose()
    }

    async fn find(&self, key: CallDigest, now: Timestamp) -> Result<Option<Versioned>, StoreError> {
        // An open one first: there is at most one.
        let row = sqlx::query(
            "SELECT body, version FROM approvals WHERE key = ? AND (findable_until > ? OR state IN ('pending','approved','redeemed','dispatched'))
             ORDER BY state IN ('pending','approved','redeemed','dispatched') DESC, asked_at DESC LIMIT 1",
        )
        .bind(key.digest().bytes().to_vec())
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(unavailable)?;
        row.as_ref().map(versioned).transpose()
    }

    async fn approvals(&self, which: Which, most: u32) -> Result<Vec<Versioned>, StoreError> {
        let open = "SELECT body, version FROM approvals WHERE state IN ('pending','approved','redeemed','dispatched') ORDER BY asked_at LIMIT ?";
        let settled =
            "SELECT body, version FROM approvals WHERE state NOT IN ('pending','approved','redeemed','dispatched') ORDER BY asked_at DESC LIMIT ?";
        let query = sqlx::query(if which == Which::Open { open } else { settled });
        query.bind(most).fetch_all(&self.pool).await.map_err(unavailable)?.iter().map(versioned).collect()
    }

    async fn due(&self, now: Timestamp, most: u32) -> Result<Vec<Versioned>, StoreError> {
        let rows = sqlx::query("SELECT body, version FROM approvals WHERE runs_out <= ? ORDER BY runs_out LIMIT ?")
            .bind(now.0)
            .bind(most)
            .fetch_all(&self.pool)
            .await;
        rows.map_err(unavailable)?.iter().map(versioned).collect()
    }

    async fn forget(&self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE approvals SET answer = NULL, task = NULL WHERE kept_until <= ? AND (answer IS NOT NULL OR task IS NOT NULL)
             AND state NOT IN ('pending', 'approved', 'redeemed', 'dispatched')",
        )
        .bind(now.0)
        .execute(&self.pool)
        .await;
        Ok(done.map_err(unavailable)?.rows_affected())
    }

    async fn held_by(&self, instance: &str) -> Result<Vec<Versioned>, StoreError> {
        let rows = sqlx::query("SELECT body, version FROM approvals WHERE state IN ('redeemed', 'dispatched') AND instance = ?")
            .bind(instance)
            .fetch_all(&self.pool)
            .await;
        rows.map_err(unavailable)?.iter().map(versioned).collect()
    }

    async fn answer(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let answer = sqlx::query_scalar("SELECT answer FROM approvals WHERE id = ?").bind(id).fetch_optional(&self.pool).await;
        Ok(answer.map_err(unavailable)?.flatten())
    }

    async fn task(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let task = sqlx::query_scalar("SELECT task FROM approvals WHERE id = ?").bind(id).fetch_optional(&self.pool).await;
        Ok(task.map_err(unavailable)?.flatten())
    }

    async fn sign_in(&self, upstream: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = sqlx::query_scalar("SELECT sealed FROM sign_ins WHERE upstream = ?").bind(upstream).fetch_optional(&self.pool).await;
        sealed.map_err(unavailable)
    }

    async fn seen(&self, server: &str, caller: &str, targets: &[Target]) -> Result<BTreeSet<Target>, StoreError> {
        let mut seen = BTreeSet::new();
        for target in targets {
            let found = sqlx::query("SELECT 1 FROM targets WHERE server = ? AND caller = ? AND kind = ? AND value = ?")
                .bind(server)
                .bind(caller)
                .bind(target.kind.as_str())
                .bind(target.value.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(unavailable)?;
            if found.is_some() {
                seen.insert(target.clone());
            }
        }
        Ok(seen)
    }

    async fn spent(&self, by: &Spender<'_>, place: &str, since: Timestamp) -> Result<Decimal, StoreError> {
        let rows: Vec<String> = sqlx::query_scalar("SELECT amount FROM spent WHERE server = ? AND tool = ? AND caller = ? AND place = ? AND at > ?")
            .bind(by.server)
            .bind(by.tool)
            .bind(by.caller)
            .bind(place)
            .bind(since.0)
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable)?;
        let one = |text: &String| text.parse::<Decimal>().map_err(|_| StoreError::Corrupt("an amount is not a number".into()));
        // What cannot be added up is more than any limit.
        rows.iter().try_fold(Decimal::ZERO, |sum, text| Ok(sum.checked_add(one(text)?).unwrap_or(Decimal::MAX)))
    }

    async fn pins(&self, server: &str) -> Result<HashMap<String, Digest>, StoreError> {
        let rows = sqlx::query("SELECT tool, digest FROM pins WHERE server = ?").bind(server).fetch_all(&self.pool).await.map_err(unavailable)?;
        rows.iter().map(|row| Ok((row.get(0), digest(row.get(1))?))).collect()
    }

    async fn lease(&self, id: &str) -> Result<Option<Lease>, StoreError> {
        let row = sqlx::query("SELECT * FROM leases WHERE id = ?").bind(id).fetch_optional(&self.pool).await.map_err(unavailable)?;
        row.as_ref().map(lease).transpose()
    }

    async fn leases_of(&self, subject: &str) -> Result<Vec<Lease>, StoreError> {
        let rows = sqlx::query("SELECT * FROM leases WHERE subject = ? ORDER BY created_at").bind(subject).fetch_all(&self.pool).await;
        rows.map_err(unavailable)?.iter().map(lease).collect()
    }

    async fn leases(&self, most: u32) -> Result<Vec<Lease>, StoreError> {
        let rows = sqlx::query("SELECT * FROM leases ORDER BY created_at DESC LIMIT ?").bind(most).fetch_all(&self.pool).await;
        rows.map_err(unavailable)?.iter().map(lease).collect()
    }

    async fn open_leases(&self, instance: Option<&str>) -> Result<Vec<Lease>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM leases WHERE state IN ('intended', 'minted', 'revoking', 'lapsing') AND (? IS NULL OR instance = ?) ORDER BY created_at",
        )
        .bind(instance)
        .bind(instance)
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)?;
        rows.iter().map(lease).collect()
    }

    async fn unfinished(&self, instance: &str) -> Result<Vec<Record>, StoreError> {
        // Only from its start on: a long log is not read again at every start.
        let rows = sqlx::query(
            "SELECT * FROM audit a WHERE a.instance = ?1 AND a.kind = 'allowed'
             AND a.seq > coalesce((SELECT max(seq) FROM audit WHERE instance = ?1 AND kind = 'started'), 0)
             AND NOT EXISTS (SELECT 1 FROM audit t WHERE t.subject = a.subject AND t.kind IN ('completed', 'failed', 'outcome-unknown'))",
        )
        .bind(instance)
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)?;
        rows.iter().map(record).collect()
    }

    async fn records(&self, after: i64, most: u32) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit WHERE seq > ? ORDER BY seq LIMIT ?").bind(after).bind(most).fetch_all(&self.pool).await;
        rows.map_err(unavailable)?.iter().map(record).collect()
    }

    async fn records_of(&self, subject: &str) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit WHERE subject = ? ORDER BY seq").bind(subject).fetch_all(&self.pool).await;
        rows.map_err(unavailable)?.iter().map(record).collect()
    }

    async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let rows = sqlx::query("SELECT kid, created_at, pkcs8 FROM signing_keys ORDER BY created_at DESC, kid").fetch_all(&self.pool).await;
        let key = |row: &SqliteRow| SigningKey { kid: row.get(0), created_at: Timestamp(row.get(1)), pkcs8: row.get(2) };
        Ok(rows.map_err(unavailable)?.iter().map(key).collect())
    }

    async fn add_signing_key(&self, key: &SigningKey) -> Result<(), StoreError> {
        let done = sqlx::query("INSERT INTO signing_keys (kid, created_at, pkcs8) VALUES (?,?,?)")
            .bind(key.kid.as_str())
            .bind(key.created_at.0)
            .bind(key.pkcs8.as_slice())
            .execute(&self.pool)
            .await;
        done.map(drop).map_err(unavailable)
    }

    async fn drop_signing_key(&self, kid: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM signing_keys WHERE kid = ?").bind(kid).execute(&self.pool).await.map(drop).map_err(unavailable)
    }

    async fn add_login(&self, token: Digest, approver: &str, expires_at: Timestamp) -> Result<(), StoreError> {
        let done = sqlx::query("INSERT INTO logins (token, approver, expires_at) VALUES (?,?,?)")
            .bind(token.bytes().as_slice())
            .bind(approver)
            .bind(expires_at.0)
            .execute(&self.pool)
            .await;
        done.map(drop).map_err(unavailable)
    }

    async fn use_login(&self, token: Digest, session: &NewSession, now: Timestamp) -> Result<Option<String>, StoreError> {
        let mut work = self.pool.begin().await.map_err(unavailable)?;
        let approver: Option<String> = sqlx::query_scalar("DELETE FROM logins WHERE token = ? AND expires_at > ? RETURNING approver")
            .bind(token.bytes().as_slice())
            .bind(now.0)
            .fetch_optional(&mut *work)
            .await
            .map_err(unavailable)?;
        sqlx::query("DELETE FROM logins WHERE expires_at <= ?").bind(now.0).execute(&mut *work).await.map_err(unavailable)?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?").bind(now.0).execute(&mut *work).await.map_err(unavailable)?;
        if let Some(approver) = &approver {
            sqlx::query("INSERT INTO sessions (token, approver, csrf, expires_at) VALUES (?,?,?,?)")
                .bind(session.token.bytes().as_slice())
                .bind(approver.as_str())
                .bind(session.csrf.as_str())
                .bind(session.expires_at.0)
                .execute(&mut *work)
                .await
                .map_err(unavailable)?;
        }
        work.commit().await.map_err(unavailable)?;
        Ok(approver)
    }

    async fn session(&self, token: Digest, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT approver, csrf FROM sessions WHERE token = ? AND expires_at > ?")
            .bind(token.bytes().as_slice())
            .bind(now.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(row.map(|row| Session { approver: row.get(0), csrf: row.get(1) }))
    }

    async fn end_session(&self, token: Digest) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM sessions WHERE token = ?").bind(token.bytes().as_slice()).execute(&self.pool).await;
        done.map(drop).map_err(unavailable)
    }

    async fn due_in(&self, channel: &str, now: Timestamp, most: u32) -> Result<Vec<Due>, StoreError> {
        outbox::due_in(&self.pool, channel, now, most).await
    }

    async fn looked_at(&self, channel: &str, due: &Due, next: Option<Timestamp>, failed: bool) -> Result<(), StoreError> {
        outbox::looked_at(&self.pool, channel, due, next, failed).await
    }

    async fn posted(&self, approval: &str) -> Result<Vec<Posted>, StoreError> {
        outbox::posted(&self.pool, approval).await
    }

    async fn posted_with(&self, nonce: &str) -> Result<Option<Posted>, StoreError> {
        outbox::posted_with(&self.pool, nonce).await
    }

    async fn asking(&self, recipient: &str) -> Result<u32, StoreError> {
        outbox::asking(&self.pool, recipient).await
    }

    async fn keep_posted(&self, posted: &Posted) -> Result<(), StoreError> {
        outbox::keep_posted(&self.pool, posted).await
    }

    async fn keep_click(&self, id: &str, body: &[u8], at: Timestamp) -> Result<bool, StoreError> {
        outbox::keep_click(&self.pool, id, body, at).await
    }

    async fn clicks(&self) -> Result<Vec<(String, Vec<u8>, Timestamp)>, StoreError> {
        outbox::clicks(&self.pool).await
    }

    async fn click_done(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        outbox::click_done(&self.pool, id, now).await
    }

    async fn last_completed(&self, server: &str, tool: &str, caller: &str, not: &str) -> Result<Option<Approval>, StoreError> {
        let row = sqlx::query(
            "SELECT body, version FROM approvals WHERE state = 'completed' AND id <> ?4 AND body ->> '$.request.binding.server' = ?1
             AND body ->> '$.request.tool' = ?2 AND body ->> '$.request.caller.name' = ?3 ORDER BY asked_at DESC LIMIT 1",
        )
        .bind(server)
        .bind(tool)
        .bind(caller)
        .bind(not)
        .fetch_optional(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(row.as_ref().map(versioned).transpose()?.map(|found| found.approval))
    }

    async fn pending_of(&self, caller: &str) -> Result<u32, StoreError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM approvals WHERE state = 'pending' AND body ->> '$.request.caller.name' = ?");
        count.bind(caller).fetch_one(&self.pool).await.map_err(unavailable)
    }

    async fn allowance(&self, key: CallDigest, now: Timestamp) -> Result<Option<Allowance>, StoreError> {
        let row = sqlx::query("SELECT body, uses FROM allowances WHERE key = ? AND uses > 0 AND expires_at > ? ORDER BY expires_at LIMIT 1")
            .bind(key.digest().bytes().to_vec())
            .bind(now.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable)?;
        row.as_ref().map(outbox::allowance).transpose()
    }

    async fn allowances(&self, now: Timestamp) -> Result<Vec<Allowance>, StoreError> {
        let rows = sqlx::query("SELECT body, uses FROM allowances WHERE uses > 0 AND expires_at > ? ORDER BY expires_at").bind(now.0);
        rows.fetch_all(&self.pool).await.map_err(unavailable)?.iter().map(outbox::allowance).collect()
    }

    async fn use_code(&self, approver: &str, step: i64) -> Result<bool, StoreError> {
        let done =
            sqlx::query("INSERT INTO codes (approver, step) VALUES (?,?) ON CONFLICT DO UPDATE SET step = excluded.step WHERE step < excluded.step")
                .bind(approver)
                .bind(step)
                .execute(&self.pool)
                .await
                .map_err(unavailable)?;
        Ok(done.rows_affected() > 0)
    }

    fn changes(&self) -> broadcast::Receiver<Arc<str>> {
        self.changed.subscribe()
    }

    async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.jobs.send(Job::Flush(done)).await.is_ok() {
            drop(written.await);
        }
    }
}
