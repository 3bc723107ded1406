//! Values from a broadcaster, over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rotacast_proto::v1::instances_client::InstancesClient;
use rotacast_proto::{CERTIFICATE, Envelope, LoginSecret, Renewed, SecretValue, is_loopback, v1};
use rotacast_protocol::message::{FetchRequest, SecretState};
use rotacast_protocol::{ClusterName, Nonce, SecretName, Version};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::incarnations::Incarnations;
use crate::source::ValueSource;
use crate::trust::Trust;

/// How long one broadcaster may take to answer a Fetch: far above a healthy one's milliseconds.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// When the next broadcaster is asked as well: long for a healthy one, and short against any lease.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(300);

/// Where a broadcaster serves Fetch. It connects with the first Fetch, and again with a renewed authority.
#[derive(Debug)]
pub(crate) struct FetchTarget {
    url: String,
    client: Renewed<Option<Zeroizing<String>>, InstancesClient<Channel>>,
}

impl FetchTarget {
    /// `https://host:port`, or `http://` on the loopback. Values never travel in the clear.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for other addresses and for certificates that do not parse.
    pub(crate) fn new(url: &str, ca: Option<LoginSecret>) -> Result<Self, Error> {
        let config = |problem: String| {
            Error::new(
                ErrorKind::Config,
                format!("values from broadcaster {url:?}: {problem}"),
                "expected https://host:port, or http://127.0.0.1:port on the same machine",
            )
        };
        let uri: Uri = url.parse().map_err(|error| config(format!("not an address: {error}")))?;
        let loopback = is_loopback(uri.host().unwrap_or_default());
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| config(error.to_string()))?;
        let endpoint = endpoint.connect_timeout(FETCH_TIMEOUT).timeout(FETCH_TIMEOUT);
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if loopback => false,
            Some("http") => return Err(config("a value would travel over the network in the clear".into())),
            _ => return Err(config("the scheme is neither https nor http".into())),
        };
        let ca = ca.filter(|_| encrypted);
        let read = move |patience| ca.as_ref().map(|ca: &LoginSecret| ca.read_pem(CERTIFICATE, patience)).transpose();
        let make = move |ca: &Option<Zeroizing<String>>| {
            let mut endpoint = endpoint.clone();
            if encrypted {
                let tls = match ca {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem.as_str())),
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                endpoint = endpoint.tls_config(tls).map_err(|error| format!("TLS: {error}"))?;
            }
            Ok(InstancesClient::new(endpoint.connect_lazy())
                .max_decoding_message_size(SecretValue::MAX_BYTES + rotacast_proto::MAX_PAYLOAD_BYTES))
        };
        let client = Renewed::new(format!("TLS to {url}"), read, make).map_err(config)?;
        Ok(Self { url: url.into(), client })
    }
}

/// Asks broadcasters, which read the store on this instance's behalf: authenticated by the instance's signature,
/// authorised per secret, logged. Any of them can answer, so they are asked in turn, and the next one before the last has been given
/// up, until one does.
pub struct FetchSource {
    /// At least one.
    targets: Vec<FetchTarget>,
    /// The one that answered last.
    first: AtomicUsize,
    cluster: ClusterName,
    incarnations: Arc<Incarnations>,
    trust: Arc<Trust>,
}

impl FetchSource {
    /// `targets` has at least one.
    pub(crate) fn new(
        targets: Vec<FetchTarget>,
        cluster: ClusterName,
        incarnations: Arc<Incarnations>,
        trust: Arc<Trust>,
    ) -> Self {
        Self { targets, first: AtomicUsize::new(0), cluster, incarnations, trust }
    }

