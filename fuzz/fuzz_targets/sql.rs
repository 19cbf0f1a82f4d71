//! Judging SQL never panics, always ends, and says the same of the same.
#![no_main]

use countersign::domain::json::Value;
use countersign::domain::risk::Role;
use libfuzzer_sys::fuzz_target;

#[path = "../judge.rs"]
mod judge;

fuzz_target!(|text: &str| judge::same_twice(Role::Sql(countersign::domain::risk::Dialect::Unknown), &Value::from(text)));
