//! Cases for providers with an outside system.

use std::sync::Arc;

use rotacast_proto::SecretValue;

use super::{
    Cut, Held, LoginFixture, assert_ended, assert_refused, assert_rejected, draw, made, sessions, verdict, version,
};
use crate::LiveSessions::{self, ByPolicy};
use crate::{Credential, Provider, ProviderError, Trial, Verdict};

/// Requests in one call, at most: a case that never reaches the call's end would prove nothing.
const MAX_REQUESTS: usize = 60;

async fn logs_in(fixture: &impl LoginFixture, credential: &Credential) -> bool {
    match fixture.log_in(credential).await {
        Some(held) => {
            held.close().await;
            true
        }
        None => false,
    }
}

async fn held(fixture: &impl LoginFixture, credential: &Credential) -> Box<dyn Held> {
    fixture.log_in(credential).await.expect("the credential logs in")
}

/// Seen without the provider's help.
pub async fn a_created_credential_logs_in_and_another_value_does_not(fixture: &impl LoginFixture) {
    let credential = draw(fixture, 1);
    assert!(!logs_in(fixture, &credential).await, "logs in before it is created");
    fixture.provider().create(&credential).await.expect("create");
    assert!(logs_in(fixture, &credential).await, "does not log in");
    assert!(!logs_in(fixture, &draw(fixture, 1)).await, "logs in with another value");
}

/// A second value for a version must not take the first one from whoever uses it.
pub async fn another_value_of_a_made_version_is_refused(fixture: &impl LoginFixture) {
    let first = made(fixture, 1).await;
    assert_refused(fixture.provider().create(&draw(fixture, 1)).await);
    assert!(logs_in(fixture, &first).await, "the first value does not work any more");
}

#[derive(Clone, Copy)]
enum Step {
    Create,
    Disable,
    Destroy,
}

async fn take(step: Step, provider: &Arc<dyn Provider>, credential: &Credential) -> Result<(), ProviderError> {
    match step {
        Step::Create => provider.create(credential).await,
        Step::Disable => provider.disable(credential, &[], ByPolicy).await,
        Step::Destroy => provider.destroy(credential, &[], ByPolicy).await,
    }
}

/// Cuts a step at every one of its requests, before and after the request arrives, and repeats it on a whole line.
async fn cut_everywhere(fixture: &impl LoginFixture, step: Step) {
    let (provider, mut number) = (fixture.provider(), 0);
    for arrives in [false, true] {
        let mut request = 0;
        loop {
            assert!(request < MAX_REQUESTS, "the step never comes to its end");
            number += 1;
            let credential = draw(fixture, number);
            if !matches!(step, Step::Create) {
                provider.create(&credential).await.expect("create on a whole line");
            }
            let Cut { provider: cut, was_cut } = fixture.cut(request, arrives).await;
            let outcome = take(step, &cut, &credential).await;
            if !was_cut() {
                outcome.expect("a call on a whole line succeeds");
                assert!(request > 0, "the step makes no request");
                break;
            }
            // A call that needed no more answers may have succeeded; one that failed did so for the cut alone.
            if let Err(error) = outcome {
                assert!(matches!(error, ProviderError::Unreachable { .. }), "cut at {request}: {error}");
            }
            take(step, &provider, &credential).await.unwrap_or_else(|error| panic!("cut at {request}: {error}"));
            let works = logs_in(fixture, &credential).await;
            assert_eq!(works, matches!(step, Step::Create), "cut at {request}");
            request += 1;
        }
    }
}

/// However far the first call came, the second leads to the same working credential.
pub async fn create_survives_a_cut_at_every_request(fixture: &impl LoginFixture) {
    cut_everywhere(fixture, Step::Create).await;
}

/// The same for `disable`.
pub async fn disable_survives_a_cut_at_every_request(fixture: &impl LoginFixture) {
    cut_everywhere(fixture, Step::Disable).await;
}

/// The same for `destroy`.
pub async fn destroy_survives_a_cut_at_every_request(fixture: &impl LoginFixture) {
    cut_everywhere(fixture, Step::Destroy).await;
}

/// Two leaders for a moment, or a call repeated too early.
pub async fn concurrent_calls_for_one_version_agree(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), draw(fixture, 1));
    for step in [Step::Create, Step::Disable, Step::Destroy] {
        let calls = (0..4).map(|_| take(step, &provider, &credential));
        for outcome in futures::future::join_all(calls).await {
            outcome.expect("concurrent calls agree");
        }
        assert_eq!(logs_in(fixture, &credential).await, matches!(step, Step::Create));
    }
}

