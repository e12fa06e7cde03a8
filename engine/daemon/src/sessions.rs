//! The calls of this host: takes them from transports, gives each its task and its place, and knows them until they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use voiced_core::line::Gone;
use voiced_events::deliver::unix_ms;
use voiced_events::outbox::Outbox;
use voiced_rt::{Engine, PortSettings};
use voiced_twilio::{IncomingCall, LineIo, Refused, Switchboard};

use crate::agent::{Agent, SttFeed};
use crate::backlog::Backlog;
use crate::call::{self, CallContext, Observed};
use crate::metrics::Metrics;

/// What a slow watcher of calls may fall behind, in observations.
const OBSERVED_MAX: usize = 4_096;

/// What `GET /sessions` tells of one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// `phone-{CallSid}`.
    #[serde(rename = "sessionId")]
    pub id: String,
    /// `phone`.
    pub r#type: &'static str,
    /// The caller.
    pub from: String,
    /// The number called.
    pub to: String,
    /// ms since the Unix epoch.
    pub started_at_unix_ms: u64,
}

struct Live {
    session: Session,
    cancel: watch::Sender<Option<Gone>>,
}

/// All calls, shared by transports, HTTP and the drain.
pub struct Sessions {
    pub engine: Arc<Engine>,
    pub metrics: Arc<Metrics>,
    pub outbox: Outbox,
    agent: Arc<Agent>,
    backlog: Arc<Backlog>,
    live: Mutex<BTreeMap<String, Live>>,
    /// Told of each end.
    ended: watch::Sender<()>,
    draining: watch::Sender<bool>,
    drained: watch::Sender<bool>,
    observed: broadcast::Sender<(String, Observed)>,
}

impl Sessions {
    pub fn new(engine: Arc<Engine>, agent: Arc<Agent>, outbox: Outbox, backlog: Arc<Backlog>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            metrics: Arc::default(),
            outbox,
            agent,
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

    /// One call, while it lasts.
    pub fn get(&self, session_id: &str) -> Option<Session> {
        self.live().get(session_id).map(|live| live.session.clone())
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

    /// Waits until every call's last event is on disk.
    pub async fn all_ended(&self) {
        let mut ended = self.ended.subscribe();
        while !self.live().is_empty() {
            let _ = ended.changed().await; // we hold the sender
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions as a transport sees them.
pub struct Desk(pub Arc<Sessions>);

impl Switchboard for Desk {
    fn may_admit(&self) -> bool {
        let sessions = &self.0;
        let may = !sessions.is_draining() && sessions.engine.calls() < sessions.engine.limit() && !sessions.backlog.is_full();
        if !may {
            sessions.metrics.calls_refused.add(1);
        }
        may
    }

    fn connected(&self, incoming: IncomingCall, line: LineIo) -> Result<(), Refused> {
        let sessions = Arc::clone(&self.0);
        if sessions.is_draining() {
            return Err(Refused);
        }
        let session_id = format!("phone-{}", incoming.call_sid);
        if sessions.live().contains_key(&session_id) {
            tracing::warn!(session = session_id, "stream refused: the call's last one is still being ended");
            return Err(Refused);
        }
        let port = PortSettings { leg: sessions.agent.leg, ear: sessions.agent.feed == SttFeed::Ear };
        let port = sessions.engine.admit(port).map_err(|error| {
            tracing::warn!(call_sid = incoming.call_sid, %error, "call refused");
            sessions.metrics.calls_refused.add(1);
            Refused
        })?;
        let (cancel, cancelled) = watch::channel(None);
        let session = Session { id: session_id.clone(), r#type: "phone", from: incoming.from.clone(), to: incoming.to.clone(), started_at_unix_ms: unix_ms() };
        sessions.live().insert(session_id.clone(), Live { session, cancel });
        sessions.metrics.calls_taken.add(1);
        tracing::info!(session = session_id, from = incoming.from, to = incoming.to, "call taken");
        let context = CallContext {
            session_id: session_id.clone(),
            call_sid: Some(incoming.call_sid.clone()),
            metadata: metadata(&incoming),
            agent: Arc::clone(&sessions.agent),
            outbox: sessions.outbox.clone(),
            metrics: Arc::clone(&sessions.metrics),
            observed: sessions.observed.clone(),
            cancel: cancelled,
            drained: sessions.drained.subscribe(),
        };
        let ended = Ended { sessions: Arc::clone(&sessions), session_id };
        tokio::spawn(async move {
            let _ended = ended;
            call::run(context, line, port).await;
        });
        Ok(())
    }

    fn status(&self, call_sid: &str, status: &str) {
        if matches!(status, "completed" | "busy" | "failed" | "no-answer" | "canceled")
            && let Some(live) = self.0.live().get(&format!("phone-{call_sid}"))
        {
            live.cancel.send_replace(Some(Gone::HungUp));
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
