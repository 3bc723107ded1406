//! What the audit log must withstand.

mod full;
mod tampering;

use std::collections::VecDeque;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rotacast_proto::SigningKey;
use rotacast_protocol::{ClusterName, RotationNumber, SecretName};

use super::line::Head;
use super::medium::{FileMedium, Medium};
use super::verify::{Expectations, read, verify};
use super::{AuditError, AuditLog, AuditOptions, AuditSigner, Doubt, Entry, Hash};

/// Longer than anything here takes.
const HANG: std::time::Duration = std::time::Duration::from_secs(30);

fn entry(number: u64) -> Entry {
    Entry::new("broadcaster", "retire_intent")
        .secret(SecretName::new("payments/db").unwrap())
        .rotation(Some(RotationNumber(number)))
        .detail("version", number)
        .detail("why", "quotes \" and, \"hash\":\"0\" and ünïcode\n")
}

/// Of the broadcaster in these tests.
fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn signer() -> AuditSigner {
    AuditSigner::new(key(), ClusterName::new("test").unwrap())
}

fn small(max_file_bytes: u64) -> AuditOptions {
    AuditOptions { max_file_bytes, ..AuditOptions::default() }
}

fn open(path: &Path, options: AuditOptions) -> Result<AuditLog, AuditError> {
    AuditLog::open(path, options, signer())
}

async fn write(path: &Path, options: AuditOptions, numbers: std::ops::RangeInclusive<u64>) -> Head {
    let log = open(path, options).unwrap();
    let mut head = log.opened_at();
    for number in numbers {
        head = log.append(entry(number)).await.unwrap();
    }
    head
}

fn problem(path: &Path) -> String {
    verify(path, &Expectations::default()).unwrap_err().to_string()
}

#[tokio::test]
async fn what_was_acknowledged_reads_back_in_order_and_the_chain_goes_on_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/audit.jsonl");
    write(&path, AuditOptions::default(), 1..=3).await;
    let head = write(&path, AuditOptions::default(), 4..=5).await;
    let mut seen = Vec::new();
    let verified = read::<AuditError>(&path, &Expectations::default(), |entry| {
        seen.push((entry.sequence, entry.rotation, entry.details["version"].as_u64()));
        Ok(())
    })
    .unwrap();
    assert_eq!(verified.head, head);
    assert_eq!(seen, (1..=5).map(|n| (n, Some(RotationNumber(n)), Some(n))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_writer_is_kept_out_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let first = open(&path, AuditOptions::default()).unwrap();
    let refused = open(&path, AuditOptions::default()).err().unwrap();
    assert_eq!(refused, AuditError::InUse { path: path.clone() });
    drop(first);
    open(&path, AuditOptions::default()).unwrap();
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(&path, AuditOptions::default(), 1..=3).await;
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            std::fs::write(&path, &bad).unwrap();
            assert!(verify(&path, &Expectations::default()).is_err(), "byte {at} ^ {flip:#x} went unnoticed");
        }
    }
    std::fs::write(&path, &good).unwrap();
    verify(&path, &Expectations::default()).unwrap();
}

#[tokio::test]
async fn removed_swapped_doubled_and_inserted_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(&path, AuditOptions::default(), 1..=4).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let with = |order: &[usize]| std::fs::write(&path, order.iter().map(|&at| lines[at]).collect::<String>()).unwrap();

    with(&[0, 2, 3]);
    assert!(problem(&path).contains("audit.jsonl:2: entry 3, expected 2"), "{}", problem(&path));
    with(&[1, 2, 3]);
    assert!(problem(&path).contains("audit.jsonl:1: entry 2, expected 1"), "{}", problem(&path));
    with(&[0, 2, 1, 3]);
    assert!(problem(&path).contains("audit.jsonl:2: entry 3, expected 2"), "{}", problem(&path));
    with(&[0, 1, 1, 2, 3]);
    assert!(problem(&path).contains("audit.jsonl:3: entry 2, expected 3"), "{}", problem(&path));

    // A line of another log.
    let other = folder.path().join("other.jsonl");
    write(&other, AuditOptions::default(), 1..=2).await;
    let foreign = std::fs::read_to_string(&other).unwrap();
    let foreign = foreign.split_inclusive('\n').nth(1).unwrap();
    std::fs::write(&path, format!("{}{foreign}{}{}", lines[0], lines[2], lines[3])).unwrap();
    assert!(problem(&path).contains("it was copied here"), "{}", problem(&path));

    // A whole other line with a correct hash of its own, in the place of a real one.
    let first = super::line::link(lines[0].trim_end().as_bytes()).unwrap();
    let mallory = Entry::new("mallory", "approved");
    let (forged, _) = super::line::write(&mallory, first.chain, first.head, first.time).unwrap();
    let forged = String::from_utf8(forged).unwrap();
    std::fs::write(&path, format!("{}{forged}{}{}", lines[0], lines[2], lines[3])).unwrap();
    let found = problem(&path);
    assert!(found.contains("the line before was replaced"), "{found}");
}

