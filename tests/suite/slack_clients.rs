//! The fake Slack against the official clients, so that what is tested against it would work against the real one.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::clients::{node, python};
use crate::support::fake_slack::{APP_TOKEN, BOT_TOKEN, FakeSlack, SECRET, sign};

/// Runs a client that posts a card with a button, and presses the button when it is there.
async fn admitted(command: Option<Command>) {
    let Some(mut command) = command else { return };
    let (slack, _held) = FakeSlack::start().await;
    slack.group("S0TEAM", &["U0ANNA"]);
    command.env("API", format!("{}/", slack.api)).env("BOT_TOKEN", BOT_TOKEN).env("APP_TOKEN", APP_TOKEN);
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let pressing = async {
        slack.connected(1).await;
        let card = slack.card("U0ANNA").await;
        // The library may still be putting its listeners in place.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ack = slack.click("U0ANNA", &card, "approve").await;
        assert!(ack.took < Duration::from_secs(3));
        let view = loop {
            if let Some(id) = (1..200).map(|n| format!("V{n:010}")).find(|id| !slack.view(id).is_null()) {
                break id;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let ack = slack.submit("U0ANNA", &view, &[("reason", "because")]).await;
        ack.payload
    };
    let (output, payload) = tokio::join!(run, tokio::time::timeout(Duration::from_secs(40), pressing));
    let output = output.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("every step came out as told"), "{text}");
    assert_eq!(payload.unwrap(), Some(json!({"response_action": "clear"})), "{text}");
    let card = &slack.inbox_of("U0ANNA")[0];
    assert!(card.text.contains("decided") && card.buttons().is_empty(), "{card:?}");
}

#[tokio::test]
async fn the_python_sdk_takes_it_for_slack() {
    admitted(python("slack_sdk_story.py")).await;
}

#[tokio::test]
async fn bolt_takes_it_for_slack() {
    admitted(node("slack_bolt.mjs")).await;
}

/// Our signatures, and those that are refused, against the official verifier.
#[tokio::test]
async fn signatures_agree_with_the_official_verifier() {
    let Some(mut command) = python("slack_signatures.py") else { return };
    let now = 1_700_000_000;
    let body = "payload=%7B%22type%22%3A%22block_actions%22%7D";
    let right = sign(SECRET, now, body);
    let mut cases = Vec::new();
    for (at, clock) in [(now, now), (now, now + 300), (now, now + 301), (now, now - 300), (now, now - 301)] {
        cases.push((body, right.clone(), at.to_string(), clock));
    }
    cases.push((body, right.replace('a', "b"), now.to_string(), now));
    cases.push((body, right.to_uppercase(), now.to_string(), now));
    cases.push((body, right.trim_start_matches("v0=").to_owned(), now.to_string(), now));
    cases.push(("payload=other", right.clone(), now.to_string(), now));
    cases.push((body, String::new(), now.to_string(), now));
    cases.push((body, right.clone(), "soon".into(), now));
    let input: Vec<_> =
        cases.iter().map(|(body, signature, at, clock)| json!({"body": body, "signature": signature, "at": at, "clock": clock})).collect();
    command.arg(serde_json::to_string(&json!({"secret": SECRET, "cases": input})).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let theirs: Vec<bool> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(theirs, [true, true, false, true, false, false, false, false, false, false, false]);
}
