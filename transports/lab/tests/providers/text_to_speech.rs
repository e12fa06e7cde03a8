use crate::*;

/// Both voices, each with its fake.
fn voices(fakes: &FakeProviders, key: &str) -> [(Box<dyn Tts>, Arc<Fake>); 2] {
    let openai = OpenAiTts::new(OpenAiTtsSettings { account: account(&fakes.openai_tts, key), model: "tts-1".into(), voice: "alloy".into() });
    let cartesia = Cartesia::new(CartesiaSettings {
        account: account(&fakes.cartesia, key),
        model: "sonic-3".into(),
        voice: "some-voice".into(),
        language: Some("en".into()),
        rate_hz: 8_000,
    });
    [(Box::new(openai.unwrap()), Arc::clone(&fakes.openai_tts)), (Box::new(cartesia.unwrap()), Arc::clone(&fakes.cartesia))]
}

async fn say(voice: &dyn Tts, phrases: &[&str]) -> mpsc::Receiver<TtsEvent> {
    let session = voice.open();
    for (phrase, text) in phrases.iter().enumerate() {
        let phrase = TtsInput::Phrase { phrase: phrase as u32, text: (*text).to_owned() };
        session.input.send(phrase).await.unwrap();
    }
    session.events
}

/// Samples of each phrase, in the order in which they ended; a failure as its text.
fn told(events: Vec<TtsEvent>) -> (Vec<(u32, usize)>, Option<String>) {
    let (mut done, mut samples, mut failure) = (Vec::new(), 0, None);
    for event in events {
        match event {
            TtsEvent::Audio { phrase, samples: sound } => {
                assert_eq!(phrase as usize, done.len(), "sound comes in order");
                samples += sound.len();
            }
            TtsEvent::PhraseDone(phrase) => done.push((phrase, std::mem::take(&mut samples))),
            TtsEvent::By(_) => {}
            TtsEvent::Failed(text) => failure = Some(text),
        }
    }
    (done, failure)
}

#[tokio::test]
async fn phrases_sound_in_order_and_whole_in_one_reply_after_the_other() {
    let fakes = fakes(Script::default()).await;
    for (voice, _) in voices(&fakes, KEY) {
        let word = voice.rate_hz() as usize * 3 / 10; // the fakes speak 300 ms a word
        for _reply in 0..2 {
            let events = say(&*voice, &["One two three four.", " ", "Five.", "Six seven."]).await;
            let expected = vec![(0, 4 * word), (1, 0), (2, word), (3, 2 * word)];
            assert_eq!(told(all(events).await), (expected, None));
        }
    }
}

#[tokio::test]
async fn a_dropped_reply_cancels_its_phrases() {
    let fakes = fakes(Script::default()).await;
    for (voice, fake) in voices(&fakes, KEY) {
        fake.fault.set(Fault::StallsMidReply);
        let mut events = say(&*voice, &["One two three four."]).await;
        assert!(matches!(next(&mut events).await, Some(TtsEvent::Audio { .. })));
        drop(events);
        wait_until_cancelled(&fake).await;
    }
}

#[tokio::test]
async fn a_failure_before_the_first_sound_is_tried_once_more() {
    join_all([Fault::TooManyRequests, Fault::ServerError, Fault::NeverAnswers, Fault::HalfOpen, Fault::Garbage].map(|fault| async move {
        let fakes = fakes(Script::default()).await;
        for (voice, fake) in voices(&fakes, KEY) {
            let word = voice.rate_hz() as usize * 3 / 10;
            fake.fault.set_for(1, fault);
            let outcome = told(all(say(&*voice, &["One two."]).await).await);
            assert_eq!(outcome, (vec![(0, 2 * word)], None), "{fault:?} {}", fake.base_url);
        }
        for (voice, fake) in voices(&fakes, KEY) {
            fake.fault.set(fault);
            let (done, failure) = told(all(say(&*voice, &["One two."]).await).await);
            let failure = failure.unwrap_or_default();
            assert!(done.is_empty() && failure.contains(": "), "{fault:?} {} {failure:?}", fake.base_url);
        }
    }))
    .await;
}

#[tokio::test]
async fn a_failure_amid_a_phrase_ends_the_reply() {
    join_all([Fault::DiesMidReply, Fault::StallsMidReply].map(|fault| async move {
        let fakes = fakes(Script::default()).await;
        for (voice, fake) in voices(&fakes, KEY) {
            fake.fault.set(fault);
            let events = all(say(&*voice, &["One two.", "Three."]).await).await;
            assert!(matches!(events.first(), Some(TtsEvent::Audio { phrase: 0, .. })), "{fault:?}");
            let (done, failure) = told(events);
            assert!(done.is_empty() && failure.is_some(), "{fault:?} {}", fake.base_url);
        }
    }))
    .await;
}

#[tokio::test]
async fn a_refused_key_fails_at_once_and_is_not_repeated() {
    let fakes = fakes(Script::default()).await;
    for (voice, _) in voices(&fakes, WRONG_KEY) {
        let (done, failure) = told(all(say(&*voice, &["One."]).await).await);
        let failure = failure.unwrap();
        assert!(done.is_empty() && failure.contains("the key was refused"), "{failure}");
        assert!(!failure.contains(WRONG_KEY), "{failure}");
    }
}
