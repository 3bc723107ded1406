//! A store that comes back from a backup: what is lost, and what the operator does.

use std::collections::BTreeSet;

use rotacast_protocol::coordinator::Order;
use rotacast_protocol::record::{Doubt, Label, ProviderId, SecretRecord};
use rotacast_protocol::{Phase, Version};

use crate::clock::SECOND;
use crate::event::Event;
use crate::rng::Rng;
use crate::world::World;

/// In how many thousandths of restorations the provider refuses logins for a while, and the shortest and longest time.
const NO_LOGINS: u64 = 300;
const NO_LOGINS_LAST: [u64; 2] = [2 * SECOND, 40 * SECOND];

/// In how many thousandths of worlds with logins the operator is hasty.
const HASTY: u64 = 300;

/// In how many thousandths of worlds nothing can log in.
const WITHOUT_LOGINS: u64 = 200;

/// How many thousandths of the versions that the operator writes because of it do not work.
const BAD_RESCUES: u64 = 150;

impl World {
    /// Values that were written after the backup are gone. Those that it has are there again.
    pub(crate) fn lose_history(&mut self, backup: &SecretRecord) {
        let kept = backup.last_version.map_or(0, Version::get);
        let mut held = BTreeSet::new();
        for running in self.instances.iter().filter(|running| running.alive) {
            held.extend(running.loading.iter().copied());
            held.extend(running.shown.iter().copied());
            held.extend(running.guards.iter().map(|guard| guard.version));
            held.extend(running.rules.holder(&self.secret).map(|holder| holder.report().held).unwrap_or_default());
        }
        let outside = &mut self.outside;
        for version in (kept + 1..=outside.last_version).filter_map(|number| Version::new(number).ok()) {
            outside.written.remove(&version);
            outside.journal.remove(&version);
            if held.contains(&version) {
                continue;
            }
            // Its number may be used again, for another version.
            outside.erased.remove(&version);
            outside.bad.remove(&version);
            outside.made.remove(&version);
            outside.disabled.remove(&version);
            outside.half_disabled.remove(&version);
            outside.destroyed.remove(&version);
            outside.deleted.remove(&version);
            self.truth.prepared.remove(&version);
            self.truth.served.remove(&version);
            self.truth.sealed.remove(&version);
            self.truth.cut_off.remove(&version);
        }
        outside.last_version = held.last().map_or(kept, |last| last.get().max(kept));
        let unmade = backup.rotation.as_ref().filter(|rotation| !rotation.created).map(|rotation| rotation.new);
        for version in backup.live_versions().filter(|version| Some(*version) != unmade) {
            outside.written.insert(version);
            outside.erased.remove(&version);
        }
        // Requests of stopped broadcasters are carried out or not: none is under way any more.
        self.queue.retain(|_, event| {
            !matches!(
                event,
                Event::EffectArrives { .. }
                    | Event::SaveArrives { .. }
                    | Event::CampaignArrives { .. }
                    | Event::RosterWritten { .. }
            )
        });
        outside.rescue = None;
        outside.staying = 0;
        if self.rng.permille(NO_LOGINS) {
            let [least, most] = NO_LOGINS_LAST;
            self.outside.no_logins = self.now + self.rng.between(least, most);
        }
        self.truth.decided.clear();
    }

    /// Whether a test login with a restored version is refused for a reason that will pass.
    pub(crate) fn refuses_for_now(&self, version: Version) -> bool {
        let doubted = self.outside.stored.as_ref().is_some_and(|stored| stored.record.doubt(version).is_some());
        doubted && self.outside.no_logins > self.now
    }

    /// Whether a login can show that a version works.
    fn tries_logins(&self) -> bool {
        self.policy.provider.as_ref().is_some_and(ProviderId::has_logins)
    }

    /// Whether no login shows anything in this world.
    pub(crate) fn has_no_logins(seed: u64) -> bool {
        Rng::new(seed ^ 0x106 << 48).permille(WITHOUT_LOGINS)
    }

    pub(crate) fn has_hasty_operator(seed: u64) -> bool {
        !Self::has_no_logins(seed) && Rng::new(seed ^ 0x1057 << 48).permille(HASTY)
    }

