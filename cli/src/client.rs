//! The connection to a broadcaster, and the operator's signature.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use prost::bytes::{Bytes, BytesMut};
use rotacast_proto::v1::operator_command::Action;
use rotacast_proto::{Envelope, FieldError, Kind, SigningKey, v1};
use rotacast_protocol::coordinator::{Order, Reason};
use rotacast_protocol::status::{BroadcasterStatus, InstanceStatus};
use rotacast_protocol::{ClusterName, OperatorName, SecretName, Version};
use tonic::{Response, Status, Streaming};

use crate::arguments::{Beside, Emergency};
use crate::error::Stop;
use crate::global::Global;
use crate::servers::{Admin, Servers};

/// How long an answer may take: the slowest, an order, waits for one write to the store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an order waits for a broadcaster on this machine that is starting, and how often it looks.
const STARTING: Duration = Duration::from_secs(5);
const STARTING_PAUSE: Duration = Duration::from_millis(100);
/// The key that `rotacast dev` makes, and the name it knows it by.
const DEV_KEY: &str = "rotacast-data/keys/operator.key";
const DEV_OPERATOR: &str = "operator";

/// Who runs what.
pub(crate) struct Found {
    pub(crate) instances: Vec<InstanceStatus>,
    /// The secrets whose instances are missing in the list.
    pub(crate) unanswered: Vec<String>,
}

/// A broadcaster to talk to, and the others that were named.
#[derive(Clone)]
pub(crate) struct Client {
    admin: Admin,
    servers: Arc<Servers>,
    /// Which one.
    which: usize,
}

/// Who signs orders.
pub(crate) struct Signer {
    operator: OperatorName,
    key: SigningKey,
}

/// What a broadcaster is to do with a secret.
pub(crate) enum Instruction {
    /// Write the next version.
    Put(Bytes),
    /// Go on although entries of the audit log are lost.
    #[cfg(feature = "broadcaster")]
    AcceptAuditLoss { doubt: String },
    /// Any other.
    Order(Order),
    /// Approve another operator's order, exactly the one of this digest.
    ApproveRequest { request: String, digest: Bytes },
    /// Take an order that waits back, or the approval of it.
    WithdrawRequest { request: String },
}

impl Instruction {
    /// As the broadcaster calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Instruction::Put(_) => "put",
            #[cfg(feature = "broadcaster")]
            Instruction::AcceptAuditLoss { .. } => "accept_audit_loss",
            Instruction::Order(order) => order.name().as_str(),
            Instruction::ApproveRequest { .. } => "approve_request",
            Instruction::WithdrawRequest { .. } => "withdraw_request",
        }
    }
}

/// An instruction, why it is given, and whether by a role for emergencies.
pub(crate) struct Directive {
    pub(crate) instruction: Instruction,
    pub(crate) reason: Option<Reason>,
    pub(crate) emergency: bool,
}

impl Directive {
    /// Without more.
    pub(crate) fn of(instruction: Instruction) -> Self {
        let reason = match &instruction {
            Instruction::Order(order) => order.reason().cloned(),
            _ => None,
        };
        Self { instruction, reason, emergency: false }
    }

    /// With what is said beside it.
    pub(crate) fn said(self, beside: &Beside) -> Result<Self, Stop> {
        let reason = beside.reason.as_deref().map(Reason::new).transpose().map_err(crate::order::invalid)?;
        Ok(Self { reason: self.reason.or(reason), emergency: beside.emergency.emergency, ..self })
    }

    /// Alone, by a role for emergencies.
    pub(crate) fn alone(self, emergency: Emergency) -> Self {
        Self { emergency: emergency.emergency, ..self }
    }
}

impl From<Order> for Directive {
    fn from(order: Order) -> Self {
        Self::of(Instruction::Order(order))
    }
}

impl Signer {
    /// Reads the operator's key.
    pub(crate) fn open(global: &Global) -> Result<Self, Stop> {
        let dev = Path::new(DEV_KEY);
        let (file, by_default) = match &global.operator_key {
            Some(file) => (file.as_path(), None),
            None if dev.exists() => (dev, Some(DEV_OPERATOR)),
            None => {
                let problem = format!(
                    "no operator's key: neither --operator-key nor ROTACAST_OPERATOR_KEY is given, and there is no ./{DEV_KEY}"
                );
                return Err(Stop::usage(
                    problem,
                    "`rotacast keygen --out me` makes one; its public half belongs under [operators] in the broadcaster's configuration",
                ));
            }
        };
        let operator = match (&global.operator, by_default) {
            (Some(operator), _) => operator.clone(),
            (None, Some(name)) => OperatorName::new(name).expect("the name is a constant that is tested"),
            (None, None) => {
                return Err(Stop::usage(
                    "--operator-key without the operator's name",
                    "add --operator NAME (or ROTACAST_OPERATOR), as the broadcaster's configuration names the key",
                ));
            }
        };
        let key = SigningKey::read_file(file).map_err(|error| Stop::usage(error.to_string(), ""))?;
        Ok(Self { operator, key })
    }

