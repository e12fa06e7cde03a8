//! Which line of an offer carries which track.
//!
//! LiveKit names the track in the line's `a=msid:<participant sid>|<stream or track sid> <track sid>`, and uses a line
//! again for another track when the first is gone, so each offer is read anew.

use str0m::media::Mid;

/// A line through which sound of a track arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrackLine {
    /// The line.
    pub mid: Mid,
    /// Who publishes the track.
    pub participant_sid: String,
    /// The track.
    pub track_sid: String,
}

/// The lines of an offer that bring sound.
pub(super) fn track_lines(offer: &str) -> Vec<TrackLine> {
    offer.split("\nm=").skip(1).filter_map(track_line).collect()
}

fn track_line(section: &str) -> Option<TrackLine> {
    let attribute = |name: &str| section.lines().find_map(|line| line.trim_end().strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'));
    let flag = |name: &str| section.lines().any(|line| line.trim_end().strip_prefix("a=") == Some(name));
    if !section.starts_with("audio ") || flag("inactive") || flag("recvonly") {
        return None;
    }
    let (stream, track) = attribute("msid")?.split_once(' ')?;
    let (participant, from_stream) = stream.split_once('|').unwrap_or((stream, ""));
    let track = if track.starts_with("TR_") { track } else { from_stream };
    (!track.is_empty()).then(|| TrackLine {
        mid: attribute("mid").map_or_else(|| "".into(), Into::into),
        participant_sid: participant.to_owned(),
        track_sid: track.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=msid-semantic: WMS *\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=sendonly\r\na=msid:PA_one|TR_a TR_a\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\na=inactive\r\na=msid:PA_two|TR_b TR_b\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:3\r\na=sendonly\r\na=msid:PA_one|TR_v TR_v\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:4\r\na=sendrecv\r\na=msid:PA_two|camera TR_c\r\n";

    #[test]
    fn an_offer_tells_which_line_brings_whose_sound() {
        let line = |mid: &str, participant: &str, track: &str| TrackLine { mid: mid.into(), participant_sid: participant.into(), track_sid: track.into() };
        assert_eq!(track_lines(OFFER), [line("1", "PA_one", "TR_a"), line("4", "PA_two", "TR_c")]);
    }

    #[test]
    fn what_names_no_track_brings_none() {
        for offer in ["", "m=audio", "v=0\nm=audio 9\na=mid:1\na=msid:x", "v=0\nm=audio 9\na=msid:PA_a b"] {
            assert_eq!(track_lines(offer), [], "{offer}");
        }
    }
}
