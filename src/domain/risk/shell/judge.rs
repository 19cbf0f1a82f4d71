//! From simple commands to what is dangerous in them.

use super::parse::{Script, Simple, Word};
use super::table::{self, Class, Entry, Kind, Opt};
use crate::domain::risk::danger::Danger;
use crate::domain::risk::effect::made;
use crate::domain::risk::{Group, code, path, sql, url};

/// How deep commands may run commands.
const DEEPEST: usize = 6;

/// Collects what is dangerous.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// What was found.
    pub dangers: Vec<Danger>,
}

/// The words of one command, sorted.
struct Line<'a> {
    program: String,
    words: &'a [Word],
    simple: &'a Simple,
}

impl Line<'_> {
    fn spelt(&self) -> String {
        format!("{} {}", self.program, spelt(self.words))
    }
}

impl Judge {
    pub(super) fn script(&mut self, script: &Script, depth: usize) {
        for trick in &script.tricks {
            self.dangers.push(Danger::opaque(*trick, ""));
        }
        for command in &script.commands {
            self.simple(command, depth);
        }
    }

    fn simple(&mut self, command: &Simple, depth: usize) {
        for (name, value) in &command.sets {
            self.set(name, value, &command.words);
        }
        for file in &command.writes {
            self.writes(file);
        }
        for file in &command.reads {
            self.touches(file, false);
        }
        self.words(&command.words, command, depth);
    }

    /// A variable that is set: some make programs run other programs.
    fn set(&mut self, name: &str, value: &Word, words: &[Word]) {
        const RUNS: [&str; 35] = [
            "HISTFILE",
            "HISTSIZE",
            "HISTCONTROL",
            "HISTIGNORE",
            "PATH",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "BASH_ENV",
            "ENV",
            "PROMPT_COMMAND",
            "PS1",
            "PS4",
            "IFS",
            "SHELLOPTS",
            "PAGER",
            "MANPAGER",
            "EDITOR",
            "VISUAL",
            "BROWSER",
            "LESSOPEN",
            "LESSCLOSE",
            "PYTHONSTARTUP",
            "PYTHONPATH",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "JAVA_TOOL_OPTIONS",
            "CDPATH",
            "GCONV_PATH",
            "DYLD_INSERT_LIBRARIES",
            "SHELL",
            "TERMINFO",
            "OPENSSL_CONF",
        ];
        let git = name.starts_with("GIT_")
            && ["PAGER", "EDITOR", "SSH", "EXEC", "ASKPASS", "CONFIG", "TEMPLATE", "PROXY", "DIFF"].iter().any(|x| name.contains(x));
        let suffix = [
            "COMMAND",
            "PAGER",
            "EDITOR",
            "_CMD",
            "_SHELL",
            "_EXEC",
            "PRELOAD",
            "_HOOK",
            "_OPTS",
            "_ASKPASS",
            "_PROXY_COMMAND",
            "_WRAPPER",
            "BIN_PATH",
        ]
        .iter()
        .any(|end| name.ends_with(end));
        let harmless_path = name == "PATH"
            && value
                .text
                .split(':')
                .all(|part| part == "$PATH" || part.starts_with("/usr/") || part.starts_with("/bin") || part.starts_with("/sbin"));
        if (RUNS.contains(&name) || git || suffix || name.starts_with("BASH_FUNC")) && !harmless_path {
            let what = if words.is_empty() { "is set" } else { "is set for a command" };
            self.dangers
                .push(Danger::new(640, format!("`{name}` {what}: it says what programs run, or hides what they did"), &value.text).opaque_code());
        }
        self.touches(value, false);
    }

    fn words(&mut self, words: &[Word], simple: &Simple, depth: usize) {
        let Some((name, rest)) = words.split_first() else { return };
        if depth > DEEPEST {
            self.dangers.push(Danger::unread("commands run commands too deeply".into(), &name.text));
            return;
        }
        if !name.literal || name.text.is_empty() {
            self.dangers.push(Danger::opaque("which program runs is only known when it runs", &spelt(words)));
            return;
        }
        let program = match program(&name.text) {
            Ok(program) => program,
            Err(why) => {
                self.add(Class::Run, why, words);
                return;
            }
        };
        let line = Line { program, words: rest, simple };
        let entries = table::lines(&line.program);
        // `sh -h` runs what it is fed, `make help` a target, `shutdown -h` halts: only the long forms always ask.
        let mild =
            entries.is_none_or(|all| all.iter().filter(|e| e.key.is_empty()).all(|e| matches!(e.kind, Kind::Is(class) if class <= Class::Unknown)));
        if only_asks(rest, mild) {
            return;
        }
        match entries {
            Some(entries) => self.known(entries, &line, depth),
            None => self.stranger(&line),
        }
    }

    /// A program that is not in the table: only what its words say plainly is believed, and that only loudly.
    fn stranger(&mut self, line: &Line<'_>) {
        let class = by_verb(line.words, &|_| false);
        match class {
            Some(Class::Read) => self.add(Class::Change, "a program that is not in the table, by its words one that looks", line.words),
            Some(class) => self.add(class, "a program that is not in the table, by its words one that changes something", line.words),
            None => self.add(Class::Unknown, format!("`{}` is not in the table of programs", shown(&line.program)), line.words),
        }
    }

