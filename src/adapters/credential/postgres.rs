//! Postgres: a role for one call, with a password that only its SCRAM verifier is told to the server, one connection, and
//! the rights that the policy names and the operator's configuration permits. Dropped after the call, with whatever
//! connection it still has.
//!
//! `VALID UNTIL` stops new logins only, so such a role is not dead by its time alone: it is dropped, and that is tried
//! until it is done. The role's name is the lease, so that a crash at any point leaves nothing that cannot be found.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor, Row};
use zeroize::Zeroizing;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, listed, parameters};
use crate::domain::digest::Digest;
use crate::domain::permit::Permit;
use crate::domain::text::percent;
use crate::system::random_hex;

/// Rounds of the SCRAM verifier, as Postgres itself makes them (RFC 5802).
const ROUNDS: u32 = 4096;
/// How long the server has to do what it is asked.
const PATIENCE: Duration = Duration::from_secs(15);

/// A Postgres server.
#[derive(Debug)]
pub struct Postgres {
    /// The address with which the gateway makes and drops roles: `postgres://minter:…@host:5432/app`.
    pub address: OwnSecret,
    /// The host that callers' servers use, where it is another than the gateway's.
    pub host: Option<String>,
    /// Group roles that policies may grant.
    pub roles: Vec<String>,
    /// Tables, as `schema.table`, on which policies may grant privileges.
    pub tables: Vec<String>,
    /// Privileges that policies may grant on them.
    pub privileges: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Parameters {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    grants: Vec<TableGrant>,
    /// Milliseconds.
    statement_timeout: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableGrant {
    table: String,
    privileges: Vec<String>,
}

/// An identifier, quoted.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn role(lease: &str) -> String {
    format!("countersign_{lease}")
}

impl Postgres {
    /// The statements, with `verifier` as the password.
    fn statements(&self, order: &Order, verifier: &str) -> Result<Vec<String>, IssueError> {
        let asked: Parameters = order.parameters()?;
        if asked.roles.is_empty() && asked.grants.is_empty() {
            return Err(IssueError::parameters("it needs `roles` or `grants`"));
        }
        let (name, until) = (quoted(&role(&order.lease)), jiff::Timestamp::from_second(order.dead_by().seconds()).unwrap_or_default());
        let mut all = vec![format!(
            "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT CONNECTION LIMIT 1 VALID UNTIL '{until}' PASSWORD '{verifier}'"
        )];
        let timeout = asked.statement_timeout.unwrap_or(u32::MAX).min(u32::try_from(order.ttl.as_millis()).unwrap_or(u32::MAX));
        all.push(format!("ALTER ROLE {name} SET statement_timeout = {timeout}"));
        for group in &asked.roles {
            listed("roles", group, &self.roles)?;
            all.push(format!("GRANT {} TO {name}", quoted(group)));
        }
        for grant in &asked.grants {
            listed("tables", &grant.table, &self.tables)?;
            let (schema, table) = grant.table.split_once('.').ok_or_else(|| IssueError::parameters("a table is `schema.table`"))?;
            if grant.privileges.is_empty() {
                return Err(IssueError::parameters("a grant needs `privileges`"));
            }
            for privilege in &grant.privileges {
                listed("privileges", privilege, &self.privileges)?;
                if !matches!(privilege.as_str(), "select" | "insert" | "update" | "delete" | "truncate") {
                    return Err(IssueError::Parameters(format!("`{privilege}` is not a privilege on tables that this issuer grants")));
                }
            }
            all.push(format!("GRANT USAGE ON SCHEMA {} TO {name}", quoted(schema)));
            all.push(format!("GRANT {} ON TABLE {}.{} TO {name}", grant.privileges.join(", "), quoted(schema), quoted(table)));
        }
        Ok(all)
    }

    async fn options(&self) -> Result<PgConnectOptions, IssueError> {
        let address = self.address.reveal().await?;
        let wrong = || IssueError::Own("`address` is not `postgres://user:password@host:port/database`".into());
        let options: PgConnectOptions = address.parse().map_err(|_| wrong())?;
        // Statements carry verifiers: they are not logged.
        Ok(sqlx::ConnectOptions::disable_statement_logging(options.application_name("countersign")))
    }