    /// Restarts an instance that reports a number which came again, and skips numbers that no version will ever have.
    pub(crate) fn restarts_the_confused(&mut self) {
        let healed = self.healed.unwrap_or(self.now);
        if !self.outside.ever_restored || self.now < healed + 30 * SECOND {
            return;
        }
        for index in 0..self.instances.len() {
            let running = &self.instances[index];
            let failure = running.rules.holder(&self.secret).and_then(|holder| holder.failure());
            if running.alive && failure.is_some_and(|failure| failure.text.contains("restart it")) {
                let (clock, exclusive) = (running.clock.clone(), running.exclusive);
                self.start_instance(index, clock, exclusive);
            }
        }
        let taken = self.outside.stored.as_ref().and_then(|stored| stored.record.last_version).map_or(0, Version::get);
        if !self.outside.written.iter().any(|version| version.get() > taken) {
            self.outside.last_version = taken;
        }
        for version in (taken + 1..self.outside.last_version).filter_map(|number| Version::new(number).ok()) {
            if self.outside.written.insert(version) {
                self.outside.bad.insert(version);
            }
        }
    }

    /// The versions that the instances serve, once the leader has heard all that it knows; none: not yet.
    fn served(&self) -> Option<(SecretRecord, BTreeSet<Version>)> {
        let node = self.leading_node()?;
        let coordinator = self.leaders[node].term.as_ref()?.coordinator();
        let record = coordinator.record().clone();
        let noticed = record.lost_history?.noticed;
        let hears = |report: Option<&rotacast_protocol::coordinator::Reported>| {
            report.is_some_and(|report| report.revision >= noticed)
        };
        let patient = self.healed.is_none_or(|healed| self.now < healed + 30 * SECOND);
        let mut members = coordinator.members();
        if patient && members.any(|member| !member.is_gone() && !hears(member.report())) {
            return None;
        }
        let heard = self.instances.iter().filter(|running| {
            running.alive && hears(coordinator.member_of(running.rules.key()).and_then(|member| member.report()))
        });
        let served = heard.filter_map(|running| running.rules.holder(&self.secret)?.serving()).collect();
        Some((record, served))
    }

    /// Whether a version works and the store has its value. An operator can find that out.
    pub(crate) fn is_good(&self, version: Version) -> bool {
        let outside = &self.outside;
        outside.written.contains(&version)
            && !outside.erased.contains(&version)
            && !outside.disabled.contains_key(&version)
            && !outside.deleted.contains(&version)
            && !outside.bad.contains(&version)
    }

    /// A version that works and waits. Writes one if there is none.
    fn rescue(&mut self, record: &SecretRecord) -> Option<Version> {
        let known = |version| record.versions.get(&version).map(|version| version.label);
        match self.outside.rescue {
            Some(version) if known(version) == Some(Label::Pending) => Some(version),
            Some(version) if known(version).is_none() && Some(version) > record.last_version => None,
            _ => {
                let bad = self.rng.permille(BAD_RESCUES);
                self.outside.rescue = Some(self.outside.put(bad));
                self.tell(|| "the operator writes a version".into());
                self.tell_versions();
                None
            }
        }
    }

    /// What an operator does once history was lost, as docs/operate/OPERATIONS.md says. Returns whether everything else
    /// waits for it.
    pub(crate) fn sees_to_restored(&mut self) -> bool {
        let Some(node) = self.leading_node() else { return false };
        let Some(term) = &self.leaders[node].term else { return false };
        let record = term.coordinator().record();
        if record.safe_mode.is_none() && !record.stay {
            return false;
        }
        if record.safe_mode.is_some() && self.outside.hasty {
            self.order(Order::LeaveSafeMode);
            return true;
        }
        let Some((record, served)) = self.served() else { return true };
        if record.safe_mode.is_some() {
            // Where no login shows it, leaving safe mode is the operator's word for what a rotation prepares.
            let prepares =
                record.rotation.as_ref().filter(|it| matches!(it.phase, Phase::Verifying | Phase::Preparing));
            if prepares.is_some_and(|rotation| rotation.created && !self.is_good(rotation.new)) && !self.tries_logins()
            {
                self.order(Order::rollback("it has ended").expect("a reason"));
                return true;
            }
            let follows =
                record.current.is_some_and(|it| self.is_good(it) && served.iter().all(|version| *version == it));
            if follows || self.rescue(&record).is_some() {
                self.tell(|| format!("the operator leaves safe mode; served: {served:?}"));
                self.order(Order::LeaveSafeMode);
            }
            return true;
        }
        self.outside.staying += 1;
        let failed = record.versions.values().any(|version| version.doubt == Some(Doubt::Failed));
        if failed && self.outside.staying.is_multiple_of(10) {
            self.tell(|| "the operator has logins tried again that failed".into());
            self.order(Order::LeaveSafeMode);
        }
        if !record.waits() {
            self.rescue(&record);
        } else if self.outside.staying > 20
            && let Some(rotation) = &record.rotation
            && Some(rotation.new) != self.outside.rescue
            && !matches!(rotation.phase, Phase::RollingBack | Phase::Retiring)
        {
            self.outside.staying = 0;
            self.order(Order::rollback("in the way").expect("a reason"));
        }
        false
    }
}
