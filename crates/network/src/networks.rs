//! The node's side of pod networks: which network there is, attaching pods to it, and undoing that for certain.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::cni::chain::Caller;
use crate::cni::config::{Directory, NetworkList, Skipped, Stamp, is_plain_name};
use crate::cni::error::CniError;
use crate::cni::exec::PluginError;
use crate::cni::record::{Attachment, Phase, Record, RecordError, Records};
use crate::cni::result::AddResult;
use crate::errors::{AttachError, DetachError, NotReady, PodCidrError};
use crate::plugin;
use crate::pod::{Attached, Netns, PodNetwork};
use crate::pod_cidr::{self, Kept};

/// Where things are and how long plugins may take.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    /// On tmpfs: attachment records and the built-in plugin's state.
    pub state_dir: PathBuf,
    /// Survives a reboot: the pod CIDR.
    pub root_dir: PathBuf,
    /// For one call of one plugin.
    pub plugin_deadline: Duration,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            state_dir: "/run/pintle/network".into(),
            root_dir: "/var/lib/pintle/network".into(),
            plugin_deadline: Duration::from_secs(60),
        }
    }
}

/// A network that pods can be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub network: String,
    /// The file it is configured in.
    pub path: PathBuf,
    /// The names of its plugins, in order.
    pub plugins: Vec<String>,
}

/// An attachment that a DEL has still to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub pod_id: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub network: String,
    /// `Attached` is owed only once its pod is gone.
    pub phase: Phase,
}

/// What a garbage collection did.
#[derive(Debug, Default)]
pub struct GcReport {
    pub detached: Vec<String>,
    pub failed: Vec<DetachError>,
    /// Plugins that could not collect; they are asked again the next time.
    pub plugins: Vec<PluginError>,
    /// Records that could not be read; they are left alone.
    pub unreadable: Vec<RecordError>,
}

/// The networks of this node. All methods may be called from several threads; calls for one pod wait for each other.
#[derive(Debug)]
pub struct Networks {
    conf_dir: PathBuf,
    caller: Caller,
    records: Records,
    kept: Kept,
    loaded: Mutex<Loaded>,
    busy: Mutex<HashSet<String>>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Loaded {
    stamp: Option<Stamp>,
    directory: Directory,
    /// The network with the version and the pod CIDR it is run with; `None` until somebody asked, or where that failed.
    usable: Option<Arc<NetworkList>>,
    pod_cidr: Option<Vec<IpNet>>,
}

impl Networks {
    /// Reads the configuration directory (which may be missing) and takes the state folder.
    ///
    /// # Errors
    /// The state folder could not be made.
    pub fn new(config: NetworkConfig) -> io::Result<Networks> {
        let kept = Kept::in_folder(&config.root_dir);
        let networks = Networks {
            records: Records::open(config.state_dir.join("attachments"))?,
            caller: Caller {
                bin_dirs: config.bin_dirs,
                deadline: config.plugin_deadline,
                state_dir: config.state_dir,
            },
            conf_dir: config.conf_dir,
            loaded: Mutex::new(Loaded { pod_cidr: kept.read(), ..Loaded::default() }),
            kept,
            busy: Mutex::default(),
            idle: Condvar::new(),
        };
        networks.refresh_if_changed();
        Ok(networks)
    }

    /// Reads the configuration directory again if it looks different. Costs one `stat` a file where it does not.
    /// Every status and attach does this, so that no change is missed, also of a folder that appears or is made anew.
    pub fn refresh_if_changed(&self) -> bool {
        refresh(&mut lock(&self.loaded), &self.conf_dir)
    }

    /// The files of the configuration directory that are not used, and why.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.refresh_if_changed();
        lock(&self.loaded).directory.skipped.clone()
    }

    /// Whether pods can be attached now: there is a configuration, its programs are there, and they say they are ready (STATUS).
    pub fn status(&self) -> Result<Ready, NotReady> {
        let (path, list) = self.usable()?;
        match self.caller.status(&list) {
            Ok(()) => Ok(Ready {
                network: list.name.clone(),
                path,
                plugins: list.plugins.iter().map(|plugin| plugin.kind.clone()).collect(),
            }),
            Err(source) => Err(NotReady::Plugin { network: list.name.clone(), path, source: source.into() }),
        }
    }

