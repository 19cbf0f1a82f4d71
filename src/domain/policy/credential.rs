//! The credential that a call gets: which issuer, what it is asked for, how long it may live, and how it reaches the
//! upstream.
//!
//! What is asked for comes from the canonical arguments that were approved, and from nothing else. Structures are filled,
//! never texts spliced: an argument can be a string, or a number, of what is asked; it can never be a key or a bracket.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

use super::Defaults;
use super::compile::json;
use super::file::{CredentialFile, PlacesFile, PolicyFile, WhereFile};
use super::template::{Permitted, Values};
use super::{Slot, Template, TemplateError};
use crate::domain::json::{Object, Pointer, Value, canonical};
use crate::domain::text::nearest;

/// The longest life that a policy may give.
const LONGEST: Duration = Duration::from_secs(600);

/// The credential that a call gets once it may run.
#[derive(Clone, Debug)]
pub struct CredentialTerms {
    /// The issuer's name in the configuration.
    pub issuer: String,
    scope: Option<Template>,
    parameters: Tree,
    permitted: Permitted,
    /// The longest life.
    pub ttl: Duration,
    /// How it reaches the upstream.
    pub deliver: Delivery,
}

/// What an issuer is asked for, for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The scope in a line.
    pub text: String,
    /// The parameters as canonical JSON: an object, empty where there are none.
    pub parameters: String,
}

impl Scope {
    /// Everything that is asked for, as people are shown it and as it is part of what they approve.
    pub fn shown(&self) -> String {
        match (self.text.as_str(), self.parameters.as_str()) {
            (text, "{}") => text.to_owned(),
            ("", parameters) => parameters.to_owned(),
            (text, parameters) => format!("{text} {parameters}"),
        }
    }
}

/// How a credential reaches the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As fits the issuer and the upstream: `Authorization: Bearer` over HTTP, variables for a child process.
    Fitting,
    /// As the policy says.
    Places(Places),
}

/// The places that a policy names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Headers of exactly this request.
    pub headers: BTreeMap<String, Slot>,
    /// Variables of a child started for exactly this call.
    pub env: BTreeMap<String, Slot>,
    /// Variables of such a child that name files of its own, with what is in them.
    pub files: BTreeMap<String, Slot>,
    /// The argument that is added to the call.
    pub argument: Option<Pointer>,
}

#[derive(Clone, Debug)]
enum Tree {
    Fixed(Value),
    Text(Template),
    List(Vec<Tree>),
    Table(Vec<(String, Tree)>),
}

impl CredentialTerms {
    /// Whether the credential is put into the call's arguments.
    pub fn delivers_in_argument(&self) -> bool {
        matches!(&self.deliver, Delivery::Places(places) if places.argument.is_some())
    }

    /// What the issuer is asked for, for a call with these arguments.
    ///
    /// # Errors
    /// Where an argument is missing, or has a value that is not permitted.
    pub fn scope(&self, arguments: &Value) -> Result<Scope, TemplateError> {
        let text = self.scope.as_ref().map(|scope| scope.scope(arguments, &self.permitted)).transpose()?;
        let parameters = canonical(&self.parameters.fill(arguments, &self.permitted)?);
        Ok(Scope { text: text.unwrap_or_default(), parameters })
    }

    /// The parameters as they are written, with their placeholders: to see whether they are what the issuer takes.
    pub fn written(&self) -> String {
        canonical(&self.parameters.written())
    }
}

impl Tree {
    fn read(value: &toml::Value) -> Result<Self, String> {
        Ok(match value {
            toml::Value::String(text) => Self::Text(text.parse().map_err(|e: TemplateError| e.to_string())?),
            toml::Value::Array(items) => Self::List(items.iter().map(Self::read).collect::<Result<_, _>>()?),
            toml::Value::Table(members) => {
                if let Some(key) = members.keys().find(|key| key.contains(['{', '}'])) {
                    return Err(format!("`{key}`: an argument cannot be a key of the parameters"));
                }
                Self::Table(members.iter().map(|(key, value)| Ok((key.clone(), Self::read(value)?))).collect::<Result<_, String>>()?)
            }
            other => Self::Fixed(json(other)?),
        })
    }

