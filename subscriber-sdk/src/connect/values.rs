//! From settings to sources of values.

use std::sync::Arc;

#[cfg(feature = "etcd")]
use rotacast_proto::LoginSecret;

use crate::builder::Plan;
use crate::error::Error;
#[cfg(any(feature = "consul", feature = "etcd"))]
use crate::error::ErrorKind;
use crate::source::ValueSource;

/// Where values are to come from.
#[derive(Clone)]
pub(crate) enum Values {
    #[cfg(feature = "etcd")]
    Etcd(EtcdAccess),
    #[cfg(feature = "consul")]
    Consul(ConsulAccess),
    Source(Arc<dyn ValueSource>),
}

/// Where etcd is, and who to be there.
#[cfg(feature = "etcd")]
#[derive(Clone)]
pub(crate) struct EtcdAccess {
    pub(crate) endpoints: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) user: Option<(String, LoginSecret)>,
}

/// Where Consul is, and who to be there.
#[cfg(feature = "consul")]
#[derive(Clone)]
pub(crate) struct ConsulAccess {
    pub(crate) address: String,
    pub(crate) prefix: String,
}

/// Connects nothing yet: a source that is away is no reason not to start, and shows as an error when it is asked.
pub(super) fn open(values: &Values, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    // A source that was given needs nothing of it, and without features there is no other.
    let _ = plan;
    match values {
        Values::Source(source) => Ok(Arc::clone(source)),
        #[cfg(feature = "etcd")]
        Values::Etcd(access) => etcd(access, plan),
        #[cfg(feature = "consul")]
        Values::Consul(access) => consul(access, plan),
    }
}

#[cfg(feature = "grpc")]
pub(super) fn from_broadcasters(urls: &[String], plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    use crate::source::{FetchSource, FetchTarget};
    let targets = urls.iter().map(|url| FetchTarget::new(url, plan.ca())).collect::<Result<_, _>>()?;
    let (incarnations, trust) = (Arc::clone(&plan.incarnations), Arc::clone(&plan.trust));
    let source = FetchSource::new(targets, plan.cluster.clone(), incarnations, trust);
    Ok(Arc::new(source))
}

#[cfg(feature = "etcd")]
fn etcd(access: &EtcdAccess, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    use rotacast_store::{ClientTls, EtcdOptions, EtcdStore, EtcdUser};
    super::unencrypted::check_etcd(&access.endpoints, plan)?;
    let encrypted = access.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let tls = plan.ca().filter(|_| encrypted).map(ClientTls::trusting);
    let user = access.user.clone().map(|(name, password)| EtcdUser { name, password });
    let options = EtcdOptions { endpoints: access.endpoints.clone(), user, tls };
    let store = EtcdStore::new(options)?;
    tree(store, &access.prefix, plan)
}

#[cfg(feature = "consul")]
fn consul(access: &ConsulAccess, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    use rotacast_store::{ClientTls, ConsulOptions, ConsulStore};
    let mut options = ConsulOptions { address: access.address.clone(), ..ConsulOptions::default() };
    options.token.clone_from(&plan.consul_token);
    if access.address.starts_with("https://") {
        let authority = plan.ca().ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("Consul {} speaks TLS, and no certificate authority is set", access.address),
                "name the PEM file of the authority that signed Consul's certificate with .ca_file(…) or ROTACAST_CA",
            )
        })?;
        options.tls = Some(ClientTls::trusting(authority));
    }
    super::unencrypted::check_consul(&access.address, plan)?;
    tree(ConsulStore::new(options)?, &access.prefix, plan)
}

#[cfg(any(feature = "consul", feature = "etcd"))]
fn tree(store: impl rotacast_store::ReadStore, prefix: &str, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    let prefix = rotacast_store::Prefix::new(prefix).map_err(|error| {
        Error::new(ErrorKind::Config, error.to_string(), "use the prefix of the broadcaster's configuration")
    })?;
    let tree = rotacast_store::SecretReader::new(Arc::new(store), prefix);
    let tree = tree.opening(plan.cluster.clone(), plan.sealing_keys.clone());
    Ok(Arc::new(crate::source::StoreSource::new(tree)))
}
