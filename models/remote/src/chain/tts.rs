//! A chain of voices as one. A voice that fails, is slow to begin or falls behind real time is left in the middle of the
//! reply: the next one goes on behind the last whole word that has sound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use voiced_core::model::TtsEvent;
use voiced_core::resample::Resampler;

use super::{Link, Order};
use crate::breaker::Permit;
use crate::tts::{AUDIO_SAMPLES_MAX, EVENTS_MAX, INPUT_MAX, Tts, TtsInput, TtsSession};

/// How long the first sound of a phrase is waited for where another voice could speak.
const FIRST_SOUND: Duration = Duration::from_secs(1);
/// How far the sound of a phrase may fall behind real time where another voice could speak.
const BEHIND_MAX: Duration = Duration::from_millis(700);
/// Sound of one character of text, in ms, of a slow voice: rather is a word said twice than left out.
const CHAR_MS: u64 = 80;
/// Voices tried for one reply beyond those of the chain: one that has spoken before it broke may speak again.
const AGAIN_MAX: u32 = 1;

/// Voices, best first.
pub struct TtsChain {
    links: Arc<[Link<dyn Tts>]>,
}

impl TtsChain {
    /// A chain of at least one; all speak at the first one's rate.
    pub fn new(links: Vec<Link<dyn Tts>>) -> Self {
        Self { links: links.into() }
    }

    /// The same chain behind another voice.
    #[must_use]
    pub fn behind(&self, first: Link<dyn Tts>) -> Self {
        Self { links: std::iter::once(first).chain(self.links.iter().cloned()).collect() }
    }
}

impl Tts for TtsChain {
    fn rate_hz(&self) -> u32 {
        self.links.first().map_or(0, |link| link.provider.rate_hz())
    }

    fn open(&self) -> TtsSession {
        let (input, inputs) = mpsc::channel(INPUT_MAX);
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let mut speaking =
            Speaking { rate_hz: self.rate_hz(), links: Arc::clone(&self.links), inputs, events: events.clone(), owed: VecDeque::new(), open: true };
        tokio::spawn(async move {
            tokio::select! {
                () = events.closed() => {} // the conversation has gone: the voices go with the future
                () = speaking.run() => {}
            }
        });
        TtsSession { input, events: receiver }
    }

    fn warm(&self) {
        for link in self.links.iter() {
            link.provider.warm();
        }
    }
}

struct Speaking {
    links: Arc<[Link<dyn Tts>]>,
    rate_hz: u32,
    inputs: mpsc::Receiver<TtsInput>,
    events: mpsc::Sender<TtsEvent>,
    /// Phrases without all of their sound, in order.
    owed: VecDeque<Owed>,
    /// More phrases may come.
    open: bool,
}

/// A phrase that was asked for.
struct Owed {
    phrase: u32,
    text: String,
    /// Sound of it that was passed on.
    samples: u64,
    /// Since when its first sound is due, or when it came.
    since: Instant,
}

/// Why a voice is done.
enum End {
    /// All is said.
    Said,
    /// It is left for another.
    Left(String),
}

impl Speaking {
    async fn run(&mut self) {
        let mut order = Order::new(self.links.len(), 0);
        let (mut again, mut reasons) = (0, Vec::new());
        loop {
            let links = Arc::clone(&self.links);
            let Some((link, permit)) = order.next(&links) else {
                return self.say(TtsEvent::Failed(reasons.join("; "))).await;
            };
            let may_be_left = order.has_more(&links);
            self.say(TtsEvent::By(links[link].breaker.name().to_owned())).await;
            let spoken_before = self.owed.front().map_or(0, |owed| owed.samples);
            match self.speak(&*links[link].provider, permit, may_be_left).await {
                End::Said => return,
                End::Left(reason) => reasons.push(reason),
            }
            let spoke = self.owed.front().is_some_and(|owed| owed.samples > spoken_before);
            if spoke && again < AGAIN_MAX {
                again += 1;
                order.again(link);
            }
            self.skip_what_sounded();
        }
    }

