//! Program text of a language: what it calls, told from its words. Whatever it calls, it executes; the words only say how
//! bad it is at least.

use std::sync::LazyLock;

use regex::Regex;

use super::danger::Danger;
use super::{Finding, Group, Sight};
use crate::domain::forms::forms;
use crate::domain::json::{Pointer, Value};

const CALLS: [(&str, u16, bool, &str); 7] = [
    (
        "it starts programs",
        760,
        false,
        r"(?i)\b(?:os\.system|os\.popen|os\.exec\w*|os\.spawn\w*|subprocess|pty\.spawn|commands\.getoutput|child_process|execSync|spawnSync|Runtime\.getRuntime|ProcessBuilder|shell_exec|passthru|proc_open|popen|system\s*\(|Process\.Start|Kernel\.exec|IO\.popen|os\.execute|io\.popen|exec\s*[(\x22'])",
    ),
    (
        "it removes or overwrites files",
        780,
        true,
        r"(?i)(?:shutil\.rmtree|os\.(?:remove|unlink|rmdir|removedirs|truncate|rename|replace)\b|\.unlink\s*\(|\.rmdir\s*\(|fs\.(?:unlink|rm|rmdir|writeFile|truncate)\w*|unlink\s*\(|rmtree|File\.delete|FileUtils\.rm|fs\.promises\.rm)",
    ),
    (
        "it reaches the network",
        720,
        false,
        r"(?i)\b(?:requests\.|urllib|http\.client|httpx|aiohttp|socket\.|socket\(|smtplib|ftplib|paramiko|telnetlib|fetch\s*\(|axios|XMLHttpRequest|WebSocket|net\.connect|http\.request|https\.request|LWP::|Net::HTTP|Faraday|curl_exec|file_get_contents\s*\(\s*.http)",
    ),
    (
        "it runs text as code, or hides what it runs",
        760,
        false,
        r"(?i)\b(?:eval\s*\(|exec\s*\(|compile\s*\(|__import__|importlib|getattr\s*\(\s*__builtins__|new\s+Function|Function\s*\(|base64\.b64decode|atob\s*\(|marshal\.loads|pickle\.loads?|codecs\.decode|fromhex|vm\.runIn|ctypes|cffi|setTimeout\s*\(\s*['\x22])",
    ),
    (
        "it touches credentials or settings of the system",
        760,
        false,
        r"(?i)(?:/etc/(?:passwd|shadow|sudoers|cron|hosts|ssh)|\.ssh\b|\.aws\b|id_rsa|authorized_keys|\.bashrc|\.git-credentials|/proc/|/var/log|document\.cookie|localStorage|sessionStorage|indexedDB|os\.environ|process\.env|getpass|keyring|chmod|chown|setuid)",
    ),
    (
        "it writes files",
        700,
        false,
        r"(?i)(?:open\s*\([^)]*['\x22][wax]b?\+?['\x22]|write_text|write_bytes|to_csv|to_pickle|writeFileSync|createWriteStream|fopen\s*\(|file_put_contents)",
    ),
    (
        "it ends or changes processes",
        740,
        false,
        r"(?i)(?:os\.kill|psutil|\.terminate\s*\(|\.kill\s*\(|os\.fork|while\s+True\s*:\s*os\.fork|process\.exit|os\._exit)",
    ),
];

// Rules that do not compile would be a bug that the test below finds; without them all code still has its floor.
static FORMS: LazyLock<Option<Vec<Regex>>> = LazyLock::new(|| forms(CALLS.map(|(.., rule)| rule)));

pub(super) fn observe(pointer: &Pointer, value: &Value, seen: &mut Sight<'_>) {
    let Some(text) = value.as_str() else {
        seen.find(Finding::uninspectable("code", Group::Content, "the program is not text").at(pointer, value));
        return;
    };
    seen.fact("code", "present", Value::Bool(true));
    for danger in dangers(text) {
        if danger.destroys {
            seen.fact("code", "destroys", Value::Bool(true));
        }
        seen.find(danger.finding("code", pointer));
    }
}

/// What is dangerous in a program: at least that it is one.
pub(super) fn dangers(text: &str) -> Vec<Danger> {
    let mut found = vec![Danger::new(660, "it runs program text", text)];
    let Some(forms) = FORMS.as_ref() else { return found };
    for ((reason, weight, destroys, _), form) in CALLS.iter().zip(forms) {
        if form.is_match(text) {
            let danger = Danger::new(*weight, *reason, text);
            found.push(if *destroys { danger.destroying() } else { danger });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_text_is_never_harmless_and_some_is_worse() {
        assert!(FORMS.is_some());
        let worst = |text: &str| dangers(text).iter().map(|d| d.weight).max().unwrap();
        assert_eq!(worst("print(1 + 1)"), 660);
        assert!(worst("import shutil; shutil.rmtree('/srv')") > worst("import requests; requests.get('https://example.com')"));
        assert!(worst("() => document.cookie") > 700);
    }
}
