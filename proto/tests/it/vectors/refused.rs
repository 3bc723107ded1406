//! Vectors that every implementation must refuse, and for which reason.

use bytes::Bytes;
use prost::Message;
use rotacast_proto::{
    Envelope, EnvelopeError, InstanceMessage, Kind, MAX_PAYLOAD_BYTES, ReplyWithKeys, Sender, SigningKey, SyncWithKeys,
    VerifyingKey, WireMessage, v1,
};
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SecretState};
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey};
use serde_json::{Value, json};

use super::file::{bytes, headers, hold, read, text};
use super::samples::{self, INSTANCE_SEED, TIME};

const FILE: &str = "refused.json";

#[test]
fn refused_vectors_are_what_this_build_makes() {
    let about = "Messages to refuse. A reader expects the type and cluster given and trusts the keys given. The payload is \
                 hexadecimal, or that many zero bytes where payload_zeros is given. Checks are made in the order size, type, \
                 cluster, key, signature, contents, subject, and for a message of an instance instance, key, incarnation, \
                 attestation in place of key; field is the one a malformed message breaks a rule in.";
    hold(FILE, about, &made());
}

/// As an implementation in another language would use the file.
#[test]
fn refused_vectors_are_refused_for_that_reason() {
    for vector in read(FILE) {
        let name = text(&vector, "name");
        let trusted: Vec<_> = vector["trusted"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| VerifyingKey::parse(key.as_str().unwrap()).unwrap())
            .collect();
        let cluster = ClusterName::new(text(&vector, "cluster")).unwrap();
        let payload = match vector["payload_zeros"].as_u64() {
            Some(zeros) => vec![0; zeros.try_into().unwrap()],
            None => bytes(&vector, "payload"),
        };
        let error = Envelope::from_headers(headers(&vector), payload.into())
            .and_then(|envelope| open(text(&vector, "expected_type"), &envelope, &cluster, &trusted))
            .expect_err(name);
        assert_eq!(reason(&error), text(&vector, "reason"), "{name}: {error}");
        if let Some(field) = vector["field"].as_str() {
            assert!(error.to_string().contains(&format!("field {field}:")), "{name}: {error}");
        }
    }
}

fn open(kind: &str, envelope: &Envelope, cluster: &ClusterName, trusted: &[VerifyingKey]) -> Result<(), EnvelopeError> {
    fn as_message<M: WireMessage>(
        envelope: &Envelope,
        cluster: &ClusterName,
        trusted: &[VerifyingKey],
    ) -> Result<(), EnvelopeError> {
        M::open(envelope, cluster, |id, _| trusted.iter().find(|key| key.id().as_str() == id)).map(drop)
    }
    fn of_instance<M: InstanceMessage>(
        envelope: &Envelope,
        cluster: &ClusterName,
        trusted: &[VerifyingKey],
    ) -> Result<(), EnvelopeError> {
        let sender = Sender::of(envelope, M::KIND, cluster)?;
        let key = trusted.iter().find(|key| key.id() == sender.service_key());
        let key = key.ok_or_else(|| EnvelopeError::UnknownKey {
            found: sender.service_key().to_string(),
            subject: sender.key().full_name(),
        })?;
        sender.check_attestation(key)?;
        sender.open::<M>().map(drop)
    }
    match kind {
        "rotacast.v1.Registration" => of_instance::<Registration>(envelope, cluster, trusted),
        "rotacast.v1.SecretState" => as_message::<SecretState>(envelope, cluster, trusted),
        "rotacast.v1.InstanceReport" => of_instance::<InstanceReport>(envelope, cluster, trusted),
        "rotacast.v1.SyncRequest" => of_instance::<SyncWithKeys>(envelope, cluster, trusted),
        "rotacast.v1.SyncReply" => as_message::<ReplyWithKeys>(envelope, cluster, trusted),
        "rotacast.v1.FetchRequest" => of_instance::<FetchRequest>(envelope, cluster, trusted),
        other => panic!("{other}: no such type"),
    }
}

