//! `countersign channel`: tries the real thing.

use super::{Code, Failure, print};
use crate::adapters::channel::slack::Checked;
use crate::app::App;
use crate::app::config::Config;

/// Try a channel
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Try everything that asking there needs: tokens, scopes, accounts, groups, the way back
    #[command(after_help = "Example: countersign channel test slack --post-to anna")]
    Test {
        /// The channel's name in the configuration
        name: String,
        /// An approver to post a message to, with nothing to decide
        #[arg(long, value_name = "NAME")]
        post_to: Option<String>,
    },
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let Verb::Test { name, post_to } = arguments.verb;
    if name == "inbox" {
        print("the inbox is part of the gateway: countersign approvals login NAME prints a link to it");
        return Ok(());
    }
    if !config.channels.contains_key(&name) {
        let known = config.channels.keys().map(String::as_str).chain(["inbox"]).collect::<Vec<_>>().join(", ");
        return Err(Failure::said(format!("there is no `[channel.{name}]`")).hint(format!("channels: {known}")).code(Code::Invalid));
    }
    if let Some(unknown) = post_to.as_ref().filter(|to| !config.approvers.contains(to)) {
        return Err(Failure::said(format!("`{unknown}` is not an approver")).hint(format!("approvers: {}", config.approvers.join(", "))));
    }
    let address = config.address();
    let mut app = App::build(config, address).await?;
    app.complete()?;
    let wrong = match &app.slack {
        Some(slack) => report(&slack.examine(app.gateway.clone(), post_to.as_deref()).await),
        None => 0,
    };
    app.end().await;
    if wrong > 0 { Err(Failure::said(format!("{wrong} things are not right")).hint("docs/slack.md has every step of the set-up")) } else { Ok(()) }
}

/// Prints what was tried; answers how much of it is wrong.
pub(super) fn report(all: &[Checked]) -> usize {
    for checked in all {
        match &checked.came {
            Ok(seen) => print(&format!("ok     {}: {seen}", checked.what)),
            Err(why) => print(&format!("WRONG  {}: {why}", checked.what)),
        }
    }
    all.iter().filter(|checked| checked.came.is_err()).count()
}
