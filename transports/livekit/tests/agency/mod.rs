//! The daemon's part in the tests: takes jobs, remembers them, ends them when told.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use url::Url;
use voiced_livekit::token::Keys;
use voiced_livekit::worker::{Job, JobEnd, Jobs, Worker, WorkerSettings, WorkerStatus};

#[derive(Default)]
pub struct Agency {
    pub full: AtomicBool,
    pub load_percent: AtomicU32,
    pub jobs: Mutex<Vec<Job>>,
    pub running: Mutex<BTreeMap<String, JobEnd>>,
    pub terminated: Mutex<Vec<String>>,
}

impl Jobs for Agency {
    fn may_take(&self, _promised: usize) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    fn load(&self) -> f32 {
        self.load_percent.load(Ordering::Relaxed) as f32 / 100.0
    }

    fn start(&self, job: Job, end: JobEnd) {
        self.running.lock().unwrap().insert(job.id.clone(), end);
        self.jobs.lock().unwrap().push(job);
    }

    fn terminate(&self, job_id: &str) {
        self.terminated.lock().unwrap().push(job_id.to_owned());
        if let Some(end) = self.running.lock().unwrap().remove(job_id) {
            end.succeeded();
        }
    }
}

impl Agency {
    /// Rooms of the jobs given so far.
    pub fn rooms(&self) -> Vec<String> {
        self.jobs.lock().unwrap().iter().map(|job| job.room.clone()).collect()
    }

    pub fn job(&self, room: &str) -> Option<Job> {
        self.jobs.lock().unwrap().iter().find(|job| job.room == room).cloned()
    }
}

/// A worker of this agency under the name `voiced`.
pub fn hire(url: Url, keys: Keys, agency: &Arc<Agency>, jobs_max: usize) -> Worker {
    let settings = WorkerSettings { url, keys, agent_name: "voiced".to_owned(), display_name: "Ana".to_owned(), jobs_max };
    Worker::start(&settings, Arc::clone(agency) as Arc<dyn Jobs>)
}

pub fn is_registered(worker: &Worker) -> bool {
    *worker.status().borrow() == WorkerStatus::Registered
}
