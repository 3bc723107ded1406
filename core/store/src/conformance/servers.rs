//! A store whose server can be stopped or cut off.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use std::time::Duration;

use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::elections::{TTL, campaign, leads};
use super::seals::sealing;
use super::trees::{Told, name, version};
use super::{ServerFixture, View, put, seeded, tree, value, write};
use crate::{Commit, StoreError, Write};

pub async fn a_server_goes_away_and_comes_back(fixture: &impl ServerFixture) {
    let store = fixture.client().await;
    let root = fixture.prefix().key().child("watched");
    write(&store, vec![put(&root.child("kept"), "x"), put(&root.child("goes"), "x")]).await;
    let mut view = View::open(&store, &root).await;
    for round in 0..2 {
        fixture.kill().await;
        let read = store.get(&root.child("kept")).await.err();
        assert!(matches!(read, Some(StoreError::Unreachable { .. })), "{read:?}");
        let written = store.commit(Commit { checks: vec![], writes: vec![put(&root.child("lost"), "x")] }).await;
        assert!(matches!(written, Err(StoreError::Unreachable { .. })), "{written:?}");
        fixture.restart().await;
        let direct = fixture.undisturbed().await;
        // Everything that was acknowledged before is there.
        assert!(direct.get(&root.child("kept")).await.unwrap().is_some());
        write(&direct, vec![put(&root.child(format!("new-{round}")), "x"), Write::Delete(root.child("goes"))]).await;
        view.until_equal(&direct, &root).await;
        assert!(store.get(&root.child(format!("new-{round}"))).await.unwrap().is_some());
    }
}

pub async fn a_silent_server_ends_calls_and_not_watches(fixture: &impl ServerFixture) {
    let store = fixture.client().await;
    let direct = fixture.undisturbed().await;
    let root = fixture.prefix().key().child("watched");
    let mut view = View::open(&store, &root).await;
    fixture.stall().await;
    let listed = store.list(&root).await.err();
    assert!(matches!(listed, Some(StoreError::Unreachable { .. })), "{listed:?}");
    let written = store.commit(Commit { checks: vec![], writes: vec![put(&root.child("maybe"), "x")] }).await;
    assert!(matches!(written, Err(StoreError::Unreachable { .. })), "{written:?}");
    let waiting = CancellationToken::new();
    waiting.cancel();
    let campaigned = store.campaign(&root.child("leader"), "x", TTL, waiting).await.err();
    assert!(matches!(campaigned, Some(StoreError::Cancelled)), "{campaigned:?}");
    write(&direct, vec![put(&root.child("meanwhile"), "x")]).await;
    fixture.heal().await;
    view.until_equal(&direct, &root).await;
    write(&direct, vec![put(&root.child("later"), "x")]).await;
    view.until_equal(&direct, &root).await;
}

/// Connections are cut at random while versions are stored. Every number that was answered holds its value, and no
/// value is stored under two numbers.
pub async fn a_lost_reply_stores_nothing_twice(fixture: &impl ServerFixture) {
    const VERSIONS: usize = 30;
    let mut random = seeded();
    let cutting = std::pin::pin!(async {
        loop {
            fixture.interrupt().await;
            fixture.heal().await;
            tokio::time::sleep(Duration::from_millis(random.random_range(1..60))).await;
        }
    });
    let tree = tree(fixture).await;
    let secret = name("payments/db");
    let storing = async {
        let mut answered = Vec::new();
        for at in 0..VERSIONS {
            let text = format!("value {at}");
            // After a call that timed out, an operator gives the same value again.
            match tree.put_next(&secret, value(&text), None).await {
                Ok(version) => answered.push((version, text)),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        answered
    };
    let answered = tokio::select! {
        answered = storing => answered,
        () = cutting => unreachable!("it cuts for ever"),
    };
    let direct = sealing(fixture.undisturbed().await, fixture.prefix());
    let mut values = Vec::new();
    for (at, stamp) in direct.list_versions(&secret).await.unwrap().into_iter().enumerate() {
        assert_eq!(stamp.version, version(at as u64 + 1), "no number is skipped");
        assert_eq!(stamp.created, stamp.modified);
        values.push(direct.read_version(&secret, stamp.version).await.unwrap().unwrap().value);
    }
    assert!(!answered.is_empty(), "every call failed");
    for (version, text) in answered {
        assert!(values[usize::try_from(version.get()).unwrap() - 1] == value(text), "{version:?} holds another value");
    }
    let mut exposed: Vec<&[u8]> = values.iter().map(|value| value.expose()).collect();
    exposed.sort_unstable();
    assert!(exposed.windows(2).all(|pair| pair[0] != pair[1]), "a value was stored twice");
}

pub async fn a_leader_that_is_cut_off_loses_in_time(fixture: &impl ServerFixture) {
    let store = fixture.client().await;
    let direct = fixture.undisturbed().await;
    let election = fixture.prefix().key().child("leader");
    let first = campaign(&store, &election, "first").await;
    fixture.stall().await;
    let second = campaign(&direct, &election, "second").await;
    // By the first leader's own clock, its term was over before the second one won.
    assert!(*first.valid_until.borrow() <= rotacast_clock::instant(), "two leaders at once");
    assert!(second.epoch > first.epoch);
    first.lost.cancelled().await;
    fixture.heal().await;
    assert!(!leads(&direct, &election, &first).await);
    assert!(leads(&direct, &election, &second).await);
    first.resigned.await.unwrap();
    assert!(leads(&direct, &election, &second).await, "the first one's end took the second one's leadership");
}

pub async fn an_election_outlives_the_server(fixture: &impl ServerFixture) {
    let store = fixture.client().await;
    let election = fixture.prefix().key().child("leader");
    let first = campaign(&store, &election, "first").await;
    let epoch = first.epoch;
    let mut told = Told(tree(fixture).await.watch_versions());
    told.expect(&["resynced"]).await;
    fixture.kill().await;
    // The server cannot be reached, and the call ends all the same.
    first.resign.cancel();
    first.resigned.await.unwrap();
    let waiting = {
        let (store, election) = (store.clone(), election.clone());
        tokio::spawn(async move { campaign(&store, &election, "second").await })
    };
    fixture.restart().await;
    let second = waiting.await.unwrap();
    assert!(second.epoch > epoch);
    assert!(leads(&store, &election, &second).await);
    tree(fixture).await.put_next(&name("a"), value("x"), None).await.unwrap();
    // A store without a history has listed anew, before the version or with it.
    let told = loop {
        let told = told.next().await;
        if told != "resynced" {
            break told;
        }
    };
    assert!(["added a 1", "listed a 1"].contains(&told.as_str()), "{told}");
}
