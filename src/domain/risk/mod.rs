//! How dangerous one call is, and why: arguments have roles, roles yield facts, facts yield findings, findings make
//! a score.
//!
//! For: `policy`, which says what each argument is and adds the operator's own rules. Pure: what has to be looked up
//! (who was paid before) is asked for with [`lookups`] and handed in as [`History`]. No argument can ever lower a
//! score: every finding only adds.

mod amount;
mod code;
mod count;
mod danger;
mod effect;
mod environment;
mod finding;
mod flag;
mod integrity;
mod path;
mod personal;
mod recipient;
mod role;
pub mod score;
mod secret;
mod selector;
mod shell;
mod sql;
mod trail;
mod unicode;
mod url;

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use serde::{Deserialize, Serialize};

pub use effect::{Effect, guess_effect};
pub use finding::{Evidence, Finding, Group};
pub(crate) use role::decimal as role_decimal;
pub use role::{AmountRole, CountRole, EnvironmentRole, FlagRole, PathRole, RecipientRole, Role, RoleKind, UrlRole};
pub use score::{Assessment, Band, Bands};
pub use secret::carries_secret;
pub use sql::Dialect;
pub use trail::{Signs, Trail, Trust};

use super::call::ToolCall;
use super::json::{Object, Pattern, Pointer, Value};
use super::tool::{Known, ToolDefinition};

/// Which way of judging made a score: it changes whenever the same call could get another.
pub const SCORER: &str = "2";

/// What is known of a tool beforehand: its effect, and what its arguments are.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The effect that the policy gives; guessed from name, schema and annotations if none.
    pub effect: Option<Effect>,
    /// What the policy says of reversibility; nothing if it is silent.
    pub reversible: Option<bool>,
    /// The roles that the policy gives; more are guessed for arguments it does not mention.
    pub roles: Vec<(Pattern, Role)>,
}

/// A target that history may know: who was paid or written to before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The role it appeared in, such as `recipient`.
    pub kind: String,
    /// Its canonical text.
    pub value: String,
}

/// What the store said about the targets of this call, for this caller and server.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The targets among those asked for that were seen in an approved or harmlessly completed call.
    pub seen: BTreeSet<Target>,
    /// What the caller's trail says about this call.
    pub signs: Signs,
    /// What this caller moved before with this tool, by place, within the time that its limit is for.
    pub spent: BTreeMap<String, Decimal>,
}

/// What was found in one call.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The effect in force.
    pub effect: Effect,
    /// The findings, in no particular order.
    pub findings: Vec<Finding>,
    /// Facts for the operator's own conditions, by role.
    pub facts: Object,
    /// The targets of this call, to be learned once it was approved or completed.
    pub targets: Vec<Target>,
}

/// The targets that [`observe`] will want to know about. Most calls have none, and then no store is asked.
pub fn lookups(call: &ToolCall, profile: &Profile) -> Vec<Target> {
    let mut targets = Vec::new();
    for (pattern, role) in &profile.roles {
        let of: fn(&Value) -> Vec<Target> = match role {
            Role::Recipient(_) => recipient::targets,
            Role::Url(role) | Role::Host(role) if role.learned => url::targets,
            _ => continue,
        };
        targets.extend(pattern.find(&call.arguments).iter().flat_map(|(_, value)| of(value)));
    }
    targets.sort();
    targets.dedup();
    targets
}

/// An amount with a limit over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Spending {
    /// The place of its argument, as the policy writes it.
    pub place: String,
    /// The time that the limit is for.
    pub window: std::time::Duration,
    /// The limit.
    pub limit: Decimal,
    /// What this call would add.
    pub amount: Decimal,
}

/// The amounts of this call that have a limit over time. Most calls have none, and then no store is asked.
pub fn spendings(call: &ToolCall, profile: &Profile) -> Vec<Spending> {
    let windowed = profile.roles.iter().filter_map(|(pattern, role)| match role {
        Role::Amount(AmountRole { limit: Some(limit), window: Some(window), .. }) => Some((pattern, *limit, *window)),
        _ => None,
    });
    windowed
        .map(|(pattern, limit, window)| {
            let found = pattern.find(&call.arguments);
            let amount =
                found.iter().filter_map(|(_, value)| amount::size(value)).fold(Decimal::ZERO, |sum, x| sum.checked_add(x).unwrap_or(Decimal::MAX));
            Spending { place: pattern.to_string(), window, limit, amount }
        })
        .collect()
}

