//! Slack: the named approver decides, on a card that cannot lie, and nobody else does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients::python;
use crate::support::fake_slack::{APP, APP_TOKEN, Ack, BOT_TOKEN, FakeSlack, Fault, Held, Posted, SECRET, Way, dm, shown, sign, tls};
use crate::support::mcp::{Client, Reply};
use crate::support::{IBAN, Settings, World, refund, runs};

const PEOPLE: &str =
    "[approver.anna]\nslack = \"T0TEAM/U0ANNA\"\n[approver.bert]\nslack = \"T0TEAM/U0BERT\"\n[approver.olga]\nslack = \"T0TEAM/U0OLGA\"\n";

/// `[channel.slack]` for a fake; `more` has its further lines.
fn channel(slack: &FakeSlack, more: &str) -> String {
    format!(
        "[channel.slack]\nkind = \"slack\"\napp-id = \"{APP}\"\nbot-token = {{ command = [\"printf\", \"{BOT_TOKEN}\"] }}\napi = \"{}\"\n{more}\n",
        slack.api
    )
}

fn sockets() -> String {
    format!("app-token = {{ command = [\"printf\", \"{APP_TOKEN}\"] }}\n")
}

/// A gateway whose approvers are in a fake Slack.
struct Office {
    slack: FakeSlack,
    world: World,
    _held: Held,
}

impl Office {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let (slack, held) = FakeSlack::start().await;
        Self::around(slack, held, &sockets(), change).await
    }

    async fn around(slack: FakeSlack, held: Held, way: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { approvers: PEOPLE.into(), more: channel(&slack, way), ..Settings::default() };
        change(&mut settings);
        let world = World::with(settings).await;
        if way.contains("app-token") {
            slack.connected(2).await;
        }
        Self { slack, world, _held: held }
    }

    /// Starts a call in the background.
    fn call(&self, tool: &'static str, arguments: Value) -> tokio::task::JoinHandle<Reply> {
        let client = Client::new(&self.world.mcp());
        tokio::spawn(async move { client.call(tool, arguments).await })
    }

    fn refund(&self, cents: u32) -> tokio::task::JoinHandle<Reply> {
        self.call("refund_payment", refund(cents))
    }

    /// To somebody else each time: a recipient that was paid before is not asked about.
    fn refund_anew(&self, cents: u32) -> tokio::task::JoinHandle<Reply> {
        let mut arguments = refund(cents);
        arguments["iban"] = json!(format!("DE{cents}"));
        self.call("refund_payment", arguments)
    }

    /// Nothing of what was posted breaks a rule of ours or of somebody else's.
    async fn check(&self) {
        self.world.check().await;
        let payloads = self.slack.payloads();
        for payload in payloads.iter().filter(|payload| payload["type"] == "message") {
            assert!(payload["blocks"].to_string().len() <= 12_000, "too long: {}", payload["blocks"].to_string().len());
            no_mrkdwn(payload);
        }
        if let Ok(keep) = std::env::var("COUNTERSIGN_TEST_KEEP") {
            // For the pictures in the documentation.
            let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
            std::fs::write(std::path::Path::new(&keep).join(format!("{name}.json")), serde_json::to_string(&payloads).unwrap()).unwrap();
        }
        let Some(mut command) = python("slack_blocks.py") else { return };
        let file = self.world.scratch.write("payloads.json", &serde_json::to_string(&payloads).unwrap());
        let output = tokio::task::spawn_blocking(move || command.arg(file).output()).await.unwrap().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("all are valid"), "{text}");
    }
}

/// There is no text that Slack would read as anything but text.
fn no_mrkdwn(value: &Value) {
    match value {
        Value::Object(map) => {
            assert_ne!(value["type"], "mrkdwn", "{value}");
            assert_ne!(value["emoji"], true, "{value}");
            map.values().for_each(no_mrkdwn);
        }
        Value::Array(items) => items.iter().for_each(no_mrkdwn),
        _ => {}
    }
}

