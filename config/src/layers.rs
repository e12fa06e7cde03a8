//! Default, file, environment: each layer is checked against the default's keys and types, so that a misspelt or
//! mistyped key is found wherever it stands.

use std::fmt;

use toml::{Table, Value};

use crate::checks::check;
use crate::credentials::{self, Given};
use crate::settings::Settings;
use crate::tools;

const DEFAULT: &str = include_str!("../default.toml");

/// Environment variables with names of their own, and the keys they set.
pub(crate) const NAMED: &[(&str, &str)] = &[
    ("PORT", "server.port"),
    ("WEBHOOK_URL", "server.webhook_url"),
    ("TWILIO_ACCOUNT_SID", "twilio.account_sid"),
    ("TWILIO_AUTH_TOKEN", "twilio.auth_token"),
    ("TWILIO_PHONE_NUMBER", "twilio.phone_number"),
    ("EMA_API_URL", "ema.api_url"),
    ("EMA_WEBHOOK_SECRET", "ema.webhook_secret"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("DEEPGRAM_API_KEY", "providers.deepgram.api_key"),
    ("DEEPGRAM_BASE_URL", "providers.deepgram.base_url"),
    ("OPENAI_API_KEY", "providers.openai.api_key"),
    ("OPENAI_BASE_URL", "providers.openai.base_url"),
    ("CARTESIA_API_KEY", "providers.cartesia.api_key"),
    ("CARTESIA_BASE_URL", "providers.cartesia.base_url"),
    ("LIVEKIT_URL", "livekit.url"),
    ("LIVEKIT_API_KEY", "livekit.api_key"),
    ("LIVEKIT_API_SECRET", "livekit.api_secret"),
    ("LIVEKIT_WEBHOOK_API_KEY", "livekit.webhook_api_key"),
    ("LIVEKIT_WEBHOOK_API_SECRET", "livekit.webhook_api_secret"),
    ("AGENT_NAME", "livekit.agent_name"),
    ("TELEPHONY_ENABLED", "telephony.enabled"),
    ("TELEPHONY_SIP_IDENTITY_PREFIX", "telephony.sip_identity_prefix"),
    ("TELEPHONY_DISPATCH_ON_ANY_PARTICIPANT_JOIN", "telephony.dispatch_on_any_participant_join"),
];
/// Lists whose items have no comma in them: a variable may give them comma separated.
pub(crate) const COMMA_SEPARATED: &[&str] = &["http.api_keys", "http.cors_origins", "server.trusted_proxies"];
/// Texts that may be a list, best first.
const CHAINS: &[&str] = &["agent.stt", "agent.llm", "agent.tts"];
/// `VOICED_` variables that are not keys.
const NOT_KEYS: &[&str] = &["VOICED_CONFIG", "VOICED_LOG", "VOICED_LOG_JSON", "VOICED_CACHE"];

/// One thing that is wrong, where it stands, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, or the file.
    pub key: String,
    /// The file, variable or `default` it came from.
    pub from: String,
    /// What is wrong and how to mend it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.from, self.what)
    }
}

