//! The operator's own conditions, in CEL, compiled once.
//!
//! A condition that cannot be evaluated counts as met: an error may raise a score and ask a person, never let through.
//! Its ceiling, though, counts only when the condition is truly met.

use std::sync::Arc;

use cel::{Context, Env, Program};

use super::file::{RuleDecisionFile, RuleFile};
use crate::domain::call::{Caller, ToolCall};
use crate::domain::json::{Number, Object, Value};
use crate::domain::risk::score::Ceiling;
use crate::domain::risk::{Finding, Group};

/// A compiled condition and what follows from it.
#[derive(Clone)]
pub struct Rule {
    when: String,
    program: Arc<Program>,
    points: u8,
    because: String,
    decision: Option<RuleDecision>,
    ceiling: Option<Ceiling>,
}

/// What a rule demands whatever the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleDecision {
    /// Ask a person.
    Approve,
    /// Refuse.
    Deny,
}

/// What the rules of a policy make of one call.
#[derive(Debug, Default)]
pub(super) struct RuleVerdict {
    pub findings: Vec<Finding>,
    pub demands: Vec<(RuleDecision, String)>,
    pub ceiling: Option<Ceiling>,
}

/// A condition that is not CEL, or demands nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuleError {
    /// The condition does not compile.
    #[error("the condition `{when}` does not compile: {reason}")]
    Compile {
        /// The condition.
        when: String,
        /// What the compiler said.
        reason: String,
    },
    /// Neither points, nor a decision, nor a ceiling.
    #[error("the rule `{0}` does nothing: give it `points`, a `decision` or a `ceiling`")]
    Idle(String),
    /// Points or ceiling above 100.
    #[error("the rule `{0}` has `points` or `ceiling` above 100")]
    Range(String),
    /// A name that the condition uses and no call has.
    #[error("the condition `{when}` uses `{name}`, which is not known: it may use args, facts, tool, server, caller")]
    Unknown {
        /// The condition.
        when: String,
        /// The name.
        name: String,
    },
}

impl Rule {
    /// Compiles one rule.
    pub(super) fn compile(file: &RuleFile) -> Result<Self, RuleError> {
        let when = file.when.clone();
        if file.points.is_none() && file.decision.is_none() && file.ceiling.is_none() {
            return Err(RuleError::Idle(when));
        }
        if file.points.is_some_and(|p| p > 100) || file.ceiling.is_some_and(|c| c > 100) {
            return Err(RuleError::Range(when));
        }
        let program = Program::compile(&when).map_err(|error| RuleError::Compile {
            when: when.clone(),
            reason: marked(&when, error.to_string().lines().next().unwrap_or_default()),
        })?;
        let known = ["args", "facts", "tool", "server", "caller"];
        let bound = bound(&when);
        if let Some(name) = program.references().variables().into_iter().find(|name| !known.contains(name) && !bound.contains(name)) {
            return Err(RuleError::Unknown { when, name: name.to_owned() });
        }
        Ok(Self {
            program: Arc::new(program),
            points: file.points.unwrap_or(0),
            because: file.because.clone(),
            decision: file.decision.map(|d| match d {
                RuleDecisionFile::Approve => RuleDecision::Approve,
                RuleDecisionFile::Deny => RuleDecision::Deny,
            }),
            ceiling: file.ceiling.map(|score| Ceiling { score, over_floors: file.over_floors.clone() }),
            when,
        })
    }
}

/// A compiler's `ERROR: <input>:LINE:COLUMN: …` as its words, with a mark below the place in the condition.
fn marked(when: &str, error: &str) -> String {
    let mut parts = error.trim_start_matches("ERROR: <input>:").splitn(3, ':');
    let (line, column, words) = (parts.next(), parts.next(), parts.next());
    let number = |text: Option<&str>| text.and_then(|t| t.trim().parse::<usize>().ok());
    match (number(line), number(column), words) {
        (Some(line), Some(column), Some(words)) => {
            let shown = when.lines().nth(line.saturating_sub(1)).unwrap_or(when);
            format!("{}\n  | {shown}\n  | {}^", words.trim(), " ".repeat(column.saturating_sub(1)))
        }
        _ => error.to_owned(),
    }
}

/// The names that the macros of CEL bind: `k` in `list.exists(k, …)`.
fn bound(when: &str) -> Vec<&str> {
    let macros = [".exists(", ".all(", ".exists_one(", ".map(", ".filter("];
    let names = macros.iter().flat_map(|name| when.split(name).skip(1));
    names.filter_map(|rest| rest.split_once(',').map(|(name, _)| name.trim())).collect()
}

impl Rule {
    /// Why, for people.
    pub fn because(&self) -> &str {
        &self.because
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rule({})", self.when)
    }
}

