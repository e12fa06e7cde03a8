//! The calls of this host: takes them from transports, gives each its task and its place, and knows them until they end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use voiced_core::frame::Rate;
use voiced_core::leg::LegSettings;
use voiced_core::line::{FromLine, Gone};
use voiced_events::deliver::unix_ms;
use voiced_events::outbox::Outbox;
use voiced_models_remote::stt::SttFeed;
use voiced_rt::{CallPort, DirectLine, Engine, Hearing, HearingReading, PortSettings};
use voiced_twilio::{Accepted, IncomingCall, Refused, Switchboard};

use crate::agent::{Agent, Agents};
use crate::backlog::Backlog;
use crate::call::{self, CallContext, Line, Observed, Request};
use crate::flight::{Flight, Head, Recorder};
use crate::headroom::Headroom;
use crate::metrics::Metrics;
use crate::rooms::RoomHost;
use crate::traces::Traces;

/// How long the event store is waited for before a stream opens: a disk that is well takes some ms, and a caller waits.
const TOKEN_WAIT: Duration = Duration::from_millis(500);

/// What a slow watcher of calls may fall behind, in observations.
const OBSERVED_MAX: usize = 4_096;

/// What `GET /sessions` tells of one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// `phone-{CallSid}`, `room-{room}`.
    #[serde(rename = "sessionId")]
    pub id: String,
    /// `phone`, `room`.
    pub r#type: &'static str,
    /// The caller.
    pub from: String,
    /// The number called.
    pub to: String,
    /// ms since the Unix epoch.
    pub started_at_unix_ms: u64,
}

/// A call that a transport brings.
pub struct NewCall {
    pub session: Session,
    pub call_sid: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub agent: Arc<Agent>,
    /// Told what happens in this call.
    pub watcher: Option<mpsc::Sender<Observed>>,
    /// What the transport asks of the call besides its line.
    pub requests: Option<mpsc::Receiver<Request>>,
    /// The agent's sound is wanted without the guests'.
    pub agent_alone: bool,
    /// The line's server takes no RED.
    pub in_band_fec: bool,
    /// Sound passes between the line and the audio thread: the call is given no [`FromLine::Audio`], and its line no `to`.
    ///
    /// [`FromLine::Audio`]: voiced_core::line::FromLine::Audio
    pub direct: bool,
}

/// A call that has its place.
pub struct Taken {
    pub task: JoinHandle<()>,
    /// For a line that is direct.
    pub direct: Option<DirectLine>,
}

struct Live {
    session: Session,
    hearing: Arc<Hearing>,
    cancel: watch::Sender<Option<Gone>>,
}

/// All calls, shared by transports, HTTP and the drain.
pub struct Sessions {
    pub engine: Arc<Engine>,
    pub headroom: Arc<Headroom>,
    pub metrics: Arc<Metrics>,
    pub outbox: Outbox,
    pub agents: Agents,
    pub recorder: Recorder,
    pub traces: Traces,
    backlog: Arc<Backlog>,
    live: Mutex<BTreeMap<String, Live>>,
    /// Told of each end.
    ended: watch::Sender<()>,
    draining: watch::Sender<bool>,
    drained: watch::Sender<bool>,
    observed: broadcast::Sender<(String, Observed)>,
}

