//! Image pulls from loopback: the image is removed before each, so that everything is fetched and unpacked.

use crate::images::Served;
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result};
use cri::runtime_v1 as v1;
use std::time::Instant;

/// Pulls each image `count` times.
pub(crate) async fn measure(
    target: &Target,
    images: &Served,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    for (what, name) in images.to_pull() {
        for _ in 0..count {
            let spec = Some(v1::ImageSpec { image: name.clone(), ..Default::default() });
            remove(target, spec.clone()).await?;
            let request = v1::PullImageRequest { image: spec.clone(), ..Default::default() };
            let began = Instant::now();
            let pulled = target.images().pull_image(request).await;
            pulled.with_context(|| format!("{}: pulling {name}", target.name))?;
            report.add("Pulls from loopback (s)", &what, &target.name, began.elapsed().as_secs_f64());
            remove(target, spec).await?;
        }
    }
    Ok(())
}

async fn remove(target: &Target, image: Option<v1::ImageSpec>) -> Result<()> {
    let removed = target.images().remove_image(v1::RemoveImageRequest { image }).await;
    removed.with_context(|| format!("{}: removing an image", target.name))?;
    Ok(())
}
