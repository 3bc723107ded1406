//! [`SecretTree`] on top of the store.
#![allow(missing_docs, reason = "a case's name says what must hold")]

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::{SecretValue, SigningKey};
use rotacast_protocol::{
    AuditChain, ClusterId, ClusterName, Epoch, Incarnation, InstanceKey, SecretName, Version, WallTime,
};

use super::elections::campaign;
use super::seals::sealing;
use super::{StoreFixture, commit, put, tree, value, write};
use crate::{
    AuditHead, Check, Committed, Created, Key, Leadership, MAX_COMMIT_OPS, Published, RosterEntry, SecretTree,
    StoreError, StoredAuditHead, VersionEvent, Write,
};

pub(super) fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

pub(super) fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(super) fn version_key(tree: &SecretTree, secret: &str, number: u64) -> Key {
    tree.prefix().key().child("versions").child(secret).child(number)
}

pub(super) async fn leader(tree: &SecretTree) -> Leadership {
    campaign(tree.store(), &tree.prefix().key().child("leader"), "test").await
}

pub async fn writers_at_once_get_different_numbers_without_a_gap(fixture: &impl StoreFixture) {
    const WRITERS: usize = 8;
    const EACH: usize = 4;
    let secret = name("payments/db");
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (tree, secret) = (tree(fixture).await, secret.clone());
        tasks.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            for at in 0..EACH {
                let text = format!("{writer}/{at}");
                numbers.push((tree.put_next(&secret, value(&text), None).await.unwrap(), text));
            }
            numbers
        }));
    }
    let mut stored = Vec::new();
    for task in tasks {
        stored.extend(task.await.unwrap());
    }
    stored.sort();
    let numbers: Vec<u64> = stored.iter().map(|(version, _)| version.get()).collect();
    assert_eq!(numbers, (1..=(WRITERS * EACH) as u64).collect::<Vec<_>>());
    let tree = tree(fixture).await;
    for (version, text) in stored {
        let found = tree.read_version(&secret, version).await.unwrap().unwrap();
        assert!(found.value == value(text) && found.created == found.modified);
    }
    // An empty value and one that is too large are never stored.
    let empty = tree.put_next(&secret, value(""), None).await;
    assert!(matches!(empty, Err(StoreError::Invalid { .. })), "{empty:?}");
    let long = tree.put_next(&secret, value(vec![1; SecretValue::MAX_BYTES + 1]), None).await;
    assert!(matches!(long, Err(StoreError::TooLarge { .. })), "{long:?}");
    let longest = tree.put_next(&secret, value(vec![1; SecretValue::MAX_BYTES]), Some(version(100))).await.unwrap();
    assert_eq!(longest.get(), 101);
}

pub async fn a_destroyed_number_is_never_used_again(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let secret = name("payments/db");
    let leader = leader(&tree).await;
    for _ in 0..3 {
        tree.put_next(&secret, value("x"), None).await.unwrap();
    }
    let stale = tree.destroy_version(&secret, version(1), Epoch(leader.epoch.0 + 1)).await;
    assert!(matches!(stale, Err(StoreError::NotLeader { .. })), "{stale:?}");
    assert_eq!(tree.list_versions(&secret).await.unwrap().len(), 3);
    for number in [3, 2, 3] {
        tree.destroy_version(&secret, version(number), leader.epoch).await.unwrap();
    }
    assert!(tree.read_version(&secret, version(3)).await.unwrap().is_none());
    assert_eq!(tree.create_version(&secret, version(3), value("y"), vec![]).await.unwrap(), Created::Exists);
    assert_eq!(tree.create_version(&secret, version(1), value("y"), vec![]).await.unwrap(), Created::Exists);
    assert_eq!(tree.put_next(&secret, value("y"), None).await.unwrap(), version(4));
    // Several tasks of one leader destroy many versions at once.
    let destroy = (5..=12).map(|number| {
        let (tree, secret, epoch) = (tree.clone(), secret.clone(), leader.epoch);
        async move { tree.destroy_version(&secret, version(number), epoch).await.unwrap() }
    });
    futures::future::join_all(destroy).await;
    assert_eq!(tree.put_next(&secret, value("z"), None).await.unwrap(), version(13));
    let failing = vec![Check::Absent(version_key(&tree, "payments/db", 13))];
    let created = tree.create_version(&secret, version(14), value("y"), failing).await.unwrap();
    assert_eq!(created, Created::Conflict);
}

