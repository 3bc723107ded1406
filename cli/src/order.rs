//! The orders: `put`, `rotate`, `approve`, `pause`, `resume`, `rollback`, `leave-safe-mode`.

use std::io::{IsTerminal as _, Read};
use std::path::Path;

use prost::bytes::Bytes;
use rotacast_proto::v1;
use rotacast_proto::v1::operator_command::Action;
use rotacast_protocol::SecretName;
use zeroize::Zeroizing;

use crate::Context;
use crate::arguments::{PutArgs, ReasonedArgs, RotateArgs, Waiting};
use crate::client::{Client, Order, Signer};
use crate::error::Stop;
use crate::goal::Which;
use crate::output::note;
use crate::summary::{count, ending};
use crate::wait;
use rotacast_admin::limits::{MAX_PUT_BYTES, MAX_REASON_BYTES};
use rotacast_admin::view::OrderView;

/// Gives an order.
pub(crate) async fn give(
    context: &Context,
    secret: &SecretName,
    reason: String,
    action: Action,
) -> Result<v1::CommandReply, Stop> {
    if reason.len() > MAX_REASON_BYTES {
        return Err(Stop::usage(
            format!("--reason of {} bytes", reason.len()),
            format!("expected at most {MAX_REASON_BYTES}"),
        ));
    }
    // A `rotacast dev` that is starting has yet to make its key.
    let keyless = Signer::open(&context.global).err();
    let client = match Client::connect_when_started(&context.global).await {
        Ok(client) => client,
        Err(stop) => return Err(keyless.unwrap_or(stop)),
    };
    let signer = Signer::open(&context.global)?;
    if matches!(action, Action::Put(_))
        && let Some(server) = client.in_the_clear()
    {
        return Err(Stop::usage(
            format!("a value is not sent over plain HTTP to {server}"),
            "use https with --ca, or run the command where the broadcaster runs",
        ));
    }
    let order = Order { secret: secret.clone(), reason, action };
    client.order(&signer, context.global.cluster.as_ref(), order).await
}

/// Gives an order that makes nothing, and says so.
pub(crate) async fn simple(
    context: &Context,
    secret: SecretName,
    reason: String,
    (command, done): (&'static str, &str),
    action: Action,
) -> Result<(), Stop> {
    give(context, &secret, reason, action).await?;
    if context.output.is_data() {
        let secret = secret.to_string();
        return context.output.data(&OrderView { secret, command, version: None, generation: None, rotation: None });
    }
    context.output.line(format_args!("{secret}: {done}"))
}

pub(crate) async fn approve(context: &Context, secret: SecretName) -> Result<(), Stop> {
    simple(context, secret, String::new(), ("approve", "activation approved"), Action::Approve(v1::Approve {})).await
}

pub(crate) async fn pause(context: &Context, args: ReasonedArgs) -> Result<(), Stop> {
    let done = ("pause", "paused; nothing irreversible happens until `rotacast resume`");
    simple(context, args.secret, args.reason, done, Action::Pause(v1::Pause {})).await
}

pub(crate) async fn resume(context: &Context, secret: SecretName) -> Result<(), Stop> {
    simple(context, secret, String::new(), ("resume", "resumed"), Action::Resume(v1::Resume {})).await
}

pub(crate) async fn roll_back(context: &Context, args: ReasonedArgs) -> Result<(), Stop> {
    let done = ("rollback", "rolling back; `rotacast wait --for rolled-back` tells when it is done");
    simple(context, args.secret, args.reason, done, Action::RollBack(v1::RollBack {})).await
}

pub(crate) async fn leave_safe_mode(context: &Context, secret: SecretName) -> Result<(), Stop> {
    let action = Action::LeaveSafeMode(v1::LeaveSafeMode {});
    simple(context, secret, String::new(), ("leave_safe_mode", "safe mode left"), action).await
}

pub(crate) async fn rotate(context: &Context, args: RotateArgs) -> Result<(), Stop> {
    let reply = give(context, &args.secret, String::new(), Action::Rotate(v1::Rotate {})).await?;
    let started = format!("rotation {} to version {} started", reply.generation, reply.version);
    let which = Which::Generation(reply.generation);
    finish(context, args.secret, ("rotate", started), reply, (which, args.waiting)).await
}

pub(crate) async fn put(context: &Context, args: PutArgs) -> Result<(), Stop> {
    let value = read_value(args.file.as_deref())?;
    let length = value.len();
    if value.last() == Some(&b'\n') {
        note("note: the value ends with a line break, which is part of it (`printf %s …` writes none)");
    }
    // Wiped when the last part of the message is dropped.
    let action = Action::Put(v1::Put { value: Bytes::from_owner(value) });
    let reply = give(context, &args.secret, String::new(), action).await?;
    let written = format!("version {} written, {}", reply.version, count(length, "byte"));
    let which = Which::To(reply.version);
    finish(context, args.secret, ("put", written), reply, (which, args.waiting)).await
}

/// Says what an order has started, and how that ended if it is to be waited for.
async fn finish(
    context: &Context,
    secret: SecretName,
    (command, started): (&'static str, String),
    reply: v1::CommandReply,
    (which, waiting): (Which, Waiting),
) -> Result<(), Stop> {
    let output = context.output;
    if !output.is_data() {
        output.line(format_args!("{secret}: {started}"))?;
    }
    let rotation = match waiting.wait {
        true => Some(wait::for_end(context, &secret, which, waiting.timeout).await?),
        false => None,
    };
    let verdict = rotation.as_ref().map_or(Ok(()), |ended| wait::verdict(&secret, ended));
    if output.is_data() {
        let some = |number: u64| (number != 0).then_some(number);
        let generation = some(reply.generation).or(rotation.as_ref().map(|ended| ended.generation));
        let (secret, version) = (secret.to_string(), some(reply.version));
        output.data(&OrderView { secret, command, version, generation, rotation })?;
    } else if let (Ok(()), Some(ended)) = (&verdict, &rotation) {
        output.line(format_args!("{secret}: {}", ending(ended)))?;
    }
    verdict
}

/// The value, byte for byte. Never from an argument: other users of a machine see those.
fn read_value(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let (name, value) = match file {
        Some(file) => {
            let opened = std::fs::File::open(file);
            (file.display().to_string(), opened.and_then(|mut opened| read_bounded(&mut opened)))
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Stop::usage(
                "the value would be shown as it is typed",
                "pipe it in (`pass show db | rotacast put …`) or name a file with --file",
            ));
        }
        None => ("standard input".to_owned(), read_bounded(&mut std::io::stdin().lock())),
    };
    let value = value.map_err(|error| Stop::usage(format!("cannot read the value from {name}: {error}"), ""))?;
    if value.is_empty() || value.len() > MAX_PUT_BYTES {
        let found = if value.is_empty() { "nothing".to_owned() } else { format!("more than {MAX_PUT_BYTES} bytes") };
        return Err(Stop::usage(
            format!("{name} holds {found}"),
            format!("expected a value of 1 to {MAX_PUT_BYTES} bytes"),
        ));
    }
    Ok(value)
}

/// Reads at most one byte more than is allowed, into one buffer of that size, so that growing leaves no copy behind.
fn read_bounded(source: &mut impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; MAX_PUT_BYTES + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(length);
    Ok(buffer)
}
