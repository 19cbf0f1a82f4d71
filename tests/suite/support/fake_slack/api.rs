//! The fake's Web API: JSON and form bodies, the real methods' answers and errors.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::{APP_TOKEN, BOT_TOKEN, FakeSlack, Fault, Posted, TEAM, TRIGGER, dm, limits, tls};

pub async fn serve(slack: FakeSlack, listener: TcpListener, acceptor: Option<tokio_rustls::TlsAcceptor>) {
    let stop = slack.stop.clone();
    let router = Router::new().route("/api/{method}", any(call)).with_state(slack);
    let stopped = async move { stop.cancelled().await };
    match acceptor {
        Some(acceptor) => drop(axum::serve(tls::Listener { tcp: listener, acceptor }, router).with_graceful_shutdown(stopped).await),
        None => drop(axum::serve(listener, router).with_graceful_shutdown(stopped).await),
    }
}

fn as_json(value: Value) -> impl IntoResponse {
    ([("content-type", "application/json; charset=utf-8")], value.to_string())
}

fn refuse(word: &str) -> Value {
    json!({"ok": false, "error": word})
}

async fn call(State(slack): State<FakeSlack>, Path(method): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut input = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(map)) if kind.starts_with("application/json") => map,
        _ => Map::new(),
    };
    for text in [query.unwrap_or_default().into_bytes(), if kind.starts_with("application/x-www-form-urlencoded") { body.to_vec() } else { vec![] }] {
        for (name, value) in url::form_urlencoded::parse(&text) {
            // What is JSON in a form is text there.
            let parsed =
                if ["blocks", "view", "attachments"].contains(&&*name) { serde_json::from_str(&value).unwrap_or(Value::Null) } else { json!(value) };
            input.insert(name.into_owned(), parsed);
        }
    }
    let input = Value::Object(input);
    slack.lock().calls.push((method.clone(), input.clone()));
    let token = headers.get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer ")).map(str::to_owned);
    let token = token.or_else(|| input["token"].as_str().map(str::to_owned));
    let expected = if method == "apps.connections.open" { APP_TOKEN } else { BOT_TOKEN };
    let fault = {
        let mut state = slack.lock();
        let next = state.faults.get_mut(&method).and_then(std::collections::VecDeque::pop_front);
        next.or_else(|| state.lasting.get(&method).or_else(|| state.lasting.get("*")).cloned())
    };
    match fault {
        Some(Fault::Slower(seconds)) => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], as_json(refuse("ratelimited"))).into_response();
        }
        Some(Fault::Status(status)) => return (StatusCode::from_u16(status).unwrap(), "upstream trouble").into_response(),
        Some(Fault::Late(length)) => tokio::time::sleep(length).await,
        Some(Fault::Refuse(word)) => return as_json(refuse(word)).into_response(),
        Some(Fault::DoneAndGone) => {
            slack.answer(&method, &input);
            return (StatusCode::BAD_GATEWAY, "gone").into_response();
        }
        None => {}
    }
    if token.as_deref() != Some(expected) {
        return as_json(refuse(if token.is_some() { "invalid_auth" } else { "not_authed" })).into_response();
    }
    match slack.answer(&method, &input) {
        Answer::Json(value) => as_json(value).into_response(),
        Answer::Slower(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], as_json(refuse("ratelimited"))).into_response()
        }
    }
}

enum Answer {
    Json(Value),
    Slower(u64),
}

impl FakeSlack {
    fn answer(&self, method: &str, input: &Value) -> Answer {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let answer = match method {
            "api.test" => json!({"ok": true}),
            "auth.test" => json!({
                "ok": true, "url": "https://example.slack.com/", "team": "Example", "user": "countersign", "team_id": TEAM,
                "user_id": "U0BOT", "bot_id": "B0BOT", "is_enterprise_install": false,
            }),
            "apps.connections.open" => {
                let number = self.number();
                let mut state = self.lock();
                state.opened += 1;
                let ticket = format!("ticket-{number}");
                state.tickets.push(ticket.clone());
                json!({"ok": true, "url": format!("{}/link/?ticket={ticket}&app_id={}", state.socket_base, super::APP)})
            }
            "conversations.open" => match self.lock().users.contains_key(&text("users")) {
                true => json!({"ok": true, "channel": {"id": dm(&text("users"))}}),
                false => refuse("user_not_found"),
            },
            "conversations.info" => match self.lock().rooms.get(&text("channel")) {
                Some(room) => json!({"ok": true, "channel": room}),
                None => refuse("channel_not_found"),
            },
            "users.info" => match self.lock().users.get(&text("user")) {
                Some(user) => json!({"ok": true, "user": user}),
                None => refuse("user_not_found"),
            },
            "users.lookupByEmail" => {
                let email = text("email");
                match self.lock().users.values().find(|user| user["profile"]["email"] == email.as_str()) {
                    Some(user) => json!({"ok": true, "user": user}),
                    None => refuse("users_not_found"),
                }
            }
            "usergroups.users.list" => match self.lock().groups.get(&text("usergroup")) {
                Some(users) => json!({"ok": true, "users": users}),
                None => refuse("no_such_subteam"),
            },
            "chat.postMessage" | "chat.postEphemeral" => return self.post(method, input),
            "chat.update" => self.update(input),
            "views.open" | "views.push" => self.open(input),
            "views.update" => self.change(input),
            _ => refuse("unknown_method"),
        };
        Answer::Json(answer)
    }

