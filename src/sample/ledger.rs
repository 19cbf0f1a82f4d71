//! Accounts, payments, and a record of everything received.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Map, Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Row, TypeInfo, ValueRef};

use super::LedgerOptions;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, owner TEXT NOT NULL, cents INTEGER NOT NULL, open INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, cents INTEGER NOT NULL, kind TEXT NOT NULL, comment TEXT) STRICT;
CREATE TABLE IF NOT EXISTS received (id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')), tool TEXT NOT NULL, arguments TEXT NOT NULL, credential TEXT, outcome TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS used (credential TEXT PRIMARY KEY) STRICT;
INSERT OR IGNORE INTO accounts VALUES ('acc-1', 'Operations', 500000, 1), ('acc-2', 'Payroll', 2000000, 1), ('acc-3', 'Petty cash', 4200, 1);
INSERT OR IGNORE INTO payments VALUES ('pay-1', 'acc-1', 'acme-ltd', 12000, 'transfer', 'hosting, October'), ('pay-2', 'acc-1', 'globex', 250000, 'transfer', 'licences'), ('pay-3', 'acc-2', 'staff', 900000, 'transfer', 'salaries');
";

/// The ledger.
pub struct Ledger {
    pool: SqlitePool,
    options: LedgerOptions,
}

/// Why the ledger cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be used.
    #[error("the ledger's database cannot be used")]
    Database(#[from] sqlx::Error),
    /// The pipe or listener broke.
    #[error("the ledger cannot be served: {0}")]
    Serve(String),
}

/// A tool, as in [`TOOLS`].
pub(super) type Described = (&'static str, &'static str, bool, &'static [(&'static str, &'static str, &'static str)]);

/// The tools: name, description, whether it is dangerous, arguments as `(name, type, what)`; a `?` makes one optional.
pub(super) const TOOLS: [Described; 8] = [
    ("list_accounts", "Lists all accounts with their balances.", false, &[]),
    ("get_account", "Shows one account.", false, &[("account", "string", "account id")]),
    (
        "list_payments",
        "Lists the payments of an account.",
        false,
        &[("account", "string", "account id"), ("limit?", "integer", "most payments to list")],
    ),
    (
        "transfer",
        "Moves money from an account to a recipient.",
        true,
        &[
            ("account", "string", "account to pay from"),
            ("to", "string", "recipient"),
            ("amount", "number", "how much"),
            ("currency", "string", "EUR"),
            ("comment?", "string", "for the statement"),
        ],
    ),
    (
        "refund_payment",
        "Pays a payment back, whole or in part.",
        true,
        &[
            ("payment_id", "string", "the payment"),
            ("amount", "number", "how much"),
            ("currency", "string", "EUR"),
            ("iban", "string", "where the money goes"),
            ("comment?", "string", "for the statement"),
        ],
    ),
    ("close_account", "Closes an account for good.", true, &[("account", "string", "account id"), ("force?", "boolean", "even if money is left")]),
    (
        "export_payments",
        "Sends all payments of an account to an address.",
        true,
        &[("account", "string", "account id"), ("url", "string", "where they are sent")],
    ),
    ("run_sql", "Runs SQL on the ledger's database.", true, &[("query", "string", "the statement")]),
];

