//! `countersign demo`: the whole story on one machine, with real parts: the sample ledger and the gateway serve HTTP on
//! loopback, an MCP client plays the agent, and a person, or `--auto` through the same pages, decides.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regex::Regex;
use rmcp::ServiceExt;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{CallToolRequestParams, ProgressNotificationParam};
use rmcp::service::{NotificationContext, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Failure, asked_to_end, audit, print};
use crate::adapters::channel::ReviewDesk;
use crate::app::App;
use crate::app::config::Config;
use crate::domain::approval::Approval;
use crate::sample::{LedgerOptions, Trust, serve_http};
use crate::system::random_hex;

/// Play the whole story on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign demo --auto approve")]
pub(super) struct Arguments {
    /// Decide without a person, through the same pages that a person uses
    #[arg(long, value_name = "VERDICT")]
    auto: Option<Auto>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Auto {
    Approve,
    Deny,
}

const POLICIES: [(&str, &str); 9] = [
    ("server.toml", include_str!("../../tool-policies/ledger/server.toml")),
    ("close_account.toml", include_str!("../../tool-policies/ledger/close_account.toml")),
    ("export_payments.toml", include_str!("../../tool-policies/ledger/export_payments.toml")),
    ("get_account.toml", include_str!("../../tool-policies/ledger/get_account.toml")),
    ("list_accounts.toml", include_str!("../../tool-policies/ledger/list_accounts.toml")),
    ("list_payments.toml", include_str!("../../tool-policies/ledger/list_payments.toml")),
    ("refund_payment.toml", include_str!("../../tool-policies/ledger/refund_payment.toml")),
    ("run_sql.toml", include_str!("../../tool-policies/ledger/run_sql.toml")),
    ("transfer.toml", include_str!("../../tool-policies/ledger/transfer.toml")),
];
const IBAN: &str = "DE02120300000000202051";

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let directory = std::env::temp_dir().join(format!("countersign-demo-{}", random_hex::<4>().map_err(|e| Failure::said(e.to_string()))?));
    let played = tokio::select! {
        played = play(&directory, arguments.auto) => played,
        () = asked_to_end() => Err(Failure::said("stopped before the end")),
    };
    drop(std::fs::remove_dir_all(&directory));
    played
}

/// One step told to whoever watches.
fn tell(mark: &str, text: &str) {
    let colour = match mark {
        _ if !std::io::stdout().is_terminal() => "",
        "ok" => "\u{1b}[32m",
        "!!" => "\u{1b}[31m",
        "??" => "\u{1b}[33m",
        _ => "\u{1b}[2m",
    };
    let end = if colour.is_empty() { "" } else { "\u{1b}[0m" };
    print(&format!("{colour}{mark:>4}{end}  {text}"));
}

fn check(holds: bool, text: &str) -> Result<(), Failure> {
    if holds {
        tell("ok", text);
        return Ok(());
    }
    tell("!!", text);
    Err(Failure::said(format!("the demo did not come out as told: {text}")))
}

/// What the demo runs on.
struct Stage {
    app: App,
    address: String,
    ledger_url: String,
    database: PathBuf,
    /// The last credential that the ledger saw, as a thief in its memory would find it.
    leak: Arc<Mutex<Option<String>>>,
    introspection: String,
    agent: RunningService<RoleClient, Agent>,
    stop: CancellationToken,
}

async fn play(directory: &Path, auto: Option<Auto>) -> Result<(), Failure> {
    let stage = set(directory).await?;
    let done = story(&stage, auto).await;
    let Stage { app, agent, stop, .. } = stage;
    drop(agent.cancel().await);
    stop.cancel();
    app.end().await;
    done?;
    print("");
    print("That was Countersign. Wrap a server of your own:");
    print("  countersign wrap -- npx -y @modelcontextprotocol/server-filesystem DIRECTORY");
    Ok(())
}

