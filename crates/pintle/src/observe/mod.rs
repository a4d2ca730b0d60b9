//! What can be seen of the daemon from outside: spans become metrics, traces and the watchdog's warnings, all from the same observations.
//!
//! A call of CRI is a span with the target [`CALL`], a step of what it does one with the target [`STAGE`]; what a shim did for either
//! is an event with the target [`SHIM`]. Nothing else is observed.

mod exporter;
mod exposition;
mod kernel;
mod metrics;
mod otlp;
mod process;
mod seen;
mod watchdog;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use exporter::{Exporter, ExporterError};
pub(crate) use exposition::{Exposition, ExpositionError};
use metrics::Metrics;
use seen::{Kind, Seen, Served};

/// The target of the spans of calls: fields `call`, `trace`, `parent`, and at the end `code`.
pub(crate) const CALL: &str = "pintle::call";
/// The target of the spans of stages: fields `stage` and `pod`.
pub(crate) const STAGE: &str = "pintle::stage";

/// The target of the events of shims: fields `call`, `began` and `ended`.
pub(crate) const SHIM: &str = "pintle::shim";

/// Everything that is under way, and where what has ended is counted and sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observer {
    metrics: Arc<Metrics>,
    under_way: Arc<Mutex<HashMap<u64, Arc<Seen>>>>,
    exporter: Arc<std::sync::OnceLock<Exporter>>,
}

impl Observer {
    /// From now on spans that end are sent there too.
    pub(crate) fn export(&self, exporter: Exporter) {
        let _ = self.exporter.set(exporter);
    }

    /// Warns from now on of what is under way for more than a minute. Ends with the runtime.
    pub(crate) fn watch(&self) {
        tokio::spawn(watchdog::run(self.clone()));
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seen>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a span or an event is one that is observed.
pub(crate) fn is_observed(metadata: &Metadata<'_>) -> bool {
    match metadata.target() {
        CALL | STAGE => metadata.is_span(),
        SHIM => metadata.is_event(),
        _ => false,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Observer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<Arc<Seen>>().cloned());
        let seen = Arc::new(Seen::begin(attributes, parent.as_deref()));
        span.extensions_mut().insert(seen.clone());
        self.under_way().insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let extensions = span.extensions();
        let Some(seen) = extensions.get::<Arc<Seen>>() else { return };
        if let Some(code) = seen.answered(values) {
            self.metrics.call(&seen.name, code, seen.began.elapsed());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (Some(exporter), Some(span)) = (self.exporter.get(), context.event_span(event)) else { return };
        if let Some(within) = span.extensions().get::<Arc<Seen>>() {
            exporter.send_served(within, &Served::of(event));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let Some(seen) = self.under_way().remove(&id.into_u64()) else { return };
        if seen.kind == Kind::Stage {
            self.metrics.stage(&seen.name, seen.began.elapsed());
        }
        if let Some(exporter) = self.exporter.get() {
            exporter.send(seen, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_become_metrics_and_are_forgotten() {
        let observer = Observer::default();
        let layer = observer.clone().with_filter(tracing_subscriber::filter::filter_fn(is_observed));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let code = tracing::field::Empty;
            let call = info_span!(target: CALL, "call", call = "RuntimeService/Status", trace = "", code);
            let stage = call.in_scope(|| info_span!(target: STAGE, "stage", stage = "network", pod = "p"));
            let other = info_span!("something else");
            assert_eq!(observer.under_way().len(), 2);
            let inner = observer.under_way().values().find(|seen| seen.kind == Kind::Stage).cloned().unwrap();
            let outer = observer.under_way().values().find(|seen| seen.kind == Kind::Call).cloned().unwrap();
            assert_eq!((inner.trace, inner.parent), (outer.trace, Some(outer.id)));
            drop((stage, other));
            call.record("code", 5);
            drop(call);
        });
        assert!(observer.under_way().is_empty());
        let text = observer.metrics.text();
        let lines = [
            "pintle_call_duration_seconds_count{call=\"RuntimeService/Status\",code=\"NotFound\"} 1",
            "pintle_stage_duration_seconds_count{stage=\"network\"} 1",
        ];
        for line in lines {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
