//! The route of a call, step by step, and nothing else.
//!
//! [`Gateway::call`] reads like the list in the documentation: judge, decide, record, and then let through, ask and
//! hold, or refuse. Whatever fails on the way, the call does not run.

mod ask;
mod credentials;
mod definitions;
mod flight;
mod hold;
mod patience;
mod post;
mod prompts;
mod review;
mod rounds;
mod run;
mod said;
mod sweep;
mod tasks;
mod trails;
mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use patience::{Budget, Patience};
pub use prompts::{Prompts, Told};
pub use review::LOGIN;
pub use said::{Refusal, Said, Waiting};
pub use sweep::SweepError;
pub use tasks::{GoesOn, Replied, TASK_PREFIX, TaskNow, TaskView};
pub use trial::{Trial, TrialError};

use crate::adapters::channel::Channels;
use crate::adapters::channel::people::People;
use crate::adapters::credential::Issuers;
use crate::adapters::store::{Change, Effect, Spender, Store, StoreError, Versioned};
use crate::adapters::upstream::{Id, Outgoing, Upstream, client_headers, header_text};
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, EventKind, Receipt};
use crate::domain::call::{Binding, CallDigest, Caller, Method, ToolCall};
use crate::domain::clock::Clock;
use crate::domain::clock::Timestamp;
use crate::domain::decision::{Decision, Enforcement, decide, verdict};
use crate::domain::digest::{Digest, Fields};
use crate::domain::json::{Value, canonical};
use crate::domain::permit::{Grant, Permit};
use crate::domain::policy::{Judged, Policy, PolicySet, REASON, Scope};
use crate::domain::risk::{Band, History, carries_secret};
use crate::domain::text::shortened;
use crate::metrics::Metrics;
use crate::system::random_hex;
use definitions::{Definitions, KnownTool};

/// How many lost races in a row are too many: then nothing is decided, and whoever asked is told.
const TURNS: usize = 100;

/// How many calls are judged and recorded at once. More wait in line: what that takes for each would be in memory for all of
/// them together, when ten thousand come.
const AT_ONCE: usize = 128;

/// Everything that a call needs on its way.
pub struct Gateway {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How approvers are asked.
    pub channels: Channels,
    /// The issuers of credentials.
    pub issuers: Arc<Issuers>,
    /// The approvers who exist; a verdict of anybody else does not count.
    pub people: Arc<People>,
    /// Figures for whoever watches the gateway.
    pub metrics: Metrics,
    /// What the operator chose.
    pub settings: Settings,
    policies: RwLock<Arc<PolicySet>>,
    definitions: Definitions,
    trails: trails::Trails,
    spending: tokio::sync::Mutex<()>,
    judging: Semaphore,
    followed: Arc<tasks::Followed>,
    heard: prompts::Heard,
    flight: flight::Flight,
    /// Ends what waits for nobody who could go: tasks, which another gateway or the next start resumes.
    pub closing: CancellationToken,
}

/// What a gateway is made of.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How approvers are asked.
    pub channels: Channels,
    /// The issuers of credentials.
    pub issuers: Arc<Issuers>,
    /// The approvers who exist.
    pub people: Arc<People>,
    /// Figures.
    pub metrics: Metrics,
}

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This gateway's id.
    pub instance: String,
    /// Whether calls are held back.
    pub enforcement: Enforcement,
    /// How long a call is held for which client.
    pub patience: Patience,
    /// How often a client of the stateless era is told to send its request again, which it does by itself, before its model
    /// is told that the call waits. Each time the call is held as for a client without progress messages.
    pub rounds: u8,
    /// How often such a client hears of it.
    pub progress_every: Duration,
    /// Whether records of allowed calls are on disk before the call goes out.
    pub sync_always: bool,
    /// How many calls of one caller may wait for people at once.
    pub pending_per_caller: u32,
    /// How many calls of one caller may be under way at once, those that wait for people among them.
    pub calls_per_caller: u32,
    /// Whether tools that changed since they were first seen are kept from agents.
    pub withholds: bool,
    /// What becomes of users' prompts.
    pub prompts: Prompts,
}

/// The server that a call is for, as configured.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// What stands behind the name: the URL, or the command line.
    pub identity: String,
    /// Whom credentials for it are for.
    pub audience: String,
    /// Whether it is a child process; else it is HTTP.
    pub is_child: bool,
}

