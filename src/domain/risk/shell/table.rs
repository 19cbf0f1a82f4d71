//! What programs do: the lines of `programs.txt`, read once.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a command does, in the order of what is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Looks and changes nothing.
    Read,
    /// Changes files or local state in an ordinary way.
    Change,
    /// Nobody knows.
    Unknown,
    /// Sends data out or changes a remote system.
    Send,
    /// Changes how a machine or an account is run.
    System,
    /// Runs code that is not written in the command.
    Run,
    /// Shows or moves credentials.
    Secret,
    /// Gives rights.
    Grant,
    /// Removes or overwrites what cannot be got back.
    Destroy,
}

/// What is to be done to find out the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is known.
    Is(Class),
    /// A script follows.
    Shell,
    /// Program text of a language may follow.
    Code,
    /// Another command follows, after so many operands.
    Wrap(usize),
    /// A host follows, and a script to be run there.
    Remote,
    /// SQL may follow.
    Sql,
    /// A command of Redis follows.
    Redis,
}

/// What an option does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Whether its value is the next word.
    pub takes: bool,
    /// What it raises the class to.
    pub kind: Option<Kind>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Sub-commands and options that must be there, after the program's name.
    pub key: Vec<&'static str>,
    /// What it does.
    pub kind: Kind,
    /// What its options, or operands of that name, do.
    pub options: HashMap<&'static str, Opt>,
    /// What any operand makes of it.
    pub operand: Option<Class>,
}

/// All lines by program.
pub(super) static PROGRAMS: LazyLock<HashMap<&'static str, Vec<Entry>>> = LazyLock::new(|| load(include_str!("programs.txt")).unwrap_or_default());

/// The lines of a program: its own, or those of a family such as `pnm*`.
pub(super) fn lines(program: &str) -> Option<&'static [Entry]> {
    let family = || {
        ["pnm", "ppm", "pbm", "pgm", "pam", "pve"]
            .iter()
            .find(|start| program.starts_with(**start))
            .and_then(|start| PROGRAMS.get(format!("{start}*").as_str()))
    };
    PROGRAMS.get(program).or_else(family).map(Vec::as_slice)
}

fn load(text: &'static str) -> Result<HashMap<&'static str, Vec<Entry>>, String> {
    let mut programs: HashMap<&'static str, Vec<Entry>> = HashMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let wrong = |what: &str| format!("line {}: {what}: `{line}`", n + 1);
        let (weak, line) = line.strip_prefix("~ ").map_or((false, line), |line| (true, line));
        let (names, rest) = line.split_once(" : ").ok_or_else(|| wrong("no ` : `"))?;
        let mut rest = rest.split_whitespace();
        let first = rest.next().ok_or_else(|| wrong("no class"))?;
        let kind = kind(first).ok_or_else(|| wrong(first))?;
        let (mut options, mut operand) = (HashMap::new(), None);
        for word in rest {
            let split = word.char_indices().skip(1).find(|(_, c)| matches!(c, '=' | ':')).map(|(at, _)| at);
            let (name, tail) = split.and_then(|at| word.split_at_checked(at)).unwrap_or((word, ""));
            // `--=destroy` and `-all==change` have a `=` of their own.
            let (name, tail) = if word.starts_with("--=") { ("--", "=destroy") } else { (name, tail) };
            let takes = tail.starts_with(':');
            let class = tail.trim_start_matches([':', '=']);
            let kind = if class.is_empty() { None } else { Some(self::kind(class).ok_or_else(|| wrong(word))?) };
            match (name, kind) {
                ("*", Some(Kind::Is(class))) => operand = Some(class),
                _ => drop(options.insert(name, Opt { takes, kind })),
            }
        }
        for name in names.split('|').filter(|name| !name.is_empty()) {
            let mut words = name.split_whitespace();
            let Some(program) = words.next() else { continue };
            let entry = Entry { key: words.collect(), kind, options: options.clone(), operand };
            let entries = programs.entry(program).or_default();
            if weak && entries.iter().any(|other| other.key.is_empty()) {
                continue;
            }
            // A later line of the same name is the more exact one.
            entries.retain(|other| other.key != entry.key);
            entries.push(entry);
        }
    }
    Ok(programs)
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "read" => Kind::Is(Class::Read),
        "change" => Kind::Is(Class::Change),
        "send" => Kind::Is(Class::Send),
        "run" => Kind::Is(Class::Run),
        "system" => Kind::Is(Class::System),
        "secret" => Kind::Is(Class::Secret),
        "grant" => Kind::Is(Class::Grant),
        "destroy" => Kind::Is(Class::Destroy),
        "?" | "unknown" => Kind::Is(Class::Unknown),
        "shell" => Kind::Shell,
        "code" => Kind::Code,
        "wrap" => Kind::Wrap(0),
        "wrap:1" => Kind::Wrap(1),
        "remote" => Kind::Remote,
        "sql" => Kind::Sql,
        "redis" => Kind::Redis,
        _ => return None,
    })
}

