//! Chromium, driven through ChromeDriver.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, find, free_port};

/// A ChromeDriver. The browsers that it starts end with it.
#[derive(Debug)]
pub struct ChromeDriver {
    server: Server,
    port: u16,
    chromium: PathBuf,
}

impl ChromeDriver {
    /// Starts one; `None` if it or Chromium is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        let find = |variable, name| {
            find::binary(variable, name).or_else(|| {
                find::skip(name);
                None
            })
        };
        let chromium = find("ROTACAST_CHROMIUM", "chromium")?;
        let program = find("ROTACAST_CHROMEDRIVER", "chromedriver")?;
        let mut port = 0;
        let server = Server::start(Scratch::new("chromedriver"), |scratch| {
            port = free_port();
            Plan {
                name: "chromedriver",
                program: program.clone(),
                arguments: vec![format!("--port={port}").into()],
                // Files that the browser leaves behind are deleted with the folder.
                variables: ["HOME", "TMPDIR", "XDG_CACHE_HOME"]
                    .map(|name| (name.to_owned(), scratch.path().into()))
                    .into(),
                probe: Probe::Http { port, path: "/status", expected: "\"ready\":true" },
                stop: Signal::TERM,
            }
        })
        .await;
        Some(Self { server, port, chromium })
    }

    /// Where it takes WebDriver commands.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The browser it is to start.
    #[must_use]
    pub fn chromium(&self) -> &Path {
        &self.chromium
    }

    /// A folder for a browser's profile.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        self.server.scratch()
    }
}

/// The script of axe-core, which checks pages for accessibility; `None` if it is missing, after counting the test as skipped.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn axe() -> Option<String> {
    let Some(file) = find::axe() else {
        find::skip("axe-core");
        return None;
    };
    Some(std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display())))
}