/// Merges the default, a file's text (with its name) and the environment.
pub fn load(file: Option<(&str, &str)>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, Vec<Problem>> {
    match examine(file, environment) {
        (Some(settings), problems) if problems.is_empty() => Ok(settings),
        (_, problems) => Err(problems),
    }
}

/// The same for `voiced check`: next to the problems the settings without what is wrong in them, so that more can be
/// looked at; none when not even that can be had.
pub fn examine(file: Option<(&str, &str)>, environment: impl IntoIterator<Item = (String, String)>) -> (Option<Settings>, Vec<Problem>) {
    let default: Table = DEFAULT.parse().expect("default.toml is checked by this crate's tests");
    let (mut merged, mut problems) = (default.clone(), Vec::new());
    if let Some((name, text)) = file {
        match text.parse::<Table>() {
            Ok(table) => merge(&mut merged, &default, table, &mut Vec::new(), name, &mut problems),
            Err(error) => problems.push(Problem { key: "TOML".into(), from: name.into(), what: not_toml(text, &error) }),
        }
    }
    let environment: Vec<_> = environment.into_iter().collect();
    for given in credentials::resolve(&environment, &mut problems) {
        from_environment(&mut merged, &default, given, &mut problems);
    }
    tools::fill_in(&mut merged, &environment, &mut problems);
    check(&merged, &mut problems);
    match Value::Table(merged).try_into() {
        Ok(settings) => (Some(settings), problems),
        Err(error) => {
            // a number out of range does not fit its type either: that was told already
            if problems.is_empty() {
                problems.push(Problem { key: "settings".into(), from: "merged".into(), what: error.to_string() });
            }
            (None, problems)
        }
    }
}

/// What is wrong and in which line; not the line itself, which may hold a key.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn merge(into: &mut Table, default: &Table, layer: Table, path: &mut Vec<String>, from: &str, problems: &mut Vec<Problem>) {
    for (key, value) in layer {
        path.push(key.clone());
        match (default.get(&key), value) {
            (None, _) => problems.push(unknown(&path.join("."), from, default.keys().map(|known| with_last(path, known)))),
            (Some(Value::Table(below)), Value::Table(layer)) => {
                if let Some(Value::Table(into)) = into.get_mut(&key) {
                    merge(into, below, layer, path, from, problems);
                }
            }
            (Some(known), value) if known.type_str() == value.type_str() || (value.is_array() && CHAINS.contains(&path.join(".").as_str())) => {
                into.insert(key, value);
            }
            (Some(known), value) => problems.push(Problem {
                key: path.join("."),
                from: from.into(),
                what: format!("is of type {}, must be {}, e.g. {known}", value.type_str(), known.type_str()),
            }),
        }
        path.pop();
    }
}

/// The key that a variable sets, known or not; none for a variable that is not ours.
pub(crate) fn key_of(variable: &str) -> Option<String> {
    if let Some((_, key)) = NAMED.iter().find(|(name, _)| *name == variable) {
        return Some((*key).to_owned());
    }
    let path = variable.strip_prefix("VOICED_").filter(|_| !NOT_KEYS.contains(&variable))?;
    Some(path.to_lowercase().replace("__", "."))
}

fn from_environment(merged: &mut Table, default: &Table, given: Given, problems: &mut Vec<Problem>) {
    let Given { variable, text, from } = given;
    let Some(path) = key_of(&variable) else { return };
    let known = all_keys(default);
    let Some((_, default_value)) = known.iter().find(|(key, _)| *key == path) else {
        problems.push(unknown(&path, &from, known.into_iter().map(|(key, _)| key)));
        return;
    };
    let parsed = if COMMA_SEPARATED.contains(&path.as_str()) && !text.trim_start().starts_with('[') {
        Ok(comma_separated(&text))
    } else {
        parse_as(default_value, text)
    };
    match parsed {
        Ok(value) => set(merged, &path, value),
        Err(what) => problems.push(Problem { key: path, from, what }),
    }
}

fn parse_as(default: &Value, text: String) -> Result<Value, String> {
    match default {
        Value::String(_) => Ok(Value::String(text)),
        Value::Float(_) => text.trim().parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number")),
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| format!("{text:?} is not a whole number")),
        Value::Boolean(_) => match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        _ => format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .filter(|value| value.type_str() == default.type_str())
            .ok_or_else(|| format!("must be a TOML {}, e.g. {default}", default.type_str())),
    }
}

fn comma_separated(text: &str) -> Value {
    Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
}

fn unknown(key: &str, from: &str, known: impl Iterator<Item = String>) -> Problem {
    // 0.75: near enough to be a slip, far enough not to be another key
    let nearest = known.map(|known| (strsim::jaro_winkler(key, &known), known)).filter(|(near, _)| *near > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    let mend = nearest.map_or_else(|| "see config/default.toml for all keys".to_owned(), |(_, known)| format!("did you mean `{known}`?"));
    Problem { key: key.into(), from: from.into(), what: format!("unknown key; {mend}") }
}

pub(crate) fn all_keys(table: &Table) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(below) => keys.extend(all_keys(below).into_iter().map(|(path, value)| (format!("{key}.{path}"), value))),
            value => keys.push((key.clone(), value.clone())),
        }
    }
    keys
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            if let Some(Value::Table(below)) = table.get_mut(first) {
                set(below, rest, value);
            }
        }
    }
}

fn with_last(path: &[String], last: &str) -> String {
    let mut path = path[..path.len() - 1].to_vec();
    path.push(last.to_owned());
    path.join(".")
}
