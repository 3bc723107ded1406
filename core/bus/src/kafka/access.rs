//! How clients get in: the login and the certificates, as their files hold them now.

use std::sync::Arc;

use rotacast_proto::{CERTIFICATE, LoginSecret, PRIVATE_KEY, Renewed};
use zeroize::Zeroizing;

use super::options::KafkaOptions;
use crate::BusError;

/// The bus's options with what their files hold. Clients are made of it, and made anew when it is renewed: librdkafka
/// reads certificates and takes the password only when a client is made.
pub(super) struct Access {
    pub(super) options: KafkaOptions,
    held: Renewed<Held, Arc<Held>>,
}

/// What the files hold at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) password: Option<Zeroizing<String>>,
    /// Authorities, certificate chain and key: to know whether they are others.
    certificates: Vec<Zeroizing<String>>,
}

impl Held {
    pub(super) fn read(options: &KafkaOptions) -> Result<Self, String> {
        let password = options.login.as_ref().map(|login| login.password.read()).transpose()?;
        let tls = options.tls.clone().unwrap_or_default();
        let (chain, key) = tls.identity.unzip();
        let files = [(tls.ca, CERTIFICATE), (chain, CERTIFICATE), (key, PRIVATE_KEY)];
        let files = files.into_iter().filter_map(|(file, label)| Some((file?, label)));
        let certificates =
            files.map(|(file, label)| LoginSecret::File(file).read_pem(label)).collect::<Result<_, _>>()?;
        Ok(Self { password, certificates })
    }
}

impl Access {
    pub(super) fn new(options: KafkaOptions) -> Result<Arc<Self>, BusError> {
        let reads = options.clone();
        let held = Renewed::new(
            "Kafka's login and certificates",
            move || Held::read(&reads),
            |held| Ok(Arc::new(held.clone())),
        );
        let held = held.map_err(|problem| BusError::Misconfigured { endpoint: options.endpoint(), problem })?;
        Ok(Arc::new(Self { options, held }))
    }

    /// As the files have it.
    pub(super) fn held(&self) -> Arc<Held> {
        self.held.current()
    }

    /// Whether the files hold something else than a client was made of.
    pub(super) fn is_renewed(&self, made_of: &Arc<Held>) -> bool {
        !Arc::ptr_eq(&self.held.current(), made_of)
    }
}
