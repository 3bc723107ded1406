//! Replicas, services and servers as processes, and faults at random moments: killed, stopped, cut off, compacted,
//! restored from a backup, restarted, their streams lost, their disks full. Services query PostgreSQL all the time.
//!
//! As root one service has a network of its own, and each broadcaster has a disk. Otherwise those faults are left out,
//! and the test says so.
//!
//! An ordinary run has few faults, and restores no store: `store_restored` has a test of its own. `ROTACAST_E2E_FAULTS`
//! sets how many there are, of every kind, as in `tools/test --long`. `ROTACAST_E2E_SEED` replays a run's choices and
//! times. The same seed leads to the same faults, not to the same run: what each fault interrupts depends on the
//! machine.

mod fault;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rotacast_proto::v1;
use rotacast_tests::pool_service::Status;
use rotacast_tests::programs;
use rotacast_tests::servers::{Network, until};
use rotacast_tests::world::{Action, BusKind, LIMIT, Operator, Options, Service, StoreKind, Way, World, number, usual};

use fault::Fault;
use restored::Backup;

const REPLICAS: usize = 3;

/// The lease. Longer than any fault of [`Fault::hold`] that keeps an instance from every process that could renew it,
/// and the time that the instance takes to find the broadcaster that answers.
const LEASE: &str = "\"12s\"";

/// How much is left at least, in milliseconds, of a lease that was renewed when it was due.
const RENEWED: u64 = 10_000;

/// Each broadcaster's disk, in bytes: an audit log of some hundred rotations.
const DISK: u64 = 4 << 20;

