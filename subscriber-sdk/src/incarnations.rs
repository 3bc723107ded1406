//! The incarnations of one instance in this process, one after another.

use std::sync::{Arc, Mutex, PoisonError};

use rotacast_proto::{InstanceIdentity, SigningKey};
use rotacast_protocol::{ClusterName, InstanceName, ServiceName};

/// Draws a key for each incarnation, and remembers the one in force.
pub(crate) struct Incarnations {
    service_key: SigningKey,
    cluster: ClusterName,
    service: ServiceName,
    instance: InstanceName,
    current: Mutex<Arc<InstanceIdentity>>,
}

impl Incarnations {
    pub(crate) fn new(
        service_key: SigningKey,
        cluster: ClusterName,
        service: ServiceName,
        instance: InstanceName,
    ) -> Self {
        let first = InstanceIdentity::draw(cluster.clone(), service.clone(), instance.clone(), &service_key);
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

    /// Begins a new one. What runs on goes on signing as the incarnation that it began with.
    pub(crate) fn begin(&self) -> Arc<InstanceIdentity> {
        let (cluster, service, instance) = (self.cluster.clone(), self.service.clone(), self.instance.clone());
        let new = Arc::new(InstanceIdentity::draw(cluster, service, instance, &self.service_key));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        new
    }
}
