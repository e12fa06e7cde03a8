//! What goes wrong, at random, while a soak runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use voiced_lab::ema::{Behaviour, EmaReceiver};
use voiced_lab::providers::{FakeProviders, Fault};

use super::daemon::Daemon;

/// Between two faults, s.
const EVERY_S: std::ops::Range<f64> = 1.0..5.0;
/// Requests that meet a provider's fault.
const REQUESTS: std::ops::Range<u32> = 1..4;

/// Does something wrong every few seconds; returns what, and how often.
pub async fn run(fakes: Arc<FakeProviders>, ema: Arc<EmaReceiver>, daemon: Arc<Daemon>, mut rng: StdRng, stop: Arc<AtomicBool>) -> BTreeMap<&'static str, u32> {
    let mut done: BTreeMap<&'static str, u32> = BTreeMap::new();
    while !stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_secs_f64(rng.random_range(EVERY_S))).await;
        let requests = rng.random_range(REQUESTS);
        let what = match rng.random_range(0..9) {
            0 | 1 => {
                fakes.deepgram.fault.set_for(requests, provider(&mut rng));
                "speech to text"
            }
            2 | 3 => {
                fakes.openai_chat.fault.set_for(requests, provider(&mut rng));
                "language model"
            }
            4 | 5 => {
                fakes.cartesia.fault.set_for(requests, provider(&mut rng));
                "voice"
            }
            6 => {
                ema.behave(receiver(&mut rng));
                "receiver of events"
            }
            7 => {
                daemon.suspend(Duration::from_millis(rng.random_range(100..3_000))).await;
                "suspended"
            }
            _ => {
                let _ = daemon.send(&garbage(&mut rng)).await; // whatever it says to that
                "garbage"
            }
        };
        *done.entry(what).or_default() += 1;
    }
    done
}

/// All is well from now on.
pub fn heal(fakes: &FakeProviders, ema: &EmaReceiver) {
    for provider in [&fakes.deepgram, &fakes.openai_chat, &fakes.cartesia] {
        provider.fault.set(Fault::None);
    }
    ema.behave(None);
}

const OF_PROVIDERS: [Fault; 10] = [
    Fault::NeverAnswers,
    Fault::HalfOpen,
    Fault::DiesMidReply,
    Fault::StallsMidReply,
    Fault::TooManyRequests,
    Fault::Unavailable(3),
    Fault::ServerError,
    Fault::Garbage,
    Fault::Drips,
    Fault::WrongContentType,
];

fn provider(rng: &mut StdRng) -> Fault {
    OF_PROVIDERS[rng.random_range(0..OF_PROVIDERS.len())]
}

fn receiver(rng: &mut StdRng) -> Option<Behaviour> {
    match rng.random_range(0..4) {
        0 => Some(Behaviour::Fails { times: rng.random_range(1..200) }),
        1 => Some(Behaviour::Unsuccessful { times: rng.random_range(1..20) }),
        2 => Some(Behaviour::Slow { ms: rng.random_range(50..3_000) }),
        _ => None,
    }
}

/// Bytes that begin like a request, or like nothing.
fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let heads: [&[u8]; 4] = [
        b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\nConnection: close\r\n\r\n",
        b"GET /twilio/stream/CA1 HTTP/1.1\r\n",
        b"",
        b"\x16\x03\x01",
    ];
    let mut bytes = heads[rng.random_range(0..heads.len())].to_vec();
    bytes.extend((0..rng.random_range(1..4_000)).map(|_| rng.random::<u8>()));
    bytes
}