fn reason(error: &EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::NewerMajor { .. } => "newer_major",
        EnvelopeError::WrongKind { .. } => "wrong_type",
        EnvelopeError::WrongCluster { .. } => "wrong_cluster",
        EnvelopeError::UnknownKey { .. } => "unknown_key",
        EnvelopeError::NoInstance { .. } => "no_instance",
        EnvelopeError::WrongIncarnation { .. } => "wrong_incarnation",
        EnvelopeError::NoAttestation { .. } => "no_attestation",
        EnvelopeError::BadAttestation { .. } => "bad_attestation",
        EnvelopeError::RevokedKey { .. } => "revoked_key",
        EnvelopeError::FormerKey { .. } => "former_key",
        EnvelopeError::BadSignature { .. } => "bad_signature",
        EnvelopeError::TooLarge { .. } => "too_large",
        EnvelopeError::LongField { .. } => "long_header",
        EnvelopeError::WrongSubject { .. } => "wrong_subject",
        EnvelopeError::Malformed { .. } => "malformed",
        EnvelopeError::MissingHeader(_) => "missing_header",
    }
}

fn made() -> Vec<Value> {
    let mut vectors = bad_envelopes();
    vectors.extend(bad_instances());
    vectors.extend(bad_contents());
    vectors
}

/// Messages of an instance that may not speak for the incarnation.
fn bad_instances() -> Vec<Value> {
    let kind = Kind::InstanceReport;
    let said = samples::instance().seal(&samples::report(), "report", TIME);
    let other = InstanceKey::of_full_name(&said.subject.replace("api-0/", "api-1/")).unwrap();
    let about_other = InstanceReport {
        key: InstanceKey::new(other.service.clone(), other.instance.clone(), Incarnation(1)),
        ..samples::report()
    };
    let stranger = SigningKey::from_seed(&[9; 32]);
    let claimed = {
        let attestation = samples::attested_by(&stranger).seal(&samples::report(), "report", TIME).attestation;
        attestation.replace(stranger.public().id().as_str(), samples::service().public().id().as_str())
    };
    vec![
        vector(
            "wrong_incarnation",
            "Signed by an instance of the same service, about another incarnation.",
            kind,
            &samples::instance().seal(&about_other, "report", TIME),
        ),
        vector(
            "bad_attestation/name",
            "The attestation is for another name of the same key.",
            kind,
            &Envelope { subject: other.full_name(), ..said.clone() },
        ),
        vector(
            "bad_attestation/claimed_key",
            "Another key attests it and names the service's.",
            kind,
            &Envelope { attestation: claimed, ..said.clone() },
        ),
        vector(
            "unknown_key/service",
            "Attested by a key that is not the service's.",
            kind,
            &samples::attested_by(&stranger).seal(&samples::report(), "report", TIME),
        ),
        vector(
            "unknown_key/id",
            "Signed by the service's key itself, as no message may be.",
            kind,
            &samples::report().seal(&samples::service(), &samples::cluster(), "report", TIME),
        ),
        vector(
            "no_attestation",
            "The header is missing.",
            kind,
            &Envelope { attestation: String::new(), ..said.clone() },
        ),
        vector(
            "no_attestation/kind",
            "A way to prove a service that this build does not know.",
            kind,
            &Envelope { attestation: "later:proof".into(), ..said.clone() },
        ),
        vector(
            "no_instance",
            "The subject is no instance.",
            kind,
            &Envelope { subject: "payments-api".into(), ..said.clone() },
        ),
        vector(
            "bad_signature/instance",
            "The signature is that of another message of the instance.",
            kind,
            &Envelope {
                signature: samples::instance().seal(&samples::empty_report(), "report", TIME).signature,
                ..said
            },
        ),
    ]
}

fn good() -> Envelope {
    samples::draining_state().seal(&samples::broadcaster(), &samples::cluster(), "payments/db@44", TIME)
}

