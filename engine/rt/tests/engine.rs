//! The running threads: they tick, they stop, they share the calls.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use voiced_core::frame::Rate;
use voiced_core::leg::LegSettings;
use voiced_core::model::{VAD_WINDOW, VoiceActivity};
use voiced_rt::{AdmitError, Engine, EngineSettings, PortSettings, TICK_BUCKETS_US, ThreadModels};

/// Far longer than anything here takes: reached only when it is broken.
const NEVER: Duration = Duration::from_secs(20);
const PORT: PortSettings = PortSettings { leg: LegSettings::new(Rate::Hz8000), ear: false, direct: false };

#[test]
fn threads_tick_until_the_engine_is_dropped() {
    let (models, ticks) = observed();
    let mut models = Some(models);
    let engine = Engine::start(&settings(1), |_| models.take().ok_or("one thread, one set of models")).unwrap();
    for _ in 0..5 {
        ticks.recv_timeout(NEVER).expect("a tick comes every 10 ms");
    }
    drop(engine);
    assert_stops(&ticks);
}

#[test]
fn models_that_do_not_load_stop_the_threads_already_started() {
    let (models, ticks) = observed();
    let mut models = Some(models);
    let engine = Engine::start(&settings(2), |_| models.take().ok_or("the second set is damaged"));
    assert_eq!(engine.err(), Some("the second set is damaged"));
    assert_stops(&ticks);
}

#[test]
fn calls_are_spread_over_the_threads_and_refused_when_all_are_full() {
    let engine = Engine::start(&settings(2), |_| Ok::<_, AdmitError>(observed().0)).unwrap();
    let (_first, _second) = (engine.admit(PORT).ok().unwrap(), engine.admit(PORT).ok().unwrap());
    assert_eq!(engine.meters().iter().map(|meter| meter.calls).collect::<Vec<_>>(), [1, 1]);
    let (_third, _fourth) = (engine.admit(PORT).ok().unwrap(), engine.admit(PORT).ok().unwrap());
    assert_eq!(engine.admit(PORT).err(), Some(AdmitError::Full { limit: 4 }));
    assert_eq!((engine.calls(), engine.limit()), (4, 4));
}

#[test]
fn a_frame_that_leaves_later_than_its_slot_is_counted_also_where_its_own_tick_was_quick() {
    let (tell, ticks) = sync_channel(64);
    let models = ThreadModels { denoise: None, vad: Box::new(Stalls { after: 3, ticks: tell }), end_of_turn: None };
    let mut models = Some(models);
    let engine = Engine::start(&settings(1), |_| models.take().ok_or("one thread, one set of models")).unwrap();
    for _ in 0..12 {
        ticks.recv_timeout(NEVER).expect("a tick comes every 10 ms");
    }
    let reading = engine.meters()[0];
    assert!(reading.late >= 4, "the tick that took 80 ms and those that waited for it: {reading:?}");
    assert!(reading.late > reading.histogram[TICK_BUCKETS_US.iter().position(|bound| *bound == 20_000).unwrap() + 1..].iter().sum::<u64>());
}

fn settings(threads: usize) -> EngineSettings {
    EngineSettings { threads, calls_per_thread: 2, realtime_priority: None, pin_cores: false, lock_memory: false }
}

/// The observer's other end goes with its thread.
fn assert_stops(ticks: &Receiver<()>) {
    let end = std::iter::repeat_with(|| ticks.recv_timeout(NEVER)).find_map(Result::err);
    assert_eq!(end, Some(RecvTimeoutError::Disconnected));
}

/// Models that tell of each tick.
fn observed() -> (ThreadModels, Receiver<()>) {
    let (tell, ticks) = sync_channel(64);
    (ThreadModels { denoise: None, vad: Box::new(Observer(tell)), end_of_turn: None }, ticks)
}

struct Observer(SyncSender<()>);

impl VoiceActivity for Observer {
    fn run(&mut self, _: &[usize], _: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]) {
        probabilities.fill(0.0);
        let _ = self.0.try_send(());
    }

    fn reset(&mut self, _: usize) {}
}

/// Holds its thread up once.
struct Stalls {
    after: u32,
    ticks: SyncSender<()>,
}

impl VoiceActivity for Stalls {
    fn run(&mut self, _: &[usize], _: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]) {
        probabilities.fill(0.0);
        let _ = self.ticks.try_send(());
        if self.after == 0 {
            std::thread::sleep(Duration::from_millis(80));
        }
        self.after = self.after.wrapping_sub(1);
    }

    fn reset(&mut self, _: usize) {}
}