    fn fill(&self, arguments: &Value, permitted: &Permitted) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(text) => match text.only().and_then(|pointer| permitted.number(pointer)) {
                Some(pointer) => {
                    text.scope(arguments, permitted)?;
                    pointer.resolve(arguments).cloned().unwrap_or(Value::Null)
                }
                None => Value::String(text.scope(arguments, permitted)?),
            },
            Self::List(items) => Value::Array(items.iter().map(|item| item.fill(arguments, permitted)).collect::<Result<_, _>>()?),
            Self::Table(members) => {
                let mut object = Object::default();
                for (key, value) in members {
                    object.insert(key, value.fill(arguments, permitted)?);
                }
                Value::Object(object)
            }
        })
    }

    fn written(&self) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(text) => Value::String(text.written()),
            Self::List(items) => Value::Array(items.iter().map(Self::written).collect()),
            Self::Table(members) => {
                let mut object = Object::default();
                for (key, value) in members {
                    object.insert(key, value.written());
                }
                Value::Object(object)
            }
        }
    }

    fn places<'t>(&'t self, into: &mut Vec<&'t Pointer>) {
        match self {
            Self::Fixed(_) => {}
            Self::Text(text) => into.extend(text.places()),
            Self::List(items) => items.iter().for_each(|item| item.places(into)),
            Self::Table(members) => members.iter().for_each(|(_, value)| value.places(into)),
        }
    }
}

/// Compiles `[credential]` of a tool's file over that of its `server.toml`.
pub(super) fn compile(file: &PolicyFile, shared: Option<&PolicyFile>, defaults: &Defaults) -> Result<Option<CredentialTerms>, String> {
    let (own, shared) = (file.credential.as_ref(), shared.and_then(|s| s.credential.as_ref()));
    // `server.toml` may say which issuer, how long and how; only a tool's own file turns a credential on.
    let Some(own) = own.filter(|_| file.tool.is_some()) else { return Ok(None) };
    if own.scope.is_none() && own.parameters.is_none() {
        return Err("`[credential]` needs a `scope`, or `[credential.parameters]`".into());
    }
    let issuer = own.issuer.clone().or_else(|| shared.and_then(|s| s.issuer.clone()));
    let issuer = issuer.ok_or("`[credential]` needs an `issuer`, here or in `server.toml`")?;
    if !defaults.known_issuers.contains(&issuer) && !defaults.judged_only {
        let hint = nearest(&issuer, defaults.known_issuers.iter().map(String::as_str)).map(|m| format!("; was `{m}` meant?"));
        return Err(format!("issuer `{issuer}` is not in `countersign.toml`: add `[credential.{issuer}]`{}", hint.unwrap_or_default()));
    }
    let ttl = own.ttl.or(shared.and_then(|c| c.ttl)).map_or(Duration::from_secs(60), |l| l.0);
    if ttl.as_secs() < 5 || ttl > LONGEST {
        return Err("`ttl` must be from 5 s to 10 m".into());
    }
    let scope: Option<Template> = own.scope.as_ref().map(|text| text.parse()).transpose().map_err(|e: TemplateError| e.to_string())?;
    let parameters = Tree::read(&toml::Value::Table(own.parameters.clone().unwrap_or_default()))?;
    let permitted = permitted(own.permitted.as_ref())?;
    let mut places = Vec::new();
    parameters.places(&mut places);
    if let Some(open) = places.iter().find(|place| !permitted.names(place)) {
        return Err(format!(
            "the parameters of the credential take `{{{open}}}` from the call: say which values it may have, as in \
             `[credential.where]` `\"{open}\" = {{ pattern = \"[a-z-]+\" }}` or `{{ enum = [\"a\", \"b\"] }}`"
        ));
    }
    let named = places.iter().copied().chain(scope.iter().flat_map(Template::places)).map(ToString::to_string).collect::<Vec<_>>();
    if let Some(spare) = own.permitted.iter().flat_map(BTreeMap::keys).find(|place| !named.contains(place)) {
        let hint = nearest(spare, named.iter().map(String::as_str)).map(|m| format!("; was `{m}` meant?"));
        return Err(format!("`[credential.where]` names `{spare}`, which neither scope nor parameters take{}", hint.unwrap_or_default()));
    }
    let deliver = match delivery(own)? {
        Delivery::Fitting => shared.map_or(Ok(Delivery::Fitting), delivery)?,
        given => given,
    };
    Ok(Some(CredentialTerms { issuer, scope, parameters, permitted, ttl, deliver }))
}

