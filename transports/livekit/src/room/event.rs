//! What a room tells, and why it ends.

use super::participant::{Participant, RemoteTrack};
use super::rpc::RpcRequest;
use livekit_protocol as proto;
use std::collections::HashMap;

/// News of a room.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomEvent {
    /// Sound and data can go both ways.
    Connected,
    /// The connection is lost; what is sent may not arrive.
    Reconnecting,
    /// The connection is back. After a rejoin tracks may have new sids; listeners have been moved along.
    Reconnected {
        /// Whether this was a new stay in the room, not the old one resumed.
        rejoined: bool,
    },
    /// It is over. The last event.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// Someone came, or was there at the join.
    ParticipantJoined(Participant),
    /// Name, attributes, metadata or tracks of someone changed.
    ParticipantChanged(Participant),
    /// Someone left.
    ParticipantLeft {
        /// Who.
        identity: String,
        /// Why.
        reason: DisconnectReason,
    },
    /// Sound of a track can be listened to.
    TrackSubscribed {
        /// Whose.
        identity: String,
        /// Which.
        track: RemoteTrack,
    },
    /// Sound of a track comes no more.
    TrackUnsubscribed {
        /// Whose.
        identity: String,
        /// Which.
        sid: String,
    },
    /// A track fell silent, or speaks again; ours when the server did it.
    TrackMuted {
        /// Whose.
        identity: String,
        /// Which.
        sid: String,
        /// Whether it is silent.
        muted: bool,
    },
    /// A text came in.
    Text {
        /// What it is about; `lk.chat` for chat messages of any kind.
        topic: String,
        /// Who sent it.
        from: String,
        /// Names the text.
        id: String,
        /// What goes with it.
        attributes: HashMap<String, String>,
        /// The text.
        text: String,
        /// Nothing is missing of it.
        complete: bool,
    },
    /// A message of the application's own kind came in.
    Data {
        /// Who sent it.
        from: String,
        /// What it is about.
        topic: String,
        /// The message.
        payload: Vec<u8>,
    },
    /// A key was pressed on a phone.
    Dtmf {
        /// Who pressed it.
        from: String,
        /// Which: `0` to `9`, `*`, `#`, `A` to `D`.
        digit: String,
    },
    /// Someone asks for an answer, see [`Room::answer_rpc`](crate::Room::answer_rpc).
    RpcRequest(RpcRequest),
}

/// Why someone is no longer in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// By own wish.
    Left,
    /// The same identity joined once more.
    DuplicateIdentity,
    /// The server went down.
    ServerShutdown,
    /// Put out through the server's API.
    Removed,
    /// The room was deleted.
    RoomDeleted,
    /// The connection was lost for longer than is waited.
    Lost,
    /// The server does not let in.
    Refused,
    /// Sound could not get through.
    MediaFailure,
    /// Any other reason, by LiveKit's number.
    Other(i32),
}

impl From<proto::DisconnectReason> for DisconnectReason {
    fn from(reason: proto::DisconnectReason) -> Self {
        use proto::DisconnectReason as Reason;
        match reason {
            Reason::ClientInitiated => Self::Left,
            Reason::DuplicateIdentity => Self::DuplicateIdentity,
            Reason::ServerShutdown => Self::ServerShutdown,
            Reason::ParticipantRemoved => Self::Removed,
            Reason::RoomDeleted | Reason::RoomClosed => Self::RoomDeleted,
            Reason::ConnectionTimeout | Reason::SignalClose => Self::Lost,
            Reason::JoinFailure => Self::Refused,
            Reason::MediaFailure => Self::MediaFailure,
            other => Self::Other(other as i32),
        }
    }
}

impl DisconnectReason {
    pub(super) fn to_proto(self) -> proto::DisconnectReason {
        use proto::DisconnectReason as Reason;
        match self {
            Self::Left => Reason::ClientInitiated,
            Self::DuplicateIdentity => Reason::DuplicateIdentity,
            Self::ServerShutdown => Reason::ServerShutdown,
            Self::Removed => Reason::ParticipantRemoved,
            Self::RoomDeleted => Reason::RoomDeleted,
            Self::Lost => Reason::ConnectionTimeout,
            Self::Refused => Reason::JoinFailure,
            Self::MediaFailure => Reason::MediaFailure,
            Self::Other(number) => Reason::try_from(number).unwrap_or(Reason::UnknownReason),
        }
    }
}
