//! Judging a URL never panics, always ends, and says the same of the same.
#![no_main]

use countersign::domain::json::Value;
use countersign::domain::risk::Role;
use libfuzzer_sys::fuzz_target;

#[path = "../judge.rs"]
mod judge;

fuzz_target!(|text: &str| judge::same_twice(Role::Url(countersign::domain::risk::UrlRole { hosts: vec!["example.com".into()], learned: true }), &Value::from(text)));
