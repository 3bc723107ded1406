//! The README's commands, pasted in one go.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// A test that waits this long has failed.
const HANGS: Duration = Duration::from_secs(120);

/// The code block below a heading.
fn block_below(text: &str, heading: &str) -> String {
    let (_, below) = text.split_once(heading).unwrap_or_else(|| panic!("the README has no {heading:?}"));
    below.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_readme_by_hand_works_pasted_in_one_go() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let block = block_below(&readme, "### Try it by hand");
    // As pasted, except for the build, which exists, and the port, which must be free.
    let (build, pasted) = block.split_once('\n').unwrap();
    assert!(build.starts_with("cargo build -p rotacast"), "{build}");
    assert!(pasted.contains("rotacast dev &"), "{pasted}");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let pasted = pasted.replace("rotacast dev &", &format!("rotacast dev --listen {address} >dev.log 2>&1 &"));
    let script = format!("set -e\ntrap 'kill $!' EXIT\n{pasted}");
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_rotacast")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(folder.path()).env_clear().env("PATH", path);
    shell.env("ROTACAST_SERVER", &address).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(HANGS, shell.output()).await.expect("it hangs").unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{err}");
    for told in [
        "demo/token: version 1 written",
        "demo/token: rotation 2 to version 2 started",
        "demo/token: rotation 2 (1 → 2, asked for by operator)",
    ] {
        assert!(out.contains(told), "{told:?} is not in {out}{err}");
    }
}
