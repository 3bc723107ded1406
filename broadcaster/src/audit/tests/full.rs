//! A start on a disk without room.

use rotacast_test_servers::{Disk, Scratch};

use super::tampering::{Rig, named};
use super::*;
use crate::audit::Anchor;

/// Room for the log and some more.
const DISK_BYTES: u64 = 64 * 1024;

/// What a process that was killed left of its last line.
const TORN: &[u8] = b"{\"format\":2,\"sequ";

fn torn_copies(path: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.to_str().unwrap().contains(".torn-")).collect()
}

fn actions(path: &Path) -> Vec<String> {
    let mut actions = Vec::new();
    read::<AuditError>(path, &Expectations::default(), |entry| {
        actions.push(entry.action);
        Ok(())
    })
    .unwrap();
    actions
}

#[tokio::test]
async fn a_start_after_a_crash_takes_no_entries_until_there_is_room() {
    let rig = Rig::new().await;
    let scratch = Scratch::new("full-disk");
    let Some(disk) = Disk::mount(&scratch.path().join("small"), DISK_BYTES).await else { return };
    let path = disk.path().join("audit.jsonl");
    let anchor = || Anchor::new(rig.tree.clone(), named("one"), rig.findings.clone());
    let log = open(&path, AuditOptions::default()).unwrap();
    log.anchor(anchor()).await.unwrap();
    log.append_known(entry(1)).await.unwrap();
    log.close().await;
    drop(log);
    // The store does not know of the last two.
    write(&path, AuditOptions::default(), 4..=5).await;
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(TORN).unwrap();
    let before = std::fs::read(&path).unwrap();
    let known = rig.heads().await[0].sequence;
    disk.fill();

    let log = open(&path, AuditOptions::default()).unwrap();
    log.anchor(anchor()).await.unwrap();
    assert!(log.fails() && log.doubt().is_none(), "{:?}", log.doubt());
    let finding = rig.finding().unwrap_or_default();
    assert!(finding.contains("keep an unfinished line: No space left on device"), "{finding}");
    let refused = log.append(entry(6)).await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    log.close().await;
    assert_eq!(torn_copies(&path), Vec::<PathBuf>::new(), "a copy that cannot be made leaves nothing");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(rig.heads().await[0].sequence, known, "before it is on record what was beyond");

    disk.free();
    rig.until("there is room", |finding| finding.is_none()).await;
    let last = log.append_known(entry(6)).await.unwrap();
    assert!(!log.fails());
    log.close().await;
    drop(log);
    assert_eq!(actions(&path).iter().filter(|action| *action == "log_continued").count(), 1);
    let expected = Expectations { head: Some(last.hash), ..Expectations::default() };
    verify(&path, &expected).unwrap();
    let [torn] = &torn_copies(&path)[..] else { panic!("{:?}", torn_copies(&path)) };
    assert_eq!(std::fs::read(torn).unwrap(), TORN);
}

#[tokio::test]
async fn a_start_after_a_stop_takes_no_entries_until_there_is_room() {
    let rig = Rig::new().await;
    let scratch = Scratch::new("full-disk");
    let Some(disk) = Disk::mount(&scratch.path().join("small"), DISK_BYTES).await else { return };
    let path = disk.path().join("audit.jsonl");
    let anchor = || Anchor::new(rig.tree.clone(), named("one"), rig.findings.clone());
    let log = open(&path, AuditOptions::default()).unwrap();
    log.anchor(anchor()).await.unwrap();
    log.append(entry(1)).await.unwrap();
    disk.fill();
    // The last page of the file has room for some.
    let mut acknowledged = 1;
    while log.append(entry(acknowledged + 1)).await.is_ok() {
        acknowledged += 1;
    }
    log.close().await;
    drop(log);
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, acknowledged, "no rest of a failed write");

    let log = open(&path, AuditOptions::default()).unwrap();
    log.anchor(anchor()).await.unwrap();
    assert!(log.fails());
    let finding = rig.finding().unwrap_or_default();
    assert!(finding.contains("No space left on device"), "{finding}");
    assert_eq!(torn_copies(&path), Vec::<PathBuf>::new());

    disk.free();
    rig.until("there is room", |finding| finding.is_none()).await;
    log.append_known(entry(acknowledged + 1)).await.unwrap();
    assert!(!log.fails());
}
