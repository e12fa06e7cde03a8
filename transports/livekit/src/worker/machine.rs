//! What a worker says when: the agent protocol without its socket.
//!
//! A connection is down, registering or registered. A job is promised from our yes until its assignment, and runs until
//! the daemon says that it is over; both take a place. Whether another would be taken is what the server is told every
//! 2.5 s, and at once when it changes. Time comes in as the time since the worker's start.
//!
//! | input | down | registering | registered |
//! |---|---|---|---|
//! | up | → registering: register | | |
//! | register | | → registered: running jobs, ends not told yet, status | |
//! | availability | | | a place or none: yes or no |
//! | assignment | | | promised → running: start |
//! | termination | | | running: terminate |
//! | ended | free the place, remember | free the place, remember | free the place: job status |
//! | tick | | 10 s: hang up | status, ping, 25 s of silence: hang up |
//! | down | | → down | → down: promises are void |

use super::{Job, WorkerCounters, WorkerSettings, count};
use crate::token::Secret;
use livekit_protocol as proto;
use proto::server_message::Message as FromServer;
use proto::worker_message::Message as ToServer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How often the server is told of load and places: its own SDKs do so, and its dispatch counts on it.
const STATUS_EVERY: Duration = Duration::from_millis(2_500);
/// Longest wait for the answer to our registration: the server gives us as long.
const REGISTER_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the assignment of a job that we said yes to, as in LiveKit's own SDKs.
const ASSIGNMENT_WAIT: Duration = Duration::from_millis(7_500);
/// How often the socket is tested.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A server that has not even answered two pings is gone.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// Ends of jobs that wait for a registration, the oldest forgotten first: as many as a large host has calls.
const UNTOLD_MAX: usize = 1_000;
/// Longest error told of a job, in characters.
const ERROR_CHARS_MAX: usize = 200;

/// The protocol's state.
pub(super) struct Machine {
    agent_name: String,
    display_name: String,
    url: Url,
    jobs_max: usize,
    counters: Arc<WorkerCounters>,
    phase: Phase,
    places: BTreeMap<String, Place>,
    /// Reports of jobs that ended while nobody could be told.
    untold: VecDeque<Output>,
    draining: bool,
    heard_at: Duration,
    pinged_at: Duration,
    told_at: Duration,
    told_status: Option<proto::WorkerStatus>,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Registering { since: Duration },
    Registered,
}

/// A job's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Promised { until: Duration },
    Running,
}

/// The host now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub load: f32,
    /// For one more beside the promised jobs.
    pub has_room: bool,
}

/// What happens to a worker.
#[derive(Debug)]
pub(super) enum Input {
    Up,
    Down,
    /// Something came that is no message, such as a pong.
    Heard,
    Message(Box<FromServer>),
    Ended {
        job_id: String,
        error: Option<String>,
    },
    Drain,
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    Send(Box<ToServer>),
    Ping,
    Hangup(&'static str),
    Registered { worker_id: String },
    Start(Box<Job>),
    Terminate(String),
}

impl Machine {
    pub fn new(settings: &WorkerSettings, counters: Arc<WorkerCounters>) -> Self {
        Self {
            agent_name: settings.agent_name.clone(),
            display_name: settings.display_name.clone(),
            url: settings.url.clone(),
            jobs_max: settings.jobs_max.min(super::JOBS_MAX),
            counters,
            phase: Phase::Down,
            places: BTreeMap::new(),
            untold: VecDeque::new(),
            draining: false,
            heard_at: Duration::ZERO,
            pinged_at: Duration::ZERO,
            told_at: Duration::ZERO,
            told_status: None,
        }
    }

    /// Jobs that we said yes to and that have not started.
    pub fn promised(&self) -> usize {
        self.places.values().filter(|place| **place != Place::Running).count()
    }

    /// Nothing is running any more and nothing will.
    pub fn is_drained(&self) -> bool {
        self.draining && self.places.is_empty()
    }

