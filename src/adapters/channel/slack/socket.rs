//! Socket Mode: several sockets that we open, so that no port of ours need be open.
//!
//! A click is kept before it is confirmed, and confirmed before it is judged: judging never keeps a socket waiting. A
//! socket is replaced before it is closed. Every greeting says how many connections the app has; more than ours means
//! that somebody else has the app's token and takes our clicks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use super::clicks::Clicks;
use super::web::{Web, WebError};
use super::{Delivery, Shared};
use crate::adapters::channel::PostDesk;
use crate::system::random_hex;

/// How long connecting and greeting may take.
const GREETING: Duration = Duration::from_secs(10);
/// How often a socket is asked whether it is alive.
const PING: Duration = Duration::from_secs(10);
/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a socket that is to be replaced is still read.
const DRAIN: Duration = Duration::from_secs(15);
/// How long it is read once the next is there.
const LAST: Duration = Duration::from_secs(2);
/// A socket that lived so long was good: the next is opened at once.
const GOOD: Duration = Duration::from_secs(30);
/// Longest wait between attempts.
const LONGEST: Duration = Duration::from_secs(60);
/// How soon a second look is taken at connections that seem not to be ours.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// Most bytes of one message.
const MOST: usize = 4 << 20;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Socket = WebSocketStream<Box<dyn Stream>>;

#[derive(Deserialize)]
struct Address {
    url: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    envelope_id: Option<String>,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    accepts_response_payload: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    num_connections: Option<usize>,
    #[serde(default)]
    connection_info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    app_id: Option<String>,
}

/// A socket that Slack greeted.
struct Open {
    socket: Socket,
    /// Slack may count it.
    ours: Counted,
    /// A click on a card posted now may come by it.
    live: Option<Live>,
    /// What is still to be confirmed on it, whoever reads it meanwhile.
    confirm: mpsc::Sender<String>,
    confirmed: mpsc::Receiver<String>,
}

/// Why a socket ended.
enum End {
    /// It broke, or was never there.
    Broken(String),
    /// It will not be otherwise: Socket Mode is off, or the token is of no use.
    Fatal(String),
    /// It is to be replaced, and may still say something.
    Replace(Box<Open>),
    /// The program ends.
    Stopped,
}

/// One of the sockets.
struct Slot<'a> {
    shared: &'a Arc<Shared>,
    web: &'a Web,
    clicks: &'a Clicks,
    desk: &'a Arc<dyn PostDesk>,
    refresh: Duration,
    /// Whether the last greeting told of more connections than ours.
    suspects: AtomicBool,
    stop: &'a CancellationToken,
}

/// Keeps `count` sockets open until stopped.
pub(super) async fn run(
    shared: &Arc<Shared>,
    token: &str,
    count: usize,
    refresh: Duration,
    clicks: &Clicks,
    desk: &Arc<dyn PostDesk>,
    stop: &CancellationToken,
) {
    let web = match Web::new(&shared.settings.api, token, shared.metrics.clone()) {
        Ok(web) => web,
        Err(why) => return shared.give_up(why),
    };
    let slot = |n: usize| {
        let slot = Slot { shared, web: &web, clicks, desk, refresh, suspects: AtomicBool::new(false), stop };
        async move {
            // One after the other, also when they are replaced.
            tokio::time::sleep(Duration::from_millis(200).saturating_mul(u32::try_from(n).unwrap_or(0))).await;
            slot.keep().await;
        }
    };
    futures_util::future::join_all((0..count).map(slot)).await;
}

