//! `pintle images`: the images on this node.

use super::client::Client;
use super::failure::Failure;
use super::human::decimal_bytes;
use super::image_details;
use super::output::{Format, OutputArgs, Table, short_id, show, write_out};
use super::{verify, view};
use cri::runtime_v1::Image;
use serde_json::Value;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only images whose name contains this
    filter: Option<String>,
    /// Print only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the digest of each image
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What can be done with images beside listing them.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show everything about an image: names, manifests, configuration, layers
    Inspect(image_details::Args),
    /// Check that the bytes on disk are those that were unpacked
    Verify(verify::Args),
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    match args.command {
        Some(Command::Inspect(args)) => return image_details::run(args, client).await,
        Some(Command::Verify(args)) => return verify::run(args, client).await,
        None => {}
    }
    let mut images = client.list_images().await?;
    if let Some(filter) = &args.filter {
        images.retain(|image| {
            image.repo_tags.iter().chain(&image.repo_digests).any(|name| name.contains(filter))
        });
    }
    if args.quiet && args.output.output == Format::Table {
        return write_out(&images.iter().map(|image| format!("{}\n", image.id)).collect::<String>());
    }
    let value = Value::Array(images.iter().map(view::image).collect());
    show(args.output.output, &value, || table(&images, args.digests))
}

fn table(images: &[Image], digests: bool) -> String {
    let headings: &[&str] =
        if digests { &["IMAGE", "TAG", "ID", "SIZE", "DIGEST"] } else { &["IMAGE", "TAG", "ID", "SIZE"] };
    let mut table = Table::new(headings);
    for image in images {
        let digest = image.repo_digests.first().and_then(|name| name.split_once('@'));
        let digest_name = digest.map_or("<none>", |(name, _)| name);
        let mut names: Vec<(&str, &str)> = image.repo_tags.iter().map(|tag| split_tag(tag)).collect();
        if names.is_empty() {
            names.push((digest_name, "<none>"));
        }
        for (name, tag) in names {
            let size = decimal_bytes(image.size);
            let id = short_id(&image.id).to_owned();
            match digests {
                false => table.row([name.into(), tag.into(), id, size]),
                true => {
                    let digest = digest.map_or("<none>", |(_, digest)| digest);
                    table.row([name.into(), tag.into(), id, size, digest.into()]);
                }
            }
        }
    }
    table.to_string()
}

/// Splits `host:5000/name:tag` at the colon that begins the tag.
fn split_tag(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "<none>"),
    }
}

#[cfg(test)]
mod tests {
    use super::split_tag;

    #[test]
    fn the_port_of_a_registry_is_not_a_tag() {
        assert_eq!(split_tag("127.0.0.1:5000/a/b:1.2"), ("127.0.0.1:5000/a/b", "1.2"));
        assert_eq!(split_tag("127.0.0.1:5000/a/b"), ("127.0.0.1:5000/a/b", "<none>"));
    }
}