/// Never created.
pub async fn an_unknown_credential_is_rejected(fixture: &impl LoginFixture) {
    assert_ended(&verdict(fixture, &draw(fixture, 1), &[]).await);
}

/// Silence is not an answer.
pub async fn an_unreachable_server_is_no_verdict(fixture: &impl LoginFixture) {
    let provider = fixture.unreachable();
    let (secret, version) = (fixture.secret(), version(1));
    let value = provider.draw(&secret, version).expect("drawing needs nobody");
    let credential = Credential { secret, version, value };
    let unreachable = |outcome: Result<(), ProviderError>| {
        assert!(matches!(outcome, Err(ProviderError::Unreachable { .. })), "{outcome:?}");
    };
    unreachable(provider.create(&credential).await);
    unreachable(provider.test(&credential, &[], Trial::New).await.map(drop));
    unreachable(provider.usage(&credential, &[]).await.map(drop));
    unreachable(provider.disable(&credential, &[], ByPolicy).await);
    unreachable(provider.destroy(&credential, &[], ByPolicy).await);
}

/// The overlap, and its end without anybody noticing.
pub async fn two_versions_are_valid_at_once_and_retiring_one_leaves_the_other(fixture: &impl LoginFixture) {
    let (provider, old, new) = (fixture.provider(), made(fixture, 1).await, made(fixture, 2).await);
    assert_eq!(verdict(fixture, &new, std::slice::from_ref(&old)).await, Verdict::Works);
    assert_eq!(verdict(fixture, &old, std::slice::from_ref(&new)).await, Verdict::Works);
    let mut session = held(fixture, &new).await;
    let others = [new.clone()];
    provider.disable(&old, &others, ByPolicy).await.expect("disable");
    assert!(!logs_in(fixture, &old).await && session.works().await && logs_in(fixture, &new).await);
    provider.destroy(&old, &others, ByPolicy).await.expect("destroy");
    assert!(!logs_in(fixture, &old).await && session.works().await && logs_in(fixture, &new).await);
    session.close().await;
}

/// One identity in two versions.
pub async fn a_shared_identity_is_refused_and_goes_on_working(fixture: &impl LoginFixture) {
    let (provider, live) = (fixture.provider(), made(fixture, 1).await);
    let sharing = fixture.sharing(&live, version(2));
    let others = [live.clone()];
    assert_rejected(&verdict(fixture, &sharing, &others).await);
    assert_refused(provider.usage(&sharing, &others).await);
    assert_refused(provider.disable(&sharing, &others, ByPolicy).await);
    assert_refused(provider.destroy(&sharing, &others, ByPolicy).await);
    assert!(logs_in(fixture, &live).await, "the live version was hit");
    // Nor when the caller forgot to name the other one: the identity itself says whose it is.
    assert_refused(provider.usage(&sharing, &[]).await);
    assert_refused(provider.destroy(&sharing, &[], ByPolicy).await);
    assert!(logs_in(fixture, &live).await, "the live version was hit");
}

async fn is_left_alone(fixture: &impl LoginFixture, credential: &Credential) {
    let provider = fixture.provider();
    assert!(logs_in(fixture, credential).await, "the fixture's credential does not work");
    let found = verdict(fixture, credential, &[]).await;
    assert!(matches!(found, Verdict::Unusable(_)), "a login works, so nothing says that it has ended: {found:?}");
    assert_refused(provider.create(credential).await);
    assert_refused(provider.usage(credential, &[]).await);
    assert_refused(provider.disable(credential, &[], ByPolicy).await);
    assert_refused(provider.destroy(credential, &[], ByPolicy).await);
    assert!(logs_in(fixture, credential).await, "it was hit");
}

/// A value that names one is a mistake, or worse.
pub async fn a_superuser_is_refused(fixture: &impl LoginFixture) {
    is_left_alone(fixture, &fixture.superuser().await).await;
}

/// Somebody else's.
pub async fn an_identity_outside_the_group_is_refused(fixture: &impl LoginFixture) {
    is_left_alone(fixture, &fixture.outsider().await).await;
}

/// A rotation rolled back before its credential was made.
pub async fn disable_before_create_is_done_and_does_not_hinder_it(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), draw(fixture, 1));
    provider.disable(&credential, &[], ByPolicy).await.expect("an absent one is disabled");
    provider.destroy(&credential, &[], ByPolicy).await.expect("and destroyed");
    provider.create(&credential).await.expect("create");
    assert!(logs_in(fixture, &credential).await);
}

