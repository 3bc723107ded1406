//! Spans of what an instance does in a rotation, below the span of the phase it acts on. Nothing without the feature `otel`.

#[cfg(feature = "otel")]
mod otel;

#[cfg(feature = "otel")]
pub use otel::traceparent;
#[cfg(feature = "otel")]
pub(crate) use otel::{Running, SecretTrace};

#[cfg(not(feature = "otel"))]
pub(crate) use off::{Running, SecretTrace};

#[cfg(not(feature = "otel"))]
mod off {
    use rotacast_holder::{Holder, Step};
    use rotacast_protocol::message::SecretState;
    use rotacast_protocol::{InstanceKey, SecretName, Version};

    /// Nothing.
    pub(crate) struct SecretTrace;

    impl SecretTrace {
        pub(crate) fn new(_secret: &SecretName, _key: &InstanceKey) -> Self {
            Self
        }

        pub(crate) fn told(&mut self, _state: &SecretState, _traceparent: &str) {}

        pub(crate) fn load(&self, _version: Version) -> Running {
            Running
        }

        pub(crate) fn step(&self, _step: Step, _version: Version) -> Running {
            Running
        }

        pub(crate) fn in_step(&mut self, _holder: &Holder) {}
    }

    /// Nothing.
    pub(crate) struct Running;

    impl Running {
        pub(crate) async fn run<T, E>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
            work.await
        }
    }
}
