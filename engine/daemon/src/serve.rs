//! `voiced serve`: builds everything from settings, answers HTTP, drains on SIGTERM.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::Router;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use voiced_config::Settings;
use voiced_core::conversation::ENDING_MS_MAX;
use voiced_core::frame::Rate;
use voiced_events::deliver::{self, Backoff, DeliveryCounters, Pace};
use voiced_events::outbox::{Outbox, OutboxError, Store};
use voiced_events::sinks::{Sink, ema::Ema, file::JsonLines};
use voiced_livekit::worker::Worker;
use voiced_rt::Engine;
use voiced_twilio::{Secret, TwilioCounters, TwilioSettings};

use crate::agent::Agents;
use crate::backlog::{self, Backlog};
use crate::flight::Recorder;
use crate::http::rooms::Rooms;
use crate::http::{self, Gate, Status};
use crate::listen::{Answering, Front};
use crate::rooms::RoomHost;
use crate::sessions::{Desk, Sessions};
use crate::traces::Traces;
use crate::{dirs, headroom, inference, linger, notify, recording};

/// How long goodbyes may take after that: as long as a conversation takes at most to end, and a moment to be carried out.
const GOODBYE: Duration = Duration::from_millis(ENDING_MS_MAX + 2_000);
/// How long the events of calls that are cut off then may take to their disk.
const CUT_OFF: Duration = Duration::from_secs(2);
/// How long each receiver may take for the last events, and the disk for those that it did not take.
const LAST_EVENTS: Duration = Duration::from_secs(10);
/// How often the store is asked whether the disk takes events again, and whether another process has left any.
const STORE_LOOK: Duration = Duration::from_secs(1);

/// A running daemon.
pub struct Daemon {
    pub address: SocketAddr,
    pub sessions: Arc<Sessions>,
    pub rooms: Option<Arc<RoomHost>>,
    worker: Option<Worker>,
    stop_events: watch::Sender<bool>,
    deliveries: Vec<JoinHandle<Result<(), OutboxError>>>,
    http: Answering,
}

/// Serves until SIGTERM or ctrl-c, then drains.
pub async fn until_stopped(settings: Settings) -> Result<()> {
    let drain = Duration::from_secs(settings.server.drain_s);
    let daemon = Daemon::start(settings, true).await?;
    notify::ready();
    tokio::spawn(notify::watchdog(Arc::clone(&daemon.sessions.engine)));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = linger::main_process_ends() => {} }
    notify::stopping();
    tracing::info!(calls = daemon.sessions.list().len(), drain_s = drain.as_secs(), "draining: no new calls; a second signal ends the present ones");
    daemon.drain();
    tokio::select! {
        () = daemon.sessions.all_ended() => {}
        () = tokio::time::sleep(drain) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    daemon.stop().await;
    Ok(())
}

impl Daemon {
    /// Builds and starts everything; `verify_signatures` is off only for a demo on loopback.
    pub async fn start(settings: Settings, verify_signatures: bool) -> Result<Self> {
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
        let recorder = Recorder::start(dirs::calls(&settings.storage), settings.storage.calls_kept);
        let metrics = Arc::default();
        let traces = Traces::new(&settings.traces, &metrics)?;
        let sessions = Sessions::new(engine, agents, outbox, backlog, metrics, traces, recorder);
        if settings.engine.headroom_percent > 0 {
            let kept_free = f32::from(settings.engine.headroom_percent) / 100.0;
            tokio::spawn(headroom::watch(Arc::clone(&sessions.headroom), Arc::clone(&sessions.engine), kept_free));
        }
        let front = Front::open(&settings.server).await?;
        let address = front.address()?;
        let rooms = rooms(&settings, &sessions)?;
        let gate = Gate::new(&settings.server);
        let (router, status) = router(&settings, address, verify_signatures, &sessions, rooms.as_ref(), &gate)?;
        // behind limits of its own, so that a flood of the public address hides nothing
        let http = front.answer((router, gate), (http::metrics_router(&settings, status), Gate::new(&settings.server)));
        tracing::info!(%address, stt = settings.agent.stt, llm = settings.agent.llm, tts = settings.agent.tts, calls_max = sessions.engine.limit(), "serving");
        let worker = rooms.as_ref().map(RoomHost::work);
        Ok(Self { address, sessions, rooms, worker, stop_events, deliveries, http })
    }

    /// No new calls from now on.
    pub fn drain(&self) {
        self.sessions.drain();
        self.http.drain();
        let outbox = self.sessions.outbox.clone();
        // only said to whoever asks: a store that fails says so itself
        tokio::spawn(async move { outbox.with(Store::draining).await });
        if let Some(worker) = &self.worker {
            worker.stop_taking();
        }
    }