/// A `create` that comes late, from a leader deposed since.
pub async fn a_disabled_credential_is_not_revived(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), made(fixture, 1).await);
    provider.disable(&credential, &[], ByPolicy).await.expect("disable");
    assert_refused(provider.create(&credential).await);
    assert!(!logs_in(fixture, &credential).await, "it works again");
    assert_ended(&verdict(fixture, &credential, &[]).await);
}

/// `destroy` does not rely on the step before it.
pub async fn destroy_without_disable_ends_everything(fixture: &impl LoginFixture) {
    let credential = made(fixture, 1).await;
    fixture.provider().destroy(&credential, &[], ByPolicy).await.expect("destroy");
    assert!(!logs_in(fixture, &credential).await);
    assert!(sessions(fixture, &credential).await.is_empty());
}

/// The evidence the retire guard asks for.
pub async fn usage_counts_a_held_session_until_it_closes(fixture: &impl LoginFixture) {
    let (old, new) = (made(fixture, 1).await, made(fixture, 2).await);
    assert!(sessions(fixture, &old).await.is_empty());
    let (first, second) = (held(fixture, &old).await, held(fixture, &old).await);
    assert_eq!(sessions(fixture, &old).await.len(), 2);
    assert!(sessions(fixture, &new).await.is_empty(), "sessions of another version are counted");
    first.close().await;
    assert_eq!(sessions(fixture, &old).await.len(), 1);
    second.close().await;
    assert!(sessions(fixture, &old).await.is_empty());
}

/// The provider's own logins are not a use.
pub async fn a_test_login_is_not_counted(fixture: &impl LoginFixture) {
    let credential = made(fixture, 1).await;
    for _ in 0..5 {
        assert_eq!(verdict(fixture, &credential, &[]).await, Verdict::Works);
        assert_eq!(sessions(fixture, &credential).await, []);
    }
}

/// New logins fail at once; the old session is left alone and named until it ends.
pub async fn disable_waits_for_a_session_and_names_it(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), made(fixture, 1).await);
    let mut session = held(fixture, &credential).await;
    for _ in 0..2 {
        match provider.disable(&credential, &[], ByPolicy).await {
            Err(ProviderError::InUse { sessions, .. }) => assert_eq!(sessions.len(), 1),
            other => panic!("expected the wait to be told, found {other:?}"),
        }
        assert!(!logs_in(fixture, &credential).await, "a new login succeeds");
        assert!(session.works().await, "the session was ended");
    }
    session.close().await;
    provider.disable(&credential, &[], ByPolicy).await.expect("nobody is left");
}

/// The same for `destroy`.
pub async fn destroy_waits_for_a_session(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), made(fixture, 1).await);
    let mut session = held(fixture, &credential).await;
    let outcome = provider.destroy(&credential, &[], ByPolicy).await;
    assert!(matches!(outcome, Err(ProviderError::InUse { .. })), "{outcome:?}");
    assert!(session.works().await, "the session was ended");
    session.close().await;
    provider.destroy(&credential, &[], ByPolicy).await.expect("nobody is left");
}

/// The other policy.
pub async fn terminating_ends_the_session_of_that_version_alone(fixture: &impl LoginFixture) {
    let (old, new) = (made(fixture, 1).await, made(fixture, 2).await);
    let (mut of_old, mut of_new) = (held(fixture, &old).await, held(fixture, &new).await);
    fixture.terminating().disable(&old, std::slice::from_ref(&new), ByPolicy).await.expect("disable");
    assert!(!of_old.works().await, "the old session lives");
    assert!(of_new.works().await, "the new session was hit");
    of_new.close().await;
}

/// An operator's word, where the policy is to wait: `destroy` does not rely on the step before it.
pub async fn an_override_ends_the_sessions_of_that_version_alone(fixture: &impl LoginFixture) {
    let (old, new, last) = (made(fixture, 1).await, made(fixture, 2).await, made(fixture, 3).await);
    let (mut of_old, mut of_new) = (held(fixture, &old).await, held(fixture, &new).await);
    let provider = fixture.provider();
    provider.disable(&old, &[new.clone(), last.clone()], LiveSessions::End).await.expect("disable");
    assert!(!of_old.works().await, "the old session lives");
    assert!(of_new.works().await, "the new session was hit");
    provider.destroy(&new, std::slice::from_ref(&last), LiveSessions::End).await.expect("destroy");
    assert!(!of_new.works().await, "the session lives although its identity is gone");
}

