//! Money, in exact decimals: over the limit, negative, or not readable as a number.

use rust_decimal::Decimal;

use super::{AmountRole, Finding, Group, Sight};
use crate::domain::call::ToolCall;
use crate::domain::json::{Pointer, Value};

pub(super) fn observe(role: &AmountRole, pointer: &Pointer, value: &Value, call: &ToolCall, seen: &mut Sight<'_>) {
    let number = match value {
        Value::Number(_) | Value::String(_) => exact(&value.plain()),
        _ => None,
    };
    let Some(amount) = number else {
        seen.find(Finding::uninspectable("amount", Group::Magnitude, "the amount is not a number").at(pointer, value));
        return;
    };
    seen.fact("amount", "readable", Value::Bool(true));
    if matches!(value, Value::String(_)) {
        seen.find(Finding::new("amount", Group::Integrity, 100, "the amount is written as text").at(pointer, value));
    }
    let currency = role.currency.as_ref().and_then(|p| p.resolve(&call.arguments)).map(Value::plain).unwrap_or_default();
    // A negative amount turns the payment round: it is compared by its size.
    if amount.is_sign_negative() && !amount.is_zero() {
        seen.find(Finding::new("amount", Group::Magnitude, 600, "the amount is negative").at(pointer, value));
    }
    match role.limit {
        Some(limit) if amount.abs() > limit => {
            seen.fact("amount", "over_limit", Value::Bool(true));
            let reason = format!("amount over limit: {} where {} is the most", with(&amount, &currency), with(&limit, &currency));
            seen.find(Finding::new("amount", Group::Magnitude, 700, reason).at(pointer, value).floor("pay-limit", 85));
        }
        Some(_) => {}
        None => seen.find(Finding::new("amount", Group::Magnitude, 200, "money moves, and no limit is set").at(pointer, value)),
    }
}

/// What an argument would add to what was spent: the size of every amount in it that can be read.
pub(super) fn size(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(_) | Value::String(_) => exact(&value.plain()).map(|amount| amount.abs()),
        _ => None,
    }
}

/// Over the limit of a window: `before` was spent in it, and this call adds `more`.
pub(super) fn over_window(limit: Decimal, before: Decimal, more: Decimal, place: &str, seen: &mut Sight<'_>) {
    if before.checked_add(more).is_none_or(|sum| sum > limit) {
        seen.fact("amount", "over_window", Value::Bool(true));
        let reason = format!("over the limit together with earlier calls: {before} before, {more} now, where {limit} is the most");
        let mut finding = Finding::new("amount", Group::Magnitude, 700, reason).floor("pay-limit", 85);
        finding.pointer = Some(place.to_owned());
        seen.find(finding);
    }
}

/// The exact decimal that a text means; exponents as JSON writes them, at most 28 digits.
pub(super) fn exact(text: &str) -> Option<Decimal> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    if !plain || text.len() > 40 {
        return None;
    }
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).ok();
    }
    Decimal::from_str_exact(text).ok()
}

fn with(amount: &Decimal, currency: &str) -> String {
    let currency: String = currency.chars().filter(|c| c.is_ascii_alphanumeric()).take(8).collect();
    if currency.is_empty() { amount.to_string() } else { format!("{amount} {currency}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        assert_eq!(exact("0.1").unwrap() + exact("0.2").unwrap(), exact("0.3").unwrap());
        assert_eq!(exact("1e+21").map(|d| d.to_string()).as_deref(), Some("1000000000000000000000"));
        for bad in ["", "1,000", "100 EUR", "NaN", "1_000", "٣"] {
            assert_eq!(exact(bad), None, "{bad}");
        }
    }
}
