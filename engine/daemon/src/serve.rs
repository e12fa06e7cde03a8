//! `voiced serve`: builds everything from settings, answers HTTP, drains on SIGTERM.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Path as UrlPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use voiced_config::Settings;
use voiced_core::frame::Rate;
use voiced_events::deliver::{self, Backoff, DeliveryCounters, unix_ms};
use voiced_events::outbox::{Outbox, OutboxError, Store};
use voiced_events::sinks::{Sink, ema::Ema, file::JsonLines};
use voiced_rt::Engine;
use voiced_twilio::{Secret, TwilioCounters, TwilioSettings};

use crate::agent::Agents;
use crate::backlog::{self, Backlog};
use crate::sessions::{Desk, Sessions};
use crate::{dirs, inference, notify};

/// How long calls may go on after SIGTERM; systemd's `TimeoutStopSec` is a little longer.
const DRAIN: Duration = Duration::from_mins(5);
/// How long goodbyes and last events may take after that.
const GOODBYE: Duration = Duration::from_secs(10);

/// A running daemon.
pub struct Daemon {
    pub address: SocketAddr,
    pub sessions: Arc<Sessions>,
    stop_events: watch::Sender<bool>,
    deliveries: Vec<JoinHandle<Result<(), OutboxError>>>,
    /// Locked.
    _state: File,
    http: JoinHandle<std::io::Result<()>>,
}

/// Serves until SIGTERM or ctrl-c, then drains.
pub async fn until_stopped(settings: Settings) -> Result<()> {
    let daemon = Daemon::start(settings, true).await?;
    notify::ready();
    tokio::spawn(notify::watchdog(Arc::clone(&daemon.sessions.engine)));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    notify::stopping();
    tracing::info!(calls = daemon.sessions.list().len(), "draining: no new calls; a second signal ends the present ones");
    daemon.sessions.drain();
    tokio::select! {
        () = daemon.sessions.all_ended() => {}
        () = tokio::time::sleep(DRAIN) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    daemon.stop().await;
    Ok(())
}

impl Daemon {
    /// Builds and starts everything; `verify_signatures` is off only for a demo on loopback.
    pub async fn start(settings: Settings, verify_signatures: bool) -> Result<Self> {
        let state = claim(&dirs::state(&settings.storage))?;
        let weights = dirs::weights(&settings.storage);
        let turn_model = inference::turn_model(&settings, &weights)?;
        let models = |slots| inference::thread_models(&settings, &weights, turn_model.as_ref(), slots);
        let engine = Arc::new(Engine::start(&inference::engine(&settings), models)?);
        let agents = Agents::new(&settings, &weights)?;
        agents.agent(agents.profile(), Rate::Hz8000)?; // what the profile names is loaded before the first call
        let (outbox, stop_events, deliveries) = events(&settings).await?;
        let backlog = Arc::new(Backlog::new(settings.events.backlog_max));
        backlog.count(&outbox).await?;
        tokio::spawn(backlog::watch(Arc::clone(&backlog), outbox.clone()));
        let sessions = Sessions::new(engine, agents, outbox, backlog);
        let listener = TcpListener::bind((settings.server.bind.as_str(), settings.server.port))
            .await
            .with_context(|| format!("cannot listen on {}:{} (server.bind, PORT)", settings.server.bind, settings.server.port))?;
        let address = listener.local_addr()?;
        let router = router(&settings, address, verify_signatures, &sessions)?;
        let http = tokio::spawn(async move { axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await });
        tracing::info!(%address, stt = settings.agent.stt, llm = settings.agent.llm, tts = settings.agent.tts, calls_max = sessions.engine.limit(), "serving");
        Ok(Self { address, sessions, stop_events, deliveries, _state: state, http })
    }

    /// Ends calls, delivers what can be delivered, stops.
    pub async fn stop(self) {
        self.sessions.drain();
        self.sessions.end_all();
        let _ = tokio::time::timeout(GOODBYE, self.sessions.all_ended()).await; // what is not reported now is at the next start
        self.stop_events.send_replace(true);
        for delivery in self.deliveries {
            let _ = tokio::time::timeout(GOODBYE, delivery).await; // what is not delivered stays owed
        }
        self.http.abort();
    }
}

/// Makes the folder of the event store and locks it, until this process ends in whatever way: a second daemon would take
/// the first one's calls for cut off.
fn claim(folder: &Path) -> Result<File> {
    let named = format!("{} (storage.state_dir, STATE_DIRECTORY)", folder.display());
    let lock = std::fs::create_dir_all(folder).and_then(|()| File::create(folder.join("lock"))).with_context(|| format!("cannot write in {named}"))?;
    lock.try_lock().with_context(|| format!("another voiced uses {named}"))?;
    Ok(lock)
}

/// Opens the event store, reports calls that a crash cut off, starts a delivery for each sink.
async fn events(settings: &Settings) -> Result<(Outbox, watch::Sender<bool>, Vec<JoinHandle<Result<(), OutboxError>>>)> {
    let folder = dirs::state(&settings.storage);
    let sinks = sinks(settings)?;
    let names: Vec<_> = sinks.iter().map(Sink::name).collect();
    let outbox = Outbox::open(&folder.join("events.db"), &names)?;
    let ended = outbox.with(Store::end_orphans).await??;
    let pruned = outbox.with(|store| store.prune(unix_ms())).await??;
    tracing::info!(folder = %folder.display(), sinks = ?names, calls_cut_off = ended, pruned, "event store open");
    let (stop, stopped) = watch::channel(false);
    let backoff = Backoff { attempts_max: settings.events.attempts_max, ..Backoff::default() };
    let deliver = |sink| tokio::spawn(deliver::run(outbox.clone(), Arc::new(sink), backoff, Arc::new(DeliveryCounters::default()), stopped.clone()));
    let deliveries = sinks.into_iter().map(deliver).collect();
    Ok((outbox, stop, deliveries))
}

fn sinks(settings: &Settings) -> Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if !settings.ema.api_url.is_empty() {
        sinks.push(Sink::Ema(Ema::new(&settings.ema.api_url, &settings.ema.webhook_secret)?));
    }
    if !settings.events.file.is_empty() {
        sinks.push(Sink::File(JsonLines::new(Path::new(&settings.events.file).to_owned())));
    }
    Ok(sinks)
}

