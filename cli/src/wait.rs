//! `rotacast wait`, and waiting for the rotation that an order started.

use std::ops::ControlFlow;
use std::time::Duration;

use rotacast_protocol::status::FinishedStatus;
use rotacast_protocol::{Outcome, SecretName};

use crate::Context;
use crate::arguments::WaitArgs;
use crate::error::{Exit, Stop};
use crate::follow::{Follow, News};
use crate::goal::{Goal, Seen, Verdict, Which};
use crate::progress_notes::Progress;
use crate::summary::ending;
use rotacast_admin::view::WaitView;

pub(crate) async fn run(context: &Context, args: WaitArgs) -> Result<(), Stop> {
    if args.rotation.is_some() && !matches!(args.goal, Goal::Retired | Goal::RolledBack) {
        return Err(Stop::usage(
            format!("--rotation with --for {}", args.goal),
            "a rotation is named for `retired` and `rolled_back` only",
        ));
    }
    let (verdict, current) = {
        let mut progress = Progress::new(context.output.is_data());
        let mut which = args.rotation.map_or(Which::Newest, Which::Rotation);
        let follow = Follow { context, secret: Some(&args.secret), timeout: args.timeout, may_be_missing: false };
        follow
            .run(|news| {
                let News::Status(status) = news else {
                    progress.tell_lost();
                    return Ok(ControlFlow::Continue(()));
                };
                Ok(match args.goal.judge(&mut which, &status) {
                    Verdict::Wait => {
                        progress.tell(&status);
                        ControlFlow::Continue(())
                    }
                    verdict => ControlFlow::Break((verdict, status.current)),
                })
            })
            .await?
    };
    let (reached, rotation, missed) = match verdict {
        Verdict::Reached(rotation) => (true, rotation, None),
        Verdict::RolledBack(ended) => {
            let stop = rolled_back(&args.secret, &ended);
            (false, Some(ended), Some(stop))
        }
        Verdict::Missed(why, ended) => {
            let stop = Stop::failed(Exit::Failed, "missed", format!("{}: {why}", args.secret), "");
            (false, ended, Some(stop))
        }
        Verdict::Wait => unreachable!("following goes on until there is a verdict"),
    };
    if context.output.is_data() {
        let (secret, goal) = (args.secret.clone(), args.goal.to_string());
        context.output.data(&WaitView { secret, goal, reached, current, rotation: rotation.clone() })?;
    }
    match missed {
        Some(stop) => Err(stop),
        None if context.output.is_data() => Ok(()),
        None => context.output.line(match (&rotation, args.goal) {
            (Some(ended), _) => format!("{}: {}", args.secret, ending(ended)),
            (None, Goal::Current(version)) => format!("{}: version {version} is current", args.secret),
            (None, _) => format!("{}: idle", args.secret),
        }),
    }
}

fn rolled_back(secret: &SecretName, ended: &FinishedStatus) -> Stop {
    Stop::failed(Exit::RolledBack, "rolled_back", format!("{secret}: {}", ending(ended)), "")
}

/// Waits until a rotation is over, however it ends.
pub(crate) async fn for_end(
    context: &Context,
    secret: &SecretName,
    mut which: Which,
    timeout: Option<Duration>,
) -> Result<FinishedStatus, Stop> {
    let mut progress = Progress::new(context.output.is_data());
    // A put that was acknowledged may be ahead of the watch that makes the secret known.
    let follow = Follow { context, secret: Some(secret), timeout, may_be_missing: matches!(which, Which::To(_)) };
    let seen = follow
        .run(|news| {
            let News::Status(status) = news else {
                progress.tell_lost();
                return Ok(ControlFlow::Continue(()));
            };
            Ok(match which.look(&status) {
                Seen::NotYet => {
                    progress.tell(&status);
                    ControlFlow::Continue(())
                }
                seen => ControlFlow::Break(seen),
            })
        })
        .await?;
    match seen {
        Seen::Ended(ended) => Ok(ended),
        Seen::Never(why) => Err(Stop::failed(Exit::Failed, "superseded", format!("{secret}: {why}"), "")),
        Seen::NotYet => unreachable!("following goes on until there is an end"),
    }
}

/// What the end of a rotation means for the command that waited.
pub(crate) fn verdict(secret: &SecretName, ended: &FinishedStatus) -> Result<(), Stop> {
    match ended.outcome {
        Outcome::Retired => Ok(()),
        Outcome::RolledBack => Err(rolled_back(secret, ended)),
        Outcome::Superseded => {
            Err(Stop::failed(Exit::Failed, ended.outcome.as_str(), format!("{secret}: {}", ending(ended)), ""))
        }
    }
}
