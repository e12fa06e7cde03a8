//! Whole calls in virtual time: leg, conversation and script together, with a scripted caller, scripted voice activity
//! and providers that answer after set delays. A ten-minute call takes a moment.

use std::collections::VecDeque;
use voiced_core::call::{AskId, Leg, TurnAsk, Verdict};
use voiced_core::conversation::{Action, Conversation, Input, Settings, Spoken};
use voiced_core::event::{CallEventKind, EventSpeaker};
use voiced_core::frame::{HEARD_LEN, Rate};
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, LegEvent, LegSettings, SpeechChunk};
use voiced_core::line::{Gone, ToLine};
use voiced_core::model::{LlmEvent, LlmRequest, SttEvent};
use voiced_core::packet::{Codec, Packet};
use voiced_core::script::Script;
use voiced_core::time::MediaTime;

const WORD_MS: u64 = 300;
const STT_MS: u64 = 200;
const STT_FINAL_MS: u64 = 50;
const LLM_WORD_MS: u64 = 10;
const TTS_MS: u64 = 50;
const JUDGE_MS: u64 = 40;

/// When the caller begins a line.
#[derive(Clone, Copy)]
enum When {
    /// So long after the agent was heard out.
    AfterReply(u64),
    /// So long into a reply.
    IntoReply(u64),
    /// So long after the caller's own last word.
    AfterOwn(u64),
}

type Answers = Box<dyn Fn(&LlmRequest) -> Vec<LlmEvent>>;

/// A word being said, with its start and end.
struct Word(u64, u64, String);

/// What a provider says later.
enum Due {
    Input(Input),
    /// The transcript of so many words is settled.
    Settled(usize),
    /// A reply's last phrase has come.
    ReplyEnd(TurnId, u32, u32),
}

