//! `pintle rmi`: removes images.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::find::{Candidate, find};
use super::inventory::Inventory;
use super::output::write_out;
use super::several::Several;
use cri::runtime_v1 as cri_v1;
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images by name, id or the beginning of an id
    #[arg(required_unless_present = "prune", conflicts_with = "prune")]
    images: Vec<String>,
    /// Remove all images that no container uses
    #[arg(long)]
    prune: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let images = client.list_images().await?;
    if args.prune {
        return prune(client, &images).await;
    }
    let candidates: Vec<Candidate> = images.iter().map(Candidate::image).collect();
    let mut several = Several::default();
    for given in &args.images {
        let removed = match find("image", given, &candidates) {
            Ok(index) => remove(client, &images[index]).await,
            Err(failure) => Err(failure),
        };
        several.record(removed);
    }
    several.finish()
}

async fn prune(client: &Client, images: &[cri_v1::Image]) -> Result<(), Failure> {
    let containers = Inventory::load(client).await?.containers;
    let specs = containers.iter().filter_map(|container| Some(container.image.as_ref()?.image.as_str()));
    let refs =
        containers.iter().flat_map(|container| [container.image_ref.as_str(), container.image_id.as_str()]);
    let used: BTreeSet<&str> = specs.chain(refs).filter(|name| !name.is_empty()).collect();
    let mut several = Several::default();
    for image in images.iter().filter(|image| !image.pinned) {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        if !names.map(String::as_str).any(|name| used.contains(name)) {
            several.record(remove(client, image).await);
        }
    }
    several.finish()
}

async fn remove(client: &Client, image: &cri_v1::Image) -> Result<(), Failure> {
    let name = image.repo_tags.first().or(image.repo_digests.first()).unwrap_or(&image.id);
    let spec = cri_v1::ImageSpec { image: image.id.clone(), ..Default::default() };
    let answer = client.images().remove_image(cri_v1::RemoveImageRequest { image: Some(spec) }).await;
    answer.explain(|| format!("removing the image {name}"))?;
    write_out(&format!("{name}\n"))
}
