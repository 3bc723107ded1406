//! Vectors that every implementation must accept, and read as these fields.

use bytes::Bytes;
use prost::Message as _;
use rotacast_proto::{
    Envelope, InstanceMessage, Kind, ReplyWithKeys, Sender, SigningKey, SyncWithKeys, VerifyingKey, WireMessage, v1,
};
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SecretState};
use serde_json::{Value, json};

use super::fields::{Fields, number};
use super::file::{bytes, headers, hold, read, text};
use super::samples::{self, BROADCASTER_SEED, INSTANCE_SEED, OPERATOR_SEED, SERVICE_SEED, TIME};

const FILE: &str = "accepted.json";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Field 1000, type bytes, "later": what a later build may add to any message.
const UNKNOWN_FIELD: [u8; 8] = [0xc2, 0x3e, 5, b'l', b'a', b't', b'e', b'r'];

#[test]
fn accepted_vectors_are_what_this_build_makes() {
    let about = "Valid messages: accept each, read these fields, and make the same signing input and signature. Hexadecimal \
                 unless told otherwise. The payload is what this project's encoder makes of the fields where canonical \
                 is true.";
    hold(FILE, about, &made());
}

#[test]
fn keys_are_what_this_build_makes() {
    let seeds = [
        ("broadcaster", BROADCASTER_SEED),
        ("instance", INSTANCE_SEED),
        ("operator", OPERATOR_SEED),
        ("service", SERVICE_SEED),
    ];
    let made: Vec<_> = seeds
        .into_iter()
        .map(|(name, seed)| {
            let key = SigningKey::from_seed(&seed);
            json!({
                "name": name,
                "seed": hex::encode(seed),
                "private": key.to_text().as_str(),
                "public": key.public().to_text(),
                "key_id": key.public().id().as_str(),
            })
        })
        .collect();
    hold("keys.json", "The keys of all vectors, as they are written in files. Public: never use them.", &made);
    for key in read("keys.json") {
        assert_eq!(SigningKey::parse(text(&key, "private")).ok().unwrap().public().to_text(), text(&key, "public"));
        assert_eq!(VerifyingKey::parse(text(&key, "public")).unwrap().id().as_str(), text(&key, "key_id"));
    }
}

#[test]
fn a_fetch_reply_is_what_this_build_makes() {
    let state = samples::draining_state().seal(&samples::broadcaster(), &samples::cluster(), "payments/db@44", TIME);
    let reply =
        v1::FetchReply { nonce: 77, state: Some(state.into()), value: Bytes::from_static(b"not a real password") };
    let made = json!({
        "name": "fetch_reply",
        "about": "Not signed and in no envelope: it travels over TLS or loopback only. Its state is an envelope.",
        "type": "rotacast.v1.FetchReply",
        "fields": { "nonce": number(reply.nonce), "value": hex::encode(&reply.value), "state": samples::draining_state().fields() },
        "payload": hex::encode(reply.encode_to_vec()),
    });
    hold(
        "fetch_reply.json",
        "The answer to a Fetch, the one message of the contract that carries a value back.",
        &[made],
    );
    for vector in read("fetch_reply.json") {
        let reply = v1::FetchReply::decode(&bytes(&vector, "payload")[..]).unwrap();
        assert_eq!(hex::encode(&reply.value), text(&vector["fields"], "value"));
        let key = samples::broadcaster();
        let envelope = reply.state.unwrap().into();
        let state = SecretState::open(&envelope, &samples::cluster(), |_, _| Some(key.public())).unwrap();
        assert_eq!(state.fields(), vector["fields"]["state"]);
    }
}

/// As an implementation in another language would use the file.
#[test]
fn accepted_vectors_are_accepted_and_say_these_fields() {
    for vector in read(FILE) {
        let name = text(&vector, "name");
        let key = SigningKey::from_seed(&bytes(&vector, "key_seed").try_into().unwrap());
        let said = text(&vector["headers"], "rotacast-key");
        let of_instance = vector["headers"].get("rotacast-attestation").is_some();
        assert_eq!(said, if of_instance { key.public().to_text() } else { key.public().id().to_string() }, "{name}");

        let payload = Bytes::from(bytes(&vector, "payload"));
        let envelope = Envelope::from_headers(headers(&vector), payload.clone()).unwrap();
        assert_eq!(envelope.signing_input(), bytes(&vector, "signing_input"), "{name}");
        assert_eq!(envelope.signature, bytes(&vector, "signature"), "{name}");

        let wire = bytes(&vector, "envelope");
        let relayed = v1::Envelope::decode(&wire[..]).unwrap();
        assert_eq!(relayed.encode_to_vec(), wire, "{name}: relayed unchanged, whatever the payload holds");
        assert_eq!(Envelope::from(relayed), envelope, "{name}");

        let (fields, encoded) = open(&envelope, &key);
        assert_eq!(fields, vector["fields"], "{name}");
        assert_eq!(encoded == payload, vector["canonical"], "{name}");
    }
}

