//! Takes secrets out of what others say: as they are, and in the forms that programs write them in.
//!
//! Knows the text itself, base64 and base64url at any offset, hex, percent and JSON escapes, and those within each other
//! one level deep. Searched without regard to case. What somebody encrypts or spells backwards it cannot know.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::digest::hex;
use super::text::percent;

/// What stands where a secret was.
pub const MARK: &str = "[credential]";

/// Shorter texts than this would be found everywhere.
const SHORTEST: usize = 6;

/// A line of a secret is looked for by itself if it is so long.
const LINE: usize = 16;

/// So much of the end of a form is searched for: beginnings are often alike, as those of all tokens of one kind are. What
/// stands before it is compared from there. A search for whole forms would take longer to make than most calls run.
const ANCHOR: usize = 48;

/// Knows the secrets of one call.
#[derive(Clone)]
pub struct Scrubber {
    search: AhoCorasick,
    forms: std::sync::Arc<[String]>,
    longest: usize,
}

impl Scrubber {
    /// One that takes these secrets out, and these texts as a whole; `None` where none is long enough to be known again.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>, texts: impl IntoIterator<Item = &'s str>) -> Option<Self> {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            forms.extend(forms_of(secret.trim()));
            // A key of several lines may come back line by line; its first and last line are those of every key.
            let lines = secret.lines().map(str::trim).filter(|line| line.len() >= LINE && !line.starts_with("-----"));
            lines.for_each(|line| forms.extend(forms_of(line)));
        }
        texts.into_iter().for_each(|text| forms.extend(forms_of(text.trim())));
        let longest = forms.iter().map(String::len).max()?;
        let forms: std::sync::Arc<[String]> = forms.into_iter().collect();
        let ends = forms.iter().map(|form| form.as_bytes().get(form.len().saturating_sub(ANCHOR)..).unwrap_or_default());
        // It is made for one call and searches little: what is soonest made is best.
        let kind = Some(AhoCorasickKind::NoncontiguousNFA);
        let search = AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::LeftmostLongest).kind(kind).build(ends).ok()?;
        Some(Self { search, forms, longest })
    }

    /// The bytes without them; nothing if they are not in there.
    pub fn scrub(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut done = 0;
        for found in self.search.find_iter(bytes) {
            let form = self.forms.get(found.pattern().as_usize()).map(String::as_bytes).unwrap_or_default();
            let before = bytes.get(done..found.start()).unwrap_or_default();
            let ahead = form.get(..form.len().saturating_sub(ANCHOR)).unwrap_or_default();
            let same = before.iter().rev().zip(ahead.iter().rev()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
            out.extend_from_slice(before.get(..before.len() - same).unwrap_or_default());
            out.extend_from_slice(MARK.as_bytes());
            done = found.end();
        }
        (done > 0).then(|| {
            out.extend_from_slice(bytes.get(done..).unwrap_or_default());
            out
        })
    }

    /// A text without them.
    pub fn text(&self, text: &str) -> String {
        self.scrub(text.as_bytes()).map_or_else(|| text.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// One for bytes that come in pieces.
    pub fn stream(&self) -> Stream {
        Stream { scrubber: self.clone(), held: Vec::new() }
    }
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber")
    }
}

/// Takes secrets out of bytes that come in pieces: holds back what may be the beginning of one.
#[derive(Debug)]
pub struct Stream {
    scrubber: Scrubber,
    held: Vec<u8>,
}

impl Stream {
    /// What may go out after this piece came.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        if let Some(clean) = self.scrubber.scrub(&self.held) {
            self.held = clean;
        }
        // Whatever may still become a secret is shorter than the longest form of one.
        let out = self.held.len().saturating_sub(self.scrubber.longest);
        self.held.drain(..out).collect()
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// The forms of a secret.
fn forms_of(secret: &str) -> BTreeSet<String> {
    if secret.len() < SHORTEST {
        return BTreeSet::new();
    }
    let bytes = secret.as_bytes();
    let mut all = escaped(secret);
    all.extend([spelled(bytes, "%"), spelled(bytes, "\\x"), spelled(bytes, ":").split_off(1), spelled(bytes, " ").split_off(1), hex(bytes)]);
    all.insert(secret.encode_utf16().map(unit).collect());
    all.insert(
        secret.chars().map(|c| if c.is_ascii() { c.to_string() } else { c.encode_utf16(&mut [0; 2]).iter().copied().map(unit).collect() }).collect(),
    );
    let mut encoded = base64(secret);
    // What is encoded twice.
    encoded.extend(base64(&STANDARD_NO_PAD.encode(secret)));
    for form in encoded {
        if form.contains(['+', '/']) {
            all.extend(escaped(&form));
        }
        all.insert(form);
    }
    all.insert(secret.to_owned());
    all.retain(|form| form.len() >= SHORTEST);
    all
}

/// In base64 and base64url, wherever in what is encoded it stands.
fn base64(text: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    // How far the first characters depend on what stands before.
    for (offset, from) in [(0, 0), (1, 2), (2, 3)] {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(text.as_bytes());
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let whole = engine.encode(&padded);
            // And the last one on what stands after.
            let to = whole.len() - usize::from(!padded.len().is_multiple_of(3));
            forms.extend(whole.get(from..to).map(str::to_owned));
        }
    }
    forms
}

