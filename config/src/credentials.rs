//! Keys from files, so that none has to stand in a settings file or in an environment that child processes inherit. A key's
//! variable with `_FILE` behind its name holds a path; and of systemd's credentials (`LoadCredential=`) those are taken that
//! are named like a key's variable in lower case, e.g. `twilio_auth_token`. What the environment says itself wins over a
//! credential; a variable and its `_FILE` at once are refused, as nobody could tell which is meant.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::layers::{COMMA_SEPARATED, NAMED, Problem, key_of};

/// Settings that may come from files: what is secret, and what belongs to a secret.
const KEYS: &[&str] = &[
    "server.api_key",
    "http.api_keys",
    "http.jwt_secret",
    "livekit.api_key",
    "livekit.api_secret",
    "livekit.webhook_api_key",
    "livekit.webhook_api_secret",
    "livekit.egress_access_key",
    "livekit.egress_secret",
    "twilio.auth_token",
    "twilio.shared_key",
    "ema.webhook_secret",
    "traces.headers",
    "providers.deepgram.api_key",
    "providers.openai.api_key",
    "providers.cartesia.api_key",
];
/// Where systemd puts a service's credentials.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// What a variable's name ends in when it holds a path.
const FILE: &str = "_FILE";
/// Longest file, in bytes: a hundred keys. A larger one is no key but a slip.
const FILE_BYTES_MAX: u64 = 16 * 1_024;

/// A variable's text, wherever it was read.
pub(crate) struct Given {
    pub(crate) variable: String,
    pub(crate) text: String,
    /// For people: the variable, or the file.
    pub(crate) from: String,
}

/// The environment with its files read; later ones win.
pub(crate) fn resolve(environment: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Given> {
    let value = |wanted: &str| environment.iter().find(|(variable, _)| variable == wanted).map(|(_, text)| text.as_str());
    let mut given = value(DIRECTORY).map(|folder| credentials(Path::new(folder), problems)).unwrap_or_default();
    for (variable, text) in environment {
        let Some((name, key)) = named_by_file(variable) else {
            given.push(Given { variable: variable.clone(), text: text.clone(), from: format!("environment variable {variable}") });
            continue;
        };
        let mut problem = |what: String| problems.push(Problem { key: key.clone(), from: format!("environment variable {variable}"), what });
        if value(name).is_some() {
            problem(format!("{name} is set too: give the key itself or a file, not both"));
            continue;
        }
        match read(Path::new(text)) {
            Ok(text) => given.push(Given { variable: name.to_owned(), text: one_line(&key, &text), from: format!("the file of {variable}") }),
            Err(reason) => problem(format!("{text}: {reason}")),
        }
    }
    given
}

/// The text that a name of the user's own stands for: a variable, a file that one names, or a credential.
pub(crate) fn named(name: &str, environment: &[(String, String)]) -> Option<std::io::Result<String>> {
    let value = |wanted: &str| environment.iter().find(|(variable, _)| variable == wanted).map(|(_, text)| text.as_str());
    if let Some(text) = value(name) {
        return Some(Ok(text.to_owned()));
    }
    if let Some(file) = value(&format!("{name}{FILE}")) {
        return Some(read(Path::new(file)));
    }
    match read(&Path::new(value(DIRECTORY)?).join(name.to_lowercase())) {
        Err(reason) if reason.kind() == ErrorKind::NotFound => None,
        read => Some(read),
    }
}

/// The variable, and its key, for which another one names a file.
fn named_by_file(variable: &str) -> Option<(&str, String)> {
    let name = variable.strip_suffix(FILE)?;
    let key = key_of(name).filter(|key| KEYS.contains(&key.as_str()))?;
    Some((name, key))
}

fn credentials(folder: &Path, problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut given = Vec::new();
    for key in KEYS {
        let own = NAMED.iter().find(|(_, named)| named == key).map(|(variable, _)| (*variable).to_owned());
        let general = format!("VOICED_{}", key.replace('.', "__").to_uppercase());
        for variable in own.into_iter().chain([general]) {
            let file = folder.join(variable.to_lowercase());
            let from = format!("credential {}", variable.to_lowercase());
            match read(&file) {
                Ok(text) => given.push(Given { text: one_line(key, &text), variable, from }),
                Err(reason) if reason.kind() == ErrorKind::NotFound => {}
                Err(reason) => problems.push(Problem { key: (*key).into(), from, what: format!("{}: {reason}", file.display()) }),
            }
        }
    }
    given
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    let text = text.trim();
    match text.len() as u64 {
        0 => Err(std::io::Error::new(ErrorKind::InvalidData, "the file is empty, must hold the key")),
        1..=FILE_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, format!("longer than {FILE_BYTES_MAX} bytes, which is no key"))),
    }
}

/// A list's file may have a line for each item.
fn one_line(key: &str, text: &str) -> String {
    if COMMA_SEPARATED.contains(&key) { text.lines().collect::<Vec<_>>().join(",") } else { text.to_owned() }
}
