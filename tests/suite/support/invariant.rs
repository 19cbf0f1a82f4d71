//! The invariant: an upstream invocation of a held call happens at most once, only if enough named, different, other
//! people approved exactly the bytes sent; every attempt has exactly one end in the record; no credential outlives its
//! call; the record is unbroken.

use std::collections::HashMap;
use std::path::Path;

use countersign::domain::approval::{Approval, Outcome, ReviewVerdict};
use countersign::domain::audit::{Entry, Record, Verifier};
use countersign::domain::clock::Timestamp;
use countersign::domain::digest::Digest;
use serde_json::Value;

use super::query_file;

type Row = (i64, String, String, i64, Option<Vec<u8>>, Option<String>, String, Vec<u8>, Vec<u8>);

/// Checks a store and the ledger's own record against each other. The gateway must have nothing under way.
pub async fn check(store: &Path, ledger: &Path) {
    let rows: Vec<Row> = query_file(store, "SELECT seq, instance, kind, at, call, subject, data, previous, hash FROM audit ORDER BY seq").await;
    unbroken(&rows);
    ends(&rows);
    let leases: Vec<(String, String)> = query_file(store, "SELECT id, state FROM leases").await;
    for (id, state) in &leases {
        credential(&rows, id, state);
    }
    let bodies: Vec<(String,)> = query_file(store, "SELECT body FROM approvals").await;
    let approvals: Vec<Approval> = bodies.iter().map(|(body,)| serde_json::from_str(body).unwrap()).collect();
    approvals.iter().for_each(rules);
    executed(&rows, &approvals, ledger).await;
}

/// No credential outlives its call but one that its issuer cannot or did not revoke; and the record says which.
fn credential(rows: &[Row], id: &str, state: &str) {
    let kinds = [
        ("revoked", "credential-revoked"),
        ("expired", "credential-expired"),
        ("void", "mint-failed"),
        ("kept", "credential-kept"),
        ("lapsing", "credential-lapses"),
        ("revoking", "revoke-failed"),
    ];
    let last = rows.iter().rfind(|row| serde_json::from_str::<Value>(&row.6).is_ok_and(|data| data["lease"] == id));
    let last = last.map(|row| row.2.as_str());
    assert!(kinds.contains(&(state, last.unwrap_or_default())), "credential {id} is {state}, and the record ends with {last:?}");
}

fn unbroken(rows: &[Row]) {
    let digest = |bytes: &[u8]| format!("sha256:{}", countersign::domain::digest::hex(bytes)).parse::<Digest>().unwrap();
    let mut verifier = Verifier::default();
    for (seq, instance, kind, at, call, subject, data, previous, hash) in rows {
        let call = call.as_ref().map(|bytes| serde_json::from_value(Value::String(digest(bytes).to_string())).unwrap());
        let kind = serde_json::from_value(Value::String(kind.clone())).unwrap();
        let entry = Entry { kind, at: Timestamp(*at), call, subject: subject.clone(), data: data.clone() };
        let record = Record { seq: *seq, instance: instance.clone(), entry, previous: digest(previous), hash: digest(hash) };
        verifier.next(&record).unwrap();
    }
}

/// Every attempt that went out has exactly one end.
fn ends(rows: &[Row]) {
    let mut out: HashMap<&str, usize> = HashMap::new();
    let mut over: HashMap<&str, usize> = HashMap::new();
    for (_, _, kind, _, _, subject, ..) in rows {
        let Some(subject) = subject.as_deref() else { continue };
        match kind.as_str() {
            "allowed" | "dispatched" => *out.entry(subject).or_default() += 1,
            "completed" | "failed" | "outcome-unknown" => *over.entry(subject).or_default() += 1,
            _ => {}
        }
    }
    for (subject, count) in &out {
        assert_eq!(*count, 1, "{subject} went out {count} times");
        assert_eq!(over.get(subject), Some(&1), "{subject} has {:?} ends", over.get(subject));
    }
}

/// An approval that went past pending has a quorum of named, different, other people, in time.
fn rules(approval: &Approval) {
    let request = approval.request();
    let past = match approval {
        Approval::Approved(_) | Approval::Redeemed(_) | Approval::Dispatched(_) => true,
        Approval::Pending(_) => false,
        Approval::Settled(s) => {
            matches!(s.is.outcome, Outcome::Completed { .. } | Outcome::Failed { .. } | Outcome::OutcomeUnknown { .. } | Outcome::Revoked { .. })
        }
    };
    if !past {
        return;
    }
    let mut names: Vec<&str> = approval.reviews().iter().map(|review| review.approver.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), approval.reviews().len(), "somebody counts twice");
    assert!(names.len() >= usize::from(request.terms.quorum), "approved by too few: {names:?}");
    for review in approval.reviews() {
        assert_eq!(review.verdict, ReviewVerdict::Approve);
        assert_eq!(review.shown, request.digest);
        assert!(review.at < request.terms.decide_by);
        assert!(request.terms.seats(review.at).contains(review.capacity.seat(&review.approver)));
        assert!(review.level >= request.terms.assurance);
        assert_ne!(review.approver, request.caller.name);
        assert!(request.caller.owner.as_ref() != Some(&review.approver) || request.terms.owner_may_approve);
    }
}

/// What the ledger did was allowed or approved, each once, for exactly those arguments.
async fn executed(rows: &[Row], approvals: &[Approval], ledger: &Path) {
    let received: Vec<(String, String, String)> = query_file(ledger, "SELECT tool, arguments, outcome FROM received").await;
    let mut done: HashMap<(String, String), usize> = HashMap::new();
    for (tool, arguments, outcome) in received {
        if outcome != "done" {
            // After a crash the ledger may find the credential revoked, or the gateway gone: it did nothing. A call
            // without a credential, or with a wrong one, must never get there.
            let gone = ["is revoked", "cannot be asked", "cannot be had"].iter().any(|part| outcome.contains(part));
            assert!(gone || !outcome.contains("credential"), "a call reached the ledger without a good credential: {outcome}");
            continue;
        }
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        let canonical = serde_json_canonicalizer::to_string(&arguments).unwrap();
        *done.entry((tool, Digest::of(canonical.as_bytes()).to_string())).or_default() += 1;
    }
    let mut permitted: HashMap<(String, String), usize> = HashMap::new();
    for (_, _, kind, _, _, _, data, ..) in rows.iter().filter(|row| row.2 == "allowed") {
        assert_eq!(kind, "allowed");
        let data: Value = serde_json::from_str(data).unwrap();
        let key = (data["tool"].as_str().unwrap().to_owned(), data["arguments_digest"].as_str().unwrap().to_owned());
        *permitted.entry(key).or_default() += 1;
    }
    let dispatched: Vec<&str> = rows.iter().filter(|row| row.2 == "dispatched").filter_map(|row| row.5.as_deref()).collect();
    for approval in approvals.iter().filter(|approval| dispatched.contains(&approval.request().id.as_str())) {
        let request = approval.request();
        *permitted.entry((request.tool.clone(), request.arguments_digest.to_string())).or_default() += 1;
    }
    for (call, times) in done {
        let most = permitted.get(&call).copied().unwrap_or(0);
        assert!(times <= most, "{} ran {times} times and was permitted {most} times", call.0);
    }
}
