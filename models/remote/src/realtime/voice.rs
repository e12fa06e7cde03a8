//! The voice of one reply: phrases of the model's own answer are matched to its sound, other texts are spoken by the
//! session outside its conversation.
//!
//! The sound of an answer comes without marks between phrases. A phrase ends, in the sound, not before the sound had come
//! when its last word was written, nor sooner than its words can be said; once all has come, what is left is shared out by
//! length of text. No sound is left out or said twice: what is beyond a phrase waits for the next, and the last takes all.

use super::{Command, Growing, RealtimeCall, RealtimeSound, Speech, text::OVER};
use crate::pcm::send_audio;
use crate::tts::{EVENTS_MAX, INPUT_MAX, TtsInput, TtsSession};
use std::collections::VecDeque;
use tokio::sync::{mpsc, oneshot};
use voiced_core::model::TtsEvent;

/// Sound of one character of text, in ms, as models speak.
const CHAR_MS: usize = 60;

pub(super) fn open(call: RealtimeCall) -> TtsSession {
    let (input, inputs) = mpsc::channel(INPUT_MAX);
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let mut voice = Voice { call, inputs, events: events.clone(), phrases: VecDeque::new(), open: true, answer: None, reads: None };
    tokio::spawn(async move {
        tokio::select! {
            () = events.closed() => {}
            spoke = voice.run() => if let Err(reason) = spoke {
                let _ = events.send(TtsEvent::Failed(reason)).await;
            },
        }
        if let Some(number) = voice.reads {
            let _ = voice.call.commands.send(Command::Drop { number }).await; // a session that is over has dropped it
        }
    });
    TtsSession { input, events: receiver }
}

struct Voice {
    call: RealtimeCall,
    inputs: mpsc::Receiver<TtsInput>,
    events: mpsc::Sender<TtsEvent>,
    /// What is to be spoken, in order.
    phrases: VecDeque<(u32, String)>,
    /// More phrases may come.
    open: bool,
    /// The answer that is spoken, and how far.
    answer: Option<Following>,
    /// A text is being read aloud, under this number.
    reads: Option<u64>,
}

struct Following {
    answer: Growing,
    /// Bytes of its text and of its sound that are spoken.
    text: usize,
    sound: usize,
}

impl Voice {
    async fn run(&mut self) -> Result<(), String> {
        loop {
            if let Some((phrase, text)) = self.phrases.front().cloned() {
                self.speak(phrase, &text).await?;
                self.phrases.pop_front();
                let _ = self.events.send(TtsEvent::PhraseDone(phrase)).await;
            } else if self.open {
                let input = self.inputs.recv().await;
                self.take(input);
            } else {
                return Ok(());
            }
        }
    }

    fn take(&mut self, input: Option<TtsInput>) {
        match input {
            Some(TtsInput::Phrase { phrase, text }) => self.phrases.push_back((phrase, text)),
            Some(TtsInput::End) | None => self.open = false,
        }
    }

    async fn speak(&mut self, phrase: u32, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        if self.answer.is_none() {
            self.answer = self.call.latest.take_with(text).map(|answer| Following { answer, text: 0, sound: 0 });
        }
        if let Some(mut following) = self.answer.take() {
            let end = place(&following.answer.speech.borrow().text, following.text, text);
            let spoke = match end {
                Some(end) => self.follow(phrase, &mut following, end).await,
                None => self.read_aloud(phrase, text).await,
            };
            self.answer = Some(following);
            return spoke;
        }
        self.read_aloud(phrase, text).await
    }

    /// Passes on the sound of the answer up to where this place of its text is spoken.
    async fn follow(&mut self, phrase: u32, following: &mut Following, end: usize) -> Result<(), String> {
        let spoken = (following.text, following.sound);
        loop {
            let is_last = !self.open && self.phrases.len() == 1;
            let (sound, is_all, limit, ended) = {
                let speech = following.answer.speech.borrow_and_update();
                let limit = if is_last { usize::MAX } else { sound_end(&speech, self.call.sound, spoken, end) };
                let here = self.whole(limit.min(speech.sound.len()).saturating_sub(following.sound));
                let sound = speech.sound[following.sound..following.sound + here].to_vec();
                let is_all = speech.end.is_some() && self.whole(speech.sound.len()) <= following.sound + here;
                (sound, is_all, limit, speech.end.clone())
            };
            following.sound += sound.len();
            let _ = send_audio(&self.events, phrase, &self.call.sound.samples(&sound)).await; // who has gone cancels this
            let is_spoken = following.sound >= limit || is_all;
            if let Some(Err(reason)) = ended.as_ref().filter(|_| is_all) {
                return Err(reason.clone());
            }
            // whether more phrases follow decides whose the rest of the sound is
            if is_spoken && (self.phrases.len() > 1 || (is_last && ended.is_some())) {
                following.text = end;
                return Ok(());
            }
            tokio::select! {
                input = self.inputs.recv(), if self.open => self.take(input),
                changed = following.answer.speech.changed(), if ended.is_none() => changed.map_err(|_| OVER.to_owned())?,
                else => {
                    following.text = end;
                    return Ok(());
                }
            }
        }
    }

    /// Has a text spoken that is none of the model's.
    async fn read_aloud(&mut self, phrase: u32, text: &str) -> Result<(), String> {
        let (told, reading) = oneshot::channel();
        self.call.commands.send(Command::Say { text: text.to_owned(), told }).await.map_err(|_| OVER.to_owned())?;
        let mut reading = reading.await.map_err(|_| OVER.to_owned())?;
        self.reads = Some(reading.number);
        let mut spoken = 0;
        loop {
            let (sound, end) = {
                let speech = reading.speech.borrow_and_update();
                (speech.sound[spoken..].to_vec(), speech.end.clone())
            };
            let sound = &sound[..self.whole(sound.len())];
            spoken += sound.len();
            let _ = send_audio(&self.events, phrase, &self.call.sound.samples(sound)).await; // who has gone cancels this
            if let Some(end) = end {
                self.reads = None;
                return end;
            }
            reading.speech.changed().await.map_err(|_| OVER.to_owned())?;
        }
    }

