//! One audio thread's work: the tick over all of its calls.

use std::sync::Arc;
use std::time::Instant;

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::call::{Leg, OpusGear, TurnAsk, Verdict};
use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::leg::{Command, LegSettings};
use voiced_core::model::{Denoise, TurnFeatures, TurnJudge, VAD_WINDOW, VoiceActivity};
use voiced_core::time::{MediaTime, TICK_MS, Tick};

use crate::bell::Bells;
use crate::engine::ThreadModels;
use crate::hearing::LOOK_TICKS;
use crate::judge::{self, Ask, Judge, JudgeLink};
use crate::meter::{Meter, Shed, Stage};
use crate::port::{self, CallPort, PortSettings, SlotPort};

struct Slot {
    leg: Leg,
    settings: LegSettings,
    port: Option<SlotPort>,
    /// Counts the calls of this slot: an answer for an earlier one is not this one's.
    call: u64,
    since: Tick,
    verdict: Option<Verdict>,
    probability: Option<f32>,
}

/// A call on its way to its slot.
struct Admission {
    settings: LegSettings,
    port: SlotPort,
}

/// The rim's end of a worker: admits calls to it.
pub struct WorkerLink {
    admissions: Producer<Admission>,
    meter: Arc<Meter>,
    bells: Bells,
    limit: usize,
}

impl WorkerLink {
    /// Admits a call; `None` when the worker has its limit of calls, or libopus no memory.
    pub fn admit(&mut self, settings: PortSettings) -> Option<CallPort> {
        if !self.meter.reserve(self.limit) {
            return None;
        }
        let gear = match OpusGear::of(&settings.leg) {
            Ok(gear) => gear,
            Err(error) => {
                tracing::error!(%error, "a call is refused");
                self.meter.retire();
                return None;
            }
        };
        let (rim, slot) = port::open(&settings, gear);
        // the ring has a place for each slot and the meter has counted this one
        self.admissions.push(Admission { settings: settings.leg, port: slot }).ok()?;
        self.bells.hang(&rim.bell);
        if let Some(direct) = &rim.direct {
            self.bells.hang(&direct.bell);
        }
        Some(rim)
    }

    /// Leaves out optional work from the next tick on.
    pub fn shed(&self, shed: Shed) {
        self.meter.set_shed(shed);
    }

    /// The bells of this worker's calls.
    pub(crate) fn bells(&self) -> &Bells {
        &self.bells
    }

    /// The worker's meters.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

/// All calls of one audio thread.
pub struct Worker {
    slots: Vec<Slot>,
    live: Vec<usize>,
    free: Vec<usize>,
    admissions: Consumer<Admission>,
    judge: JudgeLink,
    denoise: Option<Box<dyn Denoise>>,
    vad: Box<dyn VoiceActivity>,
    features: Option<Box<dyn TurnFeatures>>,
    meter: Arc<Meter>,
    shed: Shed,
    /// This tick's sound of each slot, cleaned once that is done.
    heard: Vec<HeardFrame>,
    batch_slots: Vec<usize>,
    batch_frames: Vec<HeardFrame>,
    windows: Vec<[f32; VAD_WINDOW]>,
    probabilities: Vec<f32>,
    /// Slots whose reply has not begun.
    awaiting: Vec<usize>,
    /// A bell was raised.
    raised: bool,
    /// The judge has something to do.
    asked: bool,
}

impl Worker {
    /// Allocates everything that `limit` calls will ever need.
    pub fn new(limit: usize, models: ThreadModels) -> (Self, WorkerLink, Judge) {
        let meter = Arc::new(Meter::default());
        let (admissions_in, admissions) = RingBuffer::new(limit.max(1));
        let (features, judge_model): (_, Option<Box<dyn TurnJudge>>) = models.end_of_turn.unzip();
        let (judge_link, judge) = judge::open(judge_model, limit, Arc::clone(&meter));
        let slot = |_| Slot {
            leg: Leg::new(),
            settings: LegSettings::new(voiced_core::frame::Rate::Hz8000),
            port: None,
            call: 0,
            since: Tick(0),
            verdict: None,
            probability: None,
        };
        let worker = Self {
            slots: (0..limit).map(slot).collect(),
            live: Vec::with_capacity(limit),
            free: (0..limit).rev().collect(),
            admissions,
            judge: judge_link,
            denoise: models.denoise,
            vad: models.vad,
            features,
            meter: Arc::clone(&meter),
            shed: Shed::Nothing,
            heard: vec![[0.0; HEARD_LEN]; limit],
            batch_slots: Vec::with_capacity(limit),
            batch_frames: Vec::with_capacity(limit),
            windows: Vec::with_capacity(limit),
            probabilities: vec![0.0; limit],
            awaiting: Vec::with_capacity(limit),
            raised: false,
            asked: false,
        };
        (worker, WorkerLink { admissions: admissions_in, meter, bells: Bells::default(), limit }, judge)
    }

