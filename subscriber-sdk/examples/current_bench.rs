//! What `current()` costs, against the floors in the same run: a bare atomic pointer load, arc-swap's load, and the
//! clock. From one thread and from all.
//!
//! ```console
//! cargo run --release -p rotacast-subscriber --features testing --example current_bench
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use arc_swap::ArcSwap;
use rotacast_subscriber::SecretHandle;
use rotacast_subscriber::testing::FakeCluster;

const ROUNDS: u32 = 5_000_000;
/// The fastest of these counts: everything slower is somebody else's work on this machine. Each is measured in the
/// thread's own processor time, so that a busy machine does not count.
const REPEATS: usize = 5;

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Nanoseconds per call, with `threads` at it at once.
fn measure(threads: usize, work: impl Fn() + Sync) -> f64 {
    let once = || {
        let barrier = Barrier::new(threads);
        let slowest = std::thread::scope(|scope| {
            let run = || {
                barrier.wait();
                let started = processor_time();
                for _ in 0..ROUNDS {
                    work();
                }
                processor_time() - started
            };
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mine = run();
            others.into_iter().map(|other| other.join().unwrap()).fold(mine, Ord::max)
        });
        slowest.as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    (0..REPEATS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle: SecretHandle = runtime.block_on(async {
        let cluster = FakeCluster::new();
        cluster.put("payments/db", "value");
        cluster.subscriber("bench").unwrap().secret("payments/db").await.unwrap()
    });
    let value = Box::leak(Box::new(7_u64));
    let pointer = AtomicPtr::new(std::ptr::from_mut(value));
    let swap = ArcSwap::new(Arc::new(7_u64));
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{:<34} {:>10} {:>14}", "", "1 thread", format!("{all} threads"));
    let row = |what: &str, work: &(dyn Fn() + Sync)| {
        let (one, many) = (measure(1, work), measure(all, work));
        println!("{what:<34} {one:>7.1} ns {many:>11.1} ns");
        (one, many)
    };
    let bare = row("bare atomic pointer load", &|| {
        black_box(pointer.load(Ordering::Acquire));
    });
    let arc = row("arc-swap load", &|| {
        black_box(&**swap.load());
    });
    let clock = row("CLOCK_BOOTTIME", &|| {
        black_box(rotacast_clock::instant());
    });
    let current = row("current() and drop of its guard", &|| {
        black_box(handle.current().unwrap().version());
    });
    println!();
    println!("current() / bare load      {:>8.1} {:>14.1}", current.0 / bare.0, current.1 / bare.1);
    println!(
        "current() / (arc-swap + clock) {:>4.2} {:>14.2}",
        current.0 / (arc.0 + clock.0),
        current.1 / (arc.1 + clock.1)
    );
    println!("all threads / one thread   {:>8.2}", current.1 / current.0);
}
