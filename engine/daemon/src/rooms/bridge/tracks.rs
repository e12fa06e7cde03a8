//! What people in a phone call's room say, and where it leads: to the caller, to the agent's model, nowhere.

use tokio::sync::oneshot;
use voiced_core::id::GuestId;
use voiced_core::packet::Codec;
use voiced_livekit::RemoteTrack;

use super::Bridge;
use crate::call::Request;
use crate::http::rooms::SupervisorMode;
use crate::rooms::voices::Voices;
use crate::rooms::whisper::Whisper;

/// Someone in the room.
pub(super) struct Person {
    /// What their attribute says.
    pub(super) chosen: Option<SupervisorMode>,
    pub(super) mode: SupervisorMode,
    /// Which of the tracks is heard.
    voices: Voices,
    pub(super) tracks: Vec<Heard>,
}

impl Person {
    pub(super) fn new(chosen: Option<SupervisorMode>, mode: SupervisorMode) -> Self {
        Self { chosen, mode, voices: Voices::default(), tracks: Vec::new() }
    }
}

/// A track of someone's, and where it leads.
pub(super) struct Heard {
    track: RemoteTrack,
    way: Way,
}

#[derive(Clone, Copy)]
enum Way {
    Nowhere,
    /// To the agent's model.
    Whispered,
    /// To the caller.
    Aloud(GuestId),
}

impl Bridge {
    pub(super) async fn hear(&mut self, identity: &str, track: RemoteTrack) {
        self.unhear(identity, &track.sid).await;
        if let Some(person) = self.people.get_mut(identity).filter(|_| track.audio) {
            person.tracks.push(Heard { track, way: Way::Nowhere });
            self.route(identity).await;
        }
    }

    pub(super) async fn unhear(&mut self, identity: &str, sid: &str) {
        let Some(person) = self.people.get_mut(identity) else { return };
        person.voices.gone(sid);
        if let Some(index) = person.tracks.iter().position(|heard| heard.track.sid == sid) {
            let heard = person.tracks.remove(index);
            self.release(&heard).await;
        }
    }

    pub(super) fn muted(&mut self, identity: &str, sid: &str, muted: bool) {
        let Some(person) = self.people.get_mut(identity) else { return };
        person.voices.muted(sid, muted);
        for heard in person.tracks.iter_mut().filter(|heard| heard.track.sid == sid) {
            heard.track.muted = muted;
        }
    }

    pub(super) async fn release(&self, heard: &Heard) {
        let _ = self.agent.unlisten(&heard.track.sid);
        if let Way::Aloud(guest) = heard.way {
            let _ = self.requests.send(Request::GuestLeft(guest)).await; // a call that is over has no guests
        }
    }

    /// Leads a person's sound where their mode wants it.
    pub(super) async fn route(&mut self, identity: &str) {
        let Some(mut person) = self.people.remove(identity) else { return };
        for heard in &mut person.tracks {
            let stays = match heard.way {
                Way::Nowhere => false,
                Way::Whispered => person.mode == SupervisorMode::Whisper,
                Way::Aloud(_) => matches!(person.mode, SupervisorMode::Barge | SupervisorMode::Takeover),
            };
            if !stays {
                self.release(heard).await;
                heard.way = self.lead(person.mode, &heard.track, &mut person.voices).await;
            }
        }
        self.people.insert(identity.to_owned(), person);
    }

    async fn lead(&self, mode: SupervisorMode, track: &RemoteTrack, voices: &mut Voices) -> Way {
        match mode {
            SupervisorMode::Listen => Way::Nowhere,
            SupervisorMode::Whisper => {
                let mut pass = voices.add(track);
                let mut whisper = Whisper::new(&self.host, codec(track), self.requests.clone()).into_listener();
                let _ = self.agent.listen(&track.sid, Box::new(move |packet| _ = pass(packet).map(&mut whisper)));
                Way::Whispered
            }
            SupervisorMode::Barge | SupervisorMode::Takeover => {
                let (joined, port) = oneshot::channel();
                let asked = self.requests.send(Request::Guest { codec: codec(track), to_caller: true, to_agent: false, joined }).await.is_ok();
                let (true, Ok(mut port)) = (asked, port.await) else {
                    tracing::warn!(room = self.agent.name(), "too many people speak in this call already");
                    return Way::Nowhere;
                };
                let (guest, mut pass) = (port.id, voices.add(track));
                let hear = move |packet| {
                    if let Some(packet) = pass(packet) {
                        let _ = port.packets.push(&packet); // a call that is that far behind hears better without it
                    }
                };
                let _ = self.agent.listen(&track.sid, Box::new(hear));
                Way::Aloud(guest)
            }
        }
    }
}

fn codec(track: &RemoteTrack) -> Codec {
    if track.mime.eq_ignore_ascii_case("audio/pcmu") { Codec::Mulaw } else { Codec::Opus }
}
