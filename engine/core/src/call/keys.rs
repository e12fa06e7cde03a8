//! Keys the caller presses: a line may tell one press twice, by signal and by its sound.

use crate::time::MediaTime;

/// The same key told by sound and by signal within this is one press, in ms.
const SAME_KEY_MS: u64 = 200;
/// Keys that may be told in one tick; nobody presses more.
const PRESSED_MAX: usize = 8;

/// How a key was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// Recognised in the sound.
    Sound,
    /// Out of band.
    Signal,
}

/// Keys pressed in this tick, each press once although it may be told twice.
#[derive(Clone, Copy, Default)]
pub struct Keys {
    last: Option<(char, KeySource, MediaTime)>,
    pressed: [Option<char>; PRESSED_MAX],
}

impl Keys {
    /// Takes a press as told.
    pub fn press(&mut self, key: char, source: KeySource, now: MediaTime) {
        let told = self.last.is_some_and(|(last, by, at)| last == key && by != source && now.since(at) <= SAME_KEY_MS);
        if told {
            self.last = None;
            return;
        }
        self.last = Some((key, source, now));
        if let Some(free) = self.pressed.iter_mut().find(|place| place.is_none()) {
            *free = Some(key);
        }
    }

    /// The next press that nobody has taken yet.
    pub fn next(&mut self) -> Option<char> {
        self.pressed.iter_mut().find_map(Option::take)
    }
}
