//! `OpenAI` chat completions, streamed: what we ask and what a chunk means. The answer's task is in `answer`.
//!
//! The conversation's stages are a tool, `set_stage`, and so is the end of the call, `end_call`: a model that only calls
//! tools is told that they worked and asked again, so that the caller hears something.

mod answer;

use crate::account::{Account, OPENAI, SettingsError};
use crate::http::Http;
use crate::llm::{EVENTS_MAX, Llm, ToolDefinition};
use crate::tools::{self, Round, ToolDelta};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;
use voiced_core::model::{LlmEvent, LlmRequest, Message, Speaker, TOOL_ROUNDS_MAX};

/// What to ask the model for.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAiChatSettings {
    /// Where, and with which key.
    pub account: Account,
    /// E.g. `gpt-4o-mini`.
    pub model: String,
    /// Who the agent is and what it does.
    pub prompt: String,
    /// Names of the conversation's stages; with none, the model gets no such tool.
    pub stages: Vec<String>,
    /// Tools of the operator's own; with none, the model gets no others.
    pub tools: Vec<ToolDefinition>,
    /// Randomness, `None` for the model's own; reasoning models take none.
    pub temperature: Option<f32>,
}

/// A model behind chat completions.
#[derive(Debug)]
pub struct OpenAiChat {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: OpenAiChatSettings,
    http: Http,
}

impl OpenAiChat {
    /// Checks the settings; connects only with a question.
    pub fn new(settings: OpenAiChatSettings) -> Result<Self, SettingsError> {
        let http = Http::new(OPENAI, &settings.account, "/chat/completions")?;
        Ok(Self { shared: Arc::new(Shared { settings, http }) })
    }
}

impl Llm for OpenAiChat {
    fn ask(&self, request: LlmRequest) -> mpsc::Receiver<LlmEvent> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::select! {
                () = events.closed() => {} // nobody listens any more: the request goes with the future
                () = answer::run(&shared, &request, &events) => {}
            }
        });
        receiver
    }

    fn warm(&self) {
        self.shared.http.warm();
    }
}

/// The body of a request. `rounds` are the tool calls so far with their results; with `may_call` false the model has to
/// speak.
pub(crate) fn request_body(settings: &OpenAiChatSettings, request: &LlmRequest, rounds: &[Round], may_call: bool) -> Value {
    let mut messages = vec![json!({"role": "system", "content": tools::instructions(&settings.prompt, &settings.stages, &request.stage)})];
    messages.extend(request.history.iter().flat_map(|message| match message {
        Message::Said { speaker, text } => vec![said(*speaker, text)],
        Message::Called(called) => tools::called("", std::slice::from_ref(called)),
    }));
    messages.extend(request.rounds.iter().flat_map(|round| tools::called(&round.said, &round.called)));
    if !request.begun.is_empty() {
        messages.push(json!({"role": "assistant", "content": request.begun}));
        messages.push(json!({"role": "system", "content": tools::GO_ON}));
    }
    messages.extend(rounds.iter().flat_map(Round::messages));
    let own = if request.rounds.len() < TOOL_ROUNDS_MAX { settings.tools.as_slice() } else { &[] };
    let mut body = json!({
        "model": settings.model,
        "messages": messages,
        "tools": tools::definitions(&settings.stages, own),
        "stream": true,
    });
    if !may_call {
        body["tool_choice"] = json!("none");
    }
    if let Some(temperature) = settings.temperature {
        body["temperature"] = json!(temperature);
    }
    body
}

fn said(speaker: Speaker, text: &str) -> Value {
    match speaker {
        Speaker::Caller => json!({"role": "user", "content": text}),
        Speaker::Agent => json!({"role": "assistant", "content": text}),
        Speaker::Supervisor => json!({"role": "system", "content": tools::whispered(text)}),
    }
}

/// What one chunk of the stream adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    /// Text to speak, possibly none.
    pub text: String,
    /// Pieces of tool calls.
    pub tools: Vec<ToolDelta>,
    /// Why the answer is over, when it is.
    pub finish: Option<String>,
}

/// Why a chunk could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadChunk {
    /// The provider reports an error inside the stream.
    Error(String),
    /// It is no chunk.
    Unreadable,
}