async fn approve_and_see(office: &Office) {
    let call = office.refund(8000);
    let card = office.slack.card("U0ANNA").await;
    assert_eq!(card.buttons(), ["review", "approve", "deny"]);
    let text = card.shown();
    for part in [
        "Approval needed: ledger/refund_payment",
        "Refund 80 EUR for pay-1",
        IBAN,
        "Risk: ",
        "Asked by: local, answered for by olga",
        "Target: ledger",
        "customer money",
        "sample",
        "Credential: refund:pay-1 for this call alone",
        "0 of 1 have approved; asked: anna, bert",
        "Decide by",
        "first seen",
        "Approval ",
        "call ",
    ] {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    assert_eq!(office.world.received_of("refund_payment").await, 0);
    let ack = office.slack.click("U0ANNA", &card, "approve").await;
    assert!(ack.took < Duration::from_millis(500), "{:?}", ack.took);
    let reply = call.await.unwrap();
    assert!(reply.said().contains("80.00 EUR"), "{}", reply.text);
    // Every copy says who, and what came of it, and has no buttons.
    for user in ["U0ANNA", "U0BERT"] {
        let copy = office.slack.wait_for("is over", |m| m.channel == dm(user) && m.thread.is_none() && m.shown().contains("Completed")).await;
        assert!(
            copy.buttons().is_empty() && copy.shown().contains("<@U0ANNA>") && copy.shown().contains("Slack session of T0TEAM/U0ANNA"),
            "{}",
            copy.shown()
        );
        let told = office.slack.wait_for("tells", |m| m.channel == dm(user) && m.thread.as_ref() == Some(&copy.ts)).await;
        assert!(told.shown().contains("it ran") && told.shown().contains("credential is revoked"), "{}", told.shown());
    }
    // A late click changes nothing and is answered.
    office.slack.click("U0BERT", &card, "approve").await;
    office.slack.told("U0BERT", "no longer waiting").await;
    assert_eq!(office.world.done_of("refund_payment").await, 1);
    office.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approver_decides_on_the_card_and_every_copy_tells() {
    let office = Office::new().await;
    approve_and_see(&office).await;
    let (code, text) = office.world.run(&["channel", "test", "slack", "--post-to", "anna"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Socket Mode") && text.contains("approver bert: a full member") && text.contains("posted: look for it"), "{text}");
    let (code, text) = office.world.run(&["doctor"]);
    assert_eq!(code, 0, "{text}");
    let (_, listed) = office.world.run(&["approvals", "list", "--all", "--json"]);
    let listed: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let (_, story) = office.world.run(&["audit", "show", listed["id"].as_str().unwrap()]);
    for part in ["anna was asked in slack", "anna said approve (slack, Slack session of T0TEAM/U0ANNA)", "bert said approve, which did not count"] {
        assert!(story.contains(part), "`{part}` in {story}");
    }
    let figures = reqwest::get(format!("{}/metrics", office.world.address)).await.unwrap().text().await.unwrap();
    for part in [
        "countersign_reviews_total{approver=\"anna\",verdict=\"approve\",channel=\"slack\"} 1",
        "countersign_decision_seconds_count{approver=\"anna\"} 1",
        "countersign_slack_sockets 2",
    ] {
        assert!(figures.contains(part), "`{part}` in {figures}");
    }
}

#[tokio::test]
async fn over_tls_with_a_private_authority() {
    let authority = tls::Authority::new();
    let (slack, held) = FakeSlack::start_tls(&authority).await;
    let file = std::env::temp_dir().join(format!("countersign-authority-{}.pem", std::process::id()));
    authority.write(&file);
    let office = Office::around(slack, held, &sockets(), |settings| settings.env = vec![("SSL_CERT_FILE", file.display().to_string())]).await;
    approve_and_see(&office).await;
    drop(std::fs::remove_file(file));
}

#[tokio::test]
async fn over_signed_http() {
    let (slack, held) = FakeSlack::start().await;
    let way = format!("signing-secret = {{ command = [\"printf\", \"{SECRET}\"] }}\n");
    let office = Office::around(slack, held, &way, |_| {}).await;
    *office.slack.way.lock().unwrap() = Way::Signed(format!("{}/slack/interactions", office.world.address));
    approve_and_see(&office).await;
}

/// Over signed HTTP as well, a click that was kept is judged after a crash; a little later, for another gateway could be
/// looking at it.
#[tokio::test]
async fn a_signed_click_of_before_a_crash_is_judged_after_it() {
    let (slack, held) = FakeSlack::start().await;
    let way = format!("signing-secret = {{ command = [\"printf\", \"{SECRET}\"] }}\n");
    let mut office = Office::around(slack, held, &way, |s| s.hold = "budget = \"1s\"".into()).await;
    *office.slack.way.lock().unwrap() = Way::Signed(format!("{}/slack/interactions", office.world.address));
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    office.slack.fail("users.info", &[Fault::Late(Duration::from_secs(5))]);
    office.slack.click("U0ANNA", &card, "approve").await;
    office.world.kill();
    office.world.start();
    assert!(!office.world.kinds().await.iter().any(|kind| kind == "reviewed"));
    let until = Instant::now() + Duration::from_secs(40);
    while !office.world.kinds().await.iter().any(|kind| kind == "reviewed") {
        assert!(Instant::now() < until, "{}", office.world.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(office.refund(8000).await.unwrap().said().contains("80.00 EUR"));
    office.check().await;
}

/// A9, A10: forged, old, future and repeated requests.
#[tokio::test]
async fn a_request_that_slack_did_not_sign_just_now_is_refused() {
    let (slack, held) = FakeSlack::start().await;
    let way = format!("signing-secret = {{ command = [\"printf\", \"{SECRET}\"] }}\n");
    let office = Office::around(slack, held, &way, |s| s.hold = "budget = \"1s\"".into()).await;
    let url = format!("{}/slack/interactions", office.world.address);
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    let payload = office.slack.click_payload("U0ANNA", &card, "approve");
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    for (secret, at, status) in [("", now, 401), ("another", now, 401), (SECRET, now - 301, 401), (SECRET, now + 330, 401), (SECRET, 0, 401)] {
        assert_eq!(office.slack.signed(&url, &payload, secret, at).await.0, status, "{secret} {at}");
    }
    let body = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
    let right = sign(SECRET, now, &body);
    let stamp = now.to_string();
    for (body, signature, at) in [
        (body.replace("U0ANNA", "U0BERT"), right.clone(), stamp.clone()),
        (body.clone(), right.to_uppercase(), stamp.clone()),
        (body.clone(), right.replace("v0=", ""), stamp.clone()),
        (body.clone(), right.clone(), (now + 1).to_string()),
        (body.clone(), String::new(), stamp.clone()),
        (format!("{body}&x=1"), right.clone(), stamp.clone()),
    ] {
        assert_eq!(office.slack.signed_raw(&url, body, &signature, &at).await.0, 401, "{signature} {at}");
    }
    let unsigned = reqwest::Client::new().post(&url).form(&[("payload", payload.to_string())]).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    let huge =
        reqwest::Client::new().post(&url).header("x-slack-signature", &right).header("x-slack-request-timestamp", &stamp).body(vec![b'a'; 2 << 20]);
    assert!(huge.send().await.map_or(413, |r| r.status().as_u16()) == 413);
    assert_eq!(office.world.waiting().len(), 1, "nothing counted");
    // The right one counts once, and its repetition, also after a restart, is only confirmed.
    assert_eq!(office.slack.signed_raw(&url, body.clone(), &right, &stamp).await.0, 200);
    office.world.recorded("reviewed").await;
    let mut office = office;
    office.world.kill();
    office.world.start();
    assert_eq!(office.slack.signed_raw(&url, body, &right, &stamp).await.0, 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let kinds = office.world.kinds().await;
    assert_eq!(kinds.iter().filter(|k| k.starts_with("review")).count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn a_denial_says_why_and_reaches_the_agent() {
    let office = Office::new().await;
    let call = office.refund(8000);
    let card = office.slack.card("U0ANNA").await;
    let (view, drawn) = office.slack.click_for_view("U0ANNA", &card, "deny").await;
    assert_eq!(drawn["callback_id"], "deny");
    let ack = office.slack.submit("U0ANNA", &view, &[("reason", "  ")]).await;
    assert_eq!(ack.payload.unwrap()["response_action"], "errors");
    let ack = office.slack.submit("U0ANNA", &view, &[("reason", "wrong *account* <!channel>")]).await;
    assert_eq!(ack.payload.unwrap()["response_action"], "update");
    office.slack.view_becomes(&view, "It does not run").await;
    let reply = call.await.unwrap();
    assert!(reply.is_error() && reply.said().contains("anna denied it") && reply.said().contains("wrong *account*"), "{}", reply.text);
    let over = office.slack.card_becomes(&card, "Denied").await;
    assert!(over.buttons().is_empty() && over.shown().contains("wrong *account* <!channel>"));
    assert_eq!(office.world.received_of("refund_payment").await, 0);
    assert!(!office.world.kinds().await.iter().any(|kind| kind.starts_with("mint")));
    // It is not asked again at once.
    assert_eq!(office.refund(8000).await.unwrap().state(), "denied");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(office.slack.messages().iter().filter(|m| m.thread.is_none() && m.only.is_none()).count(), 2, "one card each");
    office.check().await;
}

/// Two must approve, the target is typed, one person counts once, progress shows.
#[tokio::test]
async fn a_critical_call_takes_two_people_and_the_typed_target() {
    let office = Office::new().await;
    let call = office.refund(250_000);
    let card = office.slack.card("U0ANNA").await;
    assert_eq!(card.buttons(), ["review", "deny"], "a critical call is decided in the modal");
    // A forged press of a button that is not there opens the modal, and decides nothing.
    let (_, drawn) = office.slack.click_for_view("U0ANNA", &card, "approve").await;
    assert_eq!(drawn["submit"]["text"], "Approve");
    let (view, drawn) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    let mut text = String::new();
    shown(&drawn["blocks"], &mut text);
    assert!(text.contains(&format!("Type this to approve: {IBAN}")) && text.contains("amount over limit"), "{text}");
    for wrong in [vec![], vec![("target", "yes")], vec![("target", "DE02 1203")]] {
        let ack = office.slack.submit("U0ANNA", &view, &wrong).await;
        assert_eq!(ack.payload.unwrap()["response_action"], "errors");
    }
    assert_eq!(office.world.waiting()[0]["state"], "pending");
    office.slack.submit("U0ANNA", &view, &[("target", "de02 1203 0000 0000 2020 51"), ("reason", "checked")]).await;
    office.slack.view_becomes(&view, "1 of 2 have approved").await;
    let half = office.slack.card_becomes(&card, "1 of 2 have approved").await;
    assert!(half.shown().contains("anna approved"));
    assert_eq!(office.slack.now(&half).buttons(), ["review"], "she has decided");
    // The same person again does not count, also by a form from before.
    let (_, again) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    assert!(again["submit"].is_null() && again.to_string().contains("You have decided"));
    office.slack.put_back(&view, &drawn);
    office.slack.submit("U0ANNA", &view, &[("target", IBAN)]).await;
    office.slack.view_becomes(&view, "already decided").await;
    assert_eq!(office.world.received_of("refund_payment").await, 0);
    let other = office.slack.card("U0BERT").await;
    let (view, _) = office.slack.click_for_view("U0BERT", &other, "review").await;
    office.slack.submit("U0BERT", &view, &[("target", IBAN)]).await;
    let reply = call.await.unwrap();
    // It ran: the ledger itself refuses to refund more than was paid.
    assert!(reply.said().contains("was only 120.00"), "{}", reply.text);
    assert_eq!(office.world.received_of("refund_payment").await, 1);
    office.slack.card_becomes(&card, "Completed").await;
    office.check().await;
}

/// A11, A12, B14: whoever is not asked does not decide, whatever Slack says of them.
#[tokio::test]
async fn nobody_else_decides() {
    let office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    for user in ["U0STRANGER", "U0CLEO"] {
        office.slack.click(user, &card, "approve").await;
        office.slack.told(user, "not an approver").await;
        office.slack.click(user, &card, "deny").await;
    }
    // The owner of the caller.
    office.slack.click("U0OLGA", &card, "approve").await;
    office.slack.told("U0OLGA", "answers for this caller").await;
    let right = office.slack.click_payload("U0ANNA", &card, "approve");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut payload = right.clone();
        change(&mut payload);
        payload
    };
    for wrong in [
        // The same user id in another workspace.
        with(&|p| p["user"]["team_id"] = json!("T0OTHER")),
        with(&|p| {
            p["user"].as_object_mut().unwrap().remove("team_id");
            p["team"] = json!({"id": "T0OTHER"});
        }),
        // Another app's click, nobody's click, a button that was never posted, text in place of a click.
        with(&|p| p["api_app_id"] = json!("A0OTHER")),
        with(&|p| drop(p.as_object_mut().unwrap().remove("api_app_id"))),
        with(&|p| p["user"] = Value::Null),
        with(&|p| {
            p["user"].as_object_mut().unwrap().remove("team_id");
            p["team"] = Value::Null;
        }),
        with(&|p| p["actions"][0]["value"] = json!("0123456789abcdef0123456789abcdef")),
        with(&|p| p["actions"] = json!([])),
        with(&|p| p["type"] = json!("message_action")),
        json!({"type": "block_actions"}),
        json!({}),
        json!([1, 2]),
        json!("approve"),
    ] {
        office.slack.deliver(wrong).await;
    }
    for (more, why) in [
        (json!({"deleted": true}), "deactivated"),
        (json!({"is_restricted": true}), "guest"),
        (json!({"is_ultra_restricted": true}), "guest"),
        (json!({"is_bot": true}), "bot"),
        (json!({"is_stranger": true}), "another organisation"),
        (json!({"team_id": "T0OTHER"}), "another workspace"),
    ] {
        let office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
        drop(office.refund(8000).await);
        let card = office.slack.card("U0ANNA").await;
        let mut click = office.slack.click_payload("U0ANNA", &card, "approve");
        click["user"]["team_id"] = json!("T0TEAM");
        office.slack.user("U0ANNA", "anna", more);
        office.slack.deliver(click).await;
        office.slack.told("U0ANNA", why).await;
        assert_eq!(office.world.waiting().len(), 1);
        assert_eq!(office.world.received_of("refund_payment").await, 0);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(office.world.waiting().len(), 1, "still nobody decided");
    let kinds = office.world.kinds().await;
    assert!(!kinds.iter().any(|k| k == "reviewed") && kinds.iter().filter(|k| *k == "review-refused").count() >= 10, "{kinds:?}");
    // An organisation-wide installation names no team: the person's own counts.
    office.slack.deliver(with(&|p| p["team"] = Value::Null)).await;
    office.world.recorded("reviewed").await;
    office.check().await;
}

/// Everything is looked at again at redemption.
#[tokio::test]
async fn who_approved_and_left_did_not_approve() {
    let office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    office.slack.fail("users.info", &[Fault::Status(503)]);
    office.slack.click("U0ANNA", &card, "approve").await;
    office.slack.told("U0ANNA", "could not be checked").await;
    office.slack.click("U0ANNA", &card, "approve").await;
    office.slack.card_becomes(&card, "Approved").await;
    // Accounts are believed for a minute at most: another process knows nothing yet.
    let mut office = office;
    office.world.kill();
    office.slack.user("U0ANNA", "anna", json!({"deleted": true}));
    office.slack.fail("users.info", &[Fault::Status(503)]);
    office.world.start();
    let reply = office.refund(8000).await.unwrap();
    assert!(reply.is_error() && reply.said().contains("could not be checked"), "{}", reply.text);
    let reply = office.refund(8000).await.unwrap();
    assert!(reply.is_error(), "{}", reply.text);
    office.slack.card_becomes(&card, "no longer an approver").await;
    assert_eq!(office.world.received_of("refund_payment").await, 0);
    office.check().await;
}

/// F4, F7: twice, reordered, late acknowledgement; A6 of faults: approve and deny at once.
#[tokio::test]
async fn clicks_may_come_twice_and_at_once() {
    let office = Office::new().await;
    let call = office.refund(8000);
    let card = office.slack.card("U0ANNA").await;
    let payload = office.slack.click_payload("U0ANNA", &card, "approve");
    // The same envelope on both sockets, and the same click in others.
    let clicks: Vec<_> = ["e1", "e1", "e1", "e2", "e3"].iter().filter_map(|id| office.slack.push(&payload, Some(id))).collect();
    assert_eq!(clicks.len(), 5);
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let kinds = office.world.kinds().await;
    assert_eq!(kinds.iter().filter(|k| *k == "reviewed").count(), 1);
    assert_eq!(office.world.done_of("refund_payment").await, 1);
    // Approve and deny in one moment, by two people: one of them counts.
    let call = office.refund_anew(8100);
    let first = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("81 EUR") && !m.buttons().is_empty()).await;
    let second = office.slack.wait_for("asks", |m| m.channel == dm("U0BERT") && m.shown().contains("81 EUR") && !m.buttons().is_empty()).await;
    let (view, _) = office.slack.click_for_view("U0BERT", &second, "deny").await;
    let (yes, no) = tokio::join!(office.slack.click("U0ANNA", &first, "approve"), office.slack.submit("U0BERT", &view, &[("reason", "no")]));
    assert!(yes.took < Duration::from_millis(500) && no.took < Duration::from_millis(500), "{yes:?} {no:?}");
    let reply = call.await.unwrap();
    let ran = office.world.received().await.iter().filter(|(_, arguments, _)| arguments["amount"] == 81.0 || arguments["amount"] == 81).count();
    assert_eq!(ran, usize::from(!reply.is_error()), "{}", reply.text);
    office.check().await;
}

/// Acknowledged at once although the decision takes seconds.
#[tokio::test]
async fn judging_never_keeps_a_socket_waiting() {
    let office = Office::new().await;
    let call = office.refund(8000);
    let card = office.slack.card("U0ANNA").await;
    office.slack.fail("users.info", &[Fault::Late(Duration::from_secs(2))]);
    let start = Instant::now();
    let slow = office.slack.click("U0ANNA", &card, "approve").await;
    // Others on the same sockets meanwhile.
    for _ in 0..6 {
        let ack: Ack = office.slack.click("U0STRANGER", &card, "approve").await;
        assert!(ack.took < Duration::from_millis(500), "{:?}", ack.took);
    }
    assert!(slow.took < Duration::from_millis(500) && start.elapsed() < Duration::from_secs(2), "{:?} {:?}", slow.took, start.elapsed());
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    assert!(start.elapsed() >= Duration::from_secs(2));
}

/// A restart, on cards that another process posted; a click that was kept and not judged.
#[tokio::test]
async fn a_card_of_before_a_crash_still_decides() {
    let mut office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    let posted = office.slack.called("chat.postMessage");
    office.world.kill();
    office.world.start();
    office.slack.connected(2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(office.slack.called("chat.postMessage"), posted, "it is not asked twice");
    // Killed between keeping the click and judging it: judging waits for the account.
    office.slack.fail("users.info", &[Fault::Late(Duration::from_secs(5))]);
    let ack = office.slack.click("U0ANNA", &card, "approve").await;
    assert!(ack.took < Duration::from_millis(500));
    office.world.kill();
    assert!(!office.world.kinds().await.iter().any(|k| k == "reviewed"));
    office.world.start();
    office.world.recorded("reviewed").await;
    assert!(office.refund(8000).await.unwrap().said().contains("80.00 EUR"));
    office.slack.card_becomes(&card, "Completed").await;
    office.check().await;
}

/// F1: killed between the question and its card.
#[tokio::test]
async fn a_question_that_was_not_posted_before_a_crash_is_posted_after_it() {
    let mut office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    office.slack.fail_always("conversations.open", Some(Fault::Late(Duration::from_secs(5))));
    drop(office.refund(8000).await);
    office.world.kill();
    assert!(office.slack.messages().is_empty());
    office.slack.fail_always("conversations.open", None);
    office.world.start();
    let card = office.slack.card("U0BERT").await;
    office.slack.click("U0BERT", &card, "approve").await;
    office.world.recorded("reviewed").await;
    assert!(office.refund(8000).await.unwrap().said().contains("80.00 EUR"));
    office.slack.card_becomes(&card, "Completed").await;
    assert_eq!(office.slack.messages().iter().filter(|m| m.thread.is_none()).count(), 2, "one card each");
    office.check().await;
}

/// F1: killed at any moment between the question and the outcome: asked again if need be, and run once.
#[tokio::test]
async fn killed_at_any_moment_a_call_is_decided_and_runs_at_most_once() {
    let mut office = Office::with(|s| s.hold = "budget = \"2s\"".into()).await;
    for n in 0..u32::try_from(runs()).unwrap() {
        let cents = 100 + n;
        let amount = format!("\"iban\": \"DE{cents}\"");
        let asks = |m: &Posted| m.channel == dm("U0ANNA") && m.shown().contains(&amount) && m.buttons().contains(&"approve".to_owned());
        let mut arguments = refund(cents);
        arguments["iban"] = json!(format!("DE{cents}"));
        let call = tokio::spawn({
            let (client, arguments) = (Client::new(&office.world.mcp()), arguments.clone());
            async move { client.try_call("refund_payment", arguments).await }
        });
        // Every other time the click is on its way when it happens.
        if n % 2 == 0 {
            let card = office.slack.wait_for("asks", asks).await;
            let slack = office.slack.clone();
            tokio::spawn(async move { slack.try_deliver(slack.click_payload("U0ANNA", &card, "approve")).await });
        }
        tokio::time::sleep(Duration::from_millis(u64::from(n * 53 % 331))).await;
        office.world.kill();
        let answered = call.await.unwrap().is_ok_and(|reply| !reply.is_error());
        office.world.start();
        office.slack.connected(2).await;
        let until = Instant::now() + Duration::from_secs(20);
        let known = loop {
            if answered {
                break true;
            }
            assert!(Instant::now() < until, "run {n}: {}", office.world.log());
            if let Some(card) = office.slack.messages().into_iter().find(asks) {
                drop(office.slack.try_deliver(office.slack.click_payload("U0ANNA", &card, "approve")).await);
            }
            let client = Client::new(&office.world.mcp());
            match client.try_call("refund_payment", arguments.clone()).await {
                Ok(reply) if !reply.is_error() => break true,
                Ok(reply) if reply.state() == "outcome-unknown" => break false,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let ran =
            office.world.received().await.iter().filter(|(_, arguments, done)| arguments["iban"] == format!("DE{cents}") && done == "done").count();
        assert!(ran >= 1 || !known, "run {n} ran {ran} times");
    }
    // That none ran more often than it was permitted is the invariant's to say.
    tokio::time::sleep(Duration::from_millis(800)).await;
    office.check().await;
}

/// Two gateways on one store: one speaks with Slack, the other takes over, and its calls are asked for as well.
#[tokio::test]
async fn another_gateway_takes_over() {
    let mut office = Office::new().await;
    let port = crate::support::free_port();
    let text = std::fs::read_to_string(&office.world.config).unwrap();
    let own = office.world.address.rsplit(':').next().unwrap();
    let text = text.replace(&format!("127.0.0.1:{own}\""), &format!("127.0.0.1:{port}\""));
    let text = text.replace("kind = \"signed-jwt\"", &format!("kind = \"signed-jwt\"\nissuer = \"{}\"", office.world.address));
    let config = office.world.scratch.write("second.toml", &text);
    let mut second = std::process::Command::new(crate::support::countersign())
        .args(["serve", "--config"])
        .arg(config)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let client = Client::new(&format!("http://127.0.0.1:{port}/mcp/ledger"));
    let until = Instant::now() + Duration::from_secs(10);
    while client.http.get(format!("http://127.0.0.1:{port}/readyz")).send().await.is_err() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Asked for through the second, posted by the first.
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call("refund_payment", refund(8000)).await }
    });
    let card = office.slack.card("U0ANNA").await;
    assert_eq!(office.slack.sockets(), 2, "only one of them is connected");
    let opened = office.slack.opened();
    office.world.kill();
    let until = Instant::now() + Duration::from_secs(15);
    while office.slack.opened() < opened + 2 || office.slack.sockets() != 2 {
        assert!(Instant::now() < until, "nobody took over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The credential's issuer is the first gateway's address, which the ledger asks: it must be there again.
    office.world.start();
    office.slack.click("U0ANNA", &card, "approve").await;
    let reply = call.await.unwrap();
    assert!(reply.said().contains("80.00 EUR"), "{}", reply.text);
    office.slack.card_becomes(&card, "Completed").await;
    drop(second.kill());
    drop(second.wait());
}

/// F3: the post may have come and nobody knows: both copies decide the same approval, once.
#[tokio::test]
async fn a_second_copy_decides_nothing_twice() {
    let office = Office::with(|s| s.approvers = "[approver.anna]\nslack = \"T0TEAM/U0ANNA\"\n[approver.bert]\n[approver.olga]\n".into()).await;
    office.slack.fail("chat.postMessage", &[Fault::DoneAndGone]);
    let call = office.refund(8000);
    let until = Instant::now() + Duration::from_secs(10);
    while office.slack.inbox_of("U0ANNA").len() < 2 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let copies: Vec<Posted> = office.slack.inbox_of("U0ANNA");
    office.slack.click("U0ANNA", &copies[0], "approve").await;
    office.slack.click("U0ANNA", &copies[1], "approve").await;
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    office.slack.told("U0ANNA", "no longer waiting").await;
    assert_eq!(office.world.done_of("refund_payment").await, 1);
    office.check().await;
}

/// F3: Slack is slow, refuses, answers nonsense, is not there; then it is again.
#[tokio::test]
async fn while_slack_is_down_the_inbox_has_it_and_nothing_runs() {
    let office = Office::new().await;
    office.slack.fail_always("chat.postMessage", Some(Fault::Status(503)));
    let call = office.refund(8000);
    office.world.one_waiting().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ready = reqwest::get(format!("{}/readyz", office.world.address)).await.unwrap().text().await.unwrap();
    assert!(ready.contains("slack: cards cannot be posted"), "{ready}");
    // The inbox and the terminal decide meanwhile.
    office.world.approve(&office.world.one_waiting().await);
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    office.slack.fail_always("chat.postMessage", None);
    // A call that waits is posted as soon as Slack is there again, and 429 is waited out.
    office.slack.fail("chat.postMessage", &[Fault::Slower(1), Fault::Status(500), Fault::Refuse("internal_error"), Fault::Slower(1)]);
    let call = office.refund_anew(8100);
    let card = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("81 EUR") && !m.buttons().is_empty()).await;
    office.slack.click("U0ANNA", &card, "approve").await;
    assert!(call.await.unwrap().said().contains("81.00 EUR"));
    // A card that cannot be redrawn changes nothing.
    office.slack.fail_always("chat.update", Some(Fault::Refuse("edit_window_closed")));
    let call = office.refund_anew(8200);
    let card = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("82 EUR") && !m.buttons().is_empty()).await;
    office.slack.click("U0ANNA", &card, "approve").await;
    assert!(call.await.unwrap().said().contains("82.00 EUR"));
    assert!(!office.slack.now(&card).buttons().is_empty());
    office.slack.click("U0ANNA", &card, "approve").await;
    office.slack.told("U0ANNA", "no longer waiting").await;
    office.check().await;
}

/// `disconnect` storms and broken connections lose no click that Slack delivered.
#[tokio::test]
async fn sockets_come_and_go_and_every_delivered_click_counts() {
    let office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    let mut cards = Vec::new();
    for n in 0..8u32 {
        drop(office.refund(8000 + n).await);
        let amount = format!("80.0{n} EUR").replace("80.00", "80");
        cards.push(office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains(&amount) && !m.buttons().is_empty()).await);
    }
    let before = office.slack.opened();
    for (n, card) in cards.iter().enumerate() {
        match n % 3 {
            0 => office.slack.disconnect_all("warning", 3),
            1 => office.slack.disconnect_all("refresh_requested", 0),
            _ => {
                office.slack.cut();
                office.slack.connected(1).await;
            }
        }
        // While the sockets are being replaced: on an old one or a new one.
        let ack = office.slack.click("U0ANNA", card, "approve").await;
        assert!(ack.took < Duration::from_millis(500), "{:?}", ack.took);
    }
    let until = Instant::now() + Duration::from_secs(10);
    while office.world.kinds().await.iter().filter(|k| *k == "reviewed").count() < cards.len() {
        assert!(Instant::now() < until, "{:?}\n{}", office.world.kinds().await, office.world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let opened = office.slack.opened() - before;
    assert!(opened < 40, "Slack is besieged: {opened} sockets asked for");
    office.slack.connected(2).await;
}

/// A click on its way when its socket is sent away is confirmed there all the same.
#[tokio::test]
async fn a_click_just_before_a_disconnect_is_confirmed() {
    let office = Office::with(|s| s.hold = "budget = \"1s\"".into()).await;
    drop(office.refund(8000).await);
    let card = office.slack.card("U0ANNA").await;
    let payload = office.slack.click_payload("U0STRANGER", &card, "approve");
    for _ in 0..4 {
        office.slack.connected(2).await;
        let answers: Vec<_> = (0..6).filter_map(|_| office.slack.push(&payload, None)).collect();
        office.slack.disconnect_all("warning", 0);
        for (_, answer) in answers {
            tokio::time::timeout(Duration::from_secs(2), answer).await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn every_socket_sent_away_backs_off() {
    let office = Office::new().await;
    let before = office.slack.opened();
    office.slack.disconnect_all("warning", 10_000);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let opened = office.slack.opened() - before;
    assert!((2..30).contains(&opened), "{opened} in 6 s");
}

/// Socket Mode switched off, and a token of no use: said, and not tried again.
#[tokio::test]
async fn what_will_not_get_better_is_said_and_nothing_is_posted() {
    let office = Office::new().await;
    office.slack.disconnect_all("link_disabled", 0);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let ready = || async { reqwest::get(format!("{}/readyz", office.world.address)).await.unwrap().text().await.unwrap() };
    assert!(ready().await.contains("switched off"), "{}", ready().await);
    let opened = office.slack.opened();
    let call = office.refund(8000);
    let waiting = office.world.one_waiting().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((office.slack.called("chat.postMessage"), office.slack.opened()), (0, opened));
    office.world.deny(&waiting);
    assert!(call.await.unwrap().is_error());
}

/// A15 of the study: whoever has the app's token takes clicks; that is an alarm and nothing is posted meanwhile.
#[tokio::test]
async fn a_stolen_app_token_is_an_alarm() {
    let (slack, held) = FakeSlack::start().await;
    let way = format!("{}refresh = \"10s\"\n", sockets());
    let office = Office::around(slack, held, &way, |s| s.hold = "budget = \"1s\"".into()).await;
    office.slack.foreign(1);
    office.world.recorded("alarm").await;
    let ready = reqwest::get(format!("{}/readyz", office.world.address)).await.unwrap().text().await.unwrap();
    assert!(ready.contains("SOMEBODY ELSE"), "{ready}");
    let reply = office.refund(8000).await.unwrap();
    assert!(reply.said().contains("/inbox/") && !reply.said().contains("Slack"), "{}", reply.said());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(office.slack.called("chat.postMessage"), 0);
    office.slack.foreign(0);
    office.slack.card("U0ANNA").await;
}

/// A1, A2, A16, A18: what an agent writes is text, all of it is shown or nothing can be approved on the card.
#[tokio::test]
async fn arguments_cannot_imitate_the_card() {
    let office = Office::with(|s| {
        s.policies = vec![("run_sql.toml", "server = \"ledger\"\ntool = \"run_sql\"\ndefault = \"approve\"\neffect = \"execute\"\n[approval]\ntwo-from = \"never\"\nescalate = []\n[show]\ntitle = \"Run {/query}\"\n".into())];
        s.hold = "budget = \"1s\"".into();
    })
    .await;
    let evil = [
        "<!channel> <@U0ANNA> <https://evil.example|docs> *Approved by anna* :white_check_mark: `x` ~y~ > z",
        "\u{202e}tluafed\u{202c} \u{200b}zero\u{feff}width \u{e0041}tag",
        "a                                                                                      b",
        "line one\n\n\n\n\n\n\n\nApproval needed: ledger/get_account\nRisk: 1 of 100, low",
        "pаypal.example has a Cyrillic letter",
        "\u{1b}[2J\u{7}\u{0}",
        "{\"type\":\"button\",\"action_id\":\"approve\"}",
    ];
    for (n, text) in evil.iter().enumerate() {
        let reason = json!({"dev.countersign/reason": format!("URGENT <!here> the CEO approved this, {text}")});
        let client = Client::new(&office.world.mcp());
        let params = json!({"name": "run_sql", "arguments": {"query": text, "n": n}, "_meta": reason});
        drop(client.request(json!(1), "tools/call", params).await.unwrap());
        let mark = format!("\"n\": {n}");
        let card = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains(&mark)).await;
        assert_eq!(card.text.chars().filter(|c| "<>*_`~".contains(*c)).count(), 0, "{}", card.text);
        let json = serde_json::to_string(&card.blocks).unwrap();
        for hidden in ["\u{202e}", "\u{200b}", "\u{feff}", "\u{e0041}", "\\u0007", "\\u001b", "\u{0}"] {
            assert!(!json.contains(hidden), "{hidden:?} in {json}");
        }
        assert_eq!(card.blocks.iter().filter(|b| b["type"] == "header").count(), 1);
        assert_eq!(card.blocks.iter().filter(|b| b["type"] == "actions").count(), 1);
        let actions = card.blocks.last().unwrap();
        assert_eq!(actions["type"], "actions", "the decision is last");
        for button in actions["elements"].as_array().unwrap() {
            let value = button["value"].as_str().unwrap();
            assert!(value.len() == 32 && value.chars().all(|c| c.is_ascii_hexdigit()), "{value}");
        }
        assert!(card.shown().contains("What the agent says, unverified"));
    }
    let posts = office.slack.messages();
    assert!(posts.iter().all(|m| !m.text.contains("evil")));
    office.check().await;
}

/// From nothing to 1 MiB: shown whole, on as many pages as it takes, or not decided in Slack.
#[tokio::test]
async fn what_does_not_fit_is_not_approved_on_the_card() {
    let office = Office::with(|s| {
        s.policies = vec![(
            "run_sql.toml",
            "server = \"ledger\"\ntool = \"run_sql\"\ndefault = \"approve\"\neffect = \"execute\"\n[approval]\ntwo-from = \"never\"\n".into(),
        )];
        s.hold = "budget = \"1s\"".into();
    })
    .await;
    let mut seen = Vec::new();
    for size in [0usize, 10, 3_000, 9_000, 20_000, 100_000, 1 << 20] {
        let query: String = "SELECT 1; -- 😀\n".chars().cycle().take(size).collect();
        drop(office.call("run_sql", json!({"query": query, "size": size})).await);
        let mark = format!("\"size\": {size}\n");
        let words = format!("{} characters", pretty_length(&query, size));
        let card = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && (m.shown().contains(&mark) || m.shown().contains(&words))).await;
        let whole = card.shown().contains(&mark);
        let critical = card.shown().contains(", critical");
        assert_eq!(card.buttons().contains(&"approve".to_owned()), whole && !critical, "{size}: {}", card.shown());
        if !whole {
            // A forged press of the button that is not there decides nothing.
            office.slack.click_for_view("U0ANNA", &card, "approve").await;
            assert_eq!(office.world.waiting().len(), 1);
        }
        let (view, mut drawn) = office.slack.click_for_view("U0ANNA", &card, "review").await;
        // Every page in turn; together they have every character.
        let mut text = String::new();
        for page in 0..30 {
            for block in drawn["blocks"].as_array().unwrap() {
                for part in block["elements"].as_array().into_iter().flatten().filter(|part| part["type"] == "rich_text_preformatted") {
                    text.push_str(part["elements"][0]["text"].as_str().unwrap());
                }
            }
            let next = format!("page-{}", page + 1);
            if !drawn.to_string().contains(&next) {
                break;
            }
            assert!(drawn["submit"].is_null(), "only the last page decides");
            if page == 0 {
                // Sent all the same, it decides nothing, and the first page is there again.
                office.slack.submit("U0ANNA", &view, &[("target", "run_sql")]).await;
                office.slack.view_becomes(&view, "Only the last page decides").await;
            }
            office.slack.turn("U0ANNA", &view, &next).await;
            drawn = office.slack.view_becomes(&view, &format!("What will run, page {} of", page + 2)).await;
        }
        let inbox_only = drawn.to_string().contains("Decide in the inbox");
        seen.push((size, whole, inbox_only));
        if inbox_only {
            assert!(drawn["submit"].is_null());
            // So is a forged submission.
            office.slack.submit("U0ANNA", &view, &[("target", "run_sql")]).await;
            office.slack.view_becomes(&view, "too long for Slack").await;
        } else {
            assert_eq!(text.matches("SELECT 1;").count(), query.matches("SELECT 1;").count(), "{size}");
            assert_eq!(drawn["submit"]["text"], "Approve");
        }
        office.world.deny(&office.world.one_waiting().await);
    }
    assert_eq!(seen.iter().filter(|(_, whole, _)| *whole).count(), 3, "{seen:?}");
    assert_eq!(seen.iter().filter(|(_, _, inbox)| *inbox).count(), 1, "{seen:?}");
    office.check().await;
}

fn pretty_length(query: &str, size: usize) -> usize {
    // `{`, two members of two blanks, their names and marks, `}`: with every line break written out and kept.
    let text = format!("{{\n  \"query\": \"{}\",\n  \"size\": {size}\n}}", query.replace('\n', "\\n\n").trim_end_matches('\n'));
    text.chars().count()
}

/// Reminder, escalation in time and by working hours, delegates, groups, on-call, and expiry.
#[tokio::test]
async fn the_question_goes_to_whoever_is_there() {
    let people = "[approver.anna]\nslack = \"T0TEAM/U0ANNA\"\ndelegates = [{ to = \"bert\", from = 2020-01-01, until = 2120-01-01 }]\n\
                  [approver.bert]\nslack = \"T0TEAM/U0BERT\"\n[approver.olga]\nslack = \"T0TEAM/U0OLGA\"\n\
                  [approver.cleo]\nslack = \"T0TEAM/U0CLEO\"\n[approver.team]\nslack-group = \"T0TEAM/S0TEAM\"\n\
                  [approver.on-call]\non-call = { command = [\"printf\", \"T0TEAM/U0CLEO\\\\n\"] }\n";
    let policy = |approval: &str| {
        vec![(
            "transfer.toml",
            format!(
                "server = \"ledger\"\ntool = \"transfer\"\ndefault = \"approve\"\neffect = \"pay\"\n[approval]\ntwo-from = \"never\"\n{approval}\n[credential]\nscope = \"transfer:{{/account}}\"\n"
            ),
        )]
    };
    let transfer = |n: u32| json!({"account": "acc-1", "to": "acme-ltd", "amount": n, "currency": "EUR"});
    // Whoever stands in is asked, and decides; the reminder and the next in line come in time.
    let office = Office::with(|s| {
        s.approvers = people.into();
        s.policies = policy("approvers = [\"anna\"]\nremind = \"1s\"\nescalate = [{ after = \"2s\", to = [\"team\"] }]\nnotify = [\"olga\"]");
    })
    .await;
    office.slack.group("S0TEAM", &["U0CLEO", "U0STRANGER"]);
    let call = office.call("transfer", transfer(1));
    let card = office.slack.card("U0BERT").await;
    assert!(office.slack.inbox_of("U0ANNA").is_empty(), "she is away");
    let told = office.slack.wait_for("tells", |m| m.channel == dm("U0OLGA")).await;
    assert!(told.buttons().is_empty(), "told, not asked");
    assert!(office.slack.inbox_of("U0CLEO").is_empty(), "not yet");
    office.slack.wait_for("reminds", |m| m.channel == dm("U0BERT") && m.thread.as_ref() == Some(&card.ts) && m.shown().contains("still waits")).await;
    let later = office.slack.card("U0CLEO").await;
    assert!(office.slack.inbox_of("U0STRANGER").is_empty(), "in the group, and no approver");
    office.slack.click("U0STRANGER", &later, "approve").await;
    office.slack.told("U0STRANGER", "not an approver").await;
    office.slack.click("U0CLEO", &later, "approve").await;
    assert!(!call.await.unwrap().is_error());
    let over = office.slack.card_becomes(&later, "as one of team").await;
    assert!(over.buttons().is_empty());
    office.check().await;
    // Delegation.
    let call = office.call("transfer", transfer(2));
    let card = office.slack.wait_for("asks", |m| m.channel == dm("U0BERT") && m.shown().contains("\"amount\": 2,") && !m.buttons().is_empty()).await;
    office.slack.click("U0BERT", &card, "approve").await;
    assert!(!call.await.unwrap().is_error());
    office.slack.card_becomes(&card, "bert approved for anna").await;
    office.check().await;
    drop(office);
    // On call; nobody decides, and the card says so.
    let office = Office::with(|s| {
        s.approvers = people.into();
        s.policies = policy("approvers = [\"on-call\"]\ndecide-by = \"3s\"");
    })
    .await;
    let call = office.call("transfer", transfer(3));
    let card = office.slack.card("U0CLEO").await;
    let reply = call.await.unwrap();
    assert!(reply.is_error() && reply.said().contains("NOT executed"), "{}", reply.text);
    let over = office.slack.card_becomes(&card, "Expired").await;
    assert!(over.buttons().is_empty());
    office.slack.click("U0CLEO", &card, "approve").await;
    office.slack.told("U0CLEO", "no longer waiting").await;
    assert_eq!(office.world.received_of("transfer").await, 0);
    office.check().await;
    drop(office);
    // Out of hours: who is on duty is asked at once, and may decide.
    let asleep = people.replace("[approver.bert]\n", "[approver.bert]\nhours = \"Mon-Mon 00:00-00:01 Pacific/Kiritimati\"\n");
    let office = Office::with(|s| {
        s.approvers = asleep;
        s.policies = policy("approvers = [\"bert\"]\nescalate = [{ after = \"10m\", to = [\"cleo\"] }]");
    })
    .await;
    let call = office.call("transfer", transfer(4));
    let card = office.slack.card("U0CLEO").await;
    assert!(office.slack.inbox_of("U0BERT").is_empty());
    office.slack.click("U0CLEO", &card, "approve").await;
    assert!(!call.await.unwrap().is_error());
}

/// Whoever Slack does not know keeps nobody else from being asked.
#[tokio::test]
async fn one_wrong_id_does_not_keep_others_from_being_asked() {
    let office = Office::with(|s| s.approvers = PEOPLE.replace("U0ANNA", "U0GONE")).await;
    let call = office.refund(8000);
    let card = office.slack.card("U0BERT").await;
    office.slack.click("U0BERT", &card, "approve").await;
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    assert!(office.world.log().contains("user_not_found"), "{}", office.world.log());
    // Taken back by the operator: the card says so.
    let call = office.refund_anew(8100);
    let card = office.slack.wait_for("asks", |m| m.channel == dm("U0BERT") && m.shown().contains("81 EUR") && !m.buttons().is_empty()).await;
    let id = office.world.one_waiting().await["id"].as_str().unwrap().to_owned();
    let (code, text) = office.world.run(&["approvals", "withdraw", &id, "--reason", "wrong branch"]);
    assert_eq!(code, 0, "{text}");
    assert!(call.await.unwrap().is_error());
    let over = office.slack.card_becomes(&card, "Taken back").await;
    assert!(over.buttons().is_empty() && over.shown().contains("wrong branch"));
    office.check().await;
}

/// In a room, with mentions; never one that another organisation reads.
#[tokio::test]
async fn a_room_is_asked_once_and_only_if_it_is_ours() {
    let (slack, held) = FakeSlack::start().await;
    slack.room("C0ROOM", json!({"is_ext_shared": true}));
    let office = Office::around(slack, held, &format!("{}room = \"C0ROOM\"\n", sockets()), |_| {}).await;
    let call = office.refund(8000);
    office.world.one_waiting().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(office.slack.called("chat.postMessage"), 0);
    assert!(office.world.log().contains("shared with another organisation"), "{}", office.world.log());
    office.slack.room("C0ROOM", json!({}));
    let card = office.slack.wait_for("asks", |m| m.channel == "C0ROOM").await;
    assert!(card.shown().contains("<@U0ANNA>") && card.shown().contains("<@U0BERT>") && !card.shown().contains("<@U0OLGA>"), "{}", card.shown());
    office.slack.click("U0CLEO", &card, "approve").await;
    office.slack.told("U0CLEO", "not an approver").await;
    office.slack.click("U0BERT", &card, "approve").await;
    assert!(call.await.unwrap().said().contains("80.00 EUR"));
    office.check().await;
}

const AGAIN: &str = "server = \"ledger\"\ntool = \"transfer\"\ndefault = \"approve\"\neffect = \"pay\"\n[arguments]\n\"/amount\" = { role = \"amount\", limit = 100 }\n\
                     [approval]\ntwo-from = 85\nagain = { for = \"30m\", times = 2, max-score = 84, vary = [\"/comment\"] }\n[credential]\nscope = \"transfer:{/account}\"\n";

/// A15: leave for the same call again, within bounds, counted, visible, and stopped by anybody who may decide.
#[tokio::test]
async fn the_same_call_again_within_bounds() {
    let office = Office::with(|s| s.policies = vec![("transfer.toml", AGAIN.into())]).await;
    let transfer =
        |amount: u32, comment: &str| json!({"account": "acc-1", "to": "acme-ltd", "amount": amount, "currency": "EUR", "comment": comment});
    let call = office.call("transfer", transfer(1, "a"));
    let card = office.slack.card("U0ANNA").await;
    let (view, drawn) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    assert!(drawn.to_string().contains("Up to 2 times within 30 min") && drawn.to_string().contains("/comment"), "{drawn}");
    office.slack.submit("U0ANNA", &view, &[("again", "yes")]).await;
    assert!(!call.await.unwrap().is_error());
    let told = office.slack.wait_for("allows", |m| m.thread.as_ref() == Some(&card.ts) && m.shown().contains("allowed the same call again")).await;
    assert_eq!(told.buttons(), ["end-allowance"]);
    let (_, text) = office.world.run(&["approvals", "allowances"]);
    assert!(text.contains("2 more times") && text.contains("allowed by anna"), "{text}");
    let posted = || office.slack.messages().iter().filter(|m| m.channel == dm("U0ANNA") && m.thread.is_none()).count();
    assert_eq!(posted(), 1);
    // Used once, with another comment: runs without asking, and is told.
    assert!(!office.call("transfer", transfer(1, "b")).await.unwrap().is_error());
    office.slack.wait_for("tells", |m| m.thread.as_ref() == Some(&card.ts) && m.shown().contains("The same call again, as allowed")).await;
    assert_eq!(posted(), 1);
    // Another amount is another call.
    let other = office.call("transfer", transfer(2, "b"));
    let asked = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("\"amount\": 2,") && !m.buttons().is_empty()).await;
    assert!(asked.shown().contains("Since the last approved call") && asked.shown().contains("/amount: 1 → 2"), "{}", asked.shown());
    office.world.deny(&office.world.one_waiting().await);
    assert!(other.await.unwrap().is_error());
    // Stopped by somebody else who may decide.
    office.slack.click("U0STRANGER", &told, "end-allowance").await;
    office.slack.told("U0STRANGER", "not an approver").await;
    office.slack.click("U0BERT", &told, "end-allowance").await;
    office.slack.told("U0BERT", "Stopped").await;
    let call = office.call("transfer", transfer(1, "c"));
    office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("\"comment\": \"c\"") && !m.buttons().is_empty()).await;
    office.world.approve(&office.world.one_waiting().await);
    assert!(!call.await.unwrap().is_error());
    let kinds = office.world.kinds().await;
    assert_eq!(kinds.iter().filter(|k| *k == "allowance-used").count(), 1);
    assert_eq!(kinds.iter().filter(|k| *k == "allowance-revoked").count(), 1);
    office.check().await;
}

/// More calls than a person can look at: one message for the rest, each gets its card in turn.
#[tokio::test]
async fn cards_do_not_pile_up() {
    let (slack, held) = FakeSlack::start().await;
    let way = format!("{}cards-per-person = 2\n", sockets());
    let office = Office::around(slack, held, &way, |s| {
        s.hold = "budget = \"1s\"\npending-per-caller = 5\n".into();
        s.approvers = "[approver.anna]\nslack = \"T0TEAM/U0ANNA\"\n[approver.bert]\n[approver.olga]\n".into();
    })
    .await;
    for n in 0..5 {
        drop(office.refund(8000 + n).await);
    }
    let reply = office.refund(9000).await.unwrap();
    assert!(reply.is_error() && reply.said().contains("5 calls of this caller wait"), "{}", reply.text);
    assert_eq!(office.world.kinds().await.iter().filter(|kind| *kind == "denied").count(), 1, "it is in the record");
    let more = office.slack.wait_for("counts", |m| m.channel == dm("U0ANNA") && m.shown().contains("3 more calls wait")).await;
    let cards = || office.slack.inbox_of("U0ANNA").into_iter().filter(|m| !m.buttons().is_empty()).collect::<Vec<_>>();
    assert_eq!(cards().len(), 2);
    for card in cards() {
        office.slack.click("U0ANNA", &card, "approve").await;
    }
    let until = Instant::now() + Duration::from_secs(15);
    while cards().len() < 2 || !office.slack.now(&more).shown().contains("1 more calls") {
        assert!(Instant::now() < until, "{} {}", cards().len(), office.slack.now(&more).shown());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    office.check().await;
}

/// A code that only the approver's own device makes, used once.
#[tokio::test]
async fn a_policy_may_ask_for_a_one_time_code() {
    const CODE: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let office = Office::with(|s| {
        s.approvers = PEOPLE.replace("U0ANNA\"\n", &format!("U0ANNA\"\ntotp = {{ command = [\"printf\", \"{CODE}\"] }}\n"));
        s.policies = vec![("transfer.toml", "server = \"ledger\"\ntool = \"transfer\"\ndefault = \"approve\"\neffect = \"pay\"\n[approval]\ntwo-from = \"never\"\nassurance = \"totp\"\n[credential]\nscope = \"transfer:{/account}\"\n".into())];
    })
    .await;
    let code = || {
        let totp = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(CODE).unwrap()).build().unwrap();
        totp.generate_current().to_string()
    };
    let transfer = |n: u32| json!({"account": "acc-1", "to": "acme-ltd", "amount": n, "currency": "EUR"});
    let call = office.call("transfer", transfer(1));
    let card = office.slack.card("U0ANNA").await;
    assert_eq!(card.buttons(), ["review", "deny"]);
    let (view, _) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    assert_eq!(office.slack.submit("U0ANNA", &view, &[]).await.payload.unwrap()["response_action"], "errors");
    let fields = |code: &str| vec![("target", "transfer".to_owned()), ("code", code.to_owned())];
    let submit = |user: &'static str, view: String, code: String| {
        let slack = office.slack.clone();
        async move {
            let fields = fields(&code);
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            slack.submit(user, &view, &fields).await
        }
    };
    submit("U0ANNA", view.clone(), "000000".into()).await;
    office.slack.view_becomes(&view, "wrong or was used").await;
    // Who has no code cannot approve such calls, and can deny them.
    let other = office.slack.card("U0BERT").await;
    let (bert, _) = office.slack.click_for_view("U0BERT", &other, "review").await;
    submit("U0BERT", bert.clone(), code()).await;
    office.slack.view_becomes(&bert, "wrong or was used").await;
    let used = code();
    submit("U0ANNA", view.clone(), used.clone()).await;
    office.slack.view_becomes(&view, "Approved").await;
    assert!(!call.await.unwrap().is_error());
    // The same code does not count twice.
    let call = office.call("transfer", transfer(2));
    let card = office.slack.wait_for("asks", |m| m.channel == dm("U0ANNA") && m.shown().contains("\"amount\": 2,") && !m.buttons().is_empty()).await;
    let (view, _) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    submit("U0ANNA", view.clone(), used).await;
    office.slack.view_becomes(&view, "wrong or was used").await;
    let (code, text) = office.world.decide("approve", office.world.one_waiting().await["id"].as_str().unwrap(), "anna");
    assert!(code == 1 && text.contains("one-time code"), "{text}");
    office.world.deny(&office.world.one_waiting().await);
    assert!(call.await.unwrap().is_error());
    let (_, story) = office.world.run(&["audit", "show"]);
    assert!(!story.contains(CODE));
    office.check().await;
}

/// The approval that a card names.
fn card_id(card: &Posted) -> String {
    let shown = card.shown();
    shown.split("Approval ").last().unwrap().split(' ').next().unwrap().to_owned()
}

/// An argument that carries a secret is in no message, for Slack keeps them; it is in the review, which it does not keep.
#[tokio::test]
async fn a_secret_in_an_argument_is_not_posted() {
    const KEY: &str = "AKIAABCDEFGHIJKLMNOP";
    let office = Office::new().await;
    let call =
        office.call("transfer", json!({"account": "acc-1", "to": "acme-ltd", "amount": 10, "currency": "EUR", "comment": format!("use {KEY}")}));
    let card = office.slack.card("U0ANNA").await;
    assert!(card.shown().contains("looks like a secret") && !card.buttons().contains(&"approve".to_owned()), "{}", card.shown());
    let (_, drawn) = office.slack.click_for_view("U0ANNA", &card, "review").await;
    assert!(drawn.to_string().contains(KEY), "the approver sees all of it");
    office.world.deny(&office.world.one_waiting().await);
    assert!(call.await.unwrap().is_error());
    office.slack.card_becomes(&card, "Denied").await;
    // Nor does it come into a credential's scope, and from there onto a card and into the record.
    let scoped = office.call("transfer", json!({"account": KEY, "to": "acme-ltd", "amount": 10, "currency": "EUR"})).await.unwrap();
    assert!(scoped.is_error() && scoped.said().contains("would carry what looks like a secret"), "{}", scoped.text);
    assert_eq!(office.world.received_of("transfer").await, 0);
    let (_, records) = office.world.run(&["audit", "show", "--json", card_id(&card).as_str()]);
    assert!(!records.contains(KEY), "{records}");
    for payload in office.slack.payloads().iter().filter(|payload| payload["type"] == "message") {
        assert!(!payload.to_string().contains("AKIA"), "{payload}");
    }
    office.check().await;
}

/// The secrets of Slack's link are nowhere to be read.
#[tokio::test]
async fn tokens_are_nowhere() {
    let mut office = Office::new().await;
    approve_and_see(&office).await;
    office.slack.fail_always("*", Some(Fault::Refuse("invalid_auth")));
    office.slack.cut();
    tokio::time::sleep(Duration::from_millis(800)).await;
    office.world.terminate();
    let mut texts = vec![office.world.log()];
    for entry in std::fs::read_dir(&office.world.scratch.0).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|e| e != "toml") {
            texts.push(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
        }
    }
    for text in texts {
        for secret in [BOT_TOKEN, APP_TOKEN, "ticket-"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}
