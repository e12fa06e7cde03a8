//! A call's leg on the audio thread: what the rim tells it and what it tells the rim.

use crate::frame::{HEARD_LEN, Rate};
use crate::id::{GuestId, TurnId};
use crate::model::Band;
use crate::time::MediaTime;
use serde::{Deserialize, Deserializer, Serialize};

/// Samples in a [`SpeechChunk`] at most: 20 ms at 48 kHz.
pub const CHUNK_LEN_MAX: usize = 960;

/// A piece of the agent's speech at the leg's own rate, 20 ms at most, in playing order.
#[derive(Clone, Copy)]
pub struct SpeechChunk {
    /// The reply it belongs to; dropped unseen when older than the call's current turn.
    pub turn: TurnId,
    /// Phrase within the reply, from 0.
    pub phrase: u32,
    /// The phrase (or the whole reply) ends with this chunk; such a chunk may be empty.
    pub end: ChunkEnd,
    len: u16,
    samples: [i16; CHUNK_LEN_MAX],
}

/// What ends with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEnd {
    /// More of the phrase follows.
    Nothing,
    /// The phrase is complete.
    Phrase,
    /// The reply is complete (always its own, empty chunk).
    Reply,
}

impl SpeechChunk {
    /// Copies up to [`CHUNK_LEN_MAX`] samples in; the rest is the caller's error and is cut.
    pub fn new(turn: TurnId, phrase: u32, end: ChunkEnd, sound: &[i16]) -> Self {
        Self::of(turn, phrase, end, sound.iter().copied())
    }

    /// The same of samples that come one by one.
    pub fn of(turn: TurnId, phrase: u32, end: ChunkEnd, sound: impl ExactSizeIterator<Item = i16>) -> Self {
        let len = sound.len().min(CHUNK_LEN_MAX);
        let mut samples = [0; CHUNK_LEN_MAX];
        for (sample, given) in samples.iter_mut().zip(sound) {
            *sample = given;
        }
        Self { turn, phrase, end, len: len as u16, samples }
    }

    /// The sound, mono 16-bit at the leg's rate.
    pub fn samples(&self) -> &[i16] {
        &self.samples[..usize::from(self.len)]
    }
}

/// What the transcript so far says about the caller's turn: one more signal for end of turn and for interruption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TranscriptHint {
    /// Words heard since the turn (or the held interruption) began.
    pub words: u16,
    /// All of them are backchannel ("mhm", "okay", "right").
    pub backchannel: bool,
    /// How the text ends.
    pub ending: TextEnding,
    /// The provider has settled the text.
    pub settled: bool,
}

/// What the end of a transcript says about whether more follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextEnding {
    /// Nothing: no words, or words without any mark, as many providers give them.
    #[default]
    Unmarked,
    /// A sentence mark.
    Complete,
    /// A conjunction, a filler, a comma or an open number: nobody stops there.
    Open,
}

/// From the rim to the leg; FIFO.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// What the transcript says now.
    Hint(TranscriptHint),
    /// The agent opens the floor itself (greeting, silence prompt): a new, already committed turn starts; the leg
    /// answers with [`LegEvent::TurnEnded`] carrying the new `TurnId`, `wait_ms` 0 and `by_agent` true.
    TakeFloor,
    /// The reply of this turn is void although nobody interrupted it (provider failed, nothing to say).
    Abandon(TurnId),
    /// An echo of a mark from the far end's playout.
    Mark(u32),
    /// A key pressed, signalled out of band.
    Dtmf(char),
    /// Who hears this guest of the call; nobody at first.
    Guest {
        /// Which guest.
        id: GuestId,
        /// The caller does.
        to_caller: bool,
        /// The agent does, as if the caller spoke.
        to_agent: bool,
    },
    /// This guest is gone.
    GuestLeft(GuestId),
    /// Send a hang-up to the line after everything spoken so far was played (or at once if nothing is).
    HangUp,
}

/// How much of a reply the caller truly heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardUntil {
    /// The phrase that was playing.
    pub phrase: u32,
    /// How much of that phrase was heard, in ms.
    pub phrase_ms: u32,
}

