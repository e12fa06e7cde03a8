//! Providers that fail, stop or are slow: what the caller hears meanwhile.

use voiced_core::conversation::{Action, Input, Spoken};
use voiced_core::id::TurnId;
use voiced_core::line::Gone;
use voiced_core::model::{LlmEvent, SttEvent};

use crate::call::*;

#[test]
fn a_model_that_fails_costs_the_reply_and_not_the_call() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    let actions = call.llm(2, 0, LlmEvent::Failed("llm: 500".into()));
    assert_eq!(spoken(&actions).join(" "), "Sorry, something went wrong here.");
    call.reply_starts(2);
    call.reply_heard(2);
    // fails while nothing is decided yet: nobody hears of it before the turn ends
    call.speaks();
    call.pauses(3);
    call.settles("Once more.");
    assert!(spoken(&call.llm(3, 0, LlmEvent::Failed("llm: 500".into()))).is_empty());
    assert_eq!(spoken(&call.turn_ends(3)).join(" "), "Sorry, something went wrong here.");
}

#[test]
fn a_model_that_never_answers_is_filled_in_for_and_given_8_seconds() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    assert!(spoken(&call.wait(1_200)).is_empty());
    assert_eq!(spoken(&call.wait(300)), ["One moment."]);
    call.reply_starts(2);
    call.wait(600);
    call.hears(2, 0);
    assert!(spoken(&call.wait(1_400)).is_empty());
    assert_eq!(spoken(&call.wait(100)), ["Still here."]);
    call.wait(600);
    call.hears(2, 1);
    assert!(spoken(&call.wait(3_700)).is_empty(), "each is said once");
    assert_eq!(spoken(&call.wait(100)).join(" "), "Sorry, something went wrong here.");
    assert!(spoken(&call.token(2, 0, "Too late for all of this. ")).is_empty());
}

#[test]
fn a_voice_that_fails_is_tried_once_more_for_the_apology() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    call.token(2, 0, "I am very sorry. ");
    let actions = call.give(Input::Tts { turn: TurnId(2), attempt: 0, event: Spoken::Failed("tts: 500".into()) });
    assert!(abandons(&actions, 2) && takes_floor(&actions));
    assert_eq!(spoken(&call.floor(3)).join(" "), "Sorry, something went wrong here.");
    let actions = call.give(Input::Tts { turn: TurnId(3), attempt: 0, event: Spoken::Failed("tts: 500".into()) });
    assert!(hangs_up(&actions));
    call.wait(1_000);
    assert_eq!(call.transcript(), [HELLO, "caller@welcome: My sink is leaking.", "ended@welcome: agent_hung_up"]);
}

#[test]
fn without_ears_the_agent_says_goodbye_and_hangs_up() {
    let mut call = Call::greeted();
    assert!(takes_floor(&call.stt(SttEvent::Failed("stt: refused".into()))));
    call.floor(2);
    call.reply_starts(2);
    assert!(hangs_up(&call.reply_heard(2)));
    call.give(Input::Gone(Gone::HungUp));
    assert_eq!(call.transcript()[1..], ["agent@welcome: Goodbye then.", "ended@welcome: agent_hung_up"]);
}

/// What models were asked: how often before, and what of the answer stands already.
fn continued(actions: &[Action]) -> Vec<(u32, String)> {
    actions.iter().filter_map(|action| if let Action::Ask { request, .. } = action { Some((request.tries, request.begun.clone())) } else { None }).collect()
}

#[test]
fn a_model_that_breaks_off_is_asked_for_what_follows_its_last_whole_phrase() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    call.token(2, 0, "Let me have a look. And then I ");
    let actions = call.llm(2, 0, LlmEvent::Failed("llm: gone".into()));
    assert_eq!(continued(&actions), [(1, "Let me have a look.".to_owned())]);
    assert!(spoken(&actions).is_empty());
    call.reply_starts(2);
    assert_eq!(spoken(&call.token(2, 0, "The plumber comes at nine. ")), ["The plumber comes at nine."]);
    // while it is being heard the question has been reported: it is asked no second time
    let actions = call.llm(2, 0, LlmEvent::Failed("llm: gone".into()));
    assert_eq!(asked(&actions), [(2, 0, "My sink is leaking.".to_owned())]);
    assert_eq!(continued(&actions), [(2, "Let me have a look. The plumber comes at nine.".to_owned())]);
    // and then enough is enough
    call.token(2, 0, "At your ");
    assert_eq!(spoken(&call.llm(2, 0, LlmEvent::Failed("llm: gone".into()))).join(" "), "Sorry, something went wrong here.");
    call.reply_heard(2);
    let said = "agent@welcome: Let me have a look. The plumber comes at nine. Sorry, something went wrong here.";
    assert_eq!(call.transcript().last().map(String::as_str), Some(said));
}

#[test]
fn a_slow_model_is_filled_in_for_and_its_answer_follows() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    assert_eq!(spoken(&call.wait(1_600)), ["One moment."]);
    call.reply_starts(2);
    assert_eq!(spoken(&call.token(2, 0, "Thank you, this is noted. ")), ["Thank you, this is noted."]);
    call.llm(2, 0, LlmEvent::Done);
    call.reply_heard(2);
    assert_eq!(call.transcript()[1..], ["caller@welcome: My sink is leaking.", "agent@welcome: One moment. Thank you, this is noted."]);
}

#[test]
fn words_that_another_provider_hears_late_are_waited_for_behind_a_filler_and_answered_whole() {
    let mut call = Call::greeted();
    call.speaks();
    call.interim("My sink");
    call.stt(SttEvent::Switched("deepgram: closed the connection".into()));
    call.pauses(2);
    call.turn_ends(2);
    let actions = call.wait(1_600);
    assert_eq!(spoken(&actions), ["One moment."]);
    assert_eq!(released(&actions).len(), 1, "the filler does not wait for the words");
    call.reply_starts(2);
    call.wait(1_000);
    let actions = call.settles("My sink is leaking.");
    assert_eq!(asked(&actions), [(2, 1, "My sink is leaking.".to_owned())]);
    assert_eq!(spoken(&call.token(2, 1, "Thank you, this is noted. ")), ["Thank you, this is noted."]);
    call.llm(2, 1, LlmEvent::Done);
    call.reply_heard(2);
    assert_eq!(call.transcript()[1..], ["caller@welcome: My sink is leaking.", "agent@welcome: One moment. Thank you, this is noted."]);
}

#[test]
fn words_that_never_come_after_a_filler_are_apologised_for() {
    let mut call = Call::greeted();
    call.speaks();
    call.stt(SttEvent::Switched("deepgram: closed the connection".into()));
    call.pauses(2);
    call.turn_ends(2);
    assert_eq!(spoken(&call.wait(9_000)), ["One moment.", "Sorry, something went wrong here."]);
}
