//! Whom the agent is there for: the participant that the job names, else a phone, else the first human who appears. Once
//! chosen it stays, through absences, by its identity.

use voiced_livekit::{Participant, ParticipantKind};

/// The one whom the agent hears.
#[derive(Debug)]
pub struct Linked {
    /// Whom the job names.
    wanted: Option<String>,
    chosen: Option<Chosen>,
}

#[derive(Debug)]
struct Chosen {
    identity: String,
    phone: bool,
    away: bool,
}

/// What the sight of a participant means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It is the one, from now on or still.
    Linked,
    /// The one was away and is back.
    Back,
    /// It is somebody else.
    Nothing,
}

impl Linked {
    /// Nobody yet; `wanted` alone will do, where given.
    pub fn new(wanted: Option<String>) -> Self {
        Self { wanted, chosen: None }
    }

    /// Somebody is in the room.
    pub fn sees(&mut self, participant: &Participant) -> Move {
        match &mut self.chosen {
            Some(chosen) if chosen.identity == participant.identity => {
                if std::mem::take(&mut chosen.away) {
                    Move::Back
                } else {
                    Move::Linked
                }
            }
            Some(_) => Move::Nothing,
            None => {
                let wanted = self.wanted.as_ref().is_none_or(|wanted| *wanted == participant.identity);
                if !participant.kind.is_human() || !wanted {
                    return Move::Nothing;
                }
                let phone = participant.kind == ParticipantKind::Sip;
                self.chosen = Some(Chosen { identity: participant.identity.clone(), phone, away: false });
                Move::Linked
            }
        }
    }

    /// Somebody left; true when it was the one.
    pub fn loses(&mut self, identity: &str) -> bool {
        match &mut self.chosen {
            Some(chosen) if chosen.identity == identity => {
                chosen.away = true;
                true
            }
            _ => false,
        }
    }

    /// The one's identity.
    pub fn identity(&self) -> Option<&str> {
        self.chosen.as_ref().map(|chosen| chosen.identity.as_str())
    }

    /// Whether this is the one.
    pub fn is(&self, identity: &str) -> bool {
        self.identity() == Some(identity)
    }

    /// The one came by phone.
    pub fn is_phone(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.phone)
    }

    /// The one has left, for now.
    pub fn is_away(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(identity: &str, kind: ParticipantKind) -> Participant {
        Participant { identity: identity.into(), kind, ..Participant::default() }
    }

    #[test]
    fn the_first_human_is_heard_and_stays_the_one_through_an_absence() {
        let mut linked = Linked::new(None);
        assert_eq!(linked.sees(&someone("recorder", ParticipantKind::Egress)), Move::Nothing);
        assert_eq!(linked.sees(&someone("agent-2", ParticipantKind::Agent)), Move::Nothing);
        assert_eq!(linked.sees(&someone("ann", ParticipantKind::Standard)), Move::Linked);
        assert_eq!(linked.sees(&someone("bob", ParticipantKind::Sip)), Move::Nothing);
        assert!(!linked.loses("bob") && linked.loses("ann") && linked.is_away());
        assert_eq!(linked.sees(&someone("bob", ParticipantKind::Sip)), Move::Nothing);
        assert_eq!(linked.sees(&someone("ann", ParticipantKind::Standard)), Move::Back);
        assert!(linked.is("ann") && !linked.is_away() && !linked.is_phone());
    }

    #[test]
    fn a_job_about_a_participant_waits_for_that_one() {
        let mut linked = Linked::new(Some("bob".into()));
        assert_eq!(linked.sees(&someone("ann", ParticipantKind::Standard)), Move::Nothing);
        assert_eq!(linked.sees(&someone("bob", ParticipantKind::Sip)), Move::Linked);
        assert!(linked.is_phone());
    }
}
