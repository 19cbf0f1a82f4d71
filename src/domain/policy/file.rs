//! The text of a policy file: `tool-policies/<server>/<tool>.toml` and `server.toml`, exactly as written.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Assurance;
use crate::domain::clock::Length;
use crate::domain::json::{Pattern, Pointer};
use crate::domain::risk::{Dialect, Effect, RoleKind, Trust};

/// One policy file. `server.toml` uses the same shape without `tool`, `arguments`, `rule` and `case`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// The server's name in `countersign.toml`.
    pub server: String,
    /// Other names in `countersign.toml` that stand for the same server; only in `server.toml`.
    #[serde(default)]
    pub also: Vec<String>,
    /// The tool's name, exactly as the server offers it; or `resource:<glob>` over URIs, or `prompt:<glob>` over names:
    /// then `resources/read` or `prompts/get` of those is judged like a tool call.
    pub tool: Option<String>,
    /// What happens before the score is looked at: `score` (default), `approve`, `deny`, `allow`.
    pub default: Option<DefaultMode>,
    /// What the tool does to the world.
    pub effect: Option<Effect>,
    /// Whether what it does can be undone.
    pub reversible: Option<bool>,
    /// What its results are: `trusted`, `untrusted` (outsiders write them), `private` (not for outsiders), `mixed` (both,
    /// the default). What is copied out of results that outsiders write raises the score of later calls.
    pub results: Option<Trust>,
    /// Effects by tool-name glob; only in `server.toml`.
    #[serde(default)]
    pub effects: BTreeMap<String, Effect>,
    /// What each argument is, by JSON Pointer (`*` for any step).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ArgumentFile>")]
    pub arguments: BTreeMap<Pattern, ArgumentFile>,
    /// The operator's own conditions.
    #[serde(default)]
    pub rule: Vec<RuleFile>,
    /// Who is asked.
    #[serde(default)]
    pub approval: ApprovalFile,
    /// The credential that a call gets.
    pub credential: Option<CredentialFile>,
    /// What approvers are shown.
    #[serde(default)]
    pub show: ShowFile,
    /// Calls with the decision that they must get.
    #[serde(default)]
    pub case: Vec<CaseFile>,
}

/// What happens to a call before its score is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultMode {
    /// Let it through.
    Allow,
    /// Ask a person.
    Approve,
    /// Refuse it.
    Deny,
    /// The score decides.
    Score,
}

/// What one argument is. Which keys fit depends on `role`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArgumentFile {
    /// What it is.
    pub role: RoleKind,
    /// amount, count: the most that is ordinary.
    #[serde(default, deserialize_with = "crate::domain::risk::role_decimal")]
    #[schemars(with = "Option<f64>")]
    pub limit: Option<Decimal>,
    /// amount: where the currency stands.
    #[schemars(with = "Option<String>")]
    pub currency: Option<Pointer>,
    /// amount: what the limit is for: each `call` (the default), or all calls of one caller within an `hour`, a `day` or a
    /// `week`.
    pub per: Option<Per>,
    /// recipient: `approved-before` (the default), or a list of recipients that are always known. url, host:
    /// `approved-before`: a host is dangerous the first time.
    pub known: Option<KnownFile>,
    /// recipient: domains of our own; whoever has an address elsewhere is outside.
    pub internal: Option<Vec<String>>,
    /// path: directories that it should stay in.
    pub within: Option<Vec<String>>,
    /// url: hosts that are ordinary.
    pub hosts: Option<Vec<String>>,
    /// flag: values that do not raise the score.
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    pub safe: Option<Vec<toml::Value>>,
    /// sql: whose SQL it is; read in several ways if not given.
    pub dialect: Option<Dialect>,
    /// environment: values that are dangerous.
    pub dangerous: Option<Vec<String>>,
}

/// What an amount's limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each call by itself.
    Call,
    /// All calls of one caller within the last hour.
    Hour,
    /// All calls of one caller within the last 24 hours.
    Day,
    /// All calls of one caller within the last seven days.
    Week,
}

/// Which recipients are known.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KnownFile {
    /// Only `approved-before`.
    Word(String),
    /// These, and those approved before.
    List(Vec<String>),
}

/// A condition in CEL and what follows from it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleFile {
    /// The condition, in CEL over `args`, `facts`, `tool`, `server` and `caller`.
    pub when: String,
    /// Points that it adds, 0 to 100.
    pub points: Option<u8>,
    /// Why, for the approver.
    pub because: String,
    /// `approve` or `deny`, whatever the score.
    pub decision: Option<RuleDecisionFile>,
    /// The highest score while it holds; floors stand unless named in `over-floors`.
    pub ceiling: Option<u8>,
    /// Floors that give way to `ceiling`.
    #[serde(default)]
    pub over_floors: Vec<String>,
}

/// What a rule demands whatever the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleDecisionFile {
    /// Ask a person.
    Approve,
    /// Refuse.
    Deny,
}