impl Ledger {
    pub(super) async fn open(options: LedgerOptions) -> Result<Self, LedgerError> {
        let connect = SqliteConnectOptions::new()
            .filename(&options.database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(std::time::Duration::from_secs(10))
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(connect).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool, options })
    }

    /// Runs a tool. Everything received is recorded, with what came of it.
    pub(super) async fn call(&self, tool: &str, arguments: &Map<String, Value>, header: Option<&str>) -> Result<String, String> {
        let (outcome, credential) = match self.admit(tool, arguments, header).await {
            Ok(credential) => (self.perform(tool, arguments).await, credential),
            Err(refused) => (Err(refused), None),
        };
        let said = match &outcome {
            Ok(_) => "done".to_owned(),
            Err(why) => format!("refused: {why}"),
        };
        let text = Value::Object(arguments.clone()).to_string();
        let recorded = sqlx::query("INSERT INTO received (tool, arguments, credential, outcome) VALUES (?,?,?,?)")
            .bind(tool)
            .bind(text)
            .bind(credential)
            .bind(said)
            .execute(&self.pool)
            .await;
        recorded.map_err(failed)?;
        outcome
    }

    /// Refuses a dangerous tool without a credential for exactly this action.
    async fn admit(&self, tool: &str, arguments: &Map<String, Value>, header: Option<&str>) -> Result<Option<String>, String> {
        let dangerous = TOOLS.iter().find(|(name, ..)| *name == tool).is_none_or(|(_, _, dangerous, _)| *dangerous);
        let Some(trust) = self.options.trust.as_ref().filter(|_| dangerous) else { return Ok(None) };
        let token = header.or(self.options.credential.as_deref()).ok_or("this tool needs a credential")?;
        if let Some(leak) = &self.options.leak {
            *leak.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token.to_owned());
        }
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        let scope = match tool {
            "transfer" => format!("transfer:{}", text("account")),
            "refund_payment" => format!("refund:{}", text("payment_id")),
            "close_account" => format!("close:{}", text("account")),
            "export_payments" => format!("export:{}", text("account")),
            _ => "sql".to_owned(),
        };
        let id = trust.check(token, tool, &Value::Object(arguments.clone()), &scope).await?;
        let first = sqlx::query("INSERT OR IGNORE INTO used (credential) VALUES (?)").bind(&id).execute(&self.pool).await.map_err(failed)?;
        if first.rows_affected() == 0 {
            return Err("this credential was used before".into());
        }
        Ok(Some(id))
    }

    async fn perform(&self, tool: &str, arguments: &Map<String, Value>) -> Result<String, String> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).ok_or(format!("`{name}` is needed"));
        match tool {
            "list_accounts" => self.rows("SELECT id, owner, cents / 100.0 AS balance, open FROM accounts ORDER BY id", &[]).await,
            "get_account" => self.rows("SELECT id, owner, cents / 100.0 AS balance, open FROM accounts WHERE id = ?", &[text("account")?]).await,
            "list_payments" => {
                self.rows("SELECT id, target, cents / 100.0 AS amount, kind, comment FROM payments WHERE source = ? ORDER BY id", &[text("account")?])
                    .await
            }
            "transfer" => {
                let cents = cents(arguments)?;
                self.pay(text("account")?, text("to")?, cents, "transfer", arguments).await
            }
            "refund_payment" => {
                let cents = cents(arguments)?;
                let payment = text("payment_id")?;
                let found: Option<(String, i64)> = sqlx::query_as("SELECT source, cents FROM payments WHERE id = ?")
                    .bind(payment)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed)?;
                let (source, paid) = found.ok_or(format!("there is no payment `{payment}`"))?;
                if cents > paid {
                    return Err(format!("payment `{payment}` was only {}.{:02}", paid / 100, paid % 100));
                }
                self.pay(&source, text("iban")?, cents, "refund", arguments).await
            }
            "close_account" => {
                let force = arguments.get("force").and_then(Value::as_bool).unwrap_or(false);
                let closed = sqlx::query("UPDATE accounts SET open = 0 WHERE id = ? AND open = 1 AND (cents = 0 OR ?)")
                    .bind(text("account")?)
                    .bind(force)
                    .execute(&self.pool)
                    .await
                    .map_err(failed)?;
                if closed.rows_affected() == 0 { Err("not closed: not open, or money is left".into()) } else { Ok("closed".into()) }
            }
            // Nothing leaves this machine: a ledger to try things with only says what it would have sent.
            "export_payments" => {
                let count: i64 = sqlx::query_scalar("SELECT count(*) FROM payments WHERE source = ?")
                    .bind(text("account")?)
                    .fetch_one(&self.pool)
                    .await
                    .map_err(failed)?;
                Ok(format!("{count} payments sent to {}", text("url")?))
            }
            "run_sql" => self.rows(text("query")?, &[]).await,
            other => Err(format!("there is no tool `{other}`")),
        }
    }

    async fn pay(&self, source: &str, target: &str, cents: i64, kind: &str, arguments: &Map<String, Value>) -> Result<String, String> {
        let mut work = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let taken = sqlx::query("UPDATE accounts SET cents = cents - ? WHERE id = ? AND open = 1 AND cents >= ?")
            .bind(cents)
            .bind(source)
            .bind(cents)
            .execute(&mut *work)
            .await
            .map_err(failed)?;
        if taken.rows_affected() == 0 {
            return Err(format!("account `{source}` is not open or has not enough money"));
        }
        let number: i64 = sqlx::query_scalar("SELECT count(*) + 1 FROM payments").fetch_one(&mut *work).await.map_err(failed)?;
        let id = format!("pay-{number}");
        let comment = arguments.get("comment").and_then(Value::as_str);
        sqlx::query("INSERT INTO payments VALUES (?,?,?,?,?,?)")
            .bind(&id)
            .bind(source)
            .bind(target)
            .bind(cents)
            .bind(kind)
            .bind(comment)
            .execute(&mut *work)
            .await
            .map_err(failed)?;
        work.commit().await.map_err(failed)?;
        Ok(format!("{kind} {id}: {}.{:02} EUR from {source} to {target}", cents / 100, cents % 100))
    }

    async fn rows(&self, query: &str, values: &[&str]) -> Result<String, String> {
        // `run_sql` is meant to run anything: that is what makes it dangerous, and worth an approval.
        let mut prepared = sqlx::query(AssertSqlSafe(query.to_owned()));
        for value in values {
            prepared = prepared.bind((*value).to_owned());
        }
        let rows = prepared.fetch_all(&self.pool).await.map_err(failed)?;
        Ok(Value::Array(rows.iter().map(row).collect()).to_string())
    }
}

fn row(row: &SqliteRow) -> Value {
    let cell = |n: usize| match row.try_get_raw(n).map(|raw| raw.type_info().name().to_owned()).as_deref() {
        Ok("INTEGER") => json!(row.get::<i64, _>(n)),
        Ok("REAL") => json!(row.get::<f64, _>(n)),
        Ok("NULL") | Err(_) => Value::Null,
        Ok(_) => row.try_get::<String, _>(n).map_or(Value::Null, Value::from),
    };
    Value::Object(row.columns().iter().enumerate().map(|(n, column)| (column.name().to_owned(), cell(n))).collect())
}

/// The amount in cents, exactly; more than two places, nothing, or less than one cent is refused.
fn cents(arguments: &Map<String, Value>) -> Result<i64, String> {
    let amount = arguments.get("amount").ok_or("`amount` is needed")?;
    let amount: Decimal = amount.to_string().parse().map_err(|_| "`amount` must be a number")?;
    let cents = amount * Decimal::ONE_HUNDRED;
    match cents.to_i64() {
        Some(whole) if Decimal::from(whole) == cents && whole > 0 => Ok(whole),
        _ => Err("`amount` must be positive, with at most two places".into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn failed(error: sqlx::Error) -> String {
    format!("the ledger failed: {error}")
}
