//! Creating a container: its record, its root file system, its spec, and its init, waiting to be started; or nothing of it.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use model::container::Container;
use model::id::ContainerId;
use model::request::{ContainerRequest, NamespaceMode, PidNamespace, Resources};
use nri::Pass;
use nri::api::Event;
use spec::{ImageFacts, NamespacePlan, PidPlan, PodFiles, ResolvedUser, SeccompPlan, SpecInput};

use crate::actor::{Answer, Fact, Facts};
use crate::checkpoint::RestoreFrom;
use crate::context::{Context, blocking};
use crate::error::{CreateContainerError, Fault};
use crate::handlers::{Features, HandlerError};
use crate::planned::Planned;
use crate::plugins::{self, About};
use crate::pod_shim::PodShim;
use crate::record::{ContainerFacts, ContainerRecord, ContainerState, PodRecord};
use crate::stage::{at_once, stage};
use crate::{container_mounts, devices, handlers, lost, pod_files, propagation, teardown};
use shim::protocol::{CreateRequest, Method, Restore};

const SIGTERM: u8 = 15;

/// What is to be created, and where.
pub(crate) struct Order {
    pub(crate) id: ContainerId,
    pub(crate) pod: Arc<PodRecord>,
    pub(crate) request: Arc<ContainerRequest>,
    pub(crate) shim: PodShim,
    pub(crate) facts: Facts,
    /// The pod's other containers, one of whose process namespaces may be asked for.
    pub(crate) siblings: Vec<Arc<ContainerRecord>>,
    /// Its processes are those of a checkpoint.
    pub(crate) restore: Option<Box<RestoreFrom>>,
}

pub(crate) async fn run(context: Arc<Context>, order: Order) -> Answer<ContainerId, CreateContainerError> {
    make(&context, &order).await.map_err(Arc::new)?;
    Ok(order.id)
}

async fn make(context: &Arc<Context>, order: &Order) -> Result<(), CreateContainerError> {
    let (id, name) = (&order.id, &order.request.name);
    let failed = |stage: &'static str| {
        move |fault: Fault| CreateContainerError::Failed { name: name.clone(), stage, fault }
    };
    let image = find_image(context, &order.request)?;
    admit(context, &order.request, &image).await?;
    let log_path = log_path(order)?;
    let created_at = crate::clock::now();
    context
        .records
        .intend_container(id, &order.pod.id, &order.request, created_at)
        .await
        .map_err(Fault::from)
        .map_err(failed("recording it"))?;
    // Until the container is there for all to see, no plugin is brought up to date.
    let pass = context.nri.enter().await;
    let mut about = None;
    let built = build(context, order, &image, log_path.as_deref(), &pass, &mut about).await;
    let recorded = match built {
        Ok((pid, facts, resources)) => {
            let record = ContainerRecord {
                id: id.clone(),
                pod: order.pod.id.clone(),
                request: order.request.clone(),
                created_at,
                facts: Arc::new(ContainerFacts { log_path, ..facts }),
                state: ContainerState { container: Container::Created { pid }, resources },
            };
            order.facts.tell(Fact::Made(Box::new(record))).await.map_err(failed("recording it"))
        }
        Err(error) => Err(error),
    };
    match recorded {
        Ok(()) => {
            lost::follow(order.shim.clone(), id.clone(), order.facts.clone());
            if pass.wants(Event::PostCreateContainer)
                && let Some(record) = context.published.load().containers.get(id)
            {
                let About { pod, container } = About::container(context, record).await;
                pass.post_create(&pod, &container).await;
            }
            Ok(())
        }
        Err(error) => {
            if let Some(about) = &about {
                about.undo(&pass).await;
            }
            if teardown::container(context, &order.pod.id, id, Some(&order.shim)).await.is_ok() {
                let _ = context.records.forget_container(id).await;
            }
            Err(error)
        }
    }
}

