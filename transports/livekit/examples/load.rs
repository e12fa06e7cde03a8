//! What rooms cost: people in pairs, each sending 50 packets a second and hearing the other, all in this process.
//!
//!     VOICED_LIVEKIT_SERVER=... cargo run --release -p voiced-livekit --example load -- 25

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use voiced_core::packet::{Codec, Packet};
use voiced_lab::livekit::{Server, or_skip};
use voiced_livekit::{JoinOptions, LiveKit, MediaSettings, PublishTrack, RoomEvent};

const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rooms: u32 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(25);
    let Some(binary) = or_skip(Server::find()) else { return };
    let server = Server::start(&binary, None).await.expect("the server starts");
    let livekit = LiveKit::start(MediaSettings::default()).expect("a media thread");
    let heard = Arc::new(AtomicU64::new(0));
    let empty_kib = resident_kib();
    let mut people = Vec::new();
    let joining = Instant::now();
    for index in 0..rooms * 2 {
        people.push(join(&livekit, &server, index, heard.clone()).await);
    }
    println!("{} joins one after the other in {:.1?}", people.len(), joining.elapsed());
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let (start, mut measuring) = (Instant::now(), None);
    for number in 0u32.. {
        tick.tick().await;
        for room in &people {
            room.send(0, Packet::new(Codec::Opus, number, number * 20, &[0x78; 80]).expect("fits"));
        }
        if measuring.is_none() && start.elapsed() >= WARM_UP {
            measuring = Some((Instant::now(), cpu(), heard.load(Ordering::Relaxed)));
        }
        if let Some((since, (all, media), before)) = measuring.filter(|(since, ..)| since.elapsed() >= MEASURED) {
            let (seconds, count) = (since.elapsed().as_secs_f64(), people.len() as f64);
            let (all_now, media_now) = cpu();
            let packets = (heard.load(Ordering::Relaxed) - before) as f64;
            let percent = |ticks: u64| ticks as f64 / seconds; // 100 ticks a second
            println!(
                "{:.2} % of a core per participant in all, {:.2} % on the media thread",
                percent(all_now - all) / count,
                percent(media_now - media) / count
            );
            println!(
                "{:.1} us of all per packet sent and heard, {:.1} us on the media thread",
                (all_now - all) as f64 * 1e4 / packets,
                (media_now - media) as f64 * 1e4 / packets
            );
            println!("{:.0} of {:.0} packets heard", packets, seconds * 50.0 * count);
            println!("{:.0} KiB per participant", (resident_kib() - empty_kib) as f64 / count);
            return;
        }
    }
}

async fn join(livekit: &LiveKit, server: &Server, index: u32, heard: Arc<AtomicU64>) -> voiced_livekit::Room {
    let options = JoinOptions {
        url: server.url(),
        token: server.token(&format!("room-{}", index / 2), &format!("person-{index}")).to_jwt().expect("a token"),
        publish: vec![PublishTrack { name: "voice".to_owned(), codec: Codec::Opus }],
        auto_subscribe: true,
        attributes: [].into(),
    };
    let (room, mut events) = livekit.join(options).await.expect("let in");
    let listening = room.clone();
    let (connected, is_connected) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut connected = Some(connected);
        while let Some(event) = events.recv().await {
            match event {
                RoomEvent::Connected => drop(connected.take()),
                RoomEvent::TrackSubscribed { track, .. } => {
                    let heard = heard.clone();
                    listening.listen(&track.sid, Box::new(move |_| _ = heard.fetch_add(1, Ordering::Relaxed)));
                }
                _ => {}
            }
        }
    });
    let _ = is_connected.await;
    room
}

/// Clock ticks used by the process, and by its media thread.
fn cpu() -> (u64, u64) {
    let ticks = |path: std::path::PathBuf| -> u64 {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.get(11..13).map_or(0, |times| times.iter().filter_map(|time| time.parse::<u64>().ok()).sum())
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let media = tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("livekit-media")));
    (ticks("/proc/self/stat".into()), media.map(|task| ticks(task.path().join("stat"))).sum())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
