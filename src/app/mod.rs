//! Config, build, run: puts the parts together. Alone knows which adapters exist, and hands them inward as ports.

mod channels;
pub mod config;
mod http;
mod issuers;
mod keys;
pub mod policies;
pub mod sign_in;
pub mod telemetry;
mod tls;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::channel::people::{CodeError, People};
use crate::adapters::channel::slack::{self, Slack, SlackError};
use crate::adapters::channel::{Channel, Channels, Inbox};
use crate::adapters::credential::{IssueError, Issuers, KeyRing};
use crate::adapters::store::{Change, Instances, Sqlite, Store, StoreError, gateways_beside, private_files};
use crate::adapters::upstream::{ChildSettings, HttpUpstream, Launch, Standing, UrlError};
use crate::domain::audit::{Entry, EventKind};
use crate::domain::call::{Caller, Identity};
use crate::domain::clock::Clock;
use crate::domain::digest::Digest;
use crate::domain::json::Limits;
use crate::domain::policy::PolicySet;
use crate::downstream::hook;
use crate::downstream::http::{FrontState, HttpFront, Reach, Wrapped};
use crate::downstream::identity::{Callers, KeySource, Subject, TokenIssuer, Tokens};
use crate::downstream::pipes;
use crate::downstream::stdio::{StdioError, StdioFront};
use crate::gateway::{Gateway, Parts, Prompts, Server, Settings};
use crate::metrics::Metrics;
use crate::system::{SystemClock, random_hex};
use config::{Algorithm, Config, SecretError, UpstreamFile};
use policies::{Fingerprint, LoadError, Source};

/// How long a graceful end may take.
const LAST: Duration = Duration::from_secs(15);

/// A gateway, built and not yet running.
pub struct App {
    /// The route of calls.
    pub gateway: Arc<Gateway>,
    /// Slack, where it is configured.
    pub slack: Option<Arc<Slack>>,
    /// What a gateway needs and a look at the queue does not: a secret that could not be had.
    incomplete: Option<AppError>,
    config: Config,
    source: Source,
    fingerprint: Fingerprint,
    keys: KeyRing,
    instances: Option<Arc<Instances>>,
    launch: Launch,
    /// Work that ends with the program.
    pub tasks: TaskTracker,
    store_tasks: TaskTracker,
    stop: CancellationToken,
    /// Everything that ran has ended.
    over: CancellationToken,
}

