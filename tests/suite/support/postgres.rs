//! A real Postgres of its own for each test, on a free port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::{Connection, Executor, PgConnection};

use super::{Scratch, required};

/// A server with the database `app`: `customers` and `invoices`, and `minter`, who may make roles.
pub struct Server {
    pub port: u16,
    scratch: Scratch,
    programs: PathBuf,
}

impl Server {
    /// Starts one, if Postgres is installed.
    pub async fn start() -> Option<Self> {
        let found = programs();
        assert!(found.is_some() || !required("postgres"), "Postgres is missing: install the Debian package postgresql");
        let programs = found.or_else(|| {
            eprintln!("skipped: Postgres is not installed");
            None
        })?;
        let scratch = Scratch::new();
        let port = crate::support::free_port();
        let server = Self { port, scratch, programs };
        server.scratch.write("password", "of-the-administrator\n");
        if root() {
            // Postgres refuses to run as root.
            assert!(Command::new("chown").args(["-R", "postgres"]).arg(&server.scratch.0).status().unwrap().success());
        }
        let data = server.scratch.0.join("data").display().to_string();
        let password = server.scratch.0.join("password").display().to_string();
        server.program("initdb", &["-D", &data, "-A", "scram-sha-256", "--pwfile", &password, "-U", "administrator", "-N"]);
        let directory = server.scratch.0.display().to_string();
        // The log has every statement: no password may be in it.
        let options = format!("-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off -c log_statement=all");
        let log = server.scratch.0.join("log").display().to_string();
        server.program("pg_ctl", &["-D", &data, "-o", &options, "-l", &log, "-w", "start"]);
        let mut all = server.connect("postgres").await;
        all.execute("CREATE DATABASE app").await.unwrap();
        let mut app = server.connect("app").await;
        app.execute(
            "CREATE TABLE customers (id int, name text); INSERT INTO customers VALUES (1, 'ada'), (2, 'bob');
             CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (1);
             CREATE ROLE minter LOGIN CREATEROLE PASSWORD 'of-the-minter';
             GRANT pg_signal_backend TO minter;
             GRANT select, update, delete ON customers TO minter WITH GRANT OPTION;
             GRANT USAGE ON SCHEMA public TO minter WITH GRANT OPTION;
             CREATE ROLE lister LOGIN PASSWORD 'of-the-lister'",
        )
        .await
        .unwrap();
        Some(server)
    }

    /// As the administrator.
    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&format!("postgres://administrator:of-the-administrator@127.0.0.1:{}/{database}", self.port)).await.unwrap()
    }

    /// How many roles of the gateway's there are.
    pub async fn roles(&self) -> i64 {
        let mut app = self.connect("app").await;
        sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'countersign\\_%'").fetch_one(&mut app).await.unwrap()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap()
    }

    /// `[credential.pg]`.
    pub fn issuer(&self) -> String {
        let address = self.scratch.0.join("minter");
        if !address.exists() {
            self.scratch.write("minter", &format!("postgres://minter:of-the-minter@127.0.0.1:{}/app\n", self.port));
        }
        format!(
            "[credential.pg]\nkind = \"postgres\"\naddress = {{ file = \"{}\" }}\ntables = [\"public.customers\"]\nprivileges = [\"select\", \"update\", \"delete\"]\n",
            address.display()
        )
    }

    fn program(&self, name: &str, arguments: &[&str]) {
        let path = self.programs.join(name);
        let mut command = if root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let done = command.args(arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "{name} failed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.scratch.0.join("data").display().to_string();
        self.program("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = installed.chain(std::env::split_paths(&path)).find(|directory| directory.join("initdb").exists());
    found.map(|directory| Path::new(&directory).to_path_buf())
}
