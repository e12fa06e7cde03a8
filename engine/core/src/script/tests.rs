use super::*;

fn history(callers: &[&str]) -> Vec<Message> {
    let caller = |text: &&str| Message::said(Speaker::Caller, *text);
    let agent = Message::said(Speaker::Agent, "whatever was heard");
    callers.iter().flat_map(|text| [agent.clone(), caller(text)]).collect()
}

/// Plays a dialogue as a conversation does: the stage moves as the events say.
fn play(script: &Script, callers: &[&str]) -> Vec<(String, String, bool)> {
    let mut stage = script.first_stage().to_owned();
    (1..=callers.len())
        .map(|count| {
            let (mut said, mut hung_up) = (String::new(), false);
            for event in script.answer(&stage.clone(), &history(&callers[..count])) {
                match event {
                    LlmEvent::Stage(next) => stage = next,
                    LlmEvent::Token(text) => said.push_str(&text),
                    LlmEvent::HangUp => hung_up = true,
                    LlmEvent::By(_) | LlmEvent::Calls(_) | LlmEvent::Done | LlmEvent::Failed(_) => {}
                }
            }
            (stage.clone(), said, hung_up)
        })
        .collect()
}

#[test]
fn the_repairs_line_goes_from_welcome_to_done() {
    let script = Script::repairs_line();
    assert_eq!(script.validate(), Ok(()));
    let replies = play(&script, &["My sink is leaking.", "The kitchen.", "It's 12 Baker Street.", "Yes, please."]);
    let stages: Vec<_> = replies.iter().map(|(stage, ..)| stage.as_str()).collect();
    assert_eq!(stages, ["issue", "address", "dispatch", "done"]);
    assert_eq!(replies[2].1, "I have 12 Baker Street. Shall I send an engineer there?");
    assert_eq!(replies.iter().map(|(.., hung_up)| *hung_up).collect::<Vec<_>>(), [false, false, false, true]);
}

#[test]
fn an_unfit_answer_is_asked_again_and_a_no_goes_back() {
    let script = Script::repairs_line();
    let replies =
        play(&script, &["A broken window", "Bathroom", "Near the station.", "Four Elm Road", "Blue.", "No, that's not right", "Um, 40 Elm Road", "yeah"]);
    let stages: Vec<_> = replies.iter().map(|(stage, ..)| stage.as_str()).collect();
    assert_eq!(stages, ["issue", "address", "address", "dispatch", "dispatch", "address", "dispatch", "done"]);
    assert_eq!(replies[2].1, "Could you give me the house number and the street?");
    assert_eq!(replies[4].1, "Sorry, was that a yes or a no?");
    assert_eq!(replies[6].1, "I have 40 Elm Road. Shall I send an engineer there?");
}

#[test]
fn nobody_is_asked_for_the_same_thing_for_ever() {
    let replies = play(&Script::repairs_line(), &["A tap", "Kitchen", "over there", "over there", "over there, really"]);
    assert_eq!(replies[4].0, "dispatch");
    assert!(replies[4].1.contains("over there, really"), "{}", replies[4].1);
}

#[test]
fn an_answer_leaves_no_trace() {
    let script = Script::repairs_line();
    let first = script.answer("address", &history(&["A tap", "Kitchen", "5 Elm"]));
    script.answer("address", &history(&["A tap", "Kitchen", "No idea"]));
    assert_eq!(script.answer("address", &history(&["A tap", "Kitchen", "5 Elm"])), first);
}

#[test]
fn the_stage_of_the_call_wins_over_the_replay() {
    // the oldest messages of a long call are forgotten, so that the replay starts late
    let events = Script::repairs_line().answer("dispatch", &history(&["Yes."]));
    assert_eq!(events.first(), Some(&LlmEvent::Stage("done".to_owned())));
}

#[test]
fn words_choose_the_way_and_the_first_one_said_decides() {
    let json = r#"{"stages": [
        {"name": "menu", "say": "Sales or front desk?", "accept": {"sales": "sales", "front desk": "desk"}},
        {"name": "sales", "say": "Sales.", "end": true}, {"name": "desk", "say": "Desk.", "end": true}]}"#;
    let script: Script = serde_json::from_str(json).expect("a script");
    assert_eq!(script.validate(), Ok(()));
    for (said, stage) in [("The front desk, not sales", "desk"), ("Sales!", "sales"), ("salesman", "menu"), ("eh", "menu")] {
        assert_eq!(play(&script, &[said])[0].0, stage, "{said}");
    }
}

type Case = (fn(&mut Script), [&'static str; 2]);

#[test]
fn errors_name_the_stage_and_the_mend() {
    let error = |change: fn(&mut Script)| {
        let mut script = Script::repairs_line();
        change(&mut script);
        script.validate().expect_err("an error").to_string()
    };
    let cases: [Case; 8] = [
        (|s| s.stages.clear(), ["no stages", "add"]),
        (|s| s.stages[0].name.clear(), ["number 1", "`name`"]),
        (|s| s.stages[1].name = "welcome".into(), ["`welcome`", "rename"]),
        (|s| s.stages[1].say = " ".into(), ["`issue`", "`say`"]),
        (|s| s.stages[0].next = Some("isue".into()), ["`isue`", "`issue`"]),
        (|s| s.stages[0].next = None, ["`welcome`", "`next`"]),
        (|s| s.stages[4].next = Some("welcome".into()), ["`done`", "remove"]),
        (|s| s.stages[2].collect = None, ["{address}", "`collect"]),
    ];
    for (change, parts) in cases {
        let text = error(change);
        assert!(parts.iter().all(|part| text.contains(part.trim_matches('`'))), "{text}");
    }
}
