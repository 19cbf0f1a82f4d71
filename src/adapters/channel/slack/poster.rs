//! Brings what is posted in line with the approvals, whatever was posted before and whatever failed.
//!
//! Slack has no idempotent posting: a message is kept with its nonce before it is posted, and a crash in between costs
//! at most a second copy, whose buttons carry the same nonce and so decide the same approval once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::card::{Buttons, Drawn, Message, line, told};
use super::web::WebError;
use super::{KIND, Shared};
use crate::adapters::channel::{DeskError, PostDesk};
use crate::domain::approval::{Approval, Due, IsPending, Posted, Stage};
use crate::domain::audit::EventKind;
use crate::domain::clock::{Timestamp, spoken};
use crate::system::random_hex;

/// How often the outbox is looked at when nobody wakes it: another process that shares the store may have written.
const EVERY: Duration = Duration::from_millis(250);
/// How many approvals are looked at side by side.
const BESIDE: usize = 8;
/// Longest wait after failures.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a credential's end is waited for.
const CREDENTIAL: Duration = Duration::from_secs(60);

/// Why an approval could not be looked at whole.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error("{0}")]
    People(String),
    #[error(transparent)]
    Random(#[from] crate::system::RandomError),
    #[error(transparent)]
    Web(#[from] WebError),
}

#[derive(Deserialize)]
struct Sent {
    ts: String,
    channel: String,
}

#[derive(Deserialize)]
struct Room {
    channel: RoomInfo,
}

#[derive(Deserialize)]
struct RoomInfo {
    #[serde(default)]
    is_ext_shared: bool,
    #[serde(default)]
    is_pending_ext_shared: bool,
}

/// Posts and updates until stopped.
pub(super) async fn run(shared: &Shared, desk: &dyn PostDesk, stop: &CancellationToken) {
    let poster = Poster { shared, desk };
    while !stop.is_cancelled() {
        match desk.due(KIND, 64).await {
            Ok(due) => {
                futures_util::stream::iter(due).for_each_concurrent(BESIDE, |due| async move { poster.look(&due).await }).await;
            }
            Err(error) => tracing::error!(%error, "what is to be posted could not be read"),
        }
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// What brings messages in line.
#[derive(Clone, Copy)]
struct Poster<'a> {
    shared: &'a Shared,
    desk: &'a dyn PostDesk,
}

/// Who gets a card, and whom it mentions there.
#[derive(Clone, Copy)]
struct Recipient<'a> {
    name: &'a str,
    mentioned: &'a [String],
}

impl Poster<'_> {
    async fn look(&self, due: &Due) {
        let now = self.shared.clock.now();
        let (next, failed) = match self.reconcile(due).await {
            Ok(next) => {
                self.shared.posting(None);
                (next, false)
            }
            Err(error) => {
                let wait = match &error {
                    PostError::Web(WebError::Slower(wait)) => *wait,
                    _ => Duration::from_secs(1 << due.failures.min(6)).min(LONGEST),
                };
                // Once for each approval, and again as long as it goes on.
                if due.failures == 0 || due.failures.is_multiple_of(10) {
                    tracing::warn!(%error, approval = %due.approval, "Slack could not be told; it is tried again, and the inbox has it");
                }
                self.shared.posting(Some(format!("cards cannot be posted: {error}")));
                (Some(now.plus(wait)), true)
            }
        };
        if let Err(error) = self.desk.looked_at(KIND, due, next, failed).await {
            tracing::error!(%error, "what was posted could not be noted");
        }
    }

    /// Does what is missing; answers when to look again if nothing changes.
    async fn reconcile(&self, due: &Due) -> Result<Option<Timestamp>, PostError> {
        let Some((approval, version)) = self.desk.versioned(&due.approval).await? else { return Ok(None) };
        let posted = self.desk.posted(&due.approval).await?;
        match &approval {
            Approval::Pending(stage) => self.ask(&approval, stage, version, posted).await,
            _ => self.tell(&approval, version, posted).await,
        }
    }

    /// Everybody who should have a card now has one, and it shows how things stand.
    async fn ask(&self, approval: &Approval, stage: &Stage<IsPending>, version: i64, posted: Vec<Posted>) -> Result<Option<Timestamp>, PostError> {
        let now = self.shared.clock.now();
        if !self.shared.hears() {
            // A card that nobody hears is worse than none: the inbox has it meanwhile.
            return Ok(Some(now.plus(Duration::from_secs(1))));
        }
        let terms = &stage.request.terms;
        let mut next = vec![terms.decide_by];
        let before = self.desk.before(approval).await?;
        let drawn = Drawn { approval, before: before.as_ref(), people: &self.shared.people, now };
        let (wanted, missing) = self.recipients(stage, now).await;
        let (mut full, mut failed) = (false, None);
        // Whoever cannot be asked must not keep others from being asked.
        for (recipient, mentioned) in &wanted {
            let kept = posted.iter().find(|posted| posted.recipient == *recipient);
            match self.ask_one(stage, kept, Recipient { name: recipient, mentioned }, version, &drawn).await {
                Ok(asked) => full |= !asked,
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed.or(missing.map(PostError::People)) {
            return Err(error);
        }
        next.extend(terms.escalation.iter().map(|e| e.from).filter(|from| *from > now));
        next.extend(terms.remind_at.filter(|at| *at > now));
        if full {
            next.push(now.plus(Duration::from_secs(3)));
        }
        // Groups and delegations change by themselves.
        next.push(now.plus(Duration::from_secs(60)));
        Ok(next.into_iter().min())
    }

    /// One recipient has a card, and it shows how things stand. Answers false if they have too many already.
    async fn ask_one(
        &self,
        stage: &Stage<IsPending>,
        kept: Option<&Posted>,
        recipient: Recipient<'_>,
        version: i64,
        drawn: &Drawn<'_>,
    ) -> Result<bool, PostError> {
        match kept {
            Some(posted) if posted.message.is_some() => {
                let mut posted = posted.clone();
                if posted.version != version {
                    self.update(&posted, &drawn.asking(buttons(stage, &posted), recipient.mentioned)).await?;
                    posted.version = version;
                    self.desk.keep_posted(&posted).await?;
                }
                self.remind(stage, posted, recipient.mentioned, drawn.now).await?;
            }
            kept => {
                let cap = self.shared.settings.cards_per_person;
                if kept.is_none() && !recipient.name.starts_with(ROOM) && self.desk.asking(recipient.name).await? >= cap {
                    self.overflow(recipient.name).await?;
                    return Ok(false);
                }
                self.post(stage, kept.cloned(), recipient, version, drawn).await?;
            }
        }
        Ok(true)
    }

    /// Who should have a card now, with whom it mentions; and what could not be found out about them.
    async fn recipients(&self, stage: &Stage<IsPending>, now: Timestamp) -> (BTreeMap<String, Vec<String>>, Option<String>) {
        let request = &stage.request;
        let terms = &request.terms;
        let (mut wanted, mut missing) = (BTreeMap::new(), None);
        let seats = terms.seats(now);
        let anybody_on_duty = seats.iter().any(|seat| self.shared.people.is_on_duty(seat, now));
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for seat in seats.iter().filter(|seat| !anybody_on_duty || self.shared.people.is_on_duty(seat, now)) {
            match self.shared.people.holders(seat, now).await {
                Ok(people) => asked.extend(people),
                Err(why) => missing = Some(why),
            }
        }
        let excluded = |name: &String| request.caller.owner.as_ref() == Some(name) && !terms.owner_may_approve;
        let id = |name: &String| self.shared.people.person(name).and_then(|p| p.slack.as_ref()).map(|slack| slack.id.clone());
        let asked: Vec<(String, String)> =
            asked.into_iter().filter(|name| !excluded(name)).filter_map(|name| id(&name).map(|id| (name, id))).collect();
        match &self.shared.settings.room {
            Some(room) => drop(wanted.insert(format!("{ROOM}{room}"), asked.into_iter().map(|(_, id)| id).collect())),
            None => wanted.extend(asked.into_iter().map(|(name, _)| (name, Vec::new()))),
        }
        for seat in &terms.notify {
            match self.shared.people.holders(seat, now).await {
                Ok(people) => wanted.extend(people.into_iter().filter(|name| id(name).is_some()).map(|name| (format!("{TOLD}{name}"), Vec::new()))),
                Err(why) => missing = Some(why),
            }
        }
        (wanted, missing)
    }

    /// Where a recipient is reached.
    async fn place(&self, recipient: &str) -> Result<String, PostError> {
        if let Some(room) = recipient.strip_prefix(ROOM) {
            let info: Room = self.shared.web.get("conversations.info", &[("channel", room)]).await?;
            if info.channel.is_ext_shared || info.channel.is_pending_ext_shared {
                return Err(PostError::People("the room is shared with another organisation: calls are not shown there".into()));
            }
            return Ok(room.to_owned());
        }
        let name = recipient.strip_prefix(TOLD).unwrap_or(recipient);
        let slack = self.shared.people.person(name).and_then(|p| p.slack.as_ref());
        let slack = slack.ok_or_else(|| PostError::People(format!("`{name}` has no Slack id")))?;
        Ok(self.shared.web.conversation_with(&slack.id).await?)
    }

    async fn post(
        &self,
        stage: &Stage<IsPending>,
        kept: Option<Posted>,
        recipient: Recipient<'_>,
        version: i64,
        drawn: &Drawn<'_>,
    ) -> Result<(), PostError> {
        let mut posted = match kept {
            Some(kept) => kept,
            None => Posted {
                nonce: random_hex::<16>()?,
                approval: stage.request.id.clone(),
                recipient: recipient.name.to_owned(),
                place: self.place(recipient.name).await?,
                message: None,
                version,
                step: Posted::ASKS,
            },
        };
        self.desk.keep_posted(&posted).await?;
        let sent = self.send(&posted.place, None, &drawn.asking(buttons(stage, &posted), recipient.mentioned)).await?;
        posted.message = Some(sent.ts.clone());
        posted.place = sent.channel.clone();
        posted.version = version;
        self.desk.keep_posted(&posted).await?;
        let data = json!({"channel": KIND, "recipient": recipient.name, "place": sent.channel, "message": sent.ts});
        self.desk.note(EventKind::Posted, Some(posted.approval.clone()), data).await?;
        Ok(())
    }

    async fn send(&self, place: &str, thread: Option<&str>, message: &Message) -> Result<Sent, WebError> {
        let mut body = json!({
            "channel": place, "text": message.text, "blocks": message.blocks, "unfurl_links": false, "unfurl_media": false,
        });
        if let (Some(thread), Some(body)) = (thread, body.as_object_mut()) {
            body.insert("thread_ts".into(), thread.into());
        }
        self.shared.web.post("chat.postMessage", &body).await
    }

    /// Redraws a message. One that is gone, or cannot be changed any more, is no failure: the store is the truth.
    async fn update(&self, posted: &Posted, message: &Message) -> Result<(), WebError> {
        let Some(ts) = &posted.message else { return Ok(()) };
        let body = json!({"channel": posted.place, "ts": ts, "text": message.text, "blocks": message.blocks});
        match self.shared.web.post::<Value>("chat.update", &body).await {
            Err(error) if error.is_final() => {
                tracing::warn!(%error, approval = %posted.approval, "a card could not be redrawn; what it says does not count any more");
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    async fn remind(&self, stage: &Stage<IsPending>, mut posted: Posted, mentioned: &[String], now: Timestamp) -> Result<(), PostError> {
        let terms = &stage.request.terms;
        let decided = stage.reviews.iter().any(|review| review.approver == posted.recipient);
        if terms.remind_at.is_none_or(|at| now < at) || posted.step != Posted::ASKS || decided || posted.recipient.starts_with(TOLD) {
            return Ok(());
        }
        let mut reminder = line(&format!("This call still waits: {} left to decide.", spoken(terms.decide_by.since(now))));
        if let (false, Some(first)) = (mentioned.is_empty(), reminder.blocks.first_mut()) {
            *first = super::kit::rich(vec![super::kit::section(
                mentioned.iter().map(|id| super::kit::user(id)).chain([super::kit::text(" this call still waits.")]).collect(),
            )]);
        }
        reminder.text = "A call still waits for your approval".into();
        self.send(&posted.place, posted.message.as_deref(), &reminder).await?;
        posted.step = Posted::REMINDED;
        self.desk.keep_posted(&posted).await?;
        Ok(())
    }

    /// One message for all calls that find no room beside the cards that a person has already.
    async fn overflow(&self, recipient: &str) -> Result<(), PostError> {
        let key = format!("more:{recipient}");
        let (open, _) = self.desk.approvals().await?;
        let now = self.shared.clock.now();
        let mine = open.iter().filter(|a| matches!(a, Approval::Pending(_)) && a.request().terms.seats(now).contains(recipient)).count();
        let more = mine.saturating_sub(usize::try_from(self.desk.asking(recipient).await?).unwrap_or(usize::MAX));
        let words = format!(
            "{more} more calls wait for you than fit here. Each gets its card as others are decided; all are in the inbox: {}/inbox",
            self.shared.settings.inbox
        );
        let mut message = line(&words);
        message.text = "More calls wait for you".into();
        // As long as its number is right nothing is said.
        let version = i64::try_from(more).unwrap_or(i64::MAX);
        match self.desk.posted(&key).await?.into_iter().next() {
            Some(kept) if kept.version == version => Ok(()),
            Some(mut kept) => {
                self.update(&kept, &message).await?;
                kept.version = version;
                Ok(self.desk.keep_posted(&kept).await?)
            }
            None => {
                let place = self.place(recipient).await?;
                let sent = self.send(&place, None, &message).await?;
                let kept = Posted {
                    nonce: random_hex::<16>()?,
                    approval: key.clone(),
                    recipient: key,
                    place: sent.channel,
                    message: Some(sent.ts),
                    version,
                    step: Posted::OVER,
                };
                Ok(self.desk.keep_posted(&kept).await?)
            }
        }
    }

    /// Every card says what became of it, and has no buttons.
    async fn tell(&self, approval: &Approval, version: i64, posted: Vec<Posted>) -> Result<Option<Timestamp>, PostError> {
        let now = self.shared.clock.now();
        let Approval::Settled(stage) = approval else {
            self.redraw(approval, version, posted, None).await?;
            return Ok(None);
        };
        let credential = self.desk.credential_end(approval).await?;
        let late = now.since(stage.is.settled_at) > CREDENTIAL;
        let Some(credential) = credential.or_else(|| late.then(|| "The credential dies by its time.".to_owned())) else {
            self.redraw(approval, version, posted, None).await?;
            return Ok(Some(now.plus(Duration::from_millis(500))));
        };
        // A call that ran by an allowance is told where the allowance was given.
        let source = approval.reviews().last().and_then(crate::domain::approval::Allowance::source);
        if let (true, Some(source)) = (posted.is_empty(), source) {
            for card in self.desk.posted(source).await?.iter().filter(|card| card.message.is_some() && !card.recipient.starts_with(TOLD)) {
                self.send(&card.place, card.message.as_deref(), &told_again(approval, &credential)).await?;
            }
            // So that it is told once, although the approval changes once more when its answer is delivered.
            let id = approval.request().id.clone();
            let told = Posted {
                nonce: random_hex::<16>()?,
                approval: id,
                recipient: "again".into(),
                place: String::new(),
                message: None,
                version,
                step: Posted::OVER,
            };
            self.desk.keep_posted(&told).await?;
            return Ok(None);
        }
        let open: Vec<Posted> = posted.into_iter().filter(|posted| posted.step != Posted::OVER).collect();
        let open = self.redraw(approval, version, open, Some(&credential)).await?;
        let allowance = self.desk.allowance_of(&approval.request().id).await?;
        for mut posted in open {
            if let Some(ts) = posted.message.clone() {
                let message = told(approval, &credential, allowance.as_ref().zip(nonce_of(&posted)));
                match self.send(&posted.place, Some(&ts), &message).await {
                    Err(error) if error.is_final() => {
                        tracing::warn!(%error, approval = %posted.approval, "an outcome could not be told below its card")
                    }
                    other => drop(other?),
                }
            }
            posted.step = Posted::OVER;
            self.desk.keep_posted(&posted).await?;
        }
        Ok(None)
    }

    /// Redraws decided cards that do not show it yet; gives them back as they are now.
    async fn redraw(&self, approval: &Approval, version: i64, posted: Vec<Posted>, credential: Option<&str>) -> Result<Vec<Posted>, PostError> {
        let drawn = Drawn { approval, before: None, people: &self.shared.people, now: self.shared.clock.now() };
        let (mut shown, mut failed) = (Vec::with_capacity(posted.len()), None);
        for mut posted in posted {
            if posted.version != version || posted.step < Posted::DECIDED || credential.is_some_and(|c| !c.is_empty()) {
                match self.update(&posted, &drawn.decided(credential)).await {
                    Ok(()) => {
                        posted.version = version;
                        posted.step = posted.step.max(Posted::DECIDED);
                        self.desk.keep_posted(&posted).await?;
                    }
                    // The others must not go on asking because of this one.
                    Err(error) => failed = Some(error),
                }
            }
            shown.push(posted);
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(shown)
    }
}

/// The recipient that stands for a room.
const ROOM: &str = "room:";
/// Before the name of somebody who is told and not asked.
const TOLD: &str = "told:";

/// What the recipient of a card may do.
fn buttons<'p>(stage: &Stage<IsPending>, posted: &'p Posted) -> Buttons<'p> {
    match nonce_of(posted) {
        None => Buttons::Nothing,
        Some(nonce) if stage.reviews.iter().any(|review| review.approver == posted.recipient) => Buttons::Look(nonce),
        Some(nonce) => Buttons::Decide(nonce),
    }
}

fn nonce_of(posted: &Posted) -> Option<&str> {
    (!posted.recipient.starts_with(TOLD)).then_some(posted.nonce.as_str())
}

fn told_again(approval: &Approval, credential: &str) -> Message {
    let mut message = told(approval, credential, None);
    message.blocks.insert(0, super::kit::rich(vec![super::kit::section(vec![super::kit::bold("The same call again, as allowed")])]));
    message
}
