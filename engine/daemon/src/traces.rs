//! Calls as OpenTelemetry traces, for whoever looks at many calls at once: one trace per call, in it a span for each
//! answered turn, and in that one for each stage of it.
//!
//! A call tells its [`CallTrace`] what happens; each span is given its times when it is over, and goes into a bounded queue
//! ([`export`]). A thread of its own sends what is in the queue to the collector, by OTLP over HTTP. A collector that is slow
//! or down costs the spans that find the queue full, and a count of them, but never a call its time.

mod call;
mod export;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use crate::metrics::Metrics;
pub use call::CallTrace;

/// Events of one call at most: an hour of lively talk; what is beyond it is counted in its span.
const EVENTS_MAX: u32 = 1_024;
/// How long the last spans may take when the daemon stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Where calls' traces begin, when a collector is configured.
pub struct Traces(Option<Open>);

struct Open {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    words: bool,
}

impl Traces {
    /// To the settings' collector; the daemon's runtime must be running.
    pub fn new(settings: &voiced_config::Traces, metrics: &Arc<Metrics>) -> Result<Self> {
        if settings.endpoint.is_empty() {
            return Ok(Self(None));
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(export::queue(settings, metrics)?)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
            .with_max_events_per_span(EVENTS_MAX)
            .with_resource(resource())
            .build();
        let tracer = provider.tracer("voiced");
        Ok(Self(Some(Open { provider, tracer, words: settings.words })))
    }

    /// Begins a call's trace; most calls have none where few are sampled.
    pub fn begin(&self, session_id: &str, call_sid: Option<&str>, transport: &str) -> CallTrace {
        let Some(Open { tracer, words, .. }) = &self.0 else { return CallTrace::default() };
        let mut attributes = vec![KeyValue::new("session.id", session_id.to_owned()), KeyValue::new("voiced.transport", transport.to_owned())];
        attributes.extend(call_sid.map(|sid| KeyValue::new("voiced.call_sid", sid.to_owned())));
        CallTrace::begin(tracer.clone(), attributes, *words)
    }

    /// Sends what is left; nothing is traced from now on.
    pub async fn finish(&self) {
        let Some(provider) = self.0.as_ref().map(|open| open.provider.clone()) else { return };
        let finished = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_WITHIN)).await;
        if let Ok(Err(error)) = finished {
            tracing::warn!(%error, "the last traces are not sent");
        }
    }
}

/// What the collector learns of this daemon; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more.
fn resource() -> Resource {
    let builder = || Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let found = builder().build();
    let is_named = found.get(&Key::new("service.name")).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { found } else { builder().with_service_name("voiced").build() }
}
