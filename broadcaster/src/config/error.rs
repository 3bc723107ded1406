//! What is wrong with a configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The file's line, from 1; none: the file as a whole, or an environment variable.
    pub line: Option<usize>,
    /// The setting, e.g. `leader.ttl`; empty: the file as a whole.
    pub setting: String,
    /// Expected, found, and the fix.
    pub text: String,
}

impl Problem {
    pub(super) fn of_file(text: String) -> Self {
        Self { line: None, setting: String::new(), text }
    }
}

/// A configuration that cannot be used, with every problem found.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct ConfigError {
    /// Which file.
    pub file: PathBuf,
    /// In the file's order; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(file: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        Self { file: file.into(), problems }
    }
}

impl fmt::Display for ConfigError {
    /// One line each: `rotacast.toml:12: leader.ttl: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.setting.is_empty() {
                write!(f, ": {}", problem.setting)?;
            }
            write!(f, ": {}", problem.text)?;
        }
        Ok(())
    }
}
