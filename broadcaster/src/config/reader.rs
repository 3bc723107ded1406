//! Reads a TOML document setting by setting, and collects what is wrong with it, each with its line.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use rotacast_admin::{parse_duration, parse_size, show_duration};

/// A file being read.
pub(super) struct Document<'d> {
    path: &'d Path,
    text: &'d str,
    environment: &'d dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(path: &'d Path, text: &'d str, environment: &'d dyn Fn(&str) -> Option<String>) -> Self {
        Self { path, text, environment, problems: RefCell::default() }
    }

    /// The document's tables, unless it is no TOML.
    pub(super) fn parse(&self) -> Option<Spanned<DeTable<'d>>> {
        DeTable::parse(self.text)
            .map_err(|error| {
                let line = error.span().map(|span| self.line(&span));
                self.add(line, String::new(), format!("not TOML: {}", error.message()));
            })
            .ok()
    }

    pub(super) fn root<'t>(&'t self, table: &'t Spanned<DeTable<'t>>) -> Section<'t, 'd> {
        Section {
            document: self,
            path: String::new(),
            span: None,
            table: Some(table.get_ref()),
            known: RefCell::default(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text.as_bytes()[..span.start.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn add(&self, line: Option<usize>, setting: String, text: String) {
        self.problems.borrow_mut().push(Problem { line, setting, text });
    }
}

/// One table. Ask it for every setting there may be, then [`finish`](Section::finish) it: a setting that was not asked for is
/// unknown.
pub(super) struct Section<'t, 'd> {
    document: &'t Document<'d>,
    path: String,
    span: Option<Range<usize>>,
    table: Option<&'t DeTable<'t>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'t, 'd> Section<'t, 'd> {
    fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.borrow_mut().push(key);
        self.table?.get(key)
    }

    fn setting(&self, key: &str) -> String {
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// Whether the file has this table at all.
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the table has this setting.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Says that a setting is wrong, or missing.
    pub(super) fn problem(&self, key: &str, text: String) {
        let span = self.table.and_then(|table| table.get(key)).map(Spanned::span).or_else(|| self.span.clone());
        self.document.add(span.map(|span| self.document.line(&span)), self.setting(key), text);
    }

    /// Says that the table is wrong.
    pub(super) fn problem_here(&self, text: String) {
        self.document.add(self.span.as_ref().map(|span| self.document.line(span)), self.path.clone(), text);
    }

    /// A table below.
    pub(super) fn section(&self, key: &'static str) -> Section<'t, 'd> {
        let value = self.get(key);
        self.below(key, value)
    }

    fn below(&self, key: &str, value: Option<&'t Spanned<DeValue<'t>>>) -> Section<'t, 'd> {
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.problem(key, format!("is a {}; expected a table", value.get_ref().type_str()));
            }
            table
        });
        let span = value.map(Spanned::span);
        Section { document: self.document, path: self.setting(key), span, table, known: RefCell::default() }
    }

    /// All entries, whatever they are called, as tables.
    pub(super) fn named_sections(&self) -> Vec<(String, Section<'t, 'd>)> {
        let entries = self.table.into_iter().flat_map(DeTable::iter);
        entries.map(|(key, value)| (key.get_ref().to_string(), self.below(key.get_ref(), Some(value)))).collect()
    }

    /// All entries, whatever they are called, as text.
    pub(super) fn named_texts(&self) -> Vec<(String, String)> {
        let entries = self.table.into_iter().flat_map(DeTable::iter);
        entries
            .filter_map(|(key, value)| Some((key.get_ref().to_string(), self.as_text(key.get_ref(), value)?)))
            .collect()
    }

    /// All entries, whatever they are called, as whole numbers.
    pub(super) fn named_integers(&self) -> Vec<(String, u32)> {
        let entries = self.table.into_iter().flat_map(DeTable::iter);
        entries
            .filter_map(|(key, value)| Some((key.get_ref().to_string(), self.as_integer(key.get_ref(), value)?)))
            .collect()
    }

    fn as_text(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.problem(key, format!("is a {}; expected a string", value.get_ref().type_str()));
        }
        text.map(str::to_owned)
    }

    fn as_integer<T: FromStr>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let number = value.get_ref().as_integer().filter(|number| number.radix() == 10);
        let parsed = number.and_then(|number| number.as_str().parse().ok());
        if parsed.is_none() {
            self.problem(key, "expected a whole number from 0".into());
        }
        parsed
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.get(key).and_then(|value| self.as_text(key, value))
    }

    /// The environment's word counts before the file's.
    pub(super) fn text_or_env(&self, key: &'static str, variable: &str) -> Option<String> {
        let in_file = self.text(key);
        (self.document.environment)(variable).or(in_file)
    }

    /// A variable of the environment that stands for no single setting.
    pub(super) fn variable(&self, variable: &str) -> Option<String> {
        (self.document.environment)(variable)
    }

    /// Required.
    pub(super) fn required_text(&self, key: &'static str, why: &str) -> Option<String> {
        let text = self.text(key);
        if text.is_none() && self.table.is_none_or(|table| !table.contains_key(key)) {
            self.problem(key, format!("is missing; {why}"));
        }
        text
    }

    pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|error: T::Err| self.problem(key, error.to_string())).ok()
    }

    /// From the environment, the file, or the default, in this order.
    pub(super) fn parse_or<T: FromStr<Err: std::fmt::Display>>(
        &self,
        key: &'static str,
        variable: Option<&str>,
        default: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let Some(variable) = variable
            && let Some(text) = (self.document.environment)(variable)
        {
            self.known.borrow_mut().push(key);
            let parsed = text.parse();
            return parsed.map_err(|error: T::Err| self.wrong_variable(variable, &error.to_string())).ok();
        }
        match self.table.is_some_and(|table| table.contains_key(key)) {
            true => self.parse(key),
            false => {
                self.known.borrow_mut().push(key);
                default()
            }
        }
    }

    fn wrong_variable(&self, variable: &str, problem: &str) {
        self.document.add(None, format!("environment variable {variable}"), problem.to_owned());
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        self.chosen(&text, choices).map_err(|problem| self.problem(key, problem)).ok()
    }

    pub(super) fn choice_or_env<T: Copy>(&self, key: &'static str, variable: &str, choices: &[(&str, T)]) -> Option<T> {
        let in_file = self.choice(key, choices);
        match (self.document.environment)(variable) {
            Some(text) => self.chosen(&text, choices).map_err(|problem| self.wrong_variable(variable, &problem)).ok(),
            None => in_file,
        }
    }

    fn chosen<T: Copy>(&self, text: &str, choices: &[(&str, T)]) -> Result<T, String> {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        Err(format!("{text:?} is not one of the choices; expected {expected}{}", suggestion(text, &names)))
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.problem(key, format!("is a {}; expected true or false", value.get_ref().type_str()));
        }
        flag
    }

    /// The environment's word counts before the file's.
    pub(super) fn flag_or_env(&self, key: &'static str, variable: &str) -> Option<bool> {
        let in_file = self.flag(key);
        let Some(text) = (self.document.environment)(variable) else { return in_file };
        text.parse().map_err(|_| self.wrong_variable(variable, &format!("{text:?}; expected true or false"))).ok()
    }

    pub(super) fn integer<T: FromStr>(&self, key: &'static str) -> Option<T> {
        self.get(key).and_then(|value| self.as_integer(key, value))
    }

    pub(super) fn integer_within(&self, key: &'static str, range: &RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(key)?;
        if !range.contains(&number) {
            let (from, to) = (range.start(), range.end());
            self.problem(key, format!("{number} is out of range; expected {from} to {to}"));
            return None;
        }
        Some(number)
    }

    fn with_unit<T>(&self, key: &'static str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.get(key)?.get_ref();
        let parsed = match (value.as_str(), value.as_integer()) {
            (Some(text), _) => parse(text),
            // The same complaint as for a string of digits: it has no unit.
            (None, Some(number)) => parse(number.as_str()),
            (None, None) => Err(format!("is a {}; expected a string with a unit", value.type_str())),
        };
        parsed.map_err(|problem| self.problem(key, problem)).ok()
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.with_unit(key, parse_duration)
    }

    pub(super) fn duration_within(&self, key: &'static str, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.duration(key)?;
        if !range.contains(&duration) {
            let (from, to) = (show_duration(*range.start()), show_duration(*range.end()));
            self.problem(key, format!("{} is out of range; expected {from} to {to}", show_duration(duration)));
            return None;
        }
        Some(duration)
    }

    pub(super) fn size_from(&self, key: &'static str, least: u64) -> Option<u64> {
        let size = self.with_unit(key, parse_size)?;
        if size < least {
            self.problem(key, format!("{size} bytes is too small; expected at least {least}"));
            return None;
        }
        Some(size)
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.problem(key, format!("is a {}; expected a list of strings", value.get_ref().type_str()));
            return None;
        };
        let texts: Option<Vec<String>> = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            self.problem(key, "expected a list of strings only".into());
        }
        texts
    }

    /// The environment's list is separated by commas.
    pub(super) fn text_list_or_env(&self, key: &'static str, variable: &str) -> Option<Vec<String>> {
        let in_file = self.texts(key);
        match (self.document.environment)(variable) {
            Some(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
            None => in_file,
        }
    }

    /// The setting as text, or as a table: for choices that may carry settings of their own.
    pub(super) fn text_or_section(&self, key: &'static str) -> Option<Result<String, Section<'t, 'd>>> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(_) => Some(Err(self.below(key, Some(value)))),
            None => self.as_text(key, value).map(Ok),
        }
    }

    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(|path| self.resolve(path))
    }

    /// Relative paths count from the file's folder.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        match self.document.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.join(path),
            _ => path.as_ref().into(),
        }
    }

    /// Complains about settings that were not asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let hint = suggestion(name, &known);
                let hint = if hint.is_empty() { format!("; known here: {}", known.join(", ")) } else { hint };
                let line = self.document.line(&key.span());
                self.document.add(Some(line), self.setting(name), format!("unknown setting{hint}"));
            }
        }
    }
}

/// `; did you mean …?`, or nothing when nothing is near.
pub(super) fn suggestion(found: &str, known: &[&str]) -> String {
    // Below this similarity a suggestion confuses more than it helps (strsim's 0 to 1).
    const NEAR: f64 = 0.75;
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(found, name), *name))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((similarity, name)) if similarity >= NEAR => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}
