//! The beginning of a world.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rotacast_protocol::policy::{Deadline, OnDeadline, OnFailure, WhenUnreachable};
use rotacast_protocol::{Incarnation, InstanceKey, Phase, Policy, SecretName};

use crate::clock::{Clock, MS, SECOND, ms};
use crate::counts::Counts;
use crate::event::Event;
use crate::fault::{Act, Fault, Plan, Struck, When};
use crate::instance::{Running, ToInstance};
use crate::judge::Truth;
use crate::leader::Broadcaster;
use crate::mutant::{Around, Mutant};
use crate::outside::Outside;
use crate::profile::Profile;
use crate::rng::Rng;
use crate::world::World;

/// How long the leader's key lives in the store without a renewal.
pub const LOCK_TIME: u64 = 5 * SECOND;

/// What makes a world.
#[derive(Clone, Default, Debug)]
pub struct Setup {
    /// Everything that is not set is drawn from this.
    pub seed: u64,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
    /// The rule whose world it is, although it is not broken: the control of a mutant's run.
    pub shaped_for: Option<Mutant>,
    /// The faults that are left out.
    pub plan: Plan,
    /// A script. Then no other fault happens.
    pub script: Option<Vec<Act>>,
    /// The policy.
    pub policy: Option<Policy>,
    /// How many instances; drawn if 0.
    pub instances: u64,
    /// Whether the provider sees sessions.
    pub sessions: Option<bool>,
    /// Whether the run is told as a story.
    pub told: bool,
    /// Whether every event is written down.
    pub logged: bool,
    /// How often the store is restored at most, in a world made for it.
    pub restores: Option<u64>,
    /// Whether the world is made for operators who say that instances are gone and give versions up.
    pub words: bool,
}

impl Setup {
    /// The world of a seed.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The world of a seed in which the store is restored, so often at most.
    #[must_use]
    pub fn restored(seed: u64, restores: u64) -> Self {
        Self { restores: Some(restores), ..Self::seed(seed) }
    }

    /// The world of a seed in which instances die or are cut off, and operators say that they are gone and give versions up.
    #[must_use]
    pub fn words(seed: u64) -> Self {
        Self { words: true, ..Self::seed(seed) }
    }

    /// A world in which a rule is broken, and in which what the rule is for happens often.
    #[must_use]
    pub fn broken(seed: u64, mutant: Mutant) -> Self {
        Self { seed, mutant: Some(mutant), ..Self::default() }
    }

    /// The same world with the rule in force.
    #[must_use]
    pub fn control(&self) -> Self {
        Self { mutant: None, shaped_for: self.mutant, ..self.clone() }
    }

    /// A world with a script and no other fault.
    #[must_use]
    pub fn script(seed: u64, script: &[Act]) -> Self {
        Self { seed, script: Some(script.to_vec()), ..Self::default() }
    }
}

/// The faults around a restored store.
const RESTORED: [Fault; 16] = [
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::ManagedVersion,
    Fault::ManagedVersion,
    Fault::Rollback,
    Fault::InstanceKilled,
    Fault::InstanceCutOff,
    Fault::Joiner,
    Fault::LeaderKilled,
    Fault::Order,
    Fault::Order,
    Fault::StoreRestored,
    Fault::StoreRestored,
];

/// Faults that lead operators to say that an instance is gone, or to give a version up.
const WORDS: [Fault; 16] = [
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::ManagedVersion,
    Fault::Rollback,
    Fault::InstanceKilled,
    Fault::InstanceKilled,
    Fault::Alone,
    Fault::InstanceCutOff,
    Fault::InstanceStopped,
    Fault::LeaderKilled,
    Fault::SaidGone,
    Fault::SaidGone,
    Fault::SaidGone,
    Fault::GivenUp,
    Fault::GivenUp,
    Fault::ProviderAway,
];

