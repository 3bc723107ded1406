//! The cases: what every bus promises, one function for each promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rotacast_proto::{Envelope, Kind, MAX_PAYLOAD_BYTES};
use rotacast_protocol::{InstanceKey, Revision, SecretName};

use super::Fixture;
use super::sample::{Sample, instance, life, persist, persist_outcome, secret, subject, usual};
use super::watching::{Watching, registrations_of};
use crate::{BusError, CLAIM, LeaderBus, Level, MAX_MESSAGE_BYTES, MAX_REGISTRATION_BYTES};

/// Timeout of a Sync that the case expects to be answered.
const PATIENT: Duration = Duration::from_secs(30);
/// Timeout of a Sync that the case expects to get no answer.
const IMPATIENT: Duration = Duration::from_millis(500);

pub async fn a_newcomer_gets_the_last_state_of_each_secret<F: Fixture>(f: F) {
    let (sample, leader) = (Sample::new(), f.leader());
    let secrets = ["payments/db", "payments/cache", "mail"].map(secret);
    for revision in 1..=3 {
        for name in &secrets {
            let state = sample.state(name, format!("{name} {revision}"));
            persist(async || leader.publish_state(name, Revision(revision), &state).await).await;
        }
    }
    let mut watch = Watching::settled(f.instance().watch_states(&secrets)).await;
    assert_eq!(watch.since_resync, 3, "one message per secret");
    for name in &secrets {
        assert_eq!(watch.payload(name.as_str()).unwrap(), format!("{name} 3").as_bytes());
    }
    persist(async || leader.publish_state(&secrets[0], Revision(4), &sample.state(&secrets[0], "newer")).await).await;
    watch.until("the newer state", |w| w.payload("payments/db").is_some_and(|p| p == "newer")).await;
}

pub async fn a_newcomer_gets_the_last_registration_and_report_of_each_incarnation<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    for round in 1..=3 {
        for number in 1..=2 {
            let text = format!("{number} round {round}");
            persist(async || bus.register(&life(number), &sample.registration(&life(number), text.clone())).await)
                .await;
            persist(async || bus.report(&life(number), &sample.report(&life(number), text.clone())).await).await;
        }
    }
    let mut registrations = Watching::settled(leader.watch_registrations()).await;
    assert_eq!(registrations.since_resync, 2);
    assert_eq!(registrations.payload(&subject(&life(2))).unwrap(), "2 round 3");
    // A report is not acknowledged: once sent it may still be under way.
    let both =
        |w: &Watching| (1..=2).all(|n| w.payload(&subject(&life(n))).is_some_and(|p| p == &format!("{n} round 3")));
    let mut reports = Watching::settled(leader.watch_reports()).await;
    reports.until("the last report of each", both).await;
    // The reports have arrived by now, so a new reader gets exactly the last one of each instance.
    let newcomer = Watching::settled(leader.watch_reports()).await;
    assert!(both(&newcomer));
    assert_eq!(newcomer.since_resync, 2);

    persist(async || bus.register(&life(3), &sample.registration(&life(3), "new")).await).await;
    persist(async || bus.report(&life(3), &sample.report(&life(3), "new")).await).await;
    registrations.until("a later registration", |w| w.last.len() == 3).await;
    reports.until("a later report", |w| w.last.len() == 3).await;
}

pub async fn empty_logs_are_caught_up<F: Fixture>(f: F) {
    assert_eq!(Watching::settled(f.leader().watch_registrations()).await.since_resync, 0);
    assert_eq!(Watching::settled(f.leader().watch_reports()).await.since_resync, 0);
    assert_eq!(Watching::settled(f.instance().watch_states(&[secret("a")])).await.since_resync, 0);
    assert_eq!(Watching::settled(f.instance().watch_states(&[])).await.since_resync, 0);
}

pub async fn a_watch_of_absent_secrets_is_caught_up<F: Fixture>(f: F) {
    let (sample, leader) = (Sample::new(), f.leader());
    persist(async || leader.publish_state(&secret("there"), Revision(1), &sample.state(&secret("there"), "x")).await)
        .await;
    let mut watch = Watching::settled(f.instance().watch_states(&[secret("absent"), secret("too")])).await;
    assert_eq!(watch.since_resync, 0);
    persist(async || leader.publish_state(&secret("too"), Revision(1), &sample.state(&secret("too"), "y")).await).await;
    watch.until("a state that comes later", |w| w.last.contains_key("too")).await;
}

pub async fn only_the_watched_secrets_arrive<F: Fixture>(f: F) {
    let (sample, leader) = (Sample::new(), f.leader());
    let mut watch = Watching::settled(f.instance().watch_states(&[secret("b"), secret("d"), secret("b")])).await;
    for name in ["a", "b", "c", "d", "e"] {
        persist(async || leader.publish_state(&secret(name), Revision(1), &sample.state(&secret(name), name)).await)
            .await;
    }
    watch.until("the last watched one", |w| w.last.contains_key("d")).await;
    assert_eq!(watch.last.keys().collect::<Vec<_>>(), ["b", "d"]);
}

