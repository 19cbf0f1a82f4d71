//! Files to a set: every text is parsed, merged with its `server.toml`, checked and compiled, or the whole set is
//! refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use globset::Glob;

use super::file::{AgainFile, ArgumentFile, CaseFile, DefaultMode, KnownFile, Per, PolicyFile, TwoFrom};
use super::gate::Gate;
use super::rule::{Rule, RuleError};
use super::{Again, Ask, Assurance, Case, Mode, Policy, PolicySet, Show, TemplateError, credential};
use crate::domain::call::Method;
use crate::domain::digest::{Digest, Fields};
use crate::domain::json::{Limits, Value, read};
use crate::domain::risk::{
    AmountRole, Bands, CountRole, Effect, EnvironmentRole, FlagRole, PathRole, Profile, RecipientRole, Role, RoleKind, UrlRole,
};
use crate::domain::text::nearest;

/// One policy file: where it is and what it says.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Its path, for messages.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Why a policy set was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not a policy file; the message has line, column and what was meant.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two files for one tool.
    #[error("{first} and {second} are both for tool `{tool}` of server `{server}`: keep one")]
    Twice {
        /// The first file.
        first: String,
        /// The second file.
        second: String,
        /// The server.
        server: String,
        /// The tool.
        tool: String,
    },
}

/// What holds for tools and keys that no file mentions.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// What happens to a tool without a policy.
    pub mode: DefaultMode,
    /// Who approves where no file says.
    pub approvers: Vec<String>,
    /// Whether a caller's owner may approve where no file says.
    pub owner_may_approve: bool,
    /// All names of approvers that exist.
    pub known_approvers: Vec<String>,
    /// Those of them that stand for several people.
    pub groups: Vec<String>,
    /// All names of issuers that exist.
    pub known_issuers: Vec<String>,
    /// Whether nothing is ever asked or minted, so that names need not exist.
    pub judged_only: bool,
}

impl Defaults {
    /// For verbs that only judge: names of approvers and issuers are taken as they are, and one stands for as many as are
    /// wanted.
    #[must_use]
    pub fn only_to_judge(mut self) -> Self {
        self.judged_only = true;
        if self.approvers.is_empty() {
            self.approvers.push("nobody".into());
        }
        self
    }
}

impl PolicySet {
    /// Compiles all files into a set.
    ///
    /// # Errors
    /// The first thing wrong in any file. There is no partial set.
    pub fn compile(sources: &[PolicySource], defaults: &Defaults) -> Result<Self, PolicyError> {
        let mut files: Vec<(PolicyFile, &PolicySource)> = Vec::new();
        for source in sources {
            files.push((parse(source)?, source));
        }
        let mut servers: HashMap<String, (&PolicyFile, &PolicySource)> = HashMap::new();
        for (file, source) in files.iter().filter(|(file, _)| file.tool.is_none()) {
            if let Some((_, first)) = servers.insert(file.server.clone(), (file, source)) {
                return Err(twice(first, source, &file.server, "*"));
            }
        }
        let mut set = Self { tools: HashMap::new(), servers: HashMap::new(), gates: Vec::new(), fallback: fallback(defaults), digest: Digest::ZERO };
        for (file, source) in &files {
            let server = servers.get(&file.server).copied();
            let policy = compile(file, source, server, defaults)?;
            let also = server.map(|(file, _)| file.also.as_slice()).unwrap_or_default();
            for name in std::iter::once(&file.server).chain(also) {
                let policy = Arc::new(Policy { server: name.clone(), ..policy.clone() });
                let gate = Gate::of(&policy).map_err(|reason| PolicyError::File { path: source.path.clone(), reason })?;
                let first = match &file.tool {
                    _ if gate.is_some() => {
                        let same = set.gates.iter().find(|other| other.policy.tool == policy.tool && other.policy.server == policy.server);
                        same.map(|other| other.policy.clone())
                    }
                    None => set.servers.insert(name.clone(), policy),
                    Some(tool) => set.tools.insert((name.clone(), tool.clone()), policy),
                };
                if let Some(first) = first {
                    let first = PolicySource { path: first.source.clone(), text: String::new() };
                    return Err(twice(&first, source, name, file.tool.as_deref().unwrap_or("*")));
                }
                set.gates.extend(gate);
            }
        }
        let all = set.all();
        let start = Fields::new("countersign policy set v1").field(set.fallback.digest.bytes());
        set.digest = all.iter().fold(start, |fields, p| fields.field(p.digest.bytes())).digest();
        Ok(set)
    }
}

