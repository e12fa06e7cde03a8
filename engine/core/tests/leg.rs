//! Whole calls in virtual time: what a leg decides, says and sends.

#[path = "leg/scripted.rs"]
mod scripted;

use proptest::prelude::*;
use scripted::{Call, QUIET, SPEECH, is_of};
use voiced_core::codec::mulaw_from_sample;
use voiced_core::frame::Rate;
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, LegEvent, LegSettings, SpeechChunk, TextEnding, TranscriptHint};
use voiced_core::line::ToLine;
use voiced_core::packet::{Codec, Packet};
use voiced_core::time::MediaTime;
use voiced_core::turn::state::{Move, State};

#[test]
fn a_sentence_is_answered_soon_after_its_last_sound() {
    let mut call = Call::usual();
    let turn = call.caller_says_a_sentence();
    call.agent_says(turn, 1_500);
    call.run(2_500, QUIET);
    let Some(LegEvent::TurnEnded { wait_ms, probability, by_agent: false, .. }) = call.events.iter().find(|event| matches!(event, LegEvent::TurnEnded { .. }))
    else {
        panic!("{:?}", call.events)
    };
    assert!((280..=410).contains(wait_ms), "{wait_ms}");
    assert!(probability.is_nan(), "the text was complete, yet the model was asked");
    assert!(matches!(call.events[0], LegEvent::SpeechStarted { at: MediaTime(0), .. }));
    assert!(matches!(call.events[1], LegEvent::Paused { at: MediaTime(970..=1030), .. }), "{:?}", call.events[1]);
    assert!(call.has(|event| matches!(event, LegEvent::PhraseHeard { phrase: 1, .. })));
    assert!(call.has(|event| matches!(event, LegEvent::ReplyHeard { turn: heard, .. } if *heard == turn)));
}

#[test]
fn a_pause_inside_a_turn_makes_a_guess_and_takes_it_back() {
    let mut call = Call::usual();
    call.run(600, SPEECH).words(2, false).run(200, QUIET).run(600, SPEECH);
    let guesses: Vec<_> = call.events.iter().skip(1).collect();
    assert!(matches!(guesses[..], [LegEvent::Paused { turn: guess, .. }, LegEvent::Resumed { turn, .. }] if turn > guess), "{guesses:?}");
}

#[test]
fn nothing_of_a_guess_is_heard_before_the_turn_has_ended() {
    let mut call = Call::usual();
    call.run(800, SPEECH).words(3, false).run(130, QUIET);
    let Some(LegEvent::Paused { turn, .. }) = call.events.last().copied() else { panic!("{:?}", call.events) };
    call.agent_says(turn, 1_000);
    while !call.has(|event| matches!(event, LegEvent::TurnEnded { .. })) {
        assert!(call.line.is_empty());
        call.tick(QUIET);
    }
    assert!(matches!(call.events.last(), Some(LegEvent::ReplyStarted { .. })), "spoken in the very tick: {:?}", call.events);
}

#[test]
fn a_caller_who_goes_on_before_the_reply_is_heard_takes_the_turn_back() {
    let mut call = Call::usual();
    let turn = call.caller_says_a_sentence();
    call.run(300, SPEECH);
    assert!(matches!(call.events.last(), Some(LegEvent::Resumed { turn: resumed, .. }) if *resumed > turn));
    call.agent_says(turn, 1_000);
    call.run(500, SPEECH);
    assert!(call.line.is_empty(), "nothing was heard, so nothing is cleared either");
    assert_eq!(call.leg.counters().dropped_old_turn, 51);
}

