//! The judge knows what is true: which instance may use which version at this moment, by the instances' own clocks and
//! guards; when the provider really ended a credential; what the store really holds. It reads no state of a leader.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_protocol::coordinator::{Change, Coordinator, MAX_MEMBERS};
use rotacast_protocol::policy::{WhenEmpty, WhenUnreachable};
use rotacast_protocol::record::{RecordChange, RetireStep, SecretRecord};
use rotacast_protocol::{Epoch, Nonce, Phase, ReportSequence, Version};

use crate::clock::SECOND;
use crate::fault::When;
use crate::instance::Running;
use crate::outside::Intent;
use crate::world::World;

/// What is true beyond the state of the world's parts.
#[derive(Default, Debug)]
pub struct Truth {
    /// Instances that operators' durable overrides cut off, by version.
    pub cut_off: BTreeMap<Version, BTreeSet<String>>,
    /// Incarnations that operators said are gone.
    pub gone: BTreeSet<String>,
    /// Versions that operators gave up: their credentials are left as they are.
    pub given_up: BTreeSet<Version>,
    /// The provider is not in the configuration, until then.
    pub provider_away: u64,
    /// When the version that is current became current.
    pub activated: u64,
    /// Services of which an instance really used a version.
    pub served: BTreeMap<Version, BTreeSet<String>>,
    /// Versions that some instance was really ready for.
    pub prepared: BTreeSet<Version>,
    /// When an instance of each service last used the version that is current, by version.
    pub last_used: BTreeMap<(Version, String), u64>,
    /// When a retirement was really sealed.
    pub sealed: BTreeMap<Version, u64>,
    /// The provider carries out half of each request until then.
    pub provider_half: u64,
    /// Connections that only the provider sees: of which version, since when and until when.
    pub leaked: Vec<(Version, u64, u64)>,
    /// When a leader last took in, of each service, that an instance has switched to a version: what was under way for long
    /// counts from there, since the leader cannot know better.
    pub confirmed: BTreeMap<(Version, String), u64>,
    /// When a leader last heard each incarnation, and the newest report that it heard. A report that was overtaken is
    /// no sign that the instance runs.
    pub heard: BTreeMap<String, (u64, ReportSequence)>,
    /// When a leader took in the last word that an incarnation is gone, and when it had heard that incarnation last by then. What it
    /// hears while the word is being saved comes too late.
    pub said_gone: BTreeMap<String, (u64, u64)>,
    /// The Syncs that had an effect.
    pub granted: BTreeSet<Nonce>,
    /// The policy was changed, so no single policy says what silence means.
    pub policy_changed: bool,
    /// Versions whose retire began after the last restoration of the store.
    pub decided: BTreeSet<Version>,
    /// Retire guards that held because of a release, an expired lease, a takeover's wait, or an override.
    pub retired_after: BTreeMap<&'static str, u64>,
}

impl World {
    /// Checks every save that the store takes: who wrote it, and what it changes.
    pub(crate) fn check_save(&mut self, node: usize, epoch: Epoch, record: &SecretRecord) {
        if !self.outside.leads(node, epoch, self.now) {
            self.violated("F", format!("broadcaster {node} of {epoch:?}, which does not lead, wrote the record"));
        }
        let before = self.outside.stored.as_ref().map(|stored| stored.record.clone());
        if let Some(before) = &before {
            if record.revision <= before.revision {
                self.violated("I", format!("the revision goes from {} to {}", before.revision, record.revision));
            }
            self.check_direction(before, record);
            self.check_activation(before, record);
            for version in record.retirements.keys() {
                self.check_retire(*version, before, record);
            }
            self.check_ends(before, record);
            self.check_bounds(before, record);
            if before.current != record.current {
                self.truth.activated = self.now;
            }
        }
        self.check_alone(record);
        self.note(before.as_deref(), record);
    }

