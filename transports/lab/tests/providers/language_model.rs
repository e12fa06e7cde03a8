use crate::*;

fn chat(fakes: &FakeProviders, key: &str) -> OpenAiChat {
    OpenAiChat::new(OpenAiChatSettings {
        account: account(&fakes.openai_chat, key),
        model: "gpt-4o-mini".into(),
        prompt: "You take repairs.".into(),
        stages: vec!["welcome".into(), "issue".into()],
        tools: Vec::new(),
        temperature: None,
    })
    .unwrap()
}

fn ask(llm: &dyn Llm) -> mpsc::Receiver<LlmEvent> {
    let history = vec![Message::said(Speaker::Caller, "My sink leaks.")];
    llm.ask(LlmRequest { turn: TurnId(1), stage: "welcome".into(), history, rounds: Vec::new(), begun: String::new(), tries: 0 })
}

fn text(events: &[LlmEvent]) -> String {
    let token = |event: &LlmEvent| if let LlmEvent::Token(text) = event { Some(text.clone()) } else { None };
    events.iter().filter_map(token).collect()
}

fn others(events: Vec<LlmEvent>) -> Vec<LlmEvent> {
    events.into_iter().filter(|event| !matches!(event, LlmEvent::Token(_))).collect()
}

#[tokio::test]
async fn an_answer_streams_and_its_tool_calls_move_the_conversation() {
    let answer = Answer { text: "Goodbye then.".into(), stage: Some("issue".into()), hang_up: true, ..Answer::default() };
    let fakes = fakes(Script { agent: Arc::new(move |_| answer.clone()), ..Script::default() }).await;
    let events = all(ask(&chat(&fakes, KEY))).await;
    assert_eq!(events[0], LlmEvent::Token("Goodbye ".into()));
    assert_eq!(text(&events), "Goodbye then.");
    assert_eq!(others(events), [LlmEvent::Stage("issue".into()), LlmEvent::HangUp, LlmEvent::Done]);
}

#[tokio::test]
async fn a_model_that_only_calls_tools_is_asked_again_for_words() {
    let agent = |request: &serde_json::Value| {
        let told = request["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        if told { Answer::text("Which room?") } else { Answer { stage: Some("issue".into()), ..Answer::default() } }
    };
    let fakes = fakes(Script { agent: Arc::new(agent), ..Script::default() }).await;
    let events = all(ask(&chat(&fakes, KEY))).await;
    assert_eq!(text(&events), "Which room?");
    assert_eq!(others(events), [LlmEvent::Stage("issue".into()), LlmEvent::Done]);
    assert_eq!(requests(&fakes.openai_chat), 2);
}

#[tokio::test]
async fn a_model_that_never_speaks_is_asked_three_times_at_most() {
    let agent = |_: &serde_json::Value| Answer { hang_up: true, ..Answer::default() };
    let fakes = fakes(Script { agent: Arc::new(agent), ..Script::default() }).await;
    assert_eq!(all(ask(&chat(&fakes, KEY))).await, [LlmEvent::HangUp, LlmEvent::Done]);
    assert_eq!(requests(&fakes.openai_chat), 3);
}

#[tokio::test]
async fn a_dropped_answer_cancels_the_request() {
    let fakes = fakes(Script::default()).await;
    fakes.openai_chat.fault.set(Fault::StallsMidReply);
    let mut events = ask(&chat(&fakes, KEY));
    assert!(matches!(next(&mut events).await, Some(LlmEvent::Token(_))));
    drop(events);
    wait_until_cancelled(&fakes.openai_chat).await;
}

#[tokio::test]
async fn a_name_that_nobody_has_and_a_server_without_tls_fail_and_say_so() {
    let fakes = fakes(Script::default()).await;
    let without_tls = fakes.openai_chat.base_url.replacen("http://", "https://", 1);
    for base_url in ["http://provider.invalid/v1", without_tls.as_str()] {
        let account = Account { base_url: base_url.into(), ..account(&fakes.openai_chat, KEY) };
        let settings = OpenAiChatSettings { account, model: "m".into(), prompt: String::new(), stages: Vec::new(), tools: Vec::new(), temperature: None };
        let events = all(ask(&OpenAiChat::new(settings).unwrap())).await;
        let [LlmEvent::Failed(text)] = &events[..] else { panic!("{base_url} {events:?}") };
        assert!(text.starts_with("openai: ") && !text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn a_failure_before_the_first_token_is_tried_once_more() {
    join_all([Fault::TooManyRequests, Fault::ServerError, Fault::NeverAnswers, Fault::HalfOpen, Fault::Garbage].map(|fault| async move {
        let fakes = fakes(Script::default()).await;
        fakes.openai_chat.fault.set_for(1, fault);
        let events = all(ask(&chat(&fakes, KEY))).await;
        assert_eq!(text(&events), "I heard: My sink leaks.. What else can I do for you?", "{fault:?}");
        assert_eq!(events.last(), Some(&LlmEvent::Done), "{fault:?}");

        fakes.openai_chat.fault.set(fault);
        let events = all(ask(&chat(&fakes, KEY))).await;
        assert!(matches!(&events[..], [LlmEvent::Failed(text)] if text.starts_with("openai: ")), "{fault:?} {events:?}");
        assert_eq!(requests(&fakes.openai_chat), 4, "{fault:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_failure_amid_the_answer_ends_it() {
    join_all([Fault::DiesMidReply, Fault::StallsMidReply].map(|fault| async move {
        let fakes = fakes(Script::default()).await;
        fakes.openai_chat.fault.set(fault);
        let events = all(ask(&chat(&fakes, KEY))).await;
        assert!(text(&events).starts_with("I "), "{fault:?} {events:?}");
        assert!(matches!(events.last(), Some(LlmEvent::Failed(_))), "{fault:?} {events:?}");
        assert_eq!(requests(&fakes.openai_chat), 1, "{fault:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_refused_key_fails_at_once_and_is_not_repeated() {
    let fakes = fakes(Script::default()).await;
    let refused = "openai: HTTP 401: the key was refused (OPENAI_API_KEY)";
    assert_eq!(all(ask(&chat(&fakes, WRONG_KEY))).await, [LlmEvent::Failed(refused.into())]);
    assert_eq!(requests(&fakes.openai_chat), 1);
}
