//! The text of `countersign.toml`, exactly as written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::issuers::CredentialKind;
use super::secret::Secret;
use crate::adapters::channel::CHANNELS;
use crate::domain::clock::Length;
use crate::domain::policy::DefaultMode;
use crate::domain::text::nearest;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    /// `[listen]`
    #[serde(default)]
    pub listen: ListenFile,
    /// `[store]`
    #[serde(default)]
    pub store: StoreFile,
    /// `[audit]`
    #[serde(default)]
    pub audit: AuditFile,
    /// `[policy]`
    #[serde(default)]
    pub policy: PolicySection,
    /// `[hold]`
    #[serde(default)]
    pub hold: HoldFile,
    /// `[approver]`
    #[serde(default)]
    pub approver: BTreeMap<String, ApproverFile>,
    /// `[caller]`
    #[serde(default)]
    pub caller: BTreeMap<String, CallerFile>,
    /// `[channel]`
    #[serde(default)]
    pub channel: BTreeMap<String, ChannelKind>,
    /// `[upstream]`
    #[serde(default)]
    pub upstream: BTreeMap<String, UpstreamFile>,
    /// `[credential]`
    #[serde(default)]
    pub credential: BTreeMap<String, CredentialKind>,
}

/// `[listen]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListenFile {
    /// Address and port; `127.0.0.1:8700` by default.
    pub address: Option<SocketAddr>,
    /// How it is reached from outside.
    pub public: Option<String>,
    /// Further hosts that requests may name.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Most bytes of one message; 4 MiB by default.
    pub message_limit: Option<usize>,
    /// How many calls of one caller may be under way at once; 1,000 by default.
    pub calls_per_caller: Option<u32>,
    /// How many sessions are kept; 10,000 by default.
    pub sessions: Option<usize>,
    /// How many of one caller; 2,000 by default.
    pub sessions_per_caller: Option<usize>,
    /// Issuers of callers' tokens.
    #[serde(default)]
    pub token: Vec<TokenFile>,
    /// Serve TLS.
    pub tls: Option<TlsFile>,
}

/// `[audit]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuditFile {
    /// What becomes of what users asked their agents for.
    pub prompts: Option<PromptsFile>,
}

/// What becomes of prompts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptsFile {
    /// Approvers see them, and the record has them.
    Keep,
    /// The record has their digests.
    Digest,
    /// They are not taken.
    Off,
}

/// `[listen] tls`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsFile {
    /// The certificate and what leads to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Authorities (PEM) whose certificates say who a caller is, by their URI names (SPIFFE X.509-SVIDs).
    pub client_ca: Option<PathBuf>,
}

/// `[[listen.token]]`: an issuer of callers' tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenFile {
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim.
    pub audience: String,
    /// Where its keys are.
    pub jwks: JwksFile,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum JwksFile {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(String),
}

/// Signatures of callers' tokens. No shared secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// Ed25519.
    EdDSA,
    /// ECDSA with P-256.
    ES256,
    /// ECDSA with P-384.
    ES384,
    /// RSA-PSS with SHA-256.
    PS256,
    /// RSA-PSS with SHA-384.
    PS384,
    /// RSA-PSS with SHA-512.
    PS512,
    /// RSA with SHA-256.
    RS256,
    /// RSA with SHA-384.
    RS384,
    /// RSA with SHA-512.
    RS512,
}

/// `[store]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreFile {
    /// The file; `countersign.db` by default.
    pub path: Option<PathBuf>,
    /// What seals secrets in the journal of credentials; a file beside the store, made at first start, by default.
    pub seal: Option<Secret>,
    /// `grouped` (default) or `always`.
    pub durability: Option<Durability>,
}

/// When records of allowed calls are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Before the call goes out.
    Always,
    /// In the file before the call goes out, on disk about a second later.
    Grouped,
}

/// `[policy]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicySection {
    /// Where policies are; `tool-policies` by default.
    pub directory: Option<PathBuf>,
    /// What happens to a tool without a policy; `approve` by default.
    pub default: Option<DefaultMode>,
    /// `enforce` (default) or `shadow`.
    pub mode: Option<ModeFile>,
    /// What becomes of a tool that a server offers anew, or describes anew, after it was first seen: `withhold` (default)
    /// keeps it from agents until `policy pin`, `show` shows it, and calls of it score as drifted.
    pub changed_tools: Option<ChangedTools>,
    /// Who approves where no policy says; everybody by default.
    pub approvers: Option<Vec<String>>,
}

