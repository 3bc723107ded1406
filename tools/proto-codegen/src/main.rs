//! Writes the Rust code of the `.proto` files into the crates that contain them:
//!
//! ```text
//! cargo run -p rotacast-proto-codegen
//! ```
//!
//! The result is checked in. Users of Rotacast compile neither a protobuf compiler nor a code generator, and need no
//! `protoc`: protox, which this crate uses, is a protobuf compiler in Rust. A test of this crate fails when the code
//! and the `.proto` files differ.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;

/// Where a package's `.proto` files are and what is made of them. All paths are relative to the workspace.
struct Package {
    /// Imports begin here.
    root: &'static str,
    files: &'static [&'static str],
    /// The folder that holds generated files and nothing else.
    generated: &'static str,
    server: bool,
    /// Whether fields of bytes share the buffer they came in. Otherwise each owns its bytes, and can be wiped.
    shared_bytes: bool,
    /// The file for the descriptor set, which gRPC reflection serves.
    descriptors: Option<&'static str>,
    /// Messages that may carry a secret's value or a password get no generated `Debug`, so that none can be printed.
    without_debug: &'static [&'static str],
}

const PACKAGES: &[Package] = &[
    Package {
        root: "proto",
        files: &["rotacast/v1/instance.proto", "rotacast/v1/admin.proto"],
        generated: "proto/src/generated",
        server: true,
        shared_bytes: true,
        descriptors: Some("rotacast.v1.bin"),
        // An envelope's payload can be an operator's Put. The envelope has a `Debug` by hand that leaves the payload out.
        without_debug: &[
            ".rotacast.v1.FetchReply",
            ".rotacast.v1.Put",
            ".rotacast.v1.OperatorCommand.action",
            ".rotacast.v1.OperatorCommand",
            ".rotacast.v1.Envelope",
        ],
    },
    Package {
        root: "core/store/proto/etcd",
        files: &["rpc.proto"],
        generated: "core/store/src/etcd/generated",
        server: false,
        shared_bytes: false,
        descriptors: None,
        without_debug: &["."],
    },
];

impl Package {
    fn generate(&self, workspace: &Path, into: &Path) -> anyhow::Result<()> {
        let descriptors = protox::compile(self.files, [workspace.join(self.root)])?;
        if let Some(name) = self.descriptors {
            fs::write(into.join(name), descriptors.encode_to_vec())?;
        }
        let config = tonic_prost_build::configure();
        let config = if self.shared_bytes { config.bytes(".") } else { config };
        config
            .build_server(self.server)
            .skip_debug(self.without_debug)
            .emit_rerun_if_changed(false)
            .out_dir(into)
            .compile_fds(descriptors)?;
        Ok(())
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn main() -> anyhow::Result<()> {
    let workspace = workspace();
    for package in PACKAGES {
        let folder = workspace.join(package.generated);
        // A file of a message that was removed must not stay.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", package.generated))?;
        }
        fs::create_dir_all(&folder)?;
        package.generate(&workspace, &folder).with_context(|| format!("generating {}", package.generated))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }

    #[test]
    fn the_generated_code_is_what_the_proto_files_say() {
        for package in PACKAGES {
            let fresh = tempfile::tempdir().unwrap();
            package.generate(&workspace(), fresh.path()).unwrap();
            let (expected, found) = (contents(fresh.path()), contents(&workspace().join(package.generated)));
            let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&expected), names(&found), "files in {}", package.generated);
            let old: Vec<_> = expected.keys().filter(|&name| expected[name] != found[name]).collect();
            assert!(
                old.is_empty(),
                "{old:?} in {} differ from the .proto files: run 'cargo run -p rotacast-proto-codegen' and commit",
                package.generated
            );
        }
    }
}
