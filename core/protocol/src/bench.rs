//! A coordinator for tests: inputs in, changes and commands out, time set by hand.
//!
//! Compiled into the tests of this crate, of the holder's rules and of the simulator.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_protocol::coordinator::{Change, CommandKind, Coordinator, Evidence, Input, Order, Rejection, Tenure};
use rotacast_protocol::message::{Failure, FailureKind, SecretReport, Stage};
use rotacast_protocol::record::{Origin, ProviderId, SecretRecord, Timing};
use rotacast_protocol::{
    Epoch, Incarnation, InstanceKey, Instant, LeaseSequence, Now, OperatorName, Policy, ReportSequence, Revision,
    SecretName, Version, WallTime,
};

pub fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// `api/a` is the first incarnation of instance `a` of service `api`, and `api/a#2` its second one.
pub fn key(name: &str) -> InstanceKey {
    let (name, incarnation) = name.split_once('#').map_or((name, 1), |(name, number)| (name, number.parse().unwrap()));
    let (service, instance) = name.split_once('/').unwrap();
    InstanceKey::new(service.parse().unwrap(), instance.parse().unwrap(), Incarnation(incarnation << 96))
}

pub fn operator() -> OperatorName {
    OperatorName::new("ada").unwrap()
}

pub fn secret() -> SecretName {
    SecretName::new("payments/db").unwrap()
}

pub fn provider() -> ProviderId {
    ProviderId { kind: "postgres".into(), name: "payments-pg".into(), system: "app at 127.0.0.1:5432".into() }
}

/// The default policy of a secret whose versions a provider makes.
pub fn managed() -> Policy {
    // Short beside the idle lease, so that rules about the two differ.
    Policy { provider: Some(provider()), lease_rotating: seconds(30), ..Policy::default() }
}

/// The numbers that an instance's last report had.
#[derive(Clone)]
pub struct Saying {
    pub sequence: u64,
    pub lease: LeaseSequence,
}

pub struct Bench {
    pub now: Now,
    pub coordinator: Coordinator,
    pub policy: Policy,
    pub said: BTreeMap<InstanceKey, Saying>,
    /// Every change applied, in order.
    pub log: Vec<Change>,
}

impl Bench {
    pub fn new(policy: Policy) -> Self {
        let record = SecretRecord::new(secret(), Epoch(1), Timing::of(&policy));
        Self::over(record, policy, 1)
    }

    pub fn over(record: SecretRecord, policy: Policy, epoch: u64) -> Self {
        let now = Now { instant: Instant::ZERO + seconds(1_000_000), wall: WallTime(1_795_392_000_000) };
        Self::over_at(now, record, policy, epoch)
    }

    /// The leader that takes over from a store that was restored to a backup. It does not know yet that it was.
    pub fn restored(backup: &[u8], at: Now, epoch: u64) -> Self {
        Self::over_at(at, SecretRecord::decode(backup).unwrap(), managed(), epoch)
    }

    fn over_at(now: Now, record: SecretRecord, policy: Policy, epoch: u64) -> Self {
        policy.validate().unwrap();
        let mut bench = Self {
            now,
            coordinator: Coordinator::take_over(record, policy.clone(), tenure(epoch, now)),
            policy,
            said: BTreeMap::new(),
            log: Vec::new(),
        };
        bench.input(Input::RosterRead).unwrap();
        bench
    }

    /// The next leader takes over the saved record.
    pub fn take_over(&mut self) {
        let record = SecretRecord::decode(&self.coordinator.record().encode()).unwrap();
        let epoch = self.coordinator.tenure().epoch.0 + 1;
        self.coordinator = Coordinator::take_over(record, self.policy.clone(), tenure(epoch, self.now));
        self.settle();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.now.wall = WallTime(self.now.wall.0 + u64::try_from(time.as_millis()).unwrap());
        self.settle();
    }

    pub fn input(&mut self, input: Input) -> Result<(), Rejection> {
        let changes = self.coordinator.decide(self.now, input)?;
        self.commit(&changes);
        self.settle();
        Ok(())
    }

