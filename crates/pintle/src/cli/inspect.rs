//! `pintle inspect`: everything the runtime says of a container, a pod or an image.

use super::client::Client;
use super::failure::Failure;
use super::find::{Candidate, find};
use super::inventory::{Inventory, Target};
use super::output::{Format, show};
use super::several::Several;
use super::view;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look only among these
    #[arg(long, value_enum, value_name = "KIND")]
    r#type: Option<Kind>,
    /// How to write the answer
    #[arg(short, long, value_parser = parse_format, default_value = "json", value_name = "json|yaml")]
    output: Format,
    /// Containers, pods and images by name, id or the beginning of an id
    #[arg(required = true)]
    targets: Vec<String>,
}

/// What there is to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Container,
    Pod,
    Image,
}

pub(crate) fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        "yaml" => Ok(Format::Yaml),
        _ => Err("inspect writes json or yaml".into()),
    }
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let mut values = Vec::new();
    let mut several = Several::default();
    for given in &args.targets {
        let inspected = inspect(client, &inventory, args.r#type, given).await;
        several.record(inspected.map(|value| values.push(value)));
    }
    if !values.is_empty() {
        let value = if args.targets.len() == 1 { values.remove(0) } else { Value::Array(values) };
        show(args.output, &value, String::new)?;
    }
    several.finish()
}

async fn inspect(
    client: &Client,
    inventory: &Inventory,
    kind: Option<Kind>,
    given: &str,
) -> Result<Value, Failure> {
    let target = match kind {
        Some(Kind::Container) => inventory.container(given).map(Target::Container),
        Some(Kind::Pod) => inventory.pod(given).map(Target::Pod),
        Some(Kind::Image) => return image(client, given).await,
        None => inventory.container_or_pod(given),
    };
    match target {
        Ok(Target::Container(container)) => {
            let answer = client.container_status(&container.id, true).await?;
            Ok(view::container_status(&answer, &container.pod_sandbox_id))
        }
        Ok(Target::Pod(pod)) => {
            let mut value = view::pod_status(&client.pod_status(&pod.id, true).await?);
            let containers = inventory.of_pod(&pod.id).map(|container| view::container(container, Some(pod)));
            value["containers"] = Value::Array(containers.collect());
            Ok(value)
        }
        Err(unknown @ Failure::Unknown { .. }) if kind.is_none() => {
            image(client, given).await.map_err(|_| unknown)
        }
        Err(failure) => Err(failure),
    }
}

async fn image(client: &Client, given: &str) -> Result<Value, Failure> {
    let images = client.list_images().await?;
    let candidates: Vec<Candidate> = images.iter().map(Candidate::image).collect();
    let id = &images[find("image", given, &candidates)?].id;
    let gone = || Failure::Unknown { kind: "image", given: given.to_owned(), similar: Vec::new() };
    Ok(view::image_status(&client.image_status(id, true).await?.ok_or_else(gone)?))
}