    /// Speaks with one voice until all is said or it is left.
    async fn speak(&mut self, voice: &dyn Tts, permit: Permit, may_be_left: bool) -> End {
        let TtsSession { input, mut events } = voice.open();
        let mut resampler = (voice.rate_hz() != self.rate_hz).then(|| Resampler::new(voice.rate_hz(), self.rate_hz));
        for owed in &mut self.owed {
            owed.since = Instant::now();
            let _ = input.try_send(TtsInput::Phrase { phrase: owed.phrase, text: owed.text.clone() }); // as long as ours
        }
        if !self.open {
            let _ = input.try_send(TtsInput::End);
        }
        loop {
            let due = self.due();
            let failed = tokio::select! {
                asked = self.inputs.recv(), if self.open => {
                    self.ask(asked.unwrap_or(TtsInput::End), &input);
                    continue;
                }
                event = events.recv() => match event {
                    Some(TtsEvent::Failed(reason)) => reason,
                    Some(event) => {
                        let came = Instant::now();
                        self.pass_on(event, resampler.as_mut()).await;
                        // a listener that has enough for now holds the voice back
                        if let Some(owed) = self.owed.front_mut() {
                            owed.since += came.elapsed();
                        }
                        continue;
                    }
                    None if self.owed.is_empty() && !self.open => {
                        permit.worked();
                        return End::Said;
                    }
                    None => "the voice ended before its text".to_owned(),
                },
                () = sleep_until(due), if may_be_left && !self.owed.is_empty() => "the voice falls behind".to_owned(),
            };
            permit.failed(&failed);
            return End::Left(failed);
        }
    }

    fn ask(&mut self, asked: TtsInput, input: &mpsc::Sender<TtsInput>) {
        match &asked {
            TtsInput::Phrase { phrase, text } => self.owed.push_back(Owed { phrase: *phrase, text: text.clone(), samples: 0, since: Instant::now() }),
            TtsInput::End => self.open = false,
        }
        let _ = input.try_send(asked); // as long as ours; a voice that is gone says so by its last event
    }

    async fn pass_on(&mut self, event: TtsEvent, resampler: Option<&mut Resampler>) {
        match event {
            TtsEvent::Audio { phrase, samples } => {
                let samples = match resampler {
                    None => samples,
                    Some(resampler) => {
                        let mut out = Vec::new();
                        resampler.process_i16(&samples, &mut out);
                        out
                    }
                };
                if let Some(owed) = self.owed.front_mut() {
                    if owed.samples == 0 {
                        owed.since = Instant::now();
                    }
                    owed.samples += samples.len() as u64;
                }
                for piece in samples.chunks(AUDIO_SAMPLES_MAX) {
                    self.say(TtsEvent::Audio { phrase, samples: piece.to_vec() }).await;
                }
            }
            TtsEvent::PhraseDone(phrase) => {
                while self.owed.front().is_some_and(|owed| owed.phrase <= phrase) {
                    self.owed.pop_front();
                }
                if let Some(next) = self.owed.front_mut() {
                    next.since = Instant::now();
                }
                self.say(TtsEvent::PhraseDone(phrase)).await;
            }
            TtsEvent::By(_) | TtsEvent::Failed(_) => {}
        }
    }

    /// When the first phrase is late: without sound, or behind real time.
    fn due(&self) -> Instant {
        let Some(owed) = self.owed.front() else { return Instant::now() };
        let heard = Duration::from_millis(owed.samples * 1_000 / u64::from(self.rate_hz.max(1)));
        owed.since + if owed.samples == 0 { FIRST_SOUND } else { heard + BEHIND_MAX }
    }

    /// Of a phrase that broke off, only the words without sound are left to say.
    fn skip_what_sounded(&mut self) {
        let rate_hz = u64::from(self.rate_hz.max(1));
        if let Some(owed) = self.owed.front_mut() {
            let chars = owed.samples * 1_000 / rate_hz / CHAR_MS;
            let place = owed.text.char_indices().nth(chars as usize).map_or(owed.text.len(), |(place, _)| place);
            let word = owed.text[..place].rfind(char::is_whitespace).unwrap_or(0);
            owed.text.drain(..word);
            owed.samples = 0;
        }
    }

    async fn say(&mut self, event: TtsEvent) {
        let _ = self.events.send(event).await; // who has gone cancels all of this
    }
}