#[tokio::test]
async fn a_cut_off_end_shows_against_a_head_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let head = write(&path, AuditOptions::default(), 1..=3).await;
    let known = Expectations { head: Some(head.hash), ..Expectations::default() };
    assert_eq!(verify(&path, &known).unwrap().since_expected, Some(0));
    write(&path, AuditOptions::default(), 4..=5).await;
    assert_eq!(verify(&path, &known).unwrap().since_expected, Some(2));

    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&path, cut).unwrap();
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, 2, "a shorter log looks whole by itself");
    let found = verify(&path, &known).unwrap_err().to_string();
    assert!(found.contains("its end was cut off or replaced"), "{found}");
}

#[tokio::test]
async fn an_unfinished_last_line_is_kept_aside_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(&path, AuditOptions::default(), 1..=2).await;
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"format\":1,\"sequ").unwrap();
    assert!(problem(&path).contains("audit.jsonl:3: unfinished line"), "{}", problem(&path));

    write(&path, AuditOptions::default(), 3..=3).await;
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, 3);
    let torn: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(".torn-"))
        .collect();
    assert_eq!(torn.len(), 1);
    assert_eq!(std::fs::read(&torn[0]).unwrap(), b"{\"format\":1,\"sequ");
}

#[tokio::test]
async fn a_log_broken_anywhere_else_is_not_opened_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(&path, AuditOptions::default(), 1..=3).await;
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"version\":2", "\"version\":9", 1);
    std::fs::write(&path, &text).unwrap();
    let log = open(&path, AuditOptions::default()).unwrap();
    let refused = log.append(entry(4)).await.unwrap_err().to_string();
    assert!(refused.contains("audit.jsonl:2: the line was changed"), "{refused}");
    assert!(log.fails() && matches!(log.doubt(), Some((_, Doubt::Broken(_)))));
    drop(log);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    // A complete last line that is wrong is no line that was cut off.
    std::fs::write(&path, "{}\n").unwrap();
    let log = open(&path, AuditOptions::default()).unwrap();
    assert!(matches!(log.append(entry(4)).await, Err(AuditError::Broken(_))));
}

#[tokio::test]
async fn the_chain_goes_on_across_full_files_and_a_missing_one_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let options = small(1000);
    write(&path, options, 1..=10).await;
    let head = write(&path, options, 11..=20).await;
    let verified = verify(&path, &Expectations::default()).unwrap();
    assert_eq!((verified.entries, verified.head), (20, head));
    assert!(verified.files > 3, "{verified:?}");

    // A crash between the rename and the first entry of the next file.
    let names = super::files::all_full(&path).unwrap();
    let first_in_use = read_first(&path);
    std::fs::rename(&path, super::files::full(&path, first_in_use)).unwrap();
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, 20);
    write(&path, options, 21..=21).await;
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, 21);

    // The oldest files are archived. The log verifies only with the hash that they end with.
    let archived = verify_one(&names[0]);
    std::fs::rename(&names[0], folder.path().join("archive")).unwrap();
    assert!(problem(&path).contains("lines were removed"), "{}", problem(&path));
    let after = Expectations { after: Some(archived), ..Expectations::default() };
    assert_eq!(verify(&path, &after).unwrap().entries, 21 - archived.sequence);

    std::fs::remove_file(&names[1]).unwrap();
    assert!(verify(&path, &after).is_err());
}

fn read_first(path: &Path) -> u64 {
    super::scan::before_first(path).unwrap().unwrap().sequence + 1
}

fn verify_one(path: &Path) -> Head {
    super::scan::Scan::open(path, None, Head::EMPTY).unwrap().finish().unwrap().head
}

