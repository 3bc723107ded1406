//! The dashboard, and what programs ask over plain HTTP: on the same address as gRPC, over
//! [`Control`] like the admin API.
//!
//! Looking is free where the admin API's reads are, on loopback or behind client certificates; elsewhere, and as soon as there
//! are roles, it needs a token. Acting always does. There is no code path from here to a secret's value.

mod about;
mod access;
mod action;
mod asset;
mod findings;
mod fleet;
mod origin;
mod problem;
mod requests;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rotacast_protocol::SecretName;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use about::AboutView;
use access::Sessions;
use action::{ActionBody, DoneView};
use fleet::{Fleet, FleetQuery, FleetView, InstancesQuery, PageView};
use requests::{RequestBody, RequestsView, Verb};
use stream::View;

use crate::api::{CommandReply, Control, Refusal};
use crate::audit::OrderProof;
use crate::audit::{self, Recorded, Search};
use crate::connections::Peer;
use crate::findings::Findings;
use crate::metrics::Metrics;
use crate::operators::{Reading, SignedIn};
use crate::orders::{Desk, Given, Outcome};
use crate::sign_ins::source;
use crate::viewers::{Viewer, Viewers, bearer};

/// Searches of the audit log at once: each may read a disk for seconds.
const MAX_SEARCHES: usize = 2;
/// Most entries in one answer of the audit log.
const MAX_ENTRIES: usize = 500;
const DEFAULT_ENTRIES: usize = 100;
/// Longest request body, in bytes: an override of as many instances as one may name.
const MAX_BODY: usize = 512 * 1024;
/// Longest text to search for, in bytes.
const MAX_TEXT: usize = 200;
/// Shows that a script of ours has sent the request: no other site's can add it.
const ACTION_HEADER: &str = "x-rotacast-action";

/// What the page may do: nothing but show and ask what comes from here.
const CSP: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// How the dashboard is served.
pub struct WebOptions {
    /// Who may look and act.
    pub viewers: Viewers,
    /// Names, besides loopback's, under which browsers reach it. Looked at without TLS only: a certificate says the same.
    pub hosts: Vec<String>,
    /// Whether the listener is behind TLS.
    pub tls: bool,
    /// The audit log's file.
    pub audit: PathBuf,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// The list that the overview shows.
    pub findings: Findings,
}

/// Everything a request needs.
struct Front {
    control: Arc<dyn Control>,
    desk: Arc<Desk>,
    cluster: String,
    options: WebOptions,
    sessions: Sessions,
    fleet: Fleet,
    searches: Semaphore,
    stop: CancellationToken,
}

/// The routes, to be served beside gRPC's.
pub fn router(
    control: Arc<dyn Control>,
    desk: Arc<Desk>,
    cluster: String,
    options: WebOptions,
    stop: CancellationToken,
) -> Router {
    let front = Arc::new(Front {
        control,
        desk,
        cluster,
        options,
        sessions: Sessions::default(),
        fleet: Fleet::default(),
        searches: Semaphore::new(MAX_SEARCHES),
        stop,
    });
    Router::new()
        .route("/", get(async |headers: HeaderMap| asset::page(&headers)))
        .route(
            "/assets/{*name}",
            get(async |Path(name): Path<String>, headers: HeaderMap| asset::file(&name, &headers)),
        )
        .route("/api/about", get(about))
        .route("/api/sign-in", post(sign_in))
        .route("/api/sign-out", post(sign_out))
        .route("/api/action", post(act))
        .route("/api/requests", get(requests_that_wait).post(on_request))
        .route("/api/overview/events", get(overview))
        .route("/api/secret/events", get(secret))
        .route("/api/instances", get(instances))
        .route("/api/fleet", get(groups))
        .route("/api/audit", get(entries))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&front), guarded))
        .with_state(front)
}

