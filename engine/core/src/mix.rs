//! Sums of sound: what each listener of a room hears is the sum of everyone else, kept within full scale.
//!
//! The limiter has no memory: a sample's fate depends on that sample alone. Below [`KNEE`] nothing is touched; above,
//! the curve bends smoothly towards full scale and never reaches it. So two loud speakers neither wrap nor pump.

/// Level up to which a sum passes unchanged, -3 dB: one speaker alone is hardly ever above it.
pub const KNEE: f32 = 0.707;

/// Adds `add` to `out`, sample by sample, as far as both reach.
pub fn mix_into(out: &mut [f32], add: &[f32]) {
    for (out, add) in out.iter_mut().zip(add) {
        *out += add;
    }
}

/// Takes a speaker's own sound out of a sum that holds it ("mix-minus").
pub fn unmix(out: &mut [f32], own: &[f32]) {
    for (out, own) in out.iter_mut().zip(own) {
        *out -= own;
    }
}

/// Bends what is above [`KNEE`] to stay within full scale; call once, after the last [`mix_into`].
pub fn limit(sound: &mut [f32]) {
    for sample in sound {
        let over = sample.abs() - KNEE;
        if over > 0.0 {
            // slope 1 at the knee, 0 far away
            let bent = KNEE + over / (1.0 + over / (1.0 - KNEE));
            *sample = bent.copysign(*sample);
        }
    }
}
