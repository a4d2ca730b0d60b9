//! Volumes made of images, as critest asks for them and as a hostile image would like them.

mod support;

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use serde_json::json;
use support::Daemon;
use tonic::Code;

fn volume(image: &str, target: &str) -> v1::Mount {
    v1::Mount {
        container_path: target.into(),
        readonly: true,
        image: Some(v1::ImageSpec {
            image: image.into(),
            user_specified_image: "as the user wrote it".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn part(image: &str, target: &str, sub_path: &str) -> v1::Mount {
    v1::Mount { image_sub_path: sub_path.into(), ..volume(image, target) }
}

fn with_mounts(daemon: &Daemon, name: &str, mounts: Vec<v1::Mount>) -> v1::ContainerConfig {
    v1::ContainerConfig { mounts, ..daemon.container(name, "exec sleep 1000") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_seen_read_only_and_its_programs_run() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let config = daemon.pod("volumes");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.pull(&daemon.image.clone()).await.unwrap();
    let data = [Entry::directory("data", 0o755), Entry::file("data/file", 0o644, b"of the data".to_vec())];
    let data = daemon.image_with("data", &data, json!({})).await;
    let data_id = daemon.pull(&data).await.unwrap();
    let mounts = vec![
        volume(&id, "/mnt/image-volume"),
        part(&id, "/mnt/etc", "etc"),
        part(&data, "/mnt/file", "data/file"),
        v1::Mount { mount_options: vec!["noexec".into()], ..volume(&data, "/mnt/noexec") },
        v1::Mount { recursive_read_only: true, ..volume(&data_id, "/mnt/rro") },
    ];
    let container = daemon.create(&pod, &config, &with_mounts(&daemon, "c", mounts)).await.unwrap();
    daemon.start_container(&container).await.unwrap();
    let status = daemon.status(&container).await.unwrap();
    let shown = status.mounts.iter().map(|mount| mount.image.as_ref().unwrap());
    let ids: Vec<_> = shown.clone().map(|image| image.image_ref.as_str()).collect();
    assert_eq!(ids, [&id, &id, &data_id, &data_id, &data_id]);
    assert!(shown.clone().all(|image| image.user_specified_image == "as the user wrote it"));

    assert_eq!(daemon.sh(&container, "ls -A /mnt/image-volume/bin/sh").await, "/mnt/image-volume/bin/sh\n");
    assert!(daemon.sh(&container, "/mnt/image-volume/bin/ls /mnt/image-volume").await.contains("bin\n"));
    assert!(daemon.sh(&container, "ls /mnt/etc").await.contains("passwd\n"));
    assert_eq!(
        daemon.sh(&container, "cat /mnt/file; cat /mnt/rro/data/file").await,
        "of the dataof the data"
    );
    for script in [
        "touch /mnt/image-volume/new",
        "echo x > /mnt/etc/passwd",
        "echo x > /mnt/file",
        "rm /mnt/rro/data/file",
        "ls /mnt/etc/etc/passwd",
        "/mnt/noexec/bin/true",
    ] {
        let done = daemon.exec(&container, &["sh", "-c", script], 10).await.unwrap();
        assert_ne!(done.exit_code, 0, "{script}");
    }

    // The image may go; what stands on it stays, also with a daemon that was started anew and collects what nothing needs.
    let image = Some(v1::ImageSpec { image: data_id.clone(), ..Default::default() });
    daemon.images().remove_image(v1::RemoveImageRequest { image }).await.unwrap();
    daemon.kill();
    daemon.launch().await;
    let other = daemon.image_with("other", &[Entry::file("other", 0o644, "")], json!({})).await;
    let image = Some(v1::ImageSpec { image: other, ..Default::default() });
    daemon.images().remove_image(v1::RemoveImageRequest { image }).await.unwrap();
    assert_eq!(daemon.sh(&container, "cat /mnt/file").await, "of the data");
    let status = daemon.status(&container).await.unwrap();
    assert_eq!(status.mounts[2].image.as_ref().unwrap().image_ref, data_id);
    daemon.stop_container(&container, 0).await.unwrap();
    daemon.remove_container(&container).await.unwrap();
    let rows = daemon.inventory().await;
    assert!(!rows.iter().any(|row| row.starts_with("root_filesystems")), "{rows:?}");
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_mounted_is_refused_and_leaves_nothing() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("refused");
    let pod = daemon.run_pod(&config).await.unwrap();
    let entries = [
        Entry::symlink("root", "/"),
        Entry::symlink("up", "../../../../../../../../etc/shadow"),
        Entry::symlink("proc", "/proc/self/root/etc/shadow"),
        Entry::symlink("circle", "circle"),
        Entry::fifo("pipe"),
    ];
    let image = daemon.image_with("links", &entries, json!({})).await;
    let before = daemon.inventory().await;
    let plain = v1::Mount { container_path: "/m".into(), host_path: "/tmp".into(), ..Default::default() };
    let cases = vec![
        (v1::Mount { readonly: false, ..volume(&image, "/m") }, Code::InvalidArgument, "readonly"),
        (v1::Mount { host_path: "/tmp".into(), ..volume(&image, "/m") }, Code::InvalidArgument, "host_path"),
        (v1::Mount { propagation: 1, ..volume(&image, "/m") }, Code::InvalidArgument, "propagation"),
        (
            v1::Mount { image_sub_path: "etc".into(), ..plain },
            Code::InvalidArgument,
            "mounts[0].image_sub_path",
        ),
        (volume("absent:1", "/m"), Code::NotFound, "ImageVolumeMountFailed"),
        (volume("", "/m"), Code::InvalidArgument, "mounts[0].image.image"),
        (part(&image, "/m", "not-existing"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "up"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "root/up"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "proc"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "circle"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "pipe"), Code::InvalidArgument, "ImageVolumeMountFailed"),
        (part(&image, "/m", "../etc"), Code::InvalidArgument, "mounts[0].image_sub_path"),
        (part(&image, "/m", "/etc"), Code::InvalidArgument, "mounts[0].image_sub_path"),
        (part(&image, "/proc", "etc"), Code::InvalidArgument, "mounts[0]"),
    ];
    for (mount, code, words) in cases {
        let asked = with_mounts(&daemon, "c", vec![mount]);
        let error = daemon.create(&pod, &config, &asked).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(words), "{words}: {error}");
        // The kubelet knows it by how the message begins.
        let prefixed = error.message().starts_with("ImageVolumeMountFailed");
        assert_eq!(prefixed, words == "ImageVolumeMountFailed", "{error}");
        assert_eq!(daemon.changed_since(&before, words).await, None);
    }
    // A hundred of them are more descriptors than one call carries.
    let many = (0..100).map(|number| volume(&image, &format!("/m{number}"))).collect();
    let error = daemon.create(&pod, &config, &with_mounts(&daemon, "c", many)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(daemon.changed_since(&before, "many").await, None);
    let some = (0..31).map(|number| volume(&image, &format!("/m{number}"))).collect();
    let id = daemon.create(&pod, &config, &with_mounts(&daemon, "c", some)).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    assert_eq!(daemon.sh(&id, "ls -d /m*/bin | wc -l").await, "31\n");
    // A link of the image leads to what it would lead to in the image, and to nothing of the host.
    let root = with_mounts(&daemon, "d", vec![part(&image, "/m", "root/root/etc")]);
    let id = daemon.create(&pod, &config, &root).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    assert_eq!(daemon.sh(&id, "ls /m").await, "group\npasswd\n");
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}
