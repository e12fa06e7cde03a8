//! The local models in the shape of providers: sessions of channels in front of blocking inference.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use voiced_core::model::{LlmEvent, LlmRequest, SttEvent, TtsEvent};
use voiced_core::script::Script;
use voiced_models_local::stt::{Scratch, Whisper};
use voiced_models_local::tts::Piper;
use voiced_models_remote::llm::{self, Llm};
use voiced_models_remote::stt::{self, Stt, SttInput, SttSession};
use voiced_models_remote::tts::{self, Tts, TtsInput, TtsSession};

/// Sound kept for one transcription: what whisper takes at most, in samples at 16 kHz.
const UTTERANCE_MAX: usize = 28 * 16_000;

/// Whisper, one transcription at a time per place: it is the host's processor that is scarce.
pub struct LocalStt {
    whisper: Arc<Whisper>,
    places: Arc<Semaphore>,
}

impl LocalStt {
    pub fn new(whisper: Whisper) -> Self {
        let places = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self { whisper: Arc::new(whisper), places: Arc::new(Semaphore::new(places)) }
    }
}

impl Stt for LocalStt {
    /// A session is one turn of the caller: linear 16-bit sound at 16 kHz. Asked to finalise, it transcribes all of the turn
    /// so far, since a pause in the middle of a sentence must not cut what whisper knows of it in two.
    fn open(&self) -> SttSession {
        let (input, mut inputs) = mpsc::channel(stt::INPUT_MAX);
        let (events_in, events) = mpsc::channel(stt::EVENTS_MAX);
        let (whisper, places) = (Arc::clone(&self.whisper), Arc::clone(&self.places));
        tokio::spawn(async move {
            let mut sound: Vec<f32> = Vec::new();
            while let Some(input) = inputs.recv().await {
                match input {
                    SttInput::Audio(bytes) => {
                        let room = UTTERANCE_MAX.saturating_sub(sound.len());
                        sound.extend(bytes.chunks_exact(2).take(room).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0));
                    }
                    SttInput::Finalize => {
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                        let (whisper, heard) = (Arc::clone(&whisper), sound.clone());
                        let text = tokio::task::spawn_blocking(move || {
                            let _place = place;
                            whisper.transcribe(&heard, &mut Scratch::default())
                        });
                        let event = match text.await {
                            Ok(text) if text.trim().is_empty() => None,
                            Ok(text) => Some(SttEvent::Interim(text)),
                            Err(_) => Some(SttEvent::Failed("local/whisper: transcription failed".into())),
                        };
                        for event in event.into_iter().chain([SttEvent::Finalized]) {
                            if events_in.send(event).await.is_err() {
                                return;
                            }
                        }
                    }
                    SttInput::Close => return,
                }
            }
        });
        SttSession { input, events }
    }
}

/// `local/script`.
pub struct LocalScript(pub Script);

impl Llm for LocalScript {
    fn ask(&self, request: LlmRequest) -> mpsc::Receiver<LlmEvent> {
        let (answer, events) = mpsc::channel(llm::EVENTS_MAX);
        for event in self.0.answer(&request.stage, &request.history) {
            // an answer is a few events, the channel is far longer
            let _ = answer.try_send(event);
        }
        events
    }
}

/// Piper, shared by all calls: one phrase at a time.
pub struct LocalTts {
    piper: Arc<Mutex<Piper>>,
    rate_hz: u32,
}

impl LocalTts {
    pub fn new(piper: Piper) -> Self {
        let rate_hz = piper.rate_hz();
        Self { piper: Arc::new(Mutex::new(piper)), rate_hz }
    }
}

impl Tts for LocalTts {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn open(&self) -> TtsSession {
        let (input, mut inputs) = mpsc::channel(tts::INPUT_MAX);
        let (events_in, events) = mpsc::channel(tts::EVENTS_MAX);
        let piper = Arc::clone(&self.piper);
        tokio::spawn(async move {
            while let Some(TtsInput::Phrase { phrase, text }) = inputs.recv().await {
                let piper = Arc::clone(&piper);
                let spoken = tokio::task::spawn_blocking(move || {
                    let mut sound = Vec::new();
                    // a poisoned lock holds a model that is still whole: synthesis keeps no state between phrases
                    piper.lock().unwrap_or_else(PoisonError::into_inner).synthesize(&text, &mut sound).map(|_| sound)
                });
                let events = match spoken.await {
                    Ok(Ok(sound)) => {
                        let pieces = sound.chunks(tts::AUDIO_SAMPLES_MAX).map(|piece| TtsEvent::Audio { phrase, samples: piece.to_vec() });
                        pieces.chain([TtsEvent::PhraseDone(phrase)]).collect()
                    }
                    Ok(Err(error)) => vec![TtsEvent::Failed(format!("local/piper: {error}"))],
                    Err(_) => vec![TtsEvent::Failed("local/piper: synthesis failed".into())],
                };
                for event in events {
                    if events_in.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        TtsSession { input, events }
    }
}
