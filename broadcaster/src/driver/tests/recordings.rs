//! Messages of an incarnation that is over, recorded and sent again.

use rotacast_proto::Envelope;
use rotacast_protocol::Challenge;
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::message::SyncReply;
use rotacast_protocol::status::InstanceStatus;

use super::super::mail::Question;
use super::faults::{hasty, register, sync_of};
use super::*;

/// How often each recording is sent.
const TIMES: usize = 5;

async fn status_of(running: &Running) -> Option<InstanceStatus> {
    let task = running.secrets.get(&name())?;
    let all = task.ask(|reply| Question::Instances { not_on: None, reply }).await?;
    all.into_iter().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn s53_a_recording_of_a_sync_keeps_nothing_alive_under_any_leader() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let identity = instance(&environment, "payments", 1);
    register(&bus, &identity, &[name()]).await;
    hold("it is known", async || status_of(&running).await.is_some()).await;
    let ask = async |request: &Envelope| {
        let reply = bus.sync(request, PATIENCE).await.unwrap();
        SyncReply::open(&reply, &environment.cluster, |_, _| Some(environment.key.public())).unwrap()
    };
    // Its life: some Syncs, each with an effect but the first.
    let (mut recorded, mut echo) = (Vec::new(), None);
    for number in 1..=4 {
        let request = sync_of(&identity, &[name()], number, echo);
        let reply = ask(&request).await;
        assert_eq!((reply.unproven, reply.secrets.is_empty()), (number == 1, number == 1), "{reply:?}");
        echo = reply.challenge;
        recorded.push(request);
    }
    // It would have been the next one, and did not arrive before the process died.
    recorded.push(sync_of(&identity, &[name()], 5, Challenge::new(echo.unwrap().get() ^ 1)));
    let replay = async |running: &Running| {
        let before = status_of(running).await.unwrap();
        let sign = running.secrets.heard().elsewhere(identity.key());
        for request in recorded.iter().chain(recorded.iter().rev()).cycle().take(2 * TIMES * recorded.len()) {
            let reply = ask(request).await;
            assert!(reply.unproven && reply.secrets.is_empty(), "a recording has an effect: {reply:?}");
        }
        let after = status_of(running).await.unwrap();
        assert!(after.silent_for_ms >= before.silent_for_ms, "it counts as heard: {before:?}, {after:?}");
        assert_eq!(after.lease_left_ms, 0, "it gets leases: {after:?}");
        assert_eq!(running.secrets.heard().elsewhere(identity.key()), sign);
    };
    hold("it counts as silent", async || status_of(&running).await.is_some_and(|it| it.standing == Standing::Fenced))
        .await;
    replay(&running).await;
    running.stop().await;

    let running = Running::start(&environment);
    hold("the next leader knows it", async || status_of(&running).await.is_some()).await;
    replay(&running).await;
    assert_ne!(status_of(&running).await.unwrap().standing, Standing::Live);
    running.stop().await;
}
