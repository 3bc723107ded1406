//! Rules with a test of their own: a few steps show what the rule is for, and random worlds bring those steps together
//! too rarely. Each test says what is wrong when its rule is broken, and nothing when the rule holds.

mod restored;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use rotacast_holder::{Instance, InstanceInput, Step};
use rotacast_protocol::coordinator::{Change, Condition, ConditionName, Evidence, GuardStanding, Input, Order};
use rotacast_protocol::message::{LostHistory, SecretGrant, SecretState, Stage, SyncReply};
use rotacast_protocol::policy::{WhenEmpty, WhenUnreachable};
use rotacast_protocol::record::RetireStep;
use rotacast_protocol::{
    Epoch, Generation, Instant, LeaseSequence, Nonce, Policy, ReportSequence, Revision, SecretName, Version,
};

use crate::bench::{Bench, key, managed, seconds, v};
use crate::mutant::{HolderRule, Mutant, Rule};

/// The test of a rule, if it has one here: `Err` says which promise is broken.
///
/// # Errors
/// What is wrong.
pub fn directed(rule: Mutant, broken: bool) -> Option<Result<(), String>> {
    match rule {
        Mutant::Leader(rule) => leader(rule, broken),
        Mutant::Holder(rule) => holder(rule, broken),
        Mutant::Around(_) => None,
    }
}

fn says(wrong: bool, what: &str) -> Result<(), String> {
    if wrong { Err(what.to_owned()) } else { Ok(()) }
}

