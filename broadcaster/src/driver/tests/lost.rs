//! Numbers that a store has lost with a part of its history.

use rotacast_protocol::record::{Origin, SafeMode, Unknown};
use rotacast_store::Created;

use super::scheduled::order;
use super::*;

/// The secret of [`environment`].
pub(super) fn provider() -> Option<ProviderId> {
    Some(GenerateProvider::default().id("test"))
}

/// A record as an earlier leader left it, with the first version's key beside it.
pub(super) async fn leave(environment: &Environment, policy: &Policy, changes: &[RecordChange]) {
    put(environment, "first").await;
    let term = campaign(environment).await;
    let mut record = SecretRecord::new(name(), term.epoch, Timing::of(policy));
    let (at, provider) = (clock::wall(), environment.settings.of(&name()).policy.provider);
    record.apply(&RecordChange::TermBegan { epoch: term.epoch });
    record.apply(&RecordChange::VersionAdded {
        version: version(1),
        origin: Origin::Watched,
        provider: provider.clone(),
        at,
    });
    record.apply(&RecordChange::RotationStarted { new: version(1), trigger: "store".into(), provider, at });
    record.apply(&RecordChange::Activated { at });
    record.apply(&RecordChange::RotationEnded { outcome: rotacast_protocol::Outcome::Retired, at });
    changes.iter().for_each(|change| record.apply(change));
    environment.tree.save_record(&name(), record.encode(), None, term.epoch).await.unwrap();
    term.resign.cancel();
    term.resigned.await.unwrap();
}

pub(super) fn safe_mode() -> RecordChange {
    let safe_mode = SafeMode { reason: "restored".into(), at: clock::wall(), unknown: Unknown::new() };
    RecordChange::SafeModeEntered(safe_mode)
}

async fn last_version(secrets: &Secrets) -> Option<Version> {
    let (reply, answer) = oneshot::channel();
    secrets.get(&name()).unwrap().mail.send(Mail::Question(Question::LastVersion(reply))).await.unwrap();
    answer.await.unwrap()
}

/// A leader that crashed after it saved the numbers in the record and before it wrote the note that others read.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_taken_hold_nothing_up_although_no_note_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (environment, _bus) = environment(folder.path(), policy.clone()).await;
    leave(
        &environment,
        &policy,
        &[safe_mode(), RecordChange::NumbersLost { last: version(7) }, RecordChange::SafeModeLeft],
    )
    .await;
    // A client that knows nothing of it writes one of them by hand.
    let value = SecretValue::new(b"by hand".to_vec());
    let created = environment.tree.create_version(&name(), version(5), value, Vec::new()).await.unwrap();
    assert!(matches!(created, Created::Done(_)));
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1))).await;
    let floor = last_version(&secrets).await;
    assert_eq!(floor, Some(version(7)));
    let value = SecretValue::new(b"next".to_vec());
    assert_eq!(environment.tree.put_next(&name(), value, floor).await.unwrap(), version(8));
    until(&secrets, |status| status.current == Some(version(8))).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_about_to_be_made_is_not_taken_for_lost() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (environment, _bus) = environment(folder.path(), policy.clone()).await;
    let at = clock::wall();
    let rotation = [
        RecordChange::VersionAdded { version: version(2), origin: Origin::Managed, provider: provider(), at },
        RecordChange::RotationStarted { new: version(2), trigger: "ada".into(), provider: provider(), at },
        // No credential is made in safe mode.
        safe_mode(),
    ];
    leave(&environment, &policy, &rotation).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.rotation.is_some()).await;
    let gap = Mail::Gap { missing: version(2), found: version(3) };
    secrets.get(&name()).unwrap().mail.send(gap).await.unwrap();
    // Once it answers, it has dealt with the gap.
    assert_eq!(last_version(&secrets).await, Some(version(2)));
    order(&secrets, Order::LeaveSafeMode).await;
    until(&secrets, |status| status.current == Some(version(2))).await;
    stop.cancel();
    running.await.unwrap();
}

/// Without a further leap, instances would refuse every state for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_taken_in_safe_mode_is_noticed_when_it_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (mut environment, bus) = environment(folder.path(), policy.clone()).await;
    leave(&environment, &policy, &[safe_mode()]).await;
    let backup = environment.tree.read_record(&name()).await.unwrap().unwrap().bytes;
    let lead_until = async |environment: &Environment, wanted: &dyn Fn(&SecretStatus) -> bool| {
        let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
        let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
        let status = until(&secrets, wanted).await;
        // The state of that revision has reached the bus, so what is published before it is not what gets lost.
        let mut states = bus.watch_states(&[name()]);
        let published = async {
            loop {
                if let Some(Ok(rotacast_bus::BusEvent::Message(state))) = states.next().await
                    && state.id.rsplit(':').next().unwrap().parse::<u64>().unwrap() >= status.revision.0
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, published).await.unwrap();
        stop.cancel();
        running.await.unwrap();
        status.revision
    };
    let lost = lead_until(&environment, &|status| status.current == Some(version(1))).await;

    let again = EmbeddedStore::open(folder.path().join("again.db")).await.unwrap();
    environment.tree = SecretTree::new(Arc::new(again), Prefix::new("rotacast").unwrap());
    put(&environment, "first").await;
    let term = campaign(&environment).await;
    environment.tree.save_record(&name(), backup, None, term.epoch).await.unwrap();
    term.resign.cancel();
    term.resigned.await.unwrap();
    lead_until(&environment, &|status| status.revision.0 > lost.0 + (1 << 31)).await;
}

/// Any program that has a broadcaster's key can claim any revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_no_leap_reaches_is_reported_as_trouble_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (environment, bus) = environment(folder.path(), policy.clone()).await;
    leave(&environment, &policy, &[]).await;
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    let mut record = SecretRecord::decode(&record.bytes).unwrap();
    record.revision = Revision(u64::MAX);
    let state = record.state().seal(&environment.key, &environment.cluster, "forged", clock::wall());
    bus.publish_state(&name(), Revision(u64::MAX), &state).await.unwrap();
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let claims =
        |status: &SecretStatus| status.blockers.iter().any(|it| it.why.contains("another client writes states"));
    until(&secrets, claims).await;
    stop.cancel();
    running.await.unwrap();
}
