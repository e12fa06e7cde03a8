//! What travels between a transport and a call's audio thread.

use crate::frame::Rate;

/// Bytes of the longest packet: 20 ms of Opus at 256 kbit/s, 80 ms of G.711; a transport splits or drops what is longer.
pub const PACKET_BYTES_MAX: usize = 640;

/// The closed set of codecs on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 mu-law, 8 kHz, a byte a sample.
    Mulaw,
    /// Opus, 48 kHz.
    Opus,
}

impl Codec {
    /// The rate at which this codec's sound is decoded and encoded.
    pub const fn rate(self) -> Rate {
        match self {
            Self::Mulaw => Rate::Hz8000,
            Self::Opus => Rate::Hz48000,
        }
    }
}

/// One packet of encoded sound, stored inline so that rings need no allocation.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Codec of the payload.
    pub codec: Codec,
    /// Counts packets (RTP sequence, Twilio chunk): duplicates and reorder are seen by it.
    pub sequence: u32,
    /// Start of the payload in the sender's media, in ms (Twilio `media.timestamp`, RTP time).
    pub timestamp_ms: u32,
    len: u16,
    bytes: [u8; PACKET_BYTES_MAX],
}

impl Packet {
    /// Copies a payload in; `None` when it is empty or longer than [`PACKET_BYTES_MAX`].
    pub fn new(codec: Codec, sequence: u32, timestamp_ms: u32, payload: &[u8]) -> Option<Self> {
        if payload.is_empty() || payload.len() > PACKET_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; PACKET_BYTES_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        Some(Self { codec, sequence, timestamp_ms, len: payload.len() as u16, bytes })
    }

    /// The encoded sound.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({:?} #{} {} ms, {} B)", self.codec, self.sequence, self.timestamp_ms, self.len)
    }
}
