//! Resources and prompts that are judged like tools: `tool = "resource:<glob>"` and `tool = "prompt:<glob>"`.
//!
//! One resource can be written in many ways (`..`, `%2e`, another case, a query that the server ignores). A gate holds for
//! a URI if it holds for any way of reading it; where two readings lead to two gates, the request is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use url::Url;

use super::{Policy, PolicySet};
use crate::domain::call::{CallError, Method, ToolCall};
use crate::domain::text::shortened;

/// How often what is written with `%` is read again.
const READINGS: usize = 4;

/// One policy for resources or prompts.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    server: String,
    method: Method,
    matcher: GlobMatcher,
    pub(super) policy: Arc<Policy>,
}

impl Gate {
    /// The gate that `policy` is, for what `tool` of its file says; nothing where that is a tool.
    pub(super) fn of(policy: &Arc<Policy>) -> Result<Option<Self>, String> {
        let (method, pattern) = Method::of_policy(&policy.tool);
        if method == Method::CallTool {
            return Ok(None);
        }
        let glob = GlobBuilder::new(pattern).case_insensitive(true).build().map_err(|error| format!("`tool`: {error}"))?;
        if policy.credential.as_ref().is_some_and(|terms| terms.delivers_in_argument()) {
            return Err("a resource or prompt has no arguments that a credential could be in: use `headers`, `env` or `files`".into());
        }
        Ok(Some(Self { server: policy.server.clone(), method, matcher: glob.compile_matcher(), policy: policy.clone() }))
    }

    /// The most specific of the gates that hold for one reading: the longest pattern.
    fn best<'g>(gates: impl Iterator<Item = &'g Self>, reading: &str) -> Option<&'g Self> {
        gates.filter(|gate| gate.matcher.is_match(reading)).max_by_key(|gate| gate.policy.tool.len())
    }
}

impl PolicySet {
    /// Whether some request of this kind to `server` is judged. Everything else is no work.
    pub fn has_gates(&self, server: &str, method: Method) -> bool {
        self.gates.iter().any(|gate| gate.server == server && gate.method == method)
    }

    /// The policy of a resource or prompt; nothing where no file is for it, and for tools.
    ///
    /// # Errors
    /// [`CallError::Ambiguous`] where it can be read in two ways, and files differ for them.
    pub fn gate(&self, server: &str, call: &ToolCall) -> Result<Option<Arc<Policy>>, CallError> {
        let Some(subject) = call.subject() else { return Ok(None) };
        let gates = || self.gates.iter().filter(|gate| gate.server == server && gate.method == call.method);
        let readings = if call.method == Method::ReadResource { readings(subject) } else { BTreeSet::from([subject.to_owned()]) };
        let mut found: Option<&Gate> = None;
        for gate in readings.iter().filter_map(|reading| Gate::best(gates(), reading)) {
            if found.is_some_and(|other| !Arc::ptr_eq(&other.policy, &gate.policy)) {
                return Err(CallError::Ambiguous(shortened(subject, 200)));
            }
            found = Some(gate);
        }
        Ok(found.map(|gate| gate.policy.clone()))
    }
}

