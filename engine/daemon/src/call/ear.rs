//! What the leg heard, for a speech-to-text that wants turns.

use std::collections::VecDeque;

use bytes::Bytes;
use voiced_core::leg::LegEvent;
use voiced_models_remote::stt::SttInput;

/// Sound before the moment that speech was noticed, for a transcript that begins with the first syllable: 480 ms of 10 ms frames.
const PRE_ROLL_FRAMES: usize = 48;

/// Decides what of the heard sound goes to a speech-to-text that wants utterances, not silence: from a little before the
/// caller begins until the turn is over.
#[derive(Default)]
pub struct Ear {
    open: bool,
    before: VecDeque<Bytes>,
}

impl Ear {
    /// The caller's turn is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn frame(&mut self, sound: Bytes) -> Option<SttInput> {
        if self.open {
            return Some(SttInput::Audio(sound));
        }
        if self.before.len() == PRE_ROLL_FRAMES {
            self.before.pop_front();
        }
        self.before.push_back(sound);
        None
    }

    /// Opens and closes with the caller's turn; when it opens, the sound before its begin comes back.
    pub fn turn(&mut self, event: &LegEvent) -> Option<Vec<Bytes>> {
        match event {
            LegEvent::SpeechStarted { .. } | LegEvent::Resumed { .. } | LegEvent::Held { .. } | LegEvent::Interrupted { .. } if !self.open => {
                self.open = true;
                Some(self.before.drain(..).collect())
            }
            LegEvent::TurnEnded { .. } | LegEvent::Unheld { .. } => {
                self.open = false;
                None
            }
            _ => None,
        }
    }
}
