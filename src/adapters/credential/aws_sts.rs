//! AWS STS: a role for one call, narrowed by a session policy that is made from the call's arguments.
//!
//! Nobody can revoke such a session. The session policy carries `DateLessThan`, which AWS looks at with every request:
//! the session may do nothing from that second on, although its keys live for 15 minutes, the least that AWS gives.
//! Source: STS API reference, `AssumeRole` and `AssumeRoleWithWebIdentity`; IAM, "Session policies".

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sigv4::{Keys, sign};
use super::{Credential, Ended, Ending, Held, IssueError, Issuer, Journal, Nature, Order, OwnSecret, Plan, Web, parameters};
use crate::domain::clock::Timestamp;
use crate::domain::permit::Permit;

/// Longest text of a session policy.
const MOST: usize = 2048;
/// The least life that AWS gives.
const LEAST: u64 = 900;

/// A role.
#[derive(Debug)]
pub struct AwsSts {
    /// The endpoint: `https://sts.eu-central-1.amazonaws.com`.
    pub web: Web,
    /// The region.
    pub region: String,
    /// The role's ARN.
    pub role: String,
    /// The external id that the role's trust policy wants.
    pub external_id: Option<String>,
    /// How the gateway says who it is.
    pub identity: AwsIdentity,
    /// Whether the caller's name goes along as source identity, which the trust policy must permit.
    pub source_identity: bool,
}

/// How the gateway says who it is.
#[derive(Debug)]
pub enum AwsIdentity {
    /// With keys.
    Keys {
        /// The key's id.
        id: OwnSecret,
        /// The key.
        secret: OwnSecret,
        /// The session token, where the keys are temporary.
        session: Option<OwnSecret>,
    },
    /// With a token of an OpenID provider that the role trusts.
    WebIdentity(OwnSecret),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    statements: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    actions: Vec<String>,
    resources: Vec<String>,
    /// `{ StringEquals = { "s3:prefix" = "a" } }`
    #[serde(default)]
    conditions: serde_json::Map<String, Value>,
}

impl AwsSts {
    /// The session policy.
    fn policy(order: &Order) -> Result<String, IssueError> {
        let asked: Parameters = order.parameters()?;
        let until = stamp(order.dead_by());
        let mut statements = Vec::new();
        for statement in &asked.statements {
            if statement.actions.is_empty() || statement.resources.is_empty() {
                return Err(IssueError::parameters("every statement needs `actions` and `resources`"));
            }
            if let Some(odd) = statement.actions.iter().find(|action| !action.contains(':') || action.starts_with('*') || action.contains('$')) {
                return Err(IssueError::Parameters(format!("the action `{odd}` is not one of a service, as `s3:GetObject` is")));
            }
            if let Some(odd) = statement
                .resources
                .iter()
                .find(|arn| !arn.starts_with("arn:") || arn.contains(['$', '?']) || arn.trim_end_matches("/*").contains('*'))
            {
                return Err(IssueError::Parameters(format!("the resource `{odd}` is not an ARN without `*` (but for `/*` at its end), `?` and `$`")));
            }
            let mut conditions = statement.conditions.clone();
            let dates = conditions.entry("DateLessThan").or_insert_with(|| json!({}));
            match dates.as_object_mut() {
                Some(dates) if !dates.contains_key("aws:CurrentTime") => dates.insert("aws:CurrentTime".into(), until.as_str().into()),
                _ => return Err(IssueError::parameters("the condition `DateLessThan` of `aws:CurrentTime` is the gateway's own")),
            };
            statements.push(json!({"Effect": "Allow", "Action": statement.actions, "Resource": statement.resources, "Condition": conditions}));
        }
        if statements.is_empty() {
            return Err(IssueError::parameters("it needs `statements`: without them the session may do all that the role may"));
        }
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        if policy.len() > MOST {
            return Err(IssueError::Parameters(format!("the session policy has {} characters, and AWS takes {MOST}", policy.len())));
        }
        Ok(policy)
    }

