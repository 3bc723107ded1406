//! What Rotacast costs against the floors in the same run.
//!
//! ```console
//! cargo bench -p rotacast-tests --bench ratios
//! ```
//!
//! Needs nats-server (`tools/servers install`). `docs/benchmarks.md` says what the figures mean.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod current;
mod fold;
mod raw;
mod round;

use std::time::Duration;

/// The middle one.
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{threads} threads; load average at the start: {}\n", load());
    round::run().await;
    fold::run();
    current::run();
    println!("load average at the end: {}", load());
}