/// Everything that raises the risk of `call`.
pub fn observe(call: &ToolCall, profile: &Profile, known: &Known<'_>, history: &History) -> Observation {
    let mut seen = Sight { findings: Vec::new(), facts: role::empty_facts(), history };
    let definition = match known {
        Known::Offered(definition, _) | Known::Annotated(definition) => Some(*definition),
        _ => None,
    };
    let guessed = guesses(call, profile, definition);
    let given = profile.roles.iter().filter(|(pattern, role)| role.interprets() && !pattern.find(&call.arguments).is_empty());
    // Where the policy says the effect, only a role that it gives says that something is judged by itself.
    let interprets =
        given.count() > 0 || profile.effect.is_none() && guessed.iter().any(|(pattern, role)| role.interprets() && declared(pattern, known));
    let effect = effect::observe(call, profile, definition, interprets, &mut seen);
    if profile.roles.iter().any(|(_, role)| role.interprets()) && !interprets {
        seen.find(Finding::uninspectable("effect", Group::Content, "what the tool is to run is not where the policy says"));
    }
    integrity::observe(call, known, &mut seen);
    for (pattern, role) in profile.roles.iter().chain(&guessed) {
        for (pointer, value) in pattern.find(&call.arguments) {
            role.observe(&pointer, value, call, &mut seen);
        }
    }
    for Spending { place, limit, amount, .. } in spendings(call, profile) {
        let before = history.spent.get(&place).copied().unwrap_or_default();
        amount::over_window(limit, before, amount, &place, &mut seen);
    }
    strings(&Pointer::root(), &call.arguments, &mut seen);
    let reaches_out = profile
        .roles
        .iter()
        .chain(&guessed)
        .any(|(pattern, role)| matches!(role, Role::Url(_) | Role::Host(_)) && !pattern.find(&call.arguments).is_empty());
    trail::observe(&history.signs, effect, reaches_out, &mut seen);
    let Sight { mut findings, mut facts, .. } = seen;
    // Where an argument carries a secret, no finding about it quotes it.
    let secrets: Vec<String> = findings.iter().filter(|f| f.signal == "secret").filter_map(|f| f.pointer.clone()).collect();
    // A list or object is quoted with what stands in it.
    let quotes = |f: &Finding| f.pointer.as_ref().is_some_and(|here| secrets.iter().any(|secret| secret.starts_with(here.as_str())));
    for finding in findings.iter_mut().filter(|f| f.evidence.is_some() && quotes(f)) {
        finding.evidence = Some("(withheld: the argument carries a secret)".into());
    }
    facts.insert("effect", Value::from(effect.name()));
    Observation { effect, findings, facts, targets: lookups(call, profile) }
}

/// Roles for top-level arguments that the policy does not mention, told from their names. A guess may only raise.
fn guesses(call: &ToolCall, profile: &Profile, definition: Option<&ToolDefinition>) -> Vec<(Pattern, Role)> {
    let Some(arguments) = call.arguments.as_object() else { return Vec::new() };
    let named = |name: &str| profile.roles.iter().any(|(p, _)| p.to_string().split('/').nth(1).is_some_and(|step| step == name || step == "*"));
    // Only where nobody wrote a policy: an operator who wrote one has said which arguments matter.
    if !profile.roles.is_empty() || (profile.effect.is_some() && definition.is_none()) {
        return Vec::new();
    }
    let guess = |name: &str, value: &Value| {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        Some((format!("/{escaped}").parse().ok()?, Role::guess(&call.tool, name, value)?))
    };
    arguments.iter().filter(|(name, _)| !named(name)).filter_map(|(name, value)| guess(name, value)).collect()
}

/// Whether the tool declares the argument of a guessed role: an argument that it does not know says nothing of what it
/// runs, and must not stand in for it.
fn declared(pattern: &Pattern, known: &Known<'_>) -> bool {
    let name = pattern.to_string();
    match known {
        Known::Offered(definition, _) => definition.properties().any(|(property, _)| name.strip_prefix('/') == Some(property)),
        Known::NotAsked | Known::Annotated(_) => true,
        Known::NotOffered | Known::Unread => false,
    }
}

