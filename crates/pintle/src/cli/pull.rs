//! `pintle pull`: pulls images, with a bar for each layer where somebody looks.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::output::write_out;
use super::pull_progress::Progress;
use super::several::Several;
use cri::node_v1::{PullForPlatformRequest, RegistryLogin};
use cri::runtime_v1 as cri_v1;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// How long the last news of the layers are waited for when the pull is over.
const LAST_NEWS: Duration = Duration::from_millis(150);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images to pull, such as busybox, quay.io/x/y:1.2 or name@sha256:...
    #[arg(required = true)]
    images: Vec<String>,
    /// Pull it for another platform than this machine's, such as linux/arm64, to save or push it
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Log in to the registry as this user, with --password-stdin
    #[arg(short, long, requires = "password_stdin", value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let auth = args.username.map(read_password).transpose()?;
    let mut several = Several::default();
    for image in &args.images {
        let progress = if args.quiet { Progress::silent() } else { Progress::for_terminal() };
        let pulled = match &args.platform {
            None => pull(client, image, auth.clone(), progress).await,
            Some(platform) => pull_for(client, image, platform, auth.clone()).await,
        };
        several.record(pulled.and_then(|id| write_out(&format!("{id}\n"))));
    }
    several.finish()
}

pub(crate) fn read_password(username: String) -> Result<cri_v1::AuthConfig, Failure> {
    let mut password = String::new();
    let cannot = |source| Failure::File {
        what: "reading the password",
        path: PathBuf::from("standard input"),
        source,
    };
    // No registry has a longer one; a wrong file on standard input is not read into memory.
    std::io::stdin().take(64 * 1024).read_to_string(&mut password).map_err(cannot)?;
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    Ok(cri_v1::AuthConfig { username, password, ..Default::default() })
}

/// Pulls one image and returns the id the runtime gives it.
///
/// With Pintle's daemon the progress of each layer is shown; of another runtime only that it is working.
pub(crate) async fn pull(
    client: &Client,
    image: &str,
    auth: Option<cri_v1::AuthConfig>,
    mut progress: Progress,
) -> Result<String, Failure> {
    progress.begin(image);
    let request = cri_v1::PullImageRequest {
        image: Some(cri_v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
        auth,
        sandbox_config: None,
    };
    let mut images = client.images();
    let answer = {
        let pull = images.pull_image(request);
        let watch = watch(client, image, &mut progress);
        tokio::pin!(pull, watch);
        tokio::select! {
            answer = &mut pull => {
                // The last news are on their way; without them the layers that came last would not be told of.
                let _ = tokio::time::timeout(LAST_NEWS, watch).await;
                answer
            }
            () = &mut watch => pull.await,
        }
    };
    let answer = answer.explain(|| format!("pulling {image}"));
    progress.end(answer.is_ok());
    Ok(answer?.image_ref)
}

/// Pulls one image that is not for this machine. Only Pintle's daemon can.
async fn pull_for(
    client: &Client,
    image: &str,
    platform: &str,
    auth: Option<cri_v1::AuthConfig>,
) -> Result<String, Failure> {
    let login = auth.map(|auth| RegistryLogin { username: auth.username, password: auth.password });
    let request = PullForPlatformRequest { image: image.into(), platform: platform.into(), login };
    let answer = client.own_images().pull_for_platform(request).await;
    Ok(answer.explain(|| format!("pulling {image} for {platform}"))?.id)
}

/// Shows how far the layers are until there is nothing more to tell. Watching is for show: that it fails says nothing about the pull.
async fn watch(client: &Client, image: &str, progress: &mut Progress) {
    if !progress.wants_layers() {
        return;
    }
    let request = cri::node_v1::WatchPullRequest { image: image.to_owned() };
    let Ok(answer) = client.node().watch_pull(request).await else { return };
    let mut stream = answer.into_inner();
    while let Ok(Some(update)) = stream.message().await {
        progress.update(&update.layers);
        if update.done || !update.error.is_empty() {
            return;
        }
    }
}

/// Returns the image's id, pulling it when it is not on this machine.
pub(crate) async fn pull_if_absent(
    client: &Client,
    image: &str,
    progress: Progress,
) -> Result<String, Failure> {
    match client.image_status(image, false).await? {
        Some(answer) => Ok(answer.image.unwrap_or_default().id),
        None => pull(client, image, None, progress).await,
    }
}
