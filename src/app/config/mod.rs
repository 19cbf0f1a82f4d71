//! `countersign.toml`: read once, checked whole, and turned into what the rest of the program takes.
//!
//! Unknown keys are errors with line and the nearest known key. Secrets are references, never literals.

mod approvers;
mod file;
mod issuers;
mod secret;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use file::{
    Algorithm, CallerFile, ChannelKind, ConfigFile, EnvFile, JwksFile, SignInFile, SlackFile, TlsFile, TokenFile, Transport, UpstreamFile,
};
pub use issuers::{
    AwsStsFile, CredentialKind, ExchangeFile, ExecFile, GcpFile, GithubAppFile, KeyFile, KubernetesFile, OAuthFile, PartyFile, PostgresFile,
    SignedJwtFile, StaticFile, VaultFile, VaultLoginFile,
};
pub use secret::{Secret, SecretError};

use crate::adapters::channel::people::Approver;
use crate::domain::clock::Length;
use crate::domain::decision::Enforcement;
use crate::domain::policy::{DefaultMode, Defaults, explain_toml};
use crate::domain::text::nearest;
use crate::downstream::http::Most;
use crate::gateway::{Budget, Patience, Prompts};

/// Everything that the operator says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from; nothing for the built-in defaults.
    pub path: Option<PathBuf>,
    /// Where the front door listens.
    pub listen: SocketAddr,
    /// How it is reached from outside, without a slash at the end; `http://` and the address if not given.
    pub public: Option<String>,
    /// Further hosts that requests may name.
    pub hosts: Vec<String>,
    /// Most bytes of one message.
    pub message_limit: usize,
    /// How many calls of one caller may be under way at once.
    pub calls_per_caller: u32,
    /// How many sessions are kept.
    pub most: Most,
    /// Issuers of callers' tokens.
    pub tokens: Vec<TokenFile>,
    /// How TLS is served.
    pub tls: Option<TlsFile>,
    /// The store's file.
    pub store: PathBuf,
    /// What seals secrets in the journal of credentials.
    pub seal: Option<Secret>,
    /// Whether records of allowed calls are synced before the call goes out.
    pub sync_always: bool,
    /// Where policies are; nothing for none.
    pub policies: Option<PathBuf>,
    /// What holds for tools without a policy.
    pub defaults: Defaults,
    /// Whether calls are held back.
    pub enforcement: Enforcement,
    /// Whether tools that changed since they were first seen are kept from agents.
    pub withholds: bool,
    /// What becomes of users' prompts.
    pub prompts: Prompts,
    /// How long calls are held.
    pub hold: Hold,
    /// The names of the people who approve.
    pub approvers: Vec<String>,
    /// They, and the names that stand for several of them.
    pub people: BTreeMap<String, Approver>,
    /// The secrets of their one-time codes.
    pub codes: BTreeMap<String, Secret>,
    /// The channels beside the inbox.
    pub channels: BTreeMap<String, ChannelKind>,
    /// The wrapped servers.
    pub upstreams: BTreeMap<String, UpstreamFile>,
    /// The callers.
    pub callers: BTreeMap<String, file::CallerFile>,
    /// The issuers.
    pub credentials: BTreeMap<String, CredentialKind>,
}

/// How long calls are held.
#[derive(Clone, Debug)]
pub struct Hold {
    /// How long for which client.
    pub patience: Patience,
    /// How often a client is told to send its request again.
    pub rounds: u8,
    /// How often it hears of it.
    pub every: Duration,
    /// How many calls of one caller may wait at once.
    pub per_caller: u32,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {reason}")]
    Wrong {
        /// The file.
        path: String,
        /// What, and what to do.
        reason: String,
    },
}