pub async fn many_keys_arrive_once_each<F: Fixture>(f: F) {
    const LIVES: u128 = 1500;
    const SECRETS: usize = 256;
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let secrets: Vec<_> = (0..SECRETS).map(|number| secret(&format!("group-{}/s{number}", number % 7))).collect();
    futures::stream::iter(1..=LIVES)
        .for_each_concurrent(64, |number| {
            let (bus, envelope) = (&bus, sample.registration(&life(number), number.to_string()));
            async move { persist(async || bus.register(&life(number), &envelope).await).await }
        })
        .await;
    futures::stream::iter(&secrets)
        .for_each_concurrent(64, |name| {
            let (leader, envelope) = (&leader, sample.state(name, name.as_str().to_owned()));
            async move { persist(async || leader.publish_state(name, Revision(1), &envelope).await).await }
        })
        .await;
    let registrations = Watching::settled(leader.watch_registrations()).await;
    assert_eq!((registrations.since_resync, registrations.last.len()), (1500, 1500));
    let states = Watching::settled(f.another_instance().await.watch_states(&secrets)).await;
    assert_eq!((states.since_resync, states.last.len()), (SECRETS, SECRETS));
}

pub async fn duplicates_are_harmless<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let (name, key) = (secret("payments/db"), life(1));
    let (state, registration) = (sample.state(&name, "one"), sample.registration(&key, "one"));
    for _ in 0..3 {
        persist(async || leader.publish_state(&name, Revision(1), &state).await).await;
        persist(async || bus.register(&key, &registration).await).await;
    }
    // Also from a broadcaster that does not remember the first attempt.
    persist(async || f.another_leader().await.publish_state(&name, Revision(1), &state).await).await;
    let watch = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    assert_eq!((watch.since_resync, &watch.last[name.as_str()]), (1, &state));
    let watch = Watching::settled(leader.watch_registrations()).await;
    assert_eq!((watch.since_resync, &watch.last[&registration.subject]), (1, &registration));
    // A broadcaster that restarted sends the same revision under a new id: that is no step back.
    let again = sample.state(&name, "one, again");
    persist(async || leader.publish_state(&name, Revision(1), &again).await).await;
    let watch = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    assert_eq!(watch.last[name.as_str()], again);
    // The old state arrives late and is refused.
    persist(async || leader.publish_state(&name, Revision(2), &sample.state(&name, "two")).await).await;
    let late = leader.publish_state(&name, Revision(1), &state).await;
    assert!(matches!(late, Err(BusError::Fenced { .. })), "{late:?}");
}

pub async fn states_and_registrations_survive_a_restart<F: Fixture>(mut f: F) {
    let (sample, name) = (Sample::new(), secret("payments/db"));
    persist(async || f.leader().publish_state(&name, Revision(1), &sample.state(&name, "before")).await).await;
    persist(async || f.instance().register(&life(1), &sample.registration(&life(1), "before")).await).await;
    let mut registrations = Watching::settled(f.leader().watch_registrations()).await;
    let mut states = Watching::settled(f.instance().watch_states(std::slice::from_ref(&name))).await;
    f.stop().await;
    f.start().await;
    let (leader, bus) = (f.leader(), f.instance());
    let newcomer = Watching::settled(leader.watch_registrations()).await;
    assert_eq!(newcomer.last.len(), 1);
    assert_eq!(newcomer.payload(&subject(&life(1))).unwrap(), "before");
    let newcomer = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    assert_eq!(newcomer.payload(name.as_str()).unwrap(), "before");

    let (after, entry) = (sample.state(&name, "after"), sample.registration(&life(2), "after"));
    persist(|| leader.publish_state(&name, Revision(2), &after)).await;
    let key = life(2);
    persist(|| bus.register(&key, &entry)).await;
    if F::HANDLES_SURVIVE {
        states.until("a state published after the restart", |w| w.last.get(name.as_str()) == Some(&after)).await;
        registrations.until("a registration after the restart", |w| w.last.contains_key(&subject(&life(2)))).await;
        assert!(states.resyncs >= 1, "continuity was lost and not reported");
        assert!(registrations.last.contains_key(&subject(&life(1))));
    } else {
        assert!(matches!(registrations.end().await, BusError::Cancelled));
    }
    let fenced = persist_outcome(|| leader.publish_state(&name, Revision(1), &after)).await;
    assert!(matches!(fenced, Err(BusError::Fenced { .. })), "the restart forgot the revision: {fenced:?}");
}

