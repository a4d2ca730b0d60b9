//! The OCI command line (`pintle oci ...`), with the words and exit codes of runc, so that shims and engines written for it can use it.

mod arguments;
mod checkpoint;
mod commands;
mod events;
mod exec;
mod foreground;
mod inspect;
mod lifecycle;
mod log;
mod resources;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Flag, Parsed};
use log::{Format, Log};
pub use text::timestamp;

/// Where root's states are kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/pintle/oci";

const GLOBAL: &[Flag] = &[
    Flag::value("root", None, "DIR", "directory of the containers' states"),
    Flag::value("log", None, "FILE", "append errors and warnings to a file"),
    Flag::value("log-format", None, "text|json", "format of the log"),
    Flag::switch("debug", None, "warnings on standard error also if that is no terminal"),
    Flag::switch("systemd-cgroup", None, "cgroupsPath is slice:prefix:name"),
    Flag::value(
        "rootless",
        None,
        "auto|true|false",
        "go on without a cgroup where none may be made; auto: if not root",
    ),
    Flag::value("criu", None, "PATH", "the program for checkpoint and restore, by default criu"),
    Flag::switch("help", Some('h'), "show this help"),
    Flag::switch("version", Some('v'), "show the version"),
];

/// What all commands share.
#[derive(Debug)]
struct Context {
    root: PathBuf,
    systemd_cgroup: bool,
    /// Whether the folder was named; then it has to be there to be read.
    root_is_named: bool,
    criu: PathBuf,
    log: Log,
    /// The program that runs on sealed where this one is larger than it need be, and what it is given.
    carried: Option<&'static [u8]>,
    arguments: Vec<OsString>,
    /// Whether a container may go without a cgroup; by itself if this is not the host's root.
    rootless: Option<bool>,
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

/// Runs the OCI command line with the arguments behind the program's name. `create`, `run`, `exec` and `restore` run on from a sealed
/// copy in memory: of `carried`, a small program that has this command line as its command `oci`, else of this program.
pub fn main(arguments: impl Iterator<Item = OsString>, carried: Option<&'static [u8]>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let global = match arguments::parse(GLOBAL, &arguments, true) {
        Ok(global) => global,
        Err(message) => {
            eprintln!("pintle oci: {message}; see --help");
            return ExitCode::FAILURE;
        }
    };
    if global.has("version") {
        // Three lines, of which callers of runc read what stands behind "version", "commit" and "spec".
        let version = env!("CARGO_PKG_VERSION");
        println!("pintle-oci version {version}\ncommit: v{version}\nspec: {}", crate::record::OCI_VERSION);
        return ExitCode::SUCCESS;
    }
    let Some((name, rest)) = global.rest.split_first().filter(|_| !global.has("help")) else {
        print!("{}", commands::help(GLOBAL));
        return if global.has("help") { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let context = match context(&global, &arguments, carried) {
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

/// Where states are kept unless something else is asked for: those of an ordinary user where only that user may write.
fn default_root() -> Result<PathBuf, Problem> {
    let user = rustix::process::geteuid();
    // Root of a user namespace, as rootless engines are, is an ordinary user outside.
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    match folder {
        Some(folder) if !user.is_root() || crate::rootless::inside() => {
            return Ok(PathBuf::from(folder).join("pintle-oci"));
        }
        _ if user.is_root() => return Ok(DEFAULT_ROOT.into()),
        _ => {}
    }
    let path = std::env::temp_dir().join(format!("pintle-oci-{}", user.as_raw()));
    let made = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&path);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let stat = std::fs::symlink_metadata(&path)?;
    use std::os::unix::fs::MetadataExt;
    if !stat.is_dir() || stat.uid() != user.as_raw() || stat.mode() & 0o077 != 0 {
        let why = format!("{} is not a folder of yours alone; set XDG_RUNTIME_DIR or --root", path.display());
        return Err(Problem::usage(why));
    }
    Ok(path)
}

fn context(
    global: &Parsed,
    arguments: &[OsString],
    carried: Option<&'static [u8]>,
) -> Result<Context, Problem> {
    let format = match global.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Problem::usage(format!("--log-format {other:?} is neither text nor json")));
        }
    };
    let rootless = match global.text("rootless")? {
        None | Some("auto") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => {
            return Err(Problem::usage(format!("--rootless {other:?} is none of auto, true, false")));
        }
    };
    Ok(Context {
        rootless,
        root_is_named: global.path("root").is_some(),
        root: global.path("root").map_or_else(default_root, Ok)?,
        systemd_cgroup: global.has("systemd-cgroup"),
        criu: global.path("criu").unwrap_or_else(|| "criu".into()),
        log: Log::open(global.path("log").as_deref(), format, global.has("debug"))?,
        carried,
        arguments: arguments.to_vec(),
    })
}
