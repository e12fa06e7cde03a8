//! The agent's sound from push to the caller's ear, against a far end that queues, plays, echoes and clears.

use proptest::prelude::*;
use std::collections::VecDeque;
use voiced_core::codec::sample_from_mulaw;
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, HeardUntil, SpeechChunk};
use voiced_core::line::ToLine;
use voiced_core::packet::Codec;
use voiced_core::speak::{Playout, PlayoutEvent, PlayoutState, Push};
use voiced_core::time::MediaTime;

const LEAD_MS: u32 = 400;
const TURN: TurnId = TurnId(3);

/// What a telephone provider does with what it is sent.
struct FarEnd {
    queue: VecDeque<Queued>,
    /// What was played, with silence where nothing was queued left out.
    played: Vec<i16>,
    played_ms_until_dry: Option<u64>,
    way_ms: u64,
    echoes: bool,
    underway: VecDeque<(u64, ToLine)>,
    back: VecDeque<(u64, u32)>,
    queued_ms_max: usize,
    /// Ticks in which sound came: what a transport sends in one message.
    messages: usize,
}

enum Queued {
    Sample(i16),
    Mark(u32),
}

impl FarEnd {
    fn new(way_ms: u64, echoes: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            played: Vec::new(),
            played_ms_until_dry: None,
            way_ms,
            echoes,
            underway: VecDeque::new(),
            back: VecDeque::new(),
            queued_ms_max: 0,
            messages: 0,
        }
    }

    /// From `now` to the next tick.
    fn run(&mut self, now: u64) {
        self.messages += usize::from(self.underway.iter().any(|(at, line)| *at <= now && matches!(line, ToLine::Audio(_))));
        while self.underway.front().is_some_and(|(at, _)| *at <= now) {
            match self.underway.pop_front().unwrap().1 {
                ToLine::Audio(packet) => {
                    self.queue.extend(packet.payload().iter().map(|&byte| Queued::Sample(sample_from_mulaw(byte))));
                }
                ToLine::Mark(number) => self.queue.push_back(Queued::Mark(number)),
                ToLine::Clear => {
                    for item in std::mem::take(&mut self.queue) {
                        self.echo(item, now);
                    }
                }
                ToLine::HangUp => unreachable!("the playout never hangs up"),
            }
        }
        self.queued_ms_max = self.queued_ms_max.max(self.queue.len() / 8);
        let mut played = 0;
        while played < 80 {
            match self.queue.pop_front() {
                Some(Queued::Sample(sample)) => {
                    self.played.push(sample);
                    played += 1;
                }
                Some(mark) => self.echo(mark, now + 10),
                None => {
                    self.played_ms_until_dry.get_or_insert(now);
                    break;
                }
            }
        }
        while let Some(Queued::Mark(number)) = self.queue.front() {
            let mark = Queued::Mark(*number);
            self.queue.pop_front();
            self.echo(mark, now + 10);
        }
    }

    fn echo(&mut self, item: Queued, at: u64) {
        if let (Queued::Mark(number), true) = (item, self.echoes) {
            self.back.push_back((at + self.way_ms, number));
        }
    }
}

/// A playout and its far end in virtual time.
struct Call {
    playout: Playout,
    far: FarEnd,
    now: u64,
    events: Vec<(u64, PlayoutEvent)>,
    to_push: VecDeque<SpeechChunk>,
}

