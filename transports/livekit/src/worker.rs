//! The agent worker: LiveKit sends us rooms that want an agent.
//!
//! A worker keeps one socket to the server's `/agent`. It registers under the agent's name, tells its load every 2.5 s, is
//! asked whether it would take a job, and is then given the job with a token for its room. [`machine`] holds what is said
//! when; [`link`] holds the socket and its reconnection; this file's one task joins them to the daemon's [`Jobs`].
//! Jobs go on while the socket is away: they live in their rooms.

mod link;
mod machine;
pub(crate) mod untrusted;

use crate::token::{Keys, Secret};
use link::{Link, LinkError, LinkEvent};
use machine::{Host, Input, Machine, Output};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use url::Url;

/// The daemon, as this worker sees it. All of it answers at once: a server waits.
pub trait Jobs: Send + Sync + 'static {
    /// Whether there is room for one more job beside `promised` ones, which were taken but have not started.
    fn may_take(&self, promised: usize) -> bool;

    /// How busy the audio threads are, 0 to 1. The server sends fewer jobs to busier workers, none at 1.
    fn load(&self) -> f32;

    /// A job of ours: join its room. It runs until `end` is told or dropped.
    fn start(&self, job: Job, end: JobEnd);

    /// The server takes a job back, or its room has ended: leave. Its `end` is still to be told.
    fn terminate(&self, job_id: &str);
}

/// What the daemon decides for the worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// `LIVEKIT_URL` as it stands.
    pub url: Url,
    /// The server's keys.
    pub keys: Keys,
    /// `AGENT_NAME`: only jobs for this name come. Empty: every new room wants us.
    pub agent_name: String,
    /// What people in the room see.
    pub display_name: String,
    /// Jobs at once, promised ones included.
    pub jobs_max: usize,
}

/// A job: a room that wants an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The server's name of the job.
    pub id: String,
    /// The dispatch that it came by.
    pub dispatch_id: String,
    /// The room's name.
    pub room: String,
    /// The server's name of this life of the room.
    pub room_sid: String,
    /// Identity of the participant that it is about, where it is about one.
    pub participant: Option<String>,
    /// What the dispatch says, see [`JobSettings`](crate::job::JobSettings).
    pub metadata: String,
    /// What the dispatch says beside its metadata.
    pub attributes: BTreeMap<String, String>,
    /// Where to join.
    pub url: Url,
    /// With what to join; good for an hour.
    pub token: Secret,
    /// Who we are in the room.
    pub identity: String,
    /// What people see there.
    pub name: String,
}

/// How a job tells that it is over. Dropped untold, the job has failed.
#[derive(Debug)]
pub struct JobEnd {
    job_id: String,
    ended: Option<mpsc::Sender<Ended>>,
}

/// A job that is over, and why it failed if it did.
#[derive(Debug)]
struct Ended {
    job_id: String,
    error: Option<String>,
}

impl JobEnd {
    /// The job has done what it was there for.
    pub fn succeeded(mut self) {
        self.tell(None);
    }

    /// The job could not be done.
    pub fn failed(mut self, error: impl Into<String>) {
        self.tell(Some(error.into()));
    }

    fn tell(&mut self, error: Option<String>) {
        if let Some(ended) = self.ended.take() {
            // there is a place in the queue for each job, so it is only ever refused when the worker is gone
            let _ = ended.try_send(Ended { job_id: std::mem::take(&mut self.job_id), error });
        }
    }
}

impl Drop for JobEnd {
    fn drop(&mut self) {
        self.tell(Some("the job was dropped".to_owned()));
    }
}

/// How the worker stands with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerStatus {
    /// No registration yet, or not any more; why, once something has failed.
    Connecting(Option<String>),
    /// The server does not want us as we are, e.g. for a wrong key. It is asked again, seldom.
    Refused(String),
    /// Jobs may come.
    Registered,
    /// Over.
    Closed,
}

/// A running worker. Dropping it closes its socket.
#[derive(Debug)]
pub struct Worker {
    orders: watch::Sender<Order>,
    status: watch::Receiver<WorkerStatus>,
    counters: Arc<WorkerCounters>,
    task: JoinHandle<()>,
}

/// What the daemon wants of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    Drain,
    Close,
}

/// How often the machine looks at its clocks: a quarter of a second more or less in a report is nothing.
const TICK: Duration = Duration::from_millis(250);
/// Longest wait for the task to close its socket; the task itself takes half a second at most.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

impl Worker {
    /// Starts a worker, which connects and registers and goes on doing so.
    pub fn start(settings: &WorkerSettings, jobs: Arc<dyn Jobs>) -> Self {
        let counters = Arc::new(WorkerCounters::default());
        let (orders, wanted) = watch::channel(Order::Serve);
        let (stands, status) = watch::channel(WorkerStatus::Connecting(None));
        let (ended, ends) = mpsc::channel(settings.jobs_max.clamp(1, JOBS_MAX));
        let machine = Machine::new(settings, Arc::clone(&counters));
        let link = Link::new(&settings.url, settings.keys.clone(), Arc::clone(&counters));
        let task = Task { machine, link, jobs, counters: Arc::clone(&counters), ended, stands, begun: Instant::now() };
        Self { orders, status, counters, task: tokio::spawn(task.run(wanted, ends)) }
    }

    /// How it stands with the server, now and at each change.
    pub fn status(&self) -> watch::Receiver<WorkerStatus> {
        self.status.clone()
    }

    /// What it has counted.
    pub fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// Takes no more jobs from now on; those that run go on.
    pub fn stop_taking(&self) {
        let _ = self.orders.send(Order::Drain);
    }

