//! What this build was made from. Nothing here can fail a build: whatever cannot be found out is left out.

use std::path::Path;
use std::process::Command;

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ROTACAST_BUILD_COMMIT");
    // For builds without a git tree, such as from an archive or in a container.
    let given = std::env::var("ROTACAST_BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        // The project's own tree, and not one that it was unpacked into.
        let top = said_by("git", &["rev-parse", "--show-toplevel"])?;
        let ours = Path::new(&top).join("cli").canonicalize().ok()?;
        if ours != Path::new(&std::env::var("CARGO_MANIFEST_DIR").ok()?).canonicalize().ok()? {
            return None;
        }
        // What changes with every commit: the branch's reference, and the log of what HEAD was.
        if let Some(log) = said_by("git", &["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])
            && Path::new(&log).exists()
        {
            println!("cargo::rerun-if-changed={log}");
        }
        said_by("git", &["rev-parse", "HEAD"])
    });
    let rustc = said_by(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["--version"]);
    for (name, value) in [("ROTACAST_COMMIT", commit), ("ROTACAST_RUSTC", rustc)] {
        println!("cargo::rustc-env={name}={}", value.unwrap_or_default());
    }
    println!("cargo::rustc-env=ROTACAST_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=ROTACAST_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
}