    async fn connect(&self) -> Result<(PgConnection, PgConnectOptions), IssueError> {
        let options = self.options().await?;
        let connected = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await;
        match connected {
            Ok(Ok(connection)) => Ok((connection, options)),
            Ok(Err(error)) => Err(IssueError::Refused(said(&error))),
            Err(_) => Err(IssueError::Refused("it did not answer in time".into())),
        }
    }
}

/// What a database says, without the statement.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// `SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>` (RFC 5803), so that no password is in the server's log.
fn verifier(password: &str) -> Result<String, IssueError> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|e| IssueError::Signing(e.to_string()))?;
    let mut salted = Zeroizing::new([0; 32]);
    let rounds = std::num::NonZeroU32::new(ROUNDS).unwrap_or(std::num::NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), salted.as_mut());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_ref());
    let stored = Digest::of(hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    Ok(format!("SCRAM-SHA-256${ROUNDS}:{}${}:{}", STANDARD.encode(salt), STANDARD.encode(stored.bytes()), STANDARD.encode(server.as_ref())))
}

#[async_trait]
impl Issuer for Postgres {
    fn nature(&self) -> Nature {
        Nature { kind: "postgres", ending: Ending::Revoked, named: true, lapses: false }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        Ok(Plan { request: self.statements(order, "<SCRAM verifier>")?.join(";\n"), handle: Some(role(&order.lease)) })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let password = Zeroizing::new(random_hex::<24>().map_err(|e| IssueError::Signing(e.to_string()))?);
        let statements = self.statements(order, &verifier(&password)?)?;
        let (mut connection, options) = self.connect().await?;
        let work = async {
            let mut all = connection.begin().await.map_err(|e| IssueError::Refused(said(&e)))?;
            let clock: i64 = sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::bigint")
                .fetch_one(&mut *all)
                .await
                .map_err(|e| IssueError::Refused(said(&e)))?;
            let off = (clock - order.now.seconds()).abs();
            if off > 30 {
                return Err(IssueError::Refused(format!("its clock and this one differ by {off} s, and 30 s is the most")));
            }
            for statement in &statements {
                all.execute(sqlx::AssertSqlSafe(statement.as_str())).await.map_err(|e| IssueError::Refused(said(&e)))?;
            }
            all.commit().await.map_err(|e| IssueError::Unclear(said(&e)))
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done?,
            Err(_) => return Err(IssueError::Unclear("it did not answer in time".into())),
        }
        drop(connection.close().await);
        let name = role(&order.lease);
        let host = self.host.clone().unwrap_or_else(|| options.get_host().to_owned());
        let (port, database) = (options.get_port().to_string(), options.get_database().unwrap_or("postgres").to_owned());
        // A host that is a directory is a socket.
        let place = if host.starts_with('/') { percent(&host) } else { host.clone() };
        let url = format!("postgres://{name}:{}@{place}:{port}/{}", password.as_str(), percent(&database));
        let fields = [
            ("secret", url.clone()),
            ("url", url),
            ("password", password.to_string()),
            ("username", name.clone()),
            ("host", host),
            ("port", port),
            ("database", database),
        ];
        Ok(Credential { handle: Some(name), ..Credential::of(fields, order.dead_by()) })
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        let name = role(held.lease);
        let quoted = quoted(&name);
        let (mut connection, _) = self.connect().await?;
        let work = async {
            let there = sqlx::query("SELECT 1 FROM pg_roles WHERE rolname = $1").bind(&name).fetch_optional(&mut connection).await?;
            if there.is_none() {
                return Ok(());
            }
            connection.execute(sqlx::AssertSqlSafe(format!("ALTER ROLE {quoted} NOLOGIN"))).await?;
            let ended = sqlx::query("SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity WHERE usename = $1").bind(&name);
            for row in ended.fetch_all(&mut connection).await? {
                if !row.get::<bool, _>("ended") {
                    return Err(sqlx::Error::Protocol("a connection of the role does not end".into()));
                }
            }
            // Who is no superuser may drop what a role owns only as a member of it.
            let superuser: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetch_one(&mut connection).await?;
            if !superuser {
                connection.execute(sqlx::AssertSqlSafe(format!("GRANT {quoted} TO CURRENT_USER"))).await?;
            }
            connection.execute(sqlx::AssertSqlSafe(format!("DROP OWNED BY {quoted}"))).await?;
            connection.execute(sqlx::AssertSqlSafe(format!("DROP ROLE {quoted}"))).await.map(drop)
        };
        let done = tokio::time::timeout(PATIENCE, work).await;
        match done {
            Ok(Ok(())) => Ok(Ended::Revoked),
            Ok(Err(error)) => Err(IssueError::Refused(said(&error))),
            Err(_) => Err(IssueError::Unclear("it did not answer in time".into())),
        }
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
