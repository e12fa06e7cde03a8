//! Replies under way: for each turn at most one attempt, with its language model and voice sessions. Sound is kept here,
//! resampled and cut into chunks, until the conversation releases it to the leg; dropping a reply cancels its providers.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use voiced_core::conversation::{Input, Spoken};
use voiced_core::frame::Rate;
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, SpeechChunk};
use voiced_core::model::{LlmRequest, TtsEvent};
use voiced_core::resample::Resampler;
use voiced_models_remote::llm::Llm;
use voiced_models_remote::tts::{Tts, TtsInput, TtsSession};
use voiced_rt::SoundProducer;

/// Turns with a reply under way: the one being heard, the guess after it, and one more while they change over.
const REPLIES_MAX: usize = 4;
/// Chunks kept for one reply: two minutes of speech. What a longer one has beyond it waits with its voice.
const CHUNKS_MAX: usize = 6_000;

/// What a provider said of a reply.
pub enum Said {
    Conversation(Input),
    Sound { turn: TurnId, attempt: u32, event: TtsEvent },
}

struct Reply {
    attempt: u32,
    tasks: Vec<AbortHandle>,
    voice: Option<mpsc::Sender<TtsInput>>,
    resampler: Resampler,
    pending: Vec<i16>,
    kept: VecDeque<Kept>,
    samples: VecDeque<i16>,
    /// Its voice is not heard for now.
    is_full: watch::Sender<bool>,
    released: bool,
    /// Its first sound was handed over.
    begun: bool,
    phrases: Option<u32>,
    phrases_done: u32,
    complete: bool,
}

impl Drop for Reply {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A chunk that waits: so many of the samples.
struct Kept {
    phrase: u32,
    end: ChunkEnd,
    samples: usize,
}

/// What [`Replies::hand_over`] did.
pub struct HandedOver {
    /// The first sound of a reply went over.
    pub begins: bool,
    /// Some is left.
    pub leaves: bool,
}

/// All replies of one call.
pub struct Replies {
    rate: Rate,
    by_turn: BTreeMap<TurnId, Reply>,
    said: mpsc::Sender<Said>,
}

impl Replies {
    /// For a leg of this rate; what providers say goes to `said`.
    pub fn new(rate: Rate, said: mpsc::Sender<Said>) -> Self {
        Self { rate, by_turn: BTreeMap::new(), said }
    }