    fn commit(&mut self, changes: &[Change]) {
        let after = self.coordinator.record_after(changes);
        let revision = self.coordinator.record().revision;
        for change in changes {
            self.coordinator.apply(self.now, change);
        }
        match after {
            Some(after) => {
                assert_eq!(&after, self.coordinator.record(), "what is saved is what is applied");
                assert!(after.revision > revision);
                assert_eq!(SecretRecord::decode(&after.encode()).as_ref(), Ok(&after), "what is saved can be read");
            }
            None => assert_eq!(revision, self.coordinator.record().revision),
        }
        self.log.extend_from_slice(changes);
    }

    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let changes = self.coordinator.decide(self.now, Input::Tick).unwrap();
            if changes.is_empty() {
                return;
            }
            self.commit(&changes);
        }
        panic!("still changing after 1000 steps: {:?}", self.log.last());
    }

    /// The leader notices that the store lost a part of its history.
    pub fn went_back(&mut self) {
        self.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    }

    /// The bus has taken the newest state.
    pub fn published(&mut self) {
        let revision = self.coordinator.record().revision;
        self.input(Input::Published { revision }).unwrap();
    }

    pub fn owes(&self, kind: &CommandKind) -> bool {
        self.coordinator.commands(self.now).iter().any(|command| command.kind == *kind)
    }

    /// Whether a retire step of a version is outstanding.
    pub fn retires(&self, version: u64) -> bool {
        let ends = |kind: &CommandKind| matches!(kind, CommandKind::Retire { version: it, .. } if *it == v(version));
        self.coordinator.commands(self.now).iter().any(|command| ends(&command.kind))
    }

    pub fn order(&mut self, order: Order) -> Result<(), Rejection> {
        self.input(Input::Operator { by: operator(), order })
    }

    pub fn register(&mut self, name: &str) {
        self.input(Input::Registered { key: key(name), exclusive: false, live: true }).unwrap();
    }

    pub fn report_of(
        &mut self,
        name: &str,
        reached: u64,
        stage: Stage,
        held: &[u64],
    ) -> (ReportSequence, SecretReport) {
        let saying = self.said.entry(key(name)).or_insert(Saying { sequence: 0, lease: LeaseSequence(0) });
        saying.sequence += 1;
        let record = self.coordinator.record();
        let report = SecretReport {
            generation: record.generation,
            revision: record.revision,
            reached: Some((v(reached), stage)),
            held: held.iter().map(|number| v(*number)).collect::<BTreeSet<_>>(),
            lease: saying.lease,
            failure: None,
            auth_failures: BTreeMap::new(),
        };
        (ReportSequence(saying.sequence), report)
    }

    /// A Sync whose reply arrives. Returns the leases that it grants.
    pub fn sync(&mut self, name: &str, reached: u64, stage: Stage, held: &[u64]) -> BTreeMap<Version, Duration> {
        let leases = self.sync_without_reply(name, reached, stage, held);
        let sequence = self.coordinator.grant(&key(name)).unwrap().sequence;
        let lease = &mut self.said.get_mut(&key(name)).unwrap().lease;
        *lease = (*lease).max(sequence);
        leases
    }

    /// A Sync whose reply is lost. Returns the leases that the reply grants.
    pub fn sync_without_reply(
        &mut self,
        name: &str,
        reached: u64,
        stage: Stage,
        held: &[u64],
    ) -> BTreeMap<Version, Duration> {
        let (sequence, report) = self.report_of(name, reached, stage, held);
        let changes = self.coordinator.decide(self.now, Input::Sync { key: key(name), sequence, report }).unwrap();
        self.commit(&changes);
        let leases = self.coordinator.grant(&key(name)).unwrap().leases;
        self.settle();
        leases
    }

    pub fn report(&mut self, name: &str, reached: u64, stage: Stage, held: &[u64]) -> Result<(), Rejection> {
        let (sequence, report) = self.report_of(name, reached, stage, held);
        self.input(Input::Report { key: key(name), sequence, report })
    }

    pub fn refuse(&mut self, name: &str, version: u64) {
        self.fail(name, FailureKind::PrepareRefused, version, &[]);
    }

    pub fn fail(&mut self, name: &str, kind: FailureKind, version: u64, held: &[u64]) {
        let reached = if kind == FailureKind::ReleaseFailed { (2, Stage::Switched) } else { (version, Stage::Seen) };
        let (sequence, mut report) = self.report_of(name, reached.0, reached.1, held);
        report.failure = Some(Failure { kind, version: v(version), text: "no such table".into() });
        self.input(Input::Report { key: key(name), sequence, report }).unwrap();
    }

    pub fn created(&mut self, version: u64) {
        self.input(Input::Created { version: v(version), origin: Origin::Managed }).unwrap();
    }

    pub fn seen(&mut self, version: u64) {
        self.input(Input::VersionSeen { version: v(version) }).unwrap();
    }

    pub fn verified(&mut self, version: u64) {
        self.input(Input::Verified { version: v(version) }).unwrap();
    }

    pub fn phase(&self) -> String {
        self.coordinator.record().rotation.as_ref().map_or_else(|| "none".into(), |rotation| rotation.phase.to_string())
    }

    pub fn current(&self) -> Option<u64> {
        self.coordinator.record().current.map(Version::get)
    }

    /// Version 1 is current, in use by the named instances under long leases.
    pub fn running(policy: Policy, names: &[&str]) -> Self {
        let mut bench = Self::new(policy);
        bench.seen(1);
        bench.verified(1);
        assert_eq!(bench.current(), Some(1));
        for name in names {
            bench.register(name);
            bench.sync(name, 1, Stage::Released, &[1]);
        }
        bench.published();
        bench
    }

    /// Version 2 is seen and verified: version 1 is current, 2 is being prepared.
    pub fn preparing(policy: Policy, names: &[&str]) -> Self {
        let mut bench = Self::running(policy, names);
        bench.seen(2);
        bench.verified(2);
        assert_eq!(bench.phase(), "preparing");
        bench
    }

    /// Every instance has switched to version 2 and still holds version 1.
    pub fn draining(policy: Policy, names: &[&str]) -> Self {
        let mut bench = Self::preparing(policy, names);
        for name in names {
            bench.sync(name, 2, Stage::Prepared, &[1, 2]);
        }
        assert_eq!(bench.phase(), "activating");
        for name in names {
            bench.sync(name, 2, Stage::Switched, &[1, 2]);
        }
        assert_eq!(bench.phase(), "draining");
        bench
    }

    /// The guard's commands are answered while time passes, until the retire begins. Says whether it did within the time.
    pub fn drains(&mut self, version: u64, within: Duration) -> bool {
        self.until_retires(version, within, |_| {}).is_some()
    }

    /// The same, and something happens every second. Says after what time the retire began.
    pub fn until_retires(
        &mut self,
        version: u64,
        within: Duration,
        mut every_second: impl FnMut(&mut Self),
    ) -> Option<Duration> {
        let began = self.now.instant;
        while !self.retires(version) {
            if self.now.instant >= began + within {
                return None;
            }
            self.serve_guard(version);
            self.pass(seconds(1));
            every_second(self);
        }
        Some(self.now.instant.since(began))
    }

    /// Usage readings are answered until the audit log is asked.
    pub fn until_audit_is_due(&mut self, version: u64, within: Duration) {
        let (began, version) = (self.now.instant, v(version));
        while !self.owes(&CommandKind::Audit { version }) {
            assert!(self.now.instant < began + within, "{:?}", self.coordinator.blockers(self.now));
            self.serve(version, false);
            self.pass(seconds(1));
        }
    }

    /// Answers usage and audit commands of one version.
    pub fn serve_guard(&mut self, version: u64) {
        self.serve(v(version), true);
    }

    fn serve(&mut self, version: Version, audits: bool) {
        for command in self.coordinator.commands(self.now) {
            let input = match command.kind {
                CommandKind::ReadUsage { version: it } if it == version => {
                    Input::UsageRead { version, sent: self.now.instant, evidence: Evidence::Sessions(Vec::new()) }
                }
                CommandKind::Audit { version: it } if audits && it == version => {
                    Input::Audited { version, revision: command.revision }
                }
                _ => continue,
            };
            // Another answer may have overtaken it.
            let _ = self.input(input);
        }
    }

    /// Every retire step of the version succeeds.
    pub fn destroy(&mut self, version: u64) {
        while let Some(step) = self.coordinator.record().retirements.get(&v(version)).and_then(|it| it.step) {
            self.input(Input::StepDone { version: v(version), step }).unwrap();
        }
    }

    pub fn revision(&self) -> Revision {
        self.coordinator.record().revision
    }
}

fn tenure(epoch: u64, now: Now) -> Tenure {
    Tenure { epoch: Epoch(epoch), since: now, valid_until: now.instant + seconds(10_000_000) }
}
