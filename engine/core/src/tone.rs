//! Tones: keys pressed on a telephone, recognised in the sound, and a beep.
//!
//! A key is one tone of a low and one of a high group of four. Every 10 ms are compared with a sine and a cosine of each
//! tone, which gives a phasor for each; two neighbours make a window of 20 ms, so that every 10 ms brings a result. A
//! window names a key when one tone of each group stands well above its neighbours, both are about equally loud, both
//! turned by as much as their frequency demands, and together they hold most of the sound. Three windows in a row make a
//! key, if two of them held nothing else; two without it make its end: a key of 40 ms is always found, one below 20 ms
//! never, whatever its place among the windows. Harmonics of a voice meet two of the frequencies now and then, but glide,
//! and are never alone.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use crate::frame::{HEARD_LEN, HeardFrame, Rate, energy};

/// Keys by low tone, then by high tone.
const KEYS: [[char; 4]; 4] = [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];
/// The low group, then the high.
const TONES_HZ: [f64; 8] = [697.0, 770.0, 852.0, 941.0, 1_209.0, 1_336.0, 1_477.0, 1_633.0];
/// Samples a second of what is heard.
const RATE_HZ: f64 = 16_000.0;
/// Samples in a window: 20 ms.
const WINDOW_LEN: usize = 2 * HEARD_LEN;
/// Windows that must agree.
const WINDOWS_ON: u32 = 3;
/// Windows that must disagree before the same key counts again.
const WINDOWS_OFF: u32 = 2;
/// Weakest sound looked at, -50 dB of full scale.
const POWER_MIN: f32 = 1e-5;
/// Energy of 10 ms in which no tone is looked for: a tenth of the weakest window.
const QUIET_MAX: f32 = POWER_MIN * HEARD_LEN as f32 / 10.0;
/// Share of a window's sound that the two tones hold at least: 0.75 where a key begins or ends within it.
const SHARE_MIN: f32 = 0.7;
/// The same of a window that lies within the key: 1 less the line's noise, here 10 dB.
const PURE_SHARE_MIN: f32 = 0.9;
/// Windows that lie within a key of 40 ms at least.
const WINDOWS_PURE: u32 = 2;
/// Deviation from a tone's frequency at most. Senders may be off by 1.5 %, 3.5 % must not count; the other tone blurs what
/// 20 ms can tell.
const DETUNE_MAX: f64 = 0.025;
/// Low tone over high tone at most, 8 dB as in ITU-T Q.24: lines weaken the high group.
const TWIST_MAX: f32 = 6.3;
/// High tone over low tone at most, 4 dB as in Q.24: senders lift the high group by 2 dB.
const REVERSE_TWIST_MAX: f32 = 2.5;
/// A tone over the next one of its group, 6 dB.
const CLEAR_OF_GROUP: f32 = 4.0;

/// Recognises keys in the caller's sound.
pub struct DtmfDetector {
    bank: Bank,
    before: Block,
    candidate: Option<char>,
    windows_on: u32,
    windows_pure: u32,
    pressed: Option<char>,
    windows_off: u32,
}

impl DtmfDetector {
    /// No key pressed.
    pub fn new() -> Self {
        Self { bank: Bank::new(), before: Block::default(), candidate: None, windows_on: 0, windows_pure: 0, pressed: None, windows_off: 0 }
    }

    /// Forgets all sound.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Takes the next 10 ms; a key is told once, when it has been pressed long enough.
    pub fn push(&mut self, frame: &HeardFrame) -> Option<char> {
        let block = self.bank.block(frame);
        let before = std::mem::replace(&mut self.before, block);
        self.settle(self.bank.key(&before, &block))
    }

    fn settle(&mut self, window: Option<Window>) -> Option<char> {
        let (key, share) = window.map_or((None, 0.0), |window| (Some(window.key), window.share));
        if key != self.candidate {
            (self.candidate, self.windows_on, self.windows_pure) = (key, 0, 0);
        }
        self.windows_on = self.windows_on.saturating_add(1);
        self.windows_pure = self.windows_pure.saturating_add(u32::from(share >= PURE_SHARE_MIN));
        self.windows_off = if key == self.pressed { 0 } else { self.windows_off.saturating_add(1) };
        if self.windows_off >= WINDOWS_OFF {
            self.pressed = None;
        }
        let sure = self.windows_on >= WINDOWS_ON && self.windows_pure >= WINDOWS_PURE;
        let new = key.filter(|_| sure && self.pressed != key);
        if new.is_some() {
            self.pressed = new;
            self.windows_off = 0;
        }
        new
    }
}

impl Default for DtmfDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// A window that holds a key, and the share of its sound that is the key's.
struct Window {
    key: char,
    share: f32,
}

/// What the filters make of 10 ms.
#[derive(Clone, Copy, Default)]
struct Block {
    tones: [Phasor; 8],
    energy: f32,
}

/// Amplitude and phase of a tone.
#[derive(Clone, Copy, Default)]
struct Phasor {
    re: f32,
    im: f32,
}

impl Phasor {
    fn at(angle: f64) -> Self {
        Self { re: angle.cos() as f32, im: angle.sin() as f32 }
    }

    fn power(self) -> f32 {
        self.re * self.re + self.im * self.im
    }

    fn turned(self, by: Self) -> Self {
        Self { re: self.re * by.re - self.im * by.im, im: self.re * by.im + self.im * by.re }
    }
}

