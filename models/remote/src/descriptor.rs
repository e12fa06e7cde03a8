//! The names by which an agent's profile asks for a model: `provider/model[:suffix]`, e.g. `deepgram/nova-3:en`.

use std::fmt;
use thiserror::Error;

/// A parsed descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Who serves the model.
    pub provider: Provider,
    /// The provider's name of the model.
    pub model: String,
    /// After the last colon: a language for speech to text, a voice for text to speech.
    pub suffix: Option<String>,
}

/// What a descriptor is asked for; the profile's field has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Speech to text, `provider/model[:language]`.
    Stt,
    /// Language model, `provider/model`; a colon belongs to the model.
    Llm,
    /// Text to speech, `provider/model[:voice]`.
    Tts,
    /// Speech to speech, `provider/model`.
    Realtime,
}

/// Who can serve a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// This machine.
    Local,
    /// Deepgram.
    Deepgram,
    /// `OpenAI`, or a server compatible with it.
    OpenAi,
    /// Cartesia.
    Cartesia,
}

/// What is wrong with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescriptorError {
    /// Not of the form `provider/model[:suffix]`.
    #[error("{field} = {text:?} is not of the form provider/model[:suffix], such as {example}")]
    Form {
        /// The profile's field.
        field: &'static str,
        /// What was given.
        text: String,
        /// One that works.
        example: &'static str,
    },
    /// A provider that does not serve this role.
    #[error("{field} = {text:?} names an unknown provider; known for {field}: {known}")]
    Provider {
        /// The profile's field.
        field: &'static str,
        /// What was given.
        text: String,
        /// The providers of this role.
        known: String,
    },
    /// Text to speech of a provider that has no voice of its own accord.
    #[error("tts = {text:?}: {provider} needs a voice, as in {text}:VOICE")]
    Voice {
        /// What was given.
        text: String,
        /// Who needs it.
        provider: &'static str,
    },
}

impl Descriptor {
    /// Parses a chain: descriptors with commas between them, best first.
    pub fn chain(role: Role, text: &str) -> Result<Vec<Self>, DescriptorError> {
        text.split(',').map(|one| Self::parse(role, one)).collect()
    }

    /// Parses one descriptor of what a profile's field holds.
    pub fn parse(role: Role, text: &str) -> Result<Self, DescriptorError> {
        let form = || DescriptorError::Form { field: role.field(), text: text.to_owned(), example: role.example() };
        let (provider, rest) = text.trim().split_once('/').ok_or_else(form)?;
        let known = role.providers();
        let provider = known.iter().copied().find(|known| known.name() == provider).ok_or_else(|| DescriptorError::Provider {
            field: role.field(),
            text: text.to_owned(),
            known: known.iter().map(|known| known.name()).collect::<Vec<_>>().join(", "),
        })?;
        let (model, suffix) = match rest.rsplit_once(':') {
            Some((model, suffix)) if !matches!(role, Role::Llm | Role::Realtime) => (model, Some(suffix)),
            _ => (rest, None),
        };
        if model.is_empty() || suffix.is_some_and(str::is_empty) {
            return Err(form());
        }
        if role == Role::Tts && provider == Provider::Cartesia && suffix.is_none() {
            return Err(DescriptorError::Voice { text: text.trim().to_owned(), provider: provider.name() });
        }
        Ok(Self { provider, model: model.to_owned(), suffix: suffix.map(str::to_owned) })
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider.name(), self.model)?;
        self.suffix.iter().try_for_each(|suffix| write!(f, ":{suffix}"))
    }
}

impl Role {
    /// The profile's field.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Tts => "tts",
            Self::Realtime => "realtime_model",
        }
    }

    /// Who serves this role.
    pub const fn providers(self) -> &'static [Provider] {
        match self {
            Self::Stt => &[Provider::Local, Provider::Deepgram],
            Self::Llm => &[Provider::Local, Provider::OpenAi],
            Self::Tts => &[Provider::Local, Provider::OpenAi, Provider::Cartesia],
            Self::Realtime => &[Provider::OpenAi],
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Stt => "deepgram/nova-3:en",
            Self::Llm => "openai/gpt-4o-mini",
            Self::Tts => "openai/tts-1:alloy",
            Self::Realtime => "openai/gpt-realtime-2.1",
        }
    }
}

impl Provider {
    /// As descriptors write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Deepgram => "deepgram",
            Self::OpenAi => "openai",
            Self::Cartesia => "cartesia",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(role: Role, text: &str) -> (Provider, String, Option<String>) {
        let parsed = Descriptor::parse(role, text).unwrap();
        assert_eq!(parsed.to_string(), text);
        (parsed.provider, parsed.model, parsed.suffix)
    }

    #[test]
    fn a_descriptor_is_split_at_its_first_slash_and_last_colon() {
        assert_eq!(parts(Role::Stt, "deepgram/nova-3:en"), (Provider::Deepgram, "nova-3".into(), Some("en".into())));
        assert_eq!(parts(Role::Tts, "cartesia/a:b:c"), (Provider::Cartesia, "a:b".into(), Some("c".into())));
        assert_eq!(parts(Role::Llm, "openai/meta/llama:free"), (Provider::OpenAi, "meta/llama:free".into(), None));
        assert_eq!(parts(Role::Llm, "local/script"), (Provider::Local, "script".into(), None));
    }

    #[test]
    fn a_wrong_descriptor_names_the_field_and_what_is_known() {
        let text = |role, text| Descriptor::parse(role, text).unwrap_err().to_string();
        assert_eq!(text(Role::Stt, "cartesia/ink-2"), r#"stt = "cartesia/ink-2" names an unknown provider; known for stt: local, deepgram"#);
        assert!(text(Role::Tts, "alloy").starts_with(r#"tts = "alloy" is not of the form"#));
        assert!(text(Role::Tts, "openai/tts-1:").contains("not of the form"));
        assert!(text(Role::Llm, "openai/").contains("not of the form"));
        assert_eq!(text(Role::Tts, "cartesia/sonic-3"), r#"tts = "cartesia/sonic-3": cartesia needs a voice, as in cartesia/sonic-3:VOICE"#);
    }
}