/// From the leg to the rim; FIFO. `at` is the leg's media time: ms since the call was admitted, one clock for both ways.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum LegEvent {
    /// The caller began to speak (first frame of speech, not the moment of the decision).
    SpeechStarted {
        /// The current turn.
        turn: TurnId,
        /// First speech frame.
        at: MediaTime,
    },
    /// The caller paused: finalise the transcript and think ahead under this new `TurnId`. Nothing of it is heard before `TurnEnded`.
    Paused {
        /// The guess's epoch.
        turn: TurnId,
        /// Last speech frame.
        at: MediaTime,
    },
    /// The caller went on: all that belongs to turns before this one is void.
    Resumed {
        /// The new epoch.
        turn: TurnId,
        /// First speech frame after the pause.
        at: MediaTime,
    },
    /// The turn is over and the agent has the floor; the reply of this `TurnId` may be heard.
    TurnEnded {
        /// The reply's epoch: that of the last `Paused`, or a new one when the agent took the floor.
        turn: TurnId,
        /// Moment of the decision.
        at: MediaTime,
        /// From the caller's last speech frame to the decision.
        wait_ms: u32,
        /// End-of-turn probability that decided, 0..=1; NaN when none was had in time.
        #[serde(deserialize_with = "number_or_nan")]
        probability: f32,
        /// The agent took the floor by command.
        by_agent: bool,
    },
    /// The first sound of a reply was handed to the line.
    ReplyStarted {
        /// Whose reply.
        turn: TurnId,
        /// When.
        at: MediaTime,
    },
    /// A phrase was heard to its end.
    PhraseHeard {
        /// Whose reply.
        turn: TurnId,
        /// Which phrase.
        phrase: u32,
    },
    /// The caller spoke over the agent: its speech is held and the far end cleared, undecided yet.
    Held {
        /// The held reply.
        turn: TurnId,
        /// First frame of the caller's speech.
        at: MediaTime,
        /// When clear was handed to the line.
        cleared_at: MediaTime,
    },
    /// It was a backchannel or a noise: the reply goes on from where it was heard.
    Unheld {
        /// The reply that goes on.
        turn: TurnId,
        /// When.
        at: MediaTime,
    },
    /// It was an interruption: the reply is cut and void. `turn` is the new epoch; the caller has the floor.
    Interrupted {
        /// The new epoch.
        turn: TurnId,
        /// The reply that was cut.
        cut: TurnId,
        /// What of it was heard.
        heard: HeardUntil,
        /// First frame of the caller's speech.
        at: MediaTime,
    },
    /// All of a reply was heard; the caller has the floor.
    ReplyHeard {
        /// Whose reply.
        turn: TurnId,
        /// When its last sound was played at the far end.
        at: MediaTime,
    },
    /// A key was pressed (out of band, or recognised in the sound).
    Dtmf(char),
    /// Nobody has spoken for this long, with the floor at the caller; said again at each multiple of the settings' `silence_ms`.
    Silence {
        /// ms since the last sound of either side.
        quiet_ms: u32,
    },
}

/// NaN is written as null.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

/// What the leg heard, raw (decoded, resampled, concealed; not denoised): for local STT and recordings.
#[derive(Clone, Copy)]
pub struct EarFrame {
    /// Start of the frame.
    pub at: MediaTime,
    /// 10 ms at 16 kHz.
    pub samples: [i16; HEARD_LEN],
}

/// A leg's settings, fixed when the call is admitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegSettings {
    /// Rate of the agent's speech chunks and of the line's codec.
    pub rate: Rate,
    /// Use voice activity (false: energy gate only).
    pub vad_enabled: bool,
    /// Ask the end-of-turn model (false: pause length alone).
    pub turn_detection_enabled: bool,
    /// Clean what VAD and end of turn hear, as fits a line of this band.
    pub denoise: Option<Band>,
    /// The caller may interrupt the agent.
    pub interruptible: bool,
    /// Sound kept ahead at the far end, in ms.
    pub lead_ms: u32,
    /// From sending to hearing at a far end that keeps no queue of ours (a room: the network and its jitter buffer), in
    /// ms; 0 at one that does.
    pub far_end_ms: u32,
    /// Hand out the agent's sound without the guests', too, for the room of a telephone call.
    pub agent_alone: bool,
    /// A room's server takes no RED: what is lost has to be rebuilt from Opus's in-band FEC.
    pub in_band_fec: bool,
    /// What waits after a pause begin at, in ms; the surest end is waited for a tenth of the range longer.
    pub endpoint_ms_min: u32,
    /// Longest wait after a pause, sure of the contrary, in ms.
    pub endpoint_ms_max: u32,
    /// Caller's speech over the agent before it is held, in ms.
    pub hold_ms: u32,
    /// Quiet before [`LegEvent::Silence`], in ms; 0 = never.
    pub silence_ms: u32,
}

impl LegSettings {
    /// The defaults for a caller at this rate; 48 kHz is a room, which speaks Opus and plays what it is sent as it comes.
    pub const fn new(rate: Rate) -> Self {
        let (lead_ms, far_end_ms) = match rate {
            Rate::Hz48000 => (20, 60),
            Rate::Hz8000 | Rate::Hz16000 | Rate::Hz24000 => (200, 0),
        };
        Self {
            rate,
            vad_enabled: true,
            turn_detection_enabled: true,
            denoise: None,
            interruptible: true,
            lead_ms,
            far_end_ms,
            agent_alone: false,
            in_band_fec: false,
            endpoint_ms_min: 280,
            endpoint_ms_max: 1_400,
            hold_ms: 60,
            silence_ms: 8_000,
        }
    }
}