impl Slot<'_> {
    /// Opens a socket, reads it, and opens the next.
    async fn keep(&self) {
        let mut failures = 0u32;
        let mut old: Option<Draining> = None;
        while !self.stop.is_cancelled() {
            let started = self.shared.clock.now();
            let end = tokio::select! {
                end = self.one(old.take()) => end,
                () = self.stop.cancelled() => End::Stopped,
            };
            let lived = self.shared.clock.now().since(started);
            failures = if lived >= GOOD { 0 } else { failures.saturating_add(1) };
            match end {
                End::Stopped => return,
                End::Fatal(why) => return self.shared.give_up(why),
                // Once, and now and then while it goes on.
                End::Broken(why) if failures <= 1 || failures.is_multiple_of(10) => {
                    tracing::warn!("a Slack socket ended, and is opened again: {why}")
                }
                End::Broken(why) => tracing::debug!("a Slack socket ended, and is opened again: {why}"),
                End::Replace(open) => old = Some(drain(self.shared, self.clicks, *open, self.stop.clone())),
            }
            // The first replacement comes at once; Slack that sends every socket away is not besieged.
            if failures > 1 {
                let longest = Duration::from_millis(250).saturating_mul(1 << failures.min(9)).min(LONGEST);
                tokio::select! {
                    () = tokio::time::sleep(jittered(longest)) => {}
                    () = self.stop.cancelled() => return,
                }
            }
        }
    }

    /// One socket, from opening to its end. `old` is let go once it is greeted.
    async fn one(&self, old: Option<Draining>) -> End {
        let ours = Counted::new(self.shared);
        let mut socket = match tokio::time::timeout(GREETING, self.open()).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(end)) => return end,
            Err(_) => return End::Broken(format!("no connection within {} s", GREETING.as_secs())),
        };
        let hello = match tokio::time::timeout(GREETING, greeting(&mut socket)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return end,
            Err(_) => return End::Broken(format!("no greeting within {} s", GREETING.as_secs())),
        };
        let app = hello.connection_info.and_then(|info| info.app_id);
        if let Some(app) = app.filter(|app| *app != self.shared.settings.app_id) {
            return End::Fatal(format!("the app token belongs to the app {app}, and `app-id` says {}", self.shared.settings.app_id));
        }
        let (confirm, confirmed) = mpsc::channel(256);
        let open = Open { socket, ours, live: Some(Live::new(self.shared)), confirm, confirmed };
        self.shared.metrics.last_hello.set(self.shared.clock.now().seconds() as f64);
        drop(old);
        let refresh = self.look_around(hello.num_connections).await;
        self.shared.wake.notify_one();
        self.read(open, refresh).await
    }

    /// Compares how many connections the app has with how many are ours; answers when this socket is to be replaced.
    async fn look_around(&self, all: Option<usize>) -> Duration {
        let ours = self.shared.health.ours.load(Ordering::SeqCst);
        let foreign = all.unwrap_or(0).saturating_sub(ours);
        self.shared.metrics.foreign.set(i64::try_from(foreign).unwrap_or(i64::MAX));
        match (foreign, self.suspects.swap(foreign > 0, Ordering::SeqCst)) {
            (0, _) => {
                self.shared.alarm(self.desk.as_ref(), false).await;
                jittered(self.refresh)
            }
            // Slack may still count one that just ended: it is an alarm if it is so twice.
            (_, false) => SECOND_LOOK,
            _ => {
                self.shared.alarm(self.desk.as_ref(), true).await;
                SECOND_LOOK
            }
        }
    }

    async fn open(&self) -> Result<Socket, End> {
        let address: Address = self.web.post("apps.connections.open", &json!({})).await.map_err(|error: WebError| {
            if error.is_fatal() { End::Fatal(format!("the app token is of no use: {error}")) } else { End::Broken(error.to_string()) }
        })?;
        // The address carries a ticket: it is never said.
        let broken = |why: &str| End::Broken(format!("the socket could not be opened: {why}"));
        let url = url::Url::parse(&address.url).map_err(|_| broken("its address is none"))?;
        let secure = url.scheme() == "wss";
        if !(secure || url.scheme() == "ws" && self.shared.settings.api.starts_with("http://")) {
            return Err(broken("its address is not wss"));
        }
        let host = url.host_str().ok_or_else(|| broken("its address has no host"))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|e| broken(&e.to_string()))?;
        drop(tcp.set_nodelay(true));
        let stream: Box<dyn Stream> = if secure { Box::new(tls(&host, tcp).await.map_err(|why| broken(&why))?) } else { Box::new(tcp) };
        let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
        let opened = tokio_tungstenite::client_async_with_config(url.as_str(), stream, Some(config)).await;
        opened.map(|(socket, _)| socket).map_err(|error| match error {
            tokio_tungstenite::tungstenite::Error::Http(response) => broken(&format!("status {}", response.status().as_u16())),
            _ => broken("it did not become a web socket"),
        })
    }

    /// Reads until the socket ends, is to be replaced, or says nothing any more.
    async fn read(&self, mut open: Open, refresh: Duration) -> End {
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let refresh = tokio::time::sleep(refresh);
        tokio::pin!(refresh);
        let mut last = self.shared.clock.now();
        loop {
            tokio::select! {
                message = open.socket.next() => {
                    last = self.shared.clock.now();
                    match message {
                        Some(Ok(Message::Text(text))) => match heard(self.shared, self.clicks, text.as_str(), &open.confirm) {
                            Some(Ended::Replace) => return End::Replace(Box::new(open)),
                            Some(Ended::Fatal(why)) => return End::Fatal(why),
                            None => {}
                        },
                        Some(Ok(Message::Close(_))) | None => return End::Broken("Slack closed it".into()),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return End::Broken(error.to_string()),
                    }
                }
                Some(text) = open.confirmed.recv() => {
                    if open.socket.send(Message::text(text)).await.is_err() {
                        return End::Broken("a confirmation could not be sent".into());
                    }
                }
                _ = ping.tick() => {
                    if self.shared.clock.now().since(last) > SILENCE {
                        return End::Broken(format!("nothing came for {} s", SILENCE.as_secs()));
                    }
                    if open.socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return End::Broken("it does not take anything any more".into());
                    }
                }
                () = &mut refresh => return End::Replace(Box::new(open)),
                () = self.stop.cancelled() => {
                    drop(tokio::time::timeout(Duration::from_secs(1), open.socket.close(None)).await);
                    return End::Stopped;
                }
            }
        }
    }
}

