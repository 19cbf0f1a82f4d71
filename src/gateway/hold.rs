//! A held call: put to approvers, waited for, and then redeemed or refused.
//!
//! The same call repeated finds the approval that is there: it attaches, redeems, or is told how it ended. It never
//! asks twice, and never runs twice. Nothing runs for a client that has gone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{SemaphorePermit, broadcast};

use super::{Attempt, Case, Gateway, Refusal, RouteError, Said, TURNS};
use crate::adapters::channel::people::StandingError;
use crate::adapters::store::{Change, Effect, StoreError, Versioned};
use crate::adapters::upstream::Answer;
use crate::domain::approval::{Approval, IsApproved, Outcome, RedeemError, Review, Stage};
use crate::domain::audit::EventKind;
use crate::domain::decision::{Decision, Enforcement, decide};
use crate::domain::permit::{Grant, Permit};
use crate::system::random_hex;

/// How long a repeated call waits to see whether an answer is being taken right now.
const DELIVERY: Duration = Duration::from_millis(200);

/// How often an approved call looks whether its client has come back.
const RETURN: Duration = Duration::from_millis(200);

/// How long a request is held whose client sends it again by itself: shorter than the 60 s after which the official SDKs
/// give up.
const LEG: Duration = Duration::from_secs(50);
/// How often a task is looked at although nothing changed.
const LOOK: Duration = Duration::from_secs(15);

