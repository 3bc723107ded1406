//! What only the embedded store has: crashes, damaged and foreign files, several processes at once.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use rotacast_store::{
    Check, Commit, Committed, EmbeddedStore, Key, Level, MAX_COMMIT_OPS, Prefix, SecretTree, Store, StoreError,
    StoreEvent, Write,
};
use tokio_util::sync::CancellationToken;

const STORE: &str = "ROTACAST_TEST_STORE";
const TTL: Duration = Duration::from_secs(60);

fn prefix() -> Prefix {
    Prefix::new("rotacast").unwrap()
}

fn secret() -> SecretName {
    SecretName::new("payments/db").unwrap()
}

async fn open(path: &Path) -> (Arc<dyn Store>, SecretTree) {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(path).await.unwrap());
    (store.clone(), SecretTree::new(store, prefix()))
}

/// Runs one of the `child_…` tests below in another process.
fn child(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The lines that a child prints. The test harness prints into the first one.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    told.map_while(Result::ok).filter_map(|line| line.split_once("told: ").map(|(_, told)| told.to_owned()))
}

#[allow(clippy::print_stdout, reason = "how a child process tells its parent")]
fn tell(what: impl std::fmt::Display) {
    use std::io::Write as _;
    println!("told: {what}");
    std::io::stdout().flush().unwrap();
}

/// Leads, then stores version after version, and prints each number once it is acknowledged.
#[tokio::test]
#[ignore = "run as a child process by the tests of this file"]
async fn child_writer() {
    let path = std::env::var(STORE).unwrap();
    let (_, tree) = open(Path::new(&path)).await;
    let leadership = tree.campaign("child", TTL, CancellationToken::new()).await.unwrap();
    tell(format!("epoch {}", leadership.epoch));
    loop {
        let number = tree.list_versions(&secret()).await.unwrap().len() + 1;
        let value = SecretValue::new(format!("value {number}").into_bytes());
        let version = tree.put_next(&secret(), value, None).await.unwrap();
        tell(format!("stored {version}"));
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9_and_the_lock_is_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut acknowledged = 0;
    let mut last_epoch = 0;
    for round in 0..12 {
        let mut writer = child("embedded_file::child_writer", &path);
        let told = lines(&mut writer);
        let (mut epoch, mut here) = (0, 0);
        for line in told {
            if let Some(number) = line.strip_prefix("epoch ") {
                // The time-to-live is a minute, but the lock of the process that died does not last as long.
                epoch = number.parse::<u64>().unwrap();
            } else if let Some(number) = line.strip_prefix("stored ") {
                acknowledged = number.parse::<u64>().unwrap();
                here += 1;
            }
            if here == 3 + round % 5 {
                break;
            }
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert!(epoch > last_epoch, "epoch {epoch} after {last_epoch}");
        last_epoch = epoch;
        let (_, tree) = open(&path).await;
        let versions = tree.list_versions(&secret()).await.unwrap();
        assert!(versions.len() as u64 >= acknowledged, "{} stored, {acknowledged} acknowledged", versions.len());
        for (at, stamp) in versions.iter().enumerate() {
            assert_eq!(stamp.version.get(), at as u64 + 1);
            let stored = tree.read_version(&secret(), stamp.version).await.unwrap().unwrap();
            assert!(stored.value.expose() == format!("value {}", at + 1).as_bytes());
        }
    }
}

#[tokio::test]
async fn another_process_is_seen_and_excluded_from_leading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (_, tree) = open(&path).await;
    let mut watch = tree.watch_versions();
    let mut writer = child("embedded_file::child_writer", &path);
    let mut told = lines(&mut writer);
    assert!(told.next().unwrap().starts_with("epoch"));
    // Its versions are read here in order, although it cannot wake this process's watch.
    let mut next = 1;
    while next <= 5 {
        use futures::StreamExt as _;
        match watch.next().await.unwrap().unwrap() {
            rotacast_store::VersionEvent::Listed { stamp, .. } | rotacast_store::VersionEvent::Added { stamp, .. } => {
                assert_eq!(stamp.version, Version::new(next).unwrap());
                next += 1;
            }
            rotacast_store::VersionEvent::Resynced(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let cancel = CancellationToken::new();
    let mut campaign = Box::pin(tree.campaign("parent", TTL, cancel.clone()));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut campaign).await;
    assert!(early.is_err(), "two leaders at once");
    writer.kill().unwrap();
    writer.wait().unwrap();
    let leadership = campaign.await.unwrap();
    tree.destroy_version(&secret(), Version::FIRST, leadership.epoch).await.unwrap();
}

#[tokio::test]
async fn damaged_and_foreign_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let refused = async |path: &Path| EmbeddedStore::open(path).await.err().expect("it must be refused");

    std::fs::write(&path, "this is no database, and it is long enough for a header to be looked for in it").unwrap();
    let error = refused(&path).await;
    assert!(matches!(&error, StoreError::Corrupt { .. }) && error.to_string().contains("damaged"), "{error}");

    let foreign = folder.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = refused(&foreign).await;
    assert!(matches!(&error, StoreError::Invalid { .. }) && error.to_string().contains("another program"), "{error}");

    let newer = folder.path().join("newer.db");
    drop(open(&newer).await);
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    let error = refused(&newer).await;
    assert!(error.to_string().contains("version is 9, expected at most 1"), "{error}");

    let error = refused(&folder.path().join("no/such/folder.db")).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");

    // Pages in the middle of a valid file are overwritten.
    let damaged = folder.path().join("damaged.db");
    {
        let (_, tree) = open(&damaged).await;
        for _ in 0..50 {
            tree.put_next(&secret(), SecretValue::new(vec![7; 3000]), None).await.unwrap();
        }
    }
    let connection = rusqlite::Connection::open(&damaged).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let length = bytes.len();
    bytes[8192..length - 4096].fill(0xA5);
    std::fs::write(&damaged, bytes).unwrap();
    let error = refused(&damaged).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[tokio::test]
async fn a_destroyed_value_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, tree) = open(&path).await;
    let canary = b"canary-f3b1c9d2-canary";
    let version = tree.put_next(&secret(), SecretValue::new(canary.to_vec()), None).await.unwrap();
    let on_disk = || {
        std::fs::read_dir(folder.path()).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(canary.len()).any(|window| window == canary)
        })
    };
    assert!(on_disk(), "the search finds nothing even while the value is stored");
    let leadership = tree.campaign("test", TTL, CancellationToken::new()).await.unwrap();
    tree.destroy_version(&secret(), version, leadership.epoch).await.unwrap();
    assert!(!on_disk(), "the value is still in one of the store's files");
    drop(store);
}

