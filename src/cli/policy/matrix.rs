//! `countersign policy matrix`: who approves what, when and under which criteria, for every tool that has a policy.

use super::super::{Failure, print};
use crate::domain::clock::spoken;
use crate::domain::policy::{Assurance, Mode, Policy, PolicySet};

/// How the matrix is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table in Markdown.
    Markdown,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// A page.
    Html,
}

const HEAD: [&str; 9] = ["Server", "Tool", "Effect", "Looks at", "Asks", "Approvers", "In", "Rules", "Credential"];

pub(super) fn run(set: &PolicySet, format: Format) -> Result<(), Failure> {
    let mut rows: Vec<[String; 9]> = set.all().iter().flat_map(|policy| rows_of(policy)).collect();
    rows.push(row(set.fallback(), "everything else".into(), "*".into(), "guessed".into()));
    print(&match format {
        Format::Markdown => markdown(&rows),
        Format::Csv => csv(&rows),
        Format::Html => html(&rows),
    });
    Ok(())
}

/// A row for the policy, and for a server's policy one for each effect that it names.
fn rows_of(policy: &Policy) -> Vec<[String; 9]> {
    let effect = policy.profile.effect.map_or("guessed", |e| e.name()).to_owned();
    let own = row(policy, policy.server.clone(), policy.tool.clone(), effect);
    let by_glob = policy
        .effects()
        .filter(|_| policy.tool == "*")
        .map(|(glob, effect)| row(policy, policy.server.clone(), glob.to_owned(), effect.name().to_owned()));
    by_glob.chain([own]).collect()
}

fn row(policy: &Policy, server: String, tool: String, effect: String) -> [String; 9] {
    let ask = &policy.ask;
    let two = if ask.bands.two_from > 100 { String::new() } else { format!(", two from {}", ask.bands.two_from) };
    let asks = match policy.mode {
        Mode::Score => format!("one from {}{two}", ask.bands.from),
        mode => format!("always: {mode}{two}"),
    };
    let roles: Vec<String> = policy.profile.roles.iter().map(|(place, role)| format!("{place} ({})", role.name())).collect();
    let proof = if ask.assurance == Assurance::Totp { ", one-time code" } else { "" };
    let later: Vec<String> = ask.escalate.iter().map(|(after, to)| format!("; after {} {}", spoken(*after), to.join(", "))).collect();
    let rules: Vec<String> = policy.rules.iter().map(|rule| rule.because().to_owned()).collect();
    let credential = policy.credential.as_ref().map_or_else(String::new, |c| format!("{} for {}", c.issuer, spoken(c.ttl)));
    let approvers = format!("{}{}{proof}", ask.approvers.join(" or "), later.concat());
    [server, tool, effect, roles.join(", "), asks, approvers, spoken(ask.decide_by), rules.join("; "), credential]
}

fn markdown(rows: &[[String; 9]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
    let mut out = line(&HEAD.map(str::to_owned));
    out.push_str(&"| --- ".repeat(HEAD.len()));
    out.push_str("|\n");
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out.trim_end().to_owned()
}

fn csv(rows: &[[String; 9]]) -> String {
    // A cell that begins as a formula does is one to some programs.
    let cell = |text: &str| {
        let safe = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
        format!("\"{}\"", safe.replace('"', "\"\""))
    };
    let line = |cells: Vec<&str>| cells.into_iter().map(cell).collect::<Vec<_>>().join(",");
    let mut out = line(HEAD.to_vec());
    for row in rows {
        out.push_str("\r\n");
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

fn html(rows: &[[String; 9]]) -> String {
    let page = maud::html! {
        (maud::DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Who approves what" }
                style { "body{font:15px/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:.35rem .6rem;text-align:left;vertical-align:top}th{position:sticky;top:0;background:#fff}tr:hover{background:#f5f5f5}" }
            }
            body {
                h1 { "Who approves what" }
                table {
                    thead { tr { @for head in HEAD { th { (head) } } } }
                    tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
                }
            }
        }
    };
    page.into_string()
}
