//! The incarnations of one instance in this process, one after another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rotacast_proto::{InstanceIdentity, Renewed, SigningKey, read_file};
use rotacast_protocol::{ClusterName, InstanceName, ServiceName};
use zeroize::Zeroizing;

/// Where the service's key comes from.
pub(crate) enum ServiceKey {
    Given(SigningKey),
    /// Read again when the file changes: another key can take its place while this process runs.
    File(Renewed<Zeroizing<String>, SigningKey>),
}

impl ServiceKey {
    /// The key in a file that signs.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn read(file: PathBuf) -> Result<Self, String> {
        let path = file.clone();
        let read = move |patience| read_file(&path, patience).map_err(|problem| problem.to_string());
        // The rights of the file count for each key in it.
        let make = move |_: &Zeroizing<String>| SigningKey::read_file(&file).map_err(|problem| problem.to_string());
        Renewed::new("the service's key", read, make).map(Self::File)
    }

    fn current(&self) -> SigningKey {
        match self {
            Self::Given(key) => key.clone(),
            Self::File(file) => file.current(),
        }
    }
}

/// Draws a key for each incarnation, and remembers the one in force.
pub(crate) struct Incarnations {
    service_key: ServiceKey,
    cluster: ClusterName,
    service: ServiceName,
    instance: InstanceName,
    current: Mutex<Arc<InstanceIdentity>>,
}

impl Incarnations {
    pub(crate) fn new(
        service_key: ServiceKey,
        cluster: ClusterName,
        service: ServiceName,
        instance: InstanceName,
    ) -> Self {
        let key = service_key.current();
        let first = InstanceIdentity::draw(cluster.clone(), service.clone(), instance.clone(), &key);
        Self { service_key, cluster, service, instance, current: Mutex::new(Arc::new(first)) }
    }

    /// The service that all of them belong to.
    #[cfg(feature = "nats")]
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn current(&self) -> Arc<InstanceIdentity> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Attests an incarnation with the service's key of this moment, if another key attested it before. The incarnation stays the
    /// same.
    pub(crate) fn attest(&self, identity: &InstanceIdentity) {
        let key = self.service_key.current();
        if identity.attest_with(&key) {
            tracing::info!(instance = %identity.key(), key = %key.public().id(), "attested by another key of the service");
        }
    }

    /// Begins a new one. What runs on goes on signing as the incarnation that it began with.
    pub(crate) fn begin(&self) -> Arc<InstanceIdentity> {
        let (cluster, service, instance) = (self.cluster.clone(), self.service.clone(), self.instance.clone());
        let new = Arc::new(InstanceIdentity::draw(cluster, service, instance, &self.service_key.current()));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        new
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_takes_the_place_of_another_attests_the_same_incarnation() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.key");
        let (old, new) = (SigningKey::generate(), SigningKey::generate());
        old.create_file(&file).unwrap();
        let key = ServiceKey::read(file.clone()).unwrap();
        let (cluster, service, instance) = ("test".parse().unwrap(), "api".parse().unwrap(), "one".parse().unwrap());
        let incarnations = Incarnations::new(key, cluster, service, instance);
        let identity = incarnations.current();
        std::fs::write(&file, format!("{}\n{}\n", *new.to_text(), *old.to_text())).unwrap();
        let ServiceKey::File(renewed) = &incarnations.service_key else { panic!("it was read from a file") };
        renewed.look_now();
        incarnations.attest(&identity);
        assert!(!identity.attest_with(&new), "it is attested by the new key");
        assert_eq!(incarnations.current().key(), identity.key());
        // One that others may read is no key, here either: the earlier one stays.
        std::fs::write(&file, format!("{}\n", *old.to_text())).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        renewed.look_now();
        incarnations.attest(&identity);
        assert!(!identity.attest_with(&new));
    }
}
