//! What is counted, in the words of Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::process;

/// Upper bounds of what is told apart, in seconds: from what a list takes to what a pull takes.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// How many of everything there are at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pods_ready: i64,
    pub(super) pods_not_ready: i64,
    pub(super) containers_created: i64,
    pub(super) containers_running: i64,
    pub(super) containers_exited: i64,
    pub(super) images: i64,
    pub(super) image_bytes: i64,
    pub(super) reclaimable_bytes: i64,
    pub(super) under_way: i64,
}

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    calls: Family<Call, Histogram, fn() -> Histogram>,
    stages: Family<Stage, Histogram, fn() -> Histogram>,
    under_way: Gauge,
    pods: Family<State, Gauge>,
    containers: Family<State, Gauge>,
    images: Gauge,
    image_bytes: Gauge,
    reclaimable: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let calls = Family::new_with_constructor(histogram as fn() -> Histogram);
        let stages = Family::new_with_constructor(histogram as fn() -> Histogram);
        let (under_way, images, image_bytes) = (Gauge::default(), Gauge::default(), Gauge::default());
        let reclaimable = Gauge::default();
        let (pods, containers) = (Family::default(), Family::default());
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("pintle_build_info", "The version that runs", build);
        registry.register_with_unit(
            "pintle_call_duration",
            "How long calls took until they were answered",
            Unit::Seconds,
            calls.clone(),
        );
        registry.register_with_unit(
            "pintle_stage_duration",
            "How long the steps of calls took",
            Unit::Seconds,
            stages.clone(),
        );
        registry.register(
            "pintle_under_way",
            "Calls and what they began that have not ended",
            under_way.clone(),
        );
        registry.register("pintle_pods", "Pods by state", pods.clone());
        registry.register("pintle_containers", "Containers by state", containers.clone());
        registry.register("pintle_images", "Images", images.clone());
        registry.register_with_unit("pintle_image", "Disk space of images", Unit::Bytes, image_bytes.clone());
        registry.register_with_unit(
            "pintle_reclaimable",
            "Disk space of layers that no container, no image in use and no pinned image needs",
            Unit::Bytes,
            reclaimable.clone(),
        );
        registry.register_collector(Box::new(process::Process));
        Metrics { registry, calls, stages, under_way, pods, containers, images, image_bytes, reclaimable }
    }
}

impl Metrics {
    /// A call was answered. What is not served has one name, so that a client cannot make names.
    pub(super) fn call(&self, call: &str, code: i32, took: Duration) {
        let code = Code::from_i32(code);
        let call = if code == Code::Unimplemented { "not served" } else { call };
        let labels = Call { call: call.to_owned(), code: format!("{code:?}") };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A step of a call has ended, well or not.
    pub(super) fn stage(&self, stage: &str, took: Duration) {
        self.stages.get_or_create(&Stage { stage: stage.to_owned() }).observe(took.as_secs_f64());
    }

    pub(super) fn count(&self, counts: Counts) {
        let pods = [("ready", counts.pods_ready), ("not_ready", counts.pods_not_ready)];
        for (state, count) in pods {
            self.pods.get_or_create(&State { state }).set(count);
        }
        let containers = [
            ("created", counts.containers_created),
            ("running", counts.containers_running),
            ("exited", counts.containers_exited),
        ];
        for (state, count) in containers {
            self.containers.get_or_create(&State { state }).set(count);
        }
        self.images.set(counts.images);
        self.image_bytes.set(counts.image_bytes);
        self.reclaimable.set(counts.reclaimable_bytes);
        self.under_way.set(counts.under_way);
    }

    /// All of it in the text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only where a collector does, and then the rest is still worth having.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