pub async fn a_bus_that_is_down_says_so<F: Fixture>(mut f: F) {
    let (sample, leader, bus, key) = (Sample::new(), f.leader(), f.instance(), life(1));
    f.stop().await;
    let (state, entry) = (sample.state(&secret("a"), "x"), sample.registration(&key, "x"));
    let name = secret("a");
    let (published, registered, read) = tokio::join!(
        leader.publish_state(&name, Revision(1), &state),
        bus.register(&key, &entry),
        leader.read_state(&name)
    );
    let synced = bus.sync(&sample.request(&key, "x"), IMPATIENT).await;
    for (what, outcome) in [("publish", published), ("register", registered), ("read_state", read.map(drop))] {
        assert!(matches!(outcome, Err(BusError::Unreachable { .. })), "{what}: {outcome:?}");
    }
    // Within the timeout the bus cannot always tell "no leader" from "no broadcaster reachable".
    assert!(synced.as_ref().is_err_and(BusError::is_transient), "sync: {synced:?}");
    // While nothing rotates, a broadcaster examines the bus and says what is wrong.
    let wrong = async |leader: &Arc<dyn LeaderBus>| -> Vec<String> {
        let found = leader.examine().await;
        found.into_iter().filter(|it| it.level == Level::Error).map(|it| format!("{}; {}", it.text, it.fix)).collect()
    };
    persist(async || match wrong(&leader).await {
        found if found.iter().any(|text| text.contains(F::CAUSE)) => Ok(()),
        found => Err(BusError::Unreachable { endpoint: F::CAUSE.into(), problem: format!("{found:?}") }),
    })
    .await;
    f.start().await;
    let (leader, bus) = (f.leader(), f.instance());
    persist(|| leader.publish_state(&name, Revision(1), &state)).await;
    persist(|| bus.register(&key, &entry)).await;
    assert_eq!(registrations_of(&*leader).await, [entry]);
    persist(async || match wrong(&leader).await {
        found if found.is_empty() => Ok(()),
        found => Err(BusError::Unreachable { endpoint: "after its start".into(), problem: format!("{found:?}") }),
    })
    .await;
}

pub async fn a_recreated_log_is_read_anew<F: Fixture>(mut f: F) {
    let (sample, leader, bus, name) = (Sample::new(), f.leader(), f.instance(), secret("payments/db"));
    for revision in 1..=5 {
        persist(async || leader.publish_state(&name, Revision(revision), &sample.state(&name, "before")).await).await;
        let key = life(u128::from(revision));
        persist(async || bus.register(&key, &sample.registration(&key, "before")).await).await;
    }
    let mut states = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    let mut registrations = Watching::settled(leader.watch_registrations()).await;
    if !f.lose_logs().await {
        return;
    }
    let (after, entry) = (sample.state(&name, "after"), sample.registration(&life(9), "after"));
    persist(|| leader.publish_state(&name, Revision(6), &after)).await;
    let key = life(9);
    persist(|| bus.register(&key, &entry)).await;
    let arrived = |w: &Watching| w.resyncs > 0 && w.caught_up && w.last.values().any(|e| e.payload == "after");
    states.until("a resync and the new state", arrived).await;
    registrations.until("a resync and the new registration", arrived).await;
    assert_eq!(registrations_of(&*leader).await, [entry]);
    // The numbers of the log begin again, and publishing goes on.
    persist(async || leader.publish_state(&name, Revision(7), &sample.state(&name, "later")).await).await;
    states.until("a later state", |w| w.last[name.as_str()].payload == "later").await;
    let report = sample.report(&life(9), "after");
    persist(async || bus.report(&life(9), &report).await).await;
}

pub async fn a_log_whose_records_are_all_gone_is_read_to_its_end<F: Fixture>(mut f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let report = async |number: u128, text: &str| {
        let report = sample.report(&life(number), text.to_owned());
        persist(async || bus.report(&life(number), &report).await).await;
    };
    for number in 1..=20 {
        report(number, "before").await;
    }
    let mut before = Watching::settled(leader.watch_reports()).await;
    before.until("every report", |w| w.last.len() == 20).await;
    if !f.empty_reports().await {
        return;
    }
    // A new reader finds nothing to read, and the earlier one goes on.
    let mut after = Watching::settled(f.another_leader().await.watch_reports()).await;
    assert_eq!(after.since_resync, 0, "{:?}", after.last.keys());
    report(21, "after").await;
    let arrived = |w: &Watching| w.payload(&subject(&life(21))).is_some_and(|payload| payload == "after");
    before.until("the report of afterwards", arrived).await;
    after.until("the report of afterwards", arrived).await;
}

