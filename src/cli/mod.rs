//! The command line: one file per verb, and one place where errors meet the terminal.

mod approvals;
mod audit;
mod channel;
mod credentials;
mod demo;
mod doctor;
mod exec_child;
mod hook;
mod install;
mod issuer;
mod policy;
mod schema;
mod score;
mod serve;
mod upstream;
mod watch;
mod wrap;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::app::config::{Config, ConfigError};
use crate::app::policies::LoadError;
use crate::app::{AppError, telemetry};
use crate::domain::policy::PolicyError;

/// Nothing risky runs until a named person countersigns it: an approval gateway for MCP tool calls.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = "Try it: countersign demo")]
struct Arguments {
    /// The configuration file [default: $COUNTERSIGN_CONFIG, ./countersign.toml, built-in defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say more on standard error
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// See and decide what waits
    Approvals(approvals::Arguments),
    /// Check and read the record
    Audit(audit::Arguments),
    /// Try a channel to approvers
    Channel(channel::Arguments),
    /// See and end credentials
    Credentials(credentials::Arguments),
    /// Play the whole story on this machine
    Demo(demo::Arguments),
    /// Check this installation
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    ExecChild(exec_child::Arguments),
    /// Tell the gateway what the user asked for; run by a client's hooks
    Hook(hook::Arguments),
    /// Put the servers of MCP clients on this machine behind the gateway
    Install(install::Arguments),
    /// Try an issuer of credentials
    Issuer(issuer::Arguments),
    /// Check, try and explain policies
    Policy(policy::Arguments),
    /// Print the JSON Schema of a file, for editors
    Schema(schema::Arguments),
    /// Judge calls: JSON lines in, assessments out
    Score(score::Arguments),
    /// Serve configured upstreams over HTTP
    Serve(serve::Arguments),
    /// Take them out again
    Uninstall(install::Arguments),
    /// Sign the gateway in at servers that ask for it
    Upstream(upstream::Arguments),
    /// Serve one MCP server over stdio, with approvals
    Wrap(wrap::Arguments),
}

/// What a verb could not do.
#[derive(Debug)]
struct Failure {
    error: Box<Failed>,
    hint: Option<String>,
    code: Code,
}

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// It failed.
    Failed = 1,
    /// The configuration or a policy is wrong.
    Invalid = 3,
    /// The audit chain is broken.
    Broken = 4,
    /// The decision was deny, or needs approval.
    Withheld = 5,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Caused(Box<dyn Error + Send + Sync>),
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl Failure {
    fn said(text: impl Into<String>) -> Self {
        Self { error: Box::new(Failed::Said(text.into())), hint: None, code: Code::Failed }
    }

    /// An error of a library's, with what caused it.
    fn caused(error: impl Error + Send + Sync + 'static) -> Self {
        Self { error: Box::new(Failed::Caused(Box::new(error))), hint: None, code: Code::Failed }
    }

    /// The error and its causes, on one line; a server's words among them cannot steer the terminal.
    fn told(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        crate::domain::text::visible(&text)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl<E: Into<Failed>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let (hint, code) = match &error {
            Failed::Config(_) => (Some("the reference is in README.md, Configuration".to_owned()), Code::Invalid),
            Failed::App(AppError::Policies(LoadError::Policy(PolicyError::File { .. } | PolicyError::Twice { .. }))) => {
                (Some("try it with: countersign policy check".to_owned()), Code::Invalid)
            }
            Failed::App(AppError::Listen { .. }) => {
                (Some("another program has that port: choose one with `[listen] address`".to_owned()), Code::Failed)
            }
            _ => (None, Code::Failed),
        };
        Self { error: Box::new(error), hint, code }
    }
}

/// Runs the program.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    // Runs before there is a runtime: it becomes another program.
    if let Verb::ExecChild(child) = &arguments.verb {
        return exec_child::run(child);
    }
    let quiet = matches!(
        arguments.verb,
        Verb::Demo(_)
            | Verb::Approvals(_)
            | Verb::Audit(_)
            | Verb::Policy(_)
            | Verb::Schema(_)
            | Verb::Score(_)
            | Verb::Channel(_)
            | Verb::Credentials(_)
            | Verb::Doctor(_)
            | Verb::Hook(_)
            | Verb::Issuer(_)
            | Verb::Upstream(_)
    );
    let level = match (arguments.verbose, quiet) {
        (true, _) => LevelFilter::DEBUG,
        (false, true) => LevelFilter::ERROR,
        (false, false) => LevelFilter::INFO,
    };
    telemetry::start(level, std::io::stderr().is_terminal());
    hide_memory();
    // One client on a pipe is answered soonest by one thread: every hand-over to another costs more than judging does.
    let mut builder = match arguments.verb {
        Verb::Wrap(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::from(error)),
    };
    let done = runtime.block_on(async {
        match arguments.verb {
            Verb::Approvals(verb) => approvals::run(config_or_default(arguments.config)?, verb).await,
            Verb::Audit(verb) => audit::run(config_or_default(arguments.config)?, verb).await,
            Verb::Channel(verb) => channel::run(config_or_default(arguments.config)?, verb).await,
            Verb::Credentials(verb) => credentials::run(config_or_default(arguments.config)?, verb).await,
            Verb::Issuer(verb) => issuer::run(config_or_default(arguments.config)?, verb).await,
            Verb::Doctor(verb) => doctor::run(config_or_default(arguments.config)?, verb).await,
            Verb::Demo(verb) => demo::run(verb).await,
            Verb::Policy(verb) => policy::run(config_or_default(arguments.config)?, verb).await,
            Verb::Schema(verb) => schema::run(&verb),
            Verb::Score(verb) => score::run(config_or_default(arguments.config)?, &verb),
            Verb::Hook(verb) => hook::run(config_or_default(arguments.config)?, verb).await,
            Verb::Install(verb) => install::install(&verb),
            Verb::Uninstall(verb) => install::uninstall(&verb),
            Verb::Serve(verb) => serve::run(arguments.config, verb).await,
            Verb::Upstream(verb) => upstream::run(config_or_default(arguments.config)?, verb).await,
            Verb::Wrap(verb) => wrap::run(arguments.config, verb).await,
            Verb::ExecChild(_) => Ok(()),
        }
    });
    // A read from standard input cannot be given up; it must not keep the program from ending.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Secrets pass through this process: it leaves no core dump, and others of the same user do not look into it.
fn hide_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        tracing::warn!(%error, "core dumps of this process could not be turned off");
    }
}

/// The configuration, or the built-in defaults, said on standard error.
fn config_or_default(path: Option<PathBuf>) -> Result<Config, Failure> {
    match Config::find(path.as_deref())? {
        Some(config) => Ok(config),
        None => {
            tracing::info!("no countersign.toml: built-in defaults hold");
            Ok(Config::built_in())
        }
    }
}

fn report(failure: &Failure) -> ExitCode {
    let mut text = format!("error: {}\n", failure.error);
    let mut cause = failure.error.source();
    while let Some(error) = cause {
        text.push_str(&format!("cause: {error}\n"));
        cause = error.source();
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(failure.code as u8)
}

/// Writes to standard output; whoever stopped reading has read enough.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}

/// Resolves when the program is asked to end.
async fn asked_to_end() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::error!(%error, "signals cannot be heard");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