/// Who is on the pipe.
#[derive(Clone, Copy, Debug)]
pub enum Client<'c> {
    /// A caller of the configuration.
    Named(&'c str),
    /// Whoever the token in this file is for.
    TokenFile(&'c std::path::Path),
}

/// What stands behind a pipe.
#[derive(Debug)]
pub enum Behind {
    /// A child process, as the command line says.
    Child(ChildSettings),
    /// An upstream, as the configuration says it.
    Upstream(Box<UpstreamFile>),
}

/// Why a gateway could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Policies are wrong.
    #[error(transparent)]
    Policies(#[from] LoadError),
    /// The caller that was named is not configured.
    #[error("there is no `[caller.{0}]` in the configuration")]
    Caller(String),
    /// The upstream that was named is not configured.
    #[error("there is no `[upstream.{0}]` in the configuration")]
    NoUpstream(String),
    /// Slack cannot be set up.
    #[error("`[channel.{name}]`")]
    Slack {
        /// The channel.
        name: String,
        /// Why.
        source: SlackError,
    },
    /// A secret of a channel or an approver cannot be had.
    #[error("`{place}` needs a secret")]
    ChannelSecret {
        /// Where it is asked for.
        place: String,
        /// Why.
        source: SecretError,
    },
    /// The secret of somebody's one-time codes is none.
    #[error("`[approver.{name}] totp`")]
    Code {
        /// The approver.
        name: String,
        /// Why.
        source: CodeError,
    },
    /// An address of an upstream is wrong.
    #[error("`[upstream.{name}]`")]
    Upstream {
        /// The upstream.
        name: String,
        /// Why.
        source: UrlError,
    },
    /// A secret cannot be had.
    #[error("`[upstream.{name}]` needs a secret")]
    Secret {
        /// The upstream.
        name: String,
        /// Why.
        source: SecretError,
    },
    /// Callers would not be told apart on a port that others reach.
    #[error("{0} is reached from other machines: add `[[listen.token]]`, so that callers are recognised")]
    Open(std::net::SocketAddr),
    /// An issuer of credentials cannot be set up.
    #[error("`[credential.{name}]`: {reason}")]
    Issuer {
        /// The issuer.
        name: String,
        /// Why.
        reason: String,
    },
    /// What seals the journal cannot be had.
    #[error("what seals the journal of credentials cannot be had: {0}")]
    Seal(String),
    /// A token is to say who the client is, and no issuer is believed.
    #[error("no issuer of identity tokens is believed: add `[[listen.token]]`")]
    NoIssuer,
    /// TLS cannot be set up.
    #[error("`[listen] tls`: {0}")]
    Tls(String),
    /// The issuer's keys cannot be used.
    #[error(transparent)]
    Keys(#[from] IssueError),
    /// The store cannot be used.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The client's pipe, or its server, broke.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The system failed.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(#[from] crate::system::RandomError),
}

/// The issuers of a configuration, to see what they would be asked for. They cannot mint.
///
/// # Errors
/// If one cannot be set up.
pub fn planners(config: &Config, address: &str) -> Result<Issuers, AppError> {
    issuers::unsealed(config, address, &KeyRing::default())
}

impl App {
    /// Opens the store, compiles the policies and puts the parts together. `address` is where approvers reach the inbox.
    ///
    /// # Errors
    /// If anything that is needed is wrong: a gateway that cannot refuse does not start.
    pub async fn build(config: Config, address: String) -> Result<Self, AppError> {
        let instance = random_hex::<16>()?;
        let store_tasks = TaskTracker::new();
        let outbox = if config.channels.is_empty() { vec![] } else { vec![slack::KIND] };
        let store = Sqlite::open(&config.store, &instance, outbox, &store_tasks).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::starting_at(store.last_time().await?));
        let store: Arc<dyn Store> = Arc::new(store);
        let keys = KeyRing::default();
        let mut incomplete = None;
        let issuers = issuers::build(&config, &address, &keys).unwrap_or_else(|error| {
            incomplete = Some(error);
            Issuers::none()
        });
        let issuers = Arc::new(issuers);
        let source = Source::new(config.policies.clone(), config.defaults.clone()).with(issuers.clone());
        // Before they are read: what changes from here on is a change.
        let fingerprint = source.fingerprint();
        let policies = source.load()?;
        keys::rotate_where_needed(store.as_ref(), clock.as_ref(), &keys, &config.credentials).await?;
        let tasks = TaskTracker::new();
        let metrics = Metrics::default();
        let codes = channels::codes(&config).unwrap_or_else(|error| {
            incomplete.get_or_insert(error);
            Default::default()
        });
        let people = Arc::new(People::new(config.people.clone(), codes));
        let slack = channels::slack(&config, &address, &people, &clock, &metrics, &tasks).unwrap_or_else(|error| {
            incomplete.get_or_insert(error);
            None
        });
        let slack = slack.map(Arc::new);
        let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
        channels.extend(slack.clone().map(|slack| slack as Arc<dyn Channel>));
        channels.push(Arc::new(Inbox { address }));
        let settings = Settings {
            instance,
            enforcement: config.enforcement,
            patience: config.hold.patience.clone(),
            rounds: config.hold.rounds,
            progress_every: config.hold.every,
            sync_always: config.sync_always,
            pending_per_caller: config.hold.per_caller,
            calls_per_caller: config.calls_per_caller,
            withholds: config.withholds,
            prompts: config.prompts,
        };
        let gateway = Gateway::new(Parts { store, clock, channels: Channels::new(channels), issuers, people, metrics }, settings, policies);
        Ok(Self {
            gateway: Arc::new(gateway),
            slack,
            incomplete,
            config,
            source,
            fingerprint,
            keys,
            instances: None,
            launch: launcher()?,
            tasks,
            store_tasks,
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
        })
    }

    /// Ends the program once `asked` resolves.
    pub fn until(&self, asked: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = asked => stop.cancel(),
                () = stop.cancelled() => {}
            }
        });
    }

    /// Whether everything is there that a gateway needs. Without it nothing is let through: groups have no members, codes
    /// are wrong, and nobody is asked in Slack.
    ///
    /// # Errors
    /// What is missing.
    pub fn complete(&mut self) -> Result<(), AppError> {
        self.incomplete.take().map_or(Ok(()), Err)
    }

    /// Joins the gateways that share the store, settles what dead ones left, and starts the sweep.
    ///
    /// # Errors
    /// If the store or the locks cannot be used.
    pub async fn join(&mut self) -> Result<(), AppError> {
        self.complete()?;
        let instances = Arc::new(Instances::register(&self.config.store, &self.gateway.settings.instance)?);
        self.note(EventKind::Started, json!({
            "version": env!("CARGO_PKG_VERSION"), "policies": self.gateway.policies().digest, "mode": format!("{:?}", self.config.enforcement).to_lowercase(),
        })).await?;
        if let Err(error) = self.gateway.bury(&instances).await {
            tracing::error!(%error, "what a dead gateway left open could not be settled; it is tried again");
        }
        // Whoever asked before a crash may not have been heard.
        for waiting in self.gateway.store.approvals(crate::adapters::store::Which::Open, 1000).await? {
            if waiting.approval.state() == "pending" {
                self.gateway.channels.ask(&waiting.approval).await;
            }
        }
        let (gateway, locks, stop) = (self.gateway.clone(), instances.clone(), self.stop.clone());
        self.tasks.spawn(async move { gateway.sweep(&locks, stop).await });
        for channel in self.gateway.channels.each().cloned() {
            let (gateway, locks, stop) = (self.gateway.clone(), instances.clone(), self.stop.clone());
            self.tasks.spawn(async move { channels::listen(channel, gateway, &locks, stop).await });
        }
        if self.config.prompts != Prompts::Off
            && let Err(error) = hook::listen(&gateways_beside(&self.config.store), self.gateway.clone(), &self.tasks, self.stop.clone())
        {
            tracing::warn!(%error, "hooks of clients are not heard: prompts are in the record only where clients send them");
        }
        self.tasks.spawn(policies::watch(self.source.clone(), self.fingerprint.clone(), self.gateway.clone(), self.stop.clone()));
        self.tasks.spawn(keys::keep(self.gateway.clone(), self.keys.clone(), self.config.credentials.clone(), self.stop.clone()));
        self.instances = Some(instances);
        Ok(())
    }

    async fn note(&self, kind: EventKind, data: serde_json::Value) -> Result<(), StoreError> {
        let entry = Entry { kind, at: self.gateway.clock.now(), call: None, subject: None, data: data.to_string() };
        self.gateway.store.commit(Change::synced(entry, vec![])).await.map(drop)
    }

    /// Sets HTTP up on `listener`; what it answers serves until stopped.
    ///
    /// # Errors
    /// If an upstream cannot be set up, or callers could not be told apart.
    pub fn door(&self, listener: TcpListener) -> Result<impl Future<Output = std::io::Result<()>> + Send + use<>, AppError> {
        let front = Arc::new(self.front(&listener)?);
        let tls = self.config.tls.as_ref().map(|tls| tls::acceptor(&self.config, tls)).transpose().map_err(AppError::Tls)?;
        let door = http::Door { listener, tls, front, gateway: self.gateway.clone(), stop: self.stop.clone() };
        Ok(http::serve_wide(door, self.over.clone()))
    }

    /// Serves the inbox for a gateway on a pipe: whichever process has the port hosts it, another takes over after it.
    pub fn host_inbox(&self) {
        let (address, stop) = (self.config.listen, self.stop.clone());
        let front = HttpFront {
            gateway: self.gateway.clone(),
            upstreams: HashMap::new(),
            callers: Callers::Fixed(nobody()),
            address: self.address(address),
            hosts: self.config.hosts.clone(),
            keys: self.keys.clone(),
            limits: self.limits(),
            most: self.config.most,
            tasks: self.tasks.clone(),
            state: FrontState::default(),
        };
        let (front, gateway) = (Arc::new(front), self.gateway.clone());
        let tls = match self.config.tls.as_ref().map(|tls| tls::acceptor(&self.config, tls)).transpose() {
            Ok(tls) => tls,
            Err(why) => return tracing::error!("the inbox is not hosted: `[listen] tls`: {why}"),
        };
        self.tasks.spawn(async move {
            let mut said = false;
            while !stop.is_cancelled() {
                if let Ok(listener) = TcpListener::bind(address).await {
                    if let Err(error) = http::serve(http::Door { listener, tls, front, gateway, stop }).await {
                        tracing::error!(%error, "the inbox ended");
                    }
                    return;
                }
                if !said {
                    said = true;
                    tracing::info!("{address} is taken: another gateway hosts the inbox there, or another program must give way");
                }
                drop(tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await);
            }
        });
    }

    /// Serves one client on this process's standard input and output, in front of the server `name`.
    ///
    /// # Errors
    /// If the server cannot be started or ends first.
    pub async fn wrap(&self, name: &str, client: Client<'_>, behind: Behind) -> Result<(), AppError> {
        let callers = match client {
            Client::Named(name) => Callers::Fixed(self.configured(name)?),
            Client::TokenFile(_) if self.config.tokens.is_empty() => return Err(AppError::NoIssuer),
            Client::TokenFile(path) => Callers::File(path.to_owned(), Box::new(self.tokens())),
        };
        let wrapped = match behind {
            Behind::Child(child) => {
                let server = Server { name: name.to_owned(), identity: child.command.join(" "), audience: name.to_owned(), is_child: true };
                Wrapped { server: Arc::new(server), reach: Reach::Child(Arc::new(child)), introspection: None }
            }
            Behind::Upstream(file) => self.wrapped(name, &file)?,
        };
        let front = StdioFront { gateway: self.gateway.clone(), server: wrapped.server, reach: wrapped.reach, callers, limits: self.limits() };
        Ok(front.run(pipes::input(), pipes::output(), &self.tasks, self.stop.clone()).await?)
    }

    /// The `[upstream.NAME]` of the configuration.
    ///
    /// # Errors
    /// If there is none.
    pub fn upstream(&self, name: &str) -> Result<UpstreamFile, AppError> {
        self.config.upstreams.get(name).cloned().ok_or_else(|| AppError::NoUpstream(name.to_owned()))
    }

    /// Where files are made that hold a credential for one call.
    pub fn private_files(&self) -> PathBuf {
        private_files(&self.config.store, &self.gateway.settings.instance)
    }

    /// How children of this program are started.
    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    /// Ends everything that runs, and says so in the record.
    pub async fn end(self) {
        self.gateway.closing.cancel();
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(LAST, self.tasks.wait()).await.is_ok();
        self.over.cancel();
        if let Some(instances) = &self.instances {
            if let Err(error) = self.note(EventKind::Stopped, json!({"clean": ended})).await {
                tracing::error!(%error, "the end could not be recorded");
            }
            self.gateway.store.flush().await;
            // What still runs is settled by the next gateway, which takes this one for dead.
            if ended {
                instances.leave();
            }
        }
        drop(self.gateway);
        self.store_tasks.close();
        drop(tokio::time::timeout(Duration::from_secs(5), self.store_tasks.wait()).await);
    }

    fn limits(&self) -> Limits {
        Limits { bytes: self.config.message_limit, ..Limits::default() }
    }

    fn address(&self, bound: std::net::SocketAddr) -> String {
        self.config.public.clone().unwrap_or_else(|| format!("http://{bound}"))
    }

    fn configured(&self, name: &str) -> Result<Caller, AppError> {
        let caller = self.config.callers.get(name).ok_or_else(|| AppError::Caller(name.to_owned()))?;
        Ok(Caller { name: name.to_owned(), owner: caller.owner.clone(), identity: Identity::Configured })
    }

    fn front(&self, listener: &TcpListener) -> Result<HttpFront, AppError> {
        let bound = listener.local_addr()?;
        let certificates = self.config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let callers = if self.config.tokens.is_empty() && !certificates {
            if !bound.ip().is_loopback() {
                return Err(AppError::Open(bound));
            }
            let owner = self.config.callers.get("local").and_then(|c| c.owner.clone());
            Callers::Fixed(Caller { name: "local".into(), owner, identity: Identity::Configured })
        } else {
            Callers::Tokens(Box::new(self.tokens()))
        };
        let mut upstreams = HashMap::new();
        for (name, file) in &self.config.upstreams {
            upstreams.insert(name.clone(), self.wrapped(name, file)?);
        }
        let mut hosts = self.config.hosts.clone();
        let public = self.config.public.as_deref().and_then(|p| url::Url::parse(p).ok());
        hosts.extend(public.and_then(|p| p.host_str().map(str::to_ascii_lowercase)));
        if !bound.ip().is_unspecified() {
            hosts.push(bound.ip().to_string());
        }
        Ok(HttpFront {
            gateway: self.gateway.clone(),
            upstreams,
            callers,
            address: self.address(bound),
            hosts,
            keys: self.keys.clone(),
            limits: self.limits(),
            most: self.config.most,
            tasks: self.tasks.clone(),
            state: FrontState::default(),
        })
    }

    fn wrapped(&self, name: &str, file: &UpstreamFile) -> Result<Wrapped, AppError> {
        let secret = |secret: &config::Secret| secret.reveal().map_err(|source| AppError::Secret { name: name.to_owned(), source });
        let introspection = file.introspection.as_ref().map(secret).transpose()?.map(|s| Digest::of(s.as_bytes()));
        let (reach, identity, audience, is_child) = match (&file.url, &file.command) {
            (Some(url), _) => {
                let wrong = |source| AppError::Upstream { name: name.to_owned(), source };
                let standing = match file.bearer.as_ref().map(secret).transpose()? {
                    Some(bearer) => Standing::bearer(&bearer).map_err(wrong)?,
                    None => Standing::SignIn(self.account(name, file)),
                };
                let upstream = HttpUpstream::new(url, standing, &self.tasks).map_err(wrong)?;
                let reach = match file.transport {
                    Some(config::Transport::Sse) => Reach::Child(Arc::new(ChildSettings::sse(upstream, named_by(url)))),
                    Some(config::Transport::StreamableHttp) | None => Reach::Http(Box::new(upstream)),
                };
                (reach, named_by(url), url.clone(), false)
            }
            (None, command) => {
                let command = command.clone().unwrap_or_default();
                let mut env = std::collections::BTreeMap::new();
                for (key, value) in &file.env {
                    let value = match value {
                        config::EnvFile::Plain(text) => text.clone(),
                        config::EnvFile::Secret(reference) => secret(reference)?,
                    };
                    env.insert(key.clone(), value);
                }
                env.extend(file.pass_env.iter().filter_map(|key| Some((key.clone(), Config::variable(key)?))));
                let identity = command.join(" ");
                let settings =
                    ChildSettings { command, env, directory: file.directory.clone(), launch: self.launch.clone(), private: self.private_files() };
                (Reach::Child(Arc::new(settings)), identity, name.to_owned(), true)
            }
        };
        let audience = file.audience.clone().unwrap_or(audience);
        let server = Server { name: name.to_owned(), identity, audience, is_child };
        Ok(Wrapped { server: Arc::new(server), reach, introspection })
    }

    /// The gateway's own sign-in at an upstream.
    pub fn account(&self, name: &str, file: &UpstreamFile) -> Arc<sign_in::Account> {
        let url = file.url.as_deref().unwrap_or_default();
        Arc::new(sign_in::Account::new(name, url, file.oauth.clone().unwrap_or_default(), &self.gateway, &self.config.store))
    }

    fn tokens(&self) -> Tokens {
        let issuer = |file: &config::TokenFile| TokenIssuer {
            issuer: file.issuer.clone(),
            audience: file.audience.clone(),
            keys: match &file.jwks {
                config::JwksFile::File(path) => KeySource::File(path.clone()),
                config::JwksFile::Url(url) => KeySource::Url(url.clone()),
            },
            algorithms: file.algorithms.iter().copied().map(algorithm).collect(),
            cache: Mutex::default(),
        };
        let subject = |(name, caller): (&String, &config::CallerFile)| {
            let subject = caller.subject.clone()?;
            Some(Subject { name: name.clone(), owner: caller.owner.clone(), subject, issuer: caller.issuer.clone() })
        };
        Tokens { issuers: self.config.tokens.iter().map(issuer).collect(), callers: self.config.callers.iter().filter_map(subject).collect() }
    }

    /// The policies in force, for `policy` and reports.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.gateway.policies()
    }
}

