use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{InstanceBus, LeaderBus};

/// After this long a case is taken to hang. On a machine of its own no case needs a tenth of it; on a busy one some need
/// many times what they need there.
const HANG: Duration = Duration::from_secs(600);

/// A bus to test.
#[async_trait]
pub trait Fixture: Send + Sync + Sized + 'static {
    /// Whether handles from before a restart work again afterwards. False only where the bus lives in the
    /// process that was restarted.
    const HANDLES_SURVIVE: bool;
    /// What is said of it once it was [stopped](Fixture::stop): the cause, and not only that it gave no answer.
    const CAUSE: &'static str;

    /// A fresh bus with nothing in it; `None` when what it needs is not on this machine, which the fixture
    /// has said loudly. What it stands on may serve other cases at the same time: it is never stopped.
    async fn fresh() -> Option<Self>;
    /// The same on servers of its own, for cases that stop them.
    async fn alone() -> Option<Self> {
        Self::fresh().await
    }
    /// The broadcaster's side.
    fn leader(&self) -> Arc<dyn LeaderBus>;
    /// A broadcaster's side of its own connection, as far as there are connections.
    async fn another_leader(&self) -> Arc<dyn LeaderBus>;
    /// The instance's side.
    fn instance(&self) -> Arc<dyn InstanceBus>;
    /// An instance's side of its own connection, as far as there are connections.
    async fn another_instance(&self) -> Arc<dyn InstanceBus>;
    /// Ends the bus as hard as can be; only asked of one that is [`alone`](Fixture::alone).
    async fn stop(&mut self);
    /// Starts it again over the same storage.
    async fn start(&mut self);
    /// Loses the logs, with everything in them, under the feet of whoever uses them. `false`: no such thing here.
    async fn lose_logs(&mut self) -> bool;
    /// Deletes every record of the reports, as a retention time does; the log stays. `false`: no such thing here.
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
    // Tasks that block must not keep a finished test from ending.
    runtime.shutdown_background();
}
