//! Reads and commits.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use rand::Rng as _;

use super::{StoreFixture, commit, put, seeded, value, write};
use crate::{Check, Commit, Committed, Cursor, MAX_COMMIT_BYTES, MAX_COMMIT_OPS, MAX_STORED_BYTES, StoreError, Write};

pub async fn a_key_is_created_changed_and_deleted(fixture: &impl StoreFixture) {
    let store = fixture.client().await;
    let root = fixture.prefix().key().clone();
    let key = root.child("a");
    assert!(store.get(&key).await.unwrap().is_none());
    let created = write(&store, vec![put(&key, "one")]).await;
    let changed = write(&store, vec![put(&key, "two")]).await;
    assert!(created < changed);
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!((entry.value.expose(), entry.created, entry.modified), (&b"two"[..], created, changed));

    // Neighbours in key order: not below `a`.
    for sibling in ["a-b", "a.b", "a0", "ab"] {
        write(&store, vec![put(&root.child(sibling), "x")]).await;
    }
    write(&store, vec![put(&key.child("b/c"), "below")]).await;
    let below = store.list(&key).await.unwrap();
    let keys: Vec<_> = below.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, [key.child("b/c")]);

    write(&store, vec![Write::Delete(key.clone())]).await;
    assert!(store.get(&key).await.unwrap().is_none());
    // Deleting an absent key is no error, and a key that is written again is a new one.
    write(&store, vec![Write::Delete(key.clone())]).await;
    let again = write(&store, vec![put(&key, "three")]).await;
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (again, again));
}

pub async fn a_read_shows_every_acknowledged_commit(fixture: &impl StoreFixture) {
    let (one, other) = (fixture.client().await, fixture.client().await);
    let key = fixture.prefix().key().child("a");
    for round in 0..50 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let cursor = write(writer, vec![put(&key, format!("{round}"))]).await;
        let entry = reader.get(&key).await.unwrap().unwrap();
        assert_eq!((entry.value.expose(), entry.modified), (format!("{round}").as_bytes(), cursor));
        let listing = reader.list(fixture.prefix().key()).await.unwrap();
        assert!(listing.cursor >= cursor && listing.entries[0].modified == cursor);
    }
}

pub async fn a_commit_happens_whole_or_not_at_all(fixture: &impl StoreFixture) {
    let store = fixture.client().await;
    let root = fixture.prefix().key().clone();
    let (there, target, other) = (root.child("there"), root.child("target"), root.child("other"));
    let at = write(&store, vec![put(&there, "x"), put(&other, "x")]).await;
    let fails = [
        Check::Absent(there.clone()),
        Check::Unchanged(there.clone(), Cursor(at.0 + 1)),
        Check::Unchanged(there.clone(), Cursor(0)),
        Check::Unchanged(root.child("absent"), at),
        Check::Leads(root.child("election"), rotacast_protocol::Epoch(at.0)),
        Check::Leads(root.child("election"), rotacast_protocol::Epoch(0)),
    ];
    let holds = [Check::Unchanged(there.clone(), at), Check::Absent(target.clone())];
    for check in fails {
        for checks in [
            vec![check.clone()],
            vec![holds[0].clone(), check.clone()],
            vec![check.clone(), holds[1].clone(), holds[0].clone()],
        ] {
            let writes = vec![put(&target, "y"), Write::Delete(other.clone())];
            assert_eq!(commit(&store, checks, writes).await, Committed::Conflict, "{check:?}");
            assert!(store.get(&target).await.unwrap().is_none());
            assert!(store.get(&other).await.unwrap().is_some());
        }
    }
    let writes = vec![put(&target, "y"), Write::Delete(other.clone())];
    let Committed::Done(cursor) = commit(&store, holds.to_vec(), writes).await else { panic!("all checks hold") };
    assert_eq!(store.get(&target).await.unwrap().unwrap().modified, cursor);
    assert!(store.get(&other).await.unwrap().is_none());
}

