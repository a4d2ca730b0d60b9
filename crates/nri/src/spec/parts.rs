//! The parts of a spec that have words of their own: translated by those words, so that a wrong one is named.

use oci_spec::runtime::{
    LinuxIOPriority, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNetDevice, LinuxSeccomp, Scheduler,
};
use serde_json::{Value, json};

use crate::api;
use crate::error::SpecError;

/// Reads a word of the runtime spec.
pub(super) fn parse<T: std::str::FromStr>(what: &str, word: &str) -> Result<T, SpecError> {
    word.parse().map_err(|_| SpecError {
        what: format!("{what} {:?}", word.chars().take(64).collect::<String>()),
        why: "there is none of that name".into(),
    })
}

fn read<T: serde::de::DeserializeOwned>(what: &str, value: Value) -> Result<T, SpecError> {
    serde_json::from_value(value).map_err(|why| SpecError { what: what.into(), why: why.to_string() })
}

/// The name of an enumeration's number.
fn name<T: TryFrom<i32>>(
    what: &str,
    number: i32,
    name: fn(&T) -> &'static str,
) -> Result<&'static str, SpecError> {
    let known = T::try_from(number)
        .map_err(|_| SpecError { what: what.into(), why: format!("{number} stands for nothing there") });
    known.map(|known| name(&known))
}

/// None where the plugin asks for no priority of its own.
pub(super) fn io_priority(wanted: &api::LinuxIoPriority) -> Result<Option<LinuxIOPriority>, SpecError> {
    let what = "the I/O priority";
    let class = name::<api::IoPrioClass>(what, wanted.class, |class| class.as_str_name())?;
    if class == api::IoPrioClass::IoprioClassNone.as_str_name() {
        return Ok(None);
    }
    read(what, json!({ "class": class, "priority": wanted.priority })).map(Some)
}

/// None where the plugin asks for no policy.
pub(super) fn scheduler(wanted: &api::LinuxScheduler) -> Result<Option<Scheduler>, SpecError> {
    let what = "the scheduler";
    let policy = name::<api::LinuxSchedulerPolicy>(what, wanted.policy, |policy| policy.as_str_name())?;
    if policy == api::LinuxSchedulerPolicy::SchedNone.as_str_name() {
        return Ok(None);
    }
    let flag = |number: &i32| {
        let flag = name::<api::LinuxSchedulerFlag>(what, *number, |flag| flag.as_str_name())?;
        // Two names are spelled in a way of its own by the library that reads and writes the spec.
        Ok(match flag {
            "SCHED_FLAG_RESET_ON_FORK" => "SCHED_RESET_ON_FORK",
            "SCHED_FLAG_DL_OVERRUN" => "SCHED_FLAG_D_L_OVERRUN",
            flag => flag,
        })
    };
    let flags = wanted.flags.iter().map(flag).collect::<Result<Vec<_>, SpecError>>()?;
    let value = json!({
        "policy": policy, "nice": wanted.nice, "priority": wanted.priority, "flags": flags,
        "runtime": wanted.runtime, "deadline": wanted.deadline, "period": wanted.period,
    });
    read(what, value).map(Some)
}

pub(super) fn memory_policy(wanted: &api::LinuxMemoryPolicy) -> Result<LinuxMemoryPolicy, SpecError> {
    let what = "the memory policy";
    let mode = name::<api::MpolMode>(what, wanted.mode, |mode| mode.as_str_name())?;
    let flag = |number: &i32| name::<api::MpolFlag>(what, *number, |flag| flag.as_str_name());
    let flags = wanted.flags.iter().map(flag).collect::<Result<Vec<_>, SpecError>>()?;
    read(what, json!({ "mode": mode, "nodes": wanted.nodes, "flags": flags }))
}

pub(super) fn seccomp(wanted: &api::LinuxSeccomp) -> Result<LinuxSeccomp, SpecError> {
    let argument = |arg: &api::LinuxSeccompArg| json!({ "index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op });
    let syscall = |call: &api::LinuxSyscall| {
        let mut value = json!({
            "names": call.names, "action": call.action,
            "args": call.args.iter().map(argument).collect::<Vec<_>>(),
        });
        if let Some(errno) = &call.errno_ret {
            value["errnoRet"] = errno.value.into();
        }
        value
    };
    let mut value = json!({
        "defaultAction": wanted.default_action, "architectures": wanted.architectures, "flags": wanted.flags,
        "syscalls": wanted.syscalls.iter().map(syscall).collect::<Vec<_>>(),
    });
    if let Some(errno) = &wanted.default_errno {
        value["defaultErrnoRet"] = errno.value.into();
    }
    if !wanted.listener_path.is_empty() {
        value["listenerPath"] = wanted.listener_path.clone().into();
        value["listenerMetadata"] = wanted.listener_metadata.clone().into();
    }
    read("the seccomp policy", value)
}

pub(super) fn net_device(wanted: &api::LinuxNetDevice) -> LinuxNetDevice {
    let mut device = LinuxNetDevice::default();
    device.set_name((!wanted.name.is_empty()).then(|| wanted.name.clone()));
    device
}

/// What was asked before with what is asked now; none where nothing is left.
pub(super) fn rdt(before: Option<LinuxIntelRdt>, wanted: &api::LinuxRdt) -> Option<LinuxIntelRdt> {
    let mut rdt = before.unwrap_or_default();
    if let Some(class) = &wanted.clos_id {
        rdt.set_clos_id(Some(class.value.clone()));
    }
    if let Some(schemata) = &wanted.schemata {
        rdt.set_schemata(Some(schemata.value.clone()));
    }
    if let Some(monitoring) = &wanted.enable_monitoring {
        rdt.set_enable_monitoring(Some(monitoring.value));
    }
    (rdt != LinuxIntelRdt::default()).then_some(rdt)
}
