//! `rotacast audit verify`, `rotacast audit show` and `rotacast audit accept-loss`.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rotacast_broadcaster::audit::{self, AuditError, Doubt, Expectations, Hash, Head, Loss, Recorded, Verified};
use rotacast_broadcaster::config::Config;
use rotacast_broadcaster::operators::Operator;
use rotacast_broadcaster::serve::{KnownLogs, audit_name, known_logs};
use rotacast_proto::{SigningKeys, VerifyingKey};
use rotacast_protocol::coordinator::Reason;
use rotacast_protocol::{OperatorName, SecretName, WallTime};
use serde::Serialize;
use tokio::runtime::Builder;

use crate::approvals;
use crate::arguments::Emergency;
use crate::client::{Directive, Instruction};
use crate::error::{Exit, Stop};
use crate::human_time::moment;
use crate::output::{Mark, Output};
use crate::summary::count;
use crate::table::Table;
use crate::{Context, order, runtime};

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
        /// Compare with the head that the store knows, and check signatures with the keys that it knows too. Needs --config; an
        /// embedded store can be read only while no broadcaster runs.
        #[arg(long, requires = "config")]
        store: bool,
        /// A broadcaster's public key, or the file that holds it: checkpoints must be signed with it. May be repeated. With
        /// --config: that of `keys.signing_key` as well.
        #[arg(long, value_name = "KEY", value_parser = parse_key)]
        signer: Vec<VerifyingKey>,
    },
    /// Go on although entries of the leader's log are lost. `rotacast doctor` names the doubt; the order is on record.
    AcceptLoss {
        /// The doubt that you have seen, as `rotacast doctor` names it.
        doubt: String,
        /// What happened; it is recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        emergency: Emergency,
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

/// A public key as text, or the name of a file with one.
fn parse_key(text: &str) -> Result<VerifyingKey, String> {
    match VerifyingKey::parse(text) {
        Ok(key) => Ok(key),
        Err(_) if Path::new(text).exists() => VerifyingKey::read_file(text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn run(context: &Context, command: AuditCommand) -> Result<(), Stop> {
    let output = context.output;
    match command {
        AuditCommand::Verify { file, head, after, store, signer } => {
            let expectations = Expectations { head, after, signers: signer, ..Expectations::default() };
            verify(output, &file, expectations, store)
        }
        AuditCommand::AcceptLoss { doubt, reason, emergency } => {
            let runtime = runtime(&mut Builder::new_current_thread())?;
            runtime.block_on(accept_loss(context, doubt, &reason, emergency))
        }
        AuditCommand::Show { file, after, secret, last } => show(output, &file, after, secret.as_ref(), last),
    }
}

async fn accept_loss(context: &Context, doubt: String, reason: &str, emergency: Emergency) -> Result<(), Stop> {
    let reason = Some(Reason::new(reason).map_err(order::invalid)?);
    let instruction = Instruction::AcceptAuditLoss { doubt: doubt.clone() };
    let directive = Directive { instruction, reason, emergency: emergency.emergency };
    if let Some(waits) = order::give(context, "", directive).await?.waits {
        return match context.output.is_data() {
            true => context.output.data(&approvals::view(&waits)),
            false => order::tell_waits(context.output, "audit log", &waits),
        };
    }
    if context.output.is_data() {
        return context.output.data(&AcceptedView { accepted: doubt });
    }
    context.output.line("accepted, and on record: the audit log goes on behind what is lost")
}

#[derive(Serialize)]
struct AcceptedView {
    accepted: String,
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
    /// Entries that the store does not know yet, if it was asked and knows the log.
    since_store: Option<u64>,
    /// The newest entry that a broadcaster has signed, if keys were given.
    signed: Option<u64>,
    /// Orders whose signatures were checked.
    orders: u64,
    losses: Vec<LossView>,
}

#[derive(Serialize)]
struct LossView {
    /// The last entry before the loss that the store knew.
    known: u64,
    /// The entry that accepts it.
    sequence: u64,
    by: String,
    reason: String,
}

impl From<&Loss> for LossView {
    fn from(loss: &Loss) -> Self {
        Self { known: loss.known.sequence, sequence: loss.sequence, by: loss.by.clone(), reason: loss.reason.clone() }
    }
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
fn find(args: &AuditFile) -> Result<(PathBuf, Option<Config>), Stop> {
    let config = args.config.as_ref().map(|config| Config::read(config)).transpose()?;
    let file = match (&args.file, &config) {
        (Some(file), _) => file.clone(),
        (None, Some(config)) => config.audit.file.clone(),
        (None, None) => DEV_LOG.into(),
    };
    Ok((there(file)?, config))
}

fn there(file: PathBuf) -> Result<PathBuf, Stop> {
    let files = audit::files_of(&file).map(|files| files.iter().any(|file| file.exists()));
    match files {
        Ok(true) => Ok(file),
        Ok(false) => Err(Stop::failed(
            Exit::NotFound,
            "not_found",
            format!("audit log {}: not found", file.display()),
            "name it with --file, or the broadcaster's configuration with --config",
        )),
        // A folder that is not there.
        Err(AuditError::Io { problem, .. }) => Err(Stop::failed(
            Exit::NotFound,
            "not_found",
            format!("audit log {}: {problem}", file.display()),
            "name it with --file, or the broadcaster's configuration with --config",
        )),
        Err(error) => Err(error.into()),
    }
}

/// What is known of the log besides its files.
fn ask_store(config: &Config) -> Result<KnownLogs, Stop> {
    let known = runtime(&mut Builder::new_current_thread())?.block_on(known_logs(config));
    known.map_err(|error| {
        Stop::failed(
            Exit::Unreachable,
            "store",
            format!("the store cannot be asked where the log ends: {error:#}"),
            "without --store, the files alone are checked; `rotacast doctor` asks the running broadcaster",
        )
    })
}

fn verify(output: Output, file: &AuditFile, mut expectations: Expectations, store: bool) -> Result<(), Stop> {
    // A deleted log has no file: the store knows that there was one.
    let (file, config) = match (store, &file.config) {
        (true, Some(path)) => {
            let config = Config::read(path)?;
            (file.file.clone().unwrap_or_else(|| config.audit.file.clone()), Some(config))
        }
        _ => find(file)?,
    };
    let known = match &config {
        Some(config) if store => Some(ask_store(config)?),
        _ => None,
    };
    if let Some(config) = &config {
        // On another machine than the broadcaster's it is not there; --signer names its public half then.
        if let Ok(keys) = SigningKeys::read_file(&config.signing_key) {
            expectations.signers.extend(keys.iter().map(|key| key.public().clone()));
        }
        let keys = |(name, operator): (&OperatorName, &Operator)| {
            operator.keys.iter().map(|key| (name.clone(), key.clone())).collect::<Vec<_>>()
        };
        expectations.operators = config.operators.people().flat_map(keys).collect();
    }
    expectations.signers.extend(known.iter().flat_map(|known| known.signers.iter().cloned()));
    let verified = match store && !there_is_a_file(&file) {
        true => Verified::EMPTY,
        false => check(&file, &expectations)?,
    };
    let since_store = match (&known, &config) {
        (Some(known), Some(config)) => audit::compare(&file, &verified, &audit_name(config), &known.heads)?
            .map_err(|doubt| doubted(&file, &doubt))?,
        _ => None,
    };
    if output.is_data() {
        return output.data(&VerifiedView {
            entries: verified.entries,
            files: verified.files,
            head: HeadView { sequence: verified.head.sequence, hash: verified.head.hash.to_string() },
            since_expected: verified.since_expected,
            since_store,
            signed: verified.signed,
            orders: verified.orders,
            losses: verified.losses.iter().map(LossView::from).collect(),
        });
    }
    tell(output, &file, &verified, &expectations, since_store)?;
    if expectations.head.is_none() && known.is_none() {
        output.line(
            "whether its end was cut off, only a head shows that was kept elsewhere: the store's (--store), or one that an \
             earlier check has printed (--head)",
        )?;
    }
    if known.is_some() && since_store.is_none() && verified.entries > 0 {
        output.line("the store knows no head of this log")?;
    }
    Ok(())
}

fn there_is_a_file(file: &Path) -> bool {
    audit::files_of(file).is_ok_and(|files| files.iter().any(|file| file.exists()))
}

fn doubted(file: &Path, doubt: &Doubt) -> Stop {
    Stop::failed(
        Exit::Failed,
        "broken",
        format!("audit log {}: {doubt}", file.display()),
        "keep the files as evidence, and look for a copy of them; `rotacast doctor` names the order that accepts the loss",
    )
}

/// Checks, with a bar on a terminal.
fn check(file: &Path, expectations: &Expectations) -> Result<Verified, Stop> {
    if !std::io::stderr().is_terminal() {
        return Ok(audit::verify(file, expectations)?);
    }
    let sizes = audit::files_of(file)?.into_iter().map(|file| file.metadata().map_or(0, |it| it.len()));
    let bar = ProgressBar::new(sizes.sum());
    bar.set_style(ProgressStyle::with_template(BAR).expect("a template that is tested"));
    let verified = audit::verify_telling(file, expectations, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    Ok(verified?)
}

const BAR: &str = "{bar:24.green/white.dim} {bytes} of {total_bytes}, {eta} left";

fn tell(
    output: Output,
    file: &Path,
    verified: &Verified,
    expectations: &Expectations,
    since_store: Option<u64>,
) -> Result<(), Stop> {
    let files = if verified.files == 1 { "one file".to_owned() } else { format!("{} files", verified.files) };
    let entries = if verified.entries == 1 { "one entry".to_owned() } else { format!("{} entries", verified.entries) };
    let whole = output.paint(Mark::Good, "whole");
    output.line(format_args!("audit log {}: {whole}, {entries} in {files}", file.display()))?;
    if let Some(since) = verified.since_expected {
        output.line(format_args!("the expected head is in it, with {since} entries behind it"))?;
    }
    if let Some(since) = since_store {
        output.line(format_args!("the store's head is in it, with {since} entries behind it"))?;
    }
    match verified.signed {
        Some(signed) => {
            let behind = verified.head.sequence - signed;
            output.line(format_args!(
                "signed by the broadcaster up to entry {signed}; {behind} behind it; {} of operators checked",
                count(usize::try_from(verified.orders).unwrap_or(usize::MAX), "signature")
            ))?;
        }
        None if !expectations.signers.is_empty() => {
            output.line("no entry is signed yet by a key that is known here")?
        }
        None => {}
    }
    for loss in &verified.losses {
        output.line(format_args!(
            "entries behind {} are lost: {} accepted it with entry {} at {}: {}",
            loss.known.sequence, loss.by, loss.sequence, loss.time, loss.reason
        ))?;
    }
    output.line(format_args!("head {}:{}", verified.head.sequence, verified.head.hash))
}

fn show(
    output: Output,
    file: &AuditFile,
    after: Option<Head>,
    secret: Option<&SecretName>,
    last: usize,
) -> Result<(), Stop> {
    let (file, _) = find(file)?;
    let mut entries: VecDeque<Recorded> = VecDeque::new();
    let read = audit::read(&file, &Expectations { after, ..Expectations::default() }, |entry| {
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
                // For `verify`, not for people.
                .filter(|(name, _)| *name != "signed")
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
