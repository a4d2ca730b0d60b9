//! Restoring a pod from a checkpoint: a new pod as any other, whose containers are made of what was saved, and wait to be started; or
//! nothing of it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use model::id::{ContainerId, PodId};
use model::request::{ContainerRequest, ImageChoice, PidNamespace, PodRequest};

use super::folder::{SHARED_MEMORY, of_container};
use super::manifest::{Container, Manifest};
use super::{CHANGES, IMAGES, Written};
use crate::context::{Context, blocking};
use crate::error::{Fault, RestorePodError};
use crate::handlers::{Handler, HandlerError};
use crate::node::Node;

/// From what a container is restored.
#[derive(Debug, Clone)]
pub(crate) struct RestoreFrom {
    /// The program, as an absolute path.
    pub(crate) criu: PathBuf,
    /// CRIU's images.
    pub(crate) images: PathBuf,
    changes_path: PathBuf,
    changes: Written,
    pub(crate) deadline: Instant,
}

impl RestoreFrom {
    /// Puts what the container had changed into its root file system, which was prepared and not mounted yet.
    pub(crate) fn import_changes(&self, context: &Context, owner: &str) -> Result<(), image::RootfsError> {
        let failed = |source: std::io::Error| image::RootfsError::Io {
            owner: owner.to_owned(),
            path: self.changes_path.clone(),
            source,
        };
        let digest = self.changes.digest().map_err(|why| failed(std::io::Error::other(why)))?;
        let file = open(&self.changes_path).map_err(failed)?;
        context.images.rootfs().import_changes(owner, file, &digest, self.changes.size)
    }
}

/// Makes the pod and its containers, which are in the state created then: nothing of them has run. The pod's id, and of each container its
/// name and id.
pub(crate) async fn restore_pod(
    node: Node,
    context: Arc<Context>,
    folder: PathBuf,
    pod: PodRequest,
    containers: Vec<ContainerRequest>,
    deadline: Instant,
) -> Result<(PodId, Vec<(String, ContainerId)>), RestorePodError> {
    if let Ok(handler) = context.handlers.resolve(&pod.handler)
        && context.handlers.find(&handler).is_some_and(Handler::is_foreign)
    {
        let (name, source) = (pod.name, HandlerError::Checkpoint);
        return Err(RestorePodError::Handler { name, handler, source });
    }
    let criu = context.criu.ready(&context.config.checkpoint.criu).await.map_err(|error| match error {
        crate::error::CheckpointError::NoCriu { why } => RestorePodError::NoCriu { why },
        other => RestorePodError::Invalid { why: other.to_string() },
    })?;
    let (reading, path) = (context.clone(), folder.clone());
    let (pod, containers, manifest) = blocking(move || {
        let manifest = read(&path)?;
        compare(&reading, &manifest, &pod, &containers)?;
        Ok((pod, containers, manifest))
    })
    .await?;
    let name = pod.name.clone();
    let logs = pod.log_directory.clone().filter(|logs| !logs.exists());
    let id = node.run_new_pod(pod).await.map_err(RestorePodError::Pod)?;
    let filled = async {
        if let Some(written) = &manifest.shared_memory {
            in_time(deadline, "its shared memory")?;
            restore_shared_memory(&context, &id, &folder, written)
                .await
                .map_err(|fault| RestorePodError::Failed { name, stage: "its shared memory", fault })?;
        }
        let mut made = Vec::new();
        for request in containers {
            in_time(deadline, "making its containers")?;
            let number = manifest.containers.iter().position(|saved| saved.request.name == request.name);
            let Some((number, saved)) = number.map(|number| (number, &manifest.containers[number])) else {
                continue;
            };
            let own = of_container(&folder, number);
            let from = RestoreFrom {
                criu: criu.clone(),
                images: own.join(IMAGES),
                changes_path: own.join(CHANGES),
                changes: saved.changes.clone(),
                deadline,
            };
            let name = request.name.clone();
            let created = node.restore_container(&id, request, from).await;
            made.push((name, created.map_err(RestorePodError::Container)?));
        }
        in_time(deadline, "the end")?;
        Ok(made)
    };
    match filled.await {
        Ok(made) => Ok((id, made)),
        Err(error) => {
            if let Err(left) = node.remove_pod(id.as_str()).await {
                tracing::warn!(pod = %id, %left, "a pod whose restore failed could not be removed");
            }
            if let Some(logs) = logs {
                blocking(move || remove_empty(&logs)).await;
            }
            Err(error)
        }
    }
}

