//! `rotacast why`: plain sentences about what waits.

use rotacast_protocol::{SecretName, WallTime};

use crate::Context;
use crate::error::{Exit, Stop};
use crate::human_time::{ago, moment};
use crate::output::{Mark, Output, shown};
use crate::summary::{direction, ending, words};
use rotacast_admin::view::{BlockerView, LeadingView, Moment, SecretView, StatusView, WhyView};

pub(crate) async fn run(context: &Context, secret: &SecretName) -> Result<(), Stop> {
    let status = context.client().await?.status(Some(secret)).await?;
    if !status.leader {
        return Err(not_leader(&status));
    }
    let Some(status) = status.secrets.into_iter().find(|status| status.secret == secret.as_str()) else {
        return Err(Stop::failed(
            Exit::NotFound,
            "not_found",
            format!("secret {secret}: not found"),
            "`rotacast status` lists all",
        ));
    };
    let output = context.output;
    if output.is_data() {
        return output.data(&WhyView {
            waiting: !status.blockers.is_empty(),
            secret: status.secret,
            current: status.current,
            rotation: status.rotation,
            overlays: status.overlays,
            blockers: status.blockers,
            last: status.history.into_iter().next(),
        });
    }
    tell(output, &status, rotacast_clock::wall())
}

/// What waits, and for whom, is in the leader's memory: from the record alone it would look as if nothing did.
fn not_leader(status: &StatusView) -> Stop {
    let who = match &status.leading {
        Some(LeadingView { replica, address: Some(address) }) => format!("{replica} leads, at {address}"),
        Some(LeadingView { replica, address: None }) => format!("{replica} leads"),
        None => "the store names no leader at the moment".into(),
    };
    Stop::failed(
        Exit::Unreachable,
        "not_leader",
        format!("this broadcaster does not lead, and only the leader knows what waits for whom: {who}"),
        "name the broadcaster that leads with --server, or all of them: --server A,B finds it by itself",
    )
}

fn since(at: Option<Moment>, now: WallTime) -> Option<String> {
    at.map(|at| format!("{} ({})", moment(at.0), ago(at.0, now)))
}

fn tell(output: Output, status: &SecretView, now: WallTime) -> Result<(), Stop> {
    let secret = output.paint(Mark::Strong, &shown(&status.secret));
    match &status.rotation {
        Some(rotation) => {
            let since = since(rotation.phase_since, now).map(|since| format!(" since {since}")).unwrap_or_default();
            output.line(format_args!(
                "{secret}: rotation {} ({}, asked for by {}) is {}{since}.",
                rotation.generation,
                direction(rotation.old, rotation.new),
                shown(&rotation.trigger),
                words(rotation.phase)
            ))?;
            if let Some(reason) = &rotation.rollback_reason {
                output.line(format_args!("It goes back because: {}.", shown(reason)))?;
            }
        }
        None => output.line(match status.current {
            Some(current) => format!("{secret}: no rotation is in flight; version {current} is current."),
            None => format!("{secret}: no rotation is in flight, and no version is current."),
        })?,
    }
    for overlay in &status.overlays {
        output.line(output.paint(Mark::Warn, &overlay_sentence(overlay)))?;
    }
    if status.blockers.is_empty() {
        output.line(match &status.rotation {
            Some(_) => "Nothing holds it up: it goes on by itself.".to_owned(),
            None => "Nothing waits.".to_owned(),
        })?;
        if let Some(last) = status.history.first() {
            let ended = since(last.ended_at, now).map(|since| format!(", ended {since}")).unwrap_or_default();
            output.line(format_args!("Last: {}{ended}.", ending(last)))?;
        }
        return Ok(());
    }
    let count = status.blockers.len();
    output.line(if count == 1 {
        "It waits for one thing:".to_owned()
    } else {
        format!("It waits for {count} things:")
    })?;
    for (number, blocker) in status.blockers.iter().enumerate() {
        output.line("")?;
        tell_blocker(output, number + 1, blocker, now)?;
    }
    Ok(())
}

fn tell_blocker(output: Output, number: usize, blocker: &BlockerView, now: WallTime) -> Result<(), Stop> {
    let why = shown(&blocker.why);
    match &blocker.who {
        Some(who) => output.line(format_args!("{number}. {}: {why}.", output.paint(Mark::Strong, &shown(who))))?,
        None => output.line(format_args!("{number}. {}.", capitalised(&why)))?,
    }
    output.line(format_args!("   What waits: {}.", what_waits(&blocker.condition)))?;
    output.line(match since(blocker.since, now) {
        Some(since) => format!("   Since: {since}."),
        None => "   Since: not known to this leader.".into(),
    })?;
    output.line(format_args!("   Next: {}.", shown(&blocker.next)))
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn overlay_sentence(overlay: &str) -> String {
    match overlay {
        "paused" => "It is paused: nothing irreversible happens until an operator resumes (`rotacast resume`).".into(),
        "awaiting_approval" => "It awaits an operator's approval (`rotacast approve`).".into(),
        "stuck" => "It is stuck: a deadline has passed, or a command keeps failing.".into(),
        "staying" => {
            "Safe mode is over, and instances stay with what they serve until the version that comes next is current: write one, \
             or send them to the current version by `rotacast leave-safe-mode` once more."
                .into()
        }
        "safe_mode" => {
            "It is in safe mode: the store is not what it was. Look at it, then `rotacast leave-safe-mode`.".into()
        }
        other => format!("It is marked {}.", shown(&words(other))),
    }
}

/// The conditions in plain words, with their names for scripts and documents.
fn what_waits(condition: &str) -> String {
    let meaning = match condition {
        "created" => "the new credential is made",
        "roster_read" => "the new leader has read who exists",
        "verified" => "the new credential passes its test login",
        "prepared" => "every instance has loaded the new version",
        "switched" => "every instance uses the new version for new work",
        "approval" => "an operator approves the activation",
        "not_paused" => "nobody has paused it",
        "not_in_safe_mode" => "the store is known to be what it was",
        "staying" => "a version is current that instances may go to",
        "somebody" => "at least one live instance takes part",
        "required_services" => "every required service has its minimum of live instances on the version",
        "leads" => "this broadcaster surely leads",
        "phase" => "the rotation is at the point where the old version may go",
        "overlap_over" => "old and new have been valid together for the minimum overlap",
        "inherited_leases_over" => "leases that an earlier leader granted are over",
        "members_released" => "every instance has let go of the old version",
        "somebody_confirmed" => "at least one live instance has confirmed the new version",
        "sealed" => "nobody may begin to use the old version",
        "self_leases_over" => "uses allowed by a store read before the seal are over",
        "barrier" => "the roster has been read to its end after the seal",
        "usage_evidence" => "the provider shows no session of the old credential",
        "command" => "a command to the outside succeeds",
        "deadline" => "the phase ends within its deadline",
        "retired" => "the old credential is disabled, destroyed and erased",
        "start" => "the rotation to a waiting version starts",
        _ => return shown(&words(condition)),
    };
    format!("that {meaning} ({condition})")
}
