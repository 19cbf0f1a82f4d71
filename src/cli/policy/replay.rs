//! `countersign policy replay`: the recorded calls judged again under other policies: what would change, and how many
//! approvals a day that means, for whom.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Failure, print};
use crate::app::config::Config;
use crate::app::policies::Source;
use crate::app::{App, AppError};
use crate::domain::audit::{EventKind, Record};
use crate::domain::call::{Caller, Method, ToolCall};
use crate::domain::clock::Timestamp;
use crate::domain::decision::verdict;
use crate::domain::json::Limits;
use crate::domain::policy::{PolicySet, Verdict};
use crate::domain::risk::History;
use crate::domain::text::{shortened, visible};
use crate::domain::tool::Known;

/// Judge the recorded calls again under other policies
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign policy replay --against candidate/ --days 14")]
pub(super) struct Arguments {
    /// The directory of the policies to try
    #[arg(long, value_name = "DIRECTORY")]
    against: PathBuf,
    /// How far to look back, in days
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// How many changed calls to show
    #[arg(long, default_value_t = 20)]
    show: usize,
}

/// A call as the record holds it.
#[derive(Deserialize)]
struct Recorded {
    caller: Caller,
    server: String,
    tool: String,
    method: Option<String>,
    arguments: Option<Box<RawValue>>,
}

#[derive(Default)]
struct Tally {
    calls: usize,
    unread: usize,
    asked: [usize; 2],
    by_person: BTreeMap<String, [usize; 2]>,
    changes: BTreeMap<(String, String), usize>,
    examples: Vec<String>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    if !arguments.against.is_dir() {
        return Err(Failure::said(format!("{} is not a directory", arguments.against.display())));
    }
    let candidate = Source::new(Some(arguments.against.clone()), config.defaults.clone().only_to_judge()).load().map_err(AppError::from)?;
    let app = App::build(config, String::new()).await?;
    let current = app.policies();
    let since = app.gateway.clock.now().0.saturating_sub(i64::from(arguments.days) * 86_400_000);
    let mut tally = Tally::default();
    let mut last = 0;
    loop {
        let records = app.gateway.store.records(last, 1000).await.map_err(AppError::from)?;
        let Some(end) = records.last() else { break };
        last = end.seq;
        for record in records.iter().filter(|record| record.entry.at.0 >= since) {
            tally.add(record, &current, &candidate, arguments.show);
        }
    }
    app.end().await;
    tally.tell(arguments.days);
    Ok(())
}

impl Tally {
    fn add(&mut self, record: &Record, current: &PolicySet, candidate: &PolicySet, show: usize) {
        if !matches!(record.entry.kind, EventKind::Allowed | EventKind::Asked | EventKind::Denied) {
            return;
        }
        let Ok(recorded) = serde_json::from_str::<Recorded>(&record.entry.data) else {
            self.unread += 1;
            return;
        };
        let Some(arguments) = recorded.arguments else {
            self.unread += 1;
            return;
        };
        let method = recorded.method.as_deref().and_then(Method::named).unwrap_or(Method::CallTool);
        let params = match method {
            Method::CallTool => format!("{{\"name\":{},\"arguments\":{}}}", serde_json::Value::from(recorded.tool.as_str()), arguments.get()),
            // What another request is about are its parameters.
            _ => arguments.get().to_owned(),
        };
        let Ok(call) = ToolCall::of_request(method, params.as_bytes(), Limits::default()) else {
            self.unread += 1;
            return;
        };
        self.calls += 1;
        self.first = self.first.or(Some(record.entry.at));
        self.last = Some(record.entry.at);
        let judge = |set: &PolicySet| {
            let policy = set.for_call(&recorded.server, &call);
            let judged = policy.judge(&call, &recorded.caller, &Known::NotAsked, &History::default());
            (verdict(&policy, &judged), judged.assessment.score, policy)
        };
        let (before, after) = (judge(current), judge(candidate));
        for (n, (verdict, _, policy)) in [&before, &after].into_iter().enumerate() {
            if matches!(verdict, Verdict::RequireApproval | Verdict::RequireTwoApprovals) {
                if let Some(count) = self.asked.get_mut(n) {
                    *count += 1;
                }
                for name in &policy.ask.approvers {
                    if let Some(count) = self.by_person.entry(name.clone()).or_default().get_mut(n) {
                        *count += 1;
                    }
                }
            }
        }
        if before.0 != after.0 {
            *self.changes.entry((format!("{:?}", before.0), format!("{:?}", after.0))).or_default() += 1;
            if self.examples.len() < show {
                let what = shortened(&visible(arguments.get()), 60);
                self.examples
                    .push(format!("  {}/{} {what}  {:?} ({}) → {:?} ({})", recorded.server, recorded.tool, before.0, before.1, after.0, after.1));
            }
        }
    }

    fn tell(&self, days: u32) {
        let span = match (self.first, self.last) {
            (Some(first), Some(last)) => (last.since(first).as_secs_f64() / 86_400.0).max(1.0),
            _ => 1.0,
        };
        print(&format!(
            "{} calls of the last {days} days judged again; {} left out, because the record holds them by digest alone",
            self.calls, self.unread
        ));
        print("Both sides are judged without history: recipients count as new, and nothing was read before.\n");
        match self.changes.is_empty() {
            true => print("Nothing would be decided otherwise."),
            false => print("What would change:"),
        }
        for ((before, after), count) in &self.changes {
            print(&format!("  {count:>6}  {before} → {after}"));
        }
        self.examples.iter().for_each(|line| print(line));
        print(&format!("\nApprovals a day:{:>14}{:>10}", "now", "then"));
        let row = |name: &str, counts: &[usize; 2]| {
            let [now, then] = counts.map(|count| count as f64 / span);
            print(&format!("  {name:<20}{now:>8.1}{then:>10.1}"));
        };
        row("all", &self.asked);
        self.by_person.iter().for_each(|(name, counts)| row(name, counts));
    }
}
