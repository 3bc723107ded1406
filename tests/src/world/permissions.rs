//! Logins of a world whose NATS enforces exactly what `rotacast permissions nats` prints.

use std::path::Path;

use super::settings::SERVICES;
use super::{LIMIT, Programs};
use crate::servers::{Nats, NatsConfig, until};

/// The broadcasters' user.
pub const BROADCASTER: &str = "rotacast-broadcaster";
/// The file of the broadcasters' password, beside the configuration.
const PASSWORD_FILE: &str = "nats-password";

/// The password of a login.
#[must_use]
pub fn password(user: &str) -> String {
    format!("only-for-tests-{user}")
}

/// An address with a login in it.
#[must_use]
pub fn with_login(url: &str, user: &str) -> String {
    url.replacen("://", &format!("://{user}:{}@", password(user)), 1)
}

/// The settings of the broadcasters' login in `[bus]`.
pub(super) fn login() -> String {
    format!("user = \"{BROADCASTER}\"\npassword_file = \"{PASSWORD_FILE}\"\n")
}

pub(super) fn write_passwords(folder: &Path) {
    std::fs::write(folder.join(PASSWORD_FILE), password(BROADCASTER)).expect("the scratch folder is ours");
}

/// The variables that the printed text names.
pub(super) fn variables() -> Vec<(String, String)> {
    let users = SERVICES.into_iter().chain([BROADCASTER]);
    let name = |user: &str| format!("ROTACAST_NATS_PASSWORD_{}", user.to_ascii_uppercase().replace('-', "_"));
    users.map(|user| (name(user), password(user))).collect()
}

/// What `rotacast permissions` prints for this server.
///
/// # Panics
/// If it fails.
pub async fn printed(programs: &Programs, config: &Path, server: &str) -> String {
    let mut command = tokio::process::Command::new(&programs.rotacast);
    command.args(["permissions", server, "--config"]).arg(config);
    let output = command.output().await.expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Has a running server enforce what is printed for this configuration.
pub(super) async fn enforce(programs: &Programs, config: &Path, nats: &Nats) {
    let text = printed(programs, config, "nats").await;
    nats.reload(NatsConfig { top: &text, jetstream: "" });
    until("NATS to refuse clients without a login", LIMIT, async || {
        async_nats::connect(nats.url()).await.is_err().then_some(())
    })
    .await;
}
