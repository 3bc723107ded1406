//! Approvals on an embedded store, with a [`Control`] that notes what is carried out.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use rotacast_proto::v1::operator_command::Action as Wire;
use rotacast_proto::{Envelope, Kind, SigningKey, v1};
use rotacast_protocol::status::{BroadcasterStatus, FindingCounts, SecretStatus};
use rotacast_protocol::{ClusterName, Epoch, Generation, OperatorName, Version, WallTime};
use rotacast_store::{EmbeddedStore, Leadership, Prefix, SecretTree};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{AcceptedLoss, Asked, CommandReply, Control, Gate, Instances, OperatorCommand, Refusal};
use crate::audit::Entry;
use crate::findings::{Findings, Topic};
use crate::metrics::Metrics;
use crate::operators::{Credential, Operator, Operators, Role, SignedIn, Terms};

const SECRET: &str = "payments/db";
const PEOPLE: [&str; 4] = ["ada", "bob", "kim", "eve"];

struct Notebook {
    term: Mutex<Epoch>,
    generation: Mutex<u64>,
    done: Mutex<Vec<String>>,
    entries: Mutex<Vec<String>>,
    log_fails: Mutex<bool>,
    /// Whether orders are held up, and how many have come so far.
    held: watch::Sender<bool>,
    come: watch::Sender<u32>,
    refuses: Mutex<Option<fn() -> Refusal>>,
}

#[async_trait]
impl Control for Notebook {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        let generation = Generation(*self.generation.lock().unwrap());
        let secrets = secret.into_iter().map(|secret| SecretStatus { generation, ..SecretStatus::new(secret) });
        Ok(BroadcasterStatus { secrets: secrets.collect(), ..self.broadcaster().await })
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        BroadcasterStatus {
            cluster: "prod".into(),
            epoch: Some(*self.term.lock().unwrap()),
            leader: true,
            store: String::new(),
            bus: String::new(),
            replica: "b-1".into(),
            leading: None,
            findings: FindingCounts::default(),
            secrets: Vec::new(),
        }
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        Ok(*self.term.lock().unwrap())
    }

    fn watch(&self, _secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        futures::stream::pending().boxed()
    }

    async fn instances(&self, _secret: Option<SecretName>, _not_on: Option<Version>) -> Result<Instances, Refusal> {
        Ok(Instances { found: Vec::new(), unanswered: Vec::new() })
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        let OperatorCommand { secret, action, warrant, .. } = command;
        self.come.send_modify(|come| *come += 1);
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        if let Some(refusal) = *self.refuses.lock().unwrap() {
            return Err(refusal());
        }
        let approvals: Vec<&str> = warrant.approvals.iter().map(OperatorName::as_str).collect();
        let alone = if warrant.emergency { " alone" } else { "" };
        let done = format!("{operator} {} {secret} by {}{alone}", action.name(), approvals.join("+"));
        self.done.lock().unwrap().push(done);
        Ok(CommandReply::default())
    }

    async fn put_on_record(&self, entry: Entry) -> Result<(), Refusal> {
        if *self.log_fails.lock().unwrap() {
            return Err(Refusal::Conflict { problem: "the disk is full".into(), fix: String::new() });
        }
        self.entries.lock().unwrap().push(format!("{entry:?}"));
        Ok(())
    }

    async fn accept_audit_loss(&self, operator: OperatorName, loss: AcceptedLoss) -> Result<(), Refusal> {
        let approvals: Vec<&str> = loss.warrant.approvals.iter().map(OperatorName::as_str).collect();
        self.done.lock().unwrap().push(format!("{operator} accepts {} by {}", loss.doubt, approvals.join("+")));
        Ok(())
    }

    async fn doctor(&self) -> v1::DoctorReply {
        v1::DoctorReply::default()
    }
}

struct Rig {
    control: Arc<Notebook>,
    desk: Arc<Desk>,
    operators: watch::Sender<Arc<Operators>>,
    findings: Findings,
    tree: SecretTree,
    keys: Vec<SigningKey>,
    _leadership: Leadership,
    _folder: tempfile::TempDir,
}

fn name(text: &str) -> OperatorName {
    OperatorName::new(text).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("prod").unwrap()
}

