//! The effect class of a tool: from the policy, else guessed from its name and schema; annotations only raise.

use serde::{Deserialize, Serialize};

use super::{Finding, Group, Profile, Sight};
use crate::domain::call::ToolCall;
use crate::domain::tool::ToolDefinition;

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Looks and changes nothing.
    Read,
    /// Makes something new.
    Create,
    /// Changes something that is there.
    Update,
    /// Nobody said, and the name does not tell.
    Unknown,
    /// Sends or publishes something to somebody.
    Send,
    /// Runs code or a command.
    Execute,
    /// Moves money.
    Pay,
    /// Removes something.
    Delete,
    /// Gives somebody rights.
    Grant,
    /// Changes how a system is run.
    Admin,
}

impl Effect {
    /// As written in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Unknown => "unknown",
            Self::Send => "send",
            Self::Execute => "execute",
            Self::Pay => "pay",
            Self::Delete => "delete",
            Self::Grant => "grant",
            Self::Admin => "admin",
        }
    }

    /// Weight in per mille when it is only a guess: what destroys, pays, sends, runs or grants must reach the band in which
    /// a person is asked, and so must what changes something that is there; making something new is said loudly.
    fn guessed_weight(self) -> u16 {
        match self {
            Self::Read => 50,
            Self::Create => 450,
            Self::Update => 620,
            Self::Unknown => 640,
            Self::Send => 660,
            Self::Execute | Self::Pay => 720,
            Self::Delete | Self::Grant | Self::Admin => 760,
        }
    }

    /// Weight in per mille when the policy says so: its arguments then carry the rest.
    fn given_weight(self) -> u16 {
        match self {
            Self::Read => 20,
            Self::Create => 200,
            Self::Update => 250,
            Self::Send => 300,
            Self::Pay => 350,
            Self::Unknown | Self::Execute => 450,
            Self::Delete => 600,
            Self::Grant | Self::Admin => 650,
        }
    }
}

/// The effect in force, with its finding.
pub(super) fn observe(call: &ToolCall, profile: &Profile, definition: Option<&ToolDefinition>, interprets: bool, seen: &mut Sight<'_>) -> Effect {
    if let Some(effect) = profile.effect {
        if interprets && effect == Effect::Execute {
            seen.find(Finding::new("effect", Group::Effect, 50, "the tool runs what it is given, which is judged by itself"));
            return effect;
        }
        seen.find(Finding::new("effect", Group::Effect, effect.given_weight(), format!("the tool's effect is {}", effect.name())));
        if profile.reversible == Some(false) && effect != Effect::Read {
            seen.find(Finding::new("reversible", Group::Magnitude, 150, "it cannot be undone"));
        }
        return effect;
    }
    let (effect, why) = guessed(&call.tool, definition);
    // A tool that sends, changes or pays does so whatever else it is given to run.
    let only_runs = matches!(from_name(&call.tool), None | Some(Effect::Read | Effect::Execute));
    if interprets && only_runs && effect <= Effect::Execute {
        seen.find(Finding::new("effect", Group::Effect, 50, "the tool runs what it is given, which is judged by itself"));
        return Effect::Execute;
    }
    seen.find(Finding::new("effect", Group::Effect, effect.guessed_weight(), why));
    effect
}

fn guessed(name: &str, definition: Option<&ToolDefinition>) -> (Effect, String) {
    let (mut effect, mut why) = match from_name(name) {
        Some(effect) => (effect, format!("the tool's name says {}", effect.name())),
        None => (Effect::Unknown, "the tool's name does not say what it does".to_owned()),
    };
    if let Some(definition) = definition {
        let runs = |name: &str| matches!(name, "command" | "cmd" | "code" | "script" | "sql" | "shell" | "expression");
        if effect < Effect::Execute && definition.properties().any(|(name, _)| runs(name)) {
            (effect, why) = (Effect::Execute, "its arguments carry something to run".into());
        }
        if definition.destructive == Some(true) && definition.read_only != Some(true) && effect < Effect::Delete {
            (effect, why) = (Effect::Delete, "its server calls it destructive".into());
        }
        if definition.read_only == Some(false) && effect == Effect::Read {
            (effect, why) = (Effect::Update, "its server says that it is not read-only".into());
        }
    }
    (effect, why)
}

/// The effect that a tool's name, schema and annotations suggest.
pub fn guess_effect(tool: &ToolDefinition) -> Effect {
    guessed(&tool.name, Some(tool)).0
}

/// Whether a tool of this name may run what it is given.
pub(super) fn may_execute(tool: &str) -> bool {
    from_name(tool).is_none_or(|effect| effect == Effect::Execute)
}

