//! 16-bit little-endian sound as it comes off the wire, in pieces of any length.

use crate::tts::AUDIO_SAMPLES_MAX;
use tokio::sync::mpsc;
use voiced_core::model::TtsEvent;

/// Joins the halves of a sample that two pieces share.
#[derive(Debug, Default)]
pub(crate) struct PcmDecoder {
    half: Option<u8>,
}

impl PcmDecoder {
    /// The samples that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<i16> {
        let mut samples = Vec::with_capacity(bytes.len() / 2 + 1);
        for &byte in bytes {
            match self.half.take() {
                Some(low) => samples.push(i16::from_le_bytes([low, byte])),
                None => self.half = Some(byte),
            }
        }
        samples
    }
}

/// Sends a phrase's sound in pieces of bounded length; `Err` when nobody listens any more.
pub(crate) async fn send_audio(events: &mpsc::Sender<TtsEvent>, phrase: u32, samples: &[i16]) -> Result<(), mpsc::error::SendError<TtsEvent>> {
    for piece in samples.chunks(AUDIO_SAMPLES_MAX) {
        events.send(TtsEvent::Audio { phrase, samples: piece.to_vec() }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_cut_in_two_is_whole_again() {
        let mut decoder = PcmDecoder::default();
        assert_eq!(decoder.push(&[1, 0, 2]), [1]);
        assert_eq!(decoder.push(&[1]), [258]);
        assert_eq!(decoder.push(&[0xff, 0xff]), [-1]);
    }
}