impl World {
    /// A world.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup {
            seed,
            mutant,
            shaped_for,
            plan,
            script,
            policy: fixed,
            instances,
            sessions,
            told,
            logged,
            restores,
            words,
        } = setup;
        let mut rng = Rng::new(seed);
        let wild = mutant == Some(Mutant::Around(Around::ClocksAreTrue));
        let drift = |rng: &mut Rng| {
            let bound = if wild { 300_000 } else { 10_000 };
            match rng.between(0, 2) {
                0 => -bound,
                1 => bound,
                _ => i64::try_from(rng.between(0, 2 * bound as u64)).unwrap_or(0) - bound,
            }
        };
        let profile = Profile::of(mutant.or(shaped_for));
        let mut drawn = fixed.unwrap_or_else(|| policy(&mut rng));
        let own = script.is_some();
        if !own {
            profile.shape(&mut drawn);
        }
        if restores.is_some()
            && World::has_no_logins(seed)
            && let Some(provider) = &mut drawn.provider
        {
            provider.system.clear();
        }
        let script = script.or_else(|| (!profile.script.is_empty()).then(|| profile.script.clone()));
        let instances = if instances == 0 && !own && script.is_some() { profile.instances.max(3) } else { instances };
        let leaders = (0..2)
            .map(|_| Broadcaster::new(Clock::new(rng.between(SECOND, 1_000_000 * SECOND), drift(&mut rng))))
            .collect();
        let secret = SecretName::new("payments/db").expect("a valid name");
        let chaotic = script.is_none();
        let streams = Fault::ALL.iter().map(|fault| Rng::new(seed ^ (0xFA << 40 | (*fault as u64) << 32))).collect();
        let (loss, slowness) = (rng.between(0, 120), rng.between(0, 60));
        let mut world = Self {
            now: SECOND,
            network: Rng::new(seed ^ 0xBEEF << 32),
            streams,
            secret,
            policy: drawn,
            mutant,
            outside: Outside::default(),
            leaders,
            instances: Vec::new(),
            sessions_known: sessions.unwrap_or_else(|| rng.permille(300)) || profile.sessions,
            next_number: 1,
            recorded: VecDeque::new(),
            counts: Counts::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            healed: None,
            chaotic,
            loss: if chaotic { profile.loss.unwrap_or(loss) } else { 0 },
            slowness: if chaotic { profile.slowness.unwrap_or(slowness) } else { 0 },
            step_slowness: if chaotic { profile.step_slowness.unwrap_or(40) } else { 0 },
            favoured: if restores.is_some() {
                RESTORED.to_vec()
            } else if words {
                WORDS.to_vec()
            } else {
                profile.favoured
            },
            restores,
            script: script.unwrap_or_default(),
            plan,
            struck: Struck::new(),
            strikes: Vec::new(),
            truth: Truth::default(),
            violation: None,
            unexplained: 0,
            trace: seed,
            story: told.then(Vec::new),
            log: logged.then(String::new),
            rng,
        };
        let count = if instances == 0 { world.rng.between(1, 4) } else { instances };
        for index in 0..count {
            let clock = Clock::new(world.rng.between(SECOND, 1_000_000 * SECOND), drift(&mut world.rng));
            let exclusive = world.rng.permille(300);
            world.start_instance(usize::try_from(index).unwrap_or(0), clock, exclusive);
        }
        for node in 0..2 {
            let at = world.now + world.rng.between(1, 1000) * MS;
            world.at(at, Event::Campaign { node, life: 0 });
        }
        world.outside.hasty = restores.is_some() && World::has_hasty_operator(seed);
        world.outside.put(false);
        let end = world.rng.between(12, 28) * SECOND;
        let script_ends = world.script.iter().map(|act| act.after + act.length).max().unwrap_or(0);
        world.at(if world.chaotic { end } else { 40 * SECOND + script_ends }, Event::Heal);
        if world.chaotic {
            world.at(2 * SECOND, Event::Chaos);
        } else {
            // A version to rotate to, unless the script writes one.
            let brings = |act: &Act| {
                matches!(act.fault, Fault::NewVersion | Fault::ManagedVersion | Fault::BadVersion | Fault::WatchGap)
            };
            if !world.script.iter().any(brings) {
                let time = When::At(6 * SECOND);
                world.script.push(Act { when: time, after: 0, fault: Fault::NewVersion, target: 0, length: 0 });
            }
            for act in world.script.clone() {
                if let When::At(time) = act.when {
                    world.at(world.now + time + act.after, Event::Scripted(act));
                }
            }
        }
        world
    }

    pub(crate) fn start_instance(&mut self, index: usize, clock: Clock, exclusive: bool) {
        let life = self.instances.get(index).map_or(1, |before| before.life + 1);
        let key = InstanceKey::new(
            (if index == 3 { "worker" } else { "api" }).parse().expect("a valid name"),
            format!("i{index}").parse().expect("a valid name"),
            Incarnation(u128::from(life) << 96 | u128::try_from(index).unwrap_or(0)),
        );
        self.start_life(index, key, life, clock, exclusive);
    }

    pub(crate) fn start_life(&mut self, index: usize, key: InstanceKey, life: u64, clock: Clock, exclusive: bool) {
        let mut running = Running::new(index, key, clock, life, exclusive, self.secret.clone());
        if let Some(before) = self.instances.get(index) {
            // The network is cut as it was for the incarnation before.
            running.no_leader = before.no_leader;
            running.no_store = before.no_store;
            running.no_bus = before.no_bus;
            running.deaf = before.deaf;
            running.late = before.late;
            self.instances[index] = running;
        } else {
            self.instances.push(running);
            self.at(self.now + SECOND, Event::Use(index));
        }
        let at = self.now + self.rng.between(1, 1000) * MS;
        self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Wake)));
    }
}

