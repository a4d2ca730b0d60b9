//! `ContainerConfig` to [`ContainerRequest`], and its mounts and image back for a status.

use model::request::{ContainerRequest, Device, ImageChoice, Mount, Propagation};

use super::namespace::{mappings_from_proto, mappings_to_proto};
use super::{BadField, enumeration, resources, security, signal, text};
use crate::runtime_v1 as proto;

/// The most mounts, devices and variables that are taken.
const MAX_ENTRIES: usize = 16_384;
/// The longest reference of an image: a name of 255 bytes, a tag of 128, a digest.
const IMAGE_MAX: usize = 1024;

/// The container that is asked for.
pub fn from_proto(config: Option<proto::ContainerConfig>) -> Result<ContainerRequest, BadField> {
    let config = config.ok_or_else(|| BadField::missing("config"))?;
    config_from_proto(config).map_err(|bad| bad.within("config"))
}

/// The same, of a message that is there.
pub fn config_from_proto(config: proto::ContainerConfig) -> Result<ContainerRequest, BadField> {
    let metadata = config.metadata.ok_or_else(|| BadField::missing("metadata"))?;
    let image = config.image.ok_or_else(|| BadField::missing("image"))?;
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerRequest {
        name: text::required_name("metadata.name", metadata.name)?,
        attempt: metadata.attempt,
        image: image_from_proto(image).map_err(|bad| bad.within("image"))?,
        command: config.command,
        args: config.args,
        working_dir: text::bounded_path("working_dir", config.working_dir)?,
        environment: few("envs", config.envs)?.into_iter().map(|env| (env.key, env.value)).collect(),
        mounts: mounts(config.mounts)?,
        devices: few("devices", config.devices)?.into_iter().map(device).collect(),
        cdi_devices: few("CDI_devices", config.cdi_devices)?.into_iter().map(|device| device.name).collect(),
        labels: text::map("labels", config.labels)?,
        annotations: text::map("annotations", config.annotations)?,
        log_path: text::relative_path("log_path", config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: signal::number("stop_signal", config.stop_signal)?,
        resources: resources::from_proto(linux.resources.unwrap_or_default())
            .map_err(|bad| bad.within("linux.resources"))?,
        security: security::of_container(linux.security_context)
            .map_err(|bad| bad.within("linux.security_context"))?,
    })
}

/// Which image is meant.
pub fn image_from_proto(image: proto::ImageSpec) -> Result<ImageChoice, BadField> {
    let reference = |field: &str, text: String| {
        if text.len() > IMAGE_MAX || text.contains(char::is_control) {
            let why = format!("{:?} is too long or holds control characters", text::beginning(&text));
            return Err(BadField::new(field, why));
        }
        Ok(text)
    };
    if image.image.is_empty() {
        return Err(BadField::new("image", "it is empty"));
    }
    Ok(ImageChoice {
        image: reference("image", image.image)?,
        user_specified: reference("user_specified_image", image.user_specified_image)?,
        handler: text::name("runtime_handler", image.runtime_handler)?,
        annotations: text::map("annotations", image.annotations)?,
    })
}

/// The image of a container for its status: as the pod's author called it, where that is known.
pub fn image_to_proto(image: &ImageChoice) -> proto::ImageSpec {
    let shown = if image.user_specified.is_empty() { &image.image } else { &image.user_specified };
    proto::ImageSpec {
        image: shown.clone(),
        annotations: image.annotations.clone(),
        user_specified_image: image.user_specified.clone(),
        runtime_handler: image.handler.clone(),
        image_ref: String::new(),
    }
}

fn mounts(list: Vec<proto::Mount>) -> Result<Vec<Mount>, BadField> {
    let one = |(index, asked)| mount(asked).map_err(|bad| bad.within(&format!("mounts[{index}]")));
    few("mounts", list)?.into_iter().enumerate().map(one).collect()
}

