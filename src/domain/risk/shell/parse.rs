//! From the text of a script to the list of simple commands in it, wherever they stand: in substitutions, loops,
//! functions, here-documents. Parsed by `brush-parser`; what it cannot read is an error, never an empty list.

use brush_parser::ast::{
    AssignmentName, AssignmentValue, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, ExtendedTestExpr, IoFileRedirectKind,
    IoFileRedirectTarget, IoRedirect, Pipeline, SimpleCommand,
};
use brush_parser::word::{ParameterExpr, ParameterTransformOp, WordPiece, WordPieceWithSource};
use brush_parser::{Parser, ParserOptions, word};

/// The longest script that is read, in bytes.
const LONGEST: usize = 64 * 1024;
/// How deep brackets and keywords may nest: the grammar is recursive, and so is the walk.
const DEEPEST: usize = 24;
/// How many simple commands are looked at.
const MOST: usize = 400;
/// How many pieces may be nested in a quoted substitution, each of which is parsed by itself.
const SUBSTITUTIONS: usize = 200;

/// A word as the command will get it, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Word {
    /// Its text without quotes; what is only known when it runs is written as `$name` or `$(…)`.
    pub text: String,
    /// Whether the text is all there is to it.
    pub literal: bool,
}

/// One simple command.
#[derive(Clone, Debug, Default)]
pub(super) struct Simple {
    /// Variables that are set for it, or in the shell where there are no words.
    pub sets: Vec<(String, Word)>,
    /// The command's name and arguments.
    pub words: Vec<Word>,
    /// Files that it writes through a redirection.
    pub writes: Vec<Word>,
    /// Files that it reads through a redirection.
    pub reads: Vec<Word>,
    /// Text that is fed to it, where that is written in the script.
    pub fed: Option<Word>,
    /// Whether another command's output is fed to it.
    pub piped: bool,
}

/// Everything that a script runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// All simple commands, in the order of the text.
    pub commands: Vec<Simple>,
    /// Whether it uses an expansion that runs text or hides words: `${x@P}`, `${IFS}`.
    pub tricks: Vec<&'static str>,
    parsed: usize,
}

/// Why a script cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// For people.
    pub text: &'static str,
    /// Whether there is too much of it, rather than something wrong with it.
    pub excess: bool,
}

impl Why {
    fn excess(text: &'static str) -> Self {
        Self { text, excess: true }
    }

    fn syntax(text: &'static str) -> Self {
        Self { text, excess: false }
    }
}

/// Reads a script.
///
/// # Errors
/// Why it cannot be read, for people.
pub(super) fn parse(text: &str) -> Result<Script, Why> {
    let mut script = Script::default();
    script.read(text, 0)?;
    Ok(script)
}

