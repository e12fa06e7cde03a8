//! What people in a room may send, as the fuzz targets do.

use super::mail::Mail;
use super::membership::Out;
use std::time::Instant;

/// Data packets, each with two bytes of length before it.
pub(crate) fn mail(bytes: &[u8]) {
    let (mut mail, now, mut rest) = (Mail::default(), Instant::now(), bytes);
    while let Some((length, after)) = rest.split_first_chunk() {
        let (packet, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        let mut out = Out::default();
        mail.receive(packet, now, &mut out);
        assert!(out.orders.len() <= 1 && out.events.len() <= 1, "one packet, one answer");
        rest = after;
    }
}
