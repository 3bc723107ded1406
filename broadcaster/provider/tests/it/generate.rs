//! Generated values under the suite.

use std::sync::Arc;

use rotacast_protocol::SecretName;
use rotacast_provider::conformance::Fixture;
use rotacast_provider::{GenerateProvider, Provider};

struct Generated;

impl Fixture for Generated {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(GenerateProvider::default())
    }

    fn secret(&self) -> SecretName {
        SecretName::new("tokens/signing").expect("a valid name")
    }
}

async fn start() -> Option<Generated> {
    Some(Generated)
}

rotacast_provider::conformance_every!(start);