    fn check_direction(&mut self, before: &SecretRecord, record: &SecretRecord) {
        if record.generation < before.generation {
            self.violated("V", format!("the generation goes from {} to {}", before.generation, record.generation));
        }
        if record.generation == before.generation && record.current < before.current {
            self.violated(
                "V",
                format!("{:?} comes back after {:?} without a new direction", record.current, before.current),
            );
        }
        if let (Some(last), Some(now)) = (before.last_version, record.last_version)
            && now > last.next()
            // Numbers of a lost history are skipped.
            && !(before.stay && record.versions.keys().eq(before.versions.keys()))
        {
            self.violated("G", format!("version {now} is taken in after version {last}"));
        }
        let past = |record: &SecretRecord| record.rotation.as_ref().is_some_and(|it| it.phase == Phase::Retiring);
        self.check_turn(before, record);
        if past(before) && record.rotation.as_ref().is_some_and(|it| it.phase == Phase::RollingBack) {
            self.violated("S1", "a rotation is rolled back after the point of no return".into());
        }
    }

    /// No rotation goes back by itself from a version that works to one that has ended.
    fn check_turn(&mut self, before: &SecretRecord, record: &SecretRecord) {
        let Some(rotation) = &record.rotation else { return };
        let Some(reason) = rotation.rollback.as_ref().filter(|_| record.generation > before.generation) else { return };
        let ordered = reason.starts_with("ada");
        let moved = before.current == Some(rotation.new) && rotation.phase == Phase::RollingBack;
        let ended = rotation.old.is_some_and(|old| self.outside.disabled.contains_key(&old));
        if moved && !ordered && ended && self.is_good(rotation.new) && !self.outside.restored_running {
            let (old, new) = (rotation.old.map_or(0, Version::get), rotation.new);
            self.violated("A", format!("version {new}, which works, is given up for version {old}, which has ended"));
        }
    }

    fn check_activation(&mut self, before: &SecretRecord, record: &SecretRecord) {
        if let (None, Some(rotation)) = (&before.rotation, &record.rotation)
            && before.safe_mode.is_some()
        {
            self.violated("safe mode", format!("a rotation to version {} starts in it", rotation.new));
        }
        let phase = |record: &SecretRecord| record.rotation.as_ref().map(|rotation| rotation.phase);
        let Some(rotation) = &record.rotation else { return };
        if (phase(before), phase(record)) == (Some(Phase::Verifying), Some(Phase::Preparing))
            && self.outside.bad.contains(&rotation.new)
        {
            self.violated("test login", format!("version {} goes on although its login fails", rotation.new));
        }
        if (phase(before), phase(record)) != (Some(Phase::Preparing), Some(Phase::Activating)) {
            return;
        }
        if before.paused.is_some() {
            self.violated("pause", format!("version {} is activated in it", rotation.new));
        }
        if before.safe_mode.is_some() {
            self.violated("safe mode", format!("version {} is activated in it", rotation.new));
        }
        if self.policy.approval && rotation.approved.is_none() {
            self.violated("approval", format!("version {} is activated without one", rotation.new));
        }
        if self.policy.when_empty == WhenEmpty::Hold && !self.truth.prepared.contains(&rotation.new) {
            self.violated(
                "live instance",
                format!("version {} is activated and no instance was ready for it", rotation.new),
            );
        }
        // Where no message is ever lost or late, every instance that has worked for a while is waited for.
        if self.loss == 0 && self.slowness == 0 {
            let cut = |running: &Running| {
                let until = [running.no_leader[0], running.no_leader[1], running.no_store, running.no_bus];
                running.stopped > 0 || until.iter().any(|until| *until > 0)
            };
            let late = self.instances.iter().find(|running| {
                let name = name(running);
                running.alive
                    && running.settled_since.is_some_and(|since| since + 2 * SECOND < self.now)
                    && !cut(running)
                    && !rotation.excused.contains(&name)
                    && !running.has_prepared(&self.secret, rotation.new)
            });
            if let Some(index) = late.map(|running| running.index) {
                self.violated(
                    "stages",
                    format!("version {} is activated and instance {index} is not ready", rotation.new),
                );
            }
        }
    }

