//! `/livez` (also `/healthz`) and `/readyz`, as Kubernetes asks.

use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::{Health, HealthReport};

/// All paths, without a sign-in: a report holds nothing that a stranger on the network could not find out.
pub fn router(health: Health) -> Router {
    let (ready, live) = (health.clone(), health.clone());
    Router::new()
        .route("/livez", get(async move || answer(live.report(), |report| report.alive)))
        .route("/healthz", get(async move || answer(health.report(), |report| report.alive)))
        .route("/readyz", get(async move || answer(ready.report(), |report| report.ready)))
}

fn answer(report: HealthReport, good: impl Fn(&HealthReport) -> bool) -> Response {
    let status = if good(&report) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, "no-store")], Json(report)).into_response()
}