fn permitted(file: Option<&BTreeMap<String, WhereFile>>) -> Result<Permitted, String> {
    let one = |(place, file): (&String, &WhereFile)| {
        let pointer: Pointer = place.parse().map_err(|e| format!("`[credential.where]`: {e}"))?;
        let values = match (&file.pattern, &file.listed, file.from.zip(file.to)) {
            (Some(pattern), None, None) => {
                Values::Matching(Regex::new(&format!("^(?:{pattern})$")).map_err(|e| format!("`[credential.where]` `{place}`: {e}"))?)
            }
            (None, Some(listed), None) if listed.iter().any(|one| one.contains(['*', '?', '$', '{', '}'])) => {
                return Err(format!("`[credential.where]` `{place}`: `*`, `?`, `$` and braces could widen a scope"));
            }
            (None, Some(listed), None) if !listed.is_empty() => Values::Listed(listed.clone()),
            (None, None, Some((least, most))) if least <= most => Values::Between(least, most),
            _ => {
                return Err(format!("`[credential.where]` `{place}` needs one of `pattern = \"…\"`, `enum = [\"…\"]` and `from = …` with `to = …`"));
            }
        };
        Ok((pointer.to_string(), values))
    };
    Ok(Permitted::new(file.into_iter().flatten().map(one).collect::<Result<_, _>>()?))
}

fn delivery(file: &CredentialFile) -> Result<Delivery, String> {
    let slots = |given: &BTreeMap<String, String>, name: fn(&str) -> String| {
        let one = |(key, text): (&String, &String)| Ok((name(key), text.parse::<Slot>()?));
        given.iter().map(one).collect::<Result<BTreeMap<_, _>, String>>()
    };
    let same = |key: &str| key.to_owned();
    let lower = |key: &str| key.to_lowercase();
    let alone = |name: String, text: &str| Ok::<_, String>(BTreeMap::from([(name, text.parse::<Slot>()?)]));
    let headers = match &file.header {
        None => BTreeMap::new(),
        Some(PlacesFile::One(name)) if name.eq_ignore_ascii_case("authorization") => alone(lower(name), "Bearer {secret}")?,
        Some(PlacesFile::One(name)) => alone(lower(name), "{secret}")?,
        Some(PlacesFile::Several(given)) => slots(given, lower)?,
    };
    let env = match &file.env {
        None => BTreeMap::new(),
        Some(PlacesFile::One(name)) => alone(name.clone(), "{secret}")?,
        Some(PlacesFile::Several(given)) => slots(given, same)?,
    };
    let files = file.file.as_ref().map(|given| slots(given, same)).transpose()?.unwrap_or_default();
    let argument = file.argument.as_ref().map(|text| text.parse::<Pointer>()).transpose().map_err(|e| e.to_string())?;
    for name in headers.keys() {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            return Err(format!("`{name}` is not the name of a header"));
        }
        if ["host", "content-type", "content-length", "accept", "connection", "transfer-encoding"].contains(&name.as_str())
            || name.starts_with("mcp-")
        {
            return Err(format!("the header `{name}` belongs to the protocol"));
        }
    }
    for name in env.keys().chain(files.keys()) {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() || !plain {
            return Err(format!("`{name}` is not the name of a variable"));
        }
        if name == "PATH" || name.starts_with("LD_") {
            return Err(format!("the variable `{name}` decides what is started: a credential does not go there"));
        }
    }
    if let Some(twice) = files.keys().find(|name| env.contains_key(*name)) {
        return Err(format!("`{twice}` is in `env` and in `file`: keep one"));
    }
    let to_http = !headers.is_empty();
    if to_http && !(env.is_empty() && files.is_empty()) {
        return Err("`[credential]` has both `header` and `env` or `file`: a server over HTTP takes headers, a child process takes the others".into());
    }
    let places = Places { headers, env, files, argument };
    Ok(if places == Places::default() { Delivery::Fitting } else { Delivery::Places(places) })
}

