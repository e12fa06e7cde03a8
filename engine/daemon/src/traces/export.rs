//! The way of spans to the collector: a queue with a limit and a thread of its own behind it. What does not get through is
//! counted, and told once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;

use crate::metrics::Metrics;

/// Spans that wait at most: half a minute of 200 lively calls, some 8 MB.
const WAITING_MAX: usize = 8_192;
/// Spans of one request: what collectors are used to.
const BATCH_MAX: usize = 512;
/// How often a batch is sent that is not full.
const EVERY: Duration = Duration::from_secs(1);
/// How long a collector may take for one batch; then it is tried no more.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// Where OTLP over HTTP takes traces, below a collector's address.
const PATH: &str = "v1/traces";

/// The queue to the settings' collector.
pub fn queue(settings: &voiced_config::Traces, metrics: &Arc<Metrics>) -> Result<impl SpanProcessor + 'static> {
    let http = reqwest::Client::builder()
        .default_headers(headers(settings.headers.expose()).context("traces.headers (OTEL_EXPORTER_OTLP_HEADERS)")?)
        .redirect(reqwest::redirect::Policy::none()) // the keys are for the configured address alone
        .timeout(EXPORT_WITHIN)
        .build()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { http, runtime: Handle::current() })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/{PATH}", settings.endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_WITHIN)
        .build()
        .context("traces.endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)")?;
    let tally = Arc::new(Tally { waiting: AtomicUsize::new(0), failing: AtomicBool::new(false), metrics: Arc::clone(metrics) });
    let limits = BatchConfigBuilder::default().with_max_queue_size(WAITING_MAX).with_max_export_batch_size(BATCH_MAX).with_scheduled_delay(EVERY);
    let counted = Counted { exporter, tally: Arc::clone(&tally) };
    Ok(Queue { batches: BatchSpanProcessor::builder(counted).with_batch_config(limits.build()).build(), tally })
}

/// `name=value, name=value`, values percent-encoded or not.
fn headers(text: &str) -> Result<HeaderMap> {
    let pairs = text.split(',').filter_map(|header| header.split_once('='));
    let header = |(name, value): (&str, &str)| {
        let mut value = HeaderValue::from_str(&percent_decode_str(value.trim()).decode_utf8_lossy())?;
        value.set_sensitive(true);
        Ok((HeaderName::from_str(name.trim())?, value))
    };
    pairs.map(header).collect()
}

/// What is known of the spans on their way.
struct Tally {
    waiting: AtomicUsize,
    /// The collector did not take the latest batch.
    failing: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Tally {
    fn sent(&self, spans: usize) {
        self.metrics.trace_spans_sent.add(spans as u64);
        if self.failing.swap(false, Relaxed) {
            tracing::info!("the collector takes traces again");
        }
    }

    fn lost(&self, spans: usize, why: &dyn fmt::Display) {
        self.metrics.trace_spans_lost.add(spans as u64);
        if !self.failing.swap(true, Relaxed) {
            tracing::warn!(%why, "traces are lost; voiced_trace_spans_lost_total counts them");
        }
    }
}

/// The library's batches, with a limit that counts what it turns away.
struct Queue {
    batches: BatchSpanProcessor,
    tally: Arc<Tally>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.tally.waiting.fetch_add(1, Relaxed) < WAITING_MAX {
            return self.batches.on_end(span);
        }
        self.tally.waiting.fetch_sub(1, Relaxed);
        self.tally.lost(1, &"the collector is too slow");
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive() // the exporter within may hold keys
    }
}

/// The library's exporter; what becomes of each batch is counted.
struct Counted {
    exporter: opentelemetry_otlp::SpanExporter,
    tally: Arc<Tally>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.tally.waiting.fetch_sub(spans, Relaxed);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.tally.sent(spans),
            Err(error) => self.tally.lost(spans, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive() // the exporter within may hold keys
    }
}

/// Sends on the daemon's runtime what the batches' own thread waits for: that thread has none.
#[derive(Debug)]
struct OnRuntime {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        self.runtime.spawn(async move { http.send_bytes(request).await }).await?
    }
}