/// One `tools/call` of one client.
pub struct Attempt {
    /// The server.
    pub server: Arc<Server>,
    /// The server as this client sees it.
    pub upstream: Arc<dyn Upstream>,
    /// Who asks.
    pub caller: Caller,
    /// What was asked.
    pub call: ToolCall,
    /// The client's id for it.
    pub id: Id,
    /// Headers that the protocol defines, where it came over HTTP; nothing where they are to be made for a server over HTTP.
    pub headers: Option<Vec<(String, String)>>,
    /// What the client calls itself, where its session was opened with that; decides nothing but how long it is held.
    pub client: Option<String>,
    /// How often this request was sent again at the gateway's word; 0 until the gateway reads that from the request.
    pub round: u8,
    /// The client's session, where its hook told of this call.
    pub session: Option<String>,
    /// Set while the client's connection is lost and may be resumed: what waits does not run then.
    pub away: Arc<AtomicBool>,
    /// The client gave the call up: cancelled it, closed a stream whose closing means that, or ended.
    pub gone: CancellationToken,
    /// Where what there is to say goes. Closed when the client's connection is lost, which in the eras with sessions is
    /// no cancellation: a call that runs goes on, one that waits does not run.
    pub say: mpsc::Sender<Box<Said>>,
}

/// Everything found out about a call before it is decided. Boxed, like what becomes of it: ten thousand calls wait at once.
struct Case {
    policy: Arc<Policy>,
    judged: Judged,
    binding: Binding,
    /// What a credential is asked for.
    scope: Option<Scope>,
    key: CallDigest,
    /// What a call has in common with itself made again, whatever the policy is by then.
    repeated: Digest,
}

/// A call in the record. Arguments that carry a secret, or are longer than 16 KiB, are there by digest alone.
#[derive(Serialize)]
struct Described<'a> {
    caller: &'a Caller,
    server: &'a str,
    tool: &'a str,
    /// Where it is no tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    arguments: Option<Box<RawValue>>,
    arguments_digest: Digest,
    score: u8,
    band: Band,
    findings: Vec<serde_json::Value>,
    policy: Digest,
    /// In shadow mode: what would have become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stated_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_digest: Option<Digest>,
    /// The client's session, as its hook told.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(flatten)]
    more: serde_json::Value,
}

