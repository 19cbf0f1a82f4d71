//! What the owner of a tool wants: policy files, compiled once into a set that is asked per call.
//!
//! For: the gateway (`PolicySet::for_tool`) and `countersign policy`. Pure: whoever reads the files hands their texts
//! in. A set compiles as a whole or not at all; a wrong file is an error that says which, where and what was meant.

mod case;
mod compile;
pub mod credential;
mod file;
mod gate;
mod rule;
mod show;
mod slot;
mod template;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use serde::{Deserialize, Serialize};

pub use case::{Case, CaseOutcome, Verdict};
pub use compile::{Defaults, PolicyError, PolicySource, by_server, explain_toml};
pub use credential::{CredentialTerms, Delivery, Places, Scope};
pub use file::{ArgumentFile, DefaultMode, PolicyFile};
pub use rule::{Rule, RuleDecision};
pub use show::{REASON, Show};
pub use slot::Slot;
pub use template::{Template, TemplateError};

use super::call::{Binding, CallDigest, Caller, ToolCall};
use super::digest::{Digest, Fields};
use super::json::{Object, Pattern, Pointer, Value};
use super::risk::{self, Assessment, Bands, Effect, Observation, Profile};
use super::tool::{Known, ToolDefinition};

/// Everything the operator says about one tool.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The server's name in the configuration.
    pub server: String,
    /// The tool's name, or `*` for all tools of the server without a file of their own.
    pub tool: String,
    /// Over the texts of all files that went into it and the set's defaults.
    pub digest: Digest,
    /// The file it came from, or `built-in default`.
    pub source: String,
    /// What happens before the score is looked at.
    pub mode: Mode,
    /// Effect and argument roles.
    pub profile: Profile,
    /// Effects by tool-name glob, from `server.toml`; used where the profile has none.
    effects: Vec<(GlobMatcher, Effect)>,
    /// What its results are; mixed where no file says.
    results: Option<risk::Trust>,
    /// The operator's own conditions.
    pub rules: Vec<Rule>,
    /// Who is asked, and from which score.
    pub ask: Ask,
    /// The credential that a call gets, if any.
    pub credential: Option<CredentialTerms>,
    /// What approvers are shown.
    pub show: Show,
    /// Calls with the decision that they must get.
    pub cases: Vec<Case>,
}

/// What happens before the score is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Let the call through, whatever its score; rules may still deny or ask.
    Allow,
    /// Ask a person, whatever the score.
    Ask,
    /// Refuse.
    Deny,
    /// The score decides.
    Score,
}

/// Who is asked, from which score, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where the bands begin.
    pub bands: Bands,
    /// Names of approvers, never empty.
    pub approvers: Vec<String>,
    /// Whether the approver who answers for the caller may approve its calls.
    pub owner_may_approve: bool,
    /// How long approvers have to decide.
    pub decide_by: Duration,
    /// How long the approval stays usable after it was given.
    pub execute_by: Duration,
    /// Who is asked as well after a while, soonest first.
    pub escalate: Vec<(Duration, Vec<String>)>,
    /// Who is told without being asked.
    pub notify: Vec<String>,
    /// After how long approvers are reminded.
    pub remind: Option<Duration>,
    /// How approvers prove who they are, at least.
    pub assurance: Assurance,
    /// How long a denied call is refused without asking.
    pub cool_down: Duration,
    /// How far an approver may allow the same call again.
    pub again: Option<Again>,
}

/// How far an approver may allow the same call again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// For how long at most.
    pub length: Duration,
    /// How often at most.
    pub times: u32,
    /// The highest score of a call that is let through.
    pub max_score: u8,
    /// Arguments that may differ.
    pub vary: Vec<Pattern>,
}

/// How an approver proves who they are, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// By a session: of Slack, of the inbox, or of the operating system.
    #[default]
    Session,
    /// By a one-time code as well (RFC 6238).
    Totp,
}

/// All policies in force.
#[derive(Clone, Debug)]
pub struct PolicySet {
    tools: HashMap<(String, String), Arc<Policy>>,
    servers: HashMap<String, Arc<Policy>>,
    /// Resources and prompts that are judged like tools.
    gates: Vec<gate::Gate>,
    fallback: Policy,
    /// Over all of them.
    pub digest: Digest,
}

impl PolicySet {
    /// The policy of `tool` on `server`: its own, else its server's, else the default. There is always one.
    pub fn for_tool(&self, server: &str, tool: &str) -> Arc<Policy> {
        // The key is owned twice only on the miss below; a lookup with borrowed parts needs no allocation in practice
        // because tool names are short.
        match self.tools.get(&(server.to_owned(), tool.to_owned())).or_else(|| self.servers.get(server)) {
            Some(policy) => policy.clone(),
            None => Arc::new(Policy { server: server.to_owned(), ..self.fallback.clone() }),
        }
    }

    /// The policy of `call` on `server`. There is always one.
    pub fn for_call(&self, server: &str, call: &ToolCall) -> Arc<Policy> {
        // A gate that is there no more, or differs by reading: as for a tool that nobody wrote a policy for.
        self.gate(server, call).ok().flatten().unwrap_or_else(|| self.for_tool(server, &call.tool))
    }

