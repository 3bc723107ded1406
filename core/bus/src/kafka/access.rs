//! How clients get in: the login and the certificates, as their files hold them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rotacast_proto::{CERTIFICATE, FILE_DEADLINE, LOOK_PATIENCE, LoginSecret, PRIVATE_KEY, RENEWED_WITHIN};
use zeroize::Zeroizing;

use super::options::KafkaOptions;
use super::topic::ask_for_topics;
use crate::{BusError, Finding, Level};

/// The bus's options with what their files hold. Clients are made of it, and made anew when it is renewed: librdkafka
/// takes certificates and the password only when a client is made.
///
/// What the files hold anew is tried on the brokers first: a password that is half written looks like any other. Until
/// they let it in, the earlier one stays in use.
pub(super) struct Access {
    pub(super) options: KafkaOptions,
    state: Arc<Mutex<State>>,
}

struct State {
    in_use: Arc<Held>,
    looked: Instant,
    /// What the files hold is being tried.
    on_trial: bool,
    /// Why what they hold is not in use.
    refused: Option<String>,
}

impl State {
    fn refuse(&mut self, problem: String) {
        if self.refused.as_ref() != Some(&problem) {
            tracing::warn!(
                problem,
                "Kafka's renewed login and certificates cannot be used: the earlier ones stay in use"
            );
        }
        self.refused = Some(problem);
    }

    fn tried(&mut self, tried: Held, outcome: Result<(), BusError>) {
        self.on_trial = false;
        // From now: a trial may have taken as long as brokers that are silent make it.
        self.looked = Instant::now();
        match outcome {
            Ok(()) => {
                tracing::info!("Kafka's login and certificates are renewed");
                (self.in_use, self.refused) = (Arc::new(tried), None);
            }
            Err(problem) => self.refuse(problem.to_string()),
        }
    }
}

/// What the files hold at one moment.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) password: Option<Zeroizing<String>>,
    /// The authorities to trust, in PEM.
    pub(super) authorities: Option<Zeroizing<String>>,
    /// Our certificate chain and its private key, in PEM.
    pub(super) identity: Option<(Zeroizing<String>, Zeroizing<String>)>,
}

impl Held {
    pub(super) fn read(options: &KafkaOptions, patience: Duration) -> Result<Self, String> {
        let password = options.login.as_ref().map(|login| login.password.read(patience)).transpose();
        let password = password.map_err(|problem| problem.to_string())?;
        let Some(tls) = &options.tls else { return Ok(Self { password, ..Self::default() }) };
        let read = |file: &std::path::PathBuf, label| LoginSecret::File(file.clone()).read_pem(label, patience);
        let authorities = tls.ca.as_ref().map(|file| read(file, CERTIFICATE)).transpose()?;
        let identity = match &tls.identity {
            Some((chain, key)) => Some((read(chain, CERTIFICATE)?, read(key, PRIVATE_KEY)?)),
            None => None,
        };
        Ok(Self { password, authorities, identity })
    }
}

impl Access {
    pub(super) fn new(options: KafkaOptions) -> Result<Arc<Self>, BusError> {
        let held = Held::read(&options, FILE_DEADLINE)
            .map_err(|problem| BusError::Misconfigured { endpoint: options.endpoint(), problem })?;
        let state = State { in_use: Arc::new(held), looked: Instant::now(), on_trial: false, refused: None };
        Ok(Arc::new(Self { options, state: Arc::new(Mutex::new(state)) }))
    }

    /// What clients are made of. What the files hold takes its place some seconds later, once the brokers let it in. Blocks
    /// for up to [`LOOK_PATIENCE`] for each file whose file system stops answering.
    pub(super) fn held(&self) -> Arc<Held> {
        let mut state = self.state();
        if state.on_trial || state.looked.elapsed() < RENEWED_WITHIN {
            return Arc::clone(&state.in_use);
        }
        state.looked = Instant::now();
        match Held::read(&self.options, LOOK_PATIENCE) {
            Ok(found) if found == *state.in_use => state.refused = None,
            Ok(found) => {
                state.on_trial = true;
                let (options, shared) = (self.options.clone(), Arc::clone(&self.state));
                std::thread::spawn(move || {
                    let outcome = ask_for_topics(&options.client(&found), &options.endpoint()).map(drop);
                    shared.lock().unwrap_or_else(PoisonError::into_inner).tried(found, outcome);
                });
            }
            Err(problem) => state.refuse(problem),
        }
        Arc::clone(&state.in_use)
    }

    /// Whether a client was made of something else than what is in use.
    pub(super) fn is_renewed(&self, made_of: &Arc<Held>) -> bool {
        !Arc::ptr_eq(&self.held(), made_of)
    }

    /// That what the files hold is not in use, and why.
    pub(super) fn finding(&self) -> Option<Finding> {
        let problem = self.state().refused.clone()?;
        Some(Finding {
            level: Level::Warning,
            subject: format!("Kafka {}", self.options.endpoint()),
            text: format!("the renewed login or certificates cannot be used: {problem}; the earlier ones stay in use"),
            fix: "write the files whole; they are tried again within seconds".into(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every call on it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
