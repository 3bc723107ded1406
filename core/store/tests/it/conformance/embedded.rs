//! The embedded store against the suite.

use std::sync::Arc;

use async_trait::async_trait;
use rotacast_store::conformance::StoreFixture;
use rotacast_store::{EmbeddedStore, Prefix, Store};
use tempfile::TempDir;

struct Embedded {
    folder: TempDir,
    undisturbed: EmbeddedStore,
}

impl Embedded {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.db")
    }
}

async fn start() -> Option<Embedded> {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    Some(Embedded { folder, undisturbed })
}

#[async_trait]
impl StoreFixture for Embedded {
    async fn client(&self) -> Arc<dyn Store> {
        // Opened again, as another process would.
        Arc::new(EmbeddedStore::open(self.path()).await.unwrap())
    }

    async fn undisturbed(&self) -> Arc<dyn Store> {
        Arc::new(self.undisturbed.clone())
    }

    fn prefix(&self) -> Prefix {
        Prefix::new("rotacast").unwrap()
    }

    async fn compact(&self) {
        self.undisturbed.compact().await.unwrap();
    }

    async fn interrupt(&self) {}

    async fn heal(&self) {}

    fn has_connections(&self) -> bool {
        false
    }
}

rotacast_store::conformance_suite!(start);