pub async fn a_race_has_one_winner_each_round(fixture: &impl StoreFixture) {
    const RACERS: usize = 12;
    let key = fixture.prefix().key().child("a");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(fixture.client().await);
    }
    let mut at: Option<Cursor> = None;
    for round in 0..12 {
        let racers = (0..RACERS).map(|racer| {
            let (store, key) = (clients[racer % clients.len()].clone(), key.clone());
            tokio::spawn(async move {
                let check = match at {
                    None => Check::Absent(key.clone()),
                    Some(cursor) => Check::Unchanged(key.clone(), cursor),
                };
                (racer, commit(&store, vec![check], vec![put(&key, format!("{round}/{racer}"))]).await)
            })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            if let (racer, Committed::Done(cursor)) = racer.await.unwrap() {
                winners.push((racer, cursor));
            }
        }
        let [(winner, cursor)] = winners[..] else { panic!("round {round} has the winners {winners:?}") };
        let entry = clients[0].get(&key).await.unwrap().unwrap();
        assert_eq!((entry.value.expose(), entry.modified), (format!("{round}/{winner}").as_bytes(), cursor));
        at = Some(cursor);
    }
}

pub async fn limits_are_kept_and_reached(fixture: &impl StoreFixture) {
    let store = fixture.client().await;
    let root = fixture.prefix().key().clone();
    // Several values of the greatest length, with every byte.
    let longest: Vec<u8> = (0..MAX_STORED_BYTES).map(|at| u8::try_from(at % 256).unwrap()).collect();
    let mut several: Vec<Write> =
        (0..MAX_COMMIT_BYTES / MAX_STORED_BYTES).map(|at| put(&root.child(format!("l{at}")), &longest)).collect();
    // As many bytes as one commit may have.
    several.push(put(&root.child("rest"), &longest[..MAX_COMMIT_BYTES % MAX_STORED_BYTES]));
    let written = several.len();
    write(&store, several).await;
    assert!(store.get(&root.child("l0")).await.unwrap().unwrap().value.expose() == longest);
    assert_eq!(store.list(&root).await.unwrap().entries.len(), written);
    let longer = value(vec![7; MAX_STORED_BYTES + 1]);
    let refused = store.commit(Commit { checks: vec![], writes: vec![Write::Put(root.child("m"), longer)] }).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let too_much = (0..=MAX_COMMIT_BYTES / MAX_STORED_BYTES).map(|at| put(&root.child(format!("m{at}")), &longest));
    let refused = store.commit(Commit { checks: vec![], writes: too_much.collect() }).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");

    // As many operations as one commit may have.
    let keys: Vec<_> = (0..=MAX_COMMIT_OPS).map(|at| root.child(format!("k{at}"))).collect();
    let checks = |upto: usize| keys[..upto].iter().cloned().map(Check::Absent).collect::<Vec<_>>();
    let writes = |upto: usize| keys[..upto].iter().map(|key| put(key, "x")).collect::<Vec<_>>();
    for (checks, writes) in [(checks(MAX_COMMIT_OPS + 1), vec![]), (vec![], writes(MAX_COMMIT_OPS + 1))] {
        let refused = store.commit(Commit { checks, writes }).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    }
    let done = commit(&store, checks(MAX_COMMIT_OPS), writes(MAX_COMMIT_OPS)).await;
    assert!(matches!(done, Committed::Done(_)));
    let twice = vec![put(&keys[0], "x"), Write::Delete(keys[0].clone())];
    let refused = store.commit(Commit { checks: vec![], writes: twice }).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
}

/// Two keys are always written together. A listing longer than a page never shows one without the other.
pub async fn a_listing_is_one_moment(fixture: &impl StoreFixture) {
    let mut random = seeded();
    let store = fixture.client().await;
    let root = fixture.prefix().key().child("list");
    for batch in 0..10 {
        let fill = (0..MAX_COMMIT_OPS).map(|at| put(&root.child(format!("m{batch}-{at}")), "filler"));
        write(&store, fill.collect()).await;
    }
    let writer = {
        let (store, root) = (fixture.client().await, root.clone());
        let rounds = random.random_range(20..40);
        tokio::spawn(async move {
            for round in 0..rounds {
                let text = format!("{round}");
                write(&store, vec![put(&root.child("a-first"), &text), put(&root.child("z-last"), &text)]).await;
            }
        })
    };
    while !writer.is_finished() {
        let listing = store.list(&root).await.unwrap();
        let of = |name: &str| listing.entries.iter().find(|entry| entry.key == root.child(name));
        let (first, last) = (of("a-first"), of("z-last"));
        assert_eq!(first.map(|entry| entry.modified), last.map(|entry| entry.modified));
        assert!(first.is_none_or(|entry| entry.modified <= listing.cursor));
    }
    writer.await.unwrap();
}
