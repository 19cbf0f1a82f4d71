//! Slack's own limits on what is posted, as it documents them and as others met them.

use serde_json::Value;

/// The word and what it is about.
pub struct Wrong(pub &'static str, pub String);

impl std::fmt::Debug for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// All blocks of a message together.
const MESSAGE: usize = 13_172;

pub fn message(input: &Value) -> Result<(), Wrong> {
    let blocks = input["blocks"].as_array().cloned().unwrap_or_default();
    let text = input["text"].as_str().unwrap_or_default();
    if blocks.is_empty() && text.is_empty() {
        return Err(Wrong("no_text", "neither text nor blocks".into()));
    }
    if text.chars().count() > 40_000 {
        return Err(Wrong("msg_too_long", "text".into()));
    }
    if Value::Array(blocks.clone()).to_string().chars().count() > MESSAGE {
        return Err(Wrong("msg_blocks_too_long", "blocks".into()));
    }
    if blocks.len() > 50 {
        return Err(Wrong("invalid_blocks", "more than 50".into()));
    }
    blocks.iter().try_for_each(|one| block(one, false))
}

pub fn view(view: &Value) -> Result<(), Wrong> {
    let wrong = |what: &str| Err(Wrong("invalid_arguments", what.to_owned()));
    if view.to_string().len() > 250_000 {
        return Err(Wrong("view_too_large", "view".into()));
    }
    if view["type"] != "modal" || length(&view["title"]["text"]) > 24 || length(&view["title"]["text"]) == 0 {
        return wrong("type or title");
    }
    if length(&view["submit"]["text"]) > 24 || length(&view["close"]["text"]) > 24 || length(&view["callback_id"]) > 255 {
        return wrong("submit, close or callback_id");
    }
    if length(&view["private_metadata"]) > 3000 {
        return wrong("private_metadata");
    }
    let blocks = view["blocks"].as_array().cloned().unwrap_or_default();
    if blocks.is_empty() || blocks.len() > 100 {
        return wrong("blocks");
    }
    if blocks.iter().any(|b| b["type"] == "input") && view["submit"].is_null() {
        return wrong("inputs without submit");
    }
    blocks.iter().try_for_each(|one| block(one, true))
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().map(char::len_utf16).sum())
}

fn block(block: &Value, modal: bool) -> Result<(), Wrong> {
    let wrong = |what: &str| Err(Wrong("invalid_blocks", format!("{what}: {block}").chars().take(500).collect()));
    if length(&block["block_id"]) > 255 {
        return wrong("block_id");
    }
    let items = |key: &str| block[key].as_array().cloned().unwrap_or_default();
    match block["type"].as_str().unwrap_or_default() {
        "header" => {
            if block["text"]["type"] != "plain_text" || !(1..=150).contains(&length(&block["text"]["text"])) {
                return wrong("header text");
            }
        }
        "section" => {
            if !block["text"].is_null() && !(1..=3000).contains(&length(&block["text"]["text"])) {
                return wrong("section text");
            }
            if items("fields").len() > 10 || items("fields").iter().any(|f| !(1..=2000).contains(&length(&f["text"]))) {
                return wrong("fields");
            }
        }
        "context" => {
            if items("elements").is_empty()
                || items("elements").len() > 10
                || items("elements").iter().any(|e| !(1..=2000).contains(&length(&e["text"])))
            {
                return wrong("context");
            }
        }
        "actions" => {
            if items("elements").is_empty() || items("elements").len() > 25 {
                return wrong("actions");
            }
            let mut ids = Vec::new();
            for element in items("elements") {
                if element["type"] != "button" || !(1..=75).contains(&length(&element["text"]["text"])) || length(&element["value"]) > 2000 {
                    return wrong("button");
                }
                let confirm = &element["confirm"];
                if !confirm.is_null() {
                    let within = |key: &str, most: usize| (1..=most).contains(&length(&confirm[key]["text"]));
                    if !(within("title", 100) && within("text", 300) && within("confirm", 30) && within("deny", 30)) {
                        return wrong("confirm");
                    }
                }
                ids.push(element["action_id"].to_string());
            }
            let count = ids.len();
            ids.sort();
            ids.dedup();
            if ids.len() != count {
                return wrong("two buttons with one action_id");
            }
        }
        "rich_text" => {
            if items("elements").is_empty() {
                return wrong("empty rich text");
            }
            for part in items("elements") {
                rich(&part).map_err(|what| Wrong("invalid_blocks", format!("{what}: {part}").chars().take(500).collect()))?;
            }
        }
        "input" if modal => {
            if !(1..=2000).contains(&length(&block["label"]["text"])) || length(&block["hint"]["text"]) > 2000 {
                return wrong("input");
            }
            match block["element"]["type"].as_str().unwrap_or_default() {
                "plain_text_input" if block["element"]["max_length"].as_u64().unwrap_or(1) <= 3000 => {}
                "static_select" => {
                    let options = block["element"]["options"].as_array().cloned().unwrap_or_default();
                    let long = |o: &Value| !(1..=75).contains(&length(&o["text"]["text"])) || !(1..=150).contains(&length(&o["value"]));
                    if options.is_empty() || options.len() > 100 || options.iter().any(long) {
                        return wrong("options");
                    }
                }
                _ => return wrong("element"),
            }
        }
        _ => return wrong("unknown type"),
    }
    Ok(())
}

fn rich(part: &Value) -> Result<(), &'static str> {
    let items = part["elements"].as_array().cloned().unwrap_or_default();
    match part["type"].as_str().unwrap_or_default() {
        "rich_text_list" => {
            if items.is_empty() {
                return Err("empty list");
            }
            items.iter().try_for_each(rich)
        }
        "rich_text_section" | "rich_text_preformatted" | "rich_text_quote" => {
            if items.is_empty() {
                return Err("empty section");
            }
            for run in &items {
                let good = match run["type"].as_str().unwrap_or_default() {
                    "text" => length(&run["text"]) > 0,
                    "user" => length(&run["user_id"]) > 0,
                    "date" => run["timestamp"].is_i64() && length(&run["format"]) > 0,
                    _ => false,
                };
                if !good {
                    return Err("run");
                }
            }
            Ok(())
        }
        _ => Err("unknown part"),
    }
}
