//! What is measured, under the names, labels and units of cAdvisor: dashboards and alerts made for the kubelet's endpoint go on working.
//!
//! All families of that endpoint are here, and those of cAdvisor's others that the kernel keeps for every group. Left out is what nothing
//! real stands behind: load averages and task states that need a poller, performance counters and cache monitoring that somebody has to
//! set up first, and tables of every connection. The protocol's values are whole numbers, so seconds are whole.

use std::collections::BTreeMap;

use cgroup::Stats;
use model::time::Timestamp;
use network::InterfaceStats;
use node::{ContainerMeasurement, FileSystem, Layer, Measurements, PodMeasurement, Processes};

use crate::runtime_v1 as proto;

mod cpu;
mod io;
mod memory;
mod process;

/// The labels that every metric has, in the order of their values. `name` is the id of the container or pod, `id` its cgroup.
const BASE: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// All metrics of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: proto::MetricType,
    needs: Needs,
    values: Values,
}

/// What a host has to have for a family to have values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Version 2 of control groups.
    Version2,
    /// A controller of huge pages.
    HugePages,
}

/// What this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    pub version2: bool,
    pub huge_pages: bool,
}

impl Here {
    fn has(self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Version2 => self.version2,
            Needs::HugePages => self.huge_pages,
        }
    }
}

/// How the values of a family are come by.
enum Values {
    /// There is one, or none.
    One(fn(&Look<'_>) -> Option<u64>),
    /// There is one for each combination of these further labels.
    Many(&'static [&'static str], fn(&Look<'_>, &mut Sink<'_>)),
}

/// What was measured of one container, or of a pod as a whole.
struct Look<'a> {
    cgroup: Option<&'a Stats>,
    processes: Option<&'a Processes>,
    layer: Option<Layer>,
    interfaces: &'a [InterfaceStats],
    filesystem: Option<&'a FileSystem>,
    devices: &'a BTreeMap<(u32, u32), String>,
    created_at: Timestamp,
    started_at: Timestamp,
    at: Timestamp,
}

/// Takes the metrics of one family.
struct Sink<'a> {
    family: &'static Family,
    base: &'a [String; BASE.len()],
    metrics: &'a mut Vec<proto::Metric>,
}

impl Sink<'_> {
    /// Takes a value that was read just now.
    fn put(&mut self, extra: &[&str], value: u64) {
        self.put_at(extra, value, Timestamp::NEVER);
    }

    /// Takes a value that was kept since `at`.
    fn put_at(&mut self, extra: &[&str], value: u64, at: Timestamp) {
        let extra = extra.iter().map(|label| (*label).to_owned());
        self.metrics.push(proto::Metric {
            name: self.family.name.to_owned(),
            timestamp: at.nanoseconds(),
            metric_type: self.family.kind.into(),
            label_values: self.base.iter().cloned().chain(extra).collect(),
            value: Some(proto::UInt64Value { value }),
        });
    }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Look<'_>) -> Option<u64>) -> Family {
    Family { name, help, kind: proto::MetricType::Counter, needs: Needs::Nothing, values: Values::One(value) }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Look<'_>) -> Option<u64>) -> Family {
    Family { name, help, kind: proto::MetricType::Gauge, needs: Needs::Nothing, values: Values::One(value) }
}

const fn counters(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    values: fn(&Look<'_>, &mut Sink<'_>),
) -> Family {
    let values = Values::Many(labels, values);
    Family { name, help, kind: proto::MetricType::Counter, needs: Needs::Nothing, values }
}

const fn gauges(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    values: fn(&Look<'_>, &mut Sink<'_>),
) -> Family {
    let values = Values::Many(labels, values);
    Family { name, help, kind: proto::MetricType::Gauge, needs: Needs::Nothing, values }
}

impl Family {
    const fn needs(mut self, needs: Needs) -> Family {
        self.needs = needs;
        self
    }
}

fn families() -> impl Iterator<Item = &'static Family> {
    [cpu::FAMILIES, memory::FAMILIES, io::FAMILIES, process::FAMILIES].into_iter().flatten()
}

/// The families that this host has values for. They stay the same as long as the daemon runs.
pub fn descriptors(here: Here) -> Vec<proto::MetricDescriptor> {
    let families = families().filter(|family| here.has(family.needs));
    families
        .map(|family| {
            let extra = match family.values {
                Values::One(_) => &[],
                Values::Many(labels, _) => labels,
            };
            proto::MetricDescriptor {
                name: family.name.into(),
                help: family.help.into(),
                label_keys: BASE.iter().chain(extra).map(|key| (*key).to_owned()).collect(),
            }
        })
        .collect()
}

/// The metrics of every pod that was measured.
pub fn pods(measured: &Measurements) -> Vec<proto::PodSandboxMetrics> {
    measured.pods.iter().map(|pod| of_pod(measured, pod)).collect()
}

fn of_pod(all: &Measurements, pod: &PodMeasurement) -> proto::PodSandboxMetrics {
    let record = &pod.record;
    let name = &record.request.name;
    let look = Look {
        cgroup: pod.cgroup.as_ref(),
        processes: None,
        layer: None,
        interfaces: &pod.interfaces,
        filesystem: None,
        devices: &all.devices,
        created_at: record.created_at,
        started_at: record.created_at,
        at: pod.at,
    };
    let base = [
        String::new(),
        rooted(&record.state.cgroup.path),
        String::new(),
        record.id.to_string(),
        name.namespace.clone(),
        name.name.clone(),
    ];
    proto::PodSandboxMetrics {
        pod_sandbox_id: record.id.to_string(),
        metrics: metrics(&look, &base),
        container_metrics: pod.containers.iter().map(|container| of_container(all, pod, container)).collect(),
    }
}

fn of_container(
    all: &Measurements,
    pod: &PodMeasurement,
    container: &ContainerMeasurement,
) -> proto::ContainerMetrics {
    let record = &container.record;
    let name = &pod.record.request.name;
    let look = Look {
        cgroup: Some(&container.cgroup),
        processes: Some(&container.processes),
        layer: container.layer,
        interfaces: &[],
        filesystem: all.filesystem.as_ref(),
        devices: &all.devices,
        created_at: record.created_at,
        started_at: record.started_at(),
        at: container.at,
    };
    let image = &record.request.image;
    let image = if image.user_specified.is_empty() { &image.image } else { &image.user_specified };
    let base = [
        record.request.name.clone(),
        rooted(&record.facts.cgroup),
        image.clone(),
        record.id.to_string(),
        name.namespace.clone(),
        name.name.clone(),
    ];
    proto::ContainerMetrics { container_id: record.id.to_string(), metrics: metrics(&look, &base) }
}

fn metrics(look: &Look<'_>, base: &[String; BASE.len()]) -> Vec<proto::Metric> {
    let mut metrics = Vec::new();
    for family in families() {
        let mut sink = Sink { family, base, metrics: &mut metrics };
        match family.values {
            Values::One(value) => {
                if let Some(value) = value(look) {
                    sink.put(&[], value);
                }
            }
            Values::Many(_, values) => values(look, &mut sink),
        }
    }
    metrics
}

/// cAdvisor's `id` begins at the root of the hierarchy.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

const NANOSECONDS: u64 = 1_000_000_000;

fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / NANOSECONDS
}

/// The second of a point in time.
fn moment(at: Timestamp) -> Option<u64> {
    u64::try_from(at.nanoseconds()).ok().filter(|nanoseconds| *nanoseconds > 0).map(seconds)
}

#[cfg(test)]
mod tests;
