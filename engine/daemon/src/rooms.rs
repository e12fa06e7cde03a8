//! This host's part in LiveKit rooms: the jobs that the server sends it, the rooms that frontends ask for, and the rooms
//! into which phone calls are bridged.
//!
//! [`RoomHost`] holds what they share. [`call`] is one call in a room, [`profile`] what its job wishes, [`linked`] whom
//! it hears, [`voices`] by which of that one's microphones, [`show`] what is seen of it. [`bridge`] is a phone call's
//! room, [`whisper`] what a supervisor tells the agent there. [`api`] answers the HTTP side.

mod api;
mod bridge;
mod call;
mod early;
mod linked;
mod profile;
mod show;
mod voices;
mod whisper;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use url::Url;
use voiced_config::{Hear, Livekit};
use voiced_livekit::api::{DispatchOnce, ServerApi};
use voiced_livekit::token::Keys;
use voiced_livekit::webhook::WebhookReceiver;
use voiced_livekit::worker::{Job, JobEnd, Jobs, Worker, WorkerCounters, WorkerSettings, WorkerStatus};
use voiced_livekit::{DisconnectReason, LiveKit, MediaSettings};
use voiced_twilio::IncomingCall;

use crate::call::{Observed, Request};
use crate::sessions::Sessions;
use bridge::Bridged;
use call::RoomJob;
use profile::JobProfile;

/// What people in a room see of the agent, unless the job names it.
const DISPLAY_NAME: &str = "Agent";
/// A worker registers within milliseconds, unless the server is away.
const REGISTERED_MAX: Duration = Duration::from_secs(2);
/// What a call tells and its room has not shown yet: some seconds' worth.
const WATCHED_MAX: usize = 256;
/// What rooms ask of a call and it has not done yet.
const REQUESTS_MAX: usize = 32;
/// One tick's share of a core, in µs: what an audio thread may spend per tick.
const TICK_US: f32 = 10_000.0;

/// Everything about rooms on this host.
pub struct RoomHost {
    sessions: Arc<Sessions>,
    media: LiveKit,
    api: Arc<ServerApi>,
    keys: Keys,
    dispatch: DispatchOnce,
    webhooks: WebhookReceiver,
    settings: Livekit,
    url: Url,
    recordings: PathBuf,
    jobs: Mutex<BTreeMap<String, RunningJob>>,
    /// Rooms with a call of ours in them, by name.
    live: Mutex<BTreeMap<String, LiveRoom>>,
    /// Recordings of the Egress service, by room.
    egress: Mutex<BTreeMap<String, EgressPlace>>,
    /// How our worker stands, once there is one.
    worker: OnceLock<(watch::Receiver<WorkerStatus>, Arc<WorkerCounters>)>,
    /// The audio threads' time at the last report: ticks and µs in them.
    measured: Mutex<(u64, u64)>,
}

/// The id of a room's recording under way. Who starts or stops it holds the place meanwhile.
type EgressPlace = Arc<tokio::sync::Mutex<Option<String>>>;

/// A room that a call of ours is in.
struct LiveRoom {
    requests: mpsc::Sender<Request>,
    /// What the HTTP side wants of the room, where the call is bridged.
    orders: Option<mpsc::Sender<bridge::Order>>,
    /// Ends the recording under way; whoever writes it holds it.
    recording: Weak<AtomicBool>,
    /// The agent was sent out of a bridged call, which goes on without it.
    without_agent: bool,
    /// Somebody has taken the agent's place in a bridged call.
    taken_over: bool,
}

impl LiveRoom {
    fn new(requests: mpsc::Sender<Request>, orders: Option<mpsc::Sender<bridge::Order>>) -> Self {
        Self { requests, orders, recording: Weak::new(), without_agent: false, taken_over: false }
    }
}

struct RunningJob {
    room: String,
    stop: mpsc::Sender<()>,
}

impl RoomHost {
    /// With the settings of a server.
    pub fn new(settings: &Livekit, sessions: &Arc<Sessions>, recordings: PathBuf) -> Result<Arc<Self>> {
        let url: Url = settings.url.parse().context("livekit.url (LIVEKIT_URL)")?;
        let keys = Keys::new(&settings.api_key, settings.api_secret.clone());
        // both are set or none: the settings' own check
        let webhook_keys =
            if settings.webhook_api_key.is_empty() { keys.clone() } else { Keys::new(&settings.webhook_api_key, settings.webhook_api_secret.clone()) };
        let api = Arc::new(ServerApi::new(&url, &keys));
        Ok(Arc::new(Self {
            sessions: Arc::clone(sessions),
            media: LiveKit::start(MediaSettings { threads: settings.media_threads, ..MediaSettings::default() }).context("the media threads do not start")?,
            dispatch: DispatchOnce::new(Arc::clone(&api)),
            api,
            keys,
            webhooks: WebhookReceiver::new(&webhook_keys),
            settings: settings.clone(),
            url,
            recordings,
            jobs: Mutex::default(),
            live: Mutex::default(),
            egress: Mutex::default(),
            worker: OnceLock::new(),
            measured: Mutex::default(),
        }))
    }

