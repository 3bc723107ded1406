//! Importing a `plain` tree.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rand::Rng as _;
use rotacast_proto::SecretValue;
use tokio_util::sync::CancellationToken;

use super::counting::Counting;
use super::elections::TTL;
use super::seals::sealing;
use super::trees::{name, version};
use super::{StoreFixture, put, seeded, value, write};
use crate::tree::IMPORTS_AT_ONCE;
use crate::{ImportEvent, Key, PlainImporter, Prefix, SecretTree, StoreError, Write};

type Events = BoxStream<'static, Result<ImportEvent, StoreError>>;

/// Versions are below the fixture's prefix. The source is beside them.
async fn halves(fixture: &impl StoreFixture) -> (SecretTree, Prefix) {
    let half = |half: &str| Prefix::new(format!("{}/{half}", fixture.prefix())).unwrap();
    (sealing(fixture.client().await, half("tree")), half("source"))
}

fn source_key(source: &Prefix, secret: &str) -> Key {
    source.key().child(secret)
}

async fn next(events: &mut Events) -> ImportEvent {
    events.next().await.expect("an import does not end").unwrap()
}

async fn imported(events: &mut Events, secret: &str, number: u64) {
    match next(events).await {
        ImportEvent::Imported { secret: found, version: imported, key } => {
            assert_eq!((found, imported), (name(secret), version(number)));
            assert!(key.as_str().ends_with(secret), "{key}");
        }
        other => panic!("expected version {number} of {secret}, found {other:?}"),
    }
}

pub async fn every_change_becomes_one_version(fixture: &impl StoreFixture) {
    let (tree, source) = halves(fixture).await;
    let store = tree.store().clone();
    write(&store, vec![put(&source_key(&source, "payments/db"), "one")]).await;
    let importer = PlainImporter::new(tree.clone(), source.clone()).unwrap();
    let mut events = importer.run();
    imported(&mut events, "payments/db", 1).await;
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    write(&store, vec![put(&source_key(&source, "payments/db"), "two")]).await;
    imported(&mut events, "payments/db", 2).await;
    // The source is written again without a change: no version. A version was put by hand in between: the import takes
    // the next number.
    write(&store, vec![put(&source_key(&source, "payments/db"), "two")]).await;
    assert_eq!(next(&mut events).await, ImportEvent::Unchanged { key: source_key(&source, "payments/db") });
    tree.put_next(&name("payments/db"), value("by hand"), None).await.unwrap();
    write(&store, vec![put(&source_key(&source, "payments/db"), "three")]).await;
    imported(&mut events, "payments/db", 4).await;
    // Deleting the source deletes no version.
    write(&store, vec![Write::Delete(source_key(&source, "payments/db"))]).await;
    assert_eq!(
        next(&mut events).await,
        ImportEvent::SourceDeleted { secret: Some(name("payments/db")), key: source_key(&source, "payments/db") }
    );
    assert_eq!(tree.list_versions(&name("payments/db")).await.unwrap().len(), 4);

    // A later import takes in what was written meanwhile, and nothing twice.
    drop(events);
    write(&store, vec![put(&source_key(&source, "payments/db"), "four"), put(&source_key(&source, "b"), "x")]).await;
    let mut events = importer.run();
    imported(&mut events, "b", 1).await;
    imported(&mut events, "payments/db", 5).await;
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    let stored = tree.read_version(&name("payments/db"), version(5)).await.unwrap().unwrap();
    assert!(stored.value == value("four"));

    // A version that was retired meanwhile is not imported again, although its value is still in the source.
    drop(events);
    let leadership = tree.campaign("test", TTL, CancellationToken::new()).await.unwrap();
    tree.destroy_version(&name("b"), version(1), leadership.epoch).await.unwrap();
    let mut events = importer.run();
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    assert!(tree.list_versions(&name("b")).await.unwrap().is_empty());

    for overlapping in [tree.prefix().clone(), Prefix::new(format!("{}/versions", tree.prefix())).unwrap()] {
        let refused = PlainImporter::new(tree.clone(), overlapping).err();
        assert!(matches!(refused, Some(StoreError::Invalid { .. })));
    }
}