    fn known(&mut self, entries: &[Entry], line: &Line<'_>, depth: usize) {
        let base = entries.iter().find(|entry| entry.key.is_empty());
        let takes = |option: &str| entries.iter().any(|e| e.options.get(option).is_some_and(|o| o.takes));
        let operands: Vec<(usize, &Word)> = operands(line.words, &takes);
        let has = |key: &str| match key.starts_with('-') {
            true => line.words.iter().any(|w| w.text == key || w.text.split('=').next() == Some(key)),
            false => false,
        };
        let fits = |entry: &&Entry| {
            let mut at = 0;
            entry.key.iter().all(|key| match key.starts_with('-') {
                true => has(key),
                false => {
                    let hit = operands.get(at).is_some_and(|(_, word)| word.text == *key);
                    at += 1;
                    hit
                }
            })
        };
        let longest = entries.iter().filter(fits).map(|e| e.key.len()).max();
        // Of lines that fit equally well, the worst counts.
        let entry = entries.iter().filter(fits).filter(|e| Some(e.key.len()) == longest).max_by_key(|e| rank(e.kind));
        let Some(entry) = entry.or(base) else {
            self.add_said(Class::Unknown, format!("`{}` is used in a way that is not in the table of programs", shown(&line.program)), &line.spelt());
            return;
        };
        let subs = entry.key.iter().filter(|key| !key.starts_with('-')).count();
        let begin = subs.checked_sub(1).and_then(|last| operands.get(last)).map_or(0, |(at, _)| at + 1);
        let own = operands.get(subs..).unwrap_or_default();
        let mut class = match entry.kind {
            Kind::Is(class) => class,
            _ => Class::Read,
        };
        let by_line = class;
        // A sub-command that has no line: its own words are believed, where they say something.
        if line.words.is_empty() && class == Class::Unknown {
            return;
        }
        if subs == 0 && class == Class::Unknown {
            class = match by_verb(line.words, &takes) {
                Some(Class::Read) => Class::Read,
                Some(worse) => worse,
                None => Class::Unknown,
            };
        }
        let mut nested: Vec<(Kind, Word)> = Vec::new();
        let mut dry = false;
        let mut used: Option<&str> = None;
        let mut skip = false;
        // What stands behind the command that is wrapped is that command's.
        let end = match entry.kind {
            Kind::Wrap(before) => own.get(before).map_or(line.words.len(), |(at, _)| *at),
            Kind::Remote => own.get(1).map_or(line.words.len(), |(at, _)| *at),
            _ => line.words.len(),
        };
        for (n, word) in line.words.iter().enumerate().take(end) {
            if skip {
                skip = false;
                continue;
            }
            let options = |name: &str| {
                // Long names mean the same wherever they stand; short ones are the program's before its sub-command.
                let long = name.starts_with("--");
                let here = if n >= begin || subs == 0 || long { entry.options.get(name) } else { None };
                here.or_else(|| base.filter(|_| n < begin || subs == 0 || long).and_then(|b| b.options.get(name))).copied()
            };
            for (option, value) in options_in(word, &options) {
                let Some(opt) = options(&option) else { continue };
                if opt.takes && value.is_none() {
                    skip = true;
                }
                let given = value.or_else(|| opt.takes.then(|| line.words.get(n + 1).cloned()).flatten());
                // `--dry-run=none` is no dry run.
                let off = given
                    .as_ref()
                    .is_some_and(|value| !opt.takes && (!value.literal || matches!(value.text.as_str(), "none" | "false" | "no" | "0")));
                match opt.kind {
                    Some(Kind::Is(Class::Read)) => dry |= !off,
                    Some(Kind::Is(worse)) if worse > class || class == Class::Unknown => {
                        class = worse.max(if class == Class::Unknown { Class::Read } else { class });
                        used = Some("an option");
                    }
                    Some(Kind::Is(_)) | None => {}
                    Some(kind) => nested.push((kind, given.unwrap_or_default())),
                }
            }
            if matches!(word.text.as_str(), "--") {
                break;
            }
        }
        if let (Some(worse), false) = (entry.operand, own.is_empty()) {
            class = class.max(worse);
        }
        // `--dry-run` is believed only where the table says so for that very line.
        if dry && matches!(by_line, Class::Destroy | Class::System | Class::Change | Class::Send) && used.is_none() {
            class = Class::Read;
        }
        // `command -v NAME` and `sudo -l` only ask.
        if dry && matches!(entry.kind, Kind::Wrap(_)) {
            return;
        }
        // `configs` lists, `configs delete` does not, and a table never has every sub-command.
        if class <= Class::Change && (subs > 0 || class == Class::Change) {
            let next = own.iter().take(if subs > 0 { 1 } else { 3 }).filter(|(_, w)| w.literal && w.text.bytes().all(|b| b.is_ascii_lowercase()));
            let worse = next
                .filter_map(|(_, w)| table::verb(&w.text))
                .filter(|c| *c == Class::Destroy || (subs > 0 && matches!(c, Class::Run | Class::Grant)))
                .max();
            class = class.max(worse.unwrap_or(class));
        }
        if subs == 0 && class == Class::Read && !entry.key.is_empty() {
            let next = own.first().filter(|(_, w)| w.literal).and_then(|(_, w)| table::verb(&w.text));
            class = class.max(next.filter(|worse| *worse > Class::Change).unwrap_or(class));
        }
        let inline = nested.len();
        for (kind, text) in nested {
            self.nested(kind, &text, depth);
        }
        match entry.kind {
            Kind::Is(_) => {}
            Kind::Wrap(skip) => self.wrapped(line, own, skip, depth),
            Kind::Shell => self.shell(line, own, inline, depth),
            Kind::Code => self.code(line, own),
            Kind::Remote => match own.split_first() {
                Some((_, [(at, _), ..])) => {
                    let text = line.words.get(*at..).unwrap_or_default().iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
                    class = class.max(Class::Change);
                    self.text(&text, depth);
                }
                _ => class = class.max(Class::Run),
            },
            Kind::Sql => self.sql(line, own, inline),
            Kind::Redis => {
                class = class.max(own.first().map_or(Class::Run, |(_, word)| if word.literal { table::redis(&word.text) } else { Class::Run }))
            }
        }
        self.finish(line, entry, class, own);
    }

