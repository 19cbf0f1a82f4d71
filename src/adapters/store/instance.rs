//! Which gateways that share a store are alive: each holds a lock on a file of its own, which the system releases
//! however the process ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// This gateway's lock, and the place where others keep theirs.
#[derive(Debug)]
pub struct Instances {
    directory: PathBuf,
    id: String,
    // Held for as long as the process lives; never read.
    _lock: File,
}

impl Instances {
    /// Takes the lock for `id` beside the store at `database`.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn register(database: &Path, id: &str) -> io::Result<Self> {
        let directory = directory(database);
        std::fs::create_dir_all(&directory)?;
        // Made under another name and locked before it gets its own, so that nobody finds it unlocked.
        let making = directory.join(format!("{id}.new"));
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(&making)?;
        lock.try_lock().map_err(io::Error::from)?;
        std::fs::rename(&making, directory.join(id))?;
        Ok(Self { directory, id: id.to_owned(), _lock: lock })
    }

    /// This gateway's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gateways that ended without saying so. Holding the answer keeps others from cleaning up after them as well.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn dead(&self) -> io::Result<Vec<Dead>> {
        let mut dead = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
            // Only locks: `.new` is one in the making, `.spool` a gateway's spool.
            if id == self.id || id.contains('.') {
                continue;
            }
            let Ok(lock) = OpenOptions::new().write(true).open(&path) else { continue };
            if lock.try_lock().is_ok() {
                dead.push(Dead { id, path, _lock: lock });
            }
        }
        Ok(dead)
    }

    /// Takes this gateway's own file away: it ends as it should, and leaves nothing to clean up.
    pub fn leave(&self) {
        clear(&private(&self.directory, &self.id));
        drop(std::fs::remove_file(self.directory.join(format!("{}.spool", self.id))));
        if let Err(error) = std::fs::remove_file(self.directory.join(&self.id)) {
            tracing::warn!(%error, "could not remove this gateway's lock file");
        }
    }
}

/// What only one of the gateways that share a store does, such as to speak with a chat service. Ends with the process.
#[derive(Debug)]
pub struct Lead {
    // Held for as long as this gateway leads; never read.
    _lock: File,
}

impl Instances {
    /// Takes the lead in `what`, if no other gateway has it.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn lead(&self, what: &str) -> io::Result<Option<Lead>> {
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(self.directory.join(format!("{what}.lead")))?;
        Ok(lock.try_lock().is_ok().then_some(Lead { _lock: lock }))
    }
}

/// Where the gateway `id` keeps files that hold credentials, each for one call. Cleared when it ends, or after its crash.
pub fn private_files(database: &Path, id: &str) -> PathBuf {
    private(&directory(database), id)
}

fn private(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}.files"))
}

fn clear(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(%error, "files with credentials could not be removed: {}", directory.display());
    }
}

/// How the socket of a gateway is named on which it hears hooks: its id before it.
pub const PROMPTS: &str = ".prompts";

/// Where the gateways that share a store have what others look for.
pub fn gateways_beside(database: &Path) -> PathBuf {
    directory(database)
}

/// Where the locks and spools beside a store are.
pub(super) fn directory(database: &Path) -> PathBuf {
    let mut directory = database.as_os_str().to_owned();
    directory.push(".instances");
    PathBuf::from(directory)
}

/// A gateway that ended without saying so.
#[derive(Debug)]
pub struct Dead {
    /// Its id.
    pub id: String,
    path: PathBuf,
    _lock: File,
}

impl Dead {
    /// Everything it left open is settled: its file goes.
    pub fn buried(self) {
        if let Some(directory) = self.path.parent() {
            clear(&private(directory, &self.id));
            // There may be none.
            drop(std::fs::remove_file(directory.join(format!("{}{PROMPTS}", self.id))));
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "could not remove a dead gateway's lock file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_dead_when_its_lock_is_free() {
        let database = std::env::temp_dir().join(format!("countersign-instances-{}", std::process::id()));
        let one = Instances::register(&database, "one").unwrap();
        let two = Instances::register(&database, "two").unwrap();
        assert!(one.dead().unwrap().is_empty());
        drop(two);
        let dead = one.dead().unwrap();
        assert_eq!(dead[0].id, "two");
        assert!(one.dead().unwrap().is_empty(), "whoever cleans up holds the lock");
        for d in dead {
            d.buried();
        }
        one.leave();
        std::fs::remove_dir(one.directory).unwrap();
    }
}
