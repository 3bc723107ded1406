//! What a broadcaster that does not lead answers.

use futures::StreamExt as _;
use rotacast_protocol::coordinator::Order;

use super::*;
use rotacast_admin::RefusalKind;

use crate::api::{Action, Control as _, OperatorCommand, Refusal};
use crate::operators::Warrant;

/// A leader, and a follower of the same store.
struct Two {
    _folder: tempfile::TempDir,
    leader: DriverControl,
    follower: DriverControl,
    follower_role: watch::Sender<Role>,
    secrets: Secrets,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Two {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (environment, _bus) = environment(folder.path(), Policy::default()).await;
        put(&environment, "first").await;
        let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
        let driver = Driver::new(environment.clone(), secrets.clone());
        let leader = DriverControl::new(environment.clone(), secrets.clone(), driver.role(), stop.clone());
        let other =
            Environment { replica: Replica { name: "two".into(), address: None, run: Some(RunId(2)) }, ..environment };
        let follower_role = watch::Sender::new(Role::Follower);
        let follower = DriverControl::new(other, secrets.clone(), follower_role.subscribe(), stop.clone());
        let running = tokio::spawn(driver.run(stop.clone()));
        until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
        Self { _folder: folder, leader, follower, follower_role, secrets, stop, running }
    }

    async fn order(&self, order: Order) {
        let task = self.secrets.get(&name()).unwrap();
        let (reply, answer) = oneshot::channel();
        assert!(task.mail.send(Mail::Operator { by: "ada".parse().unwrap(), order, reply }).await.is_ok());
        answer.await.unwrap().unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_tells_what_the_record_says_and_refuses_the_rest() {
    let two = Two::start().await;
    let told = two.follower.status(Some(name())).await.unwrap();
    assert_eq!((told.leader, told.epoch, told.replica.as_str()), (false, None, "two"));
    let (known, read) = (&two.leader.status(Some(name())).await.unwrap().secrets[0], &told.secrets[0]);
    assert_eq!((read.current, read.revision, &read.versions), (Some(version(1)), known.revision, &known.versions));
    assert_eq!((known.record_read_at, read.record_read_at.is_some()), (None, true));
    // Read for each answer.
    two.order(Order::pause("a look").unwrap()).await;
    let told = two.follower.status(None).await.unwrap();
    assert_eq!(told.secrets.len(), 1);
    assert_eq!(told.secrets[0].overlays, [Overlay::Paused]);
    let unknown = two.follower.status(Some("payments/d".parse().unwrap())).await.err().unwrap();
    assert_eq!(unknown.kind(), RefusalKind::NotFound);

    let refused = |refusal: Option<Refusal>| assert_eq!(refusal.unwrap().kind(), RefusalKind::NotLeader);
    refused(two.follower.term().await.err());
    refused(two.follower.instances(None, None).await.err());
    for action in [Action::Order(Order::Resume), Action::Put(SecretValue::new(b"second".to_vec()))] {
        let command =
            OperatorCommand { secret: name(), action, proof: OrderProof::Dashboard, warrant: Warrant::default() };
        refused(two.follower.command("ada".parse().unwrap(), command).await.err());
    }
    assert_eq!(two.follower.status(None).await.unwrap().secrets[0].overlays, [Overlay::Paused]);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_follower_goes_on_when_it_takes_over_and_when_it_is_deposed() {
    let two = Two::start().await;
    let mut watch = two.follower.watch(Some(name()));
    let paused = |status: &SecretStatus| status.overlays.contains(&Overlay::Paused);
    let first = watch.next().await.unwrap().unwrap();
    assert!(first.record_read_at.is_some() && !paused(&first), "{first:?}");
    two.order(Order::pause("a look").unwrap()).await;
    let second = watch.next().await.unwrap().unwrap();
    assert!(second.record_read_at.is_some() && paused(&second), "{second:?}");
    // As far as the listener can see, it leads from now on, with the tasks that are there.
    two.follower_role.send_replace(Role::Leader { epoch: Epoch(9) });
    let third = watch.next().await.unwrap().unwrap();
    assert!(third.record_read_at.is_none() && paused(&third), "{third:?}");
    two.follower_role.send_replace(Role::Follower);
    let told = async {
        loop {
            let status = watch.next().await.unwrap().unwrap();
            if status.record_read_at.is_some() {
                return status;
            }
        }
    };
    assert!(paused(&tokio::time::timeout(PATIENCE, told).await.expect("the watch went quiet")));
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_have_the_store_read_are_bounded_and_their_places_come_back() {
    let two = Two::start().await;
    let mut open: Vec<_> = (0..super::super::listener::MAX_READING).map(|_| two.follower.watch(None)).collect();
    for watch in &mut open {
        watch.next().await.unwrap().unwrap();
    }
    let refused = two.follower.watch(None).next().await.unwrap().err().unwrap();
    assert_eq!(refused.kind(), RefusalKind::Busy);
    open.clear();
    let again = async {
        loop {
            if two.follower.watch(None).next().await.unwrap().is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("no place came back");
    two.stop().await;
}