impl Call {
    fn new(way_ms: u64, echoes: bool) -> Self {
        let mut playout = Playout::new();
        playout.reset(Codec::Mulaw, LEAD_MS);
        Self { playout, far: FarEnd::new(way_ms, echoes), now: 0, events: Vec::new(), to_push: VecDeque::new() }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            while self.to_push.front().is_some_and(|chunk| self.playout.room_ms() > chunk.samples().len() as u32 / 8) {
                assert_eq!(self.playout.push(&self.to_push.pop_front().unwrap()), Push::Taken);
            }
            while self.far.back.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, number) = self.far.back.pop_front().unwrap();
                self.playout.mark(number, MediaTime(self.now));
            }
            let (now, way) = (self.now, self.far.way_ms);
            let (underway, events) = (&mut self.far.underway, &mut self.events);
            self.playout.tick(MediaTime(now), &mut |line| underway.push_back((now + way, line)), &mut |event| events.push((now, event)));
            self.far.run(now);
            self.now += 10;
        }
    }

    fn hold(&mut self) -> bool {
        let (at, underway) = (self.now + self.far.way_ms, &mut self.far.underway);
        self.playout.hold(MediaTime(self.now), &mut |line| underway.push_back((at, line)))
    }

    fn cut(&mut self) -> HeardUntil {
        let (at, underway) = (self.now + self.far.way_ms, &mut self.far.underway);
        self.playout.cut(MediaTime(self.now), &mut |line| underway.push_back((at, line)))
    }

    fn kinds(&self) -> Vec<PlayoutEvent> {
        self.events.iter().map(|(_, event)| *event).collect()
    }

    fn reply_heard(&self) -> Option<(u64, MediaTime)> {
        self.events.iter().find_map(|(now, event)| match event {
            PlayoutEvent::ReplyHeard { at } => Some((*now, *at)),
            _ => None,
        })
    }
}

/// Sound in which every stretch is unlike any other, of values that mu-law keeps.
fn speech(len: usize) -> Vec<i16> {
    let mut seed = 7u32;
    let noise = std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sample_from_mulaw((seed >> 24) as u8)
    });
    noise.take(len).collect()
}

/// A reply of phrases of the given lengths in ms, cut into chunks of `chunk` samples.
fn reply(turn: TurnId, phrases_ms: &[usize], chunk: usize) -> (Vec<i16>, Vec<SpeechChunk>) {
    let sound = speech(phrases_ms.iter().sum::<usize>() * 8);
    let (mut chunks, mut at) = (Vec::new(), 0);
    for (phrase, ms) in phrases_ms.iter().enumerate() {
        for piece in sound[at..at + ms * 8].chunks(chunk) {
            chunks.push(SpeechChunk::new(turn, phrase as u32, ChunkEnd::Nothing, piece));
        }
        chunks.push(SpeechChunk::new(turn, phrase as u32, ChunkEnd::Phrase, &[]));
        at += ms * 8;
    }
    chunks.push(SpeechChunk::new(turn, phrases_ms.len() as u32, ChunkEnd::Reply, &[]));
    (sound, chunks)
}

/// A call in which a reply was committed at time 0.
fn speaking(way_ms: u64, echoes: bool, phrases_ms: &[usize]) -> (Call, Vec<i16>) {
    let (sound, chunks) = reply(TURN, phrases_ms, 160);
    let mut call = Call::new(way_ms, echoes);
    call.to_push.extend(chunks);
    call.run(10);
    assert!(call.playout.start(TURN));
    call.now = 0;
    call.far.played_ms_until_dry = None;
    (call, sound)
}

#[test]
fn nothing_is_sent_before_the_commit_and_all_of_it_after() {
    let (sound, chunks) = reply(TURN, &[400], 160);
    let mut call = Call::new(0, true);
    call.to_push.extend(chunks);
    call.run(500);
    assert!(call.far.played.is_empty() && call.far.underway.is_empty() && call.events.is_empty());
    assert!(call.playout.start(TURN));
    call.run(600);
    assert_eq!(call.far.played, sound);
    assert!(matches!(call.kinds()[..], [PlayoutEvent::Started, PlayoutEvent::PhraseHeard(0), PlayoutEvent::ReplyHeard { .. }]));
}

#[test]
fn the_far_end_has_the_lead_and_no_more_and_is_filled_up_in_few_messages() {
    let (mut call, _) = speaking(0, true, &[3_000]);
    call.run(3_500);
    assert!((LEAD_MS as usize..=LEAD_MS as usize + 20).contains(&call.far.queued_ms_max));
    assert_eq!(call.far.played_ms_until_dry, Some(3_000), "never dry before the end");
    assert_eq!(call.playout.counters().underruns, 0);
    assert!(call.far.messages <= 3_000 / 200 + 3, "{} messages for 3 s", call.far.messages);
}

