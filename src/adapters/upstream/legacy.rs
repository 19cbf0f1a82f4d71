//! The transport of MCP 2024-11-05 as a pair of pipes: the server speaks on one stream of events that stays open, and its
//! first event names the address that takes what is said to it.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::ACCEPT;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::envelope::failure;
use super::http::{client_headers, collect, is_stream};
use super::sse::{Events, data, name};
use super::{Envelope, HttpUpstream, InvokeError, Lines, MAX_MESSAGE, Secrets};

/// How much lies in a pipe.
const PIPE: usize = 64 << 10;

/// Connects; with a credential, for one call. Gives what takes messages, what gives them, and what ends it when dropped.
pub(super) fn connect(http: &HttpUpstream, secrets: Option<&Secrets>, tasks: &TaskTracker) -> (DuplexStream, DuplexStream, DropGuard) {
    let ((stdin, from_client), (to_client, stdout)) = (duplex(PIPE), duplex(PIPE));
    let over = CancellationToken::new();
    let secrets = secrets.map(|secrets| Secrets { headers: secrets.headers.clone(), ..Secrets::default() });
    let (http, ended) = (http.clone(), over.clone());
    tasks.spawn(async move {
        let remote = Remote { http, secrets, to_client: Mutex::new(to_client), endpoint: watch::Sender::new(None) };
        tokio::select! {
            end = remote.hear() => if let Err(error) = end {
                tracing::warn!(%error, "the connection to a server ended");
            },
            () = remote.say(from_client) => {}
            () = ended.cancelled() => {}
        }
    });
    (stdin, stdout, over.drop_guard())
}

struct Remote {
    http: HttpUpstream,
    secrets: Option<Secrets>,
    to_client: Mutex<DuplexStream>,
    /// Where messages go, once the server said.
    endpoint: watch::Sender<Option<HttpUpstream>>,
}

impl Remote {
    /// Hands on what the server says, until it says no more.
    async fn hear(&self) -> Result<(), InvokeError> {
        let lost = |why: &str| InvokeError::Lost(why.to_owned());
        let headers = [(ACCEPT.as_str().to_owned(), "text/event-stream".to_owned())];
        let response = self.http.request(Method::GET, &headers, self.secrets.as_ref(), Bytes::new()).await?;
        if !response.status().is_success() || !is_stream(response.headers()) {
            return Err(InvokeError::NotSent(format!("the server answered {} and no stream of events", response.status())));
        }
        let (mut body, mut events) = (response.into_body(), Events::default());
        while let Some(frame) = body.frame().await {
            events.push(&frame.map_err(|error| lost(&error.to_string()))?.into_data().unwrap_or_default());
            if events.waiting() > MAX_MESSAGE {
                return Err(lost("an event is too long"));
            }
            while let Some(event) = events.next_event() {
                let Some(message) = data(&event) else { continue };
                match name(&event).as_deref() {
                    Some("endpoint") => {
                        let address = String::from_utf8_lossy(&message).into_owned();
                        // A server that could name any address could have the gateway's token sent there.
                        let endpoint = self.http.at(address.trim()).ok_or_else(|| lost("the server names an address of another origin"))?;
                        self.endpoint.send_replace(Some(endpoint));
                    }
                    None | Some("message") => self.hand(&message).await?,
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Sends what the client says, one message after the other, until it says no more.
    async fn say(&self, from_client: DuplexStream) {
        let mut lines = Lines::new(from_client, MAX_MESSAGE);
        let mut named = self.endpoint.subscribe();
        while let Ok(Some(line)) = lines.next().await {
            let Ok(Some(endpoint)) = named.wait_for(Option::is_some).await.map(|endpoint| endpoint.clone()) else { return };
            let why = match endpoint.request(Method::POST, &client_headers(), self.secrets.as_ref(), line.clone()).await {
                Ok(response) if response.status().is_success() => {
                    // Its words are on the stream; the connection is free again when this is read.
                    drop(collect(response.into_body()).await);
                    continue;
                }
                Ok(response) => format!("the server answered {}", response.status()),
                Err(error) => error.to_string(),
            };
            tracing::warn!(why, "a server did not take a message");
            let asked = Envelope::read(&line).ok().filter(|envelope| envelope.method.is_some());
            let answer =
                asked.and_then(|envelope| Some(failure(envelope.id()?, -31005, &format!("the server behind this gateway did not take it: {why}"))));
            if let Some(answer) = answer {
                drop(self.hand(&answer).await);
            }
        }
    }

    async fn hand(&self, message: &[u8]) -> Result<(), InvokeError> {
        let mut line: Vec<u8> = message.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
        line.push(b'\n');
        self.to_client.lock().await.write_all(&line).await.map_err(|error| InvokeError::Lost(error.to_string()))
    }
}
