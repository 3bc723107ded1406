//! From addresses to transports and value sources.

#[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
mod unencrypted;
mod values;

use std::sync::Arc;

use rotacast_bus::InstanceBus;

#[cfg(feature = "consul")]
pub(crate) use self::values::ConsulAccess;
#[cfg(feature = "etcd")]
pub(crate) use self::values::EtcdAccess;
pub(crate) use self::values::Values;
use crate::builder::Plan;
use crate::error::{Error, ErrorKind};
use crate::source::ValueSource;

/// What a transport's address says.
enum Transport<'u> {
    #[cfg(feature = "nats")]
    Nats(&'u str),
    #[cfg(feature = "kafka")]
    Kafka { brokers: Vec<String>, tls: bool },
    #[cfg(feature = "grpc")]
    Grpc(Vec<String>),
    /// Keeps the lifetime in use without any of the features.
    #[allow(dead_code)]
    Unknown(&'u str),
}

fn transport(url: &str) -> Transport<'_> {
    match url.split_once("://") {
        #[cfg(feature = "nats")]
        Some(("nats" | "tls", _)) => Transport::Nats(url),
        #[cfg(feature = "kafka")]
        Some((scheme @ ("kafka" | "kafkas"), brokers)) => {
            let brokers = brokers.split(',').map(|broker| broker.trim().trim_end_matches('/').to_owned());
            Transport::Kafka { brokers: brokers.collect(), tls: scheme == "kafkas" }
        }
        #[cfg(feature = "grpc")]
        Some((scheme @ ("grpc" | "grpcs"), hosts)) => {
            let scheme = if scheme == "grpc" { "http" } else { "https" };
            Transport::Grpc(hosts.split(',').map(|host| format!("{scheme}://{}", host.trim())).collect())
        }
        _ => Transport::Unknown(url),
    }
}

type Both = (Arc<dyn InstanceBus>, Arc<dyn ValueSource>);