/// What the next calls to a file do, until the list is empty.
#[derive(Clone, Copy)]
enum Fault {
    /// Write so many bytes, then report that the disk is full.
    Full { after: usize },
    /// Write everything, then fail to sync.
    Sync,
    /// Fail to truncate.
    Truncate,
}

type Faults = Arc<Mutex<VecDeque<Fault>>>;

struct Faulty {
    real: FileMedium,
    faults: Faults,
}

fn open_faulty(path: &Path, faults: &Faults) -> AuditLog {
    let faults = Arc::clone(faults);
    let medium = move |path: &Path| -> io::Result<Box<dyn Medium>> {
        Ok(Box::new(Faulty { real: FileMedium::open(path)?, faults: Arc::clone(&faults) }))
    };
    AuditLog::open_on(path, AuditOptions::default(), signer(), Box::new(medium)).unwrap()
}

impl Faulty {
    fn next(&self, here: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let due = faults.front().copied().is_some_and(here);
        due.then(|| faults.pop_front()).flatten()
    }
}

impl Medium for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(Fault::Full { after }) = self.next(|fault| matches!(fault, Fault::Full { .. })) {
            self.real.write(&bytes[..after.min(bytes.len())])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.real.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.next(|fault| matches!(fault, Fault::Sync)) {
            Some(_) => Err(io::Error::other("input/output error")),
            None => self.real.sync(),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        match self.next(|fault| matches!(fault, Fault::Truncate)) {
            Some(_) => Err(io::Error::other("read-only file system")),
            None => self.real.truncate(length),
        }
    }

    fn disturbed(&self, length: u64) -> io::Result<Option<String>> {
        self.real.disturbed(length)
    }
}

#[tokio::test]
async fn a_failed_write_is_reported_and_leaves_no_trace_once_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    for (case, (script, expected)) in [
        (vec![Fault::Full { after: 0 }], 1),
        (vec![Fault::Full { after: 40 }], 1),
        (vec![Fault::Sync], 1),
        // The rest is cut off at once, and with the next append if that fails.
        (vec![Fault::Full { after: 100_000 }, Fault::Truncate], 1),
        (vec![Fault::Full { after: 100_000 }, Fault::Truncate, Fault::Truncate], 2),
        (vec![Fault::Full { after: 7 }, Fault::Truncate, Fault::Full { after: 9 }, Fault::Sync], 2),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("audit-{case}.jsonl"));
        let faults = Faults::default();
        let log = open_faulty(&path, &faults);
        log.append(entry(1)).await.unwrap();
        faults.lock().unwrap().extend(script);
        let mut failures = 0;
        let receipt = loop {
            match log.append(entry(2)).await {
                Ok(receipt) => break receipt,
                Err(AuditError::Io { .. }) => failures += 1,
                Err(other) => panic!("case {case}: {other}"),
            }
        };
        assert_eq!(failures, expected, "case {case}");
        assert_eq!(receipt.sequence, 2, "case {case}");
        drop(log);
        let verified = verify(&path, &Expectations::default()).unwrap();
        assert_eq!((verified.entries, verified.head), (2, receipt), "case {case}");
    }
}

#[tokio::test]
async fn what_a_failed_write_left_is_gone_before_the_next_one_and_at_the_latest_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let faults = Faults::default();
    let log = open_faulty(&path, &faults);
    log.append(entry(1)).await.unwrap();
    let good = path.metadata().unwrap().len();
    faults.lock().unwrap().extend([Fault::Full { after: 40 }, Fault::Full { after: 40 }, Fault::Truncate]);
    log.append(entry(2)).await.unwrap_err();
    assert_eq!(path.metadata().unwrap().len(), good, "cut off at once");
    log.append(entry(2)).await.unwrap_err();
    assert_eq!(path.metadata().unwrap().len(), good + 40, "it could not be cut off");
    drop(log);
    assert_eq!(path.metadata().unwrap().len(), good, "cut off at the stop");
}

#[tokio::test]
async fn a_full_device_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    struct FullDevice(std::fs::File);
    impl Medium for FullDevice {
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn truncate(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn disturbed(&self, _: u64) -> io::Result<Option<String>> {
            Ok(None)
        }
    }
    let open = |_: &Path| -> io::Result<Box<dyn Medium>> {
        Ok(Box::new(FullDevice(std::fs::OpenOptions::new().write(true).open("/dev/full")?)))
    };
    let log = AuditLog::open_on(&path, AuditOptions::default(), signer(), Box::new(open)).unwrap();
    let told = log.append(entry(1)).await.unwrap_err().to_string();
    assert!(told.contains("cannot write: No space left on device"), "{told}");
}

