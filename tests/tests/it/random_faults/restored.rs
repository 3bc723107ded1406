//! A store that comes back as it was, and what its operators do.

use std::collections::BTreeSet;

use rotacast_proto::v1;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Action, Database, LIMIT};

use super::{Run, VICTIM};

/// How many changes of the record a restored backup lacks at least: half a rotation, and more than a new leader makes
/// at once.
const LOSS: u64 = 5;

/// The store's content when the backup was made.
pub(crate) struct Backup {
    revision: u64,
}

fn in_safe_mode(status: &v1::SecretStatus) -> bool {
    status.overlays.iter().any(|overlay| overlay == "safe_mode")
}

impl Run {
    /// Makes a backup of the store, as it is at this moment of a rotation.
    pub(crate) async fn back_up(&mut self) {
        let Ok(status) = self.world.operator.status().await else { return };
        self.world.store.back_up().await;
        self.backup = Some(Backup { revision: status.revision });
    }

    /// Restores the backup, if enough has changed since.
    pub(crate) async fn restore(&mut self) {
        let Ok(status) = self.world.operator.status().await else { return };
        let lacks = |backup: &Backup| status.revision.checked_sub(backup.revision).filter(|lacks| *lacks >= LOSS);
        let Some(lacks) = self.backup.as_ref().and_then(lacks) else {
            println!("   there is nothing to restore that would be a loss");
            return;
        };
        println!("   {lacks} changes of the record are lost");
        self.backup = None;
        self.world.store.restore().await;
        (self.restored, self.restores) = (true, self.restores + 1);
    }

    /// What an operator does: waits for safe mode, writes a version that works, leaves safe mode, and drops by hand the
    /// roles of the lost history once no instance uses them.
    pub(crate) async fn look_at_the_store(&mut self) {
        self.world.until("safe mode", |status| in_safe_mode(status).then_some(())).await;
        self.newest = self.next_number().await;
        let newest = self.newest;
        // Of the lost history, and no instance uses it: otherwise its number would be taken.
        let again = Database::login_by_hand(newest);
        if self.world.database.logins().await.contains(&again) {
            self.world.database.drop_unused(&again).await;
        }
        self.world.put_by_hand(newest).await;
        let noted = |status: &v1::SecretStatus| status.versions.iter().any(|info| info.version == newest);
        self.world.until("the new version to be noted", |status| noted(status).then_some(())).await;
        let roles = self.world.database.logins().await;
        self.leave_safe_mode().await;
        self.until_it_is_current(newest).await;
        let mut moved = vec![self.witness.uses(newest).await, self.gateway.uses(newest).await];
        if !self.victim_down {
            moved.push(self.victim.0.uses(newest).await);
        }
        for status in moved {
            self.lapsed.insert(status.instance, status.queries_failed);
        }
        let status = self.world.operator.status().await.expect("a broadcaster answers");
        let known: BTreeSet<u64> = status.versions.iter().map(|info| info.version).collect();
        for role in roles {
            let version = number(&role).expect("the role of a version");
            // A version that the record knows is retired by Rotacast. The lost history may also have made a role with
            // the newest version's number, if no instance has said that it holds it.
            let lost = !known.contains(&version) || (version == newest && role != again);
            if lost && self.world.database.logins().await.contains(&role) {
                self.world.database.drop_unused(&role).await;
                self.lost.extend(Some(version).filter(|_| version != newest));
            }
        }
    }

    /// The number that `rotacast put` would give: above everything in the store, and above everything that an instance
    /// has been found to use.
    async fn next_number(&self) -> u64 {
        let names = [Some("witness"), Some("gateway"), (!self.victim_down).then_some(VICTIM)];
        until("every instance to say what it serves", LIMIT, async || {
            let leader = self.leader().await?;
            let (status, instances) = (leader.status().await.ok()?, leader.instances().await.ok()?);
            let heard: Vec<_> = instances.iter().filter(|instance| instance.lease_left_ms > 0).collect();
            let speaks =
                |name: &str| heard.iter().any(|instance| instance.key.as_ref().is_some_and(|key| key.instance == name));
            let all = names.into_iter().flatten().all(speaks);
            let held = heard.iter().flat_map(|instance| instance.held.iter().copied());
            let listed = status.versions.iter().map(|info| info.version);
            let trails = self.world.audits();
            let taken = trails.iter().flat_map(|trail| &trail.entries).filter(|entry| entry.action == "numbers_lost");
            let taken = taken.filter_map(|entry| entry.details.get("last")?.as_u64());
            let highest = listed.chain(held).chain(taken).max()?;
            all.then_some(highest + 1)
        })
        .await
    }

    /// Waits until the waiting version is current. A rotation that came back with the backup, and that no instance
    /// follows, is rolled back, as the blocker says.
    async fn until_it_is_current(&self, newest: u64) {
        until("the version that waits to be current", LIMIT, async || {
            let leader = self.leader().await?;
            let status = leader.status().await.ok()?;
            if status.current == newest && status.rotation.is_none() {
                return Some(());
            }
            let stays =
                |blocker: &v1::Blocker| blocker.condition == "staying" && blocker.next.contains("rolls it back");
            if status.blockers.iter().any(stays) {
                // Without an answer, or when it is being retired already, the next status shows it.
                let _ = leader.order(Action::RollBack(v1::RollBack {})).await;
            }
            None
        })
        .await;
    }

    /// Leaves safe mode where there is reason for it: a leader that saw the store go back, and leads only later, enters
    /// it again.
    pub(crate) async fn leave_safe_mode(&self) {
        until("a leader, and no safe mode", LIMIT, async || {
            let leader = self.leader().await?;
            let status = leader.status().await.ok()?;
            if !in_safe_mode(&status) {
                return Some(());
            }
            assert!(self.restores > 0, "safe mode, and the store was not restored: {status:#?}");
            // Without an answer it may have been carried out all the same: the next status shows it.
            let _ = leader.order(Action::LeaveSafeMode(v1::LeaveSafeMode {})).await;
            None
        })
        .await;
    }
}

/// The version in a role's name: `by_hand_3` or `payments_db_v3`.
fn number(role: &str) -> Option<u64> {
    role.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
}

#[test]
fn roles_are_known_by_their_number() {
    assert_eq!(number(&Database::login_by_hand(12)), Some(12));
    assert_eq!(number("payments_db_v3"), Some(3));
    assert_eq!(number(VICTIM), None);
}
