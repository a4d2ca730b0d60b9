//! A container's runtime spec in NRI's words: what a plugin is told of a container.

use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxResources, LinuxSeccomp, Process, Spec};
use serde_json::Value;

use crate::api;

/// Everything that `spec` says of a container. Its ids, names and state are the caller's.
pub fn container(spec: &Spec) -> api::Container {
    let process = spec.process().as_ref();
    let mut container = api::Container {
        annotations: spec
            .annotations()
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        args: process.and_then(|process| process.args().clone()).unwrap_or_default(),
        env: process.and_then(|process| process.env().clone()).unwrap_or_default(),
        mounts: spec.mounts().iter().flatten().map(mount).collect(),
        hooks: spec.hooks().as_ref().map(hooks),
        rlimits: process
            .and_then(|process| process.rlimits().as_ref())
            .into_iter()
            .flatten()
            .map(rlimit)
            .collect(),
        ..api::Container::default()
    };
    if let Some(process) = process {
        let user = process.user();
        container.user = Some(api::User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
        });
    }
    container.linux = spec.linux().as_ref().map(|found| linux(found, process));
    container
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn mount(mount: &oci_spec::runtime::Mount) -> api::Mount {
    api::Mount {
        destination: text(mount.destination()),
        r#type: mount.typ().clone().unwrap_or_default(),
        source: mount.source().as_deref().map(text).unwrap_or_default(),
        options: mount.options().clone().unwrap_or_default(),
    }
}