    /// What is special to some programs, and the finding.
    fn finish(&mut self, line: &Line<'_>, entry: &Entry, mut class: Class, own: &[(usize, &Word)]) {
        let mut unbounded = false;
        match line.program.as_str() {
            "rm" | "rmdir" | "unlink" | "shred" | "rimraf" => {
                if !own.is_empty() && own.iter().all(|(_, word)| temporary(word)) {
                    class = class.min(Class::Change);
                }
                unbounded = line.program != "rmdir" && own.iter().any(|(_, word)| everything(&word.text));
            }
            "chmod" => class = chmod(own, line.words),
            "sed" | "gsed" => class = class.max(sed(line, own)),
            "awk" | "gawk" | "mawk" | "nawk" | "original-awk" => class = class.max(awk(line, own)),
            "find" if line.words.iter().any(|w| matches!(w.text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir")) => {
                let has = |start: &str| line.words.iter().any(|w| w.text.starts_with(start));
                class = match (has("-delete"), has("-fprint") || has("-fls")) {
                    (true, _) => Class::Destroy,
                    (false, true) => Class::Change,
                    (false, false) => Class::Read,
                };
                for inner in executed(line.words) {
                    self.words(inner, line.simple, DEEPEST - 1);
                }
            }
            "curl" | "wget" => class = class.max(self.request(line)),
            "uniq" | "xxd" if own.len() > 1 => class = class.max(Class::Change),
            "dd" | "tee" | "cp" | "mv" | "install" | "ln" | "truncate" => unbounded = own.iter().any(|(_, w)| device(&w.text)),
            "scp" | "rsync" => {
                let remote = |word: &Word| word.text.split('/').next().is_some_and(|head| head.contains(':'));
                let out = own.last().is_some_and(|(_, word)| remote(word));
                if class <= Class::Send {
                    class = if out { Class::Send } else { Class::Change };
                }
                if let Some((_, target)) = own.last().filter(|_| out)
                    && let Some((_, path)) = target.text.split_once(':')
                {
                    self.touches(&Word { text: path.to_owned(), literal: true }, true);
                }
            }
            "git"
                if matches!(entry.key.first(), Some(&"push"))
                    && own.iter().any(|(_, word)| word.text.starts_with('+') || word.text.starts_with(':')) =>
            {
                class = Class::Destroy
            }
            "git" if matches!(entry.key.first(), Some(&"config")) && class == Class::Change => {
                let key = own.first().map(|(_, w)| w.text.to_lowercase()).unwrap_or_default();
                let ordinary = key.starts_with("user.")
                    || key.starts_with("color.")
                    || matches!(key.as_str(), "pull.rebase" | "init.defaultbranch" | "push.default");
                class = match own.len() {
                    0 | 1 => Class::Read,
                    _ if ordinary => Class::Change,
                    _ => Class::Run,
                };
            }
            "git" if matches!(entry.key.first(), Some(&"checkout")) && line.words.iter().any(|w| matches!(w.text.as_str(), "--" | ".")) => {
                class = Class::Destroy
            }
            "kubectl" | "oc" | "k"
                if class == Class::Read
                    && own.iter().any(|(_, w)| w.text.split([',', '/', '.']).any(|kind| matches!(kind, "secret" | "secrets"))) =>
            {
                class = Class::Secret;
            }
            "export" | "declare" | "typeset" | "readonly" | "local" => {
                for word in line.words {
                    if let Some((name, value)) = word.text.split_once('=') {
                        self.set(name, &Word { text: value.to_owned(), literal: word.literal }, &[]);
                    }
                }
            }
            "dig" | "nslookup" | "host" | "ping" | "whois" | "drill"
                if line.words.iter().any(|w| w.text.contains("$(") || w.text.contains('$')) && line.words.iter().any(|w| !w.literal) =>
            {
                class = class.max(Class::Send)
            }
            "sysctl" if own.iter().any(|(_, w)| w.text.contains('=')) => class = class.max(Class::System),
            "getent" if own.iter().any(|(_, w)| matches!(w.text.as_str(), "shadow" | "gshadow")) => class = Class::Secret,
            _ => {}
        }
        if matches!(line.program.as_str(), "sudo" | "doas" | "pkexec" | "dzdo" | "run0" | "su" | "runuser" | "gosu") {
            self.dangers.push(Danger::new(350, "it runs as another user", &line.program).aside(Group::Target));
        }
        let changes = class > Class::Read;
        // What is copied from another machine is not a file of this one.
        for (_, word) in own.iter().filter(|(_, w)| !(matches!(line.program.as_str(), "scp" | "rsync") && w.text.contains(':'))) {
            self.touches(word, changes && matches!(class, Class::Change | Class::Destroy | Class::System | Class::Grant));
        }
        for word in line.words.iter().filter(|w| w.text.starts_with('-') || w.text.contains('=')) {
            if let Some((_, value)) = word.text.split_once('=') {
                self.touches(&Word { text: value.to_owned(), literal: word.literal }, false);
            }
        }
        if matches!(line.program.as_str(), "find" | "fd" | "locate") {
            line.words.iter().for_each(|word| self.names(word));
        }
        let name = match entry.key.is_empty() {
            true => line.program.clone(),
            false => format!("{} {}", line.program, entry.key.join(" ")),
        };
        if unbounded {
            let danger = Danger::new(800, format!("`{name}` reaches everything below a root, a home or a device"), &line.spelt());
            self.dangers.push(danger.destroying().unbounded());
        } else if matches!(entry.kind, Kind::Is(_) | Kind::Redis) || changes {
            self.add_said(class, format!("`{name}` {}", says(class)), &line.spelt());
        }
    }

    fn add(&mut self, class: Class, why: impl Into<String>, words: &[Word]) {
        self.add_said(class, why, &spelt(words));
    }

    fn add_said(&mut self, class: Class, why: impl Into<String>, evidence: &str) {
        let danger = match class {
            Class::Read => return,
            Class::Change => Danger::new(420, why, evidence),
            Class::Unknown => Danger::new(620, why, evidence),
            Class::Send => Danger::new(650, why, evidence),
            Class::System => Danger::new(650, why, evidence),
            Class::Run => Danger::new(680, why, evidence),
            Class::Secret => Danger::new(700, why, evidence),
            Class::Grant => Danger::new(720, why, evidence),
            Class::Destroy => Danger::new(750, why, evidence).destroying(),
        };
        self.dangers.push(danger);
    }

    fn text(&mut self, text: &str, depth: usize) {
        match super::parse::parse(text) {
            Ok(script) => self.script(&script, depth + 1),
            Err(why) if why.excess => self.dangers.push(Danger::excess(format!("a script in the script cannot be read: {}", why.text), text)),
            Err(why) => self.dangers.push(Danger::unread(format!("a script in the script cannot be read: {}", why.text), text)),
        }
    }

    fn nested(&mut self, kind: Kind, text: &Word, depth: usize) {
        match kind {
            _ if !text.literal && kind != Kind::Sql => {
                self.dangers.push(Danger::opaque("what it runs is only known when it runs", &text.text));
            }
            Kind::Shell if depth > DEEPEST => self.dangers.push(Danger::unread("commands run commands too deeply".into(), &text.text)),
            Kind::Shell => self.text(&text.text, depth),
            Kind::Code => self.dangers.extend(code::dangers(&text.text)),
            Kind::Sql => self.dangers.extend(statement(&text.text)),
            Kind::Remote => {
                let plain = text
                    .text
                    .strip_prefix("ssh")
                    .is_some_and(|rest| !rest.contains("-o") && !rest.contains("-F") && !rest.contains(['`', '$', ';', '|', '&']));
                if !plain {
                    self.add(Class::Run, "an option names a program to be run", std::slice::from_ref(text));
                }
            }
            _ => {}
        }
    }

    fn wrapped(&mut self, line: &Line<'_>, own: &[(usize, &Word)], skip: usize, depth: usize) {
        let mut inner = own.get(skip..).unwrap_or_default().first().map(|(at, _)| line.words.get(*at..).unwrap_or_default()).unwrap_or_default();
        // `env A=b command`, `sudo A=b command`.
        while let Some((first, rest)) = inner.split_first()
            && let Some((name, value)) = first.text.split_once('=')
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            self.set(name, &Word { text: value.to_owned(), literal: first.literal }, rest);
            inner = rest;
        }
        if inner.is_empty() {
            if !matches!(line.program.as_str(), "env" | "xargs" | "command" | "time" | "sudo" | "nice" | "exec" | "busybox" | "toybox") {
                self.add_said(Class::Run, format!("`{}` starts a shell", shown(&line.program)), &line.spelt());
            }
            return;
        }
        if line.program != "xargs" {
            return self.words(inner, line.simple, depth + 1);
        }
        // What xargs hands on comes from elsewhere: it is known only where `echo` says it.
        let mut whole = inner.to_vec();
        match line.simple.fed.as_ref().filter(|fed| fed.literal) {
            Some(fed) => {
                whole.extend(fed.text.split_whitespace().map(|word| Word { text: word.trim_matches(['"', '\'']).to_owned(), literal: true }))
            }
            None => whole.push(Word { text: "$(…)".into(), literal: false }),
        }
        let simple = Simple { fed: None, ..line.simple.clone() };
        self.words(&whole, &simple, depth + 1);
    }

