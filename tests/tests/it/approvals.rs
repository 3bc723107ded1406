//! Roles and approvals with the real command line, on two broadcasters of one store.

use std::process::Output;

use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Commands, LIMIT, Options, Roles, SECRET, World};
use rustix::process::Signal;
use serde_json::Value;

const REPLICAS: usize = 2;

fn roles(within: &str, of: &[(&'static str, &'static str)]) -> Roles {
    let sections = format!(
        "[roles.dba]\nsecrets = [\"payments/*\"]\norders = [\"rotate\", \"pause\", \"resume\"]\napprovals = 2\n\
         approvals_within = \"{within}\"\n[roles.viewer]\nsecrets = [\"*\"]\n[roles.first-aid]\nsecrets = [\"*\"]\norders = \
         [\"*\"]\nemergency = true\n"
    );
    Roles { sections, of: of.to_vec() }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn done(commands: &Commands, arguments: &[&str]) -> String {
    let ran = commands.run(arguments).await;
    assert!(ran.status.success(), "{arguments:?}: {}", told(&ran));
    told(&ran)
}

async fn refused(commands: &Commands, arguments: &[&str]) -> String {
    let ran = commands.run(arguments).await;
    assert!(!ran.status.success(), "{arguments:?}: {}", told(&ran));
    told(&ran)
}

/// The requests that wait, as JSON.
async fn waiting(commands: &Commands) -> Vec<Value> {
    let ran = commands.run(&["approvals", "-o", "json"]).await;
    assert!(ran.status.success(), "{}", told(&ran));
    let view: Value = serde_json::from_slice(&ran.stdout).unwrap();
    view["requests"].as_array().unwrap().clone()
}

async fn only_request(commands: &Commands) -> String {
    let all = waiting(commands).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]["id"].as_str().unwrap().to_owned()
}

async fn leader(world: &World, but: Option<usize>) -> usize {
    until("a broadcaster to lead", LIMIT, async || {
        for (which, replica) in world.operator.each().enumerate().filter(|(which, _)| Some(*which) != but) {
            if replica.broadcaster().await.is_ok_and(|status| status.leader) {
                return Some(which);
            }
        }
        None
    })
    .await
}