    fn form(&self, order: &Order) -> Result<Vec<(&'static str, String)>, IssueError> {
        let action = match self.identity {
            AwsIdentity::Keys { .. } => "AssumeRole",
            AwsIdentity::WebIdentity(_) => "AssumeRoleWithWebIdentity",
        };
        let mut form = vec![
            ("Action", action.to_owned()),
            ("Version", "2011-06-15".to_owned()),
            ("RoleArn", self.role.clone()),
            ("RoleSessionName", order.lease.clone()),
            ("DurationSeconds", LEAST.to_string()),
            ("Policy", Self::policy(order)?),
        ];
        if matches!(self.identity, AwsIdentity::Keys { .. }) {
            form.extend(self.external_id.as_ref().map(|id| ("ExternalId", id.clone())));
            if self.source_identity {
                let plain = |c: char| if c.is_ascii_alphanumeric() || "_=,.@-".contains(c) { c } else { '-' };
                form.push(("SourceIdentity", order.caller.name.chars().map(plain).take(64).collect()));
            }
        }
        Ok(form)
    }
}

/// `2026-01-02T03:04:05Z`.
fn stamp(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.seconds()).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What stands in an element of the answer. Nothing in these is ever escaped.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    after.split_once(&format!("</{name}>")).map(|(inside, _)| inside.trim())
}

#[async_trait]
impl Issuer for AwsSts {
    fn nature(&self) -> Nature {
        Nature { kind: "aws-sts", ending: Ending::ByTime, named: false, lapses: true }
    }

    fn plan(&self, order: &Order) -> Result<Plan, IssueError> {
        let form = self.form(order)?;
        let lines = form.iter().map(|(name, value)| match *name {
            "Policy" => {
                let policy: Value = serde_json::from_str(value).unwrap_or_default();
                format!("  Policy = {policy:#}")
            }
            _ => format!("  {name} = {value}"),
        });
        Ok(Plan { request: format!("POST {}\n{}", self.web.shown("/"), lines.collect::<Vec<_>>().join("\n")), handle: None })
    }

    async fn issue(&self, _permit: &Permit, order: &Order, _journal: &dyn Journal) -> Result<Credential, IssueError> {
        let mut form = self.form(order)?;
        let mut headers = Vec::new();
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let encode = |form: &[(&str, String)]| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let body = match &self.identity {
            AwsIdentity::WebIdentity(token) => {
                form.push(("WebIdentityToken", token.reveal().await?.to_string()));
                encode(&form)
            }
            AwsIdentity::Keys { id, secret, session } => {
                let (id, secret) = (id.reveal().await?, secret.reveal().await?);
                let session = match session {
                    Some(session) => Some(session.reveal().await?),
                    None => None,
                };
                let keys = Keys { id: &id, secret: &secret, session: session.as_ref().map(|s| s.as_str()) };
                let body = encode(&form);
                headers = sign(&keys, &self.region, &self.web.host(), kind, &body, order.now);
                body
            }
        };
        let mut request = self.web.request(Method::POST, "/").header("content-type", kind).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let reply = self.web.send(request, order.now).await?;
        let text = reply.text();
        if !reply.status.is_success() {
            let why = [element(text, "Code"), element(text, "Message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let why = format!("{} ({})", reply.status, crate::domain::text::shortened(&crate::domain::text::visible(&why), 300));
            return Err(if reply.status.is_client_error() { IssueError::Refused(why) } else { IssueError::Unclear(why) });
        }
        let field = |name: &str| element(text, name).filter(|value| !value.is_empty()).map(str::to_owned);
        let (Some(id), Some(secret), Some(session)) = (field("AccessKeyId"), field("SecretAccessKey"), field("SessionToken")) else {
            return Err(IssueError::Unclear("its answer has no credentials".into()));
        };
        let fields = [("access_key_id", id), ("secret_access_key", secret), ("session_token", session), ("region", self.region.clone())];
        let made = Credential {
            granted: Some(format!("session {} until {}", order.lease, stamp(order.dead_by()))),
            ..Credential::of(fields, order.dead_by())
        };
        let arn = field("Arn").unwrap_or_default();
        if !arn.ends_with(&format!("/{}", order.lease)) {
            return Err(IssueError::Wider { why: format!("it is the session `{arn}`, and another was asked"), made: Box::new(made) });
        }
        let least = Duration::from_secs(LEAST + 60);
        let until = field("Expiration").and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if until.is_none_or(|until| until.as_millisecond() > order.now.plus(least).0) {
            return Err(IssueError::Wider { why: "its keys live longer than was asked".into(), made: Box::new(made) });
        }
        Ok(made)
    }

    async fn revoke(&self, _held: &Held<'_>) -> Result<Ended, IssueError> {
        Ok(Ended::ByTime)
    }

    fn takes(&self, text: &str) -> Result<(), IssueError> {
        parameters::<Parameters>(text).map(drop)
    }
}