/// Takes one message. What there is to do is done beside the socket.
fn heard(shared: &Shared, clicks: &Clicks, text: &str, confirm: &mpsc::Sender<String>) -> Option<Ended> {
    let Ok(envelope) = serde_json::from_str::<Envelope>(text) else {
        tracing::warn!("Slack said something that is not understood");
        return None;
    };
    match (envelope.kind.as_str(), envelope.envelope_id, envelope.payload) {
        ("disconnect", ..) => match envelope.reason.as_deref() {
            Some("link_disabled") => return Some(Ended::Fatal("Socket Mode is switched off for this app".into())),
            _ => return Some(Ended::Replace),
        },
        ("hello", ..) => {}
        (kind, Some(id), Some(payload)) => {
            let (clicks, confirm, answers) = (clicks.clone(), confirm.clone(), envelope.accepts_response_payload);
            let interactive = kind == "interactive";
            shared.tasks.spawn(async move {
                let taken = match interactive {
                    true => clicks.take(&format!("envelope {id}"), payload.get()).await,
                    false => Ok(super::clicks::Taken { answer: None, work: None }),
                };
                let taken = match taken {
                    Ok(taken) => taken,
                    // Not confirmed: the person sees that it failed.
                    Err(error) => return tracing::error!(%error, "a click could not be kept, and so does not count"),
                };
                let mut reply = json!({"envelope_id": id});
                if let (true, Some(answer), Some(reply)) = (answers, taken.answer, reply.as_object_mut()) {
                    reply.insert("payload".into(), answer);
                }
                // A socket that is gone cannot be told; Slack may then send it again, which changes nothing.
                drop(confirm.send(reply.to_string()).await);
                drop(confirm);
                if let Some(work) = taken.work {
                    clicks.work(work).await;
                }
            });
        }
        _ => {}
    }
    None
}

