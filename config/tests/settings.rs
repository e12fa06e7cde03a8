//! Layers of settings, and what a person is told who got one wrong.

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn problems(file: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let Err(problems) = voiced_config::load(Some(("voiced.toml", file)), environment(pairs)) else { panic!("settings were accepted") };
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_alone_are_complete() {
    let settings = voiced_config::load(None, Vec::new()).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(settings.server.port, 8080);
    assert_eq!(settings.agent.llm, "local/script");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let pairs = environment(&[("PORT", "9001"), ("VOICED_AGENT__STT", "deepgram/nova-3:en"), ("VOICED_AGENT__SILENCE_PROMPTS", "[\"Hello?\"]")]);
    let file = "[server]\nport = 9000\nbind = \"127.0.0.1\"\n[agent]\nvad_enabled = false\n";
    let settings = voiced_config::load(Some(("voiced.toml", file)), pairs).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!((settings.server.port, settings.server.bind.as_str()), (9001, "127.0.0.1"));
    assert_eq!((settings.agent.stt.as_str(), settings.agent.vad_enabled), ("deepgram/nova-3:en", false));
    assert_eq!(settings.agent.silence_prompts, ["Hello?"]);
}

#[test]
fn every_problem_is_told_at_once_with_its_mend() {
    let told = problems("[agent]\nsst = \"x\"\n[turn]\nlead_ms = \"long\"\n[engine]\nthreads = 0\n", &[("VOICED_AGENT__TTTS", "x"), ("PORT", "http")]);
    let expected = [
        "agent.sst (voiced.toml): unknown key; did you mean `agent.stt`?",
        "turn.lead_ms (voiced.toml): is a string, must be a integer, e.g. 160",
        "agent.ttts (environment variable VOICED_AGENT__TTTS): unknown key; did you mean `agent.tts`?",
        "server.port (environment variable PORT): \"http\" is not a whole number",
        "engine.threads (merged settings): 0 is out of range, must be 1 to 256",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_token_without_the_address_that_it_signs_is_refused() {
    let told = problems("", &[("TWILIO_AUTH_TOKEN", "secret-token")]);
    assert!(told[0].starts_with("server.webhook_url"), "{told:?}");
    assert!(!told.concat().contains("secret-token"));
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let told = problems("[server\nport = 1", &[]);
    assert!(told[0].contains("voiced.toml") && told[0].contains("line 1"), "{told:?}");
}
