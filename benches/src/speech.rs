//! Made-up speech, near enough for the voice-activity model to take it for speech: a buzzing larynx through three
//! moving formants, in syllables, 1.2 s out of every 2, over a little noise.

/// Seconds of talk and pause, and of talk alone.
const PERIOD_S: f32 = 2.0;
const TALK_S: f32 = 1.2;

/// One voice.
pub struct Speech {
    hz: f32,
    sample: u32,
    noise: u32,
    phase: f32,
    formants: [[f32; 2]; 3],
}

impl Speech {
    /// A voice at this rate; each number is at another place in its talk.
    pub fn new(hz: u32, number: u32) -> Self {
        Self { hz: hz as f32, sample: number * (hz / 5), noise: number + 1, phase: 0.0, formants: [[0.0; 2]; 3] }
    }

    /// The next sample, full scale ±1.
    pub fn next_sample(&mut self) -> f32 {
        let seconds = self.sample as f32 / self.hz;
        self.sample += 1;
        self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (self.noise >> 8) as f32 / 8_388_608.0 - 1.0;
        let pitch = 120.0 + 25.0 * (seconds * 5.0).sin();
        self.phase = (self.phase + pitch / self.hz) % 1.0;
        let syllable = if seconds % PERIOD_S < TALK_S { (seconds * 12.0).sin().abs() } else { 0.0 };
        let mut sound = (1.0 - 2.0 * self.phase + 0.05 * noise) * syllable;
        let vowel = (seconds * 7.0).sin();
        let formants = [(500.0 + 200.0 * vowel, 80.0), (1_500.0 - 400.0 * vowel, 100.0), (2_500.0 + 100.0 * vowel, 140.0)];
        for ([last, before], (centre, width)) in self.formants.iter_mut().zip(formants) {
            let radius = (-std::f32::consts::PI * width / self.hz).exp();
            let turn = (std::f32::consts::TAU * centre / self.hz).cos();
            let out = sound * (1.0 - radius) + 2.0 * radius * turn * *last - radius * radius * *before;
            (*before, *last) = (*last, out);
            sound = out * 2.0;
        }
        (sound * 0.5 + 0.001 * noise).clamp(-1.0, 1.0)
    }
}
