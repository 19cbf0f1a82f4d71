//! Paths, by their text alone: this never touches a disk, so a symlink is beyond what it can see.

use super::{Finding, Group, PathRole, Sight};
use crate::domain::json::{Pointer, Value};

/// Parts of a path that hold credentials, or that something runs later.
const SENSITIVE: [&str; 30] = [
    ".ssh",
    ".aws",
    ".env",
    ".gnupg",
    ".kube",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".docker",
    ".git-credentials",
    ".git",
    ".bashrc",
    ".bash_profile",
    ".zshrc",
    ".profile",
    ".github",
    ".gitlab-ci.yml",
    ".mcp.json",
    "shadow",
    "sudoers",
    "authorized_keys",
    "id_rsa",
    "id_ed25519",
    "crontab",
    "kubeconfig",
    "passwd",
    "countersign.toml",
    "tool-policies",
    "cron.d",
    "systemd",
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
    if steps.iter().any(|step| SENSITIVE.contains(&step.to_lowercase().as_str()) || step.to_lowercase().starts_with(".env."))
        || ["proc", "sys", "dev", "boot"].iter().any(|root| unified.starts_with('/') && steps.first() == Some(root))
    {
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
    let inside = |root: &String| {
        let root = root.trim_end_matches('/');
        unified == root || unified.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
    };
    if !role.within.is_empty() && (steps.contains(&"..") || !role.within.iter().any(inside)) {
        seen.fact("path", "outside", Value::Bool(true));
        seen.find(found(600, "the path is outside the directories that the policy names"));
    }
}