impl Script {
    fn read(&mut self, text: &str, depth: usize) -> Result<(), Why> {
        if text.len() > LONGEST {
            return Err(Why::excess("it is longer than 64 KiB"));
        }
        if depth > 8 || nesting(text) > DEEPEST {
            return Err(Why::excess("it is nested too deeply"));
        }
        self.parsed += 1;
        if self.parsed > SUBSTITUTIONS {
            return Err(Why::excess("it has too many substitutions"));
        }
        let mut parser = Parser::new(std::io::Cursor::new(text.as_bytes()), &ParserOptions::default());
        if descriptor(text) {
            return Err(Why::syntax("it redirects a descriptor of a number that no system has"));
        }
        // A parser that gives up in a panic has not read it.
        let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.parse_program()));
        let program = parsed
            .map_err(|_| Why::syntax("its parser gave up"))?
            .map_err(|_| Why::syntax("it is not a script that a shell would accept, or uses a form that is not known here"))?;
        program.complete_commands.iter().try_for_each(|list| self.list(list, depth))
    }

    fn list(&mut self, list: &CompoundList, depth: usize) -> Result<(), Why> {
        for item in &list.0 {
            for (_, pipeline) in &item.0 {
                self.pipeline(pipeline, depth)?;
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, depth: usize) -> Result<(), Why> {
        let mut text = None;
        for (n, command) in pipeline.seq.iter().enumerate() {
            let first = self.commands.len();
            self.command(command, depth)?;
            // What is inside a group or loop gets what is piped into it; what `echo` says is written here.
            for next in self.commands.iter_mut().skip(first).filter(|_| n > 0) {
                next.piped = true;
                next.fed = next.fed.take().or_else(|| text.clone());
            }
            text = matches!(command, Command::Simple(_)).then(|| self.commands.last().and_then(said)).flatten();
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, depth: usize) -> Result<(), Why> {
        if depth > DEEPEST {
            return Err(Why::excess("it is nested too deeply"));
        }
        let redirects = match command {
            Command::Simple(simple) => return self.simple(simple, depth),
            Command::Compound(compound, redirects) => {
                self.compound(compound, depth)?;
                redirects.as_ref()
            }
            Command::Function(function) => {
                self.word(&function.fname.value, depth)?;
                self.compound(&function.body.0, depth)?;
                function.body.1.as_ref()
            }
            Command::ExtendedTest(test, redirects) => {
                self.test(&test.expr, depth)?;
                redirects.as_ref()
            }
        };
        let mut around = Simple::default();
        for redirect in redirects.iter().flat_map(|list| &list.0) {
            self.redirect(redirect, &mut around, depth)?;
        }
        if !around.writes.is_empty() || !around.reads.is_empty() {
            self.push(around)?;
        }
        Ok(())
    }

    fn compound(&mut self, compound: &CompoundCommand, depth: usize) -> Result<(), Why> {
        let deeper = depth + 1;
        match compound {
            CompoundCommand::Arithmetic(it) => self.word(&it.expr.value, deeper).map(drop),
            CompoundCommand::ArithmeticForClause(it) => {
                for part in [&it.initializer, &it.condition, &it.updater].into_iter().flatten() {
                    self.word(&part.value, deeper)?;
                }
                self.list(&it.body.list, deeper)
            }
            CompoundCommand::BraceGroup(it) => self.list(&it.list, deeper),
            CompoundCommand::Subshell(it) => self.list(&it.list, deeper),
            CompoundCommand::ForClause(it) => {
                for value in it.values.iter().flatten() {
                    self.word(&value.value, deeper)?;
                }
                self.list(&it.body.list, deeper)
            }
            CompoundCommand::CaseClause(it) => {
                self.word(&it.value.value, deeper)?;
                for case in &it.cases {
                    for pattern in &case.patterns {
                        self.word(&pattern.value, deeper)?;
                    }
                    case.cmd.iter().try_for_each(|list| self.list(list, deeper))?;
                }
                Ok(())
            }
            CompoundCommand::IfClause(it) => {
                self.list(&it.condition, deeper)?;
                self.list(&it.then, deeper)?;
                for other in it.elses.iter().flatten() {
                    other.condition.iter().try_for_each(|list| self.list(list, deeper))?;
                    self.list(&other.body, deeper)?;
                }
                Ok(())
            }
            CompoundCommand::WhileClause(it) | CompoundCommand::UntilClause(it) => {
                self.list(&it.0, deeper)?;
                self.list(&it.1.list, deeper)
            }
            CompoundCommand::Coprocess(it) => self.command(&it.body, deeper),
        }
    }

    fn test(&mut self, test: &ExtendedTestExpr, depth: usize) -> Result<(), Why> {
        match test {
            ExtendedTestExpr::And(one, two) | ExtendedTestExpr::Or(one, two) => {
                self.test(one, depth)?;
                self.test(two, depth)
            }
            ExtendedTestExpr::Not(one) | ExtendedTestExpr::Parenthesized(one) => self.test(one, depth),
            ExtendedTestExpr::UnaryTest(_, word) => self.word(&word.value, depth).map(drop),
            ExtendedTestExpr::BinaryTest(_, one, two) => {
                self.word(&one.value, depth)?;
                self.word(&two.value, depth).map(drop)
            }
        }
    }

    fn simple(&mut self, command: &SimpleCommand, depth: usize) -> Result<(), Why> {
        let mut simple = Simple::default();
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            self.item(item, &mut simple, true, depth)?;
        }
        if let Some(name) = &command.word_or_name {
            let name = self.word(&name.value, depth)?;
            simple.words.push(name);
        }
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            self.item(item, &mut simple, false, depth)?;
        }
        self.push(simple)
    }

    fn push(&mut self, simple: Simple) -> Result<(), Why> {
        if self.commands.len() >= MOST {
            return Err(Why::excess("it has too many commands"));
        }
        self.commands.push(simple);
        Ok(())
    }

    fn item(&mut self, item: &CommandPrefixOrSuffixItem, simple: &mut Simple, prefix: bool, depth: usize) -> Result<(), Why> {
        match item {
            CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, simple, depth)?,
            CommandPrefixOrSuffixItem::Word(word) => {
                let word = self.word(&word.value, depth)?;
                simple.words.push(word);
            }
            CommandPrefixOrSuffixItem::AssignmentWord(assignment, whole) => {
                let name = match &assignment.name {
                    AssignmentName::VariableName(name) => name.clone(),
                    AssignmentName::ArrayElementName(name, index) => {
                        self.word(index, depth)?;
                        name.clone()
                    }
                };
                let value = match &assignment.value {
                    AssignmentValue::Scalar(word) => self.word(&word.value, depth)?,
                    AssignmentValue::Array(items) => {
                        for (key, item) in items {
                            key.iter().try_for_each(|key| self.word(&key.value, depth).map(drop))?;
                            self.word(&item.value, depth)?;
                        }
                        Word { text: String::from("(…)"), literal: false }
                    }
                };
                if prefix {
                    simple.sets.push((name, value));
                } else {
                    let word = self.word(&whole.value, depth)?;
                    simple.words.push(word);
                }
            }
            CommandPrefixOrSuffixItem::ProcessSubstitution(_, inner) => {
                self.list(&inner.list, depth + 1)?;
                simple.words.push(Word { text: "/dev/fd/…".into(), literal: false });
            }
        }
        Ok(())
    }

    fn redirect(&mut self, redirect: &IoRedirect, simple: &mut Simple, depth: usize) -> Result<(), Why> {
        match redirect {
            IoRedirect::File(_, kind, target) => match target {
                IoFileRedirectTarget::Filename(word) => {
                    let word = self.word(&word.value, depth)?;
                    match kind {
                        IoFileRedirectKind::Read => simple.reads.push(word),
                        _ => simple.writes.push(word),
                    }
                }
                IoFileRedirectTarget::ProcessSubstitution(_, inner) => self.list(&inner.list, depth + 1)?,
                IoFileRedirectTarget::Duplicate(word) => {
                    let word = self.word(&word.value, depth)?;
                    // `>&file` writes a file; `>&2` and `>&-` do not.
                    if !word.text.chars().all(|c| c.is_ascii_digit() || c == '-') {
                        simple.writes.push(word);
                    }
                }
                IoFileRedirectTarget::Fd(_) => {}
            },
            IoRedirect::HereDocument(_, document) => {
                let body = match document.requires_expansion {
                    true => {
                        let pieces = word::parse_heredoc(&document.doc.value, &ParserOptions::default())
                            .map_err(|_| Why::syntax("a here-document in it cannot be read"))?;
                        let mut word = Word { literal: true, ..Word::default() };
                        self.pieces(&pieces, &mut word, true, depth)?;
                        word
                    }
                    false => Word { text: document.doc.value.clone(), literal: true },
                };
                simple.fed = Some(body);
            }
            IoRedirect::HereString(_, word) => simple.fed = Some(self.word(&word.value, depth)?),
            IoRedirect::OutputAndError(word, _) => {
                let word = self.word(&word.value, depth)?;
                simple.writes.push(word);
            }
        }
        Ok(())
    }

    fn word(&mut self, raw: &str, depth: usize) -> Result<Word, Why> {
        // Most words have nothing to expand; the parser for the others is slow.
        if !raw.contains(['$', '`', '\'', '"', '\\', '~', '*', '?', '[', '{']) {
            return Ok(Word { text: raw.to_owned(), literal: true });
        }
        let pieces = word::parse(raw, &ParserOptions::default()).map_err(|_| Why::syntax("a word in it cannot be read"))?;
        let mut word = Word { literal: true, ..Word::default() };
        self.pieces(&pieces, &mut word, false, depth)?;
        Ok(word)
    }

    fn pieces(&mut self, pieces: &[WordPieceWithSource], word: &mut Word, quoted: bool, depth: usize) -> Result<(), Why> {
        for piece in pieces {
            match &piece.piece {
                WordPiece::Text(text) => {
                    // What the shell itself will expand into other words.
                    if !quoted && (text.contains(['*', '?', '[']) || (text.contains('{') && (text.contains(',') || text.contains("..")))) {
                        word.literal = false;
                    }
                    word.text.push_str(text);
                }
                WordPiece::SingleQuotedText(text) => word.text.push_str(text),
                WordPiece::AnsiCQuotedText(text) => word.text.push_str(&unescaped(text)),
                WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => self.pieces(inner, word, true, depth)?,
                WordPiece::TildeExpansion(_) => word.text.push('~'),
                WordPiece::EscapeSequence(text) => word.text.push_str(text.strip_prefix('\\').unwrap_or(text)),
                WordPiece::ParameterExpansion(expression) => {
                    word.literal = false;
                    word.text.push_str(&self.parameter(expression, depth)?);
                }
                WordPiece::CommandSubstitution(text) | WordPiece::BackquotedCommandSubstitution(text) => {
                    word.literal = false;
                    word.text.push_str("$(…)");
                    self.read(text, depth + 1)?;
                }
                WordPiece::ArithmeticExpression(expression) => {
                    word.literal = false;
                    word.text.push_str("$((…))");
                    self.word(&expression.value, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// The text of an expansion, and what is run within it.
    fn parameter(&mut self, expression: &ParameterExpr, depth: usize) -> Result<String, Why> {
        if depth > 8 {
            return Err(Why::excess("it is nested too deeply"));
        }
        let mut inner: Vec<&str> = Vec::new();
        let name = match expression {
            ParameterExpr::Parameter { parameter, indirect } => {
                if *indirect {
                    self.tricks.push("it reads a variable whose name is in another variable");
                }
                parameter
            }
            ParameterExpr::UseDefaultValues { parameter, default_value, .. }
            | ParameterExpr::AssignDefaultValues { parameter, default_value, .. } => {
                inner.extend(default_value.as_deref());
                parameter
            }
            ParameterExpr::IndicateErrorIfNullOrUnset { parameter, error_message, .. } => {
                inner.extend(error_message.as_deref());
                parameter
            }
            ParameterExpr::UseAlternativeValue { parameter, alternative_value, .. } => {
                inner.extend(alternative_value.as_deref());
                parameter
            }
            ParameterExpr::Transform { parameter, op, .. } => {
                if matches!(op, ParameterTransformOp::PromptExpand) {
                    self.tricks.push("`@P` runs the text of a variable");
                }
                parameter
            }
            ParameterExpr::Substring { parameter, offset, length, .. } => {
                inner.push(&offset.value);
                inner.extend(length.as_ref().map(|l| l.value.as_str()));
                parameter
            }
            ParameterExpr::RemoveSmallestSuffixPattern { parameter, pattern, .. }
            | ParameterExpr::RemoveLargestSuffixPattern { parameter, pattern, .. }
            | ParameterExpr::RemoveSmallestPrefixPattern { parameter, pattern, .. }
            | ParameterExpr::RemoveLargestPrefixPattern { parameter, pattern, .. }
            | ParameterExpr::UppercaseFirstChar { parameter, pattern, .. }
            | ParameterExpr::UppercasePattern { parameter, pattern, .. }
            | ParameterExpr::LowercaseFirstChar { parameter, pattern, .. }
            | ParameterExpr::LowercasePattern { parameter, pattern, .. } => {
                inner.extend(pattern.as_deref());
                parameter
            }
            ParameterExpr::ReplaceSubstring { parameter, pattern, replacement, .. } => {
                inner.push(pattern);
                inner.extend(replacement.as_deref());
                parameter
            }
            ParameterExpr::ParameterLength { parameter, .. } => parameter,
            ParameterExpr::VariableNames { .. } | ParameterExpr::MemberKeys { .. } => return Ok("$…".into()),
        };
        for text in inner {
            self.word(text, depth + 1)?;
        }
        let name = name.to_string();
        let bare = name.trim_start_matches(['$', '{']).trim_end_matches('}');
        if bare == "IFS" {
            self.tricks.push("`$IFS` puts words together");
        }
        Ok(format!("${bare}"))
    }
}

/// What `echo` or `printf` with plain text says.
fn said(command: &Simple) -> Option<Word> {
    let (name, rest) = command.words.split_first()?;
    if !matches!(name.text.as_str(), "echo" | "printf") || !command.writes.is_empty() {
        return None;
    }
    let literal = rest.iter().all(|word| word.literal);
    let text: Vec<String> =
        rest.iter().filter(|word| !matches!(word.text.as_str(), "-n" | "-e" | "-ne" | "-en")).map(|w| unescaped(&w.text)).collect();
    Some(Word { text: text.join(" "), literal })
}

/// Whether a number of more than nine digits stands before `<` or `>`: brush-parser panics at one.
fn descriptor(text: &str) -> bool {
    let mut digits = 0;
    text.chars().any(|c| {
        let huge = digits > 9 && matches!(c, '<' | '>');
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        huge
    })
}

/// How deep brackets, back-quotes and keywords nest at most, whatever quotes say: too many is only more careful.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut bangs) = (0usize, 0usize, 0usize);
    for c in text.chars() {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            '!' => bangs += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let words = |known: &[&str]| text.split(|c: char| c.is_whitespace() || ";|&()".contains(c)).filter(|word| known.contains(word)).count();
    let opened = words(&["if", "while", "until", "for", "case", "select", "coproc", "function"]);
    let closed = words(&["fi", "done", "esac"]);
    deepest.max(opened.saturating_sub(closed)).max(opened.min(closed) / 4).max(bangs / 8)
}

/// The text of `$'…'`: escapes of C, with characters by number.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(kind) = rest.next() else { break };
        let mut number = |radix: u32, most: usize, first: Option<char>| {
            let mut value = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
            for _ in 0..most {
                let Some(digit) = rest.peek().and_then(|c| c.to_digit(radix)) else { break };
                value = value.saturating_mul(radix).saturating_add(digit);
                rest.next();
            }
            char::from_u32(value).unwrap_or('\u{fffd}')
        };
        match kind {
            'x' => out.push(number(16, 2, None)),
            'u' => out.push(number(16, 4, None)),
            'U' => out.push(number(16, 8, None)),
            '0'..='7' => out.push(number(8, 2, Some(kind))),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            other => out.push(other),
        }
    }
    out
}
