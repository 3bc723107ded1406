//! What a store's and a bus's settings have in common: who we are, and whom we trust.

use std::path::PathBuf;

use rotacast_proto::Unencrypted;

use super::reader::Section;

/// Allows what would otherwise be refused: an address of another machine without encryption.
pub(super) const IN_THE_CLEAR: &str = "in_the_clear";

/// Refuses addresses of other machines, which are not encrypted, unless the section allows that by name. `key` is the
/// setting that holds them.
pub(super) fn check_unencrypted<'a>(
    section: &Section<'_, '_>,
    key: &str,
    allowed: bool,
    addresses: impl IntoIterator<Item = &'a str>,
    unencrypted: Unencrypted<'_>,
) {
    if allowed {
        return;
    }
    for address in addresses {
        if let Err(refusal) = unencrypted.to(address) {
            section.problem(key, refusal.to_string());
        }
    }
}

/// A name and the file of a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub user: String,
    /// Holds the password; trailing line ends are not part of it.
    pub password_file: PathBuf,
}

/// Certificates of a client, in PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientTls {
    /// The authority that signed the servers' certificates.
    pub ca: PathBuf,
    /// Our own certificate and its private key, where the servers ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name expected in the servers' certificates, if not the endpoint's.
    pub server_name: Option<String>,
}

pub(super) fn read_login(section: &Section<'_, '_>) -> Option<Login> {
    match (section.text("user"), section.path("password_file")) {
        (Some(user), Some(password_file)) => Some(Login { user, password_file }),
        (None, None) => None,
        (Some(_), None) => {
            section.problem("password_file", "is missing; expected the file that holds the user's password".into());
            None
        }
        (None, Some(_)) => {
            section.problem("user", "is missing; password_file needs one".into());
            None
        }
    }
}

pub(super) fn read_client_tls(section: &Section<'_, '_>) -> Option<ClientTls> {
    if !section.exists() {
        return None;
    }
    let ca = section.required_text("ca", "the file of the authority that signed the servers' certificates");
    let identity = match (section.path("cert"), section.path("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, _) => {
            let missing = if cert.is_some() { "key" } else { "cert" };
            section.problem(missing, "is missing; a certificate and its key come together".into());
            None
        }
    };
    let server_name = section.text("server_name");
    section.finish();
    Some(ClientTls { ca: section.resolve(ca?), identity, server_name })
}
