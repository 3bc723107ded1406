//! Cases for every provider.

use rotacast_proto::SecretValue;

use super::{Fixture, assert_rejected, draw, made, verdict, version};
use crate::LiveSessions::ByPolicy;
use crate::{Credential, Verdict};

/// No value is drawn twice.
pub async fn draws_differ(fixture: &impl Fixture) {
    assert!(draw(fixture, 1).value != draw(fixture, 1).value, "two draws of one version are equal");
    assert!(draw(fixture, 1).value != draw(fixture, 2).value, "draws of two versions are equal");
}

/// Draw, create, test.
pub async fn a_drawn_credential_works(fixture: &impl Fixture) {
    let credential = made(fixture, 1).await;
    assert_eq!(verdict(fixture, &credential, &[]).await, Verdict::Works);
    // Itself among the others is no second user of its identity.
    assert_eq!(verdict(fixture, &credential, std::slice::from_ref(&credential)).await, Verdict::Works);
}

/// `create` again changes nothing.
pub async fn creating_twice_is_creating_once(fixture: &impl Fixture) {
    let credential = made(fixture, 1).await;
    fixture.provider().create(&credential).await.expect("again");
    assert_eq!(verdict(fixture, &credential, &[]).await, Verdict::Works);
}

/// Nothing is no credential.
pub async fn an_empty_value_is_rejected(fixture: &impl Fixture) {
    let credential = Credential { secret: fixture.secret(), version: version(1), value: SecretValue::new(Vec::new()) };
    assert_rejected(&verdict(fixture, &credential, &[]).await);
}

/// Retiring the one would end the other.
pub async fn a_value_used_again_is_rejected(fixture: &impl Fixture) {
    let first = made(fixture, 1).await;
    let second = Credential { version: version(2), ..first.clone() };
    assert_rejected(&verdict(fixture, &second, &[first]).await);
}

/// Both end calls can be repeated, in every order.
pub async fn disabling_and_destroying_twice_is_done_once(fixture: &impl Fixture) {
    let (provider, credential) = (fixture.provider(), made(fixture, 1).await);
    for _ in 0..2 {
        provider.disable(&credential, &[], ByPolicy).await.expect("disable");
    }
    for _ in 0..2 {
        provider.destroy(&credential, &[], ByPolicy).await.expect("destroy");
    }
    provider.disable(&credential, &[], ByPolicy).await.expect("disable after destroy");
}

/// Both work with the outside system away, and a description is there for people.
pub async fn describing_and_drawing_need_no_broadcaster(fixture: &impl Fixture) {
    assert!(!fixture.provider().describe().is_empty());
    assert!(!draw(fixture, 1).value.is_empty());
}