/// The fields, and what they encode to.
fn open(envelope: &Envelope, key: &SigningKey) -> (Value, Bytes) {
    fn as_message<M: WireMessage + Fields>(envelope: &Envelope, key: &SigningKey) -> (Value, Bytes) {
        let message = M::open(envelope, &samples::cluster(), |_, _| Some(key.public())).unwrap();
        (message.fields(), message.encode())
    }
    fn of_instance<M: InstanceMessage + Fields>(envelope: &Envelope) -> (Value, Bytes) {
        let cluster = samples::cluster();
        let sender = Sender::of(envelope, M::KIND, &cluster).unwrap();
        sender.check_attestation(samples::service().public()).unwrap();
        let message: M = sender.open().unwrap();
        (message.fields(), message.encode())
    }
    match envelope.kind.as_str() {
        "rotacast.v1.Registration" => of_instance::<Registration>(envelope),
        "rotacast.v1.SecretState" => as_message::<SecretState>(envelope, key),
        "rotacast.v1.InstanceReport" => of_instance::<InstanceReport>(envelope),
        "rotacast.v1.SyncRequest" => of_instance::<SyncWithKeys>(envelope),
        "rotacast.v1.SyncReply" => as_message::<ReplyWithKeys>(envelope, key),
        "rotacast.v1.FetchRequest" => of_instance::<FetchRequest>(envelope),
        "rotacast.v1.OperatorCommand" => {
            let payload = envelope.verify(Kind::OperatorCommand, &samples::cluster(), |_| Some(key.public())).unwrap();
            let command = v1::OperatorCommand::decode(payload.clone()).unwrap();
            (command_fields(&command), command.encode_to_vec().into())
        }
        other => panic!("{other}: no such type"),
    }
}

fn made() -> Vec<Value> {
    let mut vectors = vec![
        said("registration", "A process life and the secrets it uses.", &samples::registration()),
        said("registration/left", "A clean leave: false and empty fields are not on the wire.", &samples::leave()),
        plain("secret_state/idle", "Nothing rotates: rotation and phase are absent.", &samples::idle_state()),
        plain("secret_state/draining", "A rotation whose old version is sealed.", &samples::draining_state()),
        plain(
            "secret_state/extreme",
            "The longest name and the largest numbers. The durations were 1.999999 ms, 10.000999999 s and 0.999999 ms: \
             rounded down.",
            &samples::extreme_state(),
        ),
        said("instance_report", "Stages, held versions, a failure, failed logins.", &samples::report()),
        said("instance_report/empty", "A report about no secret.", &samples::empty_report()),
        said(
            "sync_request",
            "A whole report, a nonce, the challenge that it echoes, and the broadcasters' keys that the instance trusts.",
            &samples::sync_request(),
        ),
        said("sync_request/first", "No answer has come yet, so it echoes none.", &samples::first_sync_request()),
        plain(
            "sync_reply",
            "Leases of two versions, with and without a state, and a key that is announced.",
            &samples::sync_reply(),
        ),
        plain("sync_reply/unregistered", "The leader asks to register again.", &samples::unregistered_reply()),
        plain(
            "sync_reply/unproven",
            "The request echoed no challenge, or one that was used: it had no effect.",
            &samples::unproven_reply(),
        ),
        said("fetch_request", "Asks for a value.", &samples::fetch_request()),
        said("fetch_request/state", "Asks for the state only: version 0.", &samples::state_only_request()),
    ];
    for (name, about, action) in [
        (
            "operator_command/put",
            "An operator writes the next version.",
            v1::operator_command::Action::Put(v1::Put { value: Bytes::from_static(b"not a real password") }),
        ),
        (
            "operator_command/override",
            "An operator lets a retire go on without one instance.",
            v1::operator_command::Action::Override(v1::Override {
                version: 7,
                instances: vec![(&samples::key()).into()],
                sessions: false,
            }),
        ),
    ] {
        let command = v1::OperatorCommand {
            operator: "dana".into(),
            secret: "payments/db".into(),
            reason: "incident 42".into(),
            nonce: 9,
            issued_ms: TIME.0,
            epoch: 3,
            emergency: false,
            action: Some(action),
        };
        let payload = command.encode_to_vec().into();
        let envelope = Envelope::sign(
            &SigningKey::from_seed(&OPERATOR_SEED),
            Kind::OperatorCommand,
            &samples::cluster(),
            "payments/db",
            name,
            TIME,
            payload,
        );
        vectors.push(vector(name, about, OPERATOR_SEED, &envelope, command_fields(&command), true));
    }

    let state = samples::draining_state();
    let later = [&state.encode()[..], &UNKNOWN_FIELD].concat();
    vectors.push(altered(
        "secret_state/unknown_field",
        "A later build's field 1000: readers skip it, relays keep it, since they pass the payload on as it came.",
        &state,
        later,
    ));
    let mut unknown_phase = v1::SecretState::decode(state.encode()).unwrap();
    unknown_phase.phase = 99;
    vectors.push(altered(
        "secret_state/unknown_phase",
        "A later build's phase reads as unspecified: a phase is for people, nothing is decided by it.",
        &SecretState { phase: None, ..state },
        unknown_phase.encode_to_vec(),
    ));
    let traced = Envelope {
        traceparent: TRACEPARENT.into(),
        ..samples::idle_state().seal(&samples::broadcaster(), &samples::cluster(), "traced", TIME)
    };
    let about = "With a W3C trace context, which is passed along and not signed.";
    vectors.push(vector("secret_state/traced", about, BROADCASTER_SEED, &traced, samples::idle_state().fields(), true));
    vectors
}