/// Starts the ledger, the gateway and the agent.
async fn set(directory: &Path) -> Result<Stage, Failure> {
    let said = |e: &dyn std::fmt::Display| Failure::said(e.to_string());
    let policies = directory.join("tool-policies/ledger");
    std::fs::create_dir_all(&policies)?;
    for (name, text) in POLICIES {
        std::fs::write(policies.join(name), text)?;
    }
    let introspection = random_hex::<32>().map_err(|e| said(&e))?;
    std::fs::write(directory.join("introspection.secret"), &introspection)?;
    let ledger = TcpListener::bind("127.0.0.1:0").await?;
    let ledger_url = format!("http://{}/mcp", ledger.local_addr()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let text = format!(
        "[listen]\naddress = \"{}\"\n\n[hold]\nbudget-with-progress = \"15m\"\n\n[upstream.ledger]\nurl = \"{ledger_url}\"\n\
         introspection = {{ file = \"{}\" }}\n\n[approver.anna]\n[approver.bert]\n\n[caller.local]\nowner = \"bert\"\n\n\
         [credential.built-in]\nkind = \"signed-jwt\"\n",
        listener.local_addr()?,
        directory.join("introspection.secret").display()
    );
    let file = directory.join("countersign.toml");
    std::fs::write(&file, text)?;
    let mut app = App::build(Config::read(&file)?, address.clone()).await?;
    app.join().await?;
    let stop = CancellationToken::new();
    let leak = Arc::new(Mutex::new(None));
    let database = directory.join("ledger.db");
    let options = LedgerOptions {
        database: database.clone(),
        trust: Some(Trust { issuer: address.clone(), audience: ledger_url.clone(), introspection: introspection.clone() }),
        credential: None,
        leak: Some(leak.clone()),
    };
    let serving = stop.clone();
    app.tasks.spawn(async move {
        if let Err(error) = serve_http(options, ledger, serving).await {
            tracing::error!(%error, "the sample ledger ended");
        }
    });
    let front = app.door(listener)?;
    app.tasks.spawn(front);
    let transport = StreamableHttpClientTransport::from_uri(format!("{address}/mcp/ledger"));
    let agent = Agent.serve(transport).await.map_err(|e| said(&e))?;
    Ok(Stage { app, address, ledger_url, database, leak, introspection, agent, stop })
}

/// The agent: prints what it is told while it waits.
#[derive(Clone)]
struct Agent;

impl ClientHandler for Agent {
    async fn on_progress(&self, progress: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        if let Some(message) = progress.message {
            tell("…", &format!("the agent is told: {message}"));
        }
    }
}

impl Stage {
    /// Calls a tool as the agent; answers the text and whether it was an error.
    async fn call(&self, tool: &'static str, arguments: Value) -> Result<(String, bool), Failure> {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments.as_object().cloned().unwrap_or_default());
        let result = self.agent.call_tool(params).await.map_err(|e| Failure::said(e.to_string()))?;
        let text = result.content.first().and_then(|block| block.as_text()).map(|text| text.text.clone()).unwrap_or_default();
        Ok((text, result.is_error == Some(true)))
    }

    /// What the ledger itself says that it received for `tool`, and what came of it.
    async fn received(&self, tool: &str) -> Result<Vec<(String, String)>, Failure> {
        let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&self.database).read_only(true)).await;
        let pool = pool.map_err(|e| Failure::said(e.to_string()))?;
        let rows = sqlx::query_as("SELECT arguments, outcome FROM received WHERE tool = ?").bind(tool).fetch_all(&pool).await;
        pool.close().await;
        rows.map_err(|e| Failure::said(e.to_string()))
    }

    async fn count(&self, kind: &str) -> Result<usize, Failure> {
        let records = self.app.gateway.store.records(0, 10_000).await.map_err(|e| Failure::said(e.to_string()))?;
        Ok(records.iter().filter(|record| record.entry.kind.name() == kind).count())
    }
}

async fn story(stage: &Stage, auto: Option<Auto>) -> Result<(), Failure> {
    tell("", &format!("a ledger of accounts and payments, an MCP server, at {}", stage.ledger_url));
    tell("", &format!("Countersign in front of it at {}/mcp/ledger; the agent talks only to that", stage.address));
    let tools = stage.agent.list_all_tools().await.map_err(|e| Failure::said(e.to_string()))?;
    check(tools.len() == 8, &format!("the agent sees all {} tools of the ledger", tools.len()))?;

    print("\n1. A call that policy allows");
    let (text, failed) = stage.call("list_accounts", json!({})).await?;
    check(!failed && text.contains("acc-1"), "list_accounts ran at once, and nobody was asked")?;

    print("\n2. A call that a person must approve");
    tell("", "the agent wants: refund 80.00 EUR of pay-1 to an IBAN that was never paid before");
    let refund = json!({"payment_id": "pay-1", "amount": 80.00, "currency": "EUR", "iban": IBAN, "comment": "damaged delivery"});
    let call = stage.call("refund_payment", refund.clone());
    let person = decide(stage, auto);
    let (answer, decided) = tokio::join!(call, person);
    let (text, failed) = answer?;
    let approval = decided?;
    let reviewer = approval.reviews().first().map(|r| format!("{} ({})", r.approver, r.channel)).unwrap_or_default();
    let approved = approval.state() != "denied";
    check(auto.is_none_or(|auto| approved == (auto == Auto::Approve)), &format!("{reviewer} said {}", if approved { "approve" } else { "deny" }))?;
    if approved {
        approved_refund(stage, &text, failed).await?;
    } else {
        check(failed && text.contains("NOT executed"), "the agent was told that it was not executed, and by whom it was denied")?;
        check(stage.received("refund_payment").await?.is_empty(), "the ledger itself says: it never received the refund")?;
        check(stage.count("minted").await? == 0 && stage.count("mint-intended").await? == 0, "no credential was minted")?;
        let (text, failed) = stage.call("refund_payment", refund).await?;
        check(failed && text.contains("denied"), "the same call again is refused without asking again")?;
    }

    print("\n3. A call that policy refuses");
    let (text, failed) = stage.call("run_sql", json!({"query": "DROP TABLE payments"})).await?;
    check(failed && text.contains("NOT executed"), "run_sql DROP TABLE was refused, and nobody was bothered")?;
    check(stage.received("run_sql").await?.is_empty(), "the ledger itself says: it never received it")?;

    print("\n4. The record");
    stage.app.gateway.store.flush().await;
    audit::verify(&stage.app).await?;
    tell("ok", "no record was changed, dropped or moved");
    for record in stage.app.gateway.store.records_of(&approval.request().id).await.map_err(|e| Failure::said(e.to_string()))? {
        print(&audit::told(&record));
    }
    Ok(())
}

