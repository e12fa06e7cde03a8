//! A conversation fed by hand: what it reports, asks, speaks and throws away.

mod call;
mod providers;
mod tools;

use voiced_core::conversation::{Action, Input, Spoken};
use voiced_core::id::TurnId;
use voiced_core::leg::{Command, HeardUntil, LegEvent};
use voiced_core::line::Gone;
use voiced_core::model::{LlmEvent, Message, Speaker, SttEvent};

use call::*;

#[test]
fn the_greeting_is_spoken_once_the_floor_is_ours() {
    let mut call = Call::new();
    let actions = call.give(Input::Started);
    assert!(takes_floor(&actions) && spoken(&actions).is_empty());
    let actions = call.floor(1);
    assert_eq!(spoken(&actions).join(" "), "Hello there, how can I help?");
    assert_eq!(released(&actions), [(1, 0)]);
    assert!(call.transcript().is_empty(), "not heard yet");
    call.reply_starts(1);
    call.reply_heard(1);
    assert_eq!(call.transcript(), [HELLO]);
}

#[test]
fn thinking_ahead_asks_and_speaks_but_releases_and_reports_nothing_before_the_turn_ends() {
    let mut call = Call::greeted();
    call.speaks();
    call.interim("My sink is leaking.");
    assert_eq!(asked(&call.pauses(2)), [(2, 0, "My sink is leaking.".to_owned())]);
    let early = call.token(2, 0, "I am sorry, which room is it in?");
    assert_eq!(spoken(&early), ["I am sorry,"]);
    let mut quiet = call.llm(2, 0, LlmEvent::Done);
    quiet.extend(call.settles("my sink is leaking"));
    quiet.extend(call.wait(500));
    assert!(asked(&quiet).is_empty(), "the same words are not asked twice");
    assert!(released(&quiet).is_empty());
    assert_eq!(call.transcript(), [HELLO]);
    assert_eq!(released(&call.turn_ends(2)), [(2, 0)]);
    call.reply_starts(2);
    call.reply_heard(2);
    assert_eq!(call.transcript(), [HELLO, "caller@welcome: my sink is leaking", "agent@welcome: I am sorry, which room is it in?"]);
}

#[test]
fn other_words_void_the_attempt_and_are_asked_again() {
    let mut call = Call::greeted();
    call.speaks();
    call.interim("My sink");
    call.pauses(2);
    call.token(2, 0, "What about your sink, please? ");
    let again = call.settles("My sink is leaking.");
    assert_eq!(asked(&again), [(2, 1, "My sink is leaking.".to_owned())]);
    assert!(spoken(&call.token(2, 0, "Tell me more about it. ")).is_empty(), "the old attempt is void");
    assert_eq!(released(&call.turn_ends(2)), [(2, 1)]);
    assert_eq!(spoken(&call.token(2, 1, "Oh dear me, that is a leak. ")), ["Oh dear me,", "that is a leak."]);
}

#[test]
fn a_turn_that_ended_on_unsettled_words_waits_for_them() {
    let mut call = Call::greeted();
    call.speaks();
    call.interim("I live at");
    call.pauses(2);
    call.now += 240;
    assert!(released(&call.turn_ends(2)).is_empty());
    let settled = call.settles("I live at 12 Baker Street.");
    assert_eq!(asked(&settled), [(2, 1, "I live at 12 Baker Street.".to_owned())]);
    assert_eq!(released(&settled), [(2, 1)]);
}

#[test]
fn a_provider_that_does_not_settle_is_waited_for_600_ms() {
    let mut call = Call::greeted();
    call.speaks();
    call.interim("I live at");
    call.pauses(2);
    call.turn_ends(2);
    assert!(released(&call.wait(500)).is_empty());
    assert_eq!(released(&call.wait(100)), [(2, 0)]);
    call.token(2, 0, "Where do you live? ");
    call.reply_starts(2);
    call.wait(100);
    // the late answer belongs to the reported turn and must not open the next one
    call.settles("I live at.");
    call.reply_heard(2);
    call.says(3, "In Baker Street.");
    call.reply_starts(3);
    assert_eq!(call.transcript()[1..], ["caller@welcome: I live at", "agent@welcome: Where do you live?", "caller@welcome: In Baker Street."]);
}

