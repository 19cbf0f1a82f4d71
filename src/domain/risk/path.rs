//! Paths, by their text alone: this never touches a disk, so a symlink is beyond what it can see.

use super::{Finding, Group, PathRole, Sight};
use crate::domain::json::{Pointer, Value};

/// Steps of a path that hold credentials.
const CREDENTIALS: [&str; 43] = [
    "keychains",
    ".history",
    ".zsh_history",
    ".mysql_history",
    ".psql_history",
    ".ssh",
    ".aws",
    ".env",
    ".gnupg",
    ".kube",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".docker",
    ".git-credentials",
    ".azure",
    ".pgpass",
    ".my.cnf",
    ".vault-token",
    ".htpasswd",
    ".password-store",
    ".terraformrc",
    ".s3cfg",
    ".boto",
    "shadow",
    "shadow-",
    "gshadow",
    "authorized_keys",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "kubeconfig",
    "credentials",
    "credentials.json",
    "service-account.json",
    "master.key",
    "wallet.dat",
    "secring.gpg",
    "ntds.dit",
    "tfstate",
    ".bash_history",
];

/// Steps of a path that something runs, or believes, later.
const BELIEVED: [&str; 38] = [
    ".git",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".profile",
    ".login",
    ".github",
    ".gitlab-ci.yml",
    ".circleci",
    "jenkinsfile",
    ".mcp.json",
    ".vscode",
    ".cursor",
    ".claude",
    ".gitconfig",
    ".gitmodules",
    ".vimrc",
    ".tmux.conf",
    "sudoers",
    "sudoers.d",
    "crontab",
    "cron.d",
    "cron.daily",
    "crontabs",
    "passwd",
    "countersign.toml",
    "tool-policies",
    "systemd",
    "init.d",
    "rc.local",
    "ld.so.preload",
    "profile.d",
    "launchagents",
    "launchdaemons",
];

pub(super) fn observe(role: &PathRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    if let Value::Array(items) = value {
        for (n, item) in items.iter().enumerate() {
            observe(role, &pointer.join(&n.to_string()), item, seen);
        }
        return;
    }
    let Some(path) = value.as_str() else {
        seen.find(Finding::uninspectable("path", Group::Target, "the path is not text").at(pointer, value));
        return;
    };
    let found = |weight, reason: &str| Finding::new("path", Group::Target, weight, reason).at(pointer, value);
    let unified = path.replace('\\', "/");
    let steps: Vec<&str> = unified.split('/').filter(|s| !s.is_empty() && *s != ".").collect();
    if path.contains('\0') {
        seen.find(Finding::uninspectable("path", Group::Target, "the path holds a NUL character").at(pointer, value));
    }
    if secret(path, true).is_some() || ["proc", "sys", "dev", "boot"].iter().any(|root| unified.starts_with('/') && steps.first() == Some(root)) {
        seen.fact("path", "sensitive", Value::Bool(true));
        seen.find(found(700, "the path is sensitive: it holds credentials, configuration or something that is run"));
    }
    if steps.contains(&"..") {
        seen.fact("path", "traversal", Value::Bool(true));
        seen.find(found(350, "the path climbs out with `..`"));
    }
    if path.starts_with('~') || unified.starts_with("//") {
        seen.find(found(350, "the path starts in a home directory or on another machine"));
    }
    if path.contains('%') && encoded(path) {
        seen.find(found(500, "the path has separators or dots written as `%2f` or `%2e`"));
    }
    let inside = |root: &String| {
        let root = root.trim_end_matches('/');
        unified == root || unified.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
    };
    if !role.within.is_empty() && (steps.contains(&"..") || !role.within.iter().any(inside)) {
        seen.fact("path", "outside", Value::Bool(true));
        seen.find(found(600, "the path is outside the directories that the policy names"));
    }
}

/// Why a path matters: it holds credentials, or, where it is changed, something runs or believes it later.
pub(super) fn secret(path: &str, changes: bool) -> Option<&'static str> {
    let unified = path.replace('\\', "/").to_lowercase();
    let steps = || unified.split(['/', ':', '@', '=']).filter(|step| !step.is_empty());
    let ends = [".pem", ".key", ".p12", ".pfx", ".kdbx", ".keystore", ".jks", ".ppk", ".tfstate", ".ovpn"];
    if steps()
        .any(|step| CREDENTIALS.contains(&step) || step.starts_with(".env.") || ends.iter().any(|end| step.len() > end.len() && step.ends_with(end)))
        || unified.contains(".config/gcloud")
        || (unified.starts_with("/proc/") && ["/environ", "/mem", "/maps", "/cmdline", "/fd"].iter().any(|end| unified.contains(end)))
    {
        return Some("it reaches a file that holds credentials");
    }
    if changes && (steps().any(|step| BELIEVED.contains(&step)) || unified.contains("/etc/")) {
        return Some("it changes a file that something runs or believes later");
    }
    None
}

/// Whether a path belongs to the system rather than to a project or a person.
pub(super) fn of_the_system(path: &str) -> bool {
    let roots = [
        "/etc",
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/boot",
        "/dev",
        "/sys",
        "/proc",
        "/root",
        "/var/spool/cron",
        "/var/log",
        "/var/lib",
        "/System",
        "/Library",
    ];
    let exempt = ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty", "/usr/local/src"];
    roots.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        && !exempt.iter().any(|e| path.starts_with(e))
}

/// Whether an absolute path is outside the places where projects and people have their files, or is a hidden file of a
/// person's home, where programs look for their settings.
pub(super) fn out_of_the_way(path: &str) -> bool {
    let places = [
        "/home",
        "/Users",
        "/tmp",
        "/var/tmp",
        "/workspace",
        "/workspaces",
        "/work",
        "/app",
        "/repo",
        "/src",
        "/project",
        "/projects",
        "/code",
        "/data",
        "/mnt",
        "/media",
        "/srv",
        "/dev",
        "/instruction",
        "/output",
    ];
    let home = ["~/.", "$HOME/."].iter().any(|start| path.starts_with(start));
    let inside = |root: &&str| path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    home || (path.starts_with('/') && !places.iter().any(inside))
}

fn encoded(path: &str) -> bool {
    let lower = path.to_lowercase();
    ["%2e", "%2f", "%5c", "%00", "%252"].iter().any(|code| lower.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_credentials_or_is_run_later_is_told_by_name() {
        for path in ["~/.ssh/id_ed25519", "app/.env.local", "C:\\Users\\a\\.aws\\credentials", "/proc/self/environ", "certs/server.key"] {
            assert!(secret(path, false).is_some(), "{path}");
        }
        for path in ["/home/a/.bashrc", ".github/workflows/ci.yml", "/etc/hosts", "tool-policies/x.toml"] {
            assert!(secret(path, false).is_none() && secret(path, true).is_some(), "{path}");
        }
        for path in ["src/main.rs", "docs/environment.md", "keys/readme.txt"] {
            assert!(secret(path, true).is_none(), "{path}");
        }
        assert!(of_the_system("/usr/bin/x") && !of_the_system("/usrlocal/x") && !of_the_system("/dev/null"));
    }
}