#[test]
fn an_agent_about_to_begin_waits_for_the_verdict_on_a_sound_that_has_just_begun() {
    let paused = |pause_ms: u64| {
        let mut call = Call::usual();
        call.loud(800, SPEECH).words(3, false).run(130, QUIET);
        let Some(LegEvent::Paused { turn, .. }) = call.events.last().copied() else { panic!("{:?}", call.events) };
        call.agent_says(turn, 1_000);
        call.run(pause_ms.saturating_sub(130), QUIET);
        call
    };
    let begun = |call: &Call| call.has(|event| matches!(event, LegEvent::ReplyStarted { .. }));
    let wait_ms = (130..1_000).step_by(10).find(|&pause_ms| begun(&paused(pause_ms))).expect("a reply");
    // the caller goes on just before it, and the model has not heard enough of it yet
    let mut call = paused(wait_ms - 20);
    call.loud(60, QUIET).loud(300, SPEECH);
    assert!(call.has(|event| matches!(event, LegEvent::Resumed { .. })) && call.line.is_empty(), "{:?}", call.events);
    // a click, and a noise that stays
    for (sound_ms, limit_ms) in [(20, 20), (1_000, 90)] {
        let mut call = paused(wait_ms - 20);
        let began = call.now;
        call.loud(sound_ms, QUIET).run(200, QUIET);
        assert!(begun(&call) && call.line[0].0 - began <= limit_ms, "{sound_ms}: {:?}", call.line[0].0 - began);
    }
}

#[test]
fn a_greeting_begins_at_once_on_a_line_that_is_noisy_from_the_start() {
    let mut call = Call::usual();
    call.leg.command(Command::TakeFloor);
    call.loud(10, QUIET);
    let turn = call.turn_ended();
    call.agent_says(turn, 1_000);
    call.loud(10, QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::ReplyStarted { .. })), "{:?}", call.events);
}

#[test]
fn a_caller_cut_short_is_waited_for_longer_the_next_time() {
    let wait = |call: &Call| match call.events.iter().rev().find(|event| matches!(event, LegEvent::TurnEnded { .. })) {
        Some(LegEvent::TurnEnded { wait_ms, .. }) => *wait_ms,
        _ => 0,
    };
    let mut call = Call::usual();
    call.run(1_000, SPEECH).words(4, false).run(400, QUIET);
    let first = wait(&call);
    call.run(1_000, SPEECH).run(700, QUIET);
    assert!(wait(&call) >= first + 90, "{first} then {}", wait(&call));
}

#[test]
fn a_barge_in_silences_the_agent_at_once_and_tells_what_was_heard() {
    let (mut call, turn) = Call::with_agent_speaking(1_500);
    let began = call.now;
    call.run(800, SPEECH);
    let clears = call.clears();
    assert_eq!(clears.len(), 1);
    assert!(clears[0] - began <= 120, "cleared after {} ms", clears[0] - began);
    let interrupted = call.events.iter().find_map(|event| match event {
        LegEvent::Interrupted { turn, cut, heard, at } => Some((*turn, *cut, *heard, *at)),
        _ => None,
    });
    let (new, cut, heard, at) = interrupted.expect("interrupted");
    assert!(new > turn && cut == turn);
    assert!(at.ms().abs_diff(began) <= 32, "{at:?} {began}");
    assert_eq!(heard.phrase, 1);
    assert!((450..=680).contains(&heard.phrase_ms), "{heard:?}");
    assert!(call.line.iter().all(|(at, item)| *at < clears[0] || matches!(item, ToLine::Clear)));
    call.words(3, false).run(600, QUIET);
    assert!(call.turn_ended() > new, "the caller's own turn ends as any");
}

#[test]
fn words_make_an_interruption_of_a_short_one() {
    let (mut call, _) = Call::with_agent_speaking(1_500);
    call.run(250, SPEECH).words(1, false).run(20, QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::Interrupted { .. })));
}

#[test]
fn words_that_come_after_a_hold_was_let_go_still_interrupt() {
    let (mut call, _) = Call::with_agent_speaking(1_500);
    call.run(250, SPEECH).run(600, QUIET);
    assert!(matches!(call.events.last(), Some(LegEvent::Unheld { .. })));
    call.words(2, false).run(20, QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::Interrupted { .. })));
}

