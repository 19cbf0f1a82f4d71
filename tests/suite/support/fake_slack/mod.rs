//! A Slack that is a server: the Web API over HTTP, Socket Mode over web sockets, signed requests, with the real limits
//! and with faults on demand. It is itself tried with the official clients (`slack_clients.rs`).

mod api;
mod limits;
pub mod tls;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

pub const APP: &str = "A0COUNTER";
pub const TEAM: &str = "T0TEAM";
pub const BOT_TOKEN: &str = "xoxb-fake-bot-token";
pub const APP_TOKEN: &str = "xapp-fake-app-token";
pub const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
/// A trigger lives this long.
const TRIGGER: Duration = Duration::from_secs(3);

/// What goes wrong at the next call of a method.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 429 with `Retry-After`, in seconds.
    Slower(u64),
    /// This status, and no JSON.
    Status(u16),
    /// The answer comes so late.
    Late(Duration),
    /// `ok: false` with this word.
    Refuse(&'static str),
    /// It is done, and then the connection breaks: nobody knows.
    DoneAndGone,
}

/// A message as it stands.
#[derive(Clone, Debug)]
pub struct Posted {
    pub channel: String,
    pub ts: String,
    pub thread: Option<String>,
    pub text: String,
    pub blocks: Vec<Value>,
    /// Who alone sees it.
    pub only: Option<String>,
    pub updates: usize,
}

impl Posted {
    /// The buttons' action ids.
    pub fn buttons(&self) -> Vec<String> {
        self.actions().map(|button| button["action_id"].as_str().unwrap().to_owned()).collect()
    }

    fn actions(&self) -> impl Iterator<Item = &Value> {
        self.blocks.iter().filter(|b| b["type"] == "actions").flat_map(|b| b["elements"].as_array().unwrap())
    }

    /// All text that a reader sees, in order.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        self.blocks.iter().for_each(|block| shown(block, &mut out));
        out
    }
}

/// All text in a block or view, in order.
pub fn shown(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, member) in map {
                match (key.as_str(), member) {
                    ("text" | "fallback", Value::String(text)) => out.push_str(text),
                    ("user_id", Value::String(id)) => out.push_str(&format!("<@{id}>")),
                    _ => shown(member, out),
                }
            }
            if ["header", "rich_text_section", "rich_text_preformatted", "context", "button"].iter().any(|kind| value["type"] == *kind) {
                out.push('\n');
            }
        }
        Value::Array(items) => items.iter().for_each(|item| shown(item, out)),
        _ => {}
    }
}

/// How a delivery was confirmed.
#[derive(Clone, Debug)]
pub struct Ack {
    pub took: Duration,
    pub payload: Option<Value>,
}

/// How clicks get to the app.
#[derive(Clone, Debug)]
pub enum Way {
    Sockets,
    Signed(String),
}

struct Socket {
    id: u64,
    send: mpsc::UnboundedSender<Message>,
}

#[derive(Default)]
pub(super) struct State {
    users: BTreeMap<String, Value>,
    groups: HashMap<String, Vec<String>>,
    rooms: HashMap<String, Value>,
    messages: Vec<Posted>,
    views: BTreeMap<String, Value>,
    triggers: HashMap<String, Instant>,
    tickets: Vec<String>,
    sockets: Vec<Socket>,
    next: u64,
    turn: usize,
    waiting: HashMap<String, oneshot::Sender<Option<Value>>>,
    faults: HashMap<String, VecDeque<Fault>>,
    lasting: HashMap<String, Fault>,
    pub(super) calls: Vec<(String, Value)>,
    recent: HashMap<String, Vec<Instant>>,
    /// Every message and view that was taken.
    payloads: Vec<Value>,
    /// Connections that are somebody else's, for `num_connections`.
    foreign: usize,
    /// The next so many sockets are told to disconnect as soon as they are greeted.
    storm: usize,
    opened: usize,
    socket_base: String,
}

