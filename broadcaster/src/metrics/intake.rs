//! What comes in from instances, the store and operators.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rotacast_protocol::WallTime;
use rotacast_protocol::coordinator::{Claim, Order, OrderName};
use rotacast_store::{ImportEvent, VersionEvent};

use super::label::{Counters, counters, counters_by_two, histogram, of_calls, of_long_times};

/// How a Sync ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncOutcome {
    /// With a reply.
    Answered,
    /// With a reply that asks for the registration.
    Unregistered,
    /// With a reply that asks for another Sync: it did not echo the challenge that is outstanding.
    Unproven,
    /// It was not signed by who it speaks for, or does not parse.
    Refused,
    /// Instances of its service that the roster does not know have too many under way.
    Throttled,
}

impl SyncOutcome {
    const ALL: [Self; 5] = [Self::Answered, Self::Unregistered, Self::Unproven, Self::Refused, Self::Throttled];

    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unregistered => "unregistered",
            Self::Unproven => "unproven",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
        }
    }
}

/// Counters of everything that comes in.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    syncs: Counters<1>,
    sync_seconds: Histogram,
    lease_requests: Counters<1>,
    reports: Counters<1>,
    claims: Counters<1>,
    report_lag: Histogram,
    versions: Counters<1>,
    imports: Counters<1>,
    orders: Counters<2>,
}

impl Intake {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            syncs: counters(
                registry,
                "syncs",
                "Syncs that reached this leader, by how they ended",
                "outcome",
                &SyncOutcome::ALL.map(SyncOutcome::label),
            ),
            sync_seconds: histogram(registry, "sync_duration_seconds", "How long it took to answer a Sync", of_calls),
            lease_requests: counters(
                registry,
                "lease_requests",
                "Lease requests for single secrets in Syncs: granted or refused by the secret's task, or not answered in time",
                "outcome",
                &["granted", "refused", "timed_out"],
            ),
            reports: counters(
                registry,
                "reports",
                "Reports over the bus: taken, refused for their signature, or with parts dropped because the mailbox of a \
                 secret's task was full",
                "outcome",
                &["taken", "refused", "dropped"],
            ),
            claims: counters(
                registry,
                "claims_refused",
                "Parts of reports and Syncs that were refused because they claim a grant that was never made, or a state that is \
                 newer than the record",
                "claim",
                Claim::NAMES,
            ),
            report_lag: histogram(
                registry,
                "report_lag_seconds",
                "Time from the signing of a report, by the instance's wall clock, until it was taken, by the broadcaster's; negative \
                 counts as 0, and a clock that is behind counts as lag",
                of_long_times,
            ),
            versions: counters(
                registry,
                "version_events",
                "Events of the watch of versions",
                "event",
                &["listed", "added", "changed", "deleted", "gap", "ignored", "resynced"],
            ),
            imports: counters(
                registry,
                "imports",
                "What the import from a plain tree did with values and keys of the source",
                "outcome",
                &["imported", "unchanged", "refused", "source_deleted"],
            ),
            orders: counters_by_two(
                registry,
                "orders",
                "Operators' orders that reached a secret's task",
                ("order", OrderName::NAMES),
                ("outcome", &["taken", "refused"]),
            ),
        }
    }

    /// A Sync was dealt with.
    pub(crate) fn sync(&self, outcome: SyncOutcome, took: Duration) {
        self.syncs.get_or_create(&[("outcome", outcome.label())]).inc();
        if outcome == SyncOutcome::Answered {
            self.sync_seconds.observe(took.as_secs_f64());
        }
    }

    /// So many secrets of a Sync were answered, refused, and not answered in time.
    pub(crate) fn leases(&self, granted: u64, refused: u64, timed_out: u64) {
        for (outcome, count) in [("granted", granted), ("refused", refused), ("timed_out", timed_out)] {
            self.lease_requests.get_or_create(&[("outcome", outcome)]).inc_by(count);
        }
    }

    /// An instance claims to know what does not exist.
    pub(crate) fn claim_refused(&self, claim: Claim) {
        self.claims.get_or_create(&[("claim", claim.as_str())]).inc();
    }

    /// A report came over the bus, signed at the time its envelope says; `dropped`: not every task took its part.
    pub(crate) fn report(&self, signed: &str, now: WallTime, dropped: bool) {
        self.reports.get_or_create(&[("outcome", if dropped { "dropped" } else { "taken" })]).inc();
        // Whatever stands there is shown only. What does not parse says nothing.
        if let Some(signed) = seconds_since_1970(signed) {
            self.report_lag.observe(Duration::from_secs((now.0 / 1000).saturating_sub(signed)).as_secs_f64());
        }
    }

    /// A report came over the bus, and was not accepted.
    pub(crate) fn report_refused(&self) {
        self.reports.get_or_create(&[("outcome", "refused")]).inc();
    }

    /// The watch of the versions told something.
    pub(crate) fn version(&self, event: &VersionEvent) {
        let event = match event {
            VersionEvent::Listed { .. } => "listed",
            VersionEvent::Added { .. } => "added",
            VersionEvent::Changed { .. } => "changed",
            VersionEvent::Deleted { .. } => "deleted",
            VersionEvent::Gap { .. } => "gap",
            VersionEvent::GapClosed { .. } => "gap_closed",
            VersionEvent::Ignored { .. } => "ignored",
            VersionEvent::Resynced(_) => "resynced",
        };
        self.versions.get_or_create(&[("event", event)]).inc();
    }

    /// The import did something with a key of the source.
    pub(crate) fn import(&self, event: &ImportEvent) {
        let outcome = match event {
            ImportEvent::Imported { .. } => "imported",
            ImportEvent::Unchanged { .. } => "unchanged",
            ImportEvent::Refused { .. } => "refused",
            ImportEvent::SourceDeleted { .. } => "source_deleted",
            ImportEvent::Moved { .. } | ImportEvent::Resynced(_) => return,
        };
        self.imports.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// An order was decided.
    pub(crate) fn order(&self, order: &'static str, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.orders.get_or_create(&[("order", order), ("outcome", outcome)]).inc();
    }

    /// What an order is counted as.
    pub(crate) fn label(order: &Order) -> &'static str {
        order.name().as_str()
    }
}

/// Reads `2026-11-25T20:00:00Z`, with or without a fraction of a second.
fn seconds_since_1970(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let valid = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    // Days from 1970-01-01 to a Gregorian date, with years that begin in March (the well-known era-based conversion).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    Some(days.saturating_sub(719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for seconds in [0, 951_782_400, 951_827_696, 1_795_392_000, 4_102_444_799] {
            assert_eq!(seconds_since_1970(&WallTime(seconds * 1000).to_string()), Some(seconds));
        }
        assert_eq!(seconds_since_1970("1970-01-01T00:00:01.5Z"), Some(1));
    }

    #[test]
    fn anything_else_is_no_time() {
        for text in ["", "now", "1970-01-01", "1970-01-01T00:00Z", "1970-00-01T00:00:00Z", "0000-01-01T00:00:00Z"] {
            assert_eq!(seconds_since_1970(text), None, "{text}");
        }
        assert_eq!(seconds_since_1970("99999999999999999999-01-01T00:00:00Z"), None);
    }
}