/// Goes on reading a socket that is being replaced: what Slack still sends there counts, and is confirmed there.
fn drain(shared: &Arc<Shared>, clicks: &Clicks, mut open: Open, stop: CancellationToken) -> Draining {
    let replaced = CancellationToken::new();
    let (shared, clicks, token) = (shared.clone(), clicks.clone(), replaced.clone());
    shared.clone().tasks.spawn(async move {
        let until = tokio::time::sleep(DRAIN);
        tokio::pin!(until);
        loop {
            tokio::select! {
                message = open.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => drop(heard(&shared, &clicks, text.as_str(), &open.confirm)),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                Some(text) = open.confirmed.recv() => {
                    if open.socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                () = token.cancelled(), if open.live.is_some() => {
                    open.live = None;
                    until.as_mut().reset(tokio::time::Instant::now() + LAST);
                }
                () = &mut until => break,
                () = stop.cancelled() => break,
            }
        }
        drop(tokio::time::timeout(LAST, open.socket.close(None)).await);
        drop(open.ours);
    });
    Draining(replaced)
}

/// Why the reading of a socket ends.
enum Ended {
    Replace,
    Fatal(String),
}

/// A socket that is being replaced; dropped once the next is there.
struct Draining(CancellationToken);

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A connection that Slack may count, for as long as it is held and a moment longer.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.health.ours.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.health.ours.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection that Slack greeted.
struct Live(Arc<Shared>);

impl Live {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.health.live.fetch_add(1, Ordering::SeqCst);
        shared.metrics.sockets.inc();
        Self(shared.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.health.live.fetch_sub(1, Ordering::SeqCst);
        self.0.metrics.sockets.dec();
    }
}

/// The first message.
async fn greeting(socket: &mut Socket) -> Result<Envelope, End> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                let envelope: Envelope = serde_json::from_str(text.as_str()).map_err(|_| End::Broken("its greeting is not understood".into()))?;
                return match (envelope.kind.as_str(), envelope.reason.as_deref()) {
                    ("hello", _) => Ok(envelope),
                    ("disconnect", Some("link_disabled")) => Err(End::Fatal("Socket Mode is switched off for this app".into())),
                    (_, reason) => Err(End::Broken(format!("Slack sent it away: {}", reason.unwrap_or("it did not say why")))),
                };
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Broken("it ended before it was greeted".into())),
            Some(Ok(_)) => {}
        }
    }
}

async fn tls(host: &str, tcp: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.with_platform_verifier().map_err(|e| e.to_string())?.with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| e.to_string())
}

/// Between half of `longest` and all of it, so that sockets do not come in step.
fn jittered(longest: Duration) -> Duration {
    let chance = random_hex::<1>().ok().and_then(|hex| u32::from_str_radix(&hex, 16).ok()).unwrap_or(255);
    longest / 2 + longest * chance / 512
}

/// Opens one socket, is greeted, and closes it; for tests by the operator.
pub(super) async fn try_once(shared: &Arc<Shared>, clicks: &Clicks, desk: &Arc<dyn PostDesk>) -> Result<usize, String> {
    let Delivery::Sockets { token, .. } = &shared.settings.clicks else { return Ok(0) };
    let web = Web::new(&shared.settings.api, token, shared.metrics.clone())?;
    let stop = CancellationToken::new();
    let slot = Slot { shared, web: &web, clicks, desk, refresh: DRAIN, suspects: AtomicBool::new(false), stop: &stop };
    let said = |end: End| match end {
        End::Broken(why) | End::Fatal(why) => why,
        End::Replace(..) | End::Stopped => "Slack sent it away".into(),
    };
    let open = async {
        let mut socket = slot.open().await.map_err(said)?;
        let hello = greeting(&mut socket).await.map_err(said)?;
        drop(socket.close(None).await);
        match hello.connection_info.and_then(|info| info.app_id) {
            Some(app) if app != shared.settings.app_id => Err(format!("the app token belongs to the app {app}, not to {}", shared.settings.app_id)),
            _ => Ok(hello.num_connections.unwrap_or(1)),
        }
    };
    tokio::time::timeout(GREETING, open).await.map_err(|_| format!("no greeting within {} s", GREETING.as_secs()))?
}
