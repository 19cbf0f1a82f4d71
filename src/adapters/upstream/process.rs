//! A server on pipes: a program of this machine, or one at an address that only speaks the transport of 2024-11-05.
//!
//! A program inherits nothing: its environment is what the configuration lists. It dies with this process: it is started
//! through this same program (`exec-child`), which asks the kernel for that before it becomes the server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::process::Command;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use super::lent::{Files, relay_errors};
use super::{HttpUpstream, Lines, MAX_MESSAGE, Secrets, legacy};

/// What is started, and with what.
#[derive(Clone, Debug)]
pub struct ChildSettings {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory; this process's if none.
    pub directory: Option<PathBuf>,
    /// How it is started.
    pub launch: Launch,
    /// Where files are made that hold a credential for one call.
    pub private: PathBuf,
}

/// How children are started.
#[derive(Clone)]
pub enum Launch {
    /// Through `<this program> exec-child --`, so that they die with this process and leave no core dump.
    Through(PathBuf),
    /// Not at all: the server is at an address, and speaks the transport of 2024-11-05.
    Sse(Box<HttpUpstream>),
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Through(_) => "Through",
            Self::Sse(_) => "Sse",
        })
    }
}

impl ChildSettings {
    /// A server at an address that speaks the transport of 2024-11-05: its clients see it as a child.
    pub fn sse(http: HttpUpstream, address: String) -> Self {
        Self { command: vec![address], env: BTreeMap::new(), directory: None, launch: Launch::Sse(Box::new(http)), private: PathBuf::new() }
    }

    /// Whether a credential can be in headers; else it can be in variables and files.
    pub(super) fn takes_headers(&self) -> bool {
        matches!(self.launch, Launch::Sse(_))
    }
}

/// What a server says.
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A server on pipes.
pub(super) struct Process {
    stdin: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    program: Option<Program>,
    // Ends the connection to a server that is none of ours.
    _remote: Option<DropGuard>,
}

struct Program {
    child: Mutex<tokio::process::Child>,
    group: Option<rustix::process::Pid>,
    // Removed with its call, or with it.
    files: Mutex<Option<Files>>,
}

impl Process {
    /// Starts the server; with a credential, for one call.
    pub(super) fn start(settings: &ChildSettings, alone: Option<&Secrets>, tasks: &TaskTracker) -> std::io::Result<(Self, Lines<Output>)> {
        let launcher = match &settings.launch {
            Launch::Through(launcher) => launcher,
            Launch::Sse(http) => {
                let (stdin, stdout, remote) = legacy::connect(http, alone, tasks);
                let process = Self { stdin: tokio::sync::Mutex::new(Box::new(stdin)), program: None, _remote: Some(remote) };
                return Ok((process, Lines::new(Box::new(stdout), MAX_MESSAGE)));
            }
        };
        let mut command = Command::new(launcher);
        command.arg("exec-child").arg("--").args(&settings.command);
        command.env_clear().envs(&settings.env);
        let mut files = None;
        if let Some(secrets) = alone {
            command.envs(secrets.env.iter().map(|(name, value)| (name, value.as_str())));
            files = Files::write(&settings.private, &secrets.files, &mut command)?;
        }
        if let Some(directory) = &settings.directory {
            command.current_dir(directory);
        }
        let scrubber = alone.and_then(|secrets| secrets.scrubber.clone());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if scrubber.is_some() { Stdio::piped() } else { Stdio::inherit() });
        // A group of its own, so that whatever it starts can be ended with it.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let missing = || std::io::Error::other("no pipe to the server");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        if let Some((stderr, scrubber)) = child.stderr.take().zip(scrubber) {
            tasks.spawn(relay_errors(stderr, scrubber));
        }
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let program = Program { child: Mutex::new(child), group, files: Mutex::new(files) };
        let process = Self { stdin: tokio::sync::Mutex::new(Box::new(stdin)), program: Some(program), _remote: None };
        Ok((process, Lines::new(Box::new(stdout), MAX_MESSAGE)))
    }

    pub(super) async fn write(&self, message: &str) -> std::io::Result<()> {
        let mut stdin = self.stdin.lock().await;
        stdin.write_all(message.as_bytes()).await?;
        stdin.write_all(b"\n").await?;
        stdin.flush().await
    }

    /// Ends the whole group: asks first, then insists.
    pub(super) async fn end(&self) {
        // However long it takes to end: what it was lent for its call is gone now.
        let files = self.program.as_ref().and_then(|program| program.files.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(files);
        drop(self.stdin.lock().await.shutdown().await);
        let Some(program) = &self.program else { return };
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
            for _ in 0..20 {
                let gone = program.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
                if !matches!(gone, Ok(None)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            program.signal(signal);
        }
        drop(program.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait());
    }
}

impl Program {
    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(group) = self.group {
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}
