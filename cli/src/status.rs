//! `rotacast status`.

use rotacast_protocol::status::{BroadcasterStatus, FindingCounts, Leading, SecretStatus};
use rotacast_protocol::{Outcome, SecretName, WallTime};

use crate::Context;
use crate::error::Stop;
use crate::human_time::{ago, moment, span};
use crate::output::{Mark, Output, shown};
use crate::summary::{self, count, direction};
use crate::table::{Cell, Table};

/// Of each list this many are shown, so that one secret fits a screen.
const MAX_SHOWN: usize = 6;

pub(crate) async fn run(context: &Context, secret: Option<&SecretName>) -> Result<(), Stop> {
    let status = context.client().await?.status(secret).await?;
    let output = context.output;
    if output.is_data() {
        return output.data(&status);
    }
    let now = rotacast_clock::wall();
    match (secret, status.secrets.as_slice()) {
        (Some(_), [one]) => {
            full(output, one, now)?;
            from_record(output, one, now)
        }
        _ => overview(output, &status, now),
    }
}

fn overview(output: Output, status: &BroadcasterStatus, now: WallTime) -> Result<(), Stop> {
    let leads = match (status.leader, status.epoch) {
        (true, Some(epoch)) => format!("leading, epoch {epoch}"),
        (true, None) => "leading".into(),
        (false, _) => match &status.leading {
            Some(Leading { replica, address: Some(address) }) => {
                format!("not leading: {} does, at {}", shown(replica), shown(address))
            }
            Some(Leading { replica, address: None }) => format!("not leading: {} does", shown(replica)),
            None => "not leading: the store names no leader at the moment".into(),
        },
    };
    output.line(format_args!(
        "cluster {} · {leads} · store {} · bus {}",
        shown(&status.cluster),
        shown(&status.store),
        shown(&status.bus)
    ))?;
    if let Some(found) = findings(status.findings) {
        let mark = if status.findings.errors > 0 { Mark::Bad } else { Mark::Warn };
        output.line(format_args!("{}: `rotacast doctor` names them", output.paint(mark, &found)))?;
    }
    if status.secrets.is_empty() {
        return match status.leader {
            true => output.line("no secrets yet: `rotacast put NAME` writes the first version of one"),
            false => Ok(()),
        };
    }
    output.line("")?;
    let wide = output.is_wide();
    let mut table = Table::new(["SECRET", "CURRENT", "ROTATION", "PHASE", "SINCE", "PROGRESS", "WAITS FOR"]);
    if wide {
        table.more(["MEMBERS", "REVISION", "VERSIONS", "PROVIDER"]);
    }
    for secret in &status.secrets {
        table.row(row(secret, now));
        if wide {
            table.more_of_row(wide_row(secret));
        }
    }
    table.print(output, "")?;
    from_record(output, &status.secrets[0], now)
}

/// How many findings stand, if there is one.
fn findings(counts: FindingCounts) -> Option<String> {
    let FindingCounts { errors, warnings } = counts;
    let parts = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> =
        parts.map(|(number, what)| count(usize::try_from(number).unwrap_or(usize::MAX), what)).collect();
    (!parts.is_empty()).then(|| format!("findings: {}", parts.join(", ")))
}

/// That it is a follower's view, and how old.
fn from_record(output: Output, secret: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    let Some(read) = secret.record_read_at else { return Ok(()) };
    output.line(format_args!(
        "from the store's records, read {}; instances and what is waited for are known to the leader only",
        ago(read, now)
    ))
}

/// What `-o wide` adds.
fn wide_row(secret: &SecretStatus) -> [Cell; 4] {
    let versions: Vec<String> = secret.versions.iter().map(|it| format!("{} {}", it.version, it.label)).collect();
    let members = match secret.record_read_at {
        // Only the leader knows.
        Some(_) => "-".into(),
        None => secret.members().into(),
    };
    [members, secret.revision.0.into(), versions.join(", ").into(), (&secret.provider).into()]
}

fn row(secret: &SecretStatus, now: WallTime) -> [Cell; 7] {
    let overlays: Vec<&str> = secret.overlays.iter().map(|overlay| overlay.words()).collect();
    let with_overlays = |phase: &str| match overlays.is_empty() {
        true => phase.into(),
        false => Cell::marked(&format!("{phase}, {}", overlays.join(", ")), Mark::Warn),
    };
    match &secret.rotation {
        Some(rotation) => [
            secret.secret.as_str().into(),
            secret.current.into(),
            format!("{} ({})", direction(rotation.old, rotation.new), rotation.number).into(),
            with_overlays(rotation.phase.words()),
            ago(rotation.phase_since, now).into(),
            summary::progress(rotation, secret).into(),
            summary::waits_for(secret).into(),
        ],
        None => {
            let last = secret.history.first();
            let waiting =
                secret.waiting_version().map_or_else(String::new, |version| format!("version {version} pending"));
            [
                secret.secret.as_str().into(),
                secret.current.into(),
                waiting.into(),
                with_overlays("idle"),
                last.map_or_else(|| "-".into(), |last| ago(last.ended_at, now)).into(),
                last.map_or_else(String::new, |last| format!("last: {}", last.words())).into(),
                summary::waits_for(secret).into(),
            ]
        }
    }
}