fn find_image(
    context: &Context,
    request: &ContainerRequest,
) -> Result<Arc<image::Image>, CreateContainerError> {
    let (name, image) = (request.name.clone(), request.image.image.clone());
    match context.images.find(&image) {
        Ok(Some(found)) => match (context.images.cannot_run(&found), &found.platform) {
            (Some(node), Some(of_image)) => Err(CreateContainerError::Foreign {
                name,
                image,
                platform: of_image.to_string(),
                node: node.to_string(),
            }),
            _ => Ok(found),
        },
        Ok(None) => Err(CreateContainerError::NoImage { name, image }),
        Err(ambiguous) => Err(CreateContainerError::Invalid { name, why: ambiguous.to_string() }),
    }
}

/// Whether the image policy admits what is already here: it may have changed since it was pulled.
async fn admit(
    context: &Context,
    request: &ContainerRequest,
    image: &Arc<image::Image>,
) -> Result<(), CreateContainerError> {
    let refused = |source| CreateContainerError::Untrusted { name: request.name.clone(), source };
    context.images.readmit(image, &request.image.user_specified).await.map_err(refused)?;
    for choice in request.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
        // One that is not here is told where it is mounted.
        if let Ok(Some(image)) = context.images.find(&choice.image) {
            context.images.readmit(&image, &choice.user_specified).await.map_err(refused)?;
        }
    }
    Ok(())
}

/// Makes the container and returns its init's pid, what was settled about it, and its limits. `about`: what plugins agreed to, once they
/// have.
async fn build(
    context: &Arc<Context>,
    order: &Order,
    image: &Arc<image::Image>,
    log_path: Option<&Path>,
    pass: &Pass,
    about: &mut Option<About>,
) -> Result<(i32, ContainerFacts, Resources), CreateContainerError> {
    let (id, name) = (&order.id, &order.request.name);
    let (image_of, pod, request) = (image.clone(), order.pod.clone(), order.request.clone());
    let labels = context
        .confinement
        .container(&pod, &request)
        .map_err(|why| CreateContainerError::Invalid { name: name.clone(), why: why.to_string() })?;
    let (mounting, owner, namespace) = (context.clone(), id.clone(), order.shim.user_namespace());
    let (label, volumes, shared) = (labels.spec.mount.clone(), labels.volumes, labels.shared);
    let restore = order.restore.clone();
    let mut facts = facts_of(order, image)?;
    let work = Work {
        context: context.clone(),
        id: id.clone(),
        pod: order.pod.clone(),
        request: order.request.clone(),
        image: image.clone(),
        namespaces: namespaces(order)?,
        cgroup: order.pod.state.cgroup.name_of(&order.id),
        selinux: labels.spec,
        builtin: crate::users::builtin_features(context).await,
    };
    let consults = pass.wants(Event::CreateContainer);
    // In one go: each time that another thread takes over takes as long as some of the work.
    let prepared = blocking(move || {
        let (on, id) = (mounting.clone(), pod.id.clone());
        let mount = || {
            let wanted = container_mounts::Wanted {
                pod: &pod.id,
                owner: &owner,
                request: &request,
                image: &image_of.id,
                users: pod.request.namespaces.user.as_ref().zip(namespace),
                label: label.as_deref(),
                restore: restore.as_deref(),
            };
            container_mounts::relabel(&request, volumes.as_deref())?;
            pod_files::share(&mounting.pod_dir(&pod.id), shared.as_deref()).map_err(|fault| {
                let name = request.name.clone();
                CreateContainerError::Failed { name, stage: "relabelling its pod's files", fault }
            })?;
            container_mounts::make(&mounting, &wanted)
        };
        let mounts = at_once("rootfs", &id, mount)?;
        // Reads the root file system and writes the bundle.
        let plan = || {
            let planned = work.plan(mounts.root)?;
            if consults { Ok(planned) } else { planned.with_hooks(&on.hooks).written() }
        };
        let planned = at_once("bundle", &id, plan)?;
        Ok::<_, CreateContainerError>((planned, mounts.volumes, mounts.volume_images))
    });
    let (mut planned, volumes, volume_images) = prepared.await?;
    facts.volume_images = volume_images.iter().map(ToString::to_string).collect();
    let mut resources = order.request.resources.clone();
    if consults {
        let image = (facts.image_id.as_str(), facts.image_ref.as_str());
        let asked = About::creating(context, pass, order, image, &planned.spec);
        let (agreed, creation) = stage("plugins", &order.pod.id, asked)
            .await
            .map_err(|source| CreateContainerError::Refused { name: name.clone(), source })?;
        *about = Some(agreed);
        let nri::Creation { adjust, updates, evictions } = creation;
        if let Some(wanted) = adjust.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
            resources = spec::resources::merge(&resources, &plugins::to_request(wanted));
        }
        let with = context.clone();
        planned =
            blocking(move || planned.adjusted(&with.devices, &adjust)?.with_hooks(&with.hooks).written())
                .await?;
        plugins::fulfil(context, nri::Wishes { updates, evictions }).await;
    }
    let driver = order.pod.state.cgroup.driver();
    let cgroup = planned.cgroup().map(|path| cgroup_at(order, &path)).transpose()?;
    let Planned { user, rootfs, .. } = planned;
    let create = CreateRequest {
        id: id.to_string(),
        bundle: context.bundle(&order.pod.id, id).to_string_lossy().into_owned(),
        terminal: order.request.tty,
        stdin: order.request.stdin,
        stdin_once: order.request.stdin_once,
        log_path: log_path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        log_max_bytes: 0,
        restore: order.restore.as_ref().map(|from| Restore {
            criu: from.criu.to_string_lossy().into_owned(),
            images: from.images.to_string_lossy().into_owned(),
            work: context.bundle(&order.pod.id, id).to_string_lossy().into_owned(),
        }),
        systemd_cgroup: driver == cgroup::Driver::Systemd,
        ..CreateRequest::default()
    };
    let client = &order.shim.client;
    let creating = stage("init", &order.pod.id, client.create(create, Some(rootfs), volumes));
    let created = match &order.restore {
        None => creating.await,
        Some(from) => {
            let left = from.deadline.saturating_duration_since(std::time::Instant::now());
            client.within(left, Method::Create, creating).await
        }
    };
    let pid = created.map_err(|source| CreateContainerError::Runtime { name: name.clone(), source })?;
    let ResolvedUser { uid, gid, additional_gids, .. } = user;
    let pid = i32::try_from(pid).unwrap_or(0);
    let cgroup = cgroup.unwrap_or(facts.cgroup.clone());
    Ok((pid, ContainerFacts { uid, gid, additional_gids, cgroup, ..facts }, resources))
}

