//! The audio thread never asks for memory nor gives any back, whatever its calls do.

mod phone;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use phone::{BySlot, Caller, Exchange};
use voiced_core::id::GuestId;
use voiced_core::leg::{Command, LegEvent};
use voiced_core::packet::Codec;
use voiced_rt::GuestPort;

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

const CALLS: usize = 8;
/// A minute of calls.
const TICKS: usize = 6_000;
/// Places for callers in rooms; the rest are on the telephone, with a guest.
const ROOMS: usize = 4;
/// A caller hangs up every 1.3 s, in no step with talking.
const LEAVES_EVERY: usize = 130;

#[test]
fn the_tick_allocates_nothing_while_callers_come_talk_interrupt_and_go() {
    let (mut exchange, mut judge) = Exchange::open(CALLS, BySlot(vec![0.9; CALLS]));
    let mut callers: [Option<Caller>; CALLS] = std::array::from_fn(|_| None);
    let mut guests: [Option<GuestPort>; CALLS] = std::array::from_fn(|_| None);
    let (mut admitted, mut ended, mut interrupted, mut heard_out, mut sent, mut alone) = (0, 0, 0, 0, 0, 0);
    for tick in 0..TICKS {
        if tick % LEAVES_EVERY == 0 {
            callers[tick / LEAVES_EVERY % CALLS] = None;
        }
        for (number, place) in callers.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            *place = if number < ROOMS { exchange.try_admit_to_room() } else { exchange.try_admit() };
            admitted += usize::from(place.is_some());
        }
        for (number, caller) in callers.iter_mut().enumerate() {
            let Some(caller) = caller else { continue };
            act(caller, tick + 37 * number);
            guest_acts(caller, &mut guests[number], tick);
            while caller.port.agent.as_mut().is_some_and(|agent| agent.pop().is_some()) {
                alone += 1;
            }
            while let Some(event) = caller.next_event() {
                ended += usize::from(matches!(event, LegEvent::TurnEnded { .. }));
                interrupted += usize::from(matches!(event, LegEvent::Interrupted { .. }));
                heard_out += usize::from(matches!(event, LegEvent::ReplyHeard { .. }));
            }
            sent += caller.let_agent_speak();
        }
        assert_no_alloc(|| exchange.tick());
        assert_no_alloc(|| exchange.begin_replies());
        judge.step();
    }
    println!("{admitted} calls, {ended} turns, {interrupted} interruptions, {heard_out} replies heard out, {sent} packets sent, {alone} of the agent alone");
    // else the minute was too quiet to prove anything
    assert!(admitted > 40 && ended > 40 && interrupted > 5 && heard_out > 5 && sent > 1_000 && alone > 500);
}

/// Talks for 0.6 s of every 1.6 s, and presses a key now and then.
fn act(caller: &mut Caller, tick: usize) {
    if tick.is_multiple_of(2) {
        caller.send(tick % 160 < 60);
    }
    if tick.is_multiple_of(500) {
        caller.command(Command::Dtmf('5'));
        caller.command(Command::TakeFloor);
    }
    if tick.is_multiple_of(3_100) {
        caller.command(Command::HangUp);
    }
}

/// A guest comes every 2.5 s, is heard by all, talks in a telephone's codec and goes.
fn guest_acts(caller: &mut Caller, guest: &mut Option<GuestPort>, tick: usize) {
    const ID: GuestId = GuestId(1);
    match tick % 250 {
        0 => {
            *guest = caller.port.join(ID, Codec::Mulaw).ok();
            caller.command(Command::Guest { id: ID, to_caller: true, to_agent: true });
        }
        1..150 if tick.is_multiple_of(2) => {
            if let Some(guest) = guest {
                let sequence = tick as u32 / 2;
                let packet = voiced_core::packet::Packet::new(Codec::Mulaw, sequence, sequence * 20, &[0x20; 160]).expect("it fits");
                let _ = guest.packets.push(&packet);
            }
        }
        200 => caller.command(Command::GuestLeft(ID)),
        _ => {}
    }
}
