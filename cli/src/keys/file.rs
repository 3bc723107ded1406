//! The keys of a private key file.

use std::path::Path;

use rotacast_proto::KeyId;
use rotacast_seal::{KeyFile, KeyUse};
#[cfg(feature = "broadcaster")]
use rotacast_seal::{SealingKey, SealingKeys};
use serde::Serialize;

use super::DropArgs;
use crate::error::{Exit, Stop};
use crate::output::Output;

/// How many versions that need a key are named.
#[cfg(feature = "broadcaster")]
const NAMED: usize = 5;

pub(super) fn open(file: &Path) -> Result<KeyFile, Stop> {
    KeyFile::read(file).map_err(|error| failed(error.to_string(), ""))
}

fn save(output: Output, keys: &KeyFile) -> Result<(), Stop> {
    keys.write().map_err(|error| failed(error.to_string(), ""))?;
    show(output, keys)
}

fn unknown(file: &Path, key: &KeyId) -> Stop {
    let fix = format!("`rotacast keys list --file {}` lists those that are there", file.display());
    Stop::failed(Exit::NotFound, "not_found", format!("{} has no key {key}", file.display()), fix)
}

fn failed(problem: String, fix: &str) -> Stop {
    Stop::failed(Exit::Failed, "key_file", problem, fix)
}

pub(super) fn add(output: Output, file: &Path, of: KeyUse) -> Result<(), Stop> {
    let mut keys = open(file)?;
    keys.add(of);
    save(output, &keys)
}

pub(super) fn bring_into_use(output: Output, file: &Path, key: &KeyId) -> Result<(), Stop> {
    let mut keys = open(file)?;
    if !keys.move_to_front(key) {
        return Err(unknown(file, key));
    }
    save(output, &keys)
}

pub(super) fn remove(output: Output, args: &DropArgs, key: &KeyId) -> Result<(), Stop> {
    let mut keys = open(&args.file)?;
    let (of, in_use) = keys.find(key).ok_or_else(|| unknown(&args.file, key))?;
    if !args.force {
        if in_use {
            let fix = format!(
                "make another one the one in use first: `rotacast keys new --for {of} --file {file}`, then `rotacast keys use \
                 --file {file} ID`; or give --force",
                file = args.file.display()
            );
            return Err(needed(format!("{key} is the {of} key in use"), fix));
        }
        if of == KeyUse::Sealing {
            check_values(args, &keys, key)?;
        }
    }
    keys.remove(key);
    save(output, &keys)
}

fn needed(problem: String, fix: String) -> Stop {
    Stop::failed(Exit::Failed, "key_needed", problem, fix)
}

#[cfg(not(feature = "broadcaster"))]
fn check_values(_: &DropArgs, _: &KeyFile, key: &KeyId) -> Result<(), Stop> {
    let fix = "use the full build with --config, which looks into the store; or give --force".to_owned();
    Err(needed(format!("it is not known whether a stored value needs {key}: this build reads no configuration"), fix))
}

/// Refuses if a stored value opens with this key alone.
#[cfg(feature = "broadcaster")]
fn check_values(args: &DropArgs, keys: &KeyFile, key: &KeyId) -> Result<(), Stop> {
    let Some(config) = &args.config else {
        let fix =
            "name the broadcaster's configuration with --config, to look into the store; or give --force".to_owned();
        return Err(needed(format!("it is not known whether a stored value needs {key}"), fix));
    };
    let config = rotacast_broadcaster::config::Config::read(config)?;
    let others: Vec<SealingKey> = keys.sealing().iter().filter(|other| other.public().id() != key).cloned().collect();
    let looking = rotacast_broadcaster::serve::needs(&config, key, SealingKeys::new(others));
    let found = crate::runtime(&mut tokio::runtime::Builder::new_current_thread())?.block_on(looking);
    let found = found.map_err(|problem| Stop::failed(Exit::Unreachable, "store", format!("{problem:#}"), ""))?;
    if found.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> =
        found.iter().take(NAMED).map(|(secret, version)| format!("{secret} version {version}")).collect();
    if found.len() > NAMED {
        names.push(format!("{} more", found.len() - NAMED));
    }
    Err(needed(
        format!("no other key of {} opens {}", args.file.display(), names.join(", ")),
        "let the leader wrap them for the key in use (`rotacast seal rewrap --config FILE` does it at once), then try again; or give \
         --force, which gives these values up"
            .to_owned(),
    ))
}

#[derive(Serialize)]
struct KeyView {
    key_id: String,
    /// `signing` or `sealing`.
    #[serde(rename = "use")]
    of: &'static str,
    in_use: bool,
    public_key: String,
}

pub(super) fn show(output: Output, keys: &KeyFile) -> Result<(), Stop> {
    let signing = keys.signing().iter().enumerate().map(|(at, key)| {
        let public = key.public();
        KeyView {
            key_id: public.id().to_string(),
            of: KeyUse::Signing.as_str(),
            in_use: at == 0,
            public_key: public.to_text(),
        }
    });
    let sealing = keys.sealing().iter().enumerate().map(|(at, key)| {
        let public = key.public();
        KeyView {
            key_id: public.id().to_string(),
            of: KeyUse::Sealing.as_str(),
            in_use: at == 0,
            public_key: public.to_text(),
        }
    });
    let views: Vec<KeyView> = signing.chain(sealing).collect();
    if output.is_data() {
        return output.data(&views);
    }
    if !views.iter().any(|key| key.of == KeyUse::Sealing.as_str()) {
        let add = format!("rotacast keys new --for sealing --file {}", keys.path().display());
        output.line(format_args!("the file has no sealing key; `{add}` adds one"))?;
    }
    for key in views {
        let what = if key.in_use { "in use" } else { "" };
        output.line(format_args!("{}  {}  {what:6}  {}", key.key_id, key.of, key.public_key))?;
    }
    Ok(())
}
