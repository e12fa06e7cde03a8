//! Who is in the room, by the server's word.
//!
//! Updates carry a version per participant and may come late: an older one is ignored. After a rejoin the others may have
//! to come back too (the server was restarted under all of us), so those who are missing keep their place for
//! [`ABSENT_MAX`]; who comes back by then has changed, not left.

use livekit_protocol as proto;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long a participant may be missing after a rejoin: the SDKs' first tries to come back take 10 s.
const ABSENT_MAX: Duration = Duration::from_secs(15);

/// Someone in the room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Participant {
    /// Names this stay in the room.
    pub sid: String,
    /// Names the person over stays.
    pub identity: String,
    /// For people to read.
    pub name: String,
    /// What kind of participant.
    pub kind: ParticipantKind,
    /// Key and value pairs that the participant or the server has set.
    pub attributes: HashMap<String, String>,
    /// Free text that the participant or the server has set.
    pub metadata: String,
    /// What is published.
    pub tracks: Vec<RemoteTrack>,
}

/// What kind of participant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParticipantKind {
    /// A person with a browser or an app.
    #[default]
    Standard,
    /// A phone, through LiveKit's SIP service.
    Sip,
    /// An agent.
    Agent,
    /// A stream that LiveKit brings in.
    Ingress,
    /// A recorder.
    Egress,
    /// One of another platform.
    Connector,
    /// Another room.
    Bridge,
    /// One that a newer server knows.
    Other,
}

impl ParticipantKind {
    /// Somebody who speaks for himself, in an app or on a phone.
    pub const fn is_human(self) -> bool {
        matches!(self, Self::Standard | Self::Sip)
    }

    /// By the protocol's number.
    pub fn from_number(number: i64) -> Self {
        i32::try_from(number).ok().and_then(|number| proto::participant_info::Kind::try_from(number).ok()).map_or(Self::Other, Self::from)
    }

    /// By the protocol's name, such as `SIP`.
    pub fn from_name(name: &str) -> Self {
        proto::participant_info::Kind::from_str_name(name).map_or(Self::Other, Self::from)
    }
}

impl From<proto::participant_info::Kind> for ParticipantKind {
    fn from(kind: proto::participant_info::Kind) -> Self {
        use proto::participant_info::Kind;
        match kind {
            Kind::Standard => Self::Standard,
            Kind::Sip => Self::Sip,
            Kind::Agent => Self::Agent,
            Kind::Ingress => Self::Ingress,
            Kind::Egress => Self::Egress,
            Kind::Connector => Self::Connector,
            Kind::Bridge => Self::Bridge,
        }
    }
}

/// A track that someone publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTrack {
    /// Names the track.
    pub sid: String,
    /// What the publisher calls it.
    pub name: String,
    /// Where its sound comes from.
    pub source: TrackSource,
    /// No sound comes for now.
    pub muted: bool,
    /// Codec as a MIME type, such as `audio/opus`; may be empty before the first packet.
    pub mime: String,
    /// Sound, not pictures.
    pub audio: bool,
}

impl TrackSource {
    /// Somebody's voice, or what may be one.
    pub const fn is_voice(self) -> bool {
        matches!(self, Self::Unknown | Self::Microphone)
    }
}

/// Where a track's sound or picture comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrackSource {
    /// Not said.
    #[default]
    Unknown,
    /// A microphone.
    Microphone,
    /// A camera.
    Camera,
    /// A shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
}

/// What an update changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Joined(Participant),
    Changed(Participant),
    Muted { identity: String, sid: String, muted: bool },
    Left { identity: String, reason: proto::DisconnectReason },
}

/// The other participants, by identity.
#[derive(Debug, Default)]
pub(super) struct Roster {
    others: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    participant: Participant,
    version: u32,
    joined_at: i64,
    absent_since: Option<Instant>,
}

impl Roster {
    /// Takes in an update about one participant.
    pub fn update(&mut self, info: &proto::ParticipantInfo, changes: &mut Vec<Change>) {
        let left = info.state == proto::participant_info::State::Disconnected as i32;
        if let Some(known) = self.others.get(&info.identity)
            && is_old(known, info)
        {
            return;
        }
        if left {
            // the end of an earlier stay is no news of this one
            if self.others.get(&info.identity).is_some_and(|known| known.participant.sid == info.sid) {
                self.others.remove(&info.identity);
                changes.push(Change::Left { identity: info.identity.clone(), reason: info.disconnect_reason() });
            }
            return;
        }
        let participant = Participant::from(info);
        let entry = Entry { participant: participant.clone(), version: info.version, joined_at: info.joined_at, absent_since: None };
        let Some(before) = self.others.insert(info.identity.clone(), entry) else {
            changes.push(Change::Joined(participant));
            return;
        };
        if before.participant.sid != participant.sid && before.absent_since.is_none() {
            changes.push(Change::Left { identity: participant.identity.clone(), reason: proto::DisconnectReason::DuplicateIdentity });
            changes.push(Change::Joined(participant));
            return;
        }
        for track in &participant.tracks {
            let muted_before = before.participant.tracks.iter().find(|known| known.sid == track.sid).map(|known| known.muted);
            if muted_before.is_some_and(|muted| muted != track.muted) {
                changes.push(Change::Muted { identity: participant.identity.clone(), sid: track.sid.clone(), muted: track.muted });
            }
        }
        if before.participant != participant {
            changes.push(Change::Changed(participant));
        }
    }

