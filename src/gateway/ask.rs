//! The question: what approvers are asked of a held call, whom, from when on; or that one of them allowed it before.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Attempt, Case, Gateway, Refusal, RouteError};
use crate::domain::approval::{AgainTerms, Allowance, Approval, Escalation, Request, Review, ReviewVerdict, Terms};
use crate::domain::call::CallDigest;
use crate::domain::clock::Timestamp;
use crate::domain::json::{Value, canonical};
use crate::domain::policy::RuleDecision;
use crate::system::random_hex;

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl Gateway {
    /// What approvers are asked. Refused where fewer people are left than must approve.
    pub(super) fn request(&self, attempt: &Attempt, case: &Case, quorum: u8) -> Result<Result<Request, Refusal>, RouteError> {
        let (policy, call, caller) = (&case.policy, &attempt.call, &attempt.caller);
        let now = self.clock.now();
        let owner = |name: &String| caller.owner.as_ref() == Some(name) && !policy.ask.owner_may_approve;
        let known = |name: &String| self.people.is_person(name) || self.people.is_group(name);
        let may = |names: &[String]| -> Vec<String> { names.iter().filter(|n| known(n) && **n != caller.name && !owner(n)).cloned().collect() };
        let approvers = may(&policy.ask.approvers);
        let escalation = self.stages(&approvers, policy.ask.escalate.iter().map(|(after, names)| (*after, may(names))), now);
        let all: BTreeSet<&String> = approvers.iter().chain(escalation.iter().flat_map(|e| &e.approvers)).collect();
        // A group stands for several; who that is shows when they decide.
        if all.len() < usize::from(quorum) && !all.iter().any(|name| self.people.is_group(name)) {
            let because = format!("{quorum} must approve this call and {} may: whoever answers for the caller does not count", all.len());
            return Ok(Err(Refusal::Denied { because }));
        }
        let id = random_hex::<16>()?;
        let again = policy.ask.again.as_ref().zip(policy.again_key(call, caller, &case.binding)).filter(|_| quorum == 1);
        let show = &policy.show;
        let title = match &show.title {
            // A title goes into the record and the log as well: never with a secret in it.
            Some(title) if !self.carries_secret(case) => title.title(&call.arguments, |pointer| show.is_masked(pointer)),
            _ => format!("{} on {}", crate::domain::text::visible(&call.tool), attempt.server.name),
        };
        let credential = self.credential_shown(case);
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
                execute_for_ms: millis(policy.ask.execute_by),
                escalation,
                notify: policy.ask.notify.clone(),
                remind_at: policy.ask.remind.map(|after| now.plus(after)),
                assurance: policy.ask.assurance,
                cool_down_ms: millis(policy.ask.cool_down),
                again: again.map(|(again, key)| AgainTerms {
                    for_ms: millis(again.length),
                    times: again.times,
                    max_score: again.max_score,
                    key,
                    vary: again.vary.iter().map(ToString::to_string).collect(),
                }),
            },
            stated_reason: super::stated(call.stated_reason.as_deref()),
            stated_prompt: self.stated_prompt(call, show).0,
            targets: case.judged.observation.targets.clone(),
            asked_at: now,
        }))
    }

    /// When further people are asked: after their time, or at once where nobody before them is on duty and they are.
    fn stages(&self, first: &[String], later: impl Iterator<Item = (Duration, Vec<String>)>, now: Timestamp) -> Vec<Escalation> {
        let on_duty = |names: &[String]| names.iter().any(|name| self.people.is_on_duty(name, now));
        let later: Vec<(Duration, Vec<String>)> = later.filter(|(_, names)| !names.is_empty()).collect();
        let mut early = !on_duty(first) && later.iter().any(|(_, names)| on_duty(names));
        let mut stages = Vec::with_capacity(later.len());
        for (after, approvers) in later {
            let from = if early { now } else { now.plus(after) };
            early = early && !on_duty(&approvers);
            stages.push(Escalation { approvers, from });
        }
        stages
    }

    /// The approval that an allowance makes of a request, where one covers it.
    pub(super) async fn by_allowance(&self, request: &Request) -> Result<Option<(Approval, Allowance)>, RouteError> {
        let Some(terms) = &request.terms.again else { return Ok(None) };
        let now = self.clock.now();
        let Some(allowance) = self.store.allowance(terms.key, now).await? else { return Ok(None) };
        if !allowance.covers(request.assessment.score, now) {
            return Ok(None);
        }
        let Ok(capacity) = self.capacity(request, &allowance.approver, Allowance::CHANNEL).await else { return Ok(None) };
        let review = Review {
            approver: allowance.approver.clone(),
            verdict: ReviewVerdict::Approve,
            reason: None,
            shown: request.digest,
            channel: Allowance::CHANNEL.into(),
            assurance: allowance.assurance(),
            level: request.terms.assurance,
            capacity,
            again: None,
            at: now,
        };
        match Approval::open(request.clone()) {
            Approval::Pending(stage) => Ok(stage.review(review, now).ok().map(|approved| (approved, allowance))),
            _ => Ok(None),
        }
    }
}
