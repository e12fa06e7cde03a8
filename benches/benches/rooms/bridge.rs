//! A telephone call in its room: how much later people there hear the caller, and what the choice of codec for that leg
//! costs. The bridge hands the caller's mu-law on as it is; Opus would be encoded for it, packet by packet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use voiced_benches::{Chirps, Heard};
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder};
use voiced_core::codec::{mulaw_decode, mulaw_encode, sample_from_f32};
use voiced_core::packet::PACKET_BYTES_MAX;
use voiced_core::resample::Resampler;
use voiced_lab::phone::{CallScript, PhoneEvent, Step};
use voiced_livekit::{LiveKit, MediaSettings};

use crate::host::Host;
use crate::people::{PACKET, Person};
use crate::process::{percentile, rounded};
use crate::voice::Voice;
use crate::{Stage, probe};

/// Chirps that the caller says.
const CHIRPS: u32 = 50;
/// Before them: the greeting, and somebody who joins the room.
const BEFORE_MS: u64 = 5_000;
/// After the last.
const AFTER_MS: u64 = 1_000;
/// What comes later than this is not looked for.
const LATE: Duration = Duration::from_millis(600);
/// Bytes of 20 ms of mu-law.
const PACKET_BYTES: usize = 160;
/// Delay of libopus's encoder for a voice, in ms: its look-ahead at 48 kHz.
const LOOK_AHEAD_MS: f64 = 6.5;

pub async fn run(stage: &Stage) -> Result<Value> {
    let host = Arc::new(Host::start(stage, &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true")]).await?);
    let livekit = LiveKit::start(MediaSettings::default())?;
    let pcm8k: Vec<i16> = Chirps::at(8_000).sound(CHIRPS).into_iter().map(sample_from_f32).collect();
    let packets = pcm8k.len() / PACKET_BYTES;
    let limit_ms = BEFORE_MS + u64::from(CHIRPS * Chirps::len_ms()) + AFTER_MS;
    let steps = vec![Step::Wait { ms: BEFORE_MS }, Step::Say { pcm8k, label: "chirps".into() }, Step::Wait { ms: AFTER_MS }, Step::HangUp];
    let begun: Arc<Mutex<[Option<Instant>; 2]>> = Arc::default();
    let (phone, moments) = (host.phone()?, Arc::clone(&begun));
    let call = tokio::spawn(async move {
        let observer = move |at_ms: u64, event: PhoneEvent<'_>| {
            let mut moments = moments.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                PhoneEvent::Connected => moments[0] = Some(Instant::now()),
                PhoneEvent::CallerStarted(_) => moments[1] = moments[0].map(|connected| connected + Duration::from_millis(at_ms)),
                _ => {}
            }
        };
        phone.call(CallScript { steps, limit_ms: limit_ms * 2 }, &observer).await
    });
    let room = format!("twilio-{}", host.call().await?);
    let listener = Person::join(&livekit, &stage.server, &stage.server.url(), &room, "caller-").await?;
    call.await??;
    let said = begun.lock().unwrap_or_else(PoisonError::into_inner)[1].context("the caller said nothing")?;
    // a packet leaves when its 20 ms are complete
    let sent: Vec<Instant> = (1..=packets as u32).map(|number| said + PACKET * number).collect();
    let delays = probe::delays_ms(&sent, &Heard::decode(listener.take_heard())?, LATE);
    ensure!(!delays.is_empty(), "no chirp was found in the room");
    let opus_us = opus_us_per_packet(&stage.voice)?;
    let per_s = 1.0 / PACKET.as_secs_f64();
    Ok(json!({
        "found": delays.len(), "of": CHIRPS, "to_room_ms": { "p50": percentile(&delays, 50), "p95": percentile(&delays, 95) },
        "opus_us_per_packet": rounded(opus_us, 1), "opus_percent_of_core": rounded(opus_us * per_s / 1e4, 2),
        "opus_would_add_ms": rounded(LOOK_AHEAD_MS + Resampler::new(8_000, 48_000).delay_ms(), 1),
    }))
}

/// What a packet of mu-law would cost on its way to Opus.
fn opus_us_per_packet(voice: &Voice) -> Result<f64> {
    let speech = voice.speech(8_000);
    let mut bytes = vec![0; speech.len()];
    mulaw_encode(&speech, &mut bytes);
    let (mut encoder, mut to_48k) = (OpusEncoder::new()?, Resampler::new(8_000, 48_000));
    let begun = Instant::now();
    let mut packets = 0;
    for packet in bytes.chunks_exact(PACKET_BYTES) {
        let (mut at_8k, mut at_48k, mut out) = ([0.0; PACKET_BYTES], [0.0; ENCODED_LEN], [0; PACKET_BYTES_MAX]);
        mulaw_decode(packet, &mut at_8k);
        to_48k.process(&at_8k, &mut at_48k);
        std::hint::black_box(encoder.encode(&at_48k.map(sample_from_f32), &mut out));
        packets += 1;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(packets.max(1)))
}
