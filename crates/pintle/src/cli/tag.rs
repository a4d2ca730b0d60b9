//! `pintle tag`: gives an image one more name.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::output::{short_id, write_out};
use cri::node_v1::{NamedImage, TagRequest};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image by name, id or the beginning of an id
    image: String,
    /// The new name, such as registry.example/team/app:1.2
    name: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let request = TagRequest { image: args.image.clone(), name: args.name };
    let answer = client.own_images().tag(request).await.explain(|| format!("tagging {}", args.image))?;
    write_out(&line(&answer.named.unwrap_or_default()))
}

/// The name, and what it led to before: no name moves without a word.
pub(crate) fn line(named: &NamedImage) -> String {
    match named.moved_from.as_str() {
        "" => format!("{}\n", named.name),
        before => format!("{} (before: {})\n", named.name, short_id(before)),
    }
}