fn twice(first: &PolicySource, second: &PolicySource, server: &str, tool: &str) -> PolicyError {
    PolicyError::Twice { first: first.path.clone(), second: second.path.clone(), server: server.into(), tool: tool.into() }
}

/// A TOML error with its line, and the nearest known key where one was mistyped.
pub fn explain_toml(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let mut message = text.trim_end().to_owned();
    if let Some(rest) = error.message().strip_prefix("unknown field `").or_else(|| error.message().strip_prefix("unknown variant `"))
        && let Some((typed, expected)) = rest.split_once('`')
    {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        if let Some(meant) = nearest(typed, known) {
            message.push_str(&format!("\nwas `{meant}` meant?"));
        }
    }
    message
}

fn parse(source: &PolicySource) -> Result<PolicyFile, PolicyError> {
    let fail = |reason: String| PolicyError::File { path: source.path.clone(), reason };
    let file: PolicyFile = toml::from_str(&source.text).map_err(|error| fail(explain_toml(&error)))?;
    if file.server.is_empty() || file.tool.as_deref() == Some("") {
        return Err(fail("`server` and `tool` must not be empty".into()));
    }
    if file.tool.is_none() && !(file.arguments.is_empty() && file.rule.is_empty() && file.case.is_empty() && file.effect.is_none()) {
        return Err(fail("a file without `tool` is for a whole server: `arguments`, `rule`, `case` and `effect` belong to a tool's file".into()));
    }
    if file.tool.is_some() && !file.also.is_empty() {
        return Err(fail("`also` belongs in `server.toml`, and holds for all files of that server".into()));
    }
    if file.tool.is_some() && !file.effects.is_empty() {
        return Err(fail("`effects` belongs in `server.toml`; a tool's file has `effect`".into()));
    }
    Ok(file)
}

fn fallback(defaults: &Defaults) -> Policy {
    let one = defaults.approvers.len() < 2;
    let fields = Fields::new("countersign default policy v1").field(format!("{:?} {}", defaults.mode, defaults.owner_may_approve).as_bytes());
    let digest = defaults.approvers.iter().fold(fields, |fields, name| fields.field(name.as_bytes())).digest();
    Policy {
        server: String::new(),
        tool: "*".into(),
        digest,
        source: "built-in default".into(),
        mode: mode(defaults.mode),
        profile: Profile::default(),
        effects: Vec::new(),
        results: None,
        rules: Vec::new(),
        ask: Ask {
            bands: Bands { two_from: if one { u8::MAX } else { 85 }, ..Bands::default() },
            approvers: defaults.approvers.clone(),
            owner_may_approve: defaults.owner_may_approve,
            decide_by: Duration::from_secs(900),
            execute_by: Duration::from_secs(600),
            escalate: Vec::new(),
            notify: Vec::new(),
            remind: None,
            assurance: Assurance::Session,
            cool_down: Duration::from_secs(600),
            again: None,
        },
        credential: None,
        show: Show::default(),
        cases: Vec::new(),
    }
}

fn mode(mode: DefaultMode) -> Mode {
    match mode {
        DefaultMode::Allow => Mode::Allow,
        DefaultMode::Approve => Mode::Ask,
        DefaultMode::Deny => Mode::Deny,
        DefaultMode::Score => Mode::Score,
    }
}