    /// Starts an attempt, or goes on with it when its model broke off; an older one of the same turn is void.
    pub fn ask(&mut self, attempt: u32, request: LlmRequest, llm: &dyn Llm, tts_rate_hz: u32) {
        let turn = request.turn;
        let reply = match self.by_turn.get(&turn) {
            Some(reply) if reply.attempt == attempt => turn,
            _ => self.start(turn, attempt, tts_rate_hz),
        };
        let mut events = llm.ask(request);
        let said = self.said.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if said.send(Said::Conversation(Input::Llm { turn, attempt, event })).await.is_err() {
                    return;
                }
            }
        });
        if let Some(reply) = self.by_turn.get_mut(&reply) {
            reply.tasks.push(task.abort_handle());
        }
    }

    /// Has a phrase spoken.
    pub fn synthesize(&mut self, turn: TurnId, attempt: u32, phrase: u32, text: String, tts: &dyn Tts) {
        let turn = match self.by_turn.get(&turn) {
            Some(reply) if reply.attempt == attempt => turn,
            // a greeting or a prompt is spoken without asking a language model
            _ => self.start(turn, attempt, tts.rate_hz()),
        };
        let said = self.said.clone();
        let Some(reply) = self.by_turn.get_mut(&turn) else { return };
        if reply.voice.is_none() {
            let TtsSession { input, mut events } = tts.open();
            let mut is_full = reply.is_full.subscribe();
            let task = tokio::spawn(async move {
                while is_full.wait_for(|is_full| !is_full).await.is_ok()
                    && let Some(event) = events.recv().await
                {
                    if said.send(Said::Sound { turn, attempt, event }).await.is_err() {
                        return;
                    }
                }
            });
            reply.tasks.push(task.abort_handle());
            reply.voice = Some(input);
        }
        if let Some(voice) = &reply.voice
            && voice.try_send(TtsInput::Phrase { phrase, text }).is_err()
        {
            tracing::warn!(?turn, phrase, "the voice takes no more phrases of this reply");
        }
    }

    /// Takes sound in; what the conversation must know of it comes back.
    pub fn sound(&mut self, turn: TurnId, attempt: u32, event: TtsEvent) -> Option<Input> {
        let frame = self.rate.frame_len() * 2;
        let hz = u64::from(self.rate.hz());
        let reply = self.by_turn.get_mut(&turn).filter(|reply| reply.attempt == attempt)?;
        let event = match event {
            TtsEvent::By(name) => Spoken::By(name),
            TtsEvent::Audio { phrase, samples } => {
                let before = reply.pending.len();
                reply.resampler.process_i16(&samples, &mut reply.pending);
                let ms = (reply.pending.len() - before) as u64 * 1_000 / hz;
                let whole = reply.pending.len() / frame * frame;
                let mut sound = std::mem::take(&mut reply.pending);
                for piece in sound[..whole].chunks(frame) {
                    reply.keep(phrase, ChunkEnd::Nothing, piece);
                }
                sound.drain(..whole);
                reply.pending = sound;
                Spoken::Audio { phrase, ms: ms as u32 }
            }
            TtsEvent::PhraseDone(phrase) => {
                let rest = std::mem::take(&mut reply.pending);
                reply.keep(phrase, ChunkEnd::Phrase, &rest);
                reply.phrases_done = phrase + 1;
                reply.finish();
                Spoken::PhraseDone(phrase)
            }
            TtsEvent::Failed(reason) => Spoken::Failed(reason),
        };
        Some(Input::Tts { turn, attempt, event })
    }

    /// The reply has so many phrases and no more.
    pub fn end(&mut self, turn: TurnId, attempt: u32, phrases: u32) {
        let Some(reply) = self.by_turn.get_mut(&turn).filter(|reply| reply.attempt == attempt) else { return };
        if let Some(voice) = &reply.voice {
            let _ = voice.try_send(TtsInput::End); // a voice that is gone needs no end
        }
        reply.phrases = Some(phrases);
        reply.finish();
    }

    /// What was kept of the reply, and all that follows, may go to the leg. A filler before the words to answer is released
    /// with nothing asked for yet.
    pub fn release(&mut self, turn: TurnId, attempt: u32, tts_rate_hz: u32) {
        if self.by_turn.get(&turn).is_none_or(|reply| reply.attempt != attempt) {
            self.start(turn, attempt, tts_rate_hz);
        }
        if let Some(reply) = self.by_turn.get_mut(&turn) {
            reply.released = true;
        }
    }

    /// Cancels everything older.
    pub fn cancel_before(&mut self, turn: TurnId) {
        self.by_turn = self.by_turn.split_off(&turn);
    }

    /// Hands the leg as much released sound as its ring takes.
    pub fn hand_over(&mut self, speech: &mut SoundProducer<SpeechChunk>) -> HandedOver {
        let mut begins = false;
        for (turn, reply) in self.by_turn.iter_mut().filter(|(_, reply)| reply.released) {
            while speech.has_room()
                && let Some(chunk) = reply.next(*turn)
            {
                begins |= !std::mem::replace(&mut reply.begun, true);
                let _ = speech.push(&chunk); // room was just seen, and only we push
            }
        }
        self.by_turn.retain(|_, reply| !(reply.released && reply.complete && reply.kept.is_empty()));
        HandedOver { begins, leaves: self.by_turn.values().any(|reply| reply.released && !reply.kept.is_empty()) }
    }

    fn start(&mut self, turn: TurnId, attempt: u32, tts_rate_hz: u32) -> TurnId {
        let reply = Reply {
            attempt,
            tasks: Vec::new(),
            voice: None,
            resampler: Resampler::new(tts_rate_hz, self.rate.hz()),
            pending: Vec::new(),
            kept: VecDeque::new(),
            samples: VecDeque::new(),
            is_full: watch::Sender::new(false),
            released: false,
            begun: false,
            phrases: None,
            phrases_done: 0,
            complete: false,
        };
        self.by_turn.insert(turn, reply);
        while self.by_turn.len() > REPLIES_MAX {
            self.by_turn.pop_first();
        }
        turn
    }
}