    /// Takes the pod CIDR from the kubelet (`UpdateRuntimeConfig`) and keeps it over a restart. It is used by a built-in network whose
    /// `subnets` are missing or say `{podCIDR}`.
    pub fn pod_cidr(&self, text: &str) -> Result<(), PodCidrError> {
        let nets = pod_cidr::parse(text).ok_or_else(|| PodCidrError::Malformed(text.into()))?;
        let mut loaded = lock(&self.loaded);
        if loaded.pod_cidr.as_ref() != Some(&nets) {
            self.kept.write(text)?;
            loaded.pod_cidr = Some(nets);
            loaded.usable = None;
        }
        Ok(())
    }

    /// Attaches a pod. The attachment is on record before the first plugin runs; if a plugin fails, what was done is undone, and
    /// stays owed where that fails too. Attaching a pod again with the same namespace returns what it has.
    pub fn attach(&self, pod: &PodNetwork) -> Result<Attached, AttachError> {
        let attachment = attachment(pod)?;
        let _turn = self.turn(&pod.pod_id);
        let in_record = |source| AttachError::Record { pod: pod.pod_id.clone(), source };
        if let Some(record) = self.records.read(&pod.pod_id).map_err(in_record)? {
            if record.phase == Phase::Attached
                && record.netns_id == attachment.netns_id
                && let Some(result) = record.result
            {
                return attached(&pod.pod_id, &record.network, &record.interface, result);
            }
            self.undo(record, Some(&pod.netns))
                .map_err(|source| AttachError::Stale { pod: pod.pod_id.clone(), source: Box::new(source) })?;
        }
        let (_, list) = self.usable()?;
        self.caller.find(&list).map_err(|source| AttachError::Plugin {
            pod: pod.pod_id.clone(),
            network: list.name.clone(),
            source: Box::new(source),
            undo: Vec::new(),
        })?;
        let mut record = Record::new(attachment, &list);
        self.records.write(&record).map_err(in_record)?;
        let result = self.caller.add(&list, &record, pod.netns.fd.as_fd());
        let network = list.name.clone();
        let result = match result {
            Ok(result) => result,
            Err(source) => {
                let undo = self.roll_back(&record, pod);
                let source = Box::new(source);
                return Err(AttachError::Plugin { pod: pod.pod_id.clone(), network, source, undo });
            }
        };
        record.result = Some(result.clone());
        record.phase = Phase::Attached;
        let done = attached(&pod.pod_id, &network, &pod.interface, result);
        match done {
            Ok(done) => {
                self.records.write(&record).map_err(in_record)?;
                Ok(done)
            }
            Err(AttachError::NoAddress { pod: id, network, interface, .. }) => {
                let undo = self.roll_back(&record, pod);
                Err(AttachError::NoAddress { pod: id, network, interface, undo })
            }
            Err(other) => {
                self.roll_back(&record, pod);
                Err(other)
            }
        }
    }

    /// Undoes a pod's attachment with the configuration that made it. A pod without one is fine.
    ///
    /// `netns` is given where the namespace lives on: interfaces in it are then deleted. Without it the namespace is taken to be gone or
    /// going, and its interfaces with it, which is far quicker; addresses and host ports are released at once in both cases.
    pub fn detach(&self, pod_id: &str, netns: Option<&Netns>) -> Result<(), DetachError> {
        if !is_plain_name(pod_id) {
            return Err(DetachError::BadId(pod_id.into()));
        }
        let _turn = self.turn(pod_id);
        match self.records.read(pod_id) {
            Ok(None) => Ok(()),
            Ok(Some(record)) => self.undo(record, netns),
            Err(source) => Err(DetachError::Record { pod: pod_id.into(), source }),
        }
    }

    /// Asks the plugins whether the attachment is still as ADD left it (CHECK). A pod without an attachment is an error.
    pub fn check(&self, pod_id: &str, netns: &Netns) -> Result<(), AttachError> {
        let pod = || pod_id.to_string();
        let bad_id = || AttachError::BadField {
            pod: pod(),
            field: "pod id",
            value: pod(),
            why: "no attachment of that pod is on record",
        };
        if !is_plain_name(pod_id) {
            return Err(bad_id());
        }
        let _turn = self.turn(pod_id);
        let record =
            self.records.read(pod_id).map_err(|source| AttachError::Record { pod: pod(), source })?;
        let record = record.filter(|record| record.phase == Phase::Attached).ok_or_else(bad_id)?;
        self.caller.check(&record, netns.fd.as_fd()).map_err(|source| AttachError::Plugin {
            pod: pod(),
            network: record.network.clone(),
            source: Box::new(source),
            undo: Vec::new(),
        })
    }