fn bad_envelopes() -> Vec<Value> {
    let state = Kind::SecretState;
    let sign = |cluster: &str, subject: &str, payload: Bytes| {
        let cluster = ClusterName::new(cluster).unwrap();
        Envelope::sign(&samples::broadcaster(), state, &cluster, subject, "payments/db@44", TIME, payload)
    };
    let flipped = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        bytes[10] ^= 1;
        Bytes::from(bytes)
    };
    let stranger = SigningKey::from_seed(&[9; 32]);
    let claimed = samples::draining_state().seal(&stranger, &samples::cluster(), "payments/db@44", TIME);
    let key_id = samples::broadcaster().public().id().to_string();
    let mut vectors = vec![
        vector(
            "wrong_cluster",
            "Signed, for another environment.",
            state,
            &sign("production", "payments/db", good().payload),
        ),
        vector(
            "bad_signature/payload",
            "One bit of the payload changed.",
            state,
            &Envelope { payload: flipped(&good().payload), ..good() },
        ),
        vector(
            "bad_signature/signature",
            "One bit of the signature changed.",
            state,
            &Envelope { signature: flipped(&good().signature), ..good() },
        ),
        vector(
            "bad_signature/subject",
            "Another subject than was signed.",
            state,
            &Envelope { subject: "payments/dc".into(), ..good() },
        ),
        vector(
            "bad_signature/cluster",
            "Moved from one environment to another.",
            state,
            &Envelope { source: "staging".into(), ..sign("production", "payments/db", good().payload) },
        ),
        vector(
            "bad_signature/type",
            "A state relabelled as a Sync reply.",
            Kind::SyncReply,
            &Envelope { kind: Kind::SyncReply.as_str().into(), ..good() },
        ),
        vector(
            "bad_signature/empty",
            "No signature at all, in the header that must be there.",
            state,
            &Envelope { signature: Bytes::new(), ..good() },
        ),
        vector(
            "bad_signature/claimed_key",
            "Another key signed and names the trusted one.",
            state,
            &Envelope { key_id, ..claimed.clone() },
        ),
        vector("unknown_key", "Signed with a key nobody trusts.", state, &claimed),
        vector(
            "wrong_subject",
            "Signed, but the payload is about another secret.",
            state,
            &sign("staging", "payments/dc", good().payload),
        ),
        vector("wrong_type", "A state where a Sync reply belongs.", Kind::SyncReply, &good()),
        vector(
            "wrong_type/unknown",
            "A type this major does not have.",
            state,
            &Envelope { kind: "rotacast.v1.Other".into(), ..good() },
        ),
        vector(
            "newer_major",
            "From a later major version.",
            state,
            &Envelope { kind: "rotacast.v2.SecretState".into(), ..good() },
        ),
        vector("long_header", "A subject of 513 bytes.", state, &Envelope { subject: "a".repeat(513), ..good() }),
    ];
    // An empty header is not written, and one that must be there is then missing.
    for header in ["ce-id", "ce-type", "ce-source", "ce-subject", "rotacast-key", "rotacast-signature"] {
        let mut vector =
            vector(&format!("missing_header/{header}"), "A header that must be there is not.", state, &good());
        vector["headers"].as_object_mut().unwrap().remove(header).unwrap();
        vectors.push(vector);
    }
    let mut oversize = vector("too_large", "One byte more than any payload may have.", state, &good());
    oversize.as_object_mut().unwrap().remove("payload").unwrap();
    oversize["payload_zeros"] = (MAX_PAYLOAD_BYTES + 1).into();
    vectors.push(oversize);
    let empty = vectors.iter_mut().find(|vector| vector["name"] == "bad_signature/empty").unwrap();
    empty["headers"]["rotacast-signature"] = "".into();
    vectors
}

