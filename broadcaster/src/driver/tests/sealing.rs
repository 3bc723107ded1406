//! Sealed values under a leader: readers come and go, and what does not open stays the fault of its own secret.

use rotacast_bus::ValueSource as _;
use rotacast_protocol::message::FetchRequest;
use rotacast_seal::{SealingKey, SealingKeys};
use rotacast_store::{SealState, SecretReader};

use super::faults::{hasty, register};
use super::*;
use crate::sealing::ConfiguredReaders;

fn other() -> SecretName {
    SecretName::new("billing/db").unwrap()
}

/// One named service that may use these secrets.
fn services(key: &SigningKey, sealing: Option<&SealingKey>, secrets: &str) -> Services {
    let api = Service {
        keys: key.public().clone().into(),
        sealing_key: sealing.map(|key| key.public().clone()),
        secrets: vec![secrets.parse().unwrap()],
    };
    let other = Service {
        keys: SigningKey::generate().public().clone().into(),
        sealing_key: None,
        secrets: vec!["*".parse().unwrap()],
    };
    Services { named: [("api".parse().unwrap(), api)].into(), anyone: Some(other) }
}

fn configured(environment: &Environment, key: &SealingKey) -> ConfiguredReaders {
    ConfiguredReaders::new(key.public().clone(), Arc::clone(&environment.identities), environment.findings.clone())
}

/// Seals for the broadcaster with this key, and for the services with a key.
fn seal_with(environment: &mut Environment, key: &SealingKey) {
    let readers = configured(environment, key);
    let keys = SealingKeys::new(vec![key.clone()]);
    environment.tree = environment.tree.clone().sealed(environment.cluster.clone(), keys, Some(Arc::new(readers)));
}

/// A service's own look into the store.
fn reader(environment: &Environment, key: &SealingKey) -> SecretReader {
    let tree = &environment.tree;
    let reader = SecretReader::new(Arc::clone(tree.store()) as Arc<dyn ReadStore>, tree.prefix().clone());
    reader.opening(environment.cluster.clone(), SealingKeys::new(vec![key.clone()]))
}

