//! A node with thousands of images: its lists are answered from memory, and nobody waits for them.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use store::rusqlite::params;
use store::{Durability, Store};
use support::Daemon;

/// Records images that have the layers of the one that is there, so that they are as real as it for everything but their programs.
fn record(daemon: &Daemon, from: u32, to: u32) {
    let store = Store::open(&daemon.path("root/pintle.db")).unwrap();
    // The one that was pulled.
    let pulled = "SELECT id, config FROM images WHERE id NOT LIKE 'sha256:00000000%'";
    let (real, config): (String, Vec<u8>) = store
        .read(|connection| connection.query_row(pulled, [], |row| Ok((row.get(0)?, row.get(1)?))))
        .unwrap();
    store
        .write(Durability::Disk, |tx| {
            for number in from..to {
                let id = format!("sha256:{number:064x}");
                tx.execute("INSERT INTO images (id, config, pulled_at) VALUES (?1, ?2, ?3)", params![id, config, number])?;
                tx.execute(
                    "INSERT INTO image_layers (image, position, layer) SELECT ?1, position, layer FROM image_layers WHERE image = ?2",
                    params![id, real],
                )?;
                for name in [format!("r.example/team/app-{number}:1"), format!("r.example/team/app-{number}@{id}")] {
                    tx.execute("INSERT INTO image_references (name, image) VALUES (?1, ?2)", params![name, id])?;
                }
            }
            Ok(())
        })
        .unwrap();
}

/// The fastest of a few calls: this machine may be doing something else.
async fn fastest<T>(mut call: impl AsyncFnMut() -> T) -> (Duration, T) {
    let mut best = None;
    for _ in 0..5 {
        let begun = Instant::now();
        let value = call().await;
        let took = begun.elapsed();
        if best.as_ref().is_none_or(|(least, _)| took < *least) {
            best = Some((took, value));
        }
    }
    best.unwrap()
}

#[test]
fn thousands_of_images_are_listed_at_once() {
    needs_a_node!();
    support::in_own_network(async {
        let mut daemon = Daemon::start().await;
        let mut before = 0;
        for (count, most) in [(1000, Duration::from_millis(250)), (5000, Duration::from_millis(1250))] {
            daemon.end();
            record(&daemon, before, count);
            before = count;
            let begun = Instant::now();
            daemon.launch().await;
            let started = begun.elapsed();
            let (listed, answer) = fastest(async || {
                daemon.images().list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner()
            })
            .await;
            assert_eq!(answer.images.len(), count as usize + 1);
            let name = format!("r.example/team/app-{}:1", count / 2);
            let (found, status) = fastest(async || {
                let image = Some(v1::ImageSpec { image: name.clone(), ..Default::default() });
                let request = v1::ImageStatusRequest { image, verbose: false };
                daemon.images().image_status(request).await.unwrap().into_inner()
            })
            .await;
            assert_eq!(status.image.unwrap().repo_tags, [name]);
            println!("{count} images: started in {started:?}, ListImages {listed:?}, ImageStatus {found:?}");
            assert!(listed < most, "ListImages of {count} took {listed:?}");
            assert!(found < Duration::from_millis(50), "ImageStatus took {found:?}");
            assert!(started < Duration::from_secs(6), "{started:?}");
        }
        let endpoint = format!("unix://{}", daemon.socket().display());
        let listed = Command::new(env!("CARGO_BIN_EXE_pintle"))
            .args(["--endpoint", &endpoint, "images"])
            .output()
            .unwrap();
        assert!(listed.status.success());
        assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 5002);
        // A change with so many is no slow one either.
        let begun = Instant::now();
        let image = Some(v1::ImageSpec { image: "r.example/team/app-7:1".into(), ..Default::default() });
        daemon.images().remove_image(v1::RemoveImageRequest { image }).await.unwrap();
        println!("RemoveImage {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(4));
    });
}
