//! What people do in Slack: kept first, confirmed within Slack's three seconds, and then judged.
//!
//! A click carries a nonce, which names a card and nothing else. Who clicked comes from Slack's own fields, is mapped
//! to an approver by ids, and is judged by the gateway. Clicks may come twice, late, or never: what counts is the
//! approval's state, never how often somebody pressed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::card::{Buttons, Drawn, Message, TYPED_FROM, line};
use super::modal::{self, Notice, Private};
use super::payload::{Action, Payload, View};
use super::{Delivery, KIND, Shared};
use crate::adapters::channel::people::SlackId;
use crate::adapters::channel::{DeskError, PostDesk, Verdict};
use crate::domain::approval::{Again, Approval, Posted, ReviewVerdict};
use crate::domain::audit::EventKind;
use crate::domain::clock::Timestamp;
use crate::domain::policy::Assurance;
use crate::domain::text::{shortened, visible};

/// How long a trigger is good for a modal.
const TRIGGER: Duration = Duration::from_secs(3);
/// After so long nobody is looking at a click any more that is still kept.
const FORGOTTEN: Duration = Duration::from_secs(20);
/// How long the way to a modal may take to find out whether somebody may decide: after that it opens, and it is found
/// out when they do.
const GLANCE: Duration = Duration::from_millis(800);

/// Takes clicks.
#[derive(Clone)]
pub(super) struct Clicks {
    shared: Arc<Shared>,
    desk: Arc<dyn PostDesk>,
}

/// A click that is kept.
pub(super) struct Taken {
    /// What it is confirmed with, beside that it came.
    pub(super) answer: Option<Value>,
    /// What is left to do; nothing for one that came before, or that is answered already.
    pub(super) work: Option<Work>,
}

/// What is left to do after a click was confirmed.
pub(super) struct Work {
    id: String,
    payload: Payload,
    at: Timestamp,
}

/// What a person said.
struct Said {
    verdict: ReviewVerdict,
    reason: Option<String>,
    code: Option<String>,
    again: Option<Again>,
}

impl Said {
    fn only(verdict: ReviewVerdict) -> Self {
        Self { verdict, reason: None, code: None, again: None }
    }
}

impl Clicks {
    pub(super) fn new(shared: Arc<Shared>, desk: Arc<dyn PostDesk>) -> Self {
        Self { shared, desk }
    }

    /// Where what is left to do is done.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Keeps a click. `id` is the same for the same click where that can be known.
    ///
    /// # Errors
    /// If it could not be kept: then it must not be confirmed.
    pub(super) async fn take(&self, id: &str, body: &str) -> Result<Taken, DeskError> {
        self.shared.metrics.clicks.inc();
        let at = self.shared.clock.now();
        let Ok(payload) = serde_json::from_str::<Payload>(body) else {
            tracing::warn!("something came from Slack that is neither a click nor a submission");
            return Ok(Taken { answer: None, work: None });
        };
        // A form with a mistake decides nothing: its sender mends it.
        if let Some(errors) = self.mistakes(&payload).await? {
            return Ok(Taken { answer: Some(json!({"response_action": "errors", "errors": errors})), work: None });
        }
        let fresh = self.desk.keep_click(id, body.as_bytes()).await?;
        let answer = match &payload.view {
            Some(_) if payload.kind == "view_submission" => {
                Some(json!({"response_action": "update", "view": modal::said("One moment", "Your decision is being checked.")}))
            }
            _ => None,
        };
        Ok(Taken { answer, work: fresh.then(|| Work { id: id.to_owned(), payload, at }) })
    }

    /// Does what is left to do.
    pub(super) async fn work(&self, work: Work) {
        self.judge(&work.payload, work.at).await;
        if let Err(error) = self.desk.click_done(&work.id).await {
            tracing::error!(%error, "a click could not be put aside; it is looked at again after a restart");
        }
    }

