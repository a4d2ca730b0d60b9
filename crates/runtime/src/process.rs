//! Attributes of the container's process: limits, scheduling, user, groups, capabilities, working directory.

use std::os::fd::BorrowedFd;
use std::path::Path;

use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process, Scheduler,
};
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit};
use sys::process::SchedulerAttributes;

use crate::capabilities::{self, Sets};
use crate::error::{At, Failure, Stage, Warning};

/// Who the process is, and how it may load a seccomp filter.
#[derive(Debug)]
pub(crate) struct Attributes {
    sets: Sets,
    uid: u32,
    /// `CAP_SYS_ADMIN` is kept until the filter is loaded, since privileges may grow (no_new_privs is off).
    keep_admin: bool,
}

impl Attributes {
    pub(crate) fn of(
        process: &Process,
        has_filter: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<Attributes, Failure> {
        let sets = Sets::of(process.capabilities().as_ref()).clamp(warnings)?;
        let uid = process.user().uid();
        let no_new_privileges = process.no_new_privileges().unwrap_or(false);
        Ok(Attributes { sets, uid, keep_admin: has_filter && !no_new_privileges })
    }

    /// Resource limits, scheduling and I/O priority: what takes privilege.
    pub(crate) fn limits(&self, process: &Process, warnings: &mut Vec<Warning>) -> Result<(), Failure> {
        for limit in process.rlimits().iter().flatten() {
            let (resource, name) = resource(limit.typ());
            if limit.soft() > limit.hard() {
                return Err(Failure::new(
                    Stage::Process,
                    name,
                    format!("the soft limit {} is above the hard limit {}", limit.soft(), limit.hard()),
                ));
            }
            set_limit(resource, name, limit.soft(), limit.hard(), warnings)?;
        }
        if let Some(scheduler) = process.scheduler().as_ref() {
            sys::process::set_scheduler(scheduler_attributes(scheduler))
                .at(Stage::Process, || "scheduler")
                .map_err(|failure| {
                failure.remedy("real-time policies need CAP_SYS_NICE and real-time cgroup time")
            })?;
        }
        if let Some(io) = process.io_priority() {
            let class = match io.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let priority =
                u32::try_from(io.priority()).ok().filter(|priority| *priority <= 7).ok_or_else(|| {
                    Failure::new(
                        Stage::Process,
                        "ioPriority",
                        format!("{} is not between 0 and 7", io.priority()),
                    )
                })?;
            sys::process::set_io_priority(class, priority).at(Stage::Process, || "ioPriority")?;
        }
        Ok(())
    }

    /// Gives the standard streams to the user; see [`give_streams`] for one of a user namespace.
    pub(crate) fn owner_of_streams(&self) {
        if self.uid != 0 {
            own_streams(Uid::from_raw(self.uid));
        }
    }

    /// Becomes the user, with the capabilities of the specification and, if asked for, no_new_privs.
    pub(crate) fn become_user(&self, process: &Process) -> Result<(), Failure> {
        let user = process.user();
        let gid = Gid::from_raw(user.gid());
        let groups: Vec<Gid> =
            user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
        capabilities::limit_bounding(&self.sets)?;
        match rustix::thread::set_thread_groups(&groups) {
            // In a user namespace that an ordinary user mapped alone, nobody may change them, or needs to.
            Err(rustix::io::Errno::PERM) if groups.is_empty() && groups_are_fixed() => {}
            other => {
                other.at(Stage::Identity, || format!("supplementary groups {:?}", user.additional_gids()))?
            }
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .at(Stage::Identity, || format!("group {}", user.gid()))?;
        rustix::thread::set_keep_capabilities(true).at(Stage::Identity, || "keeping capabilities")?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .at(Stage::Identity, || format!("user {}", self.uid))?;
        sys::process::set_dumpable(false).at(Stage::Identity, || "not dumpable")?;
        // For a user other than 0 the kernel cleared the effective set: it is needed again for what follows.
        capabilities::apply(&self.sets, self.keep_admin)?;
        rustix::thread::set_keep_capabilities(false).at(Stage::Identity, || "keeping capabilities")?;
        if process.no_new_privileges().unwrap_or(false) {
            rustix::thread::set_no_new_privs(true).at(Stage::Identity, || "no_new_privs")?;
        }
        rustix::process::umask(Mode::from_raw_mode(user.umask().unwrap_or(0o022) & 0o777));
        Ok(())
    }

    /// Gives up what loading the filter took.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        if self.keep_admin {
            return capabilities::finish(&self.sets).map_err(|failure| {
                failure.remedy("the seccomp profile must allow capset, or set noNewPrivileges")
            });
        }
        Ok(())
    }
}

