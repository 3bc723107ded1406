use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{InstanceBus, LeaderBus};

/// A case that takes longer than this hangs. On an idle machine no case needs a tenth of it. On a busy machine some
/// need many times as long.
const HANG: Duration = Duration::from_secs(600);

/// A bus to test.
#[async_trait]
pub trait Fixture: Send + Sync + Sized + 'static {
    /// Whether handles from before a restart work again afterwards. False only where the bus lives in the process that
    /// was restarted.
    const HANDLES_SURVIVE: bool;
    /// Whether a registration may be no larger than [`MAX_REGISTRATION_BYTES`](crate::MAX_REGISTRATION_BYTES): where services
    /// write to the log themselves.
    const BOUNDS_REGISTRATIONS: bool;
    /// What the error says once the bus was [stopped](Fixture::stop): it names the cause, not only that no answer came.
    const CAUSE: &'static str;

    /// A fresh bus with nothing in it; `None` when what it needs is not on this machine, which the fixture reports.
    /// Other cases may use the same server at the same time, so it is never stopped.
    async fn fresh() -> Option<Self>;
    /// The same on servers that no other case uses, for cases that stop them.
    async fn alone() -> Option<Self> {
        Self::fresh().await
    }
    /// The broadcaster's side.
    fn leader(&self) -> Arc<dyn LeaderBus>;
    /// A broadcaster's side over a connection that no other handle uses, where the bus has connections.
    async fn another_leader(&self) -> Arc<dyn LeaderBus>;
    /// The instance's side.
    fn instance(&self) -> Arc<dyn InstanceBus>;
    /// An instance's side over a connection that no other handle uses, where the bus has connections.
    async fn another_instance(&self) -> Arc<dyn InstanceBus>;
    /// Kills the bus without a clean shutdown. Called only on one that is [`alone`](Fixture::alone).
    async fn stop(&mut self);
    /// Starts it again over the same storage.
    async fn start(&mut self);
    /// Deletes the logs and everything in them while readers use them. `false`: this bus has no logs to delete.
    async fn lose_logs(&mut self) -> bool;
    /// Deletes every record of the reports, as a retention time does; the log stays. `false`: this bus keeps no such
    /// records.
    async fn empty_reports(&mut self) -> bool;
}

/// Runs one case.
pub fn run<F: Fixture, C: Future<Output = ()>>(
    name: &str,
    fixture: impl Future<Output = Option<F>>,
    case: impl FnOnce(F) -> C,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(fixture) = fixture.await else { return };
        assert!(tokio::time::timeout(HANG, case(fixture)).await.is_ok(), "{name} hangs");
    });
    // A task that blocks must not keep the process of a finished test running.
    runtime.shutdown_background();
}
