//! Server-sent events, as far as MCP uses them: events end with a blank line, messages stand in `data`.

use bytes::{Bytes, BytesMut};

/// Cuts a stream of bytes into events, whatever the chunks.
#[derive(Debug, Default)]
pub struct Events {
    buffer: BytesMut,
    searched: usize,
}

impl Events {
    /// Adds a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Bytes of an event that has not ended yet.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole event with the blank line that ends it.
    pub fn next_event(&mut self) -> Option<Bytes> {
        // The end may straddle what was searched before: at most three bytes of it.
        let from = self.searched.saturating_sub(3);
        let rest = self.buffer.get(from..).unwrap_or_default();
        match ends(rest) {
            Some(end) => {
                self.searched = 0;
                Some(self.buffer.split_to(from + end).freeze())
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

/// Where the first blank line ends.
fn ends(bytes: &[u8]) -> Option<usize> {
    let lf = find(bytes, b"\n\n").map(|at| at + 2);
    let crlf = find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let cr = find(bytes, b"\r\r").map(|at| at + 2);
    [lf, crlf, cr].into_iter().flatten().min()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The message in an event: its `data` lines joined; nothing for comments and pings.
pub fn data(event: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(event).ok()?;
    let mut out: Option<String> = None;
    for line in text.split(['\n', '\r']) {
        let Some(value) = line.strip_prefix("data:") else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match &mut out {
            Some(joined) => {
                joined.push('\n');
                joined.push_str(value);
            }
            None => out = Some(value.to_owned()),
        }
    }
    out.filter(|data| !data.trim().is_empty()).map(String::into_bytes)
}

/// The id of an event, from which its stream is resumed.
pub(super) fn last_id(event: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(event).ok()?;
    let mut ids = text.split(['\n', '\r']).filter_map(|line| line.strip_prefix("id:"));
    ids.next_back().map(|id| id.strip_prefix(' ').unwrap_or(id).to_owned()).filter(|id| !id.is_empty())
}

/// The name of an event; nothing where it has none.
pub(super) fn name(event: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(event).ok()?;
    let mut names = text.split(['\n', '\r']).filter_map(|line| line.strip_prefix("event:"));
    names.next_back().map(|name| name.strip_prefix(' ').unwrap_or(name).to_owned())
}

/// An event that carries one message. A message has no line break outside strings, and none inside.
pub fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 32);
    out.extend_from_slice(b"event: message\ndata: ");
    out.extend(message.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = b": ping\n\nevent: message\r\ndata: {\"a\":1}\r\n\r\nid: 1\ndata:{\ndata: }\n\nrest";
        for size in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(size) {
                events.push(chunk);
                while let Some(event) = events.next_event() {
                    found.push(data(&event));
                }
            }
            assert_eq!(found, [None, Some(b"{\"a\":1}".to_vec()), Some(b"{\n}".to_vec())], "{size}");
            assert_eq!(events.waiting(), 4);
        }
        assert_eq!(data(&event(b"{}")).unwrap(), b"{}");
    }
}
