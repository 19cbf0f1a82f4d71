//! This process's own standard input and output, without a thread in between where they are pipes or sockets, as MCP
//! clients make them. Anything else is read and written through Tokio's blocking threads.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// Standard input.
pub fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    match Kind::of(std::io::stdin().as_fd().try_clone_to_owned()) {
        Kind::Pipe(fd) => pipe::Receiver::from_owned_fd(fd).map_or_else(|_| plain_input(), |pipe| Box::new(pipe)),
        Kind::Socket(fd) => stream(fd).map_or_else(plain_input, |stream| Box::new(stream)),
        Kind::Other => plain_input(),
    }
}

/// Standard output.
pub fn output() -> Box<dyn AsyncWrite + Send + Unpin> {
    match Kind::of(std::io::stdout().as_fd().try_clone_to_owned()) {
        Kind::Pipe(fd) => pipe::Sender::from_owned_fd(fd).map_or_else(|_| plain_output(), |pipe| Box::new(pipe)),
        Kind::Socket(fd) => stream(fd).map_or_else(plain_output, |stream| Box::new(stream)),
        Kind::Other => plain_output(),
    }
}

enum Kind {
    Other,
    Pipe(OwnedFd),
    Socket(OwnedFd),
}

impl Kind {
    fn of(fd: std::io::Result<OwnedFd>) -> Self {
        let Ok(fd) = fd else { return Self::Other };
        let file = std::fs::File::from(fd);
        match file.metadata().map(|meta| meta.file_type()) {
            Ok(kind) if kind.is_fifo() => Self::Pipe(file.into()),
            Ok(kind) if kind.is_socket() => Self::Socket(file.into()),
            _ => Self::Other,
        }
    }
}

fn stream(fd: OwnedFd) -> Option<UnixStream> {
    let stream = StdStream::from(fd);
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}

fn plain_input() -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(tokio::io::stdin())
}

fn plain_output() -> Box<dyn AsyncWrite + Send + Unpin> {
    Box::new(tokio::io::stdout())
}
