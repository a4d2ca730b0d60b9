//! Every setting there is, each declared once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use image::Snapshotter;

use super::declare::{Applies, Key, sections, table};
use super::shape::{
    AbsolutePath, AbsolutePaths, AddressAndPort, Choice, Count, HandlerName, HostAndPort, Hosts, OneOf,
    OrNone, Patterns, ProfileName, Program, Scopes, Seconds, Size, Words, YesOrNo,
};

sections! {
    /// Where the daemon keeps things and where it listens.
    daemon: Daemon {
        /// What must survive a reboot: images, layers and the database.
        root: PathBuf = PathBuf::from("/var/lib/pintle"), AbsolutePath, AtRestart;
        /// What a reboot should forget: sockets, shims, exit records. It belongs on a tmpfs.
        state: PathBuf = PathBuf::from("/run/pintle"), AbsolutePath, AtRestart;
        /// The socket on which CRI is served (mode 0600). The kubelet is given it as `unix://` and this path.
        socket: PathBuf = PathBuf::from("/run/pintle/pintle.sock"), AbsolutePath, AtRestart;
    }

    /// What the daemon says of itself on standard error.
    log: Log {
        /// The least important thing that is still written.
        level: LogLevel = LogLevel::Info, OneOf::new(), OnReload;
        /// `text` for people, `json` for machines.
        format: LogFormat = LogFormat::Text, OneOf::new(), AtRestart;
    }

    /// What can be measured from outside.
    metrics: MetricsPage {
        /// Where Prometheus reads `/metrics`: how long calls and their steps take, what there is, what the daemon uses. No page without one.
        address: Option<SocketAddr> = None, OrNone(AddressAndPort), AtRestart;
    }

    /// Traces: one span for each call and each of its steps, in the trace of whoever called (W3C Trace Context).
    tracing: Tracing {
        /// The OpenTelemetry collector to which spans are sent, by OTLP over gRPC without TLS. None are sent without one.
        collector: Option<String> = None, OrNone(HostAndPort), AtRestart;
    }

    /// Pod networks.
    network: Network {
        /// Where CNI configuration lists are read from; the first by name is used, and a change is noticed without a restart.
        conf_dir: PathBuf = PathBuf::from("/etc/cni/net.d"), AbsolutePath, AtRestart;
        /// Where CNI plugins are looked for, in this order.
        bin_dirs: Vec<PathBuf> = vec![PathBuf::from("/opt/cni/bin")], AbsolutePaths, AtRestart;
        /// How long one call of a plugin may take before it is killed and the request fails.
        plugin_deadline_secs: Duration = Duration::from_secs(60), Seconds(1..=600), AtRestart;
    }

    /// Pulling images.
    image: Image {
        /// Registries, as `host` or `host:port`, that are spoken to over plain HTTP. Those on loopback always may be.
        insecure_registries: Vec<String> = Vec::new(), Hosts, AtRestart;
        /// Folders with a folder for each registry host, named `host`, `host:port` or `host_port_`: in it `hosts.toml`, as for containerd (`_default` is for all others), or
        /// certificates, as for Docker and Podman. These files, and those of the next two settings, are read again for every pull.
        certs_dirs: Vec<PathBuf> = ["/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from).into(), AbsolutePaths, AtRestart;
        /// Mirrors, blocked registries and short names, after containers-registries.conf(5), with drop-ins in the folder of the same name and `.d`.
        registries_conf: Option<PathBuf> = Some(PathBuf::from("/etc/containers/registries.conf")), OrNone(AbsolutePath), AtRestart;
        /// Files with credentials, as `docker login` and `podman login` write them: they are looked through, in this order, when a registry asks for credentials and the
        /// request brought none for it.
        auth_files: Vec<PathBuf> = ["/run/containers/0/auth.json", "/root/.config/containers/auth.json", "/root/.docker/config.json"].map(PathBuf::from).into(), AbsolutePaths, AtRestart;
        /// How many layers of one image are downloaded and unpacked at the same time.
        max_parallel_layers: u32 = 4, Count(1..=64), AtRestart;
        /// How many connections to one registry carry layers at the same time, of all pulls together.
        max_connections_per_host: u32 = 8, Count(1..=64), AtRestart;
        /// The same, to all registries.
        max_connections: u32 = 32, Count(1..=256), AtRestart;
        /// How long a download may stand still before it is given up.
        stall_timeout_secs: Duration = Duration::from_secs(60), Seconds(1..=3600), AtRestart;
        /// What layers are on disk. `overlayfs`: directories, which the kernel stacks. `erofs`: one file each, which is written in one go, mounted, and stacked in the
        /// same way; it is made and removed much faster where files are many. `native`: directories, of which each container gets a whole copy, for kernels and file systems
        /// that cannot stack. `auto`: whichever is faster and as safe on this kernel, and `native` only where nothing else works. Layers of both kinds can be here at the same time.
        snapshotter: Snapshotter = Snapshotter::Auto, OneOf::new(), AtRestart;
        /// Whether layers are also kept as they came from the registry, packed, beside what is unpacked of them. It takes about half as much room again. Images can then
        /// be sent on unchanged, and a layer that was lost is restored without the registry.
        keep_blobs: bool = false, YesOrNo, AtRestart;
        /// How long a pull goes on when everybody who asked for it has left. A retry meanwhile joins it, and a later one finds it done. What it has finished
        /// by then stays for the next pull.
        pull_linger_secs: Duration = Duration::from_secs(600), Seconds(1..=86_400), AtRestart;
        /// A policy file in the format of containers-policy.json(5): which images are admitted, and whose signatures they need. It is read for every pull, so that a
        /// change counts at once. None: all images are admitted.
        policy: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// Where the policy's signatures lie that are not in the registry itself: a folder of files in the format of containers-registries.d(5).
        registries_d: PathBuf = PathBuf::from("/etc/containers/registries.d"), AbsolutePath, AtRestart;
        /// Whether a signature that names no repository, as in cosign's bundles, may meet the policy by the digest alone. Otherwise it would have to name one that
        /// the policy's `signedIdentity` accepts.
        accept_unnamed_signatures: bool = false, YesOrNo, AtRestart;
        /// Where images are pulled by digest only (`name@sha256:...`): registries, folders of repositories or repositories; `*.example.com` is every registry below that
        /// domain, and `*` is everything.
        require_digest: Vec<String> = Vec::new(), Scopes, AtRestart;
        /// A folder of programs that are asked about every image before it is pulled, as containerd asks its image verifiers. Each of them must agree. None: nobody is asked.
        verifier_dir: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// How long each of them may take before it is killed and the image refused.
        verifier_timeout_secs: Duration = Duration::from_secs(10), Seconds(1..=600), AtRestart;
        /// Images that garbage collection leaves alone, the kubelet's too: patterns of names. `*` stands for any characters, slashes too, and `?` for one; a name
        /// without a tag means every tag.
        pinned: Vec<String> = Vec::new(), Patterns, OnReload;
        /// How long layers stay that nobody needs, and packed blobs that are kept: a pull that failed finds them when it is tried again. What a removed image or container
        /// alone needed goes at once.
        gc_after_secs: Duration = Duration::from_secs(3600), Seconds(0..=31_536_000), AtRestart;
        /// Where containers write, if not below `daemon.root`: a folder of another file system, which the kubelet then watches on its own. Change it only while there are no containers.
        containers_root: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// How much the containers of one pod may write to their root file systems, together. More fails with EDQUOT (`Disk quota exceeded`). It takes project quotas:
        /// XFS or ext4, mounted with `prjquota`. Where they are not, the daemon does not start with it.
        pod_write_limit: Option<u64> = None, OrNone(Size), AtRestart;
    }

    /// Exec, attach and port-forward: CRI answers with a URL, and clients stream there.
    streaming: Streaming {
        /// Where the streaming server listens. Port 0 takes a free one at each start. The kubelet connects from this machine, so loopback is enough.
        address: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), AddressAndPort, AtRestart;
        /// The server's certificate (PEM), followed by those of whoever signed it. With it the URLs are `https`. It is read again when it changes.
        tls_cert: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// The certificate's key (PEM).
        tls_key: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// Authorities (PEM): only clients with a certificate of one of them are served.
        tls_client_ca: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// How long a session may stand still before it is closed. The kubelet's own limit is four hours too.
        idle_timeout_secs: Duration = Duration::from_secs(4 * 3600), Seconds(1..=31_536_000), AtRestart;
    }

    /// NRI plugins: programs of the node's administrator that are told of every pod and container and may adjust containers.
    nri: Nri {
        /// Whether plugins may connect, and those of the plugin folder are started. Without plugins it costs nothing.
        enabled: bool = true, YesOrNo, AtRestart;
        /// Where plugins connect (mode 0600). `/var/run/nri/nri.sock` is where they look.
        socket: PathBuf = PathBuf::from("/var/run/nri/nri.sock"), AbsolutePath, AtRestart;
        /// Plugins that are started with the daemon: executable files named `NN-name`, NN being their place in the order of calls.
        plugin_dir: PathBuf = PathBuf::from("/opt/nri/plugins"), AbsolutePath, AtRestart;
        /// What a started plugin is given as its configuration: `NN-name.conf`, else `name.conf`.
        config_dir: PathBuf = PathBuf::from("/etc/nri/conf.d"), AbsolutePath, AtRestart;
        /// How long a plugin may take to register, and then to be told of all pods and containers. Pods and containers change only before and after the latter.
        registration_timeout_secs: Duration = Duration::from_secs(5), Seconds(1..=60), AtRestart;
        /// How long a plugin may take for one request. One that takes longer is disconnected, and the request goes on without it.
        request_timeout_secs: Duration = Duration::from_secs(2), Seconds(1..=60), AtRestart;
    }

    /// CDI: devices that vendors describe in files.
    cdi: Cdi {
        /// Where those files are looked for; a later folder replaces what an earlier one says of the same device. An empty list: there are no such devices. The files are
        /// read when a container asks for a device.
        dirs: Vec<PathBuf> = vec![PathBuf::from("/etc/cdi"), PathBuf::from("/var/run/cdi")], AbsolutePaths, AtRestart;
    }

    /// Saving running containers into files, and restoring pods of them.
    checkpoint: Checkpoint {
        /// The program CRIU, which is not a part of Pintle: an absolute path, or a name that is looked for in `PATH`. Where there is none, only the calls about checkpoints fail.
        criu: PathBuf = PathBuf::from("criu"), Program, AtRestart;
    }

    /// Running containers.
    runtime: Runtime {
        /// Who makes control groups, and what the kubelet is told of it: `cgroupfs` writes them itself, `systemd` asks systemd for slices and scopes. `auto` is
        /// `systemd` where systemd is the init and control groups are of version 2, else `cgroupfs`. It must be the same as the kubelet's.
        cgroup_driver: CgroupDriver = CgroupDriver::Auto, OneOf::new(), AtRestart;
        /// Folders with files, after oci-hooks(5), that say which hooks of the node's administrator a container gets; a file of a later folder replaces the one of the same
        /// name of an earlier one. Empty: none.
        hooks_dirs: Vec<PathBuf> = Vec::new(), AbsolutePaths, AtRestart;
        /// The AppArmor profile of containers that name none, and of those that ask for the runtime's default, where the kernel enforces AppArmor. `pintle-default` is
        /// the daemon's own, which it loads itself; another one must be loaded on this node. `unconfined`: none. Privileged containers have none either.
        apparmor_profile: String = String::from("pintle-default"), ProfileName, AtRestart;
        /// Whether containers get SELinux labels where the kernel has SELinux on: the policy's types for containers, and a level of each pod's own.
        selinux: bool = true, YesOrNo, AtRestart;
        /// Which of the handlers `[runtimes.NAME]` runs pods that name none. Empty: the built-in runtime, with nothing changed.
        default_handler: Option<String> = None, OrNone(HandlerName), AtRestart;
    }
}

