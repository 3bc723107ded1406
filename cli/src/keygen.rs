//! `rotacast keygen`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rotacast_proto::SigningKey;
use rotacast_seal::{SealingKey, create_key_file};
use serde::Serialize;

use crate::error::{Exit, Stop};
use crate::output::Output;

#[derive(Serialize)]
struct KeyView {
    private_file: String,
    public_file: String,
    sealing_public_file: String,
    public_key: String,
    sealing_public_key: String,
    key_id: String,
}

/// Makes three files, none of which may be there.
pub(crate) fn make(output: Output, name: &Path) -> Result<(), Stop> {
    let [private, public, sealing_public] = [".key", ".pub", ".sealing.pub"].map(|ending| with_ending(name, ending));
    for file in [&public, &sealing_public] {
        if file.try_exists().unwrap_or(false) {
            return Err(failed(
                format!("{}: exists already; a key is never overwritten", file.display()),
                "name another file, or move this one away",
            ));
        }
    }
    let (key, sealing) = (SigningKey::generate(), SealingKey::generate());
    create_key_file(&private, &key, &sealing).map_err(|error| failed(error.to_string(), ""))?;
    let (text, sealing) = (key.public().to_text(), sealing.public().to_text());
    write_public(&public, &text)?;
    write_public(&sealing_public, &sealing)?;
    if output.is_data() {
        return output.data(&KeyView {
            private_file: private.display().to_string(),
            public_file: public.display().to_string(),
            sealing_public_file: sealing_public.display().to_string(),
            public_key: text,
            sealing_public_key: sealing,
            key_id: key.public().id().to_string(),
        });
    }
    output.line(format_args!("private key  {}  (keep it; only its owner may read it)", private.display()))?;
    output.line(format_args!("public key   {}  (key id {})", public.display(), key.public().id()))?;
    output.line(format_args!("sealing key  {}", sealing_public.display()))?;
    output.line("")?;
    let owner = owner(&private);
    output.line("In the broadcaster's configuration, for an operator:")?;
    output.line(format_args!("[operators.{owner}]\nkeys = [\"{text}\"]\n"))?;
    output.line("or for a service:")?;
    output.line(format_args!(
        "[services.{owner}]\nkeys = [\"{text}\"]\nsealing_key = \"{sealing}\"\nsecrets = [\"{owner}/*\"]"
    ))
}

/// Others may read it. A program that could write it could get its own key trusted.
fn write_public(path: &Path, text: &str) -> Result<(), Stop> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
        file.write_all(format!("{text}\n").as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| {
        let fix = "its private half was made; remove what was made and try again";
        failed(format!("cannot write {}: {error}", path.display()), fix)
    })
}

/// Who is likely meant, after the file's name.
pub(crate) fn owner(private: &Path) -> String {
    let name = private.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    // Only such a name is a key in TOML without quotes.
    let bare = !name.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if bare { name.to_owned() } else { "NAME".to_owned() }
}

fn failed(problem: String, fix: &str) -> Stop {
    Stop::failed(Exit::Failed, "key_file", problem, fix)
}

/// `name` with an ending behind it; `my.name` becomes `my.name.key`, and `name.key` stays one.
pub(crate) fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let bare = match name.extension() {
        Some(extension) if extension == "key" || extension == "pub" => name.with_extension(""),
        _ => name.to_owned(),
    };
    let mut text: OsString = bare.into_os_string();
    text.push(ending);
    text.into()
}