    fn shell(&mut self, line: &Line<'_>, own: &[(usize, &Word)], inline: usize, depth: usize) {
        let evals = matches!(line.program.as_str(), "eval" | "watch" | "parallel");
        if inline > 0 {
            return;
        }
        match own.first() {
            Some((at, _)) if evals => {
                let words = line.words.get(*at..).unwrap_or_default();
                match words.iter().all(|word| word.literal) {
                    true => self.text(&words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" "), depth),
                    false => self.dangers.push(Danger::opaque("`eval` runs text that is only known when it runs", &spelt(words))),
                }
            }
            Some(_) => self.add(Class::Run, format!("`{}` runs a script that is not shown", shown(&line.program)), line.words),
            None => match &line.simple.fed {
                Some(text) if text.literal => self.text(&text.text, depth),
                _ => self.dangers.push(Danger::opaque("a shell runs what it is fed", &line.program)),
            },
        }
    }

    fn code(&mut self, line: &Line<'_>, own: &[(usize, &Word)]) {
        let given = |names: &[&str]| {
            line.words.iter().enumerate().find_map(|(n, word)| {
                let hit =
                    names.iter().find(|name| word.text == **name || (name.len() == 2 && !word.text.starts_with("--") && clustered(&word.text, name)));
                hit.and_then(|_| line.words.get(n + 1))
            })
        };
        let text = given(&["-c", "-e", "-E", "-r", "-p", "--eval", "--print", "-pe", "-ne", "-ane", "--command", "--run"]);
        match (text, given(&["-m"]), own.first(), &line.simple.fed) {
            (Some(text), ..) if text.literal => self.dangers.extend(code::dangers(&text.text)),
            (Some(text), ..) => self.dangers.push(Danger::opaque("program text that is only known when it runs", &text.text)),
            (None, Some(module), ..)
                // Behind a file's name it is an argument of that file.
                if line.words.first().is_some_and(|first| first.text == "-m") && matches!(
                    module.text.as_str(),
                    "json.tool" | "calendar" | "this" | "site" | "tokenize" | "ast" | "dis" | "platform" | "sysconfig"
                ) => {}
            (None, Some(_), ..) => self.add(Class::Run, format!("`{}` runs a module", shown(&line.program)), line.words),
            (None, None, Some(_), _) => self.add(Class::Run, format!("`{}` runs a program that is not shown", shown(&line.program)), line.words),
            (None, None, None, Some(text)) if text.literal => self.dangers.extend(code::dangers(&text.text)),
            _ => self.dangers.push(Danger::opaque("an interpreter runs what it is fed", &line.program)),
        }
    }

    fn sql(&mut self, line: &Line<'_>, own: &[(usize, &Word)], inline: usize) {
        if inline > 0 {
            return;
        }
        let text = match (line.program.as_str(), own, &line.simple.fed) {
            // Each operand behind the database's is a statement.
            ("sqlite3" | "duckdb", [_, (first, _), ..], _) => {
                let rest = line.words.get(*first..).unwrap_or_default();
                Some(Word { text: rest.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(";\n"), literal: rest.iter().all(|w| w.literal) })
            }
            ("bq", [(_, text), ..], _) => Some((*text).clone()),
            (_, _, Some(fed)) => Some(fed.clone()),
            _ => None,
        };
        match text {
            Some(text) => self.dangers.extend(statement(&text.text)),
            None => self.add(Class::Run, format!("`{}` runs statements that are not shown", shown(&line.program)), line.words),
        }
    }

    /// What an HTTP client asks for.
    fn request(&mut self, line: &Line<'_>) -> Class {
        let mut class = Class::Read;
        for (n, word) in line.words.iter().enumerate() {
            let method = match word.text.as_str() {
                "-X" | "--request" | "--method" => line.words.get(n + 1).map(|w| w.text.clone()),
                text => {
                    text.strip_prefix("-X").or_else(|| text.strip_prefix("--request=")).or_else(|| text.strip_prefix("--method=")).map(str::to_owned)
                }
            };
            class = class.max(match method.as_deref() {
                None | Some("GET" | "HEAD" | "OPTIONS") => Class::Read,
                Some("DELETE") => Class::Destroy,
                Some(_) => Class::Send,
            });
            let looks = word.text.contains("://") || (!word.text.starts_with('-') && word.text.contains('.'));
            let scheme = word.text.split_once("://").map(|(scheme, _)| scheme.to_lowercase());
            if scheme.is_some_and(|s| !matches!(s.as_str(), "http" | "https" | "ftp" | "ftps" | "file")) && !word.text.starts_with('-') {
                class = class.max(Class::Send);
            }
            if looks && word.text.contains("$(") {
                class = class.max(Class::Send);
            }
            if looks && let Some(reason) = url::dangerous_host(&word.text) {
                self.dangers.push(Danger::new(650, reason, &word.text).aside(Group::Target));
            }
            if word.text.starts_with("file:") || word.text.starts_with("@/") {
                self.touches(
                    &Word { text: word.text.split_once(':').map_or("", |(_, rest)| rest).trim_start_matches("//").to_owned(), literal: true },
                    false,
                );
            }
        }
        let writes = |name: &str| line.words.iter().position(|w| w.text == name).and_then(|at| line.words.get(at + 1));
        for file in ["-o", "--output", "-O", "--output-document"]
            .iter()
            .filter_map(|name| writes(name))
            .filter(|_| line.program == "wget" || !line.words.iter().any(|w| w.text == "-O"))
        {
            self.writes(file);
            class = class.max(Class::Change);
        }
        class
    }

    fn writes(&mut self, file: &Word) {
        if matches!(file.text.as_str(), "/dev/null" | "/dev/stdout" | "/dev/stderr" | "/dev/tty" | "-") || file.text.starts_with("/dev/fd/") {
            return;
        }
        if device(&file.text) {
            self.dangers.push(Danger::new(800, "it writes to a device", &file.text).destroying().unbounded());
        }
        if file.text.starts_with("/dev/tcp/") || file.text.starts_with("/dev/udp/") {
            self.add(Class::Send, "it opens a connection", std::slice::from_ref(file));
        }
        self.add(Class::Change, "it writes a file", std::slice::from_ref(file));
        self.touches(file, true);
    }

    /// A word that names a file without saying where.
    fn names(&mut self, word: &Word) {
        if !word.text.contains('/')
            && let Some(reason) = path::secret(&word.text, false)
        {
            self.dangers.push(Danger::new(650, reason, &word.text).aside(Group::Target));
        }
    }

    /// A word that may be a path: is it one of those that matter?
    fn touches(&mut self, word: &Word, changes: bool) {
        let text = word.text.as_str();
        if text.starts_with("/dev/tcp/") || text.starts_with("/dev/udp/") {
            self.add(Class::Send, "it opens a connection", std::slice::from_ref(word));
        }
        if !(text.contains('/') || text.starts_with('.') || text.starts_with('~')) || text.contains("://") || text.len() > 400 || text.contains('\n')
        {
            return;
        }
        let found = match path::secret(text, changes) {
            Some(reason) => Some((650, reason)),
            None if changes && path::of_the_system(text) => Some((650, "it changes what belongs to the system")),
            None if changes && path::out_of_the_way(text) => Some((400, "it writes outside the places where projects are")),
            None => None,
        };
        if let Some((weight, reason)) = found {
            self.dangers.push(Danger::new(weight, reason, text).aside(Group::Target));
        }
    }
}

