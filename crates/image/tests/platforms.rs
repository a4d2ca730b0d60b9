//! Images for another platform than this node's: pulled because somebody asked for them, carried on, and never run.

mod common;

use common::{Place, skip_unless_root};
use image::PullRequest;
use model::platform::Platform;
use registry::make::{Compression, Image, ImageBuilder, Layer};
use registry::tar::Entry;

fn made_for(architecture: &str) -> Image {
    let layer = Layer::new(&[Entry::file("for", 0o644, architecture)], Compression::Gzip);
    ImageBuilder::new().architecture(architecture).layer(layer).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_platforms_image_is_pulled_when_it_is_asked_for() {
    if skip_unless_root() {
        return;
    }
    let (own, other) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        _ => ("amd64", "arm64"),
    };
    let (native, foreign) = (made_for(own), made_for(other));
    let offered = [(format!("linux/{own}"), native.clone()), (format!("linux/{other}"), foreign.clone())];
    let offered: Vec<_> =
        offered.iter().map(|(platform, image)| (platform.as_str(), image.clone())).collect();
    let place = Place::new().await;
    place.registry.add("multi", "1", &registry::make::index(&offered));
    let name = place.name("multi:1");
    let ask = |platform: Option<&str>| {
        let platform = platform.map(|text| Platform::parse(text).unwrap());
        place.images.pull(PullRequest { reference: name.clone(), credentials: None, platform })
    };
    // At the same time: they are two pulls, not one.
    let wanted = format!("linux/{other}");
    let (mine, theirs) = tokio::join!(ask(None), ask(Some(&wanted)));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    assert_eq!((mine.as_str(), theirs.as_str()), (native.id.as_str(), foreign.id.as_str()));
    let find = |id: &str| place.images.find(id).unwrap().unwrap();
    assert!(place.images.cannot_run(&find(mine.as_str())).is_none());
    assert!(place.images.cannot_run(&find(theirs.as_str())).is_some());
    // What is asked for last has the name.
    ask(Some(&wanted)).await.unwrap();
    assert_eq!(find(&name).id.as_str(), foreign.id);
    // A damaged layer is fetched again for the platform that the image is for.
    place.images.repair(&find(&name)).await.unwrap();
    assert_eq!(find(&name).id.as_str(), foreign.id);
    ask(None).await.unwrap();
    assert_eq!(find(&name).id.as_str(), native.id);
    let error = ask(Some("linux/s390x")).await.unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains(&wanted), "{error}");
}
