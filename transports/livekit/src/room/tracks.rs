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
    /// Asked for or asked to stop by the user.
    pub wishes: HashMap<String, bool>,
    /// Video tracks that were declined.
    declined: Vec<String>,
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

    /// Pictures that nobody has asked for, and that would be sent to us for nothing.
    pub fn decline_video(&mut self, roster: &Roster) -> Vec<String> {
        let video: Vec<String> = roster.all().flat_map(|participant| &participant.tracks).filter(|track| !track.audio).map(|track| track.sid.clone()).collect();
        let fresh = video.iter().filter(|sid| !self.declined.contains(sid) && !self.wishes.contains_key(*sid)).cloned().collect();
        self.declined = video;
        fresh
    }

    /// The tracks whose subscription is not what the server would do by itself.
    pub fn exceptions(&self, auto_subscribe: bool) -> Vec<String> {
        let wished = self.wishes.iter().filter(|(_, on)| **on != auto_subscribe).map(|(sid, _)| sid);
        let declined = self.declined.iter().filter(|sid| auto_subscribe && !self.wishes.contains_key(*sid));
        wished.chain(declined).cloned().collect()
    }

    /// After a rejoin the server knows of no wish, and brings nothing yet.
    pub fn rejoined(&mut self) {
        self.lines.clear();
        self.declined.clear();
    }
}
