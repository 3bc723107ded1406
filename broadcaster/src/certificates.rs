//! Our own certificates: until when each is valid, and whether its files can be used. Renewed files are taken over while
//! the broadcaster runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use rotacast_clock as clock;
use rotacast_proto::{CERTIFICATE, Finding, Level, LoginSecret, PRIVATE_KEY, RENEWED_WITHIN, fetch_file};
use rotacast_protocol::WallTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use x509_cert::der::Decode as _;

use crate::findings::{Findings, Topic};

/// How long before its end a certificate is a finding, first as a warning and then as an error: a month is enough to order
/// one by hand, a week to notice that what renews it does not run.
pub(crate) const WARNS_BEFORE: Duration = Duration::from_secs(30 * 86_400);
const URGENT_BEFORE: Duration = Duration::from_secs(7 * 86_400);

/// A credential of ours that ends by itself. The label of the gauge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expiring {
    /// The listener's certificate.
    Listen,
    /// The authority whose clients the listener lets in.
    ListenClients,
    /// Ours towards the store.
    Store,
    /// The authority of the store's servers.
    StoreAuthority,
    /// Ours towards the bus.
    Bus,
    /// The authority of the bus's servers.
    BusAuthority,
    /// The `.creds` file for NATS.
    BusCredentials,
}

impl Expiring {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Listen,
        Self::ListenClients,
        Self::Store,
        Self::StoreAuthority,
        Self::Bus,
        Self::BusAuthority,
        Self::BusCredentials,
    ];

    /// The setting that names its file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listen => "listen.tls.cert",
            Self::ListenClients => "listen.tls.client_ca",
            Self::Store => "store.tls.cert",
            Self::StoreAuthority => "store.tls.ca",
            Self::Bus => "bus.tls.cert",
            Self::BusAuthority => "bus.tls.ca",
            Self::BusCredentials => "bus.credentials",
        }
    }
}

/// One of them, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnFile {
    pub what: Expiring,
    pub file: PathBuf,
    pub kind: OwnKind,
}

/// What is in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OwnKind {
    /// A certificate chain, whose private key is in this file.
    Chain(PathBuf),
    /// Certificates of authorities. An old and a new one may stand side by side.
    Authorities,
    /// A JWT and its seed.
    NatsCredentials,
}

impl OwnFile {
    /// Until when it is valid; `None`: for ever.
    ///
    /// # Errors
    /// Why it cannot be used.
    async fn read(&self) -> Result<Option<WallTime>, String> {
        match &self.kind {
            OwnKind::Chain(key) => {
                let chain = certificates(&self.file).await?;
                let ends = chain.iter().map(|certificate| self.end_of(certificate)).collect::<Result<Vec<_>, _>>()?;
                self.belongs(chain, key).await?;
                Ok(ends.into_iter().min())
            }
            OwnKind::Authorities => {
                let authorities = certificates(&self.file).await?;
                let ends = authorities.iter().map(|authority| self.end_of(authority)).collect::<Result<Vec<_>, _>>()?;
                Ok(ends.into_iter().max())
            }
            OwnKind::NatsCredentials => {
                let text = fetch_file(&self.file).await.map_err(|problem| problem.to_string())?;
                let wrong = |problem: &str| format!("{}: {problem}", self.file.display());
                let jwt =
                    text.split_once("-----BEGIN NATS USER JWT-----").and_then(|(_, rest)| rest.split_once("-----"));
                let (jwt, _) = jwt.ok_or_else(|| wrong("it has no NATS USER JWT"))?;
                let claims = jwt.trim().split('.').nth(1).ok_or_else(|| wrong("its JWT has no claims"))?;
                let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| wrong("its JWT is not base64"))?;
                let claims: Claims =
                    serde_json::from_slice(&claims).map_err(|_| wrong("its JWT's claims are no JSON"))?;
                Ok(claims.exp.filter(|exp| *exp > 0).map(|seconds| WallTime(seconds.saturating_mul(1000))))
            }
        }
    }

    fn end_of(&self, certificate: &CertificateDer<'_>) -> Result<WallTime, String> {
        let parsed = x509_cert::Certificate::from_der(certificate)
            .map_err(|problem| format!("{}: no X.509 certificate: {problem}", self.file.display()))?;
        let end = parsed.tbs_certificate.validity.not_after.to_unix_duration();
        Ok(WallTime(u64::try_from(end.as_millis()).unwrap_or(u64::MAX)))
    }

    async fn belongs(&self, chain: Vec<CertificateDer<'static>>, key: &Path) -> Result<(), String> {
        let pem = LoginSecret::File(key.to_owned()).fetch_pem(PRIVATE_KEY).await?;
        let wrong = |problem: String| format!("{}: {problem}", key.display());
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|problem| wrong(problem.to_string()))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|problem| wrong(problem.to_string()))?;
        match CertifiedKey::new(chain, key).keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(wrong(format!("it is not the key of the certificate in {}", self.file.display())))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What of a JWT matters here.
