//! Personal data in any string: cards and national numbers, and e-mail addresses in numbers that are a list of people.

use std::sync::LazyLock;

use regex::Regex;

use super::{Finding, Group, Sight};
use crate::domain::forms::form;
use crate::domain::json::{Pointer, Value};

static CARD: LazyLock<Option<Regex>> = LazyLock::new(|| form(r"\b[3-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}\b"));
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| form(r"\b\d{3}-\d{2}-\d{4}\b"));
static MAIL: LazyLock<Option<Regex>> = LazyLock::new(|| form(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,120}\.[A-Za-z]{2,24}"));

/// Looks at one string.
pub(super) fn look(pointer: &Pointer, text: &str, seen: &mut Sight<'_>) {
    if text.len() < 11 {
        return;
    }
    let count = |rule: &LazyLock<Option<Regex>>, fits: &dyn Fn(&str) -> bool| {
        rule.as_ref().map_or(0, |rule| rule.find_iter(text).take(1000).filter(|found| fits(found.as_str())).count())
    };
    // To the end, without a look at each: so the compiler counts many at once.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let cards = if digits >= 12 { count(&CARD, &luhn) } else { 0 };
    let numbers = if digits >= 9 && text.contains('-') { count(&NUMBER, &|_| true) } else { 0 };
    let mails = if text.contains('@') { count(&MAIL, &|_| true) } else { 0 };
    let mut found = |weight, reason: String| {
        seen.fact("personal", "found", Value::Bool(true));
        // The evidence is the count, never the text.
        let mut finding = Finding::new("personal", Group::Content, weight, reason);
        finding.pointer = Some(pointer.to_string());
        seen.find(finding);
    };
    if cards > 0 {
        found(600, format!("the argument carries {cards} payment card numbers"));
    }
    if numbers > 0 {
        found(500, format!("the argument carries {numbers} numbers in the form of social security numbers"));
    }
    if mails >= 10 {
        found(400, format!("the argument carries {mails} e-mail addresses"));
    }
}

/// The check digit of payment cards.
fn luhn(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits.iter().rev().enumerate().map(|(n, d)| if n % 2 == 1 { d * 2 - if *d > 4 { 9 } else { 0 } } else { *d }).sum();
    digits.len() >= 13 && sum.is_multiple_of(10) && digits.iter().any(|d| Some(d) != digits.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_has_a_check_digit() {
        assert!(luhn("4242 4242 4242 4242") && !luhn("4242 4242 4242 4241") && !luhn("0000000000000000"));
    }
}
