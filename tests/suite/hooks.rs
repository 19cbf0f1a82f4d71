//! What users asked for, as the hooks of their clients tell: on the approver's page and in the record, unverified.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::mcp::Client;
use crate::support::{IBAN, Settings, World, countersign, refund};

/// Runs the hook as Claude Code does; answers its code and what it said on both outputs.
fn hook(world: &World, event: &Value) -> (i32, String, String) {
    let mut hook = Command::new(countersign());
    hook.arg("--config").arg(&world.config).args(["hook", "claude-code"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut hook = hook.spawn().unwrap();
    hook.stdin.take().unwrap().write_all(event.to_string().as_bytes()).unwrap();
    let output = hook.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn event(name: &str, more: Value) -> Value {
    let mut event = json!({
        "session_id": "3f1c", "transcript_path": "/home/u/.claude/projects/x/3f1c.jsonl", "cwd": "/home/u/x", "permission_mode": "default",
        "hook_event_name": name,
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

fn asks(world: &World, prompt: &str, arguments: &Value) {
    for event in [
        event("SessionStart", json!({"source": "startup"})),
        event("UserPromptSubmit", json!({ "prompt": prompt })),
        event("PreToolUse", json!({"tool_name": "Bash", "tool_input": {"command": "ls"}})),
        event("PreToolUse", json!({"tool_name": "mcp__money__refund_payment", "tool_input": arguments, "tool_use_id": "toolu_1"})),
    ] {
        assert_eq!(hook(world, &event), (0, String::new(), String::new()), "{event}");
    }
}

async fn recorded(world: &World) -> Value {
    let rows: Vec<(String,)> = world.query(&world.store(), "SELECT data FROM audit WHERE kind = 'asked' ORDER BY seq DESC LIMIT 1").await;
    serde_json::from_str(&rows[0].0).unwrap()
}

async fn held(world: &World, arguments: Value) -> Value {
    let client = Client::new(&world.mcp());
    let call = tokio::spawn(async move { client.call("refund_payment", arguments).await });
    let waiting = world.one_waiting().await;
    let (_, shown) = world.run(&["approvals", "show", waiting["id"].as_str().unwrap()]);
    world.deny(&waiting);
    assert_eq!(call.await.unwrap().state(), "denied");
    shown.into()
}

#[tokio::test]
async fn what_the_user_asked_for_is_shown_and_recorded_as_unverified() {
    let world = World::new().await;
    let arguments = refund(8000);
    asks(&world, "Please refund Ada, she waits since Monday", &arguments);
    let shown = held(&world, arguments).await.as_str().unwrap().to_owned();
    assert!(shown.contains("unverified") && shown.contains("refund Ada, she waits"), "{shown}");
    let record = recorded(&world).await;
    assert_eq!((&record["stated_prompt"], &record["session"]), (&json!("Please refund Ada, she waits since Monday"), &json!("3f1c")));
    // A call that no hook told of has none, whatever was asked last.
    let shown = held(&world, refund(9000)).await;
    assert!(!shown.as_str().unwrap().contains("Ada"), "{shown}");
    assert!(recorded(&world).await["session"].is_null());
    // A prompt with a secret in it is not kept.
    asks(&world, "use ghp_16C7e42F292c6912E7710c838347Ae178B4a for it", &refund(7000));
    let shown = held(&world, refund(7000)).await;
    assert!(!shown.as_str().unwrap().contains("ghp_"), "{shown}");
    assert_eq!(recorded(&world).await["stated_prompt"], "(withheld: it carries a secret)");
}

#[tokio::test]
async fn what_a_policy_masks_is_masked_in_the_prompt_too() {
    let policy = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tool-policies/ledger/refund_payment.toml")).unwrap();
    let policy =
        if policy.contains("[show]") { policy.replace("[show]", "[show]\nmask = [\"/iban\"]") } else { policy + "\n[show]\nmask = [\"/iban\"]\n" };
    let world = World::with(Settings { policies: vec![("refund_payment.toml", policy)], ..Settings::default() }).await;
    asks(&world, &format!("Refund to {IBAN} at once"), &refund(8000));
    let shown = held(&world, refund(8000)).await;
    assert!(!shown.as_str().unwrap().contains(IBAN), "{shown}");
    assert_eq!(recorded(&world).await["stated_prompt"], "Refund to (masked) at once");
}

#[tokio::test]
async fn prompts_are_kept_as_digests_or_not_at_all() {
    for (kept, digest) in [("digest", true), ("off", false)] {
        let world = World::with(Settings { more: format!("[audit]\nprompts = \"{kept}\"\n"), ..Settings::default() }).await;
        asks(&world, "Refund Ada", &refund(8000));
        let shown = held(&world, refund(8000)).await;
        assert!(!shown.as_str().unwrap().contains("Refund Ada"), "{shown}");
        let record = recorded(&world).await;
        assert!(record["stated_prompt"].is_null() && record["prompt_digest"].is_string() == digest, "{record}");
    }
}

#[tokio::test]
async fn a_hook_never_blocks_a_prompt() {
    let mut world = World::new().await;
    let (code, out, error) = hook(&world, &json!("nonsense"));
    assert!(code == 1 && out.is_empty() && error.contains("standard input"), "{code} {out} {error}");
    // No gateway, or one that was killed: nothing to tell, and nothing to say.
    world.kill();
    asks(&world, "anything", &refund(1));
    let sockets = || std::fs::read_dir(world.scratch.0.join("countersign.db.instances")).unwrap().flatten();
    assert!(!sockets().any(|entry| entry.file_name().to_string_lossy().ends_with(".prompts")));
}