    /// Looks at what was kept and nobody looked at, until stopped. Where clicks come over sockets, everything that is kept
    /// at the start is from before it; else another gateway may be looking right now, and has some time for it.
    pub(super) async fn catch_up(&self, stop: &CancellationToken) {
        let mut age = match self.shared.settings.clicks {
            Delivery::Sockets { .. } => Duration::ZERO,
            Delivery::Signed { .. } => FORGOTTEN,
        };
        loop {
            match self.desk.clicks().await {
                Ok(kept) => {
                    let now = self.shared.clock.now();
                    for (id, body, at) in kept.into_iter().filter(|(_, _, at)| now.since(*at) >= age) {
                        if let Ok(payload) = serde_json::from_slice(&body) {
                            self.work(Work { id, payload, at }).await;
                        }
                    }
                    age = FORGOTTEN;
                }
                Err(error) => tracing::error!(%error, "clicks that were kept could not be read"),
            }
            if tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// What is wrong with a form, by field.
    async fn mistakes(&self, payload: &Payload) -> Result<Option<Value>, DeskError> {
        let Some(view) = payload.view.as_ref().filter(|_| payload.kind == "view_submission") else { return Ok(None) };
        let mut errors = serde_json::Map::new();
        if view.callback_id == "deny" && view.field("reason").is_none_or(|reason| reason.trim().is_empty()) {
            errors.insert("reason".into(), "Say why: the agent is told, and it is kept in the record.".into());
        }
        if view.callback_id == "review"
            && let Some((_, approval)) = self.subject(view).await?
        {
            let request = approval.request();
            if request.assessment.score >= TYPED_FROM && !view.field("target").is_some_and(|typed| modal::is_typed(request, typed)) {
                errors.insert("target".into(), "This is not what is asked for. Nothing was approved.".into());
            }
            let six = |code: &str| code.chars().filter(|c| !c.is_whitespace()).filter(char::is_ascii_digit).count() == 6;
            if request.terms.assurance == Assurance::Totp && !view.field("code").is_some_and(six) {
                errors.insert("code".into(), "Six digits.".into());
            }
        }
        Ok((!errors.is_empty()).then_some(Value::Object(errors)))
    }

    /// What a modal carries, and the approval that it belongs to.
    async fn subject(&self, view: &View) -> Result<Option<(Private, Approval)>, DeskError> {
        let Ok(private) = serde_json::from_str::<Private>(&view.private_metadata) else { return Ok(None) };
        Ok(self.carded(&private.nonce).await?.map(|(_, approval)| (private, approval)))
    }

    async fn carded(&self, nonce: &str) -> Result<Option<(Posted, Approval)>, DeskError> {
        let Some(posted) = self.desk.posted_with(nonce).await? else { return Ok(None) };
        let approval = self.desk.approval(&posted.approval).await?;
        Ok(approval.map(|approval| (posted, approval)))
    }

    async fn judge(&self, payload: &Payload, at: Timestamp) {
        // The links of modals and pages are answered by having come.
        if payload.actions.iter().any(|action| action.action_id == "open") {
            return;
        }
        let refused = self.judged(payload, at).await.err();
        if let Some(refused) = refused {
            self.answer(payload, &refused).await;
        }
    }

    /// # Errors
    /// What to tell the person.
    async fn judged(&self, payload: &Payload, at: Timestamp) -> Result<(), String> {
        let Some(account) = payload.person() else { return Err(self.stranger(payload, None, "nobody can tell who clicked").await) };
        if payload.api_app_id.as_deref() != Some(&self.shared.settings.app_id) {
            return Err(self.stranger(payload, Some(&account), "the click is another app's").await);
        }
        let Some(approver) = self.shared.people.of_slack(&account).map(str::to_owned) else {
            return Err(self.stranger(payload, Some(&account), "no approver has this account").await);
        };
        match (payload.kind.as_str(), &payload.view, payload.actions.first()) {
            ("view_submission", Some(view), _) => self.submitted(view, &account, &approver).await,
            ("block_actions", Some(view), Some(action)) => self.turned(view, action, &approver).await,
            ("block_actions", None, Some(action)) => self.pressed(payload, action, &account, &approver, at).await,
            _ => Ok(()),
        }
    }

    /// A button on a card.
    async fn pressed(&self, payload: &Payload, action: &Action, account: &SlackId, approver: &str, at: Timestamp) -> Result<(), String> {
        let nonce = action.value.as_deref().unwrap_or_default();
        let (posted, approval) = self.carded(nonce).await.map_err(plainly)?.ok_or("This button is not known here. Nothing was decided.")?;
        self.adopt(payload, &posted).await;
        let private = Private { nonce: nonce.to_owned(), page: 0 };
        let trigger = payload.trigger_id.as_deref().filter(|_| self.shared.clock.now().since(at) < TRIGGER);
        match action.action_id.as_str() {
            "approve" if self.has_approve(&approval, nonce).await.map_err(plainly)? => {
                self.verdict(&approval, approver, account, Said::only(ReviewVerdict::Approve)).await.map(drop)
            }
            // Whoever forged a button on a card that has none is shown the whole call, as anybody is.
            "review" | "approve" => {
                let trigger = trigger.ok_or("Slack delivered this click too late to open anything. Press again.")?;
                let refused = self.glance(&approval, approver).await;
                let view = self.page(&approval, &private, Notice { refused: refused.as_deref(), failed: None });
                self.open(trigger, view).await
            }
            "deny" => {
                let trigger = trigger.ok_or("Slack delivered this click too late to open anything. Press again.")?;
                if let Some(refused) = self.glance(&approval, approver).await {
                    return Err(refused);
                }
                let drawn = Drawn { approval: &approval, before: None, people: &self.shared.people, now: self.shared.clock.now() };
                self.open(trigger, modal::deny(&drawn, &private)).await
            }
            "end-allowance" => self.end_allowance(&approval, approver).await,
            _ => Ok(()),
        }
    }

    /// Whether the card of this call has the button: a press of one that is not there must not count.
    async fn has_approve(&self, approval: &Approval, nonce: &str) -> Result<bool, DeskError> {
        let before = self.desk.before(approval).await?;
        let drawn = Drawn { approval, before: before.as_ref(), people: &self.shared.people, now: self.shared.clock.now() };
        Ok(drawn.asking(Buttons::Decide(nonce), &[]).approves())
    }

    /// A button in a modal: another page.
    async fn turned(&self, view: &View, action: &Action, approver: &str) -> Result<(), String> {
        let Some(page) = action.action_id.strip_prefix("page-").and_then(|n| n.parse().ok()) else { return Ok(()) };
        let Some((private, approval)) = self.subject(view).await.map_err(plainly)? else { return Ok(()) };
        let refused = self.glance(&approval, approver).await;
        let next = self.page(&approval, &Private { page, ..private }, Notice { refused: refused.as_deref(), failed: None });
        self.redraw(view, next).await;
        Ok(())
    }

    /// A decision made in a modal.
    async fn submitted(&self, view: &View, account: &SlackId, approver: &str) -> Result<(), String> {
        let next = match self.decided(view, account, approver).await {
            Ok(words) => modal::said("Done", &words),
            Err(why) => self.once_more(view, approver, &why).await.unwrap_or_else(|| modal::said("Not counted", &why)),
        };
        self.redraw(view, next).await;
        Ok(())
    }

    /// The same page again, with why it did not count, where trying again may help.
    async fn once_more(&self, view: &View, approver: &str, why: &str) -> Option<Value> {
        let (private, approval) = self.subject(view).await.ok()??;
        if view.callback_id != "review" || self.glance(&approval, approver).await.is_some() {
            return None;
        }
        Some(self.page(&approval, &private, Notice { refused: None, failed: Some(why) }))
    }

    async fn decided(&self, view: &View, account: &SlackId, approver: &str) -> Result<String, String> {
        let (private, approval) = self.subject(view).await.map_err(plainly)?.ok_or("This form is not known here. Nothing was decided.")?;
        let reason = view.field("reason").map(str::to_owned);
        match view.callback_id.as_str() {
            "deny" => self.verdict(&approval, approver, account, Said { reason, ..Said::only(ReviewVerdict::Deny) }).await,
            "review" => {
                let request = approval.request();
                // Looked at again: the form that was sent need not be the one that was drawn.
                if request.assessment.score >= TYPED_FROM && !view.field("target").is_some_and(|typed| modal::is_typed(request, typed)) {
                    return Err("The target was not typed as asked for. Nothing was approved.".into());
                }
                match modal::pages(request) {
                    None => return Err("This call is too long for Slack: decide in the inbox. Nothing was approved.".into()),
                    Some(count) if private.page + 1 != count => {
                        return Err("Only the last page decides, after all others. Nothing was approved.".into());
                    }
                    Some(_) => {}
                }
                let code = view.field("code").map(str::to_owned);
                let again = view.field("again").filter(|answer| *answer == "yes").and_then(|_| modal::again(request));
                self.verdict(&approval, approver, account, Said { verdict: ReviewVerdict::Approve, reason, code, again }).await
            }
            _ => Err("This form is not known here. Nothing was decided.".into()),
        }
    }

    async fn verdict(&self, approval: &Approval, approver: &str, account: &SlackId, said: Said) -> Result<String, String> {
        let request = approval.request();
        let verdict = Verdict {
            approval: request.id.clone(),
            approver: approver.to_owned(),
            verdict: said.verdict,
            reason: said.reason,
            shown: request.digest,
            channel: KIND,
            assurance: format!("Slack session of {account}"),
            code: said.code,
            again: said.again,
        };
        let next = self.desk.review(verdict).await.map_err(plainly)?;
        Ok(match &next {
            Approval::Pending(stage) => format!("Approved. {} of {} have approved.", stage.reviews.len(), request.terms.quorum),
            Approval::Settled(_) => "Denied. It does not run.".into(),
            _ => "Approved. It runs once, when the caller collects it.".into(),
        })
    }

    async fn end_allowance(&self, approval: &Approval, approver: &str) -> Result<(), String> {
        let allowance = self.desk.allowance_of(&approval.request().id).await.map_err(plainly)?;
        let allowance = allowance.ok_or("It is over already.")?;
        self.desk.end_allowance(&allowance.id, approver, "Slack session").await.map_err(plainly)?;
        Err("Stopped: such calls are asked for again.".into())
    }

    /// Whether somebody could decide, as far as that can be found out quickly; else why not.
    async fn glance(&self, approval: &Approval, approver: &str) -> Option<String> {
        let Approval::Pending(stage) = approval else {
            return Some(format!("Nothing to decide: this call is {}.", approval.state()));
        };
        let request = &stage.request;
        let owner = request.caller.owner.as_deref().filter(|_| !request.terms.owner_may_approve);
        if owner == Some(approver) {
            return Some("You answer for this caller, so you may not approve its calls.".into());
        }
        if stage.reviews.iter().any(|review| review.approver == approver) {
            return Some("You have decided.".into());
        }
        match tokio::time::timeout(GLANCE, self.desk.standing(approval, approver)).await {
            Ok(Err(error)) => Some(format!("This call is not for you to decide: {error}.")),
            Ok(Ok(())) | Err(_) => None,
        }
    }

    fn page(&self, approval: &Approval, private: &Private, notice: Notice<'_>) -> Value {
        let drawn = Drawn { approval, before: None, people: &self.shared.people, now: self.shared.clock.now() };
        let inbox = format!("{}/inbox/{}", self.shared.settings.inbox, approval.request().id);
        modal::review(&drawn, private, &inbox, notice)
    }

    async fn open(&self, trigger: &str, view: Value) -> Result<(), String> {
        let body = json!({"trigger_id": trigger, "view": view});
        let opened = self.shared.web.post::<Value>("views.open", &body).await;
        opened
            .map(drop)
            .map_err(|error| format!("The call could not be opened ({error}). Press again, or use the inbox: {}/inbox", self.shared.settings.inbox))
    }

    async fn redraw(&self, view: &View, next: Value) {
        let Some(id) = &view.id else { return };
        if let Err(error) = self.shared.web.post::<Value>("views.update", &json!({"view_id": id, "view": next})).await {
            tracing::warn!(%error, "a modal could not be redrawn");
        }
    }

    /// The message that was clicked may be a copy that a crash kept us from knowing.
    async fn adopt(&self, payload: &Payload, posted: &Posted) {
        let Some((place, message)) = payload.message() else { return };
        if posted.message.is_none() {
            let known = Posted { place: place.to_owned(), message: Some(message.to_owned()), ..posted.clone() };
            if let Err(error) = self.desk.keep_posted(&known).await {
                tracing::warn!(%error, "a card could not be noted");
            }
        }
    }

    /// Records that somebody clicked who is nobody here; answers what to tell them.
    async fn stranger(&self, payload: &Payload, account: Option<&SlackId>, why: &str) -> String {
        let account = account.map(|account| shortened(&visible(&account.to_string()), 100));
        let nonce = payload.actions.first().and_then(|action| action.value.as_deref());
        let subject = match nonce {
            Some(nonce) => self.desk.posted_with(nonce).await.ok().flatten().map(|posted| posted.approval),
            None => None,
        };
        tracing::warn!(account = account.as_deref().unwrap_or("-"), "a click from Slack does not count: {why}");
        let data = json!({"channel": KIND, "account": account, "refused": why});
        if let Err(error) = self.desk.note(EventKind::ReviewRefused, subject, data).await {
            tracing::error!(%error, "a click that does not count could not be recorded");
        }
        "You are not an approver here, so this did not count. It is kept in the record.".into()
    }

    /// Tells the person alone; if that fails, the state of the card tells it.
    async fn answer(&self, payload: &Payload, words: &str) {
        if let Some(view) = &payload.view {
            return self.redraw(view, modal::said("Not counted", words)).await;
        }
        let (Some((place, _)), Some(account)) = (payload.message(), payload.person()) else { return };
        let Message { blocks, .. } = line(words);
        let body = json!({"channel": place, "user": account.id, "text": "Countersign", "blocks": blocks});
        if let Err(error) = self.shared.web.post::<Value>("chat.postEphemeral", &body).await {
            tracing::warn!(%error, "a person could not be told why their click did not count");
        }
    }
}

/// An error for the person who clicked.
fn plainly(error: DeskError) -> String {
    match error {
        DeskError::Store(_) => "Countersign's store does not answer: NOTHING was decided. Try again.".into(),
        other => format!("Not counted: {other}."),
    }
}
