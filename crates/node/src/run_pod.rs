//! Running a pod: its shim with its namespaces, its files, its network; or nothing of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::id::PodId;
use model::pod::Pod;
use model::request::{NamespaceMode, PidNamespace, PodRequest, PortMapping, Protocol};
use shim::config::{PidMode, PodNamespaces, ShimConfig};
use tracing::info;

use crate::actor::{Actor, Answer};
use crate::confinement::PodLabels;
use crate::context::{Context, blocking};
use crate::error::{Fault, RunPodError};
use crate::events::EventKind;
use crate::handlers::{self, Handler, HandlerError};
use crate::pod_files::{self, PodFileError};
use crate::pod_shim::PodShim;
use crate::record::{PodCgroup, PodRecord, PodState};
use crate::stage::stage;
use crate::{cgroups, lost, pod_limits, teardown, users};

/// A shim is worth more than what it parents: without it, exits and logs are lost.
const SHIM_OOM_SCORE_ADJ: i32 = -998;

/// Makes the pod. Its name is free, as the caller saw to.
pub(crate) async fn run(context: Arc<Context>, request: Arc<PodRequest>) -> Answer<PodId, RunPodError> {
    let id = context.new_pod_id();
    make(&context, &id, &request).await.map_err(Arc::new)?;
    Ok(id)
}

async fn make(context: &Arc<Context>, id: &PodId, request: &Arc<PodRequest>) -> Result<(), RunPodError> {
    let name = &request.name;
    let failed =
        |stage: &'static str| move |fault: Fault| RunPodError::Failed { name: name.clone(), stage, fault };
    check(request, &context.host)?;
    cgroups::check(context.config.cgroup_driver, request)?;
    let handler = handler(context, request)?;
    if request.namespaces.user.is_some() {
        if !users::possible(context).await {
            return Err(RunPodError::NoUserNamespaces { name: name.clone() });
        }
        need_users(context, request, &handler).await?;
    }
    let labels = context
        .confinement
        .pod(id, request)
        .map_err(|why| RunPodError::Invalid { name: name.clone(), why: why.to_string() })?;
    let created_at = crate::clock::now();
    context
        .records
        .intend_pod(id, request, created_at)
        .await
        .map_err(Fault::from)
        .map_err(failed("recording it"))?;
    let cgroup = PodCgroup::of(context.config.cgroup_driver, id, request);
    let mut made = Made::default();
    let built = async {
        let (client, addresses) = build(context, id, request, &handler, &labels, &mut made).await?;
        let state = PodState {
            pod: Pod::Ready,
            addresses,
            shim_pid: client.pid(),
            cgroup: cgroup.clone(),
            network_owed: request.namespaces.network == NamespaceMode::Pod,
            limits: pod_limits::of(request),
            selinux_level: labels.level,
            handler: handler.clone(),
        };
        let pass = context.nri.enter().await;
        admitted(context, &pass, id, request, &state).await?;
        Ok((client, state, pass))
    };
    match built.await {
        // From plugins' consent until everybody can see the pod nobody is brought up to date.
        Ok((client, state, _pass)) => {
            let record = Arc::new(PodRecord { id: id.clone(), request: request.clone(), created_at, state });
            let handle = Actor::begin(context.clone(), record.clone(), Vec::new(), Some(client.clone()));
            let facts = handle.facts.clone();
            // Whoever sees the pod can reach it; and nothing is told of it before it is seen.
            context.adopt(id.clone(), handle);
            context.published.put_pod(&record, &[EventKind::Created, EventKind::Started]);
            lost::watch(client, context.clone(), id.clone(), facts);
            info!(pod = %id, name = %name, handler, "pod running");
            Ok(())
        }
        Err(error) => {
            teardown::abandoned_pod(context, id, &cgroup, made.shim.as_ref()).await;
            // The name is free again, also where something is still owed: that has the pod's id.
            let _ = context.records.forget_pod(id).await;
            context.confinement.release(id);
            if let Some(logs) = request.log_directory.clone().filter(|_| made.logs.load(Ordering::Relaxed)) {
                let _ = blocking(move || std::fs::remove_dir(logs)).await;
            }
            Err(error)
        }
    }
}

