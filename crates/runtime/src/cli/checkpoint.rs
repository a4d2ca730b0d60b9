//! The commands that save a container's processes and bring them back, with the flags of runc.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::arguments::{Flag, Parsed};
use super::foreground::Foreground;
use super::lifecycle::{
    BUNDLE, CONSOLE, DETACH, NO_PIVOT, NO_SUBREAPER, PID_FILE, bundle as bundle_of, one, seal,
};
use super::{Context, Outcome, Problem};
use crate::{CheckpointRequest, Console, CreateRequest, CriuOptions, RestoreRequest};

const IMAGES: Flag = Flag::value("image-path", None, "DIR", "the images, by default ./checkpoint");
const WORK: Flag = Flag::value("work-path", None, "DIR", "CRIU's log, by default where the images are");
const TCP: Flag = Flag::switch("tcp-established", None, "with the state of TCP connections");
const UNIX: Flag = Flag::switch("ext-unix-sk", None, "with connections to unix sockets outside");
const LOCKS: Flag = Flag::switch("file-locks", None, "with file locks");
const JOB: Flag = Flag::switch("shell-job", None, "with a terminal of the caller's");
const LINKS: Flag = Flag::switch("link-remap", None, "accepted: unlinked files are always kept by a link");
const DEDUP: Flag = Flag::switch("auto-dedup", None, "take out of the parent's images what is newer here");
const LAZY: Flag = Flag::switch("lazy-pages", None, "memory follows when it is touched (userfaultfd)");
const EMPTY: Flag = Flag::value("empty-ns", None, "network", "the namespace without what was in it");
const CGROUPS: Flag = Flag::value(
    "manage-cgroups-mode",
    None,
    "soft|full|strict|ignore",
    "a cgroup is always the configuration's",
);

pub(super) const CHECKPOINT: &[Flag] = &[
    IMAGES,
    WORK,
    TCP,
    UNIX,
    LOCKS,
    JOB,
    LINKS,
    DEDUP,
    LAZY,
    EMPTY,
    CGROUPS,
    Flag::switch("tcp-skip-in-flight", None, "without TCP connections that are being opened"),
    Flag::value("parent-path", None, "DIR", "an earlier --pre-dump, relative to the images"),
    Flag::switch("pre-dump", None, "memory only; the container goes on"),
    Flag::value("page-server", None, "ADDRESS:PORT", "a page server that keeps the memory"),
    Flag::value("status-fd", None, "N", "a descriptor that tells when lazy pages can be asked for"),
    Flag::switch("leave-running", None, "the container goes on; otherwise it is deleted"),
];

pub(super) const RESTORE: &[Flag] = &[
    IMAGES,
    WORK,
    TCP,
    UNIX,
    LOCKS,
    JOB,
    LINKS,
    DEDUP,
    LAZY,
    EMPTY,
    CGROUPS,
    BUNDLE,
    CONSOLE,
    PID_FILE,
    DETACH,
    NO_SUBREAPER,
    NO_PIVOT,
    Flag::value("lsm-profile", None, "TYPE:NAME", "another security profile than the saved one"),
    Flag::value("lsm-mount-context", None, "CONTEXT", "another SELinux context of mounts than the saved one"),
];

fn folders(parsed: &Parsed) -> (PathBuf, PathBuf) {
    let images = parsed.path("image-path").unwrap_or_else(|| "checkpoint".into());
    let work = parsed.path("work-path").unwrap_or_else(|| images.clone());
    (images, work)
}

/// What both commands pass on to CRIU.
fn more(parsed: &Parsed) -> Result<CriuOptions<'_>, Problem> {
    if let Some(mode) = parsed.text("manage-cgroups-mode")?
        && !["soft", "full", "strict", "ignore"].contains(&mode)
    {
        return Err(Problem::usage(format!(
            "--manage-cgroups-mode {mode:?} is none of soft, full, strict, ignore"
        )));
    }
    let empty = parsed.text("empty-ns")?;
    if let Some(other) = empty.filter(|name| *name != "network") {
        return Err(Problem::usage(format!("--empty-ns {other:?}: only network can be left empty")));
    }
    let page_server = parsed.text("page-server")?.map(|text| {
        let parts = text.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse().ok()?)));
        parts.ok_or_else(|| Problem::usage(format!("--page-server {text:?} is not ADDRESS:PORT")))
    });
    Ok(CriuOptions {
        parent: parsed.text("parent-path")?,
        memory_only: parsed.has("pre-dump"),
        page_server: page_server.transpose()?,
        lazy_pages: parsed.has("lazy-pages"),
        status_fd: parsed.number("status-fd")?,
        auto_dedup: parsed.has("auto-dedup"),
        empty_network: empty.is_some(),
        tcp_skip_in_flight: parsed.has("tcp-skip-in-flight"),
        lsm_profile: parsed.text("lsm-profile")?,
        lsm_mount_context: parsed.text("lsm-mount-context")?,
    })
}

pub(super) fn checkpoint(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    let (images, work) = folders(parsed);
    let more = more(parsed)?;
    for folder in [&images, &work] {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    }
    let leave_running = parsed.has("leave-running") || more.memory_only;
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
        more,
        deadline: None,
    })?;
    if !leave_running {
        crate::delete(&context.root, id, true)?;
    }
    Ok(0)
}

pub(super) fn restore(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    if parsed.has("no-pivot") {
        return Err(Problem::usage("--no-pivot: CRIU has no such way; restore where pivot_root(2) works"));
    }
    seal(context)?;
    let (images, work) = folders(parsed);
    let (bundle, spec) = bundle_of(parsed)?;
    let socket = parsed.path("console-socket").map(Console::SocketPath);
    let (foreground, console) = if parsed.has("detach") {
        (None, socket)
    } else {
        let terminal = spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
        let (foreground, console) = Foreground::prepare(terminal && socket.is_none())?;
        (Some(foreground), console.or(socket))
    };
    let pid_file = parsed.path("pid-file");
    let restored = crate::restore(RestoreRequest {
        create: CreateRequest {
            id,
            bundle: &bundle,
            spec: Some(spec),
            state_root: &context.root,
            rootfs: None,
            volumes: Vec::new(),
            console,
            pid_file: pid_file.as_deref(),
            preserve_fds: 0,
            systemd_cgroup: context.systemd_cgroup,
            no_pivot: false,
            keyring: false,
            cgroup_optional: false,
            bind_devices: false,
            check_command: false,
        },
        criu: &crate::locate_criu(&context.criu),
        images: &images,
        work: &work,
        wait_for_start: false,
        tcp_established: parsed.has("tcp-established"),
        external_unix: parsed.has("ext-unix-sk"),
        file_locks: parsed.has("file-locks"),
        shell_job: parsed.has("shell-job"),
        more: more(parsed)?,
        deadline: None,
    })?;
    for warning in &restored.warnings {
        context.log.warning(&warning.to_string());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.attend(restored.pidfd.as_fd());
    crate::delete(&context.root, id, true)?;
    code
}
