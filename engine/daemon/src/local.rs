//! The local models in the shape of providers: sessions of channels in front of blocking inference.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Mutex as WaitingMutex, Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use voiced_core::codec::sample_from_f32;
use voiced_core::model::{LlmEvent, LlmRequest, SttEvent, TtsEvent};
use voiced_core::script::Script;
use voiced_models_local::stt::{Scratch, UTTERANCE_SAMPLES_MAX, Whisper};
use voiced_models_local::tts::Piper;
use voiced_models_remote::llm::{self, Llm};
use voiced_models_remote::stt::{self, Stt, SttFeed, SttInput, SttSession};
use voiced_models_remote::tts::{self, Tts, TtsInput, TtsSession};

/// A turn of this length, 14 s at 16 kHz, is settled at its next pause and heard on from there: half of what whisper takes,
/// so that a turn must go on without a pause for as long again before words are lost.
const SETTLED_FROM: usize = UTTERANCE_SAMPLES_MAX / 2;
/// Sound that the cache of phrases holds, 8 MB: three minutes of speech, far more than a script says.
const CACHED_SAMPLES_MAX: usize = 4_000_000;

/// Whisper, one transcription at a time per place: it is the host's processor that is scarce.
#[derive(Clone)]
pub struct LocalStt(Arc<Transcriber>);

struct Transcriber {
    whisper: Whisper,
    places: Arc<Semaphore>,
    /// Working memory, one for each place once it was used.
    scratches: Mutex<Vec<Scratch>>,
}

impl LocalStt {
    pub fn new(whisper: Whisper) -> Self {
        let places = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self(Arc::new(Transcriber { whisper, places: Arc::new(Semaphore::new(places)), scratches: Mutex::default() }))
    }
}

impl Stt for LocalStt {
    fn feed(&self) -> SttFeed {
        SttFeed::Turns
    }

    /// A session is one turn of the caller: linear 16-bit sound at 16 kHz. Asked to finalise, it transcribes all of the turn
    /// so far, since a pause in the middle of a sentence must not cut what whisper knows of it in two.
    fn open(&self) -> SttSession {
        let (input, inputs) = mpsc::channel(stt::INPUT_MAX);
        let (events_in, events) = mpsc::channel(stt::EVENTS_MAX);
        let (hand_over, unsettled) = oneshot::channel();
        tokio::spawn(hear_turn(Arc::clone(&self.0), inputs, events_in, hand_over));
        SttSession { input, events, unsettled }
    }
}

/// Takes sound in while it transcribes. One transcription at a time: what is asked for meanwhile, the next one answers
/// together. When the session is over, what waits for a place is cancelled and what runs is not waited for.
async fn hear_turn(
    transcriber: Arc<Transcriber>,
    mut inputs: mpsc::Receiver<SttInput>,
    events: mpsc::Sender<SttEvent>,
    hand_over: oneshot::Sender<Vec<Bytes>>,
) {
    let mut turn = TurnSound::default();
    let mut work = JoinSet::new();
    loop {
        tokio::select! {
            input = inputs.recv() => match input {
                Some(SttInput::Audio(bytes)) => turn.keep(&bytes),
                Some(SttInput::Speaks) => {}
                Some(SttInput::Finalize) => turn.asked += 1,
                Some(SttInput::Close) | None => return,
            },
            Some(text) = work.join_next() => for event in turn.answer(text.ok().flatten()) {
                if matches!(event, SttEvent::Failed(_)) {
                    let _ = hand_over.send(vec![turn.bytes()]); // nobody has to want it
                    let _ = events.send(event).await;
                    return;
                }
                if events.send(event).await.is_err() {
                    return;
                }
            },
            () = events.closed() => return,
        }
        if work.is_empty() && turn.asked > 0 {
            work.spawn(Arc::clone(&transcriber).transcribe(turn.ask()));
        }
    }
}

impl Transcriber {
    async fn transcribe(self: Arc<Self>, sound: Vec<f32>) -> Option<String> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let text = spawn_blocking(move || {
            let _place = place;
            let mut scratch = self.scratches().pop().unwrap_or_default();
            let text = self.whisper.transcribe(&sound, &mut scratch);
            self.scratches().push(scratch);
            text
        });
        text.await.ok()
    }

    fn scratches(&self) -> MutexGuard<'_, Vec<Scratch>> {
        // a poisoned lock holds a list that is still whole
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn's sound that is not settled, and what is asked about it.
#[derive(Default)]
struct TurnSound {
    samples: Vec<f32>,
    asked: u32,
    /// What the transcription under way takes from `samples`, and how many times it was asked for.
    under_way: (usize, u32),
}

impl TurnSound {
    fn keep(&mut self, bytes: &[u8]) {
        let room = UTTERANCE_SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(bytes.as_chunks().0.iter().take(room).map(|&sample| f32::from(i16::from_le_bytes(sample)) / 32_768.0));
    }

    fn bytes(&self) -> Bytes {
        self.samples.iter().flat_map(|&sample| sample_from_f32(sample).to_le_bytes()).collect()
    }

    fn ask(&mut self) -> Vec<f32> {
        self.under_way = (self.samples.len(), std::mem::take(&mut self.asked));
        self.samples.clone()
    }

