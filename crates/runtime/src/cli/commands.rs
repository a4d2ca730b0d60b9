//! The commands of the OCI command line.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use super::arguments::{Flag, Parsed, parse};
use super::{Context, Outcome, Problem, checkpoint, exec, resources, text};
use crate::{Console, CreateRequest, Status};

/// A command: its name, its flags, its other words, and what it does.
struct Command {
    name: &'static str,
    words: &'static str,
    help: &'static str,
    flags: &'static [Flag],
    /// Flags stand before the first other word only, as what follows is somebody else's command line.
    in_front: bool,
    action: fn(&Context, &Parsed) -> Outcome,
}

pub(super) const BUNDLE: Flag =
    Flag::value("bundle", Some('b'), "DIR", "the bundle, by default the working directory");
pub(super) const CONSOLE: Flag =
    Flag::value("console-socket", None, "SOCKET", "where the terminal's master goes");
pub(super) const PID_FILE: Flag = Flag::value("pid-file", None, "FILE", "write the pid to a file");
pub(super) const PRESERVE: Flag = Flag::value("preserve-fds", None, "N", "pass on N descriptors from 3 on");
const NO_PIVOT: Flag = Flag::switch("no-pivot", None, "refused: pivot_root is always used");
const NO_KEYRING: Flag = Flag::switch("no-new-keyring", None, "accepted, changes nothing");
const FORMAT: Flag = Flag::value("format", Some('f'), "table|json", "format of the output");

const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        words: "ID",
        help: "make a container that waits for start",
        flags: &[BUNDLE, CONSOLE, PID_FILE, PRESERVE, NO_PIVOT, NO_KEYRING],
        in_front: false,
        action: create,
    },
    Command {
        name: "start",
        words: "ID",
        help: "run the command of a created container",
        flags: &[],
        in_front: false,
        action: start,
    },
    Command {
        name: "run",
        words: "ID",
        help: "create, start, wait and delete",
        flags: &[
            BUNDLE,
            CONSOLE,
            PID_FILE,
            PRESERVE,
            NO_PIVOT,
            NO_KEYRING,
            Flag::switch("detach", Some('d'), "do not wait"),
            Flag::switch("keep", None, "do not delete"),
        ],
        in_front: false,
        action: run_container,
    },
    Command {
        name: "exec",
        words: "ID [COMMAND...]",
        help: "run another process in a container",
        flags: exec::FLAGS,
        in_front: true,
        action: exec::run,
    },
    Command {
        name: "state",
        words: "ID",
        help: "show the state as JSON",
        flags: &[],
        in_front: false,
        action: state,
    },
    Command {
        name: "kill",
        words: "ID [SIGNAL]",
        help: "send a signal, by default TERM",
        flags: &[Flag::switch("all", Some('a'), "to all processes of the container")],
        in_front: false,
        action: kill,
    },
    Command {
        name: "delete",
        words: "ID",
        help: "remove a stopped container",
        flags: &[Flag::switch(
            "force",
            Some('f'),
            "kill it first; a container that does not exist is no error",
        )],
        in_front: false,
        action: delete,
    },
    Command {
        name: "list",
        words: "",
        help: "show all containers",
        flags: &[FORMAT, Flag::switch("quiet", Some('q'), "ids only")],
        in_front: false,
        action: list,
    },
    Command {
        name: "ps",
        words: "ID [PS OPTIONS...]",
        help: "show the processes of a container",
        flags: &[FORMAT],
        in_front: true,
        action: processes,
    },
    Command {
        name: "pause",
        words: "ID",
        help: "freeze all processes of a container",
        flags: &[],
        in_front: false,
        action: |context, parsed| Ok(crate::pause(&context.root, one(parsed)?).map(|()| 0)?),
    },
    Command {
        name: "resume",
        words: "ID",
        help: "thaw all processes of a container",
        flags: &[],
        in_front: false,
        action: |context, parsed| Ok(crate::resume(&context.root, one(parsed)?).map(|()| 0)?),
    },
    Command {
        name: "update",
        words: "ID",
        help: "change the resources of a container",
        flags: resources::FLAGS,
        in_front: false,
        action: resources::update,
    },
    Command {
        name: "checkpoint",
        words: "ID",
        help: "write the state of a running container's processes into files (CRIU)",
        flags: checkpoint::CHECKPOINT,
        in_front: false,
        action: checkpoint::checkpoint,
    },
    Command {
        name: "restore",
        words: "ID",
        help: "make a container with the processes of a checkpoint (CRIU)",
        flags: checkpoint::RESTORE,
        in_front: false,
        action: checkpoint::restore,
    },
    Command {
        name: "features",
        words: "",
        help: "show what this runtime can do, as JSON",
        flags: &[],
        in_front: false,
        action: |_, _| print_json(&crate::features()),
    },
    Command {
        name: "spec",
        words: "",
        help: "write a config.json to start from",
        flags: &[BUNDLE, Flag::switch("rootless", None, "for a user namespace of the caller's ids")],
        in_front: false,
        action: spec,
    },
];

