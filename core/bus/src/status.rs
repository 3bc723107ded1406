//! Errors of a bus as gRPC statuses, and back: by whose fault, so that a retry is tried only where it helps.

#[cfg(any(feature = "leader", test))]
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::BusError;

/// Names the kind of error exactly, where the status code alone would not.
const KIND: &str = "rotacast-error";
/// Size and limit of a message that was too large.
const FOUND: &str = "rotacast-found-bytes";
const LIMIT: &str = "rotacast-limit-bytes";

/// Longest problem text taken over from a server, in characters.
const MAX_PROBLEM: usize = 512;

#[cfg(any(feature = "leader", test))]
pub(crate) fn to_status(error: &BusError) -> Status {
    let (code, kind) = match error {
        BusError::Unreachable { .. } => (Code::Unavailable, "unreachable"),
        BusError::NoLeader { .. } => (Code::Unavailable, "no-leader"),
        BusError::Denied { .. } => (Code::PermissionDenied, "denied"),
        BusError::Misconfigured { .. } => (Code::FailedPrecondition, "misconfigured"),
        BusError::Full { .. } => (Code::ResourceExhausted, "full"),
        BusError::Unknown { .. } => (Code::Unknown, "unknown"),
        BusError::TooLarge { .. } => (Code::ResourceExhausted, "too-large"),
        BusError::Fenced { .. } => (Code::Aborted, "fenced"),
        BusError::Cancelled => (Code::Unavailable, "cancelled"),
    };
    let mut status = Status::new(code, error.to_string());
    status.metadata_mut().insert(KIND, MetadataValue::from_static(kind));
    if let BusError::TooLarge { found, limit, .. } = error {
        status.metadata_mut().insert(FOUND, MetadataValue::from(*found as u64));
        status.metadata_mut().insert(LIMIT, MetadataValue::from(*limit as u64));
    }
    status
}

pub(crate) fn from_status(status: &Status, endpoint: &str) -> BusError {
    let endpoint = endpoint.to_owned();
    let mut problem: String = status.message().chars().take(MAX_PROBLEM).collect();
    let text = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|number| number.parse::<usize>().ok());
    match (text(KIND), status.code()) {
        (Some("no-leader"), _) => BusError::NoLeader { endpoint, problem },
        (Some("too-large"), _) => BusError::TooLarge {
            endpoint,
            found: number(FOUND).unwrap_or_default(),
            limit: number(LIMIT).unwrap_or_default(),
        },
        (Some("full"), _) => BusError::Full { endpoint, problem },
        (Some("unknown"), _) => BusError::Unknown { endpoint, problem },
        (Some("fenced"), _) => BusError::Fenced { subject: problem },
        (
            _,
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::NotFound | Code::OutOfRange,
        ) => BusError::Denied { endpoint, problem },
        (_, Code::Unimplemented) => {
            problem.push_str("; expected a Rotacast broadcaster of this or a later version here");
            BusError::Misconfigured { endpoint, problem }
        }
        (_, Code::FailedPrecondition) => BusError::Misconfigured { endpoint, problem },
        // Unavailable, deadlines, overload and whatever else may be over in a moment.
        (_, code) => {
            if problem.is_empty() {
                problem = format!("{code:?}");
            }
            BusError::Unreachable { endpoint, problem }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_is_survives_the_trip() {
        let endpoint = || "nats://here".to_owned();
        let problem = || "because".to_owned();
        let errors = [
            BusError::Unreachable { endpoint: endpoint(), problem: problem() },
            BusError::NoLeader { endpoint: endpoint(), problem: problem() },
            BusError::Denied { endpoint: endpoint(), problem: problem() },
            BusError::Misconfigured { endpoint: endpoint(), problem: problem() },
            BusError::Full { endpoint: endpoint(), problem: problem() },
            BusError::Unknown { endpoint: endpoint(), problem: problem() },
            BusError::TooLarge { endpoint: endpoint(), found: 7, limit: 5 },
            BusError::Fenced { subject: "payments/db".into() },
        ];
        for error in errors {
            let back = from_status(&to_status(&error), "grpc");
            assert_eq!(
                std::mem::discriminant(&back),
                std::mem::discriminant(&error),
                "{error:?} came back as {back:?}"
            );
            if let BusError::TooLarge { found, limit, .. } = back {
                assert_eq!((found, limit), (7, 5));
            }
        }
        // The gateway that shuts down may come back.
        assert!(from_status(&to_status(&BusError::Cancelled), "grpc").is_transient());
    }
}