#[tokio::test]
async fn a_file_moved_away_or_written_to_by_others_takes_no_entries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = open(&path, AuditOptions::default()).unwrap();
    log.append(entry(1)).await.unwrap();
    let away = folder.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    let told = log.append(entry(2)).await.unwrap_err().to_string();
    assert!(told.contains("the file is gone"), "{told}");
    std::fs::rename(&away, &path).unwrap();
    log.append(entry(2)).await.unwrap();

    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\n").unwrap();
    let told = log.append(entry(3)).await.unwrap_err();
    assert!(matches!(told, AuditError::Disturbed { .. }), "{told}");
}

#[tokio::test]
async fn entries_appended_at_once_all_stand_and_an_oversize_one_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = Arc::new(open(&path, AuditOptions::default()).unwrap());
    let large = Entry::new("broadcaster", "large").detail("text", "x".repeat(super::line::MAX_LINE_BYTES));
    let appends = (1..=200).map(|number| {
        let log = Arc::clone(&log);
        let entry = if number == 100 { large.clone() } else { entry(number) };
        tokio::spawn(async move { log.append(entry).await })
    });
    let mut sequences = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        match append.await.unwrap() {
            Ok(receipt) => sequences.push(receipt.sequence),
            Err(error) => assert!(matches!(error, AuditError::TooLarge { .. }), "{error}"),
        }
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=199).collect::<Vec<_>>());
    drop(log);
    assert_eq!(verify(&path, &Expectations::default()).unwrap().entries, 199);
}

/// The folder in which the child of the test below writes.
const CHILD: &str = "ROTACAST_TEST_AUDIT_CHILD";

/// Appends until it is killed, and prints a line after every acknowledgement. Does nothing in an ordinary test run.
#[tokio::test]
async fn child_that_appends_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let log = open(path.as_ref(), small(4000)).unwrap();
    let mut number = log.opened_at().sequence;
    loop {
        number += 1;
        let receipt = log.append(entry(number)).await.unwrap();
        let mut out = io::stdout();
        writeln!(out, "acknowledged {} {}", receipt.sequence, receipt.hash).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn killed_over_and_over_it_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut acknowledged = 0;
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::tests::child_that_appends_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last: Option<Hash> = None;
        // Killed after a different number of entries each time, while the next one is being written.
        let mut left = 1 + round % 7;
        for line in &mut lines {
            let line = line.unwrap();
            let Some(rest) = line.split("acknowledged ").nth(1) else { continue };
            let (sequence, hash) = rest.split_once(' ').unwrap();
            acknowledged = sequence.parse().unwrap();
            last = Some(hash.parse().unwrap());
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some((sequence, hash)) = line.split("acknowledged ").nth(1).and_then(|rest| rest.split_once(' '))
                && let Ok(hash) = hash.parse()
            {
                acknowledged = sequence.parse().unwrap();
                last = Some(hash);
            }
        }
        // Opening sets an incomplete line aside. Then every acknowledged entry must be there.
        drop(open(&path, small(4000)).unwrap());
        let expected = Expectations { head: last, ..Expectations::default() };
        let verified = verify(&path, &expected).unwrap();
        assert!(last.is_some(), "the child of round {round} acknowledged nothing");
        assert!(verified.entries >= acknowledged, "round {round}: {verified:?}, acknowledged {acknowledged}");
        acknowledged = verified.entries;
    }
    assert!(acknowledged >= 15);
}

/// Opening a FIFO waits for its other end, which never comes.
#[tokio::test]
async fn a_fifo_in_place_of_the_log_is_refused_and_the_log_is_taken_up_again_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("audit.jsonl"), folder.path().join("aside"));
    let log = open(&path, AuditOptions::default()).unwrap();
    log.append(entry(1)).await.unwrap();
    std::fs::rename(&path, &aside).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let refused = tokio::time::timeout(HANG, log.append(entry(2))).await.expect("it does not hang").unwrap_err();
    assert!(refused.to_string().contains("it is a FIFO; expected a regular file"), "{refused}");
    assert!(problem(&path).contains("it is a FIFO"), "{}", problem(&path));
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    log.append(entry(2)).await.unwrap();
    drop(log);
    assert_eq!(verify(&path, &Expectations::default()).unwrap().head.sequence, 2);
}
