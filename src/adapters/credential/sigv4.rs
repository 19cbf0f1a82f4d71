//! AWS Signature Version 4 for one POST (AWS, "Create a signed AWS API request").

use aws_lc_rs::hmac;

use crate::domain::clock::Timestamp;
use crate::domain::digest::{Digest, hex};

/// Keys of an AWS identity.
pub(super) struct Keys<'k> {
    pub(super) id: &'k str,
    pub(super) secret: &'k str,
    pub(super) session: Option<&'k str>,
}

/// The headers that sign a POST of `body` to `/` of `host`.
pub(super) fn sign(keys: &Keys<'_>, region: &str, host: &str, content_type: &str, body: &str, now: Timestamp) -> Vec<(&'static str, String)> {
    let stamp = stamp(now);
    let day = stamp.get(..8).unwrap_or_default().to_owned();
    let mut signed = vec![("content-type", content_type), ("host", host), ("x-amz-date", stamp.as_str())];
    signed.extend(keys.session.map(|token| ("x-amz-security-token", token)));
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", sha256(body));
    let place = format!("{day}/{region}/sts/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{place}\n{}", sha256(&canonical));
    let mut key = hmac_of(format!("AWS4{}", keys.secret).as_bytes(), &day);
    for step in [region, "sts", "aws4_request"] {
        key = hmac_of(&key, step);
    }
    let signature = hex(&hmac_of(&key, &text));
    let authorization = format!("AWS4-HMAC-SHA256 Credential={}/{place}, SignedHeaders={names}, Signature={signature}", keys.id);
    let mut headers = vec![("authorization", authorization), ("x-amz-date", stamp.clone())];
    headers.extend(keys.session.map(|token| ("x-amz-security-token", token.to_owned())));
    headers
}

/// `20260102T030405Z`.
fn stamp(now: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(now.seconds()).unwrap_or_default();
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn sha256(text: &str) -> String {
    hex(Digest::of(text.as_bytes()).bytes())
}

fn hmac_of(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
