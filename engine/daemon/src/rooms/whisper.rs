//! A supervisor's whisper: speech that only the agent's model gets, as text.
//!
//! The sound comes packet by packet on the media thread and is decoded there; a level gate finds the pauses, at each of
//! which speech to text is asked for the words so far.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use voiced_core::codec::opus::{DECODED_LEN_MAX, OpusDecoder};
use voiced_core::codec::{mulaw_decode, sample_from_f32};
use voiced_core::conversation::Input;
use voiced_core::frame::Rate;
use voiced_core::model::SttEvent;
use voiced_core::packet::{Codec, Packet};
use voiced_core::resample::Resampler;
use voiced_models_remote::chain::Order;
use voiced_models_remote::stt::{SttInput, SttSession};

use super::RoomHost;
use crate::call::Request;

/// Mean square above which a packet is speech: -45 dBFS, well above a headset's noise.
const SPEECH_POWER: f32 = 3.2e-5;
/// Quiet after which the words are asked for, in samples at 16 kHz: 600 ms.
const PAUSE: usize = 9_600;
/// Longest whisper taken as one, in samples: 20 s.
const WHISPER_MAX: usize = 320_000;
/// Pieces of sound that wait for speech to text: 5 s.
const PIECES_MAX: usize = 256;

/// What is heard of one supervisor.
pub struct Whisper {
    codec: Codec,
    opus: Option<OpusDecoder>,
    from_phone: Resampler,
    pieces: mpsc::Sender<Piece>,
    quiet: usize,
    spoken: usize,
}

enum Piece {
    Sound(Bytes),
    Pause,
}

impl Whisper {
    /// Words go to the call by `requests`.
    pub fn new(host: &Arc<RoomHost>, codec: Codec, requests: mpsc::Sender<Request>) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES_MAX);
        tokio::spawn(transcribe(Arc::clone(host), waiting, requests));
        let from_phone = Resampler::new(Rate::Hz8000.hz(), Rate::Hz16000.hz());
        Self { codec, opus: OpusDecoder::new().ok(), from_phone, pieces, quiet: PAUSE, spoken: 0 }
    }

    /// To be called with each packet.
    pub fn into_listener(mut self) -> Box<dyn FnMut(Packet) + Send> {
        Box::new(move |packet| self.hear(&packet))
    }

    fn hear(&mut self, packet: &Packet) {
        let mut sound = [0.0; DECODED_LEN_MAX];
        let len = match self.codec {
            Codec::Mulaw => {
                let mut narrow = [0.0; DECODED_LEN_MAX / 2];
                let len = mulaw_decode(packet.payload(), &mut narrow);
                self.from_phone.process(&narrow[..len], &mut sound)
            }
            Codec::Opus => self.opus.as_mut().map_or(0, |opus| opus.decode(packet.payload(), &mut sound)),
        };
        let sound = &sound[..len];
        let power = sound.iter().map(|sample| sample * sample).sum::<f32>() / len.max(1) as f32;
        self.quiet = if power > SPEECH_POWER { 0 } else { self.quiet + len };
        if self.quiet < PAUSE {
            self.spoken += len;
            let bytes: Vec<u8> = sound.iter().flat_map(|&sample| sample_from_f32(sample).to_le_bytes()).collect();
            let _ = self.pieces.try_send(Piece::Sound(Bytes::from(bytes))); // speech to text that is 5 s behind is of no use
        }
        if self.spoken > 0 && (self.quiet >= PAUSE || self.spoken > WHISPER_MAX) {
            self.spoken = 0;
            let _ = self.pieces.try_send(Piece::Pause); // the next pause asks again
        }
    }
}

/// Each whisper is a session of its own, as a caller's turn is.
async fn transcribe(host: Arc<RoomHost>, mut pieces: mpsc::Receiver<Piece>, requests: mpsc::Sender<Request>) {
    let agents = &host.sessions.agents;
    // the rate of a room's line: speech to text is fed what is heard at 16 kHz
    let agent = match agents.agent(agents.profile(), Rate::Hz48000) {
        Ok(agent) => agent,
        Err(error) => return tracing::warn!(error = format!("{error:#}"), "whispers are not understood: no speech to text"),
    };
    let mut session: Option<SttSession> = None;
    while let Some(piece) = pieces.recv().await {
        let input = match piece {
            Piece::Sound(sound) => SttInput::Audio(sound),
            Piece::Pause => SttInput::Finalize,
        };
        let last = input == SttInput::Finalize;
        let open = session.get_or_insert_with(|| {
            // a whisper is short: the first that is well hears all of it
            let (place, _) = Order::new(agent.stt.len(), 0).next(&agent.stt).unwrap_or_else(|| (0, agent.stt[0].breaker.insist()));
            agent.stt[place].provider.open()
        });
        let _ = open.input.send(input).await; // its last event says why it takes no more
        if last && let Some(session) = session.take() {
            let text = words(session).await;
            if !text.is_empty() && requests.send(Request::Tell(Input::Whispered(text))).await.is_err() {
                return;
            }
        }
    }
}

async fn words(mut session: SttSession) -> String {
    let mut text = String::new();
    while let Some(event) = session.events.recv().await {
        match event {
            SttEvent::Final(more) => {
                text.push_str(more.trim());
                text.push(' ');
            }
            SttEvent::Interim(_) | SttEvent::Switched(_) => {}
            SttEvent::Finalized | SttEvent::Failed(_) => break,
        }
    }
    text.trim().to_owned()
}