/// Whether this user namespace denies setgroups(2) (user_namespaces(7)). Asked inside the container, whose /proc says so, or has none.
fn groups_are_fixed() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|word| word.starts_with(b"deny"))
}

/// Refuses ids that the kernel takes for "leave it as it is": root would stay root.
pub(crate) fn check_ids(process: &Process) -> Result<(), Failure> {
    let user = process.user();
    let groups = user.additional_gids().iter().flatten().map(|gid| (*gid, "process.user.additionalGids"));
    for (id, field) in
        [(user.uid(), "process.user.uid"), (user.gid(), "process.user.gid")].into_iter().chain(groups)
    {
        if id == u32::MAX {
            return Err(Failure::new(Stage::Identity, field, "4294967295 is not an id"));
        }
    }
    Ok(())
}

/// Gives the standard streams of this process to who will be the user of `process` in the user namespace that the process `pid` is in:
/// from inside, the owner of a pipe that was made outside cannot be changed.
pub(crate) fn give_streams(pid: i32, process: &Process) -> std::io::Result<()> {
    if let Some(owner) = sys::users::outside_uid(pid, process.user().uid())? {
        own_streams(Uid::from_raw(owner));
    }
    Ok(())
}

/// Gives pipes on the standard streams to the user, who may open them again by /dev/stdout.
fn own_streams(owner: Uid) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != owner.as_raw() {
            // Where it is refused, the pipe cannot be opened again, and works otherwise.
            let _ = rustix::fs::fchown(stream, Some(owner), None);
        }
    }
}

/// Enters the open directory `cwd` and makes sure that it is below the root (CVE-2024-21626).
pub(crate) fn enter_directory(cwd: BorrowedFd<'_>, name: &Path) -> Result<(), Failure> {
    let object = || format!("working directory {}", name.display());
    rustix::process::fchdir(cwd).at(Stage::Process, object)?;
    let here = rustix::process::getcwd(Vec::new()).at(Stage::Process, object)?;
    if here.as_bytes().first() != Some(&b'/') {
        return Err(Failure::new(Stage::Process, object(), "is outside the container's root"));
    }
    Ok(())
}

/// Rows and columns, where the configuration says them.
pub(crate) fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))
        .filter(|(r, c)| *r > 0 && *c > 0)
}

/// A hard limit that cannot be had is clamped to the present one, with a warning: without CAP_SYS_RESOURCE nobody can raise it, and
/// the container is of more use than the limit.
fn set_limit(
    resource: Resource,
    name: &str,
    soft: u64,
    hard: u64,
    warnings: &mut Vec<Warning>,
) -> Result<(), Failure> {
    let value = |n: u64| (n != u64::MAX).then_some(n);
    let wanted = Rlimit { current: value(soft), maximum: value(hard) };
    match rustix::process::setrlimit(resource, wanted) {
        Err(rustix::io::Errno::PERM) => {}
        other => return other.at(Stage::Process, || format!("{name} {soft}:{hard}")),
    }
    let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let (lower_soft, lower_hard) = (soft.min(ceiling), hard.min(ceiling));
    let clamped = Rlimit { current: value(lower_soft), maximum: value(lower_hard) };
    rustix::process::setrlimit(resource, clamped).at(Stage::Process, || format!("{name} {soft}:{hard}"))?;
    warnings.push(Warning {
        stage: Stage::Process,
        message: format!("{name} {soft}:{hard} needs CAP_SYS_RESOURCE, it is {lower_soft}:{lower_hard}"),
    });
    Ok(())
}

