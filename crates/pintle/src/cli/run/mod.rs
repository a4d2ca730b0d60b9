//! `pintle run`: makes a pod with one container of an image, as `docker run` does, by CRI alone.

mod args;
mod interactive;
pub(crate) mod log_directory;
mod names;
pub(crate) mod parse;
pub(crate) mod request;

pub(crate) use args::Args;

use super::client::Client;
use super::failure::{Explain, Failure};
use super::inventory::{Inventory, pod_name};
use super::logs;
use super::output::write_out;
use super::pull::pull_if_absent;
use super::pull_progress::Progress;
use super::rm::remove_pod;
use super::session::Wants;
use super::stop::{GRACE_SECS, stop_container};
use cri::runtime_v1 as cri_v1;
use request::{Request, request};
use std::path::PathBuf;

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Returns the exit code of the program, or 0 when it was left running.
pub(crate) async fn run(args: Args, client: &Client) -> Result<u8, Failure> {
    refuse_what_is_not_possible(&args)?;
    let inventory = Inventory::load(client).await?;
    let taken = inventory.pods.iter().map(pod_name);
    let name = match &args.name {
        Some(name) if taken.clone().any(|taken| taken == name) => {
            return Err(Failure::Usage(format!(
                "a pod named {name} exists already; remove it first (pintle rm {name}) or choose another name"
            )));
        }
        Some(name) => valid_name(name)?,
        None => names::name(taken),
    };
    let image = pull_if_absent(client, &args.image, Progress::for_terminal()).await?;
    let uid = names::uid();
    let log_directory = log_directory::make(&args.log_root, &name, &uid)?;
    let mut request = request(&args, &name, &uid, &log_directory, image)?;
    let directory = log_directory.display().to_string();
    request.pod.annotations.insert(log_directory::ANNOTATION.to_owned(), directory);
    let (made, session) = start(client, &args, request).await.inspect_err(|_| {
        // The log is empty: nothing ran.
        let _ = std::fs::remove_dir_all(&log_directory);
    })?;
    if args.detach {
        write_out(&format!("{}\n", made.container_id))?;
        return Ok(0);
    }
    let ended = match (session, interactive::wants(&args)) {
        (Some(session), Some(wants)) if wants.output => {
            interactive::until_end(client, &made.container_id, session, wants).await
        }
        (session, wants) => {
            let interrupted = interactive::until_interrupted(session, wants);
            show_until_end(client, &made, log_directory.join(&name).join("0.log"), interrupted).await
        }
    };
    if args.rm {
        made.remove(client).await?;
    }
    ended
}

/// A pod and its container, both started.
struct Made {
    pod_id: String,
    container_id: String,
}

impl Made {
    async fn remove(&self, client: &Client) -> Result<(), Failure> {
        let inventory = Inventory::load(client).await?;
        match inventory.pods.iter().find(|pod| pod.id == self.pod_id) {
            Some(pod) => remove_pod(client, &inventory, pod).await,
            None => Ok(()),
        }
    }
}

/// Makes and starts both; when a later step fails, or Ctrl-C comes between, the pod is removed again.
async fn start(
    client: &Client,
    args: &Args,
    request: Request,
) -> Result<(Made, Option<interactive::Session>), Failure> {
    let run = cri_v1::RunPodSandboxRequest {
        config: Some(request.pod.clone()),
        runtime_handler: args.runtime.clone().unwrap_or_default(),
    };
    let answer = client.runtime().run_pod_sandbox(run).await;
    let pod_id = answer.explain(|| "making the pod".into())?.pod_sandbox_id;
    let started = tokio::select! {
        started = start_container(client, &pod_id, request, interactive::wants(args)) => started,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    match started {
        Ok((container_id, session)) => Ok((Made { pod_id, container_id }, session)),
        Err(failure) => {
            if let Err(and) = (Made { pod_id, container_id: String::new() }).remove(client).await {
                and.report();
            }
            Err(failure)
        }
    }
}

async fn start_container(
    client: &Client,
    pod_id: &str,
    request: Request,
    wants: Option<Wants>,
) -> Result<(String, Option<interactive::Session>), Failure> {
    let create = cri_v1::CreateContainerRequest {
        pod_sandbox_id: pod_id.to_owned(),
        config: Some(request.container),
        sandbox_config: Some(request.pod),
    };
    let answer = client.runtime().create_container(create).await;
    let id = answer.explain(|| "making the container".into())?.container_id;
    let start = cri_v1::StartContainerRequest { container_id: id.clone() };
    let joined = match wants {
        Some(wants) => interactive::before_start(client, &id, wants).await,
        None => None,
    };
    client.runtime().start_container(start).await.explain(|| "starting the container".into())?;
    let session = match wants {
        Some(wants) => Some(interactive::after_start(client, &id, wants, joined).await?),
        None => None,
    };
    Ok((id, session))
}

/// Shows the log until the program ends. Ctrl-C stops it; a second one does not wait for it.
async fn show_until_end(
    client: &Client,
    made: &Made,
    log: PathBuf,
    interrupted: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let id = &made.container_id;
    let shown = tokio::select! {
        shown = logs::follow_to_end(client, id, &log) => shown,
        () = interrupted => {
            tokio::select! {
                stopped = stop_container(client, id, GRACE_SECS) => stopped?,
                _ = tokio::signal::ctrl_c() => stop_container(client, id, 0).await?,
            }
            return Ok(INTERRUPTED);
        }
    };
    let status = shown?;
    if status.reason == "OOMKilled" {
        eprintln!("pintle: the container was killed because it used more memory than its limit");
    }
    Ok(u8::try_from(status.exit_code).unwrap_or(u8::MAX))
}

fn refuse_what_is_not_possible(args: &Args) -> Result<(), Failure> {
    if args.network == args::Network::Host && !args.publish.is_empty() {
        return Err(Failure::Usage(
            "-p has no meaning with --network host: the container's ports are the host's".into(),
        ));
    }
    Ok(())
}

/// Pod names are DNS labels (RFC 1123): they become host names.
fn valid_name(name: &str) -> Result<String, Failure> {
    let made_well =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if made_well && !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(name.to_owned());
    }
    Err(Failure::Usage(format!(
        "{name:?} cannot be a name: it becomes the host name of the pod, so it has up to 63 small letters, digits and hyphens"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        assert!(valid_name("web-1").is_ok());
        for bad in ["", "Web", "-a", "a-", "a_b", "../x", &"a".repeat(64)] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_up_names_are_valid() {
        assert!(valid_name(&names::name(std::iter::empty())).is_ok());
    }
}
