//! The webhooks: a call comes in, a call has ended.

use crate::counters::count;
use crate::signature::{self, Fields};
use crate::switchboard::{Desk, is_final};
use crate::{token, twiml};
use axum::body::Bytes;
use axum::extract::{FromRequest, OriginalUri, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;
use url::form_urlencoded;

/// `POST /twilio/voice`: TwiML that opens the call's stream, or an apology when the host is full.
pub(crate) async fn voice(State(desk): State<Arc<Desk>>, OriginalUri(uri): OriginalUri, request: Request) -> Response {
    let form = match read(&desk, &uri, request).await {
        Ok(form) => form,
        Err(refusal) => return *refusal,
    };
    if !desk.promised.promise(Instant::now(), &form.call_sid, |others| desk.switchboard.may_admit(others)) {
        if let Some(url) = desk.switchboard.elsewhere() {
            tracing::info!(call_sid = form.call_sid, "the call is sent to another host");
            return xml(twiml::redirect(&url));
        }
        count(&desk.counters.apologies);
        tracing::warn!(call_sid = form.call_sid, "all lines are busy, the caller hears an apology");
        return xml(twiml::apology());
    }
    let mut parameters = parameters(&form.fields, uri.query().unwrap_or_default());
    let token = desk.tokens.make(now_s(), &form.call_sid, &parameters);
    parameters.insert(token::TOKEN.to_owned(), token);
    xml(twiml::connect(&desk.settings.stream_url(&form.call_sid), &parameters))
}

/// `POST /twilio/status`: what has become of a call.
pub(crate) async fn status(State(desk): State<Arc<Desk>>, OriginalUri(uri): OriginalUri, request: Request) -> Response {
    match read(&desk, &uri, request).await {
        Ok(form) => {
            let status = field(&form.fields, "CallStatus");
            if is_final(status) {
                desk.promised.settle(&form.call_sid);
            }
            desk.switchboard.status(&form.call_sid, status);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Counts and logs a request that is not believed.
pub(crate) fn refuse(desk: &Desk, path: &str, reason: &dyn std::fmt::Display) -> Response {
    count(&desk.counters.refused_requests);
    tracing::warn!(path, %reason, "request refused");
    StatusCode::FORBIDDEN.into_response()
}

/// A sid is letters and digits; it goes into URLs and JSON as it stands.
pub(crate) fn is_sid(text: &str) -> bool {
    (1..=SID_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Longest sid, in bytes; Twilio's have 34.
const SID_LEN_MAX: usize = 64;
/// Longest value carried through the stream, in bytes; Twilio allows 500 for name and value together.
const VALUE_BYTES_MAX: usize = 400;
/// Longest name carried through the stream, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Parameters of the webhook's query carried through the stream.
const CUSTOM_MAX: usize = 16;

/// A believed form.
struct Form {
    fields: Fields,
    call_sid: String,
}

async fn read(desk: &Desk, uri: &Uri, request: Request) -> Result<Form, Box<Response>> {
    let headers = request.headers().clone();
    let body = match timeout(Duration::from_secs(desk.settings.body_timeout_s), Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return Err(Box::new(rejection.into_response())),
        Err(_) => return Err(Box::new(StatusCode::REQUEST_TIMEOUT.into_response())),
    };
    believe(desk, uri, &headers, &body)
}

/// The form of a request that is Twilio's.
fn believe(desk: &Desk, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Form, Box<Response>> {
    let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
    let refuse = |reason: &dyn std::fmt::Display| Err(Box::new(refuse(desk, uri.path(), reason)));
    let url = desk.settings.public_url(path);
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    // a body of JSON counts only where its hash is part of what is signed
    let has_hash = if is_json { signature::verify_body(uri.query().unwrap_or_default(), body) } else { Ok(false) };
    let believed = match has_hash {
        Ok(true) => signature::verify(&desk.settings, headers, &url, &Fields::new()).map(|()| json_fields(body)),
        Ok(false) => {
            let fields = form_urlencoded::parse(body).into_owned().collect();
            signature::verify(&desk.settings, headers, &url, &fields).map(|()| fields)
        }
        Err(reason) => Err(reason),
    };
    let fields = match believed {
        Ok(fields) => fields,
        Err(reason) => return refuse(&reason),
    };
    let account = desk.settings.account_sid.as_deref();
    if account.is_some_and(|account| account != field(&fields, "AccountSid")) {
        return refuse(&"the call is of another account than TWILIO_ACCOUNT_SID");
    }
    let call_sid = field(&fields, "CallSid").to_owned();
    if !is_sid(&call_sid) {
        return Err(Box::new((StatusCode::BAD_REQUEST, "CallSid is missing or malformed").into_response()));
    }
    Ok(Form { fields, call_sid })
}

/// The texts and numbers of a JSON object, as a form would have them.
fn json_fields(body: &[u8]) -> Fields {
    let object: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    object.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

/// What the stream is told: who calls, and the query of the webhook's URL.
pub(crate) fn parameters(fields: &Fields, query: &str) -> BTreeMap<String, String> {
    let fits = |name: &str, value: &str| name.len() <= NAME_BYTES_MAX && value.len() <= VALUE_BYTES_MAX;
    let custom = form_urlencoded::parse(query.as_bytes()).filter(|(name, value)| name != signature::BODY_HASH && fits(name, value)).take(CUSTOM_MAX);
    let mut parameters: BTreeMap<_, _> = custom.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    for (name, source) in [("from", "From"), ("to", "To"), ("direction", "Direction")] {
        let value = field(fields, source);
        parameters.insert(name.to_owned(), value[..value.floor_char_boundary(VALUE_BYTES_MAX)].to_owned());
    }
    parameters.remove(token::TOKEN);
    parameters
}

fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

fn xml(document: String) -> Response {
    ([(header::CONTENT_TYPE, twiml::CONTENT_TYPE)], document).into_response()
}
