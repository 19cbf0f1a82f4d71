//! Secrets in any string: credentials that have a form of their own, credentials in the place where credentials stand,
//! and both inside base64, hexadecimal and gzip.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine;
use regex::{Captures, Regex};

use super::{Finding, Group, Sight};
use crate::domain::forms::{form, forms};
use crate::domain::json::{Pointer, Value};

mod rules;

use rules::{CURL, PLACES, RULES};

/// Which forms a text may hold: told from their marks, all of which one pass finds, however many they are.
struct Marks {
    search: AhoCorasick,
    /// The form of each mark, counted through [`RULES`] and then [`PLACES`].
    of: Vec<usize>,
    /// Forms without a mark.
    always: Vec<usize>,
}

impl Marks {
    fn new() -> Option<Self> {
        let marks = RULES.iter().map(|(_, marks, ..)| *marks).chain(PLACES.iter().map(|(_, marks, _)| *marks));
        let (mut words, mut of, mut always) = (Vec::new(), Vec::new(), Vec::new());
        for (n, marks) in marks.enumerate() {
            if marks.is_empty() {
                always.push(n);
            }
            for mark in marks.split(' ').filter(|mark| !mark.is_empty()) {
                words.push(mark);
                of.push(n);
            }
        }
        let search = AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(words).ok()?;
        Some(Self { search, of, always })
    }

    /// The forms that `text` may hold, in their order.
    fn may_be_in(&self, text: &str) -> BTreeSet<usize> {
        let found = self.search.find_overlapping_iter(text).filter_map(|mark| self.of.get(mark.pattern().as_usize()));
        self.always.iter().chain(found).copied().collect()
    }
}

// Rules that do not compile would be a bug; then every string counts as unreadable, and the test below fails.
static MARKS: LazyLock<Option<Marks>> = LazyLock::new(Marks::new);
static FORMS: LazyLock<Option<Vec<Regex>>> = LazyLock::new(|| forms(RULES.map(|(.., rule)| rule).into_iter().chain(PLACES.map(|(.., rule)| rule))));
static PACKED: LazyLock<Option<Regex>> = LazyLock::new(|| form(r"[A-Za-z0-9+/_-]{24,}={0,2}|(?:[0-9a-fA-F]{2}){16,}"));

/// Looks at one string.
pub(super) fn look(pointer: &Pointer, text: &str, seen: &mut Sight<'_>) {
    let mut names = Vec::new();
    if !collect(text, 0, &mut names) {
        seen.find(Finding::uninspectable("secret", Group::Content, "no rules to look for secrets with"));
        return;
    }
    for (name, layers) in names {
        seen.fact("secret", "found", Value::Bool(true));
        // The evidence is the kind of secret, never the text.
        let inside = if layers > 0 { ", encoded" } else { "" };
        let mut finding = Finding::new("secret", Group::Content, 700, format!("the argument carries {name}{inside}"));
        finding.pointer = Some(pointer.to_string());
        seen.find(finding);
    }
}

/// Whether a text carries a secret that the rules know; where there are no rules, every text might.
pub fn carries_secret(text: &str) -> bool {
    let mut names = Vec::new();
    !collect(text, 0, &mut names) || !names.is_empty()
}

/// Names of what was found, with the layers of encoding it was under; `false` where there are no rules.
fn collect(text: &str, layers: u8, names: &mut Vec<(&'static str, u8)>) -> bool {
    // The shortest secret that the rules know has more than twelve characters.
    if text.len() < 12 {
        return true;
    }
    let (Some(marks), Some(forms)) = (MARKS.as_ref(), FORMS.as_ref()) else { return false };
    for (n, form) in marks.may_be_in(text).into_iter().filter_map(|n| Some((n, forms.get(n)?))) {
        let found = match (RULES.get(n), n.checked_sub(RULES.len()).and_then(|n| PLACES.get(n))) {
            (Some((name, _, least, _)), _) => is_there(name, *least, form, text).then_some(*name),
            (None, Some((name, ..))) => stands(name, form, text).then_some(*name),
            (None, None) => None,
        };
        names.extend(found.map(|name| (name, layers)));
    }
    if layers < 3 && text.len() <= 256 * 1024 {
        for packed in PACKED.iter().flat_map(|rule| rule.find_iter(text)).take(40) {
            for inner in unpacked(packed.as_str()) {
                collect(&inner, layers + 1, names);
            }
        }
    }
    true
}

/// Whether a text holds a secret of that form.
fn is_there(name: &str, least: u32, form: &Regex, text: &str) -> bool {
    let real = |hit: &str| {
        let core = hit.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"~_-.".contains(c));
        let digits = core.bytes().any(|b| b.is_ascii_digit()) || matches!(name, "a Hugging Face token" | "an AWS access key");
        least == 0 || (digits && entropy(core) * 10.0 >= f64::from(least) && !placeholder(core))
    };
    form.find_iter(text).take(50).any(|hit| real(hit.as_str()))
}

