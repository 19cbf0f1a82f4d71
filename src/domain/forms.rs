//! Regular expressions over texts that somebody else chose, in time that such a text cannot stretch.
//!
//! The library searches at the speed of memory until its automaton outgrows its bounds. Two things make it do so: word
//! boundaries that know Unicode's letters, at the first letter outside ASCII, and many counted forms in one set, with a
//! text made for it, from which such a set does not recover. Either makes it several hundred times slower. So boundaries
//! here know ASCII alone, and each form is searched for by itself: nearly all have a literal that the library finds first.

use regex::Regex;

/// The form `rule`; its `\b` is between letters, digits and `_` of ASCII and anything else.
pub fn form(rule: &str) -> Option<Regex> {
    Regex::new(&rule.replace(r"\b", r"(?-u:\b)")).ok()
}

/// All of them, or nothing if one does not compile.
pub fn forms<'r>(rules: impl IntoIterator<Item = &'r str>) -> Option<Vec<Regex>> {
    rules.into_iter().map(form).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_outside_ascii_are_no_part_of_a_word() {
        let key = form(r"\bAKIA[A-Z2-7]{16}\b").unwrap();
        assert!(key.is_match("é AKIAQWERTZUIOPASDFGHé") && key.is_match("éAKIAQWERTZUIOPASDFGH") && !key.is_match("xAKIAQWERTZUIOPASDFGH"));
    }
}
