use super::*;
use crate::account::Account;
use crate::realtime::RealtimeSound;
use crate::realtime::wire::{Event, Outcome};
use crate::secret::Secret;
use voiced_core::model::{LlmEvent, Message, Speaker};

fn talk() -> Talk {
    let account = Account::new("http://127.0.0.1:1/v1", Secret::new("sk-key"));
    let stages = vec!["welcome".into(), "issue".into()];
    let (model, voice, prompt, sound) = ("m".into(), "v".into(), "You take repairs.".into(), RealtimeSound::Mulaw);
    let mut talk = Talk::new(RealtimeSettings { account, model, voice, prompt, stages, sound }, Latest::default());
    talk.connected(Instant::now());
    talk.out.clear();
    talk
}

/// Asks what the caller said in this turn, which goes up as text: nothing was heard.
fn ask(talk: &mut Talk, turn: u32, said: &str) -> Growing {
    let history = vec![Message::said(Speaker::Caller, said)];
    let request = LlmRequest { turn: TurnId(turn), stage: "welcome".into(), history, rounds: Vec::new(), begun: String::new(), tries: 0 };
    let (told, mut growing) = oneshot::channel();
    talk.command(Command::Ask { request, told }, Instant::now());
    growing.try_recv().expect("an answer")
}

fn says(talk: &mut Talk, event: Event) {
    talk.event(event, Instant::now()).expect("it goes on");
}

/// The response asked for under this number begins and says this.
fn answers(talk: &mut Talk, number: u64, text: &str) {
    let (response, item) = (format!("r{number}"), format!("i{number}"));
    says(talk, Event::Begun { response: response.clone(), number: Some(number) });
    says(talk, Event::Item { response: response.clone(), item: item.clone() });
    says(talk, Event::Text { response, item, text: text.into() });
}

fn done(talk: &mut Talk, number: u64, outcome: Outcome) {
    says(talk, Event::Done { response: format!("r{number}"), outcome });
}

/// The types of what was sent since.
fn sent(talk: &mut Talk) -> Vec<String> {
    std::mem::take(&mut talk.out).iter().map(|message| message["type"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_question_takes_back_the_answer_before_it_and_waits_for_its_end() {
    let mut talk = talk();
    let first = ask(&mut talk, 1, "My sink leaks.");
    answers(&mut talk, first.number, "Which");
    sent(&mut talk);
    let second = ask(&mut talk, 2, "My sink leaks. And my tap.");
    assert_eq!(sent(&mut talk), ["response.cancel"]);
    done(&mut talk, first.number, Outcome::Cancelled);
    assert_eq!(sent(&mut talk), ["conversation.item.delete", "conversation.item.create", "response.create"], "no trace of what nobody heard");
    assert!(matches!(first.speech.borrow().end, Some(Err(_))) && second.speech.borrow().end.is_none());
}

#[test]
fn words_guessed_anew_share_the_answer_until_nobody_wants_it() {
    let mut talk = talk();
    let first = ask(&mut talk, 1, "My sink");
    let again = ask(&mut talk, 1, "My sink leaks.");
    assert_eq!(first.number, again.number);
    answers(&mut talk, first.number, "Which");
    sent(&mut talk);
    talk.command(Command::Drop { number: first.number }, Instant::now());
    assert!(sent(&mut talk).is_empty());
    talk.command(Command::Drop { number: first.number }, Instant::now());
    assert_eq!(sent(&mut talk), ["response.cancel"]);
}

#[test]
fn an_answer_that_only_calls_tools_is_asked_to_speak_as_well() {
    let mut talk = talk();
    let asked = ask(&mut talk, 1, "My sink leaks.");
    let response = format!("r{}", asked.number);
    says(&mut talk, Event::Begun { response: response.clone(), number: None });
    says(&mut talk, Event::Call { response, call: "c".into(), name: "set_stage".into(), arguments: r#"{"stage":"issue"}"#.into() });
    sent(&mut talk);
    done(&mut talk, asked.number, Outcome::Completed);
    assert_eq!(sent(&mut talk), ["conversation.item.create", "response.create"]);
    assert_eq!(asked.speech.borrow().acts, [LlmEvent::Stage("issue".into())]);
    assert!(asked.speech.borrow().end.is_none());
    answers(&mut talk, asked.number, "Which room?");
    done(&mut talk, asked.number, Outcome::Completed);
    assert_eq!(asked.speech.borrow().end, Some(Ok(())));
}

#[test]
fn a_lost_connection_ends_what_was_under_way_and_the_next_is_told_the_history() {
    let mut talk = talk();
    let first = ask(&mut talk, 1, "My sink leaks.");
    answers(&mut talk, first.number, "Which");
    talk.lost(&Failure::passing("openai", "broke"));
    assert_eq!(first.speech.borrow().end, Some(Err("openai: broke".into())));
    ask(&mut talk, 2, "My sink leaks. Hello?");
    assert!(sent(&mut talk).is_empty(), "there is nobody to ask");
    talk.connected(Instant::now());
    assert_eq!(sent(&mut talk), ["session.update", "conversation.item.create", "response.create"]);
}

#[test]
fn a_refused_session_is_not_tried_again() {
    let refused = talk().event(Event::Error { of: wire::SETUP.into(), words: "no such model".into() }, Instant::now());
    assert_eq!(refused.unwrap_err().to_string(), "openai: no such model");
}