/// Reads a chunk.
pub(crate) fn decode(data: &str) -> Result<Delta, BadChunk> {
    let chunk: Chunk = serde_json::from_str(data).map_err(|_| BadChunk::Unreadable)?;
    if chunk.error.is_some_and(|error| !error.is_null()) {
        return Err(BadChunk::Error(crate::http::error_message(data)));
    }
    let Some(choice) = chunk.choices.ok_or(BadChunk::Unreadable)?.into_iter().next() else {
        return Ok(Delta::default()); // the last chunk may hold nothing but usage
    };
    let delta = choice.delta.unwrap_or_default();
    Ok(Delta { text: delta.content.or(delta.refusal).unwrap_or_default(), tools: delta.tool_calls.unwrap_or_default(), finish: choice.finish_reason })
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<WireDelta>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct WireDelta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolDelta>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::sse::SseDecoder;
    use voiced_core::id::TurnId;
    use voiced_core::model::{Called, ToolCall, ToolOutcome, ToolRound};

    fn settings() -> OpenAiChatSettings {
        OpenAiChatSettings {
            account: Account::new("http://127.0.0.1:1/v1", Secret::new("sk-key")),
            model: "gpt-4o-mini".into(),
            prompt: "You take repairs.".into(),
            stages: vec!["welcome".into(), "issue".into()],
            tools: Vec::new(),
            temperature: None,
        }
    }

    fn read(golden: &str) -> Vec<Result<Delta, BadChunk>> {
        let (mut sse, mut events) = (SseDecoder::default(), Vec::new());
        sse.push(golden.as_bytes(), &mut events).unwrap();
        events.iter().filter(|data| *data != "[DONE]").map(|data| decode(data)).collect()
    }

    #[test]
    fn a_question_holds_the_prompt_the_stage_and_what_was_heard() {
        let history = [(Speaker::Agent, "Hello."), (Speaker::Caller, "My sink leaks.")];
        let history = history.map(|(speaker, text)| Message::said(speaker, text)).to_vec();
        let request = LlmRequest { turn: TurnId(3), stage: "welcome".into(), history, rounds: Vec::new(), begun: String::new(), tries: 0 };
        let body = request_body(&settings(), &request, &[], true);
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false, sort_maps => true}, {
            insta::assert_json_snapshot!("openai_chat_request", body);
        });
        assert!(!format!("{:?}", OpenAiChat::new(settings()).unwrap()).contains("sk-key"));
    }

    #[test]
    fn what_tools_said_comes_back_as_their_messages_and_after_the_last_round_none_is_offered() {
        let mut settings = settings();
        settings.tools =
            vec![ToolDefinition { name: "look_up".into(), description: "Finds an order.".into(), parameters: json!({"type": "object", "properties": {}}) }];
        let called = |number, arguments: &str, outcome| Called { number, call: ToolCall { name: "look_up".into(), arguments: arguments.into() }, outcome };
        let history = vec![Message::Called(called(0, "{\"order\":7}", None)), Message::said(Speaker::Caller, "And order eight?")];
        let failed = called(1, "{broken", Some(ToolOutcome::Failed("the arguments are not JSON".into())));
        let answered = called(2, "{\"order\":8}", Some(ToolOutcome::Answered("on its way".into())));
        let rounds = vec![ToolRound { said: "Let me look.".into(), called: vec![failed, answered] }];
        let mut request = LlmRequest { turn: TurnId(3), stage: "welcome".into(), history, rounds, begun: String::new(), tries: 0 };
        let body = request_body(&settings, &request, &[], true);
        assert_eq!(body["tools"].as_array().map(Vec::len), Some(3));
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false, sort_maps => true}, {
            insta::assert_json_snapshot!("openai_chat_tool_messages", body["messages"].as_array().map(|messages| &messages[1..]));
        });
        request.rounds = vec![request.rounds[0].clone(); TOOL_ROUNDS_MAX];
        assert_eq!(request_body(&settings, &request, &[], true)["tools"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_recorded_answer_decodes_to_text_and_tool_calls() {
        let deltas = read(include_str!("../tests/golden/openai_chat.sse"));
        let text: String = deltas.iter().map(|delta| delta.as_ref().unwrap().text.as_str()).collect();
        assert_eq!(text, "Which room is it?");
        let mut round = Round::default();
        for delta in deltas {
            round.add(&delta.unwrap().tools);
        }
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false}, {
            insta::assert_debug_snapshot!("openai_chat_tools", round);
        });
    }

    #[test]
    fn an_error_in_the_stream_is_told_in_the_providers_words() {
        let error = decode(r#"{"error":{"message":"The server had an error","type":"server_error"}}"#);
        assert_eq!(error, Err(BadChunk::Error("The server had an error".into())));
        assert_eq!(decode("<html>"), Err(BadChunk::Unreadable));
        assert_eq!(decode("{}"), Err(BadChunk::Unreadable));
    }
}