pub async fn the_roster_is_written_by_the_leader_alone_and_read_back(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let leader = leader(&tree).await;
    let entry = |number: u128| RosterEntry {
        key: InstanceKey::new("api".parse().unwrap(), "pod-1".parse().unwrap(), Incarnation(number)),
        exclusive: number.is_multiple_of(2),
        secrets: Some([name("payments/db"), name("shared/key")].into()),
        unknown: [("later".to_owned(), "kept".into())].into_iter().collect(),
    };
    // More than one commit takes.
    let entries: Vec<RosterEntry> = (0..MAX_COMMIT_OPS as u128 * 2 + 1).map(entry).collect();
    assert_eq!(tree.enter_roster(&entries, Epoch(leader.epoch.0 + 1)).await.unwrap(), 0);
    assert!(tree.load_roster().await.unwrap().entries.is_empty());
    // Again, as after an answer that was lost.
    for _ in 0..2 {
        assert_eq!(tree.enter_roster(&entries, leader.epoch).await.unwrap(), entries.len());
    }
    let roster = tree.load_roster().await.unwrap();
    assert!(roster.entries == entries && roster.strangers.is_empty());
    // One key that is no incarnation's and one entry that cannot be read hide no other.
    let folder = tree.prefix().key().child("roster");
    let broken = folder.child(entries[0].key.full_name());
    commit(tree.store(), vec![], vec![put(&folder.child("x"), "{}"), put(&broken, "{")]).await;
    let roster = tree.load_roster().await.unwrap();
    assert_eq!(roster.strangers.len(), 2);
    assert_eq!(roster.entries.len(), entries.len());
    assert!(roster.entries[0].secrets.is_none() && roster.entries[1..] == entries[1..]);
    let over: Vec<InstanceKey> = entries[1..].iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(tree.leave_roster(&over, Epoch(leader.epoch.0 + 1)).await.unwrap(), 0);
    assert_eq!(tree.leave_roster(&over, leader.epoch).await.unwrap(), over.len());
    assert_eq!(tree.load_roster().await.unwrap().entries.len(), 1);
}

pub async fn the_first_journalled_value_wins(fixture: &impl StoreFixture) {
    let (one, other) = (tree(fixture).await, tree(fixture).await);
    let secret = name("payments/db");
    let epoch = leader(&one).await;
    let epoch = epoch.epoch;
    let stale = one.journal(&secret, version(1), value("stale"), Epoch(epoch.0 + 1)).await;
    assert!(matches!(stale, Err(StoreError::NotLeader { .. })));
    let (first, second) = futures::join!(
        one.journal(&secret, version(1), value("one"), epoch),
        other.journal(&secret, version(1), value("other"), epoch)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first == second, "two values for one version");
    assert!(one.read_journal(&secret, version(1)).await.unwrap().unwrap() == first);
    assert!(one.read_journal(&secret, version(2)).await.unwrap().is_none());
    let stale = one.clear_journal(&secret, version(1), Epoch(epoch.0 + 1)).await;
    assert!(matches!(stale, Err(StoreError::NotLeader { .. })));
    for _ in 0..2 {
        one.clear_journal(&secret, version(1), epoch).await.unwrap();
    }
    assert!(one.read_journal(&secret, version(1)).await.unwrap().is_none());
}

pub async fn publishing_happens_once(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let secret = name("payments/db");
    let leader = leader(&tree).await;
    let epoch = leader.epoch;
    assert_eq!(tree.publish_journalled(&secret, version(1), epoch).await.unwrap(), Published::Missing);
    tree.journal(&secret, version(1), value("one"), epoch).await.unwrap();
    let stale = tree.publish_journalled(&secret, version(1), Epoch(epoch.0 + 1)).await;
    assert!(matches!(stale, Err(StoreError::NotLeader { .. })), "{stale:?}");
    assert!(tree.read_version(&secret, version(1)).await.unwrap().is_none());
    let (first, second) = futures::join!(
        tree.publish_journalled(&secret, version(1), epoch),
        tree.publish_journalled(&secret, version(1), epoch)
    );
    let again = tree.publish_journalled(&secret, version(1), epoch).await.unwrap();
    assert!(matches!(again, Published::Done(_)));
    assert_eq!([first.unwrap(), second.unwrap()], [again; 2]);
    assert!(tree.read_version(&secret, version(1)).await.unwrap().unwrap().value == value("one"));
    assert!(tree.read_journal(&secret, version(1)).await.unwrap().is_none());

    // The same value was stored, but the journal entry is still there.
    tree.journal(&secret, version(2), value("two"), epoch).await.unwrap();
    tree.create_version(&secret, version(2), value("two"), vec![]).await.unwrap();
    assert!(matches!(tree.publish_journalled(&secret, version(2), epoch).await.unwrap(), Published::Done(_)));
    assert!(tree.read_journal(&secret, version(2)).await.unwrap().is_none());

    // Another client's value: its value stays, and so does the journal entry.
    tree.journal(&secret, version(3), value("ours"), epoch).await.unwrap();
    tree.create_version(&secret, version(3), value("theirs"), vec![]).await.unwrap();
    assert_eq!(tree.publish_journalled(&secret, version(3), epoch).await.unwrap(), Published::Taken);
    assert!(tree.read_version(&secret, version(3)).await.unwrap().unwrap().value == value("theirs"));
    assert!(tree.read_journal(&secret, version(3)).await.unwrap().unwrap() == value("ours"));

    // A number that was destroyed is not used again.
    tree.journal(&secret, version(4), value("late"), epoch).await.unwrap();
    tree.destroy_version(&secret, version(4), epoch).await.unwrap();
    assert_eq!(tree.publish_journalled(&secret, version(4), epoch).await.unwrap(), Published::Taken);
    assert!(tree.read_version(&secret, version(4)).await.unwrap().is_none());
}

