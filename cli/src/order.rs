//! The orders: `put`, `rotate`, `approve`, `pause`, `resume`, `rollback`, `abandon`, `leave-safe-mode`.

use std::io::{IsTerminal as _, Read};
use std::path::Path;

use prost::bytes::Bytes;
use rotacast_proto::v1;
use rotacast_protocol::coordinator::{InvalidOrder, Order, OrderName, Reason};
use rotacast_protocol::{RotationNumber, SecretName, Version, WallTime};
use zeroize::Zeroizing;

use crate::Context;
use crate::approvals;
use crate::arguments::{AbandonArgs, OrderArgs, PutArgs, ReasonedArgs, RotateArgs, Waiting};
use crate::client::{Client, Directive, Instruction, Signer};
use crate::error::Stop;
use crate::goal::Which;
use crate::output::{Output, note, shown};
use crate::summary::{count, ending};
use crate::wait;
use rotacast_admin::limits::MAX_PUT_BYTES;
use rotacast_admin::view::OrderView;

/// What an order has led to.
pub(crate) struct Done {
    pub(crate) version: Option<Version>,
    pub(crate) number: Option<RotationNumber>,
    /// It waits for approvals.
    pub(crate) waits: Option<v1::OrderRequest>,
}

/// Gives an order, or writes a value. `subject`: the secret; empty for an order about no secret.
pub(crate) async fn give(context: &Context, subject: &str, directive: Directive) -> Result<Done, Stop> {
    // A `rotacast dev` that is starting has yet to make its key.
    let keyless = Signer::open(&context.global).err();
    let client = match Client::connect_when_started(&context.global).await {
        Ok(client) => client,
        Err(stop) => return Err(keyless.unwrap_or(stop)),
    };
    let signer = Signer::open(&context.global)?;
    if matches!(directive.instruction, Instruction::Put(_))
        && let Some(server) = client.in_the_clear()
    {
        return Err(Stop::usage(
            format!("a value is not sent over plain HTTP to {server}"),
            "use https with --ca, or run the command where the broadcaster runs",
        ));
    }
    let reply = client.order(&signer, context.global.cluster.as_ref(), subject, &directive).await?;
    let v1::CommandReply { version, number, request: waits } = reply;
    // 0 stands for none.
    let number = (number != 0).then_some(RotationNumber(number));
    Ok(Done { version: Version::new(version).ok(), number, waits })
}

/// Gives an order that makes nothing, and says so.
pub(crate) async fn simple(
    context: &Context,
    secret: SecretName,
    directive: Directive,
    done: &str,
) -> Result<(), Stop> {
    let command = directive.instruction.name();
    let waits = give(context, secret.as_str(), directive).await?.waits;
    if context.output.is_data() {
        let request = waits.as_ref().map(approvals::view);
        return context.output.data(&OrderView::plain(secret, command, request));
    }
    match waits {
        Some(waits) => tell_waits(context.output, secret.as_str(), &waits),
        None => context.output.line(format_args!("{secret}: {done}")),
    }
}

/// Says what an order waits for.
pub(crate) fn tell_waits(output: Output, about: &str, waits: &v1::OrderRequest) -> Result<(), Stop> {
    output.line(format_args!(
        "{about}: waits for {} of other operators, until {}. Request {}",
        count(usize::try_from(waits.missing).unwrap_or(usize::MAX), "approval"),
        WallTime(waits.expires_ms),
        shown(&waits.id)
    ))?;
    output.line(format_args!("each of them: rotacast approvals approve {}", shown(&waits.id)))
}

/// What is wrong with what was typed.
pub(crate) fn invalid(error: InvalidOrder) -> Stop {
    let fix = match error {
        InvalidOrder::NoReason => "say why with --reason: it goes on record",
        InvalidOrder::LongReason { .. } => "shorten --reason",
        InvalidOrder::PlaceholderReason => "say with --reason what you know: it goes on record",
        InvalidOrder::CutsOffNothing => {
            "name instances with --instance, the provider's sessions with --sessions, or both"
        }
    };
    Stop::usage(error.to_string(), fix)
}

