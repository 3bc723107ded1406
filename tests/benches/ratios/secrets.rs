//! Many secrets and one broadcaster: taking them in, taking them over after a crash, keeping them idle.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rotacast_proto::SecretValue;
use rotacast_protocol::Epoch;
use rotacast_store::{Commit, ImportEvent, PlainImporter, Prefix, SecretTree, Write};

use super::rig::{Rig, SOURCE, Servers, secret};

const FEW: usize = 1_000;
/// The larger number of secrets, unless [`SECRETS`] says another.
const MANY: usize = 10_000;
/// The variable.
const SECRETS: &str = "ROTACAST_BENCH_SECRETS";
/// Bytes of the record of an idle secret, about.
const RECORD: usize = 700;
/// How long idle secrets are measured, after this long for the work that was begun before.
const LOOK: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(20);
/// Commits at once of the floor.
const AT_ONCE: usize = 32;

/// [`MANY`], or the number in the variable.
///
/// # Panics
/// If the variable holds no number.
fn many() -> usize {
    std::env::var(SECRETS).map_or(MANY, |number| number.parse().expect(SECRETS))
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn row(what: &str, few: Duration, many: Duration) {
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    println!("  {what:<46} {:>10} {:>10} {ratio:>7.1}", seconds(few), seconds(many));
}

fn heading(what: &str, servers: Servers) {
    println!("{what}, {}; load average {}", servers.as_str(), super::load());
    println!("  {:<46} {FEW:>10} {:>10} {:>7}", "", many(), "ratio");
}

/// The same number of commits of a record's size, a key for each, [`AT_ONCE`] at a time: the least that the store takes.
async fn floor(tree: &SecretTree, count: usize) -> Duration {
    let began = Instant::now();
    futures::stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, async |number| {
            let key = tree.prefix().key().child("floor").child(secret(number));
            let writes = vec![Write::Put(key, SecretValue::new(vec![b'x'; RECORD]))];
            tree.store().commit(Commit { checks: vec![], writes }).await.unwrap();
        })
        .await;
    began.elapsed()
}

/// Measures and prints. The importer alone, as the broadcaster runs it.
pub(super) async fn import() {
    for servers in Servers::ALL {
        let mut times = Vec::new();
        for count in [FEW, many()] {
            let Some(rig) = Rig::new(servers, false).await else {
                println!("no server: importing is not measured over {}\n", servers.as_str());
                return;
            };
            let source = Prefix::new(SOURCE).unwrap();
            rig.write(count, |secret| source.key().child(secret)).await;
            let floor = floor(&rig.tree, count).await;
            let began = Instant::now();
            let mut events = PlainImporter::new(rig.tree.clone(), source).unwrap().run();
            let mut imported = 0;
            while !matches!(events.next().await.unwrap().unwrap(), ImportEvent::Resynced(_)) {
                imported += 1;
            }
            assert_eq!(imported, count);
            times.push((floor, began.elapsed()));
        }
        heading("Keys of a plain tree imported", servers);
        row(&format!("floor: a commit for each, {AT_ONCE} at once"), times[0].0, times[1].0);
        row("import", times[0].1, times[1].1);
        println!("  import / floor {:>42.1} {:>10.1}\n", over(times[0].1, times[0].0), over(times[1].1, times[1].0));
    }
}

fn over(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64()
}

/// Measures and prints.
pub(super) async fn takeover() {
    for servers in Servers::ALL {
        let mut times = Vec::new();
        let mut idle = None;
        for count in [FEW, many()] {
            let Some(mut rig) = Rig::new(servers, false).await else {
                println!("no server: taking over is not measured over {}\n", servers.as_str());
                return;
            };
            rig.write(count, |secret| rig.version_key(secret)).await;
            let floor = floor(&rig.tree, count).await;
            rig.start();
            let (taken_up, epoch) = rig.all_led(count, Epoch(0)).await;
            rig.stop().await;
            let before = rig.complaints();
            rig.start();
            let (taken_over, last) = rig.all_led(count, epoch).await;
            // Longer than a leadership lasts without a renewal.
            tokio::time::sleep(SETTLE).await;
            let epochs = last.0 != epoch.0 && rig.all_led(count, Epoch(last.0 - 1)).await.1 == last;
            if count == many() {
                idle = Some(rig.processor_share(LOOK).await);
            }
            times.push((floor, taken_up, taken_over, rig.complaints() - before, epochs));
            rig.kill().await;
        }
        heading("Secrets taken up and taken over", servers);
        row(&format!("floor: a commit for each, {AT_ONCE} at once"), times[0].0, times[1].0);
        row("start → all taken up (new to Rotacast)", times[0].1, times[1].1);
        row("start → all taken over (their records saved)", times[0].2, times[1].2);
        println!("  taken over / floor {:>38.1} {:>10.1}", over(times[0].2, times[0].0), over(times[1].2, times[1].0));
        println!("  warnings meanwhile {:>38} {:>10}", times[0].3, times[1].3);
        println!("  in one term        {:>38} {:>10}", times[0].4, times[1].4);
        if let Some((share, memory)) = idle {
            println!(
                "  {} idle secrets: {:.1} % of one core over {LOOK:?}, {} MiB resident",
                many(),
                share * 100.0,
                memory >> 20
            );
        }
        println!();
    }
}
