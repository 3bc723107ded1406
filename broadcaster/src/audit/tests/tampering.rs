//! What is done to a log's files from outside, and how it shows.

use std::time::Duration;

use rotacast_proto::{Envelope, Kind, SecretValue, VerifyingKey, v1};
use rotacast_protocol::{AuditChain, OperatorName};
use rotacast_store::{AuditHead, Commit, Cursor, EmbeddedStore, Prefix, SecretTree, Write};

use super::*;
use crate::audit::{ACCEPT_LOSS, Anchor, LogName, OrderProof, compare};
use crate::findings::{Findings, Topic};

/// Far above anything here; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two replicas' logs and the store that knows where they end.
pub(super) struct Rig {
    folder: tempfile::TempDir,
    pub(super) tree: SecretTree,
    pub(super) findings: Findings,
}

pub(super) fn named(name: &str) -> LogName {
    LogName { name: name.into(), named: true }
}

impl Rig {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
        let tree = SecretTree::new(Arc::new(store), Prefix::new("rotacast").unwrap());
        Self { folder, tree, findings: Findings::default() }
    }

    fn path(&self, replica: &str) -> PathBuf {
        self.folder.path().join(replica).join("audit.jsonl")
    }

    async fn start(&self, replica: &str) -> AuditLog {
        self.start_with(replica, AuditOptions::default()).await
    }

    async fn start_with(&self, replica: &str, options: AuditOptions) -> AuditLog {
        let log = open(&self.path(replica), options).unwrap();
        log.anchor(Anchor::new(self.tree.clone(), named(replica), self.findings.clone())).await.unwrap();
        log
    }

    /// A replica's log with entries that the store knows, closed in order.
    async fn written(&self, replica: &str, entries: u64) -> Head {
        let log = self.start(replica).await;
        for number in 1..=entries {
            log.append(entry(number)).await.unwrap();
        }
        log.close().await;
        let (_, head) = *log.shared_for_tests().head.borrow();
        head
    }

    pub(super) async fn heads(&self) -> Vec<AuditHead> {
        self.tree.audit_heads().await.unwrap().heads.into_iter().map(|stored| stored.head).collect()
    }

    /// What `rotacast audit verify --store` finds without a broadcaster.
    async fn offline(&self, replica: &str) -> Result<Option<u64>, Doubt> {
        let path = self.path(replica);
        let verified = match path.exists() {
            true => verify(&path, &Expectations::default()).unwrap(),
            false => crate::audit::Verified::EMPTY,
        };
        compare(&path, &verified, &named(replica), &self.heads().await).unwrap()
    }

    pub(super) fn finding(&self) -> Option<String> {
        let standing = self.findings.standing().into_iter();
        standing.filter(|it| it.topic == Topic::Audit && it.subject == "log").map(|it| it.text + " " + &it.fix).next()
    }

    pub(super) async fn until(&self, what: &str, wanted: impl Fn(Option<&str>) -> bool) {
        let looking = async {
            while !wanted(self.finding().as_deref()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("{what}: the finding is {:?}", self.finding()));
    }
}

/// What is done to a log of eight entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tampering {
    CutsTheTail,
    DeletesTheFile,
    PutsAnOldCopy,
    WritesAllAnew,
    ChangesALineInPlace,
    SwapsTheReplicas,
}

const ALL: [Tampering; 6] = [
    Tampering::CutsTheTail,
    Tampering::DeletesTheFile,
    Tampering::PutsAnOldCopy,
    Tampering::WritesAllAnew,
    Tampering::ChangesALineInPlace,
    Tampering::SwapsTheReplicas,
];

