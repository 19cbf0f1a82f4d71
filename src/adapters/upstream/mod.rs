//! Upstreams: speak JSON-RPC to the wrapped server, as a child process or over HTTP. The port is [`Upstream`].
//!
//! A tool call leaves only with a [`Permit`], which `invoke` consumes. What comes back is handed on as it came.

mod child;
pub mod envelope;
mod http;
mod lines;
mod sse;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use child::{Child, ChildSettings, Launch};
pub use envelope::{Envelope, EnvelopeError, Id, mirrored_text};
pub use http::{HttpUpstream, RawResponse, UrlError, client_headers};
pub use lines::{Lines, LinesError};
pub use sse::event;

use crate::domain::json::Value;
use crate::domain::permit::Permit;

/// A wrapped server, as one client sees it.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends one tool call. The permit is used up.
    ///
    /// # Errors
    /// [`InvokeError`] says whether it can have run.
    async fn invoke(&self, permit: Permit, secret: Option<Secret<'_>>, call: &Outgoing) -> Result<Exchange, InvokeError>;

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
    /// The canonical parameters that were judged.
    pub params: String,
    /// Headers of the client's request that the protocol defines, where it came over HTTP.
    pub headers: Vec<(String, String)>,
    /// The request's `_meta` with the protocol version, where the client is of the stateless era.
    pub stateless_meta: Option<String>,
    /// The token for progress messages, as canonical JSON, where the client gave one.
    pub progress_token: Option<String>,
}

/// A credential's secret, and where it goes.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// In the environment of a child started for this call.
    Env {
        /// The variable.
        name: &'a str,
        /// The secret.
        value: &'a str,
    },
    /// In a header of exactly this request.
    Header {
        /// The header.
        name: &'a str,
        /// The secret.
        value: &'a str,
    },
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
