//! Who may. Endpoints that cost money want one of the API's keys or a JWT; without either configured they are open where
//! only this machine can reach the daemon. What tells callers' words wants the operator's key, or loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use voiced_config::Http;
use voiced_events::deliver::unix_ms;
use voiced_secret::Secret;

use super::jwt::Verifier;
use super::refusal::Refusal;
use super::source::Source;

/// Guards what costs money.
pub struct Access {
    keys: Vec<Key>,
    jwt: Option<Verifier>,
    is_open: bool,
}

impl Access {
    /// As configured, for a daemon that listens at `address`.
    pub fn new(http: &Http, address: SocketAddr) -> Self {
        let keys: Vec<_> = http.api_keys.iter().map(|key| Key::new(key.expose())).collect();
        let jwt = (!http.jwt_secret.is_empty()).then(|| Verifier::new(&http.jwt_secret, &http.jwt_audience));
        let is_open = keys.is_empty() && jwt.is_none() && address.ip().is_loopback();
        Self { keys, jwt, is_open }
    }

    fn check(&self, headers: &HeaderMap, source: &Source) -> Result<(), &'static str> {
        if self.is_open {
            return if source.is_local() {
                Ok(())
            } else {
                Err("set http.api_keys or http.jwt_secret: without them only programs on this machine are answered")
            };
        }
        let given = bearer(headers).or_else(|| headers.get("x-api-key")?.to_str().ok());
        let given = given.ok_or("give `Authorization: Bearer …` with an API key or a JWT, or `X-API-Key`")?;
        // every key is compared, so that the time does not tell which was near
        if self.keys.iter().fold(false, |known, key| known | key.is(given)) {
            return Ok(());
        }
        let jwt = self.jwt.as_ref().ok_or("this key is not known")?;
        jwt.verify(given, unix_ms() / 1_000)
    }
}

/// Lets through who may spend money.
pub async fn may_spend(State(access): State<Arc<Access>>, Extension(source): Extension<Source>, request: Request, next: Next) -> Response {
    match access.check(request.headers(), &source) {
        Ok(()) => next.run(request).await,
        Err(reason) => refuse(reason),
    }
}

/// Guards what tells callers' words: a key where one is set, else loopback only.
pub struct Operator(Option<Key>);

impl Operator {
    /// Of the operator's key; empty: none.
    pub fn new(api_key: &Secret) -> Self {
        Self((!api_key.is_empty()).then(|| Key::new(api_key.expose())))
    }
}

/// Lets through who may look.
pub async fn may_look(State(operator): State<Arc<Operator>>, Extension(source): Extension<Source>, request: Request, next: Next) -> Response {
    let may = match &operator.0 {
        None => source.is_local(),
        Some(key) => bearer(request.headers()).is_some_and(|given| key.is(given)),
    };
    if may {
        return next.run(request).await;
    }
    refuse("give `Authorization: Bearer …` with server.api_key; without such a key only programs on this machine are answered")
}

fn refuse(reason: &str) -> Response {
    Refusal::of(StatusCode::UNAUTHORIZED, reason).at("Authorization").into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, given) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

/// A key as its hash: compared in a time that tells neither how much of it was right nor how long it is.
struct Key([u8; 32]);

impl Key {
    fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn is(&self, given: &str) -> bool {
        self.0.ct_eq(&Self::new(given).0).into()
    }
}