#[test]
fn a_pause_inside_a_turn_costs_nothing_but_thinking() {
    let mut call = Call::greeted();
    call.speaks();
    call.pauses(2);
    call.settles("My sink");
    call.llm(2, 0, LlmEvent::Stage("issue".into()));
    call.token(2, 0, "What about the sink, please? ");
    let actions = call.resumes(3);
    assert!(matches!(actions[0], Action::CancelBefore(TurnId(3))));
    assert!(spoken(&call.token(2, 0, "Tell me all about it. ")).is_empty());
    call.interim("is leaking.");
    assert_eq!(asked(&call.pauses(4)), [(4, 0, "My sink is leaking.".to_owned())]);
    call.settles("is leaking.");
    call.turn_ends(4);
    call.reply_starts(4);
    assert_eq!(call.transcript()[1..], ["caller@welcome: My sink is leaking."]);
    assert_eq!(call.conversation.stage(), "welcome", "the stage of a void attempt was never entered");
}

#[test]
fn a_caller_who_goes_on_before_the_reply_was_heard_is_reported_once() {
    for interrupted in [false, true] {
        let mut call = Call::greeted();
        call.says(2, "My sink is leaking.");
        call.token(2, 0, "I am sorry about that. ");
        let at = call.at();
        if interrupted {
            call.leg(LegEvent::Interrupted { turn: TurnId(3), cut: TurnId(2), heard: HeardUntil::default(), at });
        } else {
            call.resumes(3);
        }
        call.pauses(4);
        assert_eq!(asked(&call.settles("And the tap too.")), [(4, 1, "My sink is leaking. And the tap too.".to_owned())]);
        call.turn_ends(4);
        call.reply_starts(4);
        assert_eq!(call.transcript()[1..], ["caller@welcome: My sink is leaking. And the tap too."]);
    }
}

#[test]
fn after_a_barge_in_transcript_and_history_hold_only_what_was_heard() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    call.llm(2, 0, LlmEvent::Stage("issue".into()));
    call.token(2, 0, "I am very sorry. One two three four five six. Never spoken at all.");
    call.llm(2, 0, LlmEvent::Done);
    for phrase in 0..2 {
        call.give(Input::Tts { turn: TurnId(2), attempt: 0, event: Spoken::Audio { phrase, ms: 1_200 } });
        call.give(Input::Tts { turn: TurnId(2), attempt: 0, event: Spoken::PhraseDone(phrase) });
    }
    call.reply_starts(2);
    call.leg(LegEvent::PhraseHeard { turn: TurnId(2), phrase: 0 });
    let at = call.at();
    call.leg(LegEvent::Held { turn: TurnId(2), at, cleared_at: at });
    let held = call.interim("wait stop");
    let hint = held.iter().find_map(|action| if let Action::Command(Command::Hint(hint)) = action { Some(*hint) } else { None });
    assert_eq!(hint.map(|hint| (hint.words, hint.backchannel)), Some((2, false)));
    call.leg(LegEvent::Interrupted { turn: TurnId(3), cut: TurnId(2), heard: HeardUntil { phrase: 1, phrase_ms: 640 }, at });
    call.pauses(4);
    call.settles("Wait, stop!");
    call.turn_ends(4);
    let heard = "I am very sorry. One two three";
    let request = call.all.iter().rev().find_map(|action| if let Action::Ask { request, .. } = action { Some(request) } else { None });
    let history = &request.expect("asked").history;
    let history: Vec<&str> = history.iter().filter_map(|message| if let Message::Said { text, .. } = message { Some(text.as_str()) } else { None }).collect();
    assert_eq!(history, ["Hello there, how can I help?", "My sink is leaking.", heard, "wait stop"], "asked early, with the interim words");
    call.reply_starts(4);
    assert_eq!(
        call.transcript()[1..],
        ["caller@welcome: My sink is leaking.".to_owned(), format!("agent@issue: {heard}"), "caller@issue: Wait, stop!".to_owned()]
    );
}

#[test]
fn a_reply_of_which_no_word_was_heard_changes_neither_transcript_nor_stage() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    call.llm(2, 0, LlmEvent::Stage("issue".into()));
    call.token(2, 0, "I am very sorry. ");
    call.reply_starts(2);
    assert_eq!(call.conversation.stage(), "issue");
    let at = call.at();
    call.leg(LegEvent::Interrupted { turn: TurnId(3), cut: TurnId(2), heard: HeardUntil { phrase: 0, phrase_ms: 20 }, at });
    assert_eq!(call.conversation.stage(), "welcome");
    call.pauses(4);
    assert_eq!(asked(&call.settles("In the kitchen.")), [(4, 0, "My sink is leaking. In the kitchen.".to_owned())]);
}

