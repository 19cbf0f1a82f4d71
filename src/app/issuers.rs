//! Builds the issuers of credentials from the configuration, and the key that seals what the journal must keep.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use super::config::{AwsStsFile, Config, CredentialKind, EnvFile, KeyFile, OAuthFile, PartyFile, Secret, VaultFile, VaultLoginFile};
use crate::adapters::credential::{
    AwsIdentity, AwsSts, ClientProof, Exec, Gcp, GithubApp, Grant, Issuer, Issuers, KeyRing, Kubernetes, Login, OAuth, OwnSecret, Party, Postgres,
    Seal, SignedJwt, Signer, Stored, Vault, Web,
};
use crate::system::random_hex;

/// Where a pod has its service account's token.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// All issuers; `address` is the gateway's own, for tokens that it signs.
pub(super) fn build(config: &Config, address: &str, keys: &KeyRing) -> Result<Issuers, AppError> {
    let mut issuers = unsealed(config, address, keys)?;
    issuers.seal = seal(config).map_err(AppError::Seal)?;
    Ok(issuers)
}

/// The same without the key, which only journalled credentials need.
pub(super) fn unsealed(config: &Config, address: &str, keys: &KeyRing) -> Result<Issuers, AppError> {
    let mut by_name = HashMap::new();
    for (name, kind) in &config.credentials {
        let issuer = one(config, kind, address, keys).map_err(|reason| AppError::Issuer { name: name.clone(), reason })?;
        by_name.insert(name.clone(), issuer);
    }
    Ok(Issuers::new(by_name, Seal::none()))
}

/// The key of the operator's, or one beside the store that is made at first start.
fn seal(config: &Config) -> Result<Seal, String> {
    if let Some(secret) = &config.seal {
        return Seal::new(&secret.reveal().map_err(|e| e.to_string())?);
    }
    let mut path = config.store.as_os_str().to_owned();
    path.push(".seal");
    let path = PathBuf::from(path);
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    // Written whole under another name first: two gateways that start at once must end with one key.
    let making = path.with_extension(format!("seal-{}", random_hex::<8>().map_err(|e| e.to_string())?));
    if !path.exists() {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making).map_err(failed)?;
        let key = random_hex::<32>().map_err(|e| e.to_string())?;
        file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        match std::fs::hard_link(&making, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => std::fs::remove_file(&making).map_err(failed)?,
        }
    }
    Seal::new(&std::fs::read_to_string(&path).map_err(failed)?)
}

fn own(secret: &Secret) -> OwnSecret {
    let secret = secret.clone();
    OwnSecret::new(move || secret.reveal().map_err(|e| e.to_string()))
}

fn web(config: &Config, address: &str, ca: Option<&PathBuf>) -> Result<Web, String> {
    let ca = match ca {
        Some(path) => {
            let path = config.base().join(path);
            Some(std::fs::read(&path).map_err(|e| format!("`ca`: {}: {e}", path.display()))?)
        }
        None => None,
    };
    Web::new(address, ca.as_deref())
}

fn one(config: &Config, kind: &CredentialKind, address: &str, keys: &KeyRing) -> Result<Arc<dyn Issuer>, String> {
    Ok(match kind {
        CredentialKind::SignedJwt(file) => {
            Arc::new(SignedJwt { issuer: file.issuer.clone().unwrap_or_else(|| address.to_owned()), keys: keys.clone() })
        }
        CredentialKind::Static(file) => Arc::new(Stored { secret: own(&file.secret) }),
        CredentialKind::Exec(file) => {
            if file.command.is_empty() {
                return Err("`command` is empty".into());
            }
            let timeout = file.timeout.map_or(Duration::from_secs(20), |l| l.0);
            if timeout > Duration::from_secs(40) || timeout.is_zero() {
                return Err("`timeout` must be longer than 0 s and at most 40 s".into());
            }
            let env = environment(&file.env)?;
            Arc::new(Exec { command: file.command.clone(), env, timeout, revocable: file.revocable.unwrap_or(true) })
        }
        CredentialKind::Gcp(file) => {
            let address = file.address.as_deref().unwrap_or("https://iamcredentials.googleapis.com");
            let web = web(config, address, file.ca.as_ref())?;
            Arc::new(Gcp { web, token: own(&file.token), service_accounts: file.service_accounts.clone() })
        }
        CredentialKind::GithubApp(file) => Arc::new(GithubApp {
            web: web(config, file.api.as_deref().unwrap_or("https://api.github.com"), file.ca.as_ref())?,
            app: file.app.clone(),
            installation: file.installation,
            account: file.account.clone(),
            signer: Signer::Stored { key: own(&file.key), kid: None },
        }),
        CredentialKind::Kubernetes(file) => Arc::new(Kubernetes {
            web: web(config, &file.address, file.ca.as_ref())?,
            token: own(&file.token),
            service_accounts: file.service_accounts.clone(),
        }),
        CredentialKind::Postgres(file) => Arc::new(Postgres {
            address: own(&file.address),
            host: file.host.clone(),
            roles: file.roles.clone(),
            tables: file.tables.clone(),
            privileges: file.privileges.clone(),
        }),
        CredentialKind::AwsSts(file) => Arc::new(aws(config, file)?),
        CredentialKind::OAuth(file) => Arc::new(oauth(config, file, address, keys)?),
        CredentialKind::Vault(file) => Arc::new(vault(config, file, address, keys)?),
    })
}