struct Shared {
    sessions: Arc<Sessions>,
    twilio: Arc<TwilioCounters>,
    api_key: String,
    phone_number: String,
}

fn router(settings: &Settings, address: SocketAddr, verify_signatures: bool, sessions: &Arc<Sessions>) -> Result<Router> {
    let twilio_counters = Arc::new(TwilioCounters::default());
    let shared = Arc::new(Shared {
        sessions: Arc::clone(sessions),
        twilio: Arc::clone(&twilio_counters),
        api_key: settings.server.api_key.clone(),
        phone_number: settings.twilio.phone_number.clone(),
    });
    let public = if settings.server.webhook_url.is_empty() { format!("http://{address}") } else { settings.server.webhook_url.clone() };
    let twilio = TwilioSettings {
        auth_token: secret(&settings.twilio.auth_token),
        account_sid: (!settings.twilio.account_sid.is_empty()).then(|| settings.twilio.account_sid.clone()),
        token_ttl_s: settings.twilio.token_ttl_s,
        idle_timeout_s: settings.twilio.idle_timeout_s,
        // the conversation ends the call first and says goodbye; the transport's own limit is the net below
        max_duration_s: settings.twilio.max_duration_s + 60,
        bad_messages_max: settings.twilio.bad_messages_max,
        verify_signatures,
        ..TwilioSettings::new(public.parse().context("server.webhook_url")?)
    };
    let guarded = Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{id}", get(one))
        .route("/metrics", get(metrics))
        .route("/events", get(live_events))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard));
    let own = guarded.route("/health", get(health)).with_state(shared);
    Ok(own.merge(voiced_twilio::router(twilio, Arc::new(Desk(Arc::clone(sessions))), twilio_counters)))
}

fn secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}

/// Callers' words are not for everyone: a key where one is set, else loopback only.
async fn guard(State(shared): State<Arc<Shared>>, ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let may = if shared.api_key.is_empty() { peer.ip().is_loopback() } else { bearer.is_some_and(|given| same(given, &shared.api_key)) };
    if may {
        return next.run(request).await;
    }
    let reason = "give `Authorization: Bearer …` with server.api_key; without such a key only loopback is answered";
    (StatusCode::UNAUTHORIZED, Json(json!({ "error": { "field": "Authorization", "reason": reason } }))).into_response()
}

/// Compares in a time that does not tell how much was right.
fn same(given: &str, key: &str) -> bool {
    given.len() == key.len() && given.bytes().zip(key.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let sessions = &shared.sessions;
    let draining = sessions.is_draining();
    let body = json!({
        "status": if draining { "draining" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "calls": sessions.engine.calls(),
        "callsMax": sessions.engine.limit(),
        "phoneNumber": shared.phone_number,
    });
    (if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, Json(body))
}

async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let sessions = shared.sessions.list();
    let mut by_type: BTreeMap<&str, usize> = BTreeMap::new();
    for session in &sessions {
        *by_type.entry(session.r#type).or_default() += 1;
    }
    Json(json!({ "total": sessions.len(), "byType": by_type, "sessions": sessions }))
}

async fn one(State(shared): State<Arc<Shared>>, UrlPath(id): UrlPath<String>) -> Response {
    match shared.sessions.get(&id) {
        Some(session) => Json(session).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": { "field": "sessionId", "reason": "no such session now" } }))).into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let backlog = match shared.sessions.outbox.with(|store| store.backlog()).await {
        Ok(Ok(backlog)) => backlog,
        Ok(Err(error)) | Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let text = shared.sessions.metrics.render(&shared.sessions.engine.meters(), &backlog, &shared.twilio.read());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Every event as it becomes safe, a JSON text each; a listener that falls behind is told how many it missed.
async fn live_events(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let mut events = shared.sessions.outbox.live();
    upgrade.on_upgrade(move |mut socket| async move {
        loop {
            let text = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => serde_json::to_string(&event).unwrap_or_default(),
                    Err(RecvError::Lagged(missed)) => json!({ "missed": missed }).to_string(),
                    Err(RecvError::Closed) => return,
                },
                // the listener says nothing that matters; this notices that it left
                heard = socket.recv() => match heard { Some(Ok(_)) => continue, _ => return },
            };
            if socket.send(Message::Text(text.into())).await.is_err() {
                return;
            }
        }
    })
}
