//! `rotacast seal`: who can open the stored values.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Subcommand;
use rotacast_broadcaster::config::Config;
use rotacast_broadcaster::serve::{Found, ReaderKey, Rewrapped, VersionSeal, rewrap, seal_status};
use serde::Serialize;
use tokio::runtime::Builder;

use crate::error::{Exit, Stop};
use crate::output::Output;
use crate::runtime;
use crate::summary::count;

#[derive(Subcommand)]
pub(crate) enum SealCommand {
    /// Say who can open the stored values, who has lost that right since, and what to rotate. Nothing is written.
    Status {
        /// The broadcaster's configuration. An embedded store can be read only while no broadcaster runs.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Wrap the data keys of all stored values for readers that the configuration has and that cannot open them yet. The leader
    /// does it by itself; doing it again changes nothing.
    Rewrap {
        /// The broadcaster's configuration. An embedded store can be written only while no broadcaster runs.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

pub(crate) fn run(output: Output, command: SealCommand) -> Result<(), Stop> {
    match command {
        SealCommand::Status { config } => status(output, &Config::read(&config)?),
        SealCommand::Rewrap { config } => wrap(output, &Config::read(&config)?),
    }
}

#[derive(Serialize)]
struct ReaderView {
    reader: String,
    key_id: String,
}

impl ReaderView {
    fn all(readers: &[ReaderKey]) -> Vec<Self> {
        readers.iter().map(|(name, key)| Self { reader: name.to_string(), key_id: key.to_string() }).collect()
    }
}

#[derive(Serialize)]
struct VersionView {
    secret: String,
    version: u64,
    /// `sealed`, `plain` or `broken`.
    state: &'static str,
    readers: Vec<ReaderView>,
    former_readers: Vec<ReaderView>,
    /// Former readers beyond those, whose entries made way for others.
    more_former_readers: u64,
    missing_readers: Vec<ReaderView>,
    problem: Option<String>,
}

impl From<&VersionSeal> for VersionView {
    fn from(seal: &VersionSeal) -> Self {
        let (state, readers, former, made_way, missing, problem): (_, &[_], &[_], _, &[_], _) = match &seal.found {
            Found::Plain => ("plain", &[], &[], 0, &[], None),
            Found::Broken(problem) => ("broken", &[], &[], 0, &[], Some(problem.clone())),
            Found::Sealed { readers, former, made_way, missing, problem } => {
                let state = if problem.is_some() { "broken" } else { "sealed" };
                (state, readers, former, *made_way, missing, problem.clone())
            }
        };
        Self {
            secret: seal.secret.to_string(),
            version: seal.version.get(),
            state,
            readers: ReaderView::all(readers),
            former_readers: ReaderView::all(former),
            more_former_readers: made_way,
            missing_readers: ReaderView::all(missing),
            problem,
        }
    }
}

#[derive(Serialize)]
struct StatusView {
    /// Whether new values are sealed.
    enabled: bool,
    versions: Vec<VersionView>,
    /// The secrets with a version that a former reader can open.
    rotate: Vec<String>,
}

fn status(output: Output, config: &Config) -> Result<(), Stop> {
    let seals = runtime(&mut Builder::new_current_thread())?.block_on(seal_status(config)).map_err(stopped)?;
    let versions: Vec<VersionView> = seals.iter().map(VersionView::from).collect();
    let exposed =
        versions.iter().filter(|version| !version.former_readers.is_empty() || version.more_former_readers > 0);
    let rotate: BTreeSet<String> = exposed.map(|version| version.secret.clone()).collect();
    if output.is_data() {
        return output.data(&StatusView {
            enabled: config.seal_values,
            versions,
            rotate: rotate.into_iter().collect(),
        });
    }
    let sealed = versions.iter().filter(|version| version.state == "sealed").count();
    output.line(format_args!("{} in the store, {sealed} of them sealed", count(versions.len(), "version")))?;
    if !config.seal_values {
        output.line("sealing is off (sealing.enabled = false): new values are stored in the clear")?;
    }
    for version in &versions {
        let name = format!("{} version {}", version.secret, version.version);
        if version.state == "plain" {
            output.line(format_args!(
                "{name}: in the clear: it was written while sealing was off, or by another client than Rotacast"
            ))?;
        }
        if let Some(problem) = &version.problem {
            output.line(format_args!("{name}: does not open: {problem}"))?;
        }
        for ReaderView { reader, key_id } in &version.former_readers {
            output.line(format_args!("{name}: {reader} (key {key_id}) can open it and is no reader any more"))?;
        }
        if version.more_former_readers > 0 {
            let more = count(usize::try_from(version.more_former_readers).unwrap_or(usize::MAX), "former reader");
            output.line(format_args!("{name}: {more} could open it, whose keys are no longer listed"))?;
        }
        for ReaderView { reader, key_id } in &version.missing_readers {
            output.line(format_args!("{name}: {reader} (key {key_id}) cannot open it yet: the leader wraps it"))?;
        }
    }
    if !rotate.is_empty() {
        output.line(
            "rotate these: a value that a reader could open, it may have kept; wrapping anew takes nothing back",
        )?;
        for secret in rotate {
            output.line(format_args!("  rotacast rotate {secret}"))?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct RewrappedView {
    secret: String,
    version: u64,
    added_readers: usize,
    problem: Option<String>,
}

fn wrap(output: Output, config: &Config) -> Result<(), Stop> {
    let outcomes = runtime(&mut Builder::new_current_thread())?.block_on(rewrap(config)).map_err(stopped)?;
    let views: Vec<RewrappedView> = outcomes
        .into_iter()
        .map(|(secret, version, outcome)| {
            let (added_readers, problem) = match outcome {
                Ok(Rewrapped::Added(readers)) => (readers, None),
                Ok(Rewrapped::Nothing | Rewrapped::Plain | Rewrapped::Gone) => (0, None),
                Err(problem) => (0, Some(problem.to_string())),
            };
            RewrappedView { secret: secret.to_string(), version: version.get(), added_readers, problem }
        })
        .collect();
    let failed = views.iter().filter(|view| view.problem.is_some()).count();
    if output.is_data() {
        output.data(&views)?;
    } else {
        for view in &views {
            let name = format!("{} version {}", view.secret, view.version);
            match &view.problem {
                Some(problem) => output.line(format_args!("{name}: unchanged: {problem}"))?,
                None if view.added_readers > 0 => {
                    output.line(format_args!("{name}: wrapped for {}", count(view.added_readers, "more reader")))?;
                }
                None => {}
            }
        }
        let wrapped = views.iter().filter(|view| view.added_readers > 0).count();
        output.line(format_args!("{} looked at, {wrapped} wrapped for more readers", count(views.len(), "version")))?;
    }
    if failed > 0 {
        return Err(Stop::failed(
            Exit::Failed,
            "not_opened",
            format!("{} could not be opened, and nothing of them was changed", count(failed, "version")),
            "`rotacast seal status` says which key each needs",
        ));
    }
    Ok(())
}

fn stopped(problem: anyhow::Error) -> Stop {
    Stop::failed(Exit::Unreachable, "store", format!("{problem:#}"), "")
}
