//! Watches.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use rand::Rng as _;

use super::{StoreFixture, View, put, seeded, write};
use crate::{Cursor, Key, Write};

/// More changes than a watch buffers.
const MANY: usize = 300;

pub async fn a_watch_tells_everything_in_order(fixture: &impl StoreFixture) {
    const WRITERS: usize = 4;
    const EACH: usize = 25;
    let store = fixture.client().await;
    let root = fixture.prefix().key().child("watched");
    write(&store, vec![put(&root.child("before"), "x"), put(&fixture.prefix().key().child("watched0"), "x")]).await;
    let mut view = View::open(&store, &root).await;
    assert_eq!(view.now.len(), 1);

    let writers = (0..WRITERS).map(|writer| async move {
        let (store, root) = (fixture.client().await, fixture.prefix().key().child("watched"));
        let mut cursors = Vec::new();
        for at in 0..EACH {
            // Two keys in one commit, and now and then a deletion.
            let pair = ["x", "y"].map(|half| put(&root.child(format!("{writer}-{at:02}/{half}")), "x"));
            cursors.push(write(&store, pair.to_vec()).await);
            if at % 5 == 4 {
                write(&store, vec![Write::Delete(root.child(format!("{writer}-{:02}/x", at - 1)))]).await;
            }
        }
        cursors
    });
    let cursors: Vec<Cursor> = futures::future::join_all(writers).await.concat();
    // Written last: when the reader has it, it has read everything before it.
    write(&store, vec![put(&root.child("end"), "x")]).await;
    view.until_equal(&store, &root).await;
    if view.listings == 1 {
        for cursor in cursors {
            let at: Vec<usize> =
                (0..view.changes.len()).filter(|&at| view.changes[at].1 == cursor && view.changes[at].2).collect();
            // If half of a pair is deleted meanwhile, the watch may report the pair without that half.
            assert!(matches!(at[..], [_] | [_, _]), "the commit at {cursor:?} was reported {at:?}");
            assert!(
                at.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "the commit at {cursor:?} was reported in pieces"
            );
        }
        let keys = |put: bool| view.changes.iter().filter(move |change| change.2 == put).map(|change| &change.0);
        // A deletion is reported once for every key that was reported. A key that was written and deleted may be left
        // out.
        let is_deleted = |key: &&Key| {
            let number = |text: &str| text.strip_suffix("/x")?.split_once('-')?.1.parse::<usize>().ok();
            key.below(&root).and_then(number).is_some_and(|at| at % 5 == 3)
        };
        let mut deleted: Vec<&Key> = keys(false).collect();
        deleted.sort();
        assert!(deleted.is_sorted_by(|one, next| one < next), "no deletion is reported twice: {deleted:?}");
        assert!(deleted.iter().all(is_deleted), "{deleted:?}");
        for key in keys(true).filter(is_deleted) {
            assert!(deleted.binary_search(&key).is_ok(), "the deletion of {key} was not reported");
        }
        let mut told: Vec<&Key> = keys(true).collect();
        let all = told.len();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), all, "no change is reported twice");
    }
}

pub async fn a_watch_is_taken_up_after_interruptions(fixture: &impl StoreFixture) {
    let mut random = seeded();
    let root = fixture.prefix().key().child("watched");
    let writer = fixture.undisturbed().await;
    let mut view = View::open(&fixture.client().await, &root).await;
    for round in 0..6 {
        let changes = random.random_range(1..20);
        let interrupt_at = random.random_range(0..changes);
        for at in 0..changes {
            if at == interrupt_at {
                fixture.interrupt().await;
            }
            let key = root.child(random.random_range(0..8_u32));
            let change = if random.random_bool(0.3) { Write::Delete(key) } else { put(&key, format!("{round}/{at}")) };
            write(&writer, vec![change]).await;
        }
        fixture.heal().await;
        view.until_equal(&writer, &root).await;
    }
}

pub async fn s08_deletes_and_a_compaction_during_an_interruption_are_not_missed(fixture: &impl StoreFixture) {
    let root = fixture.prefix().key().child("watched");
    let writer = fixture.undisturbed().await;
    for name in ["stays", "changes", "goes", "comes-back"] {
        write(&writer, vec![put(&root.child(name), "before")]).await;
    }
    let mut view = View::open(&fixture.client().await, &root).await;
    fixture.interrupt().await;
    for at in 0..MANY {
        write(&writer, vec![put(&root.child("changes"), format!("{at}"))]).await;
    }
    let gone = ["goes", "comes-back"].map(|name| Write::Delete(root.child(name)));
    write(&writer, gone.to_vec()).await;
    write(&writer, vec![put(&root.child("comes-back"), "again"), put(&root.child("new"), "x")]).await;
    fixture.compact().await;
    fixture.heal().await;
    view.until_equal(&writer, &root).await;
    if fixture.has_connections() {
        assert_eq!(view.listings, 2, "history was compacted, so everything had to be listed anew");
    }
    // The watch goes on.
    write(&writer, vec![put(&root.child("later"), "x")]).await;
    view.until_equal(&writer, &root).await;
}

/// The history ends exactly where the watch resumes, with a deletion there.
pub async fn s09_a_deletion_at_the_compacted_cursor_is_not_missed(fixture: &impl StoreFixture) {
    let root = fixture.prefix().key().child("watched");
    let writer = fixture.undisturbed().await;
    let client = fixture.client().await;
    for round in 0..3 {
        let key = root.child(format!("goes-{round}"));
        write(&writer, vec![put(&key, "x")]).await;
        let mut view = View::open(&client, &root).await;
        fixture.interrupt().await;
        write(&writer, vec![Write::Delete(key)]).await;
        fixture.compact().await;
        fixture.heal().await;
        view.until_equal(&writer, &root).await;
    }
}

pub async fn a_dropped_watch_leaves_others_alone(fixture: &impl StoreFixture) {
    let store = fixture.client().await;
    let root = fixture.prefix().key().child("watched");
    let mut stays = View::open(&store, &root).await;
    for round in 0..20 {
        let unread = store.watch(&root);
        let goes = View::open(&store, &root).await;
        write(&store, vec![put(&root.child(round), "x")]).await;
        drop((goes, unread));
    }
    stays.until_equal(&store, &root).await;
}
