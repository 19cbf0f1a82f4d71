//! How long a call is held for which client: long enough for people, and shorter than the client waits.

use std::time::Duration;

/// How long calls are held.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For clients that are not in the table.
    pub usual: Budget,
    /// By the beginning of the name that a client gives itself, in small letters. The longest that fits counts. Names are
    /// the client's own word, and decide nothing else.
    pub clients: Vec<(String, Budget)>,
}

/// How long one call is held before its client is told to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Where the client takes no progress messages.
    pub silent: Duration,
    /// Where it takes them.
    pub with_progress: Duration,
}

/// What is known of clients: name, seconds without progress messages, seconds with them. From their sources and issue
/// trackers: Claude Code cuts what is silent for 300 s, and progress starts that anew; Claude Desktop gives up after about a
/// minute whatever it is told; editors and Codex cut at 300 s.
const KNOWN: [(&str, u64, u64); 6] = [
    ("claude-code", 210, 1800),
    ("claude-ai", 50, 50),
    ("codex", 210, 210),
    ("cursor", 210, 210),
    ("visual studio code", 210, 210),
    ("windsurf", 50, 210),
];

impl Patience {
    /// The table that is built in, with `usual` for everybody else.
    pub fn known(usual: Budget) -> Self {
        let seconds = |(name, silent, with_progress): (&str, u64, u64)| {
            (name.to_owned(), Budget { silent: Duration::from_secs(silent), with_progress: Duration::from_secs(with_progress) })
        };
        Self { usual, clients: KNOWN.into_iter().map(seconds).collect() }
    }

    /// What holds for the client of that name.
    pub fn of(&self, client: Option<&str>) -> Budget {
        let Some(name) = client.map(str::to_lowercase) else { return self.usual };
        let fits = self.clients.iter().filter(|(beginning, _)| name.starts_with(beginning.as_str()));
        // The last of equals: what the operator says comes after what is built in.
        fits.max_by_key(|(beginning, _)| beginning.len()).map_or(self.usual, |(_, budget)| *budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_that_fits_counts_and_the_operators_word_last() {
        let budget = |s| Budget { silent: Duration::from_secs(s), with_progress: Duration::from_secs(s) };
        let mut patience = Patience::known(budget(1));
        patience.clients.extend([("claude".into(), budget(2)), ("claude-ai".into(), budget(3))]);
        for (name, seconds) in [(None, 1), (Some("else"), 1), (Some("Claude-Code"), 210), (Some("claude-x"), 2), (Some("claude-ai/1"), 3)] {
            assert_eq!(patience.of(name).silent.as_secs(), seconds, "{name:?}");
        }
    }
}