pub async fn s27_a_slow_reader_ends_with_the_newest<F: Fixture>(f: F) {
    // More than any bus buffers for a reader that does not read: 4096 messages, and some hundreds under way.
    const REPORTS: u64 = 6_000;
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.another_instance().await);
    let mut slow = Watching::settled(leader.watch_reports()).await;
    let mut quick = Watching::settled(f.another_leader().await.watch_reports()).await;
    let padding = "x".repeat(2000);
    // Sent once, long before the rest: a reader that resumes after the messages it missed never gets it.
    let cold_life = life(100);
    let cold = sample.report(&cold_life, "once");
    let send = async {
        persist(|| bus.report(&cold_life, &cold)).await;
        // The reports of one incarnation keep their order. Those of different incarnations may be interleaved.
        let lives = (0..3).map(async |own: u64| {
            let key = life(u128::from(own));
            for number in (1..=REPORTS).filter(|number| number % 3 == own) {
                let report = sample.report(&key, format!("{number} {padding}"));
                persist(|| bus.report(&key, &report)).await;
            }
        });
        futures::future::join_all(lives).await;
    };
    let newest = |w: &Watching| {
        w.last.get(&cold.subject) == Some(&cold)
            && (REPORTS - 2..=REPORTS).all(|number| {
                let payload = w.payload(&subject(&life(u128::from(number % 3))));
                payload.is_some_and(|payload| payload.starts_with(format!("{number} ").as_bytes()))
            })
    };
    // When the fast reader has everything, every message has passed the slow one, which has read nothing.
    tokio::join!(send, quick.until("the newest reports", newest));
    slow.until("the newest reports", newest).await;
}

pub async fn what_is_too_large_is_refused_and_the_largest_passes<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let (name, key) = (secret("payments/db"), life(1));
    let huge = vec![b'x'; MAX_MESSAGE_BYTES];
    let refused = |what: &str, outcome: Result<(), BusError>| match outcome {
        Err(BusError::TooLarge { found, limit, .. }) => assert!(found > limit, "{what}: {found} against {limit}"),
        other => panic!("{what}: {other:?}"),
    };
    let state = sample.state(&name, huge.clone());
    refused("publish", leader.publish_state(&name, Revision(1), &state).await);
    refused("register", bus.register(&key, &sample.registration(&key, huge.clone())).await);
    refused("report", bus.report(&key, &sample.report(&key, huge.clone())).await);
    refused("sync", bus.sync(&sample.request(&key, huge), IMPATIENT).await.map(drop));

    let too_much = sample.registration(&key, vec![b'x'; MAX_REGISTRATION_BYTES]);
    if F::BOUNDS_REGISTRATIONS {
        refused("register", bus.register(&key, &too_much).await);
    }

    let largest = vec![b'y'; MAX_PAYLOAD_BYTES];
    let state = sample.state(&name, largest.clone());
    persist(async || leader.publish_state(&name, Revision(1), &state).await).await;
    // Room for the attributes.
    let registration = sample.registration(&key, vec![b'y'; MAX_REGISTRATION_BYTES - 4096]);
    persist(async || bus.register(&key, &registration).await).await;
    let watch = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    assert!(watch.last[name.as_str()] == state, "the largest state changed on its way");
    assert!(registrations_of(&*leader).await == [registration], "the largest registration changed on its way");
    let mut reports = Watching::settled(leader.watch_reports()).await;
    persist(async || bus.report(&key, &sample.report(&key, largest.clone())).await).await;
    reports.until("the largest report", |w| !w.last.is_empty()).await;
}

pub async fn a_sync_without_leader_says_so<F: Fixture>(f: F) {
    let sample = Sample::new();
    let outcome = f.instance().sync(&sample.request(&life(1), "hello"), PATIENT).await;
    assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
}

pub async fn a_sync_is_answered<F: Fixture>(f: F) {
    let (sample, bus) = (Sample::new(), f.instance());
    let mut calls = f.leader().serve_sync();
    let request = sample.request(&life(1), "hello");
    let serve = async {
        let call = calls.next().await.unwrap().unwrap();
        assert_eq!(call.request, request);
        let reply = sample.reply(&call.request);
        call.reply.send(reply.clone());
        // Goes on answering while the reply is under way.
        (reply, calls.next().await)
    };
    let ask = async { persist(|| bus.sync(&request, PATIENT)).await };
    tokio::pin!(serve);
    tokio::select! {
        (reply, _) = &mut serve => panic!("a second call: {reply:?}"),
        answer = ask => {
            assert_eq!(answer.payload, "re: hello");
            sample.assert_verifies(&answer, Kind::SyncReply);
        }
    }
}

pub async fn syncs_are_answered_out_of_order<F: Fixture>(f: F) {
    const CALLS: usize = 50;
    let (sample, bus) = (Arc::new(Sample::new()), f.instance());
    let mut calls = f.leader().serve_sync();
    let serving = Arc::clone(&sample);
    let server = tokio::spawn(async move {
        let mut waiting = Vec::new();
        while let Some(call) = calls.next().await {
            waiting.push(call.unwrap());
            if waiting.len() == CALLS {
                // Answered in reverse order.
                for call in waiting.drain(..).rev() {
                    let reply = serving.reply(&call.request);
                    call.reply.send(reply);
                }
            }
        }
    });
    let asks = (0..CALLS).map(|number| {
        let request = sample.request(&life(number as u128), number.to_string());
        let bus = Arc::clone(&bus);
        async move {
            let answer = persist(|| bus.sync(&request, PATIENT)).await;
            assert_eq!(answer.payload, format!("re: {number}"));
            assert_eq!(answer.subject, request.subject);
        }
    });
    join_all(asks).await;
    server.abort();
}