/// Whether a credential stands in that place.
fn stands(name: &str, form: &Regex, text: &str) -> bool {
    let real = |value: &str| {
        !placeholder(value)
            && if name == "a credential by its name" { entropy(value) >= 3.3 && mixed(value) } else { value.len() < 16 || entropy(value) >= 3.0 }
    };
    let stands = |hit: &Captures<'_>| name != CURL || hit.get(0).is_some_and(|whole| is_curls(text, whole.start()));
    form.captures_iter(text).filter(stands).take(50).filter_map(|hit| hit.get(1)).any(|value| real(value.as_str()))
}

/// Whether what begins at `at` belongs to a command `curl` not far before.
fn is_curls(text: &str, at: usize) -> bool {
    const FAR: usize = 400;
    let before = text.get(text.floor_char_boundary(at.saturating_sub(FAR))..at).unwrap_or_default();
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    before.rmatch_indices("curl").any(|(start, found)| {
        let (head, rest) = (before.get(..start).unwrap_or_default(), before.get(start + found.len()..).unwrap_or_default());
        let ends = rest.replace("\\\n", "").contains(['\n', ';', '|']);
        !is_word(head.chars().next_back()) && !is_word(rest.chars().next()) && !ends
    })
}

/// What a run of letters holds if it is an encoding of text.
fn unpacked(run: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut keep = |bytes: Vec<u8>| {
        let bytes = match bytes.as_slice() {
            [0x1f, 0x8b, ..] => {
                let mut plain = Vec::new();
                // Bounded: a bomb ends here.
                let _ = flate2::read::GzDecoder::new(bytes.as_slice()).take(256 * 1024).read_to_end(&mut plain);
                plain
            }
            _ => bytes,
        };
        if let Ok(text) = String::from_utf8(bytes)
            && text.len() >= 12
            && text.chars().all(|c| !c.is_control() || c.is_whitespace())
        {
            out.push(text);
        }
    };
    if run.len().is_multiple_of(2) && run.bytes().all(|b| b.is_ascii_hexdigit()) {
        let pairs = run.as_bytes().chunks_exact(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        keep(pairs);
    }
    let bare = run.trim_end_matches('=');
    let engine =
        if bare.contains(['-', '_']) { base64::engine::general_purpose::URL_SAFE_NO_PAD } else { base64::engine::general_purpose::STANDARD_NO_PAD };
    if let Ok(bytes) = engine.decode(bare) {
        keep(bytes);
    }
    out
}

/// Bits per character, by Shannon.
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = text.len().max(1) as f64;
    counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum()
}

fn mixed(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic())
        && value.bytes().filter(|b| b"-._/".contains(b)).count() * 4 < value.len()
}

