//! What holds for every message: it reads back, what is no message is refused without a panic, and
//! nobody can change one bit of what is signed. A failing case prints its seed.

mod arbitrary;
mod status;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use rotacast_proto::{
    Envelope, EnvelopeError, MAX_AUTH_FAILURE_VERSIONS, MAX_FIELD_BYTES, MAX_PAYLOAD_BYTES, ReplyWithKeys, SecretValue,
    SigningKey, SyncWithKeys, WireMessage, order_from_wire, v1,
};
use rotacast_protocol::message::{
    Failure, FailureKind, FetchRequest, InstanceReport, MAX_FAILURE_TEXT_BYTES, Registration, SecretState, SyncReply,
    SyncRequest,
};
use rotacast_protocol::status::{BroadcasterStatus, InstanceStatus, SecretStatus};
use rotacast_protocol::{Challenge, ClusterName, Version, WallTime};

fn reads_back<M: WireMessage + PartialEq + Debug>(message: &M) {
    assert_eq!(&M::decode(&message.encode()).unwrap(), message);
}

fn seal<M: WireMessage>(message: &M, key: &SigningKey, cluster: &ClusterName) -> Envelope {
    message.seal(key, cluster, "id-1", WallTime(1_795_392_000_000))
}

/// Sealed, carried as headers and as protobuf, opened: still the same.
fn travels<M: WireMessage + PartialEq + Debug>(message: &M, key: &SigningKey, cluster: &ClusterName) {
    let envelope = Envelope { traceparent: "00-0af7-b7ad-01".into(), ..seal(message, key, cluster) };
    let open = |envelope: &Envelope| {
        M::open(envelope, cluster, |id, subject| {
            assert_eq!((id, subject), (key.public().id().as_str(), envelope.subject.as_str()));
            Some(key.public())
        })
    };

    let headers = envelope.headers();
    // Brokers and proxies change the case of header names.
    let shouted: Vec<_> = headers.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
    let by_headers =
        Envelope::from_headers(shouted.iter().map(|(name, value)| (&**name, &**value)), envelope.payload.clone());
    let by_headers = by_headers.unwrap();
    assert_eq!(by_headers, envelope);
    assert_eq!(&open(&by_headers).unwrap(), message);

    let wire = v1::Envelope::from(envelope.clone()).encode_to_vec();
    let by_protobuf = Envelope::from(v1::Envelope::decode(&wire[..]).unwrap());
    assert_eq!(by_protobuf, envelope);
    assert_eq!(&open(&by_protobuf).unwrap(), message);
}

