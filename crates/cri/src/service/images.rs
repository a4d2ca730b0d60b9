//! CRI's ImageService.

use std::path::Path;
use std::sync::Arc;

use image::PullRequest;
use node::Node;
use tonic::{Request, Response, Status};

use super::code::Coded;
use super::stream::{Answers, pieces};
use super::{info, now};
use crate::runtime_v1::image_service_server::ImageService;
use crate::runtime_v1::*;
use crate::translate::image::{credentials, to_proto};
use crate::translate::{BadField, container};

pub(super) struct Images {
    node: Node,
}

impl Images {
    pub(super) fn new(node: Node) -> Images {
        Images { node }
    }

    fn find(&self, name: &str) -> Result<Option<Arc<image::Image>>, Status> {
        self.node.images().find(name).map_err(|error| error.status())
    }

    fn list(&self, filter: Option<ImageFilter>) -> Result<Vec<Image>, Status> {
        let wanted = filter.and_then(|filter| filter.image).filter(|image| !image.image.is_empty());
        let mut found: Vec<_> = match wanted {
            Some(wanted) => self.find(&name(Some(wanted))?)?.into_iter().collect(),
            None => self.node.images().list(),
        };
        found.sort_by_cached_key(|image| image.id.to_string());
        Ok(found.iter().map(|image| to_proto(image)).collect())
    }
}

/// The image that a request names.
fn name(image: Option<ImageSpec>) -> Result<String, BadField> {
    let image = image.ok_or_else(|| BadField::missing("image"))?;
    Ok(container::image_from_proto(image).map_err(|bad| bad.within("image"))?.image)
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.list(request.into_inner().filter)?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.list(request.into_inner().filter)?;
        Ok(Response::new(pieces(images, |images| StreamImagesResponse { images })))
    }

    /// An absent image is no error: the answer has none.
    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let found = self.find(&name(request.image)?)?;
        let info = match &found {
            Some(image) if request.verbose => info::image(image),
            Some(_) | None => Default::default(),
        };
        Ok(Response::new(ImageStatusResponse { image: found.map(|image| to_proto(&image)), info }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let reference = name(request.image)?;
        // `sandbox_config` says for whom the image is pulled, in whatever completeness: a pull does not depend on it.
        let pull = PullRequest { reference, credentials: request.auth.map(credentials), platform: None };
        let id = self.node.images().pull(pull).await.map_err(|error| error.status())?;
        Ok(Response::new(PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = name(request.into_inner().image)?;
        self.node.images().remove(&name).await.map_err(|error| error.status())?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    /// Layers of images and what containers write are in one file system or in two: where the paths differ, the kubelet takes them for two
    /// (KEP-4191).
    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let images = self.node.images().fs_info();
        let (bytes, inodes) = self.node.writable_layers().await;
        let usage = |path: &Path, bytes, inodes| FilesystemUsage {
            timestamp: now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: path.to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: inodes }),
        };
        let of_containers = usage(self.node.images().containers_path(), bytes, inodes);
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage(&images.mountpoint, images.usage.bytes, images.usage.inodes)],
            container_filesystems: vec![of_containers],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_must_be_named() {
        assert_eq!(name(None).unwrap_err().field, "image");
        assert_eq!(name(Some(ImageSpec::default())).unwrap_err().field, "image.image");
        assert_eq!(name(Some(ImageSpec { image: "a".into(), ..Default::default() })), Ok("a".into()));
    }
}
