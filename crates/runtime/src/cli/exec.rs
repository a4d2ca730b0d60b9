//! `exec`: another process in a container, described by flags or by a file.

use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::arguments::{Flag, Parsed};
use super::foreground::Foreground;
use super::lifecycle::{CONSOLE, DETACH, PID_FILE, PRESERVE, preserved, seal};
use super::{Context, Outcome, Problem};
use crate::{Console, ExecRequest};
use std::os::fd::AsFd;

pub(super) const FLAGS: &[Flag] = &[
    CONSOLE,
    PID_FILE,
    PRESERVE,
    Flag::value("process", Some('p'), "FILE", "the process as JSON; other flags are not used then"),
    Flag::value("cwd", None, "DIR", "working directory"),
    Flag::value("env", Some('e'), "NAME=VALUE", "an environment variable"),
    Flag::value("user", Some('u'), "UID[:GID]", "user and group"),
    Flag::value("additional-gids", Some('g'), "GID", "a supplementary group"),
    Flag::value("cap", Some('c'), "CAP", "one more capability"),
    Flag::value("apparmor", None, "PROFILE", "AppArmor profile"),
    Flag::value("process-label", None, "LABEL", "SELinux label"),
    Flag::switch("no-new-privs", None, "no more privileges by exec"),
    Flag::switch("tty", Some('t'), "with a terminal"),
    Flag::value(
        "cgroup",
        None,
        "[CONTROLLERS:]PATH",
        "a cgroup below the container's, which exists, to run in",
    ),
    Flag::switch("ignore-paused", None, "also in a paused container"),
    DETACH,
];

pub(super) fn run(context: &Context, parsed: &Parsed) -> Outcome {
    execute(context, parsed).map_err(|problem| Problem { code: 255, ..problem })
}

fn execute(context: &Context, parsed: &Parsed) -> Outcome {
    let id =
        parsed.rest.first().ok_or_else(|| Problem::usage("the container id is missing"))?.to_string_lossy();
    seal(context)?;
    let mut process = match parsed.path("process") {
        Some(path) => crate::json_place::parse_with_process(&std::fs::read(&path)?, "")
            .map_err(|cause| Problem::usage(format!("{}: {cause}", path.display())))?,
        None => from_flags(context, parsed, &id)?,
    };
    let preserve_fds = preserved(parsed, &mut process)?;
    let socket = parsed.path("console-socket").map(Console::SocketPath);
    let (foreground, console) = if parsed.has("detach") {
        (None, socket)
    } else {
        let terminal = process.terminal().unwrap_or(false) && socket.is_none();
        if terminal {
            Foreground::size(&mut process);
        }
        let (foreground, console) = Foreground::prepare(terminal)?;
        (Some(foreground), console.or(socket))
    };
    if crate::rootless::needed()? {
        crate::rootless::enter_that_of(&crate::state(&context.root, &id)?.0)?;
    }
    let pid_file = parsed.path("pid-file");
    let executed = crate::exec(ExecRequest {
        state_root: &context.root,
        id: &id,
        process,
        console,
        pid_file: pid_file.as_deref(),
        preserve_fds,
        // Version 1 has the same groups in every hierarchy, which are entered all together: naming controllers changes nothing.
        cgroup: parsed.text("cgroup")?.map(|path| path.rsplit_once(':').map_or(path, |(_, path)| path)),
        ignore_paused: parsed.has("ignore-paused"),
    })?;
    for warning in &executed.warnings {
        context.log.warning(&warning.to_string());
    }
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.attend(executed.pidfd.as_fd()),
    }
}

/// The container's own process with what the flags change, as the bundle has it.
fn from_flags(context: &Context, parsed: &Parsed, id: &str) -> Result<Process, Problem> {
    let (record, _) = crate::state(&context.root, id)?;
    let config = std::fs::read(record.bundle.join("config.json"))?;
    let spec: oci_spec::runtime::Spec = serde_json::from_slice(&config)?;
    let mut process = spec.process().clone().unwrap_or_default();
    let words: Vec<String> =
        parsed.rest[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.is_empty() {
        return Err(Problem::usage("there is nothing to execute: give a command or --process"));
    }
    process.set_args(Some(words));
    process.set_terminal(Some(parsed.has("tty")));
    if let Some(cwd) = parsed.path("cwd") {
        process.set_cwd(cwd);
    }
    let more = parsed.all("env").map(|pair| pair.to_string_lossy().into_owned());
    let env = process.env().iter().flatten().cloned().chain(more).collect();
    process.set_env(Some(env));
    if let Some(user) = parsed.text("user")? {
        set_user(&mut process, user)?;
    }
    let groups: Vec<u32> =
        parsed.all("additional-gids").map(|gid| id_of(&gid.to_string_lossy())).collect::<Result<_, _>>()?;
    if !groups.is_empty() {
        process.user_mut().set_additional_gids(Some(groups));
    }
    if parsed.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = parsed.text("apparmor")? {
        process.set_apparmor_profile(Some(profile.into()));
    }
    if let Some(label) = parsed.text("process-label")? {
        process.set_selinux_label(Some(label.into()));
    }
    add_capabilities(&mut process, parsed)?;
    Ok(process)
}

/// `UID[:GID]` in decimal digits. Nothing else is taken: a name or a number out of range never becomes another user.
fn set_user(process: &mut Process, text: &str) -> Result<(), Problem> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let uid = id_of(uid)?;
    let gid = gid.map(id_of).transpose()?;
    let user = process.user_mut();
    user.set_uid(uid);
    user.set_gid(gid.unwrap_or(0));
    Ok(())
}

fn id_of(text: &str) -> Result<u32, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|id| digits && *id != u32::MAX)
        .ok_or_else(|| Problem::usage(format!("{text:?} is no user or group id (0 to 4294967294)")))
}

fn add_capabilities(process: &mut Process, parsed: &Parsed) -> Result<(), Problem> {
    let more: Vec<Capability> = parsed
        .all("cap")
        .map(|name| {
            let name = name.to_string_lossy();
            serde_json::from_value(serde_json::Value::String(name.to_string()))
                .map_err(|_| Problem::usage(format!("{name:?} is no capability")))
        })
        .collect::<Result<_, _>>()?;
    if more.is_empty() {
        return Ok(());
    }
    let mut sets: LinuxCapabilities = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        Some(set.iter().flatten().copied().chain(more.iter().copied()).collect())
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_users() {
        for (text, uid, gid) in [("0", 0, 0), ("1000:50", 1000, 50), ("4294967294", 4_294_967_294, 0)] {
            let mut process = Process::default();
            set_user(&mut process, text).unwrap();
            assert_eq!((process.user().uid(), process.user().gid()), (uid, gid));
        }
        for bad in [
            "-1",
            "4294967295",
            "4294967296",
            "100000000000000000000",
            "0x0",
            "1:",
            ":1",
            "",
            "root",
            "+1",
            " 1",
        ] {
            assert!(set_user(&mut Process::default(), bad).is_err(), "{bad}");
        }
    }
}
