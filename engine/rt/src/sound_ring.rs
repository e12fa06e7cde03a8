//! A ring of sound in pieces, each of which takes as much of it as it is long.
//!
//! A place for the longest packet is four times what a telephone sends, and one for the longest speech six times. Places
//! of that size were half of a call's memory, and hundreds of calls drove each other out of the caches with them.

use std::marker::PhantomData;

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::id::TurnId;
use voiced_core::leg::{CHUNK_LEN_MAX, ChunkEnd, SpeechChunk};
use voiced_core::line::ToLine;
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};

/// Bytes before each piece: its length.
const LENGTH: usize = 2;
const PACKET_HEAD: usize = 9;
const SPEECH_HEAD: usize = 9;
const PACKET_RECORD: usize = LENGTH + PACKET_HEAD + PACKET_BYTES_MAX;
/// One byte more tells the kind.
const LINE_RECORD: usize = PACKET_RECORD + 1;
const SPEECH_RECORD: usize = LENGTH + SPEECH_HEAD + 2 * CHUNK_LEN_MAX;

/// What such a ring can hold.
pub trait Piece: Sized {
    /// Room for the longest with its length.
    type Record: AsRef<[u8]> + AsMut<[u8]>;
    /// Nothing yet.
    const EMPTY: Self::Record;

    /// Writes the piece to the front of `bytes`, which has room for the longest; how many it took.
    fn write(&self, bytes: &mut [u8]) -> usize;

    /// What [`Piece::write`] wrote.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// The ring had no room; the piece is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full")]
pub struct Full;

/// The end that is written to.
#[derive(Debug)]
pub struct SoundProducer<T> {
    ring: Producer<u8>,
    pieces: PhantomData<fn(&T)>,
}

/// The end that is read from.
#[derive(Debug)]
pub struct SoundConsumer<T> {
    ring: Consumer<u8>,
    pieces: PhantomData<fn() -> T>,
}

/// Both ends of a ring for so many pieces with so many bytes of sound each, or more that are shorter.
pub(crate) fn open<T: Piece>(pieces: usize, sound: usize) -> (SoundProducer<T>, SoundConsumer<T>) {
    let longest = T::EMPTY.as_ref().len();
    let (producer, consumer) = RingBuffer::new((pieces * (LENGTH + 1 + PACKET_HEAD + sound)).max(longest));
    (SoundProducer { ring: producer, pieces: PhantomData }, SoundConsumer { ring: consumer, pieces: PhantomData })
}

impl<T: Piece> SoundProducer<T> {
    /// One that has room for nothing.
    pub(crate) fn closed() -> Self {
        Self { ring: RingBuffer::new(0).0, pieces: PhantomData }
    }

    /// Adds a piece.
    pub fn push(&mut self, piece: &T) -> Result<(), Full> {
        let mut record = T::EMPTY;
        let record = record.as_mut();
        let len = piece.write(&mut record[LENGTH..]);
        record[..LENGTH].copy_from_slice(&(len as u16).to_le_bytes());
        self.ring.push_entire_slice(&record[..LENGTH + len]).map_err(|_| Full)
    }

    /// Whether any piece would find room now.
    pub fn has_room(&self) -> bool {
        self.ring.slots() >= T::EMPTY.as_ref().len()
    }
}

impl<T: Piece> SoundConsumer<T> {
    /// One that never holds anything.
    pub(crate) fn closed() -> Self {
        Self { ring: RingBuffer::new(0).1, pieces: PhantomData }
    }