/// Removes a new log directory with the logs in it, all of which are empty: nothing of the pod has run.
fn remove_empty(logs: &Path) {
    for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        if entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    let _ = std::fs::remove_dir(logs);
}

fn in_time(deadline: Instant, stage: &'static str) -> Result<(), RestorePodError> {
    if Instant::now() >= deadline { Err(RestorePodError::TimedOut { stage }) } else { Ok(()) }
}

fn read(folder: &Path) -> Result<Manifest, RestorePodError> {
    if !folder.is_absolute() {
        return Err(RestorePodError::Invalid { why: format!("checkpoint_path {folder:?} is not absolute") });
    }
    if !folder.is_dir() {
        return Err(RestorePodError::Invalid { why: format!("checkpoint_path {folder:?} is no directory") });
    }
    Manifest::read(folder).map_err(|why| RestorePodError::Unusable { path: folder.into(), why })
}

async fn restore_shared_memory(
    context: &Arc<Context>,
    pod: &PodId,
    folder: &Path,
    written: &Written,
) -> Result<(), Fault> {
    let (to, from, written) = (context.pod_dir(pod).join("shm"), folder.join(SHARED_MEMORY), written.clone());
    blocking(move || {
        let digest = written.digest().map_err(Fault::Other)?;
        let file = open(&from).map_err(|source| Fault::File { path: from.clone(), source })?;
        image::import_folder(&to, file, &digest, written.size)
            .map_err(|error| Fault::Other(error.to_string()))
    })
    .await
}

/// Opens a file of a checkpoint, which is not trusted to be one.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Whether what is asked for is what was saved, as far as that is the checkpoint's to say.
fn compare(
    context: &Context,
    manifest: &Manifest,
    pod: &PodRequest,
    containers: &[ContainerRequest],
) -> Result<(), RestorePodError> {
    let invalid = |why: String| Err(RestorePodError::Invalid { why });
    if containers.is_empty() {
        return invalid("container_configs: it is empty".into());
    }
    let mut asked: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    asked.sort_unstable();
    if asked.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("container_configs: two have one name".into());
    }
    let mut saved: Vec<&str> = manifest.containers.iter().map(|saved| saved.request.name.as_str()).collect();
    saved.sort_unstable();
    if asked != saved {
        let why = format!("the containers asked for are {asked:?}, and those of the checkpoint {saved:?}");
        return Err(RestorePodError::Incompatible { object: "container_configs".into(), why });
    }
    if pod.namespaces.user.is_some() {
        return incompatible("config", "a pod with a user namespace cannot be restored".into());
    }
    if let Some(why) = difference(&pod_kept(&manifest.pod), &pod_kept(pod)) {
        return incompatible("config", why);
    }
    for request in containers {
        let Some(saved) = manifest.containers.iter().find(|saved| saved.request.name == request.name) else {
            continue;
        };
        compare_container(context, saved, request)?;
    }
    Ok(())
}

fn incompatible(object: &str, why: String) -> Result<(), RestorePodError> {
    Err(RestorePodError::Incompatible { object: object.to_owned(), why })
}

