//! The operator's tools for language models: their keys are fetched from where keys are kept, and each is looked at as a
//! model, and HTTP, will.

use toml::{Table, Value};

use crate::checks::{WEB, is_token};
use crate::credentials;
use crate::layers::Problem;

/// Keys of a tool.
const KEYS: [&str; 6] = ["name", "description", "url", "timeout_ms", "parameters", "headers"];
/// Tools that the agent has anyway.
const TAKEN: [&str; 2] = ["set_stage", "end_call"];
/// Longest name, in characters: models' providers refuse longer ones.
const NAME_LEN_MAX: usize = 64;
/// Tools at most: with more a model calls the wrong one.
const TOOLS_MAX: usize = 64;

/// Puts variables, files and credentials in the place of `${NAME}` in headers.
pub(crate) fn fill_in(merged: &mut Table, environment: &[(String, String)], problems: &mut Vec<Problem>) {
    let tools = merged.get_mut("agent").and_then(|agent| agent.get_mut("tools")).and_then(Value::as_array_mut);
    for (place, tool) in tools.into_iter().flatten().enumerate() {
        for (name, value) in tool.get_mut("headers").and_then(Value::as_table_mut).into_iter().flatten() {
            let Value::String(text) = value else { continue };
            match filled_in(text, environment) {
                Ok(filled) => *text = filled,
                Err(what) => problems.push(Problem { key: format!("agent.tools[{place}].headers.{name}"), from: "merged settings".into(), what }),
            }
        }
    }
}

fn filled_in(text: &str, environment: &[(String, String)]) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        let (name, behind) = behind.split_once('}').ok_or("has a ${ without its }")?;
        let value = credentials::named(name, environment).ok_or_else(|| format!("needs {name}: set it, or {name}_FILE, or a credential of that name"))?;
        filled.push_str(before);
        filled.push_str(value.map_err(|reason| format!("{name}: {reason}"))?.trim());
        rest = behind;
    }
    Ok(filled + rest)
}

/// Tells what is wrong with the tools.
pub(crate) fn check(tools: Option<&Value>, problem: &mut impl FnMut(&str, String)) {
    let tools = tools.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if tools.len() > TOOLS_MAX {
        problem("agent.tools", format!("has {} tools, {TOOLS_MAX} at most", tools.len()));
    }
    let mut names = Vec::new();
    for (place, tool) in tools.iter().enumerate() {
        let at = |key: &str| format!("agent.tools[{place}]{key}");
        let Some(tool) = tool.as_table() else {
            problem(&at(""), "is no table: write it as [[agent.tools]]".into());
            continue;
        };
        for key in tool.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            problem(&at(&format!(".{key}")), format!("unknown key; a tool has {}", KEYS.join(", ")));
        }
        let text = |key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("name");
        let is_name = (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_name {
            problem(&at(".name"), format!("{name:?} must be 1 to {NAME_LEN_MAX} letters, digits, _ and -"));
        } else if TAKEN.contains(&name) || names.contains(&name) {
            problem(&at(".name"), format!("{name} is the name of another tool"));
        }
        names.push(name);
        if text("description").is_empty() {
            problem(&at(".description"), "is needed: by it the model knows when to call the tool".into());
        }
        if !url::Url::parse(text("url")).is_ok_and(|url| WEB.contains(&url.scheme()) && url.has_host()) {
            problem(&at(".url"), "is not an http:// or https:// address with a host".into());
        }
        match tool.get("timeout_ms").map(Value::as_integer) {
            None | Some(Some(100..=60_000)) => {}
            Some(_) => problem(&at(".timeout_ms"), "must be a whole number, 100 to 60000".into()),
        }
        parameters(tool.get("parameters"), &at(".parameters"), problem);
        headers(tool.get("headers"), &at(".headers"), problem);
    }
}

/// The schema as far as models' providers insist on it.
fn parameters(parameters: Option<&Value>, key: &str, problem: &mut impl FnMut(&str, String)) {
    let Some(parameters) = parameters else { return };
    let Some(schema) = parameters.as_table() else { return problem(key, "is no table".into()) };
    if !schema.is_empty() && schema.get("type").and_then(Value::as_str) != Some("object") {
        problem(key, "must say type = \"object\": a tool's arguments have names".into());
    }
    let properties = schema.get("properties").map_or_else(|| Some(Table::new()), |properties| properties.as_table().cloned());
    let Some(properties) = properties else { return problem(key, "has properties that are no table".into()) };
    if let Some((name, _)) = properties.iter().find(|(_, schema)| !schema.is_table()) {
        problem(key, format!("{name} is no table, e.g. {{ type = \"string\" }}"));
    }
    let required = schema.get("required").map_or(Some(Vec::new()), |names| names.as_array()?.iter().map(Value::as_str).collect());
    match required {
        None => problem(key, "has a required that is no list of names".into()),
        Some(names) => {
            for name in names.into_iter().filter(|name| !properties.contains_key(*name)) {
                problem(key, format!("requires {name}, which is none of its properties"));
            }
        }
    }
}

fn headers(headers: Option<&Value>, key: &str, problem: &mut impl FnMut(&str, String)) {
    let Some(headers) = headers else { return };
    let Some(headers) = headers.as_table() else { return problem(key, "is no table".into()) };
    for (name, value) in headers {
        let is_line = value.as_str().is_some_and(|text| text.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte)));
        if !is_token(name) || !is_line {
            problem(key, format!("{name:?} is no header's name, or its value no line of text"));
        }
    }
}