/// Has plugins agree to the pod, and records it. Where that fails, they are told that it will not be.
async fn admitted(
    context: &Context,
    pass: &nri::Pass,
    id: &PodId,
    request: &PodRequest,
    state: &PodState,
) -> Result<(), RunPodError> {
    let name = &request.name;
    let message = pass
        .wants(nri::api::Event::RunPodSandbox)
        .then(|| crate::plugins::pod_message(context, id, request, state));
    let settled = async {
        if let Some(message) = &message {
            let agreed = pass.run_pod(message).await;
            agreed.map_err(|source| RunPodError::Refused { name: name.clone(), source })?;
        }
        context.records.settle_pod(id, state).await.map_err(|error| RunPodError::Failed {
            name: name.clone(),
            stage: "recording it",
            fault: Fault::from(error),
        })
    };
    let settled = settled.await;
    if let (Err(_), Some(message)) = (&settled, &message) {
        pass.remove_pod(message).await;
    }
    settled
}

/// Refuses what cannot be honoured, before anything is made.
fn check(request: &PodRequest, host: &spec::HostFacts) -> Result<(), RunPodError> {
    let name = &request.name;
    let invalid = |why: String| RunPodError::Invalid { name: name.clone(), why };
    if !request.hostname.is_empty() {
        spec::hostname::check(&request.hostname).map_err(|why| invalid(why.to_string()))?;
    }
    if let Some(dns) = &request.dns {
        spec::resolv_conf::text(dns).map_err(|why| invalid(why.to_string()))?;
    }
    spec::sysctl::of_pod(request).map(drop).map_err(|why| invalid(why.to_string()))?;
    pod_limits::check(&pod_limits::of(request), host).map_err(|why| invalid(why.to_string()))
}

/// The name of the handler that runs the pod, which can.
fn handler(context: &Context, request: &PodRequest) -> Result<String, RunPodError> {
    let unknown = |known| RunPodError::UnknownHandler { handler: request.handler.clone(), known };
    let name = context.handlers.resolve(&request.handler).map_err(unknown)?;
    if let Some(handler) = context.handlers.find(&name) {
        handler.check(request).map_err(|source| refused(request, &name, source))?;
    }
    Ok(name)
}

/// Refuses a pod with users of its own whose runtime cannot give it any.
async fn need_users(
    context: &Arc<Context>,
    request: &Arc<PodRequest>,
    handler: &str,
) -> Result<(), RunPodError> {
    let builtin = users::builtin_features(context).await;
    let (context, request, handler) = (context.clone(), request.clone(), handler.to_owned());
    blocking(move || {
        let Some(found) = context.handlers.find(&handler) else { return Ok(()) };
        found
            .need(builtin, "pods with users of their own", |has| has.user_namespaces)
            .map_err(|source| refused(&request, &handler, source))
    })
    .await
}

fn refused(request: &PodRequest, handler: &str, source: HandlerError) -> RunPodError {
    RunPodError::Handler { name: request.name.clone(), handler: handler.into(), source }
}

/// What a failure has to take back.
#[derive(Default)]
struct Made {
    shim: Option<PodShim>,
    /// The log directory was not there before.
    logs: Arc<AtomicBool>,
}

