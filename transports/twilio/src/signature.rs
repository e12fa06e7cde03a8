//! Twilio's request signature.
//!
//! Twilio signs the URL that it requested, followed, for a form, by every name and value in byte order without repeats.
//! For a body of JSON it puts the body's SHA-256 into the URL instead. The URL is rebuilt from the configured public
//! base, never from headers that anyone may send. Twilio is not consistent about a default port, nor about a trailing
//! slash on a stream's URL, so either form is accepted.

use crate::settings::TwilioSettings;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use url::{Url, form_urlencoded};
use voiced_secret::Secret;

/// A form's fields, decoded.
pub(crate) type Fields = Vec<(String, String)>;

/// Parameter of the URL that holds the hash of a body that is no form.
pub(crate) const BODY_HASH: &str = "bodySHA256";

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsigned {
    #[error("no X-Twilio-Signature header")]
    Missing,
    #[error("no auth token is configured to check the signature with: set TWILIO_AUTH_TOKEN")]
    NoKey,
    #[error("the request is signed with a SharedKey: set twilio.shared_key to its secret (algorithms: HMAC_SHA256, HMAC_SHA1)")]
    SharedKey,
    #[error("the body is not the one that bodySHA256 in the URL is of")]
    OtherBody,
    #[error("the signature does not fit the URL, the form and the auth token: is WEBHOOK_URL what Twilio calls?")]
    Wrong,
}

/// Checks a request for `url` with the fields of its form (none for GET and upgrades).
pub(crate) fn verify(settings: &TwilioSettings, headers: &HeaderMap, url: &str, fields: &Fields) -> Result<(), Unsigned> {
    if !settings.verify_signatures {
        return Ok(());
    }
    let signature = headers.get("x-twilio-signature").and_then(|value| value.to_str().ok()).ok_or(Unsigned::Missing)?;
    let signature = STANDARD.decode(signature).map_err(|_| Unsigned::Wrong)?;
    let (key, algorithm) = key(settings, headers)?;
    let form = form_text(fields);
    let fits = spellings(url).iter().any(|url| algorithm.fits(key, &[url.as_bytes(), form.as_bytes()], &signature));
    if fits { Ok(()) } else { Err(Unsigned::Wrong) }
}

/// Checks the body of a request whose signed query holds the body's hash; false: it holds none.
pub(crate) fn verify_body(query: &str, body: &[u8]) -> Result<bool, Unsigned> {
    let Some((_, hash)) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == BODY_HASH) else { return Ok(false) };
    let hex = Sha256::digest(body).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // a String takes everything
        hex
    });
    // no secret is compared here: the hash is the sender's own
    if hash.eq_ignore_ascii_case(&hex) { Ok(true) } else { Err(Unsigned::OtherBody) }
}

#[derive(Clone, Copy)]
enum Algorithm {
    HmacSha1,
    HmacSha256,
}

impl Algorithm {
    /// Compares in constant time.
    fn fits(self, key: &Secret, parts: &[&[u8]], signature: &[u8]) -> bool {
        fn fits<M: Mac + KeyInit>(key: &Secret, parts: &[&[u8]], signature: &[u8]) -> bool {
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(key.expose().as_bytes()) else { return false };
            for part in parts {
                mac.update(part);
            }
            mac.verify_slice(signature).is_ok()
        }
        match self {
            Self::HmacSha1 => fits::<Hmac<Sha1>>(key, parts, signature),
            Self::HmacSha256 => fits::<Hmac<Sha256>>(key, parts, signature),
        }
    }
}

/// The auth token with SHA-1, unless a header says that a `SharedKey` was used.
fn key<'a>(settings: &'a TwilioSettings, headers: &HeaderMap) -> Result<(&'a Secret, Algorithm), Unsigned> {
    let Some(shared) = headers.get("x-twilio-webhooks-signature-settings") else {
        let key = settings.auth_token.as_ref().filter(|key| !key.expose().is_empty());
        return key.map(|key| (key, Algorithm::HmacSha1)).ok_or(Unsigned::NoKey);
    };
    let named = shared.to_str().ok().and_then(|text| text.split(',').find_map(|part| part.trim().strip_prefix("algorithm=")));
    let algorithm = match named {
        Some("HMAC_SHA256") => Algorithm::HmacSha256,
        Some("HMAC_SHA1") => Algorithm::HmacSha1,
        _ => return Err(Unsigned::SharedKey),
    };
    let key = settings.shared_key.as_ref().filter(|key| !key.expose().is_empty());
    key.map(|key| (key, algorithm)).ok_or(Unsigned::SharedKey)
}

/// Name and value of every field, sorted, repeats left out, with nothing in between.
fn form_text(fields: &Fields) -> String {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect()
}

/// The URL as it stands, with or without the default port, and for streams with or without a trailing slash.
fn spellings(url: &str) -> Vec<String> {
    let mut spellings = vec![url.to_owned()];
    if let Some(other) = with_other_port(url) {
        spellings.push(other);
    }
    if url.starts_with("ws") {
        let slashed: Vec<_> = spellings.iter().map(|url| format!("{url}/")).collect();
        spellings.extend(slashed);
    }
    spellings
}