table! {
    /// A runtime handler: what a RuntimeClass whose `handler` is NAME stands for. NAME has lower-case letters, digits and dashes. Running pods keep what they were started with.
    "runtimes.NAME": RuntimeHandler {
        /// `builtin` is Pintle's own runtime. `oci` is a program with the command line of OCI runtimes, such as runc, crun, youki or runsc. `shim` is a containerd shim v2, such as
        /// those of Kata Containers, gVisor, runwasi and runc.
        kind: HandlerKind = HandlerKind::Builtin, OneOf::new(), AtRestart;
        /// The program, where that is not the built-in runtime. That of a shim may have a name such as `io.containerd.kata.v2`, which is `containerd-shim-kata-v2`.
        path: Option<PathBuf> = None, OrNone(Program), AtRestart;
        /// Words that the program gets with every call, before everything else, such as "--platform=systrap". Nothing that a pod or an image says is ever added.
        arguments: Vec<String> = Vec::new(), Words, AtRestart;
        /// Where the program keeps its state, in a folder for each pod. None: in the pods' own folders below `daemon.state`.
        root: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// The OCI runtime that a shim of runc's kind runs. None: the one that it runs by itself.
        runtime: Option<PathBuf> = None, OrNone(Program), AtRestart;
        /// The file by which a shim's runtime is configured, such as gVisor's `runsc.toml` or Kata's `configuration.toml`.
        config_path: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// Whether a container that stands for the pod is made before all others. `auto`: for all shims but runc's, and for gVisor's `runsc`, also as an OCI runtime. One that
        /// gets it runs all containers of a pod in one process, and has a command `wait` by which their ends are asked for.
        pause: PauseContainer = PauseContainer::Auto, OneOf::new(), AtRestart;
        /// How long one call of the program may take before it is killed and the request fails.
        deadline_secs: Duration = Duration::from_secs(60), Seconds(1..=600), AtRestart;
        /// Keys of a pod's annotations that its containers' specs get, for runtimes that are configured by them. A `*` at the end stands for any further characters.
        pod_annotations: Vec<String> = Vec::new(), Patterns, AtRestart;
        /// The same for the annotations of a container's own request.
        container_annotations: Vec<String> = Vec::new(), Patterns, AtRestart;
        /// An OCI spec (JSON) beneath that of each container: what the container's own leaves open comes from there. It is read for every container.
        base_spec: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
        /// What privileged containers get: `allow` everything, `without-host-devices` everything else, `refuse` to run them.
        privileged: Privileged = Privileged::Allow, OneOf::new(), AtRestart;
        /// Where the CNI configuration lists of such pods are read from, if not in `network.conf_dir`.
        cni_conf_dir: Option<PathBuf> = None, OrNone(AbsolutePath), AtRestart;
    }
}