pub async fn a_leader_that_goes_mid_call_is_no_leader<F: Fixture>(f: F) {
    let (sample, bus) = (Sample::new(), f.instance());
    let mut calls = f.leader().serve_sync();
    let request = sample.request(&life(1), "hello");
    // Answers until a call arrives, and leaves that call without an answer.
    let ask = async {
        loop {
            let outcome = bus.sync(&request, IMPATIENT).await;
            assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
        }
    };
    let call = tokio::select! {
        call = calls.next() => call.unwrap().unwrap(),
        never = ask => never,
    };
    drop(call);
    let asked = bus.sync(&request, IMPATIENT);
    let gone = async {
        let call = calls.next().await.unwrap().unwrap();
        drop(calls);
        drop(call);
    };
    let (outcome, ()) = tokio::join!(asked, gone);
    assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
}

pub async fn a_dropped_sync_stream_leads_no_more<F: Fixture>(f: F) {
    let (sample, bus) = (Sample::new(), f.instance());
    let request = sample.request(&life(1), "hello");
    let calls = f.leader().serve_sync();
    drop(calls);
    let outcome = bus.sync(&request, IMPATIENT).await;
    assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
    // A successor takes over without a pause.
    let mut calls = f.another_leader().await.serve_sync();
    let serve = async {
        while let Some(call) = calls.next().await {
            let call = call.unwrap();
            let reply = sample.reply(&call.request);
            call.reply.send(reply);
        }
    };
    tokio::select! {
        () = serve => panic!("the stream ended"),
        answer = persist(|| bus.sync(&request, PATIENT)) => assert_eq!(answer.payload, "re: hello"),
    }
}

pub async fn dropped_watches_leave_the_bus_working<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let name = secret("payments/db");
    persist(async || leader.publish_state(&name, Revision(1), &sample.state(&name, "one")).await).await;
    for round in 0..usual(30, 100) {
        let mut states = Watching::new(bus.watch_states(std::slice::from_ref(&name)));
        let registrations = leader.watch_registrations();
        // Some watches end before they begin, some in the middle, some after they have caught up.
        match round % 3 {
            0 => {}
            1 => states.until("a message", |w| !w.last.is_empty()).await,
            _ => states.until("caught up", |w| w.caught_up).await,
        }
        drop(registrations);
    }
    let mut watch = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
    persist(async || leader.publish_state(&name, Revision(2), &sample.state(&name, "two")).await).await;
    watch.until("the newer state", |w| w.last[name.as_str()].payload == "two").await;
}

pub async fn an_older_revision_is_fenced<F: Fixture>(f: F) {
    let (sample, leader, name) = (Sample::new(), f.leader(), secret("payments/db"));
    persist(async || leader.publish_state(&name, Revision(5), &sample.state(&name, "five")).await).await;
    let outcome = leader.publish_state(&name, Revision(4), &sample.state(&name, "four")).await;
    assert!(matches!(outcome, Err(BusError::Fenced { .. })), "{outcome:?}");
    // Other secrets have revisions of their own.
    persist(async || leader.publish_state(&secret("other"), Revision(1), &sample.state(&secret("other"), "x")).await)
        .await;
    let watch = Watching::settled(f.instance().watch_states(std::slice::from_ref(&name))).await;
    assert_eq!(watch.last[name.as_str()].payload, "five");
}

pub async fn s22_a_later_leader_fences_an_earlier_one<F: Fixture>(f: F) {
    let (sample, name) = (Sample::new(), secret("payments/db"));
    let (earlier, later) = (f.leader(), f.another_leader().await);
    let publish = |text: &'static str| sample.state(&name, text);
    persist(async || earlier.publish_state(&name, Revision(5), &publish("five")).await).await;
    persist(async || later.publish_state(&name, Revision(6), &publish("six")).await).await;
    let outcome = earlier.publish_state(&name, Revision(5), &publish("five, late")).await;
    assert!(matches!(outcome, Err(BusError::Fenced { .. })), "{outcome:?}");
    // Any leader that has the newest revision may publish it, whether or not it has published before.
    persist(async || earlier.publish_state(&name, Revision(7), &publish("seven")).await).await;
    persist(async || later.publish_state(&name, Revision(8), &publish("eight")).await).await;
    // Two leaders publish at once: the higher revision stays.
    for round in 0..usual(6, 20) {
        let (low, high) = (Revision(10 + 2 * round), Revision(11 + 2 * round));
        let (low_state, high_state) = (publish("low"), publish("high"));
        let (lower, higher) =
            tokio::join!(earlier.publish_state(&name, low, &low_state), later.publish_state(&name, high, &high_state),);
        higher.unwrap();
        assert!(matches!(lower, Ok(()) | Err(BusError::Fenced { .. })), "{lower:?}");
        let watch = Watching::settled(f.instance().watch_states(std::slice::from_ref(&name))).await;
        assert_eq!(watch.last[name.as_str()], high_state);
    }
}

