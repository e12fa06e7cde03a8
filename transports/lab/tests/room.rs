//! Callers in a room of the real server, over a bad road.

use voiced_lab::livekit::{Road, Server, or_skip};
use voiced_lab::phone::{CallReport, CallScript, Outcome, Step};
use voiced_lab::room::{Invitation, RoomCaller};

/// Half seconds of tone: longer, with their pauses, than a busy machine needs to connect the other caller.
const BURSTS: usize = 8;
const LIMIT_MS: u64 = 30_000;

#[tokio::test]
async fn two_callers_in_a_room_hear_each_other_over_a_road_that_loses_packets() {
    let Some(binary) = or_skip(Server::find()) else { return };
    let server = Server::start(&binary, None).await.expect("livekit-server");
    let road = Road::open(&server, 20, 1).await.expect("a road");
    let callers = RoomCaller::start(1).expect("a media thread");
    let invite = |identity: &str| Invitation { url: road.url().to_owned(), token: server.token("talk", identity).to_jwt().expect("a token") };
    let (ann, bob) = tokio::join!(callers.call(invite("ann"), talkative()), callers.call(invite("bob"), talkative()));
    for report in [ann.expect("ann's call"), bob.expect("bob's call")] {
        assert_eq!(report.outcome, Outcome::CallerHungUp);
        assert!(loud_ms(&report) > 500, "{} ms of the other were heard", loud_ms(&report));
    }
    let (passed, lost) = road.counts();
    let share = lost as f64 / (passed + lost) as f64;
    assert!(passed > 100 && (0.1..0.3).contains(&share), "{lost} of {}", passed + lost);
}

/// Half a second of tone and of silence, again and again.
fn talkative() -> CallScript {
    let tone = || (0..4_000u32).map(|at| (8_000.0 * (at as f32 * 0.4).sin()) as i16).collect();
    let burst = |number: usize| [Step::Say { pcm8k: tone(), label: number.to_string() }, Step::Wait { ms: 500 }];
    let mut steps: Vec<Step> = (0..BURSTS).flat_map(burst).collect();
    steps.push(Step::HangUp);
    CallScript { steps, limit_ms: LIMIT_MS }
}

/// How much of the other was heard.
fn loud_ms(report: &CallReport) -> usize {
    let loud = |piece: &&[u8]| piece.iter().any(|&byte| byte & 0x7F < 0x30);
    report.recording.agent.chunks(80).filter(loud).count() * 10
}