pub(crate) async fn approve(context: &Context, args: OrderArgs) -> Result<(), Stop> {
    let directive = Directive::from(Order::Approve).said(&args.beside)?;
    simple(context, args.secret, directive, "activation approved").await
}

pub(crate) async fn pause(context: &Context, args: ReasonedArgs) -> Result<(), Stop> {
    let order = Order::pause(&args.reason).map_err(invalid)?;
    let done = format!("paused; nothing irreversible happens until `rotacast resume {}`", args.secret);
    simple(context, args.secret, Directive::from(order).alone(args.emergency), &done).await
}

pub(crate) async fn resume(context: &Context, args: OrderArgs) -> Result<(), Stop> {
    simple(context, args.secret, Directive::from(Order::Resume).said(&args.beside)?, "resumed").await
}

pub(crate) async fn roll_back(context: &Context, args: ReasonedArgs) -> Result<(), Stop> {
    let order = Order::rollback(&args.reason).map_err(invalid)?;
    let done = format!("rolling back; `rotacast wait {} --for rolled_back` tells when it is done", args.secret);
    simple(context, args.secret, Directive::from(order).alone(args.emergency), &done).await
}

pub(crate) async fn abandon(context: &Context, args: AbandonArgs) -> Result<(), Stop> {
    let order = Order::abandon(args.version, &args.reason).map_err(invalid)?;
    let done = format!(
        "version {} is given up: its value is erased once no instance may use it. Its credential at the provider, if it has \
         one, is left alone: end it there",
        args.version
    );
    simple(context, args.secret, Directive::from(order).alone(args.emergency), &done).await
}

pub(crate) async fn leave_safe_mode(context: &Context, args: ReasonedArgs) -> Result<(), Stop> {
    let reason = Some(Reason::new(&args.reason).map_err(invalid)?);
    let instruction = Instruction::Order(Order::LeaveSafeMode);
    let directive = Directive { instruction, reason, emergency: args.emergency.emergency };
    simple(context, args.secret, directive, "safe mode left").await
}

pub(crate) async fn rotate(context: &Context, args: RotateArgs) -> Result<(), Stop> {
    let mut done = give(context, args.secret.as_str(), Directive::from(Order::Rotate).said(&args.beside)?).await?;
    if let Some(waits) = done.waits.take() {
        if args.waiting.wait {
            note("not waited for: the rotation begins when the order has its approvals");
        }
        if context.output.is_data() {
            let (secret, command) = (args.secret, OrderName::Rotate.as_str());
            let request = Some(approvals::view(&waits));
            return context.output.data(&OrderView::plain(secret, command, request));
        }
        return tell_waits(context.output, args.secret.as_str(), &waits);
    }
    let (Some(version), Some(number)) = (done.version, done.number) else {
        return Err(Stop::unfinished("names neither the version nor the rotation that it has started"));
    };
    let started = format!("rotation {number} to version {version} started");
    let which = Which::Rotation(number);
    finish(context, args.secret, (OrderName::Rotate.as_str(), started), done, (which, args.waiting)).await
}

pub(crate) async fn put(context: &Context, args: PutArgs) -> Result<(), Stop> {
    let value = read_value(args.file.as_deref())?;
    let length = value.len();
    if value.last() == Some(&b'\n') {
        note("note: the value ends with a line break, which is part of it (`printf %s …` writes none)");
    }
    // Wiped when the last part of the message is dropped.
    let directive = Directive::of(Instruction::Put(Bytes::from_owner(value))).said(&args.beside)?;
    let done = give(context, args.secret.as_str(), directive).await?;
    let Some(version) = done.version else {
        return Err(Stop::unfinished("does not name the version that it has written"));
    };
    let written = format!("version {version} written, {}", count(length, "byte"));
    finish(context, args.secret, ("put", written), done, (Which::To(version), args.waiting)).await
}

/// Says what an order has started, and how that ended if it is to be waited for.
async fn finish(
    context: &Context,
    secret: SecretName,
    (command, started): (&'static str, String),
    done: Done,
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
        let number = done.number.or(rotation.as_ref().map(|ended| ended.number));
        output.data(&OrderView { secret, command, version: done.version, number, rotation, request: None })?;
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