struct Sim {
    now: u64,
    leg: Leg,
    conversation: Conversation,
    answers: Answers,
    llm_ms: u64,
    /// What the end-of-turn model thinks of every pause.
    verdict: f32,
    lines: VecDeque<(When, &'static str)>,
    words: Vec<Word>,
    transcribed: usize,
    settled: usize,
    due: Vec<(u64, Due)>,
    verdicts: VecDeque<(u64, AskId)>,
    voice: VecDeque<(TurnId, u32, SpeechChunk)>,
    released: Option<(TurnId, u32)>,
    /// The far end's playout: ms of sound, or a mark.
    far: VecDeque<Result<u64, u32>>,
    marks: Vec<u32>,
    replied_at: Option<u64>,
    reply_started_at: Option<u64>,
    sequence: u32,
    reports: Vec<CallEventKind>,
    response_ms: Vec<u64>,
    clears: Vec<u64>,
    hung_up: bool,
    ended: Option<&'static str>,
}

impl Sim {
    fn new(lines: &[(When, &'static str)], answers: Answers) -> Self {
        let script = Script::repairs_line();
        let settings = Settings {
            fillers: Vec::new(),
            greeting: script.greeting().map(str::to_owned),
            first_stage: script.first_stage().to_owned(),
            silence_prompts: vec!["Are you still there?".to_owned()],
            apology: "Sorry, something went wrong.".to_owned(),
            goodbye: "Goodbye.".to_owned(),
        };
        let mut leg = Leg::new();
        leg.admit(LegSettings::new(Rate::Hz8000));
        let mut sim = Self {
            now: 0,
            leg,
            conversation: Conversation::new(settings),
            answers,
            llm_ms: 100,
            verdict: 0.95,
            lines: lines.iter().copied().collect(),
            words: Vec::new(),
            transcribed: 0,
            settled: 0,
            due: Vec::new(),
            verdicts: VecDeque::new(),
            voice: VecDeque::new(),
            released: None,
            far: VecDeque::new(),
            marks: Vec::new(),
            replied_at: None,
            reply_started_at: None,
            sequence: 0,
            reports: Vec::new(),
            response_ms: Vec::new(),
            clears: Vec::new(),
            hung_up: false,
            ended: None,
        };
        sim.give(Input::Started);
        sim
    }

    fn scripted(lines: &[(When, &'static str)]) -> Self {
        let script = Script::repairs_line();
        Self::new(lines, Box::new(move |request| script.answer(&request.stage, &request.history)))
    }

    fn run(mut self, ms: u64) -> Self {
        let until = self.now + ms;
        while self.now < until && self.ended.is_none() {
            self.tick();
        }
        self
    }

    fn tick(&mut self) {
        self.caller();
        self.transcribe();
        while let Some(index) = self.due.iter().position(|(at, _)| *at <= self.now) {
            match self.due.remove(index).1 {
                Due::Input(input) => {
                    self.voice_comes(&input);
                    self.give(input);
                }
                Due::Settled(said) => {
                    if said > self.settled {
                        let text = self.text(self.settled, said);
                        self.settled = said;
                        self.give(Input::Stt(SttEvent::Final(text)));
                    }
                    self.give(Input::Stt(SttEvent::Finalized));
                }
                Due::ReplyEnd(turn, attempt, phrases) => {
                    let chunk = SpeechChunk::new(turn, phrases, ChunkEnd::Reply, &[]);
                    self.voice.push_back((turn, attempt, chunk));
                }
            }
        }
        self.hand_speech();
        self.leg_tick();
        self.far_end();
        if self.now.is_multiple_of(100) {
            self.give(Input::Tick);
        }
        self.now += 10;
    }

    fn is_speaking(&self, at: u64) -> bool {
        self.words.iter().rev().take(40).any(|Word(start, end, _)| (*start..*end).contains(&at))
    }

    fn caller(&mut self) {
        let Some((when, text)) = self.lines.front().copied() else { return };
        let own_end = self.words.last().map(|word| word.1);
        let start = match when {
            When::AfterReply(ms) => self.replied_at.map(|at| at + ms),
            When::IntoReply(ms) => self.reply_started_at.map(|at| at + ms),
            When::AfterOwn(ms) => own_end.map(|at| at + ms),
        };
        if start.is_some_and(|at| at <= self.now) {
            self.lines.pop_front();
            self.replied_at = None;
            self.reply_started_at = None;
            for (index, word) in (0..).zip(text.split(' ')) {
                let start = self.now + index * WORD_MS;
                self.words.push(Word(start, start + WORD_MS, word.to_owned()));
            }
        }
    }

    fn transcribe(&mut self) {
        let known = self.words.iter().take_while(|word| word.1 + STT_MS <= self.now).count();
        if known > self.transcribed && known > self.settled {
            self.transcribed = known;
            let text = self.text(self.settled, known);
            self.give(Input::Stt(SttEvent::Interim(text)));
        }
    }

    fn text(&self, from: usize, to: usize) -> String {
        self.words[from..to].iter().map(|word| word.2.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn finalise(&mut self) {
        // a word counts once it is mostly out: the pause is noticed by voice activity, not by the transcript
        let said = self.words.iter().take_while(|word| word.1 <= self.now + WORD_MS / 3).count();
        self.due.push((self.now + STT_MS + STT_FINAL_MS, Due::Settled(said)));
    }

    fn voice_comes(&mut self, input: &Input) {
        let Input::Tts { turn, attempt, event } = input else { return };
        match *event {
            Spoken::Audio { phrase, ms } => {
                for _ in 0..ms / 20 {
                    let chunk = SpeechChunk::new(*turn, phrase, ChunkEnd::Nothing, &[3_000; 160]);
                    self.voice.push_back((*turn, *attempt, chunk));
                }
            }
            Spoken::PhraseDone(phrase) => {
                let chunk = SpeechChunk::new(*turn, phrase, ChunkEnd::Phrase, &[]);
                self.voice.push_back((*turn, *attempt, chunk));
            }
            Spoken::By(_) | Spoken::Failed(_) => {}
        }
    }

    fn hand_speech(&mut self) {
        while let Some((turn, attempt, chunk)) = self.voice.front() {
            if self.released != Some((*turn, *attempt)) || self.leg.speech_room_ms() < 40 {
                break;
            }
            self.leg.speech(chunk);
            self.voice.pop_front();
        }
    }

    fn leg_tick(&mut self) {
        if self.now.is_multiple_of(20) {
            let sample = if self.is_speaking(self.now) { [0x20, 0xA0] } else { [0xFF, 0x7F] };
            let payload: Vec<u8> = (0..160).map(|index| sample[usize::from(index % 16 < 8)]).collect();
            let packet = Packet::new(Codec::Mulaw, self.sequence, self.now as u32, &payload).expect("a packet");
            self.sequence += 1;
            self.leg.receive(&packet);
        }
        let now = MediaTime(self.now);
        let mut heard = [0.0; HEARD_LEN];
        let (mut events, mut line) = (Vec::new(), Vec::new());
        self.leg.hear(now, &mut heard);
        // the scripted voice activity hears what the leg hears: the sound, with the leg's own delay
        let probability = self.leg.window(&heard).map(|window| if window.iter().any(|x| x.abs() > 0.1) { 0.98 } else { 0.02 });
        let verdict = match self.verdicts.front() {
            Some((at, ask)) if *at <= self.now => Some(Verdict { ask: *ask, probability: self.verdict }),
            _ => None,
        };
        if verdict.is_some() {
            self.verdicts.pop_front();
        }
        if let TurnAsk::Query { ask, .. } = self.leg.listen(now, probability, verdict, &mut |event| events.push(event)) {
            self.verdicts.push_back((self.now + JUDGE_MS, ask));
        }
        self.leg.speak(now, &mut |to| line.push(to), &mut |event| events.push(event));
        for to in &line {
            self.sent(to);
        }
        for event in events {
            self.happened(event);
        }
    }

    fn sent(&mut self, to: &ToLine) {
        match *to {
            ToLine::Audio(packet) => self.far.push_back(Ok(packet.payload().len() as u64 / 8)),
            ToLine::Mark(number) => self.far.push_back(Err(number)),
            ToLine::Clear => {
                self.clears.push(self.now);
                self.marks.extend(self.far.drain(..).filter_map(Result::err));
            }
            ToLine::HangUp => {
                self.hung_up = true;
                self.due.push((self.now + 50, Due::Input(Input::Gone(Gone::HungUp))));
            }
        }
    }

    fn happened(&mut self, event: LegEvent) {
        match event {
            LegEvent::ReplyStarted { .. } => {
                self.reply_started_at = Some(self.now);
                if let Some(end) = self.words.last().map(|word| word.1) {
                    self.response_ms.push(self.now.saturating_sub(end));
                }
            }
            LegEvent::ReplyHeard { .. } => self.replied_at = Some(self.now),
            _ => {}
        }
        self.give(Input::Leg(event));
    }

    /// Plays 10 ms at the far end and echoes the marks passed.
    fn far_end(&mut self) {
        let mut left = 10;
        while let Some(next) = self.far.front_mut() {
            match next {
                Err(number) => {
                    self.marks.push(*number);
                    self.far.pop_front();
                }
                Ok(_) if left == 0 => break,
                Ok(ms) => {
                    let played = left.min(*ms);
                    *ms -= played;
                    left -= played;
                    if *ms == 0 {
                        self.far.pop_front();
                    }
                }
            }
        }
        for number in self.marks.drain(..) {
            self.leg.command(Command::Mark(number));
        }
    }

    fn give(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.conversation.apply(MediaTime(self.now), input, &mut actions);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Command(command) => self.leg.command(command),
            Action::Finalize => self.finalise(),
            Action::Ask { attempt, request } => {
                let turn = request.turn;
                self.drop_sessions(|of, at| of == turn && at < attempt);
                let mut at = self.now + self.llm_ms;
                for event in (self.answers)(&request) {
                    let LlmEvent::Token(text) = event else {
                        self.due.push((at, Due::Input(Input::Llm { turn, attempt, event })));
                        continue;
                    };
                    for word in text.split_inclusive(' ') {
                        at += LLM_WORD_MS;
                        self.due.push((at, Due::Input(Input::Llm { turn, attempt, event: LlmEvent::Token(word.to_owned()) })));
                    }
                }
            }
            Action::CancelBefore(turn) => self.drop_sessions(|of, _| of < turn),
            Action::Synthesize { turn, attempt, phrase, text } => {
                let ms = (text.split(' ').count() as u64 * WORD_MS) as u32;
                let at = self.now + TTS_MS;
                self.due.push((at, Due::Input(Input::Tts { turn, attempt, event: Spoken::Audio { phrase, ms } })));
                self.due.push((at, Due::Input(Input::Tts { turn, attempt, event: Spoken::PhraseDone(phrase) })));
            }
            Action::EndReply { turn, attempt, phrases } => {
                self.due.push((self.now + TTS_MS, Due::ReplyEnd(turn, attempt, phrases)));
            }
            Action::Release { turn, attempt } => self.released = Some((turn, attempt)),
            Action::Report(kind) => self.reports.push(kind),
            Action::Timing(_) | Action::CallTool { .. } => {}
            Action::End { reason } => self.ended = Some(reason),
        }
    }

    fn drop_sessions(&mut self, void: impl Fn(TurnId, u32) -> bool) {
        self.due.retain(|(_, due)| match due {
            Due::Input(Input::Llm { turn, attempt, .. } | Input::Tts { turn, attempt, .. }) | Due::ReplyEnd(turn, attempt, _) => !void(*turn, *attempt),
            _ => true,
        });
        self.voice.retain(|(turn, attempt, ..)| !void(*turn, *attempt));
    }

    fn transcript(&self) -> Vec<String> {
        let line = |kind: &CallEventKind| match kind {
            CallEventKind::Utterance { speaker: EventSpeaker::Tenant, text, stage, .. } => format!("caller@{stage}: {text}"),
            CallEventKind::Utterance { text, stage, .. } => format!("agent@{stage}: {text}"),
            CallEventKind::CallEnded { final_stage, reason, .. } => format!("ended@{final_stage}: {reason}"),
            CallEventKind::CallInitiated { .. } => "initiated".to_owned(),
        };
        self.reports.iter().map(line).collect()
    }
}

fn sentence(words: &str) -> Vec<LlmEvent> {
    vec![LlmEvent::Token(words.to_owned()), LlmEvent::Done]
}

#[test]
fn a_caller_and_the_repairs_line_talk_until_the_agent_hangs_up() {
    let sim = Sim::scripted(&[
        (When::AfterReply(500), "My kitchen sink is leaking."),
        (When::AfterReply(700), "It is in the kitchen."),
        (When::AfterReply(900), "It's 12 Baker Street."),
        (When::AfterReply(400), "Yes, please do."),
    ])
    .run(60_000);
    assert_eq!(
        sim.transcript(),
        [
            "agent@welcome: Hello, this is the repairs line. What needs fixing?",
            "caller@welcome: My kitchen sink is leaking.",
            "agent@issue: I'm sorry to hear that. Which room is it in?",
            "caller@issue: It is in the kitchen.",
            "agent@address: Thank you. What is your address, please?",
            "caller@address: It's 12 Baker Street.",
            "agent@dispatch: I have 12 Baker Street. Shall I send an engineer there?",
            "caller@dispatch: Yes, please do.",
            "agent@done: All right, an engineer will be with you tomorrow. Goodbye.",
            "ended@done: agent_hung_up",
        ]
    );
    assert!(sim.hung_up && sim.ended == Some("agent_hung_up"));
    // virtual time: the lab's delays one after the other would take 240 + 250 + 140 + 50 ms, thinking ahead hides a part
    assert!(sim.response_ms.iter().all(|ms| *ms <= 480), "{:?}", sim.response_ms);
}

#[test]
fn a_barge_in_stops_the_agent_and_only_heard_words_are_reported() {
    let sim = Sim::scripted(&[(When::AfterReply(500), "My kitchen sink is leaking."), (When::IntoReply(1_000), "Wait, it is the tap.")]).run(14_000);
    let transcript = sim.transcript();
    let cut = transcript[2].strip_prefix("agent@issue: ").expect("the agent's cut reply");
    assert!("I'm sorry to hear that. Which room is it in?".starts_with(cut), "{cut}");
    // 1 s at 300 ms a word
    assert!((2..=4).contains(&cut.split(' ').count()), "{cut}");
    assert_eq!(transcript[3], "caller@issue: Wait, it is the tap.");
    let barge_in = sim.words[5].0;
    let clear = sim.clears.iter().find(|at| **at >= barge_in).expect("a clear");
    assert!(clear - barge_in <= 200, "cleared {} ms after the first frame", clear - barge_in);
}

#[test]
fn a_pause_inside_a_turn_is_one_turn_and_nothing_said_ahead_is_heard() {
    let mut sim = Sim::scripted(&[(When::AfterReply(500), "It is my kitchen sink and"), (When::AfterOwn(600), "also the tap.")]);
    sim.verdict = 0.05;
    let sim = sim.run(12_000);
    assert_eq!(
        sim.transcript()[1..3],
        ["caller@welcome: It is my kitchen sink and also the tap.", "agent@issue: I'm sorry to hear that. Which room is it in?"]
    );
}

#[test]
fn a_caller_who_goes_on_before_the_model_has_answered_keeps_the_turn() {
    let mut sim = Sim::scripted(&[(When::AfterReply(500), "My kitchen sink is leaking."), (When::AfterOwn(1_500), "And the tap too.")]);
    sim.llm_ms = 3_000;
    let sim = sim.run(18_000);
    assert_eq!(
        sim.transcript()[1..3],
        ["caller@welcome: My kitchen sink is leaking. And the tap too.", "agent@issue: I'm sorry to hear that. Which room is it in?"]
    );
}

#[test]
fn a_backchannel_does_not_cost_the_agent_its_words() {
    let sim = Sim::scripted(&[(When::AfterReply(500), "My kitchen sink is leaking."), (When::IntoReply(900), "Mhm.")]).run(14_000);
    assert_eq!(sim.transcript()[1..], ["caller@welcome: My kitchen sink is leaking.", "agent@issue: I'm sorry to hear that. Which room is it in?"]);
    assert!(!sim.clears.is_empty(), "it was held for a moment");
}

#[test]
fn a_silent_caller_is_prompted_and_then_let_go() {
    let sim = Sim::scripted(&[]).run(60_000);
    assert_eq!(
        sim.transcript(),
        [
            "agent@welcome: Hello, this is the repairs line. What needs fixing?",
            "agent@welcome: Are you still there?",
            "agent@welcome: Goodbye.",
            "ended@welcome: idle",
        ]
    );
}

#[test]
fn ten_minutes_of_talk_keep_their_order_and_lose_nothing() {
    let line = (When::AfterReply(600), "I have one more question for you.");
    let sim = Sim::new(&[line; 200], Box::new(|request| sentence(&format!("This is answer number {}, is that all?", request.history.len()))));
    let sim = sim.run(600_000);
    let transcript = sim.transcript();
    assert!(transcript.len() > 120, "{} utterances", transcript.len());
    for (index, pair) in transcript[1..].chunks_exact(2).enumerate() {
        assert_eq!(pair[0], "caller@welcome: I have one more question for you.", "turn {index}");
        assert_eq!(pair[1], format!("agent@welcome: This is answer number {}, is that all?", 2 * index + 2));
    }
    assert!(sim.response_ms.iter().all(|ms| *ms <= 700), "{:?}", sim.response_ms.iter().max());
    assert_eq!(sim.leg.counters().dropped_old_turn, 0);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 24, failure_persistence: None, ..Default::default() })]

    /// However a caller talks over, pauses and goes on: each of their words is reported once and in order, and the agent
    /// is reported with beginnings of what it wanted to say.
    #[test]
    fn every_word_of_the_caller_is_reported_once_and_in_order(
        steps in proptest::collection::vec((0u8..3, 100u64..2_500), 1..8),
        llm_ms in 50u64..1_500,
        verdict in 0.0f32..1.0,
    ) {
        let mut lines = vec![(When::AfterReply(300), "First I have a question.")];
        for (kind, ms) in steps {
            lines.push(match kind {
                0 => (When::AfterReply(ms), "Here is another thing entirely."),
                1 => (When::IntoReply(ms), "Please stop that right there."),
                _ => (When::AfterOwn(ms), "Also one more thing please."),
            });
        }
        let reply = "Well, I see what you mean. Let me think about that for a moment. Is there anything else?";
        let mut sim = Sim::new(&lines, Box::new(move |_| sentence(reply)));
        sim.llm_ms = llm_ms;
        sim.verdict = verdict;
        let sim = sim.run(150_000);
        let mut heard = Vec::new();
        for line in sim.transcript() {
            if let Some(text) = line.strip_prefix("caller@welcome: ") {
                heard.extend(text.split(' ').map(str::to_owned));
            } else if let Some(text) = line.strip_prefix("agent@welcome: ") {
                let own = ["Hello, this is the repairs line. What needs fixing?", reply, "Are you still there?", "Goodbye."];
                proptest::prop_assert!(own.iter().any(|own| own.starts_with(text)), "{}", text);
            }
        }
        let said: Vec<String> = sim.words.iter().map(|word| word.2.clone()).collect();
        proptest::prop_assert_eq!(heard, said);
    }
}
