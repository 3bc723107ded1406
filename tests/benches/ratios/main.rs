//! What Rotacast costs compared with the floors, in the same run.
//!
//! ```console
//! cargo bench -p rotacast-tests --bench ratios             # everything
//! cargo bench -p rotacast-tests --bench ratios -- kafka    # one part, by its name
//! ```
//!
//! Needs nats-server and Kafka (`tools/servers install`). `docs/understand/benchmarks.md` says what the figures mean.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod carrier;
mod current;
mod fold;
mod instance;
mod kafka;
mod messages;
mod nats;
mod raw;
mod rig;
mod rotacast;
mod rotation;
mod round;
mod secrets;
mod signer;

use std::time::Duration;

use self::kafka::OverKafka;
use self::nats::OverNats;

const PARTS: [&str; 7] = ["nats", "kafka", "signatures", "fold", "current", "import", "takeover"];

/// The median.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "not known".into()).trim().to_owned()
}

#[tokio::main]
async fn main() {
    // Cargo adds options.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = asked.iter().find(|name| !PARTS.contains(&name.as_str())) {
        println!("{unknown:?} is no part, expected some of {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{threads} threads; load average at the start: {}\n", load());
    for part in PARTS.into_iter().filter(|part| asked.is_empty() || asked.iter().any(|name| name == part)) {
        match part {
            "nats" => round::run::<OverNats>().await,
            "kafka" => round::run::<OverKafka>().await,
            "signatures" => messages::run(),
            "fold" => fold::run(),
            "import" => secrets::import().await,
            "takeover" => secrets::takeover().await,
            _ => current::run(),
        }
    }
    println!("load average at the end: {}", load());
}