#[test]
fn phrases_are_heard_when_played_not_when_sent_with_and_without_echoes() {
    for (way_ms, echoes) in [(0, true), (0, false), (50, true)] {
        let (mut call, _) = speaking(way_ms, echoes, &[500, 300, 450]);
        call.run(2_000);
        let heard_at: Vec<u64> = call.events[1..].iter().map(|(at, _)| *at).collect();
        let ways = if echoes { 2 * way_ms } else { 0 };
        for (at, played) in heard_at.iter().zip([500, 800, 1_250, 1_250]) {
            assert!((played + ways..=played + ways + 40).contains(at), "{way_ms} {echoes}: {heard_at:?}");
        }
        assert_eq!(call.playout.state(), PlayoutState::Done);
    }
}

#[test]
fn a_hold_is_undone_without_a_lost_or_repeated_sample() {
    for echoes in [true, false] {
        for hold_at in [20, 110, 480, 500, 790] {
            let (mut call, sound) = speaking(0, echoes, &[500, 300]);
            call.run(hold_at);
            assert!(call.hold());
            call.run(300);
            let held = call.far.played.len();
            assert_eq!(held as u64, hold_at * 8, "silent as soon as it is held");
            call.playout.resume();
            call.run(1_500);
            assert_eq!(call.far.played[..held], sound[..held]);
            let (again, rest) = (&call.far.played[held..sound.len()], &sound[held..]);
            let fade = rest.len().min(40);
            assert_eq!(again[fade..], rest[fade..], "after the fade all is as pushed");
            assert!(again[..fade].iter().zip(rest).all(|(faded, full)| faded.abs() <= full.abs() + 8));
            let phrases = call.kinds().iter().filter(|event| matches!(event, PlayoutEvent::PhraseHeard(_))).count();
            assert_eq!((phrases, call.reply_heard().is_some()), (2, true));
        }
    }
}

#[test]
fn a_cut_knows_what_was_heard() {
    for echoes in [true, false] {
        let (mut call, _) = speaking(0, echoes, &[500, 300, 900]);
        call.run(1_000);
        assert_eq!(call.cut(), HeardUntil { phrase: 2, phrase_ms: 200 });
        call.run(500);
        assert_eq!(call.far.played.len(), 8_000);
    }
    let (mut call, _) = speaking(0, true, &[500]);
    assert_eq!(call.cut(), HeardUntil::default(), "nothing was sent yet");
}

#[test]
fn a_far_away_ear_is_never_believed_to_have_heard_more_than_it_did() {
    let (mut call, _) = speaking(80, true, &[4_000]);
    for _ in 0..30 {
        call.run(100);
        let played = call.far.played.len() as u32 / 8;
        if call.now >= 500 {
            let heard = call.playout.heard_until().phrase_ms;
            assert!(heard <= played && heard + 120 >= played, "at {}: {heard} of {played}", call.now);
        }
    }
}

#[test]
fn marks_echoed_by_a_clear_prove_nothing() {
    let (mut call, _) = speaking(0, true, &[100, 100, 2_000]);
    call.run(50);
    assert!(call.hold());
    let before = call.playout.heard_until();
    call.run(200);
    assert!(call.far.back.is_empty(), "the far end echoed its marks");
    assert_eq!(call.cut(), before);
    assert_eq!(before, HeardUntil { phrase: 0, phrase_ms: 50 });
}

#[test]
fn echoes_of_marks_faster_than_time_prove_nothing_either() {
    let (mut call, _) = speaking(0, false, &[2_000]);
    call.run(50);
    for number in 0..20 {
        call.playout.mark(number, MediaTime(call.now));
    }
    assert_eq!(call.cut(), HeardUntil { phrase: 0, phrase_ms: 50 });
}

#[test]
fn a_far_end_that_lags_without_bound_still_lets_the_reply_end() {
    let (mut call, _) = speaking(3_000, true, &[1_000]);
    call.run(2_500);
    assert!(call.reply_heard().is_some());
}

#[test]
fn a_slow_voice_pauses_the_reply_and_goes_on() {
    let mut call = Call::new(0, true);
    let (sound, chunks) = reply(TURN, &[105, 200], 160);
    let (first, rest) = chunks.split_at(7);
    call.to_push.extend(first.iter().copied());
    call.run(10);
    assert!(call.playout.start(TURN));
    call.run(500);
    assert_eq!(call.far.played[..840], sound[..840], "the last syllable of the phrase is not kept back");
    assert_eq!(call.playout.counters().underruns, 1);
    assert_eq!(call.reply_heard(), None);
    call.to_push.extend(rest.iter().copied());
    call.run(500);
    let padded = call.far.played.len() - 1_600;
    assert_eq!(call.far.played[padded..], sound[840..]);
    assert!(call.far.played[840..padded].iter().all(|&sample| sample == 0));
    assert!(call.reply_heard().is_some());
}

