//! A thread that owns a connection and runs one job at a time.

use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::file::explain;
use crate::{CALL_TIMEOUT, NO_ANSWER, StoreError};

/// Jobs waiting for the thread; beyond it callers wait, within [`CALL_TIMEOUT`].
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) struct Worker {
    name: String,
    jobs: mpsc::Sender<Job>,
}

/// What a job may fail with, before it is known which store it was.
pub(super) enum Failure {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl Worker {
    /// The thread ends, and closes the connection, when the `Worker` is dropped.
    pub(super) fn start(thread_name: &str, name: &str, mut connection: Connection) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let run = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        };
        thread::Builder::new().name(thread_name.into()).spawn(run).map_err(|problem| StoreError::Unreachable {
            endpoint: name.into(),
            problem: format!("no thread for it: {problem}"),
        })?;
        Ok(Self { name: name.into(), jobs })
    }

    /// Runs a job on the thread. After `Unreachable` it may run nevertheless, later.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let unreachable =
            |problem: &str| StoreError::Unreachable { endpoint: self.name.clone(), problem: problem.into() };
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // No receiver is left if the caller was dropped or timed out; the job is done all the same.
            let _ = reply.send(job(connection));
        });
        let answered = timeout(CALL_TIMEOUT, async {
            self.jobs.send(job).await.map_err(|_| ())?;
            answer.await.map_err(|_| ())
        });
        match answered.await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Failure::Store(error)))) => Err(error),
            Ok(Ok(Err(Failure::Sql(error)))) => Err(explain(&self.name, &error)),
            Ok(Err(())) => Err(unreachable("its thread has ended")),
            Err(_) => Err(unreachable(NO_ANSWER)),
        }
    }
}