    pub(crate) fn describe(&self) -> String {
        format!("operator {}, key {}", self.operator, self.key.public().id())
    }
}

impl Client {
    /// Connects to the leader if there is one among those that were named, or else to another of them.
    pub(crate) async fn connect(global: &Global) -> Result<Self, Stop> {
        let servers = Arc::new(Servers::new(global)?);
        let (which, admin) = servers.find().await?;
        Ok(Self { admin, servers, which })
    }

    /// Connects for an order. A broadcaster on this machine may have been started by the line above: it is waited for until it
    /// leads, or another one does.
    pub(crate) async fn connect_when_started(global: &Global) -> Result<Self, Stop> {
        let servers = Arc::new(Servers::new(global)?);
        if !servers.is_one_on_this_machine() {
            return Self::connect(global).await;
        }
        let deadline = Instant::now() + STARTING;
        loop {
            let late = Instant::now() >= deadline;
            match Self::connect(global).await {
                Ok(client) if late || !client.is_starting().await => return Ok(client),
                Err(stop) if late || !stop.is_unreachable() => return Err(stop),
                Ok(_) | Err(_) => tokio::time::sleep(STARTING_PAUSE).await,
            }
        }
    }

    /// Whether it does not lead and knows of no other that does.
    async fn is_starting(&self) -> bool {
        let request = v1::StatusRequest { secret: String::new(), brief: true };
        match self.answer(self.admin.clone().status(request)).await {
            Ok(status) => !status.leader && status.leading.is_none(),
            Err(stop) => stop.is_unreachable(),
        }
    }

    pub(crate) fn server(&self) -> &str {
        self.servers.name(self.which)
    }

    /// Whether there are others to ask.
    pub(crate) fn has_others(&self) -> bool {
        self.servers.count() > 1
    }

    /// A broadcaster that no value may be sent to, of all that an order may go to: see `docs/understand/wire.md`.
    pub(crate) fn in_the_clear(&self) -> Option<&str> {
        self.servers.in_the_clear()
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Stop> {
        answer(self.server(), call).await
    }

    /// What it has sent, checked.
    pub(crate) fn read<W, T: TryFrom<W, Error = FieldError>>(&self, wire: W) -> Result<T, Stop> {
        T::try_from(wire).map_err(|error| Stop::unexpected(self.server(), &error))
    }

    pub(crate) async fn status(&self, secret: Option<&SecretName>) -> Result<BroadcasterStatus, Stop> {
        let request = v1::StatusRequest { secret: wire_name(secret), brief: false };
        self.read(self.answer(self.admin.clone().status(request)).await?)
    }

    pub(crate) async fn instances(&self, secret: Option<&SecretName>, not_on: Option<Version>) -> Result<Found, Stop> {
        let request = v1::InstancesRequest { secret: wire_name(secret), not_on: not_on.map_or(0, Version::get) };
        let reply = self.answer(self.admin.clone().instances(request)).await?;
        let instances = reply.instances.into_iter().map(|instance| self.read(instance)).collect::<Result<_, _>>()?;
        Ok(Found { instances, unanswered: reply.unanswered })
    }

    /// The keys that Rotacast itself uses.
    pub(crate) async fn keys(&self) -> Result<v1::KeysReply, Stop> {
        self.answer(self.admin.clone().keys(v1::KeysRequest {})).await
    }

    pub(crate) async fn doctor(&self) -> Result<v1::DoctorReply, Stop> {
        self.answer(self.admin.clone().doctor(v1::DoctorRequest {})).await
    }

    /// The orders that wait for approvals.
    pub(crate) async fn requests(&self) -> Result<Vec<v1::OrderRequest>, Stop> {
        Ok(self.answer(self.admin.clone().requests(v1::RequestsRequest {})).await?.requests)
    }

    /// What it answers over plain HTTP, on the same address.
    pub(crate) async fn page(&self, path: &'static str) -> Result<String, Stop> {
        let page = self.servers.page(self.which, path);
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, page).await;
        answered.unwrap_or_else(|_| Err(Stop::unreachable(self.server(), "no answer in time")))
    }

