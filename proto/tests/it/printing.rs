//! No type of the contract that carries a secret's value can be printed.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;
use rotacast_proto::{Envelope, Kind, SecretValue, SigningKey, v1};
use rotacast_protocol::{ClusterName, WallTime};

/// Every `bytes` field of the contract, and whether it is, or may contain, a secret's value.
const BYTES_FIELDS: [(&str, bool); 8] = [
    (".rotacast.v1.InstanceKey.incarnation", false),
    (".rotacast.v1.Envelope.signature", false),
    // Covered by a `Debug` written by hand; see the last test.
    (".rotacast.v1.Envelope.payload", false),
    (".rotacast.v1.FetchReply.value", true),
    (".rotacast.v1.ApproveRequest.digest", false),
    // Orders that carry a value do not wait.
    (".rotacast.v1.OrderRequest.command", false),
    (".rotacast.v1.OrderRequest.digest", false),
    (".rotacast.v1.Put.value", true),
];

/// Whether `Probe::<T>::IS` says `Debug` or `Display` of a concrete type: an inherent constant is
/// preferred over a trait's, and exists only if its bound holds.
struct DebugProbe<T>(PhantomData<T>);
struct DisplayProbe<T>(PhantomData<T>);
trait Otherwise {
    const IS: bool = false;
}
impl<T> Otherwise for DebugProbe<T> {}
impl<T> Otherwise for DisplayProbe<T> {}
impl<T: Debug> DebugProbe<T> {
    const IS: bool = true;
}
impl<T: Display> DisplayProbe<T> {
    const IS: bool = true;
}

macro_rules! cannot_be_printed {
    ($($type:ty),* $(,)?) => {
        $(
            const { assert!(!DebugProbe::<$type>::IS, concat!(stringify!($type), " has Debug")) };
            const { assert!(!DisplayProbe::<$type>::IS, concat!(stringify!($type), " has Display")) };
        )*
    };
}

#[test]
fn what_carries_a_value_has_neither_debug_nor_display() {
    // The probe itself tells them apart.
    const { assert!(DebugProbe::<v1::FetchRequest>::IS && DisplayProbe::<String>::IS) };
    cannot_be_printed!(
        v1::FetchReply,
        v1::Put,
        v1::OperatorCommand,
        v1::operator_command::Action,
        Option<v1::operator_command::Action>,
        tonic::Response<v1::FetchReply>,
        SecretValue,
        SigningKey,
    );
}

/// A new field must be classified, and a message around a value-carrying one must be added to
/// `skip_debug` in `build.rs` and to the list above (the compiler asks for the former by itself).
#[test]
fn the_list_of_what_carries_a_value_is_complete() {
    let descriptors = FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap();
    let messages: Vec<_> = descriptors
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(move |message| (format!(".{}", file.package()), message)))
        .map(|(package, message)| {
            assert!(message.nested_type.is_empty(), "{}: look into nested messages, too", message.name());
            (format!("{package}.{}", message.name()), message)
        })
        .collect();
    let fields = || messages.iter().flat_map(|(name, message)| message.field.iter().map(move |field| (name, field)));

    let found: BTreeSet<_> = fields()
        .filter(|(_, field)| field.r#type() == Type::Bytes)
        .map(|(message, field)| format!("{message}.{}", field.name()))
        .collect();
    let classified = BYTES_FIELDS.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(found, classified, "classify every bytes field in BYTES_FIELDS");

    let mut carriers: BTreeSet<String> = BYTES_FIELDS
        .iter()
        .filter(|(_, value)| *value)
        .map(|(field, _)| field.rsplit_once('.').unwrap().0.to_owned())
        .collect();
    loop {
        let around: Vec<_> = fields()
            .filter(|(message, field)| carriers.contains(field.type_name()) && !carriers.contains(*message))
            .map(|(message, _)| message.clone())
            .collect();
        if around.is_empty() {
            break;
        }
        carriers.extend(around);
    }
    let expected = ["FetchReply", "OperatorCommand", "Put"].map(|name| format!(".rotacast.v1.{name}"));
    assert_eq!(carriers, BTreeSet::from(expected), "a message carries a value that the test above does not know of");
}

#[test]
fn an_envelope_prints_no_payload() {
    const CANARY: &str = "canary-7f3a91";
    let put = v1::OperatorCommand {
        secret: "payments/db".into(),
        action: Some(v1::operator_command::Action::Put(v1::Put { value: CANARY.into() })),
        ..Default::default()
    };
    let key = SigningKey::from_seed(&[7; 32]);
    let cluster = ClusterName::new("test").unwrap();
    let payload = put.encode_to_vec();
    let length = payload.len();
    let envelope =
        Envelope::sign(&key, Kind::OperatorCommand, &cluster, "payments/db", "id-1", WallTime(0), payload.into());
    let wire = v1::Envelope::from(envelope.clone());
    let event = v1::StateEvent { event: Some(v1::state_event::Event::State(wire.clone())) };
    let request = tonic::Request::new(wire.clone());
    let bytes = format!("{:?}", CANARY.as_bytes());
    for printed in [format!("{envelope:?}"), format!("{wire:#?}"), format!("{event:?}"), format!("{request:?}")] {
        assert!(printed.contains("payments/db") && printed.contains(&length.to_string()), "{printed}");
        let leaks = [CANARY, &hex::encode(CANARY), bytes.trim_matches(['[', ']'])];
        assert!(!leaks.iter().any(|leak| printed.contains(leak)), "the payload is printed");
    }
}

/// Clients and servers need no `Debug` of what they carry: this compiles.
#[test]
fn clients_and_servers_carry_what_cannot_be_printed() {
    async fn fetch(
        client: &mut v1::instances_client::InstancesClient<tonic::transport::Channel>,
        request: v1::Envelope,
    ) -> Result<SecretValue, tonic::Status> {
        let reply = client.fetch(request).await?.into_inner();
        Ok(SecretValue::new(reply.value.to_vec()))
    }
    // Generic, so checked in full without a caller.
    #[allow(dead_code, reason = "compiling is the test")]
    fn serve<T: v1::instances_server::Instances, A: v1::admin_server::Admin>(
        instances: T,
        admin: A,
    ) -> tonic::service::Routes {
        tonic::service::Routes::new(v1::instances_server::InstancesServer::new(instances))
            .add_service(v1::admin_server::AdminServer::new(admin))
    }
    let _ = fetch;
}