fn compile(
    file: &PolicyFile,
    source: &PolicySource,
    server: Option<(&PolicyFile, &PolicySource)>,
    defaults: &Defaults,
) -> Result<Policy, PolicyError> {
    let fail = |reason: String| PolicyError::File { path: source.path.clone(), reason };
    let shared = server.map(|(file, _)| file);
    let base = fallback(defaults);
    let fields = Fields::new("countersign policy v1")
        .field(base.digest.bytes())
        .field(source.text.as_bytes())
        .optional(server.map(|(_, source)| source.text.as_bytes()));
    // To read a resource, or to get a prompt, changes nothing unless the file says so.
    let reads = file.tool.as_deref().filter(|tool| Method::of_policy(tool).0 != Method::CallTool).map(|_| Effect::Read);
    let mut profile = Profile { effect: file.effect.or(reads), reversible: file.reversible, roles: Vec::new() };
    for (pattern, argument) in &file.arguments {
        let role = role(argument).map_err(|reason| fail(format!("argument `{pattern}`: {reason}")))?;
        profile.roles.push((pattern.clone(), role));
    }
    let effects = shared.map(|s| &s.effects).unwrap_or(&file.effects);
    let glob = |(text, effect): (&String, &_)| Ok((Glob::new(text).map_err(|e| fail(format!("effects: {e}")))?.compile_matcher(), *effect));
    let rules = file.rule.iter().map(Rule::compile).collect::<Result<_, RuleError>>().map_err(|e| fail(e.to_string()))?;
    // A tool that somebody wrote a file for is judged by its score; one that only shares a `server.toml` keeps the
    // set's default, unless that file says otherwise.
    let own = file.default.or(if file.tool.is_some() { Some(DefaultMode::Score) } else { None });
    let mode = mode(own.or(shared.and_then(|s| s.default)).unwrap_or(defaults.mode));
    Ok(Policy {
        server: file.server.clone(),
        tool: file.tool.clone().unwrap_or_else(|| "*".into()),
        digest: fields.digest(),
        source: source.path.clone(),
        mode,
        profile,
        effects: effects.iter().map(glob).collect::<Result<_, _>>()?,
        results: file.results.or(shared.and_then(|s| s.results)),
        rules,
        ask: ask(file, shared, &base.ask, defaults).map_err(fail)?,
        credential: credential::compile(file, shared, defaults).map_err(fail)?,
        show: show(file, shared).map_err(|e| fail(e.to_string()))?,
        cases: file.case.iter().enumerate().map(|(n, case)| self::case(n, case)).collect::<Result<_, _>>().map_err(fail)?,
    })
}

fn role(file: &ArgumentFile) -> Result<Role, String> {
    let given = [
        ("limit", file.limit.is_some()),
        ("currency", file.currency.is_some()),
        ("per", file.per.is_some()),
        ("known", file.known.is_some()),
        ("internal", file.internal.is_some()),
        ("within", file.within.is_some()),
        ("hosts", file.hosts.is_some()),
        ("safe", file.safe.is_some()),
        ("dialect", file.dialect.is_some()),
        ("dangerous", file.dangerous.is_some()),
    ];
    let fits: &[&str] = match file.role {
        RoleKind::Amount => &["limit", "currency", "per"],
        RoleKind::Count => &["limit"],
        RoleKind::Flag => &["safe"],
        RoleKind::Path => &["within"],
        RoleKind::Recipient => &["known", "internal"],
        RoleKind::Code | RoleKind::Selector | RoleKind::Shell | RoleKind::Text => &[],
        RoleKind::Environment => &["dangerous"],
        RoleKind::Sql => &["dialect"],
        RoleKind::Host | RoleKind::Url => &["hosts", "known"],
    };
    if let Some((name, _)) = given.iter().find(|(name, given)| *given && !fits.contains(name)) {
        return Err(format!("`{name}` does not belong to role `{}`", format!("{:?}", file.role).to_lowercase()));
    }
    Ok(match file.role {
        RoleKind::Amount => {
            let window = match file.per {
                None | Some(Per::Call) => None,
                Some(_) if file.limit.is_none() => return Err("`per` needs a `limit`".into()),
                Some(Per::Hour) => Some(Duration::from_secs(3600)),
                Some(Per::Day) => Some(Duration::from_secs(86_400)),
                Some(Per::Week) => Some(Duration::from_secs(7 * 86_400)),
            };
            Role::Amount(AmountRole { limit: file.limit, currency: file.currency.clone(), window })
        }
        RoleKind::Count => {
            let limit = file.limit.map(|limit| u64::try_from(limit).map_err(|_| "`limit` of a count is a whole number".to_owned()));
            Role::Count(CountRole { limit: limit.transpose()? })
        }
        RoleKind::Flag => Role::Flag(FlagRole { safe: file.safe.iter().flatten().map(json).collect::<Result<_, _>>()? }),
        RoleKind::Path => Role::Path(PathRole { within: file.within.clone().unwrap_or_default() }),
        RoleKind::Recipient => Role::Recipient(RecipientRole {
            known: match &file.known {
                None => Vec::new(),
                Some(KnownFile::Word(word)) if word == "approved-before" => Vec::new(),
                Some(KnownFile::Word(word)) => return Err(format!("`known` is `approved-before` or a list, not `{word}`")),
                Some(KnownFile::List(list)) => list.clone(),
            },
            internal: file.internal.clone().unwrap_or_default(),
        }),
        RoleKind::Code => Role::Code,
        RoleKind::Environment => Role::Environment(EnvironmentRole { dangerous: file.dangerous.clone().unwrap_or_default() }),
        RoleKind::Host => Role::Host(url(file)?),
        RoleKind::Selector => Role::Selector,
        RoleKind::Shell => Role::Shell,
        RoleKind::Sql => Role::Sql(file.dialect.unwrap_or_default()),
        RoleKind::Text => Role::Text,
        RoleKind::Url => Role::Url(url(file)?),
    })
}