/// Has both broadcasters read their configuration again, and waits until they have.
async fn reload(world: &mut World) {
    for which in 0..REPLICAS {
        let lines = |world: &mut World| world.replica(which).log().matches("the configuration was read again").count();
        let before = lines(world);
        world.replica(which).signal(Signal::HUP);
        until("the configuration to be read", LIMIT, async || (lines(world) > before).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_waits_for_two_others_who_may_give_it_also_over_a_change_of_leader() {
    let people = [("ada", "dba"), ("bob", "dba"), ("kim", "dba"), ("eve", "viewer")];
    let rules = roles("1h", &people);
    let options = Options::default().replicas(REPLICAS).leader_ttl("3s").roles(rules.clone());
    let Some(mut world) = World::start(programs!(), options).await else { return };
    for which in 0..REPLICAS {
        world.replica(which).spawn();
    }
    let first = leader(&world, None).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    let [ada, bob, kim, eve] = ["ada", "bob", "kim", "eve"].map(|name| world.commands().of(name));

    // Without a right, an order is refused by name, with what is needed.
    let denied = refused(&eve, &["rotate", SECRET]).await;
    assert!(
        denied.contains("eve may not rotate payments/db (roles: viewer)") && denied.contains("such as dba"),
        "{denied}"
    );

    let asked = done(&ada, &["rotate", SECRET]).await;
    assert!(asked.contains("waits for 2 approvals"), "{asked}");
    let id = only_request(&eve).await;
    let own = refused(&ada, &["approvals", "approve", &id]).await;
    assert!(own.contains("ada has given this order") && own.contains("cannot approve it"), "{own}");
    let viewer = refused(&eve, &["approvals", "approve", &id]).await;
    assert!(viewer.contains("eve may not rotate payments/db"), "{viewer}");
    for _ in 0..2 {
        // The same person twice counts once.
        let one = done(&bob, &["approvals", "approve", &id]).await;
        assert!(
            one.contains("it still waits for one approval") || one.contains("it still waits for 1 approval"),
            "{one}"
        );
    }

    world.replica(first).kill().await;
    leader(&world, Some(first)).await;
    assert_eq!(waiting(&kim).await[0]["approvals"][0]["operator"], "bob", "the approval has outlived its leader");
    let last = done(&kim, &["approvals", "approve", &id]).await;
    assert!(last.contains("it had all approvals, and is carried out"), "{last}");
    let ended = world.ended(2).await;
    assert_eq!(ended.outcome, "retired", "{ended:?}");
    assert_eq!(waiting(&ada).await, Vec::<Value>::new());
    let again = refused(&kim, &["approvals", "approve", &id]).await;
    assert!(again.contains("not found"), "{again}");
    // Who has ordered and approved it, and by which role, is in the new leader's log.
    let trail = world.audits().into_iter().flat_map(|trail| trail.entries);
    let ordered = trail.into_iter().find(|it| it.action == "ordered" && it.details["order"] == "rotate").unwrap();
    assert_eq!((ordered.actor.as_str(), &ordered.details["role"]), ("ada", &"dba".into()));
    assert_eq!(ordered.details["approvals"], serde_json::json!(["bob", "kim"]), "{ordered:?}");
    world.replica(first).spawn();
    // Before it is up, a signal to reload would end it.
    let back = world.operator.at(first);
    until("the other broadcaster to answer", LIMIT, async || back.broadcaster().await.ok()).await;

    // An operator who is removed has approved nothing: the other approval is not enough.
    done(&ada, &["pause", SECRET, "--reason", "a freeze"]).await;
    let id = only_request(&ada).await;
    done(&kim, &["approvals", "approve", &id]).await;
    let without_kim = roles("1h", &[("ada", "dba"), ("bob", "dba"), ("eve", "viewer")]);
    world.change_roles(&rules, &without_kim);
    reload(&mut world).await;
    let bobs = done(&bob, &["approvals", "approve", &id]).await;
    assert!(bobs.contains("it still waits for"), "{bobs}");
    refused(&kim, &["approvals", "approve", &id]).await;
    done(&ada, &["approvals", "withdraw", &id]).await;
    assert_eq!(waiting(&ada).await, Vec::<Value>::new());

    // Approvals expire with their order.
    let short = roles("2s", &people);
    world.change_roles(&without_kim, &short);
    reload(&mut world).await;
    done(&ada, &["pause", SECRET, "--reason", "a freeze"]).await;
    let id = only_request(&ada).await;
    done(&bob, &["approvals", "approve", &id]).await;
    until("the order to expire", LIMIT, async || waiting(&ada).await.is_empty().then_some(())).await;
    let late = refused(&kim, &["approvals", "approve", &id]).await;
    assert!(late.contains("not found") || late.contains("has expired"), "{late}");

    // One who may act alone does, on record and for everyone to see.
    world.change_roles(&short, &roles("1h", &[("ada", "first-aid"), ("bob", "dba")]));
    reload(&mut world).await;
    let needed = refused(&ada, &["pause", SECRET, "--reason", "the credential has leaked"]).await;
    assert!(needed.contains("--emergency"), "{needed}");
    done(&ada, &["pause", SECRET, "--reason", "the credential has leaked", "--emergency"]).await;
    world.until("the pause", |status| status.overlays.contains(&"paused".to_owned()).then_some(())).await;
    let found = ada.run(&["doctor"]).await;
    assert!(
        told(&found).contains("ada acted alone") && told(&found).contains("the credential has leaked"),
        "{}",
        told(&found)
    );
    assert_eq!(service.stop().await.queries_failed, 0);
}
