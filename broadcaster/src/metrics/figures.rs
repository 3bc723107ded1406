//! Gauges over all secrets: each secret's task notes its own figures, and a scrape sums them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rotacast_clock as clock;
use rotacast_protocol::coordinator::{ConditionName, Coordinator, Overlay, Standing};
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{Instant, Now, Phase, WallTime};

use super::rotations::newest;

/// How many incarnations of one secret have which standing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Standings {
    pub(crate) live: u64,
    pub(crate) silent: u64,
    pub(crate) registered: u64,
    pub(crate) fenced: u64,
    pub(crate) left: u64,
}

impl Standings {
    /// Of all members.
    pub(crate) fn of(coordinator: &Coordinator, now: Now) -> Self {
        let mut counts = Self::default();
        for member in coordinator.members() {
            counts.count(coordinator.standing(member, now));
        }
        counts
    }

    /// One more that stands so.
    pub(crate) fn count(&mut self, standing: Standing) {
        *self.place(standing) += 1;
    }

    fn place(&mut self, standing: Standing) -> &mut u64 {
        match standing {
            Standing::Live => &mut self.live,
            Standing::Silent => &mut self.silent,
            Standing::Registered => &mut self.registered,
            Standing::Fenced => &mut self.fenced,
            Standing::Left => &mut self.left,
        }
    }

    fn by_label(mut self) -> impl Iterator<Item = (&'static str, u64)> {
        Standing::ALL.iter().map(move |standing| (standing.as_str(), *self.place(*standing)))
    }

    fn add(&mut self, other: Self) {
        self.live += other.live;
        self.silent += other.silent;
        self.registered += other.registered;
        self.fenced += other.fenced;
        self.left += other.left;
    }
}

/// One secret's figures, as of when its task last looked.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Figures {
    /// The rotation in flight: its phase, and when it began.
    pub(crate) rotation: Option<(Phase, WallTime)>,
    /// How long the phase in force may last, and when that is over.
    pub(crate) deadline: Option<(Duration, Instant)>,
    /// In the order of [`Overlay::ALL`].
    pub(super) overlays: [bool; Overlay::ALL.len()],
    /// By condition, in the order of [`ConditionName::ALL`].
    pub(super) blockers: [u64; ConditionName::ALL.len()],
    pub(crate) blocking_instances: u64,
    pub(crate) standings: Standings,
    /// Failed logins with the version being moved to, as instances that are known now report them.
    pub(crate) auth_failures: u64,
}

impl Figures {
    /// From the core's state and the status that was made of it.
    pub(crate) fn of(coordinator: &Coordinator, status: &SecretStatus, standings: Standings) -> Self {
        let record = coordinator.record();
        let mut figures = Self {
            rotation: record.rotation.as_ref().map(|rotation| (rotation.phase, rotation.started)),
            deadline: coordinator.deadline().map(|(deadline, over)| (deadline.after, over)),
            standings,
            auth_failures: match (&record.rotation, newest(coordinator)) {
                (Some(_), Some(version)) => coordinator.auth_failures(version),
                _ => 0,
            },
            ..Self::default()
        };
        for (lies, overlay) in figures.overlays.iter_mut().zip(Overlay::ALL) {
            *lies = status.overlays.contains(overlay);
        }
        let mut instances: Vec<&str> = Vec::new();
        for blocker in &status.blockers {
            for (_, count) in
                ConditionName::ALL.iter().zip(&mut figures.blockers).filter(|(it, _)| **it == blocker.condition)
            {
                *count += 1;
            }
            if blocker.condition.names_instances() {
                instances.extend(blocker.who.as_deref());
            }
        }
        instances.sort_unstable();
        instances.dedup();
        figures.blocking_instances = instances.len() as u64;
        figures
    }

    /// Whether it is in that special state.
    #[cfg(test)]
    pub(super) fn with_overlay(mut self, overlay: Overlay) -> Self {
        self.overlays[Overlay::ALL.iter().position(|it| *it == overlay).unwrap()] = true;
        self
    }
}

/// The figures of every secret that has a task; at most as many as there may be tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct AllFigures {
    slots: Arc<Mutex<BTreeMap<u64, Arc<Mutex<Figures>>>>>,
    next: Arc<AtomicU64>,
}

