//! A call's leg: all that one slot of an audio thread does for its call in a tick.
//!
//! [`Leg::hear`] takes 10 ms out of the jitter buffer; [`Leg::window`] gathers them, cleaned or not, into the windows
//! of voice activity; [`Leg::listen`] lets the turn machine decide who has the floor; [`Leg::speak`] does what that
//! means for the agent's sound, sends what is due and tells what was heard. Between the first and the second the
//! audio thread cleans, between the second and the third it asks for speech, each for all of its calls at once.

mod counters;
mod gear;
mod keys;

use crate::frame::{HEARD_LEN, HeardFrame, Rate};
use crate::hear::opus::OpusEar;
use crate::hear::{Hear, HearCounters};
use crate::leg::{Command, LegEvent, LegSettings, SpeechChunk};
use crate::line::ToLine;
use crate::model::VAD_WINDOW;
use crate::packet::{Codec, Packet};
use crate::speak::playout::WAITING_MS_MAX;
use crate::speak::{Playout, PlayoutEvent, Push};
use crate::time::{MediaTime, TICK_MS};
use crate::tone::DtmfDetector;
use crate::turn::state::State;
use crate::turn::{Act, TurnMachine};

use keys::{KeySource, Keys};

pub use counters::LegCounters;
pub use gear::OpusGear;

pub use crate::turn::{AskId, TurnAsk, Verdict};

/// Commands that may wait for the tick: a rim that sends more in 10 ms has lost its mind; the rest is counted and dropped.
const COMMANDS_MAX: usize = 64;
/// Acts of one tick at most: each command makes up to three, each tick of the turn machine up to four.
const ACTS_MAX: usize = 3 * COMMANDS_MAX + 8;
/// Longest wait of a hang-up for what was spoken, in ms.
const HANG_UP_MS_MAX: u64 = 30_000;
/// A reply that gets no more sound does not delay a hang-up longer than this, in ms.
const HANG_UP_IDLE_MS: u64 = 1_000;
/// Samples in a millisecond of what is heard.
const HEARD_PER_MS: usize = HEARD_LEN / TICK_MS as usize;

/// One call's leg, bound to a slot of an audio thread and used for call after call.
pub struct Leg {
    settings: LegSettings,
    now: MediaTime,
    hear: Hear,
    /// The ear of a leg in a room; `hear` rests then.
    opus: Option<Box<OpusEar>>,
    dtmf: DtmfDetector,
    keys: Keys,
    gather: Gather,
    turns: TurnMachine,
    playout: Playout,
    commands: Queue<Command, COMMANDS_MAX>,
    acts: Queue<Act, ACTS_MAX>,
    hang_up: Option<HangUp>,
    dropped_old_turn: u32,
    dropped_no_room: u32,
}

impl Default for Leg {
    fn default() -> Self {
        Self::new()
    }
}

impl Leg {
    /// Allocates everything once, at its largest.
    pub fn new() -> Self {
        let settings = LegSettings::new(Rate::Hz8000);
        Self {
            settings,
            now: MediaTime(0),
            hear: Hear::new(),
            opus: None,
            dtmf: DtmfDetector::new(),
            keys: Keys::default(),
            gather: Gather::new(),
            turns: TurnMachine::new(settings),
            playout: Playout::new(),
            commands: Queue::new(Command::TakeFloor),
            acts: Queue::new(Act::Resume(crate::id::TurnId(0))),
            hang_up: None,
            dropped_old_turn: 0,
            dropped_no_room: 0,
        }
    }

    /// Starts a fresh call in this slot; allocates nothing.
    pub fn admit(&mut self, settings: LegSettings) {
        self.settings = settings;
        self.now = MediaTime(0);
        self.hear.reset();
        self.dtmf.reset();
        self.keys = Keys::default();
        self.gather = Gather::new();
        self.turns = TurnMachine::new(settings);
        self.playout.reset(Codec::of_line(settings.rate), settings.lead_ms);
        self.playout.set_far_end_ms(settings.far_end_ms);
        self.commands.clear();
        self.commands.dropped = 0;
        self.acts.clear();
        self.hang_up = None;
        self.dropped_old_turn = 0;
        self.dropped_no_room = 0;
    }

    /// Takes what a call in a room needs; without it such a leg is deaf and mute.
    pub fn equip(&mut self, gear: OpusGear) {
        self.opus = Some(gear.ear);
        *self.playout.sender_mut().encoder_mut().opus_mut() = Some(gear.encoder);
        *self.playout.alone_mut().encoder_mut().opus_mut() = gear.alone;
        self.playout.lend(gear.memory);
    }

    /// Gives it back, to be freed elsewhere.
    pub fn strip(&mut self) -> Option<OpusGear> {
        let alone = self.playout.alone_mut().encoder_mut().opus_mut().take();
        let encoder = self.playout.sender_mut().encoder_mut().opus_mut().take()?;
        Some(OpusGear { ear: self.opus.take()?, encoder, alone, memory: self.playout.give_back()? })
    }

