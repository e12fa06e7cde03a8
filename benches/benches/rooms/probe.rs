//! Chirps found again: how long each was under way.

use std::time::{Duration, Instant};

use voiced_benches::{Chirps, Heard};

use crate::people::PACKET;

/// Delay of each chirp that was found, in ms, from its first sample at the mouth to when that could be played at the ear.
/// `sent` are the moments in which the packets of the chirps left, each when its 20 ms were complete.
pub fn delays_ms(sent: &[Instant], heard: &Heard, late: Duration) -> Vec<f64> {
    let chirps = Chirps::at(8_000);
    let packets_each = Chirps::len_ms() as usize / PACKET.as_millis() as usize;
    let chirp = Duration::from_millis(Chirps::len_ms().into());
    let delay = |(number, packets): (u32, &[Instant])| {
        let said = packets.first()?.checked_sub(PACKET)?;
        let (place, sound) = heard.arrived(said, chirp + late);
        let at_8k: Vec<f32> = sound.iter().copied().step_by(2).collect();
        let found = place + chirps.find(number, &at_8k)? * 2;
        Some(heard.playable(found)?.saturating_duration_since(said).as_secs_f64() * 1e3)
    };
    (0u32..).zip(sent.chunks_exact(packets_each)).filter_map(delay).collect()
}