/// The path of the cgroup that the container's configuration calls `name`.
fn cgroup_at(order: &Order, name: &str) -> Result<String, CreateContainerError> {
    let path = order.pod.state.cgroup.driver().path(name);
    path.map_err(|why| CreateContainerError::Invalid {
        name: order.request.name.clone(),
        why: why.to_string(),
    })
}

fn facts_of(order: &Order, image: &image::Image) -> Result<ContainerFacts, CreateContainerError> {
    let cgroup = cgroup_at(order, &order.pod.state.cgroup.name_of(&order.id))?;
    Ok(ContainerFacts {
        image_id: image.id.to_string(),
        image_ref: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
        log_path: None,
        cgroup,
        stop_signal: order
            .request
            .stop_signal
            .or_else(|| spec::signal::parse(&image.config.stop_signal))
            .unwrap_or(SIGTERM),
        uid: 0,
        gid: 0,
        additional_gids: Vec::new(),
        volume_images: Vec::new(),
    })
}

/// The blocking part: everything it needs, owned.
struct Work {
    context: Arc<Context>,
    id: ContainerId,
    pod: Arc<PodRecord>,
    request: Arc<ContainerRequest>,
    image: Arc<image::Image>,
    namespaces: NamespacePlan,
    cgroup: String,
    selinux: spec::SelinuxLabels,
    /// What the runtime of this program can do here.
    builtin: Features,
}

