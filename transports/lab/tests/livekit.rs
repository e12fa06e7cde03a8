//! The real livekit-server with official peers: what the room tests of other crates stand on.

use axum::{Router, routing::post};
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use url::Url;
use voiced_lab::livekit::AccessToken;
use voiced_lab::livekit::{Command, Peer, PeerEvent, PeerSettings, Server, or_skip};

const RATE: u32 = 48_000;
const ALICE_HZ: f64 = 440.0;
const BOB_HZ: f64 = 1000.0;

#[tokio::test]
async fn two_peers_hear_each_other() {
    let Some(stage) = Stage::start().await else { return };
    let mut alice = stage.joins(stage.server.token("talk", "alice")).await;
    let mut bob = stage.joins(stage.server.token("talk", "bob")).await;
    alice.wait_for("subscribed", from("bob")).await.expect("alice is given bob's track");
    bob.wait_for("subscribed", from("alice")).await.expect("bob is given alice's track");

    alice.send(&Command::Play(stage.tone("alice.wav", ALICE_HZ))).expect("alice speaks");
    let spoken = alice.wait_for("playing", |_| true).await.expect("alice says so");
    let heard = bob.wait_for("sound", |event| from("alice")(event) && event.is("on")).await.expect("bob hears alice");
    assert!(heard.unix_ms > spoken.unix_ms, "heard at {} what was spoken at {}", heard.unix_ms, spoken.unix_ms);
    let over = bob.wait_for("sound", |event| from("alice")(event) && !event.is("on")).await.expect("bob hears its end");
    let level = over.number("dbfs").expect("a level");
    assert!((-16.0..=-6.0).contains(&level), "a sine of a third of full scale comes as {level} dBFS");

    bob.send(&Command::Play(stage.tone("bob.wav", BOB_HZ))).expect("bob answers");
    alice.wait_for("sound", |event| from("bob")(event) && !event.is("on")).await.expect("alice hears bob to the end");

    let heard_by_alice = recording_of("bob", &alice.leave().await.expect("alice leaves"));
    let heard_by_bob = recording_of("alice", &bob.leave().await.expect("bob leaves"));
    assert!(power(&heard_by_alice, BOB_HZ) > 100.0 * power(&heard_by_alice, ALICE_HZ), "alice heard bob's tone, not her own");
    assert!(power(&heard_by_bob, ALICE_HZ) > 100.0 * power(&heard_by_bob, BOB_HZ), "bob heard alice's tone, not his own");
}

#[tokio::test]
async fn chat_attributes_keys_and_data_arrive() {
    let Some(stage) = Stage::start().await else { return };
    let mut alice = stage.joins(stage.server.token("chat", "alice")).await;
    let mut bob = stage.joins(stage.server.token("chat", "bob")).await;
    alice.wait_for("participant_joined", from("bob")).await.expect("alice sees bob");

    let attributes = BTreeMap::from([("lk.agent.state".to_owned(), "thinking".to_owned())]);
    for command in [Command::Chat("good morning".to_owned()), Command::Attributes(attributes), Command::Dtmf('#'), Command::Data("{}".to_owned())] {
        alice.send(&command).expect("alice can be told");
    }

    let text = bob.wait_for("text", from("alice")).await.expect("the text arrives");
    assert_eq!((text.text("topic"), text.text("text")), ("lk.chat", "good morning"));
    let changed = bob.wait_for("attributes", from("alice")).await.expect("the attributes arrive");
    assert_eq!(changed.attribute("lk.agent.state"), Some("thinking"));
    let key = bob.wait_for("dtmf", from("alice")).await.expect("the key arrives");
    assert_eq!(key.text("digit"), "#");
    let data = bob.wait_for("data", from("alice")).await.expect("the data arrives");
    assert_eq!(data.text("text"), "{}");
}

#[tokio::test]
async fn a_sip_caller_is_seen_with_its_number() {
    let Some(stage) = Stage::start().await else { return };
    let mut alice = stage.joins(stage.server.token("phone", "alice")).await;
    let sip = stage.server.token("phone", "sip_caller").with_kind("sip").with_attributes([("sip.phoneNumber", "+15550001111")]);
    let caller = stage.joins(sip).await;
    let seen = alice.wait_for("participant_joined", from("sip_caller")).await.expect("alice sees the caller");
    assert_eq!((seen.text("kind"), seen.attribute("sip.phoneNumber")), ("sip", Some("+15550001111")));
    caller.leave().await.expect("the caller hangs up");
    alice.wait_for("participant_left", from("sip_caller")).await.expect("alice sees that the caller is gone");
}

#[tokio::test]
async fn a_killed_server_is_gone_and_a_restarted_one_is_back_at_its_place() {
    let Some(mut stage) = Stage::start().await else { return };
    let url = stage.server.url();
    stage.server.kill().expect("it can be killed");
    reqwest::get(stage.server.http_url()).await.expect_err("nobody answers");
    stage.server.restart().await.expect("it starts again");
    assert_eq!(stage.server.url(), url);
    let alice = stage.joins(stage.server.token("again", "alice")).await;
    alice.leave().await.expect("alice was in the room");
}