pub async fn a_state_that_is_none_of_ours_is_read_and_overwritten_and_no_other<F: Fixture>(f: F) {
    let (sample, leader, stranger, name) = (Sample::new(), f.leader(), f.another_leader().await, secret("payments/db"));
    assert_eq!(persist(async || leader.read_state(&name).await).await, None);
    let ours = sample.state(&name, "ours");
    persist(async || leader.publish_state(&name, Revision(1), &ours).await).await;
    let theirs = ["theirs", "theirs again"].map(|text| sample.state(&name, text));
    persist(async || stranger.publish_state(&name, Revision(1 << 40), &theirs[0]).await).await;
    let next = sample.state(&name, "ours, next");
    let fenced = persist_outcome(async || leader.publish_state(&name, Revision(2), &next).await).await;
    assert!(matches!(fenced, Err(BusError::Fenced { .. })), "{fenced:?}");
    assert_eq!(persist(async || leader.read_state(&name).await).await.as_ref(), Some(&theirs[0]));
    // Another leader publishes between this one's read and its write.
    persist(async || stranger.publish_state(&name, Revision(1 << 41), &theirs[1]).await).await;
    let over =
        async |over| persist_outcome(async || leader.publish_over(&name, Revision(2), &next, Some(over)).await).await;
    let fenced = over(&theirs[0]).await;
    assert!(matches!(fenced, Err(BusError::Fenced { .. })), "{fenced:?}");
    over(&theirs[1]).await.unwrap();
    assert_eq!(persist(async || stranger.read_state(&name).await).await, Some(next));
    // Publishing goes on from there.
    let later = sample.state(&name, "ours, later");
    persist(async || leader.publish_state(&name, Revision(3), &later).await).await;
    let fenced = persist_outcome(async || stranger.publish_state(&name, Revision(2), &ours).await).await;
    assert!(matches!(fenced, Err(BusError::Fenced { .. })), "{fenced:?}");
    let watch = Watching::settled(f.instance().watch_states(std::slice::from_ref(&name))).await;
    assert_eq!(watch.last[name.as_str()], later);
}

pub async fn a_claim_stays_and_is_no_state<F: Fixture>(f: F) {
    let (sample, leader, other, name) = (Sample::new(), f.leader(), f.another_leader().await, secret("payments/db"));
    assert_eq!(persist(async || leader.read_claim().await).await, None);
    let claim = sample.sign(Kind::ClusterClaim, CLAIM, "an id");
    persist(async || leader.publish_claim(&claim).await).await;
    persist(async || leader.publish_state(&name, Revision(1), &sample.state(&name, "one")).await).await;
    assert_eq!(persist(async || other.read_claim().await).await.as_ref(), Some(&claim));
    let watch = Watching::settled(f.instance().watch_states(std::slice::from_ref(&name))).await;
    assert_eq!(watch.last.len(), 1, "instances see states alone");
    let later = sample.sign(Kind::ClusterClaim, CLAIM, "another id");
    persist(async || other.publish_claim(&later).await).await;
    assert_eq!(persist(async || leader.read_claim().await).await, Some(later));
    assert_eq!(persist(async || leader.read_state(&name).await).await.map(|state| state.payload), Some("one".into()));
}

pub async fn a_registration_that_was_acknowledged_reaches_a_watch_that_begins_later<F: Fixture>(f: F) {
    let (sample, leader) = (Sample::new(), f.leader());
    let buses = [f.instance(), f.another_instance().await];
    // Further registrations, so that reads and registrations overlap.
    let checks = (0..60_u128).map(|number| {
        let (sample, leader, bus) = (&sample, &leader, &buses[number as usize % 2]);
        async move {
            let key = life(number);
            let (entry, leave) = (sample.registration(&key, "here"), sample.registration(&key, "left"));
            persist(async || bus.register(&key, &entry).await).await;
            let shows = |message: Envelope| move |w: &Watching| w.last.get(&message.subject) == Some(&message);
            let mut watch = Watching::new(leader.watch_registrations());
            watch.until(&format!("registration {number}"), shows(entry.clone())).await;
            persist(async || bus.register(&key, &leave).await).await;
            let mut later = Watching::new(leader.watch_registrations());
            later.until(&format!("leave {number}"), |w| w.last.contains_key(&leave.subject)).await;
            assert_eq!(later.last[&leave.subject], leave, "it replaces the registration");
            watch.until(&format!("leave {number} after its registration"), shows(leave)).await;
        }
    });
    join_all(checks).await;
}