/// Who has ordered, approved and done what since the start.
impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
        let tree = SecretTree::new(Arc::new(store), Prefix::new("rotacast").unwrap());
        let leadership = tree.campaign("b-1", Duration::from_secs(30), CancellationToken::new()).await.unwrap();
        let keys: Vec<SigningKey> = PEOPLE.iter().map(|_| SigningKey::generate()).collect();
        let control = Arc::new(Notebook {
            term: Mutex::new(leadership.epoch),
            generation: Mutex::new(4),
            done: Mutex::default(),
            entries: Mutex::default(),
            log_fails: Mutex::new(false),
            held: watch::Sender::new(false),
            come: watch::Sender::new(0),
            refuses: Mutex::default(),
        });
        let operators = watch::Sender::new(Arc::new(Operators::default()));
        let findings = Findings::default();
        let desk = desk(&control, &operators, &tree, &findings);
        let rig = Self { control, desk, operators, findings, tree, keys, _leadership: leadership, _folder: folder };
        rig.rules(approvals(2, 3600));
        rig
    }

    /// Ada, Bob and Kim have the one role, and Eve none of its orders.
    fn rules(&self, terms: Terms) {
        self.rules_for(terms, &["ada", "bob", "kim"]);
    }

    fn rules_for(&self, terms: Terms, dbas: &[&str]) {
        let role = |orders: &[&str], terms| Role {
            secrets: vec!["*".parse().unwrap()],
            orders: orders.iter().map(|it| it.parse().unwrap()).collect(),
            read: [].into(),
            terms,
        };
        let orders = ["rotate", "pause", "abandon", "accept_audit_loss"];
        let roles = [
            ("dba".parse().unwrap(), role(&orders, terms)),
            ("viewer".parse().unwrap(), role(&[], Terms::Alone)),
            ("first-aid".parse().unwrap(), role(&["abandon"], Terms::Emergency)),
        ];
        let person = |(who, key): (&&str, &SigningKey)| {
            let roles: &[&str] = match *who {
                "eve" => &["viewer"],
                "kim" if dbas.contains(&"kim") => &["dba", "first-aid"],
                who if dbas.contains(&who) => &["dba"],
                _ => return None,
            };
            let roles = roles.iter().map(|it| it.parse().unwrap()).collect();
            Some((name(who), Operator { keys: vec![key.public().clone()], tokens: Vec::new(), roles }))
        };
        let people = PEOPLE.iter().zip(&self.keys).filter_map(person).collect();
        self.operators.send_replace(Arc::new(Operators::new(people, roles.into())));
    }

    fn key(&self, who: &str) -> &SigningKey {
        &self.keys[PEOPLE.iter().position(|it| *it == who).unwrap()]
    }

    /// What a signed message of an operator asks.
    fn asks(&self, who: &str, secret: &str, emergency: bool, action: Wire) -> (SignedIn, Asked) {
        let key = self.key(who);
        let command = v1::OperatorCommand {
            operator: who.into(),
            secret: secret.into(),
            reason: "because".into(),
            nonce: rand::random(),
            issued_ms: rotacast_clock::wall().0,
            epoch: self.control.term.lock().unwrap().0,
            emergency,
            action: Some(action),
        };
        let payload = command.encode_to_vec().into();
        let envelope = Envelope::sign(key, Kind::OperatorCommand, &cluster(), secret, "id", WallTime(0), payload);
        // The gate of another broadcaster knows the key, whatever the rights are now.
        let known = Operators::with_keys([(name(who), key.public().clone())]);
        let term = *self.control.term.lock().unwrap();
        Gate::new(cluster()).admit(envelope.into(), &known, term, rotacast_clock::wall()).unwrap()
    }

    async fn order(&self, who: &str, action: Wire) -> Result<Outcome, Refusal> {
        let about = if matches!(action, Wire::AcceptAuditLoss(_)) { "" } else { SECRET };
        self.give(self.asks(who, about, false, action)).await
    }

    async fn give(&self, (by, asked): (SignedIn, Asked)) -> Result<Outcome, Refusal> {
        match asked {
            Asked::Order(given) => self.desk.give(by, given).await,
            Asked::Approve { secret, request, seen, proof } => {
                self.desk.approve(by, (request, secret), seen, proof).await
            }
            Asked::Withdraw { secret, request, proof } => {
                self.desk.withdraw(by, (request, secret), proof).await?;
                Ok(Outcome::Done(CommandReply::default()))
            }
        }
    }

    /// An order of Ada's that waits.
    async fn waiting(&self, action: Wire) -> Waiting {
        match self.order("ada", action).await.unwrap_or_else(|refusal| panic!("{refusal}")) {
            Outcome::Waits(waiting) => *waiting,
            Outcome::Done(_) => panic!("it was carried out"),
        }
    }

    async fn approve(&self, who: &str, it: &Waiting) -> Result<Outcome, Refusal> {
        let digest = it.digest.0.to_vec().into();
        let approve = Wire::ApproveRequest(v1::ApproveRequest { request: it.request.id.to_string(), digest });
        let secret = it.request.secret.as_ref().map_or("", |secret| secret.as_str());
        self.give(self.asks(who, secret, false, approve)).await
    }

    /// How many approvals are missing; none: it was carried out.
    async fn missing(&self, who: &str, it: &Waiting) -> Option<u32> {
        match self.approve(who, it).await.unwrap_or_else(|refusal| panic!("{refusal}")) {
            Outcome::Done(_) => None,
            Outcome::Waits(waiting) => match waiting.standing {
                Standing::Waits { missing } => Some(missing),
                other => panic!("{other:?}"),
            },
        }
    }

    async fn refused(&self, who: &str, it: &Waiting) -> String {
        match self.approve(who, it).await {
            Err(refusal) => refusal.to_string(),
            Ok(_) => panic!("{who} approves"),
        }
    }

    fn emergencies(&self) -> Vec<String> {
        let standing = self.findings.standing().into_iter().filter(|it| it.topic == Topic::Emergency);
        standing.map(|it| it.text).collect()
    }

    fn entries(&self, action: &str) -> usize {
        self.control.entries.lock().unwrap().iter().filter(|entry| entry.contains(&format!("\"{action}\""))).count()
    }

    fn done(&self) -> Vec<String> {
        self.control.done.lock().unwrap().clone()
    }
}

