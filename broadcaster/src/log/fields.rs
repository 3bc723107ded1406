//! Fields of events and spans.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};

/// The field that holds an event's text.
const MESSAGE: &str = "message";

/// Fields by name, in the order in which they were given.
#[derive(Clone, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) named: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Takes over what is not there yet.
    pub(super) fn add(&mut self, others: &Fields) {
        for (name, value) in &others.named {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name, value.clone()));
            }
        }
    }

    /// An empty text takes a field away: a span cannot say otherwise that something is over.
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        self.named.retain(|(known, _)| *known != name);
        if value != "" {
            self.named.push((name, value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.message = format!("{value:?}");
        } else {
            self.set(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            value.clone_into(&mut self.message);
        } else {
            self.set(field, value.into());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}