impl Tampering {
    /// Changes the files of `one`; `old` is a copy from before its last entries.
    async fn apply(self, rig: &Rig, old: &[u8]) {
        let path = rig.path("one");
        let text = std::fs::read_to_string(&path).unwrap();
        match self {
            Self::CutsTheTail => {
                let kept: String = text.split_inclusive('\n').take(5).collect();
                std::fs::write(&path, kept).unwrap();
            }
            Self::DeletesTheFile => std::fs::remove_file(&path).unwrap(),
            Self::PutsAnOldCopy => std::fs::write(&path, old).unwrap(),
            Self::WritesAllAnew => {
                // The same chain, the same number of entries, every hash right, and another story.
                let forged = rewritten(&text, |entry| entry.replace("\"broadcaster\"", "\"broadcastor\""));
                assert_eq!(forged.len(), text.len());
                std::fs::write(&path, forged).unwrap();
            }
            Self::ChangesALineInPlace => {
                std::fs::write(&path, text.replacen("\"version\":2", "\"version\":9", 1)).unwrap()
            }
            Self::SwapsTheReplicas => {
                let (one, two, aside) = (path, rig.path("two"), rig.folder.path().join("aside"));
                std::fs::rename(&one, &aside).unwrap();
                std::fs::rename(&two, &one).unwrap();
                std::fs::rename(&aside, &two).unwrap();
            }
        }
    }
}

/// A log's text with every line changed and every hash made right again, as any program can.
fn rewritten(text: &str, change: impl Fn(&str) -> String) -> String {
    use sha2::Digest as _;
    let mut prev = "0".repeat(64);
    let mut all = String::new();
    for line in text.lines() {
        let (body, _) = line.rsplit_once(",\"hash\":\"").unwrap();
        let (body, _) = body.rsplit_once(",\"prev\":\"").unwrap();
        let body = format!("{},\"prev\":\"{prev}\"", change(body));
        prev = hex::encode(sha2::Sha256::digest(format!("rotacast-audit-2\n{body}")));
        all += &format!("{body},\"hash\":\"{prev}\"}}\n");
    }
    all
}

/// Two replicas' logs: `one` has a copy from before its last entries.
async fn two_logs(rig: &Rig) -> Vec<u8> {
    rig.written("one", 4).await;
    let old = std::fs::read(rig.path("one")).unwrap();
    rig.written("one", 4).await;
    rig.written("two", 5).await;
    old
}

#[tokio::test]
async fn each_tampering_while_stopped_is_found_at_the_start_and_offline() {
    for tampering in ALL {
        let rig = Rig::new().await;
        let old = two_logs(&rig).await;
        assert_eq!(rig.offline("one").await, Ok(Some(0)));
        tampering.apply(&rig, &old).await;

        if tampering == Tampering::ChangesALineInPlace {
            assert!(problem(&rig.path("one")).contains("the line was changed"));
        } else {
            // By themselves the files look whole: that is what the store is for.
            let found = rig.offline("one").await.unwrap_err();
            eprintln!("{tampering:?}: {found}");
        }
        let log = rig.start("one").await;
        let finding = rig.finding().unwrap_or_else(|| panic!("{tampering:?}: no finding"));
        let (id, doubt) = log.doubt().unwrap();
        assert!(finding.contains(&doubt.to_string()), "{tampering:?}: {finding}");
        assert!(
            finding.contains(&format!("`rotacast audit accept-loss {id} --reason WHY`")),
            "{tampering:?}: {finding}"
        );
        let refused = log.append(entry(9)).await.unwrap_err();
        assert!(matches!(refused, AuditError::Doubtful(_) | AuditError::Broken(_)), "{tampering:?}: {refused}");
        assert!(log.append_known(entry(9)).await.is_err());
    }
}

#[tokio::test]
async fn each_tampering_while_running_is_found_and_put_back_it_is_taken_up_without_a_restart() {
    for tampering in ALL.into_iter().filter(|it| *it != Tampering::SwapsTheReplicas) {
        let rig = Rig::new().await;
        let old = two_logs(&rig).await;
        let log = rig.start("one").await;
        log.append_known(entry(1)).await.unwrap();
        let good = std::fs::read(rig.path("one")).unwrap();
        tampering.apply(&rig, &old).await;
        rig.until(&format!("{tampering:?}"), |finding| finding.is_some()).await;
        let refused = log.append(entry(2)).await.unwrap_err();
        assert!(matches!(refused, AuditError::Disturbed { .. }), "{tampering:?}: {refused}");
        std::fs::write(rig.path("one"), &good).unwrap();
        rig.until(&format!("{tampering:?} put back"), |finding| finding.is_none()).await;
        log.append_known(entry(2)).await.unwrap();
        log.close().await;
        drop(log);
        assert_eq!(rig.offline("one").await, Ok(Some(0)), "{tampering:?}");
    }
}