fn desk(
    control: &Arc<Notebook>,
    operators: &watch::Sender<Arc<Operators>>,
    tree: &SecretTree,
    findings: &Findings,
) -> Arc<Desk> {
    let desk = Desk::new(Arc::clone(control) as Arc<dyn Control>, operators.subscribe());
    let desk = desk.with_book(Book { tree: tree.clone(), cluster: cluster() });
    Arc::new(desk.telling(findings.clone(), Metrics::default().orders()))
}

fn approvals(needed: u32, seconds: u64) -> Terms {
    Terms::Approvals { needed: NonZeroU32::new(needed).unwrap(), within: Duration::from_secs(seconds) }
}

fn rotate() -> Wire {
    Wire::Rotate(v1::Rotate {})
}

fn abandon(version: u64) -> Wire {
    Wire::Abandon(v1::Abandon { version })
}

#[tokio::test]
async fn an_order_is_carried_out_once_after_its_approvals_which_outlive_the_leader() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    assert_eq!(rig.missing("bob", &it).await, Some(1), "the same person counts once");
    assert!(rig.done().is_empty());
    // The successor knows nothing but the store.
    let successor = Rig { desk: desk(&rig.control, &rig.operators, &rig.tree, &rig.findings), ..rig };
    assert_eq!(successor.desk.requests().await.unwrap()[0].request.approvals[0].by.name, name("bob"));
    assert_eq!(successor.missing("kim", &it).await, None);
    assert_eq!(successor.done(), ["ada rotate payments/db by bob+kim"]);
    assert!(successor.refused("kim", &it).await.contains("not found"));
    assert!(successor.desk.requests().await.unwrap().is_empty());
    let entries = successor.control.entries.lock().unwrap().join("\n");
    assert!(entries.contains("order_requested") && entries.contains("order_approved"), "{entries}");
}

#[tokio::test]
async fn neither_who_gave_it_nor_who_may_not_give_it_approves_an_order() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert!(rig.refused("ada", &it).await.contains("ada has given this order"));
    let told = rig.refused("eve", &it).await;
    assert!(told.contains("eve may not rotate payments/db") && told.contains("cannot approve"), "{told}");
    assert_eq!(rig.missing("kim", &it).await, Some(1));
    assert!(rig.done().is_empty());
}