/// Whether calls are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeFile {
    /// They are.
    Enforce,
    /// They are only recorded.
    Shadow,
}

/// What becomes of tools that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangedTools {
    /// Agents see them.
    Show,
    /// They do not.
    Withhold,
}

/// `[hold]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HoldFile {
    /// How long a call is held; 50 s by default.
    pub budget: Option<Length>,
    /// The same where the client takes progress messages; 210 s by default.
    pub budget_with_progress: Option<Length>,
    /// How often it gets one; 10 s by default.
    pub progress_every: Option<Length>,
    /// How many calls of one caller may wait for people at once; 100 by default.
    pub pending_per_caller: Option<u32>,
    /// How often a client of the stateless era is told to send its request again, which it does by itself; 9 by default.
    pub rounds: Option<u8>,
    /// By the beginning of the name that a client gives itself; see the table in the documentation.
    #[serde(default)]
    pub client: BTreeMap<String, ClientHoldFile>,
}

/// `[hold.client.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientHoldFile {
    /// How long a call is held.
    pub budget: Length,
    /// The same where the client takes progress messages; `budget` by default.
    pub budget_with_progress: Option<Length>,
}

/// `[approver.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApproverFile {
    /// For people; no authority comes from it.
    pub email: Option<String>,
    /// `TEAM/USER` in Slack, or `ENTERPRISE/TEAM/USER`.
    pub slack: Option<String>,
    /// `TEAM/GROUP`: a user group in Slack, whose members are approvers.
    pub slack_group: Option<String>,
    /// Where it says who is on call.
    pub on_call: Option<OnCallFile>,
    /// Who decides in their place, and when.
    #[serde(default)]
    pub delegates: Vec<DelegateFile>,
    /// When they may be disturbed, as in `Mon-Fri 09:00-17:30 Europe/Berlin`.
    pub hours: Option<String>,
    /// The secret of their one-time codes, in base 32.
    pub totp: Option<Secret>,
}

/// Where it says who is on call: names of approvers or Slack ids, one a line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum OnCallFile {
    /// What a program prints.
    Command(Vec<String>),
    /// What an address answers.
    Url(String),
}

/// Who decides in somebody's place, and when.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DelegateFile {
    /// The approver.
    pub to: String,
    /// From the beginning of this day, or this instant, in UTC if it says nothing else.
    pub from: toml::value::Datetime,
    /// Until the end of this day, or this instant.
    pub until: toml::value::Datetime,
}

/// `[channel.NAME]`: which fields there are depends on `kind`.
#[derive(Clone, Debug)]
pub enum ChannelKind {
    /// Slack.
    Slack(Box<SlackFile>),
}

/// `[channel.NAME]` with `kind = "slack"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SlackFile {
    /// The app's id, `A…`.
    pub app_id: String,
    /// The bot's token, `xoxb-…`.
    pub bot_token: Secret,
    /// The app's token, `xapp-…`: clicks come over a socket.
    pub app_token: Option<Secret>,
    /// The signing secret: clicks come to `/slack/interactions`.
    pub signing_secret: Option<Secret>,
    /// The Web API's address; `https://slack.com/api` by default, `https://slack-gov.com/api` for GovSlack.
    pub api: Option<String>,
    /// The id of a channel to ask in, with mentions, instead of direct messages.
    pub room: Option<String>,
    /// How many sockets are kept open, 1 to 10; 2 by default.
    pub sockets: Option<u8>,
    /// After how long each socket is replaced, so that a stranger's is noticed; 10 minutes by default.
    pub refresh: Option<Length>,
    /// How many cards ask one person at once; further calls share one card. 10 by default.
    pub cards_per_person: Option<u32>,
}

impl<'de> Deserialize<'de> for ChannelKind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (_slack, table) = by_kind(toml::Table::deserialize(from)?, CHANNELS)?;
        table.try_into().map(|file| Self::Slack(Box::new(file))).map_err(serde::de::Error::custom)
    }
}

