//! Takes the silence off both ends of a phrase: the voice pads its sound, and on a call that is only delay.

/// Quieter than this part of the loudest sample is silence, −40 dB.
const SILENCE: f32 = 0.01;
/// Sound kept before the first louder sample: soft consonants start there.
const LEAD_MS: usize = 20;
/// Sound kept after the last louder sample, for the voice to die away.
const TAIL_MS: usize = 60;
/// Length of the fades, so that the cut edges do not click.
const FADE_MS: usize = 5;

/// Cuts `sound` to its voice and fades both edges; all silence becomes no sound.
pub fn to_voice(sound: &mut Vec<f32>, rate_hz: u32) {
    let samples = |ms: usize| rate_hz as usize * ms / 1_000;
    let loudest = sound.iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
    let is_voice = |sample: &f32| sample.abs() > loudest * SILENCE;
    let (Some(first), Some(last)) = (sound.iter().position(is_voice), sound.iter().rposition(is_voice)) else {
        sound.clear();
        return;
    };
    sound.truncate(last + 1 + samples(TAIL_MS));
    sound.drain(..first.saturating_sub(samples(LEAD_MS)));

    let fade = samples(FADE_MS).min(sound.len() / 2);
    let length = sound.len();
    for i in 0..fade {
        let gain = i as f32 / fade as f32;
        sound[i] *= gain;
        sound[length - 1 - i] *= gain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_goes_and_the_edges_fade_to_zero() {
        let mut sound = vec![0.001; 500];
        sound.extend([0.5; 300]);
        sound.extend([0.001; 500]);
        to_voice(&mut sound, 1_000);
        assert_eq!(sound.len(), 20 + 300 + 60);
        assert_eq!((sound[0], sound[379]), (0.0, 0.0));
        assert_eq!(sound[200], 0.5);
    }

    #[test]
    fn nothing_but_silence_is_no_sound() {
        let mut sound = vec![0.0; 500];
        to_voice(&mut sound, 22_050);
        assert!(sound.is_empty());
    }
}
