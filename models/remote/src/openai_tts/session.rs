//! The voice of one reply: phrases are fetched one ahead, so that the next is there when the one before ends, and come
//! out in order.

use super::{Shared, may_be_sound, request_body};
use crate::account::OPENAI;
use crate::failure::Failure;
use crate::pcm::{PcmDecoder, send_audio};
use crate::retry::Retries;
use crate::tts::{EVENTS_MAX, INPUT_MAX, TtsInput, TtsSession};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use voiced_core::model::TtsEvent;

/// Phrases that are fetched at once: the one that speaks and the next.
const FETCHES_MAX: usize = 2;
/// Pieces of sound of one phrase that wait for their turn; when full, the next phrase is not read on. At some 4 KiB a
/// piece, half a minute.
const PIECES_MAX: usize = 256;
/// Retries of a phrase before its first sound.
const RETRIES_MAX: u32 = 1;

pub(super) fn open(shared: Arc<Shared>) -> TtsSession {
    let (input, session_input) = mpsc::channel(INPUT_MAX);
    let (session_events, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = session_events.closed() => {} // the fetches end with their channels
            () = run(shared, session_input, &session_events) => {}
        }
    });
    TtsSession { input, events }
}

/// A phrase on its way.
struct Fetch {
    phrase: u32,
    sound: mpsc::Receiver<Result<Vec<i16>, Failure>>,
}

async fn run(shared: Arc<Shared>, mut input: mpsc::Receiver<TtsInput>, events: &mpsc::Sender<TtsEvent>) {
    let mut fetches = VecDeque::<Fetch>::new();
    let mut open = true;
    while open || !fetches.is_empty() {
        let room = open && fetches.len() < FETCHES_MAX;
        let head = async {
            match fetches.front_mut() {
                Some(fetch) => fetch.sound.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sound = head => {
                let phrase = fetches[0].phrase;
                let went = match sound {
                    Some(Ok(samples)) => send_audio(events, phrase, &samples).await,
                    Some(Err(failure)) => {
                        let _ = events.send(TtsEvent::Failed(failure.to_string())).await;
                        return;
                    }
                    None => {
                        fetches.pop_front();
                        events.send(TtsEvent::PhraseDone(phrase)).await
                    }
                };
                if went.is_err() {
                    return;
                }
            }
            asked = input.recv(), if room => match asked {
                Some(TtsInput::Phrase { phrase, text }) => {
                    fetches.push_back(Fetch { phrase, sound: fetch(Arc::clone(&shared), text) });
                }
                Some(TtsInput::End) | None => open = false,
            },
        }
    }
}

/// Starts a phrase's request; dropping the receiver cancels it.
fn fetch(shared: Arc<Shared>, text: String) -> mpsc::Receiver<Result<Vec<i16>, Failure>> {
    let (sound, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = sound.closed() => {}
            went = speak(&shared, &text, &sound) => {
                if let Err(failure) = went {
                    let _ = sound.send(Err(failure)).await;
                }
            }
        }
    });
    receiver
}

async fn speak(shared: &Shared, text: &str, sound: &mpsc::Sender<Result<Vec<i16>, Failure>>) -> Result<(), Failure> {
    if text.trim().is_empty() {
        return Ok(()); // nothing to say, and the provider would refuse to
    }
    let body = request_body(&shared.settings, text);
    let mut retries = Retries::new(RETRIES_MAX, &shared.settings.account.timeouts);
    loop {
        let mut heard = false;
        match stream(shared, &body, sound, &mut heard).await {
            Ok(()) => return Ok(()),
            Err(failure) if heard || !retries.again(&failure).await => return Err(failure),
            Err(_) => {}
        }
    }
}

async fn stream(shared: &Shared, body: &serde_json::Value, sound: &mpsc::Sender<Result<Vec<i16>, Failure>>, heard: &mut bool) -> Result<(), Failure> {
    let mut answer = shared.http.post(body).await?;
    if !may_be_sound(&answer.content_type()) {
        return Err(Failure::passing(OPENAI.name, "the answer is no sound"));
    }
    let mut decoder = PcmDecoder::default();
    while let Some(bytes) = answer.next().await? {
        let samples = decoder.push(&bytes);
        if samples.is_empty() {
            continue;
        }
        answer.answered();
        *heard = true;
        if sound.send(Ok(samples)).await.is_err() {
            return Ok(()); // cancelled
        }
    }
    if *heard { Ok(()) } else { Err(Failure::passing(OPENAI.name, "the answer held no sound")) }
}
