//! A second opinion: `tree-sitter-bash` reads the same script, and says which commands it sees. Two parsers that see
//! different commands mean that one of them, and so perhaps the shell, will run something that nobody judged.

use std::cell::RefCell;

use tree_sitter::{Node, Parser};

use super::parse::Script;

thread_local! {
    static PARSER: RefCell<Option<Parser>> = const { RefCell::new(None) };
}

/// What comparing the two showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    /// Both see the same commands.
    Same,
    /// The second cannot read it, which happens with rare but sound forms.
    Unread,
    /// The second sees a command that the first does not.
    Other,
}

/// Compares the names of commands that the two see.
pub(super) fn opinion(text: &str, script: &Script) -> Opinion {
    PARSER.with_borrow_mut(|slot| {
        if slot.is_none() {
            let mut parser = Parser::new();
            if parser.set_language(&tree_sitter_bash::LANGUAGE.into()).is_err() {
                return Opinion::Unread;
            }
            *slot = Some(parser);
        }
        let Some(tree) = slot.as_mut().and_then(|parser| parser.parse(text, None)) else { return Opinion::Unread };
        let root = tree.root_node();
        if root.has_error() {
            return Opinion::Unread;
        }
        let mut names = Vec::new();
        collect(root, text, &mut names, 0);
        let seen: Vec<&str> = script.commands.iter().filter_map(|c| c.words.first()).map(|word| word.text.as_str()).collect();
        // What has quotes or expansions in it is spelt differently by the two; plain names must agree.
        let plain = |name: &&String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-+".contains(&b));
        let missing = names.iter().filter(plain).any(|name| !seen.contains(&name.as_str()));
        if missing || names.len() > script.commands.len() + 2 { Opinion::Other } else { Opinion::Same }
    })
}

fn collect(node: Node<'_>, text: &str, names: &mut Vec<String>, depth: usize) {
    if depth > 200 || names.len() > 1000 {
        return;
    }
    if node.kind() == "command_name"
        && let Some(name) = text.get(node.byte_range())
    {
        names.push(name.to_owned());
    }
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        collect(child, text, names, depth + 1);
    }
}
