//! Tones: keys pressed on a telephone, recognised in the sound, and a beep.
//!
//! A key is one tone of a low and one of a high group of four. Two banks of eight Goertzel filters run over windows of
//! 20 ms, half a window apart, so that every 10 ms brings a result. A window names a key when one tone of each group
//! stands well above its neighbours, both are about equally loud, and together they hold nearly all of the sound; speech
//! fails at one of the three. Three windows in a row make a key, two without it make its end: a key of 40 ms is always
//! found, one below 20 ms never, whatever its place among the windows.

use crate::frame::{HEARD_LEN, HeardFrame, Rate};

/// Keys by low tone, then by high tone.
const KEYS: [[char; 4]; 4] = [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];
/// 2 cos(2π f / 16 kHz) of the low group, 697, 770, 852, 941 Hz, then the high, 1209, 1336, 1477, 1633 Hz.
const COEFFICIENTS: [f32; 8] = [1.9255487, 1.9092619, 1.8890969, 1.8649945, 1.7787929, 1.7310027, 1.6729072, 1.6026643];
/// Samples in a window: 20 ms.
const WINDOW_LEN: usize = 2 * HEARD_LEN;
/// Windows that must agree.
const WINDOWS_ON: u32 = 3;
/// Windows that must disagree before the same key counts again.
const WINDOWS_OFF: u32 = 2;
/// Weakest sound looked at, -50 dB of full scale.
const POWER_MIN: f32 = 1e-5;
/// Share of the sound that the two tones hold at least; 1 for pure tones of the exact frequency in a whole window, 0.6
/// at the frequency tolerance of 1.5 %.
const SHARE_MIN: f32 = 0.55;
/// High tone over low tone at most, 8 dB: lines weaken the high group, so that senders may lift it.
const TWIST_MAX: f32 = 6.3;
/// Low tone over high tone at most, 6 dB: lines do not weaken the low group, but speech has most of its power there.
const REVERSE_TWIST_MAX: f32 = 4.0;
/// A tone over the next one of its group, 6 dB.
const CLEAR_OF_GROUP: f32 = 4.0;

/// Recognises keys in the caller's sound.
pub struct DtmfDetector {
    banks: [Bank; 2],
    /// The bank whose window ends with the next frame.
    ending: usize,
    candidate: Option<char>,
    windows_on: u32,
    pressed: Option<char>,
    windows_off: u32,
}

impl DtmfDetector {
    /// No key pressed.
    pub fn new() -> Self {
        Self { banks: [Bank::default(); 2], ending: 0, candidate: None, windows_on: 0, pressed: None, windows_off: 0 }
    }

    /// Forgets all sound.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Takes the next 10 ms; a key is told once, when it has been pressed long enough.
    pub fn push(&mut self, frame: &HeardFrame) -> Option<char> {
        for bank in &mut self.banks {
            bank.push(frame);
        }
        let key = self.banks[self.ending].key();
        self.banks[self.ending] = Bank::default();
        self.ending = 1 - self.ending;
        self.settle(key)
    }

    fn settle(&mut self, key: Option<char>) -> Option<char> {
        self.windows_on = if key == self.candidate { self.windows_on.saturating_add(1) } else { 1 };
        self.candidate = key;
        self.windows_off = if key == self.pressed { 0 } else { self.windows_off.saturating_add(1) };
        if self.windows_off >= WINDOWS_OFF {
            self.pressed = None;
        }
        let new = key.filter(|_| self.windows_on >= WINDOWS_ON && self.pressed != key);
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

/// Eight Goertzel filters side by side.
#[derive(Clone, Copy, Default)]
struct Bank {
    last: [f32; 8],
    before: [f32; 8],
    energy: f32,
}

impl Bank {
    fn push(&mut self, frame: &HeardFrame) {
        for &sample in frame {
            for tone in 0..8 {
                let now = sample + COEFFICIENTS[tone] * self.last[tone] - self.before[tone];
                self.before[tone] = self.last[tone];
                self.last[tone] = now;
            }
        }
        self.energy += frame.iter().map(|sample| sample * sample).sum::<f32>();
    }

    /// The key that this window holds.
    fn key(&self) -> Option<char> {
        let total = self.energy / WINDOW_LEN as f32;
        if total < POWER_MIN {
            return None;
        }
        let power = self.powers();
        let (low, high) = (strongest(&power[..4])?, strongest(&power[4..])?);
        let (low_power, high_power) = (power[low], power[4 + high]);
        let clean = low_power + high_power >= SHARE_MIN * total;
        let level = high_power <= TWIST_MAX * low_power && low_power <= REVERSE_TWIST_MAX * high_power;
        (clean && level).then_some(KEYS[low][high])
    }

    /// Mean power of each tone over the window: half its squared amplitude.
    fn powers(&self) -> [f32; 8] {
        let scale = 2.0 / (WINDOW_LEN * WINDOW_LEN) as f32;
        std::array::from_fn(|tone| {
            let (last, before) = (self.last[tone], self.before[tone]);
            (last * last + before * before - COEFFICIENTS[tone] * last * before) * scale
        })
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
