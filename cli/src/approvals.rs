//! `rotacast approvals`: orders that wait for the approval of other operators.

use prost::Message as _;
use rotacast_admin::view::{ApprovalView, RequestView, RequestsView, arguments};
use rotacast_proto::v1;
use rotacast_protocol::WallTime;
use serde::Serialize;

use crate::Context;
use crate::client::{Directive, Instruction};
use crate::error::{Exit, Stop};
use crate::human_time::moment;
use crate::order;
use crate::output::shown;
use crate::summary::count;
use crate::table::Table;

#[derive(Serialize)]
struct ApprovedView {
    request: String,
    /// Whether the order was carried out with this approval.
    carried_out: bool,
    version: Option<u64>,
    number: Option<u64>,
    /// As it waits, if it still does.
    waits: Option<RequestView>,
}

#[derive(Serialize)]
struct WithdrawnView {
    withdrawn: String,
}

/// What of the order an approval names, for people.
pub(crate) fn view(wire: &v1::OrderRequest) -> RequestView {
    let command = v1::OperatorCommand::decode(wire.command.clone()).unwrap_or_default();
    RequestView {
        id: wire.id.clone(),
        digest: hex::encode(&wire.digest),
        operator: wire.operator.clone(),
        order: wire.order.clone(),
        secret: Some(wire.secret.clone()).filter(|secret| !secret.is_empty()),
        arguments: arguments(command.action.as_ref()),
        reason: Some(command.reason).filter(|reason| !reason.is_empty()),
        role: wire.role.clone(),
        asked_at: WallTime(wire.asked_ms),
        expires_at: WallTime(wire.expires_ms),
        needed: wire.needed,
        missing: wire.missing,
        void: Some(wire.void.clone()).filter(|why| !why.is_empty()),
        approvals: wire
            .approvals
            .iter()
            .map(|it| ApprovalView { operator: it.operator.clone(), at: WallTime(it.at_ms) })
            .collect(),
    }
}

pub(crate) async fn list(context: &Context) -> Result<(), Stop> {
    let requests: Vec<RequestView> = context.client().await?.requests().await?.iter().map(view).collect();
    let output = context.output;
    if output.is_data() {
        return output.data(&RequestsView { requests });
    }
    if requests.is_empty() {
        return output.line("no order waits for approvals");
    }
    let mut table = Table::new(["REQUEST", "ORDER", "SECRET", "BY", "REASON", "APPROVED BY", "MISSING", "EXPIRES"]);
    for it in &requests {
        let names: Vec<&str> = it.approvals.iter().map(|it| it.operator.as_str()).collect();
        let what = std::iter::once(it.order.as_str()).chain(it.arguments.iter().map(String::as_str));
        table.row([
            (&it.id).into(),
            what.collect::<Vec<_>>().join(" · ").into(),
            it.secret.as_deref().unwrap_or("-").into(),
            (&it.operator).into(),
            it.reason.as_deref().unwrap_or("-").into(),
            if names.is_empty() { "-".into() } else { names.join(", ").into() },
            it.missing.to_string().into(),
            moment(it.expires_at).into(),
        ]);
    }
    table.print(output, "")?;
    for it in requests.iter() {
        if let Some(why) = &it.void {
            output.line(format_args!("{} does not count at the moment: {}", it.id, shown(why)))?;
        }
    }
    output.line("`rotacast approvals approve REQUEST` approves exactly that order; `withdraw` takes an order or an approval back")
}

/// The request that is meant, as it waits.
async fn find(context: &Context, id: &str) -> Result<v1::OrderRequest, Stop> {
    let mut found = context.client().await?.requests().await?;
    found.retain(|it| !id.is_empty() && it.id.starts_with(id));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Stop::failed(
            Exit::NotFound,
            "not_found",
            format!("request {id}: not found"),
            "`rotacast approvals` lists those that wait; it was carried out or withdrawn, or it has expired",
        )),
        several => Err(Stop::usage(format!("{several} requests begin with {id}"), "give more digits of it")),
    }
}

pub(crate) async fn approve(context: &Context, id: &str) -> Result<(), Stop> {
    let request = find(context, id).await?;
    let it = view(&request);
    let instruction = Instruction::ApproveRequest { request: request.id.clone(), digest: request.digest.clone() };
    let done = order::give(context, &request.secret, Directive::of(instruction)).await?;
    let (carried_out, output) = (done.waits.is_none(), context.output);
    if output.is_data() {
        return output.data(&ApprovedView {
            request: request.id,
            carried_out,
            version: done.version.map(|it| it.get()),
            number: done.number.map(|it| it.0),
            waits: done.waits.as_ref().map(view),
        });
    }
    let about = it.secret.as_deref().unwrap_or("the audit log");
    let what = std::iter::once(it.order.clone()).chain(it.arguments).collect::<Vec<_>>().join(" · ");
    output.line(format_args!("{}: approved: {} of {}", shown(about), shown(&what), shown(&it.operator)))?;
    match done.waits {
        Some(waits) => output.line(format_args!("it still waits for {}", count(waits.missing as usize, "approval"))),
        None => output.line("it had all approvals, and is carried out"),
    }
}

pub(crate) async fn withdraw(context: &Context, id: &str) -> Result<(), Stop> {
    let request = find(context, id).await?;
    let instruction = Instruction::WithdrawRequest { request: request.id.clone() };
    order::give(context, &request.secret, Directive::of(instruction)).await?;
    if context.output.is_data() {
        return context.output.data(&WithdrawnView { withdrawn: request.id });
    }
    context.output.line(format_args!("{}: withdrawn", request.id))
}
