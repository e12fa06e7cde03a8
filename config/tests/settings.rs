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
fn the_settings_that_the_readme_shows_are_taken_also_those_that_it_shows_commented_out() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).filter_map(|behind| behind.split("```").next()).collect();
    let read = |block: &str| voiced_config::load(Some(("voiced.toml", block)), environment(&[("CRM_TOKEN", "key")]));
    for block in &blocks {
        read(&block.replace("\n# ", "\n")).unwrap_or_else(|problems| panic!("{problems:?} in\n{block}"));
    }
    let agent = read(blocks[0]).unwrap().agent;
    assert_eq!((agent.stt.as_str(), agent.llm.as_str()), ("deepgram/nova-3:en, local/whisper-tiny.en", "openai/gpt-4o-mini, local/script"));
    assert_eq!(read(blocks[1]).unwrap().agent.tools.len(), 1);
    // no other text is a list, and a list has texts alone
    let told = problems("[agent]\nprompt = [\"x\"]\ngoodbye = 1\nstt = [7]\n", &[]).join("\n");
    for expected in [
        "agent.prompt (voiced.toml): is of type array, must be string",
        "agent.goodbye (voiced.toml)",
        "agent.stt (merged settings): has an item that is no text",
    ] {
        assert!(told.contains(expected), "{expected} is not told in\n{told}");
    }
}

#[test]
fn every_problem_is_told_at_once_with_its_mend() {
    let told = problems("[agent]\nsst = \"x\"\n[turn]\nlead_ms = \"long\"\n[engine]\nthreads = 0\n", &[("VOICED_AGENT__TTTS", "x"), ("PORT", "http")]);
    let expected = [
        "agent.sst (voiced.toml): unknown key; did you mean `agent.stt`?",
        "turn.lead_ms (voiced.toml): is of type string, must be integer, e.g. 400",
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

/// What makes `LiveKit` configured.
const LIVEKIT: [(&str, &str); 3] = [("LIVEKIT_URL", "wss://rooms.example.test"), ("LIVEKIT_API_KEY", "key"), ("LIVEKIT_API_SECRET", "room-secret")];

#[test]
fn rooms_open_to_the_network_are_refused_without_a_key_and_accepted_with_one() {
    let told = problems("", &LIVEKIT);
    assert!(told[0].starts_with("http.api_keys") && told[0].contains("VOICED_HTTP__JWT_SECRET"), "{told:?}");
    assert!(!told.concat().contains("room-secret"));
    let guards: [&[(&str, &str)]; 3] = [
        &[("VOICED_SERVER__BIND", "127.0.0.1")],
        &[("VOICED_HTTP__API_KEYS", "0123456789abcdef, fedcba9876543210")],
        &[("VOICED_HTTP__JWT_SECRET", "0123456789abcdef0123456789abcdef")],
    ];
    for guard in guards {
        let pairs = environment(&[&LIVEKIT, guard].concat());
        let settings = voiced_config::load(None, pairs).unwrap_or_else(|problems| panic!("{guard:?}: {problems:?}"));
        assert!(settings.livekit.missing().is_empty());
    }
}

#[test]
fn a_collector_is_named_as_opentelemetry_names_it_and_its_keys_are_never_told() {
    let pairs = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example.test:4318"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=trace-secret")];
    let settings =
        voiced_config::load(None, environment(&[&pairs[..], &[("VOICED_TRACES__SAMPLE", "0.25")]].concat())).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!((settings.traces.endpoint.as_str(), settings.traces.sample), ("http://collector.example.test:4318", 0.25));
    let told = problems("[traces]\nsample = 1.5\nendpoint = \"collector:4318\"\n", &[("OTEL_EXPORTER_OTLP_HEADERS", "x api key=trace-secret")]).join("\n");
    for expected in ["traces.sample (merged settings): 1.5 is out of range", "traces.endpoint", "traces.headers"] {
        assert!(told.contains(expected), "{expected} is not told in\n{told}");
    }
    assert!(!told.contains("trace-secret"));
}

#[test]
fn lists_in_variables_are_comma_separated_or_toml() {
    for keys in ["0123456789abcdef,fedcba9876543210", "[\"0123456789abcdef\", \"fedcba9876543210\"]"] {
        let settings = voiced_config::load(None, environment(&[("VOICED_HTTP__API_KEYS", keys)])).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(settings.http.api_keys.iter().map(voiced_secret::Secret::expose).collect::<Vec<_>>(), ["0123456789abcdef", "fedcba9876543210"], "{keys}");
    }
}

#[test]
fn weak_secrets_and_origins_that_let_anyone_in_are_named() {
    let file =
        "[http]\napi_keys = []\njwt_secret = \"short\"\ncors_origins = [\"https://app.example.test/page\"]\n[livekit]\nhear = \"some\"\nagent_name = \"\"\n";
    let told = problems(file, &[("LIVEKIT_WEBHOOK_API_KEY", "key")]).join("\n");
    for expected in ["http.jwt_secret", "is not an origin", "livekit.hear", "AGENT_NAME", "LIVEKIT_WEBHOOK_API_SECRET"] {
        assert!(told.contains(expected), "{expected} is not told in\n{told}");
    }
    let told = problems("[http]\ncors_origins = [\"*\"]\n", &[]);
    assert!(told[0].contains("every web page"), "{told:?}");
    assert!(problems("", &[("VOICED_HTTP__API_KEYS", "short")])[0].contains("16 characters"));
}

