//! Where results go: standard output. Progress, questions and errors go to standard error.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::error::{Failure, Stop};
use crate::global::Format;
use rotacast_admin::view::{ErrorBody, ErrorView};

/// How a text is marked on a terminal. Never the only carrier of a meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Plain,
    Strong,
    Good,
    Warn,
    Bad,
}

impl Mark {
    fn code(self) -> Option<&'static str> {
        match self {
            Mark::Plain => None,
            Mark::Strong => Some("1"),
            Mark::Good => Some("32"),
            Mark::Warn => Some("33"),
            Mark::Bad => Some("31"),
        }
    }
}

/// Standard output, and what is known of it.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    colours: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let unwanted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = io::stdout().is_terminal() && !unwanted("NO_COLOR") && !dumb;
        Self { format, colours }
    }

    /// Whether a program reads it.
    pub(crate) fn is_data(self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Whether tables are to leave nothing out.
    pub(crate) fn is_wide(self) -> bool {
        self.format == Format::Wide
    }

    /// One line, which its maker has escaped.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Stop::unwritten(&error))
    }

    /// Bytes as they are: completions, manual pages.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Stop::unwritten(&error))
    }

    /// One result.
    pub(crate) fn data(self, value: &impl Serialize) -> Result<(), Stop> {
        match self.format {
            Format::Yaml => self.line(yaml(value).trim_end()),
            _ => {
                let text = serde_json::to_string_pretty(value).expect("views have string keys and finite numbers");
                self.line(harmless_json(&text))
            }
        }
    }

    /// One of many results: a line of JSON, or a YAML document.
    pub(crate) fn data_item(self, value: &impl Serialize) -> Result<(), Stop> {
        match self.format {
            Format::Yaml => self.line(format_args!("---\n{}", yaml(value).trim_end())),
            _ => self.line(json_line(value)),
        }
    }

    /// A text from ours or escaped before, marked where that is wanted.
    pub(crate) fn paint(self, mark: Mark, text: &str) -> String {
        match mark.code().filter(|_| self.colours) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }
}

/// Says something on standard error. Without effect if that cannot be written to.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says why a command failed.
pub(crate) fn report(failure: &Failure, output: Output) {
    if output.is_data() {
        let body = ErrorBody {
            kind: &failure.kind,
            exit_code: failure.exit.number(),
            problem: &failure.problem,
            fix: Some(failure.fix.as_str()).filter(|fix| !fix.is_empty()),
        };
        let view = ErrorView { error: body };
        return match output.format {
            Format::Yaml => note(yaml(&view).trim_end()),
            _ => note(json_line(&view)),
        };
    }
    for (at, line) in failure.problem.lines().enumerate() {
        let label = if at == 0 { "error: " } else { "       " };
        note(format_args!("{label}{}", shown(line)));
    }
    if !failure.fix.is_empty() {
        note(format_args!("  fix: {}", shown(&failure.fix)));
    }
}

/// Control characters and those that turn the direction of text could make a terminal show something else.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text from outside, harmless to a terminal and on one line.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn json_line(value: &impl Serialize) -> String {
    harmless_json(&serde_json::to_string(value).expect("views have string keys and finite numbers"))
}

/// YAML; with characters in it that could drive a terminal, the JSON that says the same, which is YAML too.
fn yaml(value: &impl Serialize) -> String {
    match serde_saphyr::to_string(value) {
        Ok(text) if !text.chars().any(|c| c != '\n' && is_harmful(c)) => text,
        _ => json_line(value),
    }
}

/// JSON in which such characters are escaped; it parses to the same. Line breaks outside of strings stay.
fn harmless_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_harmful(c) {
            write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_is_escaped() {
        assert_eq!(shown("a\x1b[2Jb\n\u{9b}\u{202e}é"), "a\\u{1b}[2Jb\\n\\u{9b}\\u{202e}é");
        let value = "\u{9b}2J\u{7f}\u{202e}\n";
        let json = harmless_json(&serde_json::to_string(value).unwrap());
        assert!(json.chars().all(|c| c.is_ascii_graphic()), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }
}
