//! No text of an agent reaches a card as anything but text, and what does not fit cannot be approved on it.
#![no_main]

use countersign::adapters::channel::people::People;
use countersign::adapters::channel::slack::preview;
use countersign::domain::approval::Approval;
use countersign::domain::clock::Timestamp;
use countersign::domain::text::is_hidden;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(arbitrary::Arbitrary, Debug)]
struct Words {
    tool: String,
    title: String,
    reason: String,
    evidence: String,
    key: String,
    value: String,
    times: u8,
    score: u8,
}

fuzz_target!(|words: Words| {
    let mut stored: Value = serde_json::from_str(include_str!("approval.json")).unwrap();
    let request = &mut stored["request"];
    request["tool"] = json!(words.tool);
    request["title"] = json!(words.title);
    request["stated_reason"] = json!(words.reason);
    request["sensitivity"] = json!(words.reason);
    request["arguments"] = json!(json!({words.key: words.value.repeat(usize::from(words.times))}).to_string());
    request["assessment"]["score"] = json!(words.score % 101);
    for finding in request["assessment"]["findings"].as_array_mut().unwrap() {
        finding["reason"] = json!(words.reason);
        finding["evidence"] = json!(words.evidence);
    }
    let approval: Approval = serde_json::from_value(stored).unwrap();
    let card = preview(&approval, &People::default(), Timestamp(0));
    assert!(card["blocks"].to_string().len() <= 12_002);
    assert!(card["text"].as_str().unwrap().chars().all(|c| c.is_ascii_alphanumeric() || " :,".contains(c)));
    inspect(&card["blocks"]);
    let blocks = card["blocks"].as_array().unwrap();
    assert_eq!(blocks.iter().filter(|b| b["type"] == "header").count(), 1);
    let approve = card.to_string().contains("\"action_id\":\"approve\"");
    let framed = blocks.iter().flat_map(|b| b["elements"].as_array().into_iter().flatten()).any(|part| part["type"] == "rich_text_preformatted");
    assert!(!approve || (framed && words.score % 101 < 85));
});

fn inspect(value: &Value) {
    match value {
        Value::Object(map) => {
            let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
            assert!(!["mrkdwn", "link", "emoji", "broadcast", "usergroup", "channel", "image", "markdown", "user"].contains(&kind), "{value}");
            assert!(map.get("emoji").is_none_or(|emoji| emoji == &Value::Bool(false)));
            for (key, member) in map {
                match member {
                    Value::String(text) if key == "text" => assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{text:?}"),
                    Value::String(text) if ["value", "action_id", "url"].contains(&key.as_str()) => {
                        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
                    }
                    _ => inspect(member),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(inspect),
        _ => {}
    }
}
