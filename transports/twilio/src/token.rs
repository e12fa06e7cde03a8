//! The stream's one-time token.
//!
//! Anyone may dial a WebSocket, so the TwiML carries a token that only we can have made: an expiry, a nonce and an
//! HMAC-SHA256 over them, the CallSid and every other parameter of the stream. It needs no memory where it is made,
//! so another node with the same secret can take the stream. The process that takes it remembers the nonce until the
//! token would have expired anyway, and asks the daemon whether another process of the host has taken it.

use crate::settings::TwilioSettings;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("no stream token")]
    Missing,
    #[error("the stream token is not ours, or not for this call")]
    Forged,
    #[error("the stream token has expired")]
    Expired,
    #[error("the stream token was used before")]
    Replayed,
    #[error("too many tokens are in use to remember another")]
    Full,
}

/// Makes and checks tokens.
pub(crate) struct Tokens {
    key: [u8; 32],
    ttl_s: u64,
    /// Nonces used, with the second in which their tokens expire.
    used: Mutex<HashMap<Nonce, u64>>,
}

type Nonce = [u8; 16];

/// Nonces remembered, 16 bytes each: 60 s of a thousand calls a second. A host that sees more refuses.
const USED_MAX: usize = 65_536;

/// Name of the token's parameter; it is not part of what is signed.
pub(crate) const TOKEN: &str = "token";

impl Tokens {
    /// Derives the key from the auth token; without, tokens are good on this node only.
    pub(crate) fn new(settings: &TwilioSettings) -> Self {
        let key = settings.auth_token.as_ref().map_or_else(rand::random, |secret| mac(secret.expose().as_bytes(), |mac| mac.update(b"voiced stream token 1")));
        Self { key, ttl_s: settings.token_ttl_s, used: Mutex::default() }
    }

    /// A token for the stream of this call with these parameters.
    pub(crate) fn make(&self, now_s: u64, call_sid: &str, parameters: &BTreeMap<String, String>) -> String {
        let (expiry_s, nonce) = (now_s + self.ttl_s, rand::random::<Nonce>());
        let mac = self.sign(expiry_s, nonce, call_sid, parameters);
        format!("{expiry_s}.{}.{}", URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(mac))
    }

    /// Accepts a token once; what names it, and the second in which it expires, are for other processes to know.
    pub(crate) fn redeem(&self, now_s: u64, call_sid: &str, parameters: &BTreeMap<String, String>) -> Result<(String, u64), BadToken> {
        let token = parameters.get(TOKEN).ok_or(BadToken::Missing)?;
        let (expiry_s, nonce, signature) = split(token).ok_or(BadToken::Forged)?;
        let mut check = keyed(&self.key);
        feed(&mut check, expiry_s, nonce, call_sid, parameters);
        check.verify_slice(&signature).map_err(|_| BadToken::Forged)?;
        if expiry_s < now_s {
            return Err(BadToken::Expired);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= USED_MAX {
            used.retain(|_, expiry_s| *expiry_s >= now_s);
        }
        if used.contains_key(&nonce) {
            return Err(BadToken::Replayed);
        }
        if used.len() >= USED_MAX {
            return Err(BadToken::Full);
        }
        used.insert(nonce, expiry_s);
        Ok((URL_SAFE_NO_PAD.encode(nonce), expiry_s))
    }

    fn sign(&self, expiry_s: u64, nonce: Nonce, call_sid: &str, parameters: &BTreeMap<String, String>) -> [u8; 32] {
        mac(&self.key, |mac| feed(mac, expiry_s, nonce, call_sid, parameters))
    }
}

fn split(token: &str) -> Option<(u64, Nonce, Vec<u8>)> {
    let mut parts = token.splitn(3, '.');
    let expiry_s = parts.next()?.parse().ok()?;
    let nonce = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?.try_into().ok()?;
    Some((expiry_s, nonce, URL_SAFE_NO_PAD.decode(parts.next()?).ok()?))
}

/// Each text goes in with its length before it, so that no two lists of texts are alike.
fn feed(mac: &mut Hmac<Sha256>, expiry_s: u64, nonce: Nonce, call_sid: &str, parameters: &BTreeMap<String, String>) {
    mac.update(&expiry_s.to_be_bytes());
    mac.update(&nonce);
    let pairs = parameters.iter().filter(|(name, _)| *name != TOKEN).flat_map(|(name, value)| [name.as_str(), value]);
    for text in std::iter::once(call_sid).chain(pairs) {
        mac.update(&(text.len() as u64).to_be_bytes());
        mac.update(text.as_bytes());
    }
}

fn mac(key: &[u8], feed: impl FnOnce(&mut Hmac<Sha256>)) -> [u8; 32] {
    let mut mac = keyed(key);
    feed(&mut mac);
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use voiced_secret::Secret;

    fn node(secret: &str) -> Tokens {
        let mut settings = TwilioSettings::new("https://voice.example.test".parse().expect("a URL"));
        settings.auth_token = Some(Secret::new(secret));
        Tokens::new(&settings)
    }

    fn parameters() -> BTreeMap<String, String> {
        BTreeMap::from([("from".to_owned(), "+5511999990000".to_owned())])
    }

    fn with_token(token: String) -> BTreeMap<String, String> {
        let mut parameters = parameters();
        parameters.insert(TOKEN.to_owned(), token);
        parameters
    }

    #[test]
    fn another_node_of_the_fleet_takes_a_token_once() {
        let token = with_token(node("shared").make(100, "CA1", &parameters()));
        let other = node("shared");
        assert!(other.redeem(160, "CA1", &token).is_ok_and(|(_, expiry_s)| expiry_s == 160));
        assert_eq!(other.redeem(160, "CA1", &token), Err(BadToken::Replayed));
        assert_eq!(node("another").redeem(160, "CA1", &token), Err(BadToken::Forged));
    }

    #[test]
    fn a_token_is_bound_to_its_call_its_caller_and_its_time() {
        let node = node("shared");
        let token = with_token(node.make(100, "CA1", &parameters()));
        assert_eq!(node.redeem(100, "CA2", &token), Err(BadToken::Forged));
        let mut other_caller = token.clone();
        other_caller.insert("from".to_owned(), "+1".to_owned());
        assert_eq!(node.redeem(100, "CA1", &other_caller), Err(BadToken::Forged));
        assert_eq!(node.redeem(161, "CA1", &token), Err(BadToken::Expired));
        assert_eq!(node.redeem(100, "CA1", &parameters()), Err(BadToken::Missing));
        assert_eq!(node.redeem(100, "CA1", &with_token("9.9.9".to_owned())), Err(BadToken::Forged));
    }
}
