//! Chains of toy models: who is asked, who is left, and what the conversation gets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use voiced_core::id::TurnId;
use voiced_core::model::{LlmEvent, LlmRequest, TtsEvent};
use voiced_models_remote::breaker::Breaker;
use voiced_models_remote::chain::Link;
use voiced_models_remote::chain::llm::LlmChain;
use voiced_models_remote::chain::tts::TtsChain;
use voiced_models_remote::llm::Llm;
use voiced_models_remote::tts::{INPUT_MAX, Tts, TtsInput, TtsSession};

/// A model that, after a pause, sends these events, one each so often, and then nothing more.
struct Model {
    pause_ms: u64,
    every_ms: u64,
    events: Vec<LlmEvent>,
    asked: Arc<Mutex<u32>>,
}

impl Llm for Model {
    fn ask(&self, _: LlmRequest) -> mpsc::Receiver<LlmEvent> {
        *self.asked.lock().unwrap() += 1;
        let (sender, receiver) = mpsc::channel(8);
        let (pause_ms, every_ms, events) = (self.pause_ms, self.every_ms, self.events.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(pause_ms)).await;
            for event in events {
                let _ = sender.send(event).await;
                sleep(Duration::from_millis(every_ms)).await;
            }
            sender.closed().await;
        });
        receiver
    }
}

fn model(pause_ms: u64, events: &[LlmEvent]) -> (Link<dyn Llm>, Arc<Mutex<u32>>) {
    paced(pause_ms, 0, events)
}

fn paced(pause_ms: u64, every_ms: u64, events: &[LlmEvent]) -> (Link<dyn Llm>, Arc<Mutex<u32>>) {
    let asked = Arc::default();
    let model = Model { pause_ms, every_ms, events: events.to_vec(), asked: Arc::clone(&asked) };
    (Link { breaker: Breaker::new("llm"), provider: Arc::new(model) }, asked)
}

fn token(text: &str) -> LlmEvent {
    LlmEvent::Token(text.into())
}

fn failed(text: &str) -> LlmEvent {
    LlmEvent::Failed(text.into())
}

async fn ask(chain: &LlmChain, tries: u32) -> Vec<LlmEvent> {
    let request = LlmRequest { turn: TurnId(1), stage: String::new(), history: Vec::new(), rounds: Vec::new(), begun: String::new(), tries };
    let mut events = all(chain.ask(request)).await;
    events.retain(|event| !matches!(event, LlmEvent::By(_)));
    events
}