    /// The oldest piece.
    pub fn pop(&mut self) -> Option<T> {
        let length = self.ring.read_chunk(LENGTH).ok()?; // looked at, not taken out
        let (start, end) = length.as_slices();
        let mut bytes = start.iter().chain(end).copied();
        let whole = LENGTH + usize::from(u16::from_le_bytes([bytes.next()?, bytes.next()?]));
        let chunk = self.ring.read_chunk(whole).ok()?;
        let (start, end) = chunk.as_slices();
        let piece = if end.is_empty() {
            T::read(&start[LENGTH..])
        } else {
            let mut record = T::EMPTY;
            let record = &mut record.as_mut()[..whole];
            record[..start.len()].copy_from_slice(start);
            record[start.len()..].copy_from_slice(end);
            T::read(&record[LENGTH..])
        };
        chunk.commit_all();
        piece
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The other end is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl Piece for Packet {
    type Record = [u8; PACKET_RECORD];
    const EMPTY: Self::Record = [0; PACKET_RECORD];

    fn write(&self, bytes: &mut [u8]) -> usize {
        let payload = self.payload();
        bytes[0] = match self.codec {
            Codec::Mulaw => 0,
            Codec::Opus => 1,
        };
        bytes[1..5].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[5..PACKET_HEAD].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        bytes[PACKET_HEAD..][..payload.len()].copy_from_slice(payload);
        PACKET_HEAD + payload.len()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (codec, rest) = bytes.split_first()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (timestamp, payload) = rest.split_first_chunk()?;
        let codec = if *codec == 0 { Codec::Mulaw } else { Codec::Opus };
        Self::new(codec, u32::from_le_bytes(*sequence), u32::from_le_bytes(*timestamp), payload)
    }
}

impl Piece for ToLine {
    type Record = [u8; LINE_RECORD];
    const EMPTY: Self::Record = [0; LINE_RECORD];

    fn write(&self, bytes: &mut [u8]) -> usize {
        let (kind, rest) = bytes.split_at_mut(1);
        let (is, len) = match self {
            Self::Audio(packet) => (0, packet.write(rest)),
            Self::Mark(number) => {
                rest[..4].copy_from_slice(&number.to_le_bytes());
                (1, 4)
            }
            Self::Clear => (2, 0),
            Self::HangUp => (3, 0),
        };
        kind[0] = is;
        1 + len
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            0 => Packet::read(rest).map(Self::Audio),
            1 => Some(Self::Mark(u32::from_le_bytes(*rest.first_chunk()?))),
            2 => Some(Self::Clear),
            _ => Some(Self::HangUp),
        }
    }
}

impl Piece for SpeechChunk {
    type Record = [u8; SPEECH_RECORD];
    const EMPTY: Self::Record = [0; SPEECH_RECORD];

    fn write(&self, bytes: &mut [u8]) -> usize {
        bytes[..4].copy_from_slice(&self.turn.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.phrase.to_le_bytes());
        bytes[8] = match self.end {
            ChunkEnd::Nothing => 0,
            ChunkEnd::Phrase => 1,
            ChunkEnd::Reply => 2,
        };
        let places = bytes[SPEECH_HEAD..].as_chunks_mut().0;
        for (place, sample) in places.iter_mut().zip(self.samples()) {
            *place = sample.to_le_bytes();
        }
        SPEECH_HEAD + 2 * self.samples().len()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (turn, rest) = bytes.split_first_chunk()?;
        let (phrase, rest) = rest.split_first_chunk()?;
        let (end, sound) = rest.split_first()?;
        let end = match end {
            0 => ChunkEnd::Nothing,
            1 => ChunkEnd::Phrase,
            _ => ChunkEnd::Reply,
        };
        let samples = sound.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample));
        Some(Self::of(TurnId(u32::from_le_bytes(*turn)), u32::from_le_bytes(*phrase), end, samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_come_out_whole_and_in_order_across_the_rings_end() {
        let (mut rim, mut audio) = open::<ToLine>(8, 160);
        let payload = |n: u32| (0..=n as usize * 37 % PACKET_BYTES_MAX).map(|at| (at as u32 + n) as u8).collect::<Vec<_>>();
        let mut taken = 0;
        for n in 0..500 {
            let packet = Packet::new(Codec::Opus, n, n * 20, &payload(n)).unwrap();
            rim.push(&ToLine::Audio(packet)).unwrap();
            rim.push(&ToLine::Mark(n)).unwrap();
            let Some(ToLine::Audio(packet)) = audio.pop() else { panic!("no packet {n}") };
            assert_eq!((packet.codec, packet.sequence, packet.timestamp_ms, packet.payload()), (Codec::Opus, n, n * 20, &payload(n)[..]));
            assert!(matches!(audio.pop(), Some(ToLine::Mark(number)) if number == n));
            taken += 1;
        }
        assert!(taken == 500 && audio.is_empty() && audio.pop().is_none());
    }

    #[test]
    fn a_full_ring_refuses_a_piece_and_keeps_what_it_has() {
        let (mut rim, mut audio) = open::<SpeechChunk>(1, 160);
        let chunk = |phrase| SpeechChunk::new(TurnId(7), phrase, ChunkEnd::Phrase, &[-5; CHUNK_LEN_MAX]);
        assert!(rim.has_room());
        rim.push(&chunk(1)).unwrap();
        assert_eq!((rim.push(&chunk(2)), rim.has_room()), (Err(Full), false));
        let kept = audio.pop().unwrap();
        assert_eq!((kept.turn, kept.phrase, kept.end, kept.samples()), (TurnId(7), 1, ChunkEnd::Phrase, &[-5; CHUNK_LEN_MAX][..]));
        assert!(audio.pop().is_none() && rim.has_room());
    }
}
