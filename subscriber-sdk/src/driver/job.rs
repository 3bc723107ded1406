//! Work outside the driver's own task. Each job ends with exactly one [`Done`].

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rotacast_bus::BusError;
use rotacast_holder::{Command, InstanceCommand, Step};
use rotacast_proto::{Envelope, SyncWithKeys};
use rotacast_protocol::message::{InstanceReport, Registration, SecretState, SyncRequest};
use rotacast_protocol::{Instant, Nonce, ReportSequence, SecretName, Version};
use tokio::sync::oneshot;

use crate::credential::CredentialView;
use crate::driver::Context;
use crate::error::{Error, ErrorKind};
use crate::hooks::{Hooks, Refusal};
use crate::trace::Running;

/// How long a Sync waits for its answer: far above a healthy leader's milliseconds, and short enough that several
/// attempts fit into half of a lease of 30 s.
const SYNC_TIMEOUT: Duration = Duration::from_secs(2);

/// How long anything else on the network may take before it counts as failed. The implementations bound their own
/// calls by 5 s; this is for those that do not.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is in flight at most once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum JobKey {
    Register,
    Report,
    Sync,
    States,
    ReadStore(SecretName),
    Load(SecretName, Version),
    Step(SecretName),
}

impl JobKey {
    pub(super) fn of(command: &InstanceCommand) -> Self {
        match command {
            InstanceCommand::Register(_) => JobKey::Register,
            InstanceCommand::Report => JobKey::Report,
            InstanceCommand::Sync | InstanceCommand::Secret(_, Command::Sync) => JobKey::Sync,
            InstanceCommand::Secret(secret, Command::ReadStore) => JobKey::ReadStore(secret.clone()),
            InstanceCommand::Secret(secret, Command::Load(version)) => JobKey::Load(secret.clone(), *version),
            InstanceCommand::Secret(secret, Command::Run(..)) => JobKey::Step(secret.clone()),
        }
    }

    pub(super) fn secret(&self) -> Option<&SecretName> {
        match self {
            JobKey::Register | JobKey::Report | JobKey::Sync | JobKey::States => None,
            JobKey::ReadStore(secret) | JobKey::Load(secret, _) | JobKey::Step(secret) => Some(secret),
        }
    }

    /// Who leaves begins nothing new, but renews the leases its guards run on.
    pub(super) fn is_dropped_on_leave(&self) -> bool {
        matches!(self, JobKey::Register | JobKey::Load(..) | JobKey::Step(_))
    }
}

/// How a job ended.
pub(super) enum Done {
    Registered {
        secrets: BTreeSet<SecretName>,
        result: Result<(), Error>,
    },
    Reported {
        sequence: ReportSequence,
        result: Result<(), Error>,
    },
    Synced {
        nonce: Nonce,
        result: Result<Envelope, Error>,
    },
    StateRead {
        secret: SecretName,
        sent: Instant,
        result: Result<SecretState, Error>,
    },
    Loaded {
        secret: SecretName,
        version: Version,
        result: Result<Arc<CredentialView>, Error>,
    },
    Stepped {
        secret: SecretName,
        step: Step,
        version: Version,
        result: Result<(), Refusal>,
    },
    /// Its outcome was told by itself.
    Left,
}

/// Runs a call of a transport or source within its time; a panic in it is its error, not ours.
pub(super) async fn call<T, E: Into<Error>>(
    whom: String,
    timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(timeout, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result.map_err(Into::into),
        Ok(Err(_)) => {
            Err(Error::new(ErrorKind::Unreachable, format!("{whom}: its client panicked"), "report it as a bug"))
        }
        Err(_) => {
            let fix = "check the address and that it is up";
            Err(Error::new(ErrorKind::Unreachable, format!("{whom} did not answer within {timeout:?}"), fix))
        }
    }
}

/// Dropping the sender of `given_up` ends it, so that a leave need not wait for its answer.
pub(super) async fn register(
    context: Arc<Context>,
    registration: Registration,
    id: String,
    given_up: oneshot::Receiver<()>,
) -> Done {
    context.incarnations.attest(&context.identity);
    let envelope = context.identity.seal(&registration, id, rotacast_clock::wall());
    let work = context.bus.register(&registration.key, &envelope);
    let result = tokio::select! {
        result = call(context.bus.describe(), CALL_TIMEOUT, work) => result,
        _ = given_up => {
            let what = format!("{} has not answered the registration", context.bus.describe());
            Err(Error::new(ErrorKind::Unreachable, what, "this instance leaves"))
        }
    };
    Done::Registered { secrets: registration.secrets, result }
}

pub(super) async fn report(context: Arc<Context>, report: InstanceReport) -> Done {
    let id = format!("{}-report-{}", report.key.incarnation, report.sequence);
    let envelope = context.identity.seal(&report, id, rotacast_clock::wall());
    let work = context.bus.report(&report.key, &envelope);
    let result = call(context.bus.describe(), CALL_TIMEOUT, work).await;
    Done::Reported { sequence: report.sequence, result }
}

pub(super) async fn sync(context: Arc<Context>, request: SyncRequest) -> Done {
    let id = format!("{}-sync-{:x}", request.report.key.incarnation, request.nonce.0);
    let nonce = request.nonce;
    context.incarnations.attest(&context.identity);
    let (trusted, announced) = context.trust.ids();
    let request = SyncWithKeys { request, trusted, announced };
    let envelope = context.identity.seal(&request, id, rotacast_clock::wall());
    let work = async { context.bus.sync(&envelope, SYNC_TIMEOUT).await.map_err(|error: BusError| Error::from(error)) };
    // Twice: the bus ends it in time by itself.
    let result = call(context.bus.describe(), SYNC_TIMEOUT * 2, work).await;
    Done::Synced { nonce, result }
}

pub(super) async fn read_state(context: Arc<Context>, secret: SecretName) -> Done {
    // Rule 8: the self-lease counts from before the read was sent.
    let sent = context.watch.now();
    let result = call(context.values.describe(), CALL_TIMEOUT, context.values.read_state(&secret)).await;
    Done::StateRead { secret, sent, result }
}

pub(super) async fn load(context: Arc<Context>, secret: SecretName, version: Version, span: Running) -> Done {
    let read = call(context.values.describe(), CALL_TIMEOUT, context.values.read_value(&secret, version));
    let value = span.run(read).await;
    let result = value.map(|value| Arc::new(CredentialView::new(secret.clone(), version, value)));
    Done::Loaded { secret, version, result }
}

pub(super) async fn step(
    context: Arc<Context>,
    hooks: Hooks,
    step: Step,
    view: Arc<CredentialView>,
    span: Running,
) -> Done {
    let (secret, version) = (view.secret().clone(), view.version());
    let result = span.run(hooks.run(step, view, context.hook_timeout)).await;
    Done::Stepped { secret, step, version, result }
}