#[test]
fn a_backchannel_holds_the_agent_and_all_of_the_reply_is_heard() {
    let (mut call, turn) = Call::with_agent_speaking(1_500);
    call.run(300, SPEECH).words(1, true).run(6_000, QUIET);
    let order: Vec<_> = call.events.iter().skip_while(|event| !matches!(event, LegEvent::Held { .. })).collect();
    assert!(matches!(order[..2], [LegEvent::Held { .. }, LegEvent::Unheld { .. }]), "{order:?}");
    assert!(matches!(order.last(), Some(LegEvent::ReplyHeard { turn: heard, .. }) if *heard == turn));
    assert!(!call.has(|event| matches!(event, LegEvent::Interrupted { .. })));
    let phrases: Vec<_> = call.events.iter().filter(|event| matches!(event, LegEvent::PhraseHeard { .. })).collect();
    assert_eq!(phrases.len(), 4, "each phrase once: {phrases:?}");
}

#[test]
fn an_agent_that_may_not_be_interrupted_speaks_on() {
    let mut call = Call::new(LegSettings { interruptible: false, ..LegSettings::new(Rate::Hz8000) });
    let turn = call.caller_says_a_sentence();
    call.agent_says(turn, 2_000);
    call.run(500, QUIET).run(1_000, SPEECH);
    assert!(call.clears().is_empty());
    call.run(1_200, SPEECH);
    assert!(matches!(call.events.last(), Some(LegEvent::SpeechStarted { .. })), "{:?}", call.events);
}

#[test]
fn noise_without_words_never_ends_a_turn() {
    let mut call = Call::usual();
    for _ in 0..5 {
        call.run(500, SPEECH).run(4_000, QUIET);
    }
    assert!(!call.has(|event| matches!(event, LegEvent::TurnEnded { .. })));
    assert_eq!(call.count(|event| matches!(event, LegEvent::SpeechStarted { .. })), 5, "each is heard anew");
    for _ in 5..14 {
        call.run(500, SPEECH).run(4_000, QUIET);
    }
    assert!(call.has(|event| matches!(event, LegEvent::Silence { .. })), "noise is no answer to silence for ever");
}

#[test]
fn a_caller_who_speaks_while_nobody_understands_is_not_asked_whether_anybody_is_there() {
    let silences = |call: &Call| call.count(|event| matches!(event, LegEvent::Silence { .. }));
    let mut call = Call::usual();
    call.run(7_000, QUIET);
    for _ in 0..3 {
        call.run(1_500, SPEECH).run(7_800, QUIET);
        assert_eq!(silences(&call), 0, "{:?}", call.events);
    }
    call.run(400, QUIET);
    assert_eq!(silences(&call), 1);
    call.run(500, SPEECH).run(7_800, QUIET);
    assert_eq!(silences(&call), 1, "after a prompt too");
    call.run(400, QUIET);
    assert_eq!(silences(&call), 2);
}

#[test]
fn words_that_come_after_a_pause_was_held_for_noise_end_the_turn() {
    let mut call = Call::usual();
    call.run(500, SPEECH).run(3_500, QUIET).words(2, false).run(50, QUIET);
    let turn = call.turn_ended();
    call.agent_says(turn, 500);
    call.run(100, QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::ReplyStarted { .. })));
}

#[test]
fn without_any_verdict_the_turn_still_ends_in_bounded_time() {
    use TextEnding::{Complete, Open, Unmarked};
    for (model, ending, within) in [(None, Complete, 500), (None, Unmarked, 700), (None, Open, 1_400), (Some(0.0), Open, 1_430)] {
        let mut call = Call::usual();
        call.model = model;
        let hint = TranscriptHint { words: 4, backchannel: false, ending, settled: true };
        call.run(1_000, SPEECH).leg.command(Command::Hint(hint));
        call.run(within, QUIET);
        assert!(call.has(|event| matches!(event, LegEvent::TurnEnded { .. })), "{model:?} {ending:?}");
    }
}

#[test]
fn silence_is_told_at_each_multiple_and_a_key_breaks_it() {
    let mut call = Call::usual();
    call.run(17_000, QUIET);
    let told: Vec<_> = call.events.iter().collect();
    assert!(matches!(told[..], [LegEvent::Silence { quiet_ms: 8_000 }, LegEvent::Silence { quiet_ms: 16_000 }]), "{told:?}");
    call.leg.command(Command::Dtmf('5'));
    call.run(7_900, QUIET);
    assert_eq!(call.events.len(), 3);
    assert_eq!(call.events[2], LegEvent::Dtmf('5'));
}