/// The program that a name stands for.
fn program(name: &str) -> Result<String, String> {
    match name.rsplit_once('/') {
        None => Ok(name.to_owned()),
        Some((directory, base)) => {
            let standard = ["/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/opt/homebrew/bin", "/snap/bin"].contains(&directory);
            if standard { Ok(base.to_owned()) } else { Err(format!("`{}` is a program of unknown origin", shown(name))) }
        }
    }
}

fn only_asks(words: &[Word], mild: bool) -> bool {
    let ask =
        |w: &Word| matches!(w.text.as_str(), "--help" | "--version") || (mild && matches!(w.text.as_str(), "-help" | "--usage" | "-V" | "-version"));
    match words {
        [word] => ask(word) || (mild && matches!(word.text.as_str(), "help" | "version" | "-h" | "-?")),
        [sub, word] => {
            mild && sub.literal && matches!(word.text.as_str(), "--help") && sub.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
        _ => false,
    }
}

/// Words that are not options and not values of options, with their places.
fn operands<'a>(words: &'a [Word], takes: &dyn Fn(&str) -> bool) -> Vec<(usize, &'a Word)> {
    let (mut out, mut skip, mut ended) = (Vec::new(), false, false);
    for (n, word) in words.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if ended || !word.text.starts_with('-') || word.text == "-" {
            out.push((n, word));
        } else if word.text == "--" {
            ended = true;
        } else {
            // `-n5` and `--name=value` carry their values; `-xf file` gives one to its last letter.
            let last = word.text.chars().last().map(|c| format!("-{c}"));
            let cluster = !word.text.starts_with("--") && word.text.chars().count() > 2 && word.text.chars().skip(1).all(|c| c.is_ascii_alphabetic());
            skip = takes(&word.text) || (cluster && last.is_some_and(|last| takes(&last)));
        }
    }
    out
}

