//! The inbox: who gets in, what is shown, what counts.

use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::support::mcp::Client;
use crate::support::{Settings, World, refund};

/// A browser: keeps cookies, follows redirects.
struct Browser {
    http: reqwest::Client,
    address: String,
}

impl Browser {
    fn new(world: &World) -> Self {
        Self { http: reqwest::Client::builder().cookie_store(true).build().unwrap(), address: world.address.clone() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.address)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let response = self.http.post(format!("{}{path}", self.address)).form(form).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn sign_in(world: &World, name: &str) -> Self {
        let browser = Self::new(world);
        let (code, text) = world.run(&["approvals", "login", name]);
        assert_eq!(code, 0, "{text}");
        let link = text.lines().find(|line| line.contains("/inbox/login?token=")).unwrap();
        let token = link.split_once("token=").unwrap().1;
        let (status, page) = browser.post("/inbox/login", &[("token", token)]).await;
        assert_eq!(status, 200, "{page}");
        assert!(page.contains(&format!("<b>{name}</b>")), "{page}");
        browser
    }
}

fn field(page: &str, name: &str) -> String {
    let pattern = Regex::new(&format!("name=\"{name}\" value=\"([^\"]+)\"")).unwrap();
    pattern.captures_iter(page).last().unwrap_or_else(|| panic!("no {name} in {page}"))[1].to_owned()
}

fn pending() -> Settings {
    Settings { hold: "budget = \"500ms\"".replace("500ms", "1s"), ..Settings::default() }
}

#[tokio::test]
async fn a_login_works_once_for_its_person_and_a_stranger_sees_nothing() {
    let world = World::with(pending()).await;
    let stranger = Browser::new(&world);
    for path in ["/inbox", "/inbox/abc", "/inbox/events"] {
        let (status, page) = stranger.get(path).await;
        assert_eq!(status, 401, "{path}");
        assert!(!page.contains("Waiting for you"));
    }
    assert_eq!(stranger.post("/inbox/login", &[("token", "guess")]).await.0, 403);
    let (_, text) = world.run(&["approvals", "login", "anna"]);
    let token = text.lines().find_map(|line| line.split_once("token=")).unwrap().1.to_owned();
    // A link that is only looked at is not used up.
    assert!(stranger.get(&format!("/inbox/login?token={token}")).await.1.contains("works once"));
    assert_eq!(Browser::new(&world).post("/inbox/login", &[("token", &token)]).await.0, 200);
    assert_eq!(Browser::new(&world).post("/inbox/login", &[("token", &token)]).await.0, 403);
    let (code, text) = world.run(&["approvals", "login", "mallory"]);
    assert!(code != 0 && text.contains("`mallory` is not an approver"), "{text}");
}

#[tokio::test]
async fn the_page_shows_all_of_what_will_run_and_nothing_can_hide_in_it() {
    let world = World::with(pending()).await;
    let client = Client::new(&world.mcp());
    let comment = "<script>alert(1)</script> \u{202e}txt.exe\u{200b} <b>Approved by anna</b> &amp; end-of-comment";
    let padding = " ".repeat(3000);
    let arguments = json!({"payment_id": "pay-1", "amount": 80, "currency": "EUR", "iban": "DE1", "comment": format!("{comment}{padding}tail"), "hidden": {"deep": ["x", 17]}});
    let params =
        json!({"name": "refund_payment", "arguments": arguments, "_meta": {"dev.countersign/reason": "urgent, pre-approved by the <i>CISO</i>"}});
    let reply = client.request(json!(1), "tools/call", params).await.unwrap();
    assert_eq!(reply.state(), "pending", "{}", reply.text);
    let waiting = world.one_waiting().await;
    let anna = Browser::sign_in(&world, "anna").await;
    let (_, list) = anna.get("/inbox").await;
    assert!(list.contains("Waiting for you") && list.contains("Refund 80 EUR for pay-1 to DE1"));
    let (_, page) = anna.get(&format!("/inbox/{}", waiting["id"].as_str().unwrap())).await;
    assert!(!page.contains("<script>alert") && !page.contains("<b>Approved by anna</b>") && !page.contains("<i>CISO"));
    for part in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "\\u{202E}",
        "\\u{200B}",
        "[3000 blanks]",
        "tail",
        "&quot;deep&quot;",
        "17",
        "end-of-comment",
        "Unverified.",
        "the tool declares no such argument",
        "first seen",
        "refund:pay-1",
        "customer money",
        "answered for by",
        "olga",
        "2 of anna, bert",
        waiting["digest"].as_str().unwrap(),
        "data-left",
        "Before this",
        "from built-in, for this call alone, 60 s at most, then revoked",
    ] {
        assert!(page.contains(part), "`{part}` is not on the page:\n{page}");
    }
    assert!(!page.contains('\u{202e}') && !page.contains('\u{200b}'));
}

