//! Values sealed at rest, as the store holds them.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use rand::Rng as _;
use rotacast_protocol::{ClusterName, SecretName};
use rotacast_seal::{Reader, ReaderName, ReaderSet, SealError, SealingKey, SealingKeys};
use zeroize::Zeroizing;

use super::trees::{leader, name, version, version_key};
use super::{StoreFixture, put, seeded, value, write};
use crate::{
    ImportEvent, PlainImporter, Prefix, ReadStore, Readers, Rewrapped, SealState, SecretReader, SecretTree, Store,
    StoreError, Write,
};

/// Recognised wherever it is, in the clear.
const CANARY: &str = "ROTACAST-canary-at-rest-Zq8";

fn cluster() -> ClusterName {
    ClusterName::new("conformance").unwrap()
}

fn key(seed: u8) -> SealingKey {
    SealingKey::from_bytes(Zeroizing::new([seed; 32]))
}

fn keys(seed: u8) -> SealingKeys {
    SealingKeys::new(vec![key(seed)])
}

fn broadcasters(seed: u8) -> Reader {
    Reader { name: ReaderName::Broadcasters, key: key(seed).public().clone() }
}

fn service(name: &str, seed: u8) -> Reader {
    Reader { name: ReaderName::Service(name.parse().unwrap()), key: key(seed).public().clone() }
}

/// The keys of the broadcasters and of a service that may read everything.
const OURS: u8 = 1;
const SERVICE: u8 = 2;
const STRANGER: u8 = 9;

/// The same readers for every secret, until they change.
struct Everyone(Mutex<Vec<Reader>>);

impl Readers for Everyone {
    fn readers(&self, _secret: &SecretName) -> ReaderSet {
        ReaderSet::new(self.0.lock().unwrap().clone())
    }
}

fn everyone(readers: Vec<Reader>) -> Arc<Everyone> {
    Arc::new(Everyone(Mutex::new(readers)))
}

/// A tree as a broadcaster has it: it seals for itself and one service.
pub(super) fn sealing(store: Arc<dyn Store>, prefix: Prefix) -> SecretTree {
    let readers = everyone(vec![broadcasters(OURS), service("api", SERVICE)]);
    SecretTree::new(store, prefix).sealed(cluster(), keys(OURS), Some(readers))
}

/// A reader as a service has it, with its own key.
fn reader(tree: &SecretTree, seed: u8) -> SecretReader {
    let store = Arc::clone(tree.store()) as Arc<dyn ReadStore>;
    SecretReader::new(store, tree.prefix().clone()).opening(cluster(), keys(seed))
}

