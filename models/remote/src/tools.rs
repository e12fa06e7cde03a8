//! The agent's two tools and the operator's own, and what a model is told of them: how they are offered, how a streamed call
//! is put together, what it means. The agent's own two are carried out here; what the operator's do is the conversation's
//! to have done.

use serde::Deserialize;
use serde_json::{Value, json};
use voiced_core::model::{Called, LlmEvent, ToolCall, ToolOutcome};

use crate::llm::ToolDefinition;

/// Calls in one answer that are looked at: more at once no caller can have meant.
const CALLS_MAX: usize = 8;
/// Bytes of one call's arguments that are kept: what a caller dictates is shorter. Longer ones are cut, and so no JSON.
const ARGUMENTS_BYTES_MAX: usize = 4 * 1024;

/// Told to a model that goes on with an answer which broke off.
pub(crate) const GO_ON: &str = "The line to you broke in the middle of your answer. Say what follows behind it, and nothing twice.";

const SET_STAGE: &str = "set_stage";
const END_CALL: &str = "end_call";

/// A piece of a tool call; the first of an index has the id and the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ToolDelta {
    index: usize,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// What a failed call tells the model besides its reason.
const ADVICE: &str = "Tell the caller in one short sentence that this did not work.";

/// The tool calls of one answer, put together from their pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    calls: Vec<Call>,
    /// What the model is told of each call.
    results: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    is_cut: bool,
}

/// Who the agent is and what it does. The prompt comes first and never changes, so that providers can cache it.
pub(crate) fn instructions(prompt: &str, stages: &[String], stage: &str) -> String {
    let mut prompt = prompt.to_owned();
    prompt.push_str("\n\nYou speak on a telephone: plain short sentences, no lists, no markup.");
    prompt.push_str(" When the call is over, say goodbye and call end_call in the same answer.");
    if !stages.is_empty() {
        prompt.push_str(" When the conversation moves on, call set_stage and speak in the same answer.");
        prompt.push_str("\nThe stage now: ");
        prompt.push_str(stage);
    }
    prompt
}

/// What a supervisor says, as a model is told it.
pub(crate) fn whispered(text: &str) -> String {
    format!("Your supervisor tells you, unheard by the caller: {text}")
}

/// The tools as the model sees them.
pub(crate) fn definitions(stages: &[String], own: &[ToolDefinition]) -> Value {
    let end_call = json!({"type": "function", "function": {
        "name": END_CALL,
        "description": "Ends the call once your answer has been spoken.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": false},
    }});
    let own = own.iter().map(|tool| {
        json!({"type": "function", "function": {
            "name": tool.name, "description": tool.description, "parameters": tool.parameters,
        }})
    });
    if stages.is_empty() {
        return std::iter::once(end_call).chain(own).collect();
    }
    let set_stage = json!({"type": "function", "function": {
        "name": SET_STAGE,
        "description": "Tells that the conversation has moved on to a stage.",
        "parameters": {
            "type": "object",
            "properties": {"stage": {"type": "string", "enum": stages}},
            "required": ["stage"],
            "additionalProperties": false,
        },
    }});
    [set_stage, end_call].into_iter().chain(own).collect()
}

/// Calls of the operator's tools, with the words before them, as messages of a request.
pub(crate) fn called(said: &str, called: &[Called]) -> Vec<Value> {
    let id = |called: &Called| format!("call_{}", called.number);
    let calls = called.iter().map(|called| {
        // some servers refuse a request that repeats what is no JSON
        let is_object = serde_json::from_str::<Value>(&called.call.arguments).is_ok_and(|value| value.is_object());
        let arguments = if is_object { called.call.arguments.as_str() } else { "{}" };
        json!({"id": id(called), "type": "function", "function": {"name": called.call.name, "arguments": arguments}})
    });
    let words = (!said.is_empty()).then_some(said);
    let mut messages = vec![json!({"role": "assistant", "content": words, "tool_calls": calls.collect::<Vec<_>>()})];
    messages.extend(called.iter().map(|called| {
        let content = match &called.outcome {
            Some(ToolOutcome::Answered(text)) => text.clone(),
            Some(ToolOutcome::Failed(reason)) => json!({"error": reason, "advice": ADVICE}).to_string(),
            None => json!({"status": "it still runs, its answer is not known yet"}).to_string(),
        };
        json!({"role": "tool", "tool_call_id": id(called), "content": content})
    }));
    messages
}

