//! `rotacast retire --override` and `rotacast excuse`: a rotation that no longer waits for named instances.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rotacast_proto::MAX_OVERRIDDEN;
use rotacast_protocol::coordinator::{ConditionName, Order, Reason};
use rotacast_protocol::status::InstanceStatus;

use crate::Context;
use crate::arguments::{OrderArgs, RetireArgs};
use crate::client::Directive;
use crate::error::{Exit, Stop};
use crate::human_time::span;
use crate::instance_pattern::InstancePattern;
use crate::order;
use crate::output::note;

pub(crate) async fn run(context: &Context, args: RetireArgs) -> Result<(), Stop> {
    // Before anything is asked.
    Reason::new(&args.reason).map_err(order::invalid)?;
    let client = context.client().await?;
    if args.instance.is_empty() && !args.sessions {
        let status = client.status(Some(&args.secret)).await?;
        let mut who: Vec<&str> = status
            .secrets
            .iter()
            .flat_map(|it| &it.blockers)
            .filter(|it| matches!(it.condition, ConditionName::MembersReleased | ConditionName::UsageEvidence))
            .filter_map(|it| it.who.as_deref())
            .collect();
        who.dedup();
        let holding = match who.is_empty() {
            true => "held up by no instance and no session".to_owned(),
            false => format!("held up by {}", who.join(", ")),
        };
        return Err(Stop::usage(
            format!("an override names who is cut off; {} is {holding}", args.secret),
            "name instances with --instance, the provider's sessions with --sessions, or both",
        ));
    }
    let all = client.instances(Some(&args.secret), None).await?.instances;
    let mut cut: Vec<&InstanceStatus> = Vec::new();
    for pattern in &args.instance {
        for life in pattern.find(&all)? {
            if !cut.iter().any(|known| known.key == life.key) {
                cut.push(life);
            }
        }
    }
    if cut.len() > MAX_OVERRIDDEN {
        return Err(Stop::usage(
            format!("{} instances", cut.len()),
            format!("expected at most {MAX_OVERRIDDEN} in one override"),
        ));
    }
    let instances = cut.iter().map(|life| life.key.clone()).collect();
    let order = Order::cut_off(args.version, instances, args.sessions, &args.reason).map_err(order::invalid)?;
    if !args.yes {
        ask(&args, &cut)?;
    }
    let done = format!("override on record; version {} is retired without waiting for them", args.version);
    order::simple(context, args.secret, Directive::from(order).alone(args.emergency), &done).await
}

/// Says who is cut off, and has it confirmed.
fn ask(args: &RetireArgs, cut: &[&InstanceStatus]) -> Result<(), Stop> {
    note(format_args!("Version {} of {} will be retired although these may still use it:", args.version, args.secret));
    for life in cut {
        let held: Vec<String> = life.held.iter().map(ToString::to_string).collect();
        let holds = if held.is_empty() { "nothing".to_owned() } else { format!("version {}", held.join(", ")) };
        let heard =
            life.silent_for_ms.map_or_else(|| "never heard".to_owned(), |silent| format!("heard {} ago", span(silent)));
        note(format_args!("  {} · holds {holds} · {} · {heard}", life.key, life.standing));
    }
    if args.sessions {
        note("  every session of that version that is live at the provider");
    }
    note("They are cut off: work that uses the version fails. This cannot be undone.");
    confirm(args.secret.as_str(), "the secret's name")
}

/// Has an order confirmed by typing a name.
pub(crate) fn confirm(name: &str, what: &str) -> Result<(), Stop> {
    if !std::io::stdin().is_terminal() {
        return Err(Stop::usage(
            "standard input is no terminal, so what is cut off cannot be confirmed",
            "run it in a terminal, or add --yes",
        ));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "Type {what} to go on: ").and_then(|()| err.flush());
    drop(err);
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|error| Stop::usage(format!("cannot read the answer: {error}"), ""))?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Stop::failed(Exit::Failed, "declined", "not confirmed; nothing was done", ""))
}

pub(crate) async fn excuse(context: &Context, args: OrderArgs, whom: &InstancePattern) -> Result<(), Stop> {
    let OrderArgs { secret, beside } = args;
    let all = context.client().await?.instances(Some(&secret), None).await?.instances;
    let life = whom.find_one(&all)?;
    let done = format!("{} is excused from preparing and switching; it still counts for the retire", life.key);
    let order = Order::Excuse { instance: life.key.clone() };
    order::simple(context, secret, Directive::from(order).said(&beside)?, &done).await
}