/// Every way in which a server may read a URI: as written, as a URL is parsed, with `%` escapes read, without its query.
fn readings(uri: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut text = uri.to_owned();
    for _ in 0..READINGS {
        all.insert(text.clone());
        if let Ok(mut url) = Url::parse(&text) {
            all.insert(url.as_str().to_owned());
            url.set_fragment(None);
            all.insert(url.as_str().to_owned());
            url.set_query(None);
            all.insert(url.as_str().to_owned());
            all.insert(dotless(url.as_str()));
        }
        all.insert(dotless(&text));
        let decoded = decoded(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    all
}

/// The text with `.` and `..` between slashes taken as directories, whatever its scheme, and doubled slashes as one.
fn dotless(uri: &str) -> String {
    let plain = uri.replace('\\', "/");
    let (scheme, rest) = plain.split_once("://").unwrap_or(("", &plain));
    let mut steps: Vec<&str> = Vec::new();
    let mut parts = rest.split('/');
    // A host is no directory.
    let host = parts.next().unwrap_or_default();
    let last_is_directory = rest.ends_with('/');
    for step in parts {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    let path: String = steps.iter().flat_map(|step| ["/", step]).collect();
    let end = if last_is_directory && !path.is_empty() { "/" } else { "" };
    if scheme.is_empty() { format!("{host}{path}{end}") } else { format!("{scheme}://{host}{path}{end}") }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::Limits;
    use crate::domain::policy::{DefaultMode, Defaults, PolicySource};

    fn set() -> PolicySet {
        let file = |tool: &str, more: &str| PolicySource { path: format!("{tool}.toml"), text: format!("server = \"s\"\ntool = \"{tool}\"\n{more}") };
        let defaults = Defaults {
            mode: DefaultMode::Allow,
            approvers: vec!["anna".into()],
            owner_may_approve: false,
            known_approvers: vec!["anna".into()],
            groups: vec![],
            known_issuers: vec![],
            judged_only: true,
        };
        let sources = [
            file("resource:file:///srv/private/*", "default = \"approve\""),
            file("resource:file:///srv/private/open/*", "default = \"allow\""),
            file("resource:db://*/salaries", "default = \"deny\""),
            file("prompt:deploy*", "default = \"deny\""),
        ];
        PolicySet::compile(&sources, &defaults).unwrap()
    }

    #[test]
    fn a_gate_holds_for_every_way_of_writing_a_resource() {
        let set = set();
        let found = |uri: &str| {
            let call = ToolCall::described(&format!("resource:{uri}"), "", Limits::default()).unwrap();
            set.gate("s", &call).map(|policy| policy.map(|policy| policy.tool.clone())).map_err(|e| e.to_string())
        };
        let private = Ok(Some("resource:file:///srv/private/*".to_owned()));
        for uri in [
            "file:///srv/private/a",
            "FILE:///srv/Private/a",
            "file:///srv/./private/a",
            "file:///srv/x/../private/a",
            "file:///srv/x/%2e%2e/private/a",
            "file:///srv/%70rivate/a",
            "file:///srv/%2570rivate/a",
            "file:////srv//private/a",
            "file:///srv\\private\\a",
            " file:///srv/private/a",
            "file://localhost/srv/private/a",
        ] {
            assert_eq!(found(uri), private, "{uri}");
        }
        let salaries = Ok(Some("resource:db://*/salaries".to_owned()));
        for uri in ["db://x/salaries", "db://x/salaries?limit=1", "db://x/salaries#a", "db://x/a/../salaries", "DB://x/%73alaries"] {
            assert_eq!(found(uri), salaries, "{uri}");
        }
        for uri in ["file:///srv/public/a", "db://x/staff", "memo:1"] {
            assert_eq!(found(uri), Ok(None), "{uri}");
        }
        assert_eq!(found("file:///srv/private/open/a"), Ok(Some("resource:file:///srv/private/open/*".to_owned())));
        assert!(found("file:///srv/private/open/../a").unwrap_err().contains("more than one resource"));
    }

    #[test]
    fn prompts_have_gates_and_tools_have_none() {
        let set = set();
        let gate = |tool: &str| set.gate("s", &ToolCall::described(tool, "{}", Limits::default()).unwrap()).unwrap().is_some();
        assert!(gate("prompt:deploy_now") && gate("prompt:Deploy") && !gate("prompt:review"));
        let called = ToolCall::parse(br#"{"name":"prompt:deploy"}"#, Limits::default()).unwrap();
        assert!(set.gate("s", &called).unwrap().is_none());
        assert!(set.has_gates("s", Method::GetPrompt) && !set.has_gates("t", Method::GetPrompt) && !set.has_gates("s", Method::CallTool));
    }

    #[test]
    fn what_goes_on_is_what_was_judged() {
        let params = br#"{"uri":"memo:1","_meta":{"progressToken":1,"x/y":2},"more":3}"#;
        let call = ToolCall::of_request(Method::ReadResource, params, Limits::default()).unwrap();
        assert_eq!(call.forwarded(), r#"{"_meta":{"progressToken":1,"x/y":2},"more":3,"uri":"memo:1"}"#);
        for refused in [r#"{"uri":1}"#, r#"{"uri":""}"#, "{}", r#"{"uri":"a","URI":"b"}"#, r#"{"uri":"a","uri":"b"}"#] {
            assert!(ToolCall::of_request(Method::ReadResource, refused.as_bytes(), Limits::default()).is_err(), "{refused}");
        }
        let prompt = ToolCall::of_request(Method::GetPrompt, br#"{"name":"p","arguments":{"a":"b"}}"#, Limits::default()).unwrap();
        assert_eq!(prompt.forwarded(), r#"{"arguments":{"a":"b"},"name":"p"}"#);
    }
}