/// A message of the broadcaster.
fn plain<M: WireMessage + Fields>(name: &str, about: &str, message: &M) -> Value {
    let envelope = message.seal(&samples::broadcaster(), &samples::cluster(), name, TIME);
    // What a reader gets: the durations in whole milliseconds.
    let fields = M::decode(&envelope.payload).unwrap().fields();
    vector(name, about, BROADCASTER_SEED, &envelope, fields, true)
}

/// A message of the instance.
fn said<M: InstanceMessage + Fields>(name: &str, about: &str, message: &M) -> Value {
    let envelope = samples::instance().seal(message, name, TIME);
    let fields = M::decode(&envelope.payload).unwrap().fields();
    vector(name, about, INSTANCE_SEED, &envelope, fields, true)
}

/// A payload that this build reads, and would write otherwise.
fn altered(name: &str, about: &str, state: &SecretState, payload: Vec<u8>) -> Value {
    let cluster = samples::cluster();
    let key = samples::broadcaster();
    let envelope = Envelope::sign(&key, Kind::SecretState, &cluster, state.subject(), name, TIME, payload.into());
    vector(name, about, BROADCASTER_SEED, &envelope, state.fields(), false)
}

fn vector(name: &str, about: &str, seed: [u8; 32], envelope: &Envelope, fields: Value, canonical: bool) -> Value {
    let headers: serde_json::Map<_, _> =
        envelope.headers().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({
        "name": name,
        "about": about,
        "type": envelope.kind,
        "cluster": envelope.source,
        "key_seed": hex::encode(seed),
        "fields": fields,
        "canonical": canonical,
        "payload": hex::encode(&envelope.payload),
        "signing_input": hex::encode(envelope.signing_input()),
        "signature": hex::encode(&envelope.signature),
        "headers": headers,
        "envelope": hex::encode(v1::Envelope::from(envelope.clone()).encode_to_vec()),
    })
}

fn command_fields(command: &v1::OperatorCommand) -> Value {
    use v1::operator_command::Action;
    let action = match command.action.as_ref().unwrap() {
        Action::Put(put) => json!({ "put": { "value": hex::encode(&put.value) } }),
        Action::Override(of) => {
            let instances: Vec<_> = of
                .instances
                .iter()
                .map(|key| rotacast_protocol::InstanceKey::try_from(key.clone()).unwrap().fields())
                .collect();
            json!({ "override": { "version": number(of.version), "instances": instances, "sessions": of.sessions } })
        }
        _ => panic!("no vector has this action"),
    };
    json!({
        "operator": command.operator,
        "secret": command.secret,
        "reason": command.reason,
        "nonce": number(command.nonce),
        "issued_ms": number(command.issued_ms),
        "epoch": number(command.epoch),
        "emergency": command.emergency,
        "action": action,
    })
}
