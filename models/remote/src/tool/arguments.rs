//! What a model gives a tool, held against the tool's schema: a model that guesses is told so, instead of the tool.
//!
//! Of JSON schema `type`, `required`, `properties`, `items`, `enum` and `additionalProperties: false` are looked at, which
//! is where models go wrong; the tool itself knows the rest.

use serde_json::Value;

/// The arguments, or what is wrong with them. None at all is an empty object.
pub(super) fn read(schema: &Value, text: &str) -> Result<Value, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let arguments: Value = serde_json::from_str(text).map_err(|_| "they are not JSON".to_owned())?;
    if !arguments.is_object() {
        return Err("they are not a JSON object".into());
    }
    check(schema, &arguments, "the arguments")?;
    Ok(arguments)
}

/// As deep as the value goes, which the parser of JSON limits.
fn check(schema: &Value, value: &Value, name: &str) -> Result<(), String> {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(kind, value)) {
        return Err(format!("{name} must be of type {}", kinds.join(" or ")));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        return Err(format!("{name} must be one of {}", schema["enum"]));
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(required) {
                return Err(format!("{required} is missing"));
            }
        }
        for (key, value) in object {
            match schema["properties"].get(key) {
                Some(schema) => check(schema, value, key)?,
                None if schema["additionalProperties"] == Value::Bool(false) => return Err(format!("{key} is not known")),
                None => {}
            }
        }
    }
    value.as_array().into_iter().flatten().try_for_each(|item| check(&schema["items"], item, name))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => true, // of a newer schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_that_the_schema_does_not_ask_for_are_told_in_words() {
        let schema = json!({
            "type": "object",
            "properties": {
                "order": {"type": "integer"},
                "kind": {"enum": ["new", "old"]},
                "rooms": {"type": "array", "items": {"type": "string"}},
                "when": {"type": ["string", "null"]},
            },
            "required": ["order"],
            "additionalProperties": false,
        });
        assert_eq!(
            read(&schema, r#"{"order": 7, "kind": "new", "rooms": ["bath"], "when": null}"#),
            Ok(json!({"order": 7, "kind": "new", "rooms": ["bath"], "when": null}))
        );
        for (text, reason) in [
            ("{\"order\": 7", "they are not JSON"),
            ("[7]", "they are not a JSON object"),
            ("", "order is missing"),
            (r#"{"order": "seven"}"#, "order must be of type integer"),
            (r#"{"order": 7.5}"#, "order must be of type integer"),
            (r#"{"order": 7, "kind": "odd"}"#, r#"kind must be one of ["new","old"]"#),
            (r#"{"order": 7, "rooms": [1]}"#, "rooms must be of type string"),
            (r#"{"order": 7, "when": 9}"#, "when must be of type string or null"),
            (r#"{"order": 7, "colour": "red"}"#, "colour is not known"),
        ] {
            assert_eq!(read(&schema, text), Err(reason.to_owned()), "{text}");
        }
        assert_eq!(read(&json!({}), ""), Ok(json!({})), "a tool without a schema takes any object");
    }
}