fn url(file: &ArgumentFile) -> Result<UrlRole, String> {
    let learned = match &file.known {
        None => false,
        Some(KnownFile::Word(word)) if word == "approved-before" => true,
        Some(_) => return Err("`known` of a URL or host is `approved-before`; name ordinary hosts in `hosts`".into()),
    };
    Ok(UrlRole { hosts: file.hosts.clone().unwrap_or_default(), learned })
}

fn ask(file: &PolicyFile, shared: Option<&PolicyFile>, base: &Ask, defaults: &Defaults) -> Result<Ask, String> {
    let (own, shared) = (&file.approval, shared.map(|s| &s.approval));
    let approvers = own.approvers.as_ref().or(shared.and_then(|s| s.approvers.as_ref())).unwrap_or(&base.approvers).clone();
    if approvers.is_empty() {
        return Err("nobody may approve: name somebody in `[approval] approvers`, here or in `server.toml`".into());
    }
    let later = own.escalate.as_ref().or(shared.and_then(|s| s.escalate.as_ref())).cloned().unwrap_or_default();
    let notify = own.notify.as_ref().or(shared.and_then(|s| s.notify.as_ref())).cloned().unwrap_or_default();
    for name in approvers.iter().chain(later.iter().flat_map(|e| &e.to)).chain(&notify) {
        if !defaults.known_approvers.contains(name) && !defaults.judged_only {
            let meant = nearest(name, defaults.known_approvers.iter().map(String::as_str));
            let hint = meant.map(|m| format!("; was `{m}` meant?")).unwrap_or_default();
            return Err(format!("approver `{name}` is not in `countersign.toml`: add `[approver.{name}]`{hint}"));
        }
    }
    if let Some(empty) = later.iter().find(|e| e.to.is_empty()) {
        return Err(format!("`escalate` after {} names nobody", crate::domain::clock::spoken(empty.after.0)));
    }
    if later.windows(2).any(|pair| matches!(pair, [one, two] if one.after >= two.after)) {
        return Err("`escalate` must name the soonest first".into());
    }
    let mut names = approvers.clone();
    names.sort();
    names.dedup();
    if names.len() != approvers.len() {
        return Err("an approver is named twice in `[approval] approvers`".into());
    }
    let from = own.from.or(shared.and_then(|s| s.from)).unwrap_or(base.bands.from);
    let two = own.two_from.as_ref().or(shared.and_then(|s| s.two_from.as_ref()));
    let two_from = match two {
        Some(TwoFrom::Score(score)) => *score,
        Some(TwoFrom::Word(word)) if word == "never" => u8::MAX,
        Some(TwoFrom::Word(word)) => return Err(format!("`two-from` is a score or `never`, not `{word}`")),
        None => 85,
    };
    if from > 100 || (two_from > 100 && two_from != u8::MAX) {
        return Err("`from` and `two-from` are scores from 0 to 100".into());
    }
    // A group stands for several; nobody knows here how many.
    let several =
        approvers.len() + later.iter().map(|e| e.to.len()).sum::<usize>() >= 2 || approvers.iter().any(|name| defaults.groups.contains(name));
    if two_from <= 100 && !several && !defaults.judged_only {
        return Err(format!(
            "from score {two_from} two people must approve, but only `{}` is named: name a second, or write `two-from = \"never\"`",
            approvers.join("")
        ));
    }
    let length = |pick: fn(&super::file::ApprovalFile) -> Option<Duration>, base: Duration, most: u64, name: &str| {
        let length = pick(own).or(shared.and_then(pick)).unwrap_or(base);
        if length.is_zero() || length > Duration::from_secs(most) {
            return Err(format!("`{name}` must be longer than 0 s and at most {}", crate::domain::clock::spoken(Duration::from_secs(most))));
        }
        Ok(length)
    };
    let decide_by = length(|a| a.decide_by.map(|l| l.0), base.decide_by, 7 * 86_400, "decide-by")?;
    let within = |length: Duration, name: &str| match length < decide_by {
        true => Ok(length),
        false => Err(format!("`{name}` comes after `decide-by`: it would never happen")),
    };
    let remind = own.remind.or(shared.and_then(|s| s.remind)).map(|l| within(l.0, "remind")).transpose()?;
    Ok(Ask {
        bands: Bands { from, two_from },
        approvers,
        owner_may_approve: own.owner_may_approve.or(shared.and_then(|s| s.owner_may_approve)).unwrap_or(base.owner_may_approve),
        decide_by,
        execute_by: length(|a| a.execute_by.map(|l| l.0), base.execute_by, 86_400, "execute-by")?,
        escalate: later.into_iter().map(|e| Ok((within(e.after.0, "escalate")?, e.to))).collect::<Result<_, String>>()?,
        notify,
        remind,
        assurance: own.assurance.or(shared.and_then(|s| s.assurance)).unwrap_or(base.assurance),
        cool_down: length(|a| a.cool_down.map(|l| l.0), base.cool_down, 86_400, "cool-down")?,
        again: own.again.as_ref().or(shared.and_then(|s| s.again.as_ref())).map(|file| again(file, two_from)).transpose()?,
    })
}

