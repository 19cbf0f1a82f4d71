//! `countersign credentials`: what was minted, and what became of it.

use serde_json::json;

use super::{Failure, print};
use crate::adapters::store::{Lease, LeaseState};
use crate::app::App;
use crate::app::config::Config;
use crate::domain::clock::spoken;
use crate::domain::text::{shortened, visible};

/// See and end credentials
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List credentials that may still be usable
    #[command(after_help = "Example: countersign credentials list --all --json")]
    List {
        /// Those that ended as well
        #[arg(long)]
        all: bool,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Revoke a credential now, whether or not its call still runs
    #[command(after_help = "Example: countersign credentials revoke 3f9c2a")]
    Revoke {
        /// The lease's id, or the beginning of it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Every one that may still be usable
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let address = config.address();
    let mut app = App::build(config, address).await?;
    let done = match arguments.verb {
        Verb::List { all, json } => list(&app, all, json).await,
        Verb::Revoke { id, .. } => match app.complete() {
            Ok(()) => revoke(&app, id).await,
            Err(error) => Err(error.into()),
        },
    };
    app.end().await;
    done
}

async fn open(app: &App) -> Result<Vec<Lease>, Failure> {
    app.gateway.store.open_leases(None).await.map_err(|e| Failure::said(e.to_string()))
}

async fn list(app: &App, all: bool, json: bool) -> Result<(), Failure> {
    let leases = match all {
        true => app.gateway.store.leases(10_000).await.map_err(|e| Failure::said(e.to_string()))?,
        false => open(app).await?,
    };
    if leases.is_empty() && !json {
        print(if all { "no credential was ever minted" } else { "no credential is open" });
        return Ok(());
    }
    let now = app.gateway.clock.now();
    for lease in &leases {
        let revocable = app.gateway.issuers.get(&lease.issuer).map(|issuer| issuer.nature().ending);
        if json {
            let line = json!({
                "lease": lease.id, "issuer": lease.issuer, "state": lease.state.name(), "subject": lease.subject, "scope": lease.scope,
                "audience": lease.audience, "handle": lease.handle, "created_at": lease.created_at.to_string(),
                "expires_at": lease.expires_at.to_string(), "tries": lease.tries, "problem": lease.problem, "gateway": lease.instance,
                "revocable": revocable.map(|ending| ending == crate::adapters::credential::Ending::Revoked),
            });
            print(&line.to_string());
            continue;
        }
        let short: String = lease.id.chars().take(8).collect();
        let age = spoken(std::time::Duration::from_secs(now.since(lease.created_at).as_secs()));
        print(&format!("{short}  {:<8}  {}  for {}, {age} ago", lease.state.name(), lease.issuer, visible(&lease.audience)));
        print(&format!("          {}", shortened(&visible(&lease.scope), 200)));
        print(&format!("          {}", told(lease)));
    }
    Ok(())
}

/// What became of it, in a line.
fn told(lease: &Lease) -> String {
    let handle = lease.handle.as_ref().map(|handle| format!(", at the issuer: {}", visible(handle))).unwrap_or_default();
    match lease.state {
        LeaseState::Intended => format!("being minted; dead at {} at the latest{handle}", lease.expires_at),
        LeaseState::Minted => format!("its call runs; dead at {}{handle}", lease.expires_at),
        LeaseState::Revoking => {
            let why = lease.problem.as_deref().map(visible).unwrap_or_default();
            format!("NOT REVOKED after {} tries ({why}); again at {}; dead at {}{handle}", lease.tries, lease.next_try, lease.expires_at)
        }
        LeaseState::Lapsing => format!("its call is over; it cannot be revoked, and is dead at {}{handle}", lease.expires_at),
        LeaseState::Revoked => format!("revoked{handle}"),
        LeaseState::Expired => format!("dead since {}{handle}", lease.expires_at),
        LeaseState::Void => "never minted".into(),
        LeaseState::Kept => "a stored secret, which stays valid".into(),
    }
}

async fn revoke(app: &App, id: Option<String>) -> Result<(), Failure> {
    let open = open(app).await?;
    let named: Vec<&Lease> = match &id {
        None => open.iter().collect(),
        Some(id) => open.iter().filter(|lease| lease.id.starts_with(id.as_str())).collect(),
    };
    match (named.as_slice(), &id) {
        ([], Some(id)) => return Err(Failure::said(format!("no open credential begins with `{id}`")).hint("see: countersign credentials list --all")),
        ([], None) => {
            print("no credential is open");
            return Ok(());
        }
        ([_, _, ..], Some(id)) => return Err(Failure::said(format!("several begin with `{id}`: give more of it"))),
        _ => {}
    }
    let mut left = 0;
    for lease in named {
        let short: String = lease.id.chars().take(8).collect();
        match app.gateway.end_lease(lease).await {
            LeaseState::Revoked => print(&format!("{short}  revoked")),
            LeaseState::Kept => print(&format!("{short}  a stored secret: it stays valid until you replace it at {}", lease.issuer)),
            LeaseState::Lapsing => print(&format!("{short}  cannot be revoked; dead at {}", lease.expires_at)),
            _ => {
                left += 1;
                print(&format!("{short}  NOT revoked: the log above says why; a running gateway tries again"));
            }
        }
    }
    if left > 0 { Err(Failure::said(format!("{left} credentials are not revoked"))) } else { Ok(()) }
}