#[test]
fn the_agent_opens_the_floor_and_a_failed_reply_gives_it_back() {
    let mut call = Call::usual();
    call.leg.command(Command::TakeFloor);
    call.tick(QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::TurnEnded { by_agent: true, wait_ms: 0, .. })));
    let greeting = call.turn_ended();
    call.agent_says(greeting, 3_000);
    call.run(500, QUIET).leg.command(Command::Abandon(greeting));
    call.run(20, QUIET);
    assert_eq!(call.clears().len(), 1);
    call.leg.command(Command::TakeFloor);
    call.tick(QUIET);
    assert!(call.turn_ended() > greeting);
}

#[test]
fn an_agent_that_wants_the_floor_waits_for_what_proves_to_be_noise() {
    let mut call = Call::usual();
    call.run(200, SPEECH).leg.command(Command::TakeFloor);
    call.run(3_000, QUIET);
    assert!(call.has(|event| matches!(event, LegEvent::TurnEnded { by_agent: true, .. })));
}

#[test]
fn a_hang_up_is_sent_once_in_every_state_after_the_last_words() {
    type Prepare = fn(&mut Call);
    let states: [(&str, Prepare, u64); 7] = [
        ("listening", |_| {}, 20),
        (
            "caller speaking",
            |call| {
                call.run(300, SPEECH);
            },
            20,
        ),
        (
            "pausing",
            |call| {
                call.run(300, SPEECH).run(150, QUIET);
            },
            20,
        ),
        (
            "thinking",
            |call| {
                call.caller_says_a_sentence();
            },
            20,
        ),
        ("agent speaking", |call| *call = Call::with_agent_speaking(1_000).0, 4_000),
        (
            "held",
            |call| {
                *call = Call::with_agent_speaking(1_000).0;
                call.run(160, SPEECH);
            },
            6_000,
        ),
        (
            "agent stalled",
            |call| {
                let turn = call.caller_says_a_sentence();
                call.leg.speech(&SpeechChunk::new(turn, 0, ChunkEnd::Nothing, &[1_000; 160]));
                call.run(500, QUIET);
            },
            2_000,
        ),
    ];
    for (state, prepare, within) in states {
        let mut call = Call::usual();
        prepare(&mut call);
        call.leg.command(Command::HangUp);
        call.leg.command(Command::HangUp);
        call.run(within, QUIET);
        assert_eq!(call.hang_ups(), 1, "{state}");
        call.run(500, SPEECH);
        assert!(matches!(call.line.last(), Some((_, ToLine::HangUp))), "{state}: nothing follows");
        if state == "agent speaking" {
            assert!(call.has(|event| matches!(event, LegEvent::ReplyHeard { .. })), "its last words were heard");
        }
    }
}

#[test]
fn a_key_told_by_sound_and_by_signal_is_one_press() {
    let tone = |index: usize| {
        let angle = std::f32::consts::TAU * index as f32 / 8_000.0;
        mulaw_from_sample(((697.0 * angle).sin() * 6_000.0 + (1_209.0 * angle).sin() * 6_000.0) as i16)
    };
    for signalled in [false, true] {
        let mut call = Call::usual();
        for sequence in 0..6u32 {
            let payload: Vec<u8> = (0..160).map(|sample| tone(sequence as usize * 160 + sample)).collect();
            call.leg.receive(&Packet::new(Codec::Mulaw, sequence, sequence * 20, &payload).expect("20 ms"));
            call.run(20, QUIET);
        }
        if signalled {
            call.leg.command(Command::Dtmf('1'));
        }
        call.run(200, QUIET);
        assert_eq!(call.events, [LegEvent::Dtmf('1')]);
        call.leg.command(Command::Dtmf('1'));
        call.leg.command(Command::Dtmf('1'));
        call.run(100, QUIET);
        assert_eq!(call.events.len(), 3, "two signals are two presses");
    }
}

#[test]
fn a_slot_is_used_again_as_if_it_were_new() {
    let (mut call, _) = Call::with_agent_speaking(500);
    call.leg.admit(LegSettings::new(Rate::Hz8000));
    call.now = 0;
    call.line.clear();
    call.speech.clear();
    call.events.clear();
    call.run(1_000, QUIET);
    assert!(call.line.is_empty() && call.events.is_empty());
    assert_eq!(call.leg.counters().dropped_old_turn, 0);
}