    /// The point of no return of one version.
    fn check_retire(&mut self, version: Version, before: &SecretRecord, record: &SecretRecord) {
        let step = |record: &SecretRecord| record.retirements.get(&version).and_then(|retirement| retirement.step);
        let given_up = record.retirements.get(&version).is_some_and(|retirement| retirement.given_up.is_some());
        if step(before) == Some(RetireStep::Disable)
            && step(record) == Some(RetireStep::Destroy)
            && !given_up
            && !self.outside.disabled.contains_key(&version)
        {
            self.violated("S1", format!("version {version} counts as disabled and still works"));
        }
        if step(before).is_some() || step(record).is_none() {
            return;
        }
        if record.lost_history.is_some() && !self.outside.restored {
            self.truth.decided.insert(version);
        }
        if before.paused.is_some() {
            self.violated("pause", format!("the retire of version {version} begins in it"));
        }
        if before.safe_mode.is_some() {
            self.violated("safe mode", format!("the retire of version {version} begins in it"));
        }
        if !before.versions.get(&version).is_some_and(|version| version.sealed) {
            self.violated("seal", format!("the retire of version {version} begins and it is not sealed"));
        }
        let unwanted_since = record.retirements.get(&version).map(|retirement| retirement.unwanted_since);
        if !self.outside.audit.contains(&Intent { version, unwanted_since }) {
            self.violated("A", format!("the retire of version {version} begins without an audit entry about it"));
        }
        let rotated = record.rotation.as_ref().is_some_and(|rotation| rotation.old == Some(version));
        if !rotated {
            return;
        }
        // A clock may be wrong by one part in a hundred.
        let overlap = u64::try_from(self.policy.min_overlap.as_nanos()).unwrap_or(u64::MAX);
        if self.now.saturating_sub(self.truth.activated) < overlap / 100 * 99 {
            self.violated("overlap", format!("version {version} is retired too soon"));
        }
        let served = record.current.and_then(|current| self.truth.served.get(&current)).cloned();
        if served.is_none() {
            self.violated(
                "live instance",
                format!("version {version} is retired and no instance has used the new one"),
            );
        }
        for service in self.policy.required.keys().map(ToString::to_string).collect::<Vec<_>>() {
            if !served.as_ref().is_some_and(|served| served.contains(&service)) {
                self.violated("required", format!("version {version} is retired; {service} never used the new one"));
            }
        }
    }

    fn check_ends(&mut self, before: &SecretRecord, record: &SecretRecord) {
        for (version, retirement) in &before.retirements {
            if retirement.step.is_some() && !record.retirements.contains_key(version) {
                let given_up = retirement.given_up.is_some();
                if !given_up && !self.outside.disabled.contains_key(version) {
                    self.violated("S1", format!("the retire of version {version} ended and it still works"));
                }
                let destroyed = given_up || self.outside.destroyed.contains(version);
                let gone = destroyed && self.outside.erased.contains(version);
                if !gone {
                    self.violated("L", format!("the retire of version {version} ended and something is left of it"));
                }
            }
        }
    }