impl Sessions {
    pub fn new(
        engine: Arc<Engine>,
        agents: Agents,
        outbox: Outbox,
        backlog: Arc<Backlog>,
        metrics: Arc<Metrics>,
        traces: Traces,
        recorder: Recorder,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            headroom: Arc::default(),
            metrics,
            outbox,
            agents,
            recorder,
            traces,
            backlog,
            live: Mutex::default(),
            ended: watch::Sender::default(),
            draining: watch::channel(false).0,
            drained: watch::channel(false).0,
            observed: broadcast::channel(OBSERVED_MAX).0,
        })
    }

    /// What happens in all calls, for a timeline.
    pub fn observe(&self) -> broadcast::Receiver<(String, Observed)> {
        self.observed.subscribe()
    }

    /// The calls now.
    pub fn list(&self) -> Vec<Session> {
        self.live().values().map(|live| live.session.clone()).collect()
    }

    /// One call and how well its caller comes through, while it lasts.
    pub fn get(&self, session_id: &str) -> Option<(Session, HearingReading)> {
        self.live().get(session_id).map(|live| (live.session.clone(), live.hearing.read()))
    }

    /// No new calls from now on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// True once the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends what still talks.
    pub fn end_all(&self) {
        self.drained.send_replace(true);
    }

    /// Ends what is left at once.
    pub fn cut_off(&self) {
        for live in self.live().values() {
            live.cancel.send_replace(Some(Gone::Lost));
        }
    }

    /// Waits until every call's last event is on disk.
    pub async fn all_ended(&self) {
        let mut ended = self.ended.subscribe();
        while !self.live().is_empty() {
            let _ = ended.changed().await; // we hold the sender
        }
    }

    /// Room for one more call beside so many that were promised a place and have not begun.
    pub fn may_admit(&self, promised: usize) -> bool {
        let calls = self.engine.calls() + promised;
        !self.is_draining() && calls < self.engine.limit() && !self.headroom.is_full(calls) && !self.backlog.is_full()
    }

    /// Gives a call its place and its task, which lives until the call's last event is on disk.
    pub fn take(self: &Arc<Self>, call: NewCall, line: Line) -> anyhow::Result<Taken> {
        let NewCall { session, call_sid, metadata, agent, watcher, requests, agent_alone, in_band_fec, direct } = call;
        let agent = agent.for_call();
        let session_id = session.id.clone();
        let leg = LegSettings { agent_alone, in_band_fec, ..agent.leg };
        let mut port = self.place(&session_id, leg, agent.feed() != SttFeed::Line, direct).inspect_err(|error| {
            tracing::warn!(session = session_id, %error, "call refused");
            self.metrics.calls_refused.add(1);
        })?;
        let (cancel, cancelled) = watch::channel(None);
        tracing::info!(session = session_id, from = session.from, to = session.to, "call taken");
        self.metrics.calls_taken.add(1);
        let head = Head {
            session_id: session_id.clone(),
            call_sid: call_sid.clone(),
            from: session.from.clone(),
            to: session.to.clone(),
            started_at_unix_ms: session.started_at_unix_ms,
            providers: agent.stt.iter().map(|link| link.breaker.name().to_owned()).collect(),
            settings: agent.conversation.clone(),
        };
        self.live().insert(session_id.clone(), Live { session, hearing: Arc::clone(&port.hearing), cancel });
        let context = CallContext {
            session_id: session_id.clone(),
            trace: self.traces.begin(&session_id, call_sid.as_deref(), metadata.get("transport").map_or("", String::as_str)),
            call_sid,
            flight: Flight::begin(&self.recorder, &head),
            metadata,
            agent,
            outbox: self.outbox.clone(),
            metrics: Arc::clone(&self.metrics),
            observed: self.observed.clone(),
            watcher,
            cancel: cancelled,
            drained: self.drained.subscribe(),
        };
        let ended = Ended { sessions: Arc::clone(self), session_id };
        let direct = port.direct.take();
        let task = tokio::spawn(async move {
            let _ended = ended;
            call::run(context, line, port, requests).await;
        });
        Ok(Taken { task, direct })
    }

    fn place(&self, session_id: &str, leg: LegSettings, ear: bool, direct: bool) -> anyhow::Result<CallPort> {
        ensure!(!self.is_draining(), "this host is draining");
        ensure!(!self.live().contains_key(session_id), "the session of this name is still being ended");
        Ok(self.engine.admit(PortSettings { leg, ear, direct })?)
    }

    /// Ends a call whose line was lost elsewhere.
    pub fn end(&self, session_id: &str, gone: Gone) {
        if let Some(live) = self.live().get(session_id) {
            live.cancel.send_replace(Some(gone));
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions as Twilio sees them, and the rooms into which calls are bridged.
pub struct Desk {
    pub sessions: Arc<Sessions>,
    pub rooms: Option<Arc<RoomHost>>,
    /// Where callers are sent while this host drains; empty: nowhere.
    pub drain_redirect_url: String,
}

impl Switchboard for Desk {
    /// Asked while it rings: the voice's and the model's connections are made before the stream opens.
    fn may_admit(&self, promised: usize) -> bool {
        let may = self.sessions.may_admit(promised);
        let agents = &self.sessions.agents;
        if may && let Ok(agent) = agents.agent(agents.profile(), Rate::Hz8000) {
            agent.warm();
        }
        if !may && self.elsewhere().is_none() {
            self.sessions.metrics.calls_refused.add(1);
        }
        may
    }

    fn elsewhere(&self) -> Option<String> {
        (self.sessions.is_draining() && !self.drain_redirect_url.is_empty()).then(|| self.drain_redirect_url.clone())
    }

    /// A store that cannot say so in time costs no call: within this process tokens are known all the same.
    fn was_used(&self, token: String, expires_unix_s: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let note = self.sessions.outbox.with(move |store| store.use_once(&token, expires_unix_s, unix_ms() / 1_000));
            match timeout(TOKEN_WAIT, note).await {
                Ok(Ok(Ok(is_first))) => !is_first,
                Ok(Ok(Err(error)) | Err(error)) => {
                    tracing::warn!(%error, "whether another process has taken this stream's token is not known");
                    false
                }
                Err(_) => false,
            }
        })
    }

    fn connected(&self, incoming: IncomingCall, from: mpsc::Receiver<FromLine>) -> Result<Accepted, Refused> {
        let sessions = &self.sessions;
        let agent = sessions.agents.agent(sessions.agents.profile(), Rate::Hz8000).map_err(|error| {
            tracing::error!(call_sid = incoming.call_sid, error = format!("{error:#}"), "call refused: its agent cannot be made");
            Refused
        })?;
        let session = Session {
            id: format!("phone-{}", incoming.call_sid),
            r#type: "phone",
            from: incoming.from.clone(),
            to: incoming.to.clone(),
            started_at_unix_ms: unix_ms(),
        };
        let (metadata, call_sid) = (metadata(&incoming), Some(incoming.call_sid.clone()));
        let bridge = self.rooms.as_ref().and_then(|rooms| rooms.bridge(&incoming));
        let agent_alone = bridge.is_some();
        let (watcher, requests) = bridge.unzip();
        let call = NewCall { session, call_sid, metadata, agent, watcher, requests, agent_alone, in_band_fec: false, direct: true };
        let direct = sessions.take(call, Line { from, to: None }).ok().and_then(|taken| taken.direct).ok_or(Refused)?;
        Ok(Accepted { packets: Some(direct.packets), to: direct.outgoing })
    }

    fn status(&self, call_sid: &str, status: &str) {
        if voiced_twilio::is_final(status) {
            self.sessions.end(&format!("phone-{call_sid}"), Gone::HungUp);
        }
    }
}

/// Forgets the session when its task ends, however it ends.
struct Ended {
    sessions: Arc<Sessions>,
    session_id: String,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.sessions.live().remove(&self.session_id);
        self.sessions.ended.send_replace(());
    }
}

fn metadata(incoming: &IncomingCall) -> BTreeMap<String, String> {
    let own = [
        ("transport", "twilio"),
        ("direction", incoming.direction.as_str()),
        ("from", incoming.from.as_str()),
        ("to", incoming.to.as_str()),
        ("stream_sid", incoming.stream_sid.as_str()),
        ("account_sid", incoming.account_sid.as_str()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    incoming.custom.clone().into_iter().chain(own).collect()
}
