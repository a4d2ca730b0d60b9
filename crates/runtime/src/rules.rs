//! Rules of the runtime-spec that its types do not express, checked before anything is made. Each refusal names the field.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxSchedulerPolicy, Process, Spec};

use crate::error::{Failure, Stage};

type Checked = Result<(), Failure>;

/// Refuses what no runtime could run, and what the specification says must be refused.
pub(crate) fn check(spec: &Spec, linux: &Linux, process: &Process) -> Checked {
    check_process(process)?;
    check_linux(linux)?;
    check_hooks(spec)?;
    if spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key("")) {
        return fail("annotations", "has an empty key");
    }
    if spec.root().as_ref().is_some_and(|root| root.path().as_os_str().is_empty()) {
        return fail("root.path", "is empty");
    }
    Ok(())
}

fn fail(field: &str, cause: impl ToString) -> Checked {
    Err(Failure::new(Stage::Configuration, field, cause))
}

fn check_process(process: &Process) -> Checked {
    if !process.cwd().is_absolute() {
        return fail("process.cwd", "must be an absolute path");
    }
    let mut seen = BTreeSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let (_, name) = crate::process::resource(limit.typ());
        if !seen.insert(name) {
            return fail(&format!("process.rlimits[{index}]"), format!("{name} is listed twice"));
        }
        if limit.soft() > limit.hard() {
            let (soft, hard) = (limit.soft(), limit.hard());
            let cause = format!("{name}: the soft limit {soft} is above the hard limit {hard}");
            return fail(&format!("process.rlimits[{index}]"), cause);
        }
    }
    if let Some(io) = process.io_priority()
        && !(0..=7).contains(&io.priority())
    {
        return fail("process.ioPriority.priority", format!("{} is not between 0 and 7", io.priority()));
    }
    if let Some(wanted) = process.oom_score_adj()
        && !(-1000..=1000).contains(&wanted)
    {
        return fail("process.oomScoreAdj", format!("{wanted} is not between -1000 and 1000"));
    }
    if let Some(umask) = process.user().umask()
        && umask > 0o777
    {
        return fail("process.user.umask", format!("{umask:o} is above 777"));
    }
    check_scheduler(process)
}

fn check_scheduler(process: &Process) -> Checked {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let Some(scheduler) = process.scheduler() else { return Ok(()) };
    let policy = *scheduler.policy();
    let priority = scheduler.priority().unwrap_or(0);
    if matches!(policy, SchedFifo | SchedRr) && !(1..=99).contains(&priority) {
        return fail(
            "process.scheduler.priority",
            format!("{priority} is not between 1 and 99, as {policy:?} needs it"),
        );
    }
    if !matches!(policy, SchedFifo | SchedRr) && priority != 0 {
        return fail(
            "process.scheduler.priority",
            format!("goes with SCHED_FIFO and SCHED_RR only, not with {policy:?}"),
        );
    }
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) || (nice != 0 && !matches!(policy, SchedOther | SchedBatch)) {
        return fail(
            "process.scheduler.nice",
            format!("{nice}: -20 to 19 go with SCHED_OTHER and SCHED_BATCH"),
        );
    }
    let deadline = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    if policy != SchedDeadline && deadline.iter().any(|value| value.unwrap_or(0) != 0) {
        return fail("process.scheduler", "runtime, deadline and period go with SCHED_DEADLINE only");
    }
    Ok(())
}

fn check_linux(linux: &Linux) -> Checked {
    for (field, paths) in
        [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        let relative = paths.iter().flatten().position(|path| !Path::new(path).is_absolute());
        if let Some(index) = relative {
            return fail(&format!("{field}[{index}]"), "must be an absolute path");
        }
    }
    let mut seen = BTreeSet::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        if !device.path().is_absolute() {
            return fail(&format!("linux.devices[{index}].path"), "must be an absolute path");
        }
        if !seen.insert(device.path()) {
            let cause = format!("{} is listed twice", device.path().display());
            return fail(&format!("linux.devices[{index}]"), cause);
        }
    }
    for (field, maps) in
        [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())]
    {
        for (index, map) in maps.iter().flatten().enumerate() {
            let end = |first: u32| first.checked_add(map.size()).is_none();
            if map.size() == 0 || end(map.container_id()) || end(map.host_id()) {
                let cause = format!("{} ids are none, or more than there are", map.size());
                return fail(&format!("{field}[{index}]"), cause);
            }
        }
    }
    if let Some(rdt) = linux.intel_rdt() {
        crate::rdt::check(rdt)?;
    }
    linux.net_devices().as_ref().map_or(Ok(()), crate::net_devices::check)
}

fn check_hooks(spec: &Spec) -> Checked {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let kinds = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            check_hook(&format!("hooks.{kind}[{index}]"), hook)?;
        }
    }
    Ok(())
}

fn check_hook(field: &str, hook: &Hook) -> Checked {
    if !hook.path().is_absolute() {
        return fail(&format!("{field}.path"), "must be an absolute path");
    }
    if hook.timeout().is_some_and(|timeout| timeout <= 0) {
        return fail(&format!("{field}.timeout"), "must be greater than zero");
    }
    Ok(())
}