/// An address as records and cards name it. A sign-in or a query may be a secret: its digest stands for it, so that
/// another one is still another server.
pub fn named_by(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else { return address.to_owned() };
    if url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none() {
        return address.to_owned();
    }
    // Neither fails for an address with a host, and others are refused.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    format!("{url} (and more, {})", Digest::of(address.as_bytes()))
}

/// Children are started through this very program.
fn launcher() -> std::io::Result<Launch> {
    // A test program is not countersign: it lies beside the real one's folder and says so by this name.
    let this = std::env::current_exe()?;
    let beside: Option<PathBuf> =
        this.parent().filter(|d| d.ends_with("deps") || d.ends_with("examples")).and_then(|d| d.parent()).map(|d| d.join("countersign"));
    Ok(Launch::Through(beside.filter(|path| path.exists()).unwrap_or(this)))
}

/// The caller of a door that has no upstream behind it.
fn nobody() -> Caller {
    Caller { name: "nobody".into(), owner: None, identity: Identity::Configured }
}

fn algorithm(name: Algorithm) -> jsonwebtoken::Algorithm {
    match name {
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_in_an_address_is_not_named() {
        assert_eq!(named_by("https://x.example/mcp"), "https://x.example/mcp");
        let all =
            ["https://x.example/mcp?key=canary", "https://u:canary@x.example/mcp", "https://canary@x.example/mcp", "https://x.example/mcp#canary"];
        let named: std::collections::HashSet<String> = all.iter().map(|address| named_by(address)).collect();
        assert_eq!(named.len(), all.len());
        assert!(named.iter().all(|name| name.starts_with("https://x.example/mcp (") && !name.contains("canary")), "{named:?}");
    }
}