/// The options that a word stands for, with values written in the same word.
fn options_in(word: &Word, known: &dyn Fn(&str) -> Option<Opt>) -> Vec<(String, Option<Word>)> {
    let text = word.text.as_str();
    if known(text).is_some() {
        return vec![(text.to_owned(), None)];
    }
    let with = |value: &str| Some(Word { text: value.to_owned(), literal: word.literal });
    if let Some((name, value)) = text.split_once('=')
        && known(name).is_some()
    {
        return vec![(name.to_owned(), with(value))];
    }
    if !text.starts_with('-') || text.starts_with("--") {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (at, letter) in text.char_indices().skip(1) {
        let name = format!("-{letter}");
        let Some(opt) = known(&name) else { continue };
        let rest = text.get(at + letter.len_utf8()..).unwrap_or_default();
        if opt.takes && !rest.is_empty() {
            out.push((name, with(rest)));
            break;
        }
        out.push((name, None));
    }
    out
}

fn rank(kind: Kind) -> Class {
    match kind {
        Kind::Is(class) => class,
        _ => Class::Run,
    }
}

/// What the words of a command say it does: the worst of what its first plain words mean.
fn by_verb(words: &[Word], takes: &dyn Fn(&str) -> bool) -> Option<Class> {
    let plain = |word: &Word| {
        word.literal
            && !word.text.is_empty()
            && word.text.len() < 48
            && word.text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-:_.".contains(&b))
    };
    let subs = operands(words, takes);
    let subs: Vec<&str> = subs.iter().map(|(_, word)| *word).take_while(|word| plain(word)).take(4).map(|word| word.text.as_str()).collect();
    // A long option can be the verb: `--delete`, `--remove`.
    let long = words.iter().filter_map(|word| word.text.strip_prefix("--")).map(|name| name.split('=').next().unwrap_or(name));
    let options = long.filter(|name| !name.contains('-')).filter_map(table::verb);
    let options: Vec<Class> = options.collect();
    let worst = options.iter().copied().filter(|class| *class == Class::Destroy).max();
    let worst = worst.or_else(|| (!subs.iter().any(|word| table::verb(word).is_some()) && options.contains(&Class::Read)).then_some(Class::Read));
    // What is only made is said loudly, as for tools, unless making it pays, publishes, gives rights or runs something.
    let makes = |word: &str| matches!(word.split(['-', ':', '_']).next(), Some("create" | "add" | "new" | "init"));
    let more = subs.iter().flat_map(|word| word.split(['-', ':', '_'])).any(|part| made(part).is_some());
    let class_of = |word: &&str| match table::verb(word) {
        Some(Class::System) if makes(word) && !more => Some(Class::Change),
        other => other,
    };
    let said: Vec<Class> = subs.iter().filter_map(class_of).collect();
    match (said.iter().max(), worst) {
        (Some(class), Some(worse)) => Some((*class).max(worse)),
        (Some(class), None) => Some(*class),
        (None, worse) => worse,
    }
}

fn says(class: Class) -> &'static str {
    match class {
        Class::Read => "looks",
        Class::Change => "changes files or local state",
        Class::Unknown => "is used in a way that is not in the table of programs",
        Class::Send => "sends data out or changes a remote system",
        Class::System => "changes how a machine or an account is run",
        Class::Run => "runs code that is not written in the command",
        Class::Secret => "shows or moves credentials",
        Class::Grant => "gives rights",
        Class::Destroy => "removes or overwrites what cannot be got back",
    }
}