#[tokio::test]
async fn files_that_are_put_back_end_the_doubt_of_the_start() {
    let rig = Rig::new().await;
    let old = two_logs(&rig).await;
    let good = std::fs::read(rig.path("one")).unwrap();
    std::fs::write(rig.path("one"), old).unwrap();
    let log = rig.start("one").await;
    assert!(matches!(log.doubt(), Some((_, Doubt::Behind { .. }))), "{:?}", log.doubt());
    std::fs::write(rig.path("one"), good).unwrap();
    rig.until("put back", |finding| finding.is_none()).await;
    assert!(log.doubt().is_none());
    log.append_known(entry(9)).await.unwrap();
}

/// An operator's order to accept a loss.
fn acceptance(operator: &SigningKey, doubt: &str) -> OrderProof {
    let action = v1::operator_command::Action::AcceptAuditLoss(v1::AcceptAuditLoss { doubt: doubt.into() });
    let command = v1::OperatorCommand {
        operator: "ada".into(),
        reason: "the disk broke".into(),
        action: Some(action),
        ..v1::OperatorCommand::default()
    };
    let payload = prost::Message::encode_to_vec(&command).into();
    let cluster = ClusterName::new("test").unwrap();
    let time = rotacast_protocol::WallTime(0);
    OrderProof::Signed(Box::new(Envelope::sign(operator, Kind::OperatorCommand, &cluster, "", "id", time, payload)))
}

#[tokio::test]
async fn an_accepted_loss_is_on_record_and_no_number_is_used_twice() {
    let ada = OperatorName::new("ada").unwrap();
    let operator = SigningKey::from_seed(&[9; 32]);
    for tampering in ALL {
        let rig = Rig::new().await;
        let old = two_logs(&rig).await;
        let before = rig.heads().await.into_iter().find(|head| head.log == "one").unwrap();
        tampering.apply(&rig, &old).await;
        let log = rig.start("one").await;
        let (id, _) = log.doubt().unwrap();
        let another = "0123456789abcdef";
        let refused = log.accept_loss(&ada, another, "the disk broke", |entry| entry).await.unwrap_err().to_string();
        assert!(refused.contains(&id) && refused.contains(another), "{tampering:?}: {refused}");
        assert!(log.append(entry(1)).await.is_err(), "{tampering:?}");

        let proof = acceptance(&operator, &id);
        let accepted = log.accept_loss(&ada, &id, "the disk broke", |entry| entry.proved(proof)).await.unwrap();
        assert!(accepted.sequence > before.sequence + super::super::loss::MAX_AHEAD, "{tampering:?}: {accepted:?}");
        assert!(rig.finding().is_none() && log.doubt().is_none(), "{tampering:?}");
        log.append_known(entry(1)).await.unwrap();
        log.close().await;
        drop(log);

        let expectations = Expectations {
            signers: vec![key().public().clone()],
            operators: vec![(ada.clone(), operator.public().clone())],
            ..Expectations::default()
        };
        let verified = verify(&rig.path("one"), &expectations).unwrap_or_else(|error| panic!("{tampering:?}: {error}"));
        assert_eq!(verified.chain, Some(before.chain), "{tampering:?}: it is the same log");
        assert_eq!((verified.losses.len(), verified.orders), (1, 1), "{tampering:?}");
        let loss = &verified.losses[0];
        assert_eq!((&*loss.by, &*loss.reason, loss.known.sequence), ("ada", "the disk broke", before.sequence));
        assert_eq!(rig.offline("one").await, Ok(Some(0)), "{tampering:?}");
        // And the next start finds it in order.
        let log = rig.start("one").await;
        assert!(log.doubt().is_none(), "{tampering:?}: {:?}", log.doubt());

        // An operator who is not known to have a key cannot have accepted it.
        let mallory = Expectations { operators: vec![(ada.clone(), key().public().clone())], ..expectations };
        assert!(verify(&rig.path("one"), &mallory).unwrap_err().to_string().contains("order of ada"), "{tampering:?}");
    }
    assert_eq!(ACCEPT_LOSS, "accept_audit_loss");
}

