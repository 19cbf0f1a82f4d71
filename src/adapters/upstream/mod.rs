//! Upstreams: speak JSON-RPC to the wrapped server, as a child process or over HTTP. The port is [`Upstream`].
//!
//! A tool call leaves only with a [`Permit`], which `invoke` consumes. What comes back is handed on as it came.

mod bridge;
mod child;
pub mod envelope;
mod http;
mod legacy;
mod lent;
mod lines;
mod process;
mod sse;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

pub use bridge::Bridge;
pub use child::Child;
pub use envelope::{Envelope, EnvelopeError, Id, header_text, mirrored_text, passes_for_an_answer};
pub use http::{HttpUpstream, RawResponse, SignIn, Standing, UrlError, client_headers, collect, is_stream};
pub use lines::{Lines, LinesError};
pub use process::{ChildSettings, Launch};
pub use sse::{Events, data, event};

use crate::domain::call::Method;
use crate::domain::json::Value;
use crate::domain::permit::Permit;
use crate::domain::scrub::Scrubber;

/// The first revision without sessions, whose clients over HTTP repeat parts of the body in headers.
pub const STATELESS: &str = "2026-07-28";

/// A wrapped server, as one client sees it.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends one tool call. The permit is used up.
    ///
    /// # Errors
    /// [`Unanswered`] says whether it can have run, and gives the permit back where it cannot.
    async fn invoke(&self, permit: Permit, secrets: Option<&Secrets>, call: &Outgoing) -> Result<Exchange, Unanswered>;

    /// The server's tools, as it lists them now, to the client that sends `like`.
    ///
    /// # Errors
    /// If the list could not be read.
    async fn list_tools(&self, like: &Outgoing) -> Result<Vec<Value>, InvokeError>;

    /// Passes on that the client gave `call` up.
    async fn cancel(&self, call: &Outgoing, reason: Option<&str>);
}

/// One tool call on its way upstream.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The client's own id.
    pub id: Id,
    /// What it asks.
    pub method: Method,
    /// The canonical parameters that were judged.
    pub params: String,
    /// Headers of the client's request that the protocol defines, where it came over HTTP.
    pub headers: Vec<(String, String)>,
    /// The request's `_meta` with the protocol version, where the client is of the stateless era.
    pub stateless_meta: Option<String>,
    /// The token for progress messages, as canonical JSON, where the client gave one.
    pub progress_token: Option<String>,
}

/// A credential, written as the upstream takes it. Wiped from memory when it is dropped; prints nothing.
#[derive(Default)]
pub struct Secrets {
    /// Headers of exactly this request.
    pub headers: Vec<(String, Zeroizing<String>)>,
    /// Variables of a child started for this call.
    pub env: Vec<(String, Zeroizing<String>)>,
    /// Variables of such a child that name files of its own, with what is in them.
    pub files: Vec<(String, Zeroizing<String>)>,
    /// Knows the credential again in what comes back.
    pub scrubber: Option<Scrubber>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// A call that got no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub error: InvokeError,
    /// The permit, where the call certainly did not go out.
    pub permit: Option<Permit>,
}

impl Unanswered {
    /// It did not go out.
    fn not_sent(permit: Permit, why: impl std::fmt::Display) -> Self {
        Self { error: InvokeError::NotSent(why.to_string()), permit: Some(permit) }
    }

    /// As `error` says.
    fn of(permit: Permit, error: InvokeError) -> Self {
        match error {
            InvokeError::NotSent(_) => Self { error, permit: Some(permit) },
            InvokeError::Lost(_) => {
                permit.use_up();
                Self { error, permit: None }
            }
        }
    }
}

impl Outgoing {
    /// The whole message.
    fn message(&self) -> String {
        let Self { id, method, params, .. } = self;
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{}\",\"params\":{params}}}", id.json(), method.name())
    }
}

/// What comes back for a call.
#[derive(Debug)]
pub enum Exchange {
    /// The answer at once.
    Answer(Answer),
    /// Messages, the last of which is the answer.
    Stream(mpsc::Receiver<Result<Incoming, InvokeError>>),
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, where the upstream gave one.
    pub status: Option<u16>,
    /// The JSON-RPC response, as it came.
    pub body: Bytes,
}

/// One message that belongs to a call.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The JSON-RPC message.
    pub message: Bytes,
    /// The server-sent event that carried it, as it came, where one did. An event without a message has only this.
    pub event: Option<Bytes>,
    /// Whether it is the answer.
    pub last: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvokeError {
    /// It went out and no answer came back: it may have run.
    #[error("no answer came back: {0}")]
    Lost(String),
    /// It did not run.
    #[error("the server was not reached: {0}")]
    NotSent(String),
}

/// Most bytes of one message from an upstream: 64 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;