    /// Takes a packet of the caller's.
    pub fn receive(&mut self, packet: &Packet) {
        match &mut self.opus {
            Some(ear) => ear.receive(packet),
            None => self.hear.receive(packet),
        }
    }

    /// Takes this tick's 10 ms of the guests whom the caller hears, summed; `None` when there are none.
    pub fn guests(&mut self, sound: Option<&HeardFrame>) {
        self.playout.guests(sound);
    }

    /// Takes a command of the rim's; it is obeyed in the next [`Leg::listen`].
    pub fn command(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// Room in the playout buffer, in ms.
    pub fn speech_room_ms(&self) -> u32 {
        self.playout.room_ms()
    }

    /// Takes a piece of the agent's speech: buffered while its turn is a guess, heard once that turn is the agent's,
    /// dropped and counted when its turn is void.
    pub fn speech(&mut self, chunk: &SpeechChunk) {
        if !self.turns.accepts(chunk.turn) {
            self.dropped_old_turn += 1;
            return;
        }
        match self.playout.push(chunk) {
            Push::Taken => {}
            Push::Old => self.dropped_old_turn += 1,
            Push::Busy | Push::Full => self.dropped_no_room += 1,
        }
    }

    /// First step of the tick: the 10 ms of the caller that begin at `now`, decoded, resampled and concealed.
    pub fn hear(&mut self, now: MediaTime, heard: &mut HeardFrame) {
        self.now = now;
        match &mut self.opus {
            Some(ear) => ear.tick(heard),
            None => self.hear.tick(heard),
        }
        if let Some(key) = self.dtmf.push(heard) {
            self.keys.press(key, KeySource::Sound, now);
        }
    }

    /// Second step: takes the same 10 ms, cleaned or not, and gives the window of voice activity that they complete.
    pub fn window(&mut self, cleaned: &HeardFrame) -> Option<&[f32; VAD_WINDOW]> {
        self.turns.frame(self.now, cleaned);
        self.gather.push(cleaned, self.now + TICK_MS);
        self.gather.window().filter(|_| self.settings.vad_enabled)
    }

    /// Third step: who has the floor now. `probability` is that of the window given in this tick, `verdict` an answer
    /// of the end-of-turn model. What it decides is said and done in [`Leg::speak`].
    pub fn listen(&mut self, now: MediaTime, probability: Option<f32>, verdict: Option<Verdict>, emit: &mut dyn FnMut(LegEvent)) -> TurnAsk {
        self.now = now;
        self.obey();
        while let Some(key) = self.keys.next() {
            self.turns.key_pressed(now);
            emit(LegEvent::Dtmf(key));
        }
        let probability = if self.settings.vad_enabled { probability } else { Some(self.turns.energy_probability()) };
        let window = self.gather.end.take().and_then(|end| Some((probability?, end)));
        self.turns.listen(now, window, verdict, &mut |act| self.acts.push(act))
    }

    /// Last step: does what was decided, sends what keeps the far end's lead, and tells what was heard.
    pub fn speak(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine), emit: &mut dyn FnMut(LegEvent)) {
        for index in 0..self.acts.len {
            let act = self.acts.items[index];
            self.act(act, now, line, emit);
        }
        self.acts.clear();
        self.playout.let_begin(!self.turns.may_go_on());
        let turn = self.turns.turn();
        let turns = &mut self.turns;
        self.playout.tick(now, line, &mut |event| match event {
            PlayoutEvent::Started => {
                turns.reply_started(now);
                emit(LegEvent::ReplyStarted { turn, at: now });
            }
            PlayoutEvent::PhraseHeard(phrase) => emit(LegEvent::PhraseHeard { turn, phrase }),
            PlayoutEvent::ReplyHeard { at } => {
                // an empty reply was heard at no moment of its own
                let at = if at == MediaTime(0) { now } else { at };
                turns.reply_heard(at);
                emit(LegEvent::ReplyHeard { turn, at });
            }
        });
        self.hang_up_if_due(now, line);
    }

    /// A reply waits for a caller who may be going on.
    pub fn holds_reply_back(&self) -> bool {
        self.playout.is_held_back()
    }

    /// A turn has ended and its reply has not begun: [`Leg::speak`] may be called again within the tick once some has come.
    pub fn awaits_speech(&self) -> bool {
        self.playout.awaits_sound()
    }

    /// Hands out the agent's sound alone as it plays; after [`Leg::speak`], where the settings ask for it.
    pub fn speak_alone(&mut self, now: MediaTime, room: &mut dyn FnMut(Packet)) {
        self.playout.tick_alone(now, room);
    }

    /// What was counted in this call.
    pub fn counters(&self) -> LegCounters {
        let hear = self.hear_counters();
        let (refused_moves, stale_verdicts) = self.turns.refused();
        LegCounters {
            received: hear.received,
            late: hear.late,
            duplicate: hear.duplicate,
            lost: hear.lost,
            recovered: hear.recovered,
            foreign: hear.foreign,
            concealed: hear.concealed_frames,
            dropped_ms: hear.dropped_ms,
            skipped_ms: hear.skipped_ms,
            stretched_ms: hear.stretched_ms,
            target_ms: hear.target_ms,
            underruns: self.playout.counters().underruns,
            dropped_old_turn: self.dropped_old_turn,
            dropped_no_room: self.dropped_no_room,
            dropped_commands: self.commands.dropped,
            stale_verdicts,
            refused_moves,
        }
    }

