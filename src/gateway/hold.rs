//! A held call: put to approvers, waited for, and then redeemed or refused.
//!
//! The same call repeated finds the approval that is there: it attaches, redeems, or is told how it ended. It never
//! asks twice, and never runs twice. Nothing runs for a client that has gone.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::broadcast;

use super::{Attempt, Case, Gateway, Refusal, RouteError, Said, TURNS};
use crate::adapters::store::{Change, Effect, StoreError, Versioned};
use crate::adapters::upstream::Answer;
use crate::domain::approval::{Approval, CredentialShown, IsApproved, Outcome, RedeemError, Request, Stage, Terms};
use crate::domain::audit::EventKind;
use crate::domain::call::CallDigest;
use crate::domain::decision::{Decision, Enforcement, decide};
use crate::domain::json::{Value, canonical};
use crate::domain::permit::{Grant, Permit};
use crate::domain::policy::RuleDecision;
use crate::system::random_hex;

/// Resolves when the approval `id` changed, or may have.
async fn changed(changes: &mut broadcast::Receiver<Arc<str>>, id: &str) {
    loop {
        match changes.recv().await {
            Ok(other) if *other != *id => {}
            // Changed, or so much changed meanwhile that it may be among it.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The store is closed: the program ends.
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

impl Gateway {
    /// Steps 6 to 13 of a call that people must approve.
    pub(super) async fn hold(&self, attempt: &Attempt, case: Case, quorum: u8) -> Result<(), RouteError> {
        // Before the approval is looked up, so that no change after that is missed.
        let mut changes = self.store.changes();
        let mut held = match self.attach(attempt, &case, quorum).await? {
            Ok(held) => held,
            Err(refusal) => {
                self.say(attempt, Said::Refused(refusal)).await;
                return Ok(());
            }
        };
        let id = held.approval.request().id.clone();
        let started = self.clock.now();
        let has_token = attempt.call.protocol_meta.get("progressToken").is_some();
        let budget = if has_token { self.settings.budget_with_progress } else { self.settings.budget };
        let every = self.settings.progress_every;
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        if has_token && matches!(held.approval, Approval::Pending(_)) {
            self.say(attempt, Said::Waiting(self.waiting(&held.approval))).await;
        }
        loop {
            held = self.expired(held).await?;
            match &held.approval {
                Approval::Pending(_) => {}
                Approval::Approved(stage) => {
                    if attempt.is_gone() {
                        return Ok(());
                    }
                    if self.redeem(attempt, stage.clone(), held.version).await? {
                        return Ok(());
                    }
                }
                // Another request of the same caller runs it right now: its end is awaited.
                Approval::Redeemed(_) | Approval::Dispatched(_) => {}
                Approval::Settled(stage) => return self.tell_end(attempt, &held, stage.is.outcome.clone()).await,
            }
            let left = budget.saturating_sub(self.clock.now().since(started));
            tokio::select! {
                () = changed(&mut changes, &id) => {}
                _ = progress.tick(), if has_token => {
                    self.say(attempt, Said::Waiting(self.waiting(&held.approval))).await;
                }
                () = attempt.gone.cancelled() => return Ok(()),
                () = attempt.say.closed() => return Ok(()),
                () = tokio::time::sleep(left) => {
                    let refusal = match &held.approval {
                        Approval::Redeemed(_) | Approval::Dispatched(_) => Refusal::Running { approval: id },
                        _ => Refusal::Pending(self.waiting(&held.approval)),
                    };
                    self.say(attempt, Said::Refused(refusal)).await;
                    return Ok(());
                }
            }
            held = self.store.approval(&id).await?.ok_or_else(|| StoreError::Corrupt(format!("approval {id} is gone")))?;
        }
    }

    /// The approval of this call: the one that is there, or a new one. There is none where nobody could approve it.
    async fn attach(&self, attempt: &Attempt, case: &Case, quorum: u8) -> Result<Result<Versioned, Refusal>, RouteError> {
        // Each turn either finds one, opens one, or lost a race that somebody else won.
        for _ in 0..TURNS {
            if let Some(found) = self.store.find(case.key, self.clock.now()).await? {
                let found = self.expired(found).await?;
                if !matches!(&found.approval, Approval::Settled(stage) if matches!(stage.is.outcome, Outcome::Expired { .. })) {
                    let id = found.approval.request().id.clone();
                    let data = json!({"state": found.approval.state(), "attempt": attempt.id}).to_string();
                    self.record(EventKind::Attached, Some(case.key), Some(id), data).await?;
                    return Ok(Ok(found));
                }
            }
            let request = match self.request(attempt, case, quorum)? {
                Ok(request) => request,
                Err(refusal) => {
                    let data = self.described(attempt, case, json!({"because": "nobody may approve it"}));
                    self.record(EventKind::Denied, Some(case.key), Some(random_hex::<16>()?), data).await?;
                    return Ok(Err(refusal));
                }
            };
            let (id, approval) = (request.id.clone(), Approval::open(request));
            let request = approval.request();
            let data = self.described(
                attempt,
                case,
                json!({
                    "approval": id, "digest": request.digest, "approvers": request.terms.approvers, "quorum": quorum,
                    "decide_by": request.terms.decide_by.to_string(), "channel": self.channel.name(), "title": request.title,
                    "credential": request.credential.as_ref().map(|c| &c.scope), "demands": request.demands,
                }),
            );
            let entry = self.entry(EventKind::Asked, Some(case.key), Some(id), data);
            match self.store.commit(Change::synced(entry, vec![Effect::Open(approval.clone())])).await {
                Ok(_) => {
                    self.channel.ask(&approval).await;
                    return Ok(Ok(Versioned { approval, version: 1 }));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// What approvers are asked. Refused where fewer people are left than must approve.
    fn request(&self, attempt: &Attempt, case: &Case, quorum: u8) -> Result<Result<Request, Refusal>, RouteError> {
        let (policy, call, caller) = (&case.policy, &attempt.call, &attempt.caller);
        let owner = |name: &String| caller.owner.as_ref() == Some(name) && !policy.ask.owner_may_approve;
        let approvers: Vec<String> =
            policy.ask.approvers.iter().filter(|name| self.approvers.contains(name) && **name != caller.name && !owner(name)).cloned().collect();
        if approvers.len() < usize::from(quorum) {
            let because = format!("{quorum} must approve this call and {} may: whoever answers for the caller does not count", approvers.len());
            return Ok(Err(Refusal::Denied { because }));
        }
        let id = random_hex::<16>()?;
        let now = self.clock.now();
        let show = &policy.show;
        let title = match &show.title {
            // A title goes into the record and the log as well: never with a secret in it.
            Some(title) if !self.carries_secret(case) => title.title(&call.arguments, |pointer| show.is_masked(pointer)),
            _ => format!("{} on {}", crate::domain::text::visible(&call.tool), attempt.server.name),
        };
        let credential = policy.credential.as_ref().zip(case.binding.scope.clone()).map(|(terms, scope)| CredentialShown {
            issuer: terms.issuer.clone(),
            scope,
            ttl_seconds: terms.ttl.as_secs(),
        });
        let demands = case.judged.demands.iter().filter(|(d, _)| *d == RuleDecision::Approve).map(|(_, why)| why.clone()).collect();
        Ok(Ok(Request {
            digest: CallDigest::of(call, caller, &case.binding, Some(&id)),
            id,
            key: case.key,
            binding: case.binding.clone(),
            tool: call.tool.clone(),
            title,
            arguments: canonical(&show.masked(&call.arguments)),
            extras: canonical(&Value::Object(call.extras.clone())),
            arguments_digest: call.arguments_digest(),
            caller: caller.clone(),
            effect: case.judged.observation.effect,
            assessment: case.judged.assessment.clone(),
            demands,
            policy_source: policy.source.clone(),
            sensitivity: show.sensitivity.clone(),
            environment: show.environment.clone(),
            credential,
            terms: Terms {
                approvers,
                quorum,
                owner_may_approve: policy.ask.owner_may_approve,
                decide_by: now.plus(policy.ask.decide_by),
                execute_for_ms: u64::try_from(policy.ask.execute_by.as_millis()).unwrap_or(u64::MAX),
            },
            stated_reason: super::stated(call.stated_reason.as_deref()),
            stated_prompt: super::stated(call.stated_prompt.as_deref()),
            targets: case.judged.observation.targets.clone(),
            asked_at: now,
        }))
    }

    /// The approval after a look at the clock; if it expired just now, that is recorded.
    pub(super) async fn expired(&self, held: Versioned) -> Result<Versioned, StoreError> {
        let before = held.approval.state();
        let after = held.approval.clone().at(self.clock.now());
        if after.state() == before {
            return Ok(held);
        }
        let request = after.request().clone();
        let entry = self.entry(EventKind::Expired, Some(request.key), Some(request.id.clone()), json!({"was": before}).to_string());
        match self.store.commit(Change::synced(entry, vec![Effect::Advance(held.next(after.clone()))])).await {
            Ok(_) => {
                self.channel.tell(&after).await;
                Ok(Versioned { approval: after, version: held.version + 1 })
            }
            Err(StoreError::Conflict) => {
                let now = self.store.approval(&request.id).await?;
                now.ok_or_else(|| StoreError::Corrupt(format!("approval {} is gone", request.id)))
            }
            Err(error) => Err(error),
        }
    }

    /// Steps 9 to 13. Everything is looked at again; exactly one redeemer wins. Answers whether it is done.
    async fn redeem(&self, attempt: &Attempt, stage: Stage<IsApproved>, version: i64) -> Result<bool, RouteError> {
        let case = self.judge(attempt, true).await?;
        let request = stage.request.clone();
        let id = Some(request.id.clone());
        let reviewers: Vec<String> = stage.reviews.iter().map(|review| review.approver.clone()).collect();
        let eligible = |name: &str| self.approvers.iter().any(|known| known == name) && case.policy.ask.approvers.iter().any(|n| n == name);
        // Judged again: an approval is of no use where more is asked for now than was given.
        let needed = match decide(&case.policy, &case.judged, case.key, Enforcement::Enforce) {
            Decision::Allow(_) => 0,
            Decision::Approve { quorum } => quorum,
            Decision::Deny { .. } => u8::MAX,
        };
        let redeemed = if stage.reviews.len() < usize::from(needed) {
            Err(RedeemError::Stricter(needed))
        } else {
            stage.clone().redeem(case.key, eligible, &self.settings.instance, self.clock.now())
        };
        let (approval, proof) = match redeemed {
            Ok(redeemed) => redeemed,
            // The next turn records that it expired.
            Err(RedeemError::Late(_)) => return Ok(false),
            Err(error) => {
                let next = Versioned { approval: stage.revoke(&error.to_string(), self.clock.now()), version };
                let data = json!({"why": error.to_string()}).to_string();
                let entry = self.entry(EventKind::ApprovalRevoked, Some(request.key), id, data);
                match self.store.commit(Change::synced(entry, vec![Effect::Advance(next.clone())])).await {
                    Ok(_) => self.channel.tell(&next.approval).await,
                    Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
                return Ok(false);
            }
        };
        let entry = self.entry(EventKind::Redeemed, Some(case.key), id, json!({"by": attempt.caller.name, "reviewers": reviewers}).to_string());
        let change = Change::synced(entry, vec![Effect::Advance(Versioned { approval: approval.clone(), version })]);
        let receipt = match self.store.commit(change).await {
            Ok(receipt) => receipt,
            Err(StoreError::Conflict) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let permit = Permit::new(Grant::Redeemed(proof), receipt)?;
        let held = Versioned { approval, version: version + 1 };
        self.run_approved(attempt, &case, permit, held, reviewers).await?;
        Ok(true)
    }

    /// Tells how an approval that this request did not run itself has ended.
    async fn tell_end(&self, attempt: &Attempt, held: &Versioned, outcome: Outcome) -> Result<(), RouteError> {
        let request = held.approval.request();
        let id = request.id.clone();
        let refusal = match &outcome {
            Outcome::Completed { .. } => match self.store.answer(&id).await? {
                Some(kept) => return self.hand_over(attempt, held, kept, &outcome).await,
                None => Refusal::Answered { approval: id },
            },
            Outcome::OutcomeUnknown { .. } => Refusal::Unknown { subject: id },
            _ => Refusal::Ended { approval: id, outcome },
        };
        self.say(attempt, Said::Refused(refusal)).await;
        Ok(())
    }

    /// Gives the kept answer to the repeated request, once.
    async fn hand_over(&self, attempt: &Attempt, held: &Versioned, kept: Vec<u8>, outcome: &Outcome) -> Result<(), RouteError> {
        // The answer was to another id of the same caller: only the id is put in its place.
        let answer = crate::adapters::upstream::Envelope::read(&kept).map(|envelope| envelope.rebuilt(Some(&attempt.id)));
        let Ok(body) = answer else {
            self.say(attempt, Said::Refused(Refusal::Answered { approval: held.approval.request().id.clone() })).await;
            return Ok(());
        };
        if self.deliver(attempt, Said::Answer(Answer { status: None, body: body.into() })).await {
            self.delivered(held, outcome).await?;
        }
        Ok(())
    }

    /// The answer reached the caller: it is kept no longer, and the next same call asks anew.
    pub(super) async fn delivered(&self, held: &Versioned, outcome: &Outcome) -> Result<(), RouteError> {
        let (Approval::Settled(stage), Outcome::Completed { result, is_error, .. }) = (&held.approval, outcome) else { return Ok(()) };
        let mut stage = stage.clone();
        stage.is.outcome = Outcome::Completed { result: *result, is_error: *is_error, delivered: true };
        stage.is.remembered_until = stage.is.settled_at;
        let request = stage.request.clone();
        let entry = self.entry(EventKind::Delivered, Some(request.key), Some(request.id.clone()), "{}".into());
        let effects = vec![Effect::Advance(held.next(Approval::Settled(stage))), Effect::DropAnswer(request.id.clone())];
        match self.store.commit(Change::synced(entry, effects)).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