/// Evaluates the rules of the called tool, and of no other.
pub(super) fn evaluate(rules: &[Rule], call: &ToolCall, caller: &Caller, facts: &Object) -> RuleVerdict {
    let mut verdict = RuleVerdict::default();
    if rules.is_empty() {
        return verdict;
    }
    let mut context = Context::with_env(standard());
    context.add_variable_from_value("args", cel_value(&call.arguments));
    context.add_variable_from_value("facts", cel_value(&Value::Object(facts.clone())));
    context.add_variable_from_value("tool", call.tool.clone());
    context.add_variable_from_value("caller", caller.name.clone());
    for (number, rule) in rules.iter().enumerate() {
        let (met, sure) = match rule.program.execute(&context) {
            Ok(cel::Value::Bool(met)) => (met, true),
            _ => (true, false),
        };
        if !met {
            continue;
        }
        let reason = if sure { rule.because.clone() } else { format!("{} (the condition could not be evaluated)", rule.because) };
        let group = Group::Rule(u16::try_from(number).unwrap_or(u16::MAX));
        if rule.points > 0 || !sure {
            let finding = Finding::new("rule", group, u16::from(rule.points) * 10, reason.clone());
            verdict.findings.push(if sure { finding } else { finding.floor("uninspectable", 70) });
        }
        if let Some(decision) = rule.decision {
            verdict.demands.push((decision, reason));
        }
        if let (Some(ceiling), true) = (&rule.ceiling, sure)
            && verdict.ceiling.as_ref().is_none_or(|c| ceiling.score < c.score)
        {
            verdict.ceiling = Some(ceiling.clone());
        }
    }
    verdict
}

fn standard() -> Arc<Env> {
    static ENV: std::sync::LazyLock<Arc<Env>> = std::sync::LazyLock::new(|| Arc::new(Env::stdlib()));
    ENV.clone()
}

fn cel_value(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => cel::Value::Bool(*b),
        Value::Number(Number::Int(n)) => cel::Value::Int(*n),
        Value::Number(Number::Uint(n)) => cel::Value::UInt(*n),
        Value::Number(Number::Float(x)) => cel::Value::Float(*x),
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(cel_value).collect())),
        Value::Object(object) => {
            let map: std::collections::HashMap<String, cel::Value> =
                object.iter().map(|(name, member)| (name.to_owned(), cel_value(member))).collect();
            cel::Value::Map(map.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Identity;
    use crate::domain::json::Limits;

    fn met(when: &str, arguments: &str) -> RuleVerdict {
        let file = RuleFile {
            when: when.into(),
            points: Some(40),
            because: "why".into(),
            decision: Some(RuleDecisionFile::Deny),
            ceiling: Some(10),
            over_floors: vec![],
        };
        let call = ToolCall::parse(format!(r#"{{"name":"t","arguments":{arguments}}}"#).as_bytes(), Limits::default()).unwrap();
        let caller = Caller { name: "c".into(), owner: None, identity: Identity::Configured };
        evaluate(&[Rule::compile(&file).unwrap()], &call, &caller, &Object::default())
    }

    #[test]
    fn numbers_compare_whatever_their_form() {
        assert_eq!(met("args.amount > 1000.0", r#"{"amount":2500}"#).findings[0].weight, 400);
        assert!(met("args.amount > 1000.0", r#"{"amount":250.00}"#).findings.is_empty());
        assert_eq!(met("args.amount > 1000", r#"{"amount":1000.5}"#).findings.len(), 1);
    }

    #[test]
    fn a_condition_that_fails_counts_as_met_and_lowers_nothing() {
        for arguments in ["{}", r#"{"amount":"lots"}"#, r#"{"amount":null}"#] {
            let verdict = met("args.amount > 1000.0", arguments);
            assert_eq!(verdict.findings[0].floor.as_ref().unwrap().score, 70, "{arguments}");
            assert_eq!(verdict.demands[0].0, RuleDecision::Deny);
            assert!(verdict.ceiling.is_none());
        }
    }

    #[test]
    fn a_rule_must_compile_and_do_something() {
        let file =
            |when: &str, points| RuleFile { when: when.into(), points, because: "why".into(), decision: None, ceiling: None, over_floors: vec![] };
        assert!(matches!(Rule::compile(&file("args.a >", Some(1))), Err(RuleError::Compile { .. })));
        assert!(matches!(Rule::compile(&file("true", None)), Err(RuleError::Idle(_))));
        assert!(matches!(Rule::compile(&file("true", Some(101))), Err(RuleError::Range(_))));
        assert!(matches!(Rule::compile(&file("argz.a > 1", Some(1))), Err(RuleError::Unknown { .. })));
    }
}