#[tokio::test]
async fn the_server_posts_its_webhooks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let webhook = format!("http://{}/hook", listener.local_addr().expect("an address")).parse().expect("a URL");
    let (sender, mut posted) = mpsc::unbounded_channel();
    let receive = move |body: String| async move { sender.send(body).expect("the test waits") };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(receive))).await });

    let Some(stage) = Stage::start_with_webhook(Some(webhook)).await else { return };
    let _alice = stage.joins(stage.server.token("hooked", "alice")).await;
    let first = timeout(Duration::from_secs(20), posted.recv()).await.expect("in time").expect("a webhook");
    let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!((&first["event"], &first["room"]["name"]), (&"room_started".into(), &"hooked".into()));
}

#[tokio::test]
async fn an_echo_gives_back_what_is_said_and_tells_what_it_used() {
    let Some(stage) = Stage::start().await else { return };
    let token = stage.server.token("cave", "echo");
    let mut echo = Peer::echo(PeerSettings { record: None, ..stage.settings(&stage.python, token) }).await.expect("the echo joins");
    let mut alice = stage.joins(stage.server.token("cave", "alice")).await;
    alice.wait_for("subscribed", from("echo")).await.expect("alice is given the echo");
    alice.send(&Command::Play(stage.tone("alice.wav", ALICE_HZ))).expect("alice speaks");
    alice.wait_for("sound", |event| from("echo")(event) && event.is("on")).await.expect("alice hears her echo");
    echo.send(&Command::Usage(true)).expect("the echo can be asked");
    let usage = echo.wait_for("usage", |_| true).await.expect("it answers");
    assert!(usage.number("cpu_ms") > Some(0.0) && usage.number("echoed_ms") > Some(0.0), "{usage:?}");
}

#[tokio::test]
async fn a_browser_hears_and_is_heard() {
    let Some(stage) = Stage::start().await else { return };
    let Some(node) = or_skip(Peer::find_browser()) else { return };
    let mut alice = stage.joins(stage.server.token("web", "alice")).await;
    let spoken = stage.tone("browser.wav", BOB_HZ).display().to_string();
    let settings = stage.settings(&node, stage.server.token("web", "browser"));
    let mut browser = Peer::browse(PeerSettings { record: None, arguments: vec![spoken], ..settings }).await.expect("the browser joins");
    alice.wait_for("sound", from("browser")).await.expect("alice hears the browser");
    browser.wait_for("subscribed", from("alice")).await.expect("the browser is given alice's track");
    alice.send(&Command::Play(stage.tone("alice.wav", ALICE_HZ))).expect("alice speaks");
    browser.wait_for("sound", from("alice")).await.expect("the browser hears alice");
    browser.leave().await.expect("the browser leaves");
    let heard = recording_of("browser", &alice.leave().await.expect("alice leaves"));
    assert!(power(&heard, BOB_HZ) > 100.0 * power(&heard, ALICE_HZ), "alice heard what the browser's microphone was given");
}

/// A server, the SDK, and a folder.
struct Stage {
    server: Server,
    python: PathBuf,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Option<Self> {
        Self::start_with_webhook(None).await
    }

    async fn start_with_webhook(webhook: Option<Url>) -> Option<Self> {
        let (binary, python) = or_skip(Server::find().and_then(|binary| Ok((binary, Peer::find()?))))?;
        let server = Server::start(&binary, webhook).await.expect("the server starts");
        Some(Self { server, python, folder: tempfile::tempdir().expect("a folder") })
    }

    async fn joins(&self, token: AccessToken) -> Peer {
        Peer::join(self.settings(&self.python, token)).await.expect("the peer joins")
    }

    fn settings(&self, program: &Path, token: AccessToken) -> PeerSettings {
        // recordings are named by who is heard, so each peer has a folder of its own
        let record = tempfile::tempdir_in(&self.folder).expect("a folder").keep();
        PeerSettings {
            program: program.to_owned(),
            url: self.server.url(),
            token: token.to_jwt().expect("a token"),
            record: Some(record),
            seconds_max: 60,
            arguments: Vec::new(),
        }
    }

    /// A second of a sine of a third of full scale.
    fn tone(&self, name: &str, hz: f64) -> PathBuf {
        let path = self.folder.path().join(name);
        let spec = hound::WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let mut wav = hound::WavWriter::create(&path, spec).expect("a file");
        for n in 0..RATE {
            let sample = (TAU * hz * f64::from(n) / f64::from(RATE)).sin() * f64::from(i16::MAX) / 3.0;
            wav.write_sample(sample as i16).expect("a sample");
        }
        wav.finalize().expect("a whole file");
        path
    }
}

fn from(identity: &str) -> impl Fn(&PeerEvent) -> bool {
    move |event| event.text("identity") == identity
}

fn recording_of(identity: &str, events: &[PeerEvent]) -> Vec<f64> {
    let heard = events.iter().find(|event| event.event == "heard" && from(identity)(event)).expect("a recording");
    let mut wav = hound::WavReader::open(Path::new(heard.text("file"))).expect("a WAV file");
    assert_eq!((wav.spec().sample_rate, wav.spec().channels), (RATE, 1));
    wav.samples::<i16>().map(|sample| f64::from(sample.expect("a sample"))).collect()
}

/// Power of one frequency over the whole sound, summed over blocks so that its phase may slip between them (Goertzel).
fn power(samples: &[f64], hz: f64) -> f64 {
    let turn = 2.0 * (TAU * hz / f64::from(RATE)).cos();
    samples
        .chunks_exact(RATE as usize / 50)
        .map(|block| {
            let (last, before) = block.iter().fold((0.0, 0.0), |(last, before), sample| (sample + turn * last - before, last));
            last * last + before * before - turn * last * before
        })
        .sum()
}
