//! `voiced serve`: builds everything from settings, answers HTTP, drains on SIGTERM.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use voiced_config::Settings;
use voiced_core::frame::Rate;
use voiced_events::deliver::{self, Backoff, DeliveryCounters, unix_ms};
use voiced_events::outbox::{Outbox, OutboxError, Store};
use voiced_events::sinks::{Sink, ema::Ema, file::JsonLines};
use voiced_livekit::worker::Worker;
use voiced_rt::Engine;
use voiced_twilio::{Secret, TwilioCounters, TwilioSettings};

use crate::agent::Agents;
use crate::backlog::{self, Backlog};
use crate::http::rooms::Rooms;
use crate::http::{self, Status};
use crate::rooms::RoomHost;
use crate::sessions::{Desk, Sessions};
use crate::traces::Traces;
use crate::{dirs, headroom, inference, notify, recording};

/// How long calls may go on after SIGTERM; systemd's `TimeoutStopSec` is a little longer.
const DRAIN: Duration = Duration::from_mins(5);
/// How long goodbyes and last events may take after that.
const GOODBYE: Duration = Duration::from_secs(10);

/// A running daemon.
pub struct Daemon {
    pub address: SocketAddr,
    pub sessions: Arc<Sessions>,
    pub rooms: Option<Arc<RoomHost>>,
    worker: Option<Worker>,
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
    daemon.drain();
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
        let metrics = Arc::default();
        let traces = Traces::new(&settings.traces, &metrics)?;
        let sessions = Sessions::new(engine, agents, outbox, backlog, metrics, traces);
        if settings.engine.headroom_percent > 0 {
            let kept_free = f32::from(settings.engine.headroom_percent) / 100.0;
            tokio::spawn(headroom::watch(Arc::clone(&sessions.headroom), Arc::clone(&sessions.engine), kept_free));
        }
        let listener = TcpListener::bind((settings.server.bind.as_str(), settings.server.port))
            .await
            .with_context(|| format!("cannot listen on {}:{} (server.bind, PORT)", settings.server.bind, settings.server.port))?;
        let address = listener.local_addr()?;
        let rooms = rooms(&settings, &sessions)?;
        let router = router(&settings, address, verify_signatures, &sessions, rooms.as_ref())?;
        let http = tokio::spawn(async move { axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await });
        tracing::info!(%address, stt = settings.agent.stt, llm = settings.agent.llm, tts = settings.agent.tts, calls_max = sessions.engine.limit(), "serving");
        let worker = rooms.as_ref().map(RoomHost::work);
        Ok(Self { address, sessions, rooms, worker, stop_events, deliveries, _state: state, http })
    }

    /// No new calls from now on.
    pub fn drain(&self) {
        self.sessions.drain();
        if let Some(worker) = &self.worker {
            worker.stop_taking();
        }
    }

    /// Ends calls, delivers what can be delivered, stops.
    pub async fn stop(self) {
        self.sessions.drain();
        self.sessions.end_all();
        let _ = tokio::time::timeout(GOODBYE, self.sessions.all_ended()).await; // what is not reported now is at the next start
        self.stop_events.send_replace(true);
        let deliveries = async {
            for delivery in self.deliveries {
                let _ = tokio::time::timeout(GOODBYE, delivery).await; // what is not delivered stays owed
            }
        };
        tokio::join!(self.sessions.traces.finish(), deliveries);
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

fn router(settings: &Settings, address: SocketAddr, verify_signatures: bool, sessions: &Arc<Sessions>, rooms: Option<&Arc<RoomHost>>) -> Result<Router> {
    let twilio_counters = Arc::new(TwilioCounters::default());
    let status = Arc::new(Status {
        sessions: Arc::clone(sessions),
        twilio: Arc::clone(&twilio_counters),
        rooms: rooms.cloned(),
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
    let own = http::router(settings, address, rooms.map(|rooms| Arc::clone(rooms) as Arc<dyn Rooms>), status)?;
    Ok(own.merge(voiced_twilio::router(twilio, Arc::new(Desk { sessions: Arc::clone(sessions), rooms: rooms.cloned() }), twilio_counters)))
}

/// The rooms of the configured LiveKit server.
fn rooms(settings: &Settings, sessions: &Arc<Sessions>) -> Result<Option<Arc<RoomHost>>> {
    let missing = settings.livekit.missing();
    if !missing.is_empty() {
        tracing::info!("LiveKit is not configured (set {}): rooms are off, calls from Twilio are answered", missing.join(", "));
        return Ok(None);
    }
    let recordings = dirs::recordings(settings);
    let age = Duration::from_secs(u64::from(settings.livekit.recording_retention_days) * 24 * 3_600);
    if !age.is_zero() {
        tokio::spawn(expire(recordings.clone(), age));
    }
    RoomHost::new(&settings.livekit, sessions, recordings).map(Some)
}

/// Deletes recordings that are old enough, now and then every hour.
async fn expire(folder: PathBuf, age: Duration) {
    loop {
        let there = folder.clone();
        match tokio::task::spawn_blocking(move || recording::expire(&there, age, SystemTime::now())).await {
            Ok(0) | Err(_) => {}
            Ok(deleted) => tracing::info!(deleted, "old recordings deleted"),
        }
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
}

fn secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}
