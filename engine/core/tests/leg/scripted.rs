//! A leg driven tick by tick with a scripted caller, a scripted agent and no model.

use std::collections::VecDeque;

use voiced_core::call::{AskId, Leg, TurnAsk, Verdict};
use voiced_core::codec::sample_from_mulaw;
use voiced_core::frame::{HEARD_LEN, Rate};
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, LegEvent, LegSettings, SpeechChunk, TextEnding, TranscriptHint};
use voiced_core::line::ToLine;
use voiced_core::time::MediaTime;

/// Probability of windows in which the caller speaks.
pub const SPEECH: f32 = 0.95;
/// Probability of windows in which nobody does.
pub const QUIET: f32 = 0.02;
/// A judge's usual answer takes this many ticks.
const JUDGE_TICKS: u64 = 4;

/// A call with what came out of it.
pub struct Call {
    pub leg: Leg,
    pub now: u64,
    /// What each sample of the caller's sound is, as far as its level goes.
    pub sound: f32,
    /// What the end-of-turn model says, if it says anything.
    pub model: Option<f32>,
    pub answer: Option<(u64, AskId)>,
    /// The agent's speech that the rim still has to hand over.
    pub speech: VecDeque<SpeechChunk>,
    pub events: Vec<LegEvent>,
    pub line: Vec<(u64, ToLine)>,
}

impl Call {
    pub fn new(settings: LegSettings) -> Self {
        let mut leg = Leg::new();
        leg.admit(settings);
        Self { leg, now: 0, sound: 0.0, model: Some(0.9), answer: None, speech: VecDeque::new(), events: Vec::new(), line: Vec::new() }
    }

    pub fn usual() -> Self {
        Self::new(LegSettings::new(Rate::Hz8000))
    }

    pub fn tick(&mut self, probability: f32) {
        let now = MediaTime(self.now);
        while self.leg.speech_room_ms() >= 20
            && let Some(chunk) = self.speech.pop_front()
        {
            self.leg.speech(&chunk);
        }
        let mut heard = [0.0; HEARD_LEN];
        self.leg.hear(now, &mut heard);
        let window = self.leg.window(&[self.sound; HEARD_LEN]).map(|_| probability);
        let due = self.answer.filter(|&(at, _)| at <= self.now);
        let verdict = due.zip(self.model).map(|((_, ask), probability)| Verdict { ask, probability });
        if verdict.is_some() {
            self.answer = None;
        }
        let events = &mut self.events;
        let ask = self.leg.listen(now, window, verdict, &mut |event| events.push(event));
        if let TurnAsk::Query { ask, .. } = ask {
            self.answer = Some((self.now + JUDGE_TICKS * 10, ask));
        }
        let line = &mut self.line;
        self.leg.speak(now, &mut |item| line.push((now.ms(), item)), &mut |event| events.push(event));
        self.now += 10;
    }

    pub fn run(&mut self, ms: u64, probability: f32) -> &mut Self {
        for _ in 0..ms / 10 {
            self.tick(probability);
        }
        self
    }

    /// As [`Call::run`], with the sound of a voice.
    pub fn loud(&mut self, ms: u64, probability: f32) -> &mut Self {
        self.sound = 0.1;
        self.run(ms, probability);
        self.sound = 0.001;
        self
    }

    pub fn words(&mut self, words: u16, backchannel: bool) -> &mut Self {
        let hint = TranscriptHint { words, backchannel, ending: TextEnding::Complete, settled: true };
        self.leg.command(Command::Hint(hint));
        self
    }

    /// The caller says a sentence of a second, which ends.
    pub fn caller_says_a_sentence(&mut self) -> TurnId {
        self.run(1_000, SPEECH).words(4, false).run(600, QUIET);
        self.turn_ended()
    }

    /// The agent says `ms` in phrases of a second, in sound that tells its turn.
    pub fn agent_says(&mut self, turn: TurnId, ms: u64) {
        let sound = [level(turn); 160];
        for at in (0..ms).step_by(20) {
            let ends = (at + 20) % 1_000 == 0 || at + 20 >= ms;
            let end = if ends { ChunkEnd::Phrase } else { ChunkEnd::Nothing };
            self.speech.push_back(SpeechChunk::new(turn, (at / 1_000) as u32, end, &sound));
        }
        self.speech.push_back(SpeechChunk::new(turn, (ms / 1_000) as u32, ChunkEnd::Reply, &[]));
    }

    /// A call in which the agent has been speaking for `ms`.
    pub fn with_agent_speaking(ms: u64) -> (Self, TurnId) {
        let mut call = Self::usual();
        let turn = call.caller_says_a_sentence();
        call.agent_says(turn, 4_000);
        call.run(ms, QUIET);
        (call, turn)
    }

    pub fn turn_ended(&self) -> TurnId {
        let ended = self.events.iter().rev().find_map(|event| match event {
            LegEvent::TurnEnded { turn, .. } => Some(*turn),
            _ => None,
        });
        ended.expect("a turn has ended")
    }

    pub fn has(&self, wanted: impl Fn(&LegEvent) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    pub fn count(&self, wanted: impl Fn(&LegEvent) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    pub fn hang_ups(&self) -> usize {
        self.line.iter().filter(|(_, item)| matches!(item, ToLine::HangUp)).count()
    }

    pub fn clears(&self) -> Vec<u64> {
        self.line.iter().filter(|(_, item)| matches!(item, ToLine::Clear)).map(|&(at, _)| at).collect()
    }
}

/// Loudness that tells turns apart through mu-law, equal for every twelfth.
pub fn level(turn: TurnId) -> i16 {
    (500.0 * 1.35f32.powi((turn.0 % 12) as i32)) as i16
}

/// The packet's loudest sample is of this turn: a reply's last packet may be filled up with silence.
pub fn is_of(packet: &[u8], turn: TurnId) -> bool {
    let loudest = packet.iter().map(|&byte| sample_from_mulaw(byte)).max().unwrap_or(0);
    (f32::from(loudest) / f32::from(level(turn)) - 1.0).abs() < 0.1
}
