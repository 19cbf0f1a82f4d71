//! `countersign issuer`: tries the real thing.

use std::time::Duration;

use super::{Code, Failure, print};
use crate::adapters::store::LeaseState;
use crate::app::App;
use crate::app::config::Config;
use crate::domain::clock::Length;
use crate::domain::json::{Limits, canonical, read};
use crate::domain::policy::Scope;

/// Try an issuer of credentials
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Mint a credential and revoke it
    #[command(after_help = "Examples:
  countersign issuer test github --for github/create_issue --arguments '{\"owner\": \"acme\", \"repo\": \"api\"}'
  countersign issuer test pg --parameters '{\"roles\": [\"app_reader\"]}'
  countersign issuer test built-in --scope refund:pay-1")]
    Test {
        /// The issuer's name in the configuration
        name: String,
        /// Ask for what the policy of this tool, SERVER/TOOL, asks for
        #[arg(long = "for", value_name = "TOOL", conflicts_with_all = ["scope", "parameters"])]
        tool: Option<String>,
        /// The arguments of that call, as JSON
        #[arg(long, default_value = "{}", requires = "tool")]
        arguments: String,
        /// The scope in a line
        #[arg(long, default_value = "")]
        scope: String,
        /// What the issuer is asked for, as JSON
        #[arg(long, default_value = "{}")]
        parameters: String,
        /// For how long
        #[arg(long, default_value = "30s")]
        ttl: String,
    },
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let Verb::Test { name, tool, arguments, scope, parameters, ttl } = arguments.verb;
    if !config.credentials.contains_key(&name) {
        let known = config.credentials.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Failure::said(format!("there is no `[credential.{name}]`")).hint(format!("issuers: {known}")).code(Code::Invalid));
    }
    let invalid = |what: &str, why: &dyn std::fmt::Display| Failure::said(format!("{what}: {why}")).code(Code::Invalid);
    let address = config.address();
    let mut app = App::build(config, address).await?;
    app.complete()?;
    let (scope, ttl) = match tool {
        Some(tool) => {
            let (server, tool) = tool.split_once('/').ok_or_else(|| Failure::said("name the tool as SERVER/TOOL"))?;
            let policy = app.policies().for_tool(server, tool);
            let terms = policy.credential.as_ref().filter(|terms| terms.issuer == name);
            let terms = terms.ok_or_else(|| Failure::said(format!("the policy of {server}/{tool} asks nothing of `{name}`")))?;
            let arguments = read(arguments.as_bytes(), Limits::default()).map_err(|e| invalid("the arguments are not JSON", &e))?;
            (terms.scope(&arguments).map_err(|e| invalid("nothing can be minted", &e))?, terms.ttl)
        }
        None => {
            let parameters = read(parameters.as_bytes(), Limits::default()).map_err(|e| invalid("the parameters are not JSON", &e))?;
            let ttl: Length = toml::Value::String(ttl).try_into().map_err(|e: toml::de::Error| invalid("--ttl", &e.message()))?;
            (Scope { text: scope, parameters: canonical(&parameters) }, ttl.0)
        }
    };
    let tried = app.gateway.try_issuer(&name, scope, ttl).await;
    app.end().await;
    let trial = tried.map_err(|error| Failure::said(error.to_string()).hint("docs/credentials.md has the set-up of every issuer"))?;
    let millis = |took: Duration| format!("{} ms", took.as_millis());
    print(&trial.plan.request);
    print("");
    let fields = trial.credential.names().collect::<Vec<_>>().join(", ");
    print(&format!("ok     minted in {}: {fields}", millis(trial.minted_in)));
    if let Some(granted) = &trial.credential.granted {
        print(&format!("       granted: {}", crate::domain::text::visible(granted)));
    }
    let (good, ended) = match trial.ended {
        LeaseState::Revoked => (true, format!("revoked in {}, and the issuer said so", millis(trial.ended_in))),
        LeaseState::Lapsing => (true, format!("cannot be revoked; dead at {}", trial.credential.expires_at)),
        LeaseState::Kept => (true, "a stored secret: nothing was minted, and it stays valid".to_owned()),
        _ => (false, format!("NOT revoked: a running gateway tries again, and the log above says why (lease {})", trial.lease)),
    };
    print(&format!("{}  {ended}", if good { "ok   " } else { "WRONG" }));
    if good { Ok(()) } else { Err(Failure::said("the credential was minted, and could not be revoked")) }
}
