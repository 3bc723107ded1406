//! Leadership.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{StoreFixture, commit, put};
use crate::{Check, Committed, Key, Leadership, Store, StoreError, Write};

/// Short, because some cases wait for it. etcd grants no less than 2 s.
pub(super) const TTL: Duration = Duration::from_secs(2);

pub(super) async fn campaign(store: &Arc<dyn Store>, election: &Key, name: &str) -> Leadership {
    store.campaign(election, name, TTL, CancellationToken::new()).await.unwrap()
}

pub(super) async fn leads(store: &Arc<dyn Store>, election: &Key, leadership: &Leadership) -> bool {
    let checks = vec![Check::Leads(election.clone(), leadership.epoch)];
    let write = put(&Key::new(format!("{election}-proof")), "x");
    matches!(commit(store, checks, vec![write]).await, Committed::Done(_))
}

pub async fn one_candidate_wins_and_the_next_has_a_larger_epoch(fixture: &impl StoreFixture) {
    const CANDIDATES: usize = 5;
    let election = fixture.prefix().key().child("leader");
    let (won, mut winners) = tokio::sync::mpsc::channel(CANDIDATES);
    for candidate in 0..CANDIDATES {
        let (store, election, won) = (fixture.client().await, election.clone(), won.clone());
        tokio::spawn(async move {
            let leadership = campaign(&store, &election, &format!("candidate-{candidate}")).await;
            won.send((store, leadership)).await.unwrap();
        });
    }
    let mut before = None;
    for _ in 0..CANDIDATES {
        let (store, leadership) = winners.recv().await.unwrap();
        assert!(before < Some(leadership.epoch), "{before:?} then {:?}", leadership.epoch);
        assert!(*leadership.valid_until.borrow() > rotacast_clock::instant());
        assert!(leads(&store, &election, &leadership).await);
        // While the leader renews, no other candidate wins, for longer than the time-to-live.
        let mut valid_until = leadership.valid_until.clone();
        let first = *valid_until.borrow();
        while *valid_until.borrow() < first + TTL {
            valid_until.changed().await.unwrap();
            assert!(winners.try_recv().is_err(), "two leaders at once");
        }
        assert!(!leadership.lost.is_cancelled());
        leadership.resign.cancel();
        leadership.resigned.await.unwrap();
        assert!(leadership.lost.is_cancelled());
        before = Some(leadership.epoch);
    }
}

pub async fn a_deposed_leader_changes_nothing(fixture: &impl StoreFixture) {
    let store = fixture.client().await;
    let election = fixture.prefix().key().child("leader");
    let first = campaign(&store, &election, "first").await;
    assert!(leads(&store, &election, &first).await);
    first.resign.cancel();
    first.resigned.await.unwrap();
    let epoch = first.epoch;
    let stale = || vec![Check::Leads(election.clone(), epoch)];
    let target = fixture.prefix().key().child("target");
    let attempt = |text: &'static str| vec![put(&target, text), Write::Delete(target.child("x"))];
    assert_eq!(commit(&store, stale(), attempt("while no candidate leads")).await, Committed::Conflict);
    let second = campaign(&fixture.client().await, &election, "second").await;
    assert_eq!(commit(&store, stale(), attempt("while another leads")).await, Committed::Conflict);
    // The epochs of another election are independent.
    let elsewhere = fixture.prefix().key().child("elsewhere");
    let checks = vec![Check::Leads(elsewhere, second.epoch)];
    assert_eq!(commit(&store, checks, attempt("of another election")).await, Committed::Conflict);
    assert!(store.get(&target).await.unwrap().is_none());
}

pub async fn a_dropped_leadership_runs_out(fixture: &impl StoreFixture) {
    let (store, other) = (fixture.client().await, fixture.client().await);
    let election = fixture.prefix().key().child("leader");
    let first = campaign(&store, &election, "first").await;
    let (epoch, valid_until) = (first.epoch, *first.valid_until.borrow());
    drop(first);
    let second = campaign(&other, &election, "second").await;
    assert!(second.epoch > epoch);
    assert!(rotacast_clock::instant() >= valid_until, "won before the first leadership had run out");
}

pub async fn a_campaign_can_be_cancelled(fixture: &impl StoreFixture) {
    let (store, other) = (fixture.client().await, fixture.client().await);
    let election = fixture.prefix().key().child("leader");
    let first = campaign(&store, &election, "first").await;
    let cancel = CancellationToken::new();
    let waiting = {
        let (election, cancel) = (election.clone(), cancel.clone());
        tokio::spawn(async move { other.campaign(&election, "second", TTL, cancel).await.map(|_| ()) })
    };
    // The campaign ends whether or not it has begun to wait.
    tokio::task::yield_now().await;
    cancel.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(StoreError::Cancelled)));
    assert!(leads(&store, &election, &first).await);
    first.resign.cancel();
    first.resigned.await.unwrap();
    campaign(&store, &election, "third").await;
}
