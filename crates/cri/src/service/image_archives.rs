//! Archives of images on the wire: what is saved goes out piece by piece, what is loaded comes in so.

use image::{Credentials, LoadError, LoadRequest, Loaded, Piece, SaveError, SaveRequest};
use model::platform::Platform;
use node::Node;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::code::{Coded, of_pull};
use super::image_extras::of_named;
use super::stream::{Answers, Channel};
use crate::node_v1::*;
use crate::translate::BadField;

/// How many images one request may name.
const MOST_IMAGES: usize = 1000;

pub(super) async fn save(node: &Node, request: SaveImagesRequest) -> Result<Answers<ArchivePiece>, Status> {
    if request.images.len() > MOST_IMAGES {
        return Err(BadField::new("images", "they are more than a thousand").into());
    }
    let login = request.login.map(|login| Credentials::login(&login.username, &login.password));
    let from_registry = request.from_registry;
    let request = SaveRequest { images: request.images, platform: platform("platform", &request.platform)? };
    let saving = match from_registry {
        true => node.images().save_from_registry(request, login).await,
        false => node.images().save(request).await,
    };
    let saving = saving.map_err(|error| error.status())?;
    let mut pieces = saving.stream();
    let (send, receive) = mpsc::channel(2);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map(|data| ArchivePiece { data: data.into() }).map_err(|error| error.status());
            if send.send(piece).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::pin(Channel(receive)))
}

pub(super) async fn load(
    node: &Node,
    mut requests: Streaming<LoadImagesRequest>,
) -> Result<LoadImagesResponse, Status> {
    let first = requests.message().await?.ok_or_else(|| BadField::missing("options"))?;
    let options = first.options.ok_or_else(|| BadField::missing("options"))?;
    let request = LoadRequest {
        platform: platform("options.platform", &options.platform)?,
        name: Some(options.name).filter(|name| !name.is_empty()),
    };
    let (send, receive) = image::pieces();
    let feed = async move {
        let mut data = first.data;
        loop {
            // Who takes the pieces may have seen enough; its answer says what of.
            if !data.is_empty() && send.send(Piece::Bytes(data.into())).await.is_err() {
                return Ok(());
            }
            match requests.message().await? {
                Some(message) => data = message.data,
                None => break,
            }
        }
        let _ = send.send(Piece::End).await;
        Ok(())
    };
    let (fed, images): (Result<(), Status>, _) = tokio::join!(feed, node.images().load(request, receive));
    fed?;
    let images = images.map_err(|error| error.status())?;
    Ok(LoadImagesResponse { images: images.into_iter().map(loaded).collect() })
}

pub(super) fn loaded(image: Loaded) -> LoadedImage {
    LoadedImage { id: image.id.to_string(), names: image.names.into_iter().map(of_named).collect() }
}

/// The platform that a field names, if any.
pub(super) fn platform(field: &'static str, text: &str) -> Result<Option<Platform>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    Platform::parse(text).map(Some).map_err(|bad| BadField::new(field, bad.to_string()))
}

impl Coded for SaveError {
    fn code(&self) -> Code {
        match self {
            SaveError::Nothing => Code::InvalidArgument,
            SaveError::Absent { .. } => Code::NotFound,
            SaveError::Ambiguous(error) => error.code(),
            SaveError::Platform { .. } | SaveError::NoArchive { .. } => Code::FailedPrecondition,
            SaveError::Gone => Code::Cancelled,
            SaveError::Failed(cause) => of_pull(cause),
        }
    }
}

impl Coded for LoadError {
    fn code(&self) -> Code {
        match self {
            LoadError::NotAnArchive
            | LoadError::Nothing
            | LoadError::Archive(_)
            | LoadError::Entry { .. }
            | LoadError::Missing { .. }
            | LoadError::SeveralForOneName { .. }
            | LoadError::BadName(_) => Code::InvalidArgument,
            LoadError::Stream(_) => Code::DataLoss,
            LoadError::Store { .. } => Code::FailedPrecondition,
            LoadError::Failed(cause) => of_pull(cause),
        }
    }
}
