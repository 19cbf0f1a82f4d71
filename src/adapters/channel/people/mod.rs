//! The approvers: who they are in which channel, who stands for whom, and by what right somebody decides.
//!
//! A policy names *seats*: a person, or a name that stands for several (a user group, whoever is on call). Authority
//! comes from the configuration alone; what a channel or program says about groups is looked up anew at most a minute
//! later, and where it cannot be had, nobody is a member.

mod code;
mod hours;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use code::{Code, CodeError};
pub use hours::{Hours, HoursError};

use crate::domain::approval::Capacity;
use crate::domain::clock::Timestamp;

/// How long what was looked up about groups is believed.
pub const FRESH: Duration = Duration::from_secs(60);
/// How many wrong one-time codes a person may give in [`WRONG_WITHIN`]: a code has six digits, and whoever may guess for
/// long enough guesses right (RFC 4226 §7.3).
const WRONG: u32 = 5;
/// See [`WRONG`]; so long no code of theirs counts either.
const WRONG_WITHIN: Duration = Duration::from_secs(300);
/// How long a program or address may take to say who is on call.
const ON_CALL: Duration = Duration::from_secs(5);
/// Most bytes that it may say.
const MOST: usize = 64 << 10;

/// Everybody in `[approver]`.
#[derive(Default)]
pub struct People {
    approvers: BTreeMap<String, Approver>,
    codes: BTreeMap<String, Code>,
    directory: OnceLock<Arc<dyn Directory>>,
    looked_up: Mutex<HashMap<String, (Timestamp, Vec<String>)>>,
    /// Wrong one-time codes of each person: since when, and how many.
    wrong: Mutex<HashMap<String, (Timestamp, u32)>>,
}

/// One `[approver]`.
#[derive(Clone, Debug)]
pub enum Approver {
    /// A person.
    Person(Person),
    /// Several people under one name.
    Group(Group),
}

/// A person.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// Who they are in Slack.
    pub slack: Option<SlackId>,
    /// Who decides in their place, and when.
    pub delegates: Vec<Delegation>,
    /// When they may be disturbed.
    pub hours: Option<Hours>,
}

/// Who decides in somebody's place, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The approver.
    pub to: String,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// Several people under one name. Those who are no `[approver]` themselves do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// A user group in Slack.
    Slack(SlackId),
    /// Whom a program prints: names of approvers or Slack ids, one a line.
    Command(Vec<String>),
    /// Whom an address answers, in the same way.
    Url(String),
}

/// Somebody or something in Slack. Ids do not change; names and addresses do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlackId {
    /// The enterprise, where there is one.
    pub enterprise: Option<String>,
    /// The workspace.
    pub team: String,
    /// The user or user group.
    pub id: String,
}

/// Not an id of Slack's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not TEAM/ID or ENTERPRISE/TEAM/ID as in `T0123ABCD/U0456EFGH`: ids, not names, for names change")]
pub struct SlackIdError(String);

impl FromStr for SlackId {
    type Err = SlackIdError;

    fn from_str(text: &str) -> Result<Self, SlackIdError> {
        let wrong = || SlackIdError(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str, first: &[char]| {
            part.len() >= 2 && part.starts_with(first) && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        };
        let (enterprise, team, id) = match parts.as_slice() {
            [team, id] => (None, team, id),
            [enterprise, team, id] if good(enterprise, &['E']) => (Some((*enterprise).to_owned()), team, id),
            _ => return Err(wrong()),
        };
        if !good(team, &['T']) || !good(id, &['U', 'W', 'S']) {
            return Err(wrong());
        }
        Ok(Self { enterprise, team: (*team).to_owned(), id: (*id).to_owned() })
    }
}

impl fmt::Display for SlackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.enterprise {
            Some(enterprise) => write!(f, "{enterprise}/{}/{}", self.team, self.id),
            None => write!(f, "{}/{}", self.team, self.id),
        }
    }
}

/// Where accounts and user groups are.
#[async_trait]
pub trait Directory: Send + Sync {
    /// The members of a user group.
    ///
    /// # Errors
    /// If they cannot be had.
    async fn members(&self, group: &SlackId) -> Result<Vec<SlackId>, String>;

    /// Checks that an account belongs to a full member who is still there.
    ///
    /// # Errors
    /// [`StandingError::Account`] if not, [`StandingError::Unknown`] if nobody can say.
    async fn check(&self, account: &SlackId) -> Result<(), StandingError>;
}

