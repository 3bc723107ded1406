//! How to reach an etcd cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rotacast_proto::{ClientPem, ClientTls, Renewed, leaves_this_machine};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{LoginSecret, StoreError};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often, and given up after this long without one: a
/// half-open connection ends a watch within 8 seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where an etcd cluster is and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// `http://host:port` or `https://host:port` of every member.
    pub endpoints: Vec<String>,
    /// The user, where authentication is on and not by certificate.
    pub user: Option<EtcdUser>,
    /// For `https` endpoints, and only for them.
    pub tls: Option<ClientTls>,
}

/// An etcd user.
#[derive(Clone)]
pub struct EtcdUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: LoginSecret,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdUser({})", self.name)
    }
}

/// All members, as the certificates are now.
pub(super) type Endpoints = Renewed<Option<ClientPem>, Arc<[Endpoint]>>;

impl EtcdOptions {
    /// Checks them.
    pub(super) fn endpoints(&self) -> Result<Endpoints, StoreError> {
        self.validate()?;
        let (tls, options) = (self.tls.clone(), self.clone());
        let read = move |patience| tls.as_ref().map(|tls: &ClientTls| tls.read(patience)).transpose();
        let make = move |pem: &Option<ClientPem>| {
            let endpoints = options.endpoints.iter().map(|url| options.endpoint(url, pem.as_ref()));
            endpoints.collect()
        };
        let made = Renewed::new("store.tls", read, make);
        made.map_err(|problem| StoreError::Invalid { what: "etcd options".into(), problem })
    }

    fn validate(&self) -> Result<(), StoreError> {
        let invalid = |problem: String| Err(StoreError::Invalid { what: "etcd options".into(), problem });
        if self.endpoints.is_empty() {
            return invalid("no endpoints; expected at least one such as http://127.0.0.1:2379".into());
        }
        let scheme = if self.tls.is_some() { "https://" } else { "http://" };
        for endpoint in &self.endpoints {
            if !endpoint.starts_with(scheme) {
                let tls = if self.tls.is_some() { "with" } else { "without" };
                return invalid(format!("endpoint {endpoint:?}: expected it to begin with {scheme} {tls} TLS options"));
            }
            if endpoint.contains('@') {
                return invalid("an endpoint holds a user name; expected it in the option for the user".into());
            }
        }
        let clear = |endpoint: &&String| self.tls.is_none() && leaves_this_machine(endpoint);
        if let Some(endpoint) = self.endpoints.iter().find(clear) {
            tracing::warn!("values and the etcd password go to {endpoint} without TLS; set store.tls");
        }
        Ok(())
    }

    /// One member.
    fn endpoint(&self, url: &str, pem: Option<&ClientPem>) -> Result<Endpoint, String> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| format!("endpoint {url:?}: {error}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let (Some(tls), Some(pem)) = (&self.tls, pem) else { return Ok(endpoint) };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem.authority.as_str()));
        if let Some((certificate, key)) = &pem.identity {
            config = config.identity(Identity::from_pem(certificate.as_str(), key.as_str()));
        }
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name.clone());
        }
        endpoint.tls_config(config).map_err(|error| format!("the certificates for {url}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        let of = |endpoints: &[&str], tls: bool| EtcdOptions {
            endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
            user: None,
            tls: tls.then(|| ClientTls::trusting("".into())),
        };
        assert!(of(&["http://127.0.0.1:2379"], false).validate().is_ok());
        assert!(of(&["https://a:2379"], true).validate().is_ok());
        for bad in [of(&[], false), of(&["a:2379"], false), of(&["http://a:1"], true), of(&["https://a:1"], false)] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let user = EtcdUser { name: "rotacast".into(), password: "canary".to_owned().into() };
        assert!(!format!("{user:?}").contains("canary"));
    }
}
