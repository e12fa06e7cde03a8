//! The HTTP API: sessions and rooms for a frontend, telephone callers that LiveKit tells of, and the state of the host.
//! A request passes the limit of its body, CORS, then the guard of its kind (`access`), and reaches a handler that checks
//! each field by name before anything costs money. Behind the handlers stands the trait `rooms::Rooms`; without LiveKit
//! its routes answer 503 and say what to set, and everything else runs.

mod access;
mod agent_config;
mod api;
mod body;
mod calls;
mod gate;
mod jwt;
mod listener;
mod openapi;
mod rate;
mod records;
mod refusal;
mod room;
pub mod rooms;
mod session;
mod source;
mod status;
mod telephony;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware;
use axum::routing::{any, get};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use voiced_config::Settings;

pub use gate::Gate;
pub use listener::serve;
pub use status::Status;

use access::{Access, Operator, may_look, may_spend};
use api::Api;
use refusal::Refusal;
use rooms::Rooms;

/// How long browsers may remember that an origin is allowed.
const CORS_REMEMBERED: Duration = Duration::from_mins(10);

/// Everything but the transports' own routes, for a daemon that listens at `address`.
pub fn router(settings: &Settings, address: SocketAddr, rooms: Option<Arc<dyn Rooms>>, status: Arc<Status>) -> Result<Router> {
    let operator = Arc::new(Operator::new(&settings.server.api_key));
    let mut host = looking();
    if settings.server.metrics_bind.is_empty() {
        host = host.merge(metrics());
    }
    let host = Router::from(host).layer(middleware::from_fn_with_state(operator, may_look)).with_state(Arc::clone(&status));
    let health = Router::from(health()).with_state(status).layer(cors(&settings.http.cors_origins));
    Ok(frontend(settings, address, rooms)?.merge(health).merge(host).method_not_allowed_fallback(wrong_method).fallback(nothing))
}

/// `/metrics` alone, for an address of its own.
pub fn metrics_router(settings: &Settings, status: Arc<Status>) -> Router {
    let operator = Arc::new(Operator::new(&settings.server.api_key));
    Router::from(metrics()).layer(middleware::from_fn_with_state(operator, may_look)).with_state(status).fallback(nothing)
}

/// What pages in browsers may ask: rooms, behind their guard, and the document of all routes.
fn frontend(settings: &Settings, address: SocketAddr, rooms: Option<Arc<dyn Rooms>>) -> Result<Router> {
    let document = document()?;
    let document = get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) });
    let rooms = match rooms {
        Some(rooms) => configured(settings, address, rooms),
        None => unconfigured(&settings.livekit.missing()),
    };
    Ok(rooms.route("/openapi.json", document).layer(cors(&settings.http.cors_origins)))
}

fn configured(settings: &Settings, address: SocketAddr, rooms: Arc<dyn Rooms>) -> Router {
    let access = Arc::new(Access::new(&settings.http, address));
    let spending = Router::from(spending())
        .layer(DefaultBodyLimit::max(body::BODY_BYTES_MAX))
        // outside the limit: nothing of a stranger's body is read
        .layer(middleware::from_fn_with_state(access, may_spend));
    let webhook = Router::from(webhook()).layer(DefaultBodyLimit::max(telephony::WEBHOOK_BYTES_MAX));
    spending.merge(webhook).with_state(Arc::new(Api::new(settings, rooms)))
}

fn spending() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(session::start))
        .routes(routes!(session::end))
        .routes(routes!(room::create))
        .routes(routes!(room::join))
        .routes(routes!(room::agent))
        .routes(routes!(room::recording))
        .routes(routes!(room::supervisor))
        .routes(routes!(telephony::call))
        .routes(routes!(telephony::call_by_room))
}

fn webhook() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(telephony::webhook))
}

fn looking() -> OpenApiRouter<Arc<Status>> {
    OpenApiRouter::new()
        .routes(routes!(status::list))
        .routes(routes!(status::one))
        .routes(routes!(status::events))
        .routes(routes!(records::list))
        .routes(routes!(records::one))
}

fn metrics() -> OpenApiRouter<Arc<Status>> {
    OpenApiRouter::new().routes(routes!(status::metrics))
}

fn health() -> OpenApiRouter<Arc<Status>> {
    OpenApiRouter::new().routes(routes!(status::health))
}

fn document() -> Result<String> {
    let mut open = health().into_openapi();
    open.merge(webhook().into_openapi());
    openapi::document(open, looking().merge(metrics()).into_openapi(), spending().into_openapi()).to_json().context("the OpenAPI document")
}

fn unconfigured(missing: &[&str]) -> Router {
    let reason = if missing.is_empty() { "LiveKit is off".to_owned() } else { format!("LiveKit is not configured: set {}", missing.join(", ")) };
    let mut paths = spending().into_openapi().paths.paths;
    paths.extend(webhook().into_openapi().paths.paths);
    paths.into_keys().fold(Router::new(), |router, path| {
        let reason = reason.clone();
        router.route(&path, any(move || async move { Refusal::of(StatusCode::SERVICE_UNAVAILABLE, reason) }))
    })
}

async fn nothing() -> Refusal {
    Refusal::unknown("path", "nothing here: see /openapi.json")
}

async fn wrong_method() -> Refusal {
    Refusal::of(StatusCode::METHOD_NOT_ALLOWED, "another method: see /openapi.json").at("method")
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static("x-api-key")])
        .expose_headers([header::RETRY_AFTER])
        .max_age(CORS_REMEMBERED)
}