#[tokio::test]
async fn the_doctor_sees_a_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, _) = open(&path).await;
    let level = |findings: &[rotacast_store::Finding], subject: &str| {
        findings.iter().find(|finding| finding.subject == subject).unwrap().level
    };
    let findings = store.examine().await;
    assert_eq!(level(&findings, "store file access"), Level::Ok, "it is made for its owner only");
    assert_eq!(level(&findings, "store file"), Level::Ok);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(level(&store.examine().await, "store file access"), Level::Warning);
}

#[tokio::test]
async fn the_log_of_changes_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, _) = open(&path).await;
    let key = |at: usize| Key::new(format!("rotacast/many/{at}"));
    for batch in 0..13_000 / MAX_COMMIT_OPS {
        let writes =
            (0..MAX_COMMIT_OPS).map(|at| Write::Put(key(at), SecretValue::new(format!("{batch}").into_bytes())));
        let committed = store.commit(Commit { checks: Vec::<Check>::new(), writes: writes.collect() }).await.unwrap();
        assert!(matches!(committed, Committed::Done(_)));
    }
    let rows: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM changes", [], |row| row.get(0))
        .unwrap();
    assert!((9_000..=10_600).contains(&rows), "{rows} changes are kept");
}

/// An old copy is written over the file while a broadcaster has it open.
#[tokio::test]
async fn an_old_copy_restored_in_place_is_reported_and_what_has_to_be_noted_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, _) = open(&path).await;
    let key = |at: usize| Key::new(format!("rotacast/{at}"));
    let put = |at: usize| Commit { checks: vec![], writes: vec![Write::Put(key(at), SecretValue::new(b"x".to_vec()))] };
    for at in 0..5 {
        store.commit(put(at)).await.unwrap();
    }
    let mut watch = store.watch(&Key::new("rotacast"));
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "BEGIN; DELETE FROM entries WHERE modified > 2; DELETE FROM changes WHERE cursor > 2;
             UPDATE position SET cursor = 2; COMMIT",
        )
        .unwrap();
    let told = watch.next().await.unwrap().err().unwrap();
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    assert_eq!(store.setback().unwrap().count, 1);
    assert!(matches!(store.commit(put(9)).await.unwrap(), Committed::Done(_)));
    let mut watch = store.watch(&Key::new("rotacast"));
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
}
