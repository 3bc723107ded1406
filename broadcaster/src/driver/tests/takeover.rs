//! A new leader takes over its predecessor's secrets.

use std::collections::BTreeMap;

use rotacast_protocol::Epoch;
use rotacast_store::conformance::Counting;

use super::super::turns::PLACES;
use super::*;

/// Many times as many as may write at once.
const MANY: usize = 6 * PLACES;

fn nth(number: usize) -> SecretName {
    SecretName::new(format!("app/secret-{number:04}")).unwrap()
}

async fn epochs(environment: &Environment) -> BTreeMap<SecretName, Epoch> {
    let records = environment.tree.load_records().await.unwrap();
    let epoch = |bytes: &[u8]| SecretRecord::decode(bytes).unwrap().epoch;
    records.entries.into_iter().map(|entry| (entry.secret, epoch(&entry.bytes))).collect()
}

/// A term with many secrets begins without a flood: few saves at once, one for each record that was there, no reads of
/// each, and first for the secrets that a caller waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_saves_every_record_once_few_at_a_time_and_rotating_secrets_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), Policy::default()).await;
    for secret in (0..MANY).map(nth).chain([name()]) {
        environment.tree.put_next(&secret, SecretValue::new(b"first".to_vec()), None).await.unwrap();
    }
    let store = Arc::clone(environment.tree.store());
    let counting = Arc::new(Counting::new(Arc::clone(&store)));
    environment.tree = SecretTree::new(counting.clone(), environment.tree.prefix().clone());
    let (secrets, stop) = (Secrets::new(1_000), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    hold("taken up", async || {
        let all = secrets.all();
        all.len() == MANY + 1 && all.iter().all(|(_, task)| task.status.borrow().current == Some(version(1)))
    })
    .await;
    // Its name is the last one in order.
    put(&environment, "second").await;
    until(&secrets, |status| status.rotation.is_some()).await;
    stop.cancel();
    running.await.unwrap();
    // Each was saved several times until its first version.
    let most = counting.most_under_way();
    assert!((2..=PLACES).contains(&most), "{most} commits at once, expected 2 to {PLACES}");
    let before = epochs(&environment).await;
    assert_eq!(before.len(), MANY + 1);

    // The reads of this test itself do not count.
    let uncounted = environment.clone();
    let counting = Arc::new(Counting::new(store));
    environment.tree = SecretTree::new(counting.clone(), environment.tree.prefix().clone());
    let (secrets, stop) = (Secrets::new(1_000), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let folder = environment.tree.prefix().key().child("records");
    hold("taken over", async || {
        let records: Vec<Key> = counting.written();
        (0..MANY).map(nth).all(|secret| records.contains(&folder.child(secret)))
    })
    .await;
    hold("every epoch is the new one", async || {
        epochs(&uncounted).await.iter().all(|(secret, epoch)| *epoch > before[secret])
    })
    .await;
    stop.cancel();
    running.await.unwrap();

    let written = counting.written();
    for secret in (0..MANY).map(nth) {
        let saves = written.iter().filter(|key| **key == folder.child(&secret)).count();
        assert_eq!(saves, 1, "of {secret}");
    }
    assert!(counting.keys_read() < PLACES, "{} keys read one by one", counting.keys_read());
    let most = counting.most_under_way();
    assert!((2..=PLACES).contains(&most), "{most} commits at once, expected 2 to {PLACES}");
    let at = written.iter().position(|key| *key == folder.child(name())).unwrap();
    assert!(at < PLACES, "the rotating secret's record was written as number {at}");
}