fn compare_container(
    context: &Context,
    saved: &Container,
    request: &ContainerRequest,
) -> Result<(), RestorePodError> {
    let object = format!("container {:?}", request.name);
    if matches!(request.security.namespaces.pid, PidNamespace::Host | PidNamespace::Target(_)) {
        let why = "one that shares its process numbers with the host or another container cannot be restored";
        return incompatible(&object, why.into());
    }
    let image_of = |choice: &ImageChoice| match context.images.find(&choice.image) {
        Ok(Some(image)) => Ok(image.id.to_string()),
        Ok(None) => Err(format!("image {:?} is not on this node; pull it first", choice.image)),
        Err(ambiguous) => Err(ambiguous.to_string()),
    };
    let images =
        std::iter::once(&request.image).chain(request.mounts.iter().filter_map(|m| m.image.as_ref()));
    let wanted = std::iter::once(&saved.image_id).chain(&saved.volume_images);
    for (choice, wanted) in images.zip(wanted) {
        match image_of(choice) {
            Ok(found) if found == *wanted => {}
            Ok(found) => {
                let why =
                    format!("image {:?} is {found}, and the checkpoint was made on {wanted}", choice.image);
                return incompatible(&object, why);
            }
            Err(why) => return incompatible(&object, why),
        }
    }
    match difference(&container_kept(&saved.request), &container_kept(request)) {
        Some(why) => incompatible(&object, why),
        None => Ok(()),
    }
}

/// What of a pod its processes have taken in.
fn pod_kept(pod: &PodRequest) -> serde_json::Value {
    serde_json::json!({
        "hostname": pod.hostname,
        "namespaces": pod.namespaces,
        "privileged": pod.privileged,
        "selinux": pod.selinux,
    })
}

/// What of a container is in its processes. The rest is applied anew: labels, annotations, limits, the log, and where mounts come from.
fn container_kept(request: &ContainerRequest) -> serde_json::Value {
    let environment: std::collections::BTreeMap<_, _> = request.environment.iter().cloned().collect();
    let mut mounts: Vec<_> = request
        .mounts
        .iter()
        .map(|mount| model::request::Mount {
            host_path: PathBuf::new(),
            image: mount.image.as_ref().map(|_| ImageChoice::default()),
            ..mount.clone()
        })
        .collect();
    mounts.sort_by(|one, other| one.container_path.cmp(&other.container_path));
    serde_json::json!({
        "command": request.command,
        "args": request.args,
        "working_dir": request.working_dir,
        "envs": environment,
        "mounts": mounts,
        "devices": request.devices,
        "CDI_devices": request.cdi_devices,
        "stdin": request.stdin,
        "tty": request.tty,
        "security_context": request.security,
    })
}

/// Which field is another one than it was.
fn difference(saved: &serde_json::Value, asked: &serde_json::Value) -> Option<String> {
    let (saved, asked) = (saved.as_object()?, asked.as_object()?);
    let field = saved.iter().find(|(field, value)| asked.get(*field) != Some(value))?.0;
    Some(format!("{field} is not what it was when the checkpoint was made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_processes_have_taken_in_must_be_as_it_was() {
        let saved = ContainerRequest {
            name: "a".into(),
            args: vec!["x".into()],
            environment: vec![("A".into(), b"1".to_vec()), ("B".into(), b"2".to_vec())],
            ..ContainerRequest::default()
        };
        let mut asked = saved.clone();
        asked.environment.reverse();
        asked.labels.insert("l".into(), "m".into());
        asked.resources.memory_limit_bytes = 5 << 20;
        asked.log_path = "a/1.log".into();
        assert_eq!(difference(&container_kept(&saved), &container_kept(&asked)), None);
        asked.environment[0].1 = b"3".to_vec();
        let why = difference(&container_kept(&saved), &container_kept(&asked)).unwrap();
        assert!(why.starts_with("envs "), "{why}");
        let mut asked = saved.clone();
        asked.security.readonly_rootfs = true;
        let why = difference(&container_kept(&saved), &container_kept(&asked)).unwrap();
        assert!(why.starts_with("security_context "), "{why}");
    }
}
