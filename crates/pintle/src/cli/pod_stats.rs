//! `pintle stats --pods`: what pods use as a whole, their network included.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::{binary_bytes, decimal_bytes};
use super::inventory::Inventory;
use super::output::{Table, short_id};
use super::stats::{Args, cpu_percent, present};
use cri::runtime_v1 as cri_v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one pod uses.
struct Usage {
    id: String,
    name: String,
    namespace: String,
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    processes: Option<u64>,
    /// Over all interfaces, since the pod was made.
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
}

type Samples = BTreeMap<String, cri_v1::PodSandboxStats>;

pub(super) async fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let mut before = sample(client).await?;
    loop {
        tokio::time::sleep(args.interval).await;
        let inventory = Inventory::load(client).await?;
        let wanted = args.names.iter().map(|given| inventory.pod(given).map(|pod| pod.id.clone()));
        let wanted = wanted.collect::<Result<Vec<String>, Failure>>()?;
        let now = sample(client).await?;
        let chosen = now.iter().filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
        let mut usages: Vec<Usage> = chosen.map(|(id, stats)| usage(id, before.get(id), stats)).collect();
        usages.sort_by(|a, b| (&a.namespace, &a.name, &a.id).cmp(&(&b.namespace, &b.name, &b.id)));
        present(args, &Value::Array(usages.iter().map(json).collect()), || table(&usages))?;
        if !args.watch {
            return Ok(());
        }
        before = now;
    }
}

async fn sample(client: &Client) -> Result<Samples, Failure> {
    let request = cri_v1::ListPodSandboxStatsRequest { filter: None };
    let answer = client.runtime().list_pod_sandbox_stats(request).await;
    let stats = answer.explain(|| "asking for the pods' statistics".into())?.stats;
    Ok(stats.into_iter().map(|stats| (stats.attributes.clone().unwrap_or_default().id, stats)).collect())
}

fn usage(id: &str, before: Option<&cri_v1::PodSandboxStats>, now: &cri_v1::PodSandboxStats) -> Usage {
    let metadata = now.attributes.clone().unwrap_or_default().metadata.unwrap_or_default();
    let linux = now.linux.as_ref();
    let cpu = |stats: &cri_v1::PodSandboxStats| stats.linux.as_ref()?.cpu;
    let network = linux.and_then(|linux| linux.network.as_ref());
    let sum = |bytes: fn(&cri_v1::NetworkInterfaceUsage) -> Option<cri_v1::UInt64Value>| {
        let network = network?;
        let interfaces = network.default_interface.iter().chain(&network.interfaces);
        Some(interfaces.filter_map(bytes).map(|bytes| bytes.value).sum())
    };
    let value = |value: Option<cri_v1::UInt64Value>| value.map(|value| value.value);
    Usage {
        id: id.to_owned(),
        name: metadata.name,
        namespace: metadata.namespace,
        cpu_percent: before.and_then(|before| cpu_percent(&cpu(before)?, &cpu(now)?)),
        memory_bytes: linux.and_then(|linux| value(linux.memory.as_ref()?.working_set_bytes)),
        processes: linux.and_then(|linux| value(linux.process.as_ref()?.process_count)),
        received_bytes: sum(|interface| interface.rx_bytes),
        sent_bytes: sum(|interface| interface.tx_bytes),
    }
}

fn table(usages: &[Usage]) -> String {
    let mut table =
        Table::new(&["POD", "NAME", "NAMESPACE", "CPU %", "MEMORY", "PROCESSES", "RECEIVED", "SENT"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for usage in usages {
        table.row([
            short_id(&usage.id).into(),
            usage.name.clone(),
            usage.namespace.clone(),
            or_dash(usage.cpu_percent.map(|percent| format!("{percent:.2}"))),
            or_dash(usage.memory_bytes.map(binary_bytes)),
            or_dash(usage.processes.map(|count| count.to_string())),
            or_dash(usage.received_bytes.map(decimal_bytes)),
            or_dash(usage.sent_bytes.map(decimal_bytes)),
        ]);
    }
    table.to_string()
}

fn json(usage: &Usage) -> Value {
    json!({
        "id": usage.id,
        "name": usage.name,
        "namespace": usage.namespace,
        "cpuPercent": usage.cpu_percent,
        "memoryWorkingSetBytes": usage.memory_bytes,
        "processes": usage.processes,
        "receivedBytes": usage.received_bytes,
        "sentBytes": usage.sent_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_interfaces() {
        let value = |value| Some(cri_v1::UInt64Value { value });
        let interface = |bytes| cri_v1::NetworkInterfaceUsage {
            rx_bytes: value(bytes),
            tx_bytes: value(bytes * 2),
            ..Default::default()
        };
        let cpu = |timestamp: i64, used| cri_v1::CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(used),
            ..Default::default()
        };
        let stats = |cpu| cri_v1::PodSandboxStats {
            linux: Some(cri_v1::LinuxPodSandboxStats {
                cpu: Some(cpu),
                network: Some(cri_v1::NetworkUsage {
                    default_interface: Some(interface(10)),
                    interfaces: vec![interface(5)],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let seen = usage("a", Some(&stats(cpu(1, 0))), &stats(cpu(1_000_000_001, 500_000_000)));
        assert_eq!(
            (seen.received_bytes, seen.sent_bytes, seen.cpu_percent),
            (Some(15), Some(30), Some(50.0))
        );
        let bare = usage("a", None, &cri_v1::PodSandboxStats::default());
        assert_eq!((bare.received_bytes, bare.cpu_percent, bare.processes), (None, None, None));
        assert!(table(&[bare]).contains("   -"));
    }
}