fn again(file: &AgainFile, two_from: u8) -> Result<Again, String> {
    let (length, times) = (file.length.0, file.times);
    if length.is_zero() || length > Duration::from_secs(8 * 3600) {
        return Err("`again.for` must be longer than 0 s and at most 8 h: nothing is allowed for ever".into());
    }
    if times == 0 || times > 100 {
        return Err("`again.times` is a number from 1 to 100".into());
    }
    if file.max_score >= two_from || file.max_score > 84 {
        return Err("`again.max-score` must be below `two-from` and below 85: what two must approve, or is critical, is asked each time".into());
    }
    Ok(Again { length, times, max_score: file.max_score, vary: file.vary.clone() })
}

fn show(file: &PolicyFile, shared: Option<&PolicyFile>) -> Result<Show, TemplateError> {
    let (own, shared) = (&file.show, shared.map(|s| &s.show));
    let title = own.title.as_ref().or(shared.and_then(|s| s.title.as_ref()));
    Ok(Show {
        title: title.map(|text| text.parse()).transpose()?,
        mask: own.mask.clone().or_else(|| shared.and_then(|s| s.mask.clone())).unwrap_or_default(),
        sensitivity: own.sensitivity.clone().or_else(|| shared.and_then(|s| s.sensitivity.clone())),
        environment: own.environment.clone().or_else(|| shared.and_then(|s| s.environment.clone())),
        ask_reason: own.ask_reason.or_else(|| shared.and_then(|s| s.ask_reason)).unwrap_or(false),
    })
}

fn case(number: usize, file: &CaseFile) -> Result<Case, String> {
    Ok(Case {
        name: file.name.clone().unwrap_or_else(|| format!("case {}", number + 1)),
        arguments: json(&toml::Value::Table(file.arguments.clone()))?,
        known: file.known.clone(),
        expect: file.expect,
        reasons: file.reasons.clone(),
    })
}

/// A TOML value as JSON, through the strict reader, so that a case is judged as a call would be.
pub(super) fn json(value: &toml::Value) -> Result<Value, String> {
    let text = serde_json::to_string(value).map_err(|e| e.to_string())?;
    read(text.as_bytes(), Limits::default()).map_err(|e| e.to_string())
}

