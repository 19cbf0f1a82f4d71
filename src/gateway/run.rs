//! A call that may run: its credential minted, the call sent once, its end recorded, the credential revoked.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::credentials::Minted;
use super::{Attempt, Case, Gateway, Refusal, RouteError, Said};
use crate::adapters::store::{Change, Effect, StoreError, Versioned};
use crate::adapters::upstream::{Answer, Envelope, Exchange, Incoming, InvokeError};
use crate::domain::approval::{Approval, Outcome};
use crate::domain::audit::EventKind;
use crate::domain::digest::Digest;
use crate::domain::permit::Permit;

/// How long an answer is still awaited after the client gave the call up.
const AFTER_CANCEL: Duration = Duration::from_secs(10);
/// Largest answer that is kept for a caller that was gone when it came.
pub(super) const MOST_KEPT: usize = 1 << 20;
/// How often, and how many times, the record of a call's end is tried again.
const SETTLE_AGAIN: Duration = Duration::from_secs(1);
const SETTLE_TRIES: usize = 120;
/// How long an answer waits for its credential to be dead; an issuer that takes longer is not waited for.
const FOR_THE_END: Duration = Duration::from_secs(2);

impl Gateway {
    /// Runs a call that policy allows.
    pub(super) async fn run_allowed(&self, attempt: &Attempt, case: &Case, permit: Permit, subject: String) -> Result<(), RouteError> {
        let call = permit.call();
        let mut minted = match self.mint(attempt, case, &permit, &subject, &[]).await {
            Ok(minted) => minted,
            Err(why) => {
                self.store.commit_later(self.entry(EventKind::Failed, Some(call), Some(subject), json!({"why": why}).to_string()));
                self.say(attempt, Said::Refused(Refusal::Failed { why, approval: None })).await;
                return Ok(());
            }
        };
        let run = Run { subject: &subject, reviewers: &[], merge: true };
        let end = self.send_with(attempt, case, permit, &mut minted, run).await;
        match &end {
            Ok(last) => {
                let (body, said) = last.message(minted.as_ref());
                // The next call may come as soon as this is said, and must find what it said.
                self.trails.heard(&attempt.caller.name, self.clock.now(), &body, case.policy.trust());
                self.say(attempt, said).await;
                // What the answer says of itself, and its digest: off its way.
                tokio::task::yield_now().await;
                self.trails.read(&attempt.caller.name, self.clock.now());
                let (result, is_error) = (Digest::of(&body), is_error(&body));
                let data = json!({"result": result, "is_error": is_error}).to_string();
                self.store.commit_later(self.entry(EventKind::Completed, Some(call), Some(subject), data));
            }
            Err(error) => {
                let (kind, refusal) = match error {
                    InvokeError::NotSent(why) => (EventKind::Failed, Refusal::Failed { why: why.clone(), approval: None }),
                    InvokeError::Lost(_) => (EventKind::OutcomeUnknown, Refusal::Unknown { subject: subject.clone() }),
                };
                tracing::warn!(%error, server = %attempt.server.name, "a call that policy allowed got no answer");
                self.store.commit_later(self.entry(kind, Some(call), Some(subject), json!({"why": error.to_string()}).to_string()));
                self.say(attempt, Said::Refused(refusal)).await;
            }
        }
        self.revoke_minted(minted.as_ref()).await;
        Ok(())
    }