pub(super) fn help(global: &[Flag]) -> String {
    let mut text =
        "pintle oci: an OCI runtime\n\nUsage: pintle oci [FLAGS] COMMAND [...]\n\nCommands:\n".to_string();
    let rows: Vec<_> = COMMANDS
        .iter()
        .map(|command| {
            vec![format!("  {} {}", command.name, command.words).trim_end().into(), command.help.into()]
        })
        .collect();
    text.push_str(&text::table(&rows));
    text.push_str("\nFlags:\n");
    text.push_str(&flags(global));
    text
}

fn flags(flags: &[Flag]) -> String {
    let row = |flag: &Flag| {
        let short = flag.short.map_or("    ".into(), |short| format!("-{short}, "));
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        vec![format!("  {short}--{}{value}", flag.name), flag.help.into()]
    };
    text::table(&flags.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn run(context: &Context, name: &str, arguments: &[OsString]) -> Outcome {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(Problem::usage(format!("there is no command {name:?}; see --help")));
    };
    let mut known = command.flags.to_vec();
    known.push(Flag::switch("help", Some('h'), "show this help"));
    let parsed =
        parse(&known, arguments, command.in_front).map_err(|m| Problem::usage(format!("{name}: {m}")))?;
    if parsed.has("help") {
        println!(
            "Usage: pintle oci {} [FLAGS] {}\n\n{}\n\nFlags:",
            command.name, command.words, command.help
        );
        print!("{}", flags(&known));
        return Ok(0);
    }
    (command.action)(context, &parsed)
}

/// The id, which is the only word.
pub(super) fn one(parsed: &Parsed) -> Result<&str, Problem> {
    match &parsed.rest[..] {
        [id] => id.to_str().ok_or_else(|| Problem::usage("the container id is not valid UTF-8")),
        [] => Err(Problem::usage("the container id is missing")),
        [_, more, ..] => Err(Problem::usage(format!("unexpected argument {more:?}"))),
    }
}

fn print_json(value: &serde_json::Value) -> Outcome {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

fn create_from(context: &Context, parsed: &Parsed) -> Result<crate::Created, Problem> {
    let id = one(parsed)?;
    if parsed.has("no-pivot") {
        return Err(Problem::usage("--no-pivot is not supported: it leaves the host's root within reach"));
    }
    crate::seal_self()
        .map_err(|error| Problem::usage(format!("running from a sealed copy in memory: {error}")))?;
    let pid_file = parsed.path("pid-file");
    let created = crate::create(CreateRequest {
        id,
        bundle: &parsed.path("bundle").unwrap_or_else(|| ".".into()),
        spec: None,
        state_root: &context.root,
        rootfs: None,
        volumes: Vec::new(),
        console: parsed.path("console-socket").map(Console::SocketPath),
        pid_file: pid_file.as_deref(),
        preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
        systemd_cgroup: context.systemd_cgroup,
    })?;
    for warning in &created.warnings {
        context.log.warning(&warning.to_string());
    }
    Ok(created)
}

fn create(context: &Context, parsed: &Parsed) -> Outcome {
    create_from(context, parsed).map(|_| 0)
}

fn start(context: &Context, parsed: &Parsed) -> Outcome {
    Ok(crate::start(&context.root, one(parsed)?).map(|()| 0)?)
}

fn run_container(context: &Context, parsed: &Parsed) -> Outcome {
    let created = create_from(context, parsed)?;
    let id = one(parsed)?;
    if let Err(error) = crate::start(&context.root, id) {
        let _ = crate::delete(&context.root, id, true);
        return Err(error.into());
    }
    if parsed.has("detach") {
        return Ok(0);
    }
    let code = wait(created.pidfd.as_fd())?;
    if !parsed.has("keep") {
        crate::delete(&context.root, id, true)?;
    }
    Ok(code)
}

/// Waits for a child's end and gives its exit code, 128 + number for a signal.
pub(super) fn wait(pidfd: std::os::fd::BorrowedFd<'_>) -> Result<u8, Problem> {
    let code = sys::process::wait_child(pidfd)?;
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn state(context: &Context, parsed: &Parsed) -> Outcome {
    let (record, status) = crate::state(&context.root, one(parsed)?)?;
    let mut state = record.oci_state(status);
    if status == Status::Stopped {
        state["pid"] = 0.into();
    }
    state["created"] = text::timestamp(record.created_secs).into();
    state["rootfs"] = record.rootfs.as_deref().unwrap_or(Path::new("")).display().to_string().into();
    print_json(&state)
}

fn kill(context: &Context, parsed: &Parsed) -> Outcome {
    let (id, word) = match &parsed.rest[..] {
        [id] => (id, OsString::from("TERM")),
        [id, signal] => (id, signal.clone()),
        _ => return Err(Problem::usage("kill takes a container id and a signal")),
    };
    let word = word.to_string_lossy();
    let signal = text::signal(&word).ok_or_else(|| Problem::usage(format!("{word:?} is no signal")))?;
    crate::kill(&context.root, &id.to_string_lossy(), signal, parsed.has("all"))?;
    Ok(0)
}

fn delete(context: &Context, parsed: &Parsed) -> Outcome {
    let force = parsed.has("force");
    match crate::delete(&context.root, one(parsed)?, force) {
        Ok(deleted) => {
            for warning in &deleted.warnings {
                context.log.warning(&warning.to_string());
            }
            Ok(0)
        }
        Err(crate::DeleteError::Lookup(crate::Lookup::NotFound { .. })) if force => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn list(context: &Context, parsed: &Parsed) -> Outcome {
    let format = parsed.text("format")?.unwrap_or("table");
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(String::from).to_vec()];
    let mut documents = Vec::new();
    for entry in crate::list(&context.root)? {
        let (record, status) = match entry {
            Ok(found) => found,
            Err(error) => {
                context.log.warning(&error.to_string());
                continue;
            }
        };
        if parsed.has("quiet") {
            println!("{}", record.id);
            continue;
        }
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        let created = text::timestamp(record.created_secs);
        let mut document = record.oci_state(status);
        document["pid"] = pid.into();
        document["created"] = created.clone().into();
        documents.push(document);
        rows.push(vec![
            record.id,
            pid.to_string(),
            status.to_string(),
            record.bundle.display().to_string(),
            created,
        ]);
    }
    match (parsed.has("quiet"), format) {
        (true, _) => Ok(0),
        (false, "json") => print_json(&documents.into()),
        (false, "table") => {
            print!("{}", text::table(&rows));
            Ok(0)
        }
        (false, other) => Err(Problem::usage(format!("--format {other:?} is neither table nor json"))),
    }
}

fn processes(context: &Context, parsed: &Parsed) -> Outcome {
    let id = parsed.rest.first().ok_or_else(|| Problem::usage("the container id is missing"))?;
    let pids = crate::processes(&context.root, &id.to_string_lossy())?;
    match parsed.text("format")?.unwrap_or("table") {
        "json" => print_json(&serde_json::json!(pids)),
        "table" => {
            let mut rows = vec![["PID", "STATE", "COMMAND"].map(String::from).to_vec()];
            for pid in pids {
                // A process may end between the list and the look: it is left out.
                let Ok((letter, _)) = sys::process::stat_fields(pid) else { continue };
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
                let clean = words.join(" ").replace(|c: char| c.is_control(), "?");
                rows.push(vec![pid.to_string(), letter.to_string(), clean.trim_end().into()]);
            }
            print!("{}", text::table(&rows));
            Ok(0)
        }
        other => Err(Problem::usage(format!("--format {other:?} is neither table nor json"))),
    }
}

fn spec(_: &Context, parsed: &Parsed) -> Outcome {
    let spec = if parsed.has("rootless") {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        oci_spec::runtime::Spec::rootless(uid, gid)
    } else {
        crate::default_spec()
    };
    let path = parsed.path("bundle").unwrap_or_else(|| ".".into()).join("config.json");
    let mut file = std::fs::File::options().write(true).create_new(true).open(&path).map_err(|error| {
        Problem::usage(format!("{}: {error}; a file that exists is not replaced", path.display()))
    })?;
    serde_json::to_writer_pretty(&mut file, &spec)?;
    Ok(0)
}