/// With the default port written out if it was not, without it if it was.
fn with_other_port(url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let (scheme, rest) = url.split_once("://")?;
    let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_len);
    let default = parsed.port_or_known_default()?;
    match authority.strip_suffix(&format!(":{default}")) {
        Some(bare) if parsed.port().is_none() => Some(format!("{scheme}://{bare}{path}")),
        _ if parsed.port().is_none() => Some(format!("{scheme}://{authority}:{default}{path}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors were checked against Twilio's own validator.
    const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn check(header: &[(&'static str, &str)], url: &str, fields: &[(&str, &str)]) -> Result<(), Unsigned> {
        let mut settings = TwilioSettings::new(Url::parse("https://voice.example.test").expect("a URL"));
        settings.auth_token = Some(Secret::new(AUTH_TOKEN));
        settings.shared_key = Some(Secret::new(AUTH_TOKEN));
        let headers = header.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().expect("a header")));
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        verify(&settings, &headers.collect(), url, &fields)
    }

    const VOICE_URL: &str = "https://voice.example.test/twilio/voice?tenant=acme";
    const VOICE: [(&str, &str); 7] = [
        ("To", "+551130000000"),
        ("From", "+5511999990000"),
        ("Direction", "inbound"),
        ("CallStatus", "ringing"),
        ("CallSid", "CA11111111111111111111111111111111"),
        ("ApiVersion", "2010-04-01"),
        ("AccountSid", "AC22222222222222222222222222222222"),
    ];

    #[test]
    fn a_signed_form_is_believed_with_and_without_the_port() {
        let signed = [("x-twilio-signature", "LmLElYpjuSTw3YFtAyGnxrIDZyw=")];
        assert_eq!(check(&signed, VOICE_URL, &VOICE), Ok(()));
        assert_eq!(check(&signed, "https://voice.example.test:443/twilio/voice?tenant=acme", &VOICE), Ok(()));
        let doubled = [("x-twilio-signature", "5NHod6IJJwP2tAq8IGSMe6CDIRk=")];
        let media = [("MediaUrl", "b"), ("MediaUrl", "a"), ("MediaUrl", "a")];
        assert_eq!(check(&doubled, "https://voice.example.test/x", &media), Ok(()));
    }

    #[test]
    fn a_form_changed_on_the_way_is_not_believed() {
        let signed = [("x-twilio-signature", "LmLElYpjuSTw3YFtAyGnxrIDZyw=")];
        assert_eq!(check(&signed, VOICE_URL, &VOICE[1..]), Err(Unsigned::Wrong));
        assert_eq!(check(&signed, "https://voice.example.test:8443/twilio/voice?tenant=acme", &VOICE), Err(Unsigned::Wrong));
        assert_eq!(check(&[("x-twilio-signature", "?")], VOICE_URL, &VOICE), Err(Unsigned::Wrong));
        assert_eq!(check(&[], VOICE_URL, &VOICE), Err(Unsigned::Missing));
    }

    #[test]
    fn a_get_is_signed_by_its_url_alone() {
        let url = "https://voice.example.test/twilio/voice?CallSid=CA1&From=%2B5511999990000";
        assert_eq!(check(&[("x-twilio-signature", "f6Vicn44esiDn9/5h6LWnXAAwzA=")], url, &[]), Ok(()));
    }

    #[test]
    fn json_is_signed_by_its_hash_in_the_url() {
        let query = "tenant=acme&bodySHA256=32b769982a3a6e2df120530b06dcbaf1e8f75e004ceea92ac3e91bd7a248d728";
        let url = format!("https://voice.example.test/twilio/json?{query}");
        assert_eq!(check(&[("x-twilio-signature", "pnwSD9gWEvnOTCYanE7m2AnUrrI=")], &url, &[]), Ok(()));
        assert_eq!(verify_body(query, br#"{"hello":"world","n":1}"#), Ok(true));
        assert_eq!(verify_body(query, br#"{"hello":"world","n":2}"#), Err(Unsigned::OtherBody));
        assert_eq!(verify_body("tenant=acme", b"CallSid=CA1"), Ok(false));
    }

    #[test]
    fn an_upgrade_is_signed_over_the_wss_form_with_or_without_a_slash() {
        let url = "wss://voice.example.test/twilio/media";
        assert_eq!(check(&[("x-twilio-signature", "jO+qLHLp+lz9/rbFAwoUaDtDsdc=")], url, &[]), Ok(()));
        assert_eq!(check(&[("x-twilio-signature", "Vazs6/5LJcjSGck+tdYu+vCzHKs=")], url, &[]), Ok(()));
        let https_form = [("x-twilio-signature", "Kg6fQndJbAV7keVumQsAU08HeW4=")];
        assert_eq!(check(&https_form, url, &[]), Err(Unsigned::Wrong));
    }

    #[test]
    fn a_shared_key_signs_with_the_algorithm_that_the_header_names() {
        let settings = |text| ("x-twilio-webhooks-signature-settings", text);
        let signature = ("x-twilio-signature", "qJdz66UBTyoaifXQ+hHI80OCjewk/oNPdrajfiPQr2w=");
        let named = settings("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256");
        assert_eq!(check(&[signature, named], VOICE_URL, &VOICE), Ok(()));
        let unknown = settings("key=webhooks_sharedkey_1,algorithm=NONE");
        assert_eq!(check(&[signature, unknown], VOICE_URL, &VOICE), Err(Unsigned::SharedKey));
    }
}