    /// Registers with the server; jobs come from now on.
    pub fn work(self: &Arc<Self>) -> Worker {
        let settings = WorkerSettings {
            url: self.url.clone(),
            keys: self.keys.clone(),
            agent_name: self.settings.agent_name.clone(),
            display_name: DISPLAY_NAME.into(),
            jobs_max: self.settings.jobs_max,
        };
        let worker = Worker::start(&settings, Arc::new(Desk(Arc::clone(self))));
        let _ = self.worker.set((worker.status(), worker.counters())); // there is one worker
        worker
    }

    /// What was counted of rooms and jobs.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let worker = self.worker.get().map(|(_, counters)| counters.read());
        self.media.counters().read().into_iter().chain(worker.into_iter().flatten()).collect()
    }

    /// Waits a little for our worker: a job dispatched before any worker is there is lost.
    async fn registered(&self) {
        if let Some((status, _)) = self.worker.get() {
            let mut status = status.clone();
            // another host of our name may be there all the same
            let _ = timeout(REGISTERED_MAX, status.wait_for(|status| *status == WorkerStatus::Registered)).await;
        }
    }

    /// A room for a phone call, where calls have one: what the call tells goes into the first, what the room asks of the
    /// call comes out of the second. The room lasts until the call drops them.
    pub fn bridge(self: &Arc<Self>, call: &IncomingCall) -> Option<(mpsc::Sender<Observed>, mpsc::Receiver<Request>)> {
        if !self.settings.bridge_enabled {
            return None;
        }
        let room = format!("{}{}", self.settings.bridge_room_prefix, call.call_sid);
        let (watcher, watched) = mpsc::channel(WATCHED_MAX);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (orders_in, orders) = mpsc::channel(bridge::ORDERS_MAX);
        self.live().insert(room.clone(), LiveRoom::new(requests.clone(), Some(orders_in)));
        let bridged =
            Bridged { call_sid: call.call_sid.clone(), from: call.from.clone(), to: call.to.clone(), requests, watched, orders, ordered: HashMap::new() };
        let host = Arc::clone(self);
        tokio::spawn(async move {
            bridge::run(Arc::clone(&host), room.clone(), bridged).await;
            host.live().remove(&room);
        });
        Some((watcher, asked))
    }

    /// The agent in this room, and nobody else, is sent away.
    fn dismiss(&self, room: &str) {
        for job in self.jobs().values().filter(|job| job.room == room) {
            let _ = job.stop.try_send(()); // told once is enough
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, LiveRoom>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, RunningJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The larger of two shares: of the audio threads' time that ticks took since the last report, and of their places;
    /// or the pressure under which this host is, where that is measured.
    fn load(&self) -> f32 {
        let engine = &self.sessions.engine;
        if self.sessions.is_draining() {
            return 1.0;
        }
        let (ticks, busy) = engine.meters().iter().fold((0, 0), |(ticks, busy), meter| (ticks + meter.ticks, busy + meter.busy_us));
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let (ticks_before, busy_before) = std::mem::replace(&mut *measured, (ticks, busy));
        let time = (busy - busy_before) as f32 / (TICK_US * (ticks - ticks_before).max(1) as f32);
        let places = engine.calls() as f32 / engine.limit().max(1) as f32;
        time.max(places).max(self.sessions.headroom.pressure()).clamp(0.0, 1.0)
    }
}

/// The host as the worker sees it.
struct Desk(Arc<RoomHost>);

impl Jobs for Desk {
    fn may_take(&self, promised: usize) -> bool {
        self.0.sessions.may_admit(promised)
    }

    fn load(&self) -> f32 {
        self.0.load()
    }

    fn start(&self, job: Job, end: JobEnd) {
        let host = Arc::clone(&self.0);
        let (stop, stopped) = mpsc::channel(1);
        let running = RunningJob { room: job.room.clone(), stop };
        host.jobs().insert(job.id.clone(), running);
        tokio::spawn(async move {
            let room_job = RoomJob {
                profile: JobProfile::new(&job.room, &job.metadata, host.sessions.agents.profile()),
                room: job.room.clone(),
                url: job.url.to_string(),
                token: job.token.expose().to_owned(),
                participant: job.participant,
                hear_all: host.settings.hear == Hear::All,
                stop: stopped,
            };
            let ended = call::run(&host, room_job).await;
            host.jobs().remove(&job.id);
            // begun before the agent is gone: whoever then asks for it waits, or would be told that it was sent
            let over = host.dispatch.over(&job.room, &job.dispatch_id);
            let leave = async {
                match ended {
                    Ok(room) => {
                        end.succeeded();
                        room.leave(DisconnectReason::Left);
                    }
                    Err(error) => {
                        tracing::warn!(room = job.room, error = format!("{error:#}"), "the room's job failed");
                        end.failed(format!("{error:#}"));
                    }
                }
            };
            if let (Err(error), ()) = tokio::join!(over, leave) {
                tracing::warn!(room = job.room, %error, "the job is over but not its dispatch");
            }
        });
    }

    fn terminate(&self, job_id: &str) {
        if let Some(job) = self.0.jobs().get(job_id) {
            let _ = job.stop.try_send(()); // told once is enough
        }
    }
}
