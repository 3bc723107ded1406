//! Addresses beyond this machine that are not encrypted: refused unless allowed by name.

use rotacast_proto::Unencrypted;

use crate::builder::Plan;
use crate::error::{Error, ErrorKind};

const ALLOW: &str = "call .in_the_clear(true) on the builder or set ROTACAST_IN_THE_CLEAR=true";

#[cfg(feature = "nats")]
pub(super) fn check_nats(urls: &[String], plan: &Plan) -> Result<(), Error> {
    let plain = urls.iter().filter(|url| url.starts_with("nats://"));
    check(plan, "NATS", plain, "this instance's login, states and reports", "use tls://")
}

/// Passwords by challenge and response do not travel.
#[cfg(feature = "kafka")]
pub(super) fn check_kafka(brokers: &[String], plan: &Plan) -> Result<(), Error> {
    use rotacast_bus::SaslMechanism;
    if !plan.kafka_login.as_ref().is_some_and(|login| login.mechanism == SaslMechanism::Plain) {
        return Ok(());
    }
    check(plan, "Kafka", brokers, "the password, which PLAIN sends as it is,", "use kafkas:// or SCRAM")
}

#[cfg(feature = "etcd")]
pub(super) fn check_etcd(endpoints: &[String], plan: &Plan) -> Result<(), Error> {
    let plain = endpoints.iter().filter(|endpoint| endpoint.starts_with("http://"));
    check(plan, "etcd", plain, "the values of secrets and the login", "use https:// with .ca_file(…) or ROTACAST_CA")
}

#[cfg(feature = "consul")]
pub(super) fn check_consul(address: &String, plan: &Plan) -> Result<(), Error> {
    let plain = address.starts_with("http://").then_some(address);
    check(plan, "Consul", plain, "the values of secrets and the token", "use https:// with .ca_file(…) or ROTACAST_CA")
}

fn check<'a>(
    plan: &Plan,
    system: &str,
    addresses: impl IntoIterator<Item = &'a String>,
    carries: &str,
    encrypt: &str,
) -> Result<(), Error> {
    if plan.in_the_clear {
        return Ok(());
    }
    let unencrypted = Unencrypted { carries, encrypt, allow: ALLOW };
    addresses.into_iter().try_for_each(|address| {
        let checked = unencrypted.to(address);
        checked.map_err(|refusal| Error::new(ErrorKind::Config, format!("{system}: {}", refusal.problem), refusal.fix))
    })
}
