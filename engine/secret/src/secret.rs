//! The one type for keys. `secrecy` keeps them from being printed and wipes their memory; what our keys need besides stands
//! here: white space from files, keys that were never set, and keys that the other side repeats.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// What error texts and `Debug` show instead of a key.
const HIDDEN: &str = "(hidden)";

/// A key, token or shared secret.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a key; white space around it (a newline from a file) is no part of it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().into())
    }

    /// True when no key was given.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// The key itself, for signing and for the wire only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// `text` without the key, should the other side repeat it.
    pub fn redact(&self, text: &str) -> String {
        if self.is_empty() { text.to_owned() } else { text.replace(self.expose(), HIDDEN) }
    }
}

impl From<String> for Secret {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl From<&str> for Secret {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { HIDDEN })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_printed_form_shows_the_key() {
        let key = Secret::new("sk-very-secret\n");
        assert_eq!(key.expose(), "sk-very-secret");
        assert_eq!((format!("{key} {key:?} {:#?}", Some(&key)).contains("secret"), Secret::default().to_string()), (false, "(none)".to_owned()));
        assert_eq!(key.redact("key sk-very-secret refused"), "key (hidden) refused");
    }
}
