//! Real threads take guards while versions change under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rotacast_subscriber::testing::FakeCluster;
use rotacast_subscriber::{Hooks, Version};

const ROTATIONS: u64 = 100;
const THREADS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_guard_ever_outlives_the_release_of_its_version() {
    let cluster = FakeCluster::new();
    cluster.put("a", "1");
    let released: Arc<Vec<AtomicBool>> = Arc::new((0..=ROTATIONS + 1).map(|_| AtomicBool::new(false)).collect());
    let marking = Arc::clone(&released);
    let hooks = Hooks::new().on_release(move |old| {
        marking[usize::try_from(old.version().get()).unwrap()].store(true, Ordering::SeqCst);
        async {}
    });
    let handle = cluster.subscriber("threads").unwrap().secret_with("a", hooks).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (handle, released) = (handle.clone(), Arc::clone(&released));
            let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let guard = handle.current().unwrap();
                    kept.push(guard);
                    // One thread keeps more guards than arc-swap has fast slots, so that both of its paths are used.
                    if kept.len() > [1, 3, 20][thread % 3] {
                        for guard in kept.drain(..) {
                            let version = guard.version().get();
                            assert_eq!(guard.expose(), version.to_string().as_bytes());
                            let gone = released[usize::try_from(version).unwrap()].load(Ordering::SeqCst);
                            assert!(!gone, "version {version} was released under a guard");
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let mut changes = handle.subscribe();
    for number in 2..=ROTATIONS + 1 {
        cluster.put("a", number.to_string());
        while changes.next().await.unwrap() != Version::new(number).unwrap() {}
    }
    stop.store(true, Ordering::Relaxed);
    let ends: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
    assert!(ends.iter().all(Result::is_ok), "a thread saw a released version");
    // Every version but the last is released once the threads have ended.
    while !(1..=ROTATIONS).all(|version| released[usize::try_from(version).unwrap()].load(Ordering::SeqCst)) {
        tokio::task::yield_now().await;
    }
    assert!(taken.load(Ordering::Relaxed) > ROTATIONS, "the threads had work");
}