#[test]
fn a_ten_minute_call_keeps_its_rhythm() {
    let mut call = Call::usual();
    let mut turns = 0;
    while call.now < 600_000 {
        let turn = call.caller_says_a_sentence();
        call.agent_says(turn, 3_000);
        if turns % 5 == 4 {
            call.run(1_500, QUIET).run(700, SPEECH).words(3, false).run(600, QUIET);
            let turn = call.turn_ended();
            call.agent_says(turn, 1_000);
            call.run(1_500, QUIET);
        } else {
            call.run(3_500, QUIET);
        }
        turns += 1;
    }
    let interruptions = turns / 5;
    assert_eq!(call.count(|event| matches!(event, LegEvent::TurnEnded { .. })), turns + interruptions);
    assert_eq!(call.count(|event| matches!(event, LegEvent::Interrupted { .. })), interruptions);
    assert_eq!(call.count(|event| matches!(event, LegEvent::ReplyHeard { .. })), turns);
    assert_eq!(call.leg.counters().refused_moves, 0);
}

#[test]
fn the_graph_of_the_floor_is_this() {
    let edge = |state: State, step: Move| state.after(step).map(|next| format!("{state:?} --{step:?}--> {next:?}"));
    let edges = State::ALL.iter().flat_map(|&state| Move::ALL.iter().filter_map(move |&step| edge(state, step).ok()));
    let graph = edges.collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(graph);
}

/// Something that may happen to a call at any moment.
#[derive(Clone, Copy, Debug)]
enum Chance {
    Speech(u64),
    Quiet(u64),
    Words(u16, bool),
    Reply { older_by: u32 },
    TakeFloor,
    Abandon,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        (1u64..90).prop_map(|ticks| Chance::Speech(ticks * 10)),
        (1u64..160).prop_map(|ticks| Chance::Quiet(ticks * 10)),
        (0u16..4, any::<bool>()).prop_map(|(words, backchannel)| Chance::Words(words, backchannel)),
        (0u32..3).prop_map(|older_by| Chance::Reply { older_by }),
        Just(Chance::TakeFloor),
        Just(Chance::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_an_old_turn_is_ever_heard(chances in prop::collection::vec(chance(), 1..60)) {
        let mut call = Call::usual();
        let (mut newest, mut committed) = (TurnId(0), None);
        for chance in chances {
            let from = (call.events.len(), call.line.len());
            match chance {
                Chance::Speech(ms) => { call.run(ms, SPEECH); }
                Chance::Quiet(ms) => { call.run(ms, QUIET); }
                Chance::Words(words, backchannel) => { call.words(words, backchannel); }
                Chance::Reply { older_by } => call.agent_says(TurnId(newest.0.saturating_sub(older_by)), 700),
                Chance::TakeFloor => call.leg.command(Command::TakeFloor),
                Chance::Abandon => call.leg.command(Command::Abandon(newest)),
            }
            // within one chance only one of the turns that were committed before its end can have been heard
            let mut may_be_heard: Vec<TurnId> = committed.into_iter().collect();
            for event in &call.events[from.0..] {
                match *event {
                    LegEvent::Paused { turn, .. }
                    | LegEvent::Resumed { turn, .. }
                    | LegEvent::Interrupted { turn, .. } => (newest, committed) = (turn, None),
                    LegEvent::TurnEnded { turn, .. } => {
                        prop_assert!(turn >= newest);
                        (newest, committed) = (turn, Some(turn));
                        may_be_heard.push(turn);
                    }
                    LegEvent::ReplyStarted { turn, .. } => prop_assert_eq!(Some(turn), committed),
                    _ => {}
                }
            }
            for (at, item) in &call.line[from.1..] {
                if let ToLine::Audio(packet) = item {
                    let heard = may_be_heard.iter().any(|turn| is_of(packet.payload(), *turn));
                    prop_assert!(heard, "at {} ms, may be heard {:?}", at, may_be_heard);
                }
            }
        }
    }
}
