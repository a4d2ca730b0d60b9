//! Sending spans that have ended to an OpenTelemetry collector: in batches, never waited for, dropped where nobody takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tracing::warn;

use super::otlp::{
    AnyValue, ExportRequest, ExportResponse, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span,
    SpanKind, SpanStatus, Value,
};
use super::seen::{Kind, Seen, Served, next_id};

/// Spans that wait to be sent; what comes beyond that is dropped and counted.
const WAITING: usize = 4096;
/// Spans of one message.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a collector that does not answer is complained of.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The way to a collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// The collector's address is none.
#[derive(Debug, thiserror::Error)]
#[error("tracing.collector {collector:?}: {source}")]
pub(crate) struct ExporterError {
    collector: String,
    source: tonic::transport::Error,
}

impl Exporter {
    /// Sends to the collector at `collector`, a host with a port, whenever that answers. Needs a runtime.
    pub(crate) fn begin(collector: &str) -> Result<Exporter, ExporterError> {
        let channel = Endpoint::from_shared(format!("http://{collector}"))
            .map_err(|source| ExporterError { collector: collector.to_owned(), source })?;
        let channel = channel.timeout(PATIENCE).connect_timeout(PATIENCE).connect_lazy();
        let (spans, waiting) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        tokio::spawn(send_all(channel, waiting, dropped.clone()));
        Ok(Exporter { spans, dropped })
    }

    pub(super) fn send(&self, seen: Arc<Seen>, ended: Instant) {
        self.queue(span(&seen, ended));
    }

    /// What a shim did, as a part of `within`.
    pub(super) fn send_served(&self, within: &Seen, served: &Served) {
        self.queue(served_span(within, served));
    }

    fn queue(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn send_all(channel: Channel, mut waiting: mpsc::Receiver<Span>, dropped: Arc<AtomicU64>) {
    let mut complained: Option<Instant> = None;
    let mut batch = Vec::new();
    while let Some(first) = waiting.recv().await {
        batch.push(first);
        let until = tokio::time::Instant::now() + PAUSE;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(until, waiting.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        if let Err(status) = export(channel.clone(), std::mem::take(&mut batch)).await {
            let lost = dropped.fetch_add(count, Ordering::Relaxed) + count;
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
                complained = Some(Instant::now());
                warn!(%status, lost, "the collector of traces takes no spans");
            }
        }
    }
}

async fn export(channel: Channel, spans: Vec<Span>) -> Result<(), tonic::Status> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let resource = Resource {
        attributes: vec![text("service.name", "pintle".into()), text("service.version", version.clone())],
    };
    let scope = Scope { name: "pintle".into(), version };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    let request =
        ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] };
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let codec = tonic_prost::ProstCodec::<ExportRequest, ExportResponse>::default();
    grpc.unary(Request::new(request), path, codec).await.map(drop)
}

fn span(seen: &Seen, ended: Instant) -> Span {
    let answer = seen.answer();
    // What a call began may go on after its answer; the call itself has ended then.
    let ended = answer.map_or(ended, |(_, at)| at);
    let began = nanoseconds(seen.began_at);
    let took = u64::try_from(ended.saturating_duration_since(seen.began).as_nanos()).unwrap_or_default();
    let mut attributes = Vec::new();
    if let (Kind::Call, Some((service, method))) = (seen.kind, seen.name.split_once('/')) {
        attributes.push(text("rpc.system", "grpc".into()));
        attributes.push(text("rpc.service", service.to_owned()));
        attributes.push(text("rpc.method", method.to_owned()));
    }
    if !seen.pod.is_empty() {
        attributes.push(text("pintle.pod", seen.pod.clone()));
    }
    if let Some((code, _)) = answer {
        let value = Some(AnyValue { value: Some(Value::Number(code.into())) });
        attributes.push(KeyValue { key: "rpc.grpc.status_code".into(), value });
    }
    let failed = answer.filter(|(code, _)| *code != 0);
    Span {
        trace_id: seen.trace.to_be_bytes().to_vec(),
        span_id: seen.id.to_be_bytes().to_vec(),
        parent_span_id: seen.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: seen.name.clone(),
        kind: match seen.kind {
            Kind::Call => SpanKind::Server,
            Kind::Stage => SpanKind::Internal,
        }
        .into(),
        start_time_unix_nano: began,
        end_time_unix_nano: began + took,
        attributes,
        status: failed
            .map(|(code, _)| SpanStatus { message: Code::from_i32(code).description().into(), code: 2 }),
    }
}

fn served_span(within: &Seen, served: &Served) -> Span {
    let mut attributes = vec![
        text("rpc.system", "ttrpc".into()),
        text("rpc.service", "pintle.shim.v1.Shim".into()),
        text("rpc.method", served.call.clone()),
    ];
    if !within.pod.is_empty() {
        attributes.push(text("pintle.pod", within.pod.clone()));
    }
    Span {
        trace_id: within.trace.to_be_bytes().to_vec(),
        span_id: next_id().to_be_bytes().to_vec(),
        parent_span_id: within.id.to_be_bytes().to_vec(),
        name: format!("Shim/{}", served.call),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: served.began,
        end_time_unix_nano: served.ended.max(served.began),
        attributes,
        status: None,
    }
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::Text(value)) }) }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