async fn opens(reader: &SecretReader, number: u64) -> bool {
    match reader.read_version(&name(), version(number)).await {
        Ok(stored) => stored.unwrap().value == SecretValue::new(b"first".to_vec()),
        Err(StoreError::Sealed { .. }) => false,
        Err(problem) => panic!("{problem}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_configured_later_can_open_what_was_sealed_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let (own, api) = (SealingKey::generate(), SealingKey::generate());
    environment.identities.replace(services(&environment.key, None, "*"));
    seal_with(&mut environment, &own);
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let reader = reader(&environment, &api);
    assert!(!opens(&reader, 1).await, "it has no key yet");
    // A reload of the configuration.
    environment.identities.replace(services(&environment.key, Some(&api), "*"));
    hold("the service can open it", async || opens(&reader, 1).await).await;
    // Once it may not use the secret any more, what it could open it can open still; a newer version it cannot.
    environment.identities.replace(services(&environment.key, Some(&api), "billing/*"));
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    let Some(SealState::Sealed { readers, .. }) = environment.tree.seal_state(&name(), version(2)).await.unwrap()
    else {
        panic!("version 2 is sealed")
    };
    assert_eq!(readers.len(), 1, "{readers:?}");
    assert!(running.finding(Topic::Sealing).is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_open_is_a_finding_about_its_secret_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, bus) = environment(folder.path(), hasty()).await;
    let (own, api) = (SealingKey::generate(), SealingKey::generate());
    environment.identities.replace(services(&environment.key, Some(&api), "*"));
    seal_with(&mut environment, &own);
    for secret in [name(), other()] {
        environment.tree.put_next(&secret, SecretValue::new(b"first".to_vec()), None).await.unwrap();
    }
    let key = environment.tree.prefix().key().child("versions").child(name()).child(1);
    let stored = environment.tree.store().get(&key).await.unwrap().unwrap().value;
    let mut damaged = stored.expose().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let write = async |value: Vec<u8>| {
        let writes = vec![Write::Put(key.clone(), SecretValue::new(value))];
        environment.tree.store().commit(Commit { checks: vec![], writes }).await.unwrap();
    };
    write(damaged.clone()).await;
    let running = Running::start(&environment);
    running.reaches(&other(), 1).await;
    hold("the finding", async || running.finding(Topic::Sealing).is_some()).await;
    let told = running.finding(Topic::Sealing).unwrap();
    assert!(told.starts_with("payments/db: version 1: the ciphertext does not open"), "{told}");
    assert_eq!(environment.findings.standing().iter().filter(|it| it.topic == Topic::Sealing).count(), 1);

    // A broadcaster gives out the other secret's value, opened, and of this one says why not.
    let values = StoreFetch::new(&environment);
    let instance = {
        let (service, name) = ("api".parse().unwrap(), "pod-1".parse().unwrap());
        let key = SigningKey::generate();
        InstanceIdentity::with_key(key, environment.cluster.clone(), service, name, &environment.key)
    };
    register(&bus, &instance, &[name(), other()]).await;
    hold("it is entered", async || environment.tree.is_in_roster(instance.key()).await.unwrap()).await;
    let fetch = async |nonce, secret: SecretName| {
        let request = FetchRequest {
            key: instance.key().clone(),
            nonce: Nonce(nonce),
            issued: clock::wall(),
            secret,
            version: Some(version(1)),
        };
        values.fetch(instance.seal(&request, "id", clock::wall())).await
    };
    assert_eq!(&*fetch(1, other()).await.unwrap().value, b"first");
    if let Ok(reply) = fetch(2, name()).await {
        panic!("{} bytes of a damaged value were given out", reply.value.len());
    }
    // Repaired, it is served again, and the finding is over.
    write(stored.expose().to_vec()).await;
    hold("no finding", async || running.finding(Topic::Sealing).is_none()).await;
    running.reaches(&name(), 1).await;
    assert_eq!(&*fetch(3, name()).await.unwrap().value, b"first");
    // One that is damaged while it is in use: no other broadcaster can give it either.
    write(damaged).await;
    let refused = match fetch(4, name()).await {
        Ok(reply) => panic!("{} bytes of a damaged value were given out", reply.value.len()),
        Err(refused) => refused,
    };
    assert_eq!(refused.code(), tonic::Code::DataLoss, "asking again does not help: {refused}");
    assert!(refused.message().contains("payments/db") && refused.message().contains("doctor"), "{refused}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_the_key_names_the_key_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let (old, new, api) = (SealingKey::generate(), SealingKey::generate(), SealingKey::generate());
    environment.identities.replace(services(&environment.key, Some(&api), "*"));
    seal_with(&mut environment, &old);
    put(&environment, "first").await;
    let before = environment.tree.seal_state(&name(), version(1)).await.unwrap();
    seal_with(&mut environment, &new);
    let running = Running::start(&environment);
    hold("the finding", async || running.finding(Topic::Sealing).is_some()).await;
    let told = running.finding(Topic::Sealing).unwrap();
    assert!(told.contains(old.public().id().as_str()) && told.contains(new.public().id().as_str()), "{told}");
    running.stop().await;
    assert_eq!(environment.tree.seal_state(&name(), version(1)).await.unwrap(), before);
    // With both keys, the leader seals it for the newer one, which opens it alone from then on.
    let readers = configured(&environment, &new);
    let both = SealingKeys::new(vec![new.clone(), old.clone()]);
    environment.tree = environment.tree.clone().sealed(environment.cluster.clone(), both, Some(Arc::new(readers)));
    let running = Running::start(&environment);
    hold("it is sealed for the newer key", async || opens(&reader(&environment, &new), 1).await).await;
    running.reaches(&name(), 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_services_than_a_value_can_be_sealed_for_are_a_finding_and_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let own = SealingKey::generate();
    let crowd = |size: usize| {
        let service = || Service {
            keys: SigningKey::generate().public().clone().into(),
            sealing_key: Some(SealingKey::generate().public().clone()),
            secrets: vec!["*".parse().unwrap()],
        };
        let named = (0..size).map(|at| (format!("api-{at:03}").parse().unwrap(), service())).collect();
        Services { named, anyone: None }
    };
    environment.identities.replace(crowd(130));
    seal_with(&mut environment, &own);
    put(&environment, "first").await;
    let told = || environment.findings.standing().into_iter().find(|it| it.topic == Topic::Sealing);
    let finding = told().expect("as soon as a value is sealed for fewer than may use it");
    assert_eq!(finding.subject, name().as_str());
    assert!(finding.text.contains("service api-127, service api-128, service api-129"), "{}", finding.text);
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    assert!(told().is_some());
    environment.identities.replace(crowd(3));
    hold("no finding", async || told().is_none()).await;
    running.stop().await;
}
