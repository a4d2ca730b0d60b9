//! `create`, `start`, `run`, `kill` and `delete`.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use super::arguments::{Flag, Parsed};
use super::foreground::Foreground;
use super::{Context, Outcome, Problem, text};
use crate::{Console, CreateRequest, Created};

pub(super) const BUNDLE: Flag =
    Flag::value("bundle", Some('b'), "DIR", "the bundle, by default the working directory");
pub(super) const CONSOLE: Flag =
    Flag::value("console-socket", None, "SOCKET", "where the terminal's master goes");
pub(super) const PID_FILE: Flag = Flag::value("pid-file", None, "FILE", "write the pid to a file");
pub(super) const PRESERVE: Flag =
    Flag::value("preserve-fds", None, "N", "pass on N descriptors from 3 on, behind those of LISTEN_FDS");
pub(super) const NO_PIVOT: Flag =
    Flag::switch("no-pivot", None, "for hosts whose root is an initramfs: without pivot_root(2)");
pub(super) const NO_SUBREAPER: Flag = Flag::switch("no-subreaper", None, "accepted, changes nothing");
pub(super) const DETACH: Flag = Flag::switch("detach", Some('d'), "do not wait for its end");
const NO_KEYRING: Flag = Flag::switch("no-new-keyring", None, "leave it the caller's session keyring");

pub(super) const CREATE: &[Flag] = &[BUNDLE, CONSOLE, PID_FILE, PRESERVE, NO_PIVOT, NO_KEYRING];
pub(super) const RUN: &[Flag] = &[
    BUNDLE,
    CONSOLE,
    PID_FILE,
    PRESERVE,
    NO_PIVOT,
    NO_KEYRING,
    NO_SUBREAPER,
    DETACH,
    Flag::switch("keep", None, "do not delete it after its end"),
];
pub(super) const KILL: &[Flag] = &[Flag::switch("all", Some('a'), "to all processes of the container")];
pub(super) const DELETE: &[Flag] =
    &[Flag::switch("force", Some('f'), "kill it first; a container that does not exist is no error")];

/// The id, which is the only word.
pub(super) fn one(parsed: &Parsed) -> Result<&str, Problem> {
    match &parsed.rest[..] {
        [id] => id.to_str().ok_or_else(|| Problem::usage("the container id is not valid UTF-8")),
        [] => Err(Problem::usage("the container id is missing")),
        [_, more, ..] => Err(Problem::usage(format!("unexpected argument {more:?}"))),
    }
}

/// Where the bundle is, and its configuration.
pub(super) fn bundle(parsed: &Parsed) -> Result<(PathBuf, Spec), Problem> {
    let bundle = parsed.path("bundle").unwrap_or_else(|| ".".into());
    let spec = crate::create::load(&bundle.join("config.json"))?;
    Ok((bundle, spec))
}

/// Runs on from a sealed copy in memory.
pub(super) fn seal(context: &Context) -> Result<(), Problem> {
    let sealed = match context.carried {
        Some(program) => crate::sealed::seal_as(program, &context.arguments),
        None => crate::seal_self(),
    };
    sealed.map_err(|error| Problem::usage(format!("running from a sealed copy in memory: {error}")))
}

/// How many descriptors the process inherits: those of socket activation (sd_listen_fds(3)), of which it is told, and the flag's.
pub(super) fn preserved(parsed: &Parsed, process: &mut Process) -> Result<u32, Problem> {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let ours = variable("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    let sockets = variable("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    let more: u32 = parsed.number("preserve-fds")?.unwrap_or(0);
    let count = sockets.saturating_add(more);
    if let Some(missing) = sys::process::missing_to_inherit(3, count) {
        return Err(Problem::usage(format!(
            "descriptor {missing} of the {count} to be preserved is not open"
        )));
    }
    if sockets > 0 {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("LISTEN_FDS={sockets}"));
        env.push("LISTEN_PID=1".into());
        process.set_env(Some(env));
    }
    Ok(count)
}

