//! Calls to the outside by operation: how long, and what went wrong.

use std::future::Future;
use std::time::Instant;

use prometheus_client::registry::Registry;

use super::label::{Counters, Histograms, counters_by_two, histograms, of_calls};

/// The errors of one seam, by kind.
pub(super) trait Kind {
    /// All kinds there are.
    const ALL: &'static [&'static str];

    /// Its kind; none: it says nothing about the other side.
    fn kind(&self) -> Option<&'static str>;
}

/// The calls of one seam.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    seconds: Histograms<1>,
    errors: Counters<2>,
}

impl Calls {
    /// Calls that have a duration, and operations that can only fail: waiting for something that may take for ever.
    pub(super) fn register<E: Kind>(
        registry: &mut Registry,
        seam: &str,
        timed: &[&'static str],
        untimed: &[&'static str],
    ) -> Self {
        let all = [timed, untimed].concat();
        Self {
            seconds: histograms(
                registry,
                &format!("{seam}_call_duration_seconds"),
                &format!("Duration of calls to the {seam}, successful or not"),
                ("operation", timed),
                of_calls,
            ),
            errors: counters_by_two(
                registry,
                &format!("{seam}_errors"),
                &format!("Failed calls to the {seam}, and watches that ended"),
                ("operation", &all),
                ("kind", E::ALL),
            ),
        }
    }

    /// A call. One that is given up before it has ended is not counted.
    pub(super) async fn measure<T, E: Kind>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let outcome = call.await;
        self.seconds.get_or_create(&[("operation", operation)]).observe(began.elapsed().as_secs_f64());
        if let Err(problem) = &outcome {
            self.failed(operation, problem);
        }
        outcome
    }

    /// An error of something that has no duration.
    pub(super) fn failed(&self, operation: &'static str, problem: &impl Kind) {
        if let Some(kind) = problem.kind() {
            self.errors.get_or_create(&[("operation", operation), ("kind", kind)]).inc();
        }
    }
}
