//! `rotacast retire --override` and `rotacast excuse`: going on without somebody.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rotacast_proto::v1;
use rotacast_proto::v1::operator_command::Action;
use rotacast_protocol::SecretName;

use crate::Context;
use crate::arguments::RetireArgs;
use crate::error::{Exit, Stop};
use crate::human_time::span;
use crate::instance_pattern::{InstancePattern, wire_key};
use crate::order;
use crate::output::{note, shown};
use rotacast_admin::limits::MAX_OVERRIDDEN;
use rotacast_admin::view::InstanceView;

pub(crate) async fn run(context: &Context, args: RetireArgs) -> Result<(), Stop> {
    if args.reason.trim().is_empty() {
        return Err(Stop::usage("--reason is empty", "say why: it goes on record"));
    }
    let client = context.client().await?;
    if args.instance.is_empty() && !args.sessions {
        let status = client.status(Some(&args.secret)).await?;
        let mut who: Vec<&str> = status
            .secrets
            .iter()
            .flat_map(|it| &it.blockers)
            .filter(|it| matches!(it.condition.as_str(), "members_released" | "usage_evidence"))
            .filter_map(|it| it.who.as_deref())
            .collect();
        who.dedup();
        let holding = match who.is_empty() {
            true => "nobody holds it up".to_owned(),
            false => format!("held up by {}", who.join(", ")),
        };
        return Err(Stop::usage(
            format!("an override names who is cut off; {} is {holding}", args.secret),
            "name instances with --instance, the provider's sessions with --sessions, or both",
        ));
    }
    let all = client.instances(Some(&args.secret), None).await?.instances;
    let mut cut: Vec<&InstanceView> = Vec::new();
    for pattern in &args.instance {
        for life in pattern.find(&all)? {
            if !cut.iter().any(|known| known.full_name() == life.full_name()) {
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
    let instances = cut.iter().map(|life| wire_key(life)).collect::<Result<Vec<_>, _>>()?;
    if !args.yes {
        ask(&args, &cut)?;
    }
    let action = Action::Override(v1::Override { version: args.version.get(), instances, sessions: args.sessions });
    let done = format!("override on record; version {} is retired without waiting for them", args.version);
    order::simple(context, args.secret, args.reason, ("override", &done), action).await
}

/// Says who is cut off, and has it confirmed.
fn ask(args: &RetireArgs, cut: &[&InstanceView]) -> Result<(), Stop> {
    if !std::io::stdin().is_terminal() {
        return Err(Stop::usage("nobody is there to confirm who is cut off", "run it in a terminal, or add --yes"));
    }
    note(format_args!("Version {} of {} will be retired although these may still use it:", args.version, args.secret));
    for life in cut {
        let held: Vec<String> = life.held.iter().map(u64::to_string).collect();
        let holds = if held.is_empty() { "nothing".to_owned() } else { format!("version {}", held.join(", ")) };
        let heard =
            life.silent_for_ms.map_or_else(|| "never heard".to_owned(), |silent| format!("heard {} ago", span(silent)));
        note(format_args!("  {} · holds {holds} · {} · {heard}", shown(&life.name()), shown(&life.standing)));
    }
    if args.sessions {
        note("  every session of that version that is live at the provider");
    }
    note("They are cut off: work that uses the version fails. This cannot be undone.");
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "Type the secret's name to go on: ").and_then(|()| err.flush());
    drop(err);
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|error| Stop::usage(format!("cannot read the answer: {error}"), ""))?;
    if typed.trim() == args.secret.as_str() {
        return Ok(());
    }
    Err(Stop::failed(Exit::Failed, "declined", "not confirmed; nothing was done", ""))
}

pub(crate) async fn excuse(context: &Context, secret: SecretName, whom: &InstancePattern) -> Result<(), Stop> {
    let all = context.client().await?.instances(Some(&secret), None).await?.instances;
    let life = whom.find_one(&all)?;
    let done =
        format!("{} is excused from preparing and switching; it still counts for the retire", shown(&life.name()));
    let action = Action::Excuse(v1::Excuse { instance: Some(wire_key(life)?) });
    order::simple(context, secret, String::new(), ("excuse", &done), action).await
}
