//! One audio thread from the rim's side: places, rings, and the end-of-turn answers of the judge beside it.

mod phone;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use phone::{BySlot, Caller, Exchange};
use voiced_core::frame::Rate;
use voiced_core::leg::{LegEvent, LegSettings};
use voiced_core::line::ToLine;
use voiced_core::model::{TurnJudge, TurnQuery};
use voiced_rt::{PortSettings, Shed};

/// More than any turn here takes to end, in packets of 20 ms.
const PATIENCE: usize = 200;
/// Longer than one thread ever waits here for another.
const PATIENCE_OF_THREADS: Duration = Duration::from_secs(20);

#[test]
fn a_call_beyond_the_limit_is_refused_until_one_has_gone() {
    let (mut exchange, _judge) = Exchange::open(2, BySlot(vec![]));
    let (first, _second) = (exchange.admit(), exchange.admit());
    assert!(exchange.try_admit().is_none(), "places count from the admission, not from the tick that takes it in");
    exchange.tick();
    assert!(exchange.try_admit().is_none());
    drop(first);
    assert!(exchange.try_admit().is_none(), "the audio thread has not let go of it yet");
    exchange.tick();
    let _third = exchange.admit();
    assert_eq!(exchange.link.meter().read().calls, 2);
}

#[test]
fn a_place_given_back_while_the_judge_is_stuck_is_given_out_again() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![]));
    let mut calls = 0;
    for _ in 0..10 {
        calls += usize::from(exchange.try_admit().is_some());
        exchange.tick();
    }
    assert!(calls >= 2, "what the judge must free has some room to wait");
    judge.step();
    exchange.tick();
    exchange.admit();
}

#[test]
fn every_tick_gives_an_ear_frame_and_a_caller_is_heard_by_his_own_call_only() {
    let (mut exchange, _judge) = Exchange::open(2, BySlot(vec![]));
    let (mut loud, mut quiet) = (exchange.admit(), exchange.admit());
    for _ in 0..50 {
        assert!(loud.send(true) && quiet.send(false));
        exchange.tick();
        exchange.tick();
    }
    let ((loudest, frames), (quietest, quiet_frames)) = (loud.heard(), quiet.heard());
    assert_eq!((frames, quiet_frames), (100, 100));
    assert!(loudest > 4_000, "loudest sample {loudest}");
    assert!(quietest < 100, "loudest sample of the quiet call {quietest}");
}

#[test]
fn a_ring_that_nobody_empties_costs_its_own_call_frames_and_no_other() {
    let (mut exchange, _judge) = Exchange::open(2, BySlot(vec![]));
    let (mut stuck, mut well) = (exchange.admit(), exchange.admit());
    let mut frames = 0;
    for _ in 0..300 {
        exchange.tick();
        frames += well.heard().1;
    }
    let (_, kept) = stuck.heard();
    assert_eq!(frames, 300);
    assert!(kept < 300, "the ring has an end");
    assert_eq!(exchange.link.meter().read().rings_full, 300 - kept as u64, "and what it had no room for is counted");
}

#[test]
fn a_burst_beyond_the_packet_ring_is_refused_at_the_rim() {
    let (mut exchange, _judge) = Exchange::open(1, BySlot(vec![]));
    let mut caller = exchange.admit();
    let taken = (0..200).filter(|_| caller.send(true)).count();
    assert!(taken < 200);
    exchange.tick();
    assert!(caller.send(true), "a tick takes in all that waits");
}

#[test]
fn each_call_is_given_the_answer_to_its_own_question() {
    let (mut exchange, mut judge) = Exchange::open(2, BySlot(vec![0.9, 0.75]));
    let mut callers = [exchange.admit(), exchange.admit()];
    let mut probabilities = [None; 2];
    for packet in 0..PATIENCE {
        for caller in &mut callers {
            caller.send(packet < 25);
        }
        exchange.tick();
        exchange.tick();
        judge.step();
        for (caller, probability) in callers.iter_mut().zip(&mut probabilities) {
            *probability = probability.or(turn_end(caller));
        }
    }
    assert_eq!(probabilities, [Some(0.9), Some(0.75)]);
}

