//! One rotation is one trace, over broadcasters and services, whichever broadcaster leads. No collector can hold a
//! rotation up.

use std::collections::BTreeMap;

use rotacast_proto::v1;
use rotacast_tests::collector::{Collector, Mood, Span};
use rotacast_tests::programs;
use rotacast_tests::world::{Action, Options, SECRET, World};

const INSTANCES: [&str; 2] = ["payments-api/one", "ledger/one"];

/// The rotation's own span.
fn root(spans: &[Span], version: u64) -> Option<Span> {
    let is =
        |span: &&Span| span.parent.is_empty() && span.attributes.get("rotacast.version") == Some(&version.to_string());
    spans.iter().filter(is).find(|span| span.name == format!("rotate {SECRET}")).cloned()
}

/// A trace, by the ids of its spans: what a replica sends once more must be equal.
struct Trace(BTreeMap<String, Span>);

impl Trace {
    fn of(spans: &[Span], root: &Span) -> Self {
        let mut by_id: BTreeMap<String, Span> = BTreeMap::new();
        for span in spans.iter().filter(|span| span.trace == root.trace) {
            // Only the sender may differ.
            let known = by_id.entry(span.id.clone()).or_insert_with(|| span.clone());
            assert_eq!(Span { instance: known.instance.clone(), ..span.clone() }, *known, "two spans of one id");
        }
        Self(by_id)
    }

    /// The span's name, with its parents' names before it, and for services the sender.
    fn path(&self, span: &Span) -> String {
        let by = span.attributes.get("rotacast.instance").map(|name| format!(" of {name}")).unwrap_or_default();
        let own = format!("{}{by}", span.name);
        match self.0.get(&span.parent) {
            Some(parent) => format!("{} > {own}", self.path(parent)),
            None => {
                assert!(span.parent.is_empty(), "the parent of {} is not in the trace: {span:?}", span.name);
                own
            }
        }
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.0.values().map(|span| self.path(span)).collect();
        paths.sort();
        paths
    }

    fn has(&self, path: &str) -> bool {
        self.0.values().any(|span| self.path(span) == path)
    }
}

/// The spans that every successful rotation of a managed credential over both services must have.
fn expected() -> Vec<String> {
    let root = format!("rotate {SECRET}");
    let mut all = vec![root.clone()];
    for phase in ["verifying", "preparing", "activating", "draining", "retiring"] {
        all.push(format!("{root} > {phase}"));
    }
    for call in ["verifying > provider create", "verifying > provider test"] {
        all.push(format!("{root} > {call}"));
    }
    for call in ["retiring > provider disable", "retiring > provider destroy"] {
        all.push(format!("{root} > {call}"));
    }
    for instance in INSTANCES {
        for step in ["preparing > rotacast load", "preparing > rotacast prepare", "activating > rotacast switch"] {
            all.push(format!("{root} > {step} of {instance}"));
        }
        let drain = format!("{root} > activating > rotacast drain of {instance}");
        all.push(format!("{drain} > rotacast release of {instance}"));
        all.push(drain);
    }
    all
}

