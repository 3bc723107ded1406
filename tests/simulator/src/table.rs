//! Reads docs/understand/scenarios.md: which tests its rows name, and whether the sources have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Scenarios there are.
pub const ROWS: usize = 59;

/// The table as it was read.
#[derive(Debug)]
pub struct Table {
    /// The tests that each row names.
    pub tests: BTreeMap<usize, BTreeSet<String>>,
    /// Rows that say "not applicable".
    pub not_applicable: BTreeSet<usize>,
    /// What is wrong: a missing row, a test that no source has or that has another row's number.
    pub problems: Vec<String>,
}

impl Table {
    /// Reads the table and the sources.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read() -> std::io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = std::fs::read_to_string(root.join("docs/understand/scenarios.md"))?;
        let mut known = BTreeSet::new();
        for folder in ["core", "broadcaster", "subscriber-sdk", "proto", "tests"] {
            collect(&root.join(folder), &mut known)?;
        }
        let mut table = Self { tests: BTreeMap::new(), not_applicable: BTreeSet::new(), problems: Vec::new() };
        for line in text.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, number, _, test, ..] = cells[..] else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            let named: BTreeSet<String> = test.split('`').skip(1).step_by(2).filter_map(test_name).collect();
            for name in &named {
                if !known.contains(name) {
                    table.problems.push(format!("row {number}: no source has a test {name}"));
                }
                if is_numbered(name) && !name.starts_with(&format!("s{number:02}_")) {
                    table.problems.push(format!("row {number} names {name}, which is of another row"));
                }
            }
            if test.starts_with("not applicable") {
                table.not_applicable.insert(number);
            }
            if table.tests.insert(number, named).is_some() {
                table.problems.push(format!("row {number} is there twice"));
            }
        }
        for number in (1..=ROWS).filter(|number| !table.tests.contains_key(number)) {
            table.problems.push(format!("row {number} is missing"));
        }
        // The other way round: a test with a row's number that its row does not name.
        for name in known.iter().filter(|name| is_numbered(name)) {
            let row = name[1..3].parse().ok().and_then(|row: usize| table.tests.get(&row));
            if !row.is_some_and(|row| row.contains(name)) {
                table.problems.push(format!("{name} is in no row of its number"));
            }
        }
        Ok(table)
    }

    /// Rows that name a test.
    pub fn shown(&self) -> impl Iterator<Item = usize> {
        self.tests.iter().filter(|(_, tests)| !tests.is_empty()).map(|(number, _)| *number)
    }
}

fn test_name(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (text.contains('_') && text.chars().all(plain)).then(|| text.to_owned())
}

fn is_numbered(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() > 4 && bytes[0] == b's' && bytes[1].is_ascii_digit() && bytes[2].is_ascii_digit() && bytes[3] == b'_'
}

/// Names of functions, and of tests that a macro makes: words alone on a line.
fn collect(folder: &Path, names: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, names)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            for line in text.lines().map(str::trim) {
                let function =
                    line.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or_default());
                names.extend(function.and_then(test_name));
                names.extend(Some(line).filter(|line| is_numbered(line)).and_then(test_name));
            }
        }
    }
    Ok(())
}