#[test]
fn a_backchannel_leaves_no_words_behind() {
    let mut call = Call::greeted();
    call.says(2, "My sink is leaking.");
    call.token(2, 0, "I am very sorry about that. ");
    call.llm(2, 0, LlmEvent::Done);
    call.reply_starts(2);
    let at = call.at();
    call.leg(LegEvent::Held { turn: TurnId(2), at, cleared_at: at });
    call.interim("mhm");
    call.leg(LegEvent::Unheld { turn: TurnId(2), at });
    call.settles("Mhm.");
    call.wait(1_000);
    call.reply_heard(2);
    call.says(3, "In the kitchen.");
    call.reply_starts(3);
    assert_eq!(call.transcript()[2..], ["agent@welcome: I am very sorry about that.", "caller@welcome: In the kitchen."]);
}

#[test]
fn noise_without_words_gives_the_floor_back() {
    let mut call = Call::greeted();
    call.speaks();
    call.pauses(2);
    call.turn_ends(2);
    let actions = call.stt(SttEvent::Finalized);
    assert!(abandons(&actions, 2) && asked(&actions).is_empty());
    // and with a provider that says nothing at all
    call.speaks();
    call.pauses(3);
    call.turn_ends(3);
    assert!(abandons(&call.wait(2_000), 3));
    assert_eq!(call.transcript(), [HELLO]);
}

#[test]
fn silence_is_prompted_then_the_agent_says_goodbye_and_hangs_up() {
    let mut call = Call::greeted();
    assert!(takes_floor(&call.leg(LegEvent::Silence { quiet_ms: 8_000 })));
    assert_eq!(spoken(&call.floor(2)), ["Are you still there?"]);
    call.reply_starts(2);
    assert!(!hangs_up(&call.reply_heard(2)));
    call.leg(LegEvent::Silence { quiet_ms: 8_000 });
    assert_eq!(spoken(&call.floor(3)), ["Goodbye then."]);
    call.reply_starts(3);
    assert!(hangs_up(&call.reply_heard(3)));
    let actions = call.wait(1_000);
    assert!(matches!(actions.last(), Some(Action::End { reason: "idle" })));
    assert_eq!(call.transcript().last().map(String::as_str), Some("ended@welcome: idle"));
    assert!(call.give(Input::Gone(Gone::HungUp)).is_empty(), "a call ends once");
}

#[test]
fn keys_pressed_together_are_one_turn() {
    let mut call = Call::greeted();
    for key in ['1', '2', '3'] {
        call.leg(LegEvent::Dtmf(key));
        assert!(!takes_floor(&call.wait(1_500)));
    }
    assert!(takes_floor(&call.wait(500)));
    let actions = call.floor(2);
    assert_eq!(asked(&actions), [(2, 0, "1 2 3".to_owned())]);
    assert_eq!(released(&actions), [(2, 0)]);
    call.token(2, 0, "Thank you very much. ");
    call.reply_starts(2);
    // keys are a barge-in too, and # ends them at once
    call.leg(LegEvent::Dtmf('4'));
    let actions = call.leg(LegEvent::Dtmf('#'));
    assert!(abandons(&actions, 2) && takes_floor(&actions));
    assert_eq!(asked(&call.floor(3)), [(3, 0, "1 2 3 4".to_owned())]);
}

#[test]
fn the_agent_hangs_up_after_its_last_words_unless_cut() {
    let mut call = Call::greeted();
    call.says(2, "Bye.");
    call.llm(2, 0, LlmEvent::Stage("done".into()));
    call.token(2, 0, "Thank you and goodbye.");
    call.llm(2, 0, LlmEvent::HangUp);
    assert!(!hangs_up(&call.llm(2, 0, LlmEvent::Done)));
    call.reply_starts(2);
    assert!(hangs_up(&call.reply_heard(2)));
    call.give(Input::Gone(Gone::HungUp));
    assert_eq!(call.transcript()[1..], ["caller@welcome: Bye.", "agent@done: Thank you and goodbye.", "ended@done: agent_hung_up"]);
}

#[test]
fn a_hang_up_reports_what_was_said_and_heard_in_every_state() {
    let end = |prepare: fn(&mut Call)| {
        let mut call = Call::greeted();
        prepare(&mut call);
        let actions = call.give(Input::Gone(Gone::HungUp));
        assert!(matches!(actions.last(), Some(Action::End { reason: "hung_up" })));
        call.transcript()[1..].to_vec()
    };
    assert_eq!(end(|_| {}), ["ended@welcome: hung_up"]);
    let said = ["caller@welcome: My sink.", "ended@welcome: hung_up"];
    let speaking: fn(&mut Call) = |call| {
        call.speaks();
        call.interim("My sink.");
    };
    let thinking: fn(&mut Call) = |call| {
        call.speaks();
        call.pauses(2);
        call.settles("My sink.");
        call.llm(2, 0, LlmEvent::Stage("issue".into()));
        call.token(2, 0, "I am very sorry. Where is it? ");
    };
    let answering: fn(&mut Call) = |call| {
        call.says(2, "My sink.");
        call.token(2, 0, "I am very sorry. Where is it? ");
    };
    for prepare in [speaking, thinking, answering] {
        assert_eq!(end(prepare), said);
    }
    let heard = end(|call| {
        call.says(2, "My sink.");
        call.token(2, 0, "I am very sorry. Where is it? ");
        call.reply_starts(2);
        call.leg(LegEvent::PhraseHeard { turn: TurnId(2), phrase: 0 });
    });
    assert_eq!(heard, ["caller@welcome: My sink.", "agent@welcome: I am very sorry.", "ended@welcome: hung_up"]);
}

