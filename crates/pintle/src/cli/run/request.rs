//! Turns `run`'s options into the pod and the container that CRI is asked for.

use super::args::{Args, Network};
use super::parse::{Cpus, User};
use crate::cli::failure::Failure;
use crate::cli::inventory::RUN_LABEL;
use cri::runtime_v1 as cri_v1;
use std::collections::BTreeMap;
use std::path::Path;

/// The Kubernetes namespace of what `run` makes.
pub(crate) const NAMESPACE: &str = "default";

/// The two configurations CreateContainer needs.
pub(crate) struct Request {
    pub pod: cri_v1::PodSandboxConfig,
    pub container: cri_v1::ContainerConfig,
}

/// Builds the request for a pod with this name and uid. `log_directory` exists already; `image` is what it was pulled as.
pub(crate) fn request(
    args: &Args,
    name: &str,
    uid: &str,
    log_directory: &Path,
    image: String,
) -> Result<Request, Failure> {
    let mut labels: BTreeMap<String, String> = args
        .labels
        .iter()
        .map(|label| (label.key.clone(), label.value.clone().unwrap_or_default()))
        .collect();
    labels.insert(RUN_LABEL.to_owned(), "1".to_owned());
    let namespaces = namespaces(args);
    let pod = cri_v1::PodSandboxConfig {
        metadata: Some(cri_v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: match args.network {
            Network::Pod => args.hostname.clone().unwrap_or_else(|| name.to_owned()),
            Network::Host => String::new(),
        },
        log_directory: log_directory.display().to_string(),
        port_mappings: args.publish.iter().map(port_mapping).collect(),
        labels: labels.clone(),
        linux: Some(cri_v1::LinuxPodSandboxConfig {
            security_context: Some(cri_v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces.clone()),
                privileged: args.privileged,
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = cri_v1::ContainerConfig {
        metadata: Some(cri_v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri_v1::ImageSpec {
            image,
            user_specified_image: args.image.clone(),
            ..Default::default()
        }),
        command: args.entrypoint.iter().cloned().collect(),
        args: args.command.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs: envs(args),
        mounts: mounts(args)?,
        labels,
        log_path: format!("{name}/0.log"),
        stdin: args.interactive,
        // With -d, whoever attaches may leave and come back.
        stdin_once: args.interactive && !args.detach,
        tty: args.tty,
        linux: Some(cri_v1::LinuxContainerConfig {
            resources: Some(resources(args)),
            security_context: Some(security_context(args, namespaces)),
        }),
        ..Default::default()
    };
    Ok(Request { pod, container })
}

fn namespaces(args: &Args) -> cri_v1::NamespaceOption {
    let network = match args.network {
        Network::Pod => cri_v1::NamespaceMode::Pod,
        Network::Host => cri_v1::NamespaceMode::Node,
    };
    cri_v1::NamespaceOption {
        network: network.into(),
        pid: cri_v1::NamespaceMode::Container.into(),
        ipc: cri_v1::NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn runtime_default() -> cri_v1::SecurityProfile {
    let profile_type = cri_v1::security_profile::ProfileType::RuntimeDefault.into();
    cri_v1::SecurityProfile { profile_type, localhost_ref: String::new() }
}

fn security_context(
    args: &Args,
    namespaces: cri_v1::NamespaceOption,
) -> cri_v1::LinuxContainerSecurityContext {
    let mut context = cri_v1::LinuxContainerSecurityContext {
        privileged: args.privileged,
        namespace_options: Some(namespaces),
        readonly_rootfs: args.read_only,
        ..Default::default()
    };
    if !args.privileged {
        context.seccomp = Some(runtime_default());
        context.masked_paths = MASKED_PATHS.iter().map(|&path| path.to_owned()).collect();
        context.readonly_paths = READONLY_PATHS.iter().map(|&path| path.to_owned()).collect();
    }
    match &args.user {
        None => {}
        Some(User::Name(name)) => context.run_as_username = name.clone(),
        Some(User::Ids { uid, gid }) => {
            context.run_as_user = Some(cri_v1::Int64Value { value: i64::from(*uid) });
            context.run_as_group = gid.map(|gid| cri_v1::Int64Value { value: i64::from(gid) });
        }
    }
    context
}

/// What the kubelet masks and makes read-only in every container that is not privileged.
pub(crate) const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// See [`MASKED_PATHS`].
pub(crate) const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn resources(args: &Args) -> cri_v1::LinuxContainerResources {
    cri_v1::LinuxContainerResources {
        cpu_period: args.cpus.map_or(0, |_| Cpus::PERIOD_MICROS),
        cpu_quota: args.cpus.map_or(0, |cpus| cpus.quota_micros),
        memory_limit_in_bytes: args.memory.unwrap_or(0),
        ..Default::default()
    }
}

fn port_mapping(port: &super::parse::Port) -> cri_v1::PortMapping {
    cri_v1::PortMapping {
        protocol: port.protocol.into(),
        container_port: i32::from(port.container),
        host_port: i32::from(port.host),
        host_ip: port.ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

fn envs(args: &Args) -> Vec<cri_v1::KeyValue> {
    let value = |env: &super::parse::Env| env.value.clone().or_else(|| std::env::var(&env.key).ok());
    let set = args.env.iter().filter_map(|env| Some((env.key.clone(), value(env)?)));
    set.map(|(key, value)| cri_v1::KeyValue { key, value: value.into_bytes() }).collect()
}

/// A source is resolved here, where relative paths mean something; one that is not there is an error and not a new directory.
fn mounts(args: &Args) -> Result<Vec<cri_v1::Mount>, Failure> {
    let mount = |volume: &super::parse::Volume| {
        let path = Path::new(&volume.source);
        let cannot = |source| Failure::File { what: "mounting", path: path.to_owned(), source };
        let host_path = path.canonicalize().map_err(cannot)?.display().to_string();
        let container_path = volume.target.clone();
        Ok(cri_v1::Mount { container_path, host_path, readonly: volume.readonly, ..Default::default() })
    };
    args.volume.iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn made(line: &str) -> Request {
        let line = Line::try_parse_from(std::iter::once("run").chain(line.split(' '))).unwrap();
        request(&line.args, "n", "u", Path::new("/logs"), "sha256:1".into()).unwrap()
    }

    #[test]
    fn the_options_arrive_where_cri_wants_them() {
        let made = made("-e A=1 -p 8080:80 -v /tmp:/t:ro -m 64m --cpus 1.5 -w /w -u 5:6 img echo -n hi");
        assert_eq!(made.pod.port_mappings[0].host_port, 8080);
        assert_eq!(made.container.args, ["echo", "-n", "hi"]);
        assert_eq!(made.container.envs[0].value, b"1");
        assert!(made.container.mounts[0].readonly);
        assert_eq!(made.container.working_dir, "/w");
        let linux = made.container.linux.unwrap();
        let resources = linux.resources.unwrap();
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_quota), (64 << 20, 150_000));
        let context = linux.security_context.unwrap();
        assert_eq!(context.run_as_group.unwrap().value, 6);
        assert!(!context.masked_paths.is_empty() && context.seccomp.is_some());
    }

    #[test]
    fn the_host_network_has_the_hosts_name() {
        let made = made("--network host img");
        assert_eq!(made.pod.hostname, "");
        let options = made.pod.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.network(), cri_v1::NamespaceMode::Node);
    }

    #[test]
    fn a_source_that_is_not_there_is_an_error() {
        let line = Line::try_parse_from(["run", "-v", "/no/such/dir:/x", "img"]).unwrap();
        let failure = request(&line.args, "n", "u", Path::new("/l"), String::new()).err().unwrap();
        assert!(failure.to_string().contains("/no/such/dir"), "{failure}");
    }
}
