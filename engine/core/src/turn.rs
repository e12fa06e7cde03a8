//! Turns: who has the floor, from one tick to the next.
//!
//! The caller speaks and falls silent. 100 ms later a guess is made that this was all: a new epoch is said
//! ([`LegEvent::Paused`]), the end-of-turn model is asked where it counts, and the rim thinks ahead under that epoch. If the caller goes
//! on, the epoch is bumped and with that every thought of the guess is void; if the pause outlasts what
//! [`endpoint`] says, the turn is over and the reply may be heard. Until its first sound is out, a caller who goes on
//! still takes the turn back. From then on [`interrupt`] rules: hold at once, decide then.
//!
//! [`state::State`] is the whole graph; [`TurnMachine`] watches the speech gate, the clock and the transcript, and
//! makes its moves. What a move means for the sound is an [`act::Act`], done by the leg.

pub mod act;
pub mod endpoint;
pub mod interrupt;
pub mod speech;
pub mod state;

use crate::frame::HeardFrame;
use crate::id::TurnId;
use crate::leg::{LegEvent, LegSettings, TranscriptHint};
use crate::time::{MediaTime, TICK_MS};
pub use act::{Act, AskId, TurnAsk, Verdict};
use endpoint::{Endpoint, JUDGED_PAUSE_MS, NOISE_MS};
use interrupt::Judgement;
use speech::SpeechGate;
use state::{Move, State};

/// A caller who goes on within this after the turn's end, or the reply's start, was cut short, in ms.
const CUT_SHORT_MS: u64 = 500;
/// Words that come this long after a hold was let go show that it was an interruption, in ms: a slow transcript.
const LATE_WORDS_MS: u64 = 1_000;
/// Speech without words counts against silence for so long at most, in ms: speech to text is down, or it is a television.
const WORDLESS_MS_MAX: u64 = 60_000;
/// While the caller is silent the end-of-turn features begin anew this often, in ms: the run-up the model was trained with.
const RUN_UP_MS: u64 = 500;

/// Decides who has the floor.
#[derive(Clone, Debug)]
pub struct TurnMachine {
    settings: LegSettings,
    state: State,
    turn: TurnId,
    gate: SpeechGate,
    endpoint: Endpoint,
    hint: TranscriptHint,
    /// The tick's own time, and the end of what was heard in it.
    now: MediaTime,
    heard_until: MediaTime,
    /// Last speech frame before the pause.
    paused_at: MediaTime,
    ended_at: MediaTime,
    reply_started_at: MediaTime,
    held_at: MediaTime,
    over_agent_at: MediaTime,
    let_go_at: Option<MediaTime>,
    /// The last pause was held for noise: words may still come.
    was_noise: bool,
    /// The agent wanted the floor while the caller had it.
    floor_wanted: bool,
    quiet_since: MediaTime,
    /// End of the latest speech that had no words.
    wordless_until: MediaTime,
    silences: u64,
    forgot_at: MediaTime,
    refused_moves: u32,
    stale_verdicts: u32,
}

