//! What a child with a credential has of its own: files, and a standard error that says no secret.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::domain::scrub::Scrubber;
use crate::system::random_hex;

/// Files that hold a credential, in a directory that only this user can look into.
pub(super) struct Files(PathBuf);

impl Files {
    /// Writes them, and tells the program of `command` where they are.
    pub(super) fn write(private: &Path, files: &[(String, Zeroizing<String>)], command: &mut Command) -> std::io::Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let name = random_hex::<16>().map_err(std::io::Error::other)?;
        let made = Self(private.join(name));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&made.0)?;
        for (variable, text) in files {
            let path = made.0.join(variable);
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            command.env(variable, path);
        }
        Ok(Some(made))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::error!(%error, "a file with a credential could not be removed: {}", self.0.display());
        }
    }
}

/// Hands on what a child with a credential says on its standard error, without the credential.
pub(super) async fn relay_errors(mut from: tokio::process::ChildStderr, scrubber: Scrubber) {
    let mut stream = scrubber.stream();
    let mut to = tokio::io::stderr();
    let mut piece = vec![0; 8 << 10];
    loop {
        let (out, over) = match from.read(&mut piece).await {
            Ok(0) | Err(_) => (stream.finish(), true),
            Ok(n) => (stream.push(piece.get(..n).unwrap_or_default()), false),
        };
        drop(to.write_all(&out).await);
        drop(to.flush().await);
        if over {
            return;
        }
    }
}
