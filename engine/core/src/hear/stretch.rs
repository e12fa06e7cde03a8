//! Speech made shorter or longer by one period of its voice, at the place where two neighbouring periods are most alike:
//! the pitch stays, and nobody hears the seam. Sound at 16 kHz.

/// Samples with which a place is found for every voice: the longest period, and the one after it.
pub const STRETCH_LEN: usize = 2 * PERIOD_MAX;

/// Longest period, 12.5 ms: a voice of 80 Hz.
pub const PERIOD_MAX: usize = 200;
/// Shortest, 2.5 ms; a higher voice is moved by several periods.
const PERIOD_MIN: usize = 40;
/// Samples compared, 8 ms.
const MATCH_LEN: usize = 128;

/// Takes one period, no longer than `longest`, out of the front of `sound` and returns its length: so many samples less
/// are of use, from the front on. 0 when there is too little sound.
pub fn shorten(sound: &mut [f32], longest: usize) -> usize {
    let Some(period) = period(sound, longest) else { return 0 };
    for index in 0..period {
        let weight = index as f32 / period as f32;
        sound[index] = sound[index] * (1.0 - weight) + sound[index + period] * weight;
    }
    sound.copy_within(2 * period.., period);
    period
}

/// Repeats one period at the front of `sound`, of which `len` samples are of use, and returns its length: so many
/// samples more are of use. 0 when there is too little sound, or room.
pub fn lengthen(sound: &mut [f32], len: usize) -> usize {
    let Some(period) = period(&sound[..len], PERIOD_MAX).filter(|period| len + period <= sound.len()) else { return 0 };
    sound.copy_within(period..len, 2 * period);
    for index in 0..period {
        let weight = index as f32 / period as f32;
        // what followed the first period, sliding into that period once more
        sound[period + index] = sound[2 * period + index] * (1.0 - weight) + sound[index] * weight;
    }
    period
}

/// The lag, of those for which there is enough sound, at which the front of the sound is most like what follows.
fn period(sound: &[f32], longest: usize) -> Option<usize> {
    let longest = longest.min(PERIOD_MAX).min(sound.len() / 2).min(sound.len().saturating_sub(MATCH_LEN));
    let likeness = |lag: usize| {
        let (mut alike, mut energy) = (0.0, 1e-9);
        for (a, b) in sound[..MATCH_LEN].iter().zip(&sound[lag..]) {
            alike += a * b;
            energy += b * b;
        }
        alike / f32::sqrt(energy)
    };
    (PERIOD_MIN..=longest).map(|lag| (lag, likeness(lag))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(lag, _)| lag)
}
