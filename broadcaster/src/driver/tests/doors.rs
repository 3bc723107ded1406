//! Each way in takes its own messages alone: one of another kind is refused by name and counted, although its sender may send
//! it, at its own door.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_bus::{Admission as _, ValueSource as _};
use rotacast_proto::{Envelope, Kind};
use rotacast_protocol::message::{FetchRequest, SecretReport, SyncRequest};
use rotacast_protocol::{Generation, LeaseSequence, Nonce, ReportSequence, Revision};

use super::faults::{hasty, register, sync_of};
use super::*;

/// One message of each kind, signed by its sender, with contents that would count at its own door.
fn one_of_each(instance: &InstanceIdentity) -> Vec<(Kind, Envelope)> {
    let key = instance.key().clone();
    let said = SecretReport {
        generation: Generation(0),
        revision: Revision(0),
        reached: None,
        held: Default::default(),
        lease: LeaseSequence(0),
        failure: None,
        auth_failures: Default::default(),
    };
    let report =
        InstanceReport { key: key.clone(), sequence: ReportSequence(9), secrets: BTreeMap::from([(name(), said)]) };
    let leave = Registration { key: key.clone(), exclusive: false, secrets: BTreeSet::from([name()]), left: true };
    let sync = SyncRequest { nonce: Nonce(9), echo: None, report: report.clone() };
    let issued = clock::wall();
    let fetch = FetchRequest { key, nonce: Nonce(9), issued, secret: name(), version: Some(version(1)) };
    vec![
        (Kind::Registration, instance.seal(&leave, "leave", issued)),
        (Kind::InstanceReport, instance.seal(&report, "report", issued)),
        (Kind::SyncRequest, instance.seal(&sync, "sync", issued)),
        (Kind::FetchRequest, instance.seal(&fetch, "fetch", issued)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_door_takes_its_own_kind_of_message_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let instance = instance(&environment, "payments", 1);
    register(&bus, &instance, &[name()]).await;
    hold("it is entered", async || environment.tree.is_in_roster(instance.key()).await.unwrap()).await;
    let identities = &environment.identities;
    let values = StoreFetch::new(&environment);
    let one_more = async |before: u64, what: String| {
        hold(&what, async || identities.refused() > before).await;
        assert_eq!(identities.refused(), before + 1, "{what}");
    };
    for (kind, message) in one_of_each(&instance) {
        let named = |problem: &dyn std::fmt::Display| {
            let problem = problem.to_string();
            assert!(problem.contains(kind.as_str()), "{kind}: {problem}");
        };
        if kind != Kind::Registration {
            let before = identities.refused();
            bus.register(instance.key(), &message).await.unwrap();
            one_more(before, format!("a {kind} as a registration")).await;
        }
        if kind != Kind::InstanceReport {
            let before = identities.refused();
            bus.report(instance.key(), &message).await.unwrap();
            one_more(before, format!("a {kind} as a report")).await;
        }
        if kind != Kind::SyncRequest {
            let before = identities.refused();
            assert!(bus.sync(&message, Duration::from_secs(2)).await.is_err(), "a {kind} is answered as a Sync");
            one_more(before, format!("a {kind} as a Sync")).await;
        }
        if kind != Kind::FetchRequest {
            match values.fetch(message.clone()).await {
                Ok(reply) => panic!("{kind}: {} bytes of a value", reply.value.len()),
                Err(status) => named(&status.message()),
            }
        } else {
            // The gateway has it checked before it looks at the bus.
            named(&identities.admit(&message).unwrap_err().message());
        }
    }
    // None of them is taken for the leave or the report that it could have been.
    let answer = bus.sync(&sync_of(&instance, &[name()], 1, None), PATIENCE).await.unwrap();
    let answer = SyncReply::open(&answer, &environment.cluster, |_, _| Some(environment.key.public())).unwrap();
    assert!(!answer.unregistered, "{answer:?}");
    running.stop().await;
}