/// Checks where a request was sent to and comes from, and says what browsers may do with the answer.
async fn guarded(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let checked = match front.options.tls {
        true => Ok(()),
        false => origin::check_host(request.uri(), request.headers(), &front.options.hosts),
    };
    let checked = checked.and_then(|()| match request.method().is_safe() {
        true => Ok(()),
        false => origin::check_origin(request.uri(), request.headers()),
    });
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_SECURITY_POLICY, CSP),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(axum::http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Front {
    /// Who asks: by the token that a program shows, or by a session.
    fn signed_in(&self, asker: &Asker) -> Result<Option<SignedIn>, Refusal> {
        match bearer(&asker.headers) {
            Some(_) => self.options.viewers.shown(&asker.headers, asker.source),
            None => Ok(self.signed_in_still(&asker.headers)),
        }
    }

    /// The same for one that was asked before, and may have lost its rights since.
    fn signed_in_still(&self, headers: &HeaderMap) -> Option<SignedIn> {
        self.sessions.signed_in(&self.options.viewers.operators(), headers, Instant::now())
    }

    /// Who looks, where they may look at all.
    fn viewer(&self, asker: &Asker) -> Result<Viewer, Refusal> {
        self.options.viewers.admit(self.signed_in(asker)?)
    }

    /// The same for one that looks already.
    fn viewer_still(&self, headers: &HeaderMap) -> Result<Viewer, Refusal> {
        self.options.viewers.admit(self.signed_in_still(headers))
    }

    async fn about(&self, viewer: &Viewer) -> AboutView {
        AboutView::new(self.control.broadcaster().await, viewer, self.options.viewers.token_needed())
    }

    /// Who orders something, from a page of ours.
    fn orders(&self, asker: &Asker, uri: &Uri) -> Result<SignedIn, Refusal> {
        let by = self.signed_in(asker)?.ok_or_else(|| Refusal::SignIn("an order needs a sign-in".into()))?;
        match asker.headers.contains_key(ACTION_HEADER) {
            true => Ok(by),
            false => Err(Refusal::Forbidden(format!("{} needs the header {ACTION_HEADER}", uri.path()))),
        }
    }

    fn stream(self: Arc<Self>, asker: Asker, view: View) -> Result<Response, Refusal> {
        view.check(&self.viewer(&asker)?)?;
        Ok(stream::serve(self, asker.headers, view).into_response())
    }
}

async fn about(State(front): State<Arc<Front>>, asker: Asker) -> Json<AboutView> {
    Json(match front.viewer(&asker) {
        Ok(viewer) => front.about(&viewer).await,
        Err(_) => AboutView::sign_in_first(front.cluster.clone()),
    })
}

async fn metrics(State(front): State<Arc<Front>>, asker: Asker) -> Result<Response, Refusal> {
    front.viewer(&asker)?.check(Reading::Metrics, None)?;
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], front.options.metrics.render()).into_response())
}

/// Who asks, as far as the request shows it.
struct Asker {
    headers: HeaderMap,
    source: Option<Peer>,
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self { headers: parts.headers.clone(), source: source(&parts.extensions) })
    }
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

async fn sign_in(
    State(front): State<Arc<Front>>,
    asker: Asker,
    body: Result<Json<SignIn>, JsonRejection>,
) -> Result<Response, Refusal> {
    // Never the parser's own words: they quote what was sent, which may be a token.
    let Json(SignIn { token }) = body.map_err(|_| {
        Refusal::Invalid("a sign-in is JSON (`content-type: application/json`) such as {\"token\": \"…\"}".into())
    })?;
    let token = zeroize::Zeroizing::new(token);
    let viewers = &front.options.viewers;
    let session = viewers.sign_ins().attempt(asker.source, Instant::now(), || {
        let session = front.sessions.begin(&viewers.operators(), token.trim(), Instant::now());
        session.ok_or_else(|| Refusal::SignIn("this is not a token that the configuration knows".into()))
    })?;
    Ok(with_cookie(access::set_cookie(Some(&session), front.options.tls)))
}

async fn sign_out(State(front): State<Arc<Front>>, asker: Asker) -> Response {
    front.sessions.end(&asker.headers);
    with_cookie(access::set_cookie(None, front.options.tls))
}

fn with_cookie(cookie: String) -> Response {
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

async fn overview(State(front): State<Arc<Front>>, asker: Asker) -> Result<Response, Refusal> {
    front.stream(asker, View::Overview)
}

#[derive(Deserialize)]
struct OneSecret {
    secret: String,
}

async fn secret(
    State(front): State<Arc<Front>>,
    query: Result<Query<OneSecret>, QueryRejection>,
    asker: Asker,
) -> Result<Response, Refusal> {
    let name = SecretName::new(asked(query)?.secret).map_err(|error| Refusal::Invalid(error.to_string()))?;
    front.stream(asker, View::Secret(name))
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(query)| query).map_err(|error| {
        let text = error.body_text();
        let problem = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Refusal::Invalid(format!("query parameter {problem}"))
    })
}