#[tokio::test]
async fn an_approval_is_of_one_order_with_its_arguments_and_of_nothing_else() {
    let rig = Rig::start().await;
    let (one, other) = (rig.waiting(abandon(1)).await, rig.waiting(abandon(2)).await);
    assert_ne!(one.digest, other.digest);
    // What was seen of one, for the other.
    let swapped = Waiting { digest: other.digest, ..one.clone() };
    assert!(rig.refused("bob", &swapped).await.contains("names another order"));
    let elsewhere = Request { secret: Some("other/db".parse().unwrap()), ..one.request.clone() };
    let elsewhere = Waiting { request: elsewhere, ..one.clone() };
    assert!(rig.refused("bob", &elsewhere).await.contains("names another order"));
    // The same order given again is another request, with a digest of its own.
    let again = rig.waiting(abandon(1)).await;
    assert_ne!(one.digest, again.digest);
    assert!(rig.refused("bob", &Waiting { digest: again.digest, ..one }).await.contains("names another order"));
}

#[tokio::test]
async fn approvals_expire_with_their_order() {
    let rig = Rig::start().await;
    rig.rules(approvals(2, 0));
    let it = rig.waiting(rotate()).await;
    assert!(rig.refused("bob", &it).await.contains("has expired"));
    assert!(rig.desk.requests().await.unwrap().is_empty(), "it is not shown any more");
    assert!(!rig.control.entries.lock().unwrap().join("\n").contains("order_approved"), "nothing is approved");
    rig.desk.sweep().await.unwrap();
    assert!(rig.refused("bob", &it).await.contains("not found"));
    assert!(rig.control.entries.lock().unwrap().join("\n").contains("order_expired"));
    assert!(rig.done().is_empty());
}

#[tokio::test]
async fn approvals_of_an_operator_who_lost_the_right_count_no_more() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("kim", &it).await, Some(1));
    rig.rules_for(approvals(2, 3600), &["ada", "bob"]);
    assert_eq!(rig.missing("bob", &it).await, Some(1), "Kim's does not count");
    // With the right it counts again: what waits is looked at with the rights of the moment.
    rig.rules(approvals(2, 3600));
    rig.desk.sweep().await.unwrap();
    assert_eq!(rig.done(), ["ada rotate payments/db by bob+kim"]);
}

#[tokio::test]
async fn an_order_of_an_operator_who_lost_the_right_is_void() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    rig.rules_for(approvals(2, 3600), &["bob", "kim"]);
    assert!(rig.refused("kim", &it).await.contains("is void: ada is no operator any more"));
    rig.desk.sweep().await.unwrap();
    assert!(rig.done().is_empty());
}

#[tokio::test]
async fn what_was_given_with_a_key_that_was_replaced_since_counts_no_more() {
    let mut rig = Rig::start().await;
    let (order, approval) = (rig.waiting(rotate()).await, rig.waiting(rotate()).await);
    assert_eq!(rig.missing("bob", &order).await, Some(1));
    assert_eq!(rig.missing("bob", &approval).await, Some(1));
    // Bob's old key has leaked, say: he approves anew with the new one.
    rig.keys[1] = SigningKey::generate();
    rig.rules(approvals(2, 3600));
    assert_eq!(rig.missing("kim", &approval).await, Some(1));
    assert_eq!(rig.missing("bob", &approval).await, None);
    rig.keys[0] = SigningKey::generate();
    rig.rules(approvals(2, 3600));
    assert!(rig.refused("kim", &order).await.contains("is void: ada is no operator any more with what"));
    assert_eq!(rig.done(), ["ada rotate payments/db by bob+kim"]);
}

#[tokio::test]
async fn a_reload_carries_nothing_out_that_is_not_approved() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    rig.rules(Terms::Alone);
    rig.desk.sweep().await.unwrap();
    assert!(rig.done().is_empty());
    assert_eq!(rig.missing("bob", &it).await, Some(1), "it still needs what it was asked for with");
}