    /// Runs a call whose approval was just used up.
    pub(super) async fn run_approved(
        &self,
        attempt: &Attempt,
        case: &Case,
        permit: Permit,
        held: Versioned,
        reviewers: Vec<String>,
    ) -> Result<(), RouteError> {
        let request = held.approval.request().clone();
        let (call, id) = (permit.call(), request.id.clone());
        let mut minted = match self.mint(attempt, case, &permit, &id, &reviewers).await {
            Ok(minted) => minted,
            Err(why) => return self.put_back(attempt, held, Some(why)).await,
        };
        if attempt.is_gone() || attempt.is_away() {
            self.revoke_minted(minted.as_ref()).await;
            return self.put_back(attempt, held, None).await;
        }
        let Approval::Redeemed(stage) = held.approval.clone() else { return Err(StoreError::Corrupt("not redeemed".into()).into()) };
        let dispatched = Approval::Dispatched(match stage.dispatch(self.clock.now()) {
            Approval::Dispatched(stage) => stage,
            _ => return Err(StoreError::Corrupt("not dispatched".into()).into()),
        });
        let entry = self.entry(EventKind::Dispatched, Some(call), Some(id.clone()), json!({"record": permit.record()}).to_string());
        let advance = Effect::Advance(Versioned { approval: dispatched.clone(), version: held.version });
        if let Err(error) = self.store.commit(Change::synced(entry, vec![advance])).await {
            // Not recorded, so not sent. If it was recorded after all, putting it back loses the race.
            tracing::error!(%error, approval = id, "a call could not be recorded as sent, and was not sent");
            self.revoke_minted(minted.as_ref()).await;
            return self.put_back(attempt, held, Some("the gateway could not record the call".into())).await;
        }
        let held = Versioned { approval: dispatched, version: held.version + 1 };
        let run = Run { subject: &id, reviewers: &reviewers, merge: false };
        let end = self.send_with(attempt, case, permit, &mut minted, run).await;
        if let Ok(last) = &end {
            let (body, _) = last.message(minted.as_ref());
            self.trails.heard(&attempt.caller.name, self.clock.now(), &body, case.policy.trust());
        }
        let mut settled = self.settle(attempt, &held, &end, minted.as_ref()).await;
        // It went out: whatever fails from here on, nobody may be told that it did not run.
        if let Err(error) = &settled {
            tracing::error!(%error, approval = id, "the end of a call could not be recorded; it is tried again");
            self.deliver(attempt, Said::Refused(Refusal::Unknown { subject: id.clone() })).await;
        }
        let told = settled.is_err();
        // Whatever cannot be recorded yet, the credential's time is over now.
        let mut ending = std::pin::pin!(self.revoke_minted(minted.as_ref()));
        let ended = tokio::time::timeout(FOR_THE_END, &mut ending).await.is_ok();
        for _ in 0..SETTLE_TRIES {
            if settled.is_ok() {
                break;
            }
            tokio::time::sleep(SETTLE_AGAIN).await;
            settled = self.settle(attempt, &held, &end, minted.as_ref()).await;
        }
        self.trails.read(&attempt.caller.name, self.clock.now());
        // Never recorded: the gateway after this one finds it dispatched, and records its outcome as unknown.
        if let Ok((held, outcome, said)) = settled {
            self.channels.tell(&held.approval).await;
            if !told
                && self.deliver(attempt, said).await
                && matches!(outcome, Outcome::Completed { .. })
                && let Err(error) = self.delivered(&held, &outcome).await
            {
                tracing::error!(%error, approval = id, "it could not be recorded that the answer was taken: it is kept");
            }
        }
        if !ended {
            ending.await;
        }
        Ok(())
    }

    /// Records how a held call ended, with its answer, before anybody is told.
    async fn settle(
        &self,
        attempt: &Attempt,
        held: &Versioned,
        end: &Result<Last, InvokeError>,
        minted: Option<&Minted>,
    ) -> Result<(Versioned, Outcome, Said), RouteError> {
        let Approval::Dispatched(stage) = held.approval.clone() else { return Err(StoreError::Corrupt("not dispatched".into()).into()) };
        let request = stage.request.clone();
        let id = request.id.clone();
        let mut effects = Vec::new();
        let (kind, outcome, said) = match end {
            Ok(last) => {
                let (body, said) = last.message(minted);
                let outcome = Outcome::Completed { result: Digest::of(&body), is_error: is_error(&body), delivered: false };
                if body.len() <= MOST_KEPT {
                    effects.push(Effect::KeepAnswer(id.clone(), body.to_vec()));
                }
                effects.push(Effect::Learn(request.binding.server.clone(), request.caller.name.clone(), request.targets.clone()));
                (EventKind::Completed, outcome, said)
            }
            Err(InvokeError::NotSent(why)) => {
                let outcome = Outcome::Failed { why: why.clone() };
                (EventKind::Failed, outcome, Said::Refused(Refusal::Failed { why: why.clone(), approval: None }))
            }
            Err(InvokeError::Lost(why)) => {
                let outcome = Outcome::OutcomeUnknown { why: why.clone() };
                (EventKind::OutcomeUnknown, outcome, Said::Refused(Refusal::Unknown { subject: id.clone() }))
            }
        };
        let approval = stage.finish(outcome.clone(), self.clock.now());
        effects.push(Effect::Advance(held.next(approval.clone())));
        let data = json!({"outcome": outcome, "caller_there": !attempt.is_gone()}).to_string();
        let entry = self.entry(kind, Some(request.key), Some(id), data);
        self.store.commit(Change::synced(entry, effects)).await?;
        Ok((Versioned { approval, version: held.version + 1 }, outcome, said))
    }

