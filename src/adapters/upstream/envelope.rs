//! The JSON-RPC envelope, and nothing inside it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON-RPC id: a string or an integer. Two spellings of one id are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A string.
    Text(String),
}

impl Id {
    /// The id as JSON.
    pub fn json(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Text(text) => serde_json::Value::String(text.clone()).to_string(),
        }
    }
}

/// One JSON-RPC message; what is inside `params`, `result` and `error` stays as it came.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    /// The id of a request or response.
    #[serde(default, deserialize_with = "present")]
    pub id: Option<Option<Id>>,
    /// The method of a request or notification.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// Its parameters.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// A response's result.
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    /// A response's error.
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<Id>>, D::Error> {
    Option::<Id>::deserialize(from).map(Some)
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// An array of messages.
    #[error("batches are not supported: send one message at a time")]
    Batch,
    /// Not a JSON-RPC 2.0 message.
    #[error("not a json-rpc 2.0 message: {0}")]
    Invalid(&'static str),
    /// Not JSON, or a member twice.
    #[error("not one json object: {0}")]
    Json(String),
}

impl EnvelopeError {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i32 {
        match self {
            Self::Json(_) => -32700,
            Self::Batch | Self::Invalid(_) => -32600,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of one message.
    ///
    /// # Errors
    /// For batches, members that come twice, and anything that is not JSON-RPC 2.0.
    pub fn read(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
            return Err(EnvelopeError::Batch);
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(|e| {
            // What the message says may be a secret: only where it is wrong is told.
            let what = if e.is_data() { "a member has the wrong type or comes twice" } else { "it does not parse" };
            EnvelopeError::Json(format!("{what}, line {} column {}", e.line(), e.column()))
        })?;
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            return Err(EnvelopeError::Invalid("`jsonrpc` must be \"2.0\""));
        }
        match (&envelope.method, &envelope.id, envelope.result.is_some() || envelope.error.is_some()) {
            (Some(_), Some(None), _) => Err(EnvelopeError::Invalid("`id` of a request must be a string or an integer")),
            (Some(_), _, true) => Err(EnvelopeError::Invalid("a request has no `result` and no `error`")),
            (None, None, _) | (None, _, false) => Err(EnvelopeError::Invalid("neither a request nor a response")),
            _ => Ok(envelope),
        }
    }

    /// The id of a request, or of the response to one; nothing for notifications.
    pub fn id(&self) -> Option<&Id> {
        self.id.as_ref()?.as_ref()
    }

    /// Whether this is the answer to the request `id`. A server may give an id back as text, and an error to what it could
    /// not read has none.
    pub fn answers(&self, id: &Id) -> bool {
        let same = |own: &Id| match (own, id) {
            (Id::Number(number), Id::Text(text)) | (Id::Text(text), Id::Number(number)) => number.to_string() == *text,
            (own, id) => own == id,
        };
        self.method.is_none() && self.id().map_or(self.error.is_some(), same)
    }

    /// The message made anew from its known members, so that nothing unknown to us means something to the server.
    pub fn rebuilt(&self, id: Option<&Id>) -> String {
        let mut out = String::from("{\"jsonrpc\":\"2.0\"");
        if let Some(id) = id {
            out.push_str(",\"id\":");
            out.push_str(&id.json());
        } else if let Some(None) = self.id {
            out.push_str(",\"id\":null");
        }
        if let Some(method) = &self.method {
            out.push_str(",\"method\":");
            out.push_str(&serde_json::Value::String(method.to_string()).to_string());
        }
        for (name, raw) in [("params", self.params), ("result", self.result), ("error", self.error)] {
            if let Some(raw) = raw {
                out.push_str(&format!(",\"{name}\":{}", one_line(raw.get())));
            }
        }
        out.push('}');
        out
    }

    /// Whether this is a notification or request of that method, byte for byte.
    pub fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }
}

/// Line breaks between JSON tokens are legal, and would end a message on stdio. Inside strings they cannot occur.
fn one_line(raw: &str) -> Cow<'_, str> {
    if raw.contains(['\n', '\r']) { Cow::Owned(raw.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(raw) }
}

/// Whether a careless reader could take this for an answer that [`Envelope::read`] refuses: members twice, or several at once.
pub fn passes_for_an_answer(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|value| value.is_array() || value.get("result").is_some())
}

/// The answer to a request that got none.
pub(super) fn failure(id: &Id, code: i32, message: &str) -> bytes::Bytes {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string().into()
}

/// The text of a header that mirrors a value of the body: plain, or `=?base64?…?=`.
pub fn mirrored_text(header: &str) -> Option<String> {
    use base64::Engine;
    match header.strip_prefix("=?base64?").and_then(|v| v.strip_suffix("?=")) {
        Some(text) => String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok(),
        None => Some(header.to_owned()),
    }
}

/// A value of the body as a header says it: plain where that is safe, else `=?base64?…?=`.
pub fn header_text(text: &str) -> String {
    use base64::Engine;
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text && !text.is_empty() && !text.starts_with("=?base64?");
    if plain { text.to_owned() } else { format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_texts_say_what_they_mirror() {
        for text in ["a", "", " a", "Grüße", "a\r\nb: c", "=?base64?YQ==?=", "\u{7f}"] {
            let header = header_text(text);
            assert!(header.bytes().all(|b| (0x20..0x7f).contains(&b)), "{header}");
            assert_eq!(mirrored_text(&header).as_deref(), Some(text));
        }
        assert_eq!(header_text("us-east 1"), "us-east 1");
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        for (text, code) in [
            ("", -32700),
            ("{", -32700),
            ("[]", -32600),
            (" [{}]", -32600),
            ("{}", -32600),
            ("null", -32700),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, -32700),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}"#, -32700),
            (r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"x","method":"y"}"#, -32700),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x"} {}"#, -32700),
            ("\u{feff}{}", -32700),
            (r#"{"jsonrpc":"2.0","id":99999999999999999999,"method":"x"}"#, -32700),
        ] {
            assert_eq!(Envelope::read(text.as_bytes()).expect_err(text).code(), code, "{text}");
        }
    }

    #[test]
    fn unknown_members_do_not_go_on() {
        let text = "{\"jsonrpc\":\"2.0\",\"METHOD\":\"tools/call\",\"id\":\"a\\u0062\",\"method\":\"ping\",\"params\":{\n\"a\" : 1}}";
        let envelope = Envelope::read(text.as_bytes()).unwrap();
        assert_eq!(envelope.rebuilt(envelope.id()), "{\"jsonrpc\":\"2.0\",\"id\":\"ab\",\"method\":\"ping\",\"params\":{ \"a\" : 1}}");
    }
}
