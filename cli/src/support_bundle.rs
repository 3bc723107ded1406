//! `rotacast support-bundle`: what support needs to see, in one file that holds no secret.
//!
//! Whatever cannot be had says why in its place: the bundle is wanted most when something does not work.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Context;
use crate::client::Found;
use crate::doctor;
use crate::error::{Exit, Stop};
use rotacast_admin::view::DoctorView;

/// Instances that go in: enough to see what kind of instance is in the way.
const MAX_INSTANCES: usize = 1_000;
/// The format's number, for readers.
const FORMAT: u32 = 1;

#[derive(Args)]
pub(crate) struct BundleArgs {
    /// The file; rotacast-support-TIME.json if it is not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[cfg(feature = "broadcaster")]
    #[command(flatten)]
    files: crate::broadcaster::SupportFiles,
}

#[derive(Serialize)]
struct BundleView {
    file: String,
    bytes: usize,
    missing: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: BundleArgs) -> Result<(), Stop> {
    let now = rotacast_clock::wall();
    let mut sections = serde_json::Map::new();
    let mut missing = Vec::new();
    let mut add = |name: &str, found: Result<Value, Stop>| {
        let value = found.unwrap_or_else(|stop| {
            let problem = stop.problem().to_owned();
            missing.push(format!("{name}: {problem}"));
            json!({ "missing": problem })
        });
        sections.insert(name.into(), value);
    };
    add("format", Ok(FORMAT.into()));
    add("made_at", Ok(now.to_string().into()));
    add("rotacast", Ok(value(&crate::build::INFO)));
    add("servers", Ok(context.global.server.iter().map(|url| redacted(url)).collect()));
    match context.client().await {
        Ok(client) => {
            let reply = client.doctor().await.map(DoctorView::from);
            add("status", client.status(None).await.map(|status| value(&status)));
            add(
                "instances",
                client.instances(None, None).await.map(|Found { mut instances, unanswered }| {
                    let total = instances.len();
                    instances.truncate(MAX_INSTANCES);
                    json!({ "total": total, "first": instances, "unanswered": unanswered })
                }),
            );
            add("doctor", reply.map(|found| value(&found)));
            for (name, path) in [("health", "/readyz"), ("metrics", "/metrics")] {
                add(name, client.page(path).await.map(|text| text.lines().collect()));
            }
        }
        Err(stop) => add("broadcaster", Err(stop)),
    }
    add("operator_key", Ok(value(&doctor::key_finding(context))));
    #[cfg(feature = "broadcaster")]
    for (name, found) in args.files.sections() {
        add(name, found);
    }
    let text = format!("{:#}\n", Value::Object(sections));
    let file = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("rotacast-support-{}.json", now.to_string().replace(':', ""))));
    write(&file, &text)?;
    let output = context.output;
    if output.is_data() {
        return output.data(&BundleView { file: file.display().to_string(), bytes: text.len(), missing });
    }
    output.line(format_args!(
        "{}  {} bytes; it holds no secret: read it before you pass it on",
        file.display(),
        text.len()
    ))?;
    missing.iter().try_for_each(|what| output.line(format_args!("missing: {}", super::output::shown(what))))
}

pub(crate) fn value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).expect("views have string keys and finite numbers")
}

/// Without the user and password that an address may carry.
pub(crate) fn redacted(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['/', '"', '\'', ',', ' ', '?', '#']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                out.push_str("(taken out)@");
                &after[at + 1..]
            }
            None => after,
        };
    }
    out + rest
}

fn write(file: &Path, text: &str) -> Result<(), Stop> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| {
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    });
    written.map_err(|error| {
        let fix = "name another file with --out, or move this one away";
        Stop::failed(Exit::Failed, "output", format!("cannot write {}: {error}", file.display()), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_who_logs_in() {
        for (line, expected) in [
            (
                "url = \"nats://ada:pw@nats.example:4222,nats://b@c\"",
                "url = \"nats://(taken out)@nats.example:4222,nats://(taken out)@c\"",
            ),
            ("https://rotacast.example:7400", "https://rotacast.example:7400"),
            ("http://a:p@ss@b/x@y", "http://(taken out)@b/x@y"),
            ("group = \"a@b\"", "group = \"a@b\""),
            ("://", "://"),
        ] {
            assert_eq!(redacted(line), expected);
        }
    }
}