pub async fn a_record_is_saved_only_by_the_leader_and_only_over_what_it_read(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let leader = leader(&tree).await;
    let (secret, epoch) = (name("payments/db"), leader.epoch);
    assert!(tree.load_records().await.unwrap().entries.is_empty());
    let save = |bytes: &[u8], expected, epoch| tree.save_record(&secret, bytes.to_vec(), expected, epoch);
    assert_eq!(save(b"0", None, Epoch(epoch.0 + 1)).await.unwrap(), Committed::Conflict);
    let Committed::Done(first) = save(b"1", None, epoch).await.unwrap() else { panic!("nothing was stored yet") };
    assert_eq!(save(b"2", None, epoch).await.unwrap(), Committed::Conflict);
    let Committed::Done(second) = save(b"2", Some(first), epoch).await.unwrap() else { panic!("as read") };
    assert_eq!(save(b"3", Some(first), epoch).await.unwrap(), Committed::Conflict);
    let other = name("a");
    tree.save_record(&other, b"other".to_vec(), None, epoch).await.unwrap();
    let records = tree.load_records().await.unwrap().entries;
    assert_eq!(records.iter().map(|record| record.secret.as_str()).collect::<Vec<_>>(), ["a", "payments/db"]);
    assert_eq!((&records[1].bytes[..], records[1].cursor), (&b"2"[..], second));
    assert_eq!(tree.read_record(&secret).await.unwrap().unwrap(), records[1]);
    // What refused a save: another writer, or another leader.
    assert!(tree.is_led_by(epoch).await.unwrap());
    assert!(!tree.is_led_by(Epoch(epoch.0 + 1)).await.unwrap());
    leader.resign.cancel();
    leader.resigned.await.unwrap();
    assert_eq!(save(b"4", Some(second), epoch).await.unwrap(), Committed::Conflict);
    assert!(!tree.is_led_by(epoch).await.unwrap());
    // An entry that is no record is reported, and hides none of the others.
    let stranger = tree.prefix().key().child("records/Bad Name");
    write(tree.store(), vec![put(&stranger, "x")]).await;
    let records = tree.load_records().await.unwrap();
    assert_eq!(records.strangers.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&stranger]);
    assert_eq!(records.entries.len(), 2);
}

/// Reads a watch of versions as short texts.
pub(super) struct Told(pub(super) BoxStream<'static, Result<VersionEvent, StoreError>>);

impl Told {
    pub(super) async fn next(&mut self) -> String {
        match self.0.next().await.expect("a watch does not end").unwrap() {
            VersionEvent::Listed { secret, stamp } => format!("listed {secret} {}", stamp.version),
            VersionEvent::Added { secret, stamp } => format!("added {secret} {}", stamp.version),
            VersionEvent::Changed { secret, stamp } => format!("changed {secret} {}", stamp.version),
            VersionEvent::Deleted { secret, version, .. } => format!("deleted {secret} {version}"),
            VersionEvent::Gap { secret, missing, found } => format!("gap {secret} {missing}<{found}"),
            VersionEvent::GapClosed { secret } => format!("closed {secret}"),
            VersionEvent::Ignored { key, .. } => format!("ignored {key}"),
            VersionEvent::Resynced(_) => "resynced".into(),
        }
    }

    pub(super) async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next().await, *expected);
        }
    }
}

