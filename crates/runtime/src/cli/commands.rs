//! The commands of the OCI command line: which there are, their help, and how one is found.

use std::ffi::OsString;

use super::arguments::{Flag, Parsed, parse};
use super::{Context, Outcome, Problem, checkpoint, events, exec, inspect, lifecycle, resources, text};
use lifecycle::one;

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

const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        words: "ID",
        help: "make a container that waits for start",
        flags: lifecycle::CREATE,
        in_front: false,
        action: lifecycle::create,
    },
    Command {
        name: "start",
        words: "ID",
        help: "run the command of a created container",
        flags: &[],
        in_front: false,
        action: lifecycle::start,
    },
    Command {
        name: "run",
        words: "ID",
        help: "create, start, wait and delete",
        flags: lifecycle::RUN,
        in_front: false,
        action: lifecycle::run,
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
        action: inspect::state,
    },
    Command {
        name: "kill",
        words: "ID [SIGNAL]",
        help: "send a signal, by default TERM",
        flags: lifecycle::KILL,
        in_front: false,
        action: lifecycle::kill,
    },
    Command {
        name: "delete",
        words: "ID",
        help: "remove a stopped container",
        flags: lifecycle::DELETE,
        in_front: false,
        action: lifecycle::delete,
    },
    Command {
        name: "list",
        words: "",
        help: "show all containers",
        flags: inspect::LIST,
        in_front: false,
        action: inspect::list,
    },
    Command {
        name: "ps",
        words: "ID [PS OPTIONS...]",
        help: "show the processes of a container",
        flags: inspect::PS,
        in_front: true,
        action: inspect::processes,
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
        name: "events",
        words: "ID",
        help: "show what a container uses, and when it ran out of memory, as JSON",
        flags: events::FLAGS,
        in_front: false,
        action: events::events,
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
        action: inspect::features,
    },
    Command {
        name: "spec",
        words: "",
        help: "write a config.json to start from",
        flags: inspect::SPEC,
        in_front: false,
        action: inspect::spec,
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
    if name == "help" || name == "h" {
        print!("{}", help(super::GLOBAL));
        return Ok(0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What runc 1.1 and 1.4 take (`runc COMMAND --help`), which callers were written for.
    const OF_RUNC: &[(&str, &[&str])] = &[
        (
            "checkpoint",
            &[
                "image-path",
                "work-path",
                "parent-path",
                "leave-running",
                "tcp-established",
                "tcp-skip-in-flight",
                "ext-unix-sk",
                "link-remap",
                "shell-job",
                "lazy-pages",
                "status-fd",
                "page-server",
                "file-locks",
                "pre-dump",
                "manage-cgroups-mode",
                "empty-ns",
                "auto-dedup",
            ],
        ),
        ("create", &["bundle", "console-socket", "pid-file", "no-pivot", "no-new-keyring", "preserve-fds"]),
        ("delete", &["force"]),
        ("events", &["interval", "stats"]),
        (
            "exec",
            &[
                "console-socket",
                "cwd",
                "env",
                "tty",
                "user",
                "additional-gids",
                "process",
                "detach",
                "pid-file",
                "process-label",
                "apparmor",
                "no-new-privs",
                "cap",
                "preserve-fds",
                "cgroup",
                "ignore-paused",
            ],
        ),
        ("features", &[]),
        ("kill", &["all"]),
        ("list", &["format", "quiet"]),
        ("pause", &[]),
        ("ps", &["format"]),
        (
            "restore",
            &[
                "console-socket",
                "image-path",
                "work-path",
                "tcp-established",
                "ext-unix-sk",
                "link-remap",
                "shell-job",
                "file-locks",
                "manage-cgroups-mode",
                "bundle",
                "detach",
                "pid-file",
                "no-subreaper",
                "no-pivot",
                "empty-ns",
                "auto-dedup",
                "lazy-pages",
                "lsm-profile",
                "lsm-mount-context",
            ],
        ),
        ("resume", &[]),
        (
            "run",
            &[
                "bundle",
                "console-socket",
                "detach",
                "keep",
                "pid-file",
                "no-subreaper",
                "no-pivot",
                "no-new-keyring",
                "preserve-fds",
            ],
        ),
        ("spec", &["bundle", "rootless"]),
        ("start", &[]),
        ("state", &[]),
        (
            "update",
            &[
                "resources",
                "blkio-weight",
                "cpu-period",
                "cpu-quota",
                "cpu-burst",
                "cpu-share",
                "cpu-rt-period",
                "cpu-rt-runtime",
                "cpuset-cpus",
                "cpuset-mems",
                "memory",
                "memory-reservation",
                "memory-swap",
                "pids-limit",
                "l3-cache-schema",
                "mem-bw-schema",
                "cpu-idle",
            ],
        ),
    ];

    #[test]
    fn every_flag_of_runc_is_taken() {
        for (name, flags) in OF_RUNC {
            let Some(command) = COMMANDS.iter().find(|command| command.name == *name) else {
                panic!("no {name}")
            };
            for flag in *flags {
                assert!(command.flags.iter().any(|known| known.name == *flag), "{name} --{flag}");
            }
        }
        for flag in
            ["debug", "log", "log-format", "root", "criu", "systemd-cgroup", "rootless", "help", "version"]
        {
            assert!(super::super::GLOBAL.iter().any(|known| known.name == flag), "--{flag}");
        }
    }
}
