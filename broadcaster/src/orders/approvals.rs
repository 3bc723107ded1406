//! Orders that wait for approvals: asked for, approved, withdrawn, and carried out once.
//!
//! A request and each approval are in the store before they count, so a takeover loses none. The leader alone writes them.
//! What is complete is taken out of the store and then carried out: of several replicas, clicks and sweeps, one succeeds
//! in taking it out. If the leader dies in between, the order is not carried out and has to be given again.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rotacast_log_limit::LogLimit;
use rotacast_proto::v1;
use rotacast_protocol::{ClusterName, Epoch, Generation, SecretName, WallTime};
use rotacast_store::{Committed, Cursor, SecretTree, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::desk::{Desk, detached};
use super::request::{Approval, NotApproved, OrderDigest, Request, RequestId, Standing};
use super::{Given, Instruction, Outcome};
use crate::api::{Refusal, instruction_of};
use crate::audit::{APPROVAL_WITHDRAWN, APPROVED, Entry, OrderProof, REQUESTED, WITHDRAWN};
use crate::operators::{NeedsApprovals, OrderKind, SignedIn, Warrant};

/// Most requests that wait at once: a person looks through no more. Bounds what a sweep reads.
const MAX_WAITING: usize = 256;
/// Most of one operator, so that one leaves room for the others.
const MAX_WAITING_OF_ONE: usize = 32;
/// How often a write that lost to another writer is tried again: approvals of one request come from a few people.
const TRIES: usize = 5;
/// How often the leader looks for requests that have expired, or that became complete without being carried out.
const SWEEP_EVERY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// Where no role asks for approvals, only orders of earlier rules may be left: every so many times is enough.
const SELDOM: u32 = 60;

/// Where requests are kept.
pub struct Book {
    pub tree: SecretTree,
    pub cluster: ClusterName,
}

/// A request as people see it.
#[derive(Clone, PartialEq, Debug)]
pub struct Waiting {
    pub request: Request,
    pub standing: Standing,
    pub digest: OrderDigest,
}

struct Read {
    request: Request,
    cursor: Cursor,
}

fn store(problem: &StoreError) -> Refusal {
    Refusal::Unavailable {
        problem: format!("orders that wait for approvals: {problem}"),
        fix: "whether it counts is not known: `rotacast approvals` shows it".into(),
    }
}

fn gone(id: RequestId) -> Refusal {
    Refusal::NotFound {
        what: format!("request {id}"),
        fix: "`rotacast approvals` lists those that wait; it was carried out or withdrawn, or it has expired".into(),
    }
}

impl Desk {
    fn book(&self) -> Result<&Book, Refusal> {
        let none = || Refusal::Invalid("this broadcaster keeps no orders for approvals".into());
        self.book.as_ref().ok_or_else(none)
    }

    /// Keeps an order until it is approved.
    pub(super) async fn ask(&self, by: SignedIn, given: Given, rule: NeedsApprovals) -> Result<Waiting, Refusal> {
        let book = self.book()?;
        let epoch = self.control.term().await?;
        let (order, secret) = (given.instruction.kind(), given.instruction.secret().cloned());
        let generation = self.generation(secret.as_ref()).await?;
        let (command, signed) = command_of(&by, &given)?;
        let _asking = self.asking.lock().await;
        let waiting = self.read_all().await?;
        let own = waiting.iter().filter(|it| it.request.by.name == by.name).count();
        if waiting.len() >= MAX_WAITING || own >= MAX_WAITING_OF_ONE {
            return Err(Refusal::Busy(format!(
                "{} orders wait for approvals, {own} of {}; expected fewer than {MAX_WAITING}, and {MAX_WAITING_OF_ONE} of one: \
                 approve or withdraw some",
                waiting.len(),
                by.name
            )));
        }
        let asked = rotacast_clock::wall();
        let within = u64::try_from(rule.within.as_millis()).unwrap_or(u64::MAX);
        let request = Request {
            id: RequestId(rand::random()),
            by,
            order,
            secret,
            role: rule.role,
            needed: rule.needed,
            generation,
            command,
            signed,
            asked,
            expires: WallTime(asked.0.saturating_add(within)),
            approvals: Vec::new(),
        };
        let entry = noted(REQUESTED, &request, &request.by, given.proof)
            .detail("approvals_needed", rule.needed.get())
            .detail("expires_ms", request.expires.0);
        let entry = given.reason.iter().fold(entry, |entry, reason| entry.detail("reason", reason.as_str()));
        self.note(order, entry).await?;
        let saved = book.tree.save_request(epoch, &request.id.to_string(), request.encode(), None).await;
        match saved.map_err(|problem| store(&problem))? {
            Committed::Done(_) => Ok(self.waiting(request)),
            Committed::Conflict => Err(self.not_saved().await),
        }
    }

    /// Adds an operator's approval, and carries the order out if it was the last one.
    ///
    /// # Errors
    /// [`Refusal`]: it does not count; or what the order led to.
    pub async fn approve(
        self: &Arc<Self>,
        by: SignedIn,
        (id, secret): (RequestId, Option<SecretName>),
        seen: OrderDigest,
        proof: OrderProof,
    ) -> Result<Outcome, Refusal> {
        let (desk, operator) = (Arc::clone(self), by.name.clone());
        let outcome = detached(async move { desk.approve_now(by, (id, secret), seen, proof).await }).await;
        match &outcome {
            Ok(_) => info!(%operator, request = %id, "an order is approved"),
            Err(refusal) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    warn!(%operator, request = %id, %refusal, left_out, "an approval is refused, or the order that it completes");
                }
            }
        }
        outcome
    }

    async fn approve_now(
        &self,
        by: SignedIn,
        (id, secret): (RequestId, Option<SecretName>),
        seen: OrderDigest,
        proof: OrderProof,
    ) -> Result<Outcome, Refusal> {
        let book = self.book()?;
        let signed = proof.signed().cloned();
        let mut proof = Some(proof);
        for _ in 0..TRIES {
            let epoch = self.control.term().await?;
            let Read { mut request, cursor } = self.read(id).await?.ok_or_else(|| gone(id))?;
            same_secret(&request, secret.as_ref())?;
            let approval = Approval { by: by.clone(), at: rotacast_clock::wall(), signed: signed.clone() };
            request
                .approve(approval, seen, &self.operators(), &book.cluster)
                .map_err(|why| refused(why, &request, &by))?;
            if let Some(proof) = proof.take() {
                self.note(request.order, noted(APPROVED, &request, &by, proof)).await?;
            }
            let saved = book.tree.save_request(epoch, &id.to_string(), request.encode(), Some(cursor)).await;
            let Committed::Done(cursor) = saved.map_err(|problem| store(&problem))? else { continue };
            return match request.standing(&self.operators(), rotacast_clock::wall()) {
                Standing::Complete { role } => self.carry_out_approved(request, cursor, role).await,
                Standing::Waits { .. } => Ok(Outcome::Waits(Box::new(self.waiting(request)))),
                Standing::Expired => Err(refused(NotApproved::Expired, &request, &by)),
                Standing::Void { why } => Err(void(&request, &why)),
            };
        }
        Err(self.not_saved().await)
    }

    /// Takes a request back, by who has given the order; or an approval, by who has given that.
    ///
    /// # Errors
    /// [`Refusal`]: it is neither's.
    pub async fn withdraw(
        self: &Arc<Self>,
        by: SignedIn,
        which: (RequestId, Option<SecretName>),
        proof: OrderProof,
    ) -> Result<(), Refusal> {
        let desk = Arc::clone(self);
        detached(async move { desk.withdraw_now(by, which, proof).await }).await
    }

    async fn withdraw_now(
        &self,
        by: SignedIn,
        (id, secret): (RequestId, Option<SecretName>),
        proof: OrderProof,
    ) -> Result<(), Refusal> {
        let book = self.book()?;
        let mut proof = Some(proof);
        for _ in 0..TRIES {
            let epoch = self.control.term().await?;
            let Read { mut request, cursor } = self.read(id).await?.ok_or_else(|| gone(id))?;
            same_secret(&request, secret.as_ref())?;
            let whole = request.by.name == by.name;
            if !whole && !request.take_back(&by.name) {
                let problem = format!("{} has neither given nor approved the order of request {id}", by.name);
                let fix =
                    format!("{} can withdraw it; without approvals it expires at {}", request.by.name, request.expires);
                return Err(Refusal::Denied { problem, fix });
            }
            if let Some(proof) = proof.take() {
                let action = if whole { WITHDRAWN } else { APPROVAL_WITHDRAWN };
                self.note(request.order, noted(action, &request, &by, proof)).await?;
            }
            let done = match whole {
                true => book.tree.remove_request(epoch, &id.to_string(), cursor).await,
                false => book.tree.save_request(epoch, &id.to_string(), request.encode(), Some(cursor)).await,
            };
            if let Committed::Done(_) = done.map_err(|problem| store(&problem))? {
                info!(operator = %by.name, request = %id, "an order or its approval is withdrawn");
                return Ok(());
            }
        }
        Err(self.not_saved().await)
    }

    /// Every order that waits, the oldest first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn requests(&self) -> Result<Vec<Waiting>, Refusal> {
        if self.book.is_none() {
            return Ok(Vec::new());
        }
        let mut waiting: Vec<Waiting> = self.read_all().await?.into_iter().map(|it| self.waiting(it.request)).collect();
        waiting.retain(|it| it.standing != Standing::Expired);
        waiting.sort_by_key(|it| (it.request.asked, it.request.id));
        Ok(waiting)
    }

    /// Ends what has expired, and carries out what is complete, until `stop`. Only the leader does either.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut told: Option<String> = None;
        for turn in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => {}
                () = stop.cancelled() => return,
            }
            self.clear_old_emergencies();
            self.record_denied().await;
            if !self.operators().asks_for_approvals() && turn % SELDOM != 0 {
                continue;
            }
            match self.sweep().await {
                Ok(()) => told = None,
                Err(refusal) => {
                    let problem = refusal.to_string();
                    if told.as_ref() != Some(&problem) {
                        warn!(problem, "orders that wait for approvals cannot be looked through; trying again");
                        told = Some(problem);
                    }
                }
            }
        }
    }

    pub(super) async fn sweep(&self) -> Result<(), Refusal> {
        if self.book.is_none() {
            return Ok(());
        }
        let Ok(epoch) = self.control.term().await else { return Ok(()) };
        let book = self.book()?;
        for Read { request, cursor } in self.read_all().await? {
            match request.standing(&self.operators(), rotacast_clock::wall()) {
                Standing::Expired => {
                    let id = request.id.to_string();
                    let removed =
                        book.tree.remove_request(epoch, &id, cursor).await.map_err(|problem| store(&problem))?;
                    if matches!(removed, Committed::Done(_)) {
                        info!(request = id, order = %request.order, "an order has expired without enough approvals");
                        let entry = about(Entry::new("broadcaster", "order_expired"), &request);
                        let _ = self.control.put_on_record(entry).await;
                    }
                }
                // It was approved, and the leader of that moment did not get to it.
                Standing::Complete { role } => {
                    let id = request.id;
                    if let Err(refusal) = self.carry_out_approved(request, cursor, role).await {
                        warn!(request = %id, %refusal, "an approved order is refused");
                    }
                }
                Standing::Waits { .. } | Standing::Void { .. } => {}
            }
        }
        Ok(())
    }

    async fn carry_out_approved(
        &self,
        request: Request,
        cursor: Cursor,
        role: Option<crate::operators::RoleName>,
    ) -> Result<Outcome, Refusal> {
        let book = self.book()?;
        let epoch = self.control.term().await?;
        let id = request.id.to_string();
        let remove = async || match book.tree.remove_request(epoch, &id, cursor).await {
            Ok(Committed::Done(_)) => Ok(()),
            Ok(Committed::Conflict) => Err(Refusal::Conflict {
                problem: format!("request {id} was changed or carried out meanwhile"),
                fix: "`rotacast approvals` and `rotacast status` show what came of it".into(),
            }),
            Err(problem) => Err(store(&problem)),
        };
        let now = self.generation(request.secret.as_ref()).await?;
        if now != request.generation {
            remove().await?;
            let why = format!(
                "its rotation has changed direction since it was asked for (generation {}, now {})",
                shown(request.generation),
                shown(now)
            );
            let entry = about(Entry::new("broadcaster", "order_void"), &request).detail("why", why.as_str());
            self.note(request.order, entry).await?;
            return Err(void(&request, &why));
        }
        let command = v1::OperatorCommand::decode(request.command.clone());
        let command = command.map_err(|error| Refusal::Invalid(format!("request {id} does not parse: {error}")))?;
        let (instruction, reason) = instruction_of(command)?;
        remove().await?;
        let counted = request.counted(&self.operators()).into_iter().cloned().collect();
        let proof = request.signed.map_or(OrderProof::Dashboard, |signed| OrderProof::Signed(Box::new(signed)));
        let warrant = Warrant { role, reason, emergency: false, approvals: counted };
        self.carry_out(&request.by, instruction, proof, warrant).await.map(Outcome::Done)
    }

    /// The direction of a secret's rotation; none for an order about no secret.
    async fn generation(&self, secret: Option<&SecretName>) -> Result<Option<Generation>, Refusal> {
        let Some(secret) = secret else { return Ok(None) };
        let status = self.control.status(Some(secret.clone())).await?;
        Ok(status.secrets.first().map(|it| it.generation))
    }

    async fn read(&self, id: RequestId) -> Result<Option<Read>, Refusal> {
        let stored = self.book()?.tree.request(&id.to_string()).await.map_err(|problem| store(&problem))?;
        stored.map(|it| self.decoded(&it.id, &it.bytes, it.cursor)).transpose()
    }

    /// One that cannot be read is left out, and a finding: it is no reason not to see the others.
    async fn read_all(&self) -> Result<Vec<Read>, Refusal> {
        let stored = self.book()?.tree.requests().await.map_err(|problem| store(&problem))?;
        let mut read = Vec::with_capacity(stored.len());
        for it in stored {
            match self.decoded(&it.id, &it.bytes, it.cursor) {
                Ok(request) => read.push(request),
                Err(refusal) => warn!(request = it.id, %refusal, "a request is not taken into account"),
            }
        }
        Ok(read)
    }

    /// What is signed must hold: a program that can write the store makes up neither orders nor approvals.
    fn decoded(&self, id: &str, bytes: &[u8], cursor: Cursor) -> Result<Read, Refusal> {
        let book = self.book()?;
        let unreadable = |problem: String| Refusal::Unavailable {
            problem: format!("request {id}: {problem}"),
            fix: "withdraw it and give the order again".into(),
        };
        let request = Request::decode(id, bytes).map_err(unreadable)?;
        let request = request.verified(&self.operators(), &book.cluster).map_err(unreadable)?;
        Ok(Read { request, cursor })
    }

    pub(super) fn waiting(&self, request: Request) -> Waiting {
        let standing = request.standing(&self.operators(), rotacast_clock::wall());
        let digest = self.book.as_ref().map_or(OrderDigest([0; 32]), |book| request.digest(&book.cluster));
        Waiting { request, standing, digest }
    }

    /// The log that takes no entries is what an order to accept its loss mends: the entry of the loss has the approvals.
    async fn note(&self, order: OrderKind, entry: Entry) -> Result<(), Refusal> {
        match (order, self.control.put_on_record(entry).await) {
            (OrderKind::AcceptAuditLoss, _) => Ok(()),
            (_, outcome) => outcome,
        }
    }

    async fn not_saved(&self) -> Refusal {
        match self.control.term().await {
            Err(refusal) => refusal,
            Ok(Epoch(_)) => Refusal::Unavailable {
                problem: "the request was changed by others again and again".into(),
                fix: "`rotacast approvals` shows it; try again".into(),
            },
        }
    }
}