/// A canary through every text a provider makes.
pub async fn nothing_shows_the_password(fixture: &impl LoginFixture) {
    let (provider, away) = (fixture.provider(), fixture.unreachable());
    let (live, unknown) = (made(fixture, 1).await, draw(fixture, 2));
    let (sharing, superuser) = (fixture.sharing(&live, version(3)), fixture.superuser().await);
    let session = held(fixture, &live).await;
    let mut texts = vec![provider.describe()];
    for credential in [&live, &unknown, &sharing, &superuser] {
        for provider in [&provider, &away] {
            let others = [live.clone()];
            let mut failed = |error: ProviderError| texts.extend([format!("{error}"), format!("{error:?}")]);
            provider.create(credential).await.err().map(&mut failed);
            provider.disable(credential, &others, ByPolicy).await.err().map(&mut failed);
            provider.destroy(credential, &others, ByPolicy).await.err().map(&mut failed);
            match provider.usage(credential, &others).await {
                Ok(evidence) => texts.push(format!("{evidence:?}")),
                Err(error) => texts.extend([format!("{error}"), format!("{error:?}")]),
            }
            match provider.test(credential, &others, Trial::New).await {
                Ok(verdict) => texts.push(format!("{verdict:?}")),
                Err(error) => texts.extend([format!("{error}"), format!("{error:?}")]),
            }
        }
    }
    session.close().await;
    assert!(texts.len() > 20, "the case looks at too little");
    for credential in [&live, &unknown, &sharing, &superuser] {
        let canary = fixture.canary(credential);
        assert!(canary.len() >= 16, "the canary is too short to be told from chance");
        for text in &texts {
            assert!(!text.contains(&canary), "a text shows the password");
        }
    }
}

/// Another Rotacast for the same secret and version, on the same system: the check before the end is as strong as the one at
/// the making.
pub async fn what_create_refuses_is_never_destroyed(fixture: &impl LoginFixture) {
    let (ours, theirs) = (fixture.provider(), fixture.of_another_cluster());
    let made_by_them = draw(fixture, 1);
    theirs.create(&made_by_them).await.expect("the other cluster makes its credential");
    // Also the other cluster's own value, as a copied store has it.
    for credential in [draw(fixture, 1), made_by_them.clone()] {
        assert_refused(ours.create(&credential).await);
        assert_refused(ours.usage(&credential, &[]).await);
        assert_refused(ours.disable(&credential, &[], ByPolicy).await);
        assert_refused(ours.destroy(&credential, &[], LiveSessions::End).await);
        assert!(logs_in(fixture, &made_by_them).await, "another owner's credential was hit");
    }
    // The other cluster ends its own.
    theirs.destroy(&made_by_them, &[], ByPolicy).await.expect("the other cluster ends its credential");
    assert!(!logs_in(fixture, &made_by_them).await);
}

/// A login under the old name fails, and the credential lives.
pub async fn a_renamed_identity_is_not_called_ended(fixture: &impl LoginFixture) {
    let (provider, insider) = (fixture.provider(), fixture.insider().await);
    assert_eq!(verdict(fixture, &insider, &[]).await, Verdict::Works);
    for credential in [made(fixture, 2).await, insider] {
        let renamed = fixture.rename(&credential, "renamed").await;
        assert!(
            !logs_in(fixture, &credential).await && logs_in(fixture, &renamed).await,
            "the fixture does not rename"
        );
        for outcome in [
            provider.usage(&credential, &[]).await.map(drop),
            provider.disable(&credential, &[], ByPolicy).await,
            provider.destroy(&credential, &[], ByPolicy).await,
        ] {
            assert!(matches!(outcome, Err(ProviderError::Unfinished { .. })), "{outcome:?}");
        }
        assert!(logs_in(fixture, &renamed).await, "it was hit under its new name");
        let back = fixture.rename(&renamed, "").await;
        provider.destroy(&back, &[], ByPolicy).await.expect("under its own name it is ended");
        assert!(!logs_in(fixture, &back).await);
    }
}

/// The provider that tests a value from outside first looks after it.
pub async fn a_tested_identity_belongs_to_one_secret_of_one_cluster(fixture: &impl LoginFixture) {
    let (theirs, insider) = (fixture.of_another_cluster(), fixture.insider().await);
    assert_eq!(verdict(fixture, &insider, &[]).await, Verdict::Works);
    assert_eq!(verdict(fixture, &insider, &[]).await, Verdict::Works);
    let rejected = theirs.test(&insider, &[], Trial::New).await.expect("the test comes to an end");
    assert_rejected(&rejected);
    assert_refused(theirs.destroy(&insider, &[], ByPolicy).await);
    // Nor is another version of the secret, whose value the store has lost.
    let lost = Credential { value: SecretValue::new(Vec::new()), ..insider.clone() };
    assert_rejected(&verdict(fixture, &fixture.sharing(&insider, version(2)), &[lost]).await);
    assert!(logs_in(fixture, &insider).await);
}

