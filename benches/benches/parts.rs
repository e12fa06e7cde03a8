//! What one call costs, part by part: a line's messages, the codecs, hearing a room, a change of rate, voice activity,
//! noise cancellation, TLS to providers.
#![allow(missing_docs)] // divan names the benches by their functions

use std::borrow::Cow;
use std::io::{Cursor, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box, black_box_drop};
use ort::session::Session;
use ort::value::TensorRef;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use voiced_benches::Speech;
use voiced_core::codec::opus::{DECODED_LEN_MAX, ENCODED_LEN, OpusDecoder, OpusEncoder};
use voiced_core::codec::{mulaw_decode, mulaw_encode, sample_from_f32};
use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::hear::opus::OpusEar;
use voiced_core::model::{Denoise, TurnFeatures, VAD_WINDOW, VoiceActivity};
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::resample::Resampler;
use voiced_models_local::denoise::Gtcrn;
use voiced_models_local::end_of_turn::SmartTurnFeatures;
use voiced_models_local::onnx::open_session;
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{GTCRN, ONNX_RUNTIME, SILERO_VAD, Weights};
use voiced_twilio::untrusted::Line;

fn main() {
    divan::main();
}

/// A telephone's message, from the bytes on its socket to its packet, by our own reader.
#[divan::bench]
fn twilio_message_to_packet(bencher: Bencher<'_, '_>) {
    let message = twilio_message();
    let mut bytes = message.clone();
    let mut packets = 0;
    bencher.bench_local(|| {
        bytes.copy_from_slice(black_box(&message));
        let mut line = Line::default();
        line.hear(&mut bytes, |packet| packets += black_box(packet).payload().len())
    });
    assert!(packets > 0 && packets % 160 == 0, "no sound in {packets} bytes");
}

/// The same by the usual libraries.
#[divan::bench]
fn twilio_message_to_packet_by_tungstenite_and_serde(bencher: Bencher<'_, '_>) {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Option<Cow<'a, str>>,
        #[serde(borrow)]
        media: Option<Media<'a>>,
    }
    #[derive(Deserialize)]
    struct Media<'a> {
        #[serde(borrow)]
        track: Cow<'a, str>,
        #[serde(borrow)]
        timestamp: Cow<'a, str>,
        #[serde(borrow)]
        payload: Cow<'a, str>,
    }
    let message = twilio_message();
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let mut socket = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Server, Some(config));
    let mut sound = Vec::new();
    bencher.bench_local(|| {
        let cursor = socket.get_mut();
        cursor.set_position(0);
        cursor.get_mut().clear();
        cursor.get_mut().extend_from_slice(black_box(&message));
        let received = socket.read().expect("a message");
        let wire: Wire<'_> = serde_json::from_str(received.to_text().expect("text")).expect("media");
        black_box((wire.event, wire.stream_sid));
        let media = wire.media.expect("media");
        sound.clear();
        STANDARD.decode_vec(media.payload.as_bytes(), &mut sound).expect("base64");
        black_box(media.track);
        Packet::new(Codec::Mulaw, 0, media.timestamp.parse().expect("a number"), &sound).expect("20 ms fit a packet")
    });
}

/// As Twilio sends it: a masked frame of text.
fn twilio_message() -> Vec<u8> {
    let sound: [u8; 160] = std::array::from_fn(|i| (i * 7) as u8);
    let text = format!(
        r#"{{"event":"media","sequenceNumber":"1207","media":{{"track":"inbound","chunk":"1206","timestamp":"24120","payload":"{}"}},"streamSid":"MZ33333333333333333333333333333333"}}"#,
        STANDARD.encode(sound)
    );
    let (len, key) = ((text.len() as u16).to_be_bytes(), [0x37, 0xFA, 0x21, 0x3D]);
    let masked = text.bytes().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    [0x81, 0xFE].into_iter().chain(len).chain(key).chain(masked).collect()
}

#[divan::bench]
fn mulaw_decode_20_ms(bencher: Bencher<'_, '_>) {
    let bytes: [u8; 160] = std::array::from_fn(|i| i as u8);
    let mut sound = [0.0; 160];
    bencher.bench_local(|| mulaw_decode(black_box(&bytes), black_box(&mut sound)));
}

#[divan::bench]
fn mulaw_encode_20_ms(bencher: Bencher<'_, '_>) {
    let mut speech = Speech::new(8_000, 0);
    let sound: [i16; 160] = std::array::from_fn(|_| sample_from_f32(speech.next_sample()));
    let mut bytes = [0; 160];
    bencher.bench_local(|| mulaw_encode(black_box(&sound), black_box(&mut bytes)));
}

/// Seconds of speech that the benches of Opus go through again and again.
const OPUS_PACKETS: usize = 500;

