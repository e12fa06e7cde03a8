//! The audio thread never asks for memory nor gives any back, whatever its calls do.

mod phone;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use phone::{BySlot, Caller, Exchange};
use voiced_core::leg::{Command, LegEvent};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

const CALLS: usize = 8;
/// A minute of calls.
const TICKS: usize = 6_000;
/// A caller hangs up every 1.3 s, in no step with talking.
const LEAVES_EVERY: usize = 130;

#[test]
fn the_tick_allocates_nothing_while_callers_come_talk_interrupt_and_go() {
    let (mut exchange, mut judge) = Exchange::open(CALLS, BySlot(vec![0.9; CALLS]));
    let mut callers: [Option<Caller>; CALLS] = std::array::from_fn(|_| None);
    let (mut admitted, mut ended, mut interrupted, mut heard_out, mut sent) = (0, 0, 0, 0, 0);
    for tick in 0..TICKS {
        if tick % LEAVES_EVERY == 0 {
            callers[tick / LEAVES_EVERY % CALLS] = None;
        }
        for place in callers.iter_mut().filter(|place| place.is_none()) {
            *place = exchange.try_admit();
            admitted += usize::from(place.is_some());
        }
        for (number, caller) in callers.iter_mut().enumerate() {
            let Some(caller) = caller else { continue };
            act(caller, tick + 37 * number);
            while let Some(event) = caller.next_event() {
                ended += usize::from(matches!(event, LegEvent::TurnEnded { .. }));
                interrupted += usize::from(matches!(event, LegEvent::Interrupted { .. }));
                heard_out += usize::from(matches!(event, LegEvent::ReplyHeard { .. }));
            }
            sent += caller.let_agent_speak();
        }
        assert_no_alloc(|| exchange.tick());
        judge.step();
    }
    println!("{admitted} calls, {ended} turns, {interrupted} interruptions, {heard_out} replies heard out, {sent} packets sent");
    // else the minute was too quiet to prove anything
    assert!(admitted > 40 && ended > 40 && interrupted > 5 && heard_out > 5 && sent > 1_000);
}

/// Talks for 0.6 s of every 1.5 s, and presses a key now and then.
fn act(caller: &mut Caller, tick: usize) {
    if tick.is_multiple_of(2) {
        caller.send(tick % 150 < 60);
    }
    if tick.is_multiple_of(500) {
        caller.command(Command::Dtmf('5'));
        caller.command(Command::TakeFloor);
    }
    if tick.is_multiple_of(3_100) {
        caller.command(Command::HangUp);
    }
}