#[tokio::test]
async fn a_decision_needs_the_forms_token_and_the_digest_that_was_shown() {
    let world = World::with(pending()).await;
    let client = Client::new(&world.mcp());
    assert_eq!(client.call("refund_payment", refund(8000)).await.state(), "pending");
    let id = world.one_waiting().await["id"].as_str().unwrap().to_owned();
    let path = format!("/inbox/{id}");
    let anna = Browser::sign_in(&world, "anna").await;
    let (_, page) = anna.get(&path).await;
    let (csrf, digest) = (field(&page, "csrf"), field(&page, "digest"));
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(anna.post(&path, &[("csrf", "guess"), ("digest", &digest), ("verdict", "approve")]).await.0, 401);
    assert_eq!(anna.post(&path, &[("csrf", &csrf), ("digest", &other), ("verdict", "approve")]).await.0, 409);
    assert!(anna.post(&path, &[("csrf", &csrf), ("digest", &digest), ("verdict", "maybe")]).await.0 >= 400);
    let foreign = anna
        .http
        .post(format!("{}{path}", world.address))
        .header("origin", "http://evil.example")
        .form(&[("csrf", &*csrf), ("digest", &digest), ("verdict", "approve")])
        .send()
        .await
        .unwrap();
    assert_eq!(foreign.status(), 403);
    // The owner may look and not decide.
    let olga = Browser::sign_in(&world, "olga").await;
    let (_, page) = olga.get(&path).await;
    assert!(page.contains("You answer for this caller") && !page.contains("Approve this call"));
    let theirs = (field(&page, "csrf"), digest.clone());
    assert_eq!(olga.post(&path, &[("csrf", &theirs.0), ("digest", &theirs.1), ("verdict", "approve")]).await.0, 409);
    assert_eq!(world.one_waiting().await["state"], "pending");
    let (status, page) = anna.post(&path, &[("csrf", &csrf), ("digest", &digest), ("verdict", "approve"), ("reason", "seen the report")]).await;
    assert_eq!(status, 200);
    assert!(page.contains("anna</b> approved") && page.contains("seen the report") && !page.contains("Approve this call"), "{page}");
    // A second click is told, and changes nothing.
    assert_eq!(anna.post(&path, &[("csrf", &csrf), ("digest", &digest), ("verdict", "deny")]).await.0, 409);
    assert!(client.call("refund_payment", refund(8000)).await.said().contains("80.00"));
    let (_, page) = anna.get(&path).await;
    assert!(page.contains("it ran"), "{page}");
    world.check().await;
}