/// One task's place; its figures are gone with it.
#[derive(Debug)]
pub(crate) struct FiguresSlot {
    all: AllFigures,
    number: u64,
    figures: Arc<Mutex<Figures>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every call on it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FiguresSlot {
    /// The newest figures.
    pub(crate) fn tell(&self, figures: Figures) {
        *lock(&self.figures) = figures;
    }
}

impl Drop for FiguresSlot {
    fn drop(&mut self) {
        lock(&self.all.slots).remove(&self.number);
    }
}

/// All secrets together.
#[derive(Default)]
struct Sums {
    secrets: u64,
    rotations: [u64; Phase::ALL.len()],
    overlays: [u64; Overlay::ALL.len()],
    blockers: [u64; ConditionName::ALL.len()],
    blocking_instances: u64,
    standings: Standings,
    auth_failures: u64,
    oldest: Option<WallTime>,
    /// Seconds.
    nearest_deadline: Option<f64>,
    /// Of the time until it.
    most_used_deadline: f64,
}

impl Sums {
    fn add(&mut self, figures: &Figures, now: Now) {
        self.secrets += 1;
        if let Some((phase, started)) = figures.rotation {
            for (count, known) in self.rotations.iter_mut().zip(Phase::ALL) {
                *count += u64::from(*known == phase);
            }
            self.oldest = Some(self.oldest.map_or(started, |oldest| oldest.min(started)));
        }
        for (count, lies) in self.overlays.iter_mut().zip(figures.overlays) {
            *count += u64::from(lies);
        }
        for (count, more) in self.blockers.iter_mut().zip(figures.blockers) {
            *count += more;
        }
        self.blocking_instances += figures.blocking_instances;
        self.standings.add(figures.standings);
        self.auth_failures += figures.auth_failures;
        // One that has passed shows as stuck; the next one would be hidden behind it.
        if let Some((whole, over)) = figures.deadline.filter(|(_, over)| *over > now.instant) {
            let left = over.since(now.instant).as_secs_f64();
            self.nearest_deadline = Some(self.nearest_deadline.map_or(left, |nearest| nearest.min(left)));
            let whole = whole.as_secs_f64();
            if whole > 0.0 {
                self.most_used_deadline = self.most_used_deadline.max((whole - left) / whole);
            }
        }
    }
}

impl AllFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register_collector(Box::new(all.clone()));
        all
    }

    pub(super) fn join(&self) -> FiguresSlot {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let figures = Arc::default();
        lock(&self.slots).insert(number, Arc::clone(&figures));
        FiguresSlot { all: self.clone(), number, figures }
    }

    fn sums(&self, now: Now) -> Sums {
        let mut sums = Sums::default();
        for figures in lock(&self.slots).values() {
            sums.add(&lock(figures), now);
        }
        sums
    }
}

/// Writes one gauge.
struct Writer<'a>(DescriptorEncoder<'a>);

type Outcome = Result<(), std::fmt::Error>;

impl Writer<'_> {
    fn one(&mut self, name: &str, help: &str, value: f64) -> Outcome {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn by(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> Outcome {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in values {
            let labels = [(label, value)];
            ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for AllFigures {
    fn encode(&self, encoder: DescriptorEncoder) -> Outcome {
        let now = clock::now();
        let sums = self.sums(now);
        let mut to = Writer(encoder);
        to.one("secrets", "Secrets that this leader has a task for; 0 on a follower.", float(sums.secrets))?;
        let overlays = Overlay::NAMES.iter().copied().zip(sums.overlays);
        to.by("secrets_overlaid", "Secrets in a special state.", "overlay", overlays)?;
        let phases = Phase::NAMES.iter().copied().zip(sums.rotations);
        to.by("rotations_in_flight", "Rotations in flight, by phase.", "phase", phases)?;
        let age = sums
            .oldest
            .map_or(0.0, |oldest| std::time::Duration::from_millis(now.wall.0.saturating_sub(oldest.0)).as_secs_f64());
        to.one(
            "oldest_rotation_age_seconds",
            "How long the oldest rotation in flight has lasted; 0: none is in flight.",
            age,
        )?;
        let help = "The largest used part of a phase's deadline, among those that have not passed; 0: there is none.";
        to.one("deadline_used_ratio", help, sums.most_used_deadline)?;
        if let Some(left) = sums.nearest_deadline {
            let help =
                "Time to the nearest deadline of a rotation in flight that has not passed; absent: there is none.";
            to.one("nearest_deadline_seconds", help, left)?;
        }
        let help = "Reasons why rotations and retires wait, by what they wait for; at most 100 a secret.";
        to.by("blockers", help, "condition", ConditionName::NAMES.iter().copied().zip(sums.blockers))?;
        let help = "Incarnations that rotations and retires wait for, once for each secret; at most 100 a secret.";
        to.one("blocking_instances", help, float(sums.blocking_instances))?;
        let help = "Incarnations that use secrets, once for each secret, by standing.";
        to.by("instances", help, "standing", sums.standings.by_label())?;
        let help = "Failed logins with the versions that rotations in flight move to, as instances report them now.";
        to.one("rotating_authentication_failures", help, float(sums.auth_failures))
    }
}
