//! The suite every store must pass. An implementation joins with one line:
//!
//! ```ignore
//! rotacast_store::conformance_suite!(start);         // a store without a server
//! rotacast_store::conformance_suite!(start, server); // one with a server that can go away
//! ```
//!
//! `start` is an async function that gives a fresh fixture, or `None` to skip (which it must say loudly).
//! Fixtures of one process run at the same time: each has a store, or a prefix, of its own.
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

pub mod basics;
mod counting;
pub mod elections;
pub mod imports;
pub mod seals;
pub mod servers;
pub mod trees;
pub mod watches;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rotacast_proto::SecretValue;

pub use self::counting::Counting;
use crate::{Check, Commit, Committed, Cursor, Entry, Key, Prefix, SecretTree, Store, StoreError, StoreEvent, Write};

/// A case that takes longer than this hangs. It is far more than a slow machine needs: no case measures time.
const HANGS: Duration = Duration::from_secs(120);

/// What the suite needs of any implementation.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// A client as another process has it. [`StoreFixture::interrupt`] cuts it off.
    async fn client(&self) -> Arc<dyn Store>;
    /// A client that interruptions do not cut off.
    async fn undisturbed(&self) -> Arc<dyn Store>;
    /// The prefix of this fixture's keys.
    fn prefix(&self) -> Prefix;
    /// Makes the store forget the history of changes up to now.
    async fn compact(&self);
    /// Closes every connection, and every new one. Does nothing for a store without connections.
    async fn interrupt(&self);
    /// Ends an interruption or a stall.
    async fn heal(&self);
    /// Whether the store has connections to close: a watch without any may have read everything a moment ago.
    fn has_connections(&self) -> bool {
        true
    }
}

/// What the suite needs of a store with a server.
#[async_trait]
pub trait ServerFixture: StoreFixture {
    /// Kills the server without a clean shutdown.
    async fn kill(&self);
    /// Starts it again with the same data.
    async fn restart(&self);
    /// Passes nothing on over the clients' connections, without closing them.
    async fn stall(&self);
}

/// Runs a case, and fails it if it hangs.
pub async fn case(name: &str, body: impl Future<Output = ()>) {
    tokio::time::timeout(HANGS, body).await.unwrap_or_else(|_| panic!("{name} hangs"));
}

