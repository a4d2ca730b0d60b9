//! The container that stands for a pod in foreign shims that want one: a program of 200 bytes, which waits and lets its children go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use model::id::{ContainerId, PodId};
use model::request::{NamespaceMode, PodRequest};
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, Process, Root, Spec,
};

use super::Handler;
use super::adapt::passed;
use crate::pod_shim::PodShim;
use crate::record::PodCgroup;

/// The program's name in its root.
const NAME: &str = "pause";

/// Of which pod it is.
pub(crate) struct PauseOf<'a> {
    pub(crate) id: &'a PodId,
    pub(crate) request: &'a PodRequest,
    pub(crate) shim: &'a PodShim,
    /// Where the pod's containers' cgroups are.
    pub(crate) cgroup: &'a PodCgroup,
    pub(crate) state_dir: &'a Path,
    /// The pod's host name, where that is not the host's.
    pub(crate) hostname: Option<String>,
}

/// The spec of what stands for the pod. Also a shim that wants no such container reads its annotations.
///
/// # Errors
/// The folder with the program cannot be made.
pub(crate) fn spec_of_pod(handler: &Handler, of: &PauseOf<'_>) -> std::io::Result<Vec<u8>> {
    let mut root = Root::default();
    root.set_path(root_folder(of.state_dir)?).set_readonly(Some(true));
    let mut spec = Spec::default();
    spec.set_version("1.1.0".into())
        .set_root(Some(root))
        .set_hostname(of.hostname.clone())
        .set_process(Some(process()))
        .set_mounts(Some(mounts()))
        .set_annotations(Some(annotations(handler, of)))
        .set_linux(Some(linux(of)));
    Ok(serde_json::to_vec(&spec)?)
}

fn process() -> Process {
    let none = LinuxCapabilities::default();
    let mut process = Process::default();
    process
        .set_args(Some(vec![format!("/{NAME}")]))
        .set_env(Some(vec!["PATH=/".into()]))
        .set_cwd("/".into())
        .set_rlimits(None)
        .set_capabilities(Some(none))
        .set_no_new_privileges(Some(true));
    process
}

/// What the runtime specification calls the cgroup of what stands for the pod.
pub(crate) fn cgroup_name(of_pod: &PodCgroup, id: &PodId) -> Option<String> {
    ContainerId::parse(id.as_str()).ok().map(|id| of_pod.name_of(&id))
}

/// What every runtime takes for granted.
fn mounts() -> Vec<Mount> {
    let one = |target: &str, kind: &str, options: &[&str]| {
        let mut mount = Mount::default();
        mount.set_destination(target.into()).set_typ(Some(kind.into())).set_source(Some(kind.into()));
        mount.set_options(Some(options.iter().map(ToString::to_string).collect()));
        mount
    };
    vec![
        one("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        one("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
}

fn linux(of: &PauseOf<'_>) -> Linux {
    let namespace = |kind, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    // By the path that the containers have: gVisor knows by it that they share one, whose first process this is.
    let processes = of.shim.pid_namespace_init().map(|init| format!("/proc/{init}/ns/pid").into());
    let mut namespaces =
        vec![namespace(LinuxNamespaceType::Mount, None), namespace(LinuxNamespaceType::Pid, processes)];
    let modes = &of.request.namespaces;
    for (mode, kind, name) in [
        (modes.network, LinuxNamespaceType::Network, "net"),
        (modes.ipc, LinuxNamespaceType::Ipc, "ipc"),
        (modes.network, LinuxNamespaceType::Uts, "uts"),
    ] {
        if mode != NamespaceMode::Host {
            namespaces.push(namespace(kind, Some(of.shim.namespace(name))));
        }
    }
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces))
        .set_cgroups_path(cgroup_name(of.cgroup, of.id).map(Into::into))
        .set_resources(Some(LinuxResources::default()))
        .set_masked_paths(None)
        .set_readonly_paths(None);
    linux
}

/// Those by which CRI runtimes say what a pod is, and what the handler passes on.
fn annotations(handler: &Handler, of: &PauseOf<'_>) -> HashMap<String, String> {
    let name = &of.request.name;
    let logs =
        of.request.log_directory.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let own = [
        ("container-type", "sandbox"),
        ("sandbox-id", of.id.as_str()),
        ("sandbox-name", &name.name),
        ("sandbox-namespace", &name.namespace),
        ("sandbox-uid", &name.uid),
        ("sandbox-log-directory", &logs),
    ]
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()));
    passed(&of.request.annotations, &handler.config.pod_annotations).chain(own).collect()
}

/// The folder that is its root: made once for all pods.
fn root_folder(state_dir: &Path) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let folder = state_dir.join("pause");
    let program = folder.join(NAME);
    if !program.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
        for name in ["proc", "dev", "sys", "etc"] {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder.join(name))?;
        }
        let new = folder.join(format!(".{NAME}-{:?}", std::thread::current().id()));
        std::fs::write(&new, program_bytes())?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o555))?;
        std::fs::rename(&new, &program)?;
    }
    Ok(folder)
}

/// An ELF file of one segment with the code behind the headers.
fn program_bytes() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + CODE.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable of this machine, whose headers are as long as these are.
    elf.extend([2_u16, MACHINE].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    // One segment to load, to be read and executed.
    elf.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(CODE);
    elf
}

/// Of the machine, in an ELF header.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Ignores SIGCHLD, so that the kernel reaps its children (wait(2)), and waits for ever.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 72] = [
    0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, SYS_rt_sigaction
    0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, SIGCHLD
    0x48, 0x8d, 0x35, 0x17, 0x00, 0x00, 0x00, // lea rsi, [action]
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // wait: mov eax, SYS_pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp wait
    0x90, 0x90, 0x90, 0x90, // to a multiple of 8
    1, 0, 0, 0, 0, 0, 0, 0, // action: SIG_IGN
    0, 0, 0, 0, 0, 0, 0, 0, // no flags
    0, 0, 0, 0, 0, 0, 0, 0, // no restorer
    0, 0, 0, 0, 0, 0, 0, 0, // an empty mask
];

/// The same with ppoll(2), which this machine has instead of pause(2).
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 84] = [
    0xc8, 0x10, 0x80, 0xd2, // mov x8, SYS_rt_sigaction
    0x20, 0x02, 0x80, 0xd2, // mov x0, SIGCHLD
    0x61, 0x01, 0x00, 0x10, // adr x1, action
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x01, 0x80, 0xd2, // mov x3, 8
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0x28, 0x09, 0x80, 0xd2, // wait: mov x8, SYS_ppoll
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xfa, 0xff, 0xff, 0x17, // b wait
    1, 0, 0, 0, 0, 0, 0, 0, // action: SIG_IGN
    0, 0, 0, 0, 0, 0, 0, 0, // no flags
    0, 0, 0, 0, 0, 0, 0, 0, // no restorer
    0, 0, 0, 0, 0, 0, 0, 0, // an empty mask
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_program_waits_and_lets_its_children_go() {
        let state = tempfile::tempdir().unwrap();
        let folder = root_folder(state.path()).unwrap();
        assert_eq!(root_folder(state.path()).unwrap(), folder);
        let program = folder.join(NAME);
        // A shell whose child outlives it in what becomes the program: the child is its own then.
        let script = format!("sleep 0.2 & exec {}", program.display());
        let mut shell = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        let pid = shell.id();
        let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), program);
        assert_ne!(children(), "");
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(children(), "", "the child is reaped");
        assert!(shell.try_wait().unwrap().is_none(), "and it goes on");
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