    /// The tick over all calls of this thread.
    pub fn run_once(&mut self, tick: Tick) {
        let mut since = Instant::now();
        let mut lap = |worker: &Self, stage| {
            let now = Instant::now();
            worker.meter.stage(stage, now - since);
            since = now;
        };
        self.look_what_to_leave_out();
        self.admit(tick);
        self.take_answers();
        self.take_in();
        lap(self, Stage::TakeIn);
        self.hear(tick);
        lap(self, Stage::Hear);
        self.denoise();
        lap(self, Stage::Denoise);
        self.detect_speech();
        lap(self, Stage::Vad);
        self.take_turns(tick);
        lap(self, Stage::Turns);
        self.speak(tick);
        self.retire();
        lap(self, Stage::Speak);
    }

    /// True while a caller waits for a reply's first sound: worth a look before the next tick.
    pub fn awaits_speech(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// Begins the replies whose first sound has come since the tick.
    pub fn begin_replies(&mut self, tick: Tick) {
        let Self { awaiting, slots, meter, raised, .. } = self;
        awaiting.retain(|&index| {
            let slot = &mut slots[index];
            let Some(port) = &mut slot.port else { return false };
            if !port.take_speech(&mut slot.leg) {
                return true;
            }
            port.speak(&mut slot.leg, media_time(tick, slot.since), meter);
            *raised |= port.announce();
            false
        });
    }

    /// True once after bells were raised.
    pub fn has_raised(&mut self) -> bool {
        std::mem::take(&mut self.raised)
    }

    /// True once after the judge was given something to do.
    pub fn has_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// What is taken up again begins anew: it has missed sound.
    fn look_what_to_leave_out(&mut self) {
        let was = std::mem::replace(&mut self.shed, self.meter.shed());
        for &index in self.live.iter().filter(|_| self.shed < was) {
            match (was, &mut self.denoise, &mut self.features, self.slots[index].settings.denoise) {
                (Shed::Denoise, Some(denoise), _, Some(band)) => denoise.reset(index, band),
                (Shed::TurnModel, _, Some(features), _) => features.reset(index),
                _ => {}
            }
        }
    }

    fn admit(&mut self, tick: Tick) {
        while let Ok(mut admission) = self.admissions.pop() {
            let Some(index) = self.free.pop() else { return };
            let slot = &mut self.slots[index];
            slot.leg.admit(admission.settings);
            if let Some(gear) = admission.port.gear.take() {
                slot.leg.equip(gear);
            }
            slot.settings = admission.settings;
            slot.port = Some(admission.port);
            slot.call += 1;
            slot.since = tick;
            slot.verdict = None;
            self.vad.reset(index);
            if let (Some(denoise), Some(band)) = (&mut self.denoise, admission.settings.denoise) {
                denoise.reset(index, band);
            }
            if let Some(features) = &mut self.features {
                features.reset(index);
            }
            self.live.push(index);
        }
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.judge.answers.pop() {
            let slot = &mut self.slots[answer.slot];
            if slot.call == answer.call {
                // of two in one tick the first is the newer one's, see `Judge::step`
                slot.verdict = slot.verdict.or(answer.verdict);
            }
            self.judge.spare.push(answer.query);
        }
    }

    fn take_in(&mut self) {
        for &index in &self.live {
            let slot = &mut self.slots[index];
            let Some(port) = &mut slot.port else { continue };
            port.guests.admit();
            while let Ok(command) = port.commands.pop() {
                match command {
                    Command::Guest { id, to_caller, to_agent } => port.guests.route(id, to_caller, to_agent),
                    Command::GuestLeft(id) => port.guests.leave(id),
                    command => slot.leg.command(command),
                }
            }
            port.take_speech(&mut slot.leg);
            while let Some(packet) = port.packets.pop() {
                slot.leg.receive(&packet);
                port.give_back(&packet, &self.meter);
            }
        }
    }

    fn hear(&mut self, tick: Tick) {
        for &index in &self.live {
            let slot = &mut self.slots[index];
            let at = media_time(tick, slot.since);
            let heard = &mut self.heard[index];
            slot.leg.hear(at, heard);
            let Some(port) = &mut slot.port else { continue };
            slot.leg.guests(port.guests.hear(heard).as_ref());
            port.hand_out(at, heard, &self.meter);
        }
    }

    fn denoise(&mut self) {
        let Some(denoise) = self.denoise.as_mut().filter(|_| self.shed < Shed::Denoise) else { return };
        self.batch_slots.clear();
        self.batch_frames.clear();
        for &index in self.live.iter().filter(|&&index| self.slots[index].settings.denoise.is_some()) {
            self.batch_slots.push(index);
            self.batch_frames.push(self.heard[index]);
        }
        denoise.run(&self.batch_slots, &mut self.batch_frames);
        for (&index, frame) in self.batch_slots.iter().zip(&self.batch_frames) {
            self.heard[index] = *frame;
        }
    }

    fn detect_speech(&mut self) {
        self.batch_slots.clear();
        self.windows.clear();
        for &index in &self.live {
            let slot = &mut self.slots[index];
            slot.probability = None;
            if let Some(window) = slot.leg.window(&self.heard[index]) {
                self.batch_slots.push(index);
                self.windows.push(*window);
            }
        }
        let probabilities = &mut self.probabilities[..self.windows.len()];
        self.vad.run(&self.batch_slots, &self.windows, probabilities);
        for (&index, &probability) in self.batch_slots.iter().zip(probabilities.iter()) {
            self.slots[index].probability = Some(probability);
        }
    }

    fn take_turns(&mut self, tick: Tick) {
        for &index in &self.live {
            let slot = &mut self.slots[index];
            let Some(port) = &mut slot.port else { continue };
            let mut features = self.features.as_mut().filter(|_| self.shed < Shed::TurnModel);
            if let Some(features) = &mut features
                && slot.settings.turn_detection_enabled
            {
                features.push(index, &self.heard[index]);
            }
            let mut emit = |event| port.tell(event, &self.meter);
            let ask = slot.leg.listen(media_time(tick, slot.since), slot.probability, slot.verdict.take(), &mut emit);
            let Some(features) = features else {
                if self.shed == Shed::TurnModel && matches!(ask, TurnAsk::Query { .. }) {
                    self.meter.ask_dropped();
                }
                continue;
            };
            match ask {
                TurnAsk::Nothing => {}
                TurnAsk::Forget => features.reset(index),
                TurnAsk::Query { ask: id, frames_ago } => match self.judge.spare.pop() {
                    None => self.meter.ask_dropped(),
                    Some(mut query) => {
                        features.query(index, frames_ago, &mut query);
                        // as many places as boxes
                        let _ = self.judge.asks.push(Ask { slot: index, call: slot.call, id, asked_at: self.meter.ticks(), query });
                        self.asked = true;
                    }
                },
            }
        }
    }

    fn speak(&mut self, tick: Tick) {
        self.awaiting.clear();
        for &index in &self.live {
            let slot = &mut self.slots[index];
            let Some(port) = &mut slot.port else { continue };
            port.speak(&mut slot.leg, media_time(tick, slot.since), &self.meter);
            self.raised |= port.announce();
            if slot.leg.awaits_speech() {
                self.awaiting.push(index);
            }
            if (tick.0 - slot.since.0).is_multiple_of(LOOK_TICKS) {
                self.meter.heard(&port.hearing.update(&slot.leg.counters()));
            }
        }
    }

    fn retire(&mut self) {
        let mut at = 0;
        while at < self.live.len() {
            let index = self.live[at];
            let slot = &mut self.slots[index];
            if !slot.port.as_ref().is_some_and(SlotPort::is_abandoned) || self.judge.retired.is_full() {
                at += 1;
                continue;
            }
            if let Some(mut port) = slot.port.take() {
                self.meter.heard(&port.hearing.update(&slot.leg.counters()));
                port.gear = slot.leg.strip();
                let _ = self.judge.retired.push(port); // room was just seen, and nobody else pushes
                self.asked = true;
            }
            self.live.swap_remove(at);
            self.free.push(index);
            self.meter.retire();
        }
    }
}

fn media_time(tick: Tick, since: Tick) -> MediaTime {
    MediaTime((tick.0 - since.0) * TICK_MS)
}