#[test]
fn keys_come_from_files_and_from_systemds_credentials_and_no_printed_form_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    file("twilio_auth_token", "key-of-twilio\n");
    file("voiced_livekit__egress_secret", "key-of-egress");
    file("deepgram_api_key", "key-that-the-environment-overrides");
    let pairs = [
        ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()),
        ("WEBHOOK_URL", "https://voice.example.test"),
        ("DEEPGRAM_API_KEY", "key-of-deepgram"),
        ("OPENAI_API_KEY_FILE", &file("openai", "key-of-openai\n")),
        ("VOICED_HTTP__API_KEYS_FILE", &file("api", "key-of-api-users-1\nkey-of-api-users-2\n")),
    ];
    let settings = voiced_config::load(None, environment(&pairs)).unwrap_or_else(|problems| panic!("{problems:?}"));
    let read = [&settings.twilio.auth_token, &settings.livekit.egress_secret, &settings.providers.deepgram.api_key, &settings.providers.openai.api_key];
    assert_eq!(read.map(voiced_secret::Secret::expose), ["key-of-twilio", "key-of-egress", "key-of-deepgram", "key-of-openai"]);
    assert_eq!(settings.http.api_keys.iter().map(voiced_secret::Secret::expose).collect::<Vec<_>>(), ["key-of-api-users-1", "key-of-api-users-2"]);
    assert!(!format!("{settings:?}").contains("key-of"));
}

#[test]
fn a_key_file_that_cannot_be_read_and_a_key_given_twice_are_named() {
    let told = problems(
        "",
        &[("OPENAI_API_KEY_FILE", "/nowhere/key"), ("EMA_WEBHOOK_SECRET_FILE", "/dev/null"), ("DEEPGRAM_API_KEY", "a"), ("DEEPGRAM_API_KEY_FILE", "b")],
    );
    let expected = [
        "providers.openai.api_key (environment variable OPENAI_API_KEY_FILE): /nowhere/key: No such file or directory (os error 2)",
        "ema.webhook_secret (environment variable EMA_WEBHOOK_SECRET_FILE): /dev/null: the file is empty, must hold the key",
        "providers.deepgram.api_key (environment variable DEEPGRAM_API_KEY_FILE): DEEPGRAM_API_KEY is set too: give the key itself or a file, not both",
    ];
    assert_eq!(told, expected);
}

#[test]
fn no_problem_repeats_a_key() {
    for file in [
        "[twilio]\nauth_token = \"key-unclosed\n",
        "[http]\napi_keys = [20250101, 20250102]\n",
        "[ema]\nwebhook_secret = 20250101\n",
        "[agent]\ndeepgram_key = \"key-astray\"\n",
    ] {
        let told = problems(file, &[]).concat();
        assert!(!told.contains("key-") && !told.contains("2025"), "{told}");
    }
}

#[test]
fn a_tool_takes_its_key_from_the_environment_and_shows_it_nowhere() {
    let file = r#"
        [[agent.tools]]
        name = "look_up"
        description = "Finds an order."
        url = "https://crm.example.test/tools"
        headers = { Authorization = "Bearer ${CRM_TOKEN}" }
        [agent.tools.parameters]
        type = "object"
        required = ["order"]
        properties.order = { type = "integer" }
    "#;
    let settings = voiced_config::load(Some(("v.toml", file)), environment(&[("CRM_TOKEN", "key-of-crm")])).unwrap_or_else(|problems| panic!("{problems:?}"));
    let tool = &settings.agent.tools[0];
    assert_eq!((tool.headers["Authorization"].expose(), tool.timeout_ms), ("Bearer key-of-crm", 8_000));
    assert!(!format!("{settings:?}").contains("key-of"));
    assert!(problems(file, &[]).concat().contains("needs CRM_TOKEN"));
}

#[test]
fn tools_that_no_model_could_call_are_named() {
    let file = r#"
        [agent]
        tools = [
            { name = "end_call", description = "x", url = "http://a.test/" },
            { name = "a", description = "x", url = "http://a.test/", timeout_ms = 5 },
            { name = "a", url = "file:///etc/passwd", colour = "red" },
            { name = "b c", description = "x", url = "http://a.test/", parameters = { type = "string" } },
            { name = "d", description = "x", url = "http://a.test/", parameters = { type = "object", required = ["order"] }, headers = { "a b" = "c" } },
        ]
    "#;
    let told = problems(file, &[]);
    let expected = [
        "[0].name (merged settings): end_call is the name of another tool",
        "[1].timeout_ms (merged settings): must be a whole number, 100 to 60000",
        "[2].colour (merged settings): unknown key; a tool has name, description, url, timeout_ms, parameters, headers",
        "[2].name (merged settings): a is the name of another tool",
        "[2].description (merged settings): is needed: by it the model knows when to call the tool",
        "[2].url (merged settings): is not an http:// or https:// address with a host",
        "[3].name (merged settings): \"b c\" must be 1 to 64 letters, digits, _ and -",
        "[3].parameters (merged settings): must say type = \"object\": a tool's arguments have names",
        "[4].parameters (merged settings): requires order, which is none of its properties",
        "[4].headers (merged settings): \"a b\" is no header's name, or its value no line of text",
    ];
    assert_eq!(told, expected.map(|what| format!("agent.tools{what}")));
}
