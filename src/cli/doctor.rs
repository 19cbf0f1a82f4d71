//! `countersign doctor`: everything that can be tried without asking anybody.

use std::path::Path;

use super::channel::report;
use super::{Failure, print};
use crate::adapters::channel::slack::Checked;
use crate::app::App;
use crate::app::config::Config;
use crate::domain::policy::by_server;

/// Check this installation
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign doctor --config /etc/countersign.toml")]
pub(super) struct Arguments {}

pub(super) async fn run(config: Config, _arguments: Arguments) -> Result<(), Failure> {
    let shown = config.path.as_deref().map_or_else(|| "built-in defaults".to_owned(), |path| path.display().to_string());
    let mut all = vec![checked("configuration", Ok(shown))];
    all.push(checked("approvers", Ok(config.approvers.join(", "))));
    let upstreams = config.upstreams.keys().cloned().collect::<Vec<_>>().join(", ");
    all.push(checked("upstreams", Ok(if upstreams.is_empty() { "none: good for `wrap` alone".to_owned() } else { upstreams })));
    let issuers = config.credentials.keys().cloned().collect::<Vec<_>>().join(", ");
    let hint = "none: servers use credentials of their own";
    all.push(checked("issuers", Ok(if issuers.is_empty() { hint.to_owned() } else { format!("{issuers} (try one: countersign issuer test NAME)") })));
    let (store, directory) = (config.store.clone(), config.policies.clone());
    let address = config.address();
    let mut app = App::build(config, address).await?;
    app.complete()?;
    all.push(checked("store", private(&store)));
    let policies = app.policies();
    let counts = by_server(&policies).iter().map(|(server, count)| format!("{server} {count}")).collect::<Vec<_>>().join(", ");
    let from = directory.map_or_else(|| "built-in".to_owned(), |d| d.display().to_string());
    all.push(checked("policies", Ok(format!("{from}: {}", if counts.is_empty() { "none, the default holds" } else { &counts }))));
    if let Some(slack) = &app.slack {
        let slack = slack.examine(app.gateway.clone(), None).await;
        all.extend(slack.into_iter().map(|c| Checked { what: format!("slack, {}", c.what), came: c.came }));
    } else {
        all.push(checked("channels", Ok("the inbox, and the terminal".into())));
    }
    let wrong = report(&all);
    app.end().await;
    if wrong > 0 {
        return Err(Failure::said(format!("{wrong} things are not right")));
    }
    print("all is well");
    Ok(())
}

fn checked(what: &str, came: Result<String, String>) -> Checked {
    Checked { what: what.to_owned(), came }
}

/// Whether others on the machine can read the store: it has what people approve, and the signing keys.
fn private(store: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(store).map_err(|error| error.to_string())?;
    let shown = store.display();
    match meta.permissions().mode() & 0o077 {
        0 => Ok(shown.to_string()),
        _ => Err(format!("{shown} can be read by others: chmod 600 {shown}")),
    }
}
