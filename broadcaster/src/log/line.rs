//! How a line is written.

use std::fmt::Write as _;

use rotacast_protocol::WallTime;
use serde_json::{Map, Value};
use tracing::Level;

use super::fields::Fields;

/// What every JSON line has of itself; a field of such a name gets an underscore in front.
const OWN: [&str; 4] = ["timestamp", "level", "target", "message"];

pub(super) struct Line<'a> {
    pub(super) time: WallTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) fields: Fields,
}

impl Line<'_> {
    /// RFC 3339 in UTC, to the millisecond.
    fn time(&self) -> String {
        let seconds = self.time.to_string();
        format!("{}.{:03}Z", seconds.trim_end_matches('Z'), self.time.0 % 1000)
    }

    pub(super) fn json(self) -> String {
        let mut object = Map::new();
        let time = self.time();
        object.insert("timestamp".into(), time.into());
        object.insert("level".into(), self.level.as_str().into());
        object.insert("target".into(), self.target.into());
        object.insert("message".into(), self.fields.message.into());
        for (name, value) in self.fields.named {
            let name = if OWN.contains(&name) { format!("_{name}") } else { name.to_owned() };
            object.insert(name, value);
        }
        Value::Object(object).to_string()
    }

    pub(super) fn text(self, colours: bool) -> String {
        let (dim, colour, plain) = match (colours, self.level) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
        };
        let mut text =
            format!("{dim}{}{plain} {colour}{:>5}{plain} {dim}{}:{plain} ", self.time(), self.level, self.target);
        text.push_str(&one_line(&self.fields.message));
        for (name, value) in &self.fields.named {
            // Writing to a String does not fail.
            let _ = write!(text, " {dim}{name}={plain}{}", shown(value));
        }
        text
    }
}

/// Quoted where a reader, or a program, could not tell where it ends.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text)
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') =>
        {
            format!("{text:?}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A text from elsewhere neither begins a line of its own nor moves a terminal's cursor.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
