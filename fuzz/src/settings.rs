//! Settings: not sent by strangers, but written by people and programs.

/// A settings file.
pub(crate) fn file(bytes: &[u8]) {
    let _ = voiced_config::examine(Some(("voiced.toml", &String::from_utf8_lossy(bytes))), []);
}

/// Variables, a line each; none that makes the settings read files.
pub(crate) fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.filter(|(name, _)| !name.ends_with("_FILE") && *name != "CREDENTIALS_DIRECTORY");
    let _ = voiced_config::examine(None, variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
}
