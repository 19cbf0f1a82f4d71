//! Cases: calls written into a policy with the decision that they must get. `policy test` and the build run them.

use std::collections::BTreeSet;

use super::Policy;
use super::file::VerdictFile;
use crate::domain::call::{Caller, Identity, Method, ToolCall};
use crate::domain::json::{Object, Value};
use crate::domain::risk::{Assessment, History, Target};
use crate::domain::tool::Known;

/// A call with the decision that it must get.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The arguments.
    pub arguments: Value,
    /// Recipients that count as approved before.
    pub known: Vec<String>,
    /// The decision.
    pub expect: VerdictFile,
    /// Texts that must each occur in the reasons.
    pub reasons: Vec<String>,
}

/// What became of a call, in the words of cases.
pub type Verdict = VerdictFile;

/// How a case came out.
#[derive(Clone, Debug)]
pub struct CaseOutcome {
    /// The decision it got.
    pub got: Verdict,
    /// The sum.
    pub assessment: Assessment,
    /// What is wrong; nothing if the case holds.
    pub faults: Vec<String>,
}

impl Case {
    /// The call that the case describes.
    pub fn call(&self, tool: &str) -> ToolCall {
        let (method, name) = Method::of_policy(tool);
        ToolCall {
            method,
            tool: if method == Method::CallTool { name } else { method.name() }.to_owned(),
            arguments: self.arguments.clone().into(),
            has_arguments: true,
            extras: Object::default(),
            protocol_meta: Object::default(),
            stated_reason: None,
            stated_prompt: None,
        }
    }

    /// Judges the case under `policy` with `decide` and compares.
    pub fn run(&self, policy: &Policy, decide: impl FnOnce(&Policy, &super::Judged) -> Verdict) -> CaseOutcome {
        let call = self.call(&policy.tool);
        let caller = Caller { name: "a-caller".into(), owner: None, identity: Identity::Configured };
        let target = |name: &String| Target {
            kind: "recipient".into(),
            value: name.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect(),
        };
        let history = History { seen: self.known.iter().map(target).collect::<BTreeSet<_>>(), ..History::default() };
        let judged = policy.judge(&call, &caller, &Known::NotAsked, &history);
        let got = decide(policy, &judged);
        let mut faults = Vec::new();
        if got != self.expect {
            faults.push(format!("expected {:?}, got {got:?} with score {}", self.expect, judged.assessment.score));
        }
        let said: Vec<&str> =
            judged.assessment.findings.iter().map(|f| f.reason.as_str()).chain(judged.demands.iter().map(|(_, because)| because.as_str())).collect();
        for reason in &self.reasons {
            if !said.iter().any(|text| text.contains(reason.as_str())) {
                faults.push(format!("no reason says `{reason}`; the reasons are: {}", said.join("; ")));
            }
        }
        CaseOutcome { got, assessment: judged.assessment, faults }
    }
}
