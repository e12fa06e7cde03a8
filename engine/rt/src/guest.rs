//! Guests: other people's sound in a call, a supervisor's or that of the other humans in its room.
//!
//! A guest's ear and ring are born on the rim, travel into the call's slot in one box, and travel back in it when the
//! guest leaves: nothing is born or dies on the audio thread.

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::codec::opus::OpusError;
use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::hear::Hear;
use voiced_core::hear::opus::OpusEar;
use voiced_core::id::GuestId;
use voiced_core::mix;
use voiced_core::packet::{Codec, Packet};

use crate::sound_ring::{self, SoundConsumer, SoundProducer};

/// Guests that one call hears at once: a supervisor and a few colleagues; more is a conference, mixed elsewhere.
pub const GUESTS_MAX: usize = 4;
/// A guest's packets: 32 × 20 ms; its ear keeps 400 ms at most.
const PACKETS_MAX: usize = 32;
/// Bytes of 20 ms of Opus at 128 kb/s.
const PACKET_BYTES: usize = 320;

/// Why a guest was not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The call has all the guests it can hear.
    #[error("the call already has {GUESTS_MAX} guests")]
    Full,
    /// Its sound cannot be decoded.
    #[error(transparent)]
    Opus(#[from] OpusError),
}

/// The rim's end of a guest. Dropping it is leaving, too.
pub struct GuestPort {
    /// Who it is in the call's commands.
    pub id: GuestId,
    /// The guest's packets in.
    pub packets: SoundProducer<Packet>,
}

/// A guest on the audio thread.
pub(crate) struct Guest {
    id: GuestId,
    packets: SoundConsumer<Packet>,
    ear: Ear,
    to_caller: bool,
    to_agent: bool,
}

#[allow(clippy::large_enum_variant)] // a guest is boxed whole
enum Ear {
    Line(Hear),
    Room(OpusEar),
}

impl Guest {
    /// Makes both ends; nobody hears the guest yet.
    pub(crate) fn open(id: GuestId, codec: Codec) -> Result<(GuestPort, Box<Self>), OpusError> {
        let (packets_in, packets) = sound_ring::open(PACKETS_MAX, PACKET_BYTES);
        let ear = match codec {
            Codec::Mulaw => Ear::Line(Hear::new()),
            Codec::Opus => Ear::Room(OpusEar::new()?),
        };
        let guest = Self { id, packets, ear, to_caller: false, to_agent: false };
        Ok((GuestPort { id, packets: packets_in }, Box::new(guest)))
    }

    fn is_gone(&self) -> bool {
        self.packets.is_abandoned() && self.packets.is_empty()
    }

    /// Hears 10 ms; false when the guest is silent and only its line's noise would be heard.
    fn hear(&mut self, frame: &mut HeardFrame) -> bool {
        while let Some(packet) = self.packets.pop() {
            match &mut self.ear {
                Ear::Line(ear) => ear.receive(&packet),
                Ear::Room(ear) => ear.receive(&packet),
            }
        }
        match &mut self.ear {
            Ear::Line(ear) => {
                ear.tick(frame);
                true
            }
            Ear::Room(ear) => {
                ear.tick(frame);
                !ear.is_resting()
            }
        }
    }
}

/// The guests of one call, and the ways in and out.
pub(crate) struct Guests {
    here: [Option<Box<Guest>>; GUESTS_MAX],
    coming: Consumer<Box<Guest>>,
    going: Producer<Box<Guest>>,
}

/// The rim's end of [`Guests`].
pub(crate) struct GuestDoor {
    coming: Producer<Box<Guest>>,
    going: Consumer<Box<Guest>>,
    inside: usize,
}

/// Makes both ends of the guests' ways; as long as there can be guests, so neither is ever full.
pub(crate) fn open() -> (GuestDoor, Guests) {
    let (coming_in, coming) = RingBuffer::new(GUESTS_MAX);
    let (going, going_out) = RingBuffer::new(GUESTS_MAX);
    (GuestDoor { coming: coming_in, going: going_out, inside: 0 }, Guests { here: [const { None }; GUESTS_MAX], coming, going })
}

impl GuestDoor {
    /// Lets a guest in, and frees those who have left.
    pub(crate) fn join(&mut self, id: GuestId, codec: Codec) -> Result<GuestPort, JoinError> {
        while self.going.pop().is_ok() {
            self.inside -= 1;
        }
        if self.inside == GUESTS_MAX {
            return Err(JoinError::Full);
        }
        let (port, guest) = Guest::open(id, codec)?;
        self.coming.push(guest).map_err(|_| JoinError::Full)?;
        self.inside += 1;
        Ok(port)
    }
}

impl Guests {
    /// Takes in those who came and lets those go whose rim is gone.
    pub(crate) fn admit(&mut self) {
        for place in &mut self.here {
            if place.as_ref().is_some_and(|guest| guest.is_gone()) {
                Self::let_go(&mut self.going, place);
            }
        }
        // one look is all that most calls need
        if self.coming.is_empty() {
            return;
        }
        for place in &mut self.here {
            if place.is_none() {
                *place = self.coming.pop().ok();
            }
        }
    }

    /// Says who hears a guest.
    pub(crate) fn route(&mut self, id: GuestId, to_caller: bool, to_agent: bool) {
        // a guest is there before what is said of him, but may have come since the last look
        self.admit();
        for guest in self.here.iter_mut().flatten().filter(|guest| guest.id == id) {
            (guest.to_caller, guest.to_agent) = (to_caller, to_agent);
        }
    }

    /// A guest is gone.
    pub(crate) fn leave(&mut self, id: GuestId) {
        self.admit();
        for place in self.here.iter_mut().filter(|place| place.as_ref().is_some_and(|guest| guest.id == id)) {
            Self::let_go(&mut self.going, place);
        }
    }

    /// Hears all guests for a tick: adds those the agent hears to `heard`, and sums those the caller hears, if any.
    pub(crate) fn hear(&mut self, heard: &mut HeardFrame) -> Option<HeardFrame> {
        let mut to_caller = None;
        let mut to_agent = false;
        for guest in self.here.iter_mut().flatten() {
            let mut frame = [0.0; HEARD_LEN];
            if !guest.hear(&mut frame) {
                frame.fill(0.0);
            }
            if guest.to_caller {
                mix::mix_into(to_caller.get_or_insert([0.0; HEARD_LEN]), &frame);
            }
            if guest.to_agent {
                mix::mix_into(heard, &frame);
                to_agent = true;
            }
        }
        if to_agent {
            mix::limit(heard);
        }
        to_caller
    }

    fn let_go(going: &mut Producer<Box<Guest>>, place: &mut Option<Box<Guest>>) {
        // a place for each guest that the rim has let in and not yet freed; a guest for whom there is none stays
        if going.is_full() {
            return;
        }
        if let Some(guest) = place.take() {
            let _ = going.push(guest); // room was just seen, and nobody else pushes
        }
    }
}
