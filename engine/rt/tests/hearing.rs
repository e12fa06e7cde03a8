//! How well a caller comes through can be read while the call lasts.

mod phone;

use phone::{BySlot, Exchange};
use voiced_core::packet::{Codec, Packet};
use voiced_rt::HearingReading;

#[test]
fn a_lost_packet_is_told_of_while_the_call_lasts_and_counted_once_for_the_host() {
    let (mut exchange, mut judge) = Exchange::open(1, BySlot(vec![]));
    let mut caller = exchange.admit();
    for sequence in (0..50).filter(|&sequence| sequence != 20) {
        let packet = Packet::new(Codec::Mulaw, sequence, sequence * 20, &[0x7F; 160]).unwrap();
        caller.port.packets.push(&packet).unwrap();
        exchange.tick();
        exchange.tick();
    }
    let hearing = caller.port.hearing.read();
    assert!(matches!(hearing, HearingReading { packets: 45..=49, lost: 1, late: 0, recovered: 0, concealed_ms: 10..=40, .. }), "{hearing:?}");
    assert_eq!(exchange.link.meter().read().packets, u64::from(hearing.packets));
    drop(caller);
    exchange.tick();
    judge.step();
    let all = exchange.link.meter().read();
    assert_eq!((all.packets, all.packets_lost, all.calls), (49, 1, 0));
}
