//! URLs, parsed as browsers parse them (WHATWG): inner addresses in any spelling, foreign hosts, odd schemes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::url::{Host, Url};

use super::{Finding, Group, Sight, Target, UrlRole};
use crate::domain::json::{Pointer, Value};

pub(super) fn observe(role: &UrlRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    if let Value::Array(items) = value {
        for (n, item) in items.iter().enumerate() {
            observe(role, &pointer.join(&n.to_string()), item, seen);
        }
        return;
    }
    let Some(url) = value.as_str().and_then(parse) else {
        seen.find(Finding::uninspectable("url", Group::Target, "the URL cannot be read").at(pointer, value));
        return;
    };
    let found = |weight, reason: &str| Finding::new("url", Group::Target, weight, reason).at(pointer, value);
    if !matches!(url.scheme(), "http" | "https") {
        seen.find(found(600, "the URL is not of the web"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        seen.find(found(400, "the URL carries a name or password before its host"));
    }
    if url.host().is_some_and(|host| inner(&host)) {
        seen.fact("url", "private", Value::Bool(true));
        seen.find(found(700, "the URL points inside: loopback, private, link-local or metadata address"));
    }
    if url.port().is_some_and(|port| !matches!(port, 80 | 443 | 8080 | 8443)) {
        seen.find(found(150, "the URL names an unusual port"));
    }
    if carries(&url) {
        seen.fact("url", "carries", Value::Bool(true));
        seen.find(Finding::new("url", Group::Content, 350, "the URL carries a long text, which leaves with it").at(pointer, value));
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if host.split('.').any(|label| label.starts_with("xn--")) {
        seen.find(found(350, "the host is written in non-Latin letters, which may imitate another"));
    }
    if role.learned && !seen.history.seen.contains(&target(host)) {
        seen.fact("url", "first_seen", Value::Bool(true));
        seen.find(found(450, "first seen: nothing went to this host before"));
    }
    let ours = |ours: &String| host == ours || host.strip_suffix(ours.as_str()).is_some_and(|rest| rest.ends_with('.'));
    if !role.hosts.is_empty() && !role.hosts.iter().any(ours) {
        seen.fact("url", "foreign", Value::Bool(true));
        seen.find(found(500, "the host is not one that the policy names"));
    }
}

/// A URL, or a bare host as tools take them: `example.com/x`.
fn parse(text: &str) -> Option<Url> {
    let text = text.trim();
    match Url::parse(text) {
        // `example.com:80` reads as a scheme.
        Ok(url) if url.has_host() || !text.split(':').next().is_some_and(|scheme| scheme.contains('.')) => Some(url),
        _ => Url::parse(&format!("https://{text}"))
            .ok()
            .filter(|url| url.host_str().is_some_and(|host| host.contains(['.', ':']) || host == "localhost")),
    }
}

fn inner(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => is_inner(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => is_inner(IpAddr::V6(*ip)),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_lowercase();
            name == "localhost"
                || name == "metadata"
                || [".localhost", ".local", ".internal", ".lan", ".corp", ".home.arpa"].iter().any(|end| name.ends_with(end))
        }
    }
}

/// The hosts that an argument names: of itself, or of each element of a list.
pub(super) fn targets(value: &Value) -> Vec<Target> {
    match value {
        Value::String(text) => parse(text).and_then(|url| url.host_str().map(|host| target(host.trim_end_matches('.')))).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

fn target(host: &str) -> Target {
    Target { kind: "host".into(), value: host.to_lowercase() }
}

/// Whether a query or path is long enough, and varied enough, to carry a text out.
fn carries(url: &Url) -> bool {
    let long = |text: &str| text.len() > 120 && !text.contains('/');
    url.query_pairs().any(|(_, value)| value.len() > 120)
        || url.path().split('/').any(long)
        || url.host_str().is_some_and(|host| host.split('.').any(|label| label.len() > 40))
}

/// Why a host in a command line is dangerous to ask: it gives credentials of the machine to whoever asks.
pub(super) fn dangerous_host(text: &str) -> Option<&'static str> {
    let url = parse(text)?;
    let metadata = match url.host()? {
        Host::Ipv4(ip) => ip.is_link_local() || ip == Ipv4Addr::new(100, 100, 100, 200),
        Host::Ipv6(ip) => {
            carried(ip).is_some_and(|ip| ip.is_link_local())
                || ip.segments().first() == Some(&0xfe80)
                || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
        Host::Domain(name) => name.starts_with("metadata."),
    };
    if url.password().is_some() {
        return Some("the URL carries a password");
    }
    metadata.then_some("it asks the address that gives out the machine's credentials")
}

/// Host names and addresses by themselves, as the role `host`.
pub(super) fn host(role: &UrlRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', '@', '?', '#', '\\', ' ']);
    match value.as_str().filter(|text| plain(text)) {
        Some(_) => observe(role, pointer, value, seen),
        None if matches!(value, Value::Array(_)) => observe(role, pointer, value, seen),
        None => seen.find(Finding::uninspectable("host", Group::Target, "the host is not a name or an address").at(pointer, value)),
    }
}

/// Whether an address is not of the public internet, in IPv4 or in any IPv6 form that carries an IPv4 address.
fn is_inner(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_inner_v4(ip),
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || carried(ip).is_some_and(is_inner_v4)
                || matches!(ip.segments().first(), Some(0xfc00..=0xfdff | 0xfe80..=0xfeff))
        }
    }
}

fn is_inner_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_unspecified()
        || ip.is_multicast()
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

/// The IPv4 address inside a v4-mapped, v4-compatible, 6to4 (2002::/16) or NAT64 (64:ff9b::/96) address.
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |hi: u16, lo: u16| Some(Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo)));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, _, _, _) => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::risk::{History, Observation, role::empty_facts};

    fn look(text: &str) -> Vec<Finding> {
        let history = History::default();
        let mut seen = Sight { findings: vec![], facts: empty_facts(), history: &history };
        observe(&UrlRole::default(), &Pointer::root(), &Value::from(text), &mut seen);
        let Sight { findings, facts, .. } = seen;
        Observation { effect: super::super::Effect::Read, findings, facts, targets: vec![] }.findings
    }

    #[test]
    fn a_host_is_new_until_it_was_approved() {
        let role = UrlRole { learned: true, ..UrlRole::default() };
        let value = Value::from("https://Example.com./x");
        let found = |history: &History| {
            let mut seen = Sight { findings: vec![], facts: empty_facts(), history };
            observe(&role, &Pointer::root(), &value, &mut seen);
            seen.findings.len()
        };
        let known = History { seen: targets(&value).into_iter().collect(), ..History::default() };
        assert_eq!((found(&History::default()), found(&known)), (1, 0));
    }

    #[test]
    fn inner_addresses_are_seen_in_every_spelling() {
        for text in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://[2002:7f00:1::]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fec0::1]/",
            "http://localhost./",
            "http://metadata.google.internal/",
        ] {
            assert!(look(text).iter().any(|f| f.reason.contains("inside")), "{text}");
        }
        assert!(look("https://example.com/").is_empty());
        assert!(!look("not a url").is_empty());
        assert!(!look("https://user@example.com/").is_empty());
    }
}
