//! Starts the audio threads and spreads calls over them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use voiced_core::model::{Denoise, TurnFeatures, TurnJudge, VoiceActivity};

use crate::deadline::Beat;
use crate::meter::{Meter, MeterReading, Shed};
use crate::port::{CallPort, PortSettings};
use crate::realtime;
use crate::worker::{Worker, WorkerLink};

/// How often a reply's first sound is looked for between ticks, while a caller waits for one: the rim has a guessed reply
/// ready and hands it out as soon as it hears that the turn has ended, and the next tick would be 10 ms of silence.
const LOOK_FOR_SPEECH: Duration = Duration::from_millis(2);

/// How the audio threads run.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Audio threads, one per core given to audio.
    pub threads: usize,
    /// Calls that one thread takes at most.
    pub calls_per_thread: usize,
    /// `SCHED_FIFO` priority 1..=99, if any.
    pub realtime_priority: Option<u8>,
    /// Pin thread n to the nth core that the process may use.
    pub pin_cores: bool,
    /// Lock the process in memory.
    pub lock_memory: bool,
}

/// The models of one audio thread.
pub struct ThreadModels {
    /// Noise cancellation, for calls that ask for it.
    pub denoise: Option<Box<dyn Denoise>>,
    /// Voice activity.
    pub vad: Box<dyn VoiceActivity>,
    /// End of turn: features on the tick, judge beside it.
    pub end_of_turn: Option<(Box<dyn TurnFeatures>, Box<dyn TurnJudge>)>,
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Every thread has its limit of calls.
    #[error("all {limit} places for calls are taken (engine.threads × engine.calls_per_thread)")]
    Full {
        /// Places in all.
        limit: usize,
    },
}

/// The running audio threads; dropping it stops them.
pub struct Engine {
    // locked by the rim only, for the moment of an admission; the audio threads never see it
    links: Mutex<Vec<WorkerLink>>,
    meters: Vec<Arc<Meter>>,
    limit: usize,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads; `models` is asked once for each with the number of slots.
    pub fn start<E>(settings: &EngineSettings, mut models: impl FnMut(usize) -> Result<ThreadModels, E>) -> Result<Self, E> {
        if settings.lock_memory {
            realtime::lock_memory();
        }
        // complete from the start, so that models which do not load stop the threads already started
        let mut engine = Self {
            links: Mutex::default(),
            meters: Vec::new(),
            limit: settings.threads * settings.calls_per_thread,
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..settings.threads {
            let (worker, link, judge) = Worker::new(settings.calls_per_thread, models(settings.calls_per_thread)?);
            let meter = Arc::clone(link.meter());
            let (bells, stopped) = (link.bells().clone(), Arc::clone(&engine.stop));
            let ringer = spawn(format!("ringer-{number}"), move || bells.run(&stopped));
            let stopped = Arc::clone(&engine.stop);
            let pinned = settings.pin_cores;
            let judge = spawn(format!("judge-{number}"), move || {
                // it takes what the audio threads leave of their cores, too
                if pinned {
                    realtime::roam();
                }
                judge.run(&stopped);
            });
            let wakes = Wakes { ringer: ringer.thread().clone(), judge: judge.thread().clone() };
            let (stopped, priority) = (Arc::clone(&engine.stop), settings.realtime_priority);
            let core = settings.pin_cores.then_some(number);
            engine.meters.push(Arc::clone(&meter));
            engine.threads.push(spawn(format!("audio-{number}"), move || {
                realtime::apply(priority, core);
                run(worker, &meter, &wakes, &stopped);
            }));
            engine.threads.extend([judge, ringer]);
            engine.links.get_mut().unwrap_or_else(PoisonError::into_inner).push(link);
        }
        Ok(engine)
    }

    /// Admits a call to the thread with the fewest.
    pub fn admit(&self, settings: PortSettings) -> Result<CallPort, AdmitError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.sort_by_key(|link| link.meter().read().calls);
        links.iter_mut().find_map(|link| link.admit(settings)).ok_or(AdmitError::Full { limit: self.limit })
    }

    /// Places for calls in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Calls now.
    pub fn calls(&self) -> usize {
        self.meters.iter().map(|meter| meter.read().calls).sum()
    }

    /// Leaves out optional work from the next tick on.
    pub fn shed(&self, shed: Shed) {
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            link.shed(shed);
        }
    }

    /// A reading of each thread's meters.
    pub fn meters(&self) -> Vec<MeterReading> {
        self.meters.iter().map(|meter| meter.read()).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there was already printed
        }
    }
}

/// Whom the audio thread wakes after a tick that gave them something to do.
struct Wakes {
    ringer: Thread,
    judge: Thread,
}

fn run(mut worker: Worker, meter: &Meter, wakes: &Wakes, stop: &AtomicBool) {
    let mut beat = Beat::new();
    while !stop.load(Ordering::Relaxed) {
        let (tick, skipped) = beat.wait();
        if skipped > 0 {
            meter.skip(skipped);
        }
        let begun = Instant::now();
        worker.run_once(tick);
        meter.tick(begun.elapsed(), beat.since_due());
        if worker.has_asked() {
            wakes.judge.unpark();
        }
        loop {
            if worker.has_raised() {
                wakes.ringer.unpark();
            }
            if !worker.awaits_speech() || !beat.rest(LOOK_FOR_SPEECH) {
                break;
            }
            worker.begin_replies(tick);
        }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name).spawn(body).expect("the system refuses a thread at start-up")
}