#[tokio::test]
async fn an_order_is_void_once_its_rotation_goes_another_way() {
    let rig = Rig::start().await;
    let it = rig.waiting(abandon(2)).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    *rig.control.generation.lock().unwrap() = 5;
    assert!(rig.refused("kim", &it).await.contains("has changed direction"));
    assert!(rig.done().is_empty() && rig.desk.requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_asked_for_or_approved_that_is_not_on_record() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    *rig.control.log_fails.lock().unwrap() = true;
    assert!(rig.refused("kim", &it).await.contains("the disk is full"));
    assert!(rig.order("ada", rotate()).await.is_err());
    // The order that mends the log is taken all the same, and has its approvals in its own entry.
    let loss = rig.waiting(Wire::AcceptAuditLoss(v1::AcceptAuditLoss { doubt: "3f2a".into() })).await;
    assert_eq!(rig.missing("bob", &loss).await, Some(1));
    assert_eq!(rig.missing("kim", &loss).await, None);
    assert_eq!(rig.done(), ["ada accepts 3f2a by bob+kim"]);
    *rig.control.log_fails.lock().unwrap() = false;
    assert_eq!(rig.missing("kim", &it).await, None);
}

#[tokio::test]
async fn an_order_is_withdrawn_by_who_gave_it_and_an_approval_by_who_gave_that() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    let withdraw = |who: &str| {
        let withdraw = Wire::WithdrawRequest(v1::WithdrawRequest { request: it.request.id.to_string() });
        rig.give(rig.asks(who, SECRET, false, withdraw))
    };
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    assert!(withdraw("kim").await.is_err(), "she has done neither");
    assert!(withdraw("bob").await.is_ok());
    assert_eq!(rig.missing("kim", &it).await, Some(1), "Bob's approval is gone");
    assert!(withdraw("ada").await.is_ok());
    assert!(rig.refused("bob", &it).await.contains("not found"));
}

#[tokio::test]
async fn what_is_complete_and_was_not_carried_out_is_by_the_next_leader() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    // The leader that took the last approval died before it took the order out of the store.
    let stored = rig.tree.request(&it.request.id.to_string()).await.unwrap().unwrap();
    let mut request = Request::decode(&stored.id, &stored.bytes).unwrap();
    let by = SignedIn { name: name("kim"), credential: Credential::Key(rig.key("kim").public().id().to_string()) };
    let digest = it.digest.0.to_vec().into();
    let approve = Wire::ApproveRequest(v1::ApproveRequest { request: stored.id.clone(), digest });
    let (_, Asked::Approve { proof, .. }) = rig.asks("kim", SECRET, false, approve) else { panic!("an approval") };
    let signed = proof.signed().cloned();
    request.approvals.push(Approval { by: by.clone(), at: rotacast_clock::wall(), signed });
    let epoch = *rig.control.term.lock().unwrap();
    rig.tree.save_request(epoch, &stored.id, request.encode(), Some(stored.cursor)).await.unwrap();
    let (one, other) = tokio::join!(rig.desk.sweep(), rig.desk.sweep());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(rig.done(), ["ada rotate payments/db by bob+kim"], "once");
}

#[tokio::test]
async fn approvals_that_no_one_has_signed_do_not_count() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    let stored = rig.tree.request(&it.request.id.to_string()).await.unwrap().unwrap();
    let mut request = Request::decode(&stored.id, &stored.bytes).unwrap();
    // Another order's approval, and none at all, written into the store.
    let digest = vec![7; 32].into();
    let approve = Wire::ApproveRequest(v1::ApproveRequest { request: stored.id.clone(), digest });
    let (bob, Asked::Approve { proof, .. }) = rig.asks("bob", SECRET, false, approve) else { panic!("an approval") };
    let kim = SignedIn { name: name("kim"), credential: Credential::Key(rig.key("kim").public().id().to_string()) };
    let at = rotacast_clock::wall();
    request.approvals.push(Approval { by: bob, at, signed: proof.signed().cloned() });
    request.approvals.push(Approval { by: kim, at, signed: None });
    let epoch = *rig.control.term.lock().unwrap();
    rig.tree.save_request(epoch, &stored.id, request.encode(), Some(stored.cursor)).await.unwrap();
    rig.desk.sweep().await.unwrap();
    assert!(rig.done().is_empty());
    assert_eq!(rig.desk.requests().await.unwrap()[0].standing, Standing::Waits { missing: 2 });
}

#[tokio::test]
async fn an_emergency_is_acted_on_alone_with_a_reason_and_everyone_sees_it() {
    let rig = Rig::start().await;
    let asked = |who: &str| rig.asks(who, SECRET, true, abandon(2));
    assert!(rig.give(asked("bob")).await.err().unwrap().to_string().contains("no role for emergencies"));
    assert!(matches!(rig.give(asked("kim")).await, Ok(Outcome::Done(_))));
    assert_eq!(rig.done(), ["kim abandon payments/db by  alone"]);
    let finding = rig.findings.standing().into_iter().find(|it| it.topic == Topic::Emergency).unwrap();
    assert!(finding.text.contains("kim acted alone") && finding.text.contains("because"), "{finding:?}");
    // Without saying so, it waits like any other.
    assert!(matches!(rig.order("kim", abandon(2)).await, Ok(Outcome::Waits(_))));
}

