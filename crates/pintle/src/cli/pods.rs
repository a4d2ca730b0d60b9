//! `pintle pods`: the pods on this node.

use super::client::Client;
use super::failure::Failure;
use super::human::ago;
use super::inventory::Inventory;
use super::label::{Label, matches};
use super::output::{Format, OutputArgs, Table, short_id, show, write_out};
use super::view;
use jiff::Timestamp;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only pods in this state
    #[arg(long, value_parser = ["ready", "notready"])]
    state: Option<String>,
    /// Only pods with this label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<Label>,
    /// Only pods of this Kubernetes namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Print only the ids
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let mut inventory = Inventory::load(client).await?;
    inventory.pods.retain(|pod| {
        let namespace = pod.metadata.as_ref().map_or("", |metadata| &metadata.namespace);
        args.state.as_deref().is_none_or(|state| view::pod_state(pod.state) == state)
            && args.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && matches(&args.labels, &pod.labels)
    });
    if args.quiet && args.output.output == Format::Table {
        return write_out(&inventory.pods.iter().map(|pod| format!("{}\n", pod.id)).collect::<String>());
    }
    let value = Value::Array(inventory.pods.iter().map(view::pod).collect());
    show(args.output.output, &value, || table(&inventory, Timestamp::now()))
}

fn table(inventory: &Inventory, now: Timestamp) -> String {
    let mut table = Table::new(&["POD", "NAME", "NAMESPACE", "STATE", "CREATED", "CONTAINERS", "ATTEMPT"]);
    for pod in &inventory.pods {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let containers: Vec<_> = inventory.of_pod(&pod.id).collect();
        let running = containers.iter().filter(|c| view::container_state(c.state) == "running").count();
        table.row([
            short_id(&pod.id).into(),
            metadata.name,
            metadata.namespace,
            view::pod_state(pod.state).into(),
            ago(pod.created_at, now),
            format!("{running}/{} running", containers.len()),
            metadata.attempt.to_string(),
        ]);
    }
    table.to_string()
}