fn mount(asked: proto::Mount) -> Result<Mount, BadField> {
    let image = asked.image.map(image_from_proto).transpose().map_err(|bad| bad.within("image"))?;
    if asked.host_path.is_empty() && image.is_none() {
        return Err(BadField::new("host_path", "it is empty, and there is no image either"));
    }
    if image.is_none() && !asked.image_sub_path.is_empty() {
        return Err(BadField::new("image_sub_path", "there is no image that it could be below"));
    }
    Ok(Mount {
        container_path: text::bounded_path("container_path", asked.container_path)?.into(),
        host_path: text::bounded_path("host_path", asked.host_path)?.into(),
        readonly: asked.readonly,
        recursive_read_only: asked.recursive_read_only,
        selinux_relabel: asked.selinux_relabel,
        propagation: match enumeration("propagation", asked.propagation)? {
            proto::MountPropagation::PropagationPrivate => Propagation::Private,
            proto::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
            proto::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
        },
        uids: mappings_from_proto(few("uidMappings", asked.uid_mappings)?),
        gids: mappings_from_proto(few("gidMappings", asked.gid_mappings)?),
        image,
        image_sub_path: text::relative_path("image_sub_path", asked.image_sub_path)?,
        options: few("mount_options", asked.mount_options)?,
    })
}

/// The mounts for a status: as they were asked for, with the ids of the images that some are made of, in their order.
pub fn mounts_to_proto(mounts: &[Mount], volume_images: &[String]) -> Vec<proto::Mount> {
    let mut ids = volume_images.iter();
    let one = |mount: &Mount| {
        let mut mount = mount_to_proto(mount);
        if let Some(image) = &mut mount.image {
            image.image_ref = ids.next().cloned().unwrap_or_default();
        }
        mount
    };
    mounts.iter().map(one).collect()
}

fn mount_to_proto(mount: &Mount) -> proto::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => proto::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => proto::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => proto::MountPropagation::PropagationBidirectional,
    };
    proto::Mount {
        container_path: mount.container_path.to_string_lossy().into_owned(),
        host_path: mount.host_path.to_string_lossy().into_owned(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: mappings_to_proto(&mount.uids),
        gid_mappings: mappings_to_proto(&mount.gids),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| proto::ImageSpec {
            image: image.image.clone(),
            annotations: image.annotations.clone(),
            user_specified_image: image.user_specified.clone(),
            runtime_handler: image.handler.clone(),
            image_ref: String::new(),
        }),
        image_sub_path: mount.image_sub_path.to_string_lossy().into_owned(),
        mount_options: mount.options.clone(),
    }
}

fn device(asked: proto::Device) -> Device {
    Device {
        container_path: asked.container_path.into(),
        host_path: asked.host_path.into(),
        permissions: asked.permissions,
    }
}