proptest! {
    #[test]
    fn a_registration_reads_back(message in arbitrary::registration()) { reads_back(&message); }
    #[test]
    fn a_secret_state_reads_back(message in arbitrary::secret_state()) { reads_back(&message); }
    #[test]
    fn a_report_reads_back(message in arbitrary::report()) { reads_back(&message); }
    #[test]
    fn a_sync_request_reads_back(message in arbitrary::sync_request()) { reads_back(&message); }
    #[test]
    fn a_sync_reply_reads_back(message in arbitrary::sync_reply()) { reads_back(&message); }
    #[test]
    fn a_fetch_request_reads_back(message in arbitrary::fetch_request()) { reads_back(&message); }

    #[test]
    fn a_broadcasters_status_reads_back(status in status::broadcaster_status()) {
        assert_eq!(BroadcasterStatus::try_from(v1::StatusReply::from(status.clone())).unwrap(), status);
    }
    #[test]
    fn an_instances_status_reads_back(status in status::instance_status()) {
        assert_eq!(InstanceStatus::try_from(v1::InstanceInfo::from(status.clone())).unwrap(), status);
    }
    #[test]
    fn an_order_reads_back(order in status::order()) {
        let reason = order.reason().map(ToString::to_string).unwrap_or_default();
        assert_eq!(order_from_wire((&order).into(), &reason), Ok(order));
    }

    #[test]
    fn envelopes_travel_in_headers_and_in_protobuf(
        state in arbitrary::secret_state(),
        report in arbitrary::report(),
        seed in any::<[u8; 32]>(),
        cluster in arbitrary::cluster(),
    ) {
        let key = SigningKey::from_seed(&seed);
        travels(&state, &key, &cluster);
        travels(&report, &key, &cluster);
    }

    /// What says nothing of keys reads a message that does, and the other way round.
    #[test]
    fn keys_are_read_where_they_are_looked_for(
        request in arbitrary::sync_request(),
        reply in arbitrary::sync_reply(),
        seeds in prop::collection::btree_set(any::<[u8; 32]>(), 0..4),
    ) {
        let announced: Vec<_> = seeds.iter().map(|seed| SigningKey::from_seed(seed).public().clone()).collect();
        let trusted: Vec<_> = announced.iter().map(|key| key.id().clone()).collect();
        let with = SyncWithKeys { request: request.clone(), trusted, announced: Vec::new() };
        reads_back(&with);
        prop_assert_eq!(SyncRequest::decode(&with.encode()).unwrap(), request.clone());
        let without = SyncWithKeys::decode(&request.encode()).unwrap();
        prop_assert!(without.trusted.is_empty() && without.announced.is_empty());
        let with = ReplyWithKeys { reply: reply.clone(), announced };
        reads_back(&with);
        prop_assert_eq!(SyncReply::decode(&with.encode()).unwrap(), reply);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_as_everything(&bytes.into());
    }

    /// Nearly right bytes reach far deeper into a decoder than random ones.
    #[test]
    fn damaged_messages_never_panic(
        reply in arbitrary::sync_reply(),
        request in arbitrary::sync_request(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        length in any::<Index>(),
    ) {
        for payload in [reply.encode(), request.encode()] {
            let mut bytes = payload.to_vec();
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            decode_as_everything(&bytes.clone().into());
            bytes.truncate(length.index(bytes.len()));
            decode_as_everything(&bytes.into());
        }
    }

    #[test]
    fn arbitrary_headers_never_panic(
        values in prop::collection::vec((0..8_usize, any::<String>()), 0..12),
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let names = ["ce-id", "ce-type", "ce-source", "ce-subject", "ce-time", "traceparent", "rotacast-key",
            "rotacast-signature"];
        let headers = values.iter().map(|(name, value)| (names[*name], value.as_str()));
        if let Ok(envelope) = Envelope::from_headers(headers, payload.into()) {
            let key = SigningKey::from_seed(&[7; 32]);
            let cluster = ClusterName::new("test").unwrap();
            prop_assert!(SecretState::open(&envelope, &cluster, |_, _| Some(key.public())).is_err());
        }
    }

    /// The promise of the signature: type, cluster, subject and payload are as they were signed.
    #[test]
    fn one_flipped_bit_is_noticed(
        state in arbitrary::secret_state(),
        seed in any::<[u8; 32]>(),
        cluster in arbitrary::cluster(),
        part in 0..5_usize,
        at in any::<Index>(),
        bit in 0..8_u32,
    ) {
        let key = SigningKey::from_seed(&seed);
        let envelope = seal(&state, &key, &cluster);
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        // A flip that is no longer UTF-8 cannot even be put into a header.
        let text = |text: &str| String::from_utf8(flip(text.as_bytes())).ok();
        let mut changed = envelope.clone();
        match part {
            0 => changed.payload = flip(&envelope.payload).into(),
            1 => changed.signature = flip(&envelope.signature).into(),
            2 => changed.subject = match text(&envelope.subject) { Some(text) => text, None => return Ok(()) },
            3 => changed.kind = match text(&envelope.kind) { Some(text) => text, None => return Ok(()) },
            _ => changed.source = match text(&envelope.source) { Some(text) => text, None => return Ok(()) },
        }
        // Asked as a receiver would that believes the changed text, too.
        let opened = SecretState::open(&changed, &cluster, |_, _| Some(key.public()));
        let signature_holds = key.public().verifies(&changed.signing_input(), &changed.signature);
        prop_assert!(!signature_holds);
        let refused_as_expected = match part {
            0..=2 => matches!(opened, Err(EnvelopeError::BadSignature { .. })),
            3 => matches!(opened, Err(EnvelopeError::WrongKind { .. } | EnvelopeError::NewerMajor { .. })),
            _ => matches!(opened, Err(EnvelopeError::WrongCluster { .. })),
        };
        prop_assert!(refused_as_expected, "{opened:?}");
    }

    #[test]
    fn no_two_ways_to_split_a_message_share_a_signature(
        subject in "[a-z]{1,12}", payload in prop::collection::vec(any::<u8>(), 1..40), moved in 1..12_usize,
    ) {
        prop_assume!(moved <= subject.len());
        let key = SigningKey::from_seed(&[7; 32]);
        let cluster = ClusterName::new("test").unwrap();
        let sign = |subject: &str, payload: Vec<u8>| {
            Envelope::sign(&key, SecretState::KIND, &cluster, subject, "id", WallTime(0), payload.into())
        };
        let (kept, tail) = subject.split_at(subject.len() - moved);
        let shifted = [tail.as_bytes(), &payload].concat();
        prop_assert_ne!(sign(&subject, payload).signing_input(), sign(kept, shifted).signing_input());
    }

    #[test]
    fn a_long_text_is_cut_between_characters(text in "[a-zé€😀]{60,400}") {
        let mut report = arbitrary::largest_report();
        report.secrets = report.secrets.into_iter().take(1).collect();
        let secret = report.secrets.values_mut().next().unwrap();
        let version = Version::FIRST;
        secret.failure = Some(Failure { kind: FailureKind::Fetch, version, text: text.clone() });
        let read = InstanceReport::decode(&report.encode()).unwrap();
        let cut = &read.secrets.values().next().unwrap().failure.as_ref().unwrap().text;
        prop_assert!(text.starts_with(cut.as_str()) && cut.len() <= MAX_FAILURE_TEXT_BYTES);
        prop_assert!(cut == &text || cut.len() > MAX_FAILURE_TEXT_BYTES - 4, "cut to {} bytes", cut.len());
    }

    /// An instance must never read a longer duration than the leader wrote and waits for.
    #[test]
    fn durations_are_never_lengthened(state in arbitrary::secret_state(), nanos in 0..2_000_000_000_000_000_u64) {
        let exact = Duration::from_nanos(nanos);
        let read = SecretState::decode(&SecretState { self_lease: exact, max_use: exact, ..state }.encode()).unwrap();
        for duration in [read.self_lease, read.max_use] {
            prop_assert!(duration <= exact, "{duration:?} of {exact:?}");
            let lost = exact.min(rotacast_proto::MAX_DURATION) - duration;
            prop_assert!(lost < Duration::from_millis(1), "{lost:?} lost of {exact:?}");
        }
    }
}

fn decode_as_everything(bytes: &Bytes) {
    // What is accepted must be a valid message: it reads back.
    fn try_as<M: WireMessage + PartialEq + Debug>(bytes: &Bytes) {
        if let Ok(message) = M::decode(bytes) {
            reads_back(&message);
        }
    }
    try_as::<Registration>(bytes);
    try_as::<SecretState>(bytes);
    try_as::<InstanceReport>(bytes);
    try_as::<SyncRequest>(bytes);
    try_as::<SyncReply>(bytes);
    try_as::<SyncWithKeys>(bytes);
    try_as::<ReplyWithKeys>(bytes);
    try_as::<FetchRequest>(bytes);
    let _ = v1::Envelope::decode(&bytes[..]).map(Envelope::from);
}

#[test]
fn the_largest_messages_fit_a_payload() {
    let report = arbitrary::largest_report();
    reads_back(&report);
    reads_back(&SyncRequest { nonce: rotacast_protocol::Nonce(u64::MAX), echo: Challenge::new(u64::MAX), report });
    reads_back(&arbitrary::largest_reply());

    let put = v1::OperatorCommand {
        operator: "o".repeat(128),
        secret: "s".repeat(128),
        reason: "r".repeat(1024),
        nonce: u64::MAX,
        issued_ms: u64::MAX,
        epoch: u64::MAX,
        emergency: true,
        action: Some(v1::operator_command::Action::Put(v1::Put { value: vec![0; SecretValue::MAX_BYTES].into() })),
    };
    assert!(put.encoded_len() <= MAX_PAYLOAD_BYTES);
}

#[test]
fn oversize_envelopes_are_refused_before_anything_else_is_done_with_them() {
    let key = SigningKey::from_seed(&[7; 32]);
    let cluster = ClusterName::new("test").unwrap();
    let state = arbitrary::largest_reply().secrets.into_values().next().unwrap().state.unwrap();
    let envelope = seal(&state, &key, &cluster);
    let unasked = |_: &str, _: &str| panic!("asked for a key");

    let payload = Bytes::from(vec![0; MAX_PAYLOAD_BYTES + 1]);
    let large = Envelope { payload: payload.clone(), ..envelope.clone() };
    assert_eq!(SecretState::open(&large, &cluster, unasked), Err(EnvelopeError::TooLarge { found: payload.len() }));
    assert_eq!(SecretState::decode(&payload), Err(EnvelopeError::TooLarge { found: payload.len() }));

    let long = Envelope { id: "x".repeat(MAX_FIELD_BYTES + 1), ..envelope };
    let refused = EnvelopeError::LongField { field: "ce-id", found: MAX_FIELD_BYTES + 1 };
    assert_eq!(SecretState::open(&long, &cluster, unasked), Err(refused));
}

#[test]
fn a_report_keeps_the_newest_counts_of_failed_logins() {
    let mut report = arbitrary::largest_report();
    report.secrets = report.secrets.into_iter().take(1).collect();
    let number = |number: usize| Version::new(u64::try_from(number).unwrap()).unwrap();
    report.secrets.values_mut().next().unwrap().auth_failures =
        (1..=MAX_AUTH_FAILURE_VERSIONS + 3).map(|version| (number(version), 1)).collect();
    let read = InstanceReport::decode(&report.encode()).unwrap();
    let counted = &read.secrets.values().next().unwrap().auth_failures;
    assert_eq!(counted.len(), MAX_AUTH_FAILURE_VERSIONS);
    assert_eq!(counted.keys().next(), Some(&number(4)));
}

#[test]
fn a_word_that_this_release_does_not_know_is_refused_by_its_place() {
    let blocker = v1::Blocker { condition: "weather".into(), ..Default::default() };
    let blockers = vec![v1::Blocker { condition: "prepared".into(), ..Default::default() }, blocker];
    let secret = v1::SecretStatus { secret: "payments/db".into(), blockers, ..Default::default() };
    let fine = v1::SecretStatus { blockers: Vec::new(), ..secret.clone() };
    assert!(SecretStatus::try_from(fine.clone()).is_ok());
    let reply = v1::StatusReply { secrets: vec![fine, secret], ..Default::default() };
    let told = BroadcasterStatus::try_from(reply).unwrap_err().to_string();
    assert_eq!(told, "field secrets[1].blockers[1].condition: \"weather\" is no condition that this release knows");
}