#[tokio::test]
async fn a_forged_acceptance_does_not_end_a_doubt() {
    let rig = Rig::new().await;
    two_logs(&rig).await;
    let head = rig.heads().await.into_iter().find(|head| head.log == "one").unwrap();
    // A program that may write the file cuts the tail, and says in the operator's name that it is accepted.
    let text = std::fs::read_to_string(rig.path("one")).unwrap();
    let kept: String = text.split_inclusive('\n').take(3).collect();
    let known = Head { sequence: head.sequence, hash: head.hash.parse().unwrap() };
    let entry = super::super::loss::entry(&OperatorName::new("ada").unwrap(), known, "it was cut", "really");
    let (line, _) = super::super::line::write(
        &entry,
        head.chain,
        super::super::loss::before(known),
        rotacast_protocol::WallTime(1),
    )
    .unwrap();
    std::fs::write(rig.path("one"), kept + std::str::from_utf8(&line).unwrap()).unwrap();
    let log = rig.start("one").await;
    assert!(matches!(log.doubt(), Some((_, Doubt::Missing { .. }))), "{:?}", log.doubt());
}

#[tokio::test]
async fn an_entry_that_the_store_had_not_heard_of_is_on_record_as_such() {
    let rig = Rig::new().await;
    rig.written("one", 3).await;
    // Killed between the file and the store.
    write(&rig.path("one"), AuditOptions::default(), 4..=5).await;
    let known = rig.heads().await[0].sequence;
    let log = rig.start("one").await;
    assert!(log.doubt().is_none(), "a crash is no loss: {:?}", log.doubt());
    let mut continued = Vec::new();
    read::<AuditError>(&rig.path("one"), &Expectations::default(), |entry| {
        continued.extend((entry.action == "log_continued").then_some(entry.details));
        Ok(())
    })
    .unwrap();
    assert_eq!(continued.len(), 1);
    assert_eq!((continued[0]["known"].as_u64(), continued[0]["beyond"].as_u64()), (Some(known), Some(2)));
    log.close().await;
    drop(log);
    // In order: nothing to say.
    let before = rig.heads().await[0].sequence;
    let log = rig.start("one").await;
    log.close().await;
    assert_eq!(rig.heads().await[0].sequence, before);
}

#[tokio::test]
async fn what_is_irreversible_waits_until_the_store_knows_its_entry() {
    let rig = Rig::new().await;
    let log = rig.start("one").await;
    for number in 1..=3 {
        let receipt = log.append_known(entry(number)).await.unwrap();
        let head = rig.heads().await.pop().unwrap();
        assert_eq!((head.sequence, head.hash), (receipt.sequence, receipt.hash.to_string()));
    }
}

#[tokio::test]
async fn a_second_broadcaster_that_writes_a_copy_of_the_log_is_found() {
    let rig = Rig::new().await;
    rig.written("one", 3).await;
    let copy = rig.folder.path().join("copy.jsonl");
    std::fs::copy(rig.path("one"), &copy).unwrap();
    let log = rig.start("one").await;
    let second = open(&copy, AuditOptions::default()).unwrap();
    second.anchor(Anchor::new(rig.tree.clone(), named("one"), Findings::default())).await.unwrap();
    second.append_known(entry(4)).await.unwrap();
    let refused = log.append_known(entry(5)).await.unwrap_err();
    assert!(matches!(refused, AuditError::Doubtful(_)), "{refused}");
    // Under a name of its own it is refused at once.
    let third = open(&rig.path("third"), AuditOptions::default()).unwrap();
    drop(third);
    std::fs::copy(&copy, rig.path("third")).unwrap();
    let third = rig.start("third").await;
    assert!(matches!(third.doubt(), Some((_, Doubt::Foreign { log, .. })) if log == "one"), "{:?}", third.doubt());
}

