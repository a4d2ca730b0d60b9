//! Containers of an ordinary user: before anything is made, this process becomes root of a user namespace, in which the rest is done as
//! root does it on the host.
//!
//! The namespace is the one that the configuration asks for, so that the container has no further one. Ranges of ids are mapped by
//! `newuidmap` and `newgidmap` (package uidmap), which know by /etc/subuid whose they are; one's own id takes no help.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Process, Spec};
use sys::namespace::{join, kind, leave};
use sys::process::Cloned;

use crate::error::{At, Failure, Stage, Warning};
use crate::idmap::ranges;
use crate::record::Record;

const SYS_ADMIN: u64 = 1 << 21;

/// Whether this process may not do what making a container takes.
pub(crate) fn needed() -> Result<bool, Failure> {
    let own = rustix::thread::capabilities(None).at(Stage::Identity, || "own capabilities")?;
    Ok(own.effective.bits() & SYS_ADMIN == 0)
}

/// Whether this process is in a user namespace that is not the host's: devices cannot be made there, only bound.
pub(crate) fn inside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_ascii_whitespace();
    (numbers.next(), numbers.next(), numbers.next()) != (Some("0"), Some("0"), Some("4294967295"))
}

/// Enters the user namespace of the configuration, new or joined, with a mount namespace of it, and takes out of the configuration what
/// is done by that.
pub(crate) fn enter(spec: &mut Spec, warnings: &mut Vec<Warning>) -> Result<(), Failure> {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let position = namespaces.iter().position(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let Some(position) = position else {
        return Err(Failure::new(Stage::Namespaces, "linux.namespaces", "an ordinary user's container needs a user namespace")
            .remedy("add one with uidMappings and gidMappings, as pintle oci spec --rootless writes it, or run as root"));
    };
    let user = namespaces.remove(position);
    if let Some(process) = spec.process().clone() {
        spec.set_process(Some(inherit_oom_score(process, warnings)?));
    }
    match user.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => join_at(path)?,
        None => {
            let maps = |maps: &Option<Vec<LinuxIdMapping>>, field: &str| {
                let given = maps.clone().filter(|maps| !maps.is_empty());
                given.ok_or_else(|| {
                    Failure::new(Stage::Namespaces, field, "is missing, and a new user namespace needs it")
                })
            };
            let uids = maps(linux.uid_mappings(), "linux.uidMappings")?;
            let gids = maps(linux.gid_mappings(), "linux.gidMappings")?;
            make(&uids, &gids)?;
        }
    }
    crate::namespaces::become_root()?;
    leave(kind::MOUNT).at(Stage::Namespaces, || "mount namespace")?;
    linux.set_namespaces(Some(namespaces)).set_uid_mappings(None).set_gid_mappings(None);
    spec.set_linux(Some(linux));
    Ok(())
}

/// Enters the user namespace of a container that this user made.
pub(crate) fn enter_that_of(record: &Record) -> Result<(), Failure> {
    join_at(Path::new(&format!("/proc/{}/ns/user", record.pid)))?;
    crate::namespaces::become_root()
}

fn join_at(path: &Path) -> Result<(), Failure> {
    let object = || format!("user namespace {}", path.display());
    let namespace: OwnedFd = std::fs::File::open(path).at(Stage::Namespaces, object)?.into();
    join(namespace.as_fd(), kind::USER).at(Stage::Namespaces, object)
}

/// The value is inherited by the container's process: once this one has left, it may not write its own any more.
fn inherit_oom_score(mut process: Process, warnings: &mut Vec<Warning>) -> Result<Process, Failure> {
    if let Some(wanted) = process.oom_score_adj() {
        crate::create::set_oom_score_adj(std::process::id().cast_signed(), wanted, warnings)?;
        process.set_oom_score_adj(None);
    }
    Ok(process)
}

/// Leaves for a new user namespace, whose maps a process that stays behind writes.
fn make(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<(), Failure> {
    let (ours, theirs) = sys::socket::packet_pair().at(Stage::Namespaces, || "socket pair")?;
    let pid = std::process::id().cast_signed();
    match sys::process::clone_process(0, None).at(Stage::Namespaces, || "process that stays behind")? {
        Cloned::Child => {
            drop(ours);
            let mut word = [0; 8];
            if matches!(sys::socket::receive(theirs.as_fd(), &mut word), Ok((1.., _))) {
                let answer = map(pid, uids, gids).err().map_or_else(
                    || b"mapped".to_vec(),
                    |failure| serde_json::to_vec(&failure).unwrap_or_default(),
                );
                let _ = sys::socket::send(theirs.as_fd(), &answer, &[]);
            }
            sys::process::exit_now(0)
        }
        Cloned::Parent(child) => {
            drop(theirs);
            let made = leave(kind::USER).at(Stage::Namespaces, || "new user namespace").map_err(|failure| {
                failure.remedy("see /proc/sys/user/max_user_namespaces and kernel.unprivileged_userns_clone")
            });
            let answer = made.and_then(|()| ask(&ours));
            drop(ours);
            let _ = child.wait();
            answer
        }
    }
}

fn ask(helper: &OwnedFd) -> Result<(), Failure> {
    sys::socket::send(helper.as_fd(), b"left", &[]).at(Stage::Namespaces, || "id maps")?;
    let mut buffer = [0; 4096];
    let (length, _) =
        sys::socket::receive(helper.as_fd(), &mut buffer).at(Stage::Namespaces, || "id maps")?;
    match &buffer[..length] {
        b"mapped" => Ok(()),
        failure => Err(serde_json::from_slice(failure).unwrap_or_else(|_| {
            Failure::new(Stage::Namespaces, "id maps", "the process that writes them ended")
        })),
    }
}

fn map(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<(), Failure> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let only =
        |maps: &[LinuxIdMapping], id: u32| matches!(maps, [one] if one.size() == 1 && one.host_id() == id);
    if only(uids, own.0) && only(gids, own.1) {
        return sys::users::write_maps(pid, &ranges(uids), &ranges(gids))
            .at(Stage::Namespaces, || "linux.uidMappings and linux.gidMappings");
    }
    helped("newuidmap", "linux.uidMappings", pid, uids)?;
    helped("newgidmap", "linux.gidMappings", pid, gids)
}

fn helped(program: &str, field: &str, pid: i32, maps: &[LinuxIdMapping]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    for range in ranges(maps) {
        command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
    }
    let done = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Stage::Namespaces, field, format!("there is no program {program}"))
                .remedy("install the package uidmap, or map only your own id")
        }
        _ => Failure::io(Stage::Namespaces, format!("{field}: {program}"), &error),
    })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Failure::new(Stage::Namespaces, field, format!("{program}: {}", said.trim()))
        .remedy("ranges other than your own id must be yours in /etc/subuid and /etc/subgid"))
}