fn leader(rule: Rule, broken: bool) -> Option<Result<(), String>> {
    let scope = Cell::new(None);
    let spoil = || {
        if broken {
            // Dropping the value before restores the rule that was broken before it.
            scope.set(None);
            scope.set(Mutant::Leader(rule).breaks());
        }
    };
    let result = match rule {
        Rule::UsageAfterSeal => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            let sent = bench.now.instant;
            bench.input(Input::UsageRead { version: v(1), sent, evidence: Evidence::Sessions(Vec::new()) }).ok();
            bench.pass(seconds(1));
            bench.sync("api/a", 2, Stage::Released, &[2]);
            spoil();
            let guard = bench.coordinator.guard(v(1), bench.now);
            let counts = guard.conditions.iter().any(|it| it.name == ConditionName::UsageEvidence && it.met);
            says(counts, "S1: sessions that were looked for before the seal count as none")
        }
        Rule::UnknownUsage => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            bench.sync("api/a", 2, Stage::Released, &[2]);
            bench.pass(seconds(1));
            spoil();
            let unavailable = Evidence::Unavailable("its provider is not in the configuration".into());
            bench.input(Input::UsageRead { version: v(1), sent: bench.now.instant, evidence: unavailable }).ok();
            let guard = bench.coordinator.guard(v(1), bench.now);
            let counts = guard.conditions.iter().any(|it| it.name == ConditionName::UsageEvidence && it.met);
            says(counts, "S1: a provider that cannot be asked counts as no session")
        }
        Rule::ClaimsBounded => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            let (sequence, mut report) = bench.report_of("api/a", 2, Stage::Released, &[2]);
            report.lease = LeaseSequence(u64::MAX);
            spoil();
            bench.input(Input::Report { key: key("api/a"), sequence, report }).ok();
            says(!blocks(&bench, "api/a"), "S1: a release that claims every grant there will be counts")
        }
        Rule::NoProviderNoRotation => {
            let mut bench = Bench::running(Policy { provider: None, ..managed() }, &["api/a"]);
            spoil();
            says(bench.order(Order::Rotate).is_ok(), "I: a version is made for a secret that has no provider")
        }
        Rule::FollowedUnproven => {
            let policy = Policy { provider: None, ..managed() };
            let mut bench = Bench::draining(policy, &["api/a"]);
            bench.sync("api/a", 2, Stage::Released, &[2]);
            spoil();
            bench.drains(1, seconds(100));
            let step = bench.coordinator.record().retirements.get(&v(1)).and_then(|it| it.step);
            says(step != Some(RetireStep::Erase), "S1: a version that no provider ends is recorded as ended by one")
        }
        Rule::ConfirmedDirection => {
            let policy = Policy { required: required(), ..managed() };
            let mut bench = Bench::preparing(policy, &["api/a"]);
            let (sequence, before) = bench.report_of("api/a", 1, Stage::Released, &[1]);
            bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
            bench.order(Order::rollback("no").expect("a reason")).ok();
            spoil();
            let (_, mut old) = bench.report_of("api/a", 1, Stage::Released, &[1]);
            (old.generation, old.revision) = (before.generation, before.revision);
            let sequence = ReportSequence(sequence.0 + 100);
            bench.input(Input::Report { key: key("api/a"), sequence, report: old }).ok();
            let guard = bench.coordinator.guard(v(2), bench.now);
            let confirmed = guard.conditions.iter().any(|it| it.name == ConditionName::RequiredServices && it.met);
            says(confirmed, "required: what was said before the rollback confirms the way back")
        }
        Rule::HoldStages => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..Policy::default() };
            spoil();
            let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
            hears_of_a(&mut bench, 300);
            says(bench.current() == Some(2), "hold: version 2 is activated and a silent instance is not ready")
        }
        Rule::MissedSyncs => {
            spoil();
            let mut bench = Bench::preparing(Policy::default(), &["api/a", "api/b"]);
            hears_of_a(&mut bench, 200);
            says(bench.current() != Some(2), "L: the activation waits for the lease of an instance that is silent")
        }
        Rule::ToldInterval => {
            spoil();
            let mut bench = Bench::preparing(Policy::default(), &["api/a", "api/b"]);
            hears_of_a(&mut bench, 40);
            says(bench.current() == Some(2), "stages: an idle instance that has missed no Sync is passed over")
        }
        Rule::LeaderHears => {
            let policy = Policy { when_empty: WhenEmpty::Proceed, ..Policy::default() };
            let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
            spoil();
            bench.pass(seconds(300));
            says(bench.current() == Some(2), "stages: a leader whose bus is away passes every instance over")
        }
        Rule::GoneStays => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..Policy::default() };
            let mut bench = Bench::draining(policy, &["api/a", "api/b"]);
            hears_of_a(&mut bench, 190);
            gone(&mut bench, "api/b");
            spoil();
            bench.take_over();
            bench.register("api/b");
            says(blocks(&bench, "api/b"), "L: an instance that was said to be gone holds the retire up")
        }
        Rule::GoneIsSilent => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..Policy::default() };
            let mut bench = Bench::draining(policy, &["api/a", "api/b"]);
            // It may send its next Sync a minute after the last one, although a rotation is in flight.
            hears_of_a(&mut bench, 60);
            spoil();
            gone(&mut bench, "api/b");
            says(!blocks(&bench, "api/b"), "S1: an instance that has missed no Sync counts as gone")
        }
        Rule::GoneListens => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..Policy::default() };
            let mut bench = Bench::draining(policy, &["api/a", "api/b"]);
            bench.pass(seconds(300));
            // The leader was cut off from both instances. `a` is the first to be heard again.
            hears_of_a(&mut bench, 10);
            spoil();
            gone(&mut bench, "api/b");
            says(!blocks(&bench, "api/b"), "S1: an instance that the leader could not hear counts as gone")
        }
        Rule::GoneHears => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..Policy::default() };
            let mut bench = Bench::draining(policy, &["api/a", "api/b"]);
            bench.pass(seconds(300));
            spoil();
            gone(&mut bench, "api/b");
            says(!blocks(&bench, "api/b"), "S1: an instance counts as gone while the leader hears none at all")
        }
        Rule::RosterIdle => {
            let mut bench = Bench::preparing(Policy::default(), &["api/a", "api/b"]);
            bench.take_over();
            spoil();
            // The roster cannot be read. `b` sends a Sync once a minute.
            hears_of_a(&mut bench, 60);
            says(bench.current() == Some(2), "stages: a new leader takes those it has heard for all before others Sync")
        }
        Rule::InheritedByName | Rule::ListedInherit => {
            let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
            bench.take_over();
            spoil();
            ["api/a", "api/b"].into_iter().for_each(|instance| bench.register(instance));
            apply(&mut bench, Input::RosterRead);
            bench.sync("api/a", 2, Stage::Released, &[2]);
            says(!blocks(&bench, "api/b"), "S1: a silent instance has no lease of an earlier leader")
        }
        Rule::RosterWhole | Rule::Guard(ConditionName::InheritedLeasesOver) => {
            let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
            apply(&mut bench, Input::StoreWentBack { reason: "restored".into() });
            bench.take_over();
            // The backup has the roster from before b came.
            bench.register("api/a");
            apply(&mut bench, Input::RosterRead);
            spoil();
            let guard = bench.coordinator.guard(v(1), bench.now);
            let over = |it: &Condition| it.name == ConditionName::InheritedLeasesOver && it.met;
            says(guard.conditions.iter().any(over), "S1: an instance that a restored roster lacks has no lease")
        }
        Rule::StepOrder => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            bench.sync("api/a", 2, Stage::Released, &[2]);
            bench.drains(1, seconds(100));
            spoil();
            bench.input(Input::StepDone { version: v(1), step: RetireStep::Erase }).ok();
            let gone = !bench.coordinator.record().retirements.contains_key(&v(1));
            says(gone, "S1: version 1 counts as gone and was never disabled")
        }
        Rule::HeardLives => {
            let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..managed() };
            let mut bench = Bench::draining(policy, &["api/b"]);
            for incarnation in ["api/a#1", "api/a#2"] {
                bench.input(Input::Registered { key: key(incarnation), exclusive: true, live: true }).ok();
                bench.pass(seconds(1));
                spoil();
                bench.sync(incarnation, 2, Stage::Switched, &[1, 2]);
            }
            bench.pass(seconds(1));
            bench.sync("api/a#2", 2, Stage::Released, &[2]);
            bench.pass(seconds(1));
            bench.sync("api/a#2", 2, Stage::Released, &[2]);
            // `a#1` is heard, so the registration that claims an exclusive name is wrong.
            bench.sync("api/a#1", 2, Stage::Switched, &[1, 2]);
            let over = bench.coordinator.members().any(|member| member.key == key("api/a#1") && member.superseded);
            says(over, "S1: an incarnation that is heard counts as over")
        }
        Rule::ReleaseLease => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            spoil();
            bench.sync_without_reply("api/a", 2, Stage::Switched, &[1, 2]);
            bench.report("api/a", 2, Stage::Released, &[2]).ok();
            says(!blocks(&bench, "api/a"), "S1: a release counts while a lease is under way that it has not heard of")
        }
        Rule::GrantNumbers => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            for _ in 0..3 {
                bench.sync_without_reply("api/a", 1, Stage::Released, &[1]);
            }
            let earlier = bench.coordinator.grant(&key("api/a")).map(|grant| grant.sequence);
            spoil();
            bench.take_over();
            bench.register("api/a");
            bench.sync_without_reply("api/a", 1, Stage::Released, &[1]);
            let later = bench.coordinator.grant(&key("api/a")).map(|grant| grant.sequence);
            says(later <= earlier, "I: two grants of different leaders have one number")
        }
        Rule::TierBound => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            bench.pass(seconds(2 * 3600));
            bench.sync("api/a", 2, Stage::Released, &[2]);
            bench.drains(1, seconds(100));
            spoil();
            while let Some(step) = bench.coordinator.record().retirements.get(&v(1)).and_then(|it| it.step) {
                apply(&mut bench, Input::StepDone { version: v(1), step });
            }
            while bench.coordinator.record().is_rotating() {
                apply(&mut bench, Input::Tick);
            }
            // A Sync that arrives together with the end of the rotation.
            let (sequence, report) = bench.report_of("api/a", 2, Stage::Released, &[2]);
            let changes = bench.coordinator.decide(bench.now, Input::Sync { key: key("api/a"), sequence, report });
            let longest = bench.coordinator.record().bounds.lease;
            let longer = |change: &Change| matches!(change, Change::LeaseGranted { length, .. } if *length > longest);
            let wrong = changes.is_ok_and(|changes| changes.iter().any(longer));
            says(wrong, "bounds: a lease is granted that a successor would not wait for")
        }
        _ => return restored::leader(rule, &spoil),
    };
    Some(result)
}

