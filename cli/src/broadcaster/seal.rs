//! `rotacast seal`: who can open the stored values, and the keys that open them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rotacast_broadcaster::config::Config;
use rotacast_broadcaster::serve::{Found, ReaderKey, Rewrapped, VersionSeal, rewrap, seal_status};
use rotacast_proto::KeyId;
use rotacast_seal::{KeyFile, SealingKey};
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
    /// Show the sealing keys of a private key file: the first is sealed for, all of them open.
    Keys {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Draw a sealing key and add it to a private key file, behind those that are there: it opens, and is not sealed for yet.
    NewKey {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Move a sealing key of a private key file to the front: values are sealed for it from the next start on.
    UseKey {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// The key's id, as `rotacast seal keys` shows it.
        key: String,
    },
    /// Remove a sealing key from a private key file. What was sealed for it alone can never be opened again.
    DropKey {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// The key's id, as `rotacast seal keys` shows it.
        key: String,
    },
}

pub(crate) fn run(output: Output, command: SealCommand) -> Result<(), Stop> {
    match command {
        SealCommand::Status { config } => status(output, &Config::read(&config)?),
        SealCommand::Rewrap { config } => wrap(output, &Config::read(&config)?),
        SealCommand::Keys { file } => show(output, &open(&file)?),
        SealCommand::NewKey { file } => {
            let mut keys = open(&file)?;
            keys.add(SealingKey::generate());
            save(output, &keys)
        }
        SealCommand::UseKey { file, key } => {
            let mut keys = open(&file)?;
            if !keys.move_to_front(&id(&key)?) {
                return Err(unknown(&file, &key));
            }
            save(output, &keys)
        }
        SealCommand::DropKey { file, key } => {
            let mut keys = open(&file)?;
            if !keys.remove(&id(&key)?) {
                return Err(unknown(&file, &key));
            }
            save(output, &keys)
        }
    }
}

fn open(file: &Path) -> Result<KeyFile, Stop> {
    KeyFile::read(file).map_err(|error| failed(error.to_string(), ""))
}

fn save(output: Output, keys: &KeyFile) -> Result<(), Stop> {
    keys.write().map_err(|error| failed(error.to_string(), ""))?;
    show(output, keys)
}

fn id(text: &str) -> Result<KeyId, Stop> {
    KeyId::parse(text).ok_or_else(|| {
        Stop::usage(
            format!("{text:?} is no key id"),
            "expected 16 hexadecimal digits, as `rotacast seal keys` shows them",
        )
    })
}

fn unknown(file: &Path, key: &str) -> Stop {
    let fix = format!("`rotacast seal keys --file {}` lists those that are there", file.display());
    Stop::failed(Exit::NotFound, "not_found", format!("{} has no sealing key {key}", file.display()), fix)
}

fn failed(problem: String, fix: &str) -> Stop {
    Stop::failed(Exit::Failed, "key_file", problem, fix)
}

#[derive(Serialize)]
struct KeyView {
    key_id: String,
    sealing_public_key: String,
    seals: bool,
}

fn show(output: Output, keys: &KeyFile) -> Result<(), Stop> {
    let views: Vec<KeyView> = keys
        .sealing()
        .iter()
        .enumerate()
        .map(|(at, key)| KeyView {
            key_id: key.public().id().to_string(),
            sealing_public_key: key.public().to_text(),
            seals: at == 0,
        })
        .collect();
    if output.is_data() {
        return output.data(&views);
    }
    if views.is_empty() {
        return output.line("the file has no sealing key; `rotacast seal new-key` adds one");
    }
    for key in views {
        let what = if key.seals { "seals and opens" } else { "opens" };
        output.line(format_args!("{}  {what:15}  {}", key.key_id, key.sealing_public_key))?;
    }
    Ok(())
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
    missing_readers: Vec<ReaderView>,
    problem: Option<String>,
}

impl From<&VersionSeal> for VersionView {
    fn from(seal: &VersionSeal) -> Self {
        let (state, readers, former, missing, problem): (_, &[_], &[_], &[_], _) = match &seal.found {
            Found::Plain => ("plain", &[], &[], &[], None),
            Found::Broken(problem) => ("broken", &[], &[], &[], Some(problem.clone())),
            Found::Sealed { readers, former, missing, problem } => {
                let state = if problem.is_some() { "broken" } else { "sealed" };
                (state, readers, former, missing, problem.clone())
            }
        };
        Self {
            secret: seal.secret.to_string(),
            version: seal.version.get(),
            state,
            readers: ReaderView::all(readers),
            former_readers: ReaderView::all(former),
            missing_readers: ReaderView::all(missing),
            problem,
        }
    }
}

#[derive(Serialize)]
struct StatusView {
    versions: Vec<VersionView>,
    /// The secrets with a version that a former reader can open.
    rotate: Vec<String>,
}

fn status(output: Output, config: &Config) -> Result<(), Stop> {
    let seals = runtime(&mut Builder::new_current_thread())?.block_on(seal_status(config)).map_err(stopped)?;
    let versions: Vec<VersionView> = seals.iter().map(VersionView::from).collect();
    let exposed = versions.iter().filter(|version| !version.former_readers.is_empty());
    let rotate: BTreeSet<String> = exposed.map(|version| version.secret.clone()).collect();
    if output.is_data() {
        return output.data(&StatusView { versions, rotate: rotate.into_iter().collect() });
    }
    let sealed = versions.iter().filter(|version| version.state == "sealed").count();
    output.line(format_args!("{} in the store, {sealed} of them sealed", count(versions.len(), "version")))?;
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