    /// Nothing was dispatched: the approval is as good as before.
    async fn put_back(&self, attempt: &Attempt, held: Versioned, why: Option<String>) -> Result<(), RouteError> {
        let Approval::Redeemed(stage) = held.approval.clone() else { return Err(StoreError::Corrupt("not redeemed".into()).into()) };
        let request = stage.request.clone();
        let next = held.next(stage.put_back());
        let data = json!({"why": why.as_deref().unwrap_or("the caller has gone")}).to_string();
        let entry = self.entry(EventKind::PutBack, Some(request.key), Some(request.id.clone()), data);
        self.store.commit(Change::synced(entry, vec![Effect::Advance(next)])).await?;
        if let Some(why) = why {
            self.say(attempt, Said::Refused(Refusal::Failed { why, approval: Some(request.id.clone()) })).await;
        }
        Ok(())
    }

    /// Sends a call. Where it certainly did not go out although it had a credential, because the server was not reached or
    /// refused the credential, it is tried once more with a new one.
    async fn send_with(
        &self,
        attempt: &Attempt,
        case: &Case,
        permit: Permit,
        minted: &mut Option<Minted>,
        run: Run<'_>,
    ) -> Result<Last, InvokeError> {
        let (end, permit) = self.send(attempt, permit, minted.as_ref(), run.merge).await;
        let (Err(error), Some(permit), Some(_)) = (&end, permit, minted.as_ref()) else { return end };
        if attempt.is_gone() {
            return end;
        }
        tracing::warn!(%error, server = %attempt.server.name, "a call with a credential did not go out; it is tried once more with a new one");
        self.revoke_minted(minted.as_ref()).await;
        *minted = None;
        match self.mint(attempt, case, &permit, run.subject, run.reviewers).await {
            Ok(again) => *minted = again,
            Err(why) => return Err(InvokeError::NotSent(why)),
        }
        self.send(attempt, permit, minted.as_ref(), run.merge).await.0
    }

    /// Sends the call, once, and hands on what comes before the answer. Until the client gives it up, the credential
    /// dies, or the server answers or is lost.
    async fn send(&self, attempt: &Attempt, permit: Permit, minted: Option<&Minted>, merge: bool) -> (Result<Last, InvokeError>, Option<Permit>) {
        let mut outgoing = attempt.outgoing();
        if attempt.headers.is_none() && attempt.is_stateless() && !attempt.server.is_child {
            // The list is the one that the call was judged by, and is not read again for this.
            if let Ok(known) = self.known_tool(attempt, false).await {
                outgoing.headers.extend(known.mirrors(&attempt.call.arguments));
            }
        }
        if let Some(params) = minted.and_then(|minted| minted.params.as_ref()) {
            outgoing.params = params.to_string();
        }
        let mut back = None;
        let work = async {
            let exchange = attempt.upstream.invoke(permit, minted.map(|minted| &minted.secrets), &outgoing).await;
            let exchange = exchange.map_err(|unanswered| {
                back = unanswered.permit;
                unanswered.error
            });
            match exchange? {
                Exchange::Answer(answer) => Ok(Last::Whole(answer)),
                Exchange::Stream(mut hear) => {
                    while let Some(incoming) = hear.recv().await {
                        let incoming = incoming?;
                        if incoming.last {
                            return Ok(Last::Message(incoming));
                        }
                        // Once we have spoken of a held call, progress of the server's must not fall behind ours.
                        if merge || !starts_anew(&incoming.message) {
                            self.say(attempt, Said::Incoming(scrubbed(incoming, minted))).await;
                        }
                    }
                    Err(InvokeError::Lost("the server ended before it answered".into()))
                }
            }
        };
        let life = minted.map(|minted| minted.good_until.since(self.clock.now()));
        let dead = async {
            match life {
                Some(life) => tokio::time::sleep(life).await,
                None => std::future::pending().await,
            }
        };
        let mut work = Box::pin(work);
        let end = tokio::select! {
            end = &mut work => end,
            () = attempt.gone.cancelled() => {
                attempt.upstream.cancel(&outgoing, None).await;
                let late = tokio::time::timeout(AFTER_CANCEL, &mut work).await;
                late.unwrap_or_else(|_| Err(InvokeError::Lost("the caller gave it up".into())))
            }
            () = dead => {
                attempt.upstream.cancel(&outgoing, Some("the credential's life is over")).await;
                Err(InvokeError::Lost("the credential's life was over before the answer came".into()))
            }
        };
        drop(work);
        (end.map_err(|error| scrubbed_error(error, minted)), back)
    }
}