/// Importers start and end at random moments while the source changes. At the end the versions are changes of the
/// source, in their order, none twice, and the newest one is the source's value.
pub async fn importers_at_once_and_crashes_import_nothing_twice(fixture: &impl StoreFixture) {
    const CHANGES: u64 = 40;
    let mut random = seeded();
    let (tree, source) = halves(fixture).await;
    let (secret, key) = (name("payments/db"), source_key(&source, "payments/db"));
    let start = |store| {
        let tree = sealing(store, tree.prefix().clone());
        let mut events = PlainImporter::new(tree, source.clone()).unwrap().run();
        tokio::spawn(async move { while let Some(Ok(_)) = events.next().await {} })
    };
    let mut importers = [start(fixture.client().await), start(fixture.client().await)];
    for change in 1..=CHANGES {
        write(tree.store(), vec![put(&key, change.to_string())]).await;
        if random.random_bool(0.3) {
            let at = random.random_range(0..importers.len());
            importers[at].abort();
            importers[at] = start(fixture.client().await);
        }
        if random.random_bool(0.5) {
            tokio::task::yield_now().await;
        }
    }
    importers.iter().for_each(tokio::task::JoinHandle::abort);
    let mut events = PlainImporter::new(tree.clone(), source.clone()).unwrap().run();
    while !matches!(next(&mut events).await, ImportEvent::Resynced(_)) {}
    let mut values = Vec::new();
    for stamp in tree.list_versions(&secret).await.unwrap() {
        let stored: SecretValue = tree.read_version(&secret, stamp.version).await.unwrap().unwrap().value;
        values.push(std::str::from_utf8(stored.expose()).unwrap().parse::<u64>().unwrap());
        assert_eq!(stamp.version.get(), values.len() as u64, "no number is skipped");
    }
    assert!(values.is_sorted_by(|one, next| one < next), "{values:?}");
    assert_eq!(values.last(), Some(&CHANGES));
}

/// Writes everything below the fixture's prefix as an export from one server and an import into another does: each key
/// once, at another position. The exported server was `ahead` positions further on.
async fn copy_from_a_server_ahead(fixture: &impl StoreFixture, ahead: u64) {
    let store = fixture.client().await;
    for entry in store.list(fixture.prefix().key()).await.unwrap().entries {
        if entry.key.as_str().ends_with("/leader") {
            continue;
        }
        write(&store, vec![Write::Delete(entry.key.clone())]).await;
        let mut bytes = entry.value.expose().to_vec();
        if let Ok(mut marker) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
            && let Some(modified) = marker.get("modified").and_then(serde_json::Value::as_u64)
        {
            marker.insert("modified".into(), (modified + ahead).into());
            bytes = serde_json::to_vec(&marker).unwrap();
        }
        write(&store, vec![put(&entry.key, bytes)]).await;
    }
}

pub async fn a_tree_that_was_copied_from_another_server_is_followed_on(fixture: &impl StoreFixture) {
    let (tree, source) = halves(fixture).await;
    let store = tree.store().clone();
    write(&store, vec![put(&source_key(&source, "a"), "one")]).await;
    write(&store, vec![put(&source_key(&source, "b"), "")]).await;
    let importer = PlainImporter::new(tree.clone(), source.clone()).unwrap();
    let mut events = importer.run();
    imported(&mut events, "a", 1).await;
    assert!(matches!(next(&mut events).await, ImportEvent::Refused { .. }));
    drop(events);
    let before = tree.history().await.unwrap();
    assert_eq!(tree.history().await.unwrap(), before, "it stays as long as the keys do");

    copy_from_a_server_ahead(fixture, 1_000_000).await;
    let mut events = importer.run();
    let moved = |secret: &str| ImportEvent::Moved { key: source_key(&source, secret) };
    assert_eq!(next(&mut events).await, moved("a"));
    assert_eq!(next(&mut events).await, ImportEvent::Unchanged { key: source_key(&source, "a") });
    assert_eq!(next(&mut events).await, moved("b"));
    assert!(matches!(next(&mut events).await, ImportEvent::Refused { .. }));
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    let after = tree.history().await.unwrap();
    assert_ne!(after, before);
    write(&store, vec![put(&source_key(&source, "a"), "two")]).await;
    imported(&mut events, "a", 2).await;

    // What changed meanwhile, while no broadcaster ran, is imported. The next import finds nothing to do.
    drop(events);
    write(&store, vec![put(&source_key(&source, "a"), "three")]).await;
    copy_from_a_server_ahead(fixture, 1_000_000).await;
    let mut events = importer.run();
    assert_eq!(next(&mut events).await, moved("a"));
    imported(&mut events, "a", 3).await;
    drop(events);
    let mut events = importer.run();
    loop {
        match next(&mut events).await {
            ImportEvent::Moved { key } => assert_eq!(key, source_key(&source, "b"), "it may have been cut off before"),
            ImportEvent::Refused { .. } => {}
            ImportEvent::Resynced(_) => break,
            other => panic!("expected nothing to import, found {other:?}"),
        }
    }
}

