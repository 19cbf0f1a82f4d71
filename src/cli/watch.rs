//! `countersign approvals watch`: what waits, live on the whole screen; decide with a key.

use std::io::{Stdout, Write, stdout};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};

use super::Failure;
use super::approvals::{assurance, whole};
use crate::adapters::channel::{ReviewDesk, Verdict};
use crate::app::App;
use crate::domain::approval::{Approval, ReviewVerdict};
use crate::domain::clock::spoken;
use crate::domain::text::visible;

/// Puts the terminal back however the view ends.
struct Screen(Stdout);

impl Screen {
    fn open() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let mut out = stdout();
        execute!(out, EnterAlternateScreen, Hide)?;
        Ok(Self(out))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(execute!(self.0, Show, LeaveAlternateScreen));
        drop(terminal::disable_raw_mode());
    }
}

enum Asked {
    Nothing,
    /// For the call that was chosen when the key was pressed: the list may move while somebody types.
    Reason {
        approval: Box<Approval>,
        verdict: ReviewVerdict,
        text: String,
    },
}

pub(super) async fn run(app: &App, approver: &str) -> Result<(), Failure> {
    let mut screen = Screen::open()?;
    let mut chosen = 0usize;
    let mut asked = Asked::Nothing;
    let mut note = String::new();
    loop {
        let (open, _) = app.gateway.approvals().await?;
        chosen = chosen.min(open.len().saturating_sub(1));
        let hidden = draw(&mut screen.0, app, approver, &open, chosen, &asked, &note)?;
        // Half a second is how long a change takes to be seen at most.
        if !event::poll(Duration::from_millis(500))? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Ok(());
        }
        asked = match (asked, key.code) {
            (Asked::Nothing, KeyCode::Char('q') | KeyCode::Esc) => return Ok(()),
            (Asked::Nothing, KeyCode::Down | KeyCode::Char('j')) => {
                chosen += 1;
                Asked::Nothing
            }
            (Asked::Nothing, KeyCode::Up | KeyCode::Char('k')) => {
                chosen = chosen.saturating_sub(1);
                Asked::Nothing
            }
            (Asked::Nothing, KeyCode::Char(key @ ('a' | 'd'))) if key == 'd' || hidden == 0 => match open.get(chosen) {
                Some(approval) => {
                    let verdict = if key == 'a' { ReviewVerdict::Approve } else { ReviewVerdict::Deny };
                    Asked::Reason { approval: Box::new(approval.clone()), verdict, text: String::new() }
                }
                None => Asked::Nothing,
            },
            (Asked::Reason { .. }, KeyCode::Esc) => Asked::Nothing,
            (Asked::Reason { approval, verdict, mut text }, KeyCode::Char(c)) => {
                text.push(c);
                Asked::Reason { approval, verdict, text }
            }
            (Asked::Reason { approval, verdict, mut text }, KeyCode::Backspace) => {
                text.pop();
                Asked::Reason { approval, verdict, text }
            }
            (Asked::Reason { approval, verdict, text }, KeyCode::Enter) => {
                note = decide(app, approver, &approval, verdict, text).await;
                Asked::Nothing
            }
            (asked, _) => asked,
        };
    }
}

async fn decide(app: &App, approver: &str, approval: &Approval, verdict: ReviewVerdict, reason: String) -> String {
    let request = approval.request();
    let verdict = Verdict {
        approval: request.id.clone(),
        approver: approver.to_owned(),
        verdict,
        reason: Some(reason),
        shown: request.digest,
        channel: "terminal",
        assurance: assurance(),
        code: None,
        again: None,
    };
    match app.gateway.review(verdict).await {
        Ok(next) => format!("{}: it is now {}", visible(&request.title), next.state()),
        Err(error) => format!("{}: {error}", visible(&request.title)),
    }
}

fn draw(out: &mut Stdout, app: &App, approver: &str, open: &[Approval], chosen: usize, asked: &Asked, note: &str) -> std::io::Result<usize> {
    let (width, height) = terminal::size()?;
    let (width, height) = (usize::from(width), usize::from(height));
    let now = app.gateway.clock.now();
    let mut lines: Vec<(String, bool)> = vec![(format!("Countersign, as {approver}: {} under way", open.len()), true)];
    for (n, approval) in open.iter().enumerate() {
        let request = approval.request();
        let left = approval.runs_out().map(|end| spoken(end.since(now))).unwrap_or_default();
        let mark = if n == chosen { ">" } else { " " };
        lines.push((
            format!(
                "{mark} {:>3}  {:<10} {left:<14} {} ({})",
                request.assessment.score,
                approval.state(),
                visible(&request.title),
                request.caller.name
            ),
            n == chosen,
        ));
    }
    lines.push((String::new(), false));
    if let Some(approval) = open.get(chosen) {
        lines.extend(whole(approval, now).into_iter().flat_map(|line| wrapped(&line, width)).map(|line| (line, false)));
    } else {
        lines.push(("Nothing waits. Calls appear here by themselves.".into(), false));
    }
    let bottom = match asked {
        Asked::Nothing => "up/down choose   a approve   d deny   q quit".to_owned(),
        Asked::Reason { approval, verdict, text } => {
            format!("{verdict:?} `{}`: reason (enter decides, escape does not): {text}_", visible(&approval.request().title))
        }
    };
    queue!(out, Clear(ClearType::All))?;
    // What does not fit is said, never cut in silence: then this is not the place to decide.
    let room = height.saturating_sub(3);
    let hidden = lines.len().saturating_sub(room);
    for (row, (line, strong)) in lines.iter().take(room).enumerate() {
        let row = u16::try_from(row).unwrap_or(u16::MAX);
        let attribute = if *strong { Attribute::Bold } else { Attribute::Reset };
        queue!(out, MoveTo(0, row), SetAttribute(attribute), Print(line.chars().take(width).collect::<String>()), SetAttribute(Attribute::Reset))?;
    }
    let more = if hidden > 0 { format!("{hidden} MORE LINES DO NOT FIT: use the inbox, or `countersign approvals show`") } else { note.to_owned() };
    for (row, line) in [(height.saturating_sub(2), more), (height.saturating_sub(1), bottom)] {
        queue!(out, MoveTo(0, u16::try_from(row).unwrap_or(0)), Print(line.chars().take(width).collect::<String>()))?;
    }
    out.flush()?;
    Ok(hidden)
}

/// A line on as many rows as it needs.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = line.chars().collect();
    characters.chunks(width.max(20)).map(|row| row.iter().collect()).collect()
}