async fn approved_refund(stage: &Stage, text: &str, failed: bool) -> Result<(), Failure> {
    check(!failed && text.contains("80.00"), "the refund ran, and the agent has the answer")?;
    let received = stage.received("refund_payment").await?;
    check(received.len() == 1, "the ledger itself says: it received the refund once")?;
    let token = stage.leak.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    check(!token.is_empty(), "it came with a credential minted for exactly this refund")?;
    let client = reqwest::Client::new();
    let asked = client.post(format!("{}/introspect", stage.address)).bearer_auth(&stage.introspection).form(&[("token", &token)]).send().await;
    let asked: Value = match asked {
        Ok(response) => response.json().await.unwrap_or_default(),
        Err(error) => return Err(Failure::said(error.to_string())),
    };
    check(asked == json!({"active": false}), "that credential is revoked: introspection says inactive")?;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}},
        "name": "refund_payment", "arguments": {"payment_id": "pay-1", "amount": 80.00, "currency": "EUR", "iban": IBAN, "comment": "damaged delivery"},
    }});
    let stolen = client
        .post(&stage.ledger_url)
        .bearer_auth(&token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "refund_payment")
        .json(&body)
        .send()
        .await;
    let stolen = match stolen {
        Ok(response) => response.text().await.unwrap_or_default(),
        Err(error) => return Err(Failure::said(error.to_string())),
    };
    check(stolen.contains("revoked"), "a thief who takes it to the ledger directly is refused")?;
    let (text, failed) = stage.call("refund_payment", json!({"payment_id": "pay-1", "amount": 20.00, "currency": "EUR", "iban": IBAN})).await?;
    check(!failed && text.contains("20.00"), "20.00 EUR more to the same IBAN runs at once: small, and approved before")
}

/// Waits until somebody decided; with `--auto` decides as anna, through the pages.
async fn decide(stage: &Stage, auto: Option<Auto>) -> Result<Approval, Failure> {
    let desk = stage.app.gateway.as_ref();
    let mut changes = desk.changes();
    let mut asked = false;
    loop {
        let (open, settled) = desk.approvals().await?;
        let decided = open.iter().chain(&settled).find(|a| a.state() != "pending" && a.request().tool == "refund_payment");
        if let Some(approval) = decided {
            return Ok(approval.clone());
        }
        if let Some(approval) = open.first().filter(|_| !asked) {
            asked = true;
            let login = desk.new_login("anna").await?;
            let request = approval.request();
            tell("??", &format!("held: score {}, {}", request.assessment.score, request.title));
            match auto {
                Some(auto) => click(&stage.address, &login, &request.id, auto).await?,
                None => {
                    tell("??", "you are anna. Open this link, sign in, look at the call, and decide:");
                    print(&format!("\n      {}/inbox/login?token={login}\n", stage.address));
                }
            }
        }
        drop(tokio::time::timeout(Duration::from_secs(1), changes.recv()).await);
    }
}

/// Signs in, reads the page and presses its button, as a browser would.
async fn click(address: &str, login: &str, id: &str, auto: Auto) -> Result<(), Failure> {
    let failed = |e: reqwest::Error| Failure::said(e.to_string());
    let browser = reqwest::Client::builder().cookie_store(true).build().map_err(failed)?;
    browser.post(format!("{address}/inbox/login")).form(&[("token", login)]).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
    let page = format!("{address}/inbox/{id}");
    let text = browser.get(&page).send().await.map_err(failed)?.text().await.map_err(failed)?;
    let field = |name: &str| {
        let pattern = Regex::new(&format!("name=\"{name}\" value=\"([^\"]+)\"")).ok()?;
        Some(pattern.captures_iter(&text).last()?.get(1)?.as_str().to_owned())
    };
    let (csrf, digest) = field("csrf").zip(field("digest")).ok_or_else(|| Failure::said("the inbox shows no form for this call"))?;
    let (verdict, reason) = match auto {
        Auto::Approve => ("approve", "seen the damage report"),
        Auto::Deny => ("deny", "no damage report"),
    };
    let form = [("csrf", csrf.as_str()), ("digest", &digest), ("verdict", verdict), ("reason", reason)];
    browser.post(&page).form(&form).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
    Ok(())
}
