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

/// Every configuration and policy of the page about credentials is read, and takes what the page says.
#[test]
fn the_page_about_credentials_is_true() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/credentials.md")).unwrap();
    let scratch = crate::support::Scratch::new();
    let mut config = "[approver.anna]\n[approver.bert]\n".to_owned();
    let mut policies = 0;
    for block in page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let name = block.lines().next().unwrap().trim_start_matches("# ");
        if name == "countersign.toml" {
            config.push_str(block);
        } else if name.ends_with(".toml") {
            scratch.write(name, block);
            policies += 1;
        }
    }
    let config = scratch.write("countersign.toml", &config);
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(crate::support::countersign()).arg("--config").arg(&config).args(arguments).output().unwrap();
        (output.status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let (code, text) = run(&["policy", "check"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(policies, 10);
    for (tool, arguments, part) in [
        ("payments/refund", "{\"payment_id\":\"pay-1\"}", "\"scope\": \"refund:pay-1\""),
        ("dbhub/execute_sql", "{\"sql\":\"SELECT 1\"}", "GET https://vault.example.com:8200/v1/database/creds/customers-deleter"),
        ("notes/delete_note", "{}", "resource = https://notes.example.com/mcp"),
        ("github/create_pull_request", "{\"owner\":\"acme\",\"repo\":\"api\"}", "\"pull_requests\": \"write\""),
        ("s3/delete_object", "{\"bucket\":\"reports\",\"key\":\"a.txt\"}", "arn:aws:s3:::reports/a.txt"),
        ("postgres/execute_sql", "{\"sql\":\"SELECT 1\"}", "GRANT delete ON TABLE \"public\".\"customers\""),
        ("kubernetes/resources_delete", "{\"namespace\":\"shop\"}", "serviceaccounts/deployer/token"),
        ("storage/upload", "{}", "reports-writer@acme.iam.gserviceaccount.com:generateAccessToken"),
        ("own/act", "{\"account\":\"123456\"}", "\"account\": \"123456\""),
        ("notion/API-post-page", "{}", "the stored secret is handed to this call"),
    ] {
        let (_, text) = run(&["policy", "explain", tool, "--arguments", arguments]);
        assert!(text.contains(part) && text.contains("which is not asked now"), "{tool}: `{part}` in\n{text}");
    }
}
