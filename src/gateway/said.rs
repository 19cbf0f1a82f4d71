//! What the gateway has to say to a client, for `downstream` to put in words.

use std::time::Duration;

use tokio::sync::oneshot;

use super::TaskView;
use crate::adapters::upstream::{Answer, Incoming};
use crate::domain::approval::Outcome;

/// What there is to say to the client, for `downstream` to put in words.
#[derive(Debug)]
pub enum Said {
    /// The server's answer, as it came.
    Answer(Answer),
    /// The last thing there is to say, and where it is noted that the client's side took it.
    Final(Box<Said>, oneshot::Sender<()>),
    /// A message of the server that belongs to the call.
    Incoming(Incoming),
    /// The call did not run, or nobody knows.
    Refused(Refusal),
    /// It still waits: who is asked, where, and until when.
    Waiting(Waiting),
    /// It goes on as a task.
    Task(Box<TaskView>),
}

/// A held call, as its client is told of it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The approval's id.
    pub approval: String,
    /// Who is asked.
    pub approvers: Vec<String>,
    /// How many of them must approve, and how many did.
    pub quorum: (u8, usize),
    /// Where they answer.
    pub place: String,
    /// How long they still have.
    pub left: Duration,
}

/// Why there is no answer of the server.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The policy refuses it.
    Denied {
        /// The policy's words.
        because: String,
    },
    /// Its approval ended without it running.
    Ended {
        /// The approval's id.
        approval: String,
        /// How.
        outcome: Outcome,
    },
    /// A header that mirrors an argument does not say what the argument says; it did not run.
    Header {
        /// The header.
        name: String,
    },
    /// Something that is needed does not work; it did not run.
    Failed {
        /// What, without internals.
        why: String,
        /// The approval that is still good, if one is.
        approval: Option<String>,
    },
    /// It ran, and its answer went to another request of the same caller.
    Answered {
        /// The approval's id.
        approval: String,
    },
    /// It runs right now, for another request of the same caller.
    Running {
        /// The approval's id.
        approval: String,
    },
    /// It may have run; it is not run again.
    Unknown {
        /// The approval or attempt.
        subject: String,
    },
    /// It did not run and still waits for a person.
    Pending(Waiting),
    /// It still waits, and its client is to send the request again with this state.
    Again {
        /// The state.
        state: String,
        /// What it waits for.
        waiting: Waiting,
    },
    /// The state that came with the request is not ours, or not of this request.
    State {
        /// What is wrong.
        why: String,
    },
}