pub async fn what_cannot_be_imported_is_reported(fixture: &impl StoreFixture) {
    let (tree, source) = halves(fixture).await;
    let store = tree.store().clone();
    let mut events = PlainImporter::new(tree.clone(), source.clone()).unwrap().run();
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    let refused = async |events: &mut Events, secret: &str, word: &str| match next(events).await {
        ImportEvent::Refused { key, problem } => {
            assert_eq!(key, source_key(&source, secret));
            assert!(problem.contains(word), "{problem}");
            assert!(!problem.contains("canary"), "{problem}");
        }
        other => panic!("expected a refusal, found {other:?}"),
    };
    write(&store, vec![put(&source_key(&source, "Bad Name"), "canary")]).await;
    refused(&mut events, "Bad Name", "secret name").await;
    write(&store, vec![put(&source_key(&source, "a"), "")]).await;
    refused(&mut events, "a", "empty").await;
    write(&store, vec![put(&source_key(&source, "a"), "canary")]).await;
    imported(&mut events, "a", 1).await;
    write(&store, vec![put(&source_key(&source, "a"), "canary 2")]).await;
    imported(&mut events, "a", 2).await;
    // The old value again: it gets no version, since retiring version 1 would revoke it.
    write(&store, vec![put(&source_key(&source, "a"), "canary")]).await;
    refused(&mut events, "a", "version 1 again").await;
    // A marker that cannot be read stops the import of its own secret only.
    write(&store, vec![put(&tree.prefix().key().child("imports/a"), r#"{"format":99,"canary":1}"#)]).await;
    write(&store, vec![put(&source_key(&source, "a"), "canary 3")]).await;
    refused(&mut events, "a", "imports/a").await;
    write(&store, vec![put(&source_key(&source, "b"), "canary")]).await;
    imported(&mut events, "b", 1).await;
    assert_eq!(tree.list_versions(&name("a")).await.unwrap().len(), 2);
    write(&store, vec![put(&source_key(&source, "c"), "")]).await;
    refused(&mut events, "c", "empty").await;

    // A later import reports it again: a refused value stays refused until it is changed or deleted.
    drop(events);
    let mut events = PlainImporter::new(tree.clone(), source.clone()).unwrap().run();
    refused(&mut events, "Bad Name", "secret name").await;
    refused(&mut events, "a", "imports/a").await;
    refused(&mut events, "c", "empty").await;
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    write(&store, vec![Write::Delete(source_key(&source, "Bad Name"))]).await;
    let gone = ImportEvent::SourceDeleted { secret: None, key: source_key(&source, "Bad Name") };
    assert_eq!(next(&mut events).await, gone);
    write(&store, vec![put(&source_key(&source, "c"), "canary")]).await;
    imported(&mut events, "c", 1).await;
}

/// Keys of a large source: many times as many as are imported at once.
const MANY: usize = 10 * IMPORTS_AT_ONCE;

fn nth(number: usize) -> String {
    format!("app-{}/secret-{number:04}", number % 7)
}

async fn write_many(tree: &SecretTree, source: &Prefix, text: &str) {
    let keys: Vec<Key> = (0..MANY).map(|number| source_key(source, &nth(number))).collect();
    for chunk in keys.chunks(crate::MAX_COMMIT_OPS) {
        let writes = chunk.iter().map(|key| put(key, format!("{text} of {key}")));
        write(tree.store(), writes.collect()).await;
    }
}

pub async fn many_keys_cost_no_reads_of_each_and_a_bounded_number_of_commits_at_once(fixture: &impl StoreFixture) {
    let (tree, source) = halves(fixture).await;
    // Some have a history: a live version, and a number that was used and destroyed.
    let leadership = tree.campaign("test", TTL, CancellationToken::new()).await.unwrap();
    for number in 0..10 {
        let secret = name(&nth(number));
        for text in ["first", "second"] {
            tree.put_next(&secret, value(text), None).await.unwrap();
        }
        tree.destroy_version(&secret, version(2), leadership.epoch).await.unwrap();
    }
    write_many(&tree, &source, "value").await;
    let counting = Arc::new(Counting::new(tree.store().clone()));
    let tree = sealing(counting.clone(), tree.prefix().clone());
    let importer = PlainImporter::new(tree.clone(), source.clone()).unwrap();
    let mut events = importer.run();
    let mut found = Vec::new();
    loop {
        match next(&mut events).await {
            ImportEvent::Imported { secret, version, .. } => found.push((secret, version.get())),
            ImportEvent::Resynced(_) => break,
            other => panic!("expected only imports, found {other:?}"),
        }
    }
    let mut expected: Vec<_> = (0..MANY).map(|at| (name(&nth(at)), if at < 10 { 3 } else { 1 })).collect();
    expected.sort();
    assert_eq!(found, expected, "every key once, in the order of the listing");
    // The markers, the versions, and the notes of destroyed numbers.
    // The key of the history is absent, written once, or written twice.
    assert_eq!((counting.listings(), counting.keys_read()), (3, 3), "a listing for each folder, nothing for each key");
    assert_eq!(counting.commits(), MANY + 2, "and two of the history");
    let most = counting.most_under_way();
    assert!((2..=IMPORTS_AT_ONCE).contains(&most), "{most} commits at once, expected 2 to {IMPORTS_AT_ONCE}");

    // A later import finds nothing to do, by reading the markers alone.
    drop(events);
    let mut events = importer.run();
    assert!(matches!(next(&mut events).await, ImportEvent::Resynced(_)));
    assert_eq!((counting.listings(), counting.keys_read(), counting.commits()), (4, 4, MANY + 2));
}

pub async fn an_import_of_many_keys_goes_on_where_it_was_cut_off(fixture: &impl StoreFixture) {
    let (tree, source) = halves(fixture).await;
    write_many(&tree, &source, "first").await;
    let importer = PlainImporter::new(tree.clone(), source.clone()).unwrap();
    let mut runs = 0;
    let mut change = "first";
    loop {
        runs += 1;
        let mut events = importer.run();
        let mut told = 0;
        let done = loop {
            match next(&mut events).await {
                ImportEvent::Imported { .. } => told += 1,
                ImportEvent::Resynced(_) => break true,
                other => panic!("expected only imports, found {other:?}"),
            }
            // Interrupted in the middle of the commits in flight.
            if told == MANY / 4 {
                break false;
            }
        };
        drop(events);
        match (done, change) {
            (false, _) => {}
            (true, "first") => {
                change = "second";
                write_many(&tree, &source, change).await;
            }
            (true, _) => break,
        }
    }
    assert!(runs > 4, "{runs} runs: none was cut off");
    for number in 0..MANY {
        let secret = name(&nth(number));
        let stored: Vec<u64> =
            tree.list_versions(&secret).await.unwrap().iter().map(|stamp| stamp.version.get()).collect();
        assert_eq!(stored, [1, 2], "of {secret}: each value once, and no number skipped");
        let newest = tree.read_version(&secret, version(2)).await.unwrap().unwrap().value;
        assert!(newest == value(format!("second of {}", source_key(&source, secret.as_str()))), "of {secret}");
    }
}