#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
}

async fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = LoginSecret::File(file.to_owned()).fetch_pem(CERTIFICATE).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.map_err(|problem| format!("{}: {problem}", file.display()))
}

/// Until when each is valid. Clones are of the same list.
#[derive(Clone, Default, Debug)]
pub struct Expiries(Arc<Mutex<BTreeMap<Expiring, WallTime>>>);

impl Expiries {
    fn list(&self) -> MutexGuard<'_, BTreeMap<Expiring, WallTime>> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when one is valid; `None`: for ever.
    pub(crate) fn set(&self, what: Expiring, until: Option<WallTime>) {
        match until {
            Some(until) => self.list().insert(what, until),
            None => self.list().remove(&what),
        };
    }

    /// As of the last look.
    #[must_use]
    pub fn known(&self) -> Vec<(Expiring, WallTime)> {
        self.list().iter().map(|(what, until)| (*what, *until)).collect()
    }

    /// A line of `doctor` for each that has long to go; the others are findings.
    #[must_use]
    pub fn told(&self, now: WallTime) -> Vec<Finding> {
        let long = |(_, until): &(Expiring, WallTime)| left(*until, now) > WARNS_BEFORE;
        let line = |(what, until): (Expiring, WallTime)| Finding {
            level: Level::Ok,
            subject: format!("certificate {}", what.as_str()),
            text: format!("valid until {until}, for {} days", days(left(until, now))),
            fix: String::new(),
        };
        self.known().into_iter().filter(long).map(line).collect()
    }
}

fn left(until: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(until.0.saturating_sub(now.0))
}

fn days(span: Duration) -> u64 {
    span.as_secs() / 86_400
}

/// Looks at the files again and again.
pub struct Watch {
    pub files: Vec<OwnFile>,
    pub expiries: Expiries,
    pub findings: Findings,
    /// Takes over what the listener's files hold, if that is something else than before.
    pub listener: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Watch {
    /// Until `ended`.
    pub async fn run(self, ended: CancellationToken) {
        loop {
            let look = async {
                self.look(clock::wall()).await;
                tokio::time::sleep(RENEWED_WITHIN).await;
            };
            tokio::select! {
                () = look => {}
                () = ended.cancelled() => return,
            }
        }
    }

    async fn look(&self, now: WallTime) {
        (self.listener)().await;
        for own in &self.files {
            let subject = own.what.as_str();
            let Some((level, text, fix)) = self.judge(own, now).await else {
                self.findings.clear(Topic::Certificate, subject);
                continue;
            };
            self.findings.raise(Topic::Certificate, subject, level, text, fix);
        }
    }

    /// What is wrong with it.
    async fn judge(&self, own: &OwnFile, now: WallTime) -> Option<(Level, String, &'static str)> {
        let until = match own.read().await {
            Ok(until) => until,
            Err(problem) => {
                let text = format!("{problem}; what was read before stays in force");
                return Some((Level::Error, text, "write a sound certificate and its key there; no restart is needed"));
            }
        };
        self.expiries.set(own.what, until);
        let until = until?;
        let left = left(until, now);
        if left > WARNS_BEFORE {
            return None;
        }
        let level = if left > URGENT_BEFORE { Level::Warning } else { Level::Error };
        let file = own.file.display();
        let text = match left.is_zero() {
            true => format!("{file} has expired, on {until}"),
            false => format!("{file} expires in {} days, on {until}", days(left)),
        };
        Some((level, text, "renew it, and write it into the same file; no restart is needed"))
    }
}

#[cfg(test)]
mod tests {
    use rotacast_test_servers::make_certificates;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn watch(file: &Path, kind: OwnKind, what: Expiring) -> Watch {
        let files = vec![OwnFile { what, file: file.to_owned(), kind }];
        Watch {
            files,
            expiries: Expiries::default(),
            findings: Findings::default(),
            listener: Box::new(|| Box::pin(async {})),
        }
    }

