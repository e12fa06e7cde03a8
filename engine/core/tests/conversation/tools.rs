//! Tools that a model calls: when they run, what the caller hears meanwhile, and what stays known.

use voiced_core::conversation::{Action, Input};
use voiced_core::id::TurnId;
use voiced_core::leg::{HeardUntil, LegEvent};
use voiced_core::model::{LlmEvent, LlmRequest, Message, TOOL_ROUNDS_MAX, ToolCall, ToolOutcome};

use crate::call::*;

fn look_up(number: u32) -> ToolCall {
    ToolCall { name: "look_up".into(), arguments: format!("{{\"order\":{number}}}") }
}

fn answered(text: &str) -> ToolOutcome {
    ToolOutcome::Answered(text.into())
}

/// What was run: its number and arguments.
fn run(actions: &[Action]) -> Vec<(u32, String)> {
    actions
        .iter()
        .filter_map(|action| if let Action::CallTool { number, call, .. } = action { Some((*number, call.arguments.clone())) } else { None })
        .collect()
}

fn request(actions: &[Action]) -> Option<LlmRequest> {
    actions.iter().find_map(|action| if let Action::Ask { request, .. } = action { Some(request.clone()) } else { None })
}

/// The outcomes that a request shows of earlier turns, by number.
fn remembered(request: &LlmRequest) -> Vec<(u32, Option<ToolOutcome>)> {
    request
        .history
        .iter()
        .filter_map(|message| if let Message::Called(called) = message { Some((called.number, called.outcome.clone())) } else { None })
        .collect()
}

impl Call {
    fn calls(&mut self, turn: u32, attempt: u32, calls: Vec<ToolCall>) -> Vec<Action> {
        let mut actions = self.llm(turn, attempt, LlmEvent::Calls(calls));
        actions.extend(self.llm(turn, attempt, LlmEvent::Done));
        actions
    }

    fn tool(&mut self, number: u32, outcome: ToolOutcome) -> Vec<Action> {
        self.give(Input::Tool { number, outcome })
    }
}

#[test]
fn tools_of_one_answer_run_at_once_and_the_model_goes_on_with_all_they_said() {
    let mut call = Call::greeted();
    call.says(2, "Where are my orders?");
    assert_eq!(spoken(&call.token(2, 0, "Let me look")), [""; 0]);
    let actions = call.calls(2, 0, vec![look_up(7), look_up(8)]);
    assert_eq!(spoken(&actions), ["Let me look"], "what was said need not wait for the tools");
    assert_eq!(run(&actions), [(0, look_up(7).arguments), (1, look_up(8).arguments)]);
    call.reply_starts(2);
    assert!(request(&call.tool(1, answered("eight"))).is_none(), "the other one is still to come");
    let asked = request(&call.tool(0, answered("seven"))).expect("the model goes on");
    assert_eq!(asked.rounds[0].said, "Let me look");
    assert_eq!(asked.rounds[0].called.iter().map(|called| called.outcome.clone()).collect::<Vec<_>>(), [Some(answered("seven")), Some(answered("eight"))]);
    call.token(2, 0, "Both come today. ");
    call.llm(2, 0, LlmEvent::Done);
    call.reply_heard(2);
    assert_eq!(call.transcript()[1..], ["caller@welcome: Where are my orders?", "agent@welcome: Let me look Both come today."]);
    let next = request(&call.says(3, "And the third?")).expect("a question");
    assert_eq!(remembered(&next), [(0, Some(answered("seven"))), (1, Some(answered("eight")))]);
    assert!(next.rounds.is_empty());
}

#[test]
fn a_guess_calls_no_tool_before_the_turn_has_ended() {
    let mut call = Call::greeted();
    call.speaks();
    call.pauses(2);
    call.settles("Cancel my order");
    assert!(run(&call.calls(2, 0, vec![look_up(7)])).is_empty());
    call.resumes(3);
    call.pauses(4);
    call.settles("no, keep it.");
    assert!(run(&call.all).is_empty(), "what was guessed and thrown away never ran");
    assert!(run(&call.calls(4, 1, vec![look_up(8)])).is_empty());
    assert_eq!(run(&call.turn_ends(4)), [(0, look_up(8).arguments)]);
}

