//! Which of several environments a call reaches.

use super::{EnvironmentRole, Finding, Group, Sight};
use crate::domain::json::{Pointer, Value};

/// Words that stand for what matters most.
const USUAL: [&str; 12] = ["prod", "production", "live", "prd", "main", "master", "release", "kube-system", "default", "trunk", "stable", "global"];

pub(super) fn observe(role: &EnvironmentRole, pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let Some(text) = value.as_str() else {
        if !matches!(value, Value::Null) {
            seen.find(Finding::uninspectable("environment", Group::Magnitude, "the environment is not text").at(pointer, value));
        }
        return;
    };
    let lower = text.trim().to_lowercase();
    let dangerous = match role.dangerous.as_slice() {
        [] => {
            USUAL.contains(&lower.as_str())
                || lower.split(['-', '_', '.', '/', ':']).any(|part| matches!(part, "prod" | "production" | "live" | "prd"))
        }
        named => named.iter().any(|name| name.eq_ignore_ascii_case(&lower)),
    };
    if dangerous {
        seen.fact("environment", "dangerous", Value::Bool(true));
        seen.find(
            Finding::new("environment", Group::Magnitude, 350, format!("it reaches `{}`", crate::domain::text::visible(&lower))).at(pointer, value),
        );
    }
}