impl Config {
    /// Reads the file that was named, that `$COUNTERSIGN_CONFIG` names, or `./countersign.toml`; answers nothing where
    /// none was named and none is there.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is wrong.
    pub fn find(named: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        let from_env = secret::environment("COUNTERSIGN_CONFIG").map(PathBuf::from);
        let here = Path::new("countersign.toml");
        match named.map(Path::to_path_buf).or(from_env) {
            Some(path) => Self::read(&path).map(Some),
            None if here.exists() => Self::read(here).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let mut config = Self::parse(&text, base).map_err(|reason| ConfigError::Wrong { path: shown, reason })?;
        config.path = Some(path.to_path_buf());
        Ok(config)
    }

    fn parse(text: &str, base: &Path) -> Result<Self, String> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| explain_toml(&error))?;
        let people = approvers::read(&file.approver)?;
        let known: Vec<String> = file.approver.keys().cloned().collect();
        let (approvers, groups): (Vec<String>, Vec<String>) =
            known.iter().cloned().partition(|name| matches!(people.get(name), Some(Approver::Person(_))));
        let listed = file.policy.approvers.clone().unwrap_or_else(|| approvers.clone());
        for name in &listed {
            if !known.contains(name) {
                let hint = nearest(name, known.iter().map(String::as_str)).map(|m| format!("; was `{m}` meant?"));
                return Err(format!("`[policy] approvers` names `{name}`, which is not an `[approver.…]`{}", hint.unwrap_or_default()));
            }
        }
        if approvers.is_empty() {
            return Err("nobody may approve anything: add at least one `[approver.NAME]`".into());
        }
        for (name, caller) in &file.caller {
            if known.contains(name) {
                return Err(format!("`{name}` is an approver and a caller: a caller must not have an approver's name"));
            }
            if let Some(owner) = caller.owner.as_ref().filter(|owner| !approvers.contains(owner)) {
                return Err(format!("`[caller.{name}] owner` is `{owner}`, which is not an `[approver.…]`: self-approval could not be told"));
            }
        }
        for (name, upstream) in &file.upstream {
            upstream.check().map_err(|reason| format!("`[upstream.{name}]`: {reason}"))?;
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                return Err(format!("`[upstream.{name}]`: a name is letters, digits, `-`, `_` and `.`"));
            }
        }
        if file.listen.tls.is_some() && !file.listen.public.as_ref().is_some_and(|public| public.starts_with("https://")) {
            return Err("`[listen] tls` needs `public = \"https://…\"`, the name in its certificate".into());
        }
        approvers::channels(&file.channel, &people)?;
        let codes = file.approver.iter().filter_map(|(name, file)| Some((name.clone(), file.totp.clone()?))).collect();
        let length = |l: Option<Length>, default: u64| l.map_or(Duration::from_secs(default), |l| l.0);
        Ok(Self {
            path: None,
            listen: file.listen.address.unwrap_or_else(default_address),
            public: file.listen.public.map(|p| p.trim_end_matches('/').to_owned()),
            hosts: file.listen.hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            message_limit: file.listen.message_limit.unwrap_or(4 << 20),
            most: Most {
                sessions: file.listen.sessions.unwrap_or(SESSIONS.sessions),
                per_caller: file.listen.sessions_per_caller.unwrap_or(SESSIONS.per_caller),
            },
            calls_per_caller: file.listen.calls_per_caller.unwrap_or(CALLS),
            tokens: file.listen.token,
            tls: file.listen.tls,
            store: base.join(file.store.path.unwrap_or_else(|| "countersign.db".into())),
            seal: file.store.seal,
            sync_always: file.store.durability == Some(file::Durability::Always),
            policies: Some(base.join(file.policy.directory.unwrap_or_else(|| "tool-policies".into()))),
            defaults: Defaults {
                mode: file.policy.default.unwrap_or(DefaultMode::Approve),
                approvers: listed,
                owner_may_approve: false,
                known_approvers: known,
                groups,
                known_issuers: file.credential.keys().cloned().collect(),
                judged_only: false,
            },
            enforcement: match file.policy.mode {
                Some(file::ModeFile::Shadow) => Enforcement::Shadow,
                _ => Enforcement::Enforce,
            },
            withholds: file.policy.changed_tools != Some(file::ChangedTools::Show),
            prompts: match file.audit.prompts {
                Some(file::PromptsFile::Digest) => Prompts::Digest,
                Some(file::PromptsFile::Off) => Prompts::Off,
                Some(file::PromptsFile::Keep) | None => Prompts::Keep,
            },
            hold: Hold {
                patience: patience(&file.hold),
                rounds: file.hold.rounds.unwrap_or(ROUNDS),
                every: length(file.hold.progress_every, 10),
                per_caller: file.hold.pending_per_caller.unwrap_or(100),
            },
            approvers,
            people,
            codes,
            channels: file.channel,
            upstreams: file.upstream.into_iter().map(|(name, upstream)| (name, upstream.based(base))).collect(),
            callers: file.caller,
            credentials: file.credential,
        })
    }

    /// What holds without any file: one person on their own machine, who approves what their own agent wants to do.
    pub fn built_in() -> Self {
        let owner = secret::environment("USER").or_else(|| secret::environment("LOGNAME")).filter(|u| !u.is_empty());
        let owner = owner.unwrap_or_else(|| "owner".into());
        let state = secret::environment("XDG_STATE_HOME").map(PathBuf::from);
        let home = secret::environment("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let state = state.unwrap_or_else(|| home.join(".local/state"));
        let caller = file::CallerFile { owner: Some(owner.clone()), subject: None, issuer: None };
        Self {
            path: None,
            listen: default_address(),
            public: None,
            hosts: Vec::new(),
            message_limit: 4 << 20,
            calls_per_caller: CALLS,
            most: SESSIONS,
            tokens: Vec::new(),
            tls: None,
            store: state.join("countersign/countersign.db"),
            seal: None,
            sync_always: false,
            policies: None,
            defaults: Defaults {
                mode: DefaultMode::Score,
                approvers: vec![owner.clone()],
                owner_may_approve: true,
                known_approvers: vec![owner.clone()],
                groups: Vec::new(),
                known_issuers: Vec::new(),
                judged_only: false,
            },
            enforcement: Enforcement::Enforce,
            withholds: true,
            prompts: Prompts::Keep,
            hold: Hold { patience: patience(&file::HoldFile::default()), rounds: ROUNDS, every: Duration::from_secs(10), per_caller: 100 },
            people: BTreeMap::from([(owner.clone(), Approver::Person(Default::default()))]),
            codes: BTreeMap::new(),
            channels: BTreeMap::new(),
            approvers: vec![owner],
            upstreams: BTreeMap::new(),
            callers: BTreeMap::from([("local".to_owned(), caller)]),
            credentials: BTreeMap::new(),
        }
    }

    /// How the gateway is reached: its public address, or where it listens.
    pub fn address(&self) -> String {
        self.public.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }

    /// The directory that paths in the file are relative to.
    pub fn base(&self) -> &Path {
        self.path.as_deref().and_then(Path::parent).unwrap_or(Path::new("."))
    }

    /// The variables of this process that a wrapped server gets where nothing else is configured: what it needs to be
    /// found and to find its own files, and no secret.
    pub fn basic_environment() -> BTreeMap<String, String> {
        let names = ["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
        names.into_iter().filter_map(|name| Some((name.to_owned(), secret::environment(name)?))).collect()
    }

    /// A variable of this process, named on the command line.
    pub fn variable(name: &str) -> Option<String> {
        secret::environment(name)
    }
}

/// How many calls of one caller are taken at once.
const CALLS: u32 = 1000;

/// How many sessions are kept.
const SESSIONS: Most = Most { sessions: 10_000, per_caller: 2_000 };

/// The SDKs send a request ten times.
const ROUNDS: u8 = 9;

fn patience(file: &file::HoldFile) -> Patience {
    let seconds = |given: Option<Length>, usual: u64| given.map_or(Duration::from_secs(usual), |length| length.0);
    let usual = Budget { silent: seconds(file.budget, 50), with_progress: seconds(file.budget_with_progress, 210) };
    let mut patience = Patience::known(usual);
    patience.clients.extend(file.client.iter().map(|(name, client)| {
        let budget = Budget { silent: client.budget.0, with_progress: client.budget_with_progress.unwrap_or(client.budget).0 };
        (name.to_lowercase(), budget)
    }));
    patience
}

fn default_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/base"))
    }

    #[test]
    fn the_smallest_configuration_has_an_approver() {
        let config = parse("[approver.anna]\n[upstream.x]\ncommand = [\"true\"]\n").unwrap();
        assert_eq!(config.defaults.mode, DefaultMode::Approve);
        assert_eq!(config.store, Path::new("/base/countersign.db"));
        assert!(parse("").unwrap_err().contains("[approver.NAME]"));
    }

    #[test]
    fn mistakes_are_named_with_what_was_meant() {
        for (text, part) in [
            ("[listn]\n", "was `listen` meant?"),
            ("[approver.anna]\n[policy]\napprovers = [\"ana\"]\n", "was `anna` meant?"),
            ("[approver.anna]\n[caller.bot]\nowner = \"bob\"\n", "self-approval could not be told"),
            ("[approver.anna]\n[caller.anna]\n", "must not have an approver's name"),
            ("[approver.anna]\n[upstream.x]\n", "either `command` or `url`"),
            ("[approver.anna]\n[upstream.x]\nurl = \"http://x/\"\nenv = { A = \"b\" }\n", "`env`"),
            ("[approver.anna]\n[upstream.x]\nurl = \"http://x/\"\nbearer = \"literal\"\n", "never a literal"),
            ("[approver.anna]\n[hold]\nbudget = \"50\"\n", "not a length of time"),
            ("[approver.anna]\n[credential.x]\nkind = \"volt\"\n", "was `vault` meant?"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "`{part}` in:\n{error}");
        }
    }
}
