//! A real browser in a room with the agent: Chromium with LiveKit's own client.

use serde_json::json;
use voiced_lab::livekit::PeerEvent;

use crate::rooms::repairs;
use crate::venue::{Venue, agent_sounds, reads, session};

#[tokio::test]
async fn a_browser_talks_with_the_agent_reads_both_sides_and_sees_what_the_agent_is_doing() {
    let Some(node) = Venue::browser() else { return };
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[]).await;
    let (_, token) = session(&host, "ann", json!({ "greeting": "Good day." })).await;
    // the greeting's time, the line, and time for the answer; then the browser begins anew
    let microphone = venue.microphone("My kitchen sink is leaking.", 5, 20);
    let mut ann = venue.browses(node, token, &microphone).await;
    reads(&mut ann, "Good day.").await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;
    reads(&mut ann, "My kitchen").await;
    let began = agent_sounds(&mut ann, true).await;
    reads(&mut ann, "sorry to hear that").await;
    // pauses between sentences end a sound too
    let mut ended = agent_sounds(&mut ann, false).await;
    while ended.at_ms - began.at_ms < 2_000.0 {
        agent_sounds(&mut ann, true).await;
        ended = agent_sounds(&mut ann, false).await;
    }
    for state in ["thinking", "speaking", "listening"] {
        let shows = |event: &PeerEvent| event.attribute("lk.agent.state") == Some(state);
        ann.wait_for("attributes", shows).await.unwrap_or_else(|error| panic!("the agent is seen {state}: {error}"));
    }
    ann.leave().await.expect("ann leaves");
}