impl TurnMachine {
    /// A fresh call: the caller has the floor.
    pub fn new(settings: LegSettings) -> Self {
        Self {
            settings,
            state: State::Listening,
            turn: TurnId::default(),
            gate: SpeechGate::default(),
            endpoint: Endpoint::new(settings.endpoint_ms_min, settings.endpoint_ms_max),
            hint: TranscriptHint::default(),
            now: MediaTime(0),
            heard_until: MediaTime(0),
            paused_at: MediaTime(0),
            ended_at: MediaTime(0),
            reply_started_at: MediaTime(0),
            held_at: MediaTime(0),
            over_agent_at: MediaTime(0),
            let_go_at: None,
            was_noise: false,
            floor_wanted: false,
            quiet_since: MediaTime(0),
            wordless_until: MediaTime(0),
            silences: 0,
            forgot_at: MediaTime(0),
            refused_moves: 0,
            stale_verdicts: 0,
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state
    }

    /// The current epoch.
    pub fn turn(&self) -> TurnId {
        self.turn
    }

    /// Speech of this turn has a place: it is the current one's, a guess's or a committed reply's.
    pub fn accepts(&self, turn: TurnId) -> bool {
        turn == self.turn && self.state.has_reply()
    }

    /// Moves that were refused, and answers nobody waited for.
    pub fn refused(&self) -> (u32, u32) {
        (self.refused_moves, self.stale_verdicts)
    }

    /// Takes the frame of this tick for its level.
    pub fn frame(&mut self, at: MediaTime, frame: &HeardFrame) {
        self.gate.frame(at, frame);
    }

    /// The gate's own estimate, for want of a model.
    pub fn energy_probability(&self) -> f32 {
        self.gate.energy_probability()
    }

    /// What the transcript says now.
    pub fn hint(&mut self, hint: TranscriptHint) {
        self.hint = hint;
    }

    /// A key was pressed: the caller is there.
    pub fn key_pressed(&mut self, now: MediaTime) {
        self.quiet_since = now;
        self.silences = 0;
    }

    /// The agent opens the floor itself; if the caller has it, as soon as that proves to be noise.
    pub fn take_floor(&mut self, now: MediaTime, act: &mut dyn FnMut(Act)) {
        self.floor_wanted = matches!(self.state, State::CallerSpeaking | State::Pausing);
        if !self.go(Move::AgentTakesFloor) {
            return;
        }
        self.turn = self.turn.next();
        self.hint = TranscriptHint::default();
        self.was_noise = false;
        (self.paused_at, self.ended_at) = (now, now);
        act(Act::Prepare { turn: self.turn, audible: false });
        act(Act::Say(LegEvent::TurnEnded { turn: self.turn, at: now, wait_ms: 0, probability: f32::NAN, by_agent: true }));
        act(Act::Release(self.turn));
    }

    /// The reply of `turn` is void; an older one is void already.
    pub fn abandon(&mut self, turn: TurnId, now: MediaTime, act: &mut dyn FnMut(Act)) {
        let audible = self.state.is_agent_audible();
        if turn == self.turn && (audible || self.state == State::Thinking) && self.go(Move::ReplyAbandoned) {
            act(Act::Prepare { turn, audible });
            self.quiet(now);
        }
    }

    /// The first sound of the reply went out.
    pub fn reply_started(&mut self, now: MediaTime) {
        if self.state == State::Thinking && self.go(Move::ReplyHeardFirst) {
            self.reply_started_at = now;
            self.let_go_at = None;
        }
    }

    /// All of the reply was played.
    pub fn reply_heard(&mut self, now: MediaTime) {
        if self.go(Move::ReplyHeardOut) {
            self.endpoint.ended_well();
            self.quiet(now);
        }
    }

    /// The call is over.
    pub fn hang_up(&mut self) {
        self.go(Move::HangUp);
    }

    /// The caller may have begun to go on just now: a reply whose first sound is not out yet had better wait some ms.
    pub fn may_go_on(&self) -> bool {
        matches!(self.state, State::Pausing | State::Thinking) && self.gate.has_unjudged_sound(self.heard_until)
    }

    /// One tick: `window` is the probability of the VAD window that ended in it, and that end.
    pub fn listen(&mut self, now: MediaTime, window: Option<(f32, MediaTime)>, verdict: Option<Verdict>, act: &mut dyn FnMut(Act)) -> TurnAsk {
        self.now = now;
        self.heard_until = now + TICK_MS;
        if let Some((probability, end)) = window {
            self.gate.window(probability, end, !self.state.is_agent_audible());
        }
        self.gate.tick(self.heard_until);
        if self.is_silent() && self.state != State::Held {
            self.gate.forget_evidence();
        }
        if let Some(Verdict { ask, probability }) = verdict
            && !self.endpoint.answer(ask, probability)
        {
            self.stale_verdicts += 1;
        }
        match self.state {
            State::Listening => self.listening(act),
            State::CallerSpeaking => self.caller_speaking(act),
            State::Pausing => self.pausing(act),
            State::Thinking => self.thinking(act),
            State::AgentSpeaking => self.agent_speaking(act),
            State::Held => self.held(act),
            State::Ended => TurnAsk::Nothing,
        }
    }

    fn listening(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        if self.gate.is_speaking() && self.go(Move::CallerSpeaks) {
            self.hint = TranscriptHint::default();
            self.was_noise = false;
            act(Act::Say(LegEvent::SpeechStarted { turn: self.turn, at: self.gate.first() }));
            return TurnAsk::Nothing;
        }
        if self.was_noise && self.hint.words > 0 && self.go(Move::WordsCome) {
            self.guess(act);
            return TurnAsk::Nothing;
        }
        if self.floor_wanted {
            self.take_floor(self.now, act);
            return TurnAsk::Nothing;
        }
        let silence_ms = u64::from(self.settings.silence_ms);
        let wordless_until = if self.is_wordless_believed() { self.wordless_until } else { self.quiet_since };
        let quiet_ms = self.now.since(self.quiet_since.max(wordless_until));
        if silence_ms > 0 && quiet_ms / silence_ms > self.silences {
            self.silences = quiet_ms / silence_ms;
            act(Act::Say(LegEvent::Silence { quiet_ms: quiet_ms as u32 }));
        }
        self.forget()
    }

    /// Speech without words may still be somebody's.
    fn is_wordless_believed(&self) -> bool {
        self.now.since(self.quiet_since) < WORDLESS_MS_MAX
    }

    fn caller_speaking(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        if self.gate.is_speaking() || !self.go(Move::CallerPauses) {
            return TurnAsk::Nothing;
        }
        self.paused_at = self.gate.last();
        self.endpoint.pause();
        self.guess(act);
        self.ask()
    }

    fn pausing(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        if self.gate.is_speaking() {
            self.endpoint.went_on(self.gate.first().since(self.paused_at));
            self.resumed(act);
            return TurnAsk::Nothing;
        }
        let quiet_ms = self.quiet_ms();
        if self.hint.words == 0 {
            if quiet_ms >= NOISE_MS && self.go(Move::WasNoise) {
                self.was_noise = true;
                self.wordless_until = self.paused_at;
                if self.is_wordless_believed() {
                    self.silences = 0;
                }
                act(Act::Prepare { turn: self.turn, audible: false });
            }
        } else if quiet_ms >= self.endpoint.wait_ms(self.hint) && !self.gate.is_doubtful() && !self.may_go_on() && self.go(Move::TurnEnds) {
            self.floor_wanted = false;
            self.was_noise = false;
            self.ended_at = self.now;
            act(Act::Say(LegEvent::TurnEnded {
                turn: self.turn,
                at: self.now,
                wait_ms: quiet_ms as u32,
                probability: self.endpoint.probability().unwrap_or(f32::NAN),
                by_agent: false,
            }));
            act(Act::Release(self.turn));
            return TurnAsk::Nothing;
        }
        self.ask()
    }

    fn thinking(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        if self.gate.is_speaking() {
            if self.gate.first().since(self.ended_at) <= CUT_SHORT_MS {
                self.endpoint.cut_short(self.gate.first().since(self.paused_at));
            }
            self.resumed(act);
        }
        TurnAsk::Nothing
    }

    fn agent_speaking(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        if !self.settings.interruptible {
            return self.forget();
        }
        let words_late = self.let_go_at.is_some_and(|at| self.now.since(at) <= LATE_WORDS_MS);
        if words_late && interrupt::has_words(self.hint) {
            self.hold(self.over_agent_at, act);
            self.interrupted(act);
            return TurnAsk::Nothing;
        }
        let enough = interrupt::evidence_to_hold_ms(self.settings.hold_ms, self.heard_until.since(self.reply_started_at));
        if self.gate.is_speaking() && self.gate.evidence_ms() >= enough {
            self.hint = TranscriptHint::default();
            self.hold(self.gate.first(), act);
            return TurnAsk::Nothing;
        }
        self.forget()
    }

    fn held(&mut self, act: &mut dyn FnMut(Act)) -> TurnAsk {
        let quiet_ms = self.heard_until.since(self.gate.last());
        let held_ms = self.now.since(self.held_at);
        match interrupt::judge(self.gate.evidence_ms(), quiet_ms, held_ms, self.hint) {
            Judgement::Undecided => {}
            Judgement::Interruption => self.interrupted(act),
            Judgement::Backchannel => {
                if self.go(Move::LetGo) {
                    self.let_go_at = Some(self.now);
                    act(Act::Resume(self.turn));
                }
            }
        }
        TurnAsk::Nothing
    }

    /// A pause: think ahead under a new epoch.
    fn guess(&mut self, act: &mut dyn FnMut(Act)) {
        self.turn = self.turn.next();
        act(Act::Prepare { turn: self.turn, audible: false });
        act(Act::Say(LegEvent::Paused { turn: self.turn, at: self.paused_at }));
    }

    /// The caller went on before anything was heard.
    fn resumed(&mut self, act: &mut dyn FnMut(Act)) {
        if self.go(Move::CallerSpeaks) {
            self.turn = self.turn.next();
            act(Act::Prepare { turn: self.turn, audible: false });
            act(Act::Say(LegEvent::Resumed { turn: self.turn, at: self.gate.first() }));
        }
    }

    fn hold(&mut self, at: MediaTime, act: &mut dyn FnMut(Act)) {
        if self.go(Move::CallerSpeaksOver) {
            self.over_agent_at = at;
            self.held_at = self.now;
            act(Act::Hold { turn: self.turn, at });
        }
    }

    fn interrupted(&mut self, act: &mut dyn FnMut(Act)) {
        if self.go(Move::Interrupt) {
            if self.over_agent_at.since(self.reply_started_at) <= CUT_SHORT_MS {
                self.endpoint.cut_short(self.over_agent_at.since(self.paused_at));
            }
            let cut = self.turn;
            self.turn = self.turn.next();
            act(Act::Cut { turn: self.turn, cut, at: self.over_agent_at });
        }
    }

    fn ask(&mut self) -> TurnAsk {
        if !self.settings.turn_detection_enabled {
            return TurnAsk::Nothing;
        }
        let quiet_ms = self.quiet_ms();
        let frames_ago = (quiet_ms.saturating_sub(JUDGED_PAUSE_MS) / TICK_MS) as usize;
        self.endpoint.ask(quiet_ms, self.hint).map_or(TurnAsk::Nothing, |ask| TurnAsk::Query { ask, frames_ago })
    }

    /// A new turn's features begin shortly before its first speech, which nobody can foresee: so again and again.
    fn forget(&mut self) -> TurnAsk {
        if !self.is_silent() || self.now.since(self.forgot_at) < RUN_UP_MS {
            return TurnAsk::Nothing;
        }
        self.forgot_at = self.now;
        TurnAsk::Forget
    }

    fn is_silent(&self) -> bool {
        !self.gate.is_speaking() && !self.gate.is_doubtful()
    }

    fn quiet_ms(&self) -> u64 {
        self.heard_until.since(self.paused_at)
    }

    fn quiet(&mut self, since: MediaTime) {
        self.quiet_since = since;
        self.silences = 0;
    }

    fn go(&mut self, step: Move) -> bool {
        let next = self.state.after(step);
        let may_be = next.is_ok();
        self.state = next.unwrap_or(self.state);
        self.refused_moves += u32::from(!may_be);
        may_be
    }
}