/// Makes everything of the pod; what stands is noted in `made` at once, so that a failure can take it back.
async fn build(
    context: &Arc<Context>,
    id: &PodId,
    request: &Arc<PodRequest>,
    handler: &str,
    labels: &PodLabels,
    made: &mut Made,
) -> Result<(PodShim, Vec<IpAddr>), RunPodError> {
    let name = &request.name;
    let failed =
        |stage: &'static str| move |fault: Fault| RunPodError::Failed { name: name.clone(), stage, fault };
    let hostname = pod_files::hostname(id, request, &context.host.hostname);
    pod_files::make_folder(&context.pod_dir(id))
        .map_err(|source| Fault::File { path: context.pod_dir(id), source })
        .map_err(failed("its folder"))?;
    // The shim makes the namespaces while the files are written.
    let handler = context.handlers.find(handler);
    let label = labels.file.clone();
    let mut config = shim_config(context, id, request, &hostname);
    config.selinux = labels.for_shim();
    if let Some(handler) = handler {
        let of_pod = PodCgroup::of(context.config.cgroup_driver, id, request);
        let systemd = of_pod.driver() == cgroup::Driver::Systemd;
        config.foreign = handler
            .for_shim(id, &config.pod_dir, systemd)
            .map_err(|source| refused(request, &handler.config.name, source))?;
    }
    let (spawned, files) = tokio::join!(
        stage("shim", id, PodShim::spawn(&context.shim, &config)),
        stage(
            "files",
            id,
            blocking({
                let (folder, request, hostname) = (context.pod_dir(id), request.clone(), hostname.clone());
                let (new_logs, label) = (made.logs.clone(), label.clone());
                move || pod_files::write(&folder, &request, &hostname, &new_logs, label.as_deref())
            })
        )
    );
    let client = spawned.map_err(failed("starting its shim"))?;
    made.shim = Some(client.clone());
    let cgroup = PodCgroup::of(context.config.cgroup_driver, id, request);
    pod_limits::apply(context, &cgroup, &pod_limits::of(request))
        .await
        .map_err(|why| failed("its cgroup")(Fault::Limits(why)))?;
    context
        .open_files
        .pass_on(client.pid())
        .map_err(|source| Fault::File { path: format!("/proc/{}/limits", client.pid()).into(), source })
        .map_err(failed("its shim's limits"))?;
    files.map_err(|error| match error {
        PodFileError::LogDirectory { path, source } => {
            RunPodError::LogDirectory { name: name.clone(), path, source }
        }
        PodFileError::Own(fault) => failed("its files")(fault),
    })?;
    if request.namespaces.network == NamespaceMode::Host {
        begin_foreign(context, id, request, handler, &client, &cgroup).await?;
        return Ok((client, Vec::new()));
    }
    let own = handler.and_then(|handler| handler.config.networks.clone());
    let networks = own.unwrap_or_else(|| context.networks.clone());
    let folder = context.pod_dir(id);
    // The network, and what its addresses are written to.
    let attached = attach(networks, id, request, &client, move |addresses| {
        pod_files::write_hosts(&folder, &hostname, addresses, label.as_deref())
    });
    let addresses = stage("network", id, attached).await?.ips;
    begin_foreign(context, id, request, handler, &client, &cgroup).await?;
    Ok((client, addresses))
}

/// Has a foreign runtime begun, which may look at the pod's network when it is.
async fn begin_foreign(
    context: &Context,
    id: &PodId,
    request: &PodRequest,
    handler: Option<&Handler>,
    client: &PodShim,
    cgroup: &PodCgroup,
) -> Result<(), RunPodError> {
    let Some(handler) = handler.filter(|handler| handler.is_begun()) else {
        return Ok(());
    };
    let state_dir = &context.config.state_dir;
    let own_name = request.namespaces.network != NamespaceMode::Host;
    let hostname = own_name.then(|| pod_files::hostname(id, request, &context.host.hostname));
    let of = handlers::PauseOf { id, request, shim: client, cgroup, state_dir, hostname };
    let failed = |fault| RunPodError::Failed { name: request.name.clone(), stage: "its runtime", fault };
    let spec = handlers::spec_of_pod(handler, &of)
        .map_err(|source| failed(Fault::File { path: state_dir.join("pause"), source }))?;
    stage("runtime", id, client.client.begin_pod(spec)).await.map_err(|error| failed(error.into()))
}