fn required() -> BTreeMap<rotacast_protocol::ServiceName, u32> {
    BTreeMap::from([("api".parse().expect("a valid name"), 1)])
}

fn apply(bench: &mut Bench, input: Input) {
    for change in bench.coordinator.decide(bench.now, input).unwrap_or_default() {
        bench.coordinator.apply(bench.now, &change);
    }
}

/// `api/a` is heard every ten seconds for so long, and no other instance.
fn hears_of_a(bench: &mut Bench, for_seconds: u64) {
    for _ in 0..for_seconds / 10 {
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        bench.pass(seconds(10));
    }
}

/// An operator says that an instance is gone. Whether the leader accepts it shows in what holds the retire up.
fn gone(bench: &mut Bench, name: &str) {
    bench.order(Order::gone(key(name), "its node is lost").expect("a reason")).ok();
}

fn blocks(bench: &Bench, name: &str) -> bool {
    let Some(retirement) = bench.coordinator.record().retirements.get(&v(1)) else { return false };
    let member = bench.coordinator.members().find(|member| member.key == key(name));
    member.is_some_and(|member| {
        bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0 == GuardStanding::Holding
    })
}

/// An instance whose steps the test takes one by one.
struct Hand {
    instance: Instance,
    secret: SecretName,
    now: Instant,
}