/// The effect that the first known verb of a name tells; a read verb gives way to any later stronger one after `and`
/// or `or`, and what is made counts where making it pays, publishes, gives rights or runs something.
fn from_name(tool: &str) -> Option<Effect> {
    let words = words(tool);
    let first = words.iter().position(|word| verb(word).is_some())?;
    let mut effect = verb(words.get(first)?)?;
    for pair in words.windows(2) {
        if let [joint, word] = pair
            && matches!(joint.as_str(), "and" | "or" | "then")
            && let Some(other) = verb(word)
        {
            effect = effect.max(other);
        }
    }
    if effect == Effect::Create {
        effect = words.iter().filter_map(|word| made(word)).fold(effect, Effect::max);
    }
    Some(effect)
}

/// What making this does beyond making it.
pub(super) fn made(noun: &str) -> Option<Effect> {
    Some(match noun.strip_suffix('s').unwrap_or(noun) {
        "key" | "token" | "secret" | "credential" | "user" | "account" | "role" | "permission" | "policy" | "member" | "grant" | "admin" => {
            Effect::Grant
        }
        "payment" | "refund" | "invoice" | "order" | "subscription" | "charge" | "transfer" | "payout" => Effect::Pay,
        "webhook" | "server" | "instance" | "cluster" | "deployment" | "repository" | "bucket" | "vm" | "job" | "workflow" => Effect::Admin,
        "issue" | "comment" | "post" | "tweet" | "message" | "email" | "gist" | "release" | "pull" | "merge" | "link" | "share" | "invite"
        | "invitation" => Effect::Send,
        _ => return None,
    })
}

/// Lower-case words of a name: split at anything but letters and digits, and where a capital follows a small letter.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small_before = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && small_before) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        small_before = c.is_lowercase() || c.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn verb(word: &str) -> Option<Effect> {
    Some(match word {
        "get" | "list" | "read" | "search" | "find" | "query" | "describe" | "show" | "view" | "fetch" | "count" | "check" | "status" | "lookup"
        | "browse" | "inspect" | "explain" | "diff" | "compare" | "preview" | "stat" | "tree" | "ls" | "cat" | "head" | "tail" | "grep" | "log"
        | "history" | "info" | "validate" | "echo" | "ping" | "think" | "sequentialthinking" => Effect::Read,
        "create" | "add" | "new" | "make" | "mkdir" | "insert" | "append" | "copy" | "clone" | "fork" | "init" | "generate" | "register" | "open"
        | "upload" | "import" | "save" | "comment" => Effect::Create,
        "update" | "edit" | "write" | "set" | "put" | "patch" | "modify" | "change" | "move" | "rename" | "replace" | "merge" | "assign"
        | "close" | "reopen" | "enable" | "disable" | "toggle" | "restore" | "commit" | "push" | "checkout" | "resolve" | "upsert" | "sync"
        | "apply" | "click" | "type" | "fill" | "select" | "upgrade" | "scale" | "configure" | "submit" | "lock" | "unlock" | "cancel" => {
            Effect::Update
        }
        "send" | "post" | "publish" | "share" | "notify" | "email" | "reply" | "invite" | "broadcast" | "tweet" | "message" | "forward"
        | "export" | "release" => Effect::Send,
        "run" | "exec" | "execute" | "eval" | "evaluate" | "invoke" | "start" | "launch" | "spawn" | "call" | "trigger" | "shell" | "bash"
        | "command" | "script" | "deploy" | "install" | "sql" => Effect::Execute,
        "pay" | "transfer" | "refund" | "charge" | "purchase" | "buy" | "order" | "withdraw" | "payout" | "donate" | "checkoutpay" | "invoice" => {
            Effect::Pay
        }
        "delete" | "remove" | "rm" | "drop" | "destroy" | "purge" | "truncate" | "wipe" | "erase" | "clear" | "reset" | "kill" | "terminate"
        | "uninstall" | "revoke" | "stop" | "archive" | "deactivate" | "prune" => Effect::Delete,
        "grant" | "authorize" | "permit" | "promote" | "impersonate" | "elevate" => Effect::Grant,
        "admin" | "sudo" | "rotate" | "provision" | "migrate" => Effect::Admin,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_effects() {
        for (name, effect) in [
            ("read_file", Some(Effect::Read)),
            ("listAllowedDirectories", Some(Effect::Read)),
            ("write_file", Some(Effect::Update)),
            ("create_directory", Some(Effect::Create)),
            ("delete-branch", Some(Effect::Delete)),
            ("search_and_replace", Some(Effect::Update)),
            ("API-post-page", Some(Effect::Send)),
            ("frobnicate", None),
            ("get_or_create_note", Some(Effect::Create)),
            ("get_or_create_user", Some(Effect::Grant)),
            ("list_deleted_items", Some(Effect::Read)),
            ("runSQL", Some(Effect::Execute)),
            ("create_note", Some(Effect::Create)),
            ("create_api_key", Some(Effect::Grant)),
            ("create_pull_request", Some(Effect::Send)),
        ] {
            assert_eq!(from_name(name), effect, "{name}");
        }
    }
}