#[divan::bench]
fn opus_encode_20_ms(bencher: Bencher<'_, '_>) {
    let mut encoder = OpusEncoder::new().expect("libopus has memory");
    let mut speech = Speech::new(48_000, 0);
    let sound: Vec<i16> = (0..OPUS_PACKETS * ENCODED_LEN).map(|_| sample_from_f32(speech.next_sample())).collect();
    let mut packets = sound.chunks(ENCODED_LEN).cycle();
    let mut bytes = [0; PACKET_BYTES_MAX];
    bencher.bench_local(|| packets.next().map(|sound| encoder.encode(black_box(sound), black_box(&mut bytes))));
}

#[divan::bench]
fn opus_decode_20_ms(bencher: Bencher<'_, '_>) {
    let mut decoder = OpusDecoder::new().expect("libopus has memory");
    let packets = opus_packets();
    let mut packets = packets.iter().cycle();
    let mut sound = [0.0; DECODED_LEN_MAX];
    bencher.bench_local(|| packets.next().map(|packet| decoder.decode(black_box(packet.payload()), black_box(&mut sound))));
}

/// An ear of a room for 20 ms, with so many percent of the packets lost: two ticks and a packet.
#[divan::bench(args = [0, 10])]
fn opus_hear_20_ms(bencher: Bencher<'_, '_>, loss_percent: usize) {
    let mut ear = OpusEar::new().expect("libopus has memory");
    let packets = opus_packets();
    let mut sequence = 0;
    let mut heard = [0.0; HEARD_LEN];
    bencher.bench_local(|| {
        let packet = &packets[sequence as usize % OPUS_PACKETS];
        if sequence as usize * 7 % 100 >= loss_percent
            && let Some(packet) = Packet::new(Codec::Opus, sequence, sequence * 20, packet.payload())
        {
            ear.receive(black_box(&packet));
        }
        sequence += 1;
        ear.tick(black_box(&mut heard));
        ear.tick(black_box(&mut heard));
    });
}

fn opus_packets() -> Vec<Packet> {
    let mut encoder = OpusEncoder::new().expect("libopus has memory");
    let mut speech = Speech::new(48_000, 0);
    let packet = |sequence| {
        let sound: [i16; ENCODED_LEN] = std::array::from_fn(|_| sample_from_f32(speech.next_sample()));
        let mut bytes = [0; PACKET_BYTES_MAX];
        let len = encoder.encode(&sound, &mut bytes);
        Packet::new(Codec::Opus, sequence, sequence * 20, &bytes[..len]).expect("an encoder's packet fits")
    };
    (0..OPUS_PACKETS as u32).map(packet).collect()
}

#[divan::bench(args = [(8_000, 16_000), (24_000, 8_000), (48_000, 16_000)])]
fn resample_10_ms(bencher: Bencher<'_, '_>, (from_hz, to_hz): (u32, u32)) {
    let mut resampler = Resampler::new(from_hz, to_hz);
    let mut speech = Speech::new(from_hz, 0);
    let input: Vec<f32> = (0..from_hz / 100).map(|_| speech.next_sample()).collect();
    let mut output = vec![0.0; resampler.output_len_max(input.len())];
    bencher.bench_local(|| resampler.process(black_box(&input), black_box(&mut output)));
}

/// Calls that voice activity hears at once: a window of 32 ms of each; an item is a call.
const CALLS: [usize; 4] = [1, 8, 32, 128];

#[divan::bench(args = CALLS)]
fn vad_own_kernel(bencher: Bencher<'_, '_>, calls: usize) {
    let mut silero = Silero::load(&weights(SILERO_VAD), calls).expect("the weights are those of the manifest");
    let slots: Vec<usize> = (0..calls).collect();
    let windows = windows(calls);
    let mut probabilities = vec![0.0; calls];
    bencher.counter(ItemsCount::new(calls)).bench_local(|| silero.run(&slots, black_box(&windows), black_box(&mut probabilities)));
}

/// The model's first axis is time, so calls cannot share a run. State is not carried over, which saves it copies.
#[divan::bench(args = CALLS)]
fn vad_onnx_runtime(bencher: Bencher<'_, '_>, calls: usize) {
    let mut session = open_session(&weights(ONNX_RUNTIME), &weights(SILERO_VAD)).expect("the weights are those of the manifest");
    let windows = windows(calls);
    bencher.counter(ItemsCount::new(calls)).bench_local(|| windows.iter().for_each(|window| run(&mut session, window)));
}

fn run(session: &mut Session, window: &[f32; VAD_WINDOW]) {
    let mut input = [0.0; 64 + VAD_WINDOW]; // the model hears the last 64 samples of the window before, too
    input[64..].copy_from_slice(window);
    let state = [0.0f32; 128];
    let tensor = |shape: Vec<usize>, values| TensorRef::from_array_view((shape, values)).expect("the shape fits");
    let (input, hidden, cell) = (tensor(vec![1, 576], &input[..]), tensor(vec![1, 1, 128], &state[..]), tensor(vec![1, 1, 128], &state[..]));
    black_box_drop(session.run(ort::inputs!["input" => input, "h" => hidden, "c" => cell]).expect("the model runs"));
}

