//! The status of the service, one line of JSON at a time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use rotacast_protocol::Instant;
use rotacast_subscriber::Version;
use serde::{Deserialize, Serialize};

use super::Settings;

/// How many different error texts are kept.
const ERRORS: usize = 20;

/// One line. Counts are since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: String,
    /// The process id.
    pub process: u32,
    /// Queries that returned the right answer.
    pub queries_ok: u64,
    /// Queries that did not, for whatever reason.
    pub queries_failed: u64,
    /// How often each failure happened, by its text. The first 20 texts.
    pub errors: BTreeMap<String, u64>,
    /// Queries answered, by version.
    pub by_version: BTreeMap<u64, u64>,
    /// When each version was last handed out for work, in nanoseconds of `CLOCK_BOOTTIME`, which is the same for every
    /// process and goes on while one is stopped.
    #[serde(default)]
    pub last_checkout: BTreeMap<u64, u64>,
    /// The version for new work.
    pub version: Option<u64>,
    /// The oldest version that has an open pool. Connections kept by `--leak` are not counted, because the service does
    /// not know of them.
    pub oldest_held: Option<u64>,
    /// It has left Rotacast for good: this is the last line.
    pub left: bool,
}

impl Status {
    pub(crate) fn write_line(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }
}

/// What the workers count.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Tally>);

#[derive(Debug, Default)]
struct Tally {
    failed: u64,
    errors: BTreeMap<String, u64>,
    by_version: BTreeMap<u64, u64>,
    last_checkout: BTreeMap<u64, u64>,
}

impl Counts {
    /// A version was returned for use, not before `asked`.
    pub(crate) fn checked_out(&self, version: Version, asked: Instant) {
        let mut tally = self.tally();
        let last = tally.last_checkout.entry(version.get()).or_default();
        *last = asked.as_nanos().max(*last);
    }

    pub(crate) fn ok(&self, version: Version) {
        *self.tally().by_version.entry(version.get()).or_default() += 1;
    }

    pub(crate) fn failed(&self, error: String) {
        let mut tally = self.tally();
        tally.failed += 1;
        if tally.errors.len() < ERRORS || tally.errors.contains_key(&error) {
            *tally.errors.entry(error).or_default() += 1;
        }
    }

    pub(crate) fn status(
        &self,
        settings: &Settings,
        version: Option<Version>,
        oldest_held: Option<Version>,
        left: bool,
    ) -> Status {
        let tally = self.tally();
        Status {
            service: settings.service.clone(),
            instance: settings.instance.clone(),
            process: std::process::id(),
            queries_ok: tally.by_version.values().sum(),
            queries_failed: tally.failed,
            errors: tally.errors.clone(),
            by_version: tally.by_version.clone(),
            last_checkout: tally.last_checkout.clone(),
            version: version.map(Version::get),
            oldest_held: oldest_held.map(Version::get),
            left,
        }
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