pub async fn a_pruned_incarnation_is_gone_and_may_return<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let entries = [1, 2].map(|number| sample.registration(&life(number), "here"));
    for (number, entry) in [1, 2].into_iter().zip(&entries) {
        persist(async || bus.register(&life(number), entry).await).await;
    }
    let mut watch = Watching::settled(leader.watch_registrations()).await;
    persist(async || leader.prune_registration(&life(1)).await).await;
    persist(async || leader.prune_registration(&life(1)).await).await;
    persist(async || leader.prune_registration(&life(77)).await).await;
    assert_eq!(registrations_of(&*leader).await, [entries[1].clone()]);
    // After the last entry is pruned, a watch of the empty log still catches up.
    persist(async || leader.prune_registration(&life(2)).await).await;
    assert!(registrations_of(&*leader).await.is_empty());
    // The same message with the same id: the entry was pruned by mistake, and the instance registers again.
    persist(async || bus.register(&life(1), &entries[0]).await).await;
    assert_eq!(registrations_of(&*leader).await, [entries[0].clone()]);
    persist(async || bus.register(&life(3), &sample.registration(&life(3), "here")).await).await;
    watch.until("a registration after the prune", |w| w.last.contains_key(&subject(&life(3)))).await;
}

pub async fn a_leave_replaces_the_registration<F: Fixture>(f: F) {
    let (sample, leader, bus, key) = (Sample::new(), f.leader(), f.instance(), life(1));
    persist(async || bus.register(&key, &sample.registration(&key, "here")).await).await;
    let mut watch = Watching::settled(leader.watch_registrations()).await;
    let leave = sample.registration(&key, "left");
    persist(async || bus.register(&key, &leave).await).await;
    watch.until("the leave", |w| w.last[&leave.subject] == leave).await;
    assert_eq!(registrations_of(&*leader).await, [leave]);
}

pub async fn a_thousand_instances_register_at_once<F: Fixture>(f: F) {
    let (sample, leader) = (Sample::new(), f.leader());
    let buses = [f.instance(), f.another_instance().await];
    let mut watch = Watching::settled(leader.watch_registrations()).await;
    let registrations = (0..1000_u128).map(|number| {
        let key = instance(&format!("service-{}", number % 10), &format!("pod-{number}"), number);
        let (bus, entry) = (&buses[number as usize % 2], sample.registration(&key, "here"));
        async move { persist(|| bus.register(&key, &entry)).await }
    });
    join_all(registrations).await;
    assert_eq!(registrations_of(&*leader).await.len(), 1000);
    watch.until("a thousand registrations", |w| w.last.len() == 1000).await;
}

pub async fn signatures_and_attributes_survive<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let (name, key) = (secret("payments/db"), life(u128::MAX));
    let every_byte: Bytes = (0..=255_u8).cycle().take(1024).collect();
    let with_trace = |mut envelope: Envelope| {
        envelope.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into();
        envelope
    };
    for payload in [every_byte, Bytes::new(), Bytes::from_static(b"NATS/1.0\r\nce-id: forged\r\n\r\n")] {
        let state = with_trace(sample.state(&name, payload.clone()));
        persist(async || leader.publish_state(&name, Revision(1), &state).await).await;
        let states = Watching::settled(bus.watch_states(std::slice::from_ref(&name))).await;
        assert_eq!(states.last[name.as_str()], state);
        sample.assert_verifies(&states.last[name.as_str()], Kind::SecretState);

        let entry = with_trace(sample.registration(&key, payload.clone()));
        persist(async || bus.register(&key, &entry).await).await;
        assert_eq!(Watching::settled(leader.watch_registrations()).await.last[&entry.subject], entry);
        sample.assert_verifies(&entry, Kind::Registration);

        let mut reports = Watching::settled(leader.watch_reports()).await;
        let report = with_trace(sample.report(&key, payload.clone()));
        persist(async || bus.report(&key, &report).await).await;
        reports.until("the report as sent", |w| w.last.get(&report.subject) == Some(&report)).await;

        let mut calls = leader.serve_sync();
        let request = with_trace(sample.request(&key, payload));
        let serve = async {
            let call = calls.next().await.unwrap().unwrap();
            assert_eq!(call.request, request);
            let reply = with_trace(sample.reply(&call.request));
            call.reply.send(reply.clone());
            // Held, because the end of the stream may take the reply with it.
            futures::future::pending::<()>().await;
        };
        tokio::select! {
            () = serve => unreachable!("it never ends"),
            answer = persist(|| bus.sync(&request, PATIENT)) => {
                assert_eq!(answer.traceparent, request.traceparent);
                sample.assert_verifies(&answer, Kind::SyncReply);
            }
        }
    }
}

