//! `countersign score`: calls as JSON lines on standard input, their assessments as JSON lines on standard output.

use std::collections::HashMap;
use std::io::{BufRead, BufWriter, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Code, Failure};
use crate::app::AppError;
use crate::app::config::Config;
use crate::app::policies::Source;
use crate::domain::call::{Caller, Identity, ToolCall};
use crate::domain::decision::verdict;
use crate::domain::json::{Limits, read};
use crate::domain::policy::{PolicySet, Verdict};
use crate::domain::risk::{History, SCORER, Trail};
use crate::domain::tool::{Known, ToolDefinition};

/// Judge calls: JSON lines in, assessments out
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line: {\"id\": …, \"server\": \"github\", \"tool\": \"get_me\", \"arguments\": {…}}, and where it is known \"annotations\",
\"session\" (calls of one caller, in order) and \"result_after\" (what the call answered).

Example: echo '{\"server\":\"db\",\"tool\":\"query\",\"arguments\":{\"sql\":\"drop table t\"}}' | countersign score"
)]
pub(super) struct Arguments {
    /// The directory of policies [default: that of the configuration, or ./tool-policies]
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    /// Leave the findings out
    #[arg(long)]
    brief: bool,
}

/// One line of input. What else it has is not looked at.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    server: Option<String>,
    tool: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
    #[serde(default)]
    annotations: Option<Box<RawValue>>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    result_after: Option<serde_json::Value>,
}

pub(super) fn run(config: Config, arguments: &Arguments) -> Result<(), Failure> {
    // Nobody is asked here, and so nobody has to exist.
    let here = PathBuf::from("tool-policies");
    let policies = arguments.policies.clone().or(config.policies.clone()).or_else(|| here.is_dir().then_some(here));
    let source = Source::new(policies, config.defaults.clone().only_to_judge());
    let set = source.load().map_err(AppError::from)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut trails: HashMap<String, Trail> = HashMap::new();
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let assessed = assess(&set, &line, &mut trails, arguments.brief)
            .map_err(|why| Failure::said(format!("line {}: {why}", n + 1)).hint("see: countersign score --help").code(Code::Invalid))?;
        // Whoever stopped reading has read enough.
        if writeln!(out, "{assessed}").is_err() {
            return Ok(());
        }
    }
    drop(out.flush());
    Ok(())
}

fn assess(set: &PolicySet, text: &str, trails: &mut HashMap<String, Trail>, brief: bool) -> Result<serde_json::Value, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let given = line.arguments.as_ref().map_or("{}", |raw| raw.get());
    let server = line.server.as_deref().unwrap_or_default();
    let call = match ToolCall::described(&line.tool, given, Limits::default()) {
        Ok(call) => call,
        // A call that the gateway would refuse is denied, and says so.
        Err(error) => return Ok(json!({"id": line.id, "score": 100, "decision": "deny", "refused": error.to_string(), "scorer": SCORER})),
    };
    let policy = set.for_call(server, &call);
    let annotations = line.annotations.as_ref().map(|raw| read(raw.get().as_bytes(), Limits::default())).transpose().map_err(|e| e.to_string())?;
    let definition = annotations.map(|hints| ToolDefinition::annotated(&line.tool, &hints));
    let known = definition.as_ref().map_or(Known::NotAsked, Known::Annotated);
    let caller = Caller { name: "score".into(), owner: None, identity: Identity::Configured };
    let trail = line.session.as_ref().map(|session| trails.entry(session.clone()).or_default());
    let signs = trail.as_ref().map(|trail| trail.signs(&call.arguments, text.as_bytes())).unwrap_or_default();
    let judged = policy.judge(&call, &caller, &known, &History { signs, ..History::default() });
    if let Some(trail) = trail {
        trail.called(0);
        match line.result_after {
            Some(serde_json::Value::String(text)) => trail.answered(&text, policy.trust()),
            Some(serde_json::Value::Null) | None => {}
            Some(other) => trail.answered(&other.to_string(), policy.trust()),
        }
    }
    let decision = match verdict(&policy, &judged) {
        Verdict::Allow => "allow",
        Verdict::RequireApproval | Verdict::RequireTwoApprovals => "approve",
        Verdict::Deny => "deny",
    };
    let assessment = &judged.assessment;
    let readable = !assessment.findings.iter().any(|f| f.floor.as_ref().is_some_and(|floor| floor.name == "uninspectable"));
    let mut out = json!({
        "id": line.id, "score": assessment.score, "decision": decision, "band": assessment.band, "effect": judged.observation.effect,
        "parsed": readable, "policy": policy.source, "digest": policy.digest, "scorer": SCORER,
    });
    if !brief && let Some(object) = out.as_object_mut() {
        object.insert("findings".into(), json!(assessment.findings));
        let demands: Vec<&str> = judged.demands.iter().map(|(_, because)| because.as_str()).collect();
        object.insert("rules".into(), json!(demands));
    }
    Ok(out)
}
