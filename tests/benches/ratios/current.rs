//! `current()` compared with a bare atomic pointer load, from one thread and from all.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use rotacast_subscriber::testing::FakeCluster;

const CALLS: u32 = 3_000_000;
/// The fastest of these counts: every slower one was disturbed by other work on this machine. Each is measured in the
/// thread's own processor time, so a busy machine does not count.
const REPEATS: usize = 7;

/// The processor time of this thread.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Nanoseconds per call, with `threads` threads calling at once.
fn measure(threads: usize, work: &(dyn Fn() + Sync)) -> f64 {
    let once = || {
        let barrier = Barrier::new(threads);
        let slowest = std::thread::scope(|scope| {
            let run = || {
                barrier.wait();
                let started = processor_time();
                for _ in 0..CALLS {
                    work();
                }
                processor_time() - started
            };
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mine = run();
            others.into_iter().map(|other| other.join().unwrap()).fold(mine, Ord::max)
        });
        slowest.as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..REPEATS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Measures and prints. Blocks its thread.
pub(super) fn run() {
    tokio::task::block_in_place(|| {
        let runtime = tokio::runtime::Handle::current();
        let cluster = FakeCluster::new();
        let handle = runtime.block_on(async {
            cluster.put("payments/db", "value");
            cluster.subscriber("bench").unwrap().secret("payments/db").await.unwrap()
        });
        let pointer = AtomicPtr::new(Box::leak(Box::new(7_u64)));
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        println!("{:<34} {:>10} {:>14}", "current(), fastest of some rounds", "1 thread", format!("{all} threads"));
        let row = |what: &str, work: &(dyn Fn() + Sync)| {
            let found = (measure(1, work), measure(all, work));
            println!("  {what:<32} {:>7.1} ns {:>11.1} ns", found.0, found.1);
            found
        };
        let bare = row("bare atomic pointer load", &|| {
            black_box(pointer.load(Ordering::Acquire));
        });
        let clock = row("reading CLOCK_BOOTTIME", &|| {
            black_box(rotacast_clock::instant());
        });
        let current = row("current() and drop of its guard", &|| {
            black_box(handle.current().unwrap().version());
        });
        println!("  current() / bare load            {:>7.1} {:>14.1}", current.0 / bare.0, current.1 / bare.1);
        println!(
            "  current() / (bare load + clock)  {:>7.1} {:>14.1}\n",
            current.0 / (bare.0 + clock.0),
            current.1 / (bare.1 + clock.1)
        );
    });
}
