//! The shipped policies: they compile, and every case in them holds.

use std::path::{Path, PathBuf};

use countersign::domain::decision::verdict;
use countersign::domain::policy::{DefaultMode, Defaults, PolicySet, PolicySource};

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_case_of_every_shipped_policy_holds() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tool-policies"), &mut found);
    let source = |path: &PathBuf| PolicySource { path: path.display().to_string(), text: std::fs::read_to_string(path).unwrap() };
    let sources: Vec<PolicySource> = found.iter().map(source).collect();
    let people = vec!["anna".to_owned(), "bert".to_owned()];
    let defaults = Defaults {
        mode: DefaultMode::Approve,
        approvers: people.clone(),
        owner_may_approve: false,
        known_approvers: people,
        groups: vec![],
        known_issuers: vec!["built-in".into()],
        judged_only: false,
    };
    let set = PolicySet::compile(&sources, &defaults).unwrap();
    let mut cases = 0;
    for policy in set.all().iter().filter(|policy| policy.tool != "*") {
        assert!(!policy.cases.is_empty(), "{} has no case", policy.source);
        for case in &policy.cases {
            cases += 1;
            let outcome = case.run(policy, verdict);
            assert!(outcome.faults.is_empty(), "{} `{}`: {:?}", policy.source, case.name, outcome.faults);
        }
    }
    assert!(cases >= 20);
}

#[test]
fn the_example_configurations_are_read() {
    for name in ["examples/countersign.toml", "examples/slack/countersign.toml"] {
        let config = countersign::app::config::Config::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        assert!(!config.people.is_empty(), "{name}");
    }
}