/// Why a call could not be judged or recorded.
#[derive(Debug, thiserror::Error)]
enum RouteError {
    #[error("the header `{0}` does not say what the body says")]
    Header(String),
    #[error(transparent)]
    Scope(#[from] crate::domain::policy::TemplateError),
    #[error("its credential cannot be minted: {0}")]
    Credential(String),
    #[error("the scope of its credential would carry what looks like a secret")]
    SecretScope,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    System(#[from] crate::system::RandomError),
    #[error(transparent)]
    Permit(#[from] crate::domain::permit::PermitError),
}

impl Gateway {
    /// A gateway with these parts.
    pub fn new(parts: Parts, settings: Settings, policies: PolicySet) -> Self {
        let Parts { store, clock, channels, issuers, people, metrics } = parts;
        let (policies, definitions) = (RwLock::new(Arc::new(policies)), Definitions::default());
        Self {
            store,
            clock,
            channels,
            issuers,
            people,
            metrics,
            settings,
            policies,
            definitions,
            trails: trails::Trails::default(),
            judging: Semaphore::new(AT_ONCE),
            spending: tokio::sync::Mutex::default(),
            followed: Arc::default(),
            heard: prompts::Heard::default(),
            flight: flight::Flight::default(),
            closing: CancellationToken::new(),
        }
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another set of policies in force, as a whole.
    pub fn set_policies(&self, set: PolicySet) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }

    /// Takes one call all the way. Whatever there is to say goes to `attempt.say`.
    pub async fn call(&self, mut attempt: Box<Attempt>) {
        let most = self.settings.calls_per_caller;
        let Some(_aboard) = self.flight.board(&attempt.caller.name, most).await else {
            let why = format!("{most} calls of this caller are under way, as many as are taken at once: repeat it when one has ended");
            return self.say(&attempt, Said::Refused(Refusal::Failed { why, approval: None })).await;
        };
        // First, for a state is sealed for the arguments without it.
        if self.policies().for_call(&attempt.server.name, &attempt.call).show.ask_reason {
            attempt.call.take_reason(REASON);
        }
        attempt.session = self.recall(&mut attempt.call);
        if let Err(error) = self.unsealed(&mut attempt) {
            return self.say(&attempt, Said::Refused(Refusal::State { why: error.to_string() })).await;
        }
        let route = std::panic::AssertUnwindSafe(self.route(&attempt)).catch_unwind().await;
        let refusal = match route {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let tool = shortened(&attempt.call.tool, 80);
                tracing::error!(%error, server = %attempt.server.name, tool, "a call was refused because it could not be judged or recorded");
                match error {
                    RouteError::Header(name) => Refusal::Header { name },
                    error @ (RouteError::Scope(_) | RouteError::Credential(_) | RouteError::SecretScope) => {
                        Refusal::Failed { why: error.to_string(), approval: None }
                    }
                    _ => Refusal::Failed { why: "the gateway could not record the call".to_owned(), approval: None },
                }
            }
            Err(_panic) => {
                tracing::error!("a call ended in a panic; what it left open is settled");
                self.settle_own(&attempt).await;
                Refusal::Unknown { subject: attempt.id.json() }
            }
        };
        self.say(&attempt, Said::Refused(refusal)).await;
    }

    /// The route: every step in order.
    async fn route(&self, attempt: &Attempt) -> Result<(), RouteError> {
        // Before its turn: a server that does not answer must not take the turns of other servers' calls.
        let known = self.known_tool(attempt, false).await?;
        // Nobody closes it.
        let judging = self.judging.acquire().await.ok();
        let turn = self.turn(attempt).await;
        let case = self.judge(attempt, &known).await?;
        match decide(&case.policy, &case.judged, case.key, self.settings.enforcement) {
            Decision::Deny { because } => {
                let subject = random_hex::<16>()?;
                let data = self.described(attempt, &case, json!({ "because": because }));
                self.record(EventKind::Denied, Some(case.key), Some(subject), data).await?;
                self.trails.denied(&attempt.caller.name, self.clock.now(), case.repeated.bytes());
                self.say(attempt, Said::Refused(Refusal::Denied { because })).await;
            }
            Decision::Allow(allowed) => {
                let subject = self.rising_id()?;
                if case.judged.assessment.band >= Band::Notable {
                    let tool = shortened(&attempt.call.tool, 80);
                    tracing::warn!(score = case.judged.assessment.score, server = %attempt.server.name, tool, "allowed a notable call");
                }
                let data = self.described(attempt, &case, json!({}));
                // A credential names the record that stands behind it, so that one must be there already.
                let effects = self.spends(attempt, &case);
                let synced = self.settings.sync_always || case.policy.credential.is_some() || !effects.is_empty();
                let entry = self.entry(EventKind::Allowed, Some(case.key), Some(subject.clone()), data);
                let receipt = self.store.commit(Change { entry, effects, synced }).await?;
                drop((turn, judging));
                let permit = Permit::new(Grant::Allowed(allowed), receipt)?;
                Box::pin(self.run_allowed(attempt, &case, permit, subject)).await?;
            }
            Decision::Approve { quorum } => {
                drop(turn);
                self.hold(attempt, case, quorum, judging).await?;
            }
        }
        Ok(())
    }

    /// An id like all others, but that later ones sort behind earlier ones: what is written most often then lies together in
    /// the store's index, and costs a page less.
    fn rising_id(&self) -> Result<String, RouteError> {
        let now = u64::try_from(self.clock.now().0).unwrap_or(0) & 0xffff_ffff_ffff;
        Ok(format!("{now:012x}{}", random_hex::<10>()?))
    }

    /// Calls that count against a limit over time are judged and recorded one after the other: many at once must not each
    /// find what the others have not spent yet.
    async fn turn(&self, attempt: &Attempt) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let policy = self.policies().for_call(&attempt.server.name, &attempt.call);
        if policy.spendings(&attempt.call).is_empty() { None } else { Some(self.spending.lock().await) }
    }

    /// What is recorded as spent with a call that may run.
    fn spends(&self, attempt: &Attempt, case: &Case) -> Vec<Effect> {
        let amounts: Vec<_> = case.policy.spendings(&attempt.call).into_iter().map(|spending| (spending.place, spending.amount)).collect();
        match amounts.is_empty() {
            true => Vec::new(),
            false => vec![Effect::Spend(attempt.server.name.clone(), attempt.call.tool.clone(), attempt.caller.name.clone(), amounts)],
        }
    }

    /// Steps 2 to 4: the policy, the facts, the findings and their sum. `known` is what the server says of the tool.
    async fn judge(&self, attempt: &Attempt, known: &KnownTool) -> Result<Box<Case>, RouteError> {
        let (call, server) = (&attempt.call, &attempt.server);
        let policy = self.policies().for_call(&server.name, call);
        if let Some(header) = known.disagreeing(attempt.headers.as_deref().unwrap_or_default(), &call.arguments) {
            return Err(RouteError::Header(header));
        }
        let targets = policy.lookups(call);
        let seen = match targets.as_slice() {
            [] => Default::default(),
            targets => self.store.seen(&server.name, &attempt.caller.name, targets).await?,
        };
        let mut spent = BTreeMap::new();
        let by = Spender { server: &server.name, tool: &call.tool, caller: &attempt.caller.name };
        for spending in policy.spendings(call) {
            let now = self.clock.now();
            let since = Timestamp(now.0.saturating_sub(i64::try_from(spending.window.as_millis()).unwrap_or(i64::MAX)));
            let before = self.store.spent(&by, &spending.place, since).await?;
            spent.insert(spending.place, before);
        }
        let repeated = attempt.repeated();
        let signs = self.trails.signs(&attempt.caller.name, self.clock.now(), &call.arguments, repeated.bytes());
        let judged = policy.judge(call, &attempt.caller, &known.known(), &History { seen, signs, spent });
        let scope = policy.credential.as_ref().map(|c| c.scope(&call.arguments)).transpose()?;
        // A scope stands in the record, on cards and in the token: a secret in an argument must not come into it.
        if scope.as_ref().is_some_and(|scope| carries_secret(&scope.shown())) {
            return Err(RouteError::SecretScope);
        }
        if let Some(scope) = &scope {
            self.plan(&policy, scope, attempt)?;
        }
        let binding = Binding {
            server: server.name.clone(),
            upstream: server.identity.clone(),
            definition: known.known().digest(),
            policy: policy.digest,
            approvers: policy.approvers_digest(),
            scope: scope.as_ref().map(Scope::shown),
        };
        let key = CallDigest::of(call, &attempt.caller, &binding, None);
        Ok(Box::new(Case { policy, judged, binding, scope, key, repeated }))
    }

    /// What the record says of a call, beside what `more` adds.
    fn described(&self, attempt: &Attempt, case: &Case, more: serde_json::Value) -> String {
        const MOST: usize = 16 << 10;
        let short = !attempt.call.arguments.is_longer_than(MOST) && !self.carries_secret(case);
        let masked = short.then(|| canonical(&case.policy.show.masked(&attempt.call.arguments))).filter(|masked| masked.len() <= MOST);
        let assessment = &case.judged.assessment;
        let (stated_prompt, prompt_digest) = self.stated_prompt(&attempt.call, &case.policy.show);
        let described = Described {
            caller: &attempt.caller,
            server: &attempt.server.name,
            tool: &attempt.call.tool,
            method: (attempt.call.method != Method::CallTool).then(|| attempt.call.method.name()),
            arguments: masked.and_then(|masked| RawValue::from_string(masked).ok()),
            arguments_digest: attempt.call.arguments_digest(),
            score: assessment.score,
            band: assessment.band,
            findings: assessment.findings.iter().map(|f| json!({"signal": f.signal, "pointer": f.pointer, "points": f.points})).collect(),
            policy: case.policy.digest,
            shadow: (self.settings.enforcement == Enforcement::Shadow).then(|| format!("{:?}", verdict(&case.policy, &case.judged))),
            stated_prompt,
            prompt_digest,
            session: attempt.session.as_deref(),
            more,
        };
        // Nothing in it can fail to be written as JSON: no map has keys that are not text.
        serde_json::to_string(&described).unwrap_or_default()
    }

    /// Whether the findings say that an argument carries a secret: then no argument goes into the record.
    fn carries_secret(&self, case: &Case) -> bool {
        case.judged.assessment.findings.iter().any(|f| f.signal == "secret")
    }

    fn entry(&self, kind: EventKind, call: Option<CallDigest>, subject: Option<String>, data: String) -> Entry {
        Entry { kind, at: self.clock.now(), call, subject, data }
    }

    /// Takes an approval to its next state, with its record and what else changes, and tells every channel.
    async fn advance(&self, held: &Versioned, next: Approval, kind: EventKind, data: serde_json::Value, more: Vec<Effect>) -> Result<(), StoreError> {
        let request = held.approval.request();
        let entry = self.entry(kind, Some(request.key), Some(request.id.clone()), data.to_string());
        let mut effects = vec![Effect::Advance(held.next(next.clone()))];
        effects.extend(more);
        self.store.commit(Change::synced(entry, effects)).await?;
        self.channels.tell(&next).await;
        Ok(())
    }

    /// Records something that changes nothing else.
    async fn record(&self, kind: EventKind, call: Option<CallDigest>, subject: Option<String>, data: String) -> Result<Receipt, StoreError> {
        self.store.commit(Change::synced(self.entry(kind, call, subject, data), vec![])).await
    }

    /// Says something to the client.
    async fn say(&self, attempt: &Attempt, said: Said) {
        if !attempt.gone.is_cancelled() {
            drop(attempt.say.send(Box::new(said)).await);
        }
    }

    /// Says the last thing there is to say; answers whether the client's side took it.
    async fn deliver(&self, attempt: &Attempt, said: Said) -> bool {
        let (taken, was_taken) = oneshot::channel();
        !attempt.gone.is_cancelled() && attempt.say.send(Box::new(Said::Final(Box::new(said), taken))).await.is_ok() && was_taken.await.is_ok()
    }

    fn waiting(&self, approval: &Approval) -> Waiting {
        let request = approval.request();
        Waiting {
            approval: request.id.clone(),
            approvers: request.terms.seats(self.clock.now()).into_iter().map(str::to_owned).collect(),
            quorum: (request.terms.quorum, approval.reviews().len()),
            place: self.channels.place(approval),
            left: request.terms.decide_by.since(self.clock.now()),
        }
    }
}

/// What an agent or client says of itself, for records and approvers: not if it carries a secret.
fn stated(text: Option<&str>) -> Option<String> {
    text.map(|text| if carries_secret(text) { "(withheld: it carries a secret)".to_owned() } else { text.to_owned() })
}

impl Attempt {
    /// Whether nobody hears the answer now; somebody may come back for it.
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool {
        self.gone.is_cancelled() || self.say.is_closed()
    }