/// As JSON, JSON in JSON, a URL and a form write it.
fn escaped(text: &str) -> BTreeSet<String> {
    let quoted = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned()
    };
    let json = quoted(text);
    // JSON in a string of JSON, as tools like to answer.
    let twice = quoted(&json);
    let form = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    BTreeSet::from([json.replace('/', "\\/"), json, twice, form, percent(text)])
}

/// Two hexadecimal digits for each byte, with `before` before each.
fn spelled(bytes: &[u8], before: &str) -> String {
    let digits = hex(bytes);
    let mut out = String::with_capacity(digits.len() + bytes.len() * before.len());
    let mut digits = digits.chars();
    while let (Some(high), Some(low)) = (digits.next(), digits.next()) {
        out.push_str(before);
        out.push(high);
        out.push(low);
    }
    out
}

fn unit(unit: u16) -> String {
    format!("\\u{unit:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "ghs_12345.eyJhbGciOi/J+.\"q";

    fn clean(text: &str) -> bool {
        let scrubber = Scrubber::new([SECRET], []).unwrap();
        let out = scrubber.text(text);
        out.contains(MARK)
    }

    #[test]
    fn a_secret_is_found_in_every_form_that_programs_write() {
        let hexed = hex(SECRET.as_bytes());
        for form in [
            SECRET.to_owned(),
            serde_json::Value::from(SECRET).to_string(),
            serde_json::Value::from(serde_json::Value::from(SECRET).to_string()).to_string(),
            STANDARD_NO_PAD.encode(SECRET),
            URL_SAFE_NO_PAD.encode(SECRET),
            base64::engine::general_purpose::STANDARD.encode(format!("user:{SECRET}")),
            base64::engine::general_purpose::STANDARD.encode(format!("x:{SECRET}:y")),
            serde_json::Value::from(STANDARD_NO_PAD.encode(SECRET)).to_string().replace('/', "\\/"),
            hexed.to_uppercase(),
            hexed,
            percent(SECRET),
            SECRET.bytes().map(|b| format!("%{b:02X}")).collect(),
            SECRET.encode_utf16().map(|u| format!("\\u{u:04X}")).collect(),
            STANDARD_NO_PAD.encode(STANDARD_NO_PAD.encode(SECRET)),
        ] {
            assert!(clean(&form), "{form}");
            assert!(clean(&format!("before {form} after")), "{form}");
        }
        assert!(!clean("nothing of it here"));
    }

    proptest! {
        #[test]
        fn pieces_hide_nothing(cuts in proptest::collection::vec(1usize..9, 1..60), before in "[a-z ]{0,40}", after in "[a-z ]{0,40}") {
            let whole = format!("{before}{SECRET}{after}{}", STANDARD_NO_PAD.encode(format!("{before}{SECRET}")));
            let mut stream = Scrubber::new([SECRET], []).unwrap().stream();
            let (mut out, mut rest, mut cuts) = (Vec::new(), whole.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                out.extend(stream.push(piece));
                rest = next;
            }
            out.extend(stream.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert!(!out.contains(SECRET) && out.matches(MARK).count() == 2, "{out}");
        }
    }
}