/// How many files each server has; for messages.
pub fn by_server(set: &PolicySet) -> BTreeMap<String, usize> {
    set.all().iter().fold(BTreeMap::new(), |mut counts, policy| {
        *counts.entry(policy.server.clone()).or_default() += 1;
        counts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            mode: DefaultMode::Approve,
            approvers: vec!["anna".into()],
            owner_may_approve: false,
            known_approvers: vec!["anna".into(), "bert".into()],
            known_issuers: vec!["built-in".into()],
            groups: vec![],
            judged_only: false,
        }
    }

    fn compile_all(texts: &[&str]) -> Result<PolicySet, PolicyError> {
        let source = |(n, text): (usize, &&str)| PolicySource { path: format!("f{n}.toml"), text: (*text).into() };
        PolicySet::compile(&texts.iter().enumerate().map(source).collect::<Vec<_>>(), &defaults())
    }

    const PAY: &str = "server = \"s\"\ntool = \"pay\"\neffect = \"pay\"\n[approval]\napprovers = [\"anna\", \"bert\"]\n";

    #[test]
    fn a_mistyped_key_is_named_with_line_and_meaning() {
        let error = compile_all(&["server = \"s\"\ntool = \"t\"\nefect = \"pay\"\n"]).unwrap_err().to_string();
        for part in ["f0.toml", "line 3", "efect", "was `effect` meant?"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn wrong_files_are_refused_with_a_reason() {
        for (text, reason) in [
            ("server = \"s\"\ntool = \"t\"\n[approval]\napprovers = []\n", "nobody may approve"),
            ("server = \"s\"\ntool = \"t\"\n[approval]\napprovers = [\"ana\"]\n", "was `anna` meant?"),
            ("server = \"s\"\ntool = \"t\"\n", "only `anna` is named"),
            ("server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"sometimes\"\n", "a score or `never`"),
            ("server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"never\"\ndecide-by = \"9d\"\n", "decide-by"),
            (
                "server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"never\"\n[credential]\nissuer = \"bilt-in\"\nscope = \"x\"\n",
                "was `built-in` meant?",
            ),
            (
                "server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"never\"\n[arguments]\n\"/a\" = { role = \"path\", limit = 3 }\n",
                "`limit` does not belong",
            ),
            ("server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"never\"\n[arguments]\n\"a\" = { role = \"path\" }\n", "not a JSON pointer"),
            ("server = \"s\"\n[[case]]\narguments = {}\nexpect = \"allow\"\n", "belong to a tool's file"),
            (
                "server = \"s\"\ntool = \"t\"\n[approval]\ntwo-from = \"never\"\n[[rule]]\nwhen = \"args.\"\npoints = 1\nbecause = \"x\"\n",
                "does not compile",
            ),
        ] {
            let error = compile_all(&[text]).unwrap_err().to_string();
            assert!(error.contains(reason), "`{reason}` in:\n{error}");
        }
        let twice = compile_all(&[PAY, PAY]).unwrap_err().to_string();
        assert!(twice.contains("f0.toml and f1.toml"), "{twice}");
    }

    #[test]
    fn a_tool_file_wins_over_its_server_key_by_key() {
        let shared = "server = \"s\"\n[effects]\n\"get_*\" = \"read\"\n[approval]\nfrom = 30\napprovers = [\"anna\", \"bert\"]\n[credential]\nissuer = \"built-in\"\n";
        let tool = "server = \"s\"\ntool = \"t\"\n[approval]\nfrom = 50\n[credential]\nscope = \"x:{/id}\"\n";
        let set = compile_all(&[shared, tool]).unwrap();
        let own = set.for_tool("s", "t");
        assert_eq!((own.ask.bands.from, own.ask.approvers.len()), (50, 2));
        assert_eq!(own.credential.as_ref().unwrap().issuer, "built-in");
        let other = set.for_tool("s", "get_x");
        assert_eq!((other.ask.bands.from, other.mode, other.credential.is_none()), (30, Mode::Ask, true));
        assert_eq!(set.for_tool("z", "t").mode, Mode::Ask);
        let changed = compile_all(&[&shared.replace("30", "31"), tool]).unwrap();
        assert_ne!(changed.for_tool("s", "t").digest, own.digest);
    }
}