#[tokio::test]
async fn a_log_without_a_replicas_name_follows_its_file() {
    let rig = Rig::new().await;
    let here = |name: &str| LogName { name: name.into(), named: false };
    let start = async |name: &str| {
        let log = open(&rig.path("one"), AuditOptions::default()).unwrap();
        log.anchor(Anchor::new(rig.tree.clone(), here(name), rig.findings.clone())).await.unwrap();
        log
    };
    let log = start("pod-1:/data/audit.jsonl").await;
    log.append_known(entry(1)).await.unwrap();
    drop(log);
    // Another host has the disk now.
    let log = start("pod-2:/data/audit.jsonl").await;
    assert!(log.doubt().is_none(), "{:?}", log.doubt());
    assert_eq!(rig.heads().await.iter().map(|head| &*head.log).collect::<Vec<_>>(), ["pod-2:/data/audit.jsonl"]);
    drop(log);
    std::fs::remove_file(rig.path("one")).unwrap();
    let log = start("pod-2:/data/audit.jsonl").await;
    assert!(matches!(log.doubt(), Some((_, Doubt::Gone { .. }))), "{:?}", log.doubt());
}

#[tokio::test]
async fn a_head_that_is_deleted_while_the_log_is_written_comes_back() {
    let rig = Rig::new().await;
    let log = rig.start("one").await;
    log.append_known(entry(1)).await.unwrap();
    let key = rig.tree.prefix().key().child("audit").child(rig.heads().await[0].chain);
    let delete = rotacast_store::Write::Delete(key);
    rig.tree.store().commit(rotacast_store::Commit { checks: Vec::new(), writes: vec![delete] }).await.unwrap();
    let receipt = log.append_known(entry(2)).await.unwrap();
    assert_eq!(rig.heads().await[0].sequence, receipt.sequence);
    // A store that was restored from a backup has an older one: so has the log.
    let stored = rig.tree.audit_heads().await.unwrap().heads.pop().unwrap();
    let first = AuditHead { sequence: 1, hash: first_hash(&rig.path("one")), ..stored.head };
    let cursor: Cursor = stored.cursor;
    rig.tree.save_audit_head(&first, Some(cursor)).await.unwrap();
    let receipt = log.append_known(entry(3)).await.unwrap();
    assert_eq!(rig.heads().await[0].sequence, receipt.sequence);
}

fn first_hash(path: &Path) -> String {
    super::super::verify::hash_at(path, 1).unwrap().unwrap().to_string()
}

#[tokio::test]
async fn a_log_written_anew_is_found_with_the_public_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = open(&path, AuditOptions::default()).unwrap();
    for number in 1..=600 {
        log.append(entry(number)).await.unwrap();
    }
    log.close().await;
    drop(log);
    let with = |keys: &[&VerifyingKey]| Expectations {
        signers: keys.iter().map(|key| (*key).clone()).collect(),
        ..Expectations::default()
    };
    let (ours, other) = (key(), SigningKey::generate());
    let verified = verify(&path, &with(&[other.public(), ours.public()])).unwrap();
    assert_eq!(
        (verified.entries, verified.signed),
        (603, Some(602)),
        "one checkpoint in 256 entries, and one at the end"
    );
    let refused = verify(&path, &with(&[other.public()])).unwrap_err().to_string();
    assert!(refused.contains("checkpoint: signed with key"), "{refused}");

    let text = std::fs::read_to_string(&path).unwrap();
    let changed = rewritten(&text, |line| line.replacen("\"version\":7,", "\"version\":8,", 1));
    std::fs::write(&path, &changed).unwrap();
    assert!(verify(&path, &Expectations::default()).is_ok(), "the chain alone is right");
    let found = verify(&path, &with(&[ours.public()])).unwrap_err().to_string();
    assert!(
        found.contains("audit.jsonl:257: checkpoint of") && found.contains("the lines before it were replaced"),
        "{found}"
    );

    // Without its checkpoints it is no log that a broadcaster wrote.
    let mut sequence = 0;
    let without: String =
        text.lines().filter(|line| !line.contains("\"action\":\"checkpoint\"")).fold(String::new(), |all, line| {
            sequence += 1;
            let (before, rest) = line.split_once("\"sequence\":").unwrap();
            let (_, after) = rest.split_once(',').unwrap();
            all + &format!("{before}\"sequence\":{sequence},{after}\n")
        });
    std::fs::write(&path, rewritten(&without, str::to_owned)).unwrap();
    assert!(verify(&path, &Expectations::default()).is_ok(), "the chain alone is right");
    let found = verify(&path, &with(&[ours.public()])).unwrap_err().to_string();
    assert!(found.contains("513 entries without a checkpoint"), "{found}");
    assert_eq!(
        verify(&path, &Expectations::default()).unwrap().chain.map(|it: AuditChain| it.to_string().len()),
        Some(32)
    );
}