async fn all<T>(mut events: mpsc::Receiver<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn the_next_model_answers_where_one_fails_or_has_no_word_in_time() {
    for (pause_ms, first) in [(0, failed("HTTP 500")), (60_000, token("late"))] {
        let (bad, asked) = model(pause_ms, &[first, LlmEvent::Done]);
        let (good, _) = model(100, &[token("Yes."), LlmEvent::Done]);
        let chain = LlmChain::new(vec![bad, good]);
        for _ in 0..4 {
            assert_eq!(ask(&chain, 0).await, [token("Yes."), LlmEvent::Done]);
        }
        assert_eq!(*asked.lock().unwrap(), 2, "then it is left alone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_left_alone_is_asked_all_the_same_before_nobody_answers() {
    let (bad, _) = model(0, &[failed("HTTP 500")]);
    let (good, _) = model(0, &[token("Yes."), LlmEvent::Done]);
    for _ in 0..2 {
        good.breaker.insist().failed("HTTP 500");
    }
    assert!(good.breaker.admit().is_none());
    assert_eq!(ask(&LlmChain::new(vec![bad, good]), 0).await, [token("Yes."), LlmEvent::Done]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_model_answers_all_the_same_when_it_is_first_with_a_word() {
    let (slow, _) = model(1_500, &[token("Slow."), LlmEvent::Done]);
    let (slower, _) = model(5_000, &[token("Slower."), LlmEvent::Done]);
    assert_eq!(ask(&LlmChain::new(vec![slow, slower]), 0).await, [token("Slow."), LlmEvent::Done]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_has_failed_and_the_next_try_begins_with_another_model() {
    let (stops, _) = model(0, &[token("I will")]);
    let (good, _) = model(0, &[token("Yes."), LlmEvent::Done]);
    let chain = LlmChain::new(vec![stops, good]);
    assert_eq!(ask(&chain, 0).await, [token("I will"), failed("the answer stopped for 1500 ms")]);
    assert_eq!(ask(&chain, 1).await, [token("Yes."), LlmEvent::Done]);
}

#[tokio::test(start_paused = true)]
async fn when_all_models_fail_each_says_why() {
    let ((one, _), (two, _)) = (model(0, &[failed("a: gone")]), model(0, &[failed("b: gone")]));
    assert_eq!(ask(&LlmChain::new(vec![one, two]), 0).await, [failed("a: gone; b: gone")]);
}

/// A voice that says a phrase in pieces of 100 ms at a pace, and fails or falls silent after so many pieces.
#[derive(Clone)]
struct Voice {
    rate_hz: u32,
    piece_every_ms: u64,
    pieces_until_failure: usize,
    says_why: bool,
    said: Arc<Mutex<Vec<String>>>,
}

/// Pieces of a phrase.
const PIECES: usize = 20;

impl Tts for Voice {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn open(&self) -> TtsSession {
        let (input, mut inputs) = mpsc::channel(INPUT_MAX);
        let (sender, events) = mpsc::channel(8);
        let voice = self.clone();
        tokio::spawn(async move {
            while let Some(TtsInput::Phrase { phrase, text }) = inputs.recv().await {
                voice.said.lock().unwrap().push(text);
                for piece in 0..PIECES {
                    if piece == voice.pieces_until_failure {
                        if voice.says_why {
                            let _ = sender.send(TtsEvent::Failed("voice: gone".into())).await;
                        }
                        return sender.closed().await;
                    }
                    sleep(Duration::from_millis(voice.piece_every_ms)).await;
                    let samples = vec![1; voice.rate_hz as usize / 10];
                    let _ = sender.send(TtsEvent::Audio { phrase, samples }).await;
                }
                let _ = sender.send(TtsEvent::PhraseDone(phrase)).await;
            }
        });
        TtsSession { input, events }
    }
}

fn voice(piece_every_ms: u64, pieces_until_failure: usize, says_why: bool) -> Voice {
    Voice { rate_hz: 8_000, piece_every_ms, pieces_until_failure, says_why, said: Arc::default() }
}

const TEXT: &str = "The plumber will come to your house at nine tomorrow morning.";

/// Has the phrase spoken; gives back how many ms of sound came, and the last event.
async fn speak(voices: &[&Voice]) -> (usize, TtsEvent) {
    let link = |voice: &&Voice| Link::<dyn Tts> { breaker: Breaker::new("tts"), provider: Arc::new((*voice).clone()) };
    let mut session = TtsChain::new(voices.iter().map(link).collect()).open();
    session.input.send(TtsInput::Phrase { phrase: 0, text: TEXT.into() }).await.unwrap();
    session.input.send(TtsInput::End).await.unwrap();
    let mut events: VecDeque<_> = Vec::new().into();
    while let Some(event) = session.events.recv().await {
        events.push_back(event);
    }
    let sound = events.iter().map(|event| if let TtsEvent::Audio { samples, .. } = event { samples.len() } else { 0 }).sum::<usize>() / 8;
    (sound, events.pop_back().expect("an event"))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_slower_than_it_is_spoken_is_left_and_one_that_keeps_up_is_not() {
    let words: Vec<_> = "We will send somebody at nine tomorrow.".split_inclusive(' ').map(token).collect();
    let answer = [words.as_slice(), &[LlmEvent::Done]].concat();
    let (good, _) = model(0, &[token("Yes."), LlmEvent::Done]);
    let (drips, _) = paced(0, 1_000, &answer);
    let heard = ask(&LlmChain::new(vec![drips, good.clone()]), 0).await;
    assert_eq!(heard.last(), Some(&failed("the answer comes slower than it is spoken")));
    assert!(heard.len() < 6, "{heard:?}");
    // as quick as a quick voice
    let (steady, _) = paced(0, 200, &answer);
    assert_eq!(ask(&LlmChain::new(vec![steady, good.clone()]), 0).await, answer);
    // an answer that is whole is not left, however long its end is in coming
    let whole = [token("Y"), token("es."), LlmEvent::Done];
    let (late_end, _) = paced(0, 1_400, &whole);
    assert_eq!(ask(&LlmChain::new(vec![late_end, good]), 0).await, whole);
}

#[tokio::test(start_paused = true)]
async fn another_voice_goes_on_behind_the_words_that_had_sound() {
    // breaks, falls silent, drips
    for bad in [voice(10, 10, true), voice(10, 10, false), voice(2_000, PIECES, true)] {
        let good = Voice { rate_hz: 16_000, ..voice(10, PIECES, true) };
        let (sound_ms, last) = speak(&[&bad, &good]).await;
        assert_eq!(last, TtsEvent::PhraseDone(0));
        assert!(sound_ms >= 2_000, "{sound_ms}");
        let rest = good.said.lock().unwrap().concat();
        assert!(TEXT.ends_with(rest.trim()) && !rest.is_empty(), "{rest:?}");
        let skipped = if bad.piece_every_ms == 10 { "The plumber" } else { "" };
        assert_eq!(TEXT.strip_suffix(&rest), Some(skipped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_voice_that_broke_after_it_spoke_is_tried_once_more_and_one_that_never_spoke_is_not() {
    let alone = voice(10, 10, true);
    let (_, last) = speak(&[&alone]).await;
    assert_eq!(last, TtsEvent::Failed("voice: gone; voice: gone".into()));
    assert_eq!(*alone.said.lock().unwrap(), [TEXT, " will come to your house at nine tomorrow morning."]);
    let dumb = voice(10, 0, true);
    assert_eq!(speak(&[&dumb]).await.1, TtsEvent::Failed("voice: gone".into()));
    assert_eq!(dumb.said.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_many_short_lines_is_spoken_to_its_end_however_slow_the_voice_and_its_listener() {
    let good = voice(100, PIECES, true);
    let spare = voice(10, PIECES, true);
    let link = |voice: &Voice| Link::<dyn Tts> { breaker: Breaker::new("tts"), provider: Arc::new(voice.clone()) };
    let mut session = TtsChain::new(vec![link(&good), link(&spare)]).open();
    let lines = 100;
    for phrase in 0..lines {
        session.input.try_send(TtsInput::Phrase { phrase, text: format!("Line {phrase}.") }).expect("each is taken at once");
    }
    session.input.try_send(TtsInput::End).expect("and the end");
    let mut done = 0;
    while let Some(event) = session.events.recv().await {
        done += u32::from(matches!(event, TtsEvent::PhraseDone(_)));
        if done == 1 {
            sleep(Duration::from_mins(1)).await; // it has enough for a while
            done += 1;
        }
    }
    assert_eq!(done, lines + 1);
    assert!(spare.said.lock().unwrap().is_empty(), "nobody was too slow but the listener");
}