/// Looks into every string, wherever it stands.
fn strings(pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    match value {
        Value::String(text) => {
            secret::look(pointer, text, seen);
            personal::look(pointer, text, seen);
            unicode::look(pointer, text, seen);
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                strings(&pointer.join(&n.to_string()), item, seen);
            }
        }
        Value::Object(object) => {
            for (name, member) in object.iter() {
                strings(&pointer.join(name), member, seen);
            }
        }
        _ => {}
    }
}

/// What a role writes down while it looks.
pub(crate) struct Sight<'h> {
    findings: Vec<Finding>,
    facts: Object,
    history: &'h History,
}

impl Sight<'_> {
    /// Writes a finding down. Of one signal in one group only the heaviest sixteen are kept: they decide the score, and
    /// a call with a million odd arguments must not cost a million findings.
    fn find(&mut self, finding: Finding) {
        let weight = |f: &Finding| (f.floor.as_ref().map_or(0, |floor| floor.score), f.weight);
        let alike = |f: &&mut Finding| f.signal == finding.signal && f.group == finding.group;
        if self.findings.iter_mut().filter(alike).count() < 16 {
            self.findings.push(finding);
        } else if let Some(lightest) = self.findings.iter_mut().filter(alike).min_by_key(|f| weight(f))
            && weight(lightest) < weight(&finding)
        {
            *lightest = finding;
        }
    }

    /// Sets a fact, keeping `true` where any argument of the same role made it true.
    fn fact(&mut self, role: &str, name: &str, value: Value) {
        let mut facts = match self.facts.remove(role) {
            Some(Value::Object(facts)) => facts,
            _ => Object::default(),
        };
        match (facts.get(name), &value) {
            (Some(Value::Bool(true)), Value::Bool(false)) => {}
            _ => facts.insert(name, value),
        }
        self.facts.insert(role, Value::Object(facts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::{Limits, read};
    use proptest::prelude::*;

    fn call(arguments: &str) -> ToolCall {
        let params = format!(r#"{{"name":"send_payment","arguments":{arguments}}}"#);
        ToolCall::parse(params.as_bytes(), Limits::default()).unwrap()
    }

    fn score(call: &ToolCall, profile: &Profile) -> u8 {
        let seen = observe(call, profile, &Known::Unread, &History::default());
        score::assess(seen.findings, &Bands::default(), None).score
    }

    proptest! {
        #[test]
        fn more_text_or_more_keys_never_lower_a_score(extra in "[a-z ]{0,40}", key in "[b-z]{1,8}") {
            prop_assume!(key != "to");
            for profile in [Profile::default(), Profile { effect: Some(Effect::Read), ..Profile::default() }] {
                let base = call(r#"{"amount":5,"to":"x@y.z"}"#);
                let longer = call(&format!(r#"{{"amount":5,"to":"x@y.z","{key}":"{extra}"}}"#));
                prop_assert!(score(&longer, &profile) >= score(&base, &profile));
            }
        }
    }

    #[test]
    fn what_is_run_does_not_hide_what_is_sent_and_no_finding_quotes_a_secret() {
        let judged = |tool: &str, arguments: &str| {
            let mut asked = call(arguments);
            asked.tool = tool.into();
            observe(&asked, &Profile::default(), &Known::NotAsked, &History::default())
        };
        let score = |tool, arguments| score::assess(judged(tool, arguments).findings, &Bands::default(), None).score;
        assert!(score("run_query", r#"{"sql":"SELECT 1"}"#) < 40);
        assert!(score("send_message", r#"{"sql":"SELECT 1"}"#) >= 60);
        assert!(score("pay_bill", r#"{"command":"ls"}"#) >= 60);
        assert!(score("edit_file", r#"{"command":"create","path":"a"}"#) >= 60);
        let seen = judged("run_command", r#"{"command":"rm -rf x AKIAQWERTZUIOPASDFGH"}"#);
        assert!(
            seen.findings.iter().any(|f| f.signal == "shell")
                && !seen.findings.iter().any(|f| f.evidence.as_deref().is_some_and(|e| e.contains("AKIA")))
        );
    }

    #[test]
    fn guessed_roles_are_told_from_names() {
        let plain = read(br#"{"path":"/etc/shadow"}"#, Limits::default()).unwrap();
        let mut asked = call("{}");
        asked.tool = "read_file".into();
        asked.arguments = plain.into();
        let seen = observe(&asked, &Profile::default(), &Known::Unread, &History::default());
        assert!(seen.findings.iter().any(|f| f.signal == "path" && f.pointer.as_deref() == Some("/path")));
    }
}
