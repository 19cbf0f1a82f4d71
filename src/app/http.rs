//! One router for everything on the port: MCP, the inbox, keys and introspection, health.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::TlsListener;
use crate::adapters::channel::pages;
use crate::downstream::http::{Connection, HttpFront, only_our_hosts, routes};
use crate::gateway::Gateway;
use crate::system::{serve_as, threads};

/// How long connections that are at something may take to end.
const LAST: Duration = Duration::from_secs(3);

/// Serves on as many threads as there are cores, each with what it needs to serve a connection without waking another:
/// a call costs less than the hand-overs between threads would. They end with `over`, when what was begun has ended.
pub(super) async fn serve_wide(door: Door, over: CancellationToken) -> std::io::Result<()> {
    let Door { listener, tls, front, gateway, stop } = door;
    let listener = listener.into_std()?;
    let (ended, mut ends) = mpsc::channel(1);
    for number in 0..threads() {
        let listener = listener.try_clone()?;
        let (tls, front, gateway) = (tls.clone(), front.clone(), gateway.clone());
        let (ended, over, stop) = (ended.clone(), over.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("door-{number}")).spawn(move || {
            serve_as(number);
            runtime.block_on(async move {
                let end = match TcpListener::from_std(listener) {
                    Ok(listener) => serve(Door { listener, tls, front, gateway, stop }).await,
                    Err(error) => Err(error),
                };
                // Whoever waited for it may have gone.
                drop(ended.send(end).await);
                drop(ended);
                over.cancelled().await;
            });
        })?;
    }
    drop(ended);
    let mut all = Ok(());
    while let Some(end) = ends.recv().await {
        all = all.and(end);
    }
    all
}

/// What is served, and where.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) front: Arc<HttpFront>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) stop: CancellationToken,
}

/// Serves until `stop`, on this runtime.
pub(super) async fn serve(door: Door) -> std::io::Result<()> {
    let Door { listener, tls, front, gateway, stop } = door;
    let secure = front.address.starts_with("https://");
    let health = Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).route("/metrics", get(metrics));
    let health = health.with_state(gateway.clone());
    let hooks = gateway.channels.each().filter_map(|channel| channel.routes(gateway.clone())).fold(Router::new(), Router::merge);
    let router =
        routes(front.clone()).merge(pages::routes(gateway, secure)).merge(health).merge(hooks).layer(from_fn_with_state(front, only_our_hosts));
    // Without this small messages wait for acknowledgements of the ones before: 40 ms each.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    match tls {
        None => accept(listener, router, |_| None, stop).await,
        Some(acceptor) => accept(TlsListener::new(listener, acceptor), router, Some, stop).await,
    }
    Ok(())
}

/// Takes connections until `stop`, and waits for those that are at something. HTTP/1.1 alone: a connection that idles or
/// waits needs a third of the memory of one that could become another protocol.
async fn accept<L: Listener>(mut listener: L, router: Router, known: impl Fn(L::Addr) -> Option<Connection>, stop: CancellationToken) {
    let (graceful, connections) = (GracefulShutdown::new(), TaskTracker::new());
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let router = match known(from) {
            Some(connection) => router.clone().layer(Extension(ConnectInfo(connection))),
            None => router.clone(),
        };
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        // A connection that breaks is its client's affair.
        connections.spawn(graceful.watch(connection));
    }
    // Streams that clients keep open must not keep the program from ending.
    drop(tokio::time::timeout(LAST, graceful.shutdown()).await);
}

/// Whether calls can be taken: the store answers. What is wrong with a channel is said and is no reason to send calls
/// elsewhere: they are held, and the inbox has them.
async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, String) {
    if gateway.store.records(i64::MAX - 1, 1).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n".into());
    }
    let troubles = gateway.channels.each().filter_map(|c| c.trouble().map(|why| format!("{}: {why}\n", c.name())));
    (StatusCode::OK, troubles.fold("ready\n".to_owned(), |text, trouble| text + &trouble))
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    ([(axum::http::header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], gateway.metrics.text())
}
