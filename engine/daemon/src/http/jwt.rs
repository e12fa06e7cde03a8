//! Tokens that a backend of the frontend's own signs: JWT with HS256, `exp` required, `nbf` and `aud` kept to. Read by
//! hand, so that the only algorithm there is, is the one that is meant.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use voiced_secret::Secret;

/// How far the clocks of two hosts may be apart, in seconds.
const LEEWAY_S: f64 = 30.0;

/// Believes tokens of one secret.
pub struct Verifier {
    secret: Secret,
    /// Empty: whoever the token is meant for.
    audience: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    /// Seconds since the Unix epoch; fractions are allowed.
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Verifier {
    /// Of a secret that is not empty.
    pub fn new(secret: &Secret, audience: &str) -> Self {
        Self { secret: secret.clone(), audience: audience.to_owned() }
    }

    /// Says why a token is not believed.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<(), &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("it is neither a known key nor a JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("it is neither a known key nor a JWT")?;
        let header: Header = decode(header).ok_or("the token's header cannot be read")?;
        if header.alg != "HS256" || header.crit.is_some() {
            return Err("the token must be signed with HS256, without `crit`");
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the token's signature cannot be read")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.expose().as_bytes()).map_err(|_| "no token can be believed")?;
        mac.update(signed.as_bytes());
        mac.verify_slice(&signature).map_err(|_| "the token's signature is wrong")?;
        let claims: Claims = decode(claims).ok_or("the token's claims cannot be read")?;
        self.check(&claims, now_s as f64)
    }

    fn check(&self, claims: &Claims, now_s: f64) -> Result<(), &'static str> {
        let exp = claims.exp.ok_or("the token has no `exp`")?;
        if now_s >= exp + LEEWAY_S {
            return Err("the token has expired");
        }
        if claims.nbf.is_some_and(|nbf| now_s + LEEWAY_S < nbf) {
            return Err("the token is not valid yet");
        }
        let named = match &claims.aud {
            Some(Audience::One(audience)) => *audience == self.audience,
            Some(Audience::Several(audiences)) => audiences.contains(&self.audience),
            None => false,
        };
        if self.audience.is_empty() || named { Ok(()) } else { Err("the token is meant for another audience") }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
