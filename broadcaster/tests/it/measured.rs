//! A measured store, bus or provider behaves like the one inside: the suites of the seams run through the decorators.

mod store {
    use std::sync::Arc;

    use async_trait::async_trait;
    use rotacast_broadcaster::metrics::Metrics;
    use rotacast_store::conformance::StoreFixture;
    use rotacast_store::{EmbeddedStore, Prefix, Store};

    struct Measured {
        folder: tempfile::TempDir,
        undisturbed: EmbeddedStore,
        metrics: Metrics,
    }

    async fn start() -> Option<Measured> {
        let folder = tempfile::tempdir().unwrap();
        let undisturbed = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
        Some(Measured { folder, undisturbed, metrics: Metrics::default() })
    }

    #[async_trait]
    impl StoreFixture for Measured {
        async fn client(&self) -> Arc<dyn Store> {
            // Opened again, as another process would.
            self.metrics.store(Arc::new(EmbeddedStore::open(self.folder.path().join("store.db")).await.unwrap()))
        }

        async fn undisturbed(&self) -> Arc<dyn Store> {
            self.metrics.store(Arc::new(self.undisturbed.clone()))
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
}

mod bus {
    use std::sync::Arc;

    use async_trait::async_trait;
    use rotacast_broadcaster::metrics::Metrics;
    use rotacast_bus::conformance::Fixture;
    use rotacast_bus::{EmbeddedBus, InstanceBus, LeaderBus};

    struct Measured {
        folder: tempfile::TempDir,
        bus: EmbeddedBus,
        metrics: Metrics,
    }

    #[async_trait]
    impl Fixture for Measured {
        const HANDLES_SURVIVE: bool = false;
        const BOUNDS_REGISTRATIONS: bool = false;
        const CAUSE: &'static str = "closed";

        async fn fresh() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let bus = EmbeddedBus::open(&folder.path().join("bus.db")).await.unwrap();
            Some(Self { folder, bus, metrics: Metrics::default() })
        }

        fn leader(&self) -> Arc<dyn LeaderBus> {
            self.metrics.bus(Arc::new(self.bus.clone()))
        }

        async fn another_leader(&self) -> Arc<dyn LeaderBus> {
            self.leader()
        }

        fn instance(&self) -> Arc<dyn InstanceBus> {
            Arc::new(self.bus.clone())
        }

        async fn another_instance(&self) -> Arc<dyn InstanceBus> {
            self.instance()
        }

        async fn stop(&mut self) {
            self.bus.close().await;
        }

        async fn start(&mut self) {
            self.bus = EmbeddedBus::open(&self.folder.path().join("bus.db")).await.unwrap();
        }

        async fn lose_logs(&mut self) -> bool {
            false
        }

        async fn empty_reports(&mut self) -> bool {
            false
        }
    }

    rotacast_bus::conformance!(Measured);
}

mod provider {
    use std::sync::Arc;

    use rotacast_broadcaster::metrics::Metrics;
    use rotacast_broadcaster::settings::{SecretSettings, Settings};
    use rotacast_protocol::record::ProviderId;
    use rotacast_protocol::{Policy, SecretName};
    use rotacast_provider::conformance::Fixture;
    use rotacast_provider::{GenerateProvider, Provider};

    struct Generated;

    impl Settings for Generated {
        fn of(&self, _secret: &SecretName) -> SecretSettings {
            SecretSettings { policy: Policy::default(), schedule: None }
        }

        fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
            Some(Arc::new(GenerateProvider::default()))
        }

        fn configured(&self) -> Vec<SecretName> {
            Vec::new()
        }
    }

    struct Measured(Metrics);

    impl Fixture for Measured {
        fn provider(&self) -> Arc<dyn Provider> {
            let id = GenerateProvider::default().id("random");
            self.0.settings(Arc::new(Generated)).provider(&id).expect("it is configured")
        }

        fn secret(&self) -> SecretName {
            SecretName::new("tokens/signing").unwrap()
        }
    }

    async fn start() -> Option<Measured> {
        Some(Measured(Metrics::default()))
    }

    rotacast_provider::conformance_every!(start);
}