    /// Takes no more jobs, waits until those that run are over, `limit` at most, and closes. True when all were over.
    pub async fn drain(mut self, limit: Duration) -> bool {
        self.stop_taking();
        let drained = timeout(limit, &mut self.task).await.is_ok();
        if !drained {
            let _ = self.orders.send(Order::Close);
            let _ = timeout(CLOSE_WAIT, &mut self.task).await;
        }
        drained
    }
}

/// Most jobs a worker can be given at once, whatever the settings say: more than any host can hold.
const JOBS_MAX: usize = 10_000;

/// The worker's one task.
struct Task {
    machine: Machine,
    link: Link,
    jobs: Arc<dyn Jobs>,
    counters: Arc<WorkerCounters>,
    ended: mpsc::Sender<Ended>,
    stands: watch::Sender<WorkerStatus>,
    begun: Instant,
}

impl Task {
    async fn run(mut self, mut wanted: watch::Receiver<Order>, mut ends: mpsc::Receiver<Ended>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.link.next() => self.linked(event).await,
                Some(ended) = ends.recv() => self.apply(Input::Ended { job_id: ended.job_id, error: ended.error }).await,
                changed = wanted.changed() => match changed.map(|()| *wanted.borrow_and_update()) {
                    Ok(Order::Drain) => self.apply(Input::Drain).await,
                    Ok(Order::Serve) => {}
                    Ok(Order::Close) | Err(_) => break,
                },
                _ = ticks.tick() => self.apply(Input::Tick).await,
            }
            if self.machine.is_drained() {
                break;
            }
        }
        self.link.close().await;
        self.counters.connected.store(false, Ordering::Relaxed);
        self.stands.send_replace(WorkerStatus::Closed);
    }

    async fn linked(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up => self.apply(Input::Up).await,
            LinkEvent::Heard => self.apply(Input::Heard).await,
            LinkEvent::Message(message) => self.apply(Input::Message(message)).await,
            LinkEvent::Garbage => {
                count(&self.counters.bad_messages);
                tracing::warn!("LiveKit sent something that is no worker message, it is passed over");
                self.apply(Input::Heard).await;
            }
            LinkEvent::Down(error) => {
                self.lost(&error);
                self.apply(Input::Down).await;
            }
        }
    }

    /// Puts an input into the machine and does what it says; when the link goes meanwhile, that is an input too.
    async fn apply(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let host = Host { load: self.jobs.load(), has_room: self.jobs.may_take(self.machine.promised()) };
            for output in self.machine.apply(self.begun.elapsed(), host, input) {
                if let Err(error) = self.carry_out(output).await {
                    self.lost(&error);
                    next = Some(Input::Down);
                }
            }
        }
    }

    fn lost(&mut self, error: &LinkError) {
        tracing::warn!(%error, "no agent worker connection to LiveKit");
        self.counters.connected.store(false, Ordering::Relaxed);
        let text = error.to_string();
        self.stands.send_replace(if error.is_refusal() { WorkerStatus::Refused(text) } else { WorkerStatus::Connecting(Some(text)) });
    }

    async fn carry_out(&mut self, output: Output) -> Result<(), LinkError> {
        match output {
            Output::Send(message) => return self.link.send(*message).await,
            Output::Ping => return self.link.ping().await,
            Output::Hangup(why) => return Err(self.link.hang_up(why)),
            Output::Registered { worker_id } => {
                tracing::info!(worker_id, "registered with LiveKit as agent worker");
                self.link.is_good();
                self.counters.connected.store(true, Ordering::Relaxed);
                self.stands.send_replace(WorkerStatus::Registered);
            }
            Output::Start(job) => {
                let end = JobEnd { job_id: job.id.clone(), ended: Some(self.ended.clone()) };
                self.jobs.start(*job, end);
            }
            Output::Terminate(job_id) => self.jobs.terminate(&job_id),
        }
        Ok(())
    }
}

/// Counters of the worker, shared with the daemon's metrics.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Registered now.
    pub connected: AtomicBool,
    /// Connections tried.
    pub connects: AtomicU64,
    /// Registrations that the server has confirmed.
    pub registrations: AtomicU64,
    /// Jobs that we said yes to.
    pub jobs_accepted: AtomicU64,
    /// Jobs that we said no to.
    pub jobs_refused: AtomicU64,
    /// Jobs accepted that never came.
    pub jobs_unassigned: AtomicU64,
    /// Jobs that were done.
    pub jobs_succeeded: AtomicU64,
    /// Jobs that failed.
    pub jobs_failed: AtomicU64,
    /// Jobs that the server took back.
    pub jobs_terminated: AtomicU64,
    /// Messages that could not be understood.
    pub bad_messages: AtomicU64,
}

impl WorkerCounters {
    /// Every counter with its name, in a fixed order.
    pub fn read(&self) -> [(&'static str, u64); 10] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("connected", u64::from(self.connected.load(Ordering::Relaxed))),
            ("connects", read(&self.connects)),
            ("registrations", read(&self.registrations)),
            ("jobs_accepted", read(&self.jobs_accepted)),
            ("jobs_refused", read(&self.jobs_refused)),
            ("jobs_unassigned", read(&self.jobs_unassigned)),
            ("jobs_succeeded", read(&self.jobs_succeeded)),
            ("jobs_failed", read(&self.jobs_failed)),
            ("jobs_terminated", read(&self.jobs_terminated)),
            ("bad_messages", read(&self.bad_messages)),
        ]
    }
}

/// Adds one.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
