//! What the merged settings must keep to beyond their types: ranges, addresses, keys that need each other, and that nothing
//! that costs money stands open to strangers.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use toml::{Table, Value};

use crate::layers::{Problem, all_keys};

/// Numbers whose type is wider than what makes sense.
const RANGES: &[(&str, RangeInclusive<i64>)] = &[
    ("server.port", 0..=65_535),
    ("server.drain_s", 0..=86_400),
    ("server.connections_max", 16..=1_000_000),
    ("server.connections_per_source_max", 1..=1_000_000),
    ("server.header_timeout_s", 1..=600),
    ("server.keep_alive_s", 1..=3_600),
    ("server.header_bytes_max", 4_096..=1_048_576),
    ("server.body_timeout_s", 1..=600),
    ("twilio.token_ttl_s", 5..=3_600),
    ("twilio.idle_timeout_s", 1..=300),
    ("twilio.max_duration_s", 10..=86_400),
    ("twilio.bad_messages_max", 1..=100_000),
    ("twilio.messages_per_s_max", 60..=100_000),
    ("http.rooms_per_minute", 1..=100_000),
    ("http.rooms_per_minute_per_source", 1..=100_000),
    ("livekit.media_threads", 1..=64),
    ("livekit.jobs_max", 1..=100_000),
    ("livekit.recording_retention_days", 0..=3_650),
    ("events.attempts_max", 1..=10_000),
    ("events.backlog_max", 1..=10_000_000),
    ("events.per_second_max", 1..=100_000),
    ("turn.endpoint_ms_min", 100..=3_000),
    ("turn.endpoint_ms_max", 200..=10_000),
    ("turn.hold_ms", 20..=2_000),
    ("turn.silence_ms", 0..=600_000),
    ("turn.lead_ms", 40..=500),
    ("storage.calls_kept", 0..=100_000),
    ("engine.threads", 1..=256),
    ("engine.calls_per_thread", 1..=2_000),
    ("engine.headroom_percent", 0..=90),
    ("engine.realtime_priority", 0..=99),
];
/// What a web address begins with.
pub(crate) const WEB: &[&str] = &["http", "https"];
/// Texts that are addresses when set, and their schemes.
const URLS: &[(&str, &[&str])] = &[
    ("server.webhook_url", WEB),
    ("twilio.drain_redirect_url", WEB),
    ("http.room_url", WEB),
    ("livekit.url", &["wss", "ws", "https", "http"]),
    ("livekit.egress_endpoint", WEB),
    ("ema.api_url", WEB),
    ("traces.endpoint", WEB),
    ("providers.deepgram.base_url", WEB),
    ("providers.openai.base_url", WEB),
    ("providers.cartesia.base_url", WEB),
];
/// Texts that are one of a few words.
const WORDS: &[(&str, &[&str])] = &[("agent.noise_cancellation_type", &["auto", "telephony", "standard", "none"]), ("livekit.hear", &["linked", "all"])];
/// Keys that say who may make the daemon spend money.
const GUARDS: &str = "http.api_keys (VOICED_HTTP__API_KEYS) or http.jwt_secret (VOICED_HTTP__JWT_SECRET)";
/// Shortest key of the API, in characters: shorter ones are guessed.
const API_KEY_LEN_MIN: usize = 16;
/// Shortest secret of HS256, in bytes: as long as the hash, as RFC 7518 wants it.
const JWT_SECRET_LEN_MIN: usize = 32;
/// Longest prefix of bridged rooms, in characters: with Twilio's `CallSid` of 34 the name stays far below the 128 of a room.
const ROOM_PREFIX_LEN_MAX: usize = 64;

