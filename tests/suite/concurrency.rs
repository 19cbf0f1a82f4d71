//! Many callers at once: no answer reaches the wrong one.

use serde_json::json;

use crate::support::World;
use crate::support::mcp::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_with_held_and_allowed_calls_get_their_own_answers() {
    const CALLERS: usize = 200;
    let hold = "budget = \"50s\"\nbudget-with-progress = \"50s\"\npending-per-caller = 200\n".to_owned();
    let world = World::with(crate::support::Settings { hold, ..Default::default() }).await;
    let mut work = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let client = Client::new(&world.mcp());
        work.spawn(async move {
            // Every caller uses the same ids: only streams tell them apart.
            let allowed = client.request(json!(1), "tools/call", json!({"name": "get_account", "arguments": {"account": format!("acc-{n}")}}));
            let amount = format!("{}.{:02}", 1 + n / 100, n % 100).parse::<f64>().unwrap();
            let arguments = json!({"payment_id": "pay-2", "amount": amount, "currency": "EUR", "iban": format!("DE{n}")});
            let held = client.request(json!(2), "tools/call", json!({"name": "refund_payment", "arguments": arguments}));
            let (allowed, held) = tokio::join!(allowed, held);
            (n, allowed.unwrap(), held.unwrap())
        });
    }
    let waiting = world.some_waiting(CALLERS).await;
    // Each approval takes a whole program: a few at a time, from threads of their own.
    let (config, ids) = (world.config.clone(), waiting.iter().map(|w| w["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    let deciding = tokio::task::spawn_blocking(move || {
        for id in ids {
            let arguments = ["approvals", "approve", &id, "--as", "anna", "--yes"];
            let status = std::process::Command::new(crate::support::countersign())
                .arg("--config")
                .arg(&config)
                .args(arguments)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
        }
    });
    let mut seen = 0;
    while let Some(done) = work.join_next().await {
        let (n, allowed, held) = done.unwrap();
        assert_eq!(allowed.answer()["id"], 1);
        assert!(n == 0 || n > 3 || allowed.said().contains(&format!("acc-{n}")), "{n}: {}", allowed.text);
        assert_eq!(held.answer()["id"], 2);
        assert!(held.said().contains(&format!(" EUR from acc-1 to DE{n}")) && held.said().ends_with(&format!("DE{n}")), "{n}: {}", held.text);
        seen += 1;
    }
    deciding.await.unwrap();
    assert_eq!(seen, CALLERS);
    assert_eq!(world.received_of("refund_payment").await, CALLERS);
    world.check().await;
}