pub async fn every_version_is_reported_once_in_order(fixture: &impl StoreFixture) {
    const AWAY: u64 = 150;
    let writer = sealing(fixture.undisturbed().await, fixture.prefix());
    let leader = leader(&writer).await;
    let secret = name("a");
    for _ in 0..11 {
        writer.put_next(&secret, value("x"), None).await.unwrap();
    }
    for number in [1, 2, 5] {
        writer.destroy_version(&secret, version(number), leader.epoch).await.unwrap();
    }
    let mut told = Told(tree(fixture).await.watch_versions());
    let listed: Vec<String> = [3, 4, 6, 7, 8, 9, 10, 11].map(|number| format!("listed a {number}")).to_vec();
    told.expect(&listed.iter().map(String::as_str).collect::<Vec<_>>()).await;
    told.expect(&["resynced"]).await;
    writer.put_next(&secret, value("x"), None).await.unwrap();
    told.expect(&["added a 12"]).await;

    // While the watch is interrupted, versions are written, some of them are destroyed, and the history is compacted.
    fixture.interrupt().await;
    for number in 13..13 + AWAY {
        assert_eq!(writer.put_next(&secret, value("x"), None).await.unwrap(), version(number));
        if number % 10 == 0 {
            writer.destroy_version(&secret, version(number), leader.epoch).await.unwrap();
        }
    }
    fixture.compact().await;
    fixture.heal().await;
    let last = format!("added a {}", 12 + AWAY);
    let mut added = Vec::new();
    loop {
        let event = told.next().await;
        assert!(!event.starts_with("gap") && !event.starts_with("changed"), "{event}");
        if let Some(number) = event.strip_prefix("added a ") {
            added.push(number.parse::<u64>().unwrap());
        }
        if event == last {
            break;
        }
    }
    assert!(added.is_sorted_by(|one, next| one < next), "{added:?}");
    let kept: Vec<u64> = (13..13 + AWAY).filter(|number| number % 10 != 0).collect();
    assert!(kept.iter().all(|number| added.contains(number)), "{added:?}");
}

pub async fn a_skipped_number_holds_back_what_follows(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let leader = leader(&tree).await;
    let secret = name("a");
    let create = |number| {
        let (tree, secret) = (tree.clone(), secret.clone());
        async move { tree.create_version(&secret, version(number), value("x"), vec![]).await.unwrap() }
    };
    create(1).await;
    let mut told = Told(tree.watch_versions());
    told.expect(&["listed a 1", "resynced"]).await;
    create(4).await;
    told.expect(&["gap a 2<4"]).await;
    create(2).await;
    told.expect(&["added a 2", "gap a 3<4"]).await;
    create(3).await;
    told.expect(&["added a 3", "added a 4", "closed a"]).await;
    // A missing number may also be settled by a note that it is destroyed.
    create(6).await;
    told.expect(&["gap a 5<6"]).await;
    tree.destroy_version(&secret, version(5), leader.epoch).await.unwrap();
    told.expect(&["added a 6", "closed a"]).await;
    // So may the numbers of a history that was lost. Versions that are there stay.
    create(9).await;
    told.expect(&["gap a 7<9"]).await;
    tree.note_lost(&secret, &[7, 8, 9].map(version).into(), leader.epoch).await.unwrap();
    told.expect(&["added a 9", "closed a"]).await;
    assert!(tree.read_version(&secret, version(9)).await.unwrap().is_some());
    assert_eq!(tree.put_next(&secret, value("x"), None).await.unwrap(), version(10));
}

pub async fn a_version_changed_in_place_is_reported(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let secret = name("a");
    tree.put_next(&secret, value("x"), None).await.unwrap();
    let mut told = Told(tree.watch_versions());
    told.expect(&["listed a 1", "resynced"]).await;
    write(tree.store(), vec![put(&version_key(&tree, "a", 1), "other")]).await;
    told.expect(&["changed a 1"]).await;
    // A watch that begins later reports it too.
    Told(tree.watch_versions()).expect(&["listed a 1", "changed a 1", "resynced"]).await;
    let key = version_key(&tree, "a", 1);
    write(tree.store(), vec![Write::Delete(key.clone())]).await;
    told.expect(&["deleted a 1"]).await;
    commit(tree.store(), vec![], vec![put(&key, "again")]).await;
    told.expect(&["changed a 1"]).await;
    // A key that is no version is reported once and stops nothing.
    let bad = tree.prefix().key().child("versions/a/latest");
    write(tree.store(), vec![put(&bad, "x")]).await;
    write(tree.store(), vec![put(&bad, "y")]).await;
    told.expect(&[&format!("ignored {bad}")]).await;
    tree.put_next(&secret, value("x"), Some(version(1))).await.unwrap();
    told.expect(&["added a 2"]).await;
}

