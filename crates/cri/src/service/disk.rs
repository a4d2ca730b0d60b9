//! What there is on disk, what goes from it, and whether it is whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::{Checked, Finding, Hold, Image, Item, Kind, Verdict};
use node::Node;
use tokio::sync::mpsc;
use tonic::Status;

use super::code::Coded;
use super::stream::{Answers, Channel};
use crate::node_v1::*;
use crate::translate::BadField;

/// The most images that one check may name.
const MOST_IMAGES: usize = 1000;

pub(super) async fn survey(node: &Node, request: SurveyDiskRequest) -> Result<SurveyDiskResponse, Status> {
    let older_than = Duration::from_secs(request.older_than_secs);
    let survey = node.survey_disk(older_than).await.map_err(|error| error.status())?;
    let (images, containers) =
        (node.images().fs_info().mountpoint, node.images().containers_path().to_owned());
    let filesystems = super::blocking(move || {
        [("images", images), ("containers", containers)].map(|(of, path)| filesystem(of, &path)).to_vec()
    });
    Ok(SurveyDiskResponse {
        things: survey.items.into_iter().map(thing).collect(),
        filesystems: filesystems.await?,
        unused_images_bytes: survey.unused_images,
    })
}

pub(super) async fn collect(
    node: &Node,
    request: CollectGarbageRequest,
) -> Result<CollectGarbageResponse, Status> {
    let older_than = Duration::from_secs(request.older_than_secs);
    let items = node.collect_garbage(older_than).await.map_err(|error| error.status())?;
    Ok(CollectGarbageResponse { things: items.into_iter().map(thing).collect() })
}

pub(super) fn verify(
    node: &Node,
    request: VerifyImagesRequest,
) -> Result<Answers<VerifyImagesResponse>, Status> {
    if request.images.len() > MOST_IMAGES {
        return Err(
            BadField::new("images", format!("more than {MOST_IMAGES}; name none to check all")).into()
        );
    }
    let mut wanted: Vec<Arc<Image>> = Vec::new();
    for name in &request.images {
        let found = node.images().find(name).map_err(|error| error.status())?;
        wanted.push(found.ok_or_else(|| Status::not_found(format!("there is no image {name:?}")))?);
    }
    if request.images.is_empty() {
        wanted = node.images().list();
    }
    let (send, receive) = mpsc::channel(4);
    let node = node.clone();
    tokio::spawn(async move {
        if let Err(status) = check(&node, &wanted, request.repair, &send).await {
            let _ = send.send(Err(status)).await;
        }
    });
    Ok(Box::pin(Channel(receive)))
}

type Answer = mpsc::Sender<Result<VerifyImagesResponse, Status>>;

/// Checks until all is checked or nobody listens any more.
async fn check(node: &Node, images: &[Arc<Image>], repair: bool, answer: &Answer) -> Result<(), Status> {
    let mut damaged: Vec<String> = Vec::new();
    let layers = node.images().layers_of(images);
    let of = layers.len() as u64;
    for (layer, names) in layers {
        let checked = node.images().check_layer(layer, names).await.map_err(|error| error.status())?;
        if matches!(checked.finding, Finding::Damaged(_)) {
            damaged.extend(checked.images.iter().cloned());
        }
        let result = verify_images_response::Result::Layer(layer_of(checked, of));
        if answer.send(Ok(VerifyImagesResponse { result: Some(result) })).await.is_err() {
            return Ok(());
        }
    }
    damaged.sort();
    damaged.dedup();
    for image in images.iter().filter(|image| repair && damaged.iter().any(|name| name == image.name())) {
        let repaired = node.images().repair(image).await;
        let error = repaired.err().map(|error| error.to_string()).unwrap_or_default();
        let result =
            verify_images_response::Result::Repaired(RepairedImage { image: image.name().to_owned(), error });
        if answer.send(Ok(VerifyImagesResponse { result: Some(result) })).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn layer_of(checked: Checked, of: u64) -> VerifiedLayer {
    let (finding, damage) = match checked.finding {
        Finding::Whole => (LayerFinding::LayerWhole, String::new()),
        Finding::Damaged(why) => (LayerFinding::LayerDamaged, why),
        Finding::Unrecorded => (LayerFinding::LayerUnrecorded, String::new()),
    };
    VerifiedLayer {
        layer: checked.layer,
        images: checked.images,
        bytes: checked.usage.bytes,
        finding: finding.into(),
        damage,
        of,
    }
}

fn thing(item: Item) -> DiskThing {
    let kind = match item.kind {
        Kind::Image => DiskKind::DiskImage,
        Kind::Layer => DiskKind::DiskLayer,
        Kind::Blob => DiskKind::DiskBlob,
        Kind::Container => DiskKind::DiskContainer,
        Kind::Unfinished => DiskKind::DiskUnfinished,
        Kind::Trash => DiskKind::DiskTrash,
        Kind::Orphan => DiskKind::DiskOrphan,
        Kind::Database => DiskKind::DiskDatabase,
    };
    let (goes, in_use, reasons) = match &item.verdict {
        Verdict::Goes(cause) => (true, false, vec![cause.to_string()]),
        Verdict::Stays(holds) => {
            let used = holds.iter().any(|hold| matches!(hold, Hold::Container(_) | Hold::Mounted));
            (false, used, holds.iter().map(Hold::to_string).collect())
        }
    };
    DiskThing {
        kind: kind.into(),
        name: item.name,
        bytes: item.usage.bytes,
        inodes: item.usage.inodes,
        alone_bytes: item.alone,
        damage: item.damage.unwrap_or_default(),
        goes,
        in_use,
        reasons,
    }
}

/// What cannot be found out is zero.
fn filesystem(of: &str, path: &Path) -> DiskFilesystem {
    let about = node::capacity(path);
    DiskFilesystem {
        of: of.to_owned(),
        path: path.to_string_lossy().into_owned(),
        bytes: about.map_or(0, |about| about.bytes),
        available_bytes: about.map_or(0, |about| about.available_bytes),
        inodes: about.map_or(0, |about| about.inodes),
        available_inodes: about.map_or(0, |about| about.available_inodes),
    }
}
