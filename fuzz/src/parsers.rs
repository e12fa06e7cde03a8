//! The list.

use crate::settings::{environment, file};

/// A parser: its name, which is the folder of its seeds and of its fuzz target, and its entrance.
pub struct Parser {
    /// In `snake_case`.
    pub name: &'static str,
    /// Takes any bytes; a panic is a finding.
    pub feed: fn(&[u8]),
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "twilio_message", feed: voiced_twilio::untrusted::message },
    Parser { name: "twilio_stream", feed: voiced_twilio::untrusted::stream },
    Parser { name: "twilio_signature", feed: voiced_twilio::untrusted::signature },
    Parser { name: "twilio_form", feed: voiced_twilio::untrusted::form },
    Parser { name: "twilio_token", feed: voiced_twilio::untrusted::token },
    Parser { name: "deepgram", feed: voiced_models_remote::untrusted::deepgram },
    Parser { name: "cartesia", feed: voiced_models_remote::untrusted::cartesia },
    Parser { name: "openai_chat", feed: voiced_models_remote::untrusted::openai_chat },
    Parser { name: "realtime", feed: voiced_models_remote::untrusted::realtime },
    Parser { name: "provider_refusal", feed: voiced_models_remote::untrusted::refused },
    Parser { name: "provider_name", feed: voiced_models_remote::untrusted::descriptor },
    Parser { name: "livekit_job", feed: voiced_livekit::untrusted::job },
    Parser { name: "livekit_webhook", feed: voiced_livekit::untrusted::webhook },
    Parser { name: "livekit_data", feed: voiced_livekit::untrusted::data },
    Parser { name: "livekit_worker", feed: voiced_livekit::untrusted::worker },
    Parser { name: "settings_file", feed: file },
    Parser { name: "settings_environment", feed: environment },
];

/// Feeds one parser by its name, as the fuzz targets do.
///
/// # Panics
/// When the parser does, and when there is none of this name.
pub fn feed(name: &str, bytes: &[u8]) {
    let parser = PARSERS.iter().find(|parser| parser.name == name).expect("each target is named like a parser");
    (parser.feed)(bytes);
}
