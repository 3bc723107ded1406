//! Values straight from the store.

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::message::SecretState;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{SecretName, Version};
use rotacast_store::SecretReader;

use crate::error::{Error, ErrorKind};
use crate::source::ValueSource;

/// Reads the store itself: works while no broadcaster does.
pub struct StoreSource {
    tree: SecretReader,
}

impl StoreSource {
    /// Reads this tree.
    #[must_use]
    pub fn new(tree: SecretReader) -> Self {
        Self { tree }
    }
}

#[async_trait]
impl ValueSource for StoreSource {
    fn describe(&self) -> String {
        self.tree.store().describe()
    }

    async fn read_state(&self, secret: &SecretName) -> Result<SecretState, Error> {
        let Some(entry) = self.tree.read_record(secret).await? else {
            return Err(Error::new(
                ErrorKind::NoSuchSecret,
                format!("secret {secret} has no record in {}", self.describe()),
                format!(
                    "put its first version (`rotacast put {secret}`) and check that a broadcaster runs on this store"
                ),
            ));
        };
        let record = SecretRecord::decode_of(secret, &entry.bytes).map_err(|error| {
            Error::new(
                ErrorKind::Malformed,
                format!("record of secret {secret} in {}: {error}", self.describe()),
                "upgrade this service's SDK if the broadcaster is newer; otherwise run `rotacast doctor`",
            )
        })?;
        Ok(record.state())
    }

    async fn read_value(&self, secret: &SecretName, version: Version) -> Result<SecretValue, Error> {
        let stored = self.tree.read_version(secret, version).await?;
        stored.map(|stored| stored.value).ok_or_else(|| {
            Error::new(
                ErrorKind::NoSuchSecret,
                format!("secret {secret} has no version {version} in {}", self.describe()),
                "it may have been retired meanwhile; the next desired state names another",
            )
        })
    }
}
