//! LiveKit: a participant in rooms, and the server's side of them.
//!
//! [`LiveKit::join`] signs in to a room and returns a [`Room`] and its [`RoomEvent`]s. Signalling and data run on one
//! tokio task per room (`room`); sound and its connections run on a few media threads for all rooms (`media`).
//!
//! The server's side: [`worker`] takes the jobs that a LiveKit server dispatches, [`job`] reads what they ask for, [`token`]
//! lets participants in, [`webhook`] hears what happens in rooms and [`api`] changes it.

pub mod api;
pub mod job;
mod livekit;
mod media;
mod room;
pub mod token;
pub mod untrusted;
pub mod webhook;
pub mod worker;

pub use livekit::{JoinError, JoinOptions, LiveKit, PublishTrack};
pub use media::{IceTransportPolicy, MediaCounters, MediaSettings, RoomStats};
pub use room::{
    DisconnectReason, LocalParticipant, Participant, ParticipantKind, RemoteTrack, Room, RoomEvent, RpcError, RpcRequest, TextOptions, TextStream, TrackSource,
};