impl Reply {
    fn keep(&mut self, phrase: u32, end: ChunkEnd, sound: &[i16]) {
        self.samples.extend(sound);
        self.kept.push_back(Kept { phrase, end, samples: sound.len() });
        self.weigh();
    }

    fn next(&mut self, turn: TurnId) -> Option<SpeechChunk> {
        let Kept { phrase, end, samples } = self.kept.pop_front()?;
        self.weigh();
        Some(SpeechChunk::of(turn, phrase, end, self.samples.drain(..samples)))
    }

    fn weigh(&self) {
        let is_full = self.kept.len() >= CHUNKS_MAX;
        self.is_full.send_if_modified(|was| std::mem::replace(was, is_full) != is_full);
    }

    fn finish(&mut self) {
        if !self.complete && self.phrases.is_some_and(|phrases| self.phrases_done >= phrases) {
            self.complete = true;
            self.kept.push_back(Kept { phrase: self.phrases_done.saturating_sub(1), end: ChunkEnd::Reply, samples: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::yield_now;

    /// Says each phrase in pieces of 100 ms, as quickly as they are taken.
    struct Quick {
        pieces: usize,
    }

    impl Tts for Quick {
        fn rate_hz(&self) -> u32 {
            8_000
        }

        fn open(&self) -> TtsSession {
            let (input, mut inputs) = mpsc::channel(8);
            let (sender, events) = mpsc::channel(8);
            let pieces = self.pieces;
            tokio::spawn(async move {
                while let Some(TtsInput::Phrase { phrase, .. }) = inputs.recv().await {
                    for _ in 0..pieces {
                        let _ = sender.send(TtsEvent::Audio { phrase, samples: vec![1; 800] }).await;
                    }
                    let _ = sender.send(TtsEvent::PhraseDone(phrase)).await;
                }
            });
            TtsSession { input, events }
        }
    }

    #[tokio::test]
    async fn a_reply_longer_than_what_is_kept_of_it_is_heard_whole() {
        let (said_in, mut said) = mpsc::channel(128);
        let (mut replies, turn) = (Replies::new(Rate::Hz8000, said_in), TurnId(1));
        let voice = Quick { pieces: 1_500 };
        for phrase in 0..2 {
            replies.synthesize(turn, 0, phrase, "Long.".into(), &voice);
        }
        replies.end(turn, 0, 2);
        let (mut samples, mut ends) = (0, Vec::new());
        while ends.last() != Some(&ChunkEnd::Reply) {
            // until the voice waits, or is done
            let mut idle = 0;
            while idle < 10 {
                if let Ok(Said::Sound { turn, attempt, event }) = said.try_recv() {
                    replies.sound(turn, attempt, event);
                    idle = 0;
                } else {
                    yield_now().await;
                    idle += 1;
                }
            }
            let reply = replies.by_turn.get_mut(&turn).expect("the reply");
            assert!((1..CHUNKS_MAX * 5 / 4).contains(&reply.kept.len()), "{} chunks are kept", reply.kept.len());
            while let Some(chunk) = reply.next(turn) {
                samples += chunk.samples().len();
                ends.extend(Some(chunk.end).filter(|end| *end != ChunkEnd::Nothing));
            }
        }
        assert_eq!(samples, 2 * voice.pieces * 800);
        assert_eq!(ends, [ChunkEnd::Phrase, ChunkEnd::Phrase, ChunkEnd::Reply]);
    }
}
