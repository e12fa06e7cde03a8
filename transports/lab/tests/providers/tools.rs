//! The operator's tools against a server that goes wrong in every way.

use serde_json::json;
use voiced_core::id::TurnId;
use voiced_core::model::{ToolCall, ToolOutcome};
use voiced_lab::providers::Fault;
use voiced_lab::providers::tool::ToolServer;
use voiced_models_remote::llm::ToolDefinition;
use voiced_models_remote::tool::{ToolContext, ToolReport, ToolSettings, Tools};

fn tools(url: String) -> Tools {
    let parameters = json!({"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]});
    let definition = ToolDefinition { name: "look_up".into(), description: "Finds an order.".into(), parameters };
    let headers = vec![("Authorization".into(), "Bearer key-of-the-crm".into())];
    Tools::new(vec![ToolSettings { definition, url, timeout_ms: 500, headers }]).expect("settings")
}

async fn call(tools: &Tools, arguments: &str) -> ToolReport {
    let context = ToolContext { session_id: "phone-CA1".into(), call_sid: Some("CA1".into()), turn: TurnId(4), idempotency_key: "phone-CA1-0".into() };
    tools.call(&ToolCall { name: "look_up".into(), arguments: arguments.into() }, &context).await
}

#[tokio::test]
async fn a_call_says_who_asks_for_what_and_its_answer_comes_back() {
    let server = ToolServer::start(json!({"state": "on its way"})).await.expect("a port");
    let report = call(&tools(server.tool.url()), r#"{"order":7}"#).await;
    assert_eq!((report.outcome, report.label), (ToolOutcome::Answered(r#"{"state":"on its way"}"#.into()), "ok"));
    let called = server.tool.called();
    assert_eq!(
        (called.len(), called[0].idempotency_key.as_deref(), called[0].authorization.as_deref()),
        (1, Some("phone-CA1-0"), Some("Bearer key-of-the-crm"))
    );
    assert_eq!(called[0].body, json!({"name": "look_up", "arguments": {"order": 7}, "session_id": "phone-CA1", "call_sid": "CA1", "turn": 4}));
}

#[tokio::test]
async fn whatever_goes_wrong_is_told_in_words_without_the_key() {
    let server = ToolServer::start(json!({})).await.expect("a port");
    let tools = tools(server.tool.url());
    for (fault, label, reason) in [
        (Fault::NeverAnswers, "timeout", "no answer within 500 ms; it may still be done"),
        (Fault::ServerError, "refused", "HTTP 500: Bearer (hidden)"),
        (Fault::TooManyRequests, "refused", "HTTP 429: later"),
        (Fault::DiesMidReply, "too_big", "the answer is longer than 16384 bytes"),
        (Fault::Garbage, "wrong_content", "the answer is neither JSON nor text but text/html"),
    ] {
        server.tool.fault.set(fault);
        let report = call(&tools, r#"{"order":7}"#).await;
        assert_eq!((report.outcome, report.label), (ToolOutcome::Failed(reason.into()), label), "{fault:?}");
    }
    let called = server.tool.called().len();
    assert_eq!(call(&tools, r#"{"order":"seven"}"#).await.label, "bad_arguments");
    assert_eq!(server.tool.called().len(), called, "the tool is not troubled with them");
    drop(server);
    assert_eq!(call(&tools_at_a_dead_end(), r#"{"order":7}"#).await.label, "unreachable");
}

fn tools_at_a_dead_end() -> Tools {
    tools("http://127.0.0.1:9/tool".into())
}
