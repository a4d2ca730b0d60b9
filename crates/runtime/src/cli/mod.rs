//! The OCI command line (`pintle oci ...`), with the words and exit codes of runc, so that shims and engines written for it can use it.

mod arguments;
mod checkpoint;
mod commands;
mod exec;
mod log;
mod resources;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Flag, Parsed};
use log::{Format, Log};
pub use text::timestamp;

/// Where states are kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/pintle/oci";

const GLOBAL: &[Flag] = &[
    Flag::value("root", None, "DIR", "directory of the containers' states"),
    Flag::value("log", None, "FILE", "append errors and warnings to a file"),
    Flag::value("log-format", None, "text|json", "format of the log"),
    Flag::switch("debug", None, "accepted, changes nothing"),
    Flag::switch("systemd-cgroup", None, "cgroupsPath is slice:prefix:name"),
    Flag::value("rootless", None, "auto|true|false", "accepted, changes nothing"),
    Flag::value("criu", None, "PATH", "the program for checkpoint and restore, by default criu"),
    Flag::switch("help", Some('h'), "show this help"),
    Flag::switch("version", Some('v'), "show the version"),
];

/// What all commands share.
#[derive(Debug)]
struct Context {
    root: PathBuf,
    systemd_cgroup: bool,
    criu: PathBuf,
    log: Log,
}

/// How a command ended.
type Outcome = Result<u8, Problem>;

/// Why a command failed: the message, and the exit code.
#[derive(Debug)]
struct Problem {
    message: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Problem {
        Problem { message: error.to_string(), code: 1 }
    }
}

impl Problem {
    fn usage(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), code: 1 }
    }
}

/// Runs the OCI command line with the arguments behind the program's name. `create`, `run` and `exec` start this program again from
/// a sealed copy in memory first, with the same arguments.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let global = match arguments::parse(GLOBAL, &arguments, true) {
        Ok(global) => global,
        Err(message) => {
            eprintln!("pintle oci: {message}; see --help");
            return ExitCode::FAILURE;
        }
    };
    if global.has("version") {
        println!("pintle oci version {}\nspec: {}", env!("CARGO_PKG_VERSION"), crate::record::OCI_VERSION);
        return ExitCode::SUCCESS;
    }
    let Some((name, rest)) = global.rest.split_first().filter(|_| !global.has("help")) else {
        print!("{}", commands::help(GLOBAL));
        return if global.has("help") { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let context = match context(&global) {
        Ok(context) => context,
        Err(problem) => {
            eprintln!("pintle oci: {}", problem.message);
            return ExitCode::from(problem.code);
        }
    };
    match commands::run(&context, &name.to_string_lossy(), rest) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            context.log.error(&problem.message);
            ExitCode::from(problem.code)
        }
    }
}

fn context(global: &Parsed) -> Result<Context, Problem> {
    let format = match global.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Problem::usage(format!("--log-format {other:?} is neither text nor json")));
        }
    };
    Ok(Context {
        root: global.path("root").unwrap_or_else(|| DEFAULT_ROOT.into()),
        systemd_cgroup: global.has("systemd-cgroup"),
        criu: global.path("criu").unwrap_or_else(|| "criu".into()),
        log: Log::open(global.path("log").as_deref(), format)?,
    })
}