/// What the words of a sub-command say where the table has no line for it: every tool has its `list` and its `delete`.
pub(super) fn verb(word: &str) -> Option<Class> {
    let mut parts = word.split(['-', ':', '_', '.']);
    let head = match (parts.next().unwrap_or(word), parts.next()) {
        // `batch-get-item` gets; `schedule-key-deletion` deletes.
        ("batch", Some(next)) => next,
        ("schedule", Some(_)) if word.contains("delet") => "delete",
        ("schedule" | "format" | "release" | "archive" | "batch" | "force", _) => return None,
        (head, _) => head,
    };
    Some(match head {
        "list" | "ls" | "show" | "get" | "describe" | "status" | "view" | "info" | "inspect" | "search" | "find" | "help" | "version" | "logs"
        | "log" | "history" | "diff" | "stats" | "stat" | "top" | "whoami" | "check" | "validate" | "lint" | "verify" | "query" | "count"
        | "explain" | "preview" | "plan" | "print" | "env" | "doctor" | "lookup" | "head" | "cat" | "tail" | "tree" | "health" | "ping"
        | "events" | "usage" | "estimate" | "test-connection" | "outdated" | "completion" | "ps" | "read" | "display" | "size" | "about" | "docs"
        | "receive" | "peek" | "resolve" | "whatis" | "monitor" | "watch" | "trace" | "filter" | "compare" | "audit" | "scan" | "analyze" => {
            Class::Read
        }
        "download" | "clone" | "pull" | "fetch" | "build" | "init" | "evaluate" | "render" | "generate" | "convert" | "compile" | "use"
        | "select" | "switch" | "new" | "export" | "backup" | "snapshot" | "open" | "completions" | "setup" | "config" | "fmt" | "package"
        | "pack" | "extract" | "unpack" | "split" | "merge" | "join" | "rotate" | "crop" | "login" | "logout" => Class::Change,
        "delete" | "del" | "remove" | "rm" | "destroy" | "purge" | "drop" | "terminate" | "kill" | "stop" | "wipe" | "erase" | "clear" | "reset"
        | "prune" | "clean" | "uninstall" | "revoke" | "deregister" | "disable" | "detach" | "undo" | "rollback" | "revert" | "flush"
        | "truncate" | "cancel" | "abort" | "down" | "shutdown" | "deactivate" | "unsubscribe" | "forget" | "expire" | "deprovision"
        | "unpublish" | "disassociate" | "overwrite" | "evict" | "drain" | "suspend" => Class::Destroy,
        "create" | "add" | "update" | "set" | "put" | "apply" | "deploy" | "start" | "restart" | "enable" | "attach" | "modify" | "edit"
        | "import" | "install" | "upgrade" | "scale" | "register" | "publish" | "push" | "send" | "upload" | "invoke" | "trigger" | "restore"
        | "associate" | "replace" | "patch" | "sync" | "copy" | "cp" | "mv" | "move" | "rename" | "reboot" | "authorize" => Class::System,
        "run" | "exec" | "execute" | "ssh" | "shell" | "eval" | "call" => Class::Run,
        "grant" | "bind" | "assume" => Class::Grant,
        _ => return None,
    })
}

/// Classes of Redis's commands.
pub(super) fn redis(command: &str) -> Class {
    match command.to_ascii_lowercase().as_str() {
        "get" | "mget" | "keys" | "scan" | "type" | "ttl" | "pttl" | "exists" | "hget" | "hgetall" | "hmget" | "hkeys" | "hvals" | "hlen"
        | "hscan" | "lrange" | "llen" | "lindex" | "smembers" | "sismember" | "scard" | "sscan" | "zrange" | "zcard" | "zscore" | "zrank"
        | "zscan" | "info" | "ping" | "dbsize" | "time" | "echo" | "strlen" | "getrange" | "object" | "memory" | "xrange" | "xlen" | "xinfo"
        | "monitor" | "lastsave" | "randomkey" | "command" | "role" | "help" | "latency" | "pubsub" | "zrangebyscore" | "zrevrange" | "zcount"
        | "bitcount" => Class::Read,
        "flushall" | "flushdb" | "del" | "unlink" | "shutdown" | "rename" | "migrate" | "ltrim" | "spop" | "hdel" | "srem" | "zrem" | "lrem"
        | "swapdb" | "debug" | "failover" | "xtrim" | "xdel" | "expire" | "restore" => Class::Destroy,
        "eval" | "evalsha" | "fcall" | "script" | "function" | "module" => Class::Run,
        "auth" | "acl" => Class::Grant,
        _ => Class::System,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let programs = load(include_str!("programs.txt")).unwrap();
        assert!(programs.len() > 900, "{}", programs.len());
        assert_eq!(programs["rm"][0].kind, Kind::Is(Class::Destroy));
        assert!(programs["xargs"][0].options["-I"].takes);
    }
}