/// Rightly signed, by somebody whose encoder is wrong.
fn bad_contents() -> Vec<Value> {
    let mut vectors = Vec::new();
    let mut state = |field, about, change: &dyn Fn(&mut v1::SecretState)| {
        vectors.push(malformed(&samples::draining_state(), field, about, change));
    };
    state("secret", "A name with capitals.", &|wire| wire.secret = "Payments/db".into());
    state("secret", "A name that climbs out of its prefix.", &|wire| wire.secret = "../db".into());
    state("secret", "A name of 129 bytes.", &|wire| wire.secret = "a".repeat(129));
    state("sealed", "Version 0 in a list.", &|wire| wire.sealed.push(0));
    state("sealed", "One version twice.", &|wire| wire.sealed.push(7));
    state("sealed", "65 versions.", &|wire| wire.sealed = (1..=65).collect());
    state("phase", "A phase without a rotation.", &|wire| wire.rotation = 0);
    state("sync_interval_ms", "Zero would be a busy loop.", &|wire| wire.sync_interval_ms = 0);
    state("self_lease_ms", "Longer than seven days.", &|wire| wire.self_lease_ms = 604_800_001);
    state("max_use_ms", "The largest number.", &|wire| wire.max_use_ms = u64::MAX);

    let mut registration = |field, about, change: &dyn Fn(&mut v1::Registration)| {
        vectors.push(malformed(&samples::registration(), field, about, change));
    };
    let key = |wire: &mut v1::Registration, change: &dyn Fn(&mut v1::InstanceKey)| change(wire.key.as_mut().unwrap());
    registration("key", "No key.", &|wire| wire.key = None);
    registration("key.service", "An empty service.", &|wire| key(wire, &|key| key.service.clear()));
    registration("key.instance", "A name with a slash.", &|wire| key(wire, &|key| key.instance = "a/b".into()));
    registration("key.incarnation", "15 bytes.", &|wire| key(wire, &|key| key.incarnation.truncate(15)));
    registration("key.incarnation", "17 bytes.", &|wire| key(wire, &|key| key.incarnation = vec![1; 17].into()));
    registration("secrets[2]", "A secret twice.", &|wire| wire.secrets.push("payments/db".into()));
    registration("secrets", "257 secrets.", &|wire| wire.secrets = (0..257).map(|n| n.to_string()).collect());

    let mut report = |field, about, change: &dyn Fn(&mut v1::InstanceReport)| {
        vectors.push(malformed(&samples::report(), field, about, change));
    };
    report("secrets[3]", "A secret twice.", &|wire| wire.secrets.push(wire.secrets[0].clone()));
    report("secrets[0].stage", "A stage nobody knows.", &|wire| wire.secrets[0].stage = 5);
    report("secrets[0].stage", "A version reached, and no stage.", &|wire| wire.secrets[0].stage = 0);
    report("secrets[0].version", "A stage of no version.", &|wire| wire.secrets[0].version = 0);
    report("secrets[0].held", "17 versions held.", &|wire| wire.secrets[0].held = (1..=17).collect());
    report("secrets[0].held", "Version 0 held.", &|wire| wire.secrets[0].held = vec![0]);
    report("secrets[0].held", "One version held twice.", &|wire| wire.secrets[0].held = vec![7, 7]);
    report("secrets[1].failure.kind", "A kind of failure nobody knows.", &|wire| failure(wire).kind = 6);
    report("secrets[1].failure.version", "A failure with version 0.", &|wire| failure(wire).version = 0);
    report("secrets[1].failure.text", "257 bytes of text.", &|wire| failure(wire).text = "x".repeat(257));
    report("secrets[0].auth_failures", "Counts for 17 versions.", &|wire| {
        wire.secrets[0].auth_failures = (1..=17).map(|version| v1::AuthFailures { version, count: 1 }).collect();
    });
    report("secrets[0].auth_failures[1]", "A version counted twice.", &|wire| {
        wire.secrets[0].auth_failures.push(v1::AuthFailures { version: 7, count: 1 });
    });

    let mut reply = |field, about, change: &dyn Fn(&mut v1::SyncReply)| {
        vectors.push(malformed(&samples::sync_reply(), field, about, change));
    };
    reply("secrets[0].leases[0].version", "A lease of version 0.", &|wire| wire.secrets[0].leases[0].version = 0);
    reply("secrets[0].leases[1]", "Two leases of one version.", &|wire| wire.secrets[0].leases[1].version = 7);
    reply("secrets[0].leases", "21 leases.", &|wire| {
        wire.secrets[0].leases = (1..=21).map(|version| v1::Lease { version, duration_ms: 1 }).collect();
    });
    reply("secrets[0].leases[0].duration_ms", "Longer than seven days.", &|wire| {
        wire.secrets[0].leases[0].duration_ms = 604_800_001;
    });
    reply("secrets[0].state.secret", "The state of another secret.", &|wire| {
        wire.secrets[0].state.as_mut().unwrap().secret = "payments/dc".into();
    });

    reply("announced_keys[0]", "A key that is none.", &|wire| wire.announced_keys = vec!["rotacast-public-1:".into()]);
    let id = || samples::broadcaster().public().id().to_string();
    let mut request = |field, about, change: &dyn Fn(&mut v1::SyncRequest)| {
        vectors.push(malformed(&samples::sync_request(), field, about, change));
    };
    request("trusted_keys[1]", "A key named twice.", &|wire| wire.trusted_keys = vec![id(); 2]);
    request("announced_keys", "17 keys.", &|wire| wire.announced_keys = vec![id(); 17]);
    vectors.push(malformed(&samples::sync_request(), "report", "No report.", &|wire: &mut v1::SyncRequest| {
        wire.report = None;
    }));
    vectors.push(malformed(&samples::fetch_request(), "secret", "No secret.", &|wire: &mut v1::FetchRequest| {
        wire.secret.clear();
    }));

    let mut cut = good().payload;
    cut.truncate(cut.len() - 1);
    let cut = Envelope::sign(
        &samples::broadcaster(),
        Kind::SecretState,
        &samples::cluster(),
        "payments/db",
        "cut",
        TIME,
        cut,
    );
    vectors.push(vector(
        "malformed/cut",
        "The last byte of the payload is gone; signed that way.",
        Kind::SecretState,
        &cut,
    ));

    // Several break a rule of the same field.
    let names: Vec<_> = vectors.iter().map(|vector| text(vector, "name").to_owned()).collect();
    for (index, vector) in vectors.iter_mut().enumerate() {
        let before = names[..index].iter().filter(|name| **name == names[index]).count();
        if before > 0 {
            vector["name"] = format!("{}/{}", names[index], before + 1).into();
        }
    }
    vectors
}

