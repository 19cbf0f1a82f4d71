//! `countersign upstream`: the gateway's own sign-in at servers over HTTP that ask for one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use clap::Subcommand;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Failure, print};
use crate::app::App;
use crate::app::config::{Config, UpstreamFile};
use crate::app::sign_in::{Account, Ended};
use crate::domain::text::visible;

/// Sign the gateway in at servers that ask for it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sign in with a browser; the tokens are kept sealed, and renewed
    #[command(after_help = "Examples:
  countersign upstream login github
  countersign upstream login mcp.example.com --url https://mcp.example.com/mcp     for `wrap --url`")]
    Login {
        /// The `[upstream.NAME]`, or the name that `wrap` gives the server
        name: String,
        /// The address, where the upstream is not in the configuration
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Show where the gateway is signed in
    List,
    /// Forget the tokens of an upstream
    Logout {
        /// The upstream's name
        name: String,
    },
}

pub(super) async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let upstreams = config.upstreams.clone();
    let address = config.address();
    let mut app = App::build(config, address).await?;
    app.complete()?;
    let done = match arguments.verb {
        Verb::Login { name, url } => {
            let file = match url {
                Some(url) => UpstreamFile { url: Some(url), ..UpstreamFile::default() },
                None => app.upstream(&name)?,
            };
            login(&app, &name, &file).await
        }
        Verb::List => list(&app, upstreams).await,
        Verb::Logout { name } => match app.account(&name, &upstreams.get(&name).cloned().unwrap_or_default()).sign_out().await {
            Ok(Some(ended)) => {
                let there = match ended {
                    Ended::Revoked => "its tokens are revoked there, and forgotten here".to_owned(),
                    Ended::ByTime => "its tokens are forgotten here; the server revokes none, and they are good until their time is over".to_owned(),
                    Ended::Unclear(why) => {
                        format!("its tokens are forgotten here, and could not be revoked ({}): end them there as well", visible(&why))
                    }
                };
                print(&format!("signed out of {name}: {there}"));
                Ok(())
            }
            Ok(None) => Err(Failure::said(format!("the gateway is not signed in at {name}"))),
            Err(error) => Err(Failure::caused(error)),
        },
    };
    app.end().await;
    done
}

async fn list(app: &App, upstreams: impl IntoIterator<Item = (String, UpstreamFile)>) -> Result<(), Failure> {
    for (name, file) in upstreams {
        let Some(url) = &file.url else { continue };
        let standing = match (&file.bearer, app.account(&name, &file).standing().await.map_err(Failure::caused)?) {
            (Some(_), _) => "a fixed token (`bearer`)".to_owned(),
            (None, None) => "not signed in".to_owned(),
            (None, Some(standing)) => {
                let scopes = if standing.scopes.is_empty() { "no scope named".to_owned() } else { standing.scopes.join(" ") };
                let renews = if standing.renews { "renewed by itself" } else { "not renewed: sign in again when it ends" };
                format!("signed in at {} ({scopes}); {renews}", standing.issuer.as_deref().unwrap_or("its own authorization server"))
            }
        };
        print(&format!("{name}  {}  {standing}", crate::app::named_by(url)));
    }
    Ok(())
}

async fn login(app: &App, name: &str, file: &UpstreamFile) -> Result<(), Failure> {
    if file.url.is_none() {
        return Err(Failure::said(format!("`{name}` is a command: only servers over HTTP are signed in to")));
    }
    if file.bearer.is_some() {
        return Err(Failure::said(format!("`{name}` has a fixed token: take `bearer` out of its section first")));
    }
    let account: Arc<Account> = app.account(name, file);
    let wanted = file.oauth.as_ref().and_then(|oauth| oauth.redirect_port).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", wanted)).await?;
    let port = listener.local_addr()?.port();
    let begun = account.begin(port).await.map_err(Failure::caused)?;
    print(&format!("Open this address in a browser, and allow what it asks:\n\n  {}\n", begun.address()));
    print("The browser then comes back to this machine. If it runs on another, paste here the address that it was sent to.");
    let (returned, mut hear) = mpsc::channel(4);
    let router = axum::Router::new().route("/callback", axum::routing::get(came_back)).with_state((port, returned.clone()));
    let served = async {
        drop(axum::serve(listener, router).await);
        std::future::pending().await
    };
    let pasted = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if !line.trim().is_empty() {
                drop(returned.send(line.trim().to_owned()).await);
            }
        }
        std::future::pending().await
    };
    let finished = async {
        while let Some(address) = hear.recv().await {
            match begun.finish(&address).await {
                Ok(()) => return Ok(()),
                // Somebody else's link must not end the sign-in of the person who is still at it.
                Err(error) => print(&format!("not signed in: {}", Failure::caused(error).told())),
            }
        }
        Err(Failure::said("the sign-in was given up"))
    };
    tokio::select! {
        done = finished => done?,
        () = served => {}
        () = pasted => {}
        () = super::asked_to_end() => return Err(Failure::said("the sign-in was given up")),
    }
    print(&format!("signed in at {name}: what passes through to it goes with this sign-in, and tool calls without a credential of their own too"));
    // The page is on its way to the browser.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    Ok(())
}

async fn came_back(State((port, returned)): State<(u16, mpsc::Sender<String>)>, uri: Uri) -> Html<&'static str> {
    drop(returned.try_send(format!("http://127.0.0.1:{port}{uri}")));
    Html(
        "<!doctype html><meta charset=utf-8><title>Countersign</title><p style=\"font-family: system-ui; margin: 4rem\">You can close this window: the terminal says how it went.",
    )
}