    fn hear_counters(&self) -> HearCounters {
        self.opus.as_ref().map_or_else(|| self.hear.counters(), |ear| ear.counters())
    }

    fn obey(&mut self) {
        let now = self.now;
        for index in 0..self.commands.len {
            let mut act = |act| self.acts.push(act);
            match self.commands.items[index] {
                Command::Hint(hint) => self.turns.hint(hint),
                Command::TakeFloor => self.turns.take_floor(now, &mut act),
                Command::Abandon(turn) => self.turns.abandon(turn, now, &mut act),
                Command::Mark(number) => self.playout.mark(number, now),
                // guests are the audio thread's: it knows them, a leg hears their sum
                Command::Guest { .. } | Command::GuestLeft(_) => {}
                Command::Dtmf(key) => self.keys.press(key, KeySource::Signal, now),
                Command::HangUp => {
                    self.hang_up.get_or_insert(HangUp { asked_at: now, sound_at: now });
                }
            }
        }
        self.commands.clear();
    }

    fn act(&mut self, act: Act, now: MediaTime, line: &mut dyn FnMut(ToLine), emit: &mut dyn FnMut(LegEvent)) {
        match act {
            Act::Say(event) => emit(event),
            Act::Prepare { turn, audible } => {
                // what never went out needs no clear
                let mut quietly = |_| {};
                self.playout.cut(now, if audible { line } else { &mut quietly });
                self.playout.void_before(turn);
            }
            Act::Release(turn) => {
                self.playout.start(turn);
            }
            Act::Hold { turn, at } => {
                self.playout.hold(now, line);
                emit(LegEvent::Held { turn, at, cleared_at: now });
            }
            Act::Resume(turn) => {
                self.playout.resume();
                emit(LegEvent::Unheld { turn, at: now });
            }
            Act::Cut { turn, cut, at } => {
                let heard = self.playout.cut(now, line);
                self.playout.void_before(turn);
                emit(LegEvent::Interrupted { turn, cut, heard, at });
            }
        }
    }

    fn hang_up_if_due(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        let Some(hang_up) = &mut self.hang_up else { return };
        let state = self.turns.state();
        let sound = self.playout.is_audible() || self.playout.room_ms() < WAITING_MS_MAX;
        if sound || state == State::Held {
            hang_up.sound_at = now;
        }
        let playing = match state {
            State::Ended => return,
            State::AgentSpeaking | State::Held => now.since(hang_up.sound_at) < HANG_UP_IDLE_MS,
            State::Thinking => sound,
            State::Listening | State::CallerSpeaking | State::Pausing => false,
        };
        if !playing || now.since(hang_up.asked_at) >= HANG_UP_MS_MAX {
            self.turns.hang_up();
            line(ToLine::HangUp);
        }
    }
}

/// A hang-up that waits for the last words.
#[derive(Clone, Copy)]
struct HangUp {
    asked_at: MediaTime,
    /// When there was sound to wait for.
    sound_at: MediaTime,
}

/// Frames on their way into windows.
struct Gather {
    /// A window that is complete stays in front until the next frame comes.
    samples: [f32; VAD_WINDOW + HEARD_LEN],
    len: usize,
    /// End of the window that this tick completed.
    end: Option<MediaTime>,
}

impl Gather {
    const fn new() -> Self {
        Self { samples: [0.0; VAD_WINDOW + HEARD_LEN], len: 0, end: None }
    }

    fn push(&mut self, frame: &HeardFrame, heard_until: MediaTime) {
        if let Some(beyond) = self.len.checked_sub(VAD_WINDOW) {
            self.samples.copy_within(VAD_WINDOW..self.len, 0);
            self.len = beyond;
        }
        self.samples[self.len..self.len + HEARD_LEN].copy_from_slice(frame);
        self.len += HEARD_LEN;
        let beyond = self.len.checked_sub(VAD_WINDOW);
        self.end = beyond.map(|beyond| MediaTime(heard_until.since(MediaTime((beyond / HEARD_PER_MS) as u64))));
    }

    /// The window that ends at `end`.
    fn window(&self) -> Option<&[f32; VAD_WINDOW]> {
        self.end.and_then(|_| self.samples.first_chunk())
    }
}

/// A list of fixed size, filled and emptied once a tick.
struct Queue<T, const MAX: usize> {
    items: [T; MAX],
    len: usize,
    dropped: u32,
}

impl<T: Copy, const MAX: usize> Queue<T, MAX> {
    fn new(filler: T) -> Self {
        Self { items: [filler; MAX], len: 0, dropped: 0 }
    }

    fn push(&mut self, item: T) {
        if self.len == MAX {
            self.dropped += 1;
            return;
        }
        self.items[self.len] = item;
        self.len += 1;
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}