fn full(output: Output, secret: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    let mut first = output.paint(Mark::Strong, secret.secret.as_str());
    first.push_str(&match secret.current {
        Some(current) => format!(" · current {current}"),
        None => " · no current version".into(),
    });
    first.push_str(&format!(" · provider {}", shown(&secret.provider)));
    for overlay in &secret.overlays {
        first.push_str(&format!(" · {}", output.paint(Mark::Warn, overlay.words())));
    }
    output.line(first)?;
    let versions: Vec<String> = secret
        .versions
        .iter()
        .rev()
        .take(MAX_SHOWN)
        .map(|it| {
            let sealed = if it.sealed { ", sealed" } else { "" };
            format!("{} {}{sealed}", it.version, it.label)
        })
        .collect();
    if !versions.is_empty() {
        output.line(format_args!("versions · {}", versions.join(" · ")))?;
    }
    rotation(output, secret, now)?;
    services(output, secret)?;
    blockers(output, secret, now)?;
    guards(output, secret)?;
    history(output, secret, now)
}

/// Nothing for a secret without a schedule.
fn next_by_schedule(secret: &SecretStatus, now: WallTime) -> String {
    match secret.next_rotation_at {
        None => String::new(),
        Some(at) if at <= now => format!("; the next has been due by its schedule since {}", moment(at)),
        Some(at) => format!("; the next by its schedule at {} (in {})", moment(at), span(at.0 - now.0)),
    }
}

fn rotation(output: Output, secret: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    let Some(rotation) = &secret.rotation else {
        return match secret.waiting_version() {
            Some(version) => {
                output.line(format_args!("rotation · none in flight; version {version} waits for its own"))
            }
            None => output.line(format_args!("rotation · none in flight{}", next_by_schedule(secret, now))),
        };
    };
    let since = rotation.phase_since;
    output.line(format_args!(
        "rotation {} · {} · {} since {} ({}), started {} by {}",
        rotation.number,
        direction(rotation.old, rotation.new),
        output.paint(Mark::Strong, rotation.phase.words()),
        moment(since),
        ago(since, now),
        ago(rotation.started_at, now),
        shown(&rotation.trigger)
    ))?;
    match &rotation.rollback_reason {
        Some(reason) => output.line(format_args!("goes back because: {}", shown(reason))),
        None => Ok(()),
    }
}

fn services(output: Output, secret: &SecretStatus) -> Result<(), Stop> {
    if secret.services.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table = Table::new(["SERVICE", "MEMBERS", "SEEN", "PREPARED", "SWITCHED", "RELEASED", "OUT OF REACH"]);
    for it in &secret.services {
        table.row([
            it.service.as_str().into(),
            it.counts.members.into(),
            it.counts.seen.into(),
            it.counts.prepared.into(),
            it.counts.switched.into(),
            it.counts.released.into(),
            it.counts.fenced.into(),
        ]);
    }
    table.print(output, "")
}

fn blockers(output: Output, secret: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    if secret.blockers.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table = Table::new(["WAITS FOR", "WHO", "SINCE", "WHY"]);
    for it in secret.blockers.iter().take(MAX_SHOWN) {
        table.row([
            it.condition.words().into(),
            it.who.as_deref().unwrap_or("-").into(),
            it.since.map_or_else(|| "-".into(), |since| ago(since, now)).into(),
            (&it.why).into(),
        ]);
    }
    table.print(output, "")?;
    let more = secret.blockers.len().saturating_sub(MAX_SHOWN);
    let and = if more > 0 { format!("and {more} more; ") } else { String::new() };
    output.line(format_args!("{and}`rotacast why {}` says what happens next", secret.secret.as_str()))
}

fn guards(output: Output, secret: &SecretStatus) -> Result<(), Stop> {
    for guard in &secret.guards {
        let unmet: Vec<String> =
            guard.conditions.iter().filter(|it| !it.met).map(|it| summary::spaced(it.name)).collect();
        let met = guard.conditions.len() - unmet.len();
        let not_yet = if unmet.is_empty() { String::new() } else { format!("; not yet: {}", unmet.join(", ")) };
        output.line("")?;
        output.line(format_args!(
            "retire guard of version {} · {met} of {} conditions hold{not_yet}",
            guard.version,
            guard.conditions.len()
        ))?;
    }
    Ok(())
}

fn history(output: Output, secret: &SecretStatus, now: WallTime) -> Result<(), Stop> {
    if secret.history.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table = Table::new(["ENDED", "ROTATION", "VERSIONS", "OUTCOME", "TOOK", "REASON"]);
    for it in secret.history.iter().take(MAX_SHOWN) {
        let mark = if it.outcome == Outcome::Retired && !it.is_unproven() { Mark::Good } else { Mark::Warn };
        table.row([
            ago(it.ended_at, now).into(),
            it.number.0.into(),
            direction(it.old, it.new).into(),
            Cell::marked(it.words(), mark),
            it.took_ms.map_or_else(|| "-".into(), span).into(),
            it.reason.as_deref().unwrap_or("-").into(),
        ]);
    }
    table.print(output, "")
}