/// A generator whose seed is printed, and taken from `ROTACAST_SEED` to replay.
fn seeded() -> StdRng {
    let seed = match std::env::var("ROTACAST_SEED") {
        Ok(text) => text.parse().expect("ROTACAST_SEED is a whole number"),
        Err(_) => rand::random(),
    };
    eprintln!("seed: ROTACAST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn value(text: impl AsRef<[u8]>) -> SecretValue {
    SecretValue::new(text.as_ref().to_vec())
}

fn put(key: &Key, text: impl AsRef<[u8]>) -> Write {
    Write::Put(key.clone(), value(text))
}

async fn tree(fixture: &(impl StoreFixture + ?Sized)) -> SecretTree {
    seals::sealing(fixture.client().await, fixture.prefix())
}

async fn commit(store: &Arc<dyn Store>, checks: Vec<Check>, writes: Vec<Write>) -> Committed {
    store.commit(Commit { checks, writes }).await.unwrap()
}

async fn write(store: &Arc<dyn Store>, writes: Vec<Write>) -> Cursor {
    match commit(store, Vec::new(), writes).await {
        Committed::Done(cursor) => cursor,
        Committed::Conflict => panic!("a commit without checks met a conflict"),
    }
}

/// What a reader of a watch takes to be stored, and what it read to know it.
struct View {
    watch: BoxStream<'static, Result<StoreEvent, StoreError>>,
    now: Contents,
    listing: Option<Contents>,
    listings: usize,
    /// Single changes since the last listing: the key, its cursor, and whether it was put.
    changes: Vec<(Key, Cursor, bool)>,
}

impl View {
    async fn open(store: &Arc<dyn Store>, parent: &Key) -> Self {
        let mut view =
            Self { watch: store.watch(parent), now: BTreeMap::new(), listing: None, listings: 0, changes: Vec::new() };
        while view.listings == 0 {
            view.step().await;
        }
        view
    }

    async fn step(&mut self) {
        let event = self.watch.next().await.expect("a watch does not end").unwrap();
        let facts = |entry: Entry| (entry.value.expose().to_vec(), entry.created, entry.modified);
        match event {
            StoreEvent::Init => {
                assert!(self.listing.is_none(), "a listing begins within a listing");
                self.listing = Some(BTreeMap::new());
            }
            StoreEvent::Listed(entry) => {
                let listing = self.listing.as_mut().expect("Listed only between Init and Ready");
                let last = listing.last_key_value().map(|(key, _)| key.clone());
                assert!(last.is_none_or(|last| last < entry.key), "a listing is in key order");
                listing.insert(entry.key.clone(), facts(entry));
            }
            StoreEvent::Ready(_) => {
                self.now = self.listing.take().expect("Ready only after Init");
                self.listings += 1;
                self.changes.clear();
            }
            StoreEvent::Put(entry) => {
                assert!(self.listing.is_none(), "no single change within a listing");
                self.changes.push((entry.key.clone(), entry.modified, true));
                self.now.insert(entry.key.clone(), facts(entry));
            }
            StoreEvent::Deleted { key, cursor } => {
                assert!(self.listing.is_none(), "no single change within a listing");
                self.now.remove(&key);
                self.changes.push((key, cursor, false));
            }
        }
        let cursors: Vec<Cursor> = self.changes.iter().map(|(_, cursor, _)| *cursor).collect();
        assert!(cursors.is_sorted(), "changes come in the order of their commits: {:?}", self.changes);
    }

    /// Reads until the view is exactly what is stored.
    async fn until_equal(&mut self, store: &Arc<dyn Store>, parent: &Key) {
        let stored = contents(store, parent).await;
        while self.listing.is_some() || self.now != stored {
            let step = tokio::time::timeout(HANGS / 2, self.step()).await;
            step.unwrap_or_else(|_| panic!("the watch does not arrive: {}", difference(&self.now, &stored)));
        }
    }
}

/// By key: value, created, modified.
type Contents = BTreeMap<Key, (Vec<u8>, Cursor, Cursor)>;

async fn contents(store: &Arc<dyn Store>, parent: &Key) -> Contents {
    let listing = store.list(parent).await.unwrap();
    let facts = |entry: Entry| (entry.key.clone(), (entry.value.expose().to_vec(), entry.created, entry.modified));
    listing.entries.into_iter().map(facts).collect()
}

fn difference(seen: &Contents, stored: &Contents) -> String {
    let mut text = String::new();
    for key in stored.keys().filter(|key| !seen.contains_key(key)) {
        let _ = write!(text, "missing {key}; ");
    }
    for (key, (_, _, modified)) in seen {
        match stored.get(key) {
            None => drop(write!(text, "deleted but still seen {key}; ")),
            Some((_, _, stored)) if stored != modified => drop(write!(text, "old {key}; ")),
            Some(_) => {}
        }
    }
    text
}

/// One `#[tokio::test]` per case; see the module.
#[macro_export]
macro_rules! conformance_suite {
    ($start:path) => {
        $crate::conformance_suite!(@cases $start,
            basics: a_key_is_created_changed_and_deleted;
            basics: a_read_shows_every_acknowledged_commit;
            basics: a_commit_happens_whole_or_not_at_all;
            basics: a_race_has_one_winner_each_round;
            basics: limits_are_kept_and_reached;
            basics: a_listing_is_one_moment;
            watches: a_watch_tells_everything_in_order;
            watches: a_watch_is_taken_up_after_interruptions;
            watches: s08_deletes_and_a_compaction_during_an_interruption_are_not_missed;
            watches: s09_a_deletion_at_the_compacted_cursor_is_not_missed;
            watches: a_dropped_watch_leaves_others_alone;
            elections: one_candidate_wins_and_the_next_has_a_larger_epoch;
            elections: a_deposed_leader_changes_nothing;
            elections: a_dropped_leadership_runs_out;
            elections: a_campaign_can_be_cancelled;
            trees: writers_at_once_get_different_numbers_without_a_gap;
            trees: a_destroyed_number_is_never_used_again;
            trees: the_roster_is_written_by_the_leader_alone_and_read_back;
            trees: the_first_journalled_value_wins;
            trees: publishing_happens_once;
            trees: a_record_is_saved_only_by_the_leader_and_only_over_what_it_read;
            trees: every_version_is_reported_once_in_order;
            trees: a_skipped_number_holds_back_what_follows;
            trees: a_version_changed_in_place_is_reported;
            trees: secrets_do_not_see_each_others_versions;
            trees: a_tree_belongs_to_one_cluster;
            trees: the_head_of_an_audit_log_is_written_only_over_what_was_read;
            seals: no_value_that_rotacast_writes_is_stored_in_the_clear;
            seals: what_is_moved_cut_or_changed_is_refused_and_hides_nothing_else;
            seals: readers_come_and_go;
            seals: sealing_can_be_turned_off_and_what_was_sealed_still_opens;
            imports: every_change_becomes_one_version;
            imports: importers_at_once_and_crashes_import_nothing_twice;
            imports: what_cannot_be_imported_is_reported;
            imports: a_tree_that_was_copied_from_another_server_is_followed_on;
            imports: many_keys_cost_no_reads_of_each_and_a_bounded_number_of_commits_at_once;
            imports: an_import_of_many_keys_goes_on_where_it_was_cut_off;
        );
    };
    ($start:path, server) => {
        $crate::conformance_suite!($start);
        $crate::conformance_suite!(@cases $start,
            servers: a_server_goes_away_and_comes_back;
            servers: a_silent_server_ends_calls_and_not_watches;
            servers: a_lost_reply_stores_nothing_twice;
            servers: a_leader_that_is_cut_off_loses_in_time;
            servers: an_election_outlives_the_server;
        );
    };
    (@cases $start:path, $($module:ident: $case:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(fixture) = $start().await else { return };
                $crate::conformance::case(stringify!($case), $crate::conformance::$module::$case(&fixture)).await;
            }
        )*
    };
}
