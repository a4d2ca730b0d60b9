//! `pintle ps`: the containers on this node.

use super::client::Client;
use super::failure::Failure;
use super::human::ago;
use super::inventory::{Inventory, container_name, pod_name};
use super::label::{Label, matches};
use super::output::{Format, OutputArgs, Table, short_id, show, write_out};
use super::view;
use cri::runtime_v1::{Container, ContainerStatus, Image};
use jiff::Timestamp;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also containers that are not running
    #[arg(short, long)]
    all: bool,
    /// Only containers of this pod
    #[arg(short, long, value_name = "POD")]
    pod: Option<String>,
    /// Only containers with this label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<Label>,
    /// Print only the ids
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let pod = args.pod.as_deref().map(|given| inventory.pod(given)).transpose()?;
    let wanted = |container: &&Container| {
        (args.all || view::container_state(container.state) == "running")
            && pod.is_none_or(|pod| pod.id == container.pod_sandbox_id)
            && matches(&args.labels, &container.labels)
    };
    let containers: Vec<&Container> = inventory.containers.iter().filter(wanted).collect();
    if args.quiet && args.output.output == Format::Table {
        return write_out(&containers.iter().map(|c| format!("{}\n", c.id)).collect::<String>());
    }
    if args.output.output != Format::Table {
        let values = containers.iter().map(|c| view::container(c, inventory.pod_of(c)));
        return show(args.output.output, &Value::Array(values.collect()), String::new);
    }
    write_out(&table(&inventory, &containers, client).await)
}

async fn table(inventory: &Inventory, containers: &[&Container], client: &Client) -> String {
    let now = Timestamp::now();
    // Only for names; without them the table shows ids.
    let images = client.list_images().await.unwrap_or_default();
    let mut table = Table::new(&["CONTAINER", "NAME", "POD", "IMAGE", "STATE", "CREATED", "ATTEMPT"]);
    for container in containers {
        table.row([
            short_id(&container.id).into(),
            container_name(container).into(),
            inventory.pod_of(container).map_or_else(|| short_id(&container.pod_sandbox_id), pod_name).into(),
            image_name(container, &images),
            state(container, client, now).await,
            ago(container.created_at, now),
            container.metadata.as_ref().map_or(0, |metadata| metadata.attempt).to_string(),
        ]);
    }
    table.to_string()
}

/// The image as it was asked for; where a runtime only tells the id, a name that the image has now.
fn image_name(container: &Container, images: &[Image]) -> String {
    let name = view::image_name(container.image.as_ref(), &container.image_ref);
    match images.iter().find(|image| image.id == name).and_then(|image| image.repo_tags.first()) {
        Some(tag) => tag.clone(),
        None if name.starts_with("sha256:") => short_id(&name).to_owned(),
        None => name,
    }
}

/// The state, for a container that has ended with how it ended; a list does not say that, so the container is asked.
async fn state(container: &Container, client: &Client, now: Timestamp) -> String {
    let word = view::container_state(container.state);
    if word != "exited" {
        return word.to_owned();
    }
    match client.container_status(&container.id, false).await {
        Ok(answer) => ended(&answer.status.unwrap_or_default(), now),
        // It may have been removed since the list was made.
        Err(_) => word.to_owned(),
    }
}

fn ended(status: &ContainerStatus, now: Timestamp) -> String {
    let reason = match status.reason.as_str() {
        "" | "Completed" | "Error" => String::new(),
        reason => format!(" {reason}"),
    };
    format!("exited ({}){reason} {}", status.exit_code, ago(status.finished_at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_ended_is_shown() {
        let mut status = ContainerStatus { exit_code: 137, reason: "OOMKilled".into(), ..Default::default() };
        status.finished_at = 60_000_000_000;
        let now = Timestamp::from_second(120).unwrap();
        assert_eq!(ended(&status, now), "exited (137) OOMKilled 1 minute ago");
        status.reason = "Error".into();
        assert_eq!(ended(&status, now), "exited (137) 1 minute ago");
    }
}