async fn instances(
    State(front): State<Arc<Front>>,
    query: Result<Query<InstancesQuery>, QueryRejection>,
    asker: Asker,
) -> Result<Json<PageView>, Refusal> {
    let viewer = front.viewer(&asker)?;
    viewer.check_some(Reading::Fleet)?;
    front.fleet.page(&*front.control, &viewer, asked(query)?).await.map(Json)
}

async fn groups(
    State(front): State<Arc<Front>>,
    query: Result<Query<FleetQuery>, QueryRejection>,
    asker: Asker,
) -> Result<Json<FleetView>, Refusal> {
    let viewer = front.viewer(&asker)?;
    viewer.check_some(Reading::Fleet)?;
    front.fleet.groups(&*front.control, &viewer, asked(query)?).await.map(Json)
}

#[derive(Deserialize)]
struct AuditQuery {
    secret: Option<String>,
    q: Option<String>,
    before: Option<u64>,
    limit: Option<usize>,
}

#[derive(serde::Serialize)]
struct EntriesView {
    entries: Vec<Recorded>,
    next_before: Option<u64>,
}

async fn entries(
    State(front): State<Arc<Front>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    asker: Asker,
) -> Result<Json<EntriesView>, Refusal> {
    let viewer = front.viewer(&asker)?;
    viewer.check_some(Reading::Audit)?;
    let query = asked(query)?;
    let limit = query.limit.unwrap_or(DEFAULT_ENTRIES);
    if limit == 0 || limit > MAX_ENTRIES {
        return Err(Refusal::Invalid(format!("limit {limit}; expected 1 to {MAX_ENTRIES}")));
    }
    let text = query.q.unwrap_or_default();
    if text.len() > MAX_TEXT {
        return Err(Refusal::Invalid(format!("q of {} bytes; expected at most {MAX_TEXT}", text.len())));
    }
    let secret = query.secret.filter(|text| !text.is_empty()).map(SecretName::new).transpose();
    let secret = secret.map_err(|error| Refusal::Invalid(error.to_string()))?;
    let mut search = Search { secret, text, before: query.before, limit, only: None };
    if !viewer.reads(Reading::Audit, None) {
        // Entries about no secret are about all of them.
        search.only = Some(Arc::new(move |secret| viewer.reads(Reading::Audit, secret)));
    }
    let path = front.options.audit.clone();
    let busy = || Refusal::Busy(format!("{MAX_SEARCHES} searches of the audit log are under way"));
    let _place = front.searches.try_acquire().map_err(|_| busy())?;
    let found = tokio::task::spawn_blocking(move || audit::search(&path, &search)).await;
    let unavailable = |problem: String| Refusal::Unavailable {
        problem,
        fix: "`rotacast audit verify` on the broadcaster's machine says more".into(),
    };
    let found = found.map_err(|error| unavailable(format!("the search broke off: {error}")))?;
    let audit::Found { entries, next_before } = found.map_err(|error| unavailable(error.to_string()))?;
    Ok(Json(EntriesView { entries, next_before }))
}

async fn act(
    State(front): State<Arc<Front>>,
    asker: Asker,
    uri: Uri,
    body: Result<Json<ActionBody>, JsonRejection>,
) -> Result<Json<DoneView>, Refusal> {
    let by = front.orders(&asker, &uri)?;
    let Json(body) = body.map_err(|error| Refusal::Invalid(error.body_text()))?;
    let given = Given::try_from(body)?;
    front.control.term().await?;
    front.desk.give(by, given).await.map(|reply| Json(reply.into()))
}

async fn requests_that_wait(State(front): State<Arc<Front>>, asker: Asker) -> Result<Json<RequestsView>, Refusal> {
    let viewer = front.viewer(&asker)?;
    viewer.check_some(Reading::Status)?;
    Ok(Json(RequestsView::of(&front.desk.requests().await?, &viewer)))
}

async fn on_request(
    State(front): State<Arc<Front>>,
    asker: Asker,
    uri: Uri,
    body: Result<Json<RequestBody>, JsonRejection>,
) -> Result<Json<DoneView>, Refusal> {
    let by = front.orders(&asker, &uri)?;
    let Json(body) = body.map_err(|error| Refusal::Invalid(error.body_text()))?;
    let which = body.which()?;
    let outcome = match body.verb {
        Verb::Approve => front.desk.approve(by, which, body.seen()?, OrderProof::Dashboard).await?,
        Verb::Withdraw => {
            front.desk.withdraw(by, which, OrderProof::Dashboard).await?;
            Outcome::Done(CommandReply::default())
        }
    };
    Ok(Json(outcome.into()))
}