/// Puts `value` into the arguments of a call's parameters, where nothing may be yet.
///
/// # Errors
/// If something is there, or the way to it is not made of objects.
pub fn put_argument(params: &mut Value, place: &Pointer, value: &str) -> Result<(), String> {
    let taken = || format!("the call has an argument at `{place}`, where its credential goes");
    let full = format!("/arguments{place}");
    let mut steps: Vec<String> = full.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop().ok_or_else(taken)?;
    let mut here = params;
    for step in steps {
        let Value::Object(object) = here else { return Err(taken()) };
        if object.get(&step).is_none() {
            object.insert(&step, Value::Object(Object::default()));
        }
        here = object.get_mut(&step).ok_or_else(taken)?;
    }
    match here {
        Value::Object(object) if object.get(&last).is_none() => object.insert(&last, Value::String(value.to_owned())),
        _ => return Err(taken()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::{Limits, read};

    fn terms(text: &str) -> Result<CredentialTerms, String> {
        let file: PolicyFile = toml::from_str(&format!("server = \"s\"\ntool = \"t\"\n{text}")).map_err(|e| e.to_string())?;
        let defaults = Defaults {
            mode: super::super::DefaultMode::Approve,
            approvers: vec![],
            owner_may_approve: false,
            known_approvers: vec![],
            groups: vec![],
            known_issuers: vec!["git".into()],
            judged_only: false,
        };
        Ok(compile(&file, None, &defaults)?.unwrap())
    }

    fn arguments(text: &str) -> Value {
        read(text.as_bytes(), Limits::default()).unwrap()
    }

    const GIT: &str = "[credential]\nissuer = \"git\"\n[credential.parameters]\nrepositories = [\"{/repo}\"]\nids = [\"{/id}\"]\npermissions = { issues = \"write\" }\n[credential.where]\n\"/repo\" = { pattern = \"[a-z-]+\" }\n\"/id\" = { from = 1, to = 9 }\n";

    #[test]
    fn structures_are_filled_and_never_spliced() {
        let git = terms(GIT).unwrap();
        let scope = git.scope(&arguments(r#"{"repo":"api","id":7}"#)).unwrap();
        assert_eq!(scope.parameters, r#"{"ids":[7],"permissions":{"issues":"write"},"repositories":["api"]}"#);
        assert_eq!(scope.shown(), scope.parameters);
        for repo in ["api\",\"other", "API", "a/b", "..", "a*", "", "api\n", "аpi", "api ", "$x", "api?x"] {
            let mut call = Value::Object(Object::default());
            if let Value::Object(object) = &mut call {
                object.insert("repo", Value::String(repo.into()));
                object.insert("id", arguments("7"));
            }
            assert!(git.scope(&call).is_err(), "{repo}");
        }
        for id in ["0", "10", "\"7\"", "7.5", "true", "[7]", "null"] {
            assert!(git.scope(&arguments(&format!("{{\"repo\":\"api\",\"id\":{id}}}"))).is_err(), "{id}");
        }
    }

    #[test]
    fn what_a_policy_leaves_open_is_an_error_that_says_what_to_write() {
        let open = GIT.replace("\"/repo\" = { pattern = \"[a-z-]+\" }\n", "");
        assert!(terms(&open).unwrap_err().contains("say which values it may have"));
        for (more, part) in
            [("\"/rep\" = { enum = [\"a\"] }\n", "was `/repo` meant?"), ("\"/x\" = { }\n", "needs one of"), ("\"/x\" = { pattern = \"(\" }\n", "/x")]
        {
            assert!(terms(&format!("{GIT}{more}")).unwrap_err().contains(part), "{part}");
        }
        for (text, part) in [
            ("header = \"mcp-name\"\n", "belongs to the protocol"),
            ("header = { \"a b\" = \"x\" }\n", "not the name of a header"),
            ("env = \"LD_PRELOAD\"\n", "decides what is started"),
            ("env = { A = \"{secret|hex}\" }\n", "not a way to write"),
            ("env = { A = \"{secret\" }\n", "without its partner"),
            ("env = \"A\"\nheader = \"x\"\n", "both"),
            ("ttl = \"11m\"\n", "ttl"),
        ] {
            let error = terms(&format!("[credential]\nissuer = \"git\"\nscope = \"x\"\n{text}")).unwrap_err();
            assert!(error.contains(part), "`{part}` in {error}");
        }
    }

    #[test]
    fn an_argument_is_added_only_where_there_is_none() {
        let mut params = arguments(r#"{"name":"t","arguments":{"a":1}}"#);
        let place: Pointer = "/auth/token".parse().unwrap();
        put_argument(&mut params, &place, "s").unwrap();
        assert_eq!(canonical(&params), r#"{"arguments":{"a":1,"auth":{"token":"s"}},"name":"t"}"#);
        assert!(put_argument(&mut params, &place, "s").is_err());
        assert!(put_argument(&mut params, &"/a/b".parse().unwrap(), "s").is_err());
    }
}