    fn place(&self, channel: &str) -> Option<String> {
        let state = self.lock();
        let direct = state.users.keys().map(|user| dm(user)).find(|place| place == channel);
        direct
            .or_else(|| state.rooms.contains_key(channel).then(|| channel.to_owned()))
            .or_else(|| state.users.contains_key(channel).then(|| dm(channel)))
    }

    fn post(&self, method: &str, input: &Value) -> Answer {
        let Some(channel) = self.place(input["channel"].as_str().unwrap_or_default()) else { return Answer::Json(refuse("channel_not_found")) };
        {
            // About one a second to each place, with short bursts.
            let mut state = self.lock();
            let recent = state.recent.entry(channel.clone()).or_default();
            recent.retain(|at| at.elapsed() < Duration::from_secs(1));
            if recent.len() >= 8 {
                return Answer::Slower(1);
            }
            recent.push(Instant::now());
        }
        if let Err(error) = limits::message(input) {
            return Answer::Json(json!({"ok": false, "error": error.0, "errors": [error.1]}));
        }
        let number = self.number();
        let ts = format!("1700000000.{number:06}");
        let thread = input["thread_ts"].as_str().map(str::to_owned);
        if let Some(thread) = &thread
            && !self.lock().messages.iter().any(|m| m.ts == *thread && m.channel == channel)
        {
            return Answer::Json(refuse("thread_not_found"));
        }
        let blocks = input["blocks"].as_array().cloned().unwrap_or_default();
        let mut state = self.lock();
        if !blocks.is_empty() {
            state.payloads.push(json!({"type": "message", "text": input["text"], "blocks": blocks}));
        }
        state.messages.push(Posted {
            channel: channel.clone(),
            ts: ts.clone(),
            thread,
            text: input["text"].as_str().unwrap_or_default().to_owned(),
            blocks,
            only: (method == "chat.postEphemeral").then(|| input["user"].as_str().unwrap_or_default().to_owned()),
            updates: 0,
        });
        Answer::Json(json!({"ok": true, "channel": channel, "ts": ts, "message_ts": ts, "message": {"text": input["text"]}}))
    }

    fn update(&self, input: &Value) -> Value {
        if let Err(error) = limits::message(input) {
            return json!({"ok": false, "error": error.0, "errors": [error.1]});
        }
        let mut state = self.lock();
        let found = state.messages.iter_mut().find(|m| m.ts == input["ts"].as_str().unwrap_or_default() && input["channel"] == m.channel.as_str());
        let Some(message) = found.filter(|m| m.only.is_none()) else { return refuse("message_not_found") };
        message.text = input["text"].as_str().unwrap_or_default().to_owned();
        // Text without blocks takes the blocks away.
        message.blocks = input["blocks"].as_array().cloned().unwrap_or_default();
        message.updates += 1;
        let answer = json!({"ok": true, "channel": message.channel, "ts": message.ts, "text": message.text});
        let payload = json!({"type": "message", "text": input["text"], "blocks": message.blocks});
        state.payloads.push(payload);
        answer
    }

    fn open(&self, input: &Value) -> Value {
        let trigger = self.lock().triggers.remove(input["trigger_id"].as_str().unwrap_or_default());
        match trigger {
            None => return refuse("invalid_trigger_id"),
            Some(at) if at.elapsed() > TRIGGER => return refuse("expired_trigger_id"),
            Some(_) => {}
        }
        if let Err(error) = limits::view(&input["view"]) {
            return json!({"ok": false, "error": error.0, "response_metadata": {"messages": [error.1]}});
        }
        let id = format!("V{:010}", self.number());
        let mut state = self.lock();
        state.payloads.push(input["view"].clone());
        state.views.insert(id.clone(), input["view"].clone());
        json!({"ok": true, "view": {"id": id}})
    }

    fn change(&self, input: &Value) -> Value {
        if let Err(error) = limits::view(&input["view"]) {
            return json!({"ok": false, "error": error.0, "response_metadata": {"messages": [error.1]}});
        }
        let mut state = self.lock();
        match state.views.get_mut(input["view_id"].as_str().unwrap_or_default()) {
            Some(view) => {
                *view = input["view"].clone();
                state.payloads.push(input["view"].clone());
                json!({"ok": true, "view": {"id": input["view_id"]}})
            }
            None => refuse("not_found"),
        }
    }
}