fn create_from(
    context: &Context,
    parsed: &Parsed,
    (bundle, mut spec): (PathBuf, Spec),
    console: Option<Console>,
) -> Result<Created, Problem> {
    let mut process = spec.process().clone().unwrap_or_default();
    let preserve_fds = preserved(parsed, &mut process)?;
    if spec.process().is_some() {
        spec.set_process(Some(process));
    }
    let mut warnings = Vec::new();
    if crate::rootless::needed()? {
        crate::rootless::enter(&mut spec, &mut warnings)?;
    }
    let inside = crate::rootless::inside();
    let pid_file = parsed.path("pid-file");
    let created = crate::create(CreateRequest {
        id: one(parsed)?,
        bundle: &bundle,
        spec: Some(spec),
        state_root: &context.root,
        rootfs: None,
        volumes: Vec::new(),
        console: console.or_else(|| parsed.path("console-socket").map(Console::SocketPath)),
        pid_file: pid_file.as_deref(),
        preserve_fds,
        systemd_cgroup: context.systemd_cgroup,
        no_pivot: parsed.has("no-pivot"),
        keyring: !parsed.has("no-new-keyring"),
        cgroup_optional: context.rootless.unwrap_or(inside),
        bind_devices: inside,
        check_command: true,
    })?;
    for warning in warnings.iter().chain(&created.warnings) {
        context.log.warning(&warning.to_string());
    }
    Ok(created)
}

pub(super) fn create(context: &Context, parsed: &Parsed) -> Outcome {
    one(parsed)?;
    seal(context)?;
    create_from(context, parsed, bundle(parsed)?, None).map(|_| 0)
}

pub(super) fn start(context: &Context, parsed: &Parsed) -> Outcome {
    Ok(crate::start(&context.root, one(parsed)?).map(|()| 0)?)
}

pub(super) fn run(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    seal(context)?;
    let mut bundle = bundle(parsed)?;
    let (foreground, console) = if parsed.has("detach") {
        (None, None)
    } else {
        let socket = parsed.path("console-socket").is_some();
        let process =
            bundle.1.process().clone().filter(|process| process.terminal().unwrap_or(false) && !socket);
        let terminal = process.is_some();
        if let Some(mut process) = process {
            Foreground::size(&mut process);
            bundle.1.set_process(Some(process));
        }
        let (foreground, console) = Foreground::prepare(terminal)?;
        (Some(foreground), console)
    };
    let created = create_from(context, parsed, bundle, console)?;
    let mut foreground = foreground;
    if let Some(foreground) = &mut foreground {
        foreground.join()?;
    }
    if let Err(error) = crate::start(&context.root, id) {
        let _ = crate::delete(&context.root, id, true);
        return Err(error.into());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.attend(created.pidfd.as_fd());
    if !parsed.has("keep") {
        tell(context, crate::delete(&context.root, id, true)?);
    }
    code
}

fn tell(context: &Context, deleted: crate::Deleted) {
    for warning in &deleted.warnings {
        context.log.warning(&warning.to_string());
    }
}

pub(super) fn kill(context: &Context, parsed: &Parsed) -> Outcome {
    let (id, word) = match &parsed.rest[..] {
        [id] => (id, OsString::from("TERM")),
        [id, signal] => (id, signal.clone()),
        _ => return Err(Problem::usage("kill takes a container id and a signal")),
    };
    let word = word.to_string_lossy();
    let signal = text::signal(&word).ok_or_else(|| Problem::usage(format!("{word:?} is no signal")))?;
    let all = parsed.has("all");
    match crate::kill(&context.root, &id.to_string_lossy(), signal, all) {
        // All of nobody got it.
        Err(crate::KillError::NotRunning { .. }) if all => Ok(0),
        other => Ok(other.map(|()| 0)?),
    }
}

pub(super) fn delete(context: &Context, parsed: &Parsed) -> Outcome {
    let force = parsed.has("force");
    match crate::delete(&context.root, one(parsed)?, force) {
        Ok(deleted) => {
            tell(context, deleted);
            Ok(0)
        }
        Err(crate::DeleteError::Lookup(crate::Lookup::NotFound { .. })) if force => Ok(0),
        Err(error) => Err(error.into()),
    }
}
