//! The commands that save a container's processes and bring them back, with the flags of runc.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::arguments::{Flag, Parsed};
use super::commands::{BUNDLE, CONSOLE, PID_FILE, one, wait};
use super::{Context, Outcome, Problem};
use crate::{CheckpointRequest, Console, CreateRequest, RestoreRequest};

const IMAGES: Flag = Flag::value("image-path", None, "DIR", "the images, by default ./checkpoint");
const WORK: Flag = Flag::value("work-path", None, "DIR", "CRIU's log, by default where the images are");
const TCP: Flag = Flag::switch("tcp-established", None, "with the state of TCP connections");
const UNIX: Flag = Flag::switch("ext-unix-sk", None, "with connections to unix sockets outside");
const LOCKS: Flag = Flag::switch("file-locks", None, "with file locks");
const JOB: Flag = Flag::switch("shell-job", None, "with a terminal of the caller's");

pub(super) const CHECKPOINT: &[Flag] = &[
    IMAGES,
    WORK,
    TCP,
    UNIX,
    LOCKS,
    JOB,
    Flag::switch("leave-running", None, "the container goes on; otherwise it is deleted"),
];

pub(super) const RESTORE: &[Flag] = &[
    IMAGES,
    WORK,
    TCP,
    UNIX,
    LOCKS,
    JOB,
    BUNDLE,
    CONSOLE,
    PID_FILE,
    Flag::switch("detach", Some('d'), "do not wait for the container's end and then delete it"),
];

fn folders(parsed: &Parsed) -> (PathBuf, PathBuf) {
    let images = parsed.path("image-path").unwrap_or_else(|| "checkpoint".into());
    let work = parsed.path("work-path").unwrap_or_else(|| images.clone());
    (images, work)
}

pub(super) fn checkpoint(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    let (images, work) = folders(parsed);
    for folder in [&images, &work] {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    }
    let leave_running = parsed.has("leave-running");
    crate::checkpoint(&CheckpointRequest {
        id,
        state_root: &context.root,
        criu: &crate::locate_criu(&context.criu),
        images: &images,
        work: &work,
        pipes: None,
        leave_running,
        tcp_established: parsed.has("tcp-established"),
        external_unix: parsed.has("ext-unix-sk"),
        file_locks: parsed.has("file-locks"),
        shell_job: parsed.has("shell-job"),
        deadline: None,
    })?;
    if !leave_running {
        crate::delete(&context.root, id, true)?;
    }
    Ok(0)
}

pub(super) fn restore(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    crate::seal_self()
        .map_err(|error| Problem::usage(format!("running from a sealed copy in memory: {error}")))?;
    let (images, work) = folders(parsed);
    let pid_file = parsed.path("pid-file");
    let restored = crate::restore(RestoreRequest {
        create: CreateRequest {
            id,
            bundle: &parsed.path("bundle").unwrap_or_else(|| ".".into()),
            spec: None,
            state_root: &context.root,
            rootfs: None,
            volumes: Vec::new(),
            console: parsed.path("console-socket").map(Console::SocketPath),
            pid_file: pid_file.as_deref(),
            preserve_fds: 0,
            systemd_cgroup: context.systemd_cgroup,
        },
        criu: &crate::locate_criu(&context.criu),
        images: &images,
        work: &work,
        wait_for_start: false,
        tcp_established: parsed.has("tcp-established"),
        external_unix: parsed.has("ext-unix-sk"),
        file_locks: parsed.has("file-locks"),
        shell_job: parsed.has("shell-job"),
        deadline: None,
    })?;
    for warning in &restored.warnings {
        context.log.warning(&warning.to_string());
    }
    if parsed.has("detach") {
        return Ok(0);
    }
    let code = wait(restored.pidfd.as_fd())?;
    crate::delete(&context.root, id, true)?;
    Ok(code)
}
