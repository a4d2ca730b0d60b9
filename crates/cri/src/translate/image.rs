//! Images and credentials.

use image::{Credentials, Image, ImageUser};

use crate::runtime_v1 as proto;

/// An image in a list or a status.
pub fn to_proto(image: &Image) -> proto::Image {
    let (uid, username) = match &image.user {
        ImageUser::Unset => (None, String::new()),
        ImageUser::Uid(uid) => (Some(proto::Int64Value { value: i64::from(*uid) }), String::new()),
        ImageUser::Name(name) => (None, name.clone()),
    };
    let shown = image.repo_tags.first().or(image.repo_digests.first());
    proto::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid,
        username,
        spec: Some(proto::ImageSpec {
            image: shown.cloned().unwrap_or_else(|| image.id.to_string()),
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}

/// What a pull may prove itself with. The message is taken apart here and shown nowhere.
pub fn credentials(auth: proto::AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}