    /// The reply, and who gave it. A Fetch may be doubled, so the next broadcaster is asked too when one takes long: an
    /// instance may have less time left than a broadcaster that hangs would take.
    async fn fetch(
        &self,
        secret: &SecretName,
        version: Option<Version>,
    ) -> Result<(v1::FetchReply, &FetchTarget), Error> {
        let count = self.targets.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut waiting = (0..count).map(|turn| (first + turn) % count);
        let mut asked = FuturesUnordered::new();
        let mut last = None;
        let mut pause = ASK_NEXT_AFTER / 2;
        loop {
            // Longer each time: a store that is slow must not be asked by all instances several times over.
            pause *= 2;
            if let Some(which) = waiting.next() {
                asked.push(async move { (which, self.fetch_from(&self.targets[which], secret, version).await) });
            }
            // Until another one is to be asked, or none is left to answer.
            let ended = tokio::select! {
                ended = asked.next() => ended,
                () = tokio::time::sleep(pause), if waiting.len() > 0 => None,
            };
            match ended {
                Some((which, Ok(reply))) => {
                    self.first.store(which, Ordering::Relaxed);
                    return Ok((reply, &self.targets[which]));
                }
                // Another one may be reachable, or know already what this one does not yet. A refusal says more than silence.
                Some((_, Err(error))) => {
                    let silent = |error: &Error| error.kind() == ErrorKind::Unreachable;
                    if last.as_ref().is_none_or(silent) {
                        last = Some(error);
                    }
                }
                None => {}
            }
            if asked.is_empty() && waiting.len() == 0 {
                return Err(last.unwrap_or_else(|| {
                    Error::new(
                        ErrorKind::Config,
                        "no broadcaster's address is set",
                        "call .broadcasters(…) on the builder",
                    )
                }));
            }
        }
    }

    async fn fetch_from(
        &self,
        target: &FetchTarget,
        secret: &SecretName,
        version: Option<Version>,
    ) -> Result<v1::FetchReply, Error> {
        let nonce = Nonce(rand::random());
        let identity = self.incarnations.current();
        self.incarnations.attest(&identity);
        let key = identity.key().clone();
        let id = format!("{}-{:x}", key.incarnation, nonce.0);
        let issued = rotacast_clock::wall();
        let request = FetchRequest { key, nonce, issued, secret: secret.clone(), version };
        let envelope = identity.seal(&request, id, issued);
        let mut client = target.client.current();
        let reply = tokio::time::timeout(FETCH_TIMEOUT, client.fetch(v1::Envelope::from(envelope))).await;
        let reply = reply.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")));
        let reply = reply.map_err(|status| target.refused(secret, version, &status))?.into_inner();
        if reply.nonce != nonce.0 {
            return Err(target.wrong("the reply answers another request"));
        }
        Ok(reply)
    }
}

impl FetchTarget {
    fn wrong(&self, problem: &str) -> Error {
        let fix = "check that the trusted keys are this broadcaster's, and that no other machine answers in its place";
        Error::new(ErrorKind::Denied, format!("broadcaster {}: {problem}", self.url), fix)
    }

    fn refused(&self, secret: &SecretName, version: Option<Version>, status: &tonic::Status) -> Error {
        let what = version.map_or_else(|| "the state".to_owned(), |version| format!("version {version}"));
        let (kind, fix) = match status.code() {
            tonic::Code::NotFound => (ErrorKind::NoSuchSecret, "put its first version with `rotacast put`"),
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                (ErrorKind::Denied, "add this service's public key, and the secret, to the broadcaster's configuration")
            }
            tonic::Code::DataLoss => {
                (ErrorKind::Malformed, "run `rotacast doctor`: it names the secret and the way out")
            }
            tonic::Code::InvalidArgument => (ErrorKind::Config, "use matching releases of SDK and broadcaster"),
            _ => (ErrorKind::Unreachable, "check the address and that the broadcaster is up"),
        };
        let message = status.message();
        Error::new(
            kind,
            format!("broadcaster {} did not give {what} of secret {secret}: {:?}: {message}", self.url, status.code()),
            fix,
        )
    }
}

