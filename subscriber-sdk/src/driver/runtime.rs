//! One secret's values, installations and hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rotacast_holder::{Holder, Step};
use rotacast_protocol::{Instant, Version};

use crate::credential::CredentialView;
use crate::driver::{LONGEST_PAUSE, backoff};
use crate::hooks::Hooks;
use crate::live::{Cell, Live};
use crate::trace::SecretTrace;

pub(super) struct SecretRuntime {
    pub(super) cell: Arc<Cell>,
    pub(super) hooks: Hooks,
    values: BTreeMap<Version, Arc<CredentialView>>,
    installed: Option<Version>,
    /// Installations that are installed or that a guard points to.
    lives: Vec<(Version, Weak<Live>)>,
    told: BTreeSet<Version>,
    /// The release hook that runs, since when, and whether operators know that it takes too long.
    releasing: Option<(Version, Instant, bool)>,
    /// The pauses between attempts to take the first version into use.
    first_attempts: backon::ExponentialBackoff,
    pub(super) trace: SecretTrace,
}

impl SecretRuntime {
    pub(super) fn new(cell: Arc<Cell>, trace: SecretTrace) -> Self {
        Self {
            cell,
            hooks: Hooks::new(),
            values: BTreeMap::new(),
            installed: None,
            lives: Vec::new(),
            told: BTreeSet::new(),
            releasing: None,
            first_attempts: backoff(),
            trace,
        }
    }

    /// A hook has begun.
    pub(super) fn began(&mut self, step: Step, version: Version, now: Instant) {
        self.releasing = (step == Step::Release).then_some((version, now, false));
    }

    /// The hook has ended.
    pub(super) fn ended(&mut self) {
        self.releasing = None;
    }

    /// When the release hook that runs will have taken too long.
    pub(super) fn overdue_at(&self, timeout: Duration) -> Option<Instant> {
        self.releasing.filter(|(_, _, told)| !told).map(|(_, since, _)| since + timeout)
    }

    /// The version whose release hook takes too long, once.
    pub(super) fn release_is_overdue(&mut self, now: Instant, timeout: Duration) -> Option<Version> {
        let over = self.overdue_at(timeout).is_some_and(|at| at <= now);
        let (version, _, told) = self.releasing.as_mut().filter(|_| over)?;
        *told = true;
        Some(*version)
    }

    /// How long the next attempt at the first version waits.
    pub(super) fn next_first_attempt(&mut self) -> Duration {
        self.first_attempts.next().unwrap_or(LONGEST_PAUSE)
    }

    pub(super) fn keep(&mut self, view: Arc<CredentialView>) {
        self.values.insert(view.version(), view);
    }

    pub(super) fn view(&self, version: Version) -> Option<Arc<CredentialView>> {
        self.values.get(&version).cloned()
    }

    pub(super) fn views(&self) -> impl Iterator<Item = &Arc<CredentialView>> {
        self.values.values()
    }

    /// Brings what is handed out in step with the holder. Returns the versions that are held, when the holder must
    /// hear of it.
    pub(super) fn install(&mut self, holder: &Holder, leaving: bool) -> Option<BTreeSet<Version>> {
        let serving = holder.serving().filter(|_| !leaving);
        let switched = serving.is_some() && serving != self.installed;
        if let Some(version) = serving
            && switched
            && let Some(view) = self.values.get(&version)
        {
            let max_use = holder.state().map_or(Duration::ZERO, |state| state.max_use);
            let live = Arc::new(Live::new(Arc::clone(view), holder.lease_until(version), max_use, &self.cell));
            self.lives.push((version, Arc::downgrade(&live)));
            // After this returns, every guard of the earlier installation counts in its strong count, also those
            // other threads were just taking: arc-swap settles them before it lets go.
            self.cell.live.store(Some(live));
            self.installed = Some(version);
        }
        for (version, live) in &self.lives {
            if let Some(live) = live.upgrade() {
                live.set_until(holder.lease_until(*version));
            }
        }
        let held = self.held();
        (switched || held != self.told).then(|| {
            self.told.clone_from(&held);
            held
        })
    }

    fn held(&mut self) -> BTreeSet<Version> {
        self.lives.retain(|(_, live)| live.strong_count() > 0);
        self.lives.iter().map(|(version, _)| *version).collect()
    }

    /// Drops values that the holder has released.
    pub(super) fn forget(&mut self, holder: &Holder) {
        let loaded: BTreeSet<Version> = holder.loaded().collect();
        self.values.retain(|version, _| loaded.contains(version));
        self.trace.in_step(holder);
    }

    /// Hands out nothing more. Returns what guards still hold.
    pub(super) fn close(&self) -> BTreeSet<Version> {
        self.cell.closed.store(true, Ordering::Release);
        self.cell.live.store(None);
        // So that no caller waits for a change that never comes.
        self.cell.status.send_modify(|_| {});
        self.lives.iter().filter(|(_, live)| live.strong_count() > 0).map(|(version, _)| *version).collect()
    }
}
