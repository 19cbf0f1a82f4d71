//! Messages on a pipe: one a line, none longer than the limit.

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Reads messages line by line.
pub struct Lines<R> {
    from: BufReader<R>,
    most: usize,
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The pipe broke.
    #[error("the pipe broke: {0}")]
    Io(#[from] std::io::Error),
    /// The line is longer than the limit.
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `most` bytes.
    pub fn new(from: R, most: usize) -> Self {
        Self { from: BufReader::with_capacity(32 << 10, from), most }
    }

    /// The next line that is not blank, without its end; nothing at the end.
    ///
    /// # Errors
    /// If the pipe breaks or a line is too long. After a line that was too long, the next call goes on behind it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinesError> {
        loop {
            let mut line = Vec::new();
            let limit = u64::try_from(self.most).unwrap_or(u64::MAX).saturating_add(1);
            if (&mut self.from).take(limit).read_until(b'\n', &mut line).await? == 0 {
                return Ok(None);
            }
            let ended = line.last() == Some(&b'\n');
            if !ended && line.len() > self.most {
                self.skip_line().await?;
                return Err(LinesError::TooLong(self.most));
            }
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line.into()));
            }
            if !ended {
                return Ok(None);
            }
        }
    }

    async fn skip_line(&mut self) -> Result<(), LinesError> {
        loop {
            let buffer = self.from.fill_buf().await?;
            let (used, done) = match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.from.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_lines_are_refused_and_the_next_one_is_read() {
        let mut lines = Lines::new(&b"{}\r\n\n 0123456789\nab\nlast"[..], 8);
        assert_eq!(lines.next().await.unwrap().unwrap(), "{}");
        assert!(matches!(lines.next().await, Err(LinesError::TooLong(8))));
        assert_eq!(lines.next().await.unwrap().unwrap(), "ab");
        assert_eq!(lines.next().await.unwrap().unwrap(), "last");
        assert!(lines.next().await.unwrap().is_none());
    }
}