#[tokio::test]
async fn an_operators_order_is_checked_against_their_signature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let (ada, bob) = (OperatorName::new("ada").unwrap(), OperatorName::new("bob").unwrap());
    let key = SigningKey::generate();
    let action = v1::operator_command::Action::Pause(v1::Pause {});
    let command = v1::OperatorCommand {
        operator: "ada".into(),
        secret: "payments/db".into(),
        reason: "freeze".into(),
        action: Some(action),
        ..v1::OperatorCommand::default()
    };
    let payload = prost::Message::encode_to_vec(&command).into();
    let cluster = ClusterName::new("test").unwrap();
    let time = rotacast_protocol::WallTime(0);
    let signed = Envelope::sign(&key, Kind::OperatorCommand, &cluster, "payments/db", "id", time, payload);
    let proof = || OrderProof::Signed(Box::new(signed.clone()));
    let secret = |name: &str| SecretName::new(name).unwrap();
    let check = async |entry: Entry| {
        let _ = std::fs::remove_file(&path);
        let log = open(&path, AuditOptions::default()).unwrap();
        log.append(entry).await.unwrap();
        drop(log);
        let operators =
            vec![(ada.clone(), key.public().clone()), (bob.clone(), SigningKey::generate().public().clone())];
        verify(&path, &Expectations { operators, ..Expectations::default() })
            .map(|verified| verified.orders)
            .map_err(|error| error.to_string())
    };
    let ordered = |by, order, name| Entry::ordered(by, order, proof()).secret(secret(name));
    assert_eq!(check(ordered(&ada, "pause", "payments/db")).await, Ok(1));
    let refused = check(ordered(&bob, "pause", "payments/db")).await.unwrap_err();
    assert!(refused.contains("order of bob: signed with key"), "{refused}");
    let refused = check(ordered(&ada, "resume", "payments/db")).await.unwrap_err();
    assert!(refused.contains("the entry says \"resume\", the operator signed \"pause\""), "{refused}");
    let refused = check(ordered(&ada, "pause", "other/db")).await.unwrap_err();
    assert!(refused.contains("for \"other/db\", the signature about one of ada for \"payments/db\""), "{refused}");
    // On the dashboard no operator signs.
    let unsigned = Entry::ordered(&bob, "pause", OrderProof::Dashboard).secret(secret("payments/db"));
    assert_eq!(check(unsigned).await, Ok(0));
}