// A build without a transport knows no address, and everything after that is never reached.
#[cfg_attr(not(any(feature = "nats", feature = "grpc")), allow(unreachable_code, unused_variables))]
pub(crate) async fn connect(url: &str, plan: &Plan, values: Option<&Values>) -> Result<Both, Error> {
    let transport = transport(url);
    // The source first: it is checked without a connection.
    let source = source(url, &transport, plan, values)?;
    let bus: Arc<dyn InstanceBus> = match transport {
        #[cfg(feature = "nats")]
        Transport::Nats(url) => {
            let party = rotacast_bus::NatsParty::Service(plan.incarnations.service().clone());
            let mut options = rotacast_bus::NatsOptions::new(url, plan.cluster.clone(), party);
            options.urls = url.split(',').map(|url| url.trim().to_owned()).collect();
            unencrypted::check_nats(&options.urls, plan)?;
            let in_url = || options.urls.iter().find_map(|url| rotacast_bus::NatsCredentials::of_url(url));
            if let Some(credentials) = plan.nats_credentials.clone().or_else(in_url) {
                options.credentials = credentials;
            }
            // A given authority makes NATS insist on TLS; it may have been named for the broadcasters alone.
            if url.contains("tls://") {
                options.ca.clone_from(&plan.ca_file);
            }
            Arc::new(patiently(plan, || rotacast_bus::NatsBus::connect(options.clone())).await?)
        }
        #[cfg(feature = "kafka")]
        Transport::Kafka { brokers, tls } => {
            let options = kafka(brokers, tls, plan)?;
            Arc::new(patiently(plan, || rotacast_bus::KafkaBus::connect(options.clone())).await?)
        }
        #[cfg(feature = "grpc")]
        Transport::Grpc(urls) => {
            let broadcaster = |url| rotacast_bus::GrpcOptions { url, ca: plan.ca(), ..Default::default() };
            let options: Vec<_> = all_broadcasters(&urls, plan).into_iter().map(broadcaster).collect();
            Arc::new(patiently(plan, || rotacast_bus::GrpcBus::connect_any(options.clone())).await?)
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

/// What was asked for; otherwise the transport itself, if it is a broadcaster; otherwise the broadcasters that are known.
fn source(
    url: &str,
    transport: &Transport<'_>,
    plan: &Plan,
    values: Option<&Values>,
) -> Result<Arc<dyn ValueSource>, Error> {
    if let Some(values) = values {
        return values::open(values, plan);
    }
    match transport {
        #[cfg(feature = "grpc")]
        Transport::Grpc(urls) => values::from_broadcasters(&all_broadcasters(urls, plan), plan),
        #[cfg(feature = "grpc")]
        _ if !plan.broadcasters.is_empty() => values::from_broadcasters(&plan.broadcasters, plan),
        // Without a transport there is nothing to bring values beside.
        Transport::Unknown(_) => Err(Error::new(
            ErrorKind::Config,
            format!("transport {url:?} is not known to this build"),
            format!("expected one of {}", EXPECTED.join(", ")),
        )),
        #[cfg(any(feature = "nats", feature = "kafka"))]
        _ => Err(Error::new(
            ErrorKind::Config,
            format!("transport {} carries no values, and no other source of values is set", without_login(url)),
            "call .values_from_etcd(…), .values_from_consul(…) or .broadcasters(…) on the builder",
        )),
    }
}

/// The address without a user and password.
#[cfg(any(feature = "nats", feature = "kafka"))]
fn without_login(url: &str) -> String {
    let server = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    };
    url.split(',').map(server).collect::<Vec<_>>().join(",")
}

/// Those of the transport's address and those set beside it, each once.
#[cfg(feature = "grpc")]
fn all_broadcasters(urls: &[String], plan: &Plan) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for url in urls.iter().chain(&plan.broadcasters) {
        if !all.contains(url) {
            all.push(url.clone());
        }
    }
    all
}

#[cfg(feature = "kafka")]
fn kafka(brokers: Vec<String>, tls: bool, plan: &Plan) -> Result<rotacast_bus::KafkaOptions, Error> {
    use rotacast_bus::{GrpcOptions, KafkaOptions, KafkaSync, KafkaTls, KafkaTopics};
    if plan.broadcasters.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "Kafka carries no Syncs, and no broadcaster's address is set",
            "call .broadcasters([\"https://host:7400\"]) on the builder, or set ROTACAST_BROADCASTERS",
        ));
    }
    let broadcaster = |url: &String| GrpcOptions { url: url.clone(), ca: plan.ca(), ..Default::default() };
    if !tls {
        unencrypted::check_kafka(&brokers, plan)?;
    }
    let mut options = KafkaOptions::new(brokers, plan.cluster.clone());
    options.sync = KafkaSync::Grpc(plan.broadcasters.iter().map(broadcaster).collect());
    // The broadcaster makes the topics.
    options.topics = KafkaTopics::Use;
    options.login.clone_from(&plan.kafka_login);
    options.tls = tls.then(|| KafkaTls { ca: plan.ca_file.clone(), identity: None });
    options.properties.clone_from(&plan.kafka_properties);
    Ok(options)
}

/// What this build can connect to.
const EXPECTED: &[&str] = &[
    #[cfg(feature = "nats")]
    "nats://host:port",
    #[cfg(feature = "kafka")]
    "kafka://host:port",
    #[cfg(feature = "grpc")]
    "grpc://127.0.0.1:port",
    #[cfg(feature = "grpc")]
    "grpcs://host:port",
    #[cfg(not(feature = "kafka"))]
    "kafka://host:port with this crate's feature `kafka`",
    #[cfg(not(any(feature = "nats", feature = "grpc")))]
    "others with this crate's features `nats` and `grpc`",
];

/// Services and the bus often start together: a bus that is not there yet is tried again until the start's time is over.
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