fn spelt(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn shown(name: &str) -> String {
    crate::domain::text::shortened(&crate::domain::text::visible(name), 40)
}

fn clustered(word: &str, option: &str) -> bool {
    let letter = option.chars().nth(1);
    word.len() > 2 && word.starts_with('-') && word.chars().skip(1).all(|c| c.is_ascii_alphanumeric()) && word.chars().last() == letter
}

fn temporary(word: &Word) -> bool {
    let text = word.text.as_str();
    let inside = |root: &str| text.strip_prefix(root).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/') && !rest.starts_with("/*"));
    !text.split('/').any(|step| step == "..")
        && ["/tmp", "/var/tmp", "$TMPDIR"].iter().any(|root| inside(root))
        && (word.literal || text.matches('$').count() <= 1 && text.starts_with("$TMPDIR"))
}

/// Whether a path is a root, a home, a device, or everything here.
fn everything(text: &str) -> bool {
    let text = text.trim_end_matches('*');
    let bare = text.trim_end_matches('/');
    let system = [
        "/etc", "/usr", "/var", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/home", "/root", "/opt", "/srv", "/dev", "/sys", "/proc", "/mnt",
        "/Users", "/System", "/Library",
    ];
    bare.is_empty() || matches!(bare, "~" | "." | ".." | "$HOME" | "$PWD" | "$(…)") || system.contains(&bare)
}

fn device(text: &str) -> bool {
    let text = text.strip_prefix("of=").unwrap_or(text);
    text.strip_prefix("/dev/").is_some_and(|name| {
        ["sd", "hd", "nvme", "vd", "xvd", "disk", "mapper", "mem", "kmem", "mmcblk", "loop", "dm-", "md"].iter().any(|kind| name.starts_with(kind))
    })
}

fn chmod(own: &[(usize, &Word)], words: &[Word]) -> Class {
    let recursive = words.iter().any(|w| matches!(w.text.as_str(), "-R" | "--recursive"));
    let mode = words.iter().find(|w| !w.text.starts_with("--") && w.text != "-R").map(|w| w.text.as_str()).unwrap_or_default();
    let octal = mode.bytes().all(|b| b.is_ascii_digit());
    let special = if octal { mode.len() > 3 && !mode.starts_with('0') } else { mode.contains('s') || mode.contains('t') };
    let open = if octal { mode.ends_with(['2', '3', '6', '7']) } else { (mode.contains('o') || mode.starts_with(['+', 'a'])) && mode.contains('w') };
    let known = octal || mode.bytes().all(|b| b"ugoarwxXst+-=,".contains(&b));
    if special || open || !known || own.is_empty() {
        Class::Grant
    } else if recursive {
        Class::System
    } else {
        Class::Change
    }
}

/// What is between `-exec` and `;` or `+`.
fn executed(words: &[Word]) -> Vec<&[Word]> {
    let mut out = Vec::new();
    for (n, word) in words.iter().enumerate() {
        if matches!(word.text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir") {
            let rest = words.get(n + 1..).unwrap_or_default();
            let end = rest.iter().position(|w| matches!(w.text.as_str(), ";" | "+")).unwrap_or(rest.len());
            out.push(rest.get(..end).unwrap_or_default());
        }
    }
    out
}

/// Program text of sed that runs or writes: the commands `e`, `w`, `W`, `r`, and the flags `e` and `w` of `s`.
fn sed(line: &Line<'_>, own: &[(usize, &Word)]) -> Class {
    let by_option: Vec<&Word> = line
        .words
        .windows(2)
        .filter(|pair| matches!(pair, [one, _] if matches!(one.text.as_str(), "-e" | "--expression" | "-ne" | "-ie" | "-Ee" | "-re")))
        .filter_map(|pair| pair.get(1))
        .collect();
    let scripts = if by_option.is_empty() { own.first().map(|(_, word)| *word).into_iter().collect() } else { by_option };
    let mut class = Class::Read;
    for word in scripts {
        for part in word.text.split([';', '\n', '{', '}']) {
            let part = part.trim_start();
            let bare = part.trim_start_matches(|c: char| c.is_ascii_digit() || "$,!~+ \t".contains(c));
            let after_address = match bare.chars().next() {
                Some('/') => bare
                    .get(1..)
                    .and_then(|rest| rest.rsplit_once('/'))
                    .map_or("", |(_, rest)| rest)
                    .trim_start_matches(|c: char| "IM,$! ".contains(c) || c.is_ascii_digit()),
                _ => bare,
            };
            let mut letters = after_address.chars();
            match letters.next() {
                Some('e') => class = class.max(Class::Run),
                Some('w' | 'W') => class = class.max(Class::Change),
                Some('s') => {
                    let delimiter = letters.next().unwrap_or('/');
                    let flags = after_address.rsplit(delimiter).next().unwrap_or_default();
                    if after_address.matches(delimiter).count() >= 3
                        && flags.split_whitespace().next().is_some_and(|f| f.contains('e') && f.len() < 6)
                    {
                        class = class.max(Class::Run);
                    }
                    if flags.trim_start_matches(|c: char| c.is_ascii_digit() || "gpIiMm".contains(c)).starts_with('w') {
                        class = class.max(Class::Change);
                    }
                }
                _ => {}
            }
        }
        // The flag `e` behind a part that was cut at a `;` within the pattern.
        if !word.literal && word.text.contains("$(") {
            class = class.max(Class::Change);
        }
    }
    class
}

fn awk(line: &Line<'_>, own: &[(usize, &Word)]) -> Class {
    let Some((_, text)) = own.first() else { return Class::Read };
    let text = text.text.as_str();
    let strings = text.split('"').step_by(2).collect::<String>();
    let pipes = strings.replace("||", "").contains('|');
    if text.contains("system") || pipes || text.contains("/inet/") || text.contains('@') || line.words.iter().any(|w| w.text.starts_with("-f")) {
        return Class::Run;
    }
    let writes = text.contains("print")
        && strings.contains('>')
        && text
            .split("print")
            .skip(1)
            .any(|rest| rest.split([';', '}', '\n']).next().is_some_and(|s| s.split('"').step_by(2).any(|x| x.contains('>'))));
    if writes || text.contains("getline <") { Class::Change } else { Class::Read }
}

/// A statement for a database's own client, whose own commands start with a backslash or a dot.
fn statement(text: &str) -> Vec<Danger> {
    let start = text.trim_start();
    if let Some(own) = start.strip_prefix('\\').or_else(|| start.strip_prefix('.')) {
        let name: String = own.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        let looks = name.starts_with('d')
            || matches!(
                name.as_str(),
                "l" | "list"
                    | "conninfo"
                    | "timing"
                    | "x"
                    | "z"
                    | "sf"
                    | "sv"
                    | "tables"
                    | "schema"
                    | "databases"
                    | "indexes"
                    | "mode"
                    | "headers"
                    | "show"
                    | "s"
                    | "h"
                    | "q"
            );
        return match looks && !own.contains(['|', '\n', '\\']) && name != "dump" {
            true => Vec::new(),
            false => vec![Danger::new(680, "a command of the client's own, which may run programs or write files", text)],
        };
    }
    sql::dangers(text, sql::Dialect::Unknown)
}