async fn attach(
    networks: Arc<network::Networks>,
    id: &PodId,
    request: &Arc<PodRequest>,
    shim: &PodShim,
    and_then: impl FnOnce(&[IpAddr]) -> Result<(), Fault> + Send + 'static,
) -> Result<network::Attached, RunPodError> {
    let name = request.name.clone();
    let bandwidth = network::Bandwidth::from_annotations(&request.annotations)
        .map_err(|why| RunPodError::Invalid { name: name.clone(), why: why.to_string() })?;
    let netns = network::Netns::open(shim.namespace("net")).map_err(|source| RunPodError::Failed {
        name: name.clone(),
        stage: "its network namespace",
        fault: Fault::File { path: shim.namespace("net"), source },
    })?;
    let dns = request.dns.clone().unwrap_or_default();
    let wanted = network::PodNetwork {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        uid: name.uid.clone(),
        port_mappings: request.port_mappings.iter().map(port_mapping).collect(),
        bandwidth,
        dns: network::Dns {
            nameservers: dns.servers,
            search: dns.searches,
            options: dns.options,
            ..network::Dns::default()
        },
        annotations: request.annotations.clone(),
        cgroup_path: request.cgroup_parent.clone().unwrap_or_default(),
        ..network::PodNetwork::new(id.as_str(), netns)
    };
    let work = move || {
        let attached = networks.attach(&wanted);
        let attached = attached.map_err(|source| RunPodError::Network { name: name.clone(), source })?;
        let failed = |fault| RunPodError::Failed { name, stage: "its hosts file", fault };
        and_then(&attached.ips).map_err(failed).map(|()| attached)
    };
    blocking(work).await
}

fn port_mapping(asked: &PortMapping) -> network::PortMapping {
    network::PortMapping {
        host_port: asked.host_port,
        container_port: asked.container_port,
        protocol: match asked.protocol {
            Protocol::Tcp => network::Protocol::Tcp,
            Protocol::Udp => network::Protocol::Udp,
            Protocol::Sctp => network::Protocol::Sctp,
        },
        host_ip: asked.host_ip,
    }
}

fn shim_config(context: &Context, id: &PodId, request: &PodRequest, hostname: &str) -> ShimConfig {
    let own_unless_host = |mode| match mode {
        NamespaceMode::Host => shim::config::NamespaceMode::Host,
        NamespaceMode::Pod | NamespaceMode::Container => shim::config::NamespaceMode::New,
    };
    let network = own_unless_host(request.namespaces.network);
    ShimConfig {
        version: shim::config::CONFIG_VERSION,
        pod_id: id.to_string(),
        pod_dir: context.pod_dir(id),
        hostname: hostname.to_owned(),
        domainname: None,
        namespaces: PodNamespaces {
            net: network,
            ipc: own_unless_host(request.namespaces.ipc),
            // A pod in the host's network has the host's name.
            uts: network,
            pid: match request.namespaces.pid {
                PidNamespace::Pod => PidMode::Pod,
                PidNamespace::Container | PidNamespace::Target(_) => PidMode::PerContainer,
                PidNamespace::Host => PidMode::Host,
            },
        },
        users: request.namespaces.user.as_ref().map(users::for_shim),
        // Checked before; a name that cannot be spelled is in no namespace either.
        sysctls: spec::sysctl::of_pod(request)
            .unwrap_or_default()
            .into_iter()
            .map(|sysctl| (sysctl.path, sysctl.value))
            .collect(),
        oom_score_adj: Some(SHIM_OOM_SCORE_ADJ),
        selinux: None,
        log_level: shim::config::LogLevel::Warn,
        cgroup_mounts: context.cgroups.mounts().to_owned(),
        foreign: None,
    }
}
