//! Our tracks, and those of the others.

use super::event::RoomEvent;
use super::participant::{Roster, TrackSource};
use crate::livekit::PublishTrack;
use crate::media::{Order, PublishLine, TrackLine};
use livekit_protocol as proto;
use std::collections::HashMap;
use voiced_core::packet::Codec;

/// A track of ours.
#[derive(Debug)]
pub(super) struct Published {
    pub line: PublishLine,
    pub name: String,
    pub muted: bool,
    /// What the server made of it.
    pub info: Option<proto::TrackInfo>,
}

/// Our tracks as they were asked for.
pub(super) fn published(tracks: &[PublishTrack]) -> Vec<Published> {
    let line = |(index, track): (usize, &PublishTrack)| Published {
        line: PublishLine { cid: format!("voiced-{index}"), codec: track.codec },
        name: track.name.clone(),
        muted: false,
        info: None,
    };
    tracks.iter().enumerate().map(line).collect()
}

impl Published {
    /// Tells the server of the track.
    pub fn add(&self) -> proto::AddTrackRequest {
        let cid = self.line.cid.clone();
        let mut add = proto::AddTrackRequest {
            cid: cid.clone(),
            name: self.name.clone(),
            r#type: proto::TrackType::Audio as i32,
            source: proto::TrackSource::Microphone as i32,
            muted: self.muted,
            stream: "voice".to_owned(),
            ..Default::default()
        };
        if self.line.codec == Codec::Mulaw {
            // without a codec by name a track is taken for Opus, and listeners hear nothing
            add.disable_red = true;
            add.simulcast_codecs = vec![proto::SimulcastCodec { codec: "audio/PCMU".to_owned(), cid, ..Default::default() }];
        }
        add
    }
}

/// The tracks of others: what comes, what is announced, what is listened to.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    lines: Vec<TrackLine>,
    /// Announced to the user, with whose they are.
    announced: HashMap<String, String>,
    /// Listened to, with whose they are and where from, so that the listener can follow.
    listened: HashMap<String, Option<(String, TrackSource)>>,
    /// What the user wants or does not want, whatever the rule.
    wishes: HashMap<String, bool>,
    /// What the server was asked for.
    asked: Vec<String>,
}

impl Subscribed {
    /// The server's offer brings these lines.
    pub fn lines(&mut self, lines: Vec<TrackLine>) {
        self.lines = lines;
    }

    /// The user listens to a track, or stops.
    pub fn listened(&mut self, track_sid: String, on: bool, roster: &Roster) {
        if on {
            let whose = roster.track(&track_sid).map(|(participant, track)| (participant.identity.clone(), track.source));
            self.listened.insert(track_sid, whose);
        } else {
            self.listened.remove(&track_sid);
        }
    }

    /// Announces what has come and gone, and lets listeners follow a person's new track.
    pub fn reconcile(&mut self, roster: &Roster, events: &mut Vec<RoomEvent>, orders: &mut Vec<Order>) {
        let Self { lines, announced, listened, .. } = self;
        announced.retain(|sid, identity| {
            let stays = lines.iter().any(|line| line.track_sid == *sid) && roster.track(sid).is_some();
            if !stays {
                events.push(RoomEvent::TrackUnsubscribed { identity: identity.clone(), sid: sid.clone() });
            }
            stays
        });
        for line in lines.iter() {
            let sid = &line.track_sid;
            let Some((participant, track)) = roster.track(sid).filter(|_| !announced.contains_key(sid)) else { continue };
            announced.insert(sid.clone(), participant.identity.clone());
            let whose = Some((participant.identity.clone(), track.source));
            if let Some(known) = listened.get_mut(sid) {
                known.clone_from(&whose);
            }
            let before = listened.iter().find(|(old, known)| **known == whose && !announced.contains_key(*old)).map(|(old, _)| old.clone());
            if let Some(old) = before {
                listened.remove(&old);
                listened.insert(sid.clone(), whose);
                orders.push(Order::Relisten { from: old, to: sid.clone() });
            }
            events.push(RoomEvent::TrackSubscribed { identity: participant.identity.clone(), track: track.clone() });
        }
    }

    /// The user wants a track, or wants it no more.
    pub fn wish(&mut self, track_sid: String, on: bool) {
        self.wishes.insert(track_sid, on);
    }

    /// What is to be asked for, and what is to stop: tracks of sound that are wished, or that nobody has declined where
    /// `all` are wanted. The server is not let choose, for it would send pictures, and a line that is refused breaks its
    /// next offer.
    pub fn ask(&mut self, roster: &Roster, all: bool) -> [Vec<String>; 2] {
        let audio = roster.all().flat_map(|participant| &participant.tracks).filter(|track| track.audio).map(|track| track.sid.clone());
        let wanted: Vec<String> = audio.filter(|sid| self.wishes.get(sid).copied().unwrap_or(all)).collect();
        let start = wanted.iter().filter(|sid| !self.asked.contains(sid)).cloned().collect();
        let stop = self.asked.iter().filter(|sid| !wanted.contains(sid) && roster.track(sid).is_some()).cloned().collect();
        self.asked = wanted;
        [start, stop]
    }

    /// What the server was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.clone()
    }

    /// After a rejoin the server has been asked for nothing, and brings nothing yet.
    pub fn rejoined(&mut self) {
        self.lines.clear();
        self.asked.clear();
    }
}
