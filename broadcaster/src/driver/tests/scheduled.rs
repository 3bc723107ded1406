//! Rotations that a schedule starts.

use std::sync::Mutex;

use rotacast_protocol::Outcome;

use super::*;

/// Settings whose schedule is set while the driver runs.
struct Scheduled {
    fixed: SecretSettings,
    schedule: Mutex<Option<Schedule>>,
}

impl Settings for Scheduled {
    fn of(&self, _secret: &SecretName) -> SecretSettings {
        SecretSettings { schedule: *self.schedule.lock().unwrap(), ..self.fixed.clone() }
    }

    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(GenerateProvider::default()))
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_by_its_schedule_and_not_while_it_is_paused() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (mut environment, _bus) = environment(folder.path(), policy.clone()).await;
    let fixed = SecretSettings { policy: managed(policy, &GenerateProvider::default()), schedule: None };
    let settings = Arc::new(Scheduled { fixed, schedule: Mutex::new(None) });
    environment.settings = settings.clone();
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let first = until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    assert_eq!(first.next_rotation_at, None);
    order(&secrets, Order::pause("a freeze").unwrap()).await;
    *settings.schedule.lock().unwrap() = Some(Schedule::every(Duration::from_millis(100)));
    secrets.get(&name()).unwrap().mail.send(Mail::Reconfigured).await.unwrap();
    let overdue = until(&secrets, |status| status.next_rotation_at.is_some_and(|due| due < clock::wall())).await;
    // Once the task answers again, it has dealt with the schedule.
    let still = until(&secrets, |_| true).await;
    assert_eq!(
        (overdue.rotation, still.rotation, still.current),
        (None, None, Some(version(1))),
        "rotated although it was paused"
    );
    order(&secrets, Order::Resume).await;
    let retired = |status: &SecretStatus| {
        status.history.iter().any(|ended| ended.new == version(2) && ended.outcome == Outcome::Retired)
    };
    until(&secrets, retired).await;
    stop.cancel();
    running.await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let by_schedule = |line: &str| line.contains("\"actor\":\"schedule\"") && line.contains("\"rotation_started\"");
    assert!(log.lines().any(by_schedule), "{log}");
}

pub(super) async fn order(secrets: &Secrets, order: Order) {
    let (reply, answer) = oneshot::channel();
    let by = OperatorName::new("alice").unwrap();
    let task = secrets.get(&name()).expect("known by now");
    task.mail.send(Mail::Operator { by, order, reply }).await.unwrap();
    answer.await.unwrap().unwrap();
}

/// A clock that was a year fast has written the record. It is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_the_future_is_named_and_its_schedule_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (mut environment, _bus) = environment(folder.path(), policy.clone()).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    stop.cancel();
    running.await.unwrap();
    let stored = environment.tree.read_record(&name()).await.unwrap().unwrap();
    let mut record = SecretRecord::decode(&stored.bytes).unwrap();
    let year = 365 * 86_400_000;
    record.versions.get_mut(&version(1)).unwrap().seen.0 += year;
    record.history.last_mut().unwrap().ended.0 += year;
    let term = campaign(&environment).await;
    let saved = environment.tree.save_record(&name(), record.encode(), Some(stored.cursor), term.epoch).await.unwrap();
    assert!(matches!(saved, Committed::Done(_)));
    term.resign.cancel();
    term.resigned.await.unwrap();

    let fixed = SecretSettings { policy: managed(policy, &GenerateProvider::default()), schedule: None };
    let settings = Arc::new(Scheduled { fixed, schedule: Mutex::new(None) });
    environment.settings = settings.clone();
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let named = || environment.findings.told().iter().any(|finding| finding.subject == "clock payments/db");
    until(&secrets, |_| named()).await;
    *settings.schedule.lock().unwrap() = Some(Schedule::every(Duration::from_millis(100)));
    secrets.get(&name()).unwrap().mail.send(Mail::Reconfigured).await.unwrap();
    until(&secrets, |status| status.current >= Some(version(2)) && !named()).await;
    stop.cancel();
    running.await.unwrap();
}