impl Hand {
    fn new() -> Self {
        let secret = crate::bench::secret();
        let mut instance = Instance::new(key("api/a"), false);
        instance.add(secret.clone());
        let mut hand = Self { instance, secret: secret.clone(), now: Instant::ZERO + seconds(1000) };
        hand.takes(InstanceInput::Registered(BTreeSet::from([secret])));
        hand
    }

    fn takes(&mut self, input: InstanceInput) -> bool {
        self.instance.handle(self.now, input).is_ok()
    }

    fn rules(&mut self, input: rotacast_holder::Input) -> bool {
        self.takes(InstanceInput::Secret(self.secret.clone(), input))
    }

    fn state(&self, revision: u64, generation: u64, current: u64) -> SecretState {
        SecretState {
            secret: self.secret.clone(),
            epoch: Epoch(1),
            revision: Revision(revision),
            generation: Generation(generation),
            rotation: None,
            phase: None,
            current: Some(v(current)),
            pending: None,
            previous: None,
            sealed: BTreeSet::new(),
            sync_interval: seconds(1),
            self_lease: seconds(10),
            max_use: seconds(1),
            stay: false,
            lost_history: None,
        }
    }

    fn asks(&mut self, nonce: u64) {
        let at = self.now;
        self.takes(InstanceInput::SyncSent { nonce: Nonce(nonce), at });
    }

    fn answered(&mut self, who: &str, nonce: u64, sequence: u64, lease: u64, version: u64) -> bool {
        let grant = SecretGrant {
            sequence: LeaseSequence(sequence),
            leases: BTreeMap::from([(v(version), seconds(lease))]),
            state: None,
        };
        let reply = SyncReply {
            key: key(who),
            nonce: Nonce(nonce),
            epoch: Epoch(1),
            covered: ReportSequence(0),
            unregistered: false,
            unproven: false,
            challenge: None,
            secrets: BTreeMap::from([(self.secret.clone(), grant)]),
        };
        self.takes(InstanceInput::SyncReply(reply))
    }

