//! Mounts that are made of images.

use super::*;

fn volume(target: &str, change: impl FnOnce(&mut Mount)) -> Mount {
    let mut mount = Mount {
        container_path: target.into(),
        readonly: true,
        image: Some(ImageChoice::default()),
        ..Default::default()
    };
    change(&mut mount);
    mount
}

#[test]
fn they_are_numbered_in_the_order_asked() {
    let plain = Mount { host_path: "/h".into(), container_path: "/h".into(), ..Default::default() };
    let mounts =
        vec![volume("/a/b/c", |_| {}), plain, volume("/x", |mount| mount.options = vec!["noexec".into()])];
    let spec = Case::with(|case| case.container.mounts = mounts).spec();
    for (target, number) in [("/a/b/c", "0"), ("/x", "1")] {
        let mount = mount_at(&spec, target).unwrap();
        assert_eq!(
            (mount.typ().as_deref(), mount.source().as_deref()),
            (Some("descriptor"), Some(number.as_ref()))
        );
    }
    assert_eq!(options(&spec, "/a/b/c"), "rbind,rprivate,ro");
    assert_eq!(options(&spec, "/x"), "rbind,rprivate,ro,noexec");
    assert_eq!(mount_at(&spec, "/h").unwrap().typ().as_deref(), Some("bind"));
}

#[test]
fn what_no_image_can_be_is_refused() {
    for bad in [
        volume("/x", |mount| mount.readonly = false),
        volume("/x", |mount| mount.host_path = "/h".into()),
        volume("/x", |mount| mount.propagation = Propagation::HostToContainer),
        volume("/x", |mount| mount.propagation = Propagation::Bidirectional),
    ] {
        let error = mount_error(bad);
        assert!(matches!(error, SpecError::ImageVolume { index: 0, .. }), "{error:?}");
        assert_eq!(error.refusal(), Refusal::Invalid);
    }
    assert!(matches!(mount_error(volume("/", |_| {})), SpecError::MountTargetForbidden { .. }));
}
