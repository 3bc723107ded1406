//! An order that says an incarnation is gone: what was heard of it for any secret counts, and no other secret's task is
//! asked.

use super::faults::{hasty, register};
use super::*;
use crate::api::{Action, Control as _, OperatorCommand, Refusal};
use crate::operators::Warrant;

fn other() -> SecretName {
    SecretName::new("billing/db").unwrap()
}

fn member(environment: &Environment) -> InstanceIdentity {
    instance(environment, "payments", 1)
}

/// A member of both secrets. The task of the second one does not read its mailbox, as while it waits for a disk.
async fn member_of_both(environment: &Environment, bus: &EmbeddedBus) -> (Running, mpsc::Receiver<Mail>) {
    put(environment, "first").await;
    let running = Running::start(environment);
    running.reaches(&name(), 1).await;
    let (mail, unread) = mpsc::channel(1);
    mail.send(Mail::Reconfigured).await.unwrap();
    let (_sender, status) = watch::channel(Arc::new(SecretStatus::new(other())));
    running.secrets.insert(other(), TaskHandle { mail, status });
    register(bus, &member(environment), &[name()]).await;
    until(&running.secrets, |status| status.services.iter().any(|service| service.counts.members == 1)).await;
    (running, unread)
}

async fn say_gone(running: &Running, key: &InstanceKey) -> Result<(), Refusal> {
    let action = Action::Order(Order::gone(key.clone(), "its node is lost").unwrap());
    let by = OperatorName::new("ada").unwrap();
    let order = running.control.command(
        by,
        OperatorCommand { secret: name(), action, proof: OrderProof::Dashboard, warrant: Warrant::default() },
    );
    tokio::time::timeout(PATIENCE, order).await.expect("it hangs").map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_hangs_keeps_no_instance_from_being_said_gone_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), hasty()).await;
    let (running, _unread) = member_of_both(&environment, &bus).await;
    let key = member(&environment).key().clone();
    // It must have been silent for long enough.
    hold("taken", async || match say_gone(&running, &key).await {
        Ok(()) => true,
        Err(refusal) => {
            assert!(!refusal.to_string().contains(other().as_str()), "{refusal}");
            false
        }
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_for_another_secret_speaks_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let policy =
        Policy { sync_idle: PATIENCE, sync_rotating: PATIENCE, lease_rotating: PATIENCE * 2, ..Policy::default() };
    let (environment, bus) = environment(folder.path(), policy).await;
    let (running, _unread) = member_of_both(&environment, &bus).await;
    let member = member(&environment);
    let key = member.key().clone();
    let refused = say_gone(&running, &key).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("has not heard {key} for payments/db yet")), "{refused}");
    let part = SecretReport {
        generation: Generation(0),
        revision: Revision(0),
        reached: None,
        held: Default::default(),
        lease: LeaseSequence(0),
        failure: None,
        auth_failures: Default::default(),
    };
    let report = InstanceReport { key: key.clone(), sequence: ReportSequence(1), secrets: [(other(), part)].into() };
    bus.report(&key, &member.seal(&report, "2", clock::wall())).await.unwrap();
    hold("refused for it", async || {
        let refused = say_gone(&running, &key).await.unwrap_err().to_string();
        refused.contains("was heard") && refused.contains("ago for another secret, so it may run")
    })
    .await;
    running.stop().await;
}