    /// [`Networks::gc_where`] for a time when no pod is being created, such as the start of the node: a pod that is attached after the
    /// list was made would be taken for a leftover.
    pub fn gc<'a>(&self, valid: impl IntoIterator<Item = &'a str>) -> GcReport {
        let valid: HashSet<&str> = valid.into_iter().collect();
        self.gc_where(|pod_id| valid.contains(pod_id))
    }

    /// Detaches every pod that is on record and is not valid, then lets the plugins collect what belongs to no valid pod (GC).
    ///
    /// `is_valid` is asked after the record was seen: whoever makes a pod known before attaching it never loses one that is being
    /// created meanwhile.
    pub fn gc_where(&self, is_valid: impl Fn(&str) -> bool) -> GcReport {
        let mut report = GcReport::default();
        let mut alive = Vec::new();
        for record in self.records.all() {
            match record {
                Err(error) => report.unreadable.push(error),
                Ok(record) if is_valid(&record.pod_id) => {
                    alive.push((record.pod_id, record.interface));
                }
                Ok(record) => match self.detach(&record.pod_id, None) {
                    Ok(()) => report.detached.push(record.pod_id),
                    Err(error) => {
                        // Still owed: its address must not be given to another pod before.
                        alive.push((record.pod_id, record.interface));
                        report.failed.push(error);
                    }
                },
            }
        }
        // With a record that cannot be read nobody knows which attachments are valid.
        if report.unreadable.is_empty()
            && let Ok((_, list)) = self.usable()
        {
            report.plugins = self.caller.gc(&list, &alive);
        }
        report
    }

    /// Every attachment that has not been undone; which of them belong to living pods the caller knows.
    pub fn owed(&self) -> Vec<Result<Owed, RecordError>> {
        let owed = |record: Record| Owed {
            pod_id: record.pod_id,
            pod_name: record.pod_name,
            pod_namespace: record.pod_namespace,
            network: record.network,
            phase: record.phase,
        };
        self.records.all().into_iter().map(|record| record.map(owed)).collect()
    }

    /// Removes the bridge, the rules and the state of a built-in network; pods that are still attached lose it. For whoever takes
    /// Pintle off a machine, and for tests.
    pub fn remove_network(&self, name: &str) -> Result<(), CniError> {
        plugin::remove_network(&self.caller.state_dir, name)
    }

    /// The network as it is run now: the newest common version, and the pod CIDR filled in.
    fn usable(&self) -> Result<(PathBuf, Arc<NetworkList>), NotReady> {
        let mut loaded = lock(&self.loaded);
        refresh(&mut loaded, &self.conf_dir);
        let Some((path, list)) = &loaded.directory.network else {
            return Err(NotReady::NoConfiguration {
                folder: self.conf_dir.clone(),
                skipped: loaded.directory.skipped.clone(),
            });
        };
        if let Some(usable) = &loaded.usable {
            return Ok((path.clone(), usable.clone()));
        }
        let mut usable = match (pod_cidr::wanted(list), &loaded.pod_cidr) {
            (false, _) => list.clone(),
            (true, Some(nets)) => pod_cidr::fill(list, nets),
            (true, None) => {
                return Err(NotReady::NoPodCidr { network: list.name.clone(), path: path.clone() });
            }
        };
        usable.version = self.caller.negotiate(list).map_err(|source| NotReady::Plugin {
            network: list.name.clone(),
            path: path.clone(),
            source: Box::new(source),
        })?;
        let (path, usable) = (path.clone(), Arc::new(usable));
        loaded.usable = Some(usable.clone());
        Ok((path, usable))
    }

    /// DEL after a failed ADD; the record goes if nothing is owed any more.
    fn roll_back(&self, record: &Record, pod: &PodNetwork) -> Vec<PluginError> {
        match self.undo(record.clone(), Some(&pod.netns)) {
            Err(DetachError::Plugins { errors, .. }) => errors,
            // The record stays, and with it the debt.
            Err(_) | Ok(()) => Vec::new(),
        }
    }

    fn undo(&self, mut record: Record, netns: Option<&Netns>) -> Result<(), DetachError> {
        let pod = record.pod_id.clone();
        let in_record = |source| DetachError::Record { pod: pod.clone(), source };
        if record.phase == Phase::Attached {
            record.phase = Phase::Detaching;
            self.records.write(&record).map_err(in_record)?;
        }
        // Another namespace than the one ADD was given must not be touched.
        let netns = netns.filter(|netns| identity(netns.fd.as_fd()).is_ok_and(|id| id == record.netns_id));
        let path = netns.map(|netns| netns.path.to_string_lossy().into_owned()).unwrap_or_default();
        let errors = self.caller.del(&record, netns.map(|netns| (path.as_str(), netns.fd.as_fd())));
        if errors.is_empty() {
            return self.records.remove(&pod).map_err(in_record);
        }
        Err(DetachError::Plugins { network: record.network.clone(), pod, errors })
    }

    /// Waits until no other call works on this pod.
    fn turn(&self, pod_id: &str) -> Turn<'_> {
        let mut busy = lock(&self.busy);
        while !busy.insert(pod_id.to_string()) {
            busy = self.idle.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { networks: self, pod_id: pod_id.into() }
    }
}