/// A table's `kind`, one of `known`, and the rest of it.
pub(super) fn by_kind<E: serde::de::Error>(mut table: toml::Table, known: &[&'static str]) -> Result<(&'static str, toml::Table), E> {
    let Some(toml::Value::String(kind)) = table.remove("kind") else {
        return Err(E::custom(format!("`kind` is missing; known kinds: {}", known.join(", "))));
    };
    match known.iter().find(|name| **name == kind) {
        Some(name) => Ok((name, table)),
        None => {
            let hint = nearest(&kind, known.iter().copied()).map(|m| format!("; was `{m}` meant?"));
            Err(E::custom(format!("unknown kind `{kind}`; known kinds: {}{}", known.join(", "), hint.unwrap_or_default())))
        }
    }
}

/// `[caller.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CallerFile {
    /// The approver who answers for it.
    pub owner: Option<String>,
    /// Its `sub` claim.
    pub subject: Option<String>,
    /// Its `iss` claim, where several issuers are believed.
    pub issuer: Option<String>,
}

/// `[upstream.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpstreamFile {
    /// Program and arguments of a child process.
    pub command: Option<Vec<String>>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, EnvFile>,
    /// Variables of this process that it gets as well.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Its working directory.
    pub directory: Option<PathBuf>,
    /// The address of a server over HTTP.
    pub url: Option<String>,
    /// How it speaks there; Streamable HTTP by default.
    pub transport: Option<Transport>,
    /// The gateway's own token for what passes through to it.
    pub bearer: Option<Secret>,
    /// How the gateway signs in to it, where it asks for that and something must be said beforehand.
    pub oauth: Option<SignInFile>,
    /// Whom credentials for it are for; its URL or name by default.
    pub audience: Option<String>,
    /// The secret with which it may ask `/introspect`.
    pub introspection: Option<Secret>,
}

/// A transport of MCP over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Since 2025-03-26.
    StreamableHttp,
    /// Of 2024-11-05: one stream of events, and an address for what is said.
    Sse,
}

/// `[upstream.NAME.oauth]`: without it the gateway registers itself where the server's authorization server lets it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignInFile {
    /// The gateway's client there, where it was registered by hand.
    pub client_id: Option<String>,
    /// Its secret, where it has one.
    pub client_secret: Option<Secret>,
    /// The https address of a document that describes the gateway as a client (OAuth Client ID Metadata Document).
    pub client_metadata: Option<String>,
    /// What is asked for; what the server says by default.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The port on this machine to which the browser comes back; any free one by default.
    pub redirect_port: Option<u16>,
    /// Whether authorization servers may be at private addresses.
    #[serde(default)]
    pub private_addresses: bool,
}

/// A variable's value.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum EnvFile {
    /// As it stands.
    Plain(String),
    /// A secret.
    Secret(Secret),
}

impl UpstreamFile {
    pub(super) fn check(&self) -> Result<(), String> {
        let child_only = [("env", !self.env.is_empty()), ("pass-env", !self.pass_env.is_empty()), ("directory", self.directory.is_some())];
        match (&self.command, &self.url) {
            (Some(command), None) if command.is_empty() => Err("`command` is empty".into()),
            (Some(_), None) if self.bearer.is_some() => Err("`bearer` belongs to an upstream with `url`".into()),
            (Some(_), None) if self.transport.is_some() => Err("`transport` belongs to an upstream with `url`".into()),
            (Some(_), None) if self.oauth.is_some() => Err("`oauth` belongs to an upstream with `url`".into()),
            (None, Some(_)) if self.bearer.is_some() && self.oauth.is_some() => Err("give either `bearer` or `oauth`".into()),
            (None, Some(_)) if self.oauth.as_ref().is_some_and(|o| o.client_secret.is_some() && o.client_id.is_none()) => {
                Err("`oauth`: a `client-secret` needs its `client-id`".into())
            }
            (Some(_), None) => Ok(()),
            (None, Some(_)) => match child_only.iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(format!("`{name}` belongs to an upstream with `command`")),
                None => Ok(()),
            },
            _ => Err("give either `command` or `url`".into()),
        }
    }

    pub(super) fn based(mut self, base: &Path) -> Self {
        self.directory = self.directory.map(|d| base.join(d));
        self
    }
}