#[test]
fn of_two_answers_that_come_together_the_newer_questions_counts() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![0.9]));
    let mut caller = exchange.admit();
    let mut say = |exchange: &mut Exchange, loud: bool, packets: usize| {
        (0..packets).find_map(|_| {
            caller.send(loud);
            exchange.tick();
            exchange.tick();
            turn_end(&mut caller)
        })
    };
    for (loud, packets) in [(true, 25), (false, 22), (true, 25), (false, 22)] {
        assert_eq!(say(&mut exchange, loud, packets), None, "the pauses are too short for an end");
    }
    judge.step();
    assert_eq!(exchange.link.meter().read().asks_answered, 2);
    assert_eq!(say(&mut exchange, false, PATIENCE), Some(0.9));
}

#[test]
fn an_answer_meant_for_the_call_before_in_the_same_slot_is_dropped() {
    let (asked_in, asked) = sync_channel(2);
    let (answer, answer_out) = sync_channel(2);
    let (mut exchange, mut judge) = Exchange::open(1, ByHand { asked: asked_in, answer: answer_out });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                judge.step();
                thread::yield_now();
            }
        });
        let mut first = exchange.admit();
        talk_and_pause(&mut exchange, &mut first);
        asked.recv_timeout(PATIENCE_OF_THREADS).unwrap();
        drop(first);
        exchange.tick();
        let mut second = exchange.admit();
        talk_and_pause(&mut exchange, &mut second);
        answer.send(0.9).unwrap();
        asked.recv_timeout(PATIENCE_OF_THREADS).unwrap(); // the judge is at the second's question, so the answer to the first's is on its way
        let probability = (0..PATIENCE).find_map(|_| {
            second.send(false);
            exchange.tick();
            exchange.tick();
            turn_end(&mut second)
        });
        stop.store(true, Ordering::Relaxed);
        drop(answer);
        assert!(probability.is_some_and(f32::is_nan), "the second call had no answer, and yet {probability:?}");
    });
}

#[test]
fn a_thread_with_too_much_to_do_judges_turns_without_the_model_until_there_is_room_again() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![0.9]));
    let mut caller = exchange.admit();
    for (shed, asked) in [(Shed::TurnModel, false), (Shed::Nothing, true)] {
        exchange.link.shed(shed);
        let probability = (0..PATIENCE).find_map(|packet| {
            caller.send(packet < 25);
            exchange.tick();
            exchange.tick();
            judge.step();
            turn_end(&mut caller)
        });
        assert_eq!(probability.map(|probability| !probability.is_nan()), Some(asked), "{shed:?}: the turn ends all the same");
    }
}

#[test]
fn a_bell_is_rung_once_for_100_ms_of_hearing_and_at_once_for_an_event() {
    let (mut exchange, _judge) = Exchange::open(1, BySlot(vec![0.5]));
    let mut caller = exchange.admit();
    let bell = Arc::clone(&caller.port.bell);
    let is_rung = || pin!(bell.rung()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let ticks_to_ring = |exchange: &mut Exchange| {
        (1..=PATIENCE).find(|_| {
            exchange.tick();
            is_rung()
        })
    };
    assert!(!is_rung(), "nothing has happened");
    assert_eq!(ticks_to_ring(&mut exchange), Some(10));
    assert!(!is_rung(), "it was told once");
    caller.heard();
    assert_eq!(ticks_to_ring(&mut exchange), Some(10));
    caller.heard();
    let ticks_to_event = (1..=PATIENCE).find(|tick| {
        if tick % 2 == 1 {
            caller.send(true);
        }
        exchange.tick();
        let rung = is_rung();
        caller.heard();
        caller.next_event().inspect(|_| assert!(rung, "an event waits and nobody was told")).is_some()
    });
    assert!(ticks_to_event.is_some(), "the caller talks");
}

#[test]
fn a_direct_line_carries_both_ways_tells_when_a_reply_was_due_and_hangs_up_with_its_call() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![0.9]));
    let leg = LegSettings::new(Rate::Hz8000);
    let mut caller = Caller::new(exchange.link.admit(PortSettings { leg, ear: true, direct: true }).unwrap());
    let mut line = caller.port.direct.take().unwrap();
    let mut said = || match (line.outgoing)(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(said) => Some(said),
        Poll::Pending => None,
    };
    let due = Instant::now();
    let first = (0..PATIENCE).find_map(|packet| {
        assert!((line.packets)(&caller.packet(packet < 25)));
        exchange.tick();
        exchange.tick();
        judge.step();
        if turn_end(&mut caller).is_some() {
            caller.port.reply_due(due);
        }
        caller.push_speech();
        said()
    });
    let first = first.expect("the reply is said");
    assert!(matches!(first.what, ToLine::Audio(_)), "{first:?}");
    assert!(first.due_at.is_some_and(|at| at.saturating_duration_since(due) < Duration::from_millis(1)) && first.said_at >= due, "{first:?}");
    assert!(std::iter::from_fn(&mut said).all(|said| said.due_at.is_none()), "a reply has one first sound");
    assert!(caller.heard().0 > 5_000, "the line's packets are heard");
    drop(caller);
    assert!(matches!(said().map(|said| said.what), Some(ToLine::HangUp)));
}

