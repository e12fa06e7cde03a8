//! LiveKit: a participant in rooms.
//!
//! [`LiveKit::join`] signs in to a room and returns a [`Room`] and its [`RoomEvent`]s. Signalling and data run on one
//! tokio task per room (`room`); sound and its connections run on a few media threads for all rooms (`media`).

mod livekit;
mod media;
mod room;

pub use livekit::{JoinError, JoinOptions, LiveKit, PublishTrack};
pub use media::{MediaCounters, MediaSettings, RoomStats};
pub use room::{
    DisconnectReason, LocalParticipant, Participant, ParticipantKind, RemoteTrack, Room, RoomEvent, RpcError, RpcRequest, TextOptions, TextStream, TrackSource,
};