    /// One step.
    pub fn apply(&mut self, now: Duration, host: Host, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(input, Input::Up | Input::Heard | Input::Message(_)) {
            self.heard_at = now;
        }
        match (self.phase, input) {
            (_, Input::Up) => self.register(now, &mut out),
            (_, Input::Down) => self.down(),
            (_, Input::Drain) => self.draining = true,
            (phase, Input::Ended { job_id, error }) => self.ended(phase, &job_id, error.as_deref(), &mut out),
            (Phase::Registering { .. }, Input::Message(message)) => self.registering(*message, &mut out),
            (Phase::Registering { since }, Input::Tick) if now.saturating_sub(since) >= REGISTER_WAIT => {
                out.push(Output::Hangup("LiveKit did not confirm the registration"));
            }
            (Phase::Registered, Input::Message(message)) => self.message(now, host, *message, &mut out),
            (Phase::Registered, Input::Tick) => self.tick(now, &mut out),
            (_, Input::Heard | Input::Message(_) | Input::Tick) => {}
        }
        if self.phase == Phase::Registered {
            self.tell_status(now, host, &mut out);
        }
        out
    }

    fn register(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.phase = Phase::Registering { since: now };
        self.pinged_at = now;
        #[allow(deprecated)] // servers before `kind` know an agent by this permission
        let permissions = proto::ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_update_metadata: true,
            agent: true,
            ..Default::default()
        };
        out.push(send(ToServer::Register(proto::RegisterWorkerRequest {
            r#type: proto::JobType::JtRoom as i32,
            agent_name: self.agent_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ping_interval: PING_EVERY.as_secs() as u32,
            allowed_permissions: Some(permissions),
            ..Default::default()
        })));
    }

    /// A new registration knows nothing of us: it is told of the jobs that run or have ended meanwhile, and of our places.
    fn registering(&mut self, message: FromServer, out: &mut Vec<Output>) {
        let FromServer::Register(answer) = message else { return };
        self.phase = Phase::Registered;
        self.told_status = None;
        count(&self.counters.registrations);
        out.push(Output::Registered { worker_id: answer.worker_id });
        out.extend(self.places.keys().map(|job_id| job_status(job_id, proto::JobStatus::JsRunning, None)));
        out.extend(self.untold.drain(..));
    }

    /// The server offers what it offered us to another worker when our connection goes.
    fn down(&mut self) {
        self.phase = Phase::Down;
        self.places.retain(|_, place| *place == Place::Running);
    }

    fn message(&mut self, now: Duration, host: Host, message: FromServer, out: &mut Vec<Output>) {
        match message {
            FromServer::Availability(request) => self.availability(now, host, request, out),
            FromServer::Assignment(assignment) => self.assignment(host, assignment, out),
            FromServer::Termination(termination) => self.termination(termination.job_id, out),
            FromServer::GoAway(_) => out.push(Output::Hangup("LiveKit sends its workers elsewhere")),
            FromServer::Register(_) | FromServer::Pong(_) => {}
        }
    }

    fn availability(&mut self, now: Duration, host: Host, request: proto::AvailabilityRequest, out: &mut Vec<Output>) {
        let Some(job) = request.job.filter(|job| !job.id.is_empty()) else { return };
        let is_ours = job.r#type == proto::JobType::JtRoom as i32 && !self.places.contains_key(&job.id);
        let available = is_ours && self.has_place(host);
        let mut answer = proto::AvailabilityResponse { job_id: job.id.clone(), available, ..Default::default() };
        if available {
            count(&self.counters.jobs_accepted);
            answer.participant_identity = identity(&job.id);
            answer.participant_name.clone_from(&self.display_name);
            self.places.insert(job.id, Place::Promised { until: now + ASSIGNMENT_WAIT });
        } else {
            count(&self.counters.jobs_refused);
        }
        out.push(send(ToServer::Availability(answer)));
    }