#[test]
fn a_reply_held_back_for_the_callers_sound_is_due_when_it_may_begin() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![0.9]));
    let leg = LegSettings::new(Rate::Hz8000);
    let mut caller = Caller::new(exchange.link.admit(PortSettings { leg, ear: true, direct: true }).unwrap());
    let mut line = caller.port.direct.take().unwrap();
    let (due, mut held_since) = (Instant::now(), None);
    let first = (0..PATIENCE).find_map(|packet| {
        // as loud as a word's edge, and not yet known for speech
        let sent = if held_since.is_some() { caller.faint_packet() } else { caller.packet(packet < 25) };
        assert!((line.packets)(&sent));
        exchange.tick();
        exchange.tick();
        judge.step();
        if turn_end(&mut caller).is_some() {
            caller.port.reply_due(due);
            held_since = Some(Instant::now());
        }
        caller.push_speech();
        match (line.outgoing)(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        }
    });
    let (first, held_since) = (first.expect("it is not held for ever"), held_since.expect("the turn is over"));
    assert!(first.due_at.is_some_and(|at| at >= held_since), "{first:?}, held since {held_since:?}");
}

#[test]
fn a_reply_that_comes_between_two_ticks_begins_before_the_next_and_is_said_once() {
    let (mut exchange, mut judge) = Exchange::open(2, BySlot(vec![0.9, 0.9]));
    let (mut caller, mut other) = (exchange.admit(), exchange.admit());
    let ended = (0..PATIENCE).any(|packet| {
        caller.send(packet < 25);
        other.send(false);
        exchange.tick();
        exchange.tick();
        judge.step();
        turn_end(&mut caller).is_some()
    });
    assert!(ended && exchange.worker.awaits_speech());
    exchange.begin_replies();
    assert!(caller.port.outgoing.pop().is_none(), "nothing has come");
    caller.push_speech();
    exchange.begin_replies();
    let mut sent = std::iter::from_fn(|| caller.port.outgoing.pop()).filter(|item| matches!(item, ToLine::Audio(_))).count();
    assert!(sent > 0 && !exchange.worker.awaits_speech());
    for _ in 0..PATIENCE {
        exchange.tick();
        exchange.begin_replies();
        sent += caller.let_agent_speak();
    }
    assert_eq!(sent, phone::REPLY_CHUNKS as usize);
}

/// Packets from the pause to the question of end of turn, and one more: the question comes 260 ms later.
const PACKETS_TO_QUESTION: usize = 14;

/// Half a second of speech, then quiet until the caller has paused for long enough to ask whether that was all.
fn talk_and_pause(exchange: &mut Exchange, caller: &mut Caller) {
    let paused = (0..PATIENCE).any(|packet| {
        caller.send(packet < 25);
        exchange.tick();
        exchange.tick();
        std::iter::from_fn(|| caller.next_event()).any(|event| matches!(event, LegEvent::Paused { .. }))
    });
    assert!(paused);
    for _ in 0..PACKETS_TO_QUESTION {
        caller.send(false);
        exchange.tick();
        exchange.tick();
    }
}

/// The probability with which a turn ended, if one did.
fn turn_end(caller: &mut Caller) -> Option<f32> {
    std::iter::from_fn(|| caller.next_event()).find_map(|event| match event {
        LegEvent::TurnEnded { probability, .. } => Some(probability),
        _ => None,
    })
}

/// A judge that tells when it is asked and answers when it is told to.
struct ByHand {
    asked: SyncSender<()>,
    answer: Receiver<f32>,
}

impl TurnJudge for ByHand {
    fn judge(&mut self, _: &TurnQuery) -> f32 {
        self.asked.send(()).unwrap();
        self.answer.recv().unwrap_or(0.5)
    }
}