    fn answer(&mut self, text: Option<String>) -> Vec<SttEvent> {
        let (heard, asked) = self.under_way;
        let mut events = match text {
            None => vec![SttEvent::Failed("local/whisper: transcription failed".into())],
            Some(text) if heard >= SETTLED_FROM => {
                self.samples.drain(..heard);
                vec![SttEvent::Final(text)]
            }
            Some(text) => vec![SttEvent::Interim(text)],
        };
        events.retain(|event| !matches!(event, SttEvent::Interim(text) | SttEvent::Final(text) if text.trim().is_empty()));
        events.extend((0..asked).map(|_| SttEvent::Finalized));
        events
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

/// Piper, shared by all calls: one phrase at a time. The same text is the same sound, so what was said lately is kept.
#[derive(Clone)]
pub struct LocalTts {
    speaker: Arc<Speaker>,
    rate_hz: u32,
}

struct Speaker {
    piper: Arc<WaitingMutex<Piper>>,
    said: Mutex<SaidLately>,
}

impl LocalTts {
    pub fn new(piper: Piper) -> Self {
        let rate_hz = piper.rate_hz();
        let speaker = Speaker { piper: Arc::new(WaitingMutex::new(piper)), said: Mutex::default() };
        Self { speaker: Arc::new(speaker), rate_hz }
    }
}

impl Tts for LocalTts {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn open(&self) -> TtsSession {
        let (input, mut inputs) = mpsc::channel(tts::INPUT_MAX);
        let (events_in, events) = mpsc::channel(tts::EVENTS_MAX);
        let speaker = Arc::clone(&self.speaker);
        tokio::spawn(async move {
            while let Some(TtsInput::Phrase { phrase, text }) = inputs.recv().await {
                let sound = tokio::select! {
                    sound = speaker.speak(text) => sound,
                    () = events_in.closed() => return, // nobody wants to hear it any more
                };
                let events = match sound {
                    Ok(sound) => {
                        let pieces = sound.chunks(tts::AUDIO_SAMPLES_MAX).map(|piece| TtsEvent::Audio { phrase, samples: piece.to_vec() });
                        pieces.chain([TtsEvent::PhraseDone(phrase)]).collect()
                    }
                    Err(reason) => vec![TtsEvent::Failed(format!("local/piper: {reason}"))],
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

impl Speaker {
    /// The sound of a text. Dropped while it waits for the voice, it costs nothing.
    async fn speak(&self, text: String) -> Result<Arc<[i16]>, String> {
        if let Some(sound) = self.said().get(&text) {
            return Ok(sound);
        }
        let mut piper = Arc::clone(&self.piper).lock_owned().await;
        let spoken = spawn_blocking(move || {
            let mut sound = Vec::new();
            piper.synthesize(&text, &mut sound).map(|_| (text, Arc::<[i16]>::from(sound)))
        });
        let (text, sound) = spoken.await.map_err(|_| "synthesis failed".to_owned())?.map_err(|error| error.to_string())?;
        self.said().keep(text, Arc::clone(&sound));
        Ok(sound)
    }

    fn said(&self) -> MutexGuard<'_, SaidLately> {
        // a poisoned lock holds a list that is still whole
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Phrases and their sound, the one said last at the end.
#[derive(Default)]
struct SaidLately {
    phrases: VecDeque<(String, Arc<[i16]>)>,
    samples: usize,
}

impl SaidLately {
    fn get(&mut self, text: &str) -> Option<Arc<[i16]>> {
        let at = self.phrases.iter().position(|(said, _)| said == text)?;
        let phrase = self.phrases.remove(at)?;
        let sound = Arc::clone(&phrase.1);
        self.phrases.push_back(phrase);
        Some(sound)
    }

    fn keep(&mut self, text: String, sound: Arc<[i16]>) {
        // two calls may have said it at once, and what has no sound has no bound here
        if sound.is_empty() || self.get(&text).is_some() {
            return;
        }
        self.samples += sound.len();
        self.phrases.push_back((text, sound));
        while self.samples > CACHED_SAMPLES_MAX
            && let Some((_, oldest)) = self.phrases.pop_front()
        {
            self.samples -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_turn_is_settled_at_a_pause_and_heard_on_from_there() {
        let mut turn = TurnSound::default();
        turn.keep(&vec![1; 2 * SETTLED_FROM]);
        turn.asked = 1;
        assert_eq!(turn.ask().len(), SETTLED_FROM);
        turn.keep(&[1; 2 * 160]);
        turn.asked = 1;
        assert_eq!(turn.answer(Some("so far".into())), [SttEvent::Final("so far".into()), SttEvent::Finalized]);
        assert_eq!(turn.ask().len(), 160);
        assert_eq!(turn.answer(Some("and on".into())), [SttEvent::Interim("and on".into()), SttEvent::Finalized]);
        assert_eq!(turn.ask().len(), 160, "a short turn stays whole");
    }

    #[test]
    fn a_turns_sound_is_bounded_and_every_question_is_answered_once() {
        let mut turn = TurnSound::default();
        turn.keep(&vec![1; 3 * UTTERANCE_SAMPLES_MAX]);
        turn.asked = 2;
        assert_eq!(turn.ask().len(), UTTERANCE_SAMPLES_MAX);
        assert_eq!(turn.answer(Some(" ".into())), [SttEvent::Finalized, SttEvent::Finalized], "nothing said is no text");
        assert_eq!(turn.asked, 0);
    }

    #[test]
    fn phrases_said_lately_are_kept_and_the_oldest_give_way() {
        let mut said = SaidLately::default();
        let third: Arc<[i16]> = vec![0; CACHED_SAMPLES_MAX / 3].into();
        for text in ["one", "two", "three"] {
            said.keep(text.into(), Arc::clone(&third));
        }
        assert!(said.get("one").is_some());
        said.keep("four".into(), third);
        assert!(said.get("two").is_none());
        assert!(said.get("one").is_some() && said.get("three").is_some() && said.get("four").is_some());
        assert!(said.samples <= CACHED_SAMPLES_MAX);
    }
}