    async fn levels(watch: &Watch, now: WallTime) -> Vec<(Level, String)> {
        watch.look(now).await;
        watch.findings.standing().into_iter().map(|standing| (standing.level, standing.text)).collect()
    }

    #[tokio::test]
    async fn a_certificate_is_a_finding_a_month_before_it_ends_and_urgent_a_week_before() {
        let folder = tempfile::tempdir().unwrap();
        if !make_certificates(folder.path(), &["own"]).await {
            return;
        }
        let (file, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
        let watch = watch(&file, OwnKind::Chain(key), Expiring::Listen);
        assert_eq!(levels(&watch, WallTime(0)).await, []);
        let [(Expiring::Listen, end)] = watch.expiries.known()[..] else { panic!("{:?}", watch.expiries) };
        assert!(end > clock::wall() && end.0 < clock::wall().0 + 3 * DAY, "made for two days: {end}");
        let before = |days: u64| WallTime(end.0 - days * DAY);
        assert_eq!(levels(&watch, before(31)).await, []);
        let told = watch.expiries.told(before(31));
        assert!(told[0].level == Level::Ok && told[0].text.contains("for 31 days"), "{told:?}");
        for (days, level, says) in [(29, Level::Warning, "in 29 days"), (6, Level::Error, "in 6 days")] {
            let found = levels(&watch, before(days)).await;
            assert!(matches!(&found[..], [(found, text)] if *found == level && text.contains(says)), "{found:?}");
            assert!(watch.expiries.told(before(days)).is_empty());
        }
        let expired = levels(&watch, WallTime(end.0 + DAY)).await;
        assert!(expired[0].1.contains(&format!("has expired, on {end}")), "{expired:?}");
        assert_eq!(levels(&watch, before(31)).await, [], "renewed");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_a_finding_until_it_is_repaired() {
        let made = tempfile::tempdir().unwrap();
        if !make_certificates(made.path(), &["own", "other"]).await {
            return;
        }
        let copy = |name: &str, to: &Path| std::fs::copy(made.path().join(name), to).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
        let watch = watch(&file, OwnKind::Chain(key.clone()), Expiring::Store);
        let now = WallTime(0);
        let says = async |word: &str| {
            let found = levels(&watch, now).await;
            assert!(matches!(&found[..], [(Level::Error, text)] if text.contains(word)), "{word}: {found:?}");
        };
        says("cannot read").await;
        std::fs::write(&file, "half a certifi").unwrap();
        says("holds no certificate").await;
        copy("own.pem", &file);
        std::fs::write(&key, "").unwrap();
        says("holds no private key").await;
        copy("other.key", &key);
        says("is not the key of the certificate").await;
        copy("own.key", &key);
        assert_eq!(levels(&watch, now).await, []);
    }

    /// 2036-01-01.
    const END: WallTime = WallTime(2_082_758_400_000);

    #[tokio::test]
    async fn a_jwt_of_nats_says_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.creds");
        let write = |claims: &str| {
            let jwt = format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims));
            let text = format!("-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n");
            std::fs::write(&file, text).unwrap();
        };
        let watch = watch(&file, OwnKind::NatsCredentials, Expiring::BusCredentials);
        write(r#"{"sub":"U","exp":2082758400}"#);
        assert_eq!(levels(&watch, WallTime(END.0 - 3 * DAY)).await.len(), 1);
        assert_eq!(watch.expiries.known(), [(Expiring::BusCredentials, END)]);
        write(r#"{"sub":"U"}"#);
        assert_eq!((levels(&watch, END).await, watch.expiries.known()), (vec![], vec![]), "without an end");
        std::fs::write(&file, "no credentials").unwrap();
        assert_eq!(levels(&watch, END).await.len(), 1);
    }
}
