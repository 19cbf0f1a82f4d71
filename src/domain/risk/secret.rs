//! Secrets in any string: credentials that have a form of their own, credentials in the place where credentials stand,
//! and both inside base64, hexadecimal and gzip.

use std::io::Read;
use std::sync::LazyLock;

use base64::Engine;
use regex::{Regex, RegexSet};

use super::{Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

/// What has a form of its own: name, least entropy of what matched in bits per character times ten, form.
const RULES: [(&str, u32, &str); 58] = [
    ("an AWS access key", 28, r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("an Amazon Bedrock key", 0, r"\bABSK[A-Za-z0-9+/]{100,}={0,2}|\bbedrock-api-key-[A-Za-z0-9+/=]{60,}"),
    ("a GitHub token", 30, r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    ("a GitLab token", 30, r"\bgl(?:pat|ptt|dt|rt|oas|cbt|ffct|imt|soat|agent|rtr)-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", 28, r"\bxox[abeoprs]-\d{8,}-[A-Za-z0-9-]{16,}|\bxapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]{20,}|\bxoxe\.xox[bp]-\d-[A-Za-z0-9]{80,}"),
    ("a Slack webhook", 0, r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{43,}"),
    ("a private key", 0, r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("a Stripe key", 30, r"\b[rs]k_(?:live|prod|test)_[A-Za-z0-9]{16,}"),
    ("a Google API key", 45, r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("a Google OAuth secret", 30, r"\bGOCSPX-[A-Za-z0-9_-]{28}\b|\bya29\.[A-Za-z0-9_-]{30,}"),
    ("a JSON web token", 30, r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("an OpenAI key", 30, r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    ("an Anthropic key", 30, r"\bsk-ant-(?:api|admin|oat)\d\d-[A-Za-z0-9_-]{93}AA\b"),
    ("a model provider's key", 35, r"\b(?:sk-or-v1-[a-f0-9]{64}|pplx-[A-Za-z0-9]{48}|gsk_[A-Za-z0-9]{52}|r8_[A-Za-z0-9]{37}|xai-[A-Za-z0-9]{80})\b"),
    ("a Hugging Face token", 30, r"\b(?:hf_[A-Za-z]{34}|api_org_[A-Za-z]{34})\b"),
    ("an npm token", 30, r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", 0, r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("a RubyGems token", 0, r"\brubygems_[a-f0-9]{48}\b"),
    ("a crates.io token", 30, r"\bcio[A-Za-z0-9]{32}\b"),
    ("a DigitalOcean token", 0, r"\bdo[oprt]_v1_[a-f0-9]{64}\b"),
    ("a Doppler token", 0, r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,}"),
    ("a Linear key", 0, r"\blin_(?:api|oauth)_[A-Za-z0-9]{40,}"),
    ("a Notion token", 30, r"\bntn_[0-9]{11}[A-Za-z0-9]{32,}|\bsecret_[A-Za-z0-9]{43}\b"),
    ("a Vault token", 35, r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}|\bs\.[A-Za-z0-9]{24}\b"),
    ("a Terraform Cloud token", 0, r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9=_-]{60,}"),
    ("an Azure client secret", 30, r"(?:^|[^A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?:$|[^A-Za-z0-9_~.-])"),
    ("an Azure storage key", 35, r"(?i)AccountKey=[A-Za-z0-9+/]{80,}={0,2}"),
    ("a SendGrid key", 0, r"\bSG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}\b"),
    ("a Mailgun key", 30, r"\b(?:key|pubkey)-[a-f0-9]{32}\b"),
    ("a Mailchimp key", 30, r"\b[a-f0-9]{32}-us\d{1,2}\b"),
    ("a Twilio key", 30, r"\bSK[a-f0-9]{32}\b"),
    ("a Telegram bot token", 30, r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    ("a Discord token", 35, r"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}\b"),
    ("a Discord webhook", 0, r"discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,}"),
    ("a Facebook token", 35, r"\bEAA[A-Za-z0-9]{60,}|\b\d{15,16}\|[A-Za-z0-9_-]{27,40}"),
    ("a Shopify token", 0, r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b"),
    ("a Square token", 30, r"\b(?:EAAA|sq0atp-|sq0csp-)[A-Za-z0-9_-]{22,60}\b"),
    ("a Sentry token", 0, r"\bsntr[yu]s?_[A-Za-z0-9+/=_-]{40,}"),
    ("a Grafana token", 30, r"\bgl(?:c|sa)_[A-Za-z0-9+/_]{32,}={0,3}"),
    ("a New Relic key", 30, r"\bNR(?:AK|JS|II|RA)-[A-Za-z0-9]{19,42}"),
    ("a Datadog key", 0, r"\bddap_[A-Za-z0-9]{30,}"),
    ("a Sourcegraph token", 30, r"\bsgp_(?:[A-Fa-f0-9]{16}_|local_)?[A-Fa-f0-9]{40}\b"),
    ("a Databricks token", 30, r"\bdapi[a-f0-9]{32}(?:-\d)?\b"),
    ("a Docker Hub token", 30, r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}"),
    ("a PlanetScale credential", 30, r"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9=_.-]{32,}"),
    ("a Postman key", 0, r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}\b"),
    ("a Pulumi token", 0, r"\bpul-[a-f0-9]{40}\b"),
    ("an Atlassian token", 30, r"\bATATT3[A-Za-z0-9_=-]{100,}|\bATCTT3[A-Za-z0-9_=-]{60,}"),
    ("an Airtable token", 30, r"\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}\b"),
    ("an Age key", 0, r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    (
        "a 1Password credential",
        35,
        r"\bops_eyJ[A-Za-z0-9+/]{200,}|\bA3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}\b",
    ),
    ("a Fly.io token", 35, r"\bfo1_[A-Za-z0-9_-]{43}\b|\bfm[12][ar]?_[A-Za-z0-9+/]{100,}"),
    ("a Figma token", 30, r"\bfigd_[A-Za-z0-9_-]{40,}"),
    ("a Supabase key", 30, r"\bsbp_[a-f0-9]{40}\b|\bsb_secret_[A-Za-z0-9_-]{20,}"),
    ("an Alibaba key", 30, r"\bLTAI[A-Za-z0-9]{20}\b"),
    ("an OpenShift token", 32, r"\bsha256~[A-Za-z0-9_-]{43}\b"),
    ("an EasyPost key", 30, r"\bEZ[AT]K[A-Za-z0-9]{54}\b"),
    (
        "a Cisco Meraki, Sourcegraph or Sumo Logic key",
        33,
        r"(?i)\b(?:meraki|sourcegraph|sumo|okta|heroku|fastly|netlify|snyk|algolia|bitbucket|contentful|dropbox|mapbox|zendesk)[\w .-]{0,20}(?:key|token|secret|pat|api)?[\w .-]{0,20}['\x22]?\s{0,3}[:=]{1,2}>?\s{0,3}['\x22]?[A-Fa-f0-9]{40}\b",
    ),
];

/// What stands where credentials stand; the first group is the credential.
const PLACES: [(&str, &str); 4] = [
    ("a password in a URL", r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\x22]{1,80}:([^\s/@'\x22]{3,120})@"),
    (
        "a credential in a header",
        r"(?i)(?:authorization|apikey|api-key|x-api-key|x-auth-token|private-token|x-[a-z-]*token|x-[a-z-]*key)['\x22]?\s{0,4}[:=]\s{0,4}['\x22]?(?:bearer|basic|token|apikey|digest)?\s{0,4}([A-Za-z0-9_+/=.~-]{10,600})",
    ),
    ("a credential for curl", r"\bcurl\b(?:[^\n;|]|\\\n){0,400}?\s(?:-u|--user)[\s=]{1,3}['\x22]?[^\s:'\x22]{0,80}:([^\s'\x22]{3,120})"),
    (
        "a credential by its name",
        r"(?i)(?:pass(?:word|wd|phrase)|[a-z_.-]*secret(?:[_-]?key)?|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret|private[_-]?key|credential)['\x22]?\s{0,4}(?:[:=]|=>|:=)\s{0,4}['\x22]?([A-Za-z0-9_+/=.~!@#%^&*-]{8,200})",
    ),
];

// Rules that do not compile would be a bug; then every string counts as unreadable, and the test below fails.
static SET: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(RULES.map(|(_, _, rule)| rule)).ok());
static EACH: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| RULES.iter().map(|(_, _, rule)| Regex::new(rule).ok()).collect());
static HINTS: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(PLACES.map(|(_, rule)| rule)).ok());
static PLACED: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| PLACES.iter().map(|(_, rule)| Regex::new(rule).ok()).collect());
static PACKED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[A-Za-z0-9+/_-]{24,}={0,2}|(?:[0-9a-fA-F]{2}){16,}").ok());

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
    let (Some(set), Some(hints)) = (SET.as_ref(), HINTS.as_ref()) else { return false };
    for rule in set.matches(text).iter() {
        let (Some((name, least, _)), Some(Some(form))) = (RULES.get(rule), EACH.get(rule)) else { continue };
        let real = |hit: &str| {
            let core = hit.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"~_-.".contains(c));
            let digits = core.bytes().any(|b| b.is_ascii_digit()) || matches!(*name, "a Hugging Face token" | "an AWS access key");
            *least == 0 || (digits && entropy(core) * 10.0 >= f64::from(*least) && !placeholder(core))
        };
        if form.find_iter(text).take(50).any(|hit| real(hit.as_str())) {
            names.push((*name, layers));
        }
    }
    for rule in hints.matches(text).iter() {
        let (Some((name, _)), Some(Some(form))) = (PLACES.get(rule), PLACED.get(rule)) else { continue };
        let named = rule == 3;
        let real = |value: &str| {
            !placeholder(value) && if named { entropy(value) >= 3.3 && mixed(value) } else { value.len() < 16 || entropy(value) >= 3.0 }
        };
        if form.captures_iter(text).take(50).filter_map(|hit| hit.get(1)).any(|value| real(value.as_str())) {
            names.push((*name, layers));
        }
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
        assert!(SET.is_some() && HINTS.is_some() && PACKED.is_some());
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
