//! Folders for data and logs that vanish with the test process, unless a test failed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::watchdog;

static BASE: OnceLock<PathBuf> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder below the system's temporary folder. Removed when dropped, or by the watchdog when the process ends. Kept
/// if a test panicked or `ROTACAST_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A fresh folder whose name starts with `name`.
    ///
    /// # Panics
    /// If the temporary folder cannot be written.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = base().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps this and all other folders of this process after its end, to look at.
    pub fn keep() {
        let mark = base().join("keep");
        if let Err(error) = std::fs::write(&mark, "") {
            eprintln!("cannot keep the scratch folder: {}: {error}", mark.display());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Self::keep();
        }
        if base().join("keep").exists() {
            eprintln!("kept for inspection: {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            // Not fatal: the watchdog tries again at the end.
            eprintln!("cannot remove {} yet: {error}", self.path.display());
        }
    }
}

/// This process's folder; creating it starts the watchdog that removes it.
fn base() -> &'static Path {
    BASE.get_or_init(|| {
        let path = tempfile::Builder::new()
            .prefix("rotacast-tests-")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot create a folder in {}: {error}", std::env::temp_dir().display()))
            .keep();
        // PostgreSQL refuses to run as root, so its folder below this one belongs to another user, who must be able to
        // reach it, but not to list this one.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).expect("the folder was just created");
        watchdog::start(&path);
        if std::env::var_os("ROTACAST_KEEP").is_some() {
            std::fs::write(path.join("keep"), "").expect("the folder was just created");
        }
        path
    })
}
