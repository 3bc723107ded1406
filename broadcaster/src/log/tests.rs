//! Lines as the log prints them.

use std::sync::{Arc, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, doing: impl FnOnce()) -> Vec<String> {
    let out = Out::default();
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(format, false, out.clone()));
    tracing::subscriber::with_default(subscriber, doing);
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

/// A log as a secret's task and one of its effects write it.
fn story() {
    let task = tracing::error_span!(
        "secret",
        secret = "payments/db",
        rotation = tracing::field::Empty,
        phase = tracing::field::Empty
    );
    let _task = task.enter();
    tracing::info!("before");
    task.record("rotation", "payments/db@2");
    task.record("phase", "verifying");
    let effect = tracing::error_span!("effect", command = "create", version = 2);
    effect.in_scope(|| tracing::warn!(problem = "no answer\nin time", version = 3, "a call \u{1b}[31mfailed"));
    task.record("phase", "preparing");
    tracing::debug!(attempts = 2, works = true, "within");
    task.record("rotation", "");
    task.record("phase", "");
    tracing::info!(level = "high", "after");
}

#[test]
fn in_json_what_spans_say_stands_flat_beside_the_events_own() {
    let lines = logged(LogFormat::Json, story);
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let without_time: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| {
            let mut line = line.clone();
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            let time = time.as_str().unwrap();
            assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
            line.as_object_mut().unwrap().remove("target").unwrap();
            line
        })
        .collect();
    assert_eq!(
        without_time,
        [
            serde_json::json!({"level": "INFO", "message": "before", "secret": "payments/db"}),
            serde_json::json!({
                "level": "WARN", "message": "a call \u{1b}[31mfailed", "problem": "no answer\nin time", "version": 3,
                "command": "create", "secret": "payments/db", "rotation": "payments/db@2", "phase": "verifying",
            }),
            serde_json::json!({
                "level": "DEBUG", "message": "within", "attempts": 2, "works": true,
                "secret": "payments/db", "rotation": "payments/db@2", "phase": "preparing",
            }),
            serde_json::json!({"level": "INFO", "message": "after", "_level": "high", "secret": "payments/db"}),
        ]
    );
}

#[test]
fn in_text_a_line_is_a_line_and_says_nothing_twice() {
    let lines = logged(LogFormat::Text, story);
    let after_time: Vec<&str> = lines.iter().map(|line| &line[25..]).collect();
    let target = module_path!();
    assert_eq!(
        after_time,
        [
            format!(" INFO {target}: before secret=payments/db"),
            format!(
                " WARN {target}: a call \\u{{1b}}[31mfailed problem=\"no answer\\nin time\" version=3 command=create \
                 secret=payments/db rotation=payments/db@2 phase=verifying"
            ),
            format!(
                "DEBUG {target}: within attempts=2 works=true secret=payments/db rotation=payments/db@2 phase=preparing"
            ),
            format!(" INFO {target}: after level=high secret=payments/db"),
        ]
    );
}

#[test]
fn what_any_client_can_make_the_tls_library_say_is_left_out_unless_asked_for() {
    for (filter, shown) in [("info", false), ("debug", false), ("info,rustls=warn", true)] {
        let out = Out::default();
        let layer = LogLayer::new(LogFormat::Text, false, out.clone());
        let subscriber = tracing_subscriber::registry().with(filter_of(filter).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "rustls::common_state", "TLS alert warning received");
            tracing::warn!("of our own");
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.contains("TLS alert"), text.contains("of our own")), (shown, true), "{filter}");
    }
}
