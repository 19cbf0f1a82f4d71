//! One router for everything on the port: MCP, the inbox, keys and introspection, health.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::adapters::channel::pages;
use crate::downstream::http::{HttpFront, only_our_hosts, routes};
use crate::gateway::Gateway;

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, front: Arc<HttpFront>, gateway: Arc<Gateway>, stop: CancellationToken) -> std::io::Result<()> {
    let secure = front.address.starts_with("https://");
    let health = Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).with_state(gateway.clone());
    let router = routes(front.clone()).merge(pages::routes(gateway, secure)).merge(health).layer(from_fn_with_state(front, only_our_hosts));
    // Without this small messages wait for acknowledgements of the ones before: 40 ms each.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let server = axum::serve(listener, router).with_graceful_shutdown({
        let stop = stop.clone();
        async move { stop.cancelled().await }
    });
    tokio::select! {
        end = server => end,
        // Streams that clients keep open must not keep the program from ending.
        () = async { stop.cancelled().await; tokio::time::sleep(std::time::Duration::from_secs(3)).await } => Ok(()),
    }
}

/// Whether calls can be taken: the store answers.
async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    match gateway.store.records(i64::MAX - 1, 1).await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}
