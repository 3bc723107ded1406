//! What is wrong with the versions in the store: it is said until it is repaired.

use rotacast_store::{Committed, Created, Write};

use super::lost::{leave, safe_mode};
use super::*;
use crate::api::{Action, Control as _, OperatorCommand, Refusal};
use crate::operators::Warrant;

async fn value_of(environment: &Environment, number: u64, write: Option<&str>) {
    let key = environment.tree.version_key(&name(), version(number));
    let write = match write {
        Some(value) => Write::Put(key, SecretValue::new(value.as_bytes().to_vec())),
        None => Write::Delete(key),
    };
    let commit = Commit { checks: Vec::new(), writes: vec![write] };
    assert!(matches!(environment.tree.store().commit(commit).await.unwrap(), Committed::Done(_)));
}

/// What `why` says of it.
async fn told(running: &Running) -> Vec<String> {
    let status = running.control.status(Some(name())).await.unwrap();
    status.secrets[0].findings.iter().map(|it| format!("{}: {} / {}", it.subject, it.text, it.fix)).collect()
}

async fn tells(running: &Running, part: &str) -> bool {
    told(running).await.iter().any(|it| it.contains(part))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_behind_a_number_that_was_never_written_is_a_finding_until_it_is_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), faults::hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    value_of(&environment, 3, Some("third")).await;
    hold("why says it", async || {
        tells(&running, "version 3 is in the store and is not taken in: version 2 was never").await
    })
    .await;
    value_of(&environment, 3, None).await;
    hold("it is over", async || told(&running).await.is_empty()).await;
    value_of(&environment, 3, Some("third")).await;
    hold("why says it again", async || tells(&running, "gap payments/db").await).await;
    running.stop().await;
    // The first that the next leader sees of it.
    value_of(&environment, 1, None).await;
    let running = Running::start(&environment);
    hold("the next leader tells it too", async || tells(&running, "version 2 was never written").await).await;
    value_of(&environment, 2, Some("second")).await;
    running.reaches(&name(), 3).await;
    hold("it is over", async || !tells(&running, "gap ").await).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_use_that_is_gone_or_written_again_is_a_finding_until_it_is_no_longer_used() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), faults::hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    value_of(&environment, 1, None).await;
    hold("why says it", async || tells(&running, "the value of version 1 is gone").await).await;
    running.stop().await;
    let running = Running::start(&environment);
    hold("the next leader tells it too", async || tells(&running, "the value of version 1 is gone").await).await;
    value_of(&environment, 1, Some("other")).await;
    hold("it is back", async || tells(&running, "the value of version 1 was written again").await).await;
    value_of(&environment, 1, Some("another")).await;
    hold("it is changed", async || tells(&running, "the value of version 1 was written again").await).await;
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    hold("no instance begins to use it", async || told(&running).await.is_empty()).await;
    running.stop().await;
}

/// What Rotacast itself deletes is no fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_written_again_after_its_end_is_a_strange_key() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), faults::hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    put(&environment, "second").await;
    until(&running.secrets, |status| status.rotation.is_none() && status.current == Some(version(2))).await;
    hold("it is deleted", async || environment.tree.read_version(&name(), version(1)).await.unwrap().is_none()).await;
    assert_eq!(told(&running).await, Vec::<String>::new());
    value_of(&environment, 1, Some("again")).await;
    hold("why says it", async || running.finding(Topic::StrangeKey).is_some()).await;
    let told = running.finding(Topic::StrangeKey).unwrap();
    assert!(told.contains("its number is that of a version that has ended"), "{told}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_mode_is_not_left_for_a_version_without_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (environment, _bus) = environment(folder.path(), policy.clone()).await;
    leave(&environment, &policy, &[safe_mode()]).await;
    value_of(&environment, 1, None).await;
    let running = Running::start(&environment);
    let leave = async || {
        let command = OperatorCommand {
            secret: name(),
            action: Action::Order(Order::LeaveSafeMode),
            proof: OrderProof::Dashboard,
            warrant: Warrant::default(),
        };
        running.control.command("ada".parse().unwrap(), command).await
    };
    until(&running.secrets, |status| status.overlays.contains(&Overlay::SafeMode)).await;
    let refused = leave().await.unwrap_err();
    assert!(
        matches!(&refused, Refusal::Conflict { problem, .. } if problem.contains("the store has no value of it")),
        "{refused:?}"
    );
    // The way on that the refusal names.
    let next = SecretValue::new(b"in use".to_vec());
    let created = environment.tree.create_version(&name(), version(2), next, Vec::new()).await.unwrap();
    assert!(matches!(created, Created::Done(_)));
    until(&running.secrets, |status| status.versions.iter().any(|it| it.version == version(2))).await;
    leave().await.unwrap();
    running.reaches(&name(), 2).await;
    running.stop().await;
}
