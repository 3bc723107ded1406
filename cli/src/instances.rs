//! `rotacast instances`.

use rotacast_admin::view::InstancesView;
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::message::Stage;
use rotacast_protocol::{SecretName, Version};

use crate::Context;
use crate::client::Found;
use crate::error::Stop;
use crate::human_time::span;
use crate::output::{Mark, note};
use crate::table::{Cell, Table};

/// A stage beside its version: `released` is said of all others.
const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Released => "uses only it",
        stage => stage.as_str(),
    }
}

pub(crate) async fn run(context: &Context, secret: Option<&SecretName>, not_on: Option<Version>) -> Result<(), Stop> {
    let client = context.client().await?;
    let Found { instances: found, unanswered } = client.instances(secret, not_on).await?;
    let output = context.output;
    if output.is_data() {
        return output.data(&InstancesView { instances: found, unanswered });
    }
    for secret in &unanswered {
        note(format_args!("Not listed: the instances of {secret}, which does not answer or is out of service"));
    }
    if found.is_empty() {
        // Without any instance, "every instance" would mislead.
        let any = not_on.is_some() && !client.instances(secret, None).await?.instances.is_empty();
        return output.line(match (secret, not_on.filter(|_| any)) {
            (Some(secret), None) => format!("no instance uses {secret}"),
            (Some(secret), Some(version)) => {
                format!("every instance that uses {secret} is on version {version} and nothing else")
            }
            (None, None) => "no instances".to_owned(),
            (None, Some(version)) => format!("every instance is on version {version} and nothing else"),
        });
    }
    let mut table = Table::new([
        "INSTANCE",
        "SECRET",
        "VERSION",
        "STAGE",
        "HOLDS",
        "STANDING",
        "HEARD",
        "LEASES END IN",
        "LAST FAILURE",
    ]);
    if output.is_wide() {
        table.more(["INCARNATION"]);
    }
    for it in &found {
        let mark = match it.standing {
            Standing::Live => Mark::Good,
            Standing::Silent | Standing::Fenced => Mark::Warn,
            Standing::Registered | Standing::Left => Mark::Plain,
        };
        let held: Vec<String> = it.held.iter().map(ToString::to_string).collect();
        table.row([
            it.key.to_string().into(),
            it.secret.as_str().into(),
            it.version.into(),
            it.stage.map_or("-", stage).into(),
            held.join(" ").into(),
            Cell::marked(it.standing.as_str(), mark),
            it.silent_for_ms.map_or_else(|| "not yet".into(), |silent| format!("{} ago", span(silent))).into(),
            if it.lease_left_ms == 0 { "over".to_owned() } else { span(it.lease_left_ms) }.into(),
            it.last_failure.as_deref().unwrap_or("-").into(),
        ]);
        if output.is_wide() {
            table.more_of_row([it.key.incarnation.to_string().into()]);
        }
    }
    table.print(output, "")
}
