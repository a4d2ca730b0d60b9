//! `pintle.v1.Images`: what can be done with images that CRI has no words for.

use std::time::UNIX_EPOCH;

use image::TagError;
use node::Node;
use tonic::{Code, Request, Response, Status, Streaming};

use super::code::Coded;
use super::stream::Answers;
use super::{disk, image_archives, image_moves};
use crate::node_v1::*;
use crate::translate::BadField;

/// The longest name of an image that is looked at.
const LONGEST_NAME: usize = 1024;

pub(super) struct ImageExtras {
    node: Node,
}

impl ImageExtras {
    pub(super) fn new(node: Node) -> ImageExtras {
        ImageExtras { node }
    }
}

#[tonic::async_trait]
impl images_server::Images for ImageExtras {
    async fn tag(&self, request: Request<TagRequest>) -> Result<Response<TagResponse>, Status> {
        let TagRequest { image, name } = request.into_inner();
        let (image, name) = (bounded("image", image)?, bounded("name", name)?);
        let named = self.node.images().tag(&image, &name).await.map_err(|error| error.status())?;
        Ok(Response::new(TagResponse { named: Some(of_named(named)) }))
    }

    async fn inspect_image(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let name = bounded("image", request.into_inner().image)?;
        let found = self.node.images().details(&name).await.map_err(|error| error.status())?;
        let details = found.ok_or_else(|| Status::not_found(format!("there is no image {name:?}")))?;
        Ok(Response::new(of_details(details)))
    }

    type SaveImagesStream = Answers<ArchivePiece>;

    async fn save_images(
        &self,
        request: Request<SaveImagesRequest>,
    ) -> Result<Response<Self::SaveImagesStream>, Status> {
        Ok(Response::new(image_archives::save(&self.node, request.into_inner()).await?))
    }

    async fn load_images(
        &self,
        request: Request<Streaming<LoadImagesRequest>>,
    ) -> Result<Response<LoadImagesResponse>, Status> {
        Ok(Response::new(image_archives::load(&self.node, request.into_inner()).await?))
    }

    async fn import_images(
        &self,
        request: Request<ImportImagesRequest>,
    ) -> Result<Response<ImportImagesResponse>, Status> {
        Ok(Response::new(image_moves::import(&self.node, request.into_inner()).await?))
    }

    async fn pull_for_platform(
        &self,
        request: Request<PullForPlatformRequest>,
    ) -> Result<Response<PullForPlatformResponse>, Status> {
        let mut request = request.into_inner();
        request.image = bounded("image", request.image)?;
        let id = image_moves::pull(&self.node, request).await?;
        Ok(Response::new(PullForPlatformResponse { id }))
    }

    type PushImageStream = Answers<PushProgress>;

    async fn push_image(
        &self,
        request: Request<PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        let mut request = request.into_inner();
        request.image = bounded("image", request.image)?;
        Ok(Response::new(image_moves::push(&self.node, request)?))
    }

    async fn survey_disk(
        &self,
        request: Request<SurveyDiskRequest>,
    ) -> Result<Response<SurveyDiskResponse>, Status> {
        Ok(Response::new(disk::survey(&self.node, request.into_inner()).await?))
    }

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Result<Response<CollectGarbageResponse>, Status> {
        Ok(Response::new(disk::collect(&self.node, request.into_inner()).await?))
    }

    type VerifyImagesStream = Answers<VerifyImagesResponse>;

    async fn verify_images(
        &self,
        request: Request<VerifyImagesRequest>,
    ) -> Result<Response<Self::VerifyImagesStream>, Status> {
        Ok(Response::new(disk::verify(&self.node, request.into_inner())?))
    }
}

fn bounded(field: &'static str, text: String) -> Result<String, BadField> {
    match text.is_empty() || text.len() > LONGEST_NAME {
        true => Err(BadField::new(field, "it is empty or too long")),
        false => Ok(text),
    }
}

pub(super) fn of_named(named: image::Named) -> NamedImage {
    NamedImage {
        image_id: named.image.to_string(),
        name: named.name,
        moved_from: named.moved_from.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn of_details(details: image::ImageDetails) -> InspectImageResponse {
    let image = details.image;
    let pulled_at = image.pulled_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let manifests = details.manifests.into_iter().map(|manifest| StoredManifest {
        digest: manifest.digest.to_string(),
        media_type: manifest.media_type,
        body: manifest.body,
    });
    let layers = details.layers.into_iter().map(|layer| StoredLayer {
        diff_id: layer.diff_id.to_string(),
        blob: layer.blob.map(|blob| blob.to_string()).unwrap_or_default(),
        bytes: layer.usage.bytes,
        inodes: layer.usage.inodes,
        path: layer.path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
    });
    InspectImageResponse {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        pinned: image.pinned,
        pulled_at: i64::try_from(pulled_at.as_nanos()).unwrap_or(i64::MAX),
        size: image.size,
        config: details.config,
        manifests: manifests.collect(),
        layers: layers.collect(),
    }
}

impl Coded for TagError {
    fn code(&self) -> Code {
        match self {
            TagError::Absent { .. } => Code::NotFound,
            TagError::Ambiguous(error) => error.code(),
            TagError::BadName(_) | TagError::Digest { .. } => Code::InvalidArgument,
            TagError::Failed(cause) => super::code::of_pull(cause),
        }
    }
}
