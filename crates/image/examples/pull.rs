//! Pulls one image into a folder and says how long that and its root file system took: `pull FOLDER REFERENCE [user:password]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{Credentials, ImageConfig, Images, PullRequest};
use store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(reference)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull FOLDER REFERENCE [user:password]".into());
    };
    let credentials = arguments
        .next()
        .and_then(|login| login.split_once(':').map(|(user, password)| Credentials::login(user, password)));
    let folder = std::path::PathBuf::from(folder);
    let store = Arc::new(Store::open(&folder.join("pintle.db"))?);
    let images = Images::open(ImageConfig::new(folder.join("images")), store)?;
    let began = Instant::now();
    let pull = images.pull(PullRequest { reference: reference.clone(), credentials, platform: None });
    tokio::pin!(pull);
    let id = loop {
        tokio::select! {
            done = &mut pull => break done?,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if let Some(progress) = images.progress(&reference) {
                    let progress = progress.borrow().clone();
                    let sum = |of: fn(&image::LayerProgress) -> u64| progress.layers.iter().map(of).sum::<u64>();
                    println!("{:?} {} of {} bytes", progress.stage, sum(|l| l.downloaded), sum(|l| l.total));
                }
            }
        }
    };
    let usage = images.fs_info().usage;
    println!("{id} in {:?}: {} bytes, {} inodes", began.elapsed(), usage.bytes, usage.inodes);
    let mut times = Vec::new();
    for number in 0..100 {
        let owner = format!("timing-{number}");
        let began = Instant::now();
        images.rootfs().prepare(&owner, &id, None)?;
        let prepared = began.elapsed();
        let mount = images.rootfs().mount(&owner, None)?;
        times.push((began.elapsed(), prepared));
        drop(mount);
        images.rootfs().remove(&owner)?;
    }
    times.sort();
    println!(
        "root file system prepared and mounted in {:?}, prepared alone in {:?} (median)",
        times[50].0, times[50].1
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}