pub async fn secrets_do_not_see_each_others_versions(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    for secret in ["a", "a/b", "a/1", "a-b", "leader", "versions", "records/x"] {
        assert_eq!(tree.put_next(&name(secret), value(secret), None).await.unwrap(), version(1), "{secret}");
    }
    let versions = tree.list_versions(&name("a")).await.unwrap();
    assert_eq!(versions.len(), 1);
    assert!(tree.read_version(&name("a/1"), version(1)).await.unwrap().unwrap().value == value("a/1"));
    assert!(tree.load_records().await.unwrap().entries.is_empty());
    // A secret whose name looks like the election's key does not get in the way of the election.
    leader(&tree).await;
}

pub async fn a_tree_belongs_to_one_cluster(fixture: &impl StoreFixture) {
    let (one, other) = (tree(fixture).await, tree(fixture).await);
    let key = |seed: u8| SigningKey::from_seed(&[seed; 32]).public().clone();
    let (production, staging) = (ClusterName::new("production").unwrap(), ClusterName::new("staging").unwrap());
    assert_eq!(one.owner().await.unwrap(), None);
    // Two broadcasters start on an empty store at once: only one of them makes the id.
    let (first, second) = (key(1), key(2));
    let (ours, too) = tokio::join!(one.claim(&production, None, &first), other.claim(&production, None, &second));
    let (ours, too) = (ours.unwrap(), too.unwrap());
    assert_eq!((&ours.cluster, ours.id), (&too.cluster, too.id));
    let owner = one.owner().await.unwrap().unwrap();
    assert!(owner.id == ours.id && owner.keys.contains(&first) && owner.keys.contains(&second), "{owner:?}");

    let refused = other.claim(&staging, None, &key(3)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused:?}");
    let refused = refused.to_string();
    assert!(refused.contains(&format!("belong to cluster production (id {})", ours.id)), "{refused}");
    assert!(refused.contains("configured as staging: change `cluster` or `store.prefix`"), "{refused}");
    assert_eq!(one.owner().await.unwrap(), Some(owner.clone()), "a refused claim writes nothing");
    // A store of this name, but not the one that this broadcaster has known.
    let known = ClusterId(ours.id.0 ^ 1);
    let refused = one.claim(&production, Some(known), &first).await.unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused:?}");

    // A store that lost its id gets it back from a broadcaster that knows it.
    write(one.store(), vec![Write::Delete(fixture.prefix().key().child("cluster"))]).await;
    assert_eq!(one.claim(&production, Some(ours.id), &first).await.unwrap().id, ours.id);
    // Keys that were replaced are deleted in time. The newest ones stay.
    for seed in 10..40 {
        one.claim(&production, None, &key(seed)).await.unwrap();
    }
    let keys = one.owner().await.unwrap().unwrap().keys;
    assert!(keys.len() < 30 && keys.contains(&key(39)) && !keys.contains(&first), "{} keys", keys.len());
}

pub async fn the_head_of_an_audit_log_is_written_only_over_what_was_read(fixture: &impl StoreFixture) {
    let tree = tree(fixture).await;
    let chain = AuditChain(7);
    let head = |sequence: u64| AuditHead {
        chain,
        log: "one".into(),
        named: true,
        sequence,
        hash: "ab".repeat(32),
        time: WallTime(sequence),
    };
    assert!(tree.audit_head(chain).await.unwrap().is_none());
    // A replica writes its head whether it leads or not.
    let Committed::Done(first) = tree.save_audit_head(&head(1), None).await.unwrap() else { panic!("none was stored") };
    assert_eq!(tree.save_audit_head(&head(2), None).await.unwrap(), Committed::Conflict);
    let Committed::Done(second) = tree.save_audit_head(&head(2), Some(first)).await.unwrap() else { panic!("as read") };
    assert_eq!(tree.save_audit_head(&head(9), Some(first)).await.unwrap(), Committed::Conflict);
    let stored = StoredAuditHead { head: head(2), cursor: second };
    assert_eq!(tree.audit_head(chain).await.unwrap(), Some(stored.clone()));
    let other = AuditHead { chain: AuditChain(8), log: "two".into(), ..head(5) };
    tree.save_audit_head(&other, None).await.unwrap();
    // What is no head hides none of the others.
    let stranger = tree.prefix().key().child("audit/latest");
    write(tree.store(), vec![put(&stranger, "x")]).await;
    let all = tree.audit_heads().await.unwrap();
    assert_eq!((all.heads.len(), &all.heads[0], &all.heads[1].head), (2, &stored, &other));
    assert_eq!(all.strangers.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&stranger]);
}
