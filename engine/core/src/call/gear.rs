//! What only a leg in a room has: the states of Opus, 18 KB of decoder and 31 KB of encoder, and room for speech at 48 kHz,
//! 350 KB. It is born and dies on the rim and is lent to the leg while its call lasts.

use crate::codec::opus::{OpusEncoder, OpusError};
use crate::hear::opus::OpusEar;
use crate::leg::LegSettings;
use crate::packet::Codec;
use crate::speak::memory::Memory;
use crate::speak::playout::Playout;

/// What a leg in a room needs and a telephone's does not: made by the rim, lent to the leg for the call.
pub struct OpusGear {
    pub(super) ear: Box<OpusEar>,
    pub(super) encoder: OpusEncoder,
    pub(super) alone: Option<OpusEncoder>,
    pub(super) memory: Memory,
}

impl OpusGear {
    /// Allocates what a call with these settings needs; `None` when that is nothing.
    pub fn of(settings: &LegSettings) -> Result<Option<Self>, OpusError> {
        if Codec::of_line(settings.rate) != Codec::Opus {
            return Ok(None);
        }
        let alone = settings.agent_alone.then(OpusEncoder::new).transpose()?;
        let encoder = if settings.in_band_fec { OpusEncoder::with_fec() } else { OpusEncoder::new() }?;
        Ok(Some(Self { ear: Box::new(OpusEar::new()?), encoder, alone, memory: Playout::room_memory() }))
    }
}
