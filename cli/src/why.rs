//! `rotacast why`: plain sentences about what waits.

use rotacast_protocol::coordinator::{Overlay, Reason};
use rotacast_protocol::status::{BlockerStatus, BroadcasterStatus, FindingStatus, Leading, SecretStatus, Severity};
use rotacast_protocol::{SecretName, WallTime};

use crate::Context;
use crate::error::{Exit, Stop};
use crate::human_time::{ago, moment};
use crate::output::{Mark, Output, shown};
use crate::summary::{direction, ending};
use rotacast_admin::view::WhyView;

pub(crate) async fn run(context: &Context, secret: &SecretName) -> Result<(), Stop> {
    let status = context.client().await?.status(Some(secret)).await?;
    if !status.leader {
        return Err(not_leader(&status));
    }
    let Some(status) = status.secrets.into_iter().find(|status| status.secret == *secret) else {
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
            findings: status.findings,
            last: status.history.into_iter().next(),
        });
    }
    tell(output, &status, rotacast_clock::wall())
}

/// What waits, and for whom, is in the leader's memory: from the record alone it would look as if nothing did.
fn not_leader(status: &BroadcasterStatus) -> Stop {
    let who = match &status.leading {
        Some(Leading { replica, address: Some(address) }) => format!("{replica} leads, at {address}"),
        Some(Leading { replica, address: None }) => format!("{replica} leads"),
        None => "the store names no leader at the moment".into(),
    };
    Stop::failed(
        Exit::Unreachable,
        "not_leader",
        format!("this broadcaster does not lead, and only the leader knows what waits for whom: {who}"),
        "name the broadcaster that leads with --server, or all of them: --server A,B finds it by itself",
    )
}

fn since(at: WallTime, now: WallTime) -> String {
    format!("{} ({})", moment(at), ago(at, now))
}

fn tell(output: Output, status: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    let secret = output.paint(Mark::Strong, status.secret.as_str());
    match &status.rotation {
        Some(rotation) => {
            output.line(format_args!(
                "{secret}: rotation {} ({}, asked for by {}) is {} since {}.",
                rotation.number,
                direction(rotation.old, rotation.new),
                shown(&rotation.trigger),
                rotation.phase.words(),
                since(rotation.phase_since, now)
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
        output.line(output.paint(Mark::Warn, &overlay_sentence(&status.secret, *overlay)))?;
    }
    for finding in &status.findings {
        tell_finding(output, finding, now)?;
    }
    if status.blockers.is_empty() {
        output.line(match &status.rotation {
            Some(_) => "Nothing holds the rotation up: it goes on by itself.".to_owned(),
            None if status.findings.is_empty() => "Nothing waits.".to_owned(),
            None => "Nothing else waits.".to_owned(),
        })?;
        if let Some(last) = status.history.first() {
            output.line(format_args!("Last: {}, ended {}.", ending(last), since(last.ended_at, now)))?;
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

fn tell_finding(output: Output, finding: &FindingStatus, now: WallTime) -> Result<(), Stop> {
    let (mark, level) = match finding.level {
        Severity::Error => (Mark::Bad, "Error"),
        Severity::Warning => (Mark::Warn, "Warning"),
    };
    output.line(format_args!("{}: {}.", output.paint(mark, level), shown(&finding.text)))?;
    output.line(format_args!("   Since: {}.", since(finding.since, now)))?;
    if finding.fix.is_empty() { Ok(()) } else { output.line(format_args!("   Fix: {}.", shown(&finding.fix))) }
}

fn tell_blocker(output: Output, number: usize, blocker: &BlockerStatus, now: WallTime) -> Result<(), Stop> {
    let why = shown(&blocker.why);
    match &blocker.who {
        Some(who) => output.line(format_args!("{number}. {}: {why}.", output.paint(Mark::Strong, &shown(who))))?,
        None => output.line(format_args!("{number}. {}.", capitalised(&why)))?,
    }
    // What is waited for, with its name for scripts and documents.
    output.line(format_args!("   Waiting for: {} ({}).", blocker.condition.words(), blocker.condition))?;
    output.line(match blocker.since {
        Some(at) => format!("   Since: {}.", since(at, now)),
        None => "   Since: not known to this leader.".into(),
    })?;
    output.line(format_args!("   Next: {}.", shown(&blocker.next)))?;
    match &blocker.command {
        Some(command) => output.line(format_args!("   Command: {}", shown(command))),
        None => Ok(()),
    }
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

/// What it means, and the command that helps.
fn overlay_sentence(secret: &SecretName, overlay: Overlay) -> String {
    let next = match overlay {
        Overlay::Paused => format!(" Next: `rotacast resume {secret}`."),
        Overlay::AwaitingApproval => format!(" Next: `rotacast approve {secret}`."),
        Overlay::SafeMode => format!(" Next: `rotacast leave-safe-mode {secret} --reason '{}'`.", Reason::PLACEHOLDER),
        // A blocker says what.
        Overlay::Staying | Overlay::Stuck => String::new(),
    };
    format!("{}. {}{next}", capitalised(overlay.words()), overlay.meaning())
}