/// A policy with short times, so that a run of half a minute sees whole rotations.
pub(crate) fn policy(rng: &mut Rng) -> Policy {
    let sync_rotating = rng.between(800, 2000);
    let lease_rotating = sync_rotating * rng.between(2, 5);
    let lease_idle = lease_rotating * rng.between(1, 6);
    let sync_idle = (lease_idle / 2).min(rng.between(1000, 5000));
    let then =
        [OnDeadline::Extend, OnDeadline::Hold, OnDeadline::RollBack][usize::try_from(rng.between(0, 2)).unwrap_or(0)];
    let deadline = Deadline { after: ms(rng.between(3000, 20_000)), then };
    let phases = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining];
    let deadlines = phases.into_iter().filter(|_| rng.permille(60)).map(|phase| (phase, deadline)).collect();
    let policy = Policy {
        lease_idle: ms(lease_idle),
        lease_rotating: ms(lease_rotating),
        self_lease: ms(rng.between(1000, 4000)),
        max_use: ms(rng.between(100, 1500)),
        sync_idle: ms(sync_idle),
        sync_rotating: ms(sync_rotating),
        min_overlap: if rng.permille(200) { ms(3000) } else { Duration::ZERO },
        when_unreachable: match rng.between(0, 9) {
            0 => WhenUnreachable::Hold,
            1 | 2 => WhenUnreachable::PresumeDeadAfter(ms(rng.between(1000, 15_000))),
            _ => WhenUnreachable::Fence,
        },
        required: if rng.permille(100) {
            BTreeMap::from([("api".parse().expect("valid"), 1)])
        } else {
            BTreeMap::new()
        },
        approval: rng.permille(100),
        deadlines,
        failure_budget: u32::try_from(rng.between(0, 2)).unwrap_or(0),
        on_failure: if rng.permille(200) { OnFailure::Hold } else { OnFailure::RollBack },
        max_live_versions: usize::try_from(rng.between(2, 4)).unwrap_or(2),
        ..crate::bench::managed()
    };
    policy.validate().expect("drawn to be valid");
    policy
}