/// Any value can name any identity: only who knows its password has it ended.
pub async fn a_value_whose_login_never_worked_ends_nothing(fixture: &impl LoginFixture) {
    let (provider, theirs) = (fixture.provider(), fixture.insider().await);
    let mistaken = fixture.mistaken(&theirs);
    let before = fixture.failed_logins(&theirs).await;
    assert_rejected(&provider.test(&mistaken, &[], Trial::New).await.expect("the test comes to an end"));
    for _ in 0..3 {
        assert_refused(provider.usage(&mistaken, &[]).await);
        assert_refused(provider.disable(&mistaken, &[], ByPolicy).await);
        assert_refused(provider.destroy(&mistaken, &[], LiveSessions::End).await);
    }
    // One line in the system's log, whatever is asked: its operators may lock the identity out after a few.
    assert_eq!(fixture.failed_logins(&theirs).await - before, 1);
    // A version that was replaced before it was tested.
    assert_refused(provider.destroy(&fixture.sharing(&mistaken, version(2)), &[], LiveSessions::End).await);
    assert!(logs_in(fixture, &theirs).await, "another owner's credential was hit");
}

/// The login that shows it may also come at the end.
pub async fn a_value_that_was_never_tested_is_ended_only_after_a_login(fixture: &impl LoginFixture) {
    let (provider, insider) = (fixture.provider(), fixture.insider().await);
    assert!(sessions(fixture, &insider).await.is_empty());
    provider.destroy(&insider, &[], ByPolicy).await.expect("its login works");
    assert!(!logs_in(fixture, &insider).await);
}

/// As after the store was restored: instances may use the credential under a number that the record does not list, so no record
/// shows that this number is over.
pub async fn a_credential_under_another_number_keeps_its_first(fixture: &impl LoginFixture) {
    let provider = fixture.provider();
    for first in [fixture.insider().await, made(fixture, 1).await] {
        assert_eq!(verdict(fixture, &first, &[]).await, Verdict::Works);
        let second = fixture.sharing(&first, version(7));
        for others in [std::slice::from_ref(&first), &[]] {
            assert_rejected(&verdict(fixture, &second, others).await);
        }
        assert_rejected(&provider.test(&second, &[], Trial::Known).await.expect("the test comes to an end"));
        assert_refused(provider.usage(&second, &[]).await);
        assert_refused(provider.destroy(&second, &[], LiveSessions::End).await);
        assert!(logs_in(fixture, &first).await, "what instances may use was ended");
        provider.destroy(&first, &[], ByPolicy).await.expect("it is still the first version's");
        assert!(!logs_in(fixture, &first).await);
    }
}

/// A look at a credential in use changes nothing in the outside system: another cluster can still take the identity.
pub async fn a_look_takes_no_identity(fixture: &impl LoginFixture) {
    let (provider, theirs, insider) = (fixture.provider(), fixture.of_another_cluster(), fixture.insider().await);
    let works = Ok(Verdict::Works);
    assert_eq!(provider.test(&insider, &[], Trial::Known).await.map_err(drop), works);
    assert_eq!(theirs.test(&insider, &[], Trial::New).await.map_err(drop), works);
    assert_rejected(&provider.test(&insider, &[], Trial::Known).await.expect("the test comes to an end"));
}

/// Each failed login is a line in the system's log that its operators have to explain.
pub async fn the_end_is_proved_once(fixture: &impl LoginFixture) {
    let (provider, credential) = (fixture.provider(), made(fixture, 1).await);
    let session = held(fixture, &credential).await;
    let before = fixture.failed_logins(&credential).await;
    for _ in 0..3 {
        let outcome = provider.disable(&credential, &[], ByPolicy).await;
        assert!(matches!(outcome, Err(ProviderError::InUse { .. })), "{outcome:?}");
    }
    session.close().await;
    provider.disable(&credential, &[], ByPolicy).await.expect("disable");
    provider.destroy(&credential, &[], ByPolicy).await.expect("destroy");
    assert_eq!(fixture.failed_logins(&credential).await - before, 1);
}

/// Its sessions are looked for in the wrong place.
pub async fn a_value_of_another_system_is_no_evidence_of_disuse(fixture: &impl LoginFixture) {
    let elsewhere = fixture.elsewhere(&made(fixture, 1).await);
    assert_refused(fixture.provider().usage(&elsewhere, &[]).await);
}