/// The right to work on a pod; ends when dropped.
struct Turn<'a> {
    networks: &'a Networks,
    pod_id: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.networks.busy).remove(&self.pod_id);
        self.networks.idle.notify_all();
    }
}

/// A panic elsewhere leaves the data whole: it is replaced, never half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refresh(loaded: &mut Loaded, folder: &std::path::Path) -> bool {
    let stamp = Directory::stamp(folder);
    if loaded.stamp.as_ref() == Some(&stamp) {
        return false;
    }
    loaded.directory = Directory::read(folder);
    loaded.usable = None;
    loaded.stamp = Some(stamp);
    true
}

fn identity(netns: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(netns)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Checks what goes into environment variables and file names.
fn attachment(pod: &PodNetwork) -> Result<Attachment, AttachError> {
    let bad = |field, value: &str, why| {
        Err(AttachError::BadField { pod: pod.pod_id.clone(), field, value: value.into(), why })
    };
    if !is_plain_name(&pod.pod_id) {
        return bad("pod id", &pod.pod_id, "it must hold only letters, digits, '_', '.' and '-'");
    }
    let interface = pod.interface.as_str();
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if matches!(interface, "" | "." | "..") || interface.len() > 15 || interface.contains(odd) {
        return bad("interface", interface, "it must be an interface name of at most 15 bytes");
    }
    for (field, value) in [("name", &pod.name), ("namespace", &pod.namespace), ("uid", &pod.uid)] {
        if value.contains(|c: char| c == ';' || c == '=' || c.is_control()) {
            return bad(field, value, "';', '=' and control characters would change what CNI_ARGS say");
        }
    }
    let netns_id = identity(pod.netns.fd.as_fd())
        .map_err(|source| AttachError::Netns { pod: pod.pod_id.clone(), source })?;
    Ok(Attachment {
        pod_id: pod.pod_id.clone(),
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        pod_uid: pod.uid.clone(),
        netns: pod.netns.path.to_string_lossy().into_owned(),
        netns_id,
        interface: pod.interface.clone(),
        args: format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.pod_id, pod.uid
        ),
        runtime: pod.runtime_config(),
    })
}

/// Reads the pod's place out of a result.
fn attached(pod: &str, network: &str, interface: &str, value: Value) -> Result<Attached, AttachError> {
    let version = crate::cni::version::Version::V1_1;
    let result = AddResult::parse(&value, version)
        .map_err(|source| AttachError::Result { pod: pod.into(), source })?;
    let of_pod = |index: Option<i64>| match index {
        None => true,
        Some(index) => usize::try_from(index)
            .ok()
            .and_then(|index| result.interfaces.get(index))
            .is_some_and(|found| !found.sandbox.is_empty() && found.name == interface),
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in result.ips.iter().filter(|ip| of_pod(ip.interface)) {
        if !ips.contains(&ip.address.addr()) {
            ips.push(ip.address.addr());
        }
    }
    if ips.is_empty() {
        return Err(AttachError::NoAddress {
            pod: pod.into(),
            network: network.into(),
            interface: interface.into(),
            undo: Vec::new(),
        });
    }
    Ok(Attached {
        network: network.into(),
        ips,
        interfaces: result.interfaces,
        routes: result.routes,
        dns: result.dns,
        result: value,
    })
}