    /// Ends calls, delivers what can be delivered, stops.
    pub async fn stop(self) {
        self.sessions.drain();
        self.sessions.end_all();
        if tokio::time::timeout(GOODBYE, self.sessions.all_ended()).await.is_err() {
            tracing::warn!(calls = self.sessions.list().len(), "calls did not end with their goodbye, they are cut off");
            self.sessions.cut_off();
            let _ = tokio::time::timeout(CUT_OFF, self.sessions.all_ended()).await; // what is not reported now is at the next start
        }
        self.stop_events.send_replace(true);
        let deliveries = async {
            for delivery in self.deliveries {
                let _ = tokio::time::timeout(LAST_EVENTS, delivery).await; // what is not delivered stays owed
            }
        };
        tokio::join!(self.sessions.traces.finish(), deliveries);
        let health = self.sessions.outbox.health();
        let _ = tokio::time::timeout(LAST_EVENTS, async {
            while health.unwritten() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        if health.unwritten() > 0 {
            tracing::error!(events = health.unwritten(), "events are lost: the disk of state_dir did not take them to the end");
        }
        self.http.stop();
    }
}

/// Opens the event store, reports calls that a crash cut off, starts a delivery for each sink. Another process may use the
/// store too, one that drains: its calls are left alone until it ends.
async fn events(settings: &Settings) -> Result<(Outbox, watch::Sender<bool>, Vec<JoinHandle<Result<(), OutboxError>>>)> {
    let folder = dirs::state(&settings.storage);
    let sinks = sinks(settings)?;
    let names: Vec<_> = sinks.iter().map(Sink::name).collect();
    may_be_written(&folder).with_context(|| format!("cannot write in {} (storage.state_dir, STATE_DIRECTORY)", folder.display()))?;
    let outbox = Outbox::open(&dirs::event_store(&settings.storage), &names)?;
    // what fails here fails for the disk's sake or is tried again: no reason to take no calls
    let told = |error| {
        tracing::warn!(%error, "the event store cannot be put in order now");
        0
    };
    let ended = outbox.with(Store::take_over).await?.unwrap_or_else(told);
    tokio::spawn(outbox.clone().watch(STORE_LOOK));
    tracing::info!(folder = %folder.display(), sinks = ?names, calls_cut_off = ended, "events are kept for their sinks");
    for (sink, (pending, _)) in outbox.with(|store| store.backlog()).await?.unwrap_or_default() {
        if pending > 0 && !names.contains(&sink.as_str()) {
            tracing::warn!(sink, pending, "events wait for a sink that is not configured: they are delivered once it is again");
        }
    }
    let (stop, stopped) = watch::channel(false);
    let backoff = Backoff { attempts_max: settings.events.attempts_max, ..Backoff::default() };
    let pace = Pace::new(settings.events.per_second_max);
    let deliver = |sink| tokio::spawn(deliver::run(outbox.clone(), Arc::new(sink), backoff, pace, Arc::new(DeliveryCounters::default()), stopped.clone()));
    let deliveries = sinks.into_iter().map(deliver).collect();
    Ok((outbox, stop, deliveries))
}

/// Fails for a folder that is not there or not ours, but not for a disk that is full or read-only for now.
fn may_be_written(folder: &Path) -> io::Result<()> {
    let probe = folder.join(".written");
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, [])).and_then(|()| std::fs::remove_file(&probe)) {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::QuotaExceeded) => Ok(()),
        tried => tried,
    }
}

fn sinks(settings: &Settings) -> Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if !settings.ema.api_url.is_empty() {
        sinks.push(Sink::Ema(Ema::new(&settings.ema.api_url, settings.ema.webhook_secret.clone())?));
    }
    if !settings.events.file.is_empty() {
        sinks.push(Sink::File(JsonLines::new(Path::new(&settings.events.file).to_owned())));
    }
    Ok(sinks)
}

fn router(
    settings: &Settings,
    address: SocketAddr,
    verify_signatures: bool,
    sessions: &Arc<Sessions>,
    rooms: Option<&Arc<RoomHost>>,
    gate: &Arc<Gate>,
) -> Result<(Router, Arc<Status>)> {
    let twilio_counters = Arc::new(TwilioCounters::default());
    let status = Arc::new(Status {
        sessions: Arc::clone(sessions),
        twilio: Arc::clone(&twilio_counters),
        rooms: rooms.cloned(),
        phone_number: settings.twilio.phone_number.clone(),
        gate: Arc::clone(gate),
    });
    let public = if settings.server.webhook_url.is_empty() { format!("http://{address}") } else { settings.server.webhook_url.clone() };
    let twilio = TwilioSettings {
        auth_token: secret(&settings.twilio.auth_token),
        shared_key: secret(&settings.twilio.shared_key),
        account_sid: (!settings.twilio.account_sid.is_empty()).then(|| settings.twilio.account_sid.clone()),
        token_ttl_s: settings.twilio.token_ttl_s,
        idle_timeout_s: settings.twilio.idle_timeout_s,
        // the conversation ends the call first and says goodbye; the transport's own limit is the net below
        max_duration_s: settings.twilio.max_duration_s + 60,
        bad_messages_max: settings.twilio.bad_messages_max,
        messages_per_s_max: settings.twilio.messages_per_s_max,
        body_timeout_s: settings.server.body_timeout_s,
        verify_signatures,
        ..TwilioSettings::new(public.parse().context("server.webhook_url")?)
    };
    let own = http::router(settings, address, rooms.map(|rooms| Arc::clone(rooms) as Arc<dyn Rooms>), Arc::clone(&status))?;
    let desk = Desk { sessions: Arc::clone(sessions), rooms: rooms.cloned(), drain_redirect_url: settings.twilio.drain_redirect_url.clone() };
    Ok((own.merge(voiced_twilio::router(twilio, Arc::new(desk), twilio_counters)), status))
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

fn secret(key: &Secret) -> Option<Secret> {
    (!key.is_empty()).then(|| key.clone())
}
