//! `pintle rmi`: removes images.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::find::{Candidate, find};
use super::inventory::{Inventory, container_name};
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
    /// Remove images that containers use, too: those keep what they stand on
    #[arg(short, long, conflicts_with = "prune")]
    force: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let images = client.list_images().await?;
    if args.prune {
        return prune(client, &images).await;
    }
    let containers = if args.force { Vec::new() } else { Inventory::load(client).await?.containers };
    let candidates: Vec<Candidate> = images.iter().map(Candidate::image).collect();
    let mut several = Several::default();
    for given in &args.images {
        let removed = match find("image", given, &candidates) {
            Ok(index) => match users(&images[index], &containers) {
                users if users.is_empty() => remove(client, &images[index]).await,
                users => Err(Failure::ImageInUse { image: given.clone(), users }),
            },
            Err(failure) => Err(failure),
        };
        several.record(removed);
    }
    several.finish()
}

/// The containers that use an image, as people know them.
fn users(image: &cri_v1::Image, containers: &[cri_v1::Container]) -> Vec<String> {
    let is_its = |name: &str| {
        name == image.id || image.repo_tags.iter().chain(&image.repo_digests).any(|own| own == name)
    };
    let uses = |container: &&cri_v1::Container| {
        // Which image the container was made of is said by its id; an older runtime says its name.
        let by_id = [&container.image_id, &container.image_ref];
        match by_id.into_iter().find(|id| !id.is_empty()) {
            Some(id) => is_its(id),
            None => container.image.as_ref().is_some_and(|spec| is_its(&spec.image)),
        }
    };
    containers.iter().filter(uses).map(|container| container_name(container).to_owned()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_moved_on_is_no_use() {
        let image =
            cri_v1::Image { id: "sha256:a".into(), repo_tags: vec!["app:1".into()], ..Default::default() };
        let container = |id: &str, name: &str| cri_v1::Container {
            image_id: id.into(),
            image: Some(cri_v1::ImageSpec { image: name.into(), ..Default::default() }),
            metadata: Some(cri_v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
            ..Default::default()
        };
        assert_eq!(users(&image, &[container("sha256:a", "app:1")]), ["c"]);
        assert_eq!(users(&image, &[container("sha256:a", "app:0")]), ["c"]);
        // Another image had the name when this container was made.
        assert!(users(&image, &[container("sha256:b", "app:1")]).is_empty());
        assert_eq!(users(&image, &[container("", "app:1")]), ["c"]);
    }
}
