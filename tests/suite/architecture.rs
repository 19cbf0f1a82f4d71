//! The arrows of the house: every module names lower ones only, and the core does no I/O.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A file belongs to the longest prefix that fits.
const RANKS: [(&str, u32); 25] = [
    ("domain/clock", 0),
    ("domain/digest", 0),
    ("domain/forms", 0),
    ("domain/text", 0),
    ("domain/json", 1),
    ("domain/scrub", 1),
    ("domain/tool", 2),
    ("domain/call", 2),
    ("domain/risk", 3),
    ("domain/policy", 4),
    ("domain/decision", 5),
    ("domain/approval", 6),
    ("domain/audit", 7),
    ("domain/permit", 8),
    ("metrics", 10),
    ("system", 10),
    ("adapters/channel", 20),
    ("adapters/credential", 20),
    ("adapters/store", 20),
    ("adapters/upstream", 20),
    ("gateway", 30),
    ("downstream", 40),
    ("app", 50),
    ("sample", 55),
    ("cli", 60),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn rank(place: &str) -> Option<(&'static str, u32)> {
    let fits = |name: &str| place == name || place.starts_with(&format!("{name}/"));
    RANKS.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len()).copied()
}

/// What a source names by `crate::…`, as places; nested imports one by one.
fn named(text: &str) -> Vec<String> {
    let mut places = Vec::new();
    for part in text.split("crate::").skip(1) {
        let path: String = part.chars().take_while(|c| c.is_alphanumeric() || "_:{, \n".contains(*c)).collect();
        let (head, nested) = path.split_once('{').unwrap_or((&path, ""));
        let steps: Vec<&str> = head.split("::").filter(|s| !s.is_empty()).collect();
        let base = steps.iter().take(2).map(|s| s.trim()).collect::<Vec<_>>().join("/");
        if steps.len() == 1 && !nested.is_empty() {
            places.extend(nested.split(',').map(|n| format!("{base}/{}", n.trim().split("::").next().unwrap_or_default())));
        } else {
            places.push(base);
        }
    }
    places
}

#[test]
fn every_module_names_lower_ones_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50);
    let mut checked = 0;
    for file in files {
        let place = file.strip_prefix(&root).unwrap().with_extension("");
        let place = place.to_string_lossy().trim_end_matches("/mod").to_owned();
        if ["main", "lib", "domain", "adapters"].contains(&place.as_str()) {
            continue;
        }
        let (own, height) = rank(&place).unwrap_or_else(|| panic!("{place} has no rank: put it in its room, or give it one"));
        for other in named(&fs::read_to_string(&file).unwrap()) {
            let Some((theirs, depth)) = rank(&other) else { continue };
            checked += 1;
            assert!(theirs == own || depth < height, "{place} ({own}) names {other}: arrows point down");
        }
    }
    assert!(checked > 200, "only {checked} names were seen: does this test still read them?");
}

#[test]
fn the_core_does_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for banned in ["async ", "tokio", "std::fs", "std::net::Tcp", "std::net::Udp", "std::env", "::now(", "std::process", "sqlx", "println!"] {
                assert!(!line.contains(banned), "{} has `{banned}`: {line}", file.display());
            }
        }
    }
}

#[test]
fn only_stores_say_that_a_record_is_stored() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let asserting: Vec<String> = files
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("Receipt::assertion("))
        .map(|file| file.strip_prefix(&root).unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(!asserting.is_empty() && asserting.iter().all(|file| file.starts_with("adapters/store/")), "{asserting:?}");
}

#[test]
fn a_test_of_the_reader_itself() {
    let text = "use crate::domain::json::{a, b};\nuse crate::domain::{call, risk::x};\nlet x = crate::system::random_hex();";
    assert_eq!(named(text), ["domain/json", "domain/call", "domain/risk", "system/random_hex"]);
}