#[tokio::test]
async fn an_operators_approval_is_checked_against_their_signature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let key = SigningKey::generate();
    let sign = |action| {
        let (operator, secret) = ("bob".to_owned(), "payments/db".to_owned());
        let command = v1::OperatorCommand { operator, secret, action: Some(action), ..v1::OperatorCommand::default() };
        let (payload, cluster) = (prost::Message::encode_to_vec(&command).into(), ClusterName::new("test").unwrap());
        let time = rotacast_protocol::WallTime(0);
        let signed = Envelope::sign(&key, Kind::OperatorCommand, &cluster, "payments/db", "id", time, payload);
        OrderProof::Signed(Box::new(signed))
    };
    let approve = || {
        let approved = v1::ApproveRequest { request: "00000000000000a1".into(), digest: vec![7; 32].into() };
        sign(v1::operator_command::Action::ApproveRequest(approved))
    };
    let check = async |action: &str, request: &str, proof: OrderProof| {
        let _ = std::fs::remove_file(&path);
        let entry = Entry::new("bob", action).detail("request", request).detail("order", "rotate").proved(proof);
        let log = open(&path, AuditOptions::default()).unwrap();
        log.append(entry.secret(SecretName::new("payments/db").unwrap())).await.unwrap();
        drop(log);
        let operators = vec![(OperatorName::new("bob").unwrap(), key.public().clone())];
        verify(&path, &Expectations { operators, ..Expectations::default() })
            .map(|verified| verified.orders)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(super::super::APPROVED, "00000000000000a1", approve()).await, Ok(1));
    let other = check(super::super::APPROVED, "00000000000000a2", approve()).await.unwrap_err();
    assert!(
        other.contains("the entry is about request 00000000000000a2, the signature about 00000000000000a1"),
        "{other}"
    );
    // Another thing that Bob has signed is no approval, and an approval is no order of his.
    let pause = sign(v1::operator_command::Action::Resume(v1::Resume {}));
    let other = check(super::super::APPROVED, "00000000000000a1", pause).await.unwrap_err();
    assert!(other.contains("signed another thing"), "{other}");
    assert!(check("ordered", "00000000000000a1", approve()).await.is_err());
}

#[tokio::test]
async fn a_file_is_closed_by_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(&path, AuditOptions::default(), 1..=2).await;
    // The first entry lies in the past by now.
    let aged = AuditOptions { max_file_age: Duration::ZERO, ..AuditOptions::default() };
    write(&path, aged, 3..=4).await;
    let verified = verify(&path, &Expectations::default()).unwrap();
    assert_eq!((verified.entries, verified.files), (4, 3));
}

#[tokio::test]
async fn programs_that_rotate_logs_are_found_out_and_what_they_did_is_undone_without_a_restart() {
    let rig = Rig::new().await;
    let log = rig.start("one").await;
    log.append_known(entry(1)).await.unwrap();
    let path = rig.path("one");
    let moved = path.with_extension("jsonl.1");

    // `create`: the file is moved, and an empty one is in its place.
    std::fs::rename(&path, &moved).unwrap();
    std::fs::write(&path, "").unwrap();
    let refused = log.append(entry(2)).await.unwrap_err().to_string();
    assert!(refused.contains("another file is in its place") && refused.contains("without a restart"), "{refused}");
    std::fs::rename(&moved, &path).unwrap();
    log.append_known(entry(2)).await.unwrap();

    // `copytruncate`: it is copied and emptied.
    std::fs::copy(&path, &moved).unwrap();
    std::fs::write(&path, "").unwrap();
    let refused = log.append(entry(3)).await.unwrap_err().to_string();
    assert!(refused.contains("0 bytes long"), "{refused}");
    std::fs::rename(&moved, &path).unwrap();
    log.append_known(entry(3)).await.unwrap();

    // Its rights may be changed at any time.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    log.append_known(entry(4)).await.unwrap();
}

/// A head that cannot be read is one finding, at the start and while the log is written; the log is told anew once it is gone.
#[tokio::test]
async fn a_head_that_cannot_be_read_is_a_finding_and_ends_nothing() {
    let rig = Rig::new().await;
    rig.written("one", 3).await;
    let chain = rig.heads().await[0].chain;
    let key = rig.tree.prefix().key().child("audit").child(chain);
    let put = |write| Commit { checks: Vec::new(), writes: vec![write] };
    rig.tree.store().commit(put(Write::Put(key.clone(), SecretValue::new(b"junk".to_vec())))).await.unwrap();
    let strange = || rig.findings.standing().into_iter().any(|it| it.subject == key.to_string());
    let log = rig.start("one").await;
    assert!(strange());
    log.append(entry(4)).await.unwrap();
    rig.tree.store().commit(put(Write::Delete(key.clone()))).await.unwrap();
    let told = async {
        while strange() || rig.heads().await.iter().all(|head| head.sequence < 4) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the store is not told again");
    log.close().await;
}