    /// We were away: who is not named by the server from now on has left meanwhile.
    pub fn absent(&mut self, now: Instant) {
        for entry in self.others.values_mut() {
            entry.absent_since.get_or_insert(now);
        }
    }

    /// Gives up those who did not come back.
    pub fn expire(&mut self, now: Instant, changes: &mut Vec<Change>) {
        let gone = |entry: &Entry| entry.absent_since.is_some_and(|since| now.saturating_duration_since(since) >= ABSENT_MAX);
        self.others.retain(|identity, entry| {
            let gone = gone(entry);
            if gone {
                changes.push(Change::Left { identity: identity.clone(), reason: proto::DisconnectReason::ConnectionTimeout });
            }
            !gone
        });
    }

    /// Who publishes a track, and the track.
    pub fn track(&self, track_sid: &str) -> Option<(&Participant, &RemoteTrack)> {
        self.all().find_map(|participant| Some((participant, participant.tracks.iter().find(|track| track.sid == track_sid)?)))
    }

    /// Everyone, in the order of their identities.
    pub fn all(&self) -> impl Iterator<Item = &Participant> {
        self.others.values().map(|entry| &entry.participant)
    }
}

fn is_old(known: &Entry, info: &proto::ParticipantInfo) -> bool {
    if known.absent_since.is_some() {
        return false;
    }
    if known.participant.sid == info.sid { info.version < known.version } else { info.joined_at < known.joined_at }
}

impl From<&proto::ParticipantInfo> for Participant {
    fn from(info: &proto::ParticipantInfo) -> Self {
        Self {
            sid: info.sid.clone(),
            identity: info.identity.clone(),
            name: info.name.clone(),
            kind: ParticipantKind::from_number(i64::from(info.kind)),
            attributes: info.attributes.clone(),
            metadata: info.metadata.clone(),
            tracks: info.tracks.iter().map(RemoteTrack::from).collect(),
        }
    }
}

impl From<&proto::TrackInfo> for RemoteTrack {
    fn from(info: &proto::TrackInfo) -> Self {
        use proto::TrackSource as Source;
        Self {
            sid: info.sid.clone(),
            name: info.name.clone(),
            source: match info.source() {
                Source::Unknown => TrackSource::Unknown,
                Source::Microphone => TrackSource::Microphone,
                Source::Camera => TrackSource::Camera,
                Source::ScreenShare => TrackSource::ScreenShare,
                Source::ScreenShareAudio => TrackSource::ScreenShareAudio,
            },
            muted: info.muted,
            mime: info.mime_type.clone(),
            audio: info.r#type() == proto::TrackType::Audio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::participant_info::State;

    fn info(sid: &str, version: u32, state: State) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: sid.into(),
            identity: "ann".into(),
            version,
            state: state as i32,
            joined_at: i64::from(sid.as_bytes()[3]),
            ..Default::default()
        }
    }

    fn update(roster: &mut Roster, info: &proto::ParticipantInfo) -> Vec<Change> {
        let mut changes = Vec::new();
        roster.update(info, &mut changes);
        changes
    }

    #[test]
    fn an_older_update_changes_nothing() {
        let mut roster = Roster::default();
        assert!(matches!(update(&mut roster, &info("PA_1", 3, State::Active))[..], [Change::Joined(_)]));
        let stale = proto::ParticipantInfo { name: "Old Ann".into(), ..info("PA_1", 2, State::Active) };
        assert_eq!(update(&mut roster, &stale), []);
        let fresh = proto::ParticipantInfo { name: "Ann".into(), ..info("PA_1", 4, State::Active) };
        assert!(matches!(&update(&mut roster, &fresh)[..], [Change::Changed(ann)] if ann.name == "Ann"));
    }

    #[test]
    fn who_leaves_and_comes_back_has_left_once_and_joined_twice() {
        let mut roster = Roster::default();
        update(&mut roster, &info("PA_1", 1, State::Active));
        assert!(matches!(update(&mut roster, &info("PA_1", 2, State::Disconnected))[..], [Change::Left { .. }]));
        assert!(matches!(update(&mut roster, &info("PA_2", 1, State::Active))[..], [Change::Joined(_)]));
        assert_eq!(update(&mut roster, &info("PA_1", 3, State::Disconnected)), [], "the end of the first stay");
    }

    #[test]
    fn after_a_rejoin_the_missing_have_time_to_come_back() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        update(&mut roster, &info("PA_1", 9, State::Active));
        let mut changes = Vec::new();
        roster.absent(now);
        roster.expire(now + ABSENT_MAX / 2, &mut changes);
        assert_eq!(changes, []);
        assert!(matches!(update(&mut roster, &info("PA_2", 1, State::Active))[..], [Change::Changed(_)]));
        roster.expire(now + ABSENT_MAX * 2, &mut changes);
        assert_eq!(changes, []);
        roster.absent(now);
        roster.expire(now + ABSENT_MAX, &mut changes);
        assert!(matches!(changes[..], [Change::Left { .. }]));
    }
}