    /// A successor waits for what the record says, so no longer lease may be running.
    fn check_bounds(&mut self, before: &SecretRecord, record: &SecretRecord) {
        if record.bounds.lease >= before.bounds.lease || self.outside.ever_restored {
            return;
        }
        let bound = record.bounds.lease.max(record.bounds.self_lease);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX) / 100 * 102;
        let longer = self.instances.iter().filter(|running| running.alive).find(|running| {
            let holder = running.rules.holder(&self.secret);
            let ends = |version: &Version| {
                let until = holder.map(|holder| holder.lease_until(*version));
                until.is_some_and(|until| running.clock.when(until) > self.now + bound)
            };
            record.versions.keys().any(ends)
        });
        if let Some(index) = longer.map(|running| running.index) {
            self.violated("bounds", format!("the record's bound is lowered while instance {index} has a longer lease"));
        }
    }

    /// What the record alone shows.
    fn check_alone(&mut self, record: &SecretRecord) {
        if record.current.is_some_and(|current| record.retirements.contains_key(&current)) {
            self.violated("S1", "the current version is being retired".into());
        }
        // A restored store does not know what was done after its backup: see docs/understand/SAFETY.md.
        if !self.outside.ever_restored && record.current.is_some_and(|it| self.outside.disabled.contains_key(&it)) {
            self.violated("S1", "a disabled version becomes current".into());
        }
        let moving = record.rotation.as_ref().map(|rotation| rotation.new);
        // Versions that instances heard of, and the one that is about to be announced. The others only wait, or ended
        // unused.
        let counts =
            |version: &Version| record.versions.get(version).is_some_and(|it| it.announced) || Some(*version) == moving;
        let live = record.live_versions().filter(counts).count();
        // After a break in the history, every version that waits counts as announced.
        if live > self.policy.max_live_versions && !self.outside.ever_restored {
            self.violated("live versions", format!("{live} are valid at once"));
        }
        if record.encode().len() > 200 * 1024 {
            self.violated("B", "the record has no bound".into());
        }
    }

    /// Takes note of a save, and of the moments for the script.
    fn note(&mut self, before: Option<&SecretRecord>, record: &SecretRecord) {
        for (version, retirement) in &record.retirements {
            for word in &retirement.overrides {
                self.truth.cut_off.entry(*version).or_default().extend(word.instances.iter().cloned());
            }
        }
        for (version, retirement) in &record.retirements {
            if retirement.given_up.is_some() && self.truth.given_up.insert(*version) {
                self.counts.given_up += 1;
            }
        }
        self.note_gone(record);
        let phase = |record: &SecretRecord| {
            record.rotation.as_ref().filter(|rotation| rotation.old.is_some()).map(|rotation| rotation.phase)
        };
        let now = phase(record);
        if let Some(phase) = now.filter(|_| before.and_then(phase) != now) {
            self.tell(|| format!("the record says {phase}"));
            self.cue(When::Phase(phase));
        }
        let sealed = record.sealed();
        let earlier = before.map(SecretRecord::sealed).unwrap_or_default();
        for version in sealed.difference(&earlier) {
            self.truth.sealed.insert(*version, self.now);
            self.tell(|| format!("version {version} is sealed"));
        }
        if sealed.difference(&earlier).next().is_some() {
            self.cue(When::Sealed);
        }
    }

    /// An incarnation that an operator said is gone: no leader had heard it for as long as a leader waits before it
    /// offers that.
    fn note_gone(&mut self, record: &SecretRecord) {
        let silence = u64::try_from(record.longest_sync().as_nanos()).unwrap_or(u64::MAX) / 100 * 98 * 3;
        for name in record.gone.keys() {
            if !self.truth.gone.insert(name.clone()) {
                continue;
            }
            self.counts.said_gone += 1;
            let runs = self.instances.iter().any(|running| running.alive && self::name(running) == *name);
            self.counts.said_gone_and_runs += u64::from(runs);
            let (said, heard) = self.truth.said_gone.get(name).copied().unwrap_or_default();
            self.tell(|| format!("an operator's word that {name} is gone is taken"));
            if heard > 0 && said.saturating_sub(heard) < silence {
                self.violated("gone", format!("{name} counts as gone and was heard just now"));
            }
        }
    }

    /// Every decision is checked with the guard at that moment, and every grant with the store.
    pub(crate) fn check_decided(&mut self, epoch: Epoch, coordinator: &Coordinator, changes: &[Change]) {
        let mut problem = None;
        let retires: Vec<Version> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Record(RecordChange::RetireBegan { version, .. }) => Some(*version),
                _ => None,
            })
            .collect();
        for change in changes {
            if let Change::ReportFolded { key, sequence, .. } = change
                && let Some(member) = coordinator.member_of(key)
                && member.report().is_some()
                && member.sequence >= *sequence
            {
                problem = Some(("I", format!("report {sequence} of {key} counts after report {}", member.sequence)));
            }
            let Change::LeaseGranted { key, over, length, .. } = change else { continue };
            if self.outside.lock.as_ref().is_some_and(|lock| lock.epoch > epoch) && !self.outside.ever_restored {
                problem = Some(("F", "a deposed leader grants a lease".into()));
            }
            let bound = self.outside.stored.as_ref().map(|stored| stored.record.bounds.lease);
            if bound.is_some_and(|bound| *length > bound) && !self.outside.ever_restored {
                problem = Some(("bounds", format!("a lease of {length:?} is granted, and the record says {bound:?}")));
            }
            if !self.outside.roster.contains_key(key) && !self.outside.ever_restored {
                problem = Some(("joiner", format!("{key} gets a lease and is not in the roster")));
            }
            let record = coordinator.record();
            if let Some(version) = over.keys().find(|version| record.versions.get(version).is_some_and(|it| it.sealed))
            {
                problem = Some(("seal", format!("sealed version {version} is leased")));
            }
            if !self.outside.ever_registered.contains(key) {
                problem = Some(("joiner", format!("{key} gets a lease and was never registered")));
            }
            if record.epoch != epoch {
                problem = Some(("F", "a lease is granted before the record names the term".into()));
            }
        }
        if coordinator.members().count() > MAX_MEMBERS {
            problem = Some(("B", "too many members".into()));
        }
        if let Some((promise, how)) = problem {
            self.violated(promise, how);
        }
        // Decided on a record that the store no longer has: the save will fail.
        let restored = self.outside.ever_restored;
        for version in retires.into_iter().filter(|_| !restored) {
            self.check_silence(version);
            self.check_live_instance(version);
        }
    }

    /// An empty set is never unanimous: an instance on the new version was there, or was heard, so recently that its
    /// lease may be running.
    fn check_live_instance(&mut self, version: Version) {
        let Some(record) = self.outside.stored.as_ref().map(|stored| stored.record.clone()) else { return };
        let rotated = record.rotation.as_ref().is_some_and(|rotation| rotation.old == Some(version));
        let Some(current) = record.current.filter(|_| rotated && !self.truth.policy_changed) else { return };
        let longest = record.bounds.lease.max(self.policy.lease_idle).max(self.policy.lease_rotating);
        let silence = match self.policy.when_unreachable {
            WhenUnreachable::Fence => longest,
            WhenUnreachable::Hold => return,
            WhenUnreachable::PresumeDeadAfter(silence) => longest.max(silence),
        };
        let patience =
            u64::try_from((silence + record.bounds.max_use).as_nanos()).unwrap_or(u64::MAX) / 100 * 105 + SECOND;
        let used = |service: Option<&str>| {
            let of =
                |((used, by), _): &(&(Version, String), &u64)| *used == current && service.is_none_or(|it| it == by);
            self.truth.last_used.iter().chain(&self.truth.confirmed).filter(of).map(|(_, at)| *at).max().unwrap_or(0)
        };
        let late = |last: u64| last + patience < self.now;
        let unused = late(used(None));
        let required = self.policy.required.keys().find(|service| late(used(Some(service.as_str())))).cloned();
        if unused {
            self.violated(
                "live instance",
                format!("version {version} is retired and no instance uses the new one any more"),
            );
        } else if let Some(service) = required {
            self.violated(
                "required",
                format!("version {version} is retired and no {service} uses the new one any more"),
            );
        }
    }

    /// What the policy says about silent instances that run and hold the version.
    fn check_silence(&mut self, version: Version) {
        if self.truth.policy_changed || self.outside.ever_restored {
            return;
        }
        let (policy, secret) = (self.policy.when_unreachable, &self.secret);
        let holds = |running: &&Running| {
            let held = running.rules.holder(secret).is_some_and(|holder| holder.report().held.contains(&version));
            running.alive && held && !self.is_cut_off(version, &name(running))
        };
        let problem = self.instances.iter().filter(holds).find_map(|running| {
            let heard = self.truth.heard.get(&name(running)).map_or(0, |(at, _)| *at);
            match policy {
                WhenUnreachable::Hold => Some(("hold", running.index)),
                WhenUnreachable::PresumeDeadAfter(silence) => {
                    let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX) / 100 * 98;
                    (heard > 0 && self.now.saturating_sub(heard) < silence).then_some(("presume", running.index))
                }
                WhenUnreachable::Fence => None,
            }
        });
        if let Some((promise, index)) = problem {
            self.violated(promise, format!("version {version} is retired and instance {index} holds it, silently"));
        }
    }

    /// The provider ends a credential: the moment of S1.
    pub(crate) fn disable(&mut self, version: Version) {
        if self.outside.disabled.contains_key(&version) {
            return;
        }
        self.outside.disabled.insert(version, self.now);
        self.counts.retired += 1;
        self.tell(|| format!("the provider ends version {version}"));
        if !self.outside.audit.iter().any(|intent| intent.version == version) {
            self.violated("A", format!("version {version} is disabled without an audit entry"));
        }
        let Some(stored) = &self.outside.stored else { return };
        if stored.record.current == Some(version) && !self.outside.ever_restored {
            self.violated("S1", format!("version {version} is disabled and current"));
            return;
        }
        let begun = stored.record.retirements.get(&version).is_none_or(|retirement| retirement.step.is_some());
        if !begun && !self.outside.ever_restored {
            self.violated("A", format!("version {version} is disabled and its retire is not durable"));
            return;
        }
        let overridden = stored
            .record
            .retirements
            .get(&version)
            .is_some_and(|retirement| retirement.overrides.iter().any(|word| word.sessions));
        // A session that began after the seal may have begun after the last reading: no reading can show it.
        let sealed = self.truth.sealed.get(&version).copied().unwrap_or(0);
        let open =
            |(leaked, from, until): &(Version, u64, u64)| *leaked == version && *from < sealed && *until > self.now;
        let open = self.truth.leaked.iter().any(open);
        if self.sessions_known && open && !overridden {
            self.violated("S1", format!("version {version} is disabled while a session of it is open"));
            return;
        }
        for index in 0..self.instances.len() {
            let running = &self.instances[index];
            if running.may_use(self, version)
                && !self.is_cut_off(version, &name(running))
                && (self.truth.decided.contains(&version) || !self.was_misled(running, version))
            {
                let text = format!("version {version} is disabled while instance {index} may use it");
                self.violated("S1", text);
                return;
            }
        }
    }

    /// An instance that moved to a version after the store was restored, or again after its lease had expired, uses a
    /// record that does not know what was done since. An instance that could use a version all the time is not sent
    /// back to another one.
    fn was_misled(&self, running: &Running, version: Version) -> bool {
        let restored = self.outside.restored_at;
        self.outside.ever_restored && running.turned.is_some_and(|(to, since)| to == version && since >= restored)
    }

    /// After the store was restored no instance goes from a version that works to one that has ended, unless a
    /// broadcaster that ran meanwhile has ended it.
    pub(crate) fn check_way(&mut self, index: usize, serving: Option<Version>) {
        let running = &self.instances[index];
        let ended = |version: &Version| self.outside.disabled.contains_key(version);
        let back = match (running.served, serving) {
            (Some(from), Some(to)) if from != to && ended(&to) && !ended(&from) => {
                (self.outside.ever_restored && !self.outside.restored_running).then_some((from, to))
            }
            _ => None,
        };
        if serving.is_some() {
            self.instances[index].served = serving;
        }
        if let Some((from, to)) = back {
            let text =
                format!("instance {index} goes from version {from}, which works, to version {to}, which has ended");
            self.violated("A", text);
        }
    }

    /// No instance gets a version that has ended.
    pub(crate) fn check_ended_credentials(&mut self, index: usize) {
        let running = &self.instances[index];
        let now = running.clock.at(self.now);
        let active = running.rules.holder(&self.secret).and_then(|holder| holder.active(now));
        if let Some((version, _)) = active
            && self.outside.disabled.contains_key(&version)
            && !self.was_misled(running, version)
            && !self.is_cut_off(version, &name(running))
        {
            self.violated("S1", format!("instance {index} is handed version {version}, which has ended"));
        }
    }

    /// When everything has ended, no version but the current one is left.
    pub(crate) fn judge_the_end(&mut self) {
        let Some(stored) = &self.outside.stored else { return };
        let current = stored.record.current;
        if self.outside.ever_restored {
            if let Some(version) = current.filter(|version| self.outside.disabled.contains_key(version))
                && !self.outside.restored_running
            {
                self.violated("A", format!("all instances end on version {version}, which has ended"));
            }
            return;
        }
        let first = stored.record.versions.keys().next().copied();
        let left = self.outside.written.iter().copied().find(|version| {
            let ended = self.outside.disabled.contains_key(version) || self.truth.given_up.contains(version);
            Some(*version) != current && Some(*version) >= first && !ended
        });
        if let Some(version) = left {
            self.violated("L", format!("everything has ended, and version {version} still works"));
        }
    }
}

/// The name of an instance, as records write it.
pub(crate) fn name(running: &Running) -> String {
    let key = running.rules.key();
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}