/// The instance that the faults hit.
const VICTIM: &str = "victim";
/// The text with which the SDK says that it returns no version.
const NO_LEASE: &str = "no lease allows the use of any version right now";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens_on_etcd_and_nats() {
    whatever_happens(StoreKind::Etcd, "3s", usual(3, 60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens_on_consul_and_nats() {
    whatever_happens(StoreKind::Consul, "10s", usual(2, 40)).await;
}

async fn whatever_happens(store: StoreKind, ttl: &str, faults: u64) {
    let asked = number("ROTACAST_E2E_FAULTS");
    let count = asked.unwrap_or(faults);
    let restores = asked.is_some() || usual(false, true);
    let seed = number("ROTACAST_E2E_SEED").unwrap_or_else(rand::random);
    println!("ROTACAST_E2E_SEED={seed}");
    let options = Options::default()
        .on(store, BusKind::Nats)
        .replicas(REPLICAS)
        .cuttable()
        .small_disks(DISK)
        .leader_ttl(ttl)
        .policy("lease_idle", LEASE)
        .policy("lease_rotating", LEASE)
        .policy("self_lease", "\"3s\"");
    let Some(world) = World::start(programs!(), options).await else { return };
    let mut run = Run::begin(world, store, StdRng::seed_from_u64(seed)).await;
    for at in 0..count {
        // The effects of the last fault are undone first.
        run.led().await;
        run.rotate_if_idle().await;
        let as_root = run.network.is_some() && run.world.broadcaster.disk().is_some();
        let drawn = Fault::draw(&mut run.random, store, as_root, restores);
        // Every run has one of these, however short it is.
        let fault = if restores && at == count / 2 { Fault::StoreRestored } else { drawn };
        // A fault that begins anywhere in a rotation, and sometimes while another one lasts.
        run.pass(2000).await;
        // Kept until it is restored, so that one fault may undo whole rotations.
        if restores && (run.random.random_bool(0.5) || at == 0) && run.backup.is_none() {
            run.back_up().await;
        }
        let second =
            (run.random.random_range(0..3) == 0).then(|| Fault::draw(&mut run.random, store, as_root, restores));
        let second = second.filter(|second| second.may_overlap(fault));
        println!("{at}: {fault:?}{}", second.map(|second| format!(" and {second:?}")).unwrap_or_default());
        run.strike(fault).await;
        if let Some(second) = second {
            run.pass(1000).await;
            run.strike(second).await;
        }
        run.pass(second.map_or(fault.hold(), |second| second.hold().min(fault.hold()))).await;
        run.mend().await;
        for fault in [Some(fault), second].into_iter().flatten() {
            *run.faults.entry(fault.name()).or_default() += 1;
        }
    }
    run.end().await;
}

struct Run {
    world: World,
    store: StoreKind,
    random: StdRng,
    begun: Instant,
    /// The instance that no fault hits.
    witness: Service,
    /// The instance that the faults hit, how it reaches store and bus, and how often it was started.
    victim: (Service, Way, u32),
    /// The victim's network, if it has one of its own.
    network: Option<Network>,
    /// It reaches nothing but the broadcasters.
    gateway: Service,
    /// Answered queries of every service, over all its runs.
    queries: u64,
    faults: BTreeMap<String, u64>,
    down: [bool; REPLICAS],
    bus_down: bool,
    store_down: bool,
    victim_down: bool,
    /// The victim was stopped or cut off from every server at some time.
    may_lapse: bool,
    /// How often it got no lease.
    lapses: u64,
    newest: u64,
    /// The last backup, until it is restored.
    backup: Option<Backup>,
    /// The store has lost what came after its backup, and no operator has looked yet.
    restored: bool,
    /// How often the store was restored.
    restores: u64,
    /// How often each service had got no lease by then. While the store's own past blocks a new leader, leases expire,
    /// and the store allows nothing that it does not know.
    lapsed: BTreeMap<String, u64>,
    /// Versions of a lost history, whose roles the database's administrator has dropped by hand.
    lost: BTreeSet<u64>,
}

impl Run {
    async fn begin(mut world: World, store: StoreKind, random: StdRng) -> Self {
        for which in 0..REPLICAS {
            world.replica(which).spawn();
        }
        world.first_version().await;
        let mut witness = world.service("payments-api", "witness", &[]);
        let (mut victim, way, network) = world.networked_service("ledger", VICTIM).await;
        let mut gateway = world.service_over_grpc("mailer", "gateway");
        for service in [&mut witness, &mut victim, &mut gateway] {
            service.uses(1).await;
        }
        Self {
            world,
            store,
            random,
            begun: Instant::now(),
            witness,
            victim: (victim, way, 1),
            network,
            gateway,
            queries: 0,
            faults: BTreeMap::new(),
            down: [false; REPLICAS],
            bus_down: false,
            store_down: false,
            victim_down: false,
            may_lapse: false,
            lapses: 0,
            newest: 1,
            backup: None,
            restored: false,
            restores: 0,
            lapsed: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Waits for a leader that has renewed every instance's leases: what was left of an earlier leader's leases, or of
    /// a store read, might not outlast the next fault.
    async fn led(&self) {
        self.leave_safe_mode().await;
        let all = ["witness", VICTIM, "gateway"];
        until("a broadcaster to lead and every instance's leases to be renewed", LIMIT, async || {
            let instances = self.leader().await?.instances().await.ok()?;
            let renewed: BTreeSet<&str> = instances
                .iter()
                .filter(|instance| instance.lease_left_ms > RENEWED)
                .filter_map(|instance| Some(instance.key.as_ref()?.instance.as_str()))
                .collect();
            all.iter().all(|name| renewed.contains(name)).then_some(())
        })
        .await;
    }

    /// A random time of up to so many milliseconds.
    async fn pass(&mut self, most: u64) {
        let time = Duration::from_millis(self.random.random_range(0..=most));
        tokio::time::sleep(time).await;
    }

    /// Another rotation unless one is in flight: a client writes a version, or an operator orders one.
    async fn rotate_if_idle(&mut self) {
        let by_hand = self.random.random_bool(0.5);
        let Ok(status) = self.world.operator.status().await else { return };
        if status.rotation.is_some() || status.current != self.newest {
            return;
        }
        if by_hand {
            self.newest += 1;
            self.world.put_by_hand(self.newest).await;
        } else {
            // Without an answer it may have been carried out all the same: the versions show it.
            let _ = self.order_to_rotate().await;
            let highest = |status: &v1::SecretStatus| status.versions.iter().map(|info| info.version).max();
            self.newest = self.world.until("the versions", highest).await;
        }
    }

    /// Sends an order to the broadcaster that leads; `None` if none leads, or if it refuses the order.
    async fn order_to_rotate(&self) -> Option<u64> {
        let ordered = self.leader().await?.order(Action::Rotate(v1::Rotate {})).await;
        ordered.ok().map(|reply| reply.version)
    }

    /// The broadcaster that leads.
    async fn leader(&self) -> Option<Operator> {
        for operator in self.world.operator.each() {
            if operator.broadcaster().await.is_ok_and(|status| status.leader) {
                return Some(operator);
            }
        }
        None
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::BroadcasterKilled(which) => {
                self.world.replica(which).kill().await;
                self.down[which] = true;
            }
            Fault::BroadcasterStopped(which) => {
                if !self.down[which] {
                    self.world.replica(which).stop().await;
                    self.down[which] = true;
                }
            }
            Fault::BroadcasterPaused(which) => {
                if !self.down[which] {
                    self.world.replica(which).pause();
                }
            }
            Fault::BroadcasterWithoutStore(which) => self.world.ways[which].store.stall(),
            Fault::BroadcasterWithoutBus(which) => self.world.ways[which].bus.stall(),
            Fault::BroadcasterCutOff(which) => self.world.ways[which].stall(),
            Fault::BroadcastersKilled => {
                for which in 0..REPLICAS {
                    self.world.replica(which).kill().await;
                    self.down[which] = true;
                }
            }
            Fault::ServiceKilled => {
                self.victim.0.kill().await;
                self.victim_down = true;
            }
            Fault::ServicePaused => {
                self.victim.0.pause();
                self.may_lapse = true;
            }
            Fault::ServiceWithoutStore => self.victim.1.store.stall(),
            Fault::ServiceWithoutBus => self.victim.1.bus.stall(),
            Fault::ServiceCutOff => {
                self.network.as_ref().expect("or it is not drawn").pull();
                self.may_lapse = true;
            }
            Fault::DiskFull(which) => self.world.replica(which).disk().expect("or it is not drawn").fill(),
            Fault::StorePaused => self.world.store.server().pause(),
            Fault::StoreKilled => {
                self.world.store.server().kill().await;
                self.store_down = true;
            }
            Fault::StoreCompacted => self.compact().await,
            Fault::StoreRestored => self.restore().await,
            Fault::BusKilled => {
                self.world.bus.nats_mut().kill().await;
                self.bus_down = true;
            }
            Fault::BusPaused => self.world.bus.nats_mut().pause(),
            Fault::StreamsLost => {
                self.world.bus.nats_mut().kill().await;
                self.world.bus.nats_mut().lose_streams();
                self.bus_down = true;
            }
        }
    }

    /// The history up to now is compacted.
    async fn compact(&self) {
        let etcd = self.world.store.etcd();
        let status = etcd.ctl(&["endpoint", "status", "--write-out=json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("etcdctl writes JSON");
        let revision = status[0]["Status"]["header"]["revision"].as_u64().expect("a revision").to_string();
        // Compacted already: nothing has changed since the last time.
        if status[0]["Status"]["header"]["revision"].as_u64() > Some(1) {
            drop(etcd.ctl(&["compaction", "--physical", &revision]).await);
        }
        // A newer revision, so that the same one is never compacted twice.
        drop(etcd.ctl(&["put", "unrelated", &revision]).await);
    }

    async fn mend(&mut self) {
        if std::mem::take(&mut self.store_down) {
            self.world.store.server().restart().await;
        }
        self.world.store.server().resume();
        if std::mem::take(&mut self.bus_down) {
            self.world.bus.nats_mut().restart().await;
        }
        self.world.bus.nats_mut().resume();
        for which in 0..REPLICAS {
            self.world.ways[which].heal();
            if let Some(disk) = self.world.replica(which).disk() {
                disk.free();
            }
            if std::mem::take(&mut self.down[which]) {
                self.world.replica(which).spawn();
            } else {
                self.world.replica(which).resume();
            }
        }
        self.victim.0.resume();
        self.victim.1.heal();
        if let Some(network) = &self.network {
            network.plug();
        }
        // An instance that starts before that hears of a current version that may have ended.
        if std::mem::take(&mut self.restored) {
            self.look_at_the_store().await;
        }
        if std::mem::take(&mut self.victim_down) {
            let last = self.victim.0.status();
            self.judge_service(last);
            // Another process of the same name proves the earlier one over.
            let lives = self.victim.2 + 1;
            let (victim, way, network) = self.world.networked_service("ledger", VICTIM).await;
            self.victim = (victim, way, lives);
            self.network = network;
        }
    }

    /// Every process runs again: what is in flight ends, and a rotation completes.
    async fn end(mut self) {
        self.leave_safe_mode().await;
        let newest = self.newest;
        self.world
            .until("what was under way to end", |status| {
                (status.rotation.is_none() && status.current == newest).then_some(())
            })
            .await;
        let last = self.world.next_version().await;
        let ordered = until("an order to rotate to be taken", LIMIT, async || self.order_to_rotate().await).await;
        assert_eq!(ordered, last);
        let ended = self.world.ended(last).await;
        assert_eq!(ended.outcome, "retired", "{ended:?}");
        for service in [&mut self.witness, &mut self.victim.0, &mut self.gateway] {
            service.uses(last).await;
        }
        let stopped = [self.witness.stop().await, self.victim.0.stop().await, self.gateway.stop().await];
        for status in stopped {
            self.judge_service(Some(status));
        }
        for which in 0..REPLICAS {
            self.world.replica(which).stop().await;
        }
        self.world.judge_the_end(last, &self.lost).await;
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("faults: {}", faults.join(", "));
        println!(
            "{:?}: {} versions, {} of them lost in {} restores, {} queries, 0 failed but {} for want of a lease, \
             {} lives of the victim, {:.0?}",
            self.store,
            last,
            self.lost.len(),
            self.restores,
            self.queries,
            self.lapses,
            self.victim.2,
            self.begun.elapsed()
        );
    }

    /// No query failed, except for two cases. A process that was stopped or cut off for longer than its leases gets no
    /// lease until it has read the store again. After a store was restored, no process gets one until an operator has
    /// written a version. No login is ever refused, and no session is ended.
    fn judge_service(&mut self, last: Option<Status>) {
        // A service that was killed before its first line has sent no query.
        let Some(status) = last else { return };
        let victim = status.instance == VICTIM;
        let lapsed = self.lapsed.remove(&status.instance).unwrap_or(0);
        let most = if victim && self.may_lapse { u64::MAX } else { lapsed };
        for (error, count) in &status.errors {
            assert!(error.contains(NO_LEASE), "{count} times {error:?}: {status:#?}");
        }
        assert!(status.queries_failed <= most, "more than the {lapsed} while the store was looked at: {status:#?}");
        self.lapses += status.queries_failed;
        assert_eq!(status.queries_failed, status.errors.values().sum::<u64>(), "{status:#?}");
        self.queries += status.queries_ok;
        if victim {
            self.may_lapse = false;
        }
    }
}
