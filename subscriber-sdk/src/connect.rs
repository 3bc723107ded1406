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
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
    },
    #[cfg(feature = "grpc")]
    Broadcaster(String),
    Source(Arc<dyn ValueSource>),
}

type Both = (Arc<dyn InstanceBus>, Arc<dyn ValueSource>);

pub(crate) async fn connect(url: &str, plan: &Plan, values: Option<&Values>) -> Result<Both, Error> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let _ = (plan, values, scheme);
    Err(Error::new(
        ErrorKind::Config,
        format!("transport {url:?} is not known to this build"),
        "expected nats://host:port, grpc://host:port or grpcs://host:port, with the crate's feature of that name",
    ))
}
