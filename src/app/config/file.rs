//! The text of `countersign.toml`, exactly as written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::secret::Secret;
use crate::adapters::credential::{ISSUERS, SignedJwtSettings};
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
    /// Issuers of callers' tokens.
    #[serde(default)]
    pub token: Vec<TokenFile>,
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
}

/// `[approver.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApproverFile {
    /// For people; no authority comes from it.
    pub email: Option<String>,
    /// `TEAM/USER` in Slack.
    pub slack: Option<String>,
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
    /// The gateway's own token for what passes through to it.
    pub bearer: Option<Secret>,
    /// Whom credentials for it are for; its URL or name by default.
    pub audience: Option<String>,
    /// The secret with which it may ask `/introspect`.
    pub introspection: Option<Secret>,
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

/// `[credential.NAME]`: which fields there are depends on `kind`.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// The built-in issuer.
    SignedJwt(SignedJwtSettings),
}

impl<'de> Deserialize<'de> for CredentialKind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut table = toml::Table::deserialize(from)?;
        let kind = match table.remove("kind") {
            Some(toml::Value::String(kind)) => kind,
            _ => return Err(D::Error::custom(format!("`kind` is missing; known kinds: {}", ISSUERS.join(", ")))),
        };
        match kind.as_str() {
            "signed-jwt" => table.try_into().map(Self::SignedJwt).map_err(D::Error::custom),
            other => {
                let hint = nearest(other, ISSUERS.iter().copied()).map(|m| format!("; was `{m}` meant?"));
                Err(D::Error::custom(format!("unknown kind `{other}`; known kinds: {}{}", ISSUERS.join(", "), hint.unwrap_or_default())))
            }
        }
    }
}