fn environment(file: &BTreeMap<String, EnvFile>) -> Result<BTreeMap<String, String>, String> {
    let mut all = Config::basic_environment();
    for (name, value) in file {
        let value = match value {
            EnvFile::Plain(text) => text.clone(),
            EnvFile::Secret(secret) => secret.reveal().map_err(|e| e.to_string())?,
        };
        all.insert(name.clone(), value);
    }
    Ok(all)
}

fn aws(config: &Config, file: &AwsStsFile) -> Result<AwsSts, String> {
    let identity = match (&file.access_key_id, &file.secret_access_key, &file.web_identity) {
        (Some(id), Some(secret), None) => AwsIdentity::Keys { id: own(id), secret: own(secret), session: file.session_token.as_ref().map(own) },
        (None, None, Some(token)) => AwsIdentity::WebIdentity(own(token)),
        _ => return Err("give either `access-key-id` and `secret-access-key`, or `web-identity`".into()),
    };
    if !file.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || file.region.is_empty() {
        return Err(format!("`{}` is not a region", file.region));
    }
    let regional = format!("https://sts.{}.amazonaws.com", file.region);
    Ok(AwsSts {
        web: web(config, file.endpoint.as_deref().unwrap_or(&regional), file.ca.as_ref())?,
        region: file.region.clone(),
        role: file.role.clone(),
        external_id: file.external_id.clone(),
        identity,
        source_identity: file.source_identity,
    })
}

fn oauth(config: &Config, file: &OAuthFile, address: &str, keys: &KeyRing) -> Result<OAuth, String> {
    let endpoint = |url: &String| web(config, url, file.ca.as_ref());
    let proof = match (&file.secret, &file.key) {
        (Some(secret), None) => ClientProof::Secret(own(secret)),
        (None, Some(KeyFile::Own(_))) => ClientProof::Assertion(Signer::Own(keys.clone())),
        (None, Some(KeyFile::Stored(key))) => ClientProof::Assertion(Signer::Stored { key: own(key), kid: file.kid.clone() }),
        _ => return Err("give either `secret` or `key`".into()),
    };
    let grant = match &file.exchange {
        None => Grant::ClientCredentials,
        Some(exchange) => Grant::Exchange {
            subject: match &exchange.subject {
                PartyFile::Caller(_) => Party::Caller { issuer: address.to_owned(), signer: Signer::Own(keys.clone()) },
                PartyFile::Token(token) => Party::Token(own(token)),
            },
            actor: exchange.actor.as_ref().map(|token| Party::Token(own(token))),
        },
    };
    Ok(OAuth {
        token: endpoint(&file.token)?,
        revocation: file.revocation.as_ref().map(endpoint).transpose()?,
        introspection: file.introspection.as_ref().map(endpoint).transpose()?,
        client: file.client.clone(),
        proof,
        issuer: file.issuer.clone(),
        grant,
        details: file.details.clone(),
    })
}

fn vault(config: &Config, file: &VaultFile, address: &str, keys: &KeyRing) -> Result<Vault, String> {
    let mounted = |mount: &Option<String>, usual: &str| mount.clone().unwrap_or_else(|| usual.to_owned());
    let login = match &file.login {
        VaultLoginFile::Jwt { mount, role, audience } => Login::Jwt {
            mount: mounted(mount, "jwt"),
            role: role.clone(),
            issuer: address.to_owned(),
            audience: audience.clone().unwrap_or_else(|| "vault".into()),
            keys: keys.clone(),
        },
        VaultLoginFile::Approle { mount, role_id, secret_id } => {
            Login::AppRole { mount: mounted(mount, "approle"), role_id: own(role_id), secret_id: own(secret_id) }
        }
        VaultLoginFile::Kubernetes { mount, role, token } => Login::Kubernetes {
            mount: mounted(mount, "kubernetes"),
            role: role.clone(),
            token: own(token.as_ref().unwrap_or(&Secret::File(Path::new(POD_TOKEN).to_owned()))),
        },
    };
    if file.paths.is_empty() {
        return Err("`paths` is empty: name the paths that policies may ask for".into());
    }
    let wrap_seconds = file.wrap.map(|length| length.0.as_secs().max(1));
    Ok(Vault {
        web: web(config, &file.address, file.ca.as_ref())?,
        namespace: file.namespace.clone(),
        login,
        paths: file.paths.clone(),
        wrap_seconds,
    })
}