async fn whole(collector: &Collector, version: u64) -> (Span, Trace) {
    let expected = expected();
    let missing = |spans: &[Span]| -> Result<(Span, Trace), Vec<String>> {
        let Some(root) = root(spans, version) else { return Err(vec!["the rotation itself".into()]) };
        let trace = Trace::of(spans, &root);
        // A parent may come after its children.
        if trace.0.values().any(|span| !span.parent.is_empty() && !trace.0.contains_key(&span.parent)) {
            return Err(vec!["a parent".into()]);
        }
        let missing: Vec<String> = expected.iter().filter(|path| !trace.has(path)).cloned().collect();
        if missing.is_empty() { Ok((root, trace)) } else { Err(missing) }
    };
    let found = tokio::time::timeout(rotacast_tests::world::LIMIT, async {
        loop {
            if let Ok(found) = missing(&collector.spans()) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| {
        let spans = collector.spans();
        let came: Vec<String> = spans
            .iter()
            .map(|it| format!("{} {} {} < {} ({})", it.trace, it.id, it.name, it.parent, it.service))
            .collect();
        panic!("missing: {:#?}\ncame: {came:#?}", missing(&spans).err());
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_over_two_services_is_one_trace() {
    let collector = Collector::start().await;
    let options = Options::default().collector(collector.url()).json_logs();
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut services = [
        world.service("payments-api", "one", &[]),
        // It asks the broadcaster for values.
        world.service_without_store("ledger", "one", &[]),
    ];
    for service in &mut services {
        service.uses(1).await;
    }
    assert_eq!(world.rotate().await.outcome, "retired");

    let (root, trace) = whole(&collector, 2).await;
    println!("{}", trace.paths().join("\n"));
    assert_eq!((root.service.as_str(), root.error.as_deref()), ("rotacast", None));
    assert_eq!(root.attributes["rotacast.outcome"], "retired");
    assert_eq!(root.attributes["rotacast.rotation"], format!("{SECRET}@2"));
    let senders: std::collections::BTreeSet<&str> = trace.0.values().map(|span| span.service.as_str()).collect();
    assert_eq!(senders, ["ledger", "payments-api", "rotacast"].into());
    // Phases follow one another without a gap, within the rotation.
    let mut phases: Vec<&Span> =
        trace.0.values().filter(|span| span.attributes.contains_key("rotacast.phase")).collect();
    phases.sort_by_key(|phase| phase.times);
    for pair in phases.windows(2) {
        assert_eq!(pair[0].times.1, pair[1].times.0, "{pair:?}");
    }
    assert_eq!((phases[0].times.0, phases[phases.len() - 1].times.1), root.times);
    // PostgreSQL was asked for sessions of the old version. A reading that goes on unchanged is one span.
    let usage: Vec<&Span> = trace.0.values().filter(|span| span.name == "provider usage").collect();
    assert!(usage.iter().any(|span| span.attributes["rotacast.result"] == "0 sessions"), "{usage:#?}");
    assert!(usage.iter().all(|span| span.attributes["rotacast.version"] == "1"), "{usage:#?}");

    // Another rotation is another trace. One that rolls back says why.
    world.database.make_login(3).await;
    world.store.put(3, "no credential at all").await;
    assert_eq!(world.ended(3).await.outcome, "rolled_back");
    let back = collector.until("the rollback's span", |spans| self::root(spans, 3)).await;
    assert_ne!(back.trace, root.trace);
    assert!(back.error.is_some_and(|reason| !reason.is_empty()));
    for service in &mut services {
        assert_eq!(service.stop().await.queries_failed, 0);
    }
    world.broadcaster.stop().await;
    judge_the_log(&world.broadcaster.log(), &root);
}

/// What is logged about a rotation names it, and its trace.
fn judge_the_log(log: &str, root: &Span) {
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}")))
        .collect();
    let rotation = format!("{SECRET}@2");
    let about: Vec<&serde_json::Value> = lines.iter().filter(|line| line["rotation"] == rotation.as_str()).collect();
    let mut phases: Vec<&str> = about.iter().filter_map(|line| line["phase"].as_str()).collect();
    phases.dedup();
    assert_eq!(phases, ["verifying", "preparing", "activating", "draining", "retiring"]);
    for line in about {
        assert_eq!((&line["secret"], &line["trace_id"]), (&SECRET.into(), &root.trace.as_str().into()), "{line}");
        assert_eq!((&line["old"], &line["new"]), (&1.into(), &2.into()), "{line}");
    }
    // Before and after the rotation there is none.
    assert!(lines.iter().any(|line| line["secret"] == SECRET && line.get("rotation").is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_leaves_the_trace_to_its_successor() {
    let collector = Collector::start().await;
    let options = Options::default().collector(collector.url()).replicas(2).leader_ttl("1s");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut services = [world.service("payments-api", "one", &[]), world.service_without_store("ledger", "one", &[])];
    for service in &mut services {
        service.uses(1).await;
    }
    // An instance is still on the old version: the rotation is draining.
    let held = world.session(1).await;
    let order = world.operator.order(Action::Rotate(v1::Rotate {})).await;
    assert_eq!(order.expect("the order is taken").version, 2);
    let draining = |status: &v1::SecretStatus| {
        status.rotation.as_ref().is_some_and(|rotation| rotation.phase() == v1::Phase::Draining).then_some(())
    };
    world.until("the rotation to wait while draining", draining).await;
    let called = |span: &&Span| span.name == "provider create" && span.attributes["rotacast.version"] == "2";
    let first = collector.until("the first leader's call", |spans| spans.iter().find(called).cloned()).await;
    world.broadcaster.kill().await;
    world.standbys[0].spawn();
    world.standbys[0].leads(&world.operator).await;
    drop(held);
    assert_eq!(world.ended(2).await.outcome, "retired");

    let (root, trace) = whole(&collector, 2).await;
    println!("{}", trace.paths().join("\n"));
    assert_eq!(first.trace, root.trace);
    assert_ne!(first.instance, root.instance, "both are the same broadcaster's");
    let disabled = trace.0.values().find(|span| span.name == "provider disable").expect("it was expected");
    assert_eq!(disabled.instance, root.instance);
    for service in &mut services {
        assert_eq!(service.stop().await.queries_failed, 0);
    }
    world.standbys[0].stop().await;
}

/// The log says it once, and rotations go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_or_hangs_holds_no_rotation_up() {
    let collector = Collector::start().await;
    collector.set_mood(Mood::Refuses);
    let Some(mut world) = World::start(programs!(), Options::default().collector(collector.url())).await else {
        return;
    };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    assert_eq!(world.rotate().await.outcome, "retired");
    let complaint = "does not get every span";
    let what = "the loss to be told";
    rotacast_tests::servers::until(what, rotacast_tests::world::LIMIT, async || {
        world.broadcaster.log().contains(complaint).then_some(())
    })
    .await;
    collector.set_mood(Mood::Hangs);
    for _ in 0..2 {
        assert_eq!(world.rotate().await.outcome, "retired");
    }
    assert_eq!(service.stop().await.queries_failed, 0);
    assert_eq!(collector.spans(), []);
    // The broadcaster's end waits only a moment for the last spans.
    world.broadcaster.stop().await;
    assert_eq!(world.broadcaster.log().matches(complaint).count(), 1);
}