pub(crate) fn resource(kind: PosixRlimitType) -> (Resource, &'static str) {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => (Resource::Cpu, "RLIMIT_CPU"),
        T::RlimitFsize => (Resource::Fsize, "RLIMIT_FSIZE"),
        T::RlimitData => (Resource::Data, "RLIMIT_DATA"),
        T::RlimitStack => (Resource::Stack, "RLIMIT_STACK"),
        T::RlimitCore => (Resource::Core, "RLIMIT_CORE"),
        T::RlimitRss => (Resource::Rss, "RLIMIT_RSS"),
        T::RlimitNproc => (Resource::Nproc, "RLIMIT_NPROC"),
        T::RlimitNofile => (Resource::Nofile, "RLIMIT_NOFILE"),
        T::RlimitMemlock => (Resource::Memlock, "RLIMIT_MEMLOCK"),
        T::RlimitAs => (Resource::As, "RLIMIT_AS"),
        T::RlimitLocks => (Resource::Locks, "RLIMIT_LOCKS"),
        T::RlimitSigpending => (Resource::Sigpending, "RLIMIT_SIGPENDING"),
        T::RlimitMsgqueue => (Resource::Msgqueue, "RLIMIT_MSGQUEUE"),
        T::RlimitNice => (Resource::Nice, "RLIMIT_NICE"),
        T::RlimitRtprio => (Resource::Rtprio, "RLIMIT_RTPRIO"),
        T::RlimitRttime => (Resource::Rttime, "RLIMIT_RTTIME"),
    }
}

fn scheduler_attributes(scheduler: &Scheduler) -> SchedulerAttributes {
    use LinuxSchedulerFlag as F;
    use LinuxSchedulerPolicy as P;
    let flags = scheduler.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        }
    });
    SchedulerAttributes {
        policy: match scheduler.policy() {
            P::SchedOther => 0,
            P::SchedFifo => 1,
            P::SchedRr => 2,
            P::SchedBatch => 3,
            P::SchedIso => 4,
            P::SchedIdle => 5,
            P::SchedDeadline => 6,
        },
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().and_then(|p| u32::try_from(p).ok()).unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedulerAttributes::default()
    }
}

/// The execution domain (personality(2)).
pub(crate) fn personality(wanted: Option<&LinuxPersonality>) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let domain = match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    };
    sys::process::set_personality(domain).at(Stage::Process, || "personality")
}

/// The NUMA memory policy (set_mempolicy(2)).
pub(crate) fn memory_policy(wanted: Option<&LinuxMemoryPolicy>) -> Result<(), Failure> {
    use MemoryPolicyModeType as M;
    let Some(wanted) = wanted else { return Ok(()) };
    let mode = match wanted.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    let list = wanted.nodes().as_deref().unwrap_or_default();
    let nodes = number_list(list, 1024).ok_or_else(|| {
        Failure::new(Stage::Process, "memoryPolicy.nodes", format!("{list:?} is not a list of nodes"))
    })?;
    let mut mask = vec![0_u64; nodes.iter().max().map_or(0, |most| *most as usize / 64 + 1)];
    for node in nodes {
        mask[node as usize / 64] |= 1 << (node % 64);
    }
    sys::process::set_memory_policy(mode | flags, &mask).at(Stage::Process, || "memoryPolicy")
}

/// `0-3,7` as numbers, all below `limit`.
pub(crate) fn number_list(list: &str, limit: u32) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= limit {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Binds this process to CPUs, written as `0-3,7`.
pub(crate) fn set_affinity(list: &str) -> Result<(), Failure> {
    let object = || format!("execCPUAffinity {list:?}");
    let cpus = number_list(list, rustix::thread::CpuSet::MAX_CPU as u32)
        .filter(|cpus| !cpus.is_empty())
        .ok_or_else(|| Failure::new(Stage::Process, object(), "is not a list of CPUs"))?;
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus {
        set.set(cpu as usize);
    }
    rustix::thread::sched_setaffinity(None, &set).at(Stage::Process, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(number_list("0-2,5", 8), Some(vec![0, 1, 2, 5]));
        assert_eq!(number_list("", 8), Some(vec![]));
        for bad in ["3-1", "8", "a", "1-", "-1", "0-4294967295"] {
            assert_eq!(number_list(bad, 8), None, "{bad}");
        }
    }
}