/// Calls that noise cancellation cleans at once.
const CLEANED: [usize; 3] = [1, 16, 64];
/// Ticks after which frames of 16 ms and ticks of 10 begin together again.
const ROUND: usize = 8;

/// 80 ms of each call, since a frame of the network is not full at every tick; an item is 10 ms of a call.
#[divan::bench(args = CLEANED)]
fn denoise(bencher: Bencher<'_, '_>, calls: usize) {
    let mut engine = Gtcrn::load(&weights(GTCRN), calls).expect("the weights are those of the manifest");
    let slots: Vec<usize> = (0..calls).collect();
    let mut speech: Vec<Speech> = (0..calls as u32).map(|call| Speech::new(16_000, call)).collect();
    let frame = |speech: &mut Speech| -> HeardFrame { std::array::from_fn(|_| speech.next_sample()) };
    let rounds: Vec<Vec<HeardFrame>> = (0..ROUND).map(|_| speech.iter_mut().map(frame).collect()).collect();
    bencher.counter(ItemsCount::new(calls * ROUND)).with_inputs(|| rounds.clone()).bench_local_refs(|rounds| {
        for frames in rounds {
            engine.run(&slots, black_box(frames));
        }
    });
}

/// What the end-of-turn model will see, kept up to date by 10 ms of a call.
#[divan::bench]
fn end_of_turn_features_10_ms(bencher: Bencher<'_, '_>) {
    let mut features = SmartTurnFeatures::new(1);
    let mut speech = Speech::new(16_000, 0);
    let frames: Vec<HeardFrame> = (0..100).map(|_| std::array::from_fn(|_| speech.next_sample())).collect();
    let mut frames = frames.iter().cycle();
    bencher.with_inputs(|| frames.next().expect("they go round")).bench_local_values(|frame| features.push(0, black_box(frame)));
}

/// Bytes of a provider's messages: some words, 100 ms of mu-law, 100 ms of a voice in Base64.
const MESSAGES: [usize; 3] = [200, 800, 2_200];

/// What TLS adds to a message to a provider.
#[divan::bench(args = MESSAGES)]
fn provider_tls_seal(bencher: Bencher<'_, '_>, bytes: usize) {
    let (mut client, _server) = tls_pair(&Tls::new());
    let message = vec![7; bytes];
    let mut wire = Vec::with_capacity(2 * bytes);
    bencher.bench_local(|| {
        wire.clear();
        client.writer().write_all(black_box(&message)).expect("there is room");
        client.write_tls(&mut wire).expect("there is room")
    });
}

/// What TLS adds to a message from a provider.
#[divan::bench(args = MESSAGES)]
fn provider_tls_open(bencher: Bencher<'_, '_>, bytes: usize) {
    let (mut client, mut server) = tls_pair(&Tls::new());
    let message = vec![7; bytes];
    let sealed = || {
        let mut wire = Vec::with_capacity(2 * bytes);
        server.writer().write_all(&message).expect("there is room");
        server.write_tls(&mut wire).expect("there is room");
        wire
    };
    let mut text = vec![0; bytes];
    bencher.with_inputs(sealed).bench_local_values(|wire| {
        client.read_tls(&mut &wire[..]).expect("there is room");
        client.process_new_packets().expect("sealed by the other");
        client.reader().read_exact(&mut text).expect("a whole message");
    });
}

/// A connection to a provider that was met before: what both sides compute for it.
#[divan::bench]
fn provider_tls_handshake_of_both_sides(bencher: Bencher<'_, '_>) {
    let tls = Tls::new();
    tls_pair(&tls);
    let (again, _) = tls_pair(&tls);
    assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed));
    bencher.bench_local(|| tls_pair(&tls));
}

/// Two who trust each other.
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).expect("a certificate");
        let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let server = server.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).expect("a certificate");
        Self { client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()), server: Arc::new(server) }
    }
}

fn tls_pair(tls: &Tls) -> (ClientConnection, ServerConnection) {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(tls.client.clone(), name).expect("a client");
    let mut server = ServerConnection::new(tls.server.clone()).expect("a server");
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("there is room");
        }
        server.read_tls(&mut &wire[..]).expect("there is room");
        server.process_new_packets().expect("the client keeps to TLS");
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("there is room");
        }
        client.read_tls(&mut &wire[..]).expect("there is room");
        client.process_new_packets().expect("the server keeps to TLS");
    }
    (client, server)
}

fn windows(calls: usize) -> Vec<[f32; VAD_WINDOW]> {
    (0..calls as u32)
        .map(|call| {
            let mut speech = Speech::new(16_000, call);
            std::array::from_fn(|_| speech.next_sample())
        })
        .collect()
}

fn weights(name: &str) -> PathBuf {
    Weights::at(Weights::default_dir()).path(name).unwrap_or_else(|error| panic!("{error}"))
}