/// Why somebody may not decide.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StandingError {
    /// Their account is not that of a full member.
    #[error("`{name}` may not decide: {why}")]
    Account {
        /// Who.
        name: String,
        /// What is the matter.
        why: String,
    },
    /// Not one of those who are asked.
    #[error("`{0}` is not an approver of this call")]
    NotNamed(String),
    /// It could not be found out; so they may not.
    #[error("it could not be checked whether `{name}` may decide: {why}")]
    Unknown {
        /// Who.
        name: String,
        /// Why not.
        why: String,
    },
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("People").field("approvers", &self.approvers).finish_non_exhaustive()
    }
}

impl People {
    /// These approvers; `codes` are the secrets of their one-time codes.
    pub fn new(approvers: BTreeMap<String, Approver>, codes: BTreeMap<String, Code>) -> Self {
        Self { approvers, codes, ..Self::default() }
    }

    /// Looks groups and accounts up there from now on.
    pub fn look_up_in(&self, directory: Arc<dyn Directory>) {
        // There is one channel that has a directory; a second would be ignored.
        drop(self.directory.set(directory));
    }

    /// The person of that name.
    pub fn person(&self, name: &str) -> Option<&Person> {
        match self.approvers.get(name) {
            Some(Approver::Person(person)) => Some(person),
            _ => None,
        }
    }

    /// Whether a person has that name.
    pub fn is_person(&self, name: &str) -> bool {
        self.person(name).is_some()
    }

    /// Whether the name stands for several people.
    pub fn is_group(&self, name: &str) -> bool {
        matches!(self.approvers.get(name), Some(Approver::Group(_)))
    }

    /// Every approver.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Approver)> {
        self.approvers.iter().map(|(name, approver)| (name.as_str(), approver))
    }

    /// Whose account this is.
    pub fn of_slack(&self, account: &SlackId) -> Option<&str> {
        let same = |own: &SlackId| {
            own.team == account.team && own.id == account.id && own.enterprise.as_ref().is_none_or(|e| account.enterprise.as_ref() == Some(e))
        };
        self.all().find(|(_, approver)| matches!(approver, Approver::Person(p) if p.slack.as_ref().is_some_and(same))).map(|(name, _)| name)
    }

    /// By what right `approver` fills one of `seats` now. The owner of the caller fills none, nor does who stands in for
    /// them.
    ///
    /// # Errors
    /// If by none, or if that could not be found out.
    pub async fn capacity(&self, approver: &str, seats: &BTreeSet<&str>, owner: Option<&str>, now: Timestamp) -> Result<Capacity, StandingError> {
        if !self.is_person(approver) {
            return Err(StandingError::NotNamed(approver.to_owned()));
        }
        if seats.contains(approver) {
            return Ok(Capacity::Named);
        }
        for seat in seats.iter().filter(|seat| owner != Some(**seat)) {
            if self.person(seat).is_some_and(|person| person.stand_in(now).any(|to| to == approver)) {
                return Ok(Capacity::Delegate((*seat).to_owned()));
            }
        }
        let mut failed = None;
        for seat in seats.iter().filter(|seat| self.is_group(seat)) {
            match self.members(seat, now).await {
                Ok(members) if members.iter().any(|member| member == approver) => return Ok(Capacity::Member((*seat).to_owned())),
                Ok(_) => {}
                Err(why) => failed = Some(why),
            }
        }
        Err(match failed {
            Some(why) => StandingError::Unknown { name: approver.to_owned(), why },
            None => StandingError::NotNamed(approver.to_owned()),
        })
    }

    /// Whether there is an account of theirs to look at.
    pub fn has_account(&self, approver: &str) -> bool {
        self.directory.get().is_some() && self.person(approver).is_some_and(|person| person.slack.is_some())
    }

    /// Checks the account behind a verdict that came by Slack.
    ///
    /// # Errors
    /// If it is not that of a full member, or that could not be found out.
    pub async fn check_account(&self, approver: &str) -> Result<(), StandingError> {
        let unknown = |why: &str| StandingError::Unknown { name: approver.to_owned(), why: why.to_owned() };
        let account = self.person(approver).and_then(|person| person.slack.as_ref()).ok_or_else(|| unknown("they have no Slack id"))?;
        let directory = self.directory.get().ok_or_else(|| unknown("Slack is not configured"))?;
        directory.check(account).await.map_err(|error| match error {
            StandingError::Account { why, .. } => StandingError::Account { name: approver.to_owned(), why },
            StandingError::Unknown { why, .. } => unknown(&why),
            other => other,
        })
    }

    /// The people to ask for a seat now: the person, or who stands in for them, or the group's members.
    ///
    /// # Errors
    /// If a group's members cannot be had.
    pub async fn holders(&self, seat: &str, now: Timestamp) -> Result<Vec<String>, String> {
        match self.approvers.get(seat) {
            Some(Approver::Person(person)) => {
                let away: Vec<String> = person.stand_in(now).map(str::to_owned).collect();
                Ok(if away.is_empty() { vec![seat.to_owned()] } else { away })
            }
            Some(Approver::Group(_)) => self.members(seat, now).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether the seat's person may be disturbed now. Groups always may.
    pub fn is_on_duty(&self, seat: &str, now: Timestamp) -> bool {
        self.person(seat).and_then(|person| person.hours.as_ref()).is_none_or(|hours| hours.contains(now))
    }

    /// The people in a group, by name; at most a minute old.
    async fn members(&self, group: &str, now: Timestamp) -> Result<Vec<String>, String> {
        let Some(Approver::Group(source)) = self.approvers.get(group) else { return Ok(Vec::new()) };
        if let Some((at, members)) = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).get(group)
            && now.since(*at) < FRESH
        {
            return Ok(members.clone());
        }
        let found = match source {
            Group::Slack(id) => {
                let directory = self.directory.get().ok_or("Slack is not configured")?;
                directory.members(id).await?.iter().filter_map(|id| self.of_slack(id)).map(str::to_owned).collect()
            }
            Group::Command(command) => self.named_in(&printed(command).await?),
            Group::Url(url) => self.named_in(&answered(url).await?),
        };
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned(), (now, found.clone()));
        Ok(found)
    }

    fn named_in(&self, text: &str) -> Vec<String> {
        let name = |line: &str| match line.parse::<SlackId>() {
            Ok(id) => self.of_slack(&id).map(str::to_owned),
            Err(_) => self.is_person(line).then(|| line.to_owned()),
        };
        text.lines().map(str::trim).filter_map(name).collect()
    }

    /// The time step of a right one-time code of `approver`; nothing as well for a while after too many wrong ones.
    pub fn code_step(&self, approver: &str, code: &str, now: Timestamp) -> Option<i64> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|_, (since, _)| now.since(*since) < WRONG_WITHIN);
        if wrong.get(approver).is_some_and(|(_, count)| *count >= WRONG) {
            return None;
        }
        let step = self.codes.get(approver)?.step(code, now);
        if step.is_none() {
            wrong.entry(approver.to_owned()).or_insert((now, 0)).1 += 1;
        }
        step
    }
}