impl Round {
    /// Takes the pieces of one chunk.
    pub fn add(&mut self, deltas: &[ToolDelta]) {
        for delta in deltas.iter().filter(|delta| delta.index < CALLS_MAX) {
            if self.calls.len() <= delta.index {
                self.calls.resize_with(delta.index + 1, Call::default);
            }
            let call = &mut self.calls[delta.index];
            set_once(&mut call.id, delta.id.as_deref());
            let Some(function) = &delta.function else { continue };
            set_once(&mut call.name, function.name.as_deref());
            let arguments = function.arguments.as_deref().unwrap_or_default();
            call.is_cut |= call.arguments.len() + arguments.len() > ARGUMENTS_BYTES_MAX;
            if !call.is_cut {
                call.arguments.push_str(arguments);
            }
        }
    }

    /// Takes a whole call.
    pub fn call(&mut self, id: String, name: String, arguments: String) {
        if self.calls.len() < CALLS_MAX && arguments.len() <= ARGUMENTS_BYTES_MAX {
            self.calls.push(Call { id, name, arguments, is_cut: false });
        }
    }

    /// Ids of the calls with what the model is told of each.
    pub fn results(&self) -> impl Iterator<Item = (&str, &str)> {
        self.calls.iter().zip(&self.results).map(|(call, result)| (call.id.as_str(), result.as_str()))
    }

    /// True when the answer called nothing.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The calls of the operator's tools.
    pub fn calls_of(&self, own: &[ToolDefinition]) -> Vec<ToolCall> {
        let calls = self.calls.iter().filter(|call| own.iter().any(|tool| tool.name == call.name));
        calls.map(|call| ToolCall { name: call.name.clone(), arguments: call.arguments.clone() }).collect()
    }

    /// What the calls of the agent's own tools mean for the conversation. A call that makes no sense changes nothing; the model is told so.
    pub fn carry_out(&mut self, stages: &[String]) -> Vec<LlmEvent> {
        let meanings: Vec<_> = self.calls.iter().map(|call| call.meaning(stages)).collect();
        let told = |meaning: &Result<LlmEvent, &str>| (*meaning.as_ref().err().unwrap_or(&"ok")).to_owned();
        self.results = meanings.iter().map(told).collect();
        meanings.into_iter().flatten().collect()
    }

    /// The calls and their results as messages of the next request.
    pub fn messages(&self) -> Vec<Value> {
        let calls: Vec<_> = self
            .calls
            .iter()
            .map(|call| {
                json!({"id": call.id, "type": "function",
                       "function": {"name": call.name, "arguments": call.arguments}})
            })
            .collect();
        let results = self.calls.iter().zip(&self.results);
        std::iter::once(json!({"role": "assistant", "content": null, "tool_calls": calls}))
            .chain(results.map(|(call, result)| json!({"role": "tool", "tool_call_id": call.id, "content": result})))
            .collect()
    }
}

/// Some compatible servers repeat the id and the name in every piece.
fn set_once(field: &mut String, value: Option<&str>) {
    if field.is_empty() {
        field.push_str(value.unwrap_or_default());
    }
}

impl Call {
    fn meaning(&self, stages: &[String]) -> Result<LlmEvent, &'static str> {
        match self.name.as_str() {
            END_CALL => Ok(LlmEvent::HangUp),
            SET_STAGE => {
                let arguments = serde_json::from_str::<Value>(&self.arguments).unwrap_or_default();
                let stage = arguments["stage"].as_str().filter(|stage| stages.iter().any(|known| known == stage));
                stage.map(|stage| LlmEvent::Stage(stage.to_owned())).ok_or("there is no such stage")
            }
            _ => Err("there is no such tool"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(index: usize, id: Option<&str>, name: Option<&str>, arguments: &str) -> ToolDelta {
        let function = FunctionDelta { name: name.map(Into::into), arguments: Some(arguments.into()) };
        ToolDelta { index, id: id.map(Into::into), function: Some(function) }
    }

    #[test]
    fn calls_are_put_together_by_index_and_senseless_ones_change_nothing() {
        let mut round = Round::default();
        round.add(&[delta(0, Some("a"), Some("set_stage"), "{\"sta"), delta(1, Some("b"), Some("end_call"), "")]);
        round.add(&[delta(0, None, None, "ge\":\"issue\"}"), delta(2, Some("c"), Some("set_stage"), "{\"stage\":\"x\"}")]);
        round.add(&[delta(3, Some("d"), Some("rm"), ""), delta(99, Some("e"), Some("end_call"), "")]);
        let events = round.carry_out(&["issue".to_owned()]);
        assert_eq!(events, [LlmEvent::Stage("issue".into()), LlmEvent::HangUp]);
        assert_eq!(round.results, ["ok", "ok", "there is no such stage", "there is no such tool"]);
        assert_eq!(round.messages().len(), 5);
        let own = [ToolDefinition { name: "rm".into(), description: String::new(), parameters: json!({}) }];
        assert_eq!(round.calls_of(&[]), []);
        assert_eq!(round.calls_of(&own), [ToolCall { name: "rm".into(), arguments: String::new() }]);
    }
}
