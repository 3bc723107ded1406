//! The suite every provider must pass. An implementation joins with one line per set of cases:
//!
//! ```ignore
//! rotacast_provider::conformance_every!(start);  // any provider
//! rotacast_provider::conformance_logins!(start); // one with an outside system to log in to
//! ```
//!
//! `start` is an async function that gives a fresh fixture, or `None` to skip (which it must say loudly).
//! Fixtures of one process run at the same time: each uses names of its own.

mod every;
mod logins;

use std::sync::Arc;

use async_trait::async_trait;
use rotacast_protocol::{SecretName, Version};

use crate::{Credential, Evidence, Provider, ProviderError, Session, Trial, Verdict};

pub use every::*;
pub use logins::*;

/// What the suite needs of any implementation.
pub trait Fixture: Send + Sync {
    /// The provider; where it has a choice, one that waits for live sessions.
    fn provider(&self) -> Arc<dyn Provider>;
    /// A secret that no other fixture uses.
    fn secret(&self) -> SecretName;
}

/// What it needs of one with an outside system.
#[async_trait]
pub trait LoginFixture: Fixture {
    /// Logs in without the provider, as a service would. `None` when the system refuses.
    async fn log_in(&self, credential: &Credential) -> Option<Box<dyn Held>>;
    /// The same provider, but ending live sessions at once.
    fn terminating(&self) -> Arc<dyn Provider>;
    /// The same provider, configured for a server that does not answer.
    fn unreachable(&self) -> Arc<dyn Provider>;
    /// The same provider over a line that is cut at the administrator's nth request, from 0: before or after it arrives.
    async fn cut(&self, request: usize, arrives: bool) -> Cut;
    /// A value that names the same identity as `credential`, for another version.
    fn sharing(&self, credential: &Credential, version: Version) -> Credential;
    /// The credential of an identity with rights over the whole system, made without the provider.
    async fn superuser(&self) -> Credential;
    /// That of an ordinary identity the provider has nothing to do with, made without the provider.
    async fn outsider(&self) -> Credential;
    /// The same provider as another cluster has it.
    fn of_another_cluster(&self) -> Arc<dyn Provider>;
    /// The credential of an ordinary identity that the provider may retire, made without the provider.
    async fn insider(&self) -> Credential;
    /// The same credential with a password that does not work.
    fn mistaken(&self, credential: &Credential) -> Credential;
    /// How many logins with the identity the system has refused so far.
    async fn failed_logins(&self, credential: &Credential) -> usize;
    /// The same credential as a value that names another system.
    fn elsewhere(&self, credential: &Credential) -> Credential;
    /// Renames the identity, without the provider, and gives its credential under the new name.
    async fn rename(&self, credential: &Credential, to: &str) -> Credential;
    /// The part of a credential that must never be seen.
    fn canary(&self, credential: &Credential) -> String;
}

/// A session held open.
#[async_trait]
pub trait Held: Send {
    /// Whether it still answers.
    async fn works(&mut self) -> bool;
    /// Closes it. Returns when the system does not count it any more.
    async fn close(self: Box<Self>);
}

/// A provider whose line is cut once.
pub struct Cut {
    /// It.
    pub provider: Arc<dyn Provider>,
    /// Whether the cut has come.
    pub was_cut: Box<dyn Fn() -> bool + Send + Sync>,
}

fn version(number: u64) -> Version {
    Version::new(number).expect("cases number versions from 1")
}

fn draw(fixture: &(impl Fixture + ?Sized), number: u64) -> Credential {
    let (secret, version) = (fixture.secret(), version(number));
    let value = fixture.provider().draw(&secret, version).expect("a value is drawn");
    Credential { secret, version, value }
}

async fn made(fixture: &(impl Fixture + ?Sized), number: u64) -> Credential {
    let credential = draw(fixture, number);
    fixture.provider().create(&credential).await.expect("a drawn credential is created");
    credential
}

async fn verdict(fixture: &(impl Fixture + ?Sized), credential: &Credential, others: &[Credential]) -> Verdict {
    fixture.provider().test(credential, others, Trial::New).await.expect("the test comes to an end")
}

/// The system refuses the identity itself.
#[track_caller]
fn assert_ended(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Rejected(_)), "expected a refusal of the identity, found {verdict:?}");
}

/// Not used, for whatever reason.
#[track_caller]
fn assert_rejected(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Rejected(_) | Verdict::Unusable(_)), "expected a rejection, found {verdict:?}");
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, ProviderError>) {
    assert!(matches!(outcome, Err(ProviderError::Refused { .. })), "expected a refusal, found {outcome:?}");
}

async fn sessions(fixture: &(impl Fixture + ?Sized), credential: &Credential) -> Vec<Session> {
    match fixture.provider().usage(credential, &[]).await.expect("usage is told") {
        Evidence::Sessions(sessions) => sessions,
        Evidence::None => panic!("a provider that can log in can tell sessions"),
    }
}

/// Makes a `#[tokio::test]` of each case.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($start:expr; $($case:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            if let Some(fixture) = $start().await {
                $crate::conformance::$case(&fixture).await;
            }
        }
    )* };
}

/// The cases for every provider.
#[macro_export]
macro_rules! conformance_every {
    ($start:expr) => {
        $crate::conformance_cases! { $start;
            draws_differ
            a_drawn_credential_works
            creating_twice_is_creating_once
            an_empty_value_is_rejected
            a_value_used_again_is_rejected
            disabling_and_destroying_twice_is_done_once
            describing_and_drawing_need_no_broadcaster
        }
    };
}

/// The cases for providers with an outside system.
#[macro_export]
macro_rules! conformance_logins {
    ($start:expr) => {
        $crate::conformance_cases! { $start;
            a_created_credential_logs_in_and_another_value_does_not
            another_value_of_a_made_version_is_refused
            create_survives_a_cut_at_every_request
            disable_survives_a_cut_at_every_request
            destroy_survives_a_cut_at_every_request
            concurrent_calls_for_one_version_agree
            an_unknown_credential_is_rejected
            an_unreachable_server_is_no_verdict
            two_versions_are_valid_at_once_and_retiring_one_leaves_the_other
            a_shared_identity_is_refused_and_goes_on_working
            a_superuser_is_refused
            an_identity_outside_the_group_is_refused
            disable_before_create_is_done_and_does_not_hinder_it
            a_disabled_credential_is_not_revived
            destroy_without_disable_ends_everything
            usage_counts_a_held_session_until_it_closes
            a_test_login_is_not_counted
            disable_waits_for_a_session_and_names_it
            destroy_waits_for_a_session
            terminating_ends_the_session_of_that_version_alone
            an_override_ends_the_sessions_of_that_version_alone
            nothing_shows_the_password
            what_create_refuses_is_never_destroyed
            a_renamed_identity_is_not_called_ended
            a_tested_identity_belongs_to_one_secret_of_one_cluster
            a_value_whose_login_never_worked_ends_nothing
            a_value_that_was_never_tested_is_ended_only_after_a_login
            a_credential_under_another_number_keeps_its_first
            a_look_takes_no_identity
            the_end_is_proved_once
            a_value_of_another_system_is_no_evidence_of_disuse
        }
    };
}