#[derive(Clone)]
pub struct FakeSlack {
    state: Arc<Mutex<State>>,
    pub api: String,
    pub way: Arc<Mutex<Way>>,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Ends the fake when dropped.
pub struct Held(CancellationToken);

impl FakeSlack {
    pub async fn start() -> (Self, Held) {
        Self::serve(None).await
    }

    /// Over TLS, with a certificate that only a private authority vouches for.
    pub async fn start_tls(authority: &tls::Authority) -> (Self, Held) {
        Self::serve(Some(authority)).await
    }

    async fn serve(authority: Option<&tls::Authority>) -> (Self, Held) {
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (api_port, socket_port) = (api.local_addr().unwrap().port(), sockets.local_addr().unwrap().port());
        let (http, ws, host) = if authority.is_some() { ("https", "wss", "localhost") } else { ("http", "ws", "127.0.0.1") };
        let state = State { socket_base: format!("{ws}://{host}:{socket_port}"), ..State::default() };
        let stop = CancellationToken::new();
        let slack = Self {
            state: Arc::new(Mutex::new(state)),
            api: format!("{http}://{host}:{api_port}/api"),
            way: Arc::new(Mutex::new(Way::Sockets)),
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            stop: stop.clone(),
        };
        for (id, name) in [("U0ANNA", "anna"), ("U0BERT", "bert"), ("U0OLGA", "olga"), ("U0CLEO", "cleo"), ("U0STRANGER", "stranger")] {
            slack.user(id, name, json!({}));
        }
        tokio::spawn(api::serve(slack.clone(), api, authority.map(tls::Authority::acceptor)));
        tokio::spawn(slack.clone().accept(sockets, authority.map(tls::Authority::acceptor)));
        (slack, Held(stop))
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A member, with what is said of them.
    pub fn user(&self, id: &str, name: &str, more: Value) {
        let mut user = json!({
            "id": id, "team_id": TEAM, "name": name, "deleted": false, "is_bot": false, "is_restricted": false,
            "is_ultra_restricted": false, "is_app_user": false, "real_name": name, "profile": {"email": format!("{name}@example.com")},
        });
        user.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.lock().users.insert(id.to_owned(), user);
    }

    pub fn group(&self, id: &str, members: &[&str]) {
        self.lock().groups.insert(id.to_owned(), members.iter().map(ToString::to_string).collect());
    }

    pub fn room(&self, id: &str, more: Value) {
        let mut room = json!({"id": id, "is_channel": true, "is_ext_shared": false});
        room.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.lock().rooms.insert(id.to_owned(), room);
    }

    /// What goes wrong at the next calls of a method.
    pub fn fail(&self, method: &str, faults: &[Fault]) {
        self.lock().faults.entry(method.to_owned()).or_default().extend(faults.iter().cloned());
    }

    /// What goes wrong until further notice; for one method or, with `*`, for all.
    pub fn fail_always(&self, method: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => drop(self.lock().lasting.insert(method.to_owned(), fault)),
            None => drop(self.lock().lasting.remove(method)),
        }
    }

