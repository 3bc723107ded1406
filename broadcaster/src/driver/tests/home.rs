//! Which cluster the store belongs to.

use super::*;
use crate::home::Home;

fn closed(environment: &Environment) -> bool {
    environment
        .findings
        .told()
        .iter()
        .any(|finding| finding.subject == "cluster store" && finding.level == Level::Error)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// The key that names the cluster of the tree, with another cluster's id.
async fn give_away(environment: &Environment, cluster: &str) {
    let key = environment.tree.prefix().key().child("cluster");
    let owner = format!(r#"{{"format":1,"cluster":"{cluster}","id":"{:032x}","keys":[]}}"#, 1);
    let writes = vec![Write::Put(key, SecretValue::new(owner.into_bytes()))];
    environment.tree.store().commit(Commit { checks: Vec::new(), writes }).await.unwrap();
}

#[tokio::test]
async fn in_another_clusters_store_no_broadcaster_leads_and_the_finding_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    give_away(&environment, "production").await;
    let refused = environment.home.look(&environment).await.unwrap_err().to_string();
    assert!(refused.contains("belong to cluster production (id "), "{refused}");
    assert!(refused.contains("configured as test: change `cluster` or `store.prefix`"), "{refused}");
    let stop = CancellationToken::new();
    let driver = Driver::new(environment.clone(), Secrets::new(10));
    let role = driver.role();
    let running = tokio::spawn(driver.run(stop.clone()));
    until("a finding", || closed(&environment)).await;
    assert_eq!(environment.tree.leader().await.unwrap(), None);
    assert_eq!(*role.borrow(), Role::Follower);
    let told = follower::statuses(&environment, None).await.err().map(|refusal| refusal.to_string());
    assert!(told.is_some_and(|told| told.contains("production")), "a follower does not answer from it either");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_store_that_becomes_another_clusters_closes_the_door_until_it_is_ours_again() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    let stop = CancellationToken::new();
    let driver = Driver::new(environment.clone(), Secrets::new(10));
    let mut role = driver.role();
    let running = tokio::spawn(driver.run(stop.clone()));
    let leads = |role: &Role| matches!(role, Role::Leader { .. });
    tokio::time::timeout(PATIENCE, role.wait_for(leads)).await.unwrap().unwrap();
    let id = environment.home.id();
    assert!(id.is_some() && environment.home.closed().is_none());

    give_away(&environment, "staging").await;
    tokio::time::timeout(PATIENCE, role.wait_for(|role| !leads(role))).await.unwrap().unwrap();
    assert!(closed(&environment), "{:?}", environment.findings.told());
    // Another cluster of the same name is another one too.
    give_away(&environment, "test").await;
    let told = || environment.findings.told().iter().any(|finding| finding.text.contains("belong to cluster test (id"));
    until("a finding about the other id", told).await;
    assert_eq!(environment.home.id(), id);

    let key = environment.tree.prefix().key().child("cluster");
    let commit = Commit { checks: Vec::new(), writes: vec![Write::Delete(key)] };
    environment.tree.store().commit(commit).await.unwrap();
    tokio::time::timeout(PATIENCE, role.wait_for(leads)).await.unwrap().unwrap();
    until("no finding", || !closed(&environment)).await;
    assert_eq!(environment.tree.owner().await.unwrap().map(|owner| owner.id), id, "the id is written again");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn only_keys_of_this_cluster_sign_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    let replica = SigningKey::generate();
    environment.tree.claim(&environment.cluster, None, replica.public()).await.unwrap();
    environment.home.look(&environment).await.unwrap();
    let mut record = SecretRecord::new(name(), rotacast_protocol::Epoch(1), Timing::of(&Policy::default()));
    record.revision = Revision(5);
    let state = |key: &SigningKey| record.state().seal(key, &environment.cluster, "1", clock::wall());
    let newer = |key: &SigningKey| environment.home.is_newer(&environment, &state(key), Revision(4));
    assert!(newer(&environment.key));
    assert!(newer(&replica), "another replica's");
    assert!(!newer(&SigningKey::generate()), "another cluster's");
    assert!(!environment.home.is_newer(&environment, &state(&environment.key), Revision(5)), "it is not newer");
    assert!(Home::default().is_newer(&environment, &state(&environment.key), Revision(4)), "before it has read any");
}

/// A state of another cluster with a far higher revision, and one of this cluster under a forged revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_that_is_none_of_ours_blames_no_store_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), faults::hasty()).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    super::until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    let bytes = environment.tree.read_record(&name()).await.unwrap().unwrap().bytes;
    let record = SecretRecord::decode(&bytes).unwrap();
    let stranger = SigningKey::generate();
    let theirs = {
        let mut record = record.clone();
        record.revision = Revision(1 << 40);
        record.state().seal(&stranger, &environment.cluster, "theirs", clock::wall())
    };
    let replayed = record.state().seal(&environment.key, &environment.cluster, "replayed", clock::wall());
    for (number, state) in [(2, theirs), (3, replayed)] {
        bus.publish_state(&name(), Revision(1 << 40), &state).await.unwrap();
        put(&environment, &format!("value {number}")).await;
        super::until(&secrets, |status| status.current == Some(version(number)) && status.rotation.is_none()).await;
    }
    stop.cancel();
    running.await.unwrap();
    // The next leader does not take it for a fault of its own store either.
    bus.publish_state(
        &name(),
        Revision(1 << 41),
        &record.state().seal(&stranger, &environment.cluster, "3", clock::wall()),
    )
    .await
    .unwrap();
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    put(&environment, "value 4").await;
    super::until(&secrets, |status| status.current == Some(version(4)) && status.rotation.is_none()).await;
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    assert_eq!(SecretRecord::decode(&record.bytes).unwrap().safe_mode, None);
    let told = environment.findings.told();
    let named = told.iter().find(|finding| finding.subject == "cluster states").map(|finding| finding.text.as_str());
    assert!(named.is_some_and(|text| text.contains(stranger.public().id().as_str())), "{told:?}");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_bus_that_another_cluster_claims_is_named_and_closes_no_door() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), Policy::default()).await;
    environment.home.look(&environment).await.unwrap();
    assert_eq!(environment.home.look_at_bus(&environment).await.unwrap(), None, "it is claimed");
    let ours = bus.read_claim().await.unwrap().unwrap();
    assert_eq!(ours.payload, environment.home.id().unwrap().to_string());
    let stranger = SigningKey::generate();
    let (cluster, subject) = (&environment.cluster, rotacast_bus::CLAIM);
    let kind = rotacast_proto::Kind::ClusterClaim;
    let theirs = rotacast_proto::Envelope::sign(&stranger, kind, cluster, subject, "1", clock::wall(), "an id".into());
    bus.publish_claim(&theirs).await.unwrap();
    let told = environment.home.look_at_bus(&environment).await.unwrap().unwrap();
    for expected in ["under the same name, test", "an id", stranger.public().id().as_str(), "another `cluster`"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert_eq!(environment.home.closed(), None);
    bus.publish_claim(&ours).await.unwrap();
    assert_eq!(environment.home.look_at_bus(&environment).await.unwrap(), None);
    assert!(environment.findings.told().is_empty(), "{:?}", environment.findings.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_of_one_name_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    let namesake = Environment {
        replica: Replica { run: Some(RunId(7)), ..environment.replica.clone() },
        findings: Findings::default(),
        leader_ttl: Duration::from_millis(50),
        ..environment.clone()
    };
    // The embedded store names no leader. Another store says this.
    let driver = Driver::new(namesake.clone(), Secrets::new(10));
    let leader = environment.replica.clone();
    let mut seen = None;
    for _ in 0..2 {
        driver.compare_names(Some(&leader), &mut seen);
        assert!(namesake.findings.told().is_empty(), "its own, from before a crash, until that has run out");
    }
    driver.compare_names(Some(&leader), &mut seen);
    let told = namesake.findings.told();
    assert!(told.iter().any(|it| it.text.contains("another broadcaster is also called one")), "{told:?}");
    driver.compare_names(Some(&namesake.replica.clone()), &mut seen);
    assert!(namesake.findings.told().is_empty());
}

#[tokio::test]
async fn a_store_that_was_made_anew_gets_its_clusters_id_back_from_the_bus() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    environment.home.look(&environment).await.unwrap();
    environment.home.look_at_bus(&environment).await.unwrap();
    let anew = EmbeddedStore::open(folder.path().join("anew.db")).await.unwrap();
    let tree = SecretTree::new(Arc::new(anew), Prefix::new("rotacast").unwrap());
    let later = Environment { tree, home: Home::default(), ..environment.clone() };
    later.home.look(&later).await.unwrap();
    assert!(later.home.id().is_some());
    assert_eq!(later.home.id(), environment.home.id());
    assert_eq!(later.home.look_at_bus(&later).await.unwrap(), None);
    let told = later.findings.told();
    let emptied =
        |it: &&Finding| it.subject == "cluster emptied store" && it.text.contains("was empty when this broadcaster");
    assert_eq!(told.iter().filter(emptied).count(), 1, "{told:?}");

    // With keys of its own it is another cluster, and the error says so.
    let other = EmbeddedStore::open(folder.path().join("other.db")).await.unwrap();
    let tree = SecretTree::new(Arc::new(other), Prefix::new("rotacast").unwrap());
    let staging = Environment { tree, home: Home::default(), key: SigningKey::generate(), ..environment.clone() };
    staging.home.look(&staging).await.unwrap();
    assert_ne!(staging.home.id(), environment.home.id());
    assert!(staging.home.look_at_bus(&staging).await.unwrap().is_some());
}
