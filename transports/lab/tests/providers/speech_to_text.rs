use crate::*;

const LOUD: u8 = 0x10;

fn deepgram(fakes: &FakeProviders, key: &str) -> Deepgram {
    Deepgram::new(DeepgramSettings {
        account: account(&fakes.deepgram, key),
        model: "nova-3".into(),
        language: Some("en".into()),
        encoding: SttEncoding::Mulaw8000,
    })
    .unwrap()
}

fn script() -> Script {
    Script { caller: Arc::new(|_, _| "my kitchen sink leaks".into()), ..Script::default() }
}

/// 900 ms of loud sound: three words of the script.
async fn speak(session: &SttSession) {
    for _ in 0..45 {
        session.input.send(SttInput::Audio(Bytes::from_static(&[LOUD; 160]))).await.unwrap();
    }
}

async fn until_finalized(session: &mut SttSession) -> Vec<SttEvent> {
    let mut events = Vec::new();
    while events.last() != Some(&SttEvent::Finalized) {
        let event = next(&mut session.events).await.unwrap();
        assert!(!matches!(event, SttEvent::Failed(_)), "{event:?} after {events:?}");
        events.push(event);
    }
    events
}

#[tokio::test]
async fn words_come_as_guesses_and_are_settled_on_request() {
    let fakes = fakes(script()).await;
    let mut session = deepgram(&fakes, KEY).open();
    speak(&session).await;
    session.input.send(SttInput::Finalize).await.unwrap();
    assert_eq!(
        until_finalized(&mut session).await,
        [
            SttEvent::Interim("my".into()),
            SttEvent::Interim("my kitchen".into()),
            SttEvent::Interim("my kitchen sink".into()),
            SttEvent::Final("my kitchen sink".into()),
            SttEvent::Finalized,
        ]
    );
    speak(&session).await;
    session.input.send(SttInput::Close).await.unwrap();
    assert_eq!(all(session.events).await.last(), Some(&SttEvent::Final("leaks".into())));
}

#[tokio::test]
async fn a_dropped_session_closes_its_stream() {
    let fakes = fakes(script()).await;
    let mut session = deepgram(&fakes, KEY).open();
    speak(&session).await;
    assert!(next(&mut session.events).await.is_some());
    drop(session);
    wait_until_cancelled(&fakes.deepgram).await;
}

#[tokio::test]
async fn no_word_is_lost_with_a_connection() {
    join_all([Fault::DiesMidReply, Fault::StallsMidReply, Fault::HalfOpen, Fault::Garbage, Fault::ServerError, Fault::Unavailable(1)].map(
        |fault| async move {
            let fakes = fakes(script()).await;
            fakes.deepgram.fault.set_for(1, fault);
            let mut session = deepgram(&fakes, KEY).open();
            speak(&session).await;
            session.input.send(SttInput::Finalize).await.unwrap();
            let events = until_finalized(&mut session).await;
            let finals: Vec<_> = events.iter().filter(|event| matches!(event, SttEvent::Final(_))).collect();
            assert_eq!(finals, [&SttEvent::Final("my kitchen sink".into())], "{fault:?}");
            let told = events.iter().any(|event| matches!(event, SttEvent::Switched(_)));
            let gave_sound = !matches!(fault, Fault::ServerError | Fault::Unavailable(_));
            assert_eq!(told, gave_sound, "{fault:?}: that words take longer is told where sound was given");
            assert_eq!(requests(&fakes.deepgram), 2, "{fault:?}");
        },
    ))
    .await;
}

#[tokio::test]
async fn a_provider_that_never_answers_fails_the_session_after_its_tries() {
    join_all([(Fault::NeverAnswers, "no connection within"), (Fault::HalfOpen, "without a word back")].map(|(fault, sign)| async move {
        let fakes = fakes(script()).await;
        fakes.deepgram.fault.set(fault);
        let session = deepgram(&fakes, KEY).open();
        speak(&session).await;
        let SttSession { input: _input, events, .. } = session;
        let events = all(events).await;
        let Some((SttEvent::Failed(text), before)) = events.split_last() else { panic!("{fault:?} {events:?}") };
        assert!(before.iter().all(|event| matches!(event, SttEvent::Switched(_))), "{fault:?} {events:?}");
        assert!(text.starts_with("deepgram: ") && text.contains(sign), "{text}");
        assert_eq!(requests(&fakes.deepgram), 4, "{fault:?}");
    }))
    .await;
}

#[tokio::test]
async fn an_unanswered_finalize_with_nothing_left_to_settle_is_answered_by_us() {
    let fakes = fakes(script()).await;
    fakes.deepgram.fault.set(Fault::HalfOpen);
    let mut settings = account(&fakes.deepgram, KEY);
    settings.timeouts.finalize_ms = 20;
    let encoding = SttEncoding::Linear16(16_000);
    let deepgram = Deepgram::new(DeepgramSettings { account: settings, model: "m".into(), language: None, encoding }).unwrap();
    let mut session = deepgram.open();
    session.input.send(SttInput::Finalize).await.unwrap();
    assert_eq!(next(&mut session.events).await, Some(SttEvent::Finalized));
}

#[tokio::test]
async fn a_refused_key_fails_at_once_and_is_not_repeated() {
    let fakes = fakes(script()).await;
    let SttSession { input: _input, events, .. } = deepgram(&fakes, WRONG_KEY).open();
    let refused = "deepgram: HTTP 401: the key was refused (DEEPGRAM_API_KEY)";
    assert_eq!(all(events).await, [SttEvent::Failed(refused.into())]);
    assert_eq!(requests(&fakes.deepgram), 1);
}