/// What an operator signs names the secret too.
fn same_secret(request: &Request, secret: Option<&SecretName>) -> Result<(), Refusal> {
    match request.secret.as_ref() == secret {
        true => Ok(()),
        false => Err(refused(NotApproved::OtherOrder, request, &request.by)),
    }
}

fn shown(generation: Option<Generation>) -> String {
    generation.map_or_else(|| "none".to_owned(), |it| it.to_string())
}

fn about(entry: Entry, request: &Request) -> Entry {
    let entry = entry.detail("request", request.id.to_string()).detail("order", request.order.as_str());
    request.secret.clone().into_iter().fold(entry, Entry::secret).detail("operator", request.by.name.as_str())
}

/// The entry of what an operator did with a request.
fn noted(action: &str, request: &Request, by: &SignedIn, proof: OrderProof) -> Entry {
    about(Entry::new(by.name.as_str(), action), request).detail("role", request.role.as_str()).proved(proof)
}

fn void(request: &Request, why: &str) -> Refusal {
    Refusal::Conflict {
        problem: format!(
            "request {} ({} {}) is void: {why}",
            request.id,
            request.order,
            request.secret.as_ref().map_or("", |it| it.as_str())
        ),
        fix: "give the order again".into(),
    }
}

fn refused(why: NotApproved, request: &Request, by: &SignedIn) -> Refusal {
    let id = request.id;
    match why {
        NotApproved::OtherOrder => Refusal::Conflict {
            problem: format!(
                "the approval names another order than the one that waits as request {id}: nothing is approved"
            ),
            fix: "`rotacast approvals` shows what waits".into(),
        },
        NotApproved::Initiator => Refusal::Denied {
            problem: format!("{} has given this order (request {id}), and cannot approve it", by.name),
            fix: "another operator whose role allows the order must approve it".into(),
        },
        NotApproved::Denied { problem, fix } => Refusal::Denied { problem, fix },
        NotApproved::Expired => Refusal::Conflict {
            problem: format!("request {id} has expired at {}, with all of its approvals", request.expires),
            fix: "give the order again".into(),
        },
    }
}

/// The order as bytes, and what its operator has signed.
fn command_of(by: &SignedIn, given: &Given) -> Result<(bytes::Bytes, Option<rotacast_proto::Envelope>), Refusal> {
    if let Some(signed) = given.proof.signed() {
        return Ok((signed.payload.clone(), Some(signed.clone())));
    }
    let Instruction::Secret(secret, crate::api::Action::Order(order)) = &given.instruction else {
        return Err(Refusal::Invalid(format!("{} cannot wait for approvals", given.instruction.kind())));
    };
    let command = v1::OperatorCommand {
        operator: by.name.to_string(),
        secret: secret.to_string(),
        reason: given.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        nonce: rand::random(),
        issued_ms: rotacast_clock::wall().0,
        action: Some(order.into()),
        ..v1::OperatorCommand::default()
    };
    Ok((command.encode_to_vec().into(), None))
}
