//! What is asked of approvers: everything they are shown, and everything their answer is bound to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::call::{Binding, CallDigest, Caller};
use crate::domain::clock::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::policy::Assurance;
use crate::domain::risk::{Assessment, Effect, Target};

/// One exact call, put to approvers. Never changes once it is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The approval's id: random, 128 bits, so that it cannot be guessed.
    pub id: String,
    /// The call's digest without nonce: by it a repeated call finds this approval.
    pub key: CallDigest,
    /// The call's digest with the id as nonce: what approvers are shown and what their verdict is bound to.
    pub digest: CallDigest,
    /// Everything else that the digests cover.
    pub binding: Binding,
    /// The tool.
    pub tool: String,
    /// One line about it.
    pub title: String,
    /// Canonical arguments, masked as the policy says.
    pub arguments: String,
    /// Canonical text of everything else that goes upstream and is part of the action; `{}` mostly.
    pub extras: String,
    /// Digest of the unmasked canonical arguments.
    pub arguments_digest: Digest,
    /// Who asks.
    pub caller: Caller,
    /// What the tool does.
    pub effect: Effect,
    /// How dangerous, and why.
    pub assessment: Assessment,
    /// Reasons of the operator's rules that demand a person.
    pub demands: Vec<String>,
    /// The policy's file.
    pub policy_source: String,
    /// How sensitive the target is, in the operator's words.
    pub sensitivity: Option<String>,
    /// Which environment, in the operator's words.
    pub environment: Option<String>,
    /// The credential that the call will get.
    pub credential: Option<CredentialShown>,
    /// Who may decide, how many must, and until when.
    pub terms: Terms,
    /// What the agent says of itself; unverified.
    pub stated_reason: Option<String>,
    /// What the client says the person asked for; unverified.
    pub stated_prompt: Option<String>,
    /// Targets to remember once the call was approved and ran.
    pub targets: Vec<Target>,
    /// When it was asked.
    pub asked_at: Timestamp,
}

/// The credential that a call will get, as approvers are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialShown {
    /// The issuer's name.
    pub issuer: String,
    /// The exact scope.
    pub scope: String,
    /// The longest that the call may use it, in seconds.
    pub ttl_seconds: u64,
    /// How it ends; not known of questions that an older version asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<CredentialEnding>,
    /// The longest that it can live at its issuer, whatever happens to the gateway, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_seconds: Option<u64>,
}

/// How a call's credential ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialEnding {
    /// It is revoked after the call.
    Revoked,
    /// Nobody can revoke it: it is dead by its time.
    ByTime,
    /// It is a stored secret, which stays as it is.
    Stays,
}

impl CredentialShown {
    /// How long it lives and how it ends, in a line for people.
    pub fn life(&self) -> String {
        let (call, longest) = (spoken_seconds(self.ttl_seconds), self.longest_seconds.unwrap_or(self.ttl_seconds));
        match self.ending {
            None => format!("for this call alone, {call} at most, then revoked"),
            Some(CredentialEnding::Revoked) if longest > self.ttl_seconds => {
                format!("for this call alone, {call} at most, then revoked; if that fails it lives {}", spoken_seconds(longest))
            }
            Some(CredentialEnding::Revoked) => format!("for this call alone, {call} at most, then revoked"),
            Some(CredentialEnding::ByTime) => format!("for this call alone; it cannot be revoked, and is dead after {}", spoken_seconds(longest)),
            Some(CredentialEnding::Stays) => "NOT minted for this call: a stored secret, which stays valid after it".into(),
        }
    }
}

fn spoken_seconds(seconds: u64) -> String {
    if seconds <= 120 { format!("{seconds} s") } else { crate::domain::clock::spoken(std::time::Duration::from_secs(seconds)) }
}

/// Who may decide, how many must, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The people who may decide. Never empty, and never the caller's owner unless `owner_may_approve`.
    pub approvers: Vec<String>,
    /// How many must approve.
    pub quorum: u8,
    /// Whether the caller's owner may be one of them.
    pub owner_may_approve: bool,
    /// Until when they may decide.
    pub decide_by: Timestamp,
    /// How long the approval stays usable once given, in milliseconds.
    pub execute_for_ms: u64,
    /// Further people, from later times on.
    #[serde(default)]
    pub escalation: Vec<Escalation>,
    /// Whom to tell without asking them.
    #[serde(default)]
    pub notify: Vec<String>,
    /// When those who have not decided are reminded.
    #[serde(default)]
    pub remind_at: Option<Timestamp>,
    /// How an approver must prove who they are, at least.
    #[serde(default)]
    pub assurance: Assurance,
    /// How long a denial is remembered, in milliseconds: the same call is then refused without asking.
    #[serde(default = "ten_minutes")]
    pub cool_down_ms: u64,
    /// Whether an approver may allow the same call again, and how far.
    #[serde(default)]
    pub again: Option<AgainTerms>,
}

fn ten_minutes() -> u64 {
    600_000
}

/// Further people who may decide, from a time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// The people.
    pub approvers: Vec<String>,
    /// From when.
    pub from: Timestamp,
}

/// How far an approver may allow the same call again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainTerms {
    /// For how long at most, in milliseconds.
    pub for_ms: u64,
    /// How often at most.
    pub times: u32,
    /// The highest score of a call that is let through.
    pub max_score: u8,
    /// What such calls have in common: all but the arguments that may vary.
    pub key: CallDigest,
    /// The arguments that may vary, as patterns, for people.
    pub vary: Vec<String>,
}

impl Terms {
    /// Everybody who may decide at `now`, by the names in the policy: people, and groups that stand for several.
    pub fn seats(&self, now: Timestamp) -> BTreeSet<&str> {
        let later = self.escalation.iter().filter(|e| e.from <= now).flat_map(|e| &e.approvers);
        self.approvers.iter().chain(later).map(String::as_str).collect()
    }

    /// Everybody who may ever decide.
    pub fn all_seats(&self) -> BTreeSet<&str> {
        self.seats(Timestamp(i64::MAX))
    }
}