    fn assignment(&mut self, host: Host, assignment: proto::JobAssignment, out: &mut Vec<Output>) {
        let Some(job) = assignment.job.filter(|job| !job.id.is_empty()) else { return };
        match self.places.get(&job.id) {
            Some(Place::Running) => return, // told twice
            Some(Place::Promised { .. }) => {}
            None if self.has_place(host) => {} // too late, but the room waits
            None => {
                count(&self.counters.jobs_failed);
                out.push(job_status(&job.id, proto::JobStatus::JsFailed, Some("the assignment came too late")));
                return;
            }
        }
        self.places.insert(job.id.clone(), Place::Running);
        let running = job_status(&job.id, proto::JobStatus::JsRunning, None);
        let url = assignment.url.and_then(|url| url.parse().ok()).unwrap_or_else(|| self.url.clone());
        let room = job.room.unwrap_or_default();
        out.push(Output::Start(Box::new(Job {
            identity: identity(&job.id),
            id: job.id,
            dispatch_id: job.dispatch_id,
            room: room.name,
            room_sid: room.sid,
            participant: job.participant.map(|participant| participant.identity),
            metadata: job.metadata,
            attributes: job.attributes.into_iter().collect(),
            url,
            token: Secret::new(assignment.token),
            name: self.display_name.clone(),
        })));
        out.push(running);
    }

    fn termination(&mut self, job_id: String, out: &mut Vec<Output>) {
        match self.places.get(&job_id) {
            Some(Place::Running) => {
                count(&self.counters.jobs_terminated);
                out.push(Output::Terminate(job_id));
            }
            Some(Place::Promised { .. }) => {
                count(&self.counters.jobs_terminated);
                self.places.remove(&job_id);
            }
            None => {} // it is over here too
        }
    }

    fn ended(&mut self, phase: Phase, job_id: &str, error: Option<&str>, out: &mut Vec<Output>) {
        if self.places.remove(job_id).is_none() {
            return;
        }
        let status = match error {
            None => proto::JobStatus::JsSuccess,
            Some(_) => proto::JobStatus::JsFailed,
        };
        count(if error.is_none() { &self.counters.jobs_succeeded } else { &self.counters.jobs_failed });
        let report = job_status(job_id, status, error);
        if phase == Phase::Registered {
            out.push(report);
            return;
        }
        if self.untold.len() == UNTOLD_MAX {
            self.untold.pop_front();
        }
        self.untold.push_back(report);
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        let places = self.places.len();
        self.places.retain(|_, place| !matches!(place, Place::Promised { until } if *until <= now));
        for _ in self.places.len()..places {
            count(&self.counters.jobs_unassigned);
        }
        if now.saturating_sub(self.heard_at) >= SILENCE_MAX {
            out.push(Output::Hangup("LiveKit has stopped answering"));
        } else if now.saturating_sub(self.pinged_at) >= PING_EVERY {
            self.pinged_at = now;
            out.push(Output::Ping);
        }
    }

    fn tell_status(&mut self, now: Duration, host: Host, out: &mut Vec<Output>) {
        let status = if self.has_place(host) { proto::WorkerStatus::WsAvailable } else { proto::WorkerStatus::WsFull };
        if self.told_status == Some(status) && now.saturating_sub(self.told_at) < STATUS_EVERY {
            return;
        }
        self.told_at = now;
        self.told_status = Some(status);
        out.push(send(ToServer::UpdateWorker(proto::UpdateWorkerStatus {
            status: Some(status as i32),
            load: if host.load.is_nan() { 1.0 } else { host.load.clamp(0.0, 1.0) },
            job_count: self.places.len() as u32,
            draining: self.draining,
            ..Default::default()
        })));
    }

    fn has_place(&self, host: Host) -> bool {
        !self.draining && self.places.len() < self.jobs_max && host.has_room
    }
}

/// Who we are in a job's room, as LiveKit's own SDKs name it.
fn identity(job_id: &str) -> String {
    format!("agent-{job_id}")
}

fn send(message: ToServer) -> Output {
    Output::Send(Box::new(message))
}

fn job_status(job_id: &str, status: proto::JobStatus, error: Option<&str>) -> Output {
    let error = error.unwrap_or_default().chars().take(ERROR_CHARS_MAX).collect();
    send(ToServer::UpdateJob(proto::UpdateJobStatus { job_id: job_id.to_owned(), status: status as i32, error }))
}

#[cfg(test)]
mod tests;