fn failure(wire: &mut v1::InstanceReport) -> &mut v1::Failure {
    wire.secrets[1].failure.as_mut().unwrap()
}

fn malformed<M: WireMessage, W: Message + Default>(
    message: &M,
    field: &str,
    about: &str,
    change: &dyn Fn(&mut W),
) -> Value {
    let mut wire = W::decode(message.encode()).unwrap();
    change(&mut wire);
    let short = M::KIND.as_str().trim_start_matches("rotacast.v1.");
    let name = format!("malformed/{short}/{field}");
    let payload = wire.encode_to_vec().into();
    let sign = |key: &SigningKey| {
        Envelope::sign(key, M::KIND, &samples::cluster(), message.subject(), "broken", TIME, payload)
    };
    let envelope = if is_of_broadcaster(M::KIND) {
        sign(&samples::broadcaster())
    } else {
        let said = samples::instance().seal(&samples::report(), "broken", TIME);
        Envelope { key_id: said.key_id, attestation: said.attestation, ..sign(&SigningKey::from_seed(&INSTANCE_SEED)) }
    };
    let mut vector = vector(&name, about, M::KIND, &envelope);
    vector["field"] = field.into();
    vector
}

fn is_of_broadcaster(kind: Kind) -> bool {
    matches!(kind, Kind::SecretState | Kind::SyncReply)
}

/// The reason is the first word of the name.
fn vector(name: &str, about: &str, expected: Kind, envelope: &Envelope) -> Value {
    let headers: serde_json::Map<_, _> =
        envelope.headers().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let trusted = if is_of_broadcaster(expected) { samples::broadcaster() } else { samples::service() };
    json!({
        "name": name,
        "about": about,
        "reason": name.split('/').next().unwrap(),
        "expected_type": expected.as_str(),
        "cluster": samples::cluster().as_str(),
        "trusted": [trusted.public().to_text()],
        "headers": headers,
        "payload": hex::encode(&envelope.payload),
    })
}
