//! One secret's values, installations and hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rotacast_holder::Holder;
use rotacast_protocol::Version;

use crate::credential::CredentialView;
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
            trace,
        }
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
