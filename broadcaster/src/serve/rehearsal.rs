//! What `serve` would trip over before it asks any server: files that are missing, keys that are none, options
//! that do not go together.

use anyhow::Context as _;
use rotacast_proto::{MAX_CLUSTER_KEYS, SigningKeys};
use rotacast_seal::SealingKeys;
use rotacast_store::Prefix;

use super::provider::Providers;
use super::{backend, files, tls};
use crate::config::{BusConfig, ClientTls, Config, StoreConfig};

/// Reads every file that the configuration names and builds everything from it that needs no server. Each problem
/// begins with its setting.
pub async fn rehearse(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |outcome: anyhow::Result<()>| problems.extend(outcome.err().map(|problem| format!("{problem:#}")));
    note(read_signing_keys(config).map(drop));
    note(read_sealing_keys(config).map(drop));
    note(Prefix::new(config.store.prefix()).map(drop).context("store.prefix"));
    if !matches!(config.store, StoreConfig::Embedded { .. }) {
        note(backend::store(&config.store).await.map(drop));
    }
    note(bus(config));
    if let Some(files) = &config.listen.tls {
        note(tls::read(files).map(drop));
    }
    note(Providers::new(config).map(drop));
    note(crate::traces::check(&config.telemetry));
    problems
}

/// The keys of this broadcaster, of which the first signs; by name of the setting and with the way to one.
pub(super) fn read_signing_keys(config: &Config) -> anyhow::Result<SigningKeys> {
    let keys = SigningKeys::read_file(&config.signing_key)
        .context("keys.signing_key: make one with `rotacast keygen --out NAME` and name its .key file there")?;
    let (found, limit) = (keys.iter().count(), MAX_CLUSTER_KEYS);
    anyhow::ensure!(
        found <= limit,
        "keys.signing_key: {} has {found} signing keys, expected at most {limit}, which is what a message has room for; remove one \
         with `rotacast keys drop`",
        config.signing_key.display()
    );
    Ok(keys)
}

/// The keys that open sealed values. There must be one, unless sealing is off by name.
pub(super) fn read_sealing_keys(config: &Config) -> anyhow::Result<SealingKeys> {
    let (setting, file) = config.sealing_key_file();
    if config.sealing_key.is_none() && !file.exists() {
        // Said already of the signing key.
        return Ok(SealingKeys::default());
    }
    let keys = SealingKeys::read_file(file).with_context(|| format!("{setting}: it must hold the sealing key"))?;
    anyhow::ensure!(
        !keys.is_empty() || !config.seal_values,
        "{setting}: {} has no sealing key, so values cannot be sealed; add one with `rotacast keys new --for sealing --file {}`, name the \
         file of the other replicas' with keys.sealing_key, or set sealing.enabled = false",
        file.display(),
        file.display()
    );
    Ok(keys)
}

fn bus(config: &Config) -> anyhow::Result<()> {
    match &config.bus {
        BusConfig::Embedded { .. } => Ok(()),
        BusConfig::Nats { login, tls, .. } => {
            backend::nats_credentials(login)?;
            bus_files(tls.as_ref())
        }
        #[cfg(feature = "kafka")]
        BusConfig::Kafka { tls, .. } => {
            super::kafka::options(&config.bus, &config.cluster)?.check()?;
            bus_files(tls.as_ref())
        }
        #[cfg(not(feature = "kafka"))]
        BusConfig::Kafka { .. } => anyhow::bail!("bus.kind: \"kafka\" is not part of this build of rotacast"),
    }
}

/// These clients are given the paths: only the client itself would find out that a file is not there.
fn bus_files(tls: Option<&ClientTls>) -> anyhow::Result<()> {
    let Some(tls) = tls else { return Ok(()) };
    files::readable("bus.tls.ca", &tls.ca)?;
    let Some((cert, key)) = &tls.identity else { return Ok(()) };
    files::readable("bus.tls.cert", cert)?;
    files::readable("bus.tls.key", key)
}
