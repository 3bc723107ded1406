//! Refusals over HTTP.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::Refusal;

/// A refusal, as the dashboard and programs read it.
#[derive(Serialize)]
pub(super) struct ProblemView {
    error: ProblemBody,
}

#[derive(Serialize)]
struct ProblemBody {
    kind: &'static str,
    problem: String,
    fix: Option<String>,
}

impl From<&Refusal> for ProblemView {
    fn from(refusal: &Refusal) -> Self {
        let fix = match refusal {
            // The CLI's way to show it is none here.
            Refusal::SignIn(_) => "sign in with a token that the broadcaster's configuration knows",
            Refusal::NotLeader { .. } => "open the dashboard of the broadcaster that leads",
            refusal => refusal.fix(),
        };
        let fix = Some(fix.to_owned()).filter(|fix| !fix.is_empty());
        Self { error: ProblemBody { kind: refusal.kind().as_str(), problem: refusal.to_string(), fix } }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Unauthenticated(_) | Refusal::SignIn(_) => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) | Refusal::Denied { .. } => StatusCode::FORBIDDEN,
            Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
            Refusal::Conflict { .. } => StatusCode::CONFLICT,
            Refusal::NotLeader { .. } | Refusal::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        (status, Json(ProblemView::from(&self))).into_response()
    }
}