    pub fn foreign(&self, count: usize) {
        self.lock().foreign = count;
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> usize {
        self.lock().sockets.len()
    }

    /// How often a socket was asked for.
    pub fn opened(&self) -> usize {
        self.lock().opened
    }

    pub async fn connected(&self, count: usize) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.sockets() < count {
            assert!(Instant::now() < until, "{} of {count} sockets", self.sockets());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tells every socket to go; the next `more` as well, as soon as they come.
    pub fn disconnect_all(&self, reason: &str, more: usize) {
        let mut state = self.lock();
        state.storm = more;
        let text = json!({"type": "disconnect", "reason": reason, "debug_info": {"host": "fake"}}).to_string();
        for socket in &state.sockets {
            drop(socket.send.send(Message::text(text.clone())));
        }
    }

    /// Breaks every connection, without a word.
    pub fn cut(&self) {
        self.lock().sockets.clear();
    }

    pub fn messages(&self) -> Vec<Posted> {
        self.lock().messages.clone()
    }

    pub fn view(&self, id: &str) -> Value {
        self.lock().views.get(id).cloned().unwrap_or(Value::Null)
    }

    /// Puts a modal back as it was: what somebody who kept it may still send.
    pub fn put_back(&self, id: &str, view: &Value) {
        self.lock().views.insert(id.to_owned(), view.clone());
    }

    pub fn payloads(&self) -> Vec<Value> {
        self.lock().payloads.clone()
    }

    /// How often a method was called.
    pub fn called(&self, method: &str) -> usize {
        self.lock().calls.iter().filter(|(name, _)| name == method).count()
    }

    /// The direct messages of a user.
    pub fn inbox_of(&self, user: &str) -> Vec<Posted> {
        let place = dm(user);
        self.messages().into_iter().filter(|m| m.channel == place).collect()
    }

    /// Waits for a message that is so.
    pub async fn wait_for(&self, what: &str, fits: impl Fn(&Posted) -> bool) -> Posted {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = self.messages().into_iter().find(|m| fits(m)) {
                return found;
            }
            assert!(Instant::now() < until, "no message that {what}: {:#?}", self.messages().iter().map(Posted::shown).collect::<Vec<_>>());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The card that asks `user`.
    pub async fn card(&self, user: &str) -> Posted {
        let place = dm(user);
        self.wait_for("asks", |m| m.channel == place && m.thread.is_none() && !m.buttons().is_empty()).await
    }

    /// The card's present state.
    pub fn now(&self, card: &Posted) -> Posted {
        self.messages().into_iter().find(|m| m.ts == card.ts && m.channel == card.channel).unwrap()
    }

    pub async fn card_becomes(&self, card: &Posted, what: &str) -> Posted {
        let (ts, channel) = (card.ts.clone(), card.channel.clone());
        self.wait_for(what, move |m| m.ts == ts && m.channel == channel && m.shown().contains(what)).await
    }

    /// Waits for what `user` alone is told.
    pub async fn told(&self, user: &str, part: &str) -> Posted {
        self.wait_for(part, |m| m.only.as_deref() == Some(user) && m.shown().contains(part)).await
    }

    fn number(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next
    }

    fn trigger(&self) -> String {
        let id = format!("trigger.{}", self.number());
        self.lock().triggers.insert(id.clone(), Instant::now());
        id
    }

    /// What Slack says when `user` presses a button of `card`.
    pub fn click_payload(&self, user: &str, card: &Posted, action: &str) -> Value {
        let button = card.actions().find(|button| button["action_id"] == action).cloned();
        let mut button = button.unwrap_or_else(|| {
            let value = card.actions().next().map_or_else(|| json!("nothing"), |b| b["value"].clone());
            json!({"type": "button", "action_id": action, "value": value})
        });
        button["action_ts"] = json!("1");
        button["block_id"] = json!("b1");
        let team = self.lock().users.get(user).map_or(json!(TEAM), |u| u["team_id"].clone());
        json!({
            "type": "block_actions", "token": "legacy", "api_app_id": APP, "trigger_id": self.trigger(),
            "user": {"id": user, "username": user, "name": user, "team_id": team}, "team": {"id": TEAM, "domain": "example"},
            "enterprise": null, "is_enterprise_install": false,
            "container": {"type": "message", "message_ts": card.ts, "channel_id": card.channel, "is_ephemeral": false},
            "channel": {"id": card.channel, "name": "directmessage"}, "message": {"ts": card.ts, "text": card.text, "blocks": card.blocks},
            "state": {"values": {}}, "response_url": "http://127.0.0.1:9/never", "actions": [button],
        })
    }

    /// `user` presses a button of `card`.
    pub async fn click(&self, user: &str, card: &Posted, action: &str) -> Ack {
        self.deliver(self.click_payload(user, card, action)).await
    }

    /// `user` presses a button, and the modal that opens.
    pub async fn click_for_view(&self, user: &str, card: &Posted, action: &str) -> (String, Value) {
        let before = self.lock().views.len();
        self.click(user, card, action).await;
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some((id, view)) = self.lock().views.iter().nth(before) {
                return (id.clone(), view.clone());
            }
            assert!(Instant::now() < until, "no modal opened");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `user` presses a button in a modal.
    pub async fn turn(&self, user: &str, view: &str, action: &str) -> Ack {
        let shown = self.view(view);
        self.deliver(json!({
            "type": "block_actions", "api_app_id": APP, "trigger_id": self.trigger(), "user": {"id": user, "team_id": TEAM}, "team": {"id": TEAM},
            "container": {"type": "view", "view_id": view}, "view": with_id(shown, view), "actions": [{"type": "button", "action_id": action, "value": "-"}],
        }))
        .await
    }

    /// `user` submits a modal.
    pub async fn submit(&self, user: &str, view: &str, fields: &[(&str, &str)]) -> Ack {
        let mut shown = with_id(self.view(view), view);
        let mut values = json!({});
        for (name, value) in fields {
            values[*name][*name] = match *name {
                "again" => json!({"type": "static_select", "selected_option": {"value": value, "text": {"type": "plain_text", "text": value}}}),
                _ => json!({"type": "plain_text_input", "value": value}),
            };
        }
        shown["state"] = json!({"values": values});
        let ack = self
            .deliver(json!({
                "type": "view_submission", "api_app_id": APP, "trigger_id": self.trigger(), "user": {"id": user, "team_id": TEAM},
                "team": {"id": TEAM, "domain": "example"}, "view": shown, "response_urls": [],
            }))
            .await;
        if let Some(payload) = &ack.payload
            && payload["response_action"] == "update"
        {
            limits::view(&payload["view"]).unwrap();
            let mut state = self.lock();
            state.payloads.push(payload["view"].clone());
            state.views.insert(view.to_owned(), payload["view"].clone());
        }
        ack
    }

    pub async fn view_becomes(&self, view: &str, part: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let now = self.view(view);
            let mut text = String::new();
            shown(&now["blocks"], &mut text);
            if text.contains(part) {
                return now;
            }
            assert!(Instant::now() < until, "no `{part}` in {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Delivers as Slack does, once, and waits for the confirmation.
    pub async fn deliver(&self, payload: Value) -> Ack {
        self.try_deliver(payload).await.unwrap_or_else(|| panic!("Slack was not answered within 3 s"))
    }

    pub async fn try_deliver(&self, payload: Value) -> Option<Ack> {
        let way = self.way.lock().unwrap().clone();
        let start = Instant::now();
        match way {
            Way::Sockets => {
                let (_, answer) = self.push(&payload, None)?;
                let payload = tokio::time::timeout(Duration::from_secs(3), answer).await.ok()?.ok()?;
                Some(Ack { took: start.elapsed(), payload })
            }
            Way::Signed(url) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let (status, text) = self.signed(&url, &payload, SECRET, i64::try_from(now).unwrap()).await;
                assert_eq!(status, 200, "{text}");
                Some(Ack { took: start.elapsed(), payload: serde_json::from_str(&text).ok() })
            }
        }
    }

    /// Sends an envelope over one socket; which one, unless told, is the next one's turn.
    pub fn push(&self, payload: &Value, envelope: Option<&str>) -> Option<(String, oneshot::Receiver<Option<Value>>)> {
        let id = envelope.map_or_else(|| format!("envelope-{}", self.number()), str::to_owned);
        let (done, answer) = oneshot::channel();
        let mut state = self.lock();
        let count = state.sockets.len();
        if count == 0 {
            return None;
        }
        state.turn += 1;
        let turn = state.turn % count;
        let accepts = payload["type"] == "view_submission";
        let text = json!({"type": "interactive", "envelope_id": id, "payload": payload, "accepts_response_payload": accepts}).to_string();
        state.waiting.insert(id.clone(), done);
        state.sockets[turn].send.send(Message::text(text)).ok()?;
        Some((id, answer))
    }

    /// Sends a signed request.
    pub async fn signed(&self, url: &str, payload: &Value, secret: &str, at: i64) -> (u16, String) {
        let body = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
        self.signed_raw(url, body.clone(), &sign(secret, at, &body), &at.to_string()).await
    }

    pub async fn signed_raw(&self, url: &str, body: String, signature: &str, at: &str) -> (u16, String) {
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let response = request.header("x-slack-signature", signature).header("x-slack-request-timestamp", at).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn accept(self, listener: TcpListener, acceptor: Option<tokio_rustls::TlsAcceptor>) {
        loop {
            let (tcp, _) = tokio::select! {
                accepted = listener.accept() => match accepted { Ok(accepted) => accepted, Err(_) => return },
                () = self.stop.cancelled() => return,
            };
            let (slack, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(tcp).await {
                            slack.socket(stream).await;
                        }
                    }
                    None => slack.socket(tcp).await,
                }
            });
        }
    }

    #[expect(clippy::result_large_err, reason = "the library's own type")]
    async fn socket<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send>(self, stream: S) {
        use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
        let state = self.state.clone();
        let check = move |request: &Request, response: Response| {
            let query = request.uri().query().unwrap_or_default();
            let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket=")).unwrap_or_default().to_owned();
            let mut state = state.lock().unwrap();
            let before = state.tickets.len();
            state.tickets.retain(|known| *known != ticket);
            if state.tickets.len() == before {
                let refusal = tokio_tungstenite::tungstenite::http::Response::builder().status(401).body(None).unwrap();
                return Err(refusal);
            }
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
        let (send, mut queue) = mpsc::unbounded_channel();
        let (id, hello, storm) = self.greeting(send);
        let Some(id) = id else {
            drop(socket.send(Message::text(hello)).await);
            return;
        };
        drop(socket.send(Message::text(hello)).await);
        if storm {
            drop(socket.send(Message::text(json!({"type": "disconnect", "reason": "warning", "debug_info": {}}).to_string())).await);
        }
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.heard(text.as_str()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {}
                },
                out = queue.recv() => match out {
                    Some(out) => drop(socket.send(out).await),
                    // Cut: the connection breaks without a word.
                    None => return,
                },
                () = self.stop.cancelled() => break,
            }
        }
        self.lock().sockets.retain(|socket| socket.id != id);
    }

    /// The socket's number, its first message, and whether it is sent away at once; no number if there are too many.
    fn greeting(&self, send: mpsc::UnboundedSender<Message>) -> (Option<u64>, String, bool) {
        let mut state = self.lock();
        if state.sockets.len() + state.foreign >= 10 {
            return (None, json!({"type": "disconnect", "reason": "too_many_websockets", "debug_info": {}}).to_string(), false);
        }
        state.next += 1;
        let id = state.next;
        state.sockets.push(Socket { id, send });
        let storm = state.storm > 0;
        state.storm = state.storm.saturating_sub(1);
        let all = state.sockets.len() + state.foreign;
        let hello = json!({
            "type": "hello", "num_connections": all, "connection_info": {"app_id": APP},
            "debug_info": {"host": "fake", "build_number": 1, "approximate_connection_time": 18060},
        });
        (Some(id), hello.to_string(), storm)
    }

    fn heard(&self, text: &str) {
        let Ok(reply) = serde_json::from_str::<Value>(text) else { return };
        let id = reply["envelope_id"].as_str().unwrap_or_default();
        if let Some(done) = self.lock().waiting.remove(id) {
            drop(done.send(reply.get("payload").cloned()));
        }
    }
}

fn with_id(mut view: Value, id: &str) -> Value {
    view["id"] = json!(id);
    view["hash"] = json!("1.abc");
    view["app_id"] = json!(APP);
    view
}

/// The direct-message channel of a user.
pub fn dm(user: &str) -> String {
    format!("D{}", user.strip_prefix('U').unwrap_or(user))
}

/// Signs as Slack does.
pub fn sign(secret: &str, at: i64, body: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, format!("v0:{at}:{body}").as_bytes());
    format!("v0={}", countersign::domain::digest::hex(tag.as_ref()))
}