/// Values that stand for a secret where the real one was left out.
fn placeholder(value: &str) -> bool {
    let lower = value.to_lowercase();
    let words = [
        "example",
        "changeme",
        "placeholder",
        "redacted",
        "your",
        "dummy",
        "sample",
        "insert",
        "fake-",
        "xxxx",
        "****",
        "....",
        "0000000",
        "process.env",
        "os.environ",
        "getenv",
        "123456789",
        "..",
    ];
    let holds = ["${", "{{", "$(", "<", "[", "%(", "%{"];
    // Examples in the documentation of AWS end so, and are keys all the same in form.
    let variable = value.starts_with('$') || value.starts_with('%');
    let run = value.as_bytes().windows(6).any(|w| w.iter().all(|b| Some(b) == w.first()));
    variable || run || (value.len() < 100 && words.iter().any(|word| lower.contains(word))) || holds.iter().any(|mark| value.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_compile_and_tell_secrets_from_prose() {
        assert!(FORMS.is_some() && MARKS.is_some() && PACKED.is_some());
        let pem = ["-----BEGIN RSA ", "PRIVATE KEY-----"].concat();
        let url = ["postgres://app:", "hunter22@db/x"].concat();
        let github = ["ghp_", "q8Zt3Lw9Xv2Bn5Mk7Pj4Hd6Fs1Ga0Rc8Ye3U"].concat();
        let curl = ["curl -s -u admin:", "t9Kq2wZ example.com"].concat();
        let named = ["api_key = \"", "q8Zt3Lw9Xv2Bn5Mk7Pj4\""].concat();
        for text in [pem.as_str(), &url, &format!("key AKIA{}", "QWERTZUIOPASDFGH"), &github, &curl, &named] {
            assert!(carries_secret(text), "{text}");
        }
        for text in [
            "an ordinary sentence about keys",
            "https://example.com/a:b@c",
            "skeleton-of-an-argument",
            "AKIAlowercase",
            "password = ${DB_PASSWORD}",
            "api_key: your-api-key-here",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "commit 43fc912ef59a83054ea7f6706df4d53a7dea4d80",
        ] {
            assert!(!carries_secret(text), "{text}");
        }
    }

    /// The shortest texts of a form: one for each of its alternatives.
    fn shortest(form: &regex_syntax::hir::Hir) -> Vec<String> {
        use regex_syntax::hir::{Class, HirKind};
        let joined = |parts: Vec<Vec<String>>| {
            let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
            (0..longest).map(|n| parts.iter().filter_map(|part| part.get(n % part.len().max(1))).cloned().collect()).collect()
        };
        match form.kind() {
            HirKind::Empty | HirKind::Look(_) => vec![String::new()],
            HirKind::Literal(literal) => vec![String::from_utf8(literal.0.to_vec()).unwrap()],
            HirKind::Class(Class::Unicode(class)) => vec![class.ranges()[0].start().to_string()],
            HirKind::Class(Class::Bytes(class)) => vec![char::from(class.ranges()[0].start()).to_string()],
            HirKind::Repetition(repeated) => shortest(&repeated.sub).into_iter().map(|text| text.repeat(repeated.min as usize)).collect(),
            HirKind::Capture(capture) => shortest(&capture.sub),
            HirKind::Concat(parts) => joined(parts.iter().map(shortest).collect()),
            HirKind::Alternation(each) => each.iter().flat_map(shortest).collect(),
        }
    }

    #[test]
    fn every_form_has_a_mark_of_it_in_it() {
        let (marks, forms) = (MARKS.as_ref().unwrap(), FORMS.as_ref().unwrap());
        assert_eq!(marks.always.len(), 1);
        for (n, form) in forms.iter().enumerate().filter(|(n, _)| *n != RULES.len() + 2) {
            let texts = shortest(&regex_syntax::Parser::new().parse(form.as_str()).unwrap());
            assert!(!texts.is_empty());
            for text in texts.into_iter().flat_map(|text| [text.to_lowercase(), text]) {
                assert!(marks.may_be_in(&text).contains(&n), "{}: {text}", form.as_str());
            }
        }
    }

    #[test]
    fn what_stands_behind_curl_is_its_password() {
        let user = ["-u admin:", "t9Kq2wZ"].concat();
        let decoys = "-u a:$b ".repeat(60);
        for text in ["curl -s {}", "curl -s \\\n  {} https://x", "(curl {})", "curl\t{}", "curl {} x"].map(|text| text.replace("{}", &user)) {
            assert!(carries_secret(&text), "{text}");
            assert!(carries_secret(&format!("{decoys}; {text}")), "{text}");
        }
        for text in ["git {}", "curl x; run {}", "curl x | run {}", "curl x\nrun {}", "curly {}", "xcurl {}"].map(|text| text.replace("{}", &user)) {
            assert!(!carries_secret(&text), "{text}");
        }
        assert!(!carries_secret(&format!("curl {} {user}", "x".repeat(500))));
    }

    #[test]
    fn secrets_are_found_under_layers() {
        let secret = ["ghp_", "q8Zt3Lw9Xv2Bn5Mk7Pj4Hd6Fs1Ga0Rc8Ye3U"].concat();
        let once = base64::engine::general_purpose::STANDARD.encode(&secret);
        let twice = base64::engine::general_purpose::STANDARD.encode(&once);
        let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
        for text in [once, twice, hex] {
            assert!(carries_secret(&format!("note {text} end")), "{text}");
        }
    }
}
