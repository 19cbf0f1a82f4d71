//! Secrets by reference, and the one place that reads this process's environment.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Deserializer};

/// Where a secret is: `{ env = "NAME" }`, `{ file = "/path" }` or `{ command = ["program", "argument"] }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// What a program prints.
    Command(Vec<String>),
    /// A variable of this process.
    Env(String),
    /// A file's content.
    File(PathBuf),
}

/// A secret that could not be had. Never says what was there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The program failed.
    #[error("the command `{0}` did not print a secret")]
    Command(String),
    /// There is nothing there.
    #[error("{0} is empty")]
    Empty(String),
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set")]
    Env(String),
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Reference {
            env: Option<String>,
            file: Option<PathBuf>,
            command: Option<Vec<String>>,
        }
        let wrong = || {
            serde::de::Error::custom(
                "a secret is a reference, never a literal: { env = \"NAME\" }, { file = \"/path\" } or { command = [\"program\"] }",
            )
        };
        let reference = Reference::deserialize(from).map_err(|_| wrong())?;
        match (reference.env, reference.file, reference.command) {
            (Some(name), None, None) => Ok(Self::Env(name)),
            (None, Some(path), None) => Ok(Self::File(path)),
            (None, None, Some(command)) if !command.is_empty() => Ok(Self::Command(command)),
            _ => Err(wrong()),
        }
    }
}

impl Secret {
    /// The secret, without the line break at its end.
    ///
    /// # Errors
    /// If it cannot be had, or is empty.
    pub fn reveal(&self) -> Result<String, SecretError> {
        let (text, place) = match self {
            Self::Env(name) => (environment(name).ok_or_else(|| SecretError::Env(name.clone()))?, format!("the variable `{name}`")),
            Self::File(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|source| SecretError::File { path: shown.clone(), source })?;
                (text, shown)
            }
            Self::Command(command) => {
                let fail = || SecretError::Command(command.first().cloned().unwrap_or_default());
                let (program, arguments) = command.split_first().ok_or_else(fail)?;
                let output = Command::new(program).args(arguments).output().map_err(|_| fail())?;
                let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success()).ok_or_else(fail)?;
                (text, format!("what `{program}` prints"))
            }
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() { Err(SecretError::Empty(place)) } else { Ok(text.to_owned()) }
    }
}

/// A variable of this process.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