    /// Every policy that came from a file, by server and tool.
    pub fn all(&self) -> Vec<Arc<Policy>> {
        let gates = self.gates.iter().map(|gate| &gate.policy);
        let mut all: Vec<_> = self.tools.values().chain(self.servers.values()).chain(gates).cloned().collect();
        all.sort_by(|a, b| (&a.server, &a.tool).cmp(&(&b.server, &b.tool)));
        all
    }

    /// The set's default policy.
    pub fn fallback(&self) -> &Policy {
        &self.fallback
    }
}

/// One call, judged.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was found.
    pub observation: Observation,
    /// The score.
    pub assessment: Assessment,
    /// What the operator's rules demand beside the score, with their reasons.
    pub demands: Vec<(RuleDecision, String)>,
}

impl Policy {
    /// Everything found in `call`, the operator's rules included, and the score it makes.
    pub fn judge(&self, call: &ToolCall, caller: &Caller, known: &Known<'_>, history: &risk::History) -> Judged {
        let profile = self.profile_for(&call.tool);
        let mut observation = risk::observe(call, &profile, known, history);
        let verdict = rule::evaluate(&self.rules, call, caller, &observation.facts);
        observation.findings.extend(verdict.findings);
        let findings = self.masked(observation.findings.clone());
        let assessment = risk::score::assess(findings, &self.ask.bands, verdict.ceiling.as_ref());
        Judged { observation, assessment, demands: verdict.demands }
    }

    /// The effect that it gives a tool, if it gives one.
    pub fn effect_of(&self, tool: &str) -> Option<Effect> {
        self.profile_for(tool).effect
    }

    /// Effects by tool-name glob, as `server.toml` gives them.
    pub fn effects(&self) -> impl Iterator<Item = (&str, Effect)> {
        self.effects.iter().map(|(glob, effect)| (glob.glob().glob(), *effect))
    }

    /// What its results are.
    pub fn trust(&self) -> risk::Trust {
        self.results.unwrap_or(risk::Trust::Mixed)
    }

    /// The amounts of `call` that have a limit over time.
    pub fn spendings(&self, call: &ToolCall) -> Vec<risk::Spending> {
        risk::spendings(call, &self.profile)
    }

    /// The targets whose history matters for `call`.
    pub fn lookups(&self, call: &ToolCall) -> Vec<risk::Target> {
        risk::lookups(call, &self.profile)
    }

    /// Who must approve, as a digest: names, number and whether the owner may.
    pub fn approvers_digest(&self) -> Digest {
        let Ask { bands, approvers, owner_may_approve, escalate, .. } = &self.ask;
        let start = Fields::new("countersign approvers v1").field(&[bands.from, bands.two_from, u8::from(*owner_may_approve)]);
        let later = escalate.iter().flat_map(|(_, names)| names);
        approvers.iter().chain(later).fold(start, |fields, name| fields.field(name.as_bytes())).digest()
    }

    /// What calls have in common that may be allowed again together: all of `key`'s parts but the arguments that may vary.
    pub fn again_key(&self, call: &ToolCall, caller: &Caller, binding: &Binding) -> Option<CallDigest> {
        let again = self.ask.again.as_ref()?;
        let mut common = call.clone();
        for (place, _) in again.vary.iter().flat_map(|pattern| pattern.find(&call.arguments)) {
            common.arguments = without(&common.arguments, &Pointer::root(), &place).into();
        }
        Some(CallDigest::of(&common, caller, binding, Some("countersign again v1")))
    }

    fn profile_for(&self, tool: &str) -> std::borrow::Cow<'_, Profile> {
        let effect = match self.profile.effect {
            Some(_) => None,
            None => self.effects.iter().find(|(glob, _)| glob.is_match(tool)).map(|(_, effect)| *effect),
        };
        match effect {
            Some(effect) => std::borrow::Cow::Owned(Profile { effect: Some(effect), ..self.profile.clone() }),
            None => std::borrow::Cow::Borrowed(&self.profile),
        }
    }

    /// The findings with the evidence of masked arguments taken out.
    fn masked(&self, mut findings: Vec<risk::Finding>) -> Vec<risk::Finding> {
        for finding in &mut findings {
            if finding.pointer.as_deref().is_some_and(|p| self.show.is_masked(p)) {
                finding.evidence = finding.evidence.take().map(|_| "(masked)".to_owned());
            }
        }
        findings
    }

    /// How the arguments that `definition` declares differ from those that the policy names; for `policy check`.
    pub fn undeclared(&self, definition: &ToolDefinition) -> Vec<String> {
        let declared: Vec<&str> = definition.properties().map(|(name, _)| name).collect();
        let first = |p: &Pattern| p.to_string().split('/').nth(1).unwrap_or_default().to_owned();
        let named = self.profile.roles.iter().map(|(p, _)| first(p));
        named.filter(|name| name != "*" && !declared.contains(&name.as_str())).collect()
    }
}

/// `value` with what stands at `place` blanked.
fn without(value: &Value, here: &Pointer, place: &Pointer) -> Value {
    if here == place {
        return Value::Null;
    }
    match value {
        Value::Object(object) => {
            let mut out = Object::default();
            for (name, member) in object.iter() {
                out.insert(name, without(member, &here.join(name), place));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().enumerate().map(|(n, item)| without(item, &here.join(&n.to_string()), place)).collect()),
        other => other.clone(),
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "approve",
            Self::Deny => "deny",
            Self::Score => "score",
        })
    }
}