#[test]
fn the_caller_hears_fillers_while_a_tool_runs_and_seldom_once_all_are_said() {
    let mut call = Call::greeted();
    call.says(2, "Where is my order?");
    call.calls(2, 0, vec![look_up(7)]);
    assert!(spoken(&call.wait(1_400)).is_empty());
    assert_eq!(spoken(&call.wait(100)), ["One moment."]);
    call.reply_starts(2);
    call.hears(2, 0);
    assert!(spoken(&call.wait(1_400)).is_empty());
    assert_eq!(spoken(&call.wait(100)), ["Still here."]);
    for said in 1..4 {
        call.hears(2, said);
        assert!(spoken(&call.wait(4_900)).is_empty(), "no broken record");
        assert_eq!(spoken(&call.wait(100)), ["Still here."]);
    }
    let actions = call.tool(0, ToolOutcome::Failed("no answer within 30000 ms".into()));
    assert!(request(&actions).is_some(), "the model says what is to be said");
    assert_eq!(spoken(&call.token(2, 0, "I cannot look it up now, sorry. ")), ["I cannot look it up now, sorry."]);
}

#[test]
fn silence_behind_words_said_before_a_tool_is_filled_too() {
    let mut call = Call::greeted();
    call.says(2, "Where is my order?");
    call.token(2, 0, "Let me look. ");
    call.calls(2, 0, vec![look_up(7)]);
    call.reply_starts(2);
    assert!(spoken(&call.wait(3_000)).is_empty(), "it is still being heard");
    call.hears(2, 0);
    assert!(spoken(&call.wait(1_400)).is_empty());
    assert_eq!(spoken(&call.wait(100)), ["One moment."]);
}

#[test]
fn a_model_that_fails_behind_a_tool_is_apologised_for() {
    let mut call = Call::greeted();
    call.says(2, "Where is my order?");
    call.calls(2, 0, vec![look_up(7)]);
    call.tool(0, ToolOutcome::Failed("refused".into()));
    assert_eq!(spoken(&call.llm(2, 0, LlmEvent::Failed("llm: 500".into()))).join(" "), "Sorry, something went wrong here.");
}

#[test]
fn a_tool_that_the_caller_cut_in_on_is_known_to_the_next_turn_and_nothing_stale_is_said() {
    let mut call = Call::greeted();
    call.says(2, "Book me in for nine.");
    call.calls(2, 0, vec![look_up(9)]);
    call.wait(1_500);
    call.reply_starts(2);
    let at = call.at();
    call.leg(LegEvent::Interrupted { turn: TurnId(3), cut: TurnId(2), heard: HeardUntil::default(), at });
    let running = request(&call.says(4, "At ten, I mean.")).expect("a question");
    assert_eq!(remembered(&running), [(0, None)], "the model knows that it runs");
    let actions = call.tool(0, answered("booked"));
    assert!(request(&actions).is_none() && spoken(&actions).is_empty());
    call.token(4, 0, "Ten it is. ");
    call.llm(4, 0, LlmEvent::Done);
    call.reply_starts(4);
    call.reply_heard(4);
    assert_eq!(remembered(&request(&call.says(5, "Thanks.")).expect("a question")), [(0, Some(answered("booked")))]);
}

#[test]
fn a_model_that_does_nothing_but_call_tools_is_stopped() {
    let mut call = Call::greeted();
    call.says(2, "Where is my order?");
    for number in 0..TOOL_ROUNDS_MAX as u32 {
        assert_eq!(run(&call.calls(2, 0, vec![look_up(7)])).len(), 1);
        call.tool(number, answered("again"));
    }
    let actions = call.calls(2, 0, vec![look_up(7)]);
    assert!(run(&actions).is_empty());
    assert_eq!(spoken(&actions).join(" "), "Sorry, something went wrong here.");
}
