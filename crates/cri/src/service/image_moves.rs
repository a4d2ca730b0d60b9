//! Pushes on the wire, and what is taken from other runtimes' stores.

use std::path::PathBuf;

use image::{Credentials, ImportRequest, PullRequest, PushError, PushEvent, PushRequest};
use node::Node;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::code::{Coded, of_pull};
use super::image_archives::{loaded, platform};
use super::stream::{Answers, Channel};
use crate::node_v1::*;
use crate::translate::BadField;

/// How many names one request may have.
const MOST_IMAGES: usize = 10_000;

pub(super) async fn pull(node: &Node, request: PullForPlatformRequest) -> Result<String, Status> {
    let wanted = platform("platform", &request.platform)?;
    if wanted.is_none() {
        return Err(BadField::missing("platform").into());
    }
    let credentials = request.login.map(|login| Credentials::login(&login.username, &login.password));
    let request = PullRequest { reference: request.image, credentials, platform: wanted };
    let id = node.images().pull(request).await.map_err(|error| error.status())?;
    Ok(id.to_string())
}

pub(super) fn push(node: &Node, request: PushImageRequest) -> Result<Answers<PushProgress>, Status> {
    let credentials = request.login.map(|login| Credentials::login(&login.username, &login.password));
    let request = PushRequest {
        image: request.image,
        destination: Some(request.destination).filter(|name| !name.is_empty()),
        credentials,
        platform: platform("platform", &request.platform)?,
    };
    let (send, receive) = mpsc::channel(16);
    let (tell, mut events) = mpsc::channel(16);
    let node = node.clone();
    tokio::spawn(async move {
        let push = node.images().push(request, tell);
        tokio::pin!(push);
        let last = loop {
            tokio::select! {
                // A client that left ends the push.
                () = send.closed() => return,
                Some(event) = events.recv() => drop(send.send(Ok(of_event(event))).await),
                pushed = &mut push => break pushed,
            }
        };
        while let Ok(event) = events.try_recv() {
            let _ = send.send(Ok(of_event(event))).await;
        }
        let last = last.map(|pushed| {
            let (name, digest) = (pushed.name, pushed.digest.to_string());
            let result = PushResult { name, digest, unchanged: pushed.unchanged };
            PushProgress { result: Some(result), ..Default::default() }
        });
        let _ = send.send(last.map_err(|error| error.status())).await;
    });
    Ok(Box::pin(Channel(receive)))
}

fn of_event(event: PushEvent) -> PushProgress {
    let of = |layer: model::digest::Digest, sent_bytes, state: PushedLayer| PushProgress {
        layer: layer.to_string(),
        sent_bytes,
        state: state.into(),
        result: None,
    };
    match event {
        PushEvent::Present { layer } => of(layer, 0, PushedLayer::PushAlreadyPresent),
        PushEvent::Sent { layer, bytes } => of(layer, bytes, PushedLayer::PushSending),
        PushEvent::Done { layer } => of(layer, 0, PushedLayer::PushDone),
    }
}

pub(super) async fn import(
    node: &Node,
    request: ImportImagesRequest,
) -> Result<ImportImagesResponse, Status> {
    let from = match request.from() {
        OtherRuntime::OtherContainerd => image::OtherRuntime::Containerd,
        OtherRuntime::OtherContainersStorage => image::OtherRuntime::ContainersStorage,
        OtherRuntime::OtherUnknown => return Err(BadField::missing("from").into()),
    };
    if request.images.len() > MOST_IMAGES {
        return Err(BadField::new("images", "they are more than ten thousand").into());
    }
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let request = ImportRequest {
        from,
        root: given(request.root).map(PathBuf::from),
        namespace: given(request.namespace),
        images: request.images,
        platform: platform("platform", &request.platform)?,
    };
    let imported = node.images().import(request).await.map_err(|error| error.status())?;
    let failed = |(name, why): (String, image::LoadError)| FailedImport { name, why: why.to_string() };
    Ok(ImportImagesResponse {
        images: imported.loaded.into_iter().map(loaded).collect(),
        failed: imported.failed.into_iter().map(failed).collect(),
    })
}

impl Coded for PushError {
    fn code(&self) -> Code {
        match self {
            PushError::BadName(_) | PushError::NoTag { .. } => Code::InvalidArgument,
            PushError::Image(error) => error.code(),
            PushError::Registry { cause, .. } => of_pull(&image::PullCause::Registry((**cause).clone())),
            PushError::Failed(cause) => of_pull(cause),
        }
    }
}
