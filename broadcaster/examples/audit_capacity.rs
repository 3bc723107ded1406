//! Writes an audit log of many entries, and measures how long it takes to verify it, signatures of checkpoints included.
//!
//! ```sh
//! cargo run --release -p rotacast-broadcaster --example audit_capacity -- 1000000
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{StreamExt as _, iter};
use rotacast_broadcaster::audit::{AuditLog, AuditOptions, AuditSigner, Entry, Expectations, files_of, verify_telling};
use rotacast_proto::SigningKey;
use rotacast_protocol::SecretName;

/// Entries that wait at once: they share a write.
const AT_ONCE: usize = 1000;
/// How many times the check says how far it is.
const STEPS: u64 = 10;

#[tokio::main]
async fn main() {
    let entries: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("a number of entries"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let key = SigningKey::generate();
    let signer = AuditSigner::new(key.clone(), "bench".parse().unwrap());
    let log = Arc::new(AuditLog::open(&path, AuditOptions::default(), signer).unwrap());
    let began = Instant::now();
    let appended = iter(0..entries).map(|number| {
        let log = Arc::clone(&log);
        async move {
            let secret = SecretName::new(format!("payments/db-{}", number % 500)).unwrap();
            let entry = Entry::new("broadcaster", "fetched").secret(secret).detail("version", number % 90 + 1);
            let entry = entry.detail("instance", format!("payments-api/pod-{}/{number:032x}", number % 200));
            log.append(entry).await.unwrap();
        }
    });
    appended.buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    log.close().await;
    drop(log);
    let files = files_of(&path).unwrap();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("{entries} entries written in {:.1?}: {} files, {} MiB", began.elapsed(), files.len(), bytes >> 20);

    let expectations = Expectations { signers: vec![key.public().clone()], ..Expectations::default() };
    let began = Instant::now();
    let mut told = 0;
    let verified = verify_telling(&path, &expectations, &mut |read| {
        let step = read * STEPS / bytes.max(1);
        if step > told {
            told = step;
            println!("  {} % after {:.1?}", step * 100 / STEPS, began.elapsed());
        }
    });
    let verified = verified.unwrap();
    let took = began.elapsed();
    println!(
        "{} entries verified in {took:.1?}: {:.0} entries and {:.0} MiB a second; signed up to entry {:?}",
        verified.entries,
        verified.entries as f64 / took.as_secs_f64(),
        (bytes >> 20) as f64 / took.as_secs_f64(),
        verified.signed
    );
}