#[test]
fn the_longest_call_ends_with_a_goodbye_even_if_nothing_works_any_more() {
    let mut call = Call::greeted();
    assert!(takes_floor(&call.give(Input::MaxDuration)));
    assert!(hangs_up(&call.wait(12_000)), "the leg never gave the floor");
    assert!(matches!(call.wait(1_000).last(), Some(Action::End { reason: "max_duration" })));
}

#[test]
fn each_step_of_an_answered_turn_is_timed() {
    let mut call = Call::greeted();
    call.now = 1_000;
    call.speaks();
    call.pauses(2);
    call.now = 1_100;
    call.settles("My sink is leaking.");
    call.now = 1_240;
    call.turn_ends(2);
    call.now = 1_300;
    call.token(2, 0, "I am very sorry. ");
    call.now = 1_350;
    call.give(Input::Tts { turn: TurnId(2), attempt: 0, event: Spoken::Audio { phrase: 0, ms: 20 } });
    call.now = 1_360;
    let actions = call.reply_starts(2);
    let timing = actions.iter().find_map(|action| if let Action::Timing(timing) = action { Some(*timing) } else { None }).expect("timing");
    assert_eq!(
        [timing.ended_ms, timing.transcript_ms, timing.llm_ms, timing.phrase_ms, timing.tts_ms, timing.reply_ms],
        [240, 100, 300, 300, 350, 360].map(Some)
    );
}

#[test]
fn words_that_no_voice_activity_noticed_are_answered_all_the_same() {
    let mut call = Call::greeted();
    call.stt(SttEvent::Final("Hello?".into()));
    assert!(takes_floor(&call.wait(1_500)));
    assert_eq!(asked(&call.floor(2)), [(2, 0, "Hello?".to_owned())]);
}

#[test]
fn a_written_message_cuts_the_agent_and_is_answered() {
    let mut call = Call::greeted();
    call.says(2, "My sink leaks.");
    call.token(2, 0, "I am very sorry. Where is it? ");
    call.reply_starts(2);
    call.leg(LegEvent::PhraseHeard { turn: TurnId(2), phrase: 0 });
    let actions = call.give(Input::Typed("It is in the kitchen.".into()));
    assert!(abandons(&actions, 2) && takes_floor(&actions));
    assert_eq!(asked(&call.floor(3)), [(3, 0, "It is in the kitchen.".to_owned())]);
}

#[test]
fn a_whisper_reaches_the_model_and_nobody_else() {
    let mut call = Call::greeted();
    call.give(Input::Whispered("Offer a discount.".into()));
    let actions = call.says(2, "That is expensive.");
    let history = actions.iter().find_map(|action| if let Action::Ask { request, .. } = action { Some(request.history.clone()) } else { None });
    let whisper = Message::said(Speaker::Supervisor, "Offer a discount.");
    assert!(history.expect("the model is asked").contains(&whisper));
    assert!(!call.transcript().iter().any(|line| line.contains("discount")));
}

#[test]
fn a_relieved_agent_falls_silent_listens_and_comes_back() {
    let mut call = Call::greeted();
    call.says(2, "My sink leaks.");
    call.token(2, 0, "I am very sorry. Where is it? ");
    call.reply_starts(2);
    assert!(abandons(&call.give(Input::AgentMaySpeak(false)), 2));
    let actions = call.says(3, "Who is there now?");
    assert_eq!((asked(&actions), released(&actions)), (vec![], vec![]));
    assert!(!takes_floor(&call.leg(LegEvent::Silence { quiet_ms: 8_000 })), "no prompt while a human speaks");
    assert_eq!(call.transcript().last().map(String::as_str), Some("caller@welcome: Who is there now?"));
    call.give(Input::AgentMaySpeak(true));
    assert_eq!(asked(&call.says(4, "And now?")), [(4, 0, "My sink leaks. Who is there now? And now?".to_owned())]);
}
