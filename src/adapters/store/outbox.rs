//! Queries for channels that post messages: what to look at, what is posted, and what people did there.

use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::StoreError;
use super::sqlite::unavailable;
use crate::domain::approval::{Allowance, Due, Posted};
use crate::domain::clock::Timestamp;

/// How long the id of a click is known, in milliseconds: longer than a signature is good (5 minutes either way).
const CLICKS_KNOWN: i64 = 15 * 60_000;

pub(super) async fn due_in(pool: &SqlitePool, channel: &str, now: Timestamp, most: u32) -> Result<Vec<Due>, StoreError> {
    let rows = sqlx::query("SELECT approval, mark, failures, at FROM outbox WHERE channel = ? AND at <= ? ORDER BY at LIMIT ?")
        .bind(channel)
        .bind(now.0)
        .bind(most)
        .fetch_all(pool)
        .await
        .map_err(unavailable)?;
    Ok(rows.iter().map(|row| Due { approval: row.get(0), mark: row.get(1), failures: row.get(2), at: Timestamp(row.get(3)) }).collect())
}

pub(super) async fn looked_at(pool: &SqlitePool, channel: &str, due: &Due, next: Option<Timestamp>, failed: bool) -> Result<(), StoreError> {
    let query = match next {
        Some(next) => sqlx::query("UPDATE outbox SET at = ?, failures = ? WHERE channel = ? AND approval = ? AND mark = ?")
            .bind(next.0)
            .bind(if failed { due.failures.saturating_add(1) } else { 0 }),
        None => sqlx::query("DELETE FROM outbox WHERE channel = ? AND approval = ? AND mark = ?"),
    };
    query.bind(channel).bind(due.approval.as_str()).bind(due.mark).execute(pool).await.map(drop).map_err(unavailable)
}

fn of(row: &SqliteRow) -> Posted {
    Posted {
        nonce: row.get("nonce"),
        approval: row.get("approval"),
        recipient: row.get("recipient"),
        place: row.get("place"),
        message: row.get("message"),
        version: row.get("version"),
        step: row.get("step"),
    }
}

pub(super) async fn posted(pool: &SqlitePool, approval: &str) -> Result<Vec<Posted>, StoreError> {
    let rows = sqlx::query("SELECT * FROM posted WHERE approval = ?").bind(approval).fetch_all(pool).await.map_err(unavailable)?;
    Ok(rows.iter().map(of).collect())
}

pub(super) async fn posted_with(pool: &SqlitePool, nonce: &str) -> Result<Option<Posted>, StoreError> {
    let row = sqlx::query("SELECT * FROM posted WHERE nonce = ?").bind(nonce).fetch_optional(pool).await.map_err(unavailable)?;
    Ok(row.as_ref().map(of))
}

pub(super) async fn asking(pool: &SqlitePool, recipient: &str) -> Result<u32, StoreError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM posted WHERE recipient = ? AND step < 2").bind(recipient).fetch_one(pool).await;
    count.map_err(unavailable)
}

pub(super) async fn keep_posted(pool: &SqlitePool, posted: &Posted) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO posted (nonce, approval, recipient, place, message, version, step) VALUES (?,?,?,?,?,?,?)
         ON CONFLICT DO UPDATE SET place = excluded.place, message = excluded.message, version = excluded.version, step = max(step, excluded.step)",
    )
    .bind(posted.nonce.as_str())
    .bind(posted.approval.as_str())
    .bind(posted.recipient.as_str())
    .bind(posted.place.as_str())
    .bind(posted.message.as_deref())
    .bind(posted.version)
    .bind(posted.step)
    .execute(pool)
    .await;
    done.map(drop).map_err(unavailable)
}

pub(super) async fn keep_click(pool: &SqlitePool, id: &str, body: &[u8], at: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query("INSERT OR IGNORE INTO clicks (id, at, body) VALUES (?,?,?)").bind(id).bind(at.0).bind(body).execute(pool).await;
    Ok(done.map_err(unavailable)?.rows_affected() > 0)
}

pub(super) async fn clicks(pool: &SqlitePool) -> Result<Vec<(String, Vec<u8>, Timestamp)>, StoreError> {
    let rows = sqlx::query("SELECT id, body, at FROM clicks WHERE body IS NOT NULL ORDER BY at").fetch_all(pool).await.map_err(unavailable)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), Timestamp(row.get(2)))).collect())
}

pub(super) async fn click_done(pool: &SqlitePool, id: &str, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE clicks SET body = NULL WHERE id = ?").bind(id).execute(pool).await.map_err(unavailable)?;
    let old = sqlx::query("DELETE FROM clicks WHERE body IS NULL AND at < ?").bind(now.0 - CLICKS_KNOWN).execute(pool).await;
    old.map(drop).map_err(unavailable)
}

pub(super) fn allowance(row: &SqliteRow) -> Result<Allowance, StoreError> {
    let body: String = row.get(0);
    let allowance: Allowance = serde_json::from_str(&body).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    Ok(Allowance { left: row.get(1), ..allowance })
}