fn rlimit(limit: &oci_spec::runtime::PosixRlimit) -> api::PosixRlimit {
    api::PosixRlimit { r#type: limit.typ().to_string(), hard: limit.hard(), soft: limit.soft() }
}

// A spec may have prestart hooks.
#[allow(deprecated)]
fn hooks(hooks: &oci_spec::runtime::Hooks) -> api::Hooks {
    let all = |hooks: &Option<Vec<Hook>>| hooks.iter().flatten().map(hook).collect();
    api::Hooks {
        prestart: all(hooks.prestart()),
        create_runtime: all(hooks.create_runtime()),
        create_container: all(hooks.create_container()),
        start_container: all(hooks.start_container()),
        poststart: all(hooks.poststart()),
        poststop: all(hooks.poststop()),
    }
}

fn hook(hook: &Hook) -> api::Hook {
    api::Hook {
        path: text(hook.path()),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().map(|value| api::OptionalInt { value }),
    }
}

fn linux(linux: &Linux, process: Option<&Process>) -> api::LinuxContainer {
    let priority = process.and_then(|process| process.io_priority().as_ref());
    api::LinuxContainer {
        namespaces: linux.namespaces().iter().flatten().map(namespace).collect(),
        devices: linux.devices().iter().flatten().map(device).collect(),
        resources: linux.resources().as_ref().map(resources),
        oom_score_adj: process
            .and_then(|process| process.oom_score_adj())
            .map(|score| api::OptionalInt { value: score.into() }),
        cgroups_path: linux.cgroups_path().as_deref().map(text).unwrap_or_default(),
        io_priority: priority.map(|priority| api::LinuxIoPriority {
            class: api::IoPrioClass::from_str_name(&priority.class().to_string()).unwrap_or_default().into(),
            priority: i32::try_from(priority.priority()).unwrap_or_default(),
        }),
        seccomp_profile: None,
        seccomp_policy: linux.seccomp().as_ref().and_then(seccomp),
        sysctl: linux.sysctl().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        ..api::LinuxContainer::default()
    }
}

fn namespace(namespace: &oci_spec::runtime::LinuxNamespace) -> api::LinuxNamespace {
    // The library's words for two of them are the kernel's and not the spec's.
    let kind = match namespace.typ().to_string().as_str() {
        "mnt" => "mount".to_owned(),
        "net" => "network".to_owned(),
        kind => kind.to_owned(),
    };
    api::LinuxNamespace { r#type: kind, path: namespace.path().as_deref().map(text).unwrap_or_default() }
}

fn device(device: &oci_spec::runtime::LinuxDevice) -> api::LinuxDevice {
    api::LinuxDevice {
        path: text(device.path()),
        r#type: device.typ().as_str().to_owned(),
        major: device.major(),
        minor: device.minor(),
        file_mode: device.file_mode().map(|value| api::OptionalFileMode { value }),
        uid: device.uid().map(|value| api::OptionalUInt32 { value }),
        gid: device.gid().map(|value| api::OptionalUInt32 { value }),
    }
}

/// Limits in NRI's words.
pub fn resources(limits: &LinuxResources) -> api::LinuxResources {
    let int = |value: Option<i64>| value.map(|value| api::OptionalInt64 { value });
    let unsigned = |value: Option<u64>| value.map(|value| api::OptionalUInt64 { value });
    let yes = |value: Option<bool>| value.map(|value| api::OptionalBool { value });
    api::LinuxResources {
        memory: limits.memory().as_ref().map(|memory| api::LinuxMemory {
            limit: int(memory.limit()),
            reservation: int(memory.reservation()),
            swap: int(memory.swap()),
            kernel: int(memory.kernel()),
            kernel_tcp: int(memory.kernel_tcp()),
            swappiness: unsigned(memory.swappiness()),
            disable_oom_killer: yes(memory.disable_oom_killer()),
            use_hierarchy: yes(memory.use_hierarchy()),
        }),
        cpu: limits.cpu().as_ref().map(|cpu| api::LinuxCpu {
            shares: unsigned(cpu.shares()),
            quota: int(cpu.quota()),
            period: unsigned(cpu.period()),
            realtime_runtime: int(cpu.realtime_runtime()),
            realtime_period: unsigned(cpu.realtime_period()),
            cpus: cpu.cpus().clone().unwrap_or_default(),
            mems: cpu.mems().clone().unwrap_or_default(),
        }),
        hugepage_limits: limits
            .hugepage_limits()
            .iter()
            .flatten()
            .map(|page| api::HugepageLimit {
                page_size: page.page_size().clone(),
                limit: u64::try_from(page.limit()).unwrap_or_default(),
            })
            .collect(),
        unified: limits.unified().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        devices: limits
            .devices()
            .iter()
            .flatten()
            .map(|rule| api::LinuxDeviceCgroup {
                allow: rule.allow(),
                r#type: rule.typ().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
                major: int(rule.major()),
                minor: int(rule.minor()),
                access: rule.access().clone().unwrap_or_default(),
            })
            .collect(),
        pids: limits.pids().as_ref().map(|pids| api::LinuxPids { limit: pids.limit() }),
        ..api::LinuxResources::default()
    }
}

/// By the words that both have for it.
fn seccomp(policy: &LinuxSeccomp) -> Option<api::LinuxSeccomp> {
    let value = serde_json::to_value(policy).ok()?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| value.as_array().into_iter().flatten().map(word).collect::<Vec<_>>();
    let errno = |value: &Value| Some(api::OptionalUInt32 { value: u32::try_from(value.as_u64()?).ok()? });
    let argument = |value: &Value| api::LinuxSeccompArg {
        index: value["index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or_default(),
        value: value["value"].as_u64().unwrap_or_default(),
        value_two: value["valueTwo"].as_u64().unwrap_or_default(),
        op: word(&value["op"]),
    };
    let syscall = |value: &Value| api::LinuxSyscall {
        names: words(&value["names"]),
        action: word(&value["action"]),
        errno_ret: errno(&value["errnoRet"]),
        args: value["args"].as_array().into_iter().flatten().map(argument).collect(),
    };
    Some(api::LinuxSeccomp {
        default_action: word(&value["defaultAction"]),
        default_errno: errno(&value["defaultErrnoRet"]),
        architectures: words(&value["architectures"]),
        flags: words(&value["flags"]),
        listener_path: word(&value["listenerPath"]),
        listener_metadata: word(&value["listenerMetadata"]),
        syscalls: value["syscalls"].as_array().into_iter().flatten().map(syscall).collect(),
    })
}