/// What is compared with the sound: for each sample the cosines of the eight tones, then their sines, all at rest at the
/// block's last sample. One for all calls.
static WAVES: LazyLock<Box<[[f32; 16]; HEARD_LEN]>> = LazyLock::new(|| {
    let mut waves = Box::new([[0.0; 16]; HEARD_LEN]);
    for (index, wave) in waves.iter_mut().enumerate() {
        for (tone, hz) in TONES_HZ.iter().enumerate() {
            let phasor = Phasor::at(TAU * hz / RATE_HZ * (HEARD_LEN - 1 - index) as f64);
            (wave[tone], wave[8 + tone]) = (phasor.re, phasor.im);
        }
    }
    waves
});

/// Eight filters side by side.
struct Bank {
    waves: &'static [[f32; 16]; HEARD_LEN],
    /// The angle by which each tone turns from block to block.
    block_turns: [Phasor; 8],
    /// Cosine of the largest angle that a block may lie off from where the one before leads.
    alignment_min: [f32; 8],
}

impl Bank {
    fn new() -> Self {
        let angles = TONES_HZ.map(|hz| TAU * hz / RATE_HZ);
        let block = HEARD_LEN as f64;
        Self {
            waves: &WAVES,
            block_turns: angles.map(|angle| Phasor::at(angle * block)),
            alignment_min: angles.map(|angle| (angle * block * DETUNE_MAX).cos() as f32),
        }
    }

    fn block(&self, frame: &HeardFrame) -> Block {
        let energy = energy(frame);
        if energy < QUIET_MAX {
            return Block { energy, ..Block::default() };
        }
        let mut sums = [0.0; 16];
        for (sample, waves) in frame.iter().zip(self.waves) {
            for (sum, wave) in sums.iter_mut().zip(waves) {
                *sum += sample * wave;
            }
        }
        Block { tones: std::array::from_fn(|tone| Phasor { re: sums[tone], im: sums[8 + tone] }), energy }
    }

    /// The key that two neighbouring blocks hold.
    fn key(&self, before: &Block, block: &Block) -> Option<Window> {
        let total = (before.energy + block.energy) / WINDOW_LEN as f32;
        if total < POWER_MIN {
            return None;
        }
        // where the block before leads, if its tones are exactly ours
        let led: [Phasor; 8] = std::array::from_fn(|tone| before.tones[tone].turned(self.block_turns[tone]));
        let power: [f32; 8] = std::array::from_fn(|tone| {
            let (led, now) = (led[tone], block.tones[tone]);
            Phasor { re: led.re + now.re, im: led.im + now.im }.power()
        });
        let (low, high) = (strongest(&power[..4])?, strongest(&power[4..])?);
        let tone_power = |tone: usize| self.tone_power(tone, led[tone], block.tones[tone]);
        let (low_power, high_power) = (tone_power(low)?, tone_power(4 + high)?);
        let share = (low_power + high_power) / total;
        let level = low_power <= TWIST_MAX * high_power && high_power <= REVERSE_TWIST_MAX * low_power;
        (share >= SHARE_MIN && level).then_some(Window { key: KEYS[low][high], share })
    }

    /// Mean power over the window of a tone near this frequency, half its squared amplitude; none if it is another.
    fn tone_power(&self, tone: usize, led: Phasor, now: Phasor) -> Option<f32> {
        let (led_amplitude, now_amplitude) = (led.power().sqrt(), now.power().sqrt());
        let alignment = (led.re * now.re + led.im * now.im) / (led_amplitude * now_amplitude);
        if alignment.is_nan() || alignment < self.alignment_min[tone] {
            return None;
        }
        // within a block, too, a tone off the filter's frequency turns away from it and adds up to less
        let half_turn = alignment.clamp(-1.0, 1.0).acos() / 2.0;
        let kept = if half_turn < 1e-3 { 1.0 } else { half_turn.sin() / half_turn };
        let amplitude = (led_amplitude + now_amplitude) / kept;
        Some(2.0 * amplitude * amplitude / (WINDOW_LEN * WINDOW_LEN) as f32)
    }
}

/// The strongest of a group, if it stands clear of the others.
fn strongest(group: &[f32]) -> Option<usize> {
    let best = (0..group.len()).max_by(|&a, &b| group[a].total_cmp(&group[b]))?;
    let clear = (0..group.len()).all(|other| other == best || group[other] * CLEAR_OF_GROUP <= group[best]);
    clear.then_some(best)
}

/// A beep: a sine at -12 dB with 5 ms of fade at both ends.
pub struct Beep {
    rate: Rate,
    hz: f32,
    len: usize,
    at: usize,
}

impl Beep {
    /// A beep of `ms` at `hz`.
    pub fn new(rate: Rate, hz: f32, ms: u32) -> Self {
        Self { rate, hz, len: ms as usize * rate.hz() as usize / 1_000, at: 0 }
    }

    /// Writes the next samples and returns how many; 0 once it is over.
    pub fn write(&mut self, sound: &mut [i16]) -> usize {
        let fade = self.rate.hz() as usize / 200;
        let written = sound.len().min(self.len - self.at);
        for sample in &mut sound[..written] {
            let edge = self.at.min(self.len - 1 - self.at);
            let gain = (edge as f32 / fade as f32).min(1.0) * 0.25;
            let angle = std::f64::consts::TAU * f64::from(self.hz) * self.at as f64 / f64::from(self.rate.hz());
            *sample = crate::codec::sample_from_f32(angle.sin() as f32 * gain);
            self.at += 1;
        }
        written
    }
}