#[test]
fn an_end_that_comes_late_keeps_the_moment_at_which_the_sound_ended() {
    let (_, mut chunks) = reply(TURN, &[200], 160);
    let end = chunks.pop().unwrap();
    let mut call = Call::new(0, true);
    call.to_push.extend(chunks);
    assert!(call.playout.start(TURN));
    call.run(1_000);
    call.to_push.push_back(end);
    call.run(20);
    let (told, at) = call.reply_heard().unwrap();
    assert!(told >= 1_000 && (200..=210).contains(&at.ms()), "{told} {at:?}");
}

#[test]
fn of_void_and_foreign_replies_nothing_is_heard() {
    let mut call = Call::new(0, true);
    let chunk = |turn| SpeechChunk::new(TurnId(turn), 0, ChunkEnd::Nothing, &[1_000; 160]);
    assert_eq!(call.playout.push(&chunk(3)), Push::Taken);
    assert_eq!(call.playout.push(&chunk(4)), Push::Taken, "a newer guess replaces the older");
    assert_eq!(call.playout.push(&chunk(3)), Push::Old);
    assert!(!call.playout.start(TurnId(3)));
    call.playout.void_before(TurnId(6));
    assert_eq!(call.playout.state(), PlayoutState::Idle);
    assert_eq!(call.playout.push(&chunk(5)), Push::Old);
    assert_eq!(call.playout.push(&chunk(6)), Push::Taken);
    assert!(call.playout.start(TurnId(6)));
    assert_eq!(call.playout.push(&chunk(7)), Push::Busy);
    call.run(100);
    call.cut();
    assert_eq!(call.playout.push(&chunk(6)), Push::Old);
    assert!(!call.hold(), "a cut reply cannot be held");
    call.run(100);
    assert_eq!(call.far.played.len(), 160);
    assert_eq!(call.playout.counters().old_chunks, 3);
}

#[test]
fn a_full_ring_refuses_and_tells_its_room() {
    let mut call = Call::new(0, true);
    let chunk = SpeechChunk::new(TURN, 0, ChunkEnd::Nothing, &[1_000; 160]);
    let taken = (0..1_000).take_while(|_| call.playout.push(&chunk) == Push::Taken).count();
    assert_eq!((taken, call.playout.room_ms()), (125, 0));
    assert!(call.playout.start(TURN));
    call.run(10);
    assert_eq!(call.playout.room_ms(), LEAD_MS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_pushed_sample_goes_out_once_and_in_order(
        phrases_ms in prop::collection::vec(0..900usize, 1..12),
        chunk in 1..=960usize,
        way_ms in 0..12u64,
        echoes: bool,
        holds in prop::collection::vec(10..150u64, 0..4),
    ) {
        let (sound, chunks) = reply(TURN, &phrases_ms, chunk);
        let mut call = Call::new(way_ms * 10, echoes);
        call.to_push.extend(chunks);
        call.run(10);
        prop_assert!(call.playout.start(TURN));
        if way_ms == 0 {
            for ticks in &holds {
                call.run(ticks * 10);
                call.hold();
                call.run(100);
                call.playout.resume();
            }
        }
        call.run(sound.len() as u64 / 8 + 2_000);
        let holds = if way_ms == 0 { holds.len() } else { 0 };
        let wrong = call.far.played.iter().zip(&sound).filter(|(played, pushed)| played != pushed).count();
        prop_assert!(wrong <= 40 * holds, "{} samples changed", wrong);
        prop_assert!((sound.len()..sound.len() + 160).contains(&call.far.played.len()));
        let heard: Vec<u32> = call.kinds().iter()
            .filter_map(|event| if let PlayoutEvent::PhraseHeard(phrase) = event { Some(*phrase) } else { None })
            .collect();
        prop_assert_eq!(heard, (0..phrases_ms.len() as u32).collect::<Vec<_>>());
        prop_assert!(call.reply_heard().is_some());
    }
}