fn few<T>(field: &str, list: Vec<T>) -> Result<Vec<T>, BadField> {
    if list.len() > MAX_ENTRIES {
        let why = format!("it has {} entries; at most {MAX_ENTRIES} are taken", list.len());
        return Err(BadField::new(field, why));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_v1::{ContainerConfig, ContainerMetadata, ImageSpec};

    fn config() -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "web".into(), attempt: 1 }),
            image: Some(ImageSpec { image: "sha256:1".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn field(change: impl FnOnce(&mut ContainerConfig)) -> String {
        let mut config = config();
        change(&mut config);
        from_proto(Some(config)).unwrap_err().field
    }

    #[test]
    fn a_plain_container() {
        let mut asked = config();
        asked.envs = vec![proto::KeyValue { key: "RAW".into(), value: vec![0xff, 0xfe] }];
        asked.log_path = "web/0.log".into();
        let container = from_proto(Some(asked)).unwrap();
        assert_eq!((container.name.as_str(), container.attempt), ("web", 1));
        assert_eq!(container.environment, [("RAW".to_owned(), vec![0xff, 0xfe])]);
        assert_eq!(container.stop_signal, None);
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(from_proto(None).unwrap_err().field, "config");
        assert_eq!(field(|config| config.metadata = None), "config.metadata");
        assert_eq!(field(|config| config.metadata = Some(Default::default())), "config.metadata.name");
        assert_eq!(field(|config| config.image = None), "config.image");
        assert_eq!(field(|config| config.image = Some(Default::default())), "config.image.image");
        let image = |image: &str| Some(ImageSpec { image: image.into(), ..Default::default() });
        assert_eq!(field(|config| config.image = image("a\nb")), "config.image.image");
        assert_eq!(field(|config| config.image = image(&"a".repeat(1 << 20))), "config.image.image");
        assert_eq!(field(|config| config.log_path = "../0.log".into()), "config.log_path");
        assert_eq!(field(|config| config.log_path = "/etc/x".into()), "config.log_path");
        assert_eq!(field(|config| config.stop_signal = 99), "config.stop_signal");
        assert_eq!(field(|config| config.working_dir = "/a\0".into()), "config.working_dir");
        assert_eq!(field(|config| config.envs = vec![Default::default(); MAX_ENTRIES + 1]), "config.envs");
        let user = |config: &mut ContainerConfig| {
            let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
            context.run_as_user = Some(proto::Int64Value { value: 1 << 40 });
        };
        assert_eq!(field(user), "config.linux.security_context.run_as_user");
        assert_eq!(field(|config| config.mounts = vec![Default::default()]), "config.mounts[0].host_path");
        let mount = proto::Mount { host_path: "/h".into(), propagation: 3, ..Default::default() };
        assert_eq!(field(|config| config.mounts = vec![mount]), "config.mounts[0].propagation");
        let path = proto::Mount { host_path: "/h".into(), image_sub_path: "s".into(), ..Default::default() };
        assert_eq!(field(|config| config.mounts = vec![path]), "config.mounts[0].image_sub_path");
        for sub_path in ["/s", "../s", "a/../../s", "a\0"] {
            let image = Some(ImageSpec { image: "i".into(), ..Default::default() });
            let path = proto::Mount { image, image_sub_path: sub_path.into(), ..Default::default() };
            assert_eq!(field(|config| config.mounts = vec![path]), "config.mounts[0].image_sub_path");
        }
        let image = proto::Mount { image: Some(Default::default()), ..Default::default() };
        assert_eq!(field(|config| config.mounts = vec![image]), "config.mounts[0].image.image");
    }

    #[test]
    fn mounts_lead_back() {
        let id = proto::IdMapping { host_id: 1, container_id: 2, length: 3 };
        let asked = proto::Mount {
            container_path: "/c".into(),
            host_path: "/h/".into(),
            readonly: true,
            selinux_relabel: true,
            propagation: 1,
            uid_mappings: vec![id],
            gid_mappings: vec![id],
            recursive_read_only: true,
            image: Some(ImageSpec {
                image: "i".into(),
                user_specified_image: "u".into(),
                ..Default::default()
            }),
            image_sub_path: "s".into(),
            mount_options: vec!["noexec".into()],
        };
        assert_eq!(mount_to_proto(&mount(asked.clone()).unwrap()), asked);
    }

    #[test]
    fn mounts_made_of_images_tell_their_ids() {
        let image = |name: &str| proto::Mount {
            image: Some(ImageSpec { image: name.into(), ..Default::default() }),
            ..Default::default()
        };
        let plain = proto::Mount { host_path: "/h".into(), ..Default::default() };
        let asked = mounts(vec![image("a"), plain, image("b")]).unwrap();
        let shown = mounts_to_proto(&asked, &["sha256:a".into(), "sha256:b".into()]);
        let ids = shown.into_iter().map(|mount| mount.image.map(|image| image.image_ref));
        assert_eq!(ids.collect::<Vec<_>>(), [Some("sha256:a".into()), None, Some("sha256:b".into())]);
    }

    #[test]
    fn an_image_is_shown_as_its_user_called_it() {
        let spec = |image: &str, user: &str| {
            let asked =
                ImageSpec { image: image.into(), user_specified_image: user.into(), ..Default::default() };
            image_to_proto(&image_from_proto(asked).unwrap()).image
        };
        assert_eq!(spec("sha256:1", "busybox"), "busybox");
        assert_eq!(spec("busybox:1", ""), "busybox:1");
    }
}