    /// Bytes of whole samples.
    fn whole(&self, bytes: usize) -> usize {
        match self.call.sound {
            RealtimeSound::Mulaw => bytes,
            RealtimeSound::Pcm => bytes & !1,
        }
    }
}

/// Where in the sound of an answer, of which some is spoken, its text is spoken up to `end`.
fn sound_end(speech: &Speech, sound: RealtimeSound, (text_from, sound_from): (usize, usize), end: usize) -> usize {
    let chars = |from: usize, to: usize| speech.text.get(from..to).map_or(0, |text| text.chars().count());
    let here = chars(text_from, end);
    let limit = if speech.end == Some(Ok(())) {
        let (left, all) = (speech.sound.len().saturating_sub(sound_from), chars(text_from, speech.text.len()));
        sound_from + left * here / all.max(1)
    } else {
        let written = speech.marks.iter().find(|(text, _)| *text >= end).map_or(0, |(_, sound)| *sound);
        written.max(sound_from + here * CHAR_MS * sound.bytes_per_ms())
    };
    limit & !1
}

/// Where this phrase ends in a text, at `from` or behind it: compared without marks, spaces and case.
pub(super) fn place(text: &str, from: usize, phrase: &str) -> Option<usize> {
    let phrase: Vec<char> = letters(phrase).map(|(_, letter)| letter).collect();
    let rest: Vec<(usize, char)> = letters(text.get(from..)?).collect();
    let at = rest.windows(phrase.len().max(1)).position(|window| window.iter().map(|(_, letter)| *letter).eq(phrase.iter().copied()))?;
    let (last, _) = rest.get(at + phrase.len().checked_sub(1)?)?;
    let last = from + last;
    Some(last + text[last..].chars().next().map_or(0, char::len_utf8))
}

fn letters(text: &str) -> impl Iterator<Item = (usize, char)> {
    text.char_indices().filter(|(_, c)| c.is_alphanumeric()).map(|(at, c)| (at, c.to_lowercase().next().unwrap_or(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::Latest;
    use tokio::sync::watch;

    struct Bench {
        speech: watch::Sender<Speech>,
        session: TtsSession,
        _commands: mpsc::Receiver<Command>,
    }

    fn bench() -> Bench {
        let (commands, receiver) = mpsc::channel(4);
        let (speech, growing) = watch::channel(Speech::default());
        let latest = Latest::default();
        latest.set(Some(Growing { number: 1, speech: growing }));
        speech.send_modify(|speech| speech.text.push_str("Thank you. We will come at nine."));
        Bench { speech, session: open(RealtimeCall { sound: RealtimeSound::Mulaw, commands, latest }), _commands: receiver }
    }

    impl Bench {
        async fn asks(&self, phrase: u32, text: &str) {
            self.session.input.send(TtsInput::Phrase { phrase, text: text.into() }).await.unwrap();
        }

        fn sounds(&self, bytes: usize) {
            self.speech.send_modify(|speech| speech.sound.extend(std::iter::repeat_n(0xff, bytes)));
        }

        /// Samples of each phrase until the voice is done or has this many.
        async fn hears(&mut self, most: usize) -> Vec<usize> {
            let mut samples = vec![0, 0];
            while samples.iter().sum::<usize>() < most {
                match self.session.events.recv().await {
                    Some(TtsEvent::Audio { phrase, samples: more }) => samples[phrase as usize] += more.len(),
                    Some(_) => {}
                    None => break,
                }
            }
            samples
        }
    }

    #[tokio::test]
    async fn the_first_sound_waits_for_the_first_phrase_only_and_none_is_lost_or_doubled() {
        let mut bench = bench();
        bench.asks(0, "Thank you.").await;
        bench.sounds(1_000);
        assert_eq!(bench.hears(1_000).await, [1_000, 0]);
        bench.sounds(19_000);
        bench.asks(1, "We will come at nine.").await;
        bench.session.input.send(TtsInput::End).await.unwrap();
        let first = "Thank you".len() * CHAR_MS * 8;
        assert_eq!(bench.hears(19_000).await, [first - 1_000, 20_000 - first]);
        bench.speech.send_modify(|speech| speech.end = Some(Ok(())));
        assert_eq!(bench.session.events.recv().await, Some(TtsEvent::PhraseDone(1)));
        assert_eq!(bench.session.events.recv().await, None);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_heard_as_far_as_it_came() {
        let mut bench = bench();
        bench.asks(0, "Thank you.").await;
        bench.sounds(500);
        bench.speech.send_modify(|speech| speech.end = Some(Err("openai: broke".into())));
        assert_eq!(bench.hears(500).await, [500, 0]);
        assert_eq!(bench.session.events.recv().await, Some(TtsEvent::Failed("openai: broke".into())));
    }

    #[test]
    fn a_phrase_is_found_whatever_its_marks() {
        let text = "It is **3.50**, said Dr. Jones. Really?";
        assert_eq!(place(text, 0, "it is 3.50, said"), text.find(" Dr"));
        assert_eq!(place(text, 20, "Really?"), Some(text.len() - 1));
        assert_eq!(place(text, 0, "One moment."), None);
        assert_eq!(place(text, 0, "…"), None);
    }
}
