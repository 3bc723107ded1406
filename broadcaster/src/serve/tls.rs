//! TLS of the listener, from its files.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tracing::info;

use super::files;
use crate::config::ServerTls;
use crate::connections::{PROTOCOLS, Tls};

/// What handshakes use, read again when the files change.
pub(super) struct Renewable {
    files: ServerTls,
    /// Of the files' contents that are in use.
    digest: Mutex<Option<[u8; 32]>>,
    configs: watch::Sender<Arc<ServerConfig>>,
}

impl Renewable {
    pub(super) fn read(files: &ServerTls) -> anyhow::Result<Self> {
        // Before the files: what changes in between is read again.
        let digest = Mutex::new(digest(files));
        Ok(Self { files: files.clone(), digest, configs: watch::Sender::new(read(files)?) })
    }

    pub(super) fn subscribe(&self) -> Tls {
        self.configs.subscribe()
    }

    /// Takes over files that have changed. Those that cannot be used change nothing: the finding about them says why.
    pub(super) async fn renew(self: Arc<Self>) {
        // The next look begins anew.
        let _ = tokio::task::spawn_blocking(move || self.renew_now()).await;
    }

    fn renew_now(&self) {
        // A digest is whole after every call on it.
        let mut used = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = digest(&self.files);
        if now.is_none() || now == *used {
            return;
        }
        if let Ok(config) = read(&self.files) {
            self.configs.send_replace(config);
            *used = now;
            info!("new connections use the renewed files of [listen.tls]");
        }
    }
}

/// `None`: one cannot be read.
fn digest(tls: &ServerTls) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    for file in [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()].into_iter().flatten() {
        hasher.update(Sha256::digest(files::text("listen.tls", file).ok()?.as_bytes()));
    }
    Some(hasher.finalize().into())
}

/// Reads the files of `[listen.tls]`.
pub(super) fn read(tls: &ServerTls) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = certificates("listen.tls.cert", &tls.cert)?;
    let key = files::text("listen.tls.key", &tls.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).with_context(|| {
        format!("listen.tls.key: {} holds no private key; expected a PEM file with one", tls.key.display())
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("listen.tls")?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("listen.tls.client_ca", file)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("listen.tls.client_ca: {} holds no authority", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.context("listen.tls.client_ca")?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).with_context(|| {
        format!(
            "listen.tls: {} and {} do not go together; expected a certificate chain and the private key of its first \
             certificate",
            tls.cert.display(),
            tls.key.display()
        )
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// At least one.
fn certificates(setting: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = files::text(setting, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.with_context(|| format!("{setting}: {} is no PEM file", file.display()))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{setting}: {} holds no certificate; expected a PEM file with one",
        file.display()
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rotacast_test_servers::make_certificates;

    use super::*;

    #[tokio::test]
    async fn renewed_files_are_taken_over_and_unusable_ones_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        if !make_certificates(folder.path(), &["one", "two"]).await {
            return;
        }
        let file = |name: &str| folder.path().join(name);
        let copy = |name: &str, ending: &str| {
            std::fs::copy(file(&format!("{name}.{ending}")), file(&format!("server.{ending}"))).unwrap();
        };
        let (cert, key) = (file("server.pem"), file("server.key"));
        ["pem", "key"].iter().for_each(|ending| copy("one", ending));
        let renewable = Renewable::read(&ServerTls { cert, key, client_ca: None }).unwrap();
        let mut used = renewable.subscribe();
        let renewed = |used: &mut Tls| {
            renewable.renew_now();
            let changed = used.has_changed().unwrap();
            used.mark_unchanged();
            changed
        };
        assert!(!renewed(&mut used), "nothing has changed");
        copy("two", "pem");
        assert!(!renewed(&mut used), "the key is not there yet");
        copy("two", "key");
        assert!(renewed(&mut used));
        assert!(!renewed(&mut used));
    }
}