    /// Uses a version: leased, loaded, prepared, switched to.
    fn uses(&mut self, nonce: u64, version: u64) {
        self.asks(nonce);
        self.answered("api/a", nonce, nonce, 30, version);
        self.rules(rotacast_holder::Input::Loaded { version: v(version) });
        for step in [Step::Prepare, Step::Switch] {
            self.rules(rotacast_holder::Input::Begin { step, version: v(version) });
            self.rules(rotacast_holder::Input::Finished { step, version: v(version), result: Ok(()) });
        }
    }

    fn until(&self, version: u64) -> Instant {
        self.instance.holder(&self.secret).map_or(Instant::ZERO, |holder| holder.lease_until(v(version)))
    }

    fn current(&self) -> Option<Version> {
        self.instance.holder(&self.secret)?.state()?.current
    }

    fn held(&self) -> BTreeSet<Version> {
        self.instance.holder(&self.secret).map(|holder| holder.report().held).unwrap_or_default()
    }
}

fn holder(rule: HolderRule, broken: bool) -> Option<Result<(), String>> {
    use rotacast_holder::Input as Takes;
    let mut hand = Hand::new();
    let _broken = broken.then(|| Mutant::Holder(rule).breaks());
    let first = hand.state(1, 1, 1);
    hand.rules(Takes::State(first));
    let result = match rule {
        HolderRule::NewerDirection => {
            let (second, back) = (hand.state(2, 2, 2), hand.state(3, 1, 1));
            hand.rules(Takes::State(second));
            hand.rules(Takes::State(back));
            says(hand.current() == Some(v(1)), "V: a state of an earlier direction is followed")
        }
        HolderRule::NoComeback => {
            let (second, back) = (hand.state(2, 1, 2), hand.state(3, 1, 1));
            hand.rules(Takes::State(second));
            hand.rules(Takes::State(back));
            says(hand.current() == Some(v(1)), "V: a version comes back within a direction")
        }
        HolderRule::OwnReply => {
            hand.asks(7);
            hand.answered("api/b", 7, 1, 30, 1);
            says(hand.until(1) > hand.now, "S1: a lease that was granted to another instance is used")
        }
        HolderRule::OneAnswer => {
            hand.asks(7);
            hand.answered("api/a", 7, 1, 30, 1);
            says(hand.answered("api/a", 7, 2, 30, 1), "I: one request is answered twice")
        }
        HolderRule::StaleGrant => {
            hand.asks(7);
            hand.asks(8);
            hand.answered("api/a", 8, 2, 5, 1);
            // The leader knows that the newest grant has arrived, and waits for that one only.
            hand.answered("api/a", 7, 1, 30, 1);
            says(hand.until(1) > hand.now + seconds(5), "S1: an overtaken grant outlives the one that is waited for")
        }
        HolderRule::LateGrant => {
            hand.uses(1, 1);
            hand.asks(2);
            hand.now = hand.now + seconds(6);
            hand.answered("api/a", 2, 2, 5, 1);
            let said = hand.instance.holder(&hand.secret).map(|holder| holder.report().lease);
            says(said == Some(LeaseSequence(2)), "S1: a grant that was over is acknowledged, while an earlier one runs")
        }
        HolderRule::ReadUnsealed => {
            let mut sealed = hand.state(1, 1, 1);
            sealed.sealed.insert(v(1));
            let sent = hand.now;
            hand.rules(Takes::StoreRead { sent, state: sealed });
            says(hand.until(1) > hand.now, "seal: a read that shows a version sealed allows its use")
        }
        HolderRule::ReadNewest => {
            hand.uses(1, 1);
            hand.now = hand.now + seconds(40);
            let mut second = hand.state(2, 2, 2);
            second.sealed.insert(v(1));
            hand.rules(Takes::State(second));
            let (sent, late) = (hand.now, hand.state(1, 1, 1));
            hand.rules(Takes::StoreRead { sent, state: late });
            says(hand.until(1) > hand.now, "seal: a read allows what a newer state has sealed")
        }
        HolderRule::SwitchHolds => {
            hand.uses(1, 1);
            let mut second = hand.state(2, 2, 2);
            second.previous = Some(v(1));
            hand.rules(Takes::State(second));
            hand.uses(2, 2);
            hand.rules(Takes::Begin { step: Step::Release, version: v(1) });
            hand.rules(Takes::Finished { step: Step::Release, version: v(1), result: Ok(()) });
            // A thread was given version 1 a moment before the switch, and the runtime has not looked since.
            says(!hand.held().contains(&v(1)), "truth: version 1 counts as let go while a guard of it may be open")
        }
        HolderRule::SwitchDoubt => {
            hand.uses(1, 1);
            let second = hand.state(2, 2, 2);
            hand.rules(Takes::State(second));
            hand.asks(2);
            hand.answered("api/a", 2, 2, 30, 2);
            hand.rules(Takes::Loaded { version: v(2) });
            hand.rules(Takes::Begin { step: Step::Prepare, version: v(2) });
            hand.rules(Takes::Finished { step: Step::Prepare, version: v(2), result: Ok(()) });
            hand.rules(Takes::Begin { step: Step::Switch, version: v(2) });
            let setback = rotacast_holder::Setback { text: "half".into(), retry_after: seconds(1) };
            let failure = rotacast_holder::StepFailure::Refused(setback);
            hand.rules(Takes::Finished { step: Step::Switch, version: v(2), result: Err(failure) });
            let back = hand.state(3, 3, 1);
            hand.rules(Takes::State(back));
            hand.now = hand.now + seconds(2);
            let lets_go = hand.rules(Takes::Begin { step: Step::Release, version: v(2) });
            says(lets_go, "truth: the service is asked to let go of a version that it may be using")
        }
        HolderRule::Acknowledge => {
            hand.uses(1, 1);
            hand.asks(2);
            let mut second = hand.state(2, 2, 2);
            second.sealed.insert(v(2));
            hand.rules(Takes::State(second));
            // A lease of version 3, which it neither holds nor wants: the leader must hear that it has arrived.
            hand.answered("api/a", 2, 2, 30, 3);
            hand.asks(3);
            hand.answered("api/a", 3, 3, 30, 3);
            let asks = hand.instance.commands(hand.now).contains(&rotacast_holder::InstanceCommand::Sync);
            says(!asks, "L: a lease of what is not held is never acknowledged")
        }
        HolderRule::Stay => {
            let second = hand.state(2, 2, 2);
            hand.rules(Takes::State(second));
            hand.uses(2, 2);
            let restored = SecretState { stay: true, ..hand.state(3, 3, 1) };
            hand.rules(Takes::State(restored));
            hand.uses(3, 1);
            says(hand.until(1) > hand.now, "S1: it goes back to what may have ended in a history that was lost")
        }
        HolderRule::Lost => {
            let second = hand.state(2, 2, 2);
            hand.rules(Takes::State(second));
            hand.uses(2, 2);
            let lost_history = Some(LostHistory { noticed: Revision(3), kept_to: Some(v(1)) });
            let restored = SecretState { stay: true, lost_history, ..hand.state(3, 3, 1) };
            hand.rules(Takes::State(restored));
            let again = SecretState { pending: Some(v(2)), stay: true, lost_history, ..hand.state(4, 4, 1) };
            hand.rules(Takes::State(again));
            let said = hand.instance.holder(&hand.secret).and_then(|holder| holder.report().reached);
            says(
                said.is_some_and(|(_, stage)| stage > Stage::Seen),
                "truth: another version counts as the one that is asked for",
            )
        }
        _ => return None,
    };
    Some(result)
}
