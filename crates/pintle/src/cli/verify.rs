//! `pintle images verify`: whether the bytes on disk are still those that were unpacked.

use std::collections::BTreeSet;

use cri::node_v1::verify_images_response::Result as Found;
use cri::node_v1::{LayerFinding, RepairedImage, VerifiedLayer, VerifyImagesRequest};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::decimal_bytes;
use super::output::{Format, OutputArgs, printable, short_id, show, write_out};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images by name, id or the beginning of an id
    #[arg(required_unless_present = "all")]
    images: Vec<String>,
    /// All images
    #[arg(long, conflicts_with = "images")]
    all: bool,
    /// Pull again what is damaged: only the damaged layers are fetched
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let request = VerifyImagesRequest { images: args.images.clone(), repair: args.repair };
    let mut answers =
        client.own_images().verify_images(request).await.explain(|| "verifying images".into())?;
    let talks = args.output.output == Format::Table;
    let (mut layers, mut repaired) = (Vec::new(), Vec::new());
    while let Some(answer) =
        answers.message().await.map(tonic::Response::new).explain(|| "verifying images".into())?
    {
        match answer.result {
            Some(Found::Layer(layer)) => {
                if talks && layer.finding() != LayerFinding::LayerWhole {
                    write_out(&line(&layer))?;
                }
                layers.push(layer);
            }
            Some(Found::Repaired(image)) => {
                if talks {
                    write_out(&outcome(&image))?;
                }
                repaired.push(image);
            }
            None => {}
        }
    }
    let damaged: BTreeSet<&str> = of(&layers, LayerFinding::LayerDamaged).collect();
    let value = json!({
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        "damagedImages": damaged,
        "repairs": repaired.iter().map(|r| json!({ "image": r.image, "error": r.error })).collect::<Vec<_>>(),
    });
    show(args.output.output, &value, || summary(&layers, &damaged, args.repair))?;
    let failed =
        if args.repair { repaired.iter().filter(|r| !r.error.is_empty()).count() } else { damaged.len() };
    if failed == 0 { Ok(()) } else { Err(Failure::Damaged { images: failed }) }
}

/// The images that have layers of which this was found.
fn of(layers: &[VerifiedLayer], finding: LayerFinding) -> impl Iterator<Item = &str> {
    let found = layers.iter().filter(move |layer| layer.finding() == finding);
    found.flat_map(|layer| layer.images.iter().map(String::as_str))
}

fn line(layer: &VerifiedLayer) -> String {
    let images = printable(&layer.images.join(", "));
    let id = short_id(&layer.layer);
    match layer.finding() {
        LayerFinding::LayerDamaged => {
            format!("layer {id} of {images} is damaged: {}\n", printable(&layer.damage))
        }
        _ => format!(
            "layer {id} of {images} was unpacked by an earlier release: there is nothing to hold it against\n"
        ),
    }
}

fn outcome(image: &RepairedImage) -> String {
    match image.error.as_str() {
        "" => {
            format!("{} is repaired; containers that run keep what they stand on\n", printable(&image.image))
        }
        error => format!("{} is not repaired: {}\n", printable(&image.image), printable(error)),
    }
}

fn layer(layer: &VerifiedLayer) -> Value {
    let finding = match layer.finding() {
        LayerFinding::LayerWhole => "whole",
        LayerFinding::LayerDamaged => "damaged",
        LayerFinding::LayerUnrecorded | LayerFinding::Unspecified => "unrecorded",
    };
    json!({
        "layer": layer.layer, "images": layer.images, "sizeBytes": layer.bytes,
        "finding": finding, "damage": layer.damage,
    })
}

fn summary(layers: &[VerifiedLayer], damaged: &BTreeSet<&str>, repair: bool) -> String {
    let bytes = decimal_bytes(layers.iter().map(|layer| layer.bytes).sum());
    let whole = layers.iter().filter(|layer| layer.finding() == LayerFinding::LayerWhole).count();
    let mut out = format!("{whole} of {} layers are whole ({bytes})\n", layers.len());
    if !damaged.is_empty() && !repair {
        out.push_str("Pull the images again, or use --repair: only the damaged layers are fetched.\n");
    }
    out
}