/// What a run of a call is for.
struct Run<'r> {
    /// The attempt or approval.
    subject: &'r str,
    /// The approvers.
    reviewers: &'r [String],
    /// Whether progress of the server's is handed on from its beginning.
    merge: bool,
}

fn scrubbed_error(error: InvokeError, minted: Option<&Minted>) -> InvokeError {
    match (error, minted.and_then(|minted| minted.secrets.scrubber.as_ref())) {
        (InvokeError::Lost(why), Some(scrubber)) => InvokeError::Lost(scrubber.text(&why)),
        (InvokeError::NotSent(why), Some(scrubber)) => InvokeError::NotSent(scrubber.text(&why)),
        (error, None) => error,
    }
}

/// The last message of a call.
enum Last {
    Message(Incoming),
    Whole(Answer),
}

impl Last {
    /// The response, and what is said of it, without the credential that the server may have echoed.
    fn message(&self, minted: Option<&Minted>) -> (bytes::Bytes, Said) {
        match self {
            Self::Whole(answer) => {
                let body = scrub(&answer.body, minted);
                (body.clone(), Said::Answer(Answer { status: answer.status, body }))
            }
            Self::Message(incoming) => {
                let incoming = scrubbed(incoming.clone(), minted);
                let body = incoming.message.clone();
                let said = match incoming.event {
                    Some(_) => Said::Incoming(incoming),
                    None => Said::Answer(Answer::from(incoming)),
                };
                (body, said)
            }
        }
    }
}

fn scrubbed(incoming: Incoming, minted: Option<&Minted>) -> Incoming {
    let message = scrub(&incoming.message, minted);
    let event = incoming.event.map(|raw| {
        let clean = scrub(&raw, minted);
        // A secret may stand in it broken over several lines of data, and only the message shows it.
        if message != incoming.message { crate::adapters::upstream::event(&message) } else { clean }
    });
    Incoming { message, event, last: incoming.last }
}

/// The bytes without the credential, in whatever form programs write it.
fn scrub(bytes: &bytes::Bytes, minted: Option<&Minted>) -> bytes::Bytes {
    let clean = minted.and_then(|minted| minted.secrets.scrubber.as_ref()).and_then(|scrubber| scrubber.scrub(bytes));
    clean.map_or_else(|| bytes.clone(), Into::into)
}

/// Whether a message is progress that counts from zero, where ours came before.
fn starts_anew(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Progress {
        progress: f64,
    }
    let Ok(envelope) = Envelope::read(message) else { return false };
    envelope.is("notifications/progress")
        && envelope.params.and_then(|p| serde_json::from_str::<Progress>(p.get()).ok()).is_some_and(|p| p.progress <= 0.001)
}

/// Whether a response says that the tool failed.
fn is_error(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        is_error: bool,
    }
    let Ok(envelope) = Envelope::read(body) else { return true };
    match envelope.result {
        Some(result) => serde_json::from_str::<Head>(result.get()).is_ok_and(|head| head.is_error),
        None => true,
    }
}