#[async_trait]
impl ValueSource for FetchSource {
    fn describe(&self) -> String {
        let urls: Vec<&str> = self.targets.iter().map(|target| target.url.as_str()).collect();
        format!("broadcaster {}", urls.join(", "))
    }

    async fn read_state(&self, secret: &SecretName) -> Result<SecretState, Error> {
        let (reply, target) = self.fetch(secret, None).await?;
        let envelope: Envelope = reply.state.ok_or_else(|| target.wrong("the reply carries no state"))?.into();
        let state: SecretState =
            self.trust.open(&self.cluster, &envelope).map_err(|error| target.wrong(&error.to_string()))?;
        if state.secret != *secret {
            return Err(target.wrong(&format!("the state is about {}, expected {secret}", state.secret)));
        }
        Ok(state)
    }

    async fn read_value(&self, secret: &SecretName, version: Version) -> Result<SecretValue, Error> {
        let (reply, target) = self.fetch(secret, Some(version)).await?;
        if reply.value.is_empty() {
            return Err(target.wrong(&format!("the reply carries no value of version {version}")));
        }
        // The wire buffer is wiped when nothing else shares it.
        Ok(match reply.value.try_into_mut() {
            Ok(mut bytes) => SecretValue::take(&mut bytes),
            Err(shared) => SecretValue::new(shared.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incarnations::ServiceKey;

    /// A broadcaster that takes connections and says nothing, and one that is not there: the time is bounded by the one
    /// that hangs, not by the sum, and the refusal names what happened.
    #[tokio::test]
    async fn one_that_hangs_does_not_keep_the_next_from_being_asked() {
        let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let targets = [url(&hangs), url(&other)].map(|url| FetchTarget::new(&url, None).unwrap());
        let service_key = rotacast_proto::SigningKey::generate();
        let trust = Arc::new(Trust::new(vec![service_key.public().clone()]));
        let cluster = ClusterName::new("test").unwrap();
        let (service, instance) = ("payments".parse().unwrap(), "one".parse().unwrap());
        let incarnations = Incarnations::new(ServiceKey::Given(service_key), cluster.clone(), service, instance);
        let source = Arc::new(FetchSource::new(targets.into(), cluster, Arc::new(incarnations), trust));
        let asking = tokio::spawn(async move { source.read_state(&"payments/db".parse().unwrap()).await.is_err() });
        // Both are connected to, although the first has neither answered nor been given up.
        let (_first, _) = hangs.accept().await.unwrap();
        let (_second, _) = other.accept().await.unwrap();
        assert!(!asking.is_finished(), "the first one was given up before the second was asked");
        asking.abort();
    }

    #[tokio::test]
    async fn a_damaged_value_is_not_told_as_a_broadcaster_that_is_down() {
        let target = FetchTarget::new("http://127.0.0.1:7420", None).unwrap();
        let secret = "payments/db".parse().unwrap();
        for (status, kind) in [
            (tonic::Status::data_loss("it does not open"), ErrorKind::Malformed),
            (tonic::Status::unavailable("no answer"), ErrorKind::Unreachable),
        ] {
            let error = target.refused(&secret, None, &status);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(status.message()), "{error}");
        }
    }

    #[tokio::test]
    async fn values_never_travel_in_the_clear() {
        for url in
            ["http://127.0.0.1:7420", "http://localhost:7420", "http://[::1]:7420", "https://rotacast.example:7420"]
        {
            FetchTarget::new(url, None).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
        for (url, problem) in [
            ("http://10.0.0.1:7420", "in the clear"),
            ("http://rotacast.example:7420", "in the clear"),
            ("http://localhost.example:7420", "in the clear"),
            ("127.0.0.1:7420", "neither https nor http"),
            ("ftp://127.0.0.1", "neither https nor http"),
            ("not an address", "not an address"),
        ] {
            let error = FetchTarget::new(url, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(problem), "{url}: {error}");
        }
    }
}
