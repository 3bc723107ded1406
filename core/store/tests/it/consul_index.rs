//! Blocking queries against a scripted agent, whose indexes decrease, stay, are zero or are missing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use rotacast_store::{ConsulOptions, ConsulStore, Key, ReadStore, StoreError, StoreEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One answer to a listing: its index, `None` for none, and the keys with the index of their last write.
type Step = (Option<u64>, &'static [(&'static str, u64)]);

struct Agent {
    address: String,
    /// The paths that were requested.
    asked: Arc<Mutex<Vec<String>>>,
}

/// Answers listings by the script, repeating its last step, and everything else with "not found" as of `table`.
async fn agent(script: &[Step], table: u64) -> Agent {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&script), Arc::clone(&log), table));
        }
    });
    Agent { address, asked }
}

async fn answer(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<String>>>,
    table: u64,
) -> Option<()> {
    let mut request = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&chunk[..length]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut request)).ok()?;
        let path = text.split(' ').nth(1)?.to_owned();
        let listing = path.contains("recurse");
        asked.lock().unwrap().push(path);
        let (index, keys) = if listing {
            let mut script = script.lock().unwrap();
            if script.len() > 1 { script.pop_front()? } else { *script.front()? }
        } else {
            (Some(table), [].as_slice())
        };
        let pairs: Vec<_> = keys
            .iter()
            .map(|(key, at)| {
                serde_json::json!({"Key": key, "Value": "eA==", "Flags": 0, "LockIndex": 0, "CreateIndex": at, "ModifyIndex": at})
            })
            .collect();
        let (status, body) = if pairs.is_empty() {
            ("404 Not Found", String::new())
        } else {
            ("200 OK", serde_json::Value::Array(pairs).to_string())
        };
        let index = index.map_or(String::new(), |index| format!("X-Consul-Index: {index}\r\n"));
        let answer = format!("HTTP/1.1 {status}\r\n{index}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// The events of a watch until it fails, or until there are `upto` of them.
async fn told(agent: &Agent, upto: usize) -> Vec<String> {
    let store = ConsulStore::new(ConsulOptions { address: agent.address.clone(), ..ConsulOptions::default() }).unwrap();
    let mut watch = store.watch(&Key::new("r"));
    let mut told = Vec::new();
    while told.len() < upto {
        told.push(match watch.next().await.unwrap() {
            Ok(StoreEvent::Init) => "init".into(),
            Ok(StoreEvent::Listed(entry)) => format!("listed {}", entry.key),
            Ok(StoreEvent::Ready(cursor)) => format!("ready {}", cursor.0),
            Ok(StoreEvent::Put(entry)) => format!("put {} {}", entry.key, entry.modified.0),
            Ok(StoreEvent::Deleted { key, cursor }) => format!("deleted {key} {}", cursor.0),
            Err(StoreError::WentBackwards { .. }) => "went backwards".into(),
            Err(error) => format!("{error}"),
        });
        if told.last().unwrap() == "went backwards" {
            break;
        }
    }
    told
}

#[tokio::test]
async fn s13_an_index_that_falls_with_reaped_tombstones_costs_nothing() {
    let script: &[Step] = &[
        (Some(60), &[("r/a", 50)]),
        // The tombstone of the deletion at 60 is gone, but the table still has its index.
        (Some(50), &[("r/a", 50)]),
        (Some(70), &[("r/a", 50), ("r/b", 70)]),
    ];
    let agent = agent(script, 70).await;
    assert_eq!(told(&agent, 4).await, ["init", "listed r/a", "ready 60", "put r/b 70"]);
    let asked = agent.asked.lock().unwrap().clone();
    let queries: Vec<&String> = asked.iter().filter(|path| path.contains("recurse")).collect();
    assert!(!queries[0].contains("index="), "{asked:?}");
    assert!(queries[1].contains("index=60") && queries[2].contains("index=50"), "{asked:?}");
    assert!(asked.iter().all(|path| path.contains("consistent")), "{asked:?}");
}

#[tokio::test]
async fn a_table_behind_what_was_seen_is_a_setback() {
    let agent = agent(&[(Some(60), &[("r/a", 60)]), (Some(40), &[("r/a", 40)])], 60).await;
    assert_eq!(told(&agent, 9).await, ["init", "listed r/a", "ready 60", "went backwards"]);
    let behind = self::agent(&[(Some(60), &[("r/a", 50)]), (Some(60), &[("r/a", 50)])], 59).await;
    // The probe contradicts the listing before any event was delivered: only what came earlier counts.
    let told = told(&behind, 4).await;
    assert_eq!(told, ["init", "listed r/a", "ready 60", "went backwards"]);
}

/// Other writes may have raised every index again.
#[tokio::test]
async fn an_old_key_that_was_never_listed_is_a_setback() {
    let agent = agent(&[(Some(60), &[("r/a", 50)]), (Some(90), &[("r/a", 50), ("r/b", 55)])], 90).await;
    assert_eq!(told(&agent, 9).await, ["init", "listed r/a", "ready 60", "went backwards"]);
}

/// Answers without a change arrive at once: the watch reports no change, and misses none afterwards.
#[tokio::test]
async fn s13_an_index_that_stays_or_is_zero_hides_nothing() {
    for index in [60, 0] {
        let stays: Step = (Some(index), &[("r/a", 50)]);
        let script = [stays, stays, stays, (Some(61), &[("r/a", 61)])];
        let agent = agent(&script, 61).await;
        let told = told(&agent, 4).await;
        assert_eq!(told[0..2], ["init", "listed r/a"]);
        assert_eq!(told[3], "put r/a 61", "{told:?}");
        assert!(agent.asked.lock().unwrap().iter().all(|path| !path.contains("index=0")));
    }
}

#[tokio::test]
async fn several_changes_within_one_wait_are_reported_in_the_order_of_their_commits() {
    let script: &[Step] =
        &[(Some(10), &[("r/1", 10), ("r/2", 9)]), (Some(16), &[("r/0", 15), ("r/1", 12), ("r/3", 11), ("r/4", 12)])];
    let agent = agent(script, 16).await;
    let expected = [
        "init",
        "listed r/1",
        "listed r/2",
        "ready 10",
        "put r/3 11",
        "put r/1 12",
        "put r/4 12",
        "put r/0 15",
        "deleted r/2 16",
    ];
    assert_eq!(told(&agent, expected.len()).await, expected);
}

/// A Consul agent always sends an index, so a proxy is in between. The watch lists anew until there is one.
#[tokio::test]
async fn an_answer_without_an_index_is_not_believed() {
    let agent = agent(&[(None, &[("r/a", 5)]), (None, &[("r/a", 5)]), (Some(6), &[("r/a", 5)])], 6).await;
    assert_eq!(told(&agent, 3).await, ["init", "listed r/a", "ready 6"]);
    let store = ConsulStore::new(ConsulOptions { address: agent.address.clone(), ..ConsulOptions::default() }).unwrap();
    assert!(store.get(&Key::new("r/none")).await.unwrap().is_none());
}
