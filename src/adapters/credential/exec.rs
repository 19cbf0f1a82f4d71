//! `exec`: a program of the operator that mints and revokes, for whatever has no issuer here. It gets one JSON object on
//! its standard input and prints one on its standard output; the secret is in neither's arguments.
//!
//! Input: `verb` (`mint` or `revoke`), `lease`, `handle`, and for `mint` also `scope`, `parameters`, `ttl_seconds`, `server`,
//! `tool`, `caller`, `arguments` (their digest), `approval`, `approvers`. Output of `mint`: `fields` (texts by name; `secret`
//! is the main one), `expires_at` (RFC 3339), `handle` (optional), `granted` (optional). `revoke` prints nothing.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, Plan, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// Largest output.
const MOST: usize = 1 << 20;

/// A program.
#[derive(Debug)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether it has the verb `revoke`.
    pub revocable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    fields: BTreeMap<String, String>,
    expires_at: jiff::Timestamp,
    handle: Option<String>,
    granted: Option<String>,
}

impl Exec {
    async fn run(&self, input: &Value) -> Result<Vec<u8>, IssueError> {
        let (program, arguments) = self.command.split_first().ok_or_else(|| IssueError::Own("the command is empty".into()))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.env);
        // What it says on standard error is for its operator; it must not come with secrets into logs of ours.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| IssueError::Refused(format!("`{program}` could not be started: {e}")))?;
        let unclear = |e: std::io::Error| IssueError::Unclear(format!("`{program}`: {e}"));
        let work = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read its input may be done with it all the same.
                drop(stdin.write_all(input.to_string().as_bytes()).await);
            }
            let mut printed = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                let mut limited = tokio::io::AsyncReadExt::take(stdout, MOST as u64);
                tokio::io::AsyncReadExt::read_to_end(&mut limited, &mut printed).await.map_err(unclear)?;
            }
            Ok((child.wait().await.map_err(unclear)?, printed))
        };
        let done = tokio::time::timeout(self.timeout, work).await;
        let (status, printed) = done.map_err(|_| IssueError::Unclear(format!("`{program}` took longer than {} s", self.timeout.as_secs())))??;
        if !status.success() {
            return Err(IssueError::Unclear(format!("`{program}` ended with {status}")));
        }
        Ok(printed)
    }

    fn input(order: &Order) -> Result<Value, IssueError> {
        let parameters: Value = order.parameters()?;
        Ok(json!({
            "verb": "mint", "lease": order.lease, "scope": order.scope.text, "parameters": parameters, "ttl_seconds": order.ttl.as_secs(),
            "audience": order.audience, "server": order.server, "tool": order.tool, "caller": order.caller.name, "arguments": order.arguments,
            "approval": order.subject, "approvers": order.approvers,
        }))
    }
}

#[async_trait]
impl Issuer for Exec {
    fn nature(&self) -> Nature {
        let ending = if self.revocable { Ending::Revoked } else { Ending::ByTime };
        Nature { kind: "exec", ending, named: self.revocable, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let input = Self::input(order)?;
        Ok(Plan { request: format!("{} gets\n{input:#}", self.command.join(" ")), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let printed = zeroize::Zeroizing::new(self.run(&Self::input(order)?).await?);
        let printed: Printed = serde_json::from_slice(&printed).map_err(|e| {
            IssueError::Unclear(format!("what it printed is not as described ({:?} at line {}, column {})", e.classify(), e.line(), e.column()))
        })?;
        let until = Timestamp(printed.expires_at.as_millisecond());
        let made = Credential { handle: printed.handle, granted: printed.granted, ..Credential::of(printed.fields, until) };
        let why = if made.names().next().is_none() {
            Some("it printed no fields".to_owned())
        } else if until <= order.now {
            Some("it is dead already".to_owned())
        } else if until > order.dead_by().plus(Duration::from_secs(5)) {
            Some(format!("it lives until {until}, and the policy says {} s", order.ttl.as_secs()))
        } else {
            None
        };
        match why {
            None => Ok(made),
            Some(why) => Err(IssueError::Wider { why, made: Box::new(made) }),
        }
    }

    async fn revoke(&self, held: &Held<'_>) -> Result<Ended, IssueError> {
        if !self.revocable {
            return Ok(Ended::ByTime);
        }
        self.run(&json!({"verb": "revoke", "lease": held.lease, "handle": held.handle})).await.map(|_| Ended::Revoked)
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Value>(text).map(drop)
    }
}
