//! The spool: records of calls that policy allows, on their way into the store.
//!
//! One line in a file, written before the call goes out, survives the death of this process and costs a few
//! microseconds; the writer moves the lines into the store in groups, in order. What a dead gateway left in its spool is
//! adopted by the next. Lines carry numbers, so that moving them twice is impossible.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::domain::audit::Entry;

/// The file is emptied when everything in it was moved and it is longer than this.
const LONG: u64 = 1 << 20;

/// One line of the spool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    /// Its number, from 1, rising.
    pub(super) number: i64,
    /// The record.
    pub(super) entry: Entry,
}

/// The spool of this gateway.
pub(super) struct Spool {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Opened at the first line: most programs that open a store write none.
    file: Option<File>,
    written: u64,
    number: i64,
    waiting: Vec<Line>,
    /// The store did not take what waits: until it does, nothing more is taken here either.
    refusing: bool,
}

impl Spool {
    /// The spool of `instance`, beside the store at `database`.
    pub(super) fn new(database: &Path, instance: &str) -> Self {
        Self { path: path(database, instance), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record; answers how many wait now. It is in the file when this returns.
    pub(super) fn append(&self, entry: Entry) -> Result<usize, StoreError> {
        let failed = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", self.path.display()));
        let mut state = self.state();
        if state.refusing {
            return Err(StoreError::Unavailable("it does not take the records of earlier calls".into()));
        }
        if state.file.is_none() {
            if let Some(directory) = self.path.parent() {
                std::fs::create_dir_all(directory).map_err(failed)?;
            }
            state.file = Some(OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).map_err(failed)?);
        }
        let line = Line { number: state.number + 1, entry };
        let mut text = serde_json::to_vec(&line).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        text.push(b'\n');
        // A few hundred bytes into the page cache: shorter than waking another thread to do it.
        let written = state.file.as_mut().map_or(Ok(()), |file| file.write_all(&text));
        if let Err(error) = written {
            // What was half written is no line, and the next one must not be joined to it.
            let (whole, cut) = (state.written, state.file.as_ref());
            if let Some(Err(error)) = cut.map(|file| file.set_len(whole)) {
                tracing::error!(%error, "half a line could not be cut off the spool");
            }
            state.refusing = true;
            return Err(failed(error));
        }
        state.number = line.number;
        state.written += text.len() as u64;
        state.waiting.push(line);
        Ok(state.waiting.len())
    }

    /// Takes what waits, to be moved.
    pub(super) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut self.state().waiting)
    }

    /// Takes the end of a call without writing it to the file: nobody waits for it, and if it is lost in a crash the
    /// next gateway records the call's outcome as unknown. Answers how many wait now.
    pub(super) fn push(&self, entry: Entry) -> usize {
        let mut state = self.state();
        state.number += 1;
        let line = Line { number: state.number, entry };
        state.waiting.push(line);
        state.waiting.len()
    }

    /// Whether it takes nothing until the store works again.
    pub(super) fn is_refusing(&self) -> bool {
        self.state().refusing
    }

    /// What was taken is in the store.
    pub(super) fn moved(&self) {
        let mut state = self.state();
        state.refusing = false;
        if state.waiting.is_empty() && state.written > LONG {
            let emptied = state.file.as_ref().map_or(Ok(()), |file| file.set_len(0));
            match emptied {
                Ok(()) => state.written = 0,
                Err(error) => tracing::warn!(%error, "the spool could not be emptied"),
            }
        }
    }

    /// The store did not take it: it waits on, and nothing more is taken until it does.
    pub(super) fn put_back(&self, mut lines: Vec<Line>) {
        let mut state = self.state();
        state.refusing = true;
        lines.append(&mut state.waiting);
        state.waiting = lines;
    }
}

/// Where the spool of `instance` is.
pub(super) fn path(database: &Path, instance: &str) -> PathBuf {
    super::instance::directory(database).join(format!("{instance}.spool"))
}

/// The lines of a dead gateway's spool. The last one may be torn; it stands for a call that did not go out.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, StoreError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", path.display()))),
    };
    let whole = text.rsplit(|b| *b == b'\n').skip(1).collect::<Vec<_>>();
    let lines = whole.into_iter().rev().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|e| StoreError::Corrupt(format!("{}: {e}", path.display())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::EventKind;
    use crate::domain::clock::Timestamp;

    fn entry(n: i64) -> Entry {
        Entry { kind: EventKind::Allowed, at: Timestamp(n), call: None, subject: Some(format!("s{n}")), data: "{}".into() }
    }

    #[test]
    fn lines_survive_and_a_torn_one_is_left_out() {
        let database = std::env::temp_dir().join(format!("countersign-spool-{}", std::process::id()));
        let spool = Spool::new(&database, "one");
        assert_eq!(spool.append(entry(1)).unwrap(), 1);
        assert_eq!(spool.append(entry(2)).unwrap(), 2);
        let file = path(&database, "one");
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"{\"number\":3,\"ent").unwrap();
        let lines = read(&file).unwrap();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lines[1].entry, entry(2));
        let taken = spool.take();
        spool.put_back(taken);
        assert!(spool.append(entry(3)).is_err(), "nothing more is taken while the store takes nothing");
        assert_eq!(spool.take().len(), 2);
        spool.moved();
        assert_eq!(spool.append(entry(3)).unwrap(), 1);
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }
}
