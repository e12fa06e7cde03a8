//! Bodies: JSON of a bounded size, read in a bounded time; what does not fit is told with its field. Only
//! `application/json` is read: a web page may send other types to a loopback address without asking.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Longest body of the API, in bytes: an agent's prompt of 16 KiB, twice over for escapes, and the rest.
pub const BODY_BYTES_MAX: usize = 64 * 1_024;
/// Where the listener did not say.
const ARRIVAL: Arrival = Arrival(Duration::from_secs(10));
/// Longest name of a person, in characters: as long as an identity.
const PERSON_LEN_MAX: usize = 128;
/// Longest identity and room name, in bytes: what clients were promised.
const NAME_BYTES_MAX: usize = 128;

/// How long a request's body may take to arrive: told by the listener with each request.
#[derive(Clone, Copy)]
pub struct Arrival(pub Duration);

/// The fields of a JSON body.
pub struct Fields<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Fields<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if !is_json(request.headers()) {
            return Err(Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json").at("Content-Type"));
        }
        let body = read(request, state).await?;
        let reader = &mut serde_json::Deserializer::from_slice(&body);
        match serde_path_to_error::deserialize(reader) {
            Ok(fields) => Ok(Self(fields)),
            Err(error) => {
                let path = error.path().to_string();
                let field = if path == "." || error.inner().is_syntax() || error.inner().is_eof() { "body" } else { path.as_str() };
                Err(Refusal::field(field, error.inner().to_string()))
            }
        }
    }
}

/// The whole body, within the route's limit of size and the time for all.
pub async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    let Arrival(within) = request.extensions().get().copied().unwrap_or(ARRIVAL);
    match tokio::time::timeout(within, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(Refusal::of(rejection.status(), rejection.body_text()).at("body")),
        Err(_) => Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {} s", within.as_secs())).at("body")),
    }
}

/// An identity or a room's name: it goes into tokens, URLs and file names as it stands.
pub fn name(field: &str, text: &str) -> Result<(), Refusal> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if fits { Ok(()) } else { Err(Refusal::field(field, format!("must be 1 to {NAME_BYTES_MAX} letters, digits, _ and -"))) }
}

/// What others see a person called; the identity where nothing is given.
pub fn person(field: &str, given: Option<String>, identity: &str) -> Result<String, Refusal> {
    let name = given.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| identity.to_owned());
    if name.chars().count() > PERSON_LEN_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::field(field, format!("must be at most {PERSON_LEN_MAX} characters, none of them a control character")));
    }
    Ok(name)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