#[tokio::test]
async fn an_emergency_is_seen_although_its_operator_has_closed_the_connection() {
    let rig = Rig::start().await;
    rig.control.held.send_replace(true);
    let mut come = rig.control.come.subscribe();
    tokio::select! {
        _ = rig.give(rig.asks("kim", SECRET, true, abandon(2))) => panic!("it is held up"),
        come = come.wait_for(|come| *come == 1) => assert!(come.is_ok()),
    }
    assert_eq!(rig.emergencies().len(), 1, "before anything is done");
    rig.control.held.send_replace(false);
    let done = async {
        while rig.done().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("the order goes on");
    assert_eq!(rig.emergencies().len(), 1);
}

#[tokio::test]
async fn an_emergency_stands_unless_it_was_certainly_not_carried_out() {
    let rig = Rig::start().await;
    let give = || rig.give(rig.asks("kim", SECRET, true, abandon(2)));
    let conflict = || Refusal::Conflict { problem: "there is no such version".into(), fix: String::new() };
    let unavailable = || Refusal::Unavailable { problem: "it may have been".into(), fix: String::new() };
    *rig.control.refuses.lock().unwrap() = Some(conflict);
    assert!(give().await.is_err());
    assert!(rig.emergencies().is_empty());
    *rig.control.refuses.lock().unwrap() = Some(unavailable);
    assert!(give().await.is_err());
    assert_eq!(rig.emergencies().len(), 1);
    // Several in one second are one finding, which says how many.
    *rig.control.refuses.lock().unwrap() = None;
    assert!(give().await.is_ok());
    *rig.control.refuses.lock().unwrap() = Some(conflict);
    assert!(give().await.is_err());
    let told = rig.emergencies();
    assert!(told.len() == 1 && told[0].contains("2 times"), "{told:?}");
}

#[tokio::test]
async fn a_reload_that_asks_for_fewer_approvals_carries_nothing_out() {
    let rig = Rig::start().await;
    let it = rig.waiting(rotate()).await;
    assert_eq!(rig.missing("bob", &it).await, Some(1));
    rig.rules(approvals(1, 3600));
    rig.desk.sweep().await.unwrap();
    assert!(rig.done().is_empty(), "two were asked for");
    assert_eq!(rig.missing("kim", &it).await, None);
}

#[tokio::test]
async fn orders_without_a_right_cannot_fill_the_audit_log() {
    let rig = Rig::start().await;
    for _ in 0..100 {
        assert!(matches!(rig.order("eve", rotate()).await, Err(Refusal::Denied { .. })));
    }
    assert!(rig.entries("order_denied") <= 3, "{}", rig.entries("order_denied"));
    rig.desk.record_denied().await;
    assert_eq!(rig.entries("orders_denied"), 0, "they are still folded");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    rig.desk.record_denied().await;
    rig.desk.record_denied().await;
    assert_eq!(rig.entries("orders_denied"), 1, "once");
    assert!(rig.control.entries.lock().unwrap().join("").contains("97"));
    assert!(matches!(rig.order("eve", rotate()).await, Err(Refusal::Denied { .. })));
    assert_eq!(rig.entries("order_denied"), 4, "a later one has its own entry again");
}

#[tokio::test]
async fn requests_are_bounded_per_operator_when_they_come_at_once() {
    let rig = Rig::start().await;
    let outcomes = futures::future::join_all((1..=40).map(|version| rig.order("ada", abandon(version)))).await;
    let waiting = outcomes.iter().filter(|it| matches!(it, Ok(Outcome::Waits(_)))).count();
    assert_eq!((waiting, rig.desk.requests().await.unwrap().len()), (32, 32));
}

#[tokio::test]
async fn requests_are_bounded_per_operator() {
    let rig = Rig::start().await;
    for version in 1..=32 {
        rig.waiting(abandon(version)).await;
    }
    assert!(matches!(rig.order("ada", abandon(33)).await, Err(Refusal::Busy(_))));
    assert!(matches!(rig.order("bob", abandon(33)).await, Ok(Outcome::Waits(_))));
}