impl Person {
    /// Who stands in for them now.
    fn stand_in(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.delegates.iter().filter(move |d| d.from <= now && now < d.until).map(|d| d.to.as_str())
    }
}

async fn printed(command: &[String]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let run = tokio::process::Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(ON_CALL, run).await.map_err(|_| format!("`{program}` took longer than 5 s"))?;
    let output = output.map_err(|error| format!("`{program}`: {error}"))?;
    if !output.status.success() || output.stdout.len() > MOST {
        return Err(format!("`{program}` failed"));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{program}` did not print text"))
}

async fn answered(url: &str) -> Result<String, String> {
    let ask = async {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let mut response = client.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST {
                break;
            }
        }
        Ok::<_, reqwest::Error>(bytes)
    };
    let bytes = tokio::time::timeout(ON_CALL, ask).await.map_err(|_| "the on-call address took longer than 5 s".to_owned())?;
    // Addresses may carry secrets: none is said.
    let bytes = bytes.map_err(|error| format!("the on-call address: {}", error.without_url()))?;
    String::from_utf8(bytes).ok().filter(|text| text.len() <= MOST).ok_or_else(|| "the on-call address did not answer text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> People {
        let person = |slack: &str| Person { slack: Some(slack.parse().unwrap()), ..Person::default() };
        let away = Delegation { to: "bert".into(), from: Timestamp(100), until: Timestamp(200) };
        let anna = Person { delegates: vec![away], ..person("T1/U1") };
        let on_call = |text: &str| Approver::Group(Group::Command(vec!["printf".into(), text.into()]));
        People::new(
            BTreeMap::from([
                ("anna".into(), Approver::Person(anna)),
                ("bert".into(), Approver::Person(person("T1/U2"))),
                ("carl".into(), Approver::Person(person("E1/T1/U3"))),
                ("on-call".into(), on_call("T1/U9\\nnobody\\nE1/T1/U3\\n")),
                ("broken".into(), Approver::Group(Group::Command(vec!["false".into()]))),
            ]),
            BTreeMap::new(),
        )
    }

    async fn right(approver: &str, seats: &[&str], owner: Option<&str>, now: i64) -> Result<Capacity, StandingError> {
        people().capacity(approver, &seats.iter().copied().collect(), owner, Timestamp(now)).await
    }

    #[tokio::test]
    async fn authority_comes_from_a_name_a_delegation_or_a_group() {
        assert_eq!(right("anna", &["anna"], None, 0).await, Ok(Capacity::Named));
        assert_eq!(right("bert", &["anna"], None, 150).await, Ok(Capacity::Delegate("anna".into())));
        assert_eq!(right("carl", &["on-call"], None, 0).await, Ok(Capacity::Member("on-call".into())));
        for (approver, seat, owner, now) in [
            ("bert", "anna", None, 99),
            ("bert", "anna", None, 200),
            ("bert", "anna", Some("anna"), 150),
            ("bert", "on-call", None, 0),
            ("on-call", "on-call", None, 0),
            ("nobody", "nobody", None, 0),
        ] {
            assert_eq!(right(approver, &[seat], owner, now).await, Err(StandingError::NotNamed(approver.into())), "{approver} {seat} {now}");
        }
        assert!(matches!(right("carl", &["broken"], None, 0).await, Err(StandingError::Unknown { .. })));
        assert_eq!(people().holders("anna", Timestamp(150)).await.unwrap(), ["bert"]);
    }

    #[tokio::test]
    async fn who_is_on_call_may_stand_at_an_address() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/on-call?key=secret", listener.local_addr().unwrap());
        let listener = &listener;
        let serve = |status: &'static str, body: String| async move {
            let (mut client, _) = listener.accept().await.unwrap();
            drop(client.read(&mut [0; 1024]).await);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            drop(client.write_all(answer.as_bytes()).await);
        };
        let ask = || async { answered(&url).await.map(|text| people().named_in(&text)) };
        assert_eq!(tokio::join!(ask(), serve("200 OK", "bert\n E1/T1/U3 \nT1/U9\n".into())).0.unwrap(), ["bert", "carl"]);
        for (status, body) in [("500 No", String::new()), ("302 Found", String::new()), ("200 OK", "a".repeat(MOST + 1))] {
            let refused = tokio::join!(ask(), serve(status, body)).0;
            assert!(
                status == "302 Found" && refused.as_ref().is_ok_and(Vec::is_empty) || refused.as_ref().is_err_and(|why| !why.contains("secret")),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn codes_cannot_be_guessed() {
        // RFC 6238, appendix B: the code at 59 s.
        let secret = Code::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        let people = People::new(BTreeMap::new(), BTreeMap::from([("anna".into(), secret)]));
        let at = |code: &str, ms: i64| people.code_step("anna", code, Timestamp(ms));
        assert_eq!(at("287082", 59_000), Some(1));
        for _ in 0..WRONG {
            assert_eq!(at("000000", 59_000), None);
        }
        assert_eq!(at("287082", 59_000), None, "right, and too late");
        let rested = People { wrong: Mutex::new(HashMap::from([("anna".into(), (Timestamp(59_000 - 300_000), WRONG))])), ..people };
        assert_eq!(rested.code_step("anna", "287082", Timestamp(59_000)), Some(1));
        assert_eq!(rested.code_step("bert", "287082", Timestamp(59_000)), None);
    }

    #[test]
    fn people_are_known_by_ids_alone() {
        let of = |text: &str| people().of_slack(&text.parse().unwrap()).map(str::to_owned);
        assert_eq!(of("T1/U1").as_deref(), Some("anna"));
        assert_eq!(of("E7/T1/U1").as_deref(), Some("anna"));
        assert_eq!(of("T2/U1"), None);
        assert_eq!(of("T1/U3"), None, "an enterprise that is asked for must be there");
        for wrong in ["anna", "U1", "T1/", "t1/u1", "T1/U1/", "T1/C1", "X1/T1/U1", "T1/U1 "] {
            assert!(wrong.parse::<SlackId>().is_err(), "{wrong}");
        }
    }
}