fn why(refused: Result<Option<crate::StoredVersion>, StoreError>) -> SealError {
    match refused {
        Err(StoreError::Sealed { problem, .. }) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

async fn assert_no_canary(tree: &SecretTree, when: &str) {
    let listing = tree.store().list(tree.prefix().key()).await.unwrap();
    assert!(!listing.entries.is_empty());
    for entry in listing.entries {
        let text = String::from_utf8_lossy(entry.value.expose()).into_owned();
        assert!(!text.contains(CANARY), "{when}: {} holds the value in the clear", entry.key);
    }
}

pub async fn no_value_that_rotacast_writes_is_stored_in_the_clear(fixture: &impl StoreFixture) {
    let half = |half: &str| Prefix::new(format!("{}/{half}", fixture.prefix())).unwrap();
    let tree = sealing(fixture.client().await, half("tree"));
    let (secret, leadership) = (name("payments/db"), leader(&tree).await);
    tree.put_next(&secret, value(CANARY), None).await.unwrap();
    assert_no_canary(&tree, "put").await;
    let managed = value(format!("{CANARY} managed"));
    assert!(tree.journal(&secret, version(2), managed.clone(), leadership.epoch).await.unwrap() == managed);
    assert_no_canary(&tree, "journal").await;
    assert!(tree.read_journal(&secret, version(2)).await.unwrap().unwrap() == managed);
    tree.publish_journalled(&secret, version(2), leadership.epoch).await.unwrap();
    assert_no_canary(&tree, "publish").await;
    let source = half("source");
    write(tree.store(), vec![put(&source.key().child("payments/db"), format!("{CANARY} imported"))]).await;
    let mut events = PlainImporter::new(tree.clone(), source.clone()).unwrap().run();
    let imported = events.next().await.unwrap().unwrap();
    assert!(matches!(imported, ImportEvent::Imported { version: found, .. } if found == version(3)), "{imported:?}");
    assert_no_canary(&tree, "import").await;
    // The source stays as its owner writes it.
    let kept = tree.store().get(&source.key().child("payments/db")).await.unwrap().unwrap();
    assert!(kept.value == value(format!("{CANARY} imported")));

    // The service opens what was published with its own key, and no journal entry before.
    let service = reader(&tree, SERVICE);
    for (number, text) in [(1, CANARY.to_owned()), (2, format!("{CANARY} managed")), (3, format!("{CANARY} imported"))]
    {
        assert!(service.read_version(&secret, version(number)).await.unwrap().unwrap().value == value(text));
    }
    let refused = why(reader(&tree, STRANGER).read_version(&secret, version(1)).await);
    let text = refused.to_string();
    assert!(text.contains("service api") && text.contains(key(SERVICE).public().id().as_str()), "{text}");
    assert!(text.contains(key(STRANGER).public().id().as_str()), "{text}");
    // A copy of what the store holds is no value.
    let stored = tree.store().get(&version_key(&tree, "payments/db", 1)).await.unwrap().unwrap();
    let refused = tree.put_next(&secret, stored.value, None).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
}

pub async fn what_is_moved_cut_or_changed_is_refused_and_hides_nothing_else(fixture: &impl StoreFixture) {
    let mut random = seeded();
    let tree = sealing(fixture.client().await, fixture.prefix());
    for secret in ["a", "b"] {
        for text in ["one", "two"] {
            tree.put_next(&name(secret), value(format!("{secret} {text}")), None).await.unwrap();
        }
    }
    let key_of = |secret: &str, number| version_key(&tree, secret, number);
    let (from, victim) = (key_of("a", 2), key_of("a", 1));
    let original = tree.store().get(&victim).await.unwrap().unwrap().value;
    let moved = tree.store().get(&from).await.unwrap().unwrap().value;
    let foreign = tree.store().get(&key_of("b", 1)).await.unwrap().unwrap().value;
    for stored in [moved, foreign] {
        write(tree.store(), vec![Write::Put(victim.clone(), stored)]).await;
        assert!(matches!(why(tree.read_version(&name("a"), version(1)).await), SealError::DataKey { .. }));
    }
    for _ in 0..20 {
        let mut changed = original.expose().to_vec();
        let tail = "a one".len() + 16;
        let at = changed.len() - 1 - random.random_range(0..tail);
        match random.random_bool(0.5) {
            true => changed[at] ^= 1 << random.random_range(0..8),
            false => changed.truncate(at),
        }
        write(tree.store(), vec![put(&victim, &changed)]).await;
        assert_eq!(why(tree.read_version(&name("a"), version(1)).await), SealError::Ciphertext);
        assert_eq!(why(reader(&tree, SERVICE).read_version(&name("a"), version(1)).await), SealError::Ciphertext);
    }
    // Its neighbours open, and a re-wrap names the one that does not.
    assert!(tree.read_version(&name("a"), version(2)).await.unwrap().unwrap().value == value("a two"));
    let outcomes = tree.rewrap_all(&name("a")).await.unwrap();
    assert!(matches!(&outcomes[0], (_, Err(StoreError::Sealed { problem: SealError::Ciphertext, .. }))));
    assert!(matches!(&outcomes[1], (_, Ok(Rewrapped::Nothing))));
    assert_eq!(tree.list_versions(&name("a")).await.unwrap().len(), 2);
    // A source's new value is imported all the same, and the value that is damaged equals none.
    write(tree.store(), vec![Write::Put(victim, original)]).await;
    assert!(tree.read_version(&name("a"), version(1)).await.unwrap().unwrap().value == value("a one"));
}

pub async fn readers_come_and_go(fixture: &impl StoreFixture) {
    const VERSIONS: u64 = 12;
    let store = fixture.client().await;
    let readers = everyone(vec![broadcasters(OURS), service("api", SERVICE)]);
    let tree = SecretTree::new(store, fixture.prefix()).sealed(cluster(), keys(OURS), Some(Arc::clone(&readers) as _));
    let (secret, late) = (name("payments/db"), 3);
    for number in 1..=VERSIONS {
        tree.put_next(&secret, value(format!("v{number}")), None).await.unwrap();
    }
    // A service comes: it cannot read until its key is added, by several broadcasters at once, and no reader fails meanwhile.
    let newcomer = reader(&tree, late);
    assert!(matches!(why(newcomer.read_version(&secret, version(1)).await), SealError::NoKey { .. }));
    readers.0.lock().unwrap().push(service("late", late));
    let done = Arc::new(AtomicBool::new(false));
    let reading = {
        let (service, secret, done) = (reader(&tree, SERVICE), secret.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                for number in 1..=VERSIONS {
                    let stored = service.read_version(&secret, version(number)).await.unwrap().unwrap();
                    assert!(stored.value == value(format!("v{number}")) && stored.created == stored.modified);
                }
            }
        })
    };
    let before = tree.list_versions(&secret).await.unwrap();
    let (one, other) = tokio::join!(tree.rewrap_all(&secret), tree.rewrap_all(&secret));
    for (_, outcome) in one.unwrap().into_iter().chain(other.unwrap()) {
        assert!(matches!(outcome, Ok(Rewrapped::Added(1) | Rewrapped::Nothing)), "{outcome:?}");
    }
    done.store(true, Ordering::Relaxed);
    reading.await.unwrap();
    for number in 1..=VERSIONS {
        let stored = newcomer.read_version(&secret, version(number)).await.unwrap().unwrap();
        assert!(stored.value == value(format!("v{number}")));
    }
    assert_eq!(tree.list_versions(&secret).await.unwrap(), before, "versions never change");
    for (_, outcome) in tree.rewrap_all(&secret).await.unwrap() {
        assert_eq!(outcome.unwrap(), Rewrapped::Nothing);
    }

    // A service goes: what it could open it still opens, which the state says. What comes later it does not.
    readers.0.lock().unwrap().retain(|reader| reader.key != *key(SERVICE).public());
    tree.rewrap_all(&secret).await.unwrap();
    let removed = reader(&tree, SERVICE);
    assert!(removed.read_version(&secret, version(1)).await.unwrap().unwrap().value == value("v1"));
    let Some(SealState::Sealed { readers: all, made_way: 0 }) = tree.seal_state(&secret, version(1)).await.unwrap()
    else {
        panic!("sealed")
    };
    let named: Vec<String> = all.iter().map(|(reader, _)| reader.to_string()).collect();
    assert_eq!(named, ["the broadcasters", "service api", "service late"]);
    let next = tree.put_next(&secret, value("next"), None).await.unwrap();
    assert!(matches!(why(removed.read_version(&secret, next).await), SealError::NoKey { .. }));
    assert!(newcomer.read_version(&secret, next).await.unwrap().unwrap().value == value("next"));

    // A broadcaster without the key changes nothing.
    let wrong = SecretTree::new(Arc::clone(tree.store()), fixture.prefix()).sealed(
        cluster(),
        keys(STRANGER),
        Some(everyone(vec![broadcasters(STRANGER)])),
    );
    for (_, outcome) in wrong.rewrap_all(&secret).await.unwrap() {
        assert!(matches!(outcome, Err(StoreError::Sealed { problem: SealError::NoKey { .. }, .. })), "{outcome:?}");
    }
    // With both keys, the values are re-wrapped for the newer one, and then open without the older.
    let both = SealingKeys::new(vec![key(STRANGER), key(OURS)]);
    let both = SecretTree::new(Arc::clone(tree.store()), fixture.prefix()).sealed(
        cluster(),
        both,
        Some(everyone(vec![broadcasters(STRANGER)])),
    );
    assert!(both.rewrap_all(&secret).await.unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
    assert!(wrong.read_version(&secret, version(1)).await.unwrap().unwrap().value == value("v1"));

    // So is what is journalled, which then becomes a version all the same.
    let leadership = leader(&tree).await;
    let number = version(VERSIONS + 2);
    tree.journal(&secret, number, value("made"), leadership.epoch).await.unwrap();
    let refused = wrong.read_journal(&secret, number).await;
    assert!(matches!(refused, Err(StoreError::Sealed { problem: SealError::NoKey { .. }, .. })));
    for expected in [Rewrapped::Added(1), Rewrapped::Nothing] {
        let outcomes = both.rewrap_all(&secret).await.unwrap();
        let (found, outcome) = outcomes.into_iter().next_back().unwrap();
        assert_eq!((found, outcome.unwrap()), (number, expected));
    }
    assert!(wrong.read_journal(&secret, number).await.unwrap().unwrap() == value("made"));
    wrong.publish_journalled(&secret, number, leadership.epoch).await.unwrap();
    assert!(wrong.read_version(&secret, number).await.unwrap().unwrap().value == value("made"));

    // What is destroyed leaves no wrapped key behind.
    for stamp in tree.list_versions(&secret).await.unwrap() {
        tree.destroy_version(&secret, stamp.version, leadership.epoch).await.unwrap();
    }
    let left = tree.store().list(&tree.prefix().key().child("readers")).await.unwrap();
    assert!(left.entries.is_empty(), "{} wrapped keys are left", left.entries.len());
}

pub async fn sealing_can_be_turned_off_and_what_was_sealed_still_opens(fixture: &impl StoreFixture) {
    let tree = sealing(fixture.client().await, fixture.prefix());
    let secret = name("payments/db");
    tree.put_next(&secret, value("sealed"), None).await.unwrap();
    let off = SecretTree::new(Arc::clone(tree.store()), fixture.prefix()).sealed(cluster(), keys(OURS), None);
    off.put_next(&secret, value("plain"), None).await.unwrap();
    assert_eq!(off.seal_state(&secret, version(2)).await.unwrap(), Some(SealState::Plain));
    for tree in [&off, &tree] {
        assert!(tree.read_version(&secret, version(1)).await.unwrap().unwrap().value == value("sealed"));
        assert!(tree.read_version(&secret, version(2)).await.unwrap().unwrap().value == value("plain"));
    }
    let outcomes: Vec<Rewrapped> =
        tree.rewrap_all(&secret).await.unwrap().into_iter().map(|(_, outcome)| outcome.unwrap()).collect();
    assert_eq!(outcomes, [Rewrapped::Nothing, Rewrapped::Plain]);
    // Without any key, a sealed value is an error that names whom it is sealed for, and never the bytes as they are stored.
    let none = SecretTree::new(Arc::clone(tree.store()), fixture.prefix());
    let refused = why(none.read_version(&secret, version(1)).await).to_string();
    assert!(refused.contains("the broadcasters") && refused.contains("there is no sealing key here"), "{refused}");
}