/// Why a call that waits looks up.
enum Woken {
    /// Its approval changed, or may have.
    Changed,
    /// Its client is to hear that it still waits.
    Progress,
    /// It is held no longer.
    Over,
}

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
    pub(super) async fn hold(
        &self,
        attempt: &Attempt,
        case: Box<Case>,
        quorum: u8,
        mut judging: Option<SemaphorePermit<'_>>,
    ) -> Result<(), RouteError> {
        // Before the approval is looked up, so that no change after that is missed.
        let mut changes = self.store.changes();
        let held = match Box::pin(self.attach(attempt, &case, quorum, &mut changes, &mut judging)).await? {
            Ok(held) => held,
            Err(refusal) => {
                self.say(attempt, Said::Refused(refusal)).await;
                return Ok(());
            }
        };
        drop((case, judging));
        if attempt.takes_tasks() && !matches!(held.approval, Approval::Settled(_)) {
            return Box::pin(self.as_task(attempt, held, changes)).await;
        }
        let budget = self.settings.patience.of(attempt.client_name());
        let has_token = attempt.call.protocol_meta.get("progressToken").is_some();
        let asks_again = attempt.is_stateless() && attempt.round < self.settings.rounds;
        let limit = match (asks_again, has_token) {
            (true, _) => budget.silent.min(LEG),
            (false, true) => budget.with_progress,
            (false, false) => budget.silent,
        };
        self.wait(attempt, held, &mut changes, Some(limit)).await
    }

    /// Waits for the end of an approval, at most `limit` long, and runs the call once it is approved.
    pub(super) async fn wait(
        &self,
        attempt: &Attempt,
        mut held: Versioned,
        changes: &mut broadcast::Receiver<Arc<str>>,
        limit: Option<Duration>,
    ) -> Result<(), RouteError> {
        let id = held.approval.request().id.clone();
        let started = self.clock.now();
        let has_token = attempt.call.protocol_meta.get("progressToken").is_some();
        let every = self.settings.progress_every;
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        if has_token && matches!(held.approval, Approval::Pending(_)) {
            self.say(attempt, Said::Waiting(self.waiting(&held.approval))).await;
        }
        loop {
            held = Box::pin(self.expired(held)).await?;
            match &held.approval {
                Approval::Pending(_) => {}
                Approval::Approved(stage) => {
                    if attempt.is_gone() {
                        return Ok(());
                    }
                    if attempt.is_away() {
                        tokio::time::sleep(RETURN).await;
                        held = self.store.approval(&id).await?.ok_or_else(|| StoreError::Corrupt(format!("approval {id} is gone")))?;
                        continue;
                    }
                    // On the heap, and only now: ten thousand calls that wait must not each have room for what comes after.
                    if Box::pin(self.redeem(attempt, stage.clone(), held.version)).await? {
                        return Ok(());
                    }
                }
                // Another request of the same caller runs it right now: its end is awaited.
                Approval::Redeemed(_) | Approval::Dispatched(_) => {}
                Approval::Settled(stage) => return self.tell_end(attempt, &held, stage.is.outcome.clone()).await,
            }
            // Ten thousand calls wait at once: what can be read again is not kept meanwhile.
            drop(held);
            let over = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit.saturating_sub(self.clock.now().since(started))).await,
                    // A task is waited for until its approval ends, and a look at the clock tells that.
                    None => tokio::time::sleep(LOOK).await,
                }
            };
            let woken = tokio::select! {
                () = changed(changes, &id) => Woken::Changed,
                _ = progress.tick(), if has_token => Woken::Progress,
                () = over => if limit.is_some() { Woken::Over } else { Woken::Changed },
                () = attempt.gone.cancelled() => return Ok(()),
                // What runs is not cut off here, as what waits for somebody to ask for it is.
                () = self.closing.cancelled(), if limit.is_none() => return Ok(()),
                () = attempt.say.closed() => return Ok(()),
            };
            held = self.store.approval(&id).await?.ok_or_else(|| StoreError::Corrupt(format!("approval {id} is gone")))?;
            match woken {
                Woken::Changed => {}
                Woken::Progress => self.say(attempt, Said::Waiting(self.waiting(&held.approval))).await,
                Woken::Over => {
                    let refusal = self.not_yet(attempt, &held.approval);
                    self.say(attempt, Said::Refused(refusal)).await;
                    return Ok(());
                }
            }
        }
    }

    /// What a client is told whose call still waits when it is held no longer.
    fn not_yet(&self, attempt: &Attempt, approval: &Approval) -> Refusal {
        let waiting = self.waiting(approval);
        if attempt.is_stateless() && attempt.round < self.settings.rounds {
            let until = approval.request().terms.decide_by.plus(Duration::from_millis(approval.request().terms.execute_for_ms));
            if let Some(state) = self.state_of(attempt, until) {
                return Refusal::Again { state, waiting };
            }
        }
        match approval {
            Approval::Redeemed(_) | Approval::Dispatched(_) => Refusal::Running { approval: approval.request().id.clone() },
            _ => Refusal::Pending(waiting),
        }
    }

    /// The approval of this call: the one that is there, or a new one. There is none where nobody could approve it.
    async fn attach(
        &self,
        attempt: &Attempt,
        case: &Case,
        quorum: u8,
        changes: &mut broadcast::Receiver<Arc<str>>,
        judging: &mut Option<SemaphorePermit<'_>>,
    ) -> Result<Result<Versioned, Refusal>, RouteError> {
        let mut waited = false;
        // Each turn either finds one, opens one, or lost a race that somebody else won.
        for _ in 0..TURNS {
            if let Some(found) = self.store.find(case.key, self.clock.now()).await? {
                let found = self.expired(found).await?;
                // Its answer may be on its way to whoever asked before, who then asks anew: the record of that is a moment
                // behind the answer itself.
                if !waited && matches!(&found.approval, Approval::Settled(s) if matches!(s.is.outcome, Outcome::Completed { delivered: false, .. })) {
                    waited = true;
                    // Others take their turn meanwhile.
                    drop(judging.take());
                    drop(tokio::time::timeout(DELIVERY, changed(changes, &found.approval.request().id)).await);
                    continue;
                }
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
                    self.record_refused(attempt, case, "nobody may approve it").await?;
                    return Ok(Err(refusal));
                }
            };
            if let Some((approval, allowance)) = self.by_allowance(&request).await? {
                let more = json!({"approval": request.id, "digest": request.digest, "allowance": allowance.id, "approver": allowance.approver, "title": request.title});
                let entry = self.entry(EventKind::AllowanceUsed, Some(case.key), Some(request.id.clone()), self.described(attempt, case, more));
                let effects = vec![Effect::Open(approval.clone()), Effect::UseAllowance(allowance.id)];
                match self.store.commit(Change::synced(entry, effects)).await {
                    Ok(_) => return Ok(Ok(Versioned { approval, version: 1 })),
                    Err(StoreError::Conflict) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            if self.store.pending_of(&attempt.caller.name).await? >= self.settings.pending_per_caller {
                let why = format!("{} calls of this caller wait for people already", self.settings.pending_per_caller);
                self.record_refused(attempt, case, &why).await?;
                return Ok(Err(Refusal::Failed { why, approval: None }));
            }
            let (id, approval) = (request.id.clone(), Approval::open(request));
            let request = approval.request();
            let data = self.described(
                attempt,
                case,
                json!({
                    "approval": id, "digest": request.digest, "approvers": request.terms.approvers, "quorum": quorum,
                    "decide_by": request.terms.decide_by.to_string(), "channels": self.channels.names(), "title": request.title,
                    "credential": request.credential.as_ref().map(|c| &c.scope), "demands": request.demands,
                }),
            );
            let entry = self.entry(EventKind::Asked, Some(case.key), Some(id), data);
            match self.store.commit(Change::synced(entry, vec![Effect::Open(approval.clone())])).await {
                Ok(_) => {
                    self.channels.ask(&approval).await;
                    return Ok(Ok(Versioned { approval, version: 1 }));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Records a call that is refused although the policy would have people asked.
    async fn record_refused(&self, attempt: &Attempt, case: &Case, because: &str) -> Result<(), RouteError> {
        let data = self.described(attempt, case, json!({"because": because}));
        self.record(EventKind::Denied, Some(case.key), Some(random_hex::<16>()?), data).await?;
        Ok(())
    }

    /// The approval after a look at the clock; if it expired just now, that is recorded.
    pub(super) async fn expired(&self, held: Versioned) -> Result<Versioned, StoreError> {
        let before = held.approval.state();
        let after = held.approval.clone().at(self.clock.now());
        if after.state() == before {
            return Ok(held);
        }
        match self.advance(&held, after.clone(), EventKind::Expired, json!({"was": before}), vec![]).await {
            Ok(()) => Ok(Versioned { approval: after, version: held.version + 1 }),
            Err(StoreError::Conflict) => {
                let id = &after.request().id;
                let now = self.store.approval(id).await?;
                now.ok_or_else(|| StoreError::Corrupt(format!("approval {id} is gone")))
            }
            Err(error) => Err(error),
        }
    }

    /// Steps 9 to 13. Everything is looked at again; exactly one redeemer wins. Answers whether it is done.
    async fn redeem(&self, attempt: &Attempt, stage: Stage<IsApproved>, version: i64) -> Result<bool, RouteError> {
        let known = self.known_tool(attempt, true).await?;
        let turn = self.turn(attempt).await;
        let case = self.judge(attempt, &known).await?;
        let request = stage.request.clone();
        let id = Some(request.id.clone());
        let reviewers: Vec<String> = stage.reviews.iter().map(|review| review.approver.clone()).collect();
        let gone = match self.gone(&stage).await {
            Ok(gone) => gone,
            // The approval is not void: it is good again once this can be found out.
            Err(error) => {
                tracing::warn!(%error, approval = %request.id, "an approved call does not run");
                let why = "it could not be checked whether those who approved still may".to_owned();
                self.say(attempt, Said::Refused(Refusal::Failed { why, approval: id })).await;
                return Ok(true);
            }
        };
        let eligible = |review: &Review| !gone.contains(&review.approver);
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
                let held = Versioned { approval: Approval::Approved(stage.clone()), version };
                let next = stage.revoke(&error.to_string(), self.clock.now());
                return match self.advance(&held, next, EventKind::ApprovalRevoked, json!({"why": error.to_string()}), vec![]).await {
                    Ok(()) | Err(StoreError::Conflict) => Ok(false),
                    Err(error) => Err(error.into()),
                };
            }
        };
        let entry = self.entry(EventKind::Redeemed, Some(case.key), id, json!({"by": attempt.caller.name, "reviewers": reviewers}).to_string());
        let mut effects = vec![Effect::Advance(Versioned { approval: approval.clone(), version })];
        effects.extend(self.spends(attempt, &case));
        let change = Change::synced(entry, effects);
        let receipt = match self.store.commit(change).await {
            Ok(receipt) => receipt,
            Err(StoreError::Conflict) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        drop(turn);
        let permit = Permit::new(Grant::Redeemed(proof), receipt)?;
        let held = Versioned { approval, version: version + 1 };
        self.run_approved(attempt, &case, permit, held, reviewers).await?;
        Ok(true)
    }

    /// Those who approved and may not any more.
    ///
    /// # Errors
    /// If that could not be found out.
    async fn gone(&self, stage: &Stage<IsApproved>) -> Result<Vec<String>, StandingError> {
        let mut gone = Vec::new();
        for review in &stage.reviews {
            match self.capacity(&stage.request, &review.approver, &review.channel).await {
                Ok(_) => {}
                Err(error @ StandingError::Unknown { .. }) => return Err(error),
                Err(_) => gone.push(review.approver.clone()),
            }
        }
        Ok(gone)
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
            outcome => {
                if matches!(outcome, Outcome::Denied { .. }) {
                    self.trails.denied(&attempt.caller.name, self.clock.now(), attempt.repeated().bytes());
                }
                Refusal::Ended { approval: id, outcome: outcome.clone() }
            }
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
        let dropped = Effect::DropAnswer(held.approval.request().id.clone());
        Ok(self.handed_over(held, outcome, vec![dropped]).await?)
    }

    /// The answer of a task reached its caller, who may ask for it again.
    pub(super) async fn collected(&self, held: &Versioned, outcome: &Outcome) -> Result<(), StoreError> {
        self.handed_over(held, outcome, vec![]).await
    }

    async fn handed_over(&self, held: &Versioned, outcome: &Outcome, more: Vec<Effect>) -> Result<(), StoreError> {
        let (Approval::Settled(stage), Outcome::Completed { result, is_error, delivered: false }) = (&held.approval, outcome) else { return Ok(()) };
        let mut stage = stage.clone();
        stage.is.outcome = Outcome::Completed { result: *result, is_error: *is_error, delivered: true };
        stage.is.remembered_until = stage.is.settled_at;
        let request = stage.request.clone();
        let entry = self.entry(EventKind::Delivered, Some(request.key), Some(request.id.clone()), "{}".into());
        let mut effects = vec![Effect::Advance(held.next(Approval::Settled(stage)))];
        effects.extend(more);
        match self.store.commit(Change::synced(entry, effects)).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