    pub(crate) async fn watch(&self, secret: Option<&SecretName>) -> Result<Streaming<v1::SecretStatus>, Stop> {
        let request = v1::WatchRequest { secret: wire_name(secret) };
        self.answer(self.admin.clone().watch(request)).await
    }

    /// Signs an order and sends it to the leader, once. Another broadcaster is tried only if the one before has certainly not
    /// taken it: it said that it does not lead, or no connection was made. Whether an order that got no answer took effect is
    /// for a person to find out.
    pub(crate) async fn order(
        &self,
        signer: &Signer,
        cluster: Option<&ClusterName>,
        subject: &str,
        directive: &Directive,
    ) -> Result<v1::CommandReply, Stop> {
        let count = self.servers.count();
        let mut refused: Option<Stop> = None;
        for turn in 0..count {
            let which = (self.which + turn) % count;
            let connected = if turn == 0 { Ok(self.admin.clone()) } else { self.servers.connect(which).await };
            let mut admin = match connected {
                Ok(admin) => admin,
                Err(stop) => {
                    refused.get_or_insert(stop);
                    continue;
                }
            };
            // Signed for each: a command is taken once, and by the leader of the term that it was given in only.
            let server = self.servers.name(which);
            let (its_cluster, epoch) = match about(server, &mut admin).await {
                Ok(about) => about,
                Err(stop) => {
                    refused.get_or_insert(stop);
                    continue;
                }
            };
            let envelope = sign(signer, cluster.unwrap_or(&its_cluster), epoch, (subject, directive));
            match answer(server, admin.command(v1::Envelope::from(envelope))).await {
                Ok(reply) => return Ok(reply),
                // One that knows who leads says more than one that is not there.
                Err(stop) if stop.is_not_leader() => refused = Some(stop),
                Err(stop) => return Err(stop.of_an_order()),
            }
        }
        Err(refused.map_or_else(|| Stop::none_reachable(Vec::new()), |stop| stop.of_all(count)))
    }
}

/// The cluster of a broadcaster, and the term in which it leads; 0: it does not.
async fn about(server: &str, admin: &mut Admin) -> Result<(ClusterName, u64), Stop> {
    let request = v1::StatusRequest { secret: String::new(), brief: true };
    let status = answer(server, admin.status(request)).await?;
    let cluster = ClusterName::new(status.cluster).map_err(|error| {
        Stop::usage(format!("the cluster of {server}: {error}"), "name the broadcaster with --server")
    })?;
    Ok((cluster, status.epoch))
}

async fn answer<T>(server: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Stop> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Stop::answered(server, &status)),
        Err(_) => Err(Stop::unreachable(server, &format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

fn wire_name(secret: Option<&SecretName>) -> String {
    secret.map(ToString::to_string).unwrap_or_default()
}

fn sign(signer: &Signer, cluster: &ClusterName, epoch: u64, (subject, directive): (&str, &Directive)) -> Envelope {
    let now = rotacast_clock::wall();
    let nonce: u64 = rand::random();
    let action = match &directive.instruction {
        // A value's bytes are shared, not copied.
        Instruction::Put(value) => Action::Put(v1::Put { value: value.clone() }),
        #[cfg(feature = "broadcaster")]
        Instruction::AcceptAuditLoss { doubt } => Action::AcceptAuditLoss(v1::AcceptAuditLoss { doubt: doubt.clone() }),
        Instruction::Order(order) => order.into(),
        Instruction::ApproveRequest { request, digest } => {
            Action::ApproveRequest(v1::ApproveRequest { request: request.clone(), digest: digest.clone() })
        }
        Instruction::WithdrawRequest { request } => {
            Action::WithdrawRequest(v1::WithdrawRequest { request: request.clone() })
        }
    };
    let command = v1::OperatorCommand {
        operator: signer.operator.to_string(),
        secret: subject.to_owned(),
        reason: directive.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        nonce,
        issued_ms: now.0,
        epoch,
        emergency: directive.emergency,
        action: Some(action),
    };
    // One buffer of the final size, so that growing leaves no copy of a value behind.
    let mut payload = BytesMut::with_capacity(command.encoded_len());
    command.encode(&mut payload).expect("the buffer grows if it must");
    let payload: Bytes = payload.freeze();
    let id = format!("{}:{nonce:016x}", signer.operator);
    Envelope::sign(&signer.key, Kind::OperatorCommand, cluster, subject, id, now, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_dev_gives_its_operator_is_one() {
        assert!(OperatorName::new(DEV_OPERATOR).is_ok());
    }
}
