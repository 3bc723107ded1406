//! Orders and the audit log: none is carried out that is not on record.

use std::collections::BTreeSet;
use std::sync::Mutex;

use rotacast_bus::ValueSource as _;
use rotacast_proto::{Envelope, Kind};
use rotacast_protocol::coordinator::OrderName;
use rotacast_protocol::message::FetchRequest;
use rotacast_protocol::{AuditChain, Incarnation, WallTime};
use rotacast_store::AuditHead;

use super::faults::{hasty, register};
use super::*;
use crate::api::{AcceptedLoss, Action, CommandReply, Control as _, OperatorCommand, Refusal};
use crate::audit::{Anchor, LogName};
use crate::operators::Warrant;
use rotacast_protocol::coordinator::Reason;

/// Settings whose schedule is set while the driver runs.
struct Scheduled {
    fixed: Fixed,
    schedule: Mutex<Option<Schedule>>,
}

impl Settings for Scheduled {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        SecretSettings { schedule: *self.schedule.lock().unwrap(), ..self.fixed.of(secret) }
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        self.fixed.provider(id)
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

fn ada() -> OperatorName {
    OperatorName::new("ada").unwrap()
}

async fn give(running: &Running, action: Action) -> Result<CommandReply, Refusal> {
    let signed = Envelope::sign(
        &SigningKey::generate(),
        Kind::OperatorCommand,
        &ClusterName::new("test").unwrap(),
        "payments/db",
        "id",
        WallTime(0),
        bytes::Bytes::new(),
    );
    let proof = OrderProof::Signed(Box::new(signed));
    running.control.command(ada(), OperatorCommand { secret: name(), action, proof, warrant: Warrant::default() }).await
}

fn api() -> InstanceKey {
    InstanceKey::new("api".parse().unwrap(), "api-0".parse().unwrap(), Incarnation(1))
}

/// One of every kind.
fn every_order() -> Vec<Order> {
    let orders = vec![
        Order::Rotate,
        Order::pause("a freeze").unwrap(),
        Order::Resume,
        Order::Approve,
        Order::rollback("it fails").unwrap(),
        Order::cut_off(version(1), BTreeSet::from([api()]), true, "it hangs").unwrap(),
        Order::Excuse { instance: api() },
        Order::gone(api(), "its node is off").unwrap(),
        Order::abandon(version(1), "ended by hand").unwrap(),
        Order::LeaveSafeMode,
    ];
    let names: BTreeSet<&str> = orders.iter().map(|order| order.name().as_str()).collect();
    assert_eq!(names, OrderName::ALL.iter().map(|name| name.as_str()).collect());
    orders
}

/// Every order is refused, and so is the schedule's; none changes anything.
async fn refused(running: &Running, settings: &Scheduled, why: &str) {
    let before = until(&running.secrets, |_| true).await;
    let put = Action::Put(SecretValue::new(b"second".to_vec()));
    for action in every_order().into_iter().map(Action::Order).chain([put]) {
        let name = action.name();
        let refused = give(running, action).await.unwrap_err();
        let Refusal::Conflict { problem, fix } = &refused else { panic!("{name}: {refused}") };
        assert!(problem.contains("it cannot be recorded: audit log") && problem.contains(why), "{name}: {problem}");
        assert!(fix.contains("rotacast doctor"), "{name}: {fix}");
    }
    *settings.schedule.lock().unwrap() = Some(Schedule::every(Duration::from_millis(50)));
    running.secrets.get(&name()).unwrap().mail.send(Mail::Reconfigured).await.unwrap_or_else(|_| panic!("ended"));
    until(&running.secrets, |status| status.next_rotation_at.is_some_and(|due| due < clock::wall())).await;
    // Whatever the task does about it, it has done once it answers again.
    let after = until(&running.secrets, |_| true).await;
    *settings.schedule.lock().unwrap() = None;
    running.secrets.get(&name()).unwrap().mail.send(Mail::Reconfigured).await.unwrap_or_else(|_| panic!("ended"));
    assert_eq!((after.revision, after.rotation, after.versions), (before.revision, before.rotation, before.versions));
}

async fn running(environment: &mut Environment) -> (Running, Arc<Scheduled>) {
    let fixed = Fixed::of(hasty(), Arc::new(GenerateProvider::default()));
    let settings = Arc::new(Scheduled { fixed, schedule: Mutex::new(None) });
    environment.settings = settings.clone();
    put(environment, "first").await;
    let running = Running::start(environment);
    running.reaches(&name(), 1).await;
    until(&running.secrets, |status| status.rotation.is_none()).await;
    (running, settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_is_carried_out_while_the_audit_log_takes_no_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let (running, settings) = running(&mut environment).await;
    let (log, away) = (folder.path().join("audit.jsonl"), folder.path().join("away"));
    std::fs::rename(&log, &away).unwrap();
    refused(&running, &settings, "the file is gone").await;

    std::fs::rename(&away, &log).unwrap();
    give(&running, Action::Order(Order::pause("a freeze").unwrap())).await.unwrap();
    running.stop().await;
    let log = std::fs::read_to_string(&log).unwrap();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is not in {log}"));
    assert!(at("\"action\":\"ordered\"") < at("\"action\":\"paused\""), "{log}");
    assert_eq!(log.matches("\"action\":\"ordered\"").count(), 1, "{log}");
    assert!(log.contains("\"order\":\"pause\"") && log.contains("\"signed\":\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_doubt_takes_orders_once_an_operator_accepts_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    // The file that was here is gone: the store knows that it had seven entries.
    let (chain, hash) = (AuditChain(5), "ab".repeat(32));
    let lost = AuditHead { chain, log: "one".into(), named: true, sequence: 7, hash, time: WallTime(1) };
    environment.tree.save_audit_head(&lost, None).await.unwrap();
    let log = LogName { name: "one".into(), named: true };
    let anchor = Anchor::new(environment.tree.clone(), log, environment.findings.clone());
    environment.audit.anchor(anchor).await.unwrap();
    let (running, settings) = running(&mut environment).await;
    refused(&running, &settings, "7 were written").await;

    let accept = |doubt: &str| AcceptedLoss {
        doubt: doubt.into(),
        reason: Reason::new("the disk broke").unwrap(),
        proof: OrderProof::Dashboard,
        warrant: Warrant::default(),
    };
    let (doubt, _) = environment.audit.doubt().unwrap();
    assert!(running.control.accept_audit_loss(ada(), accept("another")).await.is_err());
    running.control.accept_audit_loss(ada(), accept(&doubt)).await.unwrap();
    give(&running, Action::Order(Order::pause("a freeze").unwrap())).await.unwrap();
    hold("no finding", async || running.finding(Topic::Audit).is_none()).await;
    running.stop().await;
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&first["action"], &first["actor"]), (&"loss_accepted".into(), &"ada".into()), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_read_is_on_record_once_for_each_incarnation_and_then_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, bus) = environment(folder.path(), hasty()).await;
    let (running, _) = running(&mut environment).await;
    let values = StoreFetch::new(&environment);
    for number in 1..=2 {
        let instance = instance(&environment, "payments", number);
        register(&bus, &instance, &[name()]).await;
        hold("it is entered", async || environment.tree.is_in_roster(instance.key()).await.unwrap()).await;
    }
    let fetch = async |number, nonce| {
        let request = fetch_of(&instance(&environment, "payments", number), nonce, clock::wall());
        assert_eq!(&*values.fetch(request).await.unwrap().value, b"first");
    };
    for nonce in 1..=3 {
        fetch(1, nonce).await;
    }
    fetch(2, 4).await;
    let log = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    hold("the count", async || log().contains("\"action\":\"fetched_again\",\"details\":{\"times\":2}")).await;
    running.stop().await;
    assert_eq!(log().matches("\"action\":\"fetched\"").count(), 2, "{}", log());
    assert!(log().contains("\"instance\":\"payments/pod-2/"), "{}", log());
    assert!(!log().contains("first"), "no value is in the log");
}

fn fetch_of(instance: &InstanceIdentity, nonce: u64, issued: WallTime) -> Envelope {
    let key = instance.key().clone();
    let request = FetchRequest { key, nonce: Nonce(nonce), issued, secret: name(), version: Some(version(1)) };
    instance.seal(&request, "id", clock::wall())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_gives_a_value_once_and_to_registered_instances_alone_and_refusals_are_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, bus) = environment(folder.path(), hasty()).await;
    let (running, _) = running(&mut environment).await;
    let values = StoreFetch::new(&environment);
    let instance = instance(&environment, "payments", 1);
    let refusal = async |request: &Envelope| match values.fetch(request.clone()).await {
        Ok(reply) => panic!("{} bytes of a value were given out", reply.value.len()),
        Err(status) => status,
    };
    // Not registered, it gets no value; the state, which is no secret, it gets.
    let early = fetch_of(&instance, 1, clock::wall());
    let told = refusal(&early).await;
    assert!(told.code() == tonic::Code::FailedPrecondition && told.message().contains("not registered"), "{told:?}");
    let key = instance.key().clone();
    let of_state = FetchRequest { key, nonce: Nonce(2), issued: WallTime(0), secret: name(), version: None };
    let of_state = instance.seal(&of_state, "id", clock::wall());
    for _ in 0..2 {
        assert!(values.fetch(of_state.clone()).await.unwrap().state.is_some());
    }
    register(&bus, &instance, &[name()]).await;
    hold("it is entered", async || environment.tree.is_in_roster(instance.key()).await.unwrap()).await;
    // What gave nothing still works, once.
    assert_eq!(&*values.fetch(early.clone()).await.unwrap().value, b"first");
    let told = refusal(&early).await;
    assert!(told.code() == tonic::Code::AlreadyExists && told.message().contains("works once"), "{told:?}");
    let old = fetch_of(&instance, 3, WallTime(clock::wall().0 - 600_000));
    let told = refusal(&old).await;
    assert!(told.message().contains("correct the clocks"), "{told:?}");
    let log = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let counted = |log: &str| log.lines().any(|line| line.contains("fetch_refused") && line.contains("\"times\":"));
    hold("the refusals are on record", async || log().contains("not registered") && counted(&log())).await;
    running.stop().await;
    assert!(!log().contains("first"), "no value is in the log");
}
