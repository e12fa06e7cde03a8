//! Each vendor against its fake, over real sockets.

mod language_model;
mod speech_to_text;
mod text_to_speech;
mod tools;

use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use voiced_core::id::TurnId;
use voiced_core::model::{LlmEvent, LlmRequest, Message, Speaker, SttEvent, TtsEvent};
use voiced_lab::providers::{Answer, Fake, FakeProviders, Fault, Latency, Script};
use voiced_models_remote::account::{Account, Timeouts};
use voiced_models_remote::cartesia::{Cartesia, CartesiaSettings};
use voiced_models_remote::deepgram::{Deepgram, DeepgramSettings};
use voiced_models_remote::llm::Llm;
use voiced_models_remote::openai_chat::{OpenAiChat, OpenAiChatSettings};
use voiced_models_remote::openai_tts::{OpenAiTts, OpenAiTtsSettings};
use voiced_models_remote::secret::Secret;
use voiced_models_remote::stt::{Stt, SttEncoding, SttInput, SttSession};
use voiced_models_remote::tts::{Tts, TtsInput};

/// A test that waits longer than this hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);
const KEY: &str = "sk-lab-key";
const WRONG_KEY: &str = "sk-wrong-key";

fn account(fake: &Fake, key: &str) -> Account {
    // long enough for a busy machine where an answer is due, short where none will come
    let timeouts = Timeouts { connect_ms: 400, first_byte_ms: 400, idle_ms: 400, half_open_ms: 600, finalize_ms: 5_000, may_wait_again: true };
    Account { timeouts, ..Account::new(fake.base_url.clone(), Secret::new(key)) }
}

async fn fakes(script: Script) -> FakeProviders {
    let quick = Latency { stt_interim_ms: 10, stt_final_ms: 5, llm_first_ms: 5, llm_word_ms: 1, tts_first_ms: 5 };
    FakeProviders::start(quick, script).await.unwrap()
}

async fn next<T>(events: &mut mpsc::Receiver<T>) -> Option<T> {
    tokio::time::timeout(HANGS_AFTER, events.recv()).await.expect("an event or the end")
}

async fn all<T>(mut events: mpsc::Receiver<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(event) = next(&mut events).await {
        all.push(event);
    }
    all
}

async fn wait_until_cancelled(fake: &Fake) {
    let mut seen = fake.seen();
    let cancelled = seen.wait_for(|seen| seen.cancelled > 0);
    tokio::time::timeout(HANGS_AFTER, cancelled).await.expect("the provider to see it").unwrap();
}

fn requests(fake: &Fake) -> u32 {
    fake.seen().borrow().requests
}
