//! `pintle stats`: processor and memory use of containers or pods, from two samples.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::{binary_bytes, parse_duration};
use super::inventory::{Inventory, container_name, pod_name};
use super::output::{Format, OutputArgs, Table, short_id, show, write_out};
use super::pod_stats;
use cri::runtime_v1 as cri_v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these containers; with --pods, only these pods
    pub(super) names: Vec<String>,
    /// Show pods as a whole, and their network, instead of containers
    #[arg(long)]
    pods: bool,
    /// Time between the two samples
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub(super) interval: Duration,
    /// Show it again and again until interrupted
    #[arg(short, long)]
    pub(super) watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What one container uses.
pub(crate) struct Usage {
    pub id: String,
    pub name: String,
    pub pod: String,
    /// Per cent of one processor; `None` while there is only one sample.
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    if args.pods {
        return pod_stats::run(&args, client).await;
    }
    let mut before = sample(client).await?;
    loop {
        tokio::time::sleep(args.interval).await;
        let inventory = Inventory::load(client).await?;
        let wanted = args.names.iter().map(|given| inventory.container(given).map(|c| c.id.clone()));
        let wanted = wanted.collect::<Result<Vec<String>, Failure>>()?;
        let now = sample(client).await?;
        let mut usages = usages(&inventory, &before, &now);
        usages.retain(|usage| wanted.is_empty() || wanted.contains(&usage.id));
        let value = Value::Array(usages.iter().map(json).collect());
        present(&args, &value, || table(&usages))?;
        if !args.watch {
            return Ok(());
        }
        before = now;
    }
}

/// Shows one round of figures.
pub(super) fn present(args: &Args, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
    if args.watch && args.output.output == Format::Table {
        // Home and clear to the end, not a full clear, which would flicker.
        return write_out(&format!("\x1b[H\x1b[J{}", table()));
    }
    show(args.output.output, value, table)
}

/// One sample of every running container.
pub(crate) async fn sample(client: &Client) -> Result<Vec<cri_v1::ContainerStats>, Failure> {
    let answer =
        client.runtime().list_container_stats(cri_v1::ListContainerStatsRequest { filter: None }).await;
    Ok(answer.explain(|| "asking for the containers' statistics".into())?.stats)
}

/// Joins two samples to what each container uses, in the order of pods and names.
pub(crate) fn usages(
    inventory: &Inventory,
    before: &[cri_v1::ContainerStats],
    now: &[cri_v1::ContainerStats],
) -> Vec<Usage> {
    let id =
        |stats: &cri_v1::ContainerStats| stats.attributes.as_ref().map(|a| a.id.clone()).unwrap_or_default();
    let before: BTreeMap<String, &cri_v1::ContainerStats> =
        before.iter().map(|stats| (id(stats), stats)).collect();
    let mut usages: Vec<Usage> = now
        .iter()
        .map(|stats| {
            let id = id(stats);
            let container = inventory.containers.iter().find(|container| container.id == id);
            let pod = container.and_then(|container| inventory.pod_of(container));
            let memory = stats.memory.as_ref();
            Usage {
                name: container.map(container_name).unwrap_or_default().to_owned(),
                pod: pod.map(pod_name).unwrap_or_default().to_owned(),
                cpu_percent: before
                    .get(&id)
                    .and_then(|before| cpu_percent(before.cpu.as_ref()?, stats.cpu.as_ref()?)),
                memory_bytes: memory.and_then(|memory| memory.working_set_bytes).map(|bytes| bytes.value),
                rss_bytes: memory.and_then(|memory| memory.rss_bytes).map(|bytes| bytes.value),
                disk_bytes: stats
                    .writable_layer
                    .as_ref()
                    .and_then(|layer| layer.used_bytes)
                    .map(|bytes| bytes.value),
                id,
            }
        })
        .collect();
    usages.sort_by(|a, b| (&a.pod, &a.name, &a.id).cmp(&(&b.pod, &b.name, &b.id)));
    usages
}

/// Per cent of one processor between two samples; the sampler's own clock divides, not ours.
pub(super) fn cpu_percent(before: &cri_v1::CpuUsage, now: &cri_v1::CpuUsage) -> Option<f64> {
    let nanos = now.timestamp.checked_sub(before.timestamp).filter(|nanos| *nanos > 0)?;
    let used = now.usage_core_nano_seconds?.value.checked_sub(before.usage_core_nano_seconds?.value)?;
    Some(used as f64 / nanos as f64 * 100.0)
}

/// The usages as a table.
pub(crate) fn table(usages: &[Usage]) -> String {
    let mut table = Table::new(&["CONTAINER", "NAME", "POD", "CPU %", "MEMORY", "RSS", "DISK"]);
    let bytes = |bytes: Option<u64>| bytes.map_or("-".into(), binary_bytes);
    for usage in usages {
        table.row([
            short_id(&usage.id).into(),
            usage.name.clone(),
            usage.pod.clone(),
            usage.cpu_percent.map_or("-".into(), |percent| format!("{percent:.2}")),
            bytes(usage.memory_bytes),
            bytes(usage.rss_bytes),
            bytes(usage.disk_bytes),
        ]);
    }
    table.to_string()
}

fn json(usage: &Usage) -> Value {
    json!({
        "id": usage.id,
        "name": usage.name,
        "podName": usage.pod,
        "cpuPercent": usage.cpu_percent,
        "memoryWorkingSetBytes": usage.memory_bytes,
        "memoryRssBytes": usage.rss_bytes,
        "writableLayerBytes": usage.disk_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(timestamp: i64, used: u64) -> cri_v1::CpuUsage {
        let usage_core_nano_seconds = Some(cri_v1::UInt64Value { value: used });
        cri_v1::CpuUsage { timestamp, usage_core_nano_seconds, ..Default::default() }
    }

    #[test]
    fn two_busy_processors_are_two_hundred_per_cent() {
        assert_eq!(cpu_percent(&usage(0, 0), &usage(1_000_000_000, 2_000_000_000)), Some(200.0));
    }

    #[test]
    fn a_repeated_sample_or_a_new_counter_is_no_figure() {
        assert_eq!(cpu_percent(&usage(5, 1), &usage(5, 1)), None);
        assert_eq!(cpu_percent(&usage(0, 9), &usage(1, 3)), None);
    }
}