impl Work {
    fn plan(self, rootfs: OwnedFd) -> Result<Planned, CreateContainerError> {
        let name = &self.request.name;
        let spec_failed = |source| CreateContainerError::Spec { name: name.clone(), source };
        propagation::check(&self.request.mounts)
            .map_err(|why| CreateContainerError::Invalid { name: name.clone(), why })?;
        let root = sys::root::Root::from_fd(rootfs);
        let user = self.user(&root)?;
        let seccomp = self.seccomp()?;
        let devices = devices::requested(&self.request.devices)
            .map_err(|why| CreateContainerError::Invalid { name: name.clone(), why })?;
        let pod_dir = self.context.pod_dir(&self.pod.id);
        let files = PodFiles {
            hosts: Some(pod_dir.join("hosts")),
            resolv_conf: Some(pod_dir.join("resolv.conf")),
            hostname: Some(pod_dir.join("hostname")),
            shm: Some(match self.pod.request.namespaces.ipc {
                NamespaceMode::Host => PathBuf::from("/dev/shm"),
                NamespaceMode::Pod | NamespaceMode::Container => pod_dir.join("shm"),
            }),
        };
        let image = ImageFacts {
            name: self.request.image.user_specified.clone(),
            entrypoint: self.image.config.entrypoint.clone(),
            cmd: self.image.config.cmd.clone(),
            env: self.image.config.env.clone(),
            working_dir: self.image.config.working_dir.clone(),
        };
        let spec = spec::container_spec(&SpecInput {
            pod_id: &self.pod.id,
            pod: &self.pod.request,
            container_id: &self.id,
            container: &self.request,
            image: &image,
            user: &user,
            host: &self.context.host,
            files: &files,
            namespaces: &self.namespaces,
            devices: &devices,
            cgroups_path: &self.cgroup,
            seccomp: &seccomp,
            selinux: &self.selinux,
        })
        .map_err(spec_failed)?;
        let spec = self.adapted(spec)?;
        let profile = spec.process().as_ref().and_then(|process| process.apparmor_profile().as_deref());
        profile.map_or(Ok(()), |profile| self.context.confinement.ensure(profile)).map_err(spec_failed)?;
        let planned = Planned {
            name: name.clone(),
            pod: self.pod.clone(),
            request: self.request.clone(),
            bundle: self.context.bundle(&self.pod.id, &self.id),
            spec,
            raw: spec::raw_environment(&self.request),
            user,
            rootfs: root.into_fd(),
        };
        let devices = cdi::requested(&self.request.cdi_devices, &self.request.annotations)
            .map_err(|source| CreateContainerError::Device { name: name.clone(), source })?;
        planned.with_devices(&self.context.devices, &devices)
    }

    /// As the pod's handler wants it.
    fn adapted(
        &self,
        spec: oci_spec::runtime::Spec,
    ) -> Result<oci_spec::runtime::Spec, CreateContainerError> {
        let (name, handler) = (self.request.name.clone(), self.pod.state.handler.clone());
        if handler.is_empty() {
            return Ok(spec);
        }
        let Some(found) = self.context.handlers.find(&handler) else {
            return Err(CreateContainerError::HandlerGone { name, handler });
        };
        let of = handlers::Adapted {
            pod: &self.pod.request,
            pod_dir: &self.context.pod_dir(&self.pod.id),
            id: &self.id,
            container: &self.request,
            builtin: self.builtin,
        };
        handlers::adapt(found, spec, &of).map_err(|source| match source {
            HandlerError::Lacks { what: handlers::RECURSIVE_READ_ONLY, .. } => {
                CreateContainerError::NoRecursiveReadOnly { name, handler, source }
            }
            source => CreateContainerError::Handler { name, handler, source },
        })
    }

    /// Who it runs as: names are looked up in the image's own files, read through descriptors below its root.
    fn user(&self, root: &sys::root::Root) -> Result<ResolvedUser, CreateContainerError> {
        let read = |path: &str| -> Result<String, CreateContainerError> {
            read_database(root, path).map_err(|why| CreateContainerError::Invalid {
                name: self.request.name.clone(),
                why: format!("{path} of the image: {why}"),
            })
        };
        let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
        spec::user::resolve(&self.request.security.user, &self.image.config.user, &passwd, &group)
            .map_err(|source| CreateContainerError::User { name: self.request.name.clone(), source })
    }