pub async fn names_with_dots_and_slashes_stay_apart<F: Fixture>(f: F) {
    let (sample, leader, bus) = (Sample::new(), f.leader(), f.instance());
    let names = ["a", "a.b", "a/b", "a-b", "a_b", "a.b/c.d", "a/b.c/d", "a.b.c.d"];
    for name in names {
        persist(async || leader.publish_state(&secret(name), Revision(1), &sample.state(&secret(name), name)).await)
            .await;
    }
    for name in names {
        let watch = Watching::settled(bus.watch_states(&[secret(name)])).await;
        assert_eq!(watch.last.keys().collect::<Vec<_>>(), [name]);
        assert_eq!(watch.last[name].payload, name);
    }
    let keys = [("a.b", "c"), ("a", "b.c"), ("a", "b"), ("a.b.c", "d.e.f")].map(|(s, i)| instance(s, i, 1));
    for key in &keys {
        persist(async || bus.register(key, &sample.registration(key, subject(key))).await).await;
    }
    assert_eq!(registrations_of(&*leader).await.len(), keys.len());
    persist(async || leader.prune_registration(&keys[0]).await).await;
    let left: Vec<_> = registrations_of(&*leader).await.into_iter().map(|entry| entry.subject).collect();
    assert_eq!(left.len(), keys.len() - 1);
    assert!(!left.contains(&subject(&keys[0])));
}

pub async fn random_traffic_converges<F: Fixture>(f: F) {
    let seed = match std::env::var("ROTACAST_SEED") {
        Ok(seed) => seed.parse().expect("ROTACAST_SEED is a whole number"),
        Err(_) => rand::random::<u64>(),
    };
    eprintln!("random_traffic_converges: ROTACAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (sample, leaders) = (Sample::new(), [f.leader(), f.another_leader().await]);
    let buses = [f.instance(), f.another_instance().await];
    let secrets: Vec<SecretName> = (0..5).map(|number| secret(&format!("s.{number}/x"))).collect();
    let lives: Vec<InstanceKey> = (0..8).map(life).collect();
    let mut revisions = vec![0_u64; secrets.len()];
    let (mut states, mut registrations) = (BTreeMap::new(), BTreeMap::new());
    let mut watches = Vec::new();
    let mut registration_watches = Vec::new();
    for step in 0..usual(100, 300) {
        match random.random_range(0..10) {
            0..=3 => {
                let which = random.random_range(0..secrets.len());
                revisions[which] += random.random_range(0..3);
                let state = sample.state(&secrets[which], step.to_string());
                let leader = &leaders[random.random_range(0..2)];
                for _ in 0..random.random_range(1..3) {
                    persist(async || leader.publish_state(&secrets[which], Revision(revisions[which]), &state).await)
                        .await;
                }
                states.insert(state.subject.clone(), state);
            }
            4 => {
                let which = random.random_range(0..secrets.len());
                if let Some(older) =
                    revisions[which].checked_sub(1).filter(|_| states.contains_key(secrets[which].as_str()))
                {
                    let state = sample.state(&secrets[which], "stale");
                    let leader = &leaders[random.random_range(0..2)];
                    let outcome = leader.publish_state(&secrets[which], Revision(older), &state).await;
                    assert!(matches!(outcome, Err(BusError::Fenced { .. })), "seed {seed} step {step}: {outcome:?}");
                }
            }
            5..=7 => {
                let key = &lives[random.random_range(0..lives.len())];
                let entry = sample.registration(key, step.to_string());
                for _ in 0..random.random_range(1..3) {
                    let bus = &buses[random.random_range(0..2)];
                    persist(async || bus.register(key, &entry).await).await;
                }
                registrations.insert(entry.subject.clone(), entry);
            }
            8 => {
                let key = &lives[random.random_range(0..lives.len())];
                let leader = &leaders[random.random_range(0..2)];
                persist(async || leader.prune_registration(key).await).await;
                registrations.remove(&subject(key));
                // A watch says nothing of a prune, so a reader that has seen the entry keeps it.
                registration_watches.clear();
            }
            _ => {
                watches.push(Watching::new(buses[random.random_range(0..2)].watch_states(&secrets)));
                let leader = &leaders[random.random_range(0..2)];
                registration_watches.push(Watching::new(leader.watch_registrations()));
                if watches.len() > 6 {
                    watches.remove(random.random_range(0..watches.len()));
                }
            }
        }
        if step % 50 == 49 {
            let leader = &leaders[random.random_range(0..2)];
            let watch = Watching::settled(leader.watch_registrations()).await;
            assert_eq!(watch.last, registrations, "seed {seed} step {step}");
        }
    }
    for watch in &mut watches {
        watch.until(&format!("the last states (seed {seed})"), |w| w.last == states).await;
    }
    for watch in &mut registration_watches {
        watch.until(&format!("the last registrations (seed {seed})"), |w| w.last == registrations).await;
    }
}
