//! Faults that only a bus in a file can have.

use rotacast_bus::{BusError, EmbeddedBus};

async fn problem(path: &std::path::Path) -> String {
    match EmbeddedBus::open(path).await {
        Err(problem @ BusError::Misconfigured { .. }) => problem.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opens"),
    }
}

#[tokio::test]
async fn a_newer_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus.db");
    EmbeddedBus::open(&path).await.unwrap().close().await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let text = problem(&path).await;
    assert!(text.contains("newer Rotacast") && text.contains("schema 2"), "{text}");
}

#[tokio::test]
async fn another_program_s_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(connection);
    assert!(problem(&path).await.contains("another program"));
    let path = folder.path().join("text");
    std::fs::write(&path, "not a database, but long enough to look like something".repeat(100)).unwrap();
    assert!(problem(&path).await.contains("move the file away"));
}

#[tokio::test]
async fn a_file_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus.db");
    let bus = EmbeddedBus::open(&path).await.unwrap();
    assert!(problem(&path).await.contains("another process"));
    bus.close().await;
    EmbeddedBus::open(&path).await.unwrap();
}