/// Tells everything that is wrong.
pub(crate) fn check(merged: &Table, problems: &mut Vec<Problem>) {
    let merged = Merged(all_keys(merged));
    let mut problem = |key: &str, what: String| problems.push(Problem { key: key.into(), from: "merged settings".into(), what });
    for (key, range) in RANGES {
        if let Some(number) = merged.value(key).and_then(Value::as_integer)
            && !range.contains(&number)
        {
            problem(key, format!("{number} is out of range, must be {} to {}", range.start(), range.end()));
        }
    }
    for (key, items) in merged.0.iter().filter_map(|(key, value)| Some((key, value.as_array()?))) {
        if !matches!(key.as_str(), "script.stages" | "agent.tools") && items.iter().any(|item| !item.is_str()) {
            problem(key, "has an item that is no text: put each in quotes".into());
        }
    }
    for (key, schemes) in URLS {
        let known = url::Url::parse(merged.text(key)).is_ok_and(|url| schemes.contains(&url.scheme()) && url.has_host());
        if !merged.text(key).is_empty() && !known {
            problem(key, format!("is not an {} address with a host", schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ")));
        }
    }
    for (key, words) in WORDS {
        if !words.contains(&merged.text(key)) {
            problem(key, format!("{:?} is not one of {}", merged.text(key), words.join(", ")));
        }
    }
    if merged.number("turn.endpoint_ms_min") > merged.number("turn.endpoint_ms_max") {
        problem("turn.endpoint_ms_min", "is larger than turn.endpoint_ms_max".into());
    }
    if merged.is_set("twilio.auth_token") && !merged.is_set("server.webhook_url") {
        problem("server.webhook_url", "is needed with twilio.auth_token: set WEBHOOK_URL to the public https:// address that Twilio calls".into());
    }
    if merged.is_set("ema.api_url") && !merged.is_set("ema.webhook_secret") {
        problem("ema.webhook_secret", "is needed with ema.api_url: set EMA_WEBHOOK_SECRET".into());
    }
    if merged.is_set("server.metrics_bind") && merged.text("server.metrics_bind").parse::<SocketAddr>().is_err() {
        problem("server.metrics_bind", "is no address with a port, e.g. 127.0.0.1:9090".into());
    }
    for address in merged.list("server.trusted_proxies").iter().filter(|address| address.parse::<IpAddr>().is_err()) {
        problem("server.trusted_proxies", format!("{address:?} is no IP address"));
    }
    crate::tools::check(merged.value("agent.tools"), &mut problem);
    traces(&merged, &mut problem);
    rooms(&merged, &mut problem);
    access(&merged, &mut problem);
}

fn traces(merged: &Merged, problem: &mut impl FnMut(&str, String)) {
    if !(0.0..=1.0).contains(&merged.fraction("traces.sample")) {
        problem("traces.sample", format!("{} is out of range, must be 0.0 to 1.0", merged.fraction("traces.sample")));
    }
    let mut headers = merged.text("traces.headers").split(',').map(str::trim).filter(|header| !header.is_empty());
    if !headers.all(|header| header.split_once('=').is_some_and(|(name, _)| is_token(name.trim()))) {
        problem("traces.headers", "must be headers with their values, name=value, with commas between them".into());
    }
}

fn rooms(merged: &Merged, problem: &mut impl FnMut(&str, String)) {
    if !merged.is_set("livekit.agent_name") {
        problem("livekit.agent_name", "is empty: LiveKit would send the agent into every room; set AGENT_NAME".into());
    }
    let prefix = merged.text("livekit.bridge_room_prefix");
    if !(1..=ROOM_PREFIX_LEN_MAX).contains(&prefix.len()) || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
        problem("livekit.bridge_room_prefix", format!("{prefix:?} must be 1 to {ROOM_PREFIX_LEN_MAX} letters, digits, _ and -"));
    }
    if merged.is_set("livekit.webhook_api_key") != merged.is_set("livekit.webhook_api_secret") {
        problem(
            "livekit.webhook_api_key",
            "goes with livekit.webhook_api_secret: set both LIVEKIT_WEBHOOK_API_KEY and LIVEKIT_WEBHOOK_API_SECRET, or none".into(),
        );
    }
}

fn access(merged: &Merged, problem: &mut impl FnMut(&str, String)) {
    let (keys, origins) = (merged.list("http.api_keys"), merged.list("http.cors_origins"));
    if keys.iter().any(|key| key.chars().count() < API_KEY_LEN_MIN) {
        problem("http.api_keys", format!("has a key shorter than {API_KEY_LEN_MIN} characters, which can be guessed: `openssl rand -hex 24` makes a good one"));
    }
    if merged.is_set("http.jwt_secret") && merged.text("http.jwt_secret").len() < JWT_SECRET_LEN_MIN {
        problem("http.jwt_secret", format!("is shorter than the {JWT_SECRET_LEN_MIN} bytes that HS256 needs: `openssl rand -hex 32` makes a good one"));
    }
    let is_guarded = !keys.is_empty() || merged.is_set("http.jwt_secret");
    let rooms = ["livekit.url", "livekit.api_key", "livekit.api_secret"].iter().all(|key| merged.is_set(key));
    let bind = merged.text("server.bind");
    if rooms && !is_guarded && !is_loopback(bind) {
        problem(
            "http.api_keys",
            format!(
                "is needed: LiveKit is configured and server.bind = {bind:?} is no loopback address, so anyone could start sessions that cost money; set {GUARDS}, or bind to 127.0.0.1"
            ),
        );
    }
    for origin in origins {
        let is_origin = url::Url::parse(origin).is_ok_and(|url| WEB.contains(&url.scheme()) && url.origin().ascii_serialization() == *origin);
        if origin != "*" && !is_origin {
            problem("http.cors_origins", format!("{origin:?} is not an origin such as https://app.example.com (no path, no slash at its end), nor *"));
        }
        if origin == "*" && !is_guarded {
            problem("http.cors_origins", format!("* lets every web page that someone opens on this machine start sessions: set {GUARDS} with it"));
        }
    }
}

/// True for a name that HTTP knows for a header.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// True for an address that only this machine reaches.
fn is_loopback(bind: &str) -> bool {
    bind == "localhost" || bind.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// All keys and their values.
struct Merged(Vec<(String, Value)>);

impl Merged {
    fn value(&self, path: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == path).map(|(_, value)| value)
    }

    fn text(&self, path: &str) -> &str {
        self.value(path).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_set(&self, path: &str) -> bool {
        !self.text(path).is_empty()
    }

    fn number(&self, path: &str) -> i64 {
        self.value(path).and_then(Value::as_integer).unwrap_or_default()
    }

    fn fraction(&self, path: &str) -> f64 {
        self.value(path).and_then(Value::as_float).unwrap_or_default()
    }

    fn list(&self, path: &str) -> Vec<&str> {
        self.value(path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }
}
