//! From addresses to transports and value sources.

use std::sync::Arc;

use rotacast_bus::InstanceBus;

use crate::builder::Plan;
use crate::error::{Error, ErrorKind};
use crate::source::ValueSource;

/// Where values are to come from.
#[derive(Clone)]
pub(crate) enum Values {
    #[cfg(feature = "etcd")]
    Etcd(crate::builder::EtcdAccess),
    #[cfg(feature = "grpc")]
    Broadcaster(String),
    Source(Arc<dyn ValueSource>),
}

/// What a transport's address says.
enum Transport<'u> {
    #[cfg(feature = "nats")]
    Nats(&'u str),
    #[cfg(feature = "grpc")]
    Grpc(String),
    /// Keeps the lifetime in use without either feature.
    #[allow(dead_code)]
    Unknown(&'u str),
}

fn transport(url: &str) -> Transport<'_> {
    match url.split_once("://") {
        #[cfg(feature = "nats")]
        Some(("nats" | "tls", _)) => Transport::Nats(url),
        #[cfg(feature = "grpc")]
        Some(("grpc", rest)) => Transport::Grpc(format!("http://{rest}")),
        #[cfg(feature = "grpc")]
        Some(("grpcs", rest)) => Transport::Grpc(format!("https://{rest}")),
        _ => Transport::Unknown(url),
    }
}

type Both = (Arc<dyn InstanceBus>, Arc<dyn ValueSource>);

// A build without a transport knows no address, and everything after that is never reached.
#[cfg_attr(not(any(feature = "nats", feature = "grpc")), allow(unreachable_code, unused_variables))]
pub(crate) async fn connect(url: &str, plan: &Plan, values: Option<&Values>) -> Result<Both, Error> {
    let transport = transport(url);
    // The source first: it is checked without a connection.
    let source = match (&transport, values) {
        #[cfg(feature = "grpc")]
        (Transport::Grpc(url), None) => fetch(url, plan)?,
        (_, Some(values)) => open_source(values, plan)?,
        (_, None) => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("transport {url} carries no values, and no other source of values is set"),
                "call .values_from_etcd(…) or .values_from_broadcaster(…) on the builder",
            ));
        }
    };
    let bus: Arc<dyn InstanceBus> = match transport {
        #[cfg(feature = "nats")]
        Transport::Nats(url) => {
            let mut options = rotacast_bus::NatsOptions::new(url, plan.cluster.clone());
            if let Some(credentials) = &plan.nats_credentials {
                options.credentials = credentials.clone();
                // Credentials of a service seldom may manage streams: the broadcaster makes them.
                options.streams = rotacast_bus::NatsStreams::Use;
            }
            options.ca.clone_from(&plan.ca_file);
            Arc::new(patiently(plan, || rotacast_bus::NatsBus::connect(options.clone())).await?)
        }
        #[cfg(feature = "grpc")]
        Transport::Grpc(url) => {
            let options = rotacast_bus::GrpcOptions { url, ca: plan.ca_pem.clone(), ..Default::default() };
            Arc::new(patiently(plan, || rotacast_bus::GrpcBus::connect(options.clone())).await?)
        }
        Transport::Unknown(url) => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("transport {url:?} is not known to this build"),
                format!("expected one of {}", EXPECTED.join(", ")),
            ));
        }
    };
    Ok((bus, source))
}

/// What this build can connect to.
const EXPECTED: &[&str] = &[
    #[cfg(feature = "nats")]
    "nats://host:port",
    #[cfg(feature = "grpc")]
    "grpc://127.0.0.1:port",
    #[cfg(feature = "grpc")]
    "grpcs://host:port",
    #[cfg(not(any(feature = "nats", feature = "grpc")))]
    "nothing: enable this crate's feature `nats` or `grpc`",
];

/// Services and the bus often start together: whoever is not there yet is tried again until the start's time is over.
#[cfg(any(feature = "nats", feature = "grpc"))]
async fn patiently<T, F>(plan: &Plan, connect: impl Fn() -> F) -> Result<T, Error>
where
    F: std::future::Future<Output = Result<T, rotacast_bus::BusError>>,
{
    let deadline = tokio::time::Instant::now() + plan.start_timeout;
    let mut pauses = crate::driver::backoff();
    loop {
        match connect().await {
            Ok(bus) => return Ok(bus),
            Err(error) => {
                let resume = tokio::time::Instant::now() + pauses.next().unwrap_or_default();
                if !error.is_transient() || resume >= deadline {
                    return Err(error.into());
                }
                tracing::warn!(%error, "not connected yet, will be tried again");
                tokio::time::sleep_until(resume).await;
            }
        }
    }
}

fn open_source(values: &Values, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    // A source that was given needs nothing of it, and without features there is no other.
    let _ = plan;
    match values {
        Values::Source(source) => Ok(Arc::clone(source)),
        #[cfg(feature = "grpc")]
        Values::Broadcaster(url) => fetch(url, plan),
        #[cfg(feature = "etcd")]
        Values::Etcd(access) => etcd(access, plan),
    }
}

#[cfg(feature = "grpc")]
fn fetch(url: &str, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    let target = crate::source::FetchTarget::new(url, plan.ca_pem.as_deref())?;
    let source = crate::source::FetchSource::new(
        target,
        plan.key.clone(),
        plan.cluster.clone(),
        plan.identity.clone(),
        Arc::clone(&plan.trust),
    );
    Ok(Arc::new(source))
}

#[cfg(feature = "etcd")]
fn etcd(access: &crate::builder::EtcdAccess, plan: &Plan) -> Result<Arc<dyn ValueSource>, Error> {
    use rotacast_store::{EtcdOptions, EtcdStore, EtcdTls, EtcdUser, Prefix, SecretTree};
    let tls = match &plan.ca_pem {
        Some(pem) if access.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) => {
            let authority = String::from_utf8(pem.clone()).map_err(|_| {
                Error::new(ErrorKind::Config, "the certificate authority's file is not text", "expected a PEM file")
            })?;
            Some(EtcdTls { authority, ..EtcdTls::default() })
        }
        _ => None,
    };
    let user = access.user.clone().map(|(name, password)| EtcdUser { name, password });
    let options = EtcdOptions { endpoints: access.endpoints.clone(), user, tls };
    let prefix = Prefix::new(&access.prefix).map_err(|error| {
        Error::new(ErrorKind::Config, error.to_string(), "use the prefix of the broadcaster's configuration")
    })?;
    let store = EtcdStore::new(options)?;
    Ok(Arc::new(crate::source::StoreSource::new(SecretTree::new(Arc::new(store), prefix))))
}