/// Who is asked, and how.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApprovalFile {
    /// Score at which a person is asked; 60 by default.
    pub from: Option<u8>,
    /// Score at which two are asked, or `never`; 85 by default.
    pub two_from: Option<TwoFrom>,
    /// Names of approvers in `countersign.toml`.
    pub approvers: Option<Vec<String>>,
    /// Whether the caller's owner may approve; false by default.
    pub owner_may_approve: Option<bool>,
    /// How long approvers have; 15 minutes by default, a week at most.
    #[schemars(with = "Option<String>")]
    pub decide_by: Option<Length>,
    /// How long the approval stays usable; 10 minutes by default, a day at most.
    #[schemars(with = "Option<String>")]
    pub execute_by: Option<Length>,
    /// Who is asked as well when nobody decided for a while.
    pub escalate: Option<Vec<EscalateFile>>,
    /// Who is told without being asked.
    pub notify: Option<Vec<String>>,
    /// After how long approvers are reminded.
    #[schemars(with = "Option<String>")]
    pub remind: Option<Length>,
    /// `session` (default) or `totp`: how approvers prove who they are, at least.
    pub assurance: Option<Assurance>,
    /// How long a denied call is refused without asking; 10 minutes by default, a day at most.
    #[schemars(with = "Option<String>")]
    pub cool_down: Option<Length>,
    /// How far an approver may allow the same call again; not at all by default.
    pub again: Option<AgainFile>,
}

/// Who is asked as well when nobody decided for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EscalateFile {
    /// After how long.
    #[schemars(with = "String")]
    pub after: Length,
    /// Names of approvers.
    pub to: Vec<String>,
}

/// How far an approver may allow the same call again.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AgainFile {
    /// For how long at most; 8 hours at most.
    #[serde(rename = "for")]
    #[schemars(with = "String")]
    pub length: Length,
    /// How often at most; 100 at most.
    pub times: u32,
    /// The highest score of a call that is let through, below `two-from`.
    pub max_score: u8,
    /// Arguments that may differ; all others must be the same.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub vary: Vec<Pattern>,
}

/// Score at which two people are asked, or never.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TwoFrom {
    /// From this score.
    Score(u8),
    /// Only `never`.
    Word(String),
}

/// The credential that a call gets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialFile {
    /// Its issuer's name in `countersign.toml`.
    pub issuer: Option<String>,
    /// Its scope in a line; `{/pointer}` is filled with that argument.
    pub scope: Option<String>,
    /// What the issuer is asked for; which keys there are depends on its kind. `{/pointer}` in any text is filled with that
    /// argument, which `where` must name.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub parameters: Option<toml::Table>,
    /// Which values an argument may have that becomes part of the scope or the parameters, by its pointer.
    #[serde(rename = "where")]
    pub permitted: Option<BTreeMap<String, WhereFile>>,
    /// Its longest life; 60 seconds by default, 10 minutes at most.
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Length>,
    /// The header of exactly this request that it goes into, or a table of headers and texts with `{field}`.
    pub header: Option<PlacesFile>,
    /// The variable of a child started for exactly this call, or a table of variables and texts with `{field}`.
    pub env: Option<PlacesFile>,
    /// Variables that name files of this call alone, with the texts that are in them.
    pub file: Option<BTreeMap<String, String>>,
    /// Last resort: the argument that it is put into, which the call must not have. Servers tend to log arguments.
    pub argument: Option<String>,
}

/// Which values an argument may have: `{ pattern = "[a-z-]+" }`, `{ enum = ["a", "b"] }` or `{ from = 1, to = 100 }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WhereFile {
    /// A plain word that this expression matches as a whole.
    pub pattern: Option<String>,
    /// Exactly one of these.
    #[serde(rename = "enum")]
    pub listed: Option<Vec<String>>,
    /// A whole number of at least this.
    pub from: Option<i64>,
    /// A whole number of at most this.
    pub to: Option<i64>,
}

/// Where a credential goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PlacesFile {
    /// One header or variable, which gets the secret.
    One(String),
    /// Several, with the texts that they get.
    Several(BTreeMap<String, String>),
}

/// What approvers are shown.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShowFile {
    /// One line; `{/pointer}` is filled with that argument.
    pub title: Option<String>,
    /// Arguments that nobody is shown and no log holds.
    #[schemars(with = "Option<Vec<String>>")]
    pub mask: Option<Vec<Pattern>>,
    /// How sensitive the target is, in the operator's words.
    pub sensitivity: Option<String>,
    /// Which environment, in the operator's words.
    pub environment: Option<String>,
    /// Whether the model is asked why: a member is added to the tool's arguments as agents see them, and taken out of the
    /// call again. Approvers see it as unverified.
    pub ask_reason: Option<bool>,
}

/// A call with the decision that it must get.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaseFile {
    /// What it shows, for people.
    pub name: Option<String>,
    /// The arguments.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub arguments: toml::Table,
    /// Recipients that count as approved before.
    #[serde(default)]
    pub known: Vec<String>,
    /// The decision.
    pub expect: VerdictFile,
    /// Texts that must each occur in the reasons.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// The decision that a case must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictFile {
    /// Runs without a person.
    Allow,
    /// Refused.
    Deny,
    /// A person is asked.
    RequireApproval,
    /// Two people are asked.
    RequireTwoApprovals,
}
