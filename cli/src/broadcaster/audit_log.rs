//! `rotacast audit verify` and `rotacast audit show`.

use std::collections::VecDeque;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rotacast_protocol::{SecretName, WallTime};
use serde::Serialize;

use crate::error::{Exit, Stop};
use crate::human_time::moment;
use crate::output::{Mark, Output};
use crate::table::Table;
use rotacast_broadcaster::audit::{self, AuditError, Expectations, Hash, Head, Recorded};
use rotacast_broadcaster::config::Config;

/// Where `rotacast dev` writes it.
const DEV_LOG: &str = "rotacast-data/audit.jsonl";

#[derive(Args)]
pub(crate) struct AuditFile {
    /// The log; ./rotacast-data/audit.jsonl, as `rotacast dev` writes it, if neither this nor --config is given.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The broadcaster's configuration, which says where the log is.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Check every line of the log. The broadcaster need not run.
    Verify {
        #[command(flatten)]
        file: AuditFile,
        /// A head printed earlier: it must be in the log. Without it a log whose end was cut off looks whole.
        #[arg(long, value_name = "HASH")]
        head: Option<Hash>,
        /// The head of what was archived, as NUMBER:HASH: the oldest file must follow it.
        #[arg(long, value_name = "HEAD", value_parser = parse_head)]
        after: Option<Head>,
    },
    /// Check the log and show its entries.
    Show {
        #[command(flatten)]
        file: AuditFile,
        /// The head of what was archived, as NUMBER:HASH: the oldest file must follow it.
        #[arg(long, value_name = "HEAD", value_parser = parse_head)]
        after: Option<Head>,
        /// Only entries about this secret.
        #[arg(long, value_name = "SECRET")]
        secret: Option<SecretName>,
        /// How many of the newest entries.
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        last: usize,
    },
}

fn parse_head(text: &str) -> Result<Head, String> {
    let (sequence, hash) = text.split_once(':').ok_or("expected NUMBER:HASH, as `rotacast audit verify` prints it")?;
    let sequence = sequence.parse().map_err(|_| "expected a whole number before the colon")?;
    Ok(Head { sequence, hash: hash.parse()? })
}

pub(crate) fn run(output: Output, command: AuditCommand) -> Result<(), Stop> {
    match command {
        AuditCommand::Verify { file, head, after } => verify(output, &file, head, after),
        AuditCommand::Show { file, after, secret, last } => show(output, &file, after, secret.as_ref(), last),
    }
}

#[derive(Serialize)]
struct HeadView {
    sequence: u64,
    hash: String,
}

#[derive(Serialize)]
struct VerifiedView {
    entries: u64,
    files: usize,
    head: HeadView,
    /// Entries behind the expected head, if one was given.
    since_expected: Option<u64>,
}

#[derive(Serialize)]
struct EntriesView {
    entries: VecDeque<Recorded>,
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        let kind = match &error {
            AuditError::Broken(_) => "broken",
            _ => "audit",
        };
        Stop::failed(Exit::Failed, kind, error.to_string(), "")
    }
}

/// Where the log is.
fn find(args: &AuditFile) -> Result<PathBuf, Stop> {
    let file = match (&args.file, &args.config) {
        (Some(file), _) => file.clone(),
        (None, Some(config)) => Config::read(config).map_err(Stop::from)?.audit.file,
        (None, None) => DEV_LOG.into(),
    };
    match file.try_exists() {
        Ok(true) => Ok(file),
        Ok(false) => Err(Stop::failed(
            Exit::NotFound,
            "not_found",
            format!("audit log {}: not found", file.display()),
            "name it with --file, or the broadcaster's configuration with --config",
        )),
        Err(error) => Err(Stop::usage(format!("audit log {}: {error}", file.display()), "")),
    }
}

fn verify(output: Output, file: &AuditFile, head: Option<Hash>, after: Option<Head>) -> Result<(), Stop> {
    let file = find(file)?;
    let verified = audit::verify(&file, Expectations { head, after })?;
    if output.is_data() {
        return output.data(&VerifiedView {
            entries: verified.entries,
            files: verified.files,
            head: HeadView { sequence: verified.head.sequence, hash: verified.head.hash.to_string() },
            since_expected: verified.since_expected,
        });
    }
    let files = if verified.files == 1 { "one file".to_owned() } else { format!("{} files", verified.files) };
    let entries = if verified.entries == 1 { "one entry".to_owned() } else { format!("{} entries", verified.entries) };
    let whole = output.paint(Mark::Good, "whole");
    output.line(format_args!("audit log {}: {whole}, {entries} in {files}", file.display()))?;
    if let Some(since) = verified.since_expected {
        output.line(format_args!("the expected head is in it, with {since} entries behind it"))?;
    }
    output.line(format_args!("head {}:{}", verified.head.sequence, verified.head.hash))?;
    if head.is_none() {
        output.line("keep the head elsewhere and give its hash as --head next time: only that shows a cut-off end")?;
    }
    Ok(())
}

fn show(
    output: Output,
    file: &AuditFile,
    after: Option<Head>,
    secret: Option<&SecretName>,
    last: usize,
) -> Result<(), Stop> {
    let file = find(file)?;
    let mut entries: VecDeque<Recorded> = VecDeque::new();
    let read = audit::read(&file, Expectations { head: None, after }, |entry| {
        if secret.is_none_or(|secret| entry.secret.as_ref() == Some(secret)) {
            entries.push_back(entry);
            if entries.len() > last {
                entries.pop_front();
            }
        }
        Ok::<_, Stop>(())
    });
    // What stands before a broken line is shown all the same.
    if output.is_data() {
        output.data(&EntriesView { entries })?;
    } else {
        let mut table = Table::new(["#", "TIME", "WHO", "DID", "SECRET", "ROTATION", "DETAILS"]);
        for it in &entries {
            let details: Vec<String> = it
                .details
                .iter()
                .map(|(name, value)| match value {
                    serde_json::Value::String(text) => format!("{name}={text}"),
                    value => format!("{name}={value}"),
                })
                .collect();
            table.row([
                it.sequence.into(),
                moment(WallTime(it.time_ms)).into(),
                (&it.actor).into(),
                (&it.action).into(),
                it.secret.as_ref().map_or("-", SecretName::as_str).into(),
                it.rotation.map_or_else(|| "-".into(), |rotation| rotation.to_string()).into(),
                details.join(" ").into(),
            ]);
        }
        table.print(output, "")?;
    }
    read.map(|_| ())
}
