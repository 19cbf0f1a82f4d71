//! Reads the policy files, and reads them again when they change: as a whole set, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::adapters::credential::Issuers;
use crate::adapters::store::Change;
use crate::domain::audit::{Entry, EventKind};
use crate::domain::policy::{Defaults, PolicyError, PolicySet, PolicySource};
use crate::gateway::Gateway;

/// How often the files are looked at. Looking is cheaper to rely on than file events, which network and container
/// volumes do not deliver.
const EVERY: Duration = Duration::from_secs(1);

/// Where policies come from.
#[derive(Clone)]
pub struct Source {
    directory: Option<PathBuf>,
    defaults: Defaults,
    issuers: Option<Arc<Issuers>>,
}

/// Names, times and sizes of the policy files.
pub type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Why policies could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl Source {
    /// Files below `directory`, over `defaults`.
    pub fn new(directory: Option<PathBuf>, defaults: Defaults) -> Self {
        Self { directory, defaults, issuers: None }
    }

    /// Looks also whether these issuers take what policies ask of them.
    pub fn with(self, issuers: Arc<Issuers>) -> Self {
        Self { issuers: Some(issuers), ..self }
    }

    /// Compiles all files. A directory that is not there has none.
    ///
    /// # Errors
    /// If a file cannot be read or is wrong.
    pub fn load(&self) -> Result<PolicySet, LoadError> {
        let mut sources = Vec::new();
        for path in self.files()? {
            let text = std::fs::read_to_string(&path).map_err(|source| LoadError::Read { path: path.display().to_string(), source })?;
            sources.push(PolicySource { path: path.display().to_string(), text });
        }
        let set = PolicySet::compile(&sources, &self.defaults)?;
        for policy in set.all() {
            let Some((terms, issuers)) = policy.credential.as_ref().zip(self.issuers.as_ref()) else { continue };
            if let Some(Err(error)) = issuers.get(&terms.issuer).map(|issuer| issuer.takes(&terms.written())) {
                let reason = format!("`[credential.parameters]` for `{}`: {error}", terms.issuer);
                return Err(PolicyError::File { path: policy.source.clone(), reason }.into());
            }
        }
        Ok(set)
    }

    fn files(&self) -> Result<Vec<PathBuf>, LoadError> {
        let mut files = Vec::new();
        if let Some(directory) = self.directory.as_deref().filter(|d| d.exists()) {
            collect(directory, &mut files, 0)?;
        }
        files.sort();
        Ok(files)
    }

    /// Names, times and sizes: what changes when a file does.
    pub fn fingerprint(&self) -> Fingerprint {
        let files = self.files().unwrap_or_default();
        let look = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(meta) => (path, meta.modified().ok(), meta.len()),
            Err(_) => (path, None, 0),
        };
        files.into_iter().map(look).collect()
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, depth: u8) -> Result<(), LoadError> {
    let failed = |source| LoadError::Read { path: directory.display().to_string(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if path.is_dir() && depth < 8 && !hidden {
            collect(&path, files, depth + 1)?;
        } else if path.extension().is_some_and(|e| e == "toml") && !hidden {
            files.push(path);
        }
    }
    Ok(())
}

/// Looks for changes since `loaded` until stopped. A set that does not compile leaves the old one in force, loudly.
pub(super) async fn watch(source: Source, mut loaded: Fingerprint, gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut seen = loaded.clone();
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        let now = source.fingerprint();
        // Twice the same, so that a file is not read while it is being written.
        if now == loaded || now != seen {
            seen = now;
            continue;
        }
        loaded = now;
        let (kind, data) = match source.load() {
            Ok(set) => {
                let digest = set.digest;
                tracing::info!(%digest, "the policies changed; the new set is in force");
                gateway.set_policies(set);
                (EventKind::PolicyLoaded, json!({"policies": digest}))
            }
            Err(error) => {
                tracing::error!(%error, "the policies changed and are wrong: THE OLD SET STAYS IN FORCE");
                (EventKind::PolicyRefused, json!({"why": error.to_string()}))
            }
        };
        let entry = Entry { kind, at: gateway.clock.now(), call: None, subject: None, data: data.to_string() };
        if let Err(error) = gateway.store.commit(Change::synced(entry, vec![])).await {
            tracing::error!(%error, "the change of policies could not be recorded");
        }
    }
}
