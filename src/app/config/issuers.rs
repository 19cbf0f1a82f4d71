//! `[credential.NAME]`: the issuers of credentials, exactly as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::file::{EnvFile, by_kind};
use super::secret::Secret;
use crate::adapters::credential::ISSUERS;
use crate::domain::clock::Length;

/// `[credential.NAME]`: which fields there are depends on `kind`.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// `aws-sts`
    AwsSts(Box<AwsStsFile>),
    /// `exec`
    Exec(ExecFile),
    /// `gcp`
    Gcp(GcpFile),
    /// `github-app`
    GithubApp(GithubAppFile),
    /// `kubernetes`
    Kubernetes(KubernetesFile),
    /// `oauth`
    OAuth(Box<OAuthFile>),
    /// `postgres`
    Postgres(PostgresFile),
    /// `signed-jwt`
    SignedJwt(SignedJwtFile),
    /// `static`
    Static(StaticFile),
    /// `vault`
    Vault(Box<VaultFile>),
}

impl<'de> Deserialize<'de> for CredentialKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        fn read<T: DeserializeOwned, E: serde::de::Error>(table: toml::Table) -> Result<T, E> {
            table.try_into().map_err(serde::de::Error::custom)
        }
        let (kind, table) = by_kind(toml::Table::deserialize(from)?, ISSUERS)?;
        Ok(match kind {
            "aws-sts" => Self::AwsSts(read(table)?),
            "exec" => Self::Exec(read(table)?),
            "gcp" => Self::Gcp(read(table)?),
            "github-app" => Self::GithubApp(read(table)?),
            "kubernetes" => Self::Kubernetes(read(table)?),
            "oauth" => Self::OAuth(read(table)?),
            "postgres" => Self::Postgres(read(table)?),
            "static" => Self::Static(read(table)?),
            "vault" => Self::Vault(read(table)?),
            _ => Self::SignedJwt(read(table)?),
        })
    }
}

/// The gateway's own tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignedJwtFile {
    /// The `iss` claim; the gateway's public address if none is given.
    pub issuer: Option<String>,
    /// Days after which a new signing key is made; 30 by default.
    pub rotate_days: Option<u16>,
}

/// A stored secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticFile {
    /// The secret.
    pub secret: Secret,
}

/// A program of the operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExecFile {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment, beside `PATH` and `HOME`.
    #[serde(default)]
    pub env: BTreeMap<String, EnvFile>,
    /// How long it may take; 20 s by default, 40 s at most.
    pub timeout: Option<Length>,
    /// Whether it has the verb `revoke`; it has by default.
    pub revocable: Option<bool>,
}

/// HashiCorp Vault or OpenBao.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VaultFile {
    /// Its address.
    pub address: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
    /// How the gateway logs in.
    pub login: VaultLoginFile,
    /// Paths that policies may name, each as it is or with `*` at its end.
    pub paths: Vec<String>,
    /// For how long answers are wrapped; they are not by default.
    pub wrap: Option<Length>,
}

/// How the gateway logs in to Vault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum VaultLoginFile {
    /// With a token that the gateway signs.
    Jwt {
        /// Where the method is mounted; `jwt` by default.
        mount: Option<String>,
        /// The role.
        role: String,
        /// The `aud` claim; `vault` by default.
        audience: Option<String>,
    },
    /// With a role's id and secret.
    Approle {
        /// Where the method is mounted; `approle` by default.
        mount: Option<String>,
        /// The role's id.
        #[serde(rename = "role-id")]
        role_id: Secret,
        /// The secret's id.
        #[serde(rename = "secret-id")]
        secret_id: Secret,
    },
    /// With the token of the service account that the gateway runs as.
    Kubernetes {
        /// Where the method is mounted; `kubernetes` by default.
        mount: Option<String>,
        /// The role.
        role: String,
        /// The token; that of the pod by default.
        token: Option<Secret>,
    },
}

/// An OAuth 2.0 authorization server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OAuthFile {
    /// The server's issuer identifier.
    pub issuer: String,
    /// The token endpoint.
    pub token: String,
    /// The revocation endpoint (RFC 7009).
    pub revocation: Option<String>,
    /// The introspection endpoint (RFC 7662).
    pub introspection: Option<String>,
    /// The client's id.
    pub client: String,
    /// The client's secret.
    pub secret: Option<Secret>,
    /// The client's private key in PEM, or `"own"` for the gateway's.
    pub key: Option<KeyFile>,
    /// The key's name at the server.
    pub kid: Option<String>,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
    /// Asks for a token in exchange for another; client credentials if there is none.
    pub exchange: Option<ExchangeFile>,
    /// The type under which the call is put into `authorization_details`.
    pub details: Option<String>,
}

/// A private key.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum KeyFile {
    /// The gateway's own: `"own"`.
    Own(OwnKey),
    /// A stored one, in PEM.
    Stored(Secret),
}

/// `own`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnKey {
    /// The gateway's own key.
    Own,
}

/// Whose token is exchanged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExchangeFile {
    /// For whom: `"caller"`, in a token that the gateway signs, or a stored access token.
    pub subject: PartyFile,
    /// Who acts for them: a stored access token of the gateway's.
    pub actor: Option<Secret>,
}

/// Somebody in a token exchange.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PartyFile {
    /// `"caller"`
    Caller(CallerParty),
    /// A stored token.
    Token(Secret),
}

/// `caller`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerParty {
    /// The caller.
    Caller,
}

/// A GitHub App in one installation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GithubAppFile {
    /// The app's id or client id.
    pub app: String,
    /// The installation's id.
    pub installation: u64,
    /// The account that it is installed for.
    pub account: String,
    /// The app's private key, in PEM.
    pub key: Secret,
    /// The API; `https://api.github.com` by default.
    pub api: Option<String>,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
}

/// A role in AWS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AwsStsFile {
    /// The role's ARN.
    pub role: String,
    /// The region.
    pub region: String,
    /// The gateway's key id.
    pub access_key_id: Option<Secret>,
    /// The gateway's key.
    pub secret_access_key: Option<Secret>,
    /// The session token, where the keys are temporary.
    pub session_token: Option<Secret>,
    /// A token of an OpenID provider that the role trusts, instead of keys.
    pub web_identity: Option<Secret>,
    /// The external id that the role's trust policy wants.
    pub external_id: Option<String>,
    /// Whether the caller's name goes along as source identity.
    #[serde(default)]
    pub source_identity: bool,
    /// The endpoint; that of the region by default.
    pub endpoint: Option<String>,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
}

/// A Postgres server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PostgresFile {
    /// `postgres://minter:…@host:5432/app`
    pub address: Secret,
    /// The host that callers' servers use, where it is another.
    pub host: Option<String>,
    /// Group roles that policies may grant.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Tables, as `schema.table`, on which policies may grant privileges.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Privileges that policies may grant on them.
    #[serde(default)]
    pub privileges: Vec<String>,
}

/// A Kubernetes cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KubernetesFile {
    /// The API server.
    pub address: String,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
    /// The gateway's own token.
    pub token: Secret,
    /// Service accounts that policies may name, as `namespace/name`.
    pub service_accounts: Vec<String>,
}

/// Google Cloud.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GcpFile {
    /// The gateway's own access token.
    pub token: Secret,
    /// Service accounts that policies may name.
    pub service_accounts: Vec<String>,
    /// The API; `https://iamcredentials.googleapis.com` by default.
    pub address: Option<String>,
    /// Certificates (PEM) that are believed beside the system's.
    pub ca: Option<PathBuf>,
}