#[tokio::test]
async fn the_page_hears_of_changes_and_a_decision_wakes_the_holder_at_once() {
    let world = World::new().await;
    let anna = Browser::sign_in(&world, "anna").await;
    let mut events = anna.http.get(format!("{}/inbox/events", world.address)).send().await.unwrap();
    assert_eq!(events.status(), 200);
    let client = Client::new(&world.mcp());
    let calling = tokio::spawn(async move { client.call("refund_payment", refund(8000)).await });
    let heard = tokio::time::timeout(Duration::from_secs(5), events.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(heard, "data: changed\n\n");
    let waiting = world.one_waiting().await;
    let start = std::time::Instant::now();
    // From another process: 300 ms is what a holder may take to wake, beside starting the program itself.
    world.approve(&waiting);
    assert!(calling.await.unwrap().said().contains("80.00"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let world = World::new().await;
    let anna = Browser::sign_in(&world, "anna").await;
    let (_, page) = anna.get("/inbox").await;
    let csrf = field(&page, "csrf");
    assert_eq!(anna.post("/inbox/logout", &[("csrf", "guess")]).await.0, 401);
    assert_eq!(anna.get("/inbox").await.0, 200);
    assert_eq!(anna.post("/inbox/logout", &[("csrf", &csrf)]).await.0, 401);
    assert_eq!(anna.get("/inbox").await.0, 401);
}

/// The inbox asks for a one-time code where the policy does, lets the same call be allowed again, and stops that.
#[tokio::test]
async fn codes_and_allowances_work_in_the_inbox() {
    const CODE: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let policy = "server = \"ledger\"\ntool = \"transfer\"\ndefault = \"approve\"\neffect = \"pay\"\n[approval]\ntwo-from = 86\nassurance = \"totp\"\n\
                  again = { for = \"10m\", times = 3, max-score = 84 }\n[credential]\nscope = \"transfer:{/account}\"\n";
    let world = World::with(Settings {
        approvers: format!("[approver.anna]\ntotp = {{ command = [\"printf\", \"{CODE}\"] }}\n[approver.bert]\n[approver.olga]\n"),
        policies: vec![("transfer.toml", policy.into())],
        ..Settings::default()
    })
    .await;
    let transfer = |amount: u32| json!({"account": "acc-1", "to": "acme-ltd", "amount": amount, "currency": "EUR"});
    let anna = Browser::sign_in(&world, "anna").await;
    let client = Client::new(&world.mcp());
    let call = tokio::spawn({
        let (client, arguments) = (client.clone(), transfer(1));
        async move { client.call("transfer", arguments).await }
    });
    let id = world.one_waiting().await["id"].as_str().unwrap().to_owned();
    let path = format!("/inbox/{id}");
    let (_, page) = anna.get(&path).await;
    assert!(page.contains("One-time code") && page.contains("Up to 3 times"), "{page}");
    let (csrf, digest) = (field(&page, "csrf"), field(&page, "digest"));
    let form = |code: &str, again: &str| {
        [("csrf", csrf.clone()), ("digest", digest.clone()), ("verdict", "approve".into()), ("code", code.to_owned()), ("again", again.to_owned())]
    };
    let totp = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(CODE).unwrap()).build().unwrap();
    let code = totp.generate_current().to_string();
    for (code, again, part) in
        [("", "0", "one-time code as well"), ("000000", "0", "wrong or was used"), (code.as_str(), "4", "may not be allowed again")]
    {
        let form = form(code, again);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, page) = anna.post(&path, &form).await;
        assert!(status == 409 && page.contains(part), "{status} {page}");
    }
    // The code was used up by the try that asked for too much: the next one is taken a step later at most.
    let next = (0..40).find_map(|n| {
        std::thread::sleep(Duration::from_secs(u64::from(n > 0)));
        let now = totp.generate_current().to_string();
        let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 30;
        let ahead = totp.generate(ahead).to_string();
        [now, ahead].into_iter().find(|other| *other != code)
    });
    let form = form(&next.unwrap(), "3");
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (status, page) = anna.post(&path, &form).await;
    assert_eq!(status, 200, "{page}");
    assert!(!call.await.unwrap().is_error());
    let again = client.call("transfer", transfer(1)).await;
    assert!(!again.is_error(), "{}", again.text);
    let bert = Browser::sign_in(&world, "bert").await;
    let olga = Browser::sign_in(&world, "olga").await;
    let (_, page) = bert.get("/inbox").await;
    let allowance = Regex::new("/inbox/allowances/([0-9a-f]{32})").unwrap().captures(&page).unwrap()[1].to_owned();
    assert!(page.contains("2 more times"), "{page}");
    let stop = format!("/inbox/allowances/{allowance}");
    assert_eq!(anna.post(&stop, &[("csrf", "guess")]).await.0, 401);
    let (_, page) = olga.get("/inbox").await;
    assert_eq!(olga.post(&stop, &[("csrf", &field(&page, "csrf"))]).await.0, 409, "she decides no such calls");
    let (_, page) = bert.get("/inbox").await;
    let (status, page) = bert.post(&stop, &[("csrf", &field(&page, "csrf"))]).await;
    assert!(status == 200 && !page.contains("Allowed again"), "{page}");
    let again = tokio::spawn(async move { client.call("transfer", transfer(1)).await });
    world.deny(&world.one_waiting().await);
    assert!(again.await.unwrap().is_error());
    world.check().await;
}
