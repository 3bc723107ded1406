//! How long a whole listing of the versions takes, and how long a new version takes to be told, by the number of
//! secrets with two versions each:
//!
//! ```text
//! cargo run --release -p rotacast-store --example store_capacity -- consul http://127.0.0.1:8500 1000 10000
//! ```
//!
//! Kinds: `consul URL`, `etcd URL`, `embedded FILE`. It writes below `rotacast-capacity/` and leaves that there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rotacast_proto::SecretValue;
use rotacast_store::{
    Commit, ConsulOptions, ConsulStore, EmbeddedStore, EtcdOptions, EtcdStore, Key, Store, StoreEvent, Write,
};

/// A database credential in JSON is about as long.
const VALUE_BYTES: usize = 300;
const SAMPLES: usize = 20;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, at, counts @ ..] = arguments.as_slice() else { panic!("expected KIND PLACE COUNT...") };
    let store: Arc<dyn Store> = match kind.as_str() {
        "consul" => {
            Arc::new(ConsulStore::new(ConsulOptions { address: at.clone(), ..ConsulOptions::default() }).unwrap())
        }
        "etcd" => {
            Arc::new(EtcdStore::new(EtcdOptions { endpoints: vec![at.clone()], ..EtcdOptions::default() }).unwrap())
        }
        "embedded" => Arc::new(EmbeddedStore::open(at).await.unwrap()),
        other => panic!("{other:?}: expected consul, etcd or embedded"),
    };
    let root = Key::new("rotacast-capacity/versions");
    let mut filled = 0;
    for count in counts {
        let count: usize = count.parse().unwrap();
        for chunk in (filled..count).collect::<Vec<_>>().chunks(15) {
            let keys =
                chunk.iter().flat_map(|secret| [1, 2].map(|version| root.child(format!("secret-{secret}/{version}"))));
            let writes = keys.map(|key| Write::Put(key, SecretValue::new(vec![b'x'; VALUE_BYTES]))).collect();
            store.commit(Commit { checks: vec![], writes }).await.unwrap();
        }
        filled = filled.max(count);
        let listing = median(
            &mut sample(async || {
                let began = Instant::now();
                store.list(&root).await.unwrap();
                began.elapsed()
            })
            .await,
        );
        let mut watch = store.watch(&root);
        while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
        let mut told = Vec::new();
        for at in 0..SAMPLES {
            let key = root.child(format!("new/{count}-{at}"));
            let began = Instant::now();
            let writes = vec![Write::Put(key.clone(), SecretValue::new(vec![b'x'; VALUE_BYTES]))];
            store.commit(Commit { checks: vec![], writes }).await.unwrap();
            while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Put(entry) if entry.key == key) {}
            told.push(began.elapsed());
            // Apart from the one before.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{count:>7} secrets: listing {listing:>9.1?}, written and told {:>9.1?} (medians)", median(&mut told));
    }
}

async fn sample(mut run: impl AsyncFnMut() -> Duration) -> Vec<Duration> {
    let mut samples = Vec::new();
    for _ in 0..5 {
        samples.push(run().await);
    }
    samples
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}