/// Who runs a handler's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerKind {
    Builtin,
    Oci,
    Shim,
}

impl Choice for HandlerKind {
    const ALL: &'static [(&'static str, HandlerKind)] =
        &[("builtin", HandlerKind::Builtin), ("oci", HandlerKind::Oci), ("shim", HandlerKind::Shim)];
}

/// Whether a container that stands for the pod is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseContainer {
    Auto,
    Always,
    Never,
}

impl Choice for PauseContainer {
    const ALL: &'static [(&'static str, PauseContainer)] = &[
        ("auto", PauseContainer::Auto),
        ("always", PauseContainer::Always),
        ("never", PauseContainer::Never),
    ];
}

/// What privileged containers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileged {
    Allow,
    WithoutHostDevices,
    Refuse,
}

impl Choice for Privileged {
    const ALL: &'static [(&'static str, Privileged)] = &[
        ("allow", Privileged::Allow),
        ("without-host-devices", Privileged::WithoutHostDevices),
        ("refuse", Privileged::Refuse),
    ];
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, LogLevel)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl Choice for Snapshotter {
    const ALL: &'static [(&'static str, Snapshotter)] = &[
        ("auto", Snapshotter::Auto),
        ("overlayfs", Snapshotter::Overlayfs),
        ("erofs", Snapshotter::Erofs),
        ("native", Snapshotter::Native),
    ];
}

/// Who makes control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The best that this version has: `cgroupfs`.
    Auto,
    Cgroupfs,
    Systemd,
}

impl Choice for CgroupDriver {
    const ALL: &'static [(&'static str, CgroupDriver)] = &[
        ("auto", CgroupDriver::Auto),
        ("cgroupfs", CgroupDriver::Cgroupfs),
        ("systemd", CgroupDriver::Systemd),
    ];
}
