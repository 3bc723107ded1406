//! `rotacast gone`: an incarnation that no longer runs, for every secret that it uses.

use std::collections::BTreeSet;

use rotacast_protocol::InstanceKey;
use rotacast_protocol::coordinator::{Order, Reason, Standing};
use rotacast_protocol::status::InstanceStatus;

use crate::Context;
use crate::arguments::GoneArgs;
use crate::client::{Directive, Found};
use crate::error::{Exit, Stop};
use crate::human_time::span;
use crate::order;
use crate::output::note;
use crate::retire::confirm;

pub(crate) async fn run(context: &Context, args: GoneArgs) -> Result<(), Stop> {
    // Before anything is asked.
    Reason::new(&args.reason).map_err(order::invalid)?;
    let Found { instances: all, unanswered } = context.client().await?.instances(None, None).await?;
    for secret in &unanswered {
        note(format_args!("Not meant, since {secret} does not answer or is out of service: what uses it is not known"));
    }
    let found = args.instance.find(&all)?;
    // One process: heard for one secret, it runs for all of them.
    let running: BTreeSet<&InstanceKey> =
        all.iter().filter(|it| it.standing == Standing::Live).map(|it| &it.key).collect();
    let (live, silent): (Vec<&InstanceStatus>, Vec<_>) = found.into_iter().partition(|it| running.contains(&it.key));
    if silent.is_empty() {
        let heard = live.iter().filter_map(|it| it.silent_for_ms).min().map_or_else(String::new, span);
        return Err(Stop::failed(
            Exit::Failed,
            "conflict",
            format!("{} was heard {heard} ago, so it runs", args.instance),
            "stop it first; to retire a version although it runs, use `rotacast retire NAME --version N --override --instance \
             INSTANCE --reason 'why'`",
        ));
    }
    note(format_args!("No secret waits any more, for good, for:"));
    for it in &silent {
        note(format_args!("  {} · {} · {}", it.key, it.secret, cuts_off(it)));
    }
    for kept in &live {
        note(format_args!("Not meant, since it runs: {} · {}", kept.key, kept.secret));
    }
    note("If one of them runs after all, its work with these versions fails. This cannot be undone.");
    if !args.yes {
        confirm(&args.instance.to_string(), "the instance's name as you have given it")?;
    }
    let count = silent.len();
    let mut refused = Vec::new();
    for it in silent {
        let order = Order::gone(it.key.clone(), &args.reason).map_err(order::invalid)?;
        let done = format!("{} is gone; nothing waits for it", it.key);
        match order::simple(context, it.secret.clone(), Directive::from(order).alone(args.emergency), &done).await {
            Ok(()) => {}
            Err(Stop::Unread) => return Err(Stop::Unread),
            Err(stop) => refused.push((it, stop)),
        }
    }
    match refused.len() {
        0 if unanswered.is_empty() => Ok(()),
        0 => Err(Stop::failed(
            Exit::Failed,
            "conflict",
            format!(
                "the order is taken for every secret that answers; {} did not: {}",
                unanswered.len(),
                unanswered.join(", ")
            ),
            "give the command again once they answer; `rotacast doctor` says what is wrong with them",
        )),
        // With its own kind, exit code and way out.
        1 if count == 1 => Err(refused.remove(0).1),
        several => {
            let each = refused.iter().map(|(it, stop)| format!("\n  {} · {}: {}", it.key, it.secret, stop.problem()));
            let problem = format!("{several} of {count} orders were not taken:{}", each.collect::<String>());
            let fix = "the others have taken effect; give the command again for those that are left";
            Err(Stop::failed(Exit::Failed, "conflict", problem, fix))
        }
    }
}

/// What it loses if it runs after all.
fn cuts_off(it: &InstanceStatus) -> String {
    let held: Vec<String> = it.held.iter().map(ToString::to_string).collect();
    let holds = if held.is_empty() { "held nothing".to_owned() } else { format!("held version {}", held.join(", ")) };
    let heard =
        it.silent_for_ms.map_or_else(|| "not heard by this leader".to_owned(), |it| format!("heard {} ago", span(it)));
    let lease = match it.lease_left_ms {
        0 => "its leases are over".to_owned(),
        left => format!("its leases end in {}", span(left)),
    };
    format!("{holds} · {heard} · {lease}")
}