    /// Whether the client is of the stateless era.
    fn is_stateless(&self) -> bool {
        self.call.protocol_meta.get("io.modelcontextprotocol/protocolVersion").is_some()
    }

    /// What the client calls itself: in this request, or when its session was opened.
    fn client_name(&self) -> Option<&str> {
        let stated = self.call.protocol_meta.get("io.modelcontextprotocol/clientInfo").and_then(|info| info.as_object()?.get("name")?.as_str());
        stated.or(self.client.as_deref())
    }

    /// Server, tool and arguments.
    fn repeated(&self) -> Digest {
        let fields = Fields::new("countersign repeated v1")
            .field(self.call.method.name().as_bytes())
            .field(self.server.name.as_bytes())
            .field(self.call.tool.as_bytes());
        fields.field(self.call.arguments_digest().bytes()).digest()
    }

    /// The headers of a request that did not come over HTTP (MCP 2026-07-28, Streamable HTTP).
    fn made_headers(&self) -> Vec<(String, String)> {
        let mut headers = client_headers();
        if let Some(version) = self.call.protocol_meta.get("io.modelcontextprotocol/protocolVersion").and_then(Value::as_str) {
            headers.push(("mcp-protocol-version".into(), header_text(version)));
            headers.push(("mcp-method".into(), self.call.method.name().into()));
            headers.push(("mcp-name".into(), header_text(self.call.name())));
        }
        headers
    }

    /// The call as it goes upstream.
    fn outgoing(&self) -> Outgoing {
        let meta = &self.call.protocol_meta;
        let stateless = self.is_stateless();
        let without_token = || {
            let mut meta = meta.clone();
            meta.remove("progressToken");
            canonical(&Value::Object(meta))
        };
        Outgoing {
            id: self.id.clone(),
            method: self.call.method,
            params: self.call.forwarded(),
            headers: self.headers.clone().unwrap_or_else(|| self.made_headers()),
            stateless_meta: stateless.then(without_token),
            progress_token: self.call.protocol_meta.get("progressToken").map(canonical),
        }
    }
}