    fn seccomp(&self) -> Result<SeccompPlan, CreateContainerError> {
        use spec::seccomp_profile::{SeccompChoice, choose, parse};
        let name = &self.request.name;
        let security = &self.request.security;
        let refused = |source| CreateContainerError::Spec {
            name: name.clone(),
            source: spec::SpecError::Seccomp(source),
        };
        match choose(&security.seccomp, security.privileged).map_err(refused)? {
            SeccompChoice::Unconfined => Ok(SeccompPlan::None),
            SeccompChoice::RuntimeDefault => Ok(SeccompPlan::Default),
            SeccompChoice::Localhost(path) => {
                let text = read_profile(Path::new(path)).map_err(|source| CreateContainerError::Invalid {
                    name: name.clone(),
                    why: format!("seccomp profile {path}: {source}"),
                })?;
                parse(path, &text).map_err(refused)
            }
        }
    }
}

/// A user database of an image: absent is empty, and only a regular file of bearable size is read.
fn read_database(root: &sys::root::Root, path: &str) -> Result<String, String> {
    use std::io::Read;
    let file = match root.regular_file(Path::new(path)) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(String::new());
        }
        Err(error) => return Err(error.to_string()),
    };
    let limit = spec::user::DATABASE_LIMIT;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_profile(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let limit = spec::seccomp_profile::PROFILE_LIMIT as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Where the container's log goes: below the pod's log directory, and nowhere else.
fn log_path(order: &Order) -> Result<Option<PathBuf>, CreateContainerError> {
    let (directory, asked) = (&order.pod.request.log_directory, &order.request.log_path);
    let Some(directory) = directory.as_ref().filter(|_| !asked.as_os_str().is_empty()) else {
        return Ok(None);
    };
    if !asked.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(CreateContainerError::Invalid {
            name: order.request.name.clone(),
            why: format!("log_path {asked:?} does not lead below the pod's log directory {directory:?}"),
        });
    }
    Ok(Some(directory.join(asked)))
}

/// The namespaces it joins: the shim is in the pod's.
fn namespaces(order: &Order) -> Result<NamespacePlan, CreateContainerError> {
    let of_shim = |kind: &str| Some(order.shim.namespace(kind));
    let own = |mode: NamespaceMode| mode != NamespaceMode::Host;
    let pod = &order.pod.request.namespaces;
    let pid = match &order.request.security.namespaces.pid {
        PidNamespace::Container => PidPlan::Own,
        PidNamespace::Host => PidPlan::Host,
        PidNamespace::Pod => match order.shim.pid_namespace_init() {
            None => PidPlan::Own,
            Some(init) => PidPlan::Path(format!("/proc/{init}/ns/pid").into()),
        },
        PidNamespace::Target(target) => PidPlan::Path(target_namespace(order, target)?),
    };
    Ok(NamespacePlan {
        network: own(pod.network).then(|| of_shim("net")).flatten(),
        ipc: own(pod.ipc).then(|| of_shim("ipc")).flatten(),
        uts: own(pod.network).then(|| of_shim("uts")).flatten(),
        user: order.shim.user_namespace(),
        pid,
    })
}

fn target_namespace(order: &Order, target: &str) -> Result<PathBuf, CreateContainerError> {
    let invalid = |why: &str| CreateContainerError::Invalid {
        name: order.request.name.clone(),
        why: format!(
            "namespace_options.target_id: container {target:?}, whose processes it is to see, {why}"
        ),
    };
    let sibling = order.siblings.iter().find(|sibling| sibling.id.as_str() == target);
    match sibling.map(|sibling| &sibling.state.container) {
        Some(Container::Running { pid, .. }) => Ok(format!("/proc/{pid}/ns/pid").into()),
        Some(_) => Err(invalid("is not running")),
        None => Err(invalid("is not in this pod")),
    }
}
