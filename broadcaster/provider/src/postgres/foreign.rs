//! Texts that other users of the server chose, as a log, a terminal or an audit entry may show them.

use postgres_protocol::escape::escape_identifier;

use super::settings::MAX_IDENTIFIER_BYTES;

/// Longest name, in bytes: a schema and a table, both quoted.
const MOST_NAME: usize = 2 * MAX_IDENTIFIER_BYTES + 5;

/// Longest text of the server that is repeated, in bytes.
const MOST_TOLD: usize = 1024;

/// A name: of a role, a database, a table, an application.
pub(super) fn name(text: &str) -> String {
    cut(text, MOST_NAME)
}

/// What the server says. It quotes names.
pub(super) fn told(text: &str) -> String {
    cut(text, MOST_TOLD)
}

/// A name as it is written in a statement to paste. `None` if a terminal could show another statement than it runs.
pub(super) fn quoted(name: &str) -> Option<String> {
    (!name.chars().any(is_harmful)).then(|| escape_identifier(name))
}

/// Without what drives a terminal, and no longer than so many bytes.
fn cut(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for c in text.chars().map(|c| if is_harmful(c) { ' ' } else { c }) {
        if shown.len() + c.len_utf8() > most {
            shown.push('…');
            break;
        }
        shown.push(c);
    }
    shown
}

/// Control characters, and those that turn the direction of text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_neither_shown_nor_pasted() {
        assert_eq!(name("a\r\n\u{1b}[2Jb\u{202e}c"), "a   [2Jb c");
        assert_eq!(quoted("a\nb"), None);
        assert_eq!(quoted("a \"b\"").as_deref(), Some("\"a \"\"b\"\"\""));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(name(&"é".repeat(66)), format!("{}…", "é".repeat(65)));
        assert_eq!(name(&"a".repeat(131)), "a".repeat(131));
        assert_eq!(told(&"a".repeat(2000)).len(), MOST_TOLD + '…'.len_utf8());
    }
}
