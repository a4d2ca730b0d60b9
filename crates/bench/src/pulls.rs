//! Image pulls from loopback. The image was removed before each, what was written is on disk when the clock stops, whoever syncs it, and
//! nothing of an earlier pull is in the kernel's caches.

use crate::images::{Served, ToPull};
use crate::processes::{cpu_secs, peak_kib, reset_peak};
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result};
use cri::runtime_v1 as v1;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

const SECTION: &str = "Pulls from loopback, cold and durable";

/// How long a runtime may take to delete what was removed before the next pull begins.
const SETTLING: Duration = Duration::from_secs(60);

/// Pulls each image `count` times. `disk` is in the file system that the images are in.
pub(crate) async fn measure(
    target: &Target,
    images: &Served,
    count: usize,
    disk: &Path,
    report: &mut Report,
) -> Result<()> {
    for image in images.to_pull() {
        for _ in 0..count {
            remove(target, image).await?;
            settle(disk).await?;
            one(target, image, disk, report).await?;
            remove(target, image).await?;
        }
    }
    settle(disk).await
}

async fn one(target: &Target, image: &ToPull, disk: &Path, report: &mut Report) -> Result<()> {
    let ToPull { what, link_secs, .. } = image;
    target.daemon_pid.map(reset_peak).transpose().context("resetting a daemon's peak of memory")?;
    let cpu_before = target.daemon_pid.and_then(cpu_secs);
    let began = Instant::now();
    pull(target, image).await?;
    let answered = began.elapsed().as_secs_f64();
    sync(disk)?;
    let durable = began.elapsed().as_secs_f64();
    let mut add = |measure: &str, sample: f64| {
        report.add(SECTION, &format!("{what}: {measure}"), &target.name, sample);
    };
    if let Some(link_secs) = link_secs {
        add("more than the link's own time (%)", (answered / link_secs - 1.0) * 100.0);
        return Ok(());
    }
    add("durable (s)", durable);
    add("answered (s)", answered);
    if let (Some(before), Some(after)) = (cpu_before, target.daemon_pid.and_then(cpu_secs)) {
        add("processor time of the daemon (s)", after - before);
    }
    if let Some(kib) = target.daemon_pid.and_then(peak_kib) {
        add("peak memory of the daemon (MiB)", kib / 1024.0);
    }
    Ok(())
}

/// Pulls it as a kubelet does.
pub(crate) async fn pull(target: &Target, image: &ToPull) -> Result<()> {
    let request = v1::PullImageRequest { image: Some(image.spec()), ..Default::default() };
    let pulled = target.images().pull_image(request).await;
    pulled.with_context(|| format!("{}: pulling {}", target.name, image.name))?;
    Ok(())
}

/// Removes it; it need not be there.
pub(crate) async fn remove(target: &Target, image: &ToPull) -> Result<()> {
    let request = v1::RemoveImageRequest { image: Some(image.spec()) };
    let removed = target.images().remove_image(request).await;
    removed.with_context(|| format!("{}: removing {}", target.name, image.name))?;
    Ok(())
}

/// Waits until what was removed is deleted, writes everything out and empties the caches.
async fn settle(disk: &Path) -> Result<()> {
    let began = Instant::now();
    let mut files = free_files(disk)?;
    while began.elapsed() < SETTLING {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = free_files(disk)?;
        // Others use the disk, too.
        if now.abs_diff(files) < 200 {
            break;
        }
        files = now;
    }
    sync(disk)?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the kernel's caches")
}

fn sync(disk: &Path) -> Result<()> {
    let folder = File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
    rustix::fs::syncfs(folder).with_context(|| format!("syncing the file system of {}", disk.display()))
}

fn free_files(disk: &Path) -> Result<u64> {
    let about = rustix::fs::statvfs(disk);
    Ok(about.with_context(|| format!("asking about the file system of {}", disk.display()))?.f_ffree)
}
